//! The desired state changes under traffic, in whatever order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::packets::{ACK, Packet, SYN};
use common::{BACK_PORT, Buffer, FRONT_PORT, World, at, backend_ip, frontend_ip};
use model::desired::{BackendState, Delta, DesiredState, ServicePort, ServicePortKey};
use model::ids::{BackendId, Family, Protocol, ServiceId};
use pipeline::frame::{Rx, Verdict};
use pipeline::snapshot::{Compiler, Report, Snapshot};
use pipeline::{Now, Options, Pipeline};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

const SERVICES: usize = 4;
const FRONTENDS: usize = 5;
const BACKENDS: usize = 4;
/// So few that slots are used again soon: all may be held, and one service's anew beside them.
const SLOTS: [u32; 2] = [5, 2 * (SERVICES * BACKENDS + BACKENDS) as u32];

/// So many that the first one has 256 NAT ports: connections would soon meet on one.
const WORKERS: u8 = 250;

#[derive(Clone, Debug)]
enum Edit {
    /// The frontend now belongs to this service.
    Move(usize, usize),
    /// 0: the backend leaves; 1: it doesn't serve; 2: it drains; else it is active.
    Backend(usize, usize, u8),
    Remove(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        2 => (0..FRONTENDS, 0..SERVICES).prop_map(|(f, s)| Edit::Move(f, s)),
        8 => (0..SERVICES, 0..BACKENDS, 0u8..5).prop_map(|(s, b, n)| Edit::Backend(s, b, n)),
        1 => (0..SERVICES).prop_map(Edit::Remove),
    ]
}

/// Whose each frontend is, and how each service's backends stand. Frontends and backends have both
/// families; of the services two are TCP and two UDP.
#[derive(Clone, Debug, Default)]
struct Wanted {
    frontends: [Option<usize>; FRONTENDS],
    backends: [[u8; BACKENDS]; SERVICES],
    exists: [bool; SERVICES],
}

fn state_of(number: u8) -> BackendState {
    match number {
        1 => BackendState::Unserving,
        2 => BackendState::Draining,
        _ => BackendState::Active,
    }
}
fn service_key(service: usize) -> ServicePortKey {
    common::key(["a", "b", "c", "d"][service], protocol(service))
}
fn protocol(service: usize) -> Protocol {
    if service < 2 { Protocol::Tcp } else { Protocol::Udp }
}
/// Frontends of TCP and UDP have ports of their own, so that each is one service's at most.
fn frontend(n: usize, v6: bool) -> SocketAddr {
    at(frontend_ip(v6), 80 + n as u16)
}
fn backend(service: usize, n: usize, v6: bool) -> SocketAddr {
    at(backend_ip(v6, 10 + n as u8), 8000 + service as u16)
}

impl Wanted {
    fn edit(&mut self, edit: &Edit) {
        match *edit {
            Edit::Move(frontend, service) => {
                self.frontends[frontend] = Some(service);
                self.exists[service] = true;
            }
            Edit::Backend(service, backend, state) => {
                self.backends[service][backend] = state.min(3);
                self.exists[service] = true;
            }
            Edit::Remove(service) => {
                self.exists[service] = false;
                self.backends[service] = [0; BACKENDS];
                self.frontends.iter_mut().filter(|f| **f == Some(service)).for_each(|f| *f = None);
            }
        }
    }
    fn port(&self, service: usize) -> ServicePort {
        let mut frontends = Vec::new();
        let mut backends = Vec::new();
        for v6 in [false, true] {
            let mine = (0..FRONTENDS).filter(|f| self.frontends[*f] == Some(service));
            frontends.extend(mine.map(|f| frontend(f, v6)));
            for (n, state) in self.backends[service].iter().enumerate().filter(|b| *b.1 > 0) {
                backends.push((backend(service, n, v6), state_of(*state)));
            }
        }
        common::service(&service_key(service), &frontends, &backends)
    }
    fn has(&self, service: usize, address: SocketAddr) -> bool {
        self.exists[service]
            && (0..BACKENDS).any(|n| {
                self.backends[service][n] > 0 && backend(service, n, address.is_ipv6()) == address
            })
    }
    /// True where a UDP flow to it goes on.
    fn serves(&self, service: usize, address: SocketAddr) -> bool {
        let v6 = address.is_ipv6();
        let to = |n: &usize| backend(service, *n, v6) == address;
        self.exists[service]
            && (0..BACKENDS).find(to).is_some_and(|n| self.backends[service][n] >= 2)
    }
    fn active(&self, service: usize, v6: bool) -> BTreeSet<SocketAddr> {
        (0..BACKENDS)
            .filter(|n| self.exists[service] && self.backends[service][*n] == 3)
            .map(|n| backend(service, n, v6))
            .collect()
    }
    fn delta_from(&self, before: &Self) -> Delta {
        let mut delta = Delta::default();
        for service in 0..SERVICES {
            if self.exists[service] {
                let (old, new) = (before.port(service), self.port(service));
                if old != new || !before.exists[service] {
                    delta.changed.push(Arc::new(new));
                }
            } else if before.exists[service] {
                delta.removed.push(service_key(service));
            }
        }
        delta
    }
}

