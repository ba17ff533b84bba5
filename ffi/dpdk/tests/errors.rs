//! Failures are typed and say what to do, and leave nothing behind.

mod common;

use common::{eal, pool};
use dpdk::{DeviceString, Direction, Pool, PoolError, Port, PortConfig, PortError, RingPort, Rss};

#[test]
fn failures_are_typed() {
    let eal = eal();
    let pool = pool(&eal, "packets", 2047, 32);
    assert!(matches!(Pool::new(&eal, "packets", 63, 0, 2176), Err(PoolError::Exists(_))));
    assert!(matches!(Pool::new(&eal, "x", 63, 64, 2176), Err(PoolError::Cache { .. })));
    assert!(matches!(Pool::new(&eal, "", 63, 0, 2176), Err(PoolError::Name(_))));
    let large = Pool::new(&eal, "large", 10_000_000, 0, 2176).unwrap_err();
    assert!(large.to_string().contains("memory_mib"), "{large}");
    println!("{large}");

    let device = |text: &str| text.parse::<DeviceString>().unwrap();
    for text in ["net_nosuchdriver0", "net_af_packet0,iface=hg-nosuch"] {
        let error = Port::attach(&eal, &device(text), None).unwrap_err();
        assert!(matches!(error, PortError::Attach { .. }), "{text}: {error}");
        assert!(error.to_string().contains(text), "{error}");
        println!("{error}");
    }
    let netns = Port::attach(&eal, &device("net_null0"), Some("hg-no-such-ns")).unwrap_err();
    assert!(netns.to_string().contains("ip netns add"), "{netns}");
    assert!(Port::attach(&eal, &device("net_null0"), Some("../etc")).is_err());

    let mut port = Port::attach(&eal, &device("net_null0"), None).unwrap();
    let again = Port::attach(&eal, &device("net_null0"), None);
    assert!(matches!(again, Err(PortError::AlreadyAttached(_))), "{again:?}");
    assert!(matches!(port.start(), Err(PortError::State { .. })));
    assert!(matches!(port.stop(), Err(PortError::State { .. })));
    let info = port.info().unwrap();
    println!("{info:?}");

    let wanted = info.max_rx_queues + 1;
    let queues = port.configure(PortConfig::new(pool.clone(), wanted)).unwrap_err();
    let max = info.max_rx_queues;
    assert!(
        matches!(queues, PortError::TooManyQueues { direction: Direction::Receive, wanted: w, max: m }
            if (w, m) == (wanted, max)),
        "{queues}"
    );
    assert!(queues.to_string().contains(&max.to_string()), "{queues}");
    assert!(port.configure(PortConfig::new(pool.clone(), 0)).is_err());

    // net_null has RSS: a right table is taken, wrong ones are refused.
    assert!(info.rss_capable);
    let with = |key: usize, reta: Vec<u16>| {
        let rss = Some(Rss { key: vec![0x6d; key], reta });
        PortConfig { rss, ..PortConfig::new(pool.clone(), 1) }
    };
    assert!(matches!(port.configure(with(39, vec![])), Err(PortError::Rss(_))));
    assert!(matches!(port.configure(with(40, vec![1])), Err(PortError::Rss(_))));
    assert!(matches!(port.configure(with(40, vec![0; 7])), Err(PortError::Rss(_))));
    port.configure(with(40, vec![0; 64])).unwrap();
    port.start().unwrap();
    assert!(matches!(port.configure(with(40, vec![])), Err(PortError::State { .. })));
    drop(port);

    let (mut ring, _ends) = RingPort::create(&eal, "r", 1).unwrap();
    let no_rss = ring.configure(with(40, vec![])).unwrap_err();
    assert!(matches!(no_rss, PortError::Rss(_)), "{no_rss}");
    assert!(matches!(RingPort::create(&eal, "r", 1), Err(PortError::AlreadyAttached(_))));
    assert!(RingPort::create(&eal, "none", 0).is_err());
    drop((ring, _ends));

    // Detached: the name is free again.
    assert!(RingPort::create(&eal, "r", 1).is_ok());
    assert!(Port::attach(&eal, &device("net_null0"), None).is_ok());
    assert!(!eal.logs().is_empty());
    drop(pool);
    eal.shutdown().unwrap();
}
