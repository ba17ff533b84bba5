//! Floods of ten seconds, beside good connections that go on and new ones that begin: two workers,
//! a simulated clock, both families.
//!
//! All sizes follow `FLOOD_PACKETS`, the packets of one flood: at 10,000,000 they come at a million
//! a second beside 100,000 good connections; fewer packets come as many times slower, beside as many
//! times fewer connections in as many times smaller tables.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod good;
mod hostile;
mod publications;

use common::counting::Counting;
use common::net::Net;
use common::{World, at, backend_ip, frontend_ip, key, service};
use good::{FLOOD_LANE, Flow, GOOD_LANE, Phase};
use hostile::{Attack, Backends, Fills};
use model::desired::{BackendState, Delta};
use model::drops::DropReason::{
    self, AnswerLimited, FragmentUnknown, HalfOpenFull, IcmpUnmatched, SynFragment,
};
use model::ids::Protocol;
use model::record::ConnectionState;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WORKERS: u8 = 2;
/// Service ports of each protocol, each with backends of its own.
const SERVICES: u16 = 8;
const FIRST_PORT: u16 = 80;
const BACKENDS: u8 = 3;
/// Simulated seconds.
const FLOOD_S: u64 = 10;
/// A flood below the cap.
const BELOW_S: u64 = 8;
const AFTER_S: u64 = 4;
/// What was half open when the flood fell is old enough to go by then.
const SETTLED_S: u64 = 4;

/// Packets of one flood: all ten million where this is built for speed.
fn packets() -> u64 {
    let usual = if cfg!(debug_assertions) { 100_000 } else { 10_000_000 };
    std::env::var("FLOOD_PACKETS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual).max(20_000)
}

/// A world under attack.
pub struct Test {
    net: Net,
    attack: Attack,
    /// Good connections, then those that begin later.
    flows: Vec<Flow>,
    good: usize,
    by_client: HashMap<SocketAddr, usize>,
    by_nat: HashMap<(SocketAddr, SocketAddr), usize>,
    /// Data packets of good connections: sent, arrived.
    data: (u64, u64),
    next_sample: usize,
    most: [usize; 2],
    /// Thousandths of a flood packet that are due.
    due: u64,
    /// Datagrams of the flood that are sent once more: when, and their ends.
    again: std::collections::VecDeque<(u64, SocketAddr, SocketAddr)>,
}

fn world() -> World {
    let mut world = World::new(WORKERS);
    let mut changed = Vec::new();
    for n in 0..SERVICES {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let backends: Vec<_> = (10..10 + BACKENDS)
                .flat_map(|b| [false, true].map(|v6| at(backend_ip(v6, b), 8000 + n)))
                .map(|address| (address, BackendState::Active))
                .collect();
            let frontends = [false, true].map(|v6| at(frontend_ip(v6), FIRST_PORT + n));
            let key = key(&format!("s{n}"), protocol);
            changed.push(Arc::new(service(&key, &frontends, &backends)));
        }
    }
    world.publish(&Delta { changed, removed: vec![] });
    world
}

impl Test {
    fn new(attack: Attack) -> Self {
        let good = (packets() / 100) as usize;
        // Good connections take two fifths of the table.
        let capacity = good * 65_536 / 100_000;
        let net = Net::new(world(), [capacity; 2], attack.seed);
        let later = 4 * (good / 100).max(50);
        let flows: Vec<Flow> = (0..good + later).map(|n| Flow::new(n, good)).collect();
        let by_client = flows.iter().enumerate().map(|(n, flow)| (flow.client, n)).collect();
        Self {
            net,
            attack,
            flows,
            good,
            by_client,
            by_nat: HashMap::new(),
            data: (0, 0),
            next_sample: 0,
            most: [0; 2],
            due: 0,
            again: Default::default(),
        }
    }

    /// So many half-open connections the tables keep of one protocol and family.
    fn half_open_max(&self) -> usize {
        usize::from(WORKERS) * (self.net.pipelines[0].capacity()[0] / 8)
    }

