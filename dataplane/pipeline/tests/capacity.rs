//! As many connections as promised, all at once: 70,000 through one NAT address to two backends on
//! one port, and a million through four to a hundred backends with two workers.
//!
//! Each connection shakes hands, and when all are there, data goes both ways on each. Every packet
//! is verified: tuple, TTL, checksums, payload.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::packets::{ACK, Packet, SYN};
use common::workers::{Random, Workers};
use common::{BACK_MAC, BACK_PORT, Buffer, FRONT_MAC, FRONT_PORT, ROUTER_MAC, World, at};
use etherparse::checksum::Sum16BitWords;
use model::answers::ConnectionFilter;
use model::desired::BackendState;
use model::ids::Protocol;
use pipeline::Now;
use pipeline::frame::{Rx, Verdict};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Instant;

const BATCH: usize = 1024;
/// One in so many packets is also taken apart in full by etherparse.
const SAMPLE: usize = 61;
const L3: usize = 14;
const L4: usize = 34;
const PAYLOAD: usize = 54;
const BACKEND_PORT: u16 = 8080;

/// What the gateway has made of a flow.
#[derive(Clone, Copy, Default)]
struct Flow {
    nat: (u32, u16),
    backend: u32,
    worker: u8,
}

/// Packets of one kind, made from a template by putting in what differs.
struct Template(Vec<u8>);

impl Template {
    fn new(flags: u8, payload: usize, to_backend: bool) -> Self {
        let packet = Packet::to_frontend(Protocol::Tcp, false, 10, (1, 2));
        let packet = packet.flags(flags).payload(vec![0; payload]);
        let (from, to) =
            if to_backend { (ROUTER_MAC, FRONT_MAC) } else { ([2, 0, 0, 1, 1, 10], BACK_MAC) };
        Self(Packet { from, to, ..packet }.build())
    }
    fn fill(&self, source: SocketAddrV4, destination: SocketAddrV4, number: u64) -> Buffer {
        let mut bytes = self.0.clone();
        bytes[L3 + 12..L3 + 16].copy_from_slice(&source.ip().octets());
        bytes[L3 + 16..L3 + 20].copy_from_slice(&destination.ip().octets());
        bytes[L4..L4 + 2].copy_from_slice(&source.port().to_be_bytes());
        bytes[L4 + 2..L4 + 4].copy_from_slice(&destination.port().to_be_bytes());
        if let Some(place) = bytes.get_mut(PAYLOAD..PAYLOAD + 8) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        common::raw::fix_ipv4(&mut bytes, L3);
        bytes[L4 + 16..L4 + 18].fill(0);
        let sum = l4_sum(&bytes).to_ne_bytes();
        bytes[L4 + 16..L4 + 18].copy_from_slice(&sum);
        let port = if bytes[..6] == FRONT_MAC { FRONT_PORT } else { BACK_PORT };
        Buffer::new(&bytes, Rx { port, ..Rx::default() })
    }
}

fn l4_sum(bytes: &[u8]) -> u16 {
    Sum16BitWords::new()
        .add_slice(&bytes[L3 + 12..L3 + 20])
        .add_2bytes([0, 6])
        .add_2bytes(((bytes.len() - L4) as u16).to_be_bytes())
        .add_slice(&bytes[L4..])
        .ones_complement()
}

/// Source and destination of a packet that is right in all that can be verified.
fn verified(bytes: &[u8], number: u64, in_full: bool) -> [SocketAddrV4; 2] {
    let header = Sum16BitWords::new().add_slice(&bytes[L3..L4]).ones_complement();
    assert_eq!((header, l4_sum(bytes)), (0, 0), "checksums");
    assert_eq!(bytes[L3 + 8], 63, "TTL");
    if bytes.len() > PAYLOAD {
        assert_eq!(bytes[PAYLOAD..PAYLOAD + 8], number.to_be_bytes(), "payload");
        assert!(bytes[PAYLOAD + 8..].iter().all(|byte| *byte == 0), "payload");
    }
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let ip = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    let tuple =
        [SocketAddrV4::new(ip(L3 + 12), word(L4)), SocketAddrV4::new(ip(L3 + 16), word(L4 + 2))];
    if in_full {
        let packet = Packet::parse(bytes);
        assert_eq!([packet.source, packet.destination], tuple.map(Into::into));
    }
    tuple
}

