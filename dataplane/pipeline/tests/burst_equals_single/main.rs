//! A burst means the same as its packets one by one: verdicts, bytes, table, counters, requests.
//! And prefetching changes nothing.
//!
//! The packets of a burst are made one by one while the reference processes them, so that a burst
//! holds whole handshakes: replies to ports that the very same burst made the gateway choose.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod steps;

use common::packets::{ACK, Packet, SYN};
use common::{Buffer, FRONT_MAC, World, at, backend_ip, client, frontend_ip, mac_of, nat_ip, raw};
use model::desired::{Affinity, BackendState, Delta, Origin};
use model::drops::DropReason;
use model::ids::{PortId, Protocol};
use model::record::ConnectionRecord;
use pipeline::adjacency::Mac;
use pipeline::answer::{Rate, Rates};
use pipeline::arch::memory::HeapMemory;
use pipeline::connections::Timeouts;
use pipeline::counters::Counters;
use pipeline::frame::{Rx, Verdict};
use pipeline::select::AffinityTable;
use pipeline::snapshot::Compiler;
use pipeline::{Now, Options, Pipeline};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use steps::{Make, Step, step};

#[derive(Default)]
struct Coverage {
    bursts: u64,
    packets: u64,
    expiries: u64,
    evictions: u64,
    requests: u64,
    sticky: [u64; 2],
    resets: [u64; 2],
    verdicts: BTreeMap<&'static str, u64>,
}

struct Run {
    world: World,
    reference: Pipeline,
    /// With and without prefetch.
    others: [Pipeline; 2],
    now: Now,
    past: Vec<(Vec<u8>, PortId)>,
    states: Vec<u8>,
    policy: u8,
}

impl Run {
    fn new((workers, connections, tight): (u8, usize, bool)) -> Self {
        let rate = Rate { per_second: 5, burst: 3 };
        let rates = if tight { Rates::all(rate) } else { Rates::default() };
        let timeouts = Timeouts { tcp_established_ms: 300_000, ..Timeouts::default() };
        let connections = [connections; 2];
        let options = Options { connections, timeouts, rates, secret: 77, ..Options::default() };
        let new = |prefetch| {
            // A table that is soon full, and each pipeline's own.
            let affinity = Arc::new(AffinityTable::new(8, 3));
            let options = Options { prefetch, affinity, ..options.clone() };
            Pipeline::new(&options, Arc::new(Counters::new(2, 24)), &mut HeapMemory).unwrap()
        };
        let mut world = World::new(workers);
        world.compiler = Compiler::new(2, 24);
        let mut run = Self {
            world,
            reference: new(true),
            others: [new(true), new(false)],
            now: Now { ms: 1000 },
            past: Vec::new(),
            states: vec![3; 6],
            policy: 0,
        };
        run.publish();
        run
    }