    /// Simulated seconds with so many packets of the flood each, while data goes on.
    fn pass(&mut self, seconds: u64, per_second: u64) {
        for _ in 0..seconds * 1000 {
            self.net.tick(good::GENERATED);
            self.sample();
            self.begin_due();
            self.due += per_second;
            let many = self.due / 1000;
            self.due %= 1000;
            for _ in 0..many {
                self.strike();
            }
            self.strike_again();
            self.settle();
            let now = self.net.connections();
            self.most = [0, 1].map(|family| self.most[family].max(now[family]));
        }
    }

    /// Nothing happens but what the gateway begins itself.
    fn be_silent(&mut self, seconds: u64) {
        for _ in 0..seconds * 1000 {
            self.net.tick(good::GENERATED);
            self.settle();
        }
    }

    fn settle(&mut self) {
        loop {
            self.net.run();
            if self.net.out.is_empty() {
                break;
            }
            let mut out = std::mem::take(&mut self.net.out);
            for parcel in out.drain(..) {
                self.arrived(&parcel);
            }
            // What was pushed meanwhile waits in the queues; the room is used again.
            self.net.out = out;
        }
    }

    fn run(&mut self) {
        let (packets, name) = (packets(), self.attack.name);
        self.open_good();
        self.net.time = Default::default();
        self.pass(1, 0);
        let idle_ns = self.net.ns(GOOD_LANE);
        let memory: usize = self.net.pipelines.iter().map(|p| p.memory_bytes()).sum();
        self.net.time = Default::default();
        let quarter = (self.flows.len() - self.good) / 4;
        let [flood, below, after] = [0, 1, 2].map(|n| self.good + n * quarter);
        self.schedule(flood..below, FLOOD_S * 1000 - 8000);
        self.pass(FLOOD_S, packets / FLOOD_S);
        let flood_ns = (self.net.ns(GOOD_LANE), self.net.ns(FLOOD_LANE));
        let during = self.opened(flood..below);
        let cap = (4 * self.half_open_max() / 3 / 2) as u64;
        self.pass(SETTLED_S, cap / 2);
        self.schedule(below..after, (BELOW_S - SETTLED_S) * 1000 - 100);
        self.pass(BELOW_S - SETTLED_S, cap / 2);
        let tries = self.tries(below..after);
        let below = (self.opened(below..after), after - below);
        let last = after..after + quarter;
        self.schedule(last.clone(), (AFTER_S - 1) * 1000);
        self.pass(AFTER_S, 0);
        let after = (self.opened(last.clone()), last.len());
        println!(
            "{name} (seed {}): {packets} packets, then {} a second; {} good connections sent {} \
             data packets, {} arrived; new ones: {during} of {quarter} during it, {} of {} below the \
             cap in {tries} tries, {} of {} after it; a good packet {idle_ns:.0} ns idle, \
             {:.0} ns in the flood, one of the flood {:.0} ns; connections at most {:?}, \
             allocations {}, {}",
            self.attack.seed,
            cap / 2,
            self.good,
            self.data.0,
            self.data.1,
            below.0,
            below.1,
            after.0,
            after.1,
            flood_ns.0,
            flood_ns.1,
            self.most,
            self.net.allocations,
            self.drops(),
        );
        self.net.balance();
        assert_eq!(self.data.0, self.data.1, "all that is good goes on");
        assert_eq!(
            (below.0, tries),
            (below.1, below.1),
            "below the cap all open, at the first try"
        );
        assert_eq!(after.0, after.1, "after it all open");
        self.hold(memory);
    }

    /// What is bounded.
    fn hold(&mut self, memory: usize) {
        let after: usize = self.net.pipelines.iter().map(|p| p.memory_bytes()).sum();
        assert_eq!((after, self.net.allocations), (memory, 0), "memory is flat");
        let open = self.flows.len().div_ceil(2);
        let bound = match self.attack.fills {
            Fills::Rings(rings) => open + rings * self.half_open_max(),
            Fills::Table => usize::from(WORKERS) * self.net.pipelines[0].capacity()[0],
        };
        assert!(self.most.iter().all(|most| *most <= bound), "{:?} of {bound}", self.most);
        for reason in self.net.ledger.dropped.keys() {
            assert!(self.attack.drops.contains(reason), "{}", reason.label());
        }
        let states = self.net.states();
        let open = self.flows.iter().filter(|flow| flow.phase == Phase::Open).count();
        let believed = [ConnectionState::Established, ConnectionState::Reset]
            .map(|state| states.get(&state).copied().unwrap_or(0));
        let in_doubt = states.get(&ConnectionState::FinWait).copied().unwrap_or(0);
        assert_eq!(believed[0] + believed[1] + in_doubt, open, "none but the good: {states:?}");
    }

