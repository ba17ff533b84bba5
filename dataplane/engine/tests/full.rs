//! Whatever is full drops by name: devices, rings between workers, frames too long for a port.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::packets::{Packet, SYN};
use common::{
    Books, DNS, DNS_V6, Shape, WEB, World, at, config, cores, eal, host_v4, host_v6, mac,
    ring_ports, wait, web_and_dns,
};
use dpdk::{Burst, Eal, Pool};
use engine::{Device, Engine};
use model::drops::DropReason;
use model::ids::{Protocol, WorkerId};
use pipeline::adjacency::Role;
use pipeline::parse::Addresses;
use pipeline::steer::SteerTable;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Places of a wire, and of a ring between workers.
const WIRE: u64 = 1024;
const RING: u64 = 512;
const TRIES: usize = 20;

#[test]
fn what_is_full_drops_by_name() {
    let eal = eal();
    device_full(&eal);
    device_full_of_another_worker(&eal);
    too_long_for_the_port(&eal);
    handover_full(&eal);
}

fn datagram(frontend: &str, port: u16, payload: usize) -> Packet {
    let destination = at(frontend);
    let ip = if destination.is_ipv4() { host_v4(0, 10) } else { host_v6(0, 10) };
    Packet {
        from: mac(0, 10),
        to: mac(0, 1),
        protocol: Protocol::Udp,
        source: SocketAddr::new(ip, port),
        destination,
        ttl: 64,
        flags: 0,
        payload: vec![5; payload],
    }
}

/// Waits until workers have done with all that was injected, the far end left alone.
fn all_done(world: &World) {
    wait("all is done", || {
        let ledger = world.engine.ledger();
        let rows = world.engine.workers().workers;
        let idle = rows.iter().all(|row| row.ledger.difference() == 0 && row.ledger.in_flight == 0);
        let injected: u64 = world.books.iter().map(|books| books.injected).sum();
        let over = ledger.handed_in == ledger.handed_out;
        (ledger.received == injected && idle && over).then_some(())
    });
}

/// The far end doesn't drain: a wire's worth is sent, the rest is dropped, chains are freed whole.
fn device_full(eal: &Eal) {
    let mut world = World::start(eal, "full", Shape::default()).unwrap();
    world.publish(&web_and_dns(1, &[11, 12]));
    let bytes = datagram(DNS, 3000, 400).build();
    for _ in 0..3_000 {
        world.send_segments(0, 0, &[&bytes[..100], &bytes[100..]]);
    }
    all_done(&world);
    let ledger = world.engine.ledger();
    assert_eq!((ledger.sent, ledger.dropped), (WIRE, 3_000 - WIRE));
    assert_eq!(world.dropped(DropReason::TransmitFull), 3_000 - WIRE);
    assert_eq!(u64::from(world.pool.in_use()), 2 * WIRE, "two segments of each");
    let port = &world.engine.ports()[1];
    assert_eq!(port.device_counters.opackets, WIRE);
    // It goes on where it was once there is room again.
    assert_eq!(world.drain(1).len() as u64, WIRE);
    let arrived = world.exchange(0, 0, &bytes);
    assert_eq!((arrived.wire, arrived.packet().payload.len()), (1, 400));
    world.finish("device full");
}

/// The same for a worker that sends through another: that one drops, and counts.
fn device_full_of_another_worker(eal: &Eal) {
    let shape = Shape { cores: cores(2), ..Shape::default() };
    let mut world = World::start(eal, "through", shape).unwrap();
    world.publish(&web_and_dns(1, &[11, 12]));
    let mut sent = 0;
    for port in 1024.. {
        let packet = datagram(DNS, port, 10);
        let flow = model::ids::FiveTuple {
            protocol: Protocol::Udp,
            source: packet.source,
            destination: packet.destination,
        };
        if world.engine.tables().owner(&flow) != WorkerId(1) {
            continue;
        }
        world.send(0, 0, &packet.build());
        sent += 1;
        if sent == 2_000 {
            break;
        }
        // No more on their way than rings hold.
        if sent % 100 == 0 {
            all_done(&world);
        }
    }
    all_done(&world);
    assert_eq!(world.dropped(DropReason::TransmitFull), sent - WIRE);
    let ledgers = world.finish("full, through another");
    assert_eq!((ledgers[0].sent, ledgers[0].dropped), (WIRE, sent - WIRE));
    assert_eq!((ledgers[1].handed_in, ledgers[1].handed_out), (sent, sent));
}

