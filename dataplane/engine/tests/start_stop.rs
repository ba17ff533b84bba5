//! Starts that fail say what to do and leave nothing; nor does a stop.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::flows::{Load, Traffic};
use common::{Shape, World, config, cores, eal, ring_ports, web_and_dns};
use dpdk::{Eal, Pool, RingPort};
use engine::{Device, Engine, EngineConfig, PortSpec};
use pipeline::adjacency::Role;

#[test]
fn starting_and_stopping() {
    let eal = eal();
    let threads = thread_count();
    for broken in broken() {
        let shape = Shape { cores: cores(2), ..Shape::default() };
        let (ports, wires) = ring_ports(&eal, "bad", &shape);
        let mut config = config(&shape, ports);
        let expected = broken(&mut config);
        let Err(error) = Engine::start(eal.clone(), config) else {
            panic!("{expected:?} was expected");
        };
        let text = error.to_string();
        println!("start: {text}");
        for words in expected {
            assert!(text.contains(words), "{words:?} is missing in: {text}");
        }
        drop(wires);
        no_thread_is_left(threads);
    }
    queues_beyond_the_device(&eal);
    again_and_again(&eal, threads);
    idle_engine(&eal);
    eal.shutdown().unwrap();
}

type Break = fn(&mut EngineConfig) -> Vec<&'static str>;

fn broken() -> Vec<Break> {
    vec![
        |config| {
            config.ports.push(named("lan", "net_nosuch0"));
            vec!["port lan: ", "net_nosuch0", "check the driver's name"]
        },
        |config| {
            config.ports.push(named("one", "net_null7"));
            config.ports.push(named("two", "net_null7"));
            vec!["port two: ", "net_null7"]
        },
        |config| {
            config.cores[1] = 1023;
            vec!["worker 1 on core 1023: ", "does the core exist", "taskset"]
        },
        |config| {
            config.cores[0] = 70_000;
            vec!["worker 0 on core 70000: ", "does the core exist"]
        },
        |config| {
            config.mbufs = 100;
            vec!["a cache of 256 mbufs"]
        },
        |config| {
            config.mbufs = 8_000_000;
            vec!["8000000 mbufs", "raise the EAL's memory_mib", "lower the number of mbufs"]
        },
    ]
}

fn named(name: &str, device: &str) -> PortSpec {
    PortSpec {
        name: name.into(),
        device: Device::Named { device: device.parse().unwrap(), netns: None },
        rx_queues: Some(1),
        mac: None,
        descriptors: 512,
    }
}

fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// The kernel takes a moment to forget a thread that was joined.
fn no_thread_is_left(threads: usize) {
    common::wait("no thread is left", || (thread_count() == threads).then_some(()));
}

/// More queues than the device has are as many as it has; a device is refused more than it can.
fn queues_beyond_the_device(eal: &Eal) {
    let shape = Shape::default();
    let (mut ports, wires) = ring_ports(eal, "queues", &shape);
    ports[0].rx_queues = Some(99);
    let engine = Engine::start(eal.clone(), config(&shape, ports)).unwrap();
    let rows = engine.ports();
    assert_eq!((rows[0].rx_queues, rows[0].tx_queues), (1, 1));
    engine.stop();
    drop(wires);
    let error = RingPort::create(eal, "wide", 99).unwrap_err().to_string();
    println!("start: {error}");
    assert!(error.contains("net_ring_wide"), "{error}");
}

/// The same names, ports and threads, over and over.
fn again_and_again(eal: &Eal, threads: usize) {
    // The memory of a pool comes back when the EAL goes: one for all rounds, and small ones.
    let pool = Pool::new(eal, "again", 4095, 0, 2048).unwrap();
    for round in 0..8 {
        let wires = vec![(Role::Front, 2), (Role::Back, 1)];
        let shape = Shape { cores: cores(2), wires, ..Shape::default() };
        let (ports, wires) = ring_ports(eal, "again", &shape);
        let config = EngineConfig { mbufs: 511, ..config(&shape, ports) };
        let engine = Engine::start(eal.clone(), config).unwrap();
        engine.publish_adjacencies(common::adjacencies(&shape, round));
        assert_eq!(thread_count(), threads + 2);
        let books = vec![common::Books::default(); 2];
        let mut world = World { engine: engine.into(), pool: pool.clone(), wires, books, shape };
        world.publish(&web_and_dns(1, &[11, 12]));
        Traffic::run(&mut world, Load { flows: 100, seed: round as u64, ..Load::default() });
        world.finish(&format!("round {round}"));
        no_thread_is_left(threads);
    }
}

/// One that is stopped with packets on all wires frees them.
fn idle_engine(eal: &Eal) {
    let mut world = World::start(eal, "busy", Shape::default()).unwrap();
    world.publish(&web_and_dns(1, &[11]));
    for _ in 0..5_000 {
        let mbuf = world.mbuf(&[&[7; 60]]);
        world.try_send(0, 0, mbuf);
    }
    let World { engine, pool, wires, .. } = world;
    drop(engine);
    drop(wires);
    assert_eq!(pool.in_use(), 0);
}
