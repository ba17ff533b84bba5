//! A million mbufs through a port in memory: every one arrives, in order, and none is lost.

mod common;

use common::{eal, number, numbered, pool};
use dpdk::{Burst, PortConfig, RingPort};

const PACKETS: u64 = 1_000_000;

#[test]
fn a_million_packets_there_and_back() {
    let eal = eal();
    let pool = pool(&eal, "packets", 4095, 256);
    let (mut port, mut ends) = RingPort::create(&eal, "wire", 2).unwrap();
    assert_eq!(port.info().unwrap().driver, "net_ring");
    port.configure(PortConfig::new(pool.clone(), 2)).unwrap();
    port.start().unwrap();
    let mut rx: Vec<_> = (0..2).map(|queue| port.rx_queue(queue).unwrap()).collect();
    let mut tx: Vec<_> = (0..2).map(|queue| port.tx_queue(queue).unwrap()).collect();

    let (mut made, mut seen) = ([0_u64; 2], [0_u64; 2]);
    while seen.iter().sum::<u64>() < PACKETS {
        for queue in 0..2 {
            let mut burst = Burst::<32>::new();
            while !burst.is_full() && made[queue] < PACKETS / 2 {
                let mut mbuf = numbered(&pool, made[queue]);
                mbuf.set_meta([made[queue], !made[queue]]);
                burst.push(mbuf).unwrap();
                made[queue] += 1;
            }
            ends[queue].inject(&mut burst);
            assert!(burst.is_empty());

            rx[queue].receive(&mut burst);
            assert!(burst.iter().all(|mbuf| mbuf.meta() == [number(mbuf), !number(mbuf)]));
            let sent = tx[queue].send_all(&mut burst, 0);
            assert_eq!(sent.dropped, 0);

            ends[queue].drain(&mut burst);
            for mbuf in &mut burst {
                assert_eq!(number(mbuf), seen[queue]);
                seen[queue] += 1;
            }
        }
    }
    assert_eq!(seen, [PACKETS / 2; 2]);
    let stats = port.stats().unwrap();
    assert_eq!((stats.ipackets, stats.opackets), (PACKETS, PACKETS));
    println!("{stats:?}");

    assert_eq!(pool.in_use(), 0);
    assert_eq!(pool.available(), 4095);
    assert!(matches!(port.stop(), Err(dpdk::PortError::QueuesHeld(4))));
    drop((rx, tx));
    port.stop().unwrap();
    assert!(port.rx_queue(0).is_err());
    port.start().unwrap();
    assert!(port.rx_queue(0).is_ok());

    let monitor = port.monitor();
    assert!(monitor.link_up().unwrap());
    assert!(monitor.xstats().unwrap().iter().any(|(name, _)| name == "rx_good_packets"));
    drop((port, ends));
    assert!(matches!(monitor.stats(), Err(dpdk::StatsError::Gone)));
    assert_eq!(pool.in_use(), 0);
    drop(pool);
    eal.shutdown().unwrap();
}