/// The adjacencies promise more than the port takes.
fn too_long_for_the_port(eal: &Eal) {
    let shape = Shape { mtu: 9000, ..Shape::default() };
    let mut world = World::start(eal, "long", shape).unwrap();
    world.publish(&web_and_dns(1, &[11, 12]));
    // 1500 of MTU and 18 of an Ethernet header with a tag.
    for (frontend, headers) in [(DNS, 14 + 20 + 8), (DNS_V6, 14 + 40 + 8)] {
        let packet = datagram(frontend, 4000, 1518 - headers);
        let arrived = world.exchange(0, 0, &packet.build());
        assert_eq!((arrived.wire, arrived.bytes.len()), (1, 1518));
        for more in [1, 700, 7_000] {
            let before = world.dropped(DropReason::TransmitOversize);
            let bytes = datagram(frontend, 4000, 1518 - headers + more).build();
            let pieces: Vec<&[u8]> = bytes.chunks(1500).collect();
            for _ in 0..20 {
                world.send_segments(0, 0, &pieces);
            }
            assert!(world.drain_all().is_empty());
            world.settle();
            assert_eq!(world.dropped(DropReason::TransmitOversize) - before, 20);
        }
    }
    world.finish("too long");
}

/// The wire is full before the engine starts, with flows of worker 1 alone: worker 0 hands over
/// what the ring takes while worker 1 isn't there yet.
fn handover_full(eal: &Eal) {
    for number in 0..TRIES {
        let full = try_handover_full(eal, &format!("hand{number}"));
        println!("hand-over full: {full} of {WIRE} dropped");
        if full > 0 {
            return;
        }
    }
    panic!("in {TRIES} tries the ring never was full");
}

fn try_handover_full(eal: &Eal, prefix: &str) -> u64 {
    let wires = vec![(Role::Front, 2), (Role::Back, 2)];
    let shape = Shape { cores: cores(2), wires, ..Shape::default() };
    let pool = Pool::new(eal, &format!("{prefix}test"), 2047, 0, 2048).unwrap();
    let (ports, mut wires) = ring_ports(eal, prefix, &shape);
    let Device::Made(port) = &ports[0].device else { panic!("made above") };
    let to = port.mac().unwrap();
    let steer = SteerTable::new(2, &[]);
    let mut injected = 0;
    for port in 1024.. {
        let packet = Packet { to, flags: SYN, protocol: Protocol::Tcp, ..datagram(WEB, port, 0) };
        let (IpAddr::V4(source), IpAddr::V4(destination)) =
            (packet.source.ip(), packet.destination.ip())
        else {
            panic!("family")
        };
        let addresses =
            Addresses::V4 { source: source.to_bits(), destination: destination.to_bits() };
        let ports = (packet.source.port(), packet.destination.port());
        if steer.owner_of(&addresses, ports, None) != WorkerId(1) {
            continue;
        }
        let mut burst = Burst::<1>::new();
        let mut mbuf = pool.alloc().unwrap();
        mbuf.copy_from_slice(&packet.build()).unwrap();
        burst.push(mbuf).unwrap();
        assert_eq!(wires[0][0].inject(&mut burst), 1);
        injected += 1;
        if injected == WIRE {
            break;
        }
    }
    let engine = Engine::start(eal.clone(), config(&shape, ports)).unwrap();
    let mut books = vec![Books::default(); 2];
    books[0].injected = injected;
    let world = World { engine: Arc::new(engine), pool, wires, books, shape };
    all_done(&world);
    let full = world.dropped(DropReason::HandoverFull);
    let ledgers = world.finish(prefix);
    assert_eq!((ledgers[0].received, ledgers[0].dropped), (WIRE, full));
    assert_eq!(ledgers[0].handed_out, WIRE - full);
    assert!(ledgers[0].handed_out >= RING);
    assert_eq!(ledgers[1].dropped, ledgers[1].handed_in, "no snapshot: not ours");
    full
}