    fn drops(&self) -> String {
        let drops = self.net.ledger.dropped.iter();
        let words = drops.map(|(reason, n)| format!("{} {n}", reason.label()));
        format!("dropped: {}", words.collect::<Vec<_>>().join(", "))
    }
}

fn run(attack: Attack) {
    Test::new(attack).run();
}

fn attack(name: &'static str, seed: u64, drops: &'static [DropReason]) -> Attack {
    Attack::new(name, seed, drops)
}

#[test]
fn syns_that_backends_answer() {
    run(attack("SYNs to one frontend, answered", 1, &[HalfOpenFull]).syns(1, Backends::Answer));
}

#[test]
fn syns_to_many_frontends() {
    let attack = attack("SYNs to eight frontends, answered", 2, &[HalfOpenFull]);
    run(attack.syns(SERVICES, Backends::Answer));
}

#[test]
fn syns_that_backends_leave_unanswered() {
    run(attack("SYNs, unanswered", 3, &[HalfOpenFull]).syns(1, Backends::Silent));
}

#[test]
fn syns_that_backends_refuse() {
    run(attack("SYNs, refused", 4, &[HalfOpenFull]).syns(1, Backends::Refuse));
}

#[test]
fn syns_with_an_ack_behind_them() {
    let drops = &[HalfOpenFull, AnswerLimited];
    run(attack("SYNs, and an ACK", 5, drops).syns(SERVICES, Backends::Answer).with_acks());
}

#[test]
fn datagrams() {
    run(attack("UDP, unanswered", 6, &[HalfOpenFull]).datagrams(Backends::Silent));
}

#[test]
fn datagrams_that_backends_answer() {
    run(attack("UDP, answered", 7, &[HalfOpenFull]).datagrams(Backends::Answer));
}

#[test]
fn datagrams_and_once_more() {
    let attack = attack("UDP, answered, and again after 3 s", 8, &[HalfOpenFull]);
    run(attack.datagrams(Backends::Answer).again());
}

#[test]
fn fragments() {
    run(attack("fragments", 9, &[HalfOpenFull, FragmentUnknown, SynFragment]).fragments());
}

#[test]
fn echo_requests() {
    run(attack("echo requests", 10, &[AnswerLimited]).echoes());
}

#[test]
fn icmp_errors() {
    run(attack("ICMP errors", 11, &[IcmpUnmatched]).errors());
}

#[test]
fn closed_ports() {
    run(attack("closed ports", 12, &[AnswerLimited]).closed());
}

/// Forged segments on the tuples of good connections change none: after them, and minutes of silence
/// in which the gateway asks both sides, all go on.
fn forged(attack: Attack) {
    let mut test = Test::new(attack);
    test.run();
    test.be_silent(220);
    let states = test.net.states();
    let (before, open) = (test.data, test.opened(0..test.flows.len()));
    test.exchange_all();
    println!(
        "{}: after 220 s of silence {states:?}, {} segments asked; {} of {open} go on",
        test.attack.name,
        test.net.ledger.generated,
        (test.data.1 - before.1) / 2,
    );
    assert_eq!(test.data.0, test.data.1, "all go on");
    assert_eq!(test.data.1 - before.1, 2 * open as u64);
    test.net.balance();
}

#[test]
fn forged_resets() {
    forged(attack("forged RSTs", 13, &[]).forged(common::packets::RST));
}

#[test]
fn forged_fins() {
    forged(attack("forged FINs", 14, &[]).forged(common::packets::FIN | common::packets::ACK));
}

#[test]
fn forged_syns() {
    forged(attack("forged SYNs", 15, &[]).forged(common::packets::SYN));
}
