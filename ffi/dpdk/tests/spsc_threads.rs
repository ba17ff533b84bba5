//! A ring between two registered threads: everything arrives, in order, with its metadata.

mod common;

use common::{eal, number, numbered, pool};
use dpdk::{Burst, SpscRing, ThreadRegistration, pin_current_thread};

const PACKETS: u64 = 1_000_000;

#[test]
fn packets_cross_threads_in_order() {
    let eal = eal();
    let pool = pool(&eal, "packets", 1023, 64);
    assert!(SpscRing::new(&eal, 0).is_err());
    let (mut producer, mut consumer) = SpscRing::new(&eal, 100).unwrap().split();

    let (sender_eal, sender_pool) = (eal.clone(), pool.clone());
    let sender = std::thread::spawn(move || {
        pin_current_thread(0).unwrap();
        let registration = ThreadRegistration::new(&sender_eal).unwrap();
        assert!(ThreadRegistration::new(&sender_eal).is_err(), "one registration a thread");
        assert!(registration.lcore() < 128);
        let mut next = 0;
        let mut burst = Burst::<32>::new();
        while next < PACKETS || !burst.is_empty() {
            while next < PACKETS && !burst.is_full() && sender_pool.available() > 0 {
                let mut mbuf = numbered(&sender_pool, next);
                mbuf.set_meta([next << 32 | 5, u64::MAX - next]);
                burst.push(mbuf).unwrap();
                next += 1;
            }
            if producer.enqueue_burst(&mut burst) == 0 {
                std::thread::yield_now();
            }
        }
        producer
    });

    let registration = ThreadRegistration::new(&eal).unwrap();
    let mut seen = 0;
    let mut burst = Burst::<32>::new();
    while seen < PACKETS {
        if consumer.dequeue_burst(&mut burst) == 0 {
            std::thread::yield_now();
        }
        for mbuf in burst.drain() {
            assert_eq!(number(&mbuf), seen);
            assert_eq!(mbuf.meta(), [seen << 32 | 5, u64::MAX - seen]);
            seen += 1;
        }
    }
    let mut producer = sender.join().unwrap();
    assert!(consumer.is_empty());
    assert_eq!(pool.in_use(), 0);

    // It holds exactly what it was made for, gives the rest back, and frees what is left in it.
    let mut burst = Burst::<128>::new();
    assert!(pool.alloc_into(&mut burst, 128));
    assert_eq!(producer.enqueue_burst(&mut burst), 100);
    assert_eq!((burst.len(), producer.len()), (28, 100));
    drop(burst);
    assert_eq!(pool.in_use(), 100);
    drop(producer);
    assert_eq!(pool.in_use(), 100);
    drop(consumer);
    assert_eq!(pool.in_use(), 0);
    drop(registration);

    // 127 slots: a guard that didn't give its one back would run out.
    for _ in 0..300 {
        let eal = eal.clone();
        let thread = std::thread::spawn(move || ThreadRegistration::new(&eal).map(drop));
        thread.join().unwrap().unwrap();
    }
}
