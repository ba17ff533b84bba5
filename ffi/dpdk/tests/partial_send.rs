//! A wire that is full takes a part; the rest stays ours, in order, and is freed once.

mod common;

use common::{eal, number, numbered, numbers, pool};
use dpdk::{Burst, PortConfig, PortError, RingPort};

#[test]
fn what_is_not_sent_stays() {
    let eal = eal();
    let pool = pool(&eal, "packets", 4095, 0);
    let (mut port, mut ends) = RingPort::create(&eal, "wire", 1).unwrap();
    port.configure(PortConfig::new(pool.clone(), 1)).unwrap();
    port.start().unwrap();
    let mut tx = port.tx_queue(0).unwrap();
    let again = port.tx_queue(0);
    assert!(matches!(again, Err(PortError::QueueTaken { index: 0, .. })), "{again:?}");
    let missing = port.tx_queue(1);
    assert!(matches!(missing, Err(PortError::NoSuchQueue { count: 1, .. })), "{missing:?}");

    // The wire holds 1024: 1000 go, then 24 of 32, then none.
    let mut burst = Burst::<32>::new();
    for next in 0..1000 {
        burst.push(numbered(&pool, next)).unwrap();
        assert_eq!(tx.send(&mut burst), 1);
    }
    for next in 1000..1032 {
        burst.push(numbered(&pool, next)).unwrap();
    }
    assert_eq!(tx.send(&mut burst), 24);
    assert_eq!(numbers(&burst), (1024..1032).collect::<Vec<_>>());
    assert_eq!(pool.in_use(), 1032);
    assert_eq!(tx.send(&mut burst), 0);
    assert_eq!(burst.len(), 8);

    // Room for three: send_all sends them and frees five.
    let mut few = Burst::<3>::new();
    assert_eq!(ends[0].drain(&mut few), 3);
    assert_eq!(numbers(&few), [0, 1, 2]);
    few.clear();
    let sent = tx.send_all(&mut burst, 10);
    assert_eq!((sent.sent, sent.dropped), (3, 5));
    assert!(burst.is_empty());
    assert_eq!(pool.in_use(), 1024);

    // The other direction fills up likewise.
    let mut total = 0;
    loop {
        let mut burst = Burst::<32>::new();
        while !burst.is_full() {
            burst.push(numbered(&pool, 0)).unwrap();
        }
        let went = ends[0].inject(&mut burst);
        total += went;
        if went < 32 {
            break;
        }
    }
    assert_eq!(total, 1024);

    // Full wires: what is on them is freed with the port and its ends, in whatever order.
    let last = ends.pop().unwrap();
    let (inject, mut drain) = last.split();
    drain.dequeue_burst(&mut burst);
    assert_eq!(number(&burst.as_slice()[0]), 3);
    drop((burst, inject, port));
    assert_eq!(pool.in_use(), 1024 - 32 + 1024);
    drop((tx, drain));
    assert_eq!(pool.in_use(), 0);
    assert_eq!(pool.available(), 4095);
}