    fn publish(&mut self) {
        let (states, policy) = (self.states.clone(), self.policy);
        let mut changed = Vec::new();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut backends = Vec::new();
            for (n, state) in states.iter().enumerate().filter(|(_, state)| **state > 0) {
                let state = match state {
                    1 => BackendState::Draining,
                    2 => BackendState::Unserving,
                    _ => BackendState::Active,
                };
                for v6 in [false, true] {
                    backends.push((at(backend_ip(v6, 10 + n as u8), 8080), state));
                }
            }
            let frontends = [false, true].map(|v6| at(frontend_ip(v6), 80));
            let key = common::key("web", protocol);
            let mut port = common::service(&key, &frontends, &backends);
            for frontend in &mut port.frontends {
                frontend.origin = Origin::LoadBalancer { pool: "p".into() };
            }
            port.affinity = (policy & 1 != 0).then_some(Affinity { timeout_s: 3_000 });
            if policy & 2 != 0 {
                port.source_ranges =
                    vec!["198.18.0.8/30".parse().unwrap(), "2001:db8:1::8/126".parse().unwrap()];
            }
            port.reset_after_s = (policy & 4 != 0).then_some(10);
            changed.push(Arc::new(port));
        }
        self.world.publish(&Delta { changed, removed: vec![] });
    }

    fn records(&self) -> Vec<ConnectionRecord> {
        common::records(&self.reference, &self.world.tables, self.now)
    }

    /// The bytes of a packet, and the port that it comes in by.
    fn make(&self, make: &Make) -> (Vec<u8>, PortId) {
        let front = common::FRONT_PORT;
        match make {
            Make::Client { udp, v6, n, port, to, flags, len, ttl } => {
                let protocol = if *udp { Protocol::Udp } else { Protocol::Tcp };
                let packet = Packet::to_frontend(protocol, *v6, *n, (*port, *to));
                let packet = Packet { ttl: *ttl, ..packet.flags(*flags).payload(vec![7; *len]) };
                (packet.build(), front)
            }
            Make::Reply { which, flags, len } => match self.one_of(*which) {
                Some(c) => (reply(&c, *flags, *len).build(), common::BACK_PORT),
                None => (vec![], front),
            },
            Make::Onward { which } => match self.one_of(*which) {
                Some(c) => (from(&c).flags(ACK).build(), front),
                None => (vec![], front),
            },
            Make::Fragment { v6, n, id, piece } => {
                let packet = Packet::to_frontend(Protocol::Udp, *v6, *n, (2000, 80));
                let packet = packet.payload(vec![3; 100]);
                (raw::fragments(&packet, *id, 40).swap_remove(*piece), front)
            }
            Make::Error { which, towards_client, quote } => match self.one_of(*which) {
                Some(c) if *towards_client => {
                    let mut sent = reply(&c, ACK, 60).reply(ACK, vec![1; 60]);
                    sent.protocol = c.protocol;
                    (raw::icmp_error(&sent, *quote), common::BACK_PORT)
                }
                Some(c) => {
                    let sent = Packet { source: c.frontend, destination: c.client, ..from(&c) };
                    let sent = Packet { from: FRONT_MAC, to: from(&c).from, ..sent };
                    (raw::icmp_error(&sent, *quote), front)
                }
                None => (vec![], front),
            },
            Make::Echo { v6, to } => {
                let addresses = (client(*v6, 10), target(*v6, *to));
                (raw::echo((mac_of(0, 10), FRONT_MAC), addresses, &[5; 30]), front)
            }
            Make::Neighbour { v6, to } => match (client(*v6, 10), target(*v6, *to)) {
                (IpAddr::V4(a), IpAddr::V4(b)) => (raw::arp_request(mac_of(0, 10), a, b), front),
                (IpAddr::V6(a), IpAddr::V6(b)) => (raw::solicitation(mac_of(0, 10), a, b), front),
                _ => (vec![], front),
            },
            Make::Garbage(bytes) => {
                let mut bytes = bytes.clone();
                if bytes.len() > 14 && bytes[13] & 1 == 0 {
                    bytes[..6].copy_from_slice(&FRONT_MAC);
                    bytes[12..14].copy_from_slice(&[8, 0]);
                }
                (bytes, front)
            }
            Make::Changed { which, place, value } => {
                let Some((mut bytes, port)) = self.past_one(*which) else { return (vec![], front) };
                if let Some(byte) = bytes.get_mut(*place) {
                    *byte = *value;
                }
                (bytes, port)
            }
            Make::Again { back } => {
                let last = self.past.len().checked_sub(1 + back);
                last.map_or((vec![], front), |n| self.past[n].clone())
            }
        }
    }

    fn one_of(&self, which: usize) -> Option<ConnectionRecord> {
        let records = self.records();
        (!records.is_empty()).then(|| records[which % records.len()].clone())
    }
    fn past_one(&self, which: usize) -> Option<(Vec<u8>, PortId)> {
        (!self.past.is_empty()).then(|| self.past[which % self.past.len()].clone())
    }

    fn burst(&mut self, makes: &[(Make, u8)], coverage: &mut Coverage) {
        let mut singles = Vec::new();
        let mut burst = Vec::new();
        for (make, hops) in makes {
            let (bytes, port) = self.make(make);
            let buffer = Buffer::new(&bytes, Rx { port, hops: *hops, ..Rx::default() });
            burst.push(buffer.clone());
            let over = self.over();
            let mut single = [buffer];
            common::process(&mut self.reference, &self.world.tables, &mut single, self.now);
            coverage.expiries += over - self.over();
            let [single] = single;
            *coverage.verdicts.entry(kind(single.verdict)).or_default() += 1;
            singles.push(single);
            self.past.push((bytes, port));
        }
        for other in &mut self.others {
            let mut burst = burst.clone();
            common::process(other, &self.world.tables, &mut burst, self.now);
            for (n, (one, other)) in singles.iter().zip(&burst).enumerate() {
                let what = format!("packet {n}: {:?}", makes[n]);
                assert_eq!(one.verdict, other.verdict, "verdict of {what}");
                assert_eq!(one.frame(), other.frame(), "bytes of {what}");
                assert_eq!(one.tail_len, other.tail_len, "length of {what}");
                assert_eq!(one.rx, other.rx, "what came with {what}");
            }
        }
        coverage.bursts += 1;
        coverage.packets += makes.len() as u64;
    }

    /// Connections in the table whose time is over.
    fn over(&self) -> u64 {
        self.records().iter().filter(|c| c.idle_ms >= c.timeout_ms).count() as u64
    }

    fn open(&mut self, clients: u8, coverage: &mut Coverage) {
        for n in (10..10 + clients).rev() {
            let (udp, v6, to, flags, len, ttl) = (false, n % 2 == 0, 80, SYN, 0, 64);
            self.burst(
                &[(Make::Client { udp, v6, n, port: 2009, to, flags, len, ttl }, 2)],
                coverage,
            );
            let mine = self
                .records()
                .iter()
                .position(|c| c.client.port() == 2009 && c.client.ip() == client(v6, n));
            let Some(which) = mine else { continue };
            self.burst(&[(Make::Reply { which, flags: SYN | ACK, len: 0 }, 2)], coverage);
            self.burst(&[(Make::Onward { which }, 2)], coverage);
        }
    }

    fn step(&mut self, step: &Step, coverage: &mut Coverage) {
        match step {
            Step::Burst(makes) => self.burst(makes, coverage),
            Step::Time(ms) => self.now.ms += ms,
            Step::Sweep => {
                let before = self.reference.connections();
                let mut made = Vec::new();
                for pipeline in [&mut self.reference].into_iter().chain(&mut self.others) {
                    pipeline.sweep(&self.world.tables, self.now);
                    let frames = std::iter::from_fn(|| pipeline.take_generated());
                    made.push(frames.map(|f| (f.port, f.bytes().to_vec())).collect::<Vec<_>>());
                }
                assert!(made.iter().all(|frames| *frames == made[0]), "{made:?}");
                let after = self.reference.connections();
                coverage.expiries += (before[0] + before[1] - after[0] - after[1]) as u64;
            }
            Step::Backends(states) => {
                self.states.clone_from(states);
                self.publish();
            }
            Step::Leave(states) => {
                self.policy |= 4;
                self.publish();
                let client = |port, flags| {
                    let (udp, v6, n) = (false, port % 2 == 1, 10);
                    (Make::Client { udp, v6, n, port, to: 80, flags, len: 0, ttl: 64 }, 0)
                };
                let reply = |which| (Make::Reply { which, flags: SYN | ACK, len: 0 }, 0);
                let syns = (2000..2006).map(|port| client(port, SYN));
                let acks = || (2000..2006).map(|port| client(port, ACK));
                let makes: Vec<_> = syns.chain((0..16).map(reply)).chain(acks()).collect();
                self.burst(&makes, coverage);
                self.step(&Step::Backends(states.clone()), coverage);
                for ms in [15_000, 15_000] {
                    self.now.ms += ms;
                    self.step(&Step::Sweep, coverage);
                }
                self.burst(&acks().collect::<Vec<_>>(), coverage);
            }
            Step::Policy(policy) => {
                self.policy = *policy;
                self.publish();
            }
            Step::NoService => {
                let removed = vec![common::key("web", Protocol::Tcp)];
                self.world.publish(&Delta { changed: vec![], removed });
            }
            Step::Unresolved(which) => {
                self.world.input = common::input(None, None);
                if let Some(which) = which {
                    // The first ones are the router and the clients: half of the time those.
                    let len = self.world.input.neighbours.len();
                    self.world.input.neighbours.remove(which % 12.min(len));
                }
                self.world.publish_adjacencies();
            }
            Step::Open(clients) => self.open(*clients, coverage),
            Step::Moved(which) => {
                let len = self.world.input.neighbours.len();
                self.world.input.neighbours[which % len.min(12)].2 = Mac([2, 9, 9, 9, 9, 9]);
                self.world.publish_adjacencies();
            }
        }
    }

    fn compare(&mut self, coverage: &mut Coverage) {
        let records = self.records();
        let mut nat: Vec<_> = records.iter().map(|c| (c.protocol, c.nat, c.backend)).collect();
        nat.sort_unstable();
        nat.dedup();
        assert_eq!(nat.len(), records.len(), "NAT tuples are unique");
        let requests: Vec<_> = self.reference.take_requests().collect();
        let counters = counts(self.reference.counters());
        coverage.requests += requests.len() as u64;
        for other in &mut self.others {
            assert_eq!(common::records(other, &self.world.tables, self.now), records);
            assert_eq!(other.take_requests().collect::<Vec<_>>(), requests);
            assert_eq!(counts(other.counters()), counters);
            assert_eq!(other.connections(), self.reference.connections());
        }
    }
}