struct Test {
    world: World,
    workers: Workers,
    flows: Vec<Flow>,
    random: Random,
    now: Now,
    packets: u64,
}

impl Test {
    fn new(workers: u8, nat: u8, backends: u8, connections: usize) -> Self {
        let mut world = World::new(workers);
        world.set_nat(nat);
        let of = |n| (at(common::backend_ip(false, 10 + n), BACKEND_PORT), BackendState::Active);
        let backends: Vec<_> = (0..backends).map(of).collect();
        let key = common::key("web", Protocol::Tcp);
        world.put(common::service(&key, &[frontend().into()], &backends));
        // Two hashes spread the flows over the workers: none gets exactly its share.
        let each = connections / usize::from(workers) * 11 / 10;
        let workers = Workers::new(&world, [each, 1]);
        let flows = vec![Flow::default(); connections];
        Self { world, workers, flows, random: Random(3), now: Now { ms: 1 }, packets: 0 }
    }

    /// Sends one packet on each flow of a range, each to a random worker, and verifies it.
    fn send(&mut self, range: std::ops::Range<usize>, template: &Template, to_backend: bool) {
        let new = template.0[L4 + 13] == SYN;
        let make = |n: usize| {
            let flow = &self.flows[n];
            if to_backend {
                return template.fill(client(n), frontend(), n as u64);
            }
            let backend = SocketAddrV4::new(Ipv4Addr::from_bits(flow.backend), BACKEND_PORT);
            let nat = SocketAddrV4::new(Ipv4Addr::from_bits(flow.nat.0), flow.nat.1);
            template.fill(backend, nat, n as u64)
        };
        let mut buffers: Vec<Buffer> = range.clone().map(make).collect();
        let count = self.workers.pipelines.len();
        let mut at: Vec<usize> = range.clone().map(|_| self.random.below(count)).collect();
        self.workers.deliver(&self.world, &mut buffers, &mut at, self.now);
        self.packets += buffers.len() as u64;
        for ((n, buffer), worker) in range.zip(&buffers).zip(at) {
            let out = if to_backend { BACK_PORT } else { FRONT_PORT };
            assert_eq!(buffer.verdict, Verdict::Send(out), "flow {n}");
            assert!(buffer.rx.hops <= 1, "flow {n}: straight to its owner");
            let bytes = buffer.frame();
            let [source, destination] = verified(bytes, n as u64, n % SAMPLE == 0);
            let flow = &mut self.flows[n];
            if new {
                let backend = destination.ip().to_bits();
                let nat = (source.ip().to_bits(), source.port());
                *flow = Flow { nat, backend, worker: worker as u8 };
            }
            assert_eq!(worker, usize::from(flow.worker), "flow {n} at its owner");
            if to_backend {
                assert_eq!((source.ip().to_bits(), source.port()), flow.nat, "flow {n}");
                let backend = (destination.ip().to_bits(), destination.port());
                assert_eq!(backend, (flow.backend, BACKEND_PORT), "flow {n}");
                assert_eq!(bytes[..6], [2, 0, 0, 1, 1, destination.ip().octets()[3]]);
            } else {
                assert_eq!([source, destination], [frontend(), client(n)], "flow {n}");
                assert_eq!(bytes[..6], ROUTER_MAC);
            }
        }
    }