/// What a snapshot means, without its ids.
fn meaning(snapshot: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    for v6 in [false, true] {
        lines.push(format!("address {}", snapshot.is_frontend_address(frontend_ip(v6))));
        for (n, number) in (0..FRONTENDS).flat_map(|n| [(n, 6u8), (n, 17)]) {
            let to = frontend(n, v6);
            let Some(service) = snapshot.frontend(to.ip(), number, to.port()) else { continue };
            let table = service.table(Family::of(to.ip()));
            let backends: Vec<_> =
                table.targets().iter().map(|to| snapshot.backend(to.id).unwrap().address).collect();
            let refusal = service.refusal;
            lines.push(format!(
                "{to} {} {refusal:?} {backends:?} {:?}",
                service.key,
                table.slots()
            ));
        }
    }
    let mut backends: Vec<_> = snapshot
        .backends()
        .map(|(_, held)| {
            let service = snapshot.service(held.service).unwrap();
            format!("{} {} {:?} {:?}", service.key, held.address, held.state, held.via)
        })
        .collect();
    let mut services: Vec<_> = snapshot.services().map(|s| s.key.to_string()).collect();
    let mut addresses = snapshot.frontend_addresses();
    backends.sort_unstable();
    services.sort_unstable();
    addresses.sort_unstable();
    lines.extend(backends);
    lines.extend(services);
    lines.push(format!("{addresses:?}"));
    lines
}

struct Connection {
    service: usize,
    client: Packet,
    backend: SocketAddr,
    nat: SocketAddr,
    /// Its backend has been in the service port ever since.
    stays: bool,
}

#[derive(Default, Debug)]
struct Coverage {
    steps: usize,
    connections: usize,
    kept: usize,
    orphans: usize,
    moved_udp: usize,
    refused: usize,
    slots_used_again: usize,
}

struct Run {
    world: World,
    pipeline: Pipeline,
    wanted: Wanted,
    connections: Vec<Connection>,
    backend_ids: HashMap<BackendId, (usize, SocketAddr)>,
    service_ids: HashMap<ServiceId, usize>,
    next_port: u16,
    now: Now,
}

impl Run {
    fn new() -> Self {
        let mut world = World::new(WORKERS);
        world.compiler = Compiler::new(SLOTS[0], SLOTS[1]);
        Self {
            world,
            pipeline: common::pipeline(&Options { secret: 6, ..Options::default() }),
            wanted: Wanted::default(),
            connections: Vec::new(),
            backend_ids: HashMap::new(),
            service_ids: HashMap::new(),
            next_port: 2000,
            now: Now { ms: 5 },
        }
    }

    fn step(&mut self, edits: &[Edit], coverage: &mut Coverage) {
        let before = self.wanted.clone();
        edits.iter().for_each(|edit| self.wanted.edit(edit));
        let delta = self.wanted.delta_from(&before);
        let report = self.world.publish(&delta);
        assert_eq!(report.problems, []);
        self.now.ms += 1;
        coverage.steps += 1;
        self.compiled_at_once();
        self.ids(&report, coverage);
        self.existing(coverage);
        self.new_ones(coverage);
        let records = common::records(&self.pipeline, &self.world.tables, self.now);
        let mut nat: Vec<_> = records.iter().map(|c| (c.protocol, c.nat, c.backend)).collect();
        nat.sort_unstable();
        nat.dedup();
        assert_eq!(nat.len(), records.len(), "NAT tuples are unique");
    }