/// A packet of the client of a connection.
fn from(c: &ConnectionRecord) -> Packet {
    let n = match c.client.ip() {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    };
    let ports = (c.client.port(), c.frontend.port());
    Packet::to_frontend(c.protocol, c.client.is_ipv6(), n, ports).payload(vec![1; 60])
}

fn reply(c: &ConnectionRecord, flags: u8, len: usize) -> Packet {
    Packet::to_nat(c.protocol, c.backend, c.nat).flags(flags).payload(vec![9; len])
}

/// A frontend's address, a NAT address, the host's own, nobody's.
fn target(v6: bool, to: u8) -> IpAddr {
    [frontend_ip(v6), nat_ip(v6, 0), client(v6, 1), client(v6, 99)][usize::from(to)]
}

fn kind(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pending => "pending",
        Verdict::Send(_) => "send",
        Verdict::Answer(_) => "answer",
        Verdict::Host(_) => "host",
        Verdict::Handover(_) => "handover",
        Verdict::Drop(reason) => reason.label(),
    }
}

fn counts(counters: &Counters) -> Vec<u64> {
    let services = counters.services.iter().flat_map(|s| {
        [&s.connections, &s.packets_in, &s.bytes_in, &s.packets_out, &s.bytes_out, &s.refused]
    });
    let backends =
        counters.backends.iter().flat_map(|b| [&b.connections, &b.packets_in, &b.packets_out]);
    let drops = DropReason::ALL.iter().map(|reason| counters.dropped(*reason));
    let rest = [
        &counters.inserts,
        &counters.half_open_evicted,
        &counters.affinity_hits,
        &counters.affinity_begun,
        &counters.affinity_full,
        &counters.resets,
        &counters.reset_probes,
    ];
    let gauges = &counters.connections;
    let all = services.chain(backends).chain(drops).chain(rest).chain(gauges);
    all.map(|counter| counter.read()).collect()
}