    fn run(&mut self, name: &str) {
        let began = Instant::now();
        let len = self.flows.len();
        let templates = [
            (Template::new(SYN, 0, true), true),
            (Template::new(SYN | ACK, 0, false), false),
            (Template::new(ACK, 0, true), true),
        ];
        for start in (0..len).step_by(BATCH) {
            self.now.ms += 1;
            for (template, to_backend) in &templates {
                self.send(start..(start + BATCH).min(len), template, *to_backend);
            }
        }
        let opened = began.elapsed();
        self.unique();
        let data = [(Template::new(ACK, 33, true), true), (Template::new(ACK, 48, false), false)];
        for start in (0..len).step_by(BATCH) {
            for (template, to_backend) in &data {
                self.send(start..(start + BATCH).min(len), template, *to_backend);
            }
        }
        self.account();
        let memory: usize = self.workers.pipelines.iter().map(|p| p.memory_bytes()).sum();
        println!(
            "{name}: {len} connections opened in {opened:.1?}, all in {:.1?}; {} packets verified, \
             handed over {:?}, {} MiB of tables",
            began.elapsed(),
            self.packets,
            self.workers.handed,
            memory >> 20
        );
    }

    fn unique(&self) {
        let mut tuples: Vec<_> = self.flows.iter().map(|f| (f.nat, f.backend)).collect();
        tuples.sort_unstable();
        tuples.dedup();
        assert_eq!(tuples.len(), self.flows.len(), "NAT tuples are unique");
    }

    fn account(&self) {
        assert_eq!(self.workers.dropped(), 0, "none dropped");
        let state = Some("established".to_owned());
        let filter = ConnectionFilter { state, limit: usize::MAX, ..ConnectionFilter::default() };
        let (mut established, mut inserts) = (0, 0);
        for (worker, pipeline) in self.workers.pipelines.iter().enumerate() {
            let mut next = Some((0, 0));
            while let Some(at) = next {
                let mut page = pipeline::Page::of(4096);
                pipeline.page(&self.world.tables, &filter, at, self.now, &mut page);
                established += page.connections.len();
                next = page.next;
            }
            let counters = pipeline.counters();
            let mine = self.flows.iter().filter(|f| usize::from(f.worker) == worker).count();
            assert_eq!(counters.inserts.read(), mine as u64);
            assert_eq!(counters.half_open_evicted.read(), 0);
            assert!(mine > 0, "inserts on every worker");
            inserts += mine;
            let service = &counters.services[0];
            assert_eq!(service.packets_in.read(), 3 * mine as u64);
            assert_eq!(service.packets_out.read(), 2 * mine as u64);
        }
        assert_eq!((established, inserts), (self.flows.len(), self.flows.len()));
    }
}

fn frontend() -> SocketAddrV4 {
    match common::frontend_ip(false) {
        IpAddr::V4(ip) => SocketAddrV4::new(ip, 80),
        IpAddr::V6(_) => panic!("family"),
    }
}

/// Clients behind the router, with 10,000 ports each.
fn client(n: usize) -> SocketAddrV4 {
    let ip = Ipv4Addr::from_bits(0x0a00_0001 + (n / 10_000) as u32);
    SocketAddrV4::new(ip, 2000 + (n % 10_000) as u16)
}

#[test]
fn seventy_thousand_through_one_nat_address() {
    let mut test = Test::new(1, 1, 2, 70_000);
    test.run("one NAT address, two backends");
    let backends = [0, 1].map(|n| {
        let IpAddr::V4(ip) = common::backend_ip(false, 10 + n) else { panic!("family") };
        test.flows.iter().filter(|flow| flow.backend == ip.to_bits()).count()
    });
    println!("by backend {backends:?}");
    assert!(backends.iter().all(|n| *n > 33_000), "{backends:?}");
}

#[test]
fn a_million_through_four_nat_addresses_with_two_workers() {
    let mut test = Test::new(2, 4, 100, 1_000_000);
    test.run("four NAT addresses, a hundred backends, two workers");
    assert!(test.workers.handed[0][1] > 1_000_000 && test.workers.handed[1][0] > 1_000_000);
}