    fn compiled_at_once(&self) {
        let mut desired = DesiredState::default();
        let changed = (0..SERVICES).filter(|s| self.wanted.exists[*s]);
        let changed = changed.map(|s| Arc::new(self.wanted.port(s))).collect();
        desired.apply(&Delta { changed, removed: vec![] });
        let (at_once, _) = Compiler::default().apply(&desired.as_delta());
        let snapshot = &self.world.tables.snapshot;
        assert_eq!(meaning(snapshot), meaning(&at_once));
        for (n, v6) in (0..FRONTENDS).flat_map(|n| [(n, false), (n, true)]) {
            let to = frontend(n, v6);
            for number in [6, 17] {
                let owner = self.wanted.frontends[n].filter(|s| protocol(*s).number() == number);
                let found = snapshot.frontend(to.ip(), number, to.port());
                assert_eq!(found.map(|s| (*s.key).clone()), owner.map(service_key), "{to}");
                let Some((found, owner)) = found.zip(owner) else { continue };
                let table = found.table(Family::of(to.ip()));
                let selected: BTreeSet<_> = (0..1u64 << 12)
                    .filter_map(|hash| table.select(hash << 52))
                    .map(|id| snapshot.backend(id).unwrap().address)
                    .collect();
                assert_eq!(selected, self.wanted.active(owner, v6), "{to}");
            }
        }
    }

    /// An id names the holder that it was given to, or nobody, forever.
    fn ids(&mut self, report: &Report, coverage: &mut Coverage) {
        let snapshot = &self.world.tables.snapshot;
        for service in 0..SERVICES {
            let key = service_key(service);
            if let Some(id) = self.world.compiler.service(&key) {
                let new = self.service_ids.insert(id, service).is_none();
                assert_eq!(new, report.services_begun.contains(&id), "{id:?}");
            }
            for (n, v6) in (0..BACKENDS).flat_map(|n| [(n, false), (n, true)]) {
                let address = backend(service, n, v6);
                let Some(id) = self.world.compiler.backend(&key, address) else { continue };
                let reused = self.backend_ids.keys().any(|old| old.slot == id.slot && *old != id);
                match self.backend_ids.insert(id, (service, address)) {
                    Some(holder) => assert_eq!(holder, (service, address), "{id:?}"),
                    None => {
                        assert!(report.backends_begun.contains(&id));
                        coverage.slots_used_again += usize::from(reused);
                    }
                }
            }
        }
        for (id, (service, address)) in &self.backend_ids {
            if let Some(held) = snapshot.backend(*id) {
                assert_eq!(held.address, *address);
                assert_eq!(self.service_ids[&held.service], *service);
                assert!(self.wanted.has(*service, *address), "{address} has gone");
            }
        }
        for (id, service) in &self.service_ids {
            if let Some(found) = snapshot.service(*id) {
                assert_eq!(*found.key, service_key(*service));
            }
        }
    }

    fn send(&mut self, packet: &Packet) -> (Verdict, Option<Packet>) {
        let port = if packet.to == common::FRONT_MAC { FRONT_PORT } else { BACK_PORT };
        // The device's hash says that all clients are the first worker's.
        let rx = Rx { port, hash: Some(0), ..Rx::default() };
        let mut out = [Buffer::new(&packet.build(), rx)];
        common::process(&mut self.pipeline, &self.world.tables, &mut out, self.now);
        let [out] = out;
        let sent = matches!(out.verdict, Verdict::Send(_)).then(|| Packet::parse(out.frame()));
        (out.verdict, sent)
    }

    /// Every connection sends, and is answered.
    fn existing(&mut self, coverage: &mut Coverage) {
        let mut connections = std::mem::take(&mut self.connections);
        connections.retain_mut(|c| {
            // Of UDP, only what its backend serves goes on.
            let udp = c.client.protocol == Protocol::Udp;
            c.stays &= if udp {
                self.wanted.serves(c.service, c.backend)
            } else {
                self.wanted.has(c.service, c.backend)
            };
            let (verdict, sent) = self.send(&c.client);
            let Some(sent) = sent else {
                assert!(!c.stays, "lost: {verdict:?}");
                return false;
            };
            if (sent.source, sent.destination) != (c.nat, c.backend) {
                assert!(udp && !c.stays, "moved from {}, which stays", c.backend);
                let v6 = c.backend.is_ipv6();
                let owner = self.owner(c.client.destination).unwrap();
                assert!(self.wanted.active(owner, v6).contains(&sent.destination));
                (c.service, c.backend, c.nat) = (owner, sent.destination, sent.source);
                c.stays = true;
                coverage.moved_udp += 1;
            }
            let (_, back) = self.send(&sent.reply(ACK, [4; 9]));
            let back = back.expect("the reply comes back");
            assert_eq!((back.source, back.destination), (c.client.destination, c.client.source));
            coverage.kept += usize::from(c.stays);
            coverage.orphans += usize::from(!c.stays);
            true
        });
        self.connections = connections;
    }