#[test]
fn a_burst_equals_its_packets_one_by_one() {
    let began = std::time::Instant::now();
    let coverage = RefCell::new(Coverage::default());
    let mut runner =
        TestRunner::new(Config { cases: 2500, failure_persistence: None, ..Config::default() });
    let options = (1u8..=2, prop_oneof![8usize..=12, 24usize..=40], any::<bool>());
    let strategy = (options, proptest::collection::vec(step(), 1..24));
    let result = runner.run(&strategy, |(options, steps)| {
        let mut coverage = coverage.borrow_mut();
        let mut run = Run::new(options);
        for step in &steps {
            run.step(step, &mut coverage);
            run.compare(&mut coverage);
        }
        let counters = run.reference.counters();
        coverage.evictions += counters.half_open_evicted.read();
        coverage.sticky[0] += counters.affinity_hits.read();
        coverage.sticky[1] += counters.affinity_full.read();
        coverage.resets[0] += counters.resets.read();
        coverage.resets[1] += counters.reset_probes.read();
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let c = coverage.into_inner();
    println!(
        "{} bursts of {} packets, {} evictions, {} expiries, {} requests, {:?} sticky and full, \
         {:?} resets and challenges, {:?}, {:.1?}",
        c.bursts,
        c.packets,
        c.evictions,
        c.expiries,
        c.requests,
        c.sticky,
        c.resets,
        c.verdicts,
        began.elapsed()
    );
    assert!(c.evictions > 100 && c.expiries > 100 && c.requests > 10, "the rare happens");
    let rare = [c.sticky, c.resets].concat();
    assert!(rare.iter().all(|n| *n > 10), "{:?} {:?}", c.sticky, c.resets);
    let reasons = [
        "source_not_allowed",
        "fragment_unknown",
        "icmp_unmatched",
        "neighbour_unresolved",
        "answer_limited",
        "handover_loop",
        "table_full",
        "not_ours",
        "tcp_no_connection",
        "not_our_mac",
    ];
    for verdict in ["send", "answer", "host", "handover"].iter().chain(&reasons) {
        assert!(c.verdicts.get(verdict).is_some_and(|n| *n > 10), "{verdict} happens");
    }
    assert!(!c.verdicts.contains_key("pending"), "every packet has its verdict");
}