    fn owner(&self, to: SocketAddr) -> Option<usize> {
        self.wanted.frontends[usize::from(to.port() - 80)]
    }

    /// Two new connections to each frontend, of either protocol.
    fn new_ones(&mut self, coverage: &mut Coverage) {
        for n in 0..FRONTENDS {
            for (protocol, v6) in [
                (Protocol::Tcp, false),
                (Protocol::Tcp, true),
                (Protocol::Udp, false),
                (Protocol::Udp, true),
            ] {
                self.next_port += 1;
                let ports = (self.next_port, 80 + n as u16);
                let syn = Packet::to_frontend(protocol, v6, 10, ports);
                let owner = self.owner(syn.destination).filter(|s| self::protocol(*s) == protocol);
                let active = owner.map_or(BTreeSet::new(), |s| self.wanted.active(s, v6));
                let (verdict, sent) = self.send(&syn);
                let Some((sent, service)) = sent.zip(owner) else {
                    assert!(active.is_empty(), "{verdict:?} though there are {active:?}");
                    assert!(!matches!(verdict, Verdict::Send(_)), "sent to nobody's backend");
                    coverage.refused += 1;
                    continue;
                };
                assert!(active.contains(&sent.destination), "selected {}", sent.destination);
                self.send(&sent.reply(SYN | ACK, vec![])).1.expect("the SYN-ACK comes back");
                coverage.connections += 1;
                let client = syn.flags(ACK).payload([3; 7]);
                let (backend, nat) = (sent.destination, sent.source);
                self.connections.push(Connection { service, client, backend, nat, stays: true });
            }
        }
    }
}

#[test]
fn changes_keep_what_stays_and_leave_nothing_of_what_goes() {
    let began = std::time::Instant::now();
    let coverage = RefCell::new(Coverage::default());
    let mut runner =
        TestRunner::new(Config { cases: 250, failure_persistence: None, ..Config::default() });
    let steps = proptest::collection::vec(proptest::collection::vec(edit(), 1..8), 1..40);
    let result = runner.run(&steps, |steps| {
        let mut coverage = coverage.borrow_mut();
        let mut run = Run::new();
        steps.iter().for_each(|edits| run.step(edits, &mut coverage));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let c = coverage.into_inner();
    println!("{c:?}, {:.1?}", began.elapsed());
    let rare = [c.kept, c.orphans, c.moved_udp, c.refused, c.slots_used_again];
    assert!(rare.iter().all(|n| *n > 100), "{c:?}");
}

/// A connection outlives its backend; its packets are not its successor's in the slot.
#[test]
fn what_a_gone_backend_gets_is_not_counted_as_its_successors() {
    let mut world = World::new(1);
    world.compiler = Compiler::new(1, 1);
    let mut pipeline = common::pipeline(&Options::default());
    let now = Now { ms: 5 };
    let mut counts = Vec::new();
    for n in [0, 1] {
        let backends = [(backend(0, n, false), BackendState::Active)];
        world.put(common::service(&service_key(0), &[frontend(0, false)], &[]));
        world.put(common::service(&service_key(0), &[frontend(0, false)], &backends));
        let syn = Packet::to_frontend(Protocol::Tcp, false, 10, (2000, 80));
        let flags = if n == 0 { SYN } else { ACK };
        let syn = syn.flags(flags).build();
        let out = common::one(&mut pipeline, &world.tables, &syn, FRONT_PORT, now);
        let sent = Packet::parse(out.frame());
        assert_eq!(sent.destination, backend(0, 0, false), "it keeps its backend");
        let reply = sent.reply(SYN | ACK, vec![]).build();
        common::one(&mut pipeline, &world.tables, &reply, BACK_PORT, now);
        let counters = &pipeline.counters().backends[0];
        counts.push((counters.packets_in.read(), counters.packets_out.read()));
    }
    assert_eq!(counts, [(1, 1), (1, 1)]);
}
