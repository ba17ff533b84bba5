//! The gateway's surroundings: those of the golden cases and more backends, all of which come and
//! go.

use fastrand::Rng;
use golden::world::{adjacency_input, backend, ip, nat_addresses, services};
use model::desired::{Affinity, BackendState, Delta, ServicePort};
use model::ids::{InterfaceId, WorkerId};
use pipeline::adjacency::{Adjacencies, AdjacencyInput, Mac};
use pipeline::snapshot::Compiler;
use pipeline::steer::SteerTable;
use pipeline::tables::Tables;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// Backends that services may have as well, by the service's protocol: their place in the list.
const BACKENDS: [&str; 9] = [
    "198.18.1.11:8080",
    "198.18.1.12:8080",
    "198.18.1.13:5353",
    "198.18.2.11:8080",
    "10.244.3.7:8080 via 198.18.1.12",
    "198.18.1.99:8080",
    "[2001:db8:b::11]:8080",
    "[2001:db8:b::12]:8080",
    "[2001:db8:b::13]:5353",
];

/// Surroundings and the tables made of them.
#[derive(Debug)]
pub struct World {
    compiler: Compiler,
    /// All services there may be; some are gone.
    services: Vec<(ServicePort, bool)>,
    all: AdjacencyInput,
    input: AdjacencyInput,
    /// The tables as they are published now.
    pub tables: Tables,
    /// Addresses that packets of ours may come from: frontends and NAT addresses, bytes as in a
    /// packet.
    pub ours: BTreeSet<Vec<u8>>,
    /// Addresses that mean something here, for packets made up.
    pub addresses: Vec<IpAddr>,
}

impl World {
    /// The surroundings as they are at first.
    pub fn new(workers: u8) -> Self {
        let mut compiler = Compiler::new(64, 256);
        let services = services();
        let changed = services.iter().cloned().map(Arc::new).collect();
        let (snapshot, report) = compiler.apply(&Delta { changed, removed: Vec::new() });
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        let input = adjacency_input();
        let nat = nat_addresses();
        let frontends = services.iter().flat_map(|s| &s.frontends).map(|f| f.address.ip());
        let own: Vec<IpAddr> = frontends.chain(nat.iter().map(|nat| nat.address)).collect();
        let mut addresses = own.clone();
        addresses.extend(input.addresses.iter().map(|(_, address)| *address));
        addresses.extend(input.neighbours.iter().map(|(_, address, _)| *address));
        addresses.extend(BACKENDS.map(|text| backend(text).address.ip()));
        addresses.extend(
            [
                "127.0.0.1",
                "224.0.0.5",
                "239.1.1.1",
                "255.255.255.255",
                "0.0.0.0",
                "8.8.8.8",
                "198.51.100.7",
                "198.18.0.77",
                "::",
                "::1",
                "ff02::1",
                "ff02::5",
                "::ffff:1.2.3.4",
                "2001:db8:c::7",
                "2001:db8:f::77",
                "fe80::1",
            ]
            .map(ip),
        );
        Self {
            compiler,
            services: services.into_iter().map(|service| (service, true)).collect(),
            all: input.clone(),
            tables: Tables {
                generation: 1,
                snapshot,
                adjacencies: Arc::new(Adjacencies::new(input.clone())),
                steer: Arc::new(SteerTable::new(workers, &nat)),
            },
            input,
            ours: own.into_iter().map(octets).collect(),
            addresses,
        }
    }
    /// How many workers share the traffic.
    pub fn workers(&self) -> u8 {
        self.tables.steer.workers()
    }
    /// True where the worker is one of those.
    pub fn has_worker(&self, worker: WorkerId) -> bool {
        worker.0 < self.workers()
    }
    /// Publishes something else than before.
    pub fn change(&mut self, rng: &mut Rng) {
        if rng.bool() {
            self.change_service(rng);
        } else {
            self.change_links(rng);
        }
        self.tables.generation += 1;
    }
    /// A service gets other backends, goes or comes back.
    fn change_service(&mut self, rng: &mut Rng) {
        let number = rng.usize(..self.services.len());
        let (service, there) = &mut self.services[number];
        // The odd ones keep their oddity: they are how some reasons are reached.
        let odd = !matches!(&*service.key.service.name, "web" | "dns" | "pod" | "tagged" | "mute");
        let delta = if odd && rng.u8(..4) > 0 {
            return;
        } else if *there && rng.u8(..8) == 0 {
            *there = false;
            Delta { changed: Vec::new(), removed: vec![service.key.clone()] }
        } else {
            *there = true;
            if !odd {
                service.backends = BACKENDS.iter().map(|text| backend(text)).collect();
                service.backends.retain(|_| rng.u8(..3) == 0);
                service.affinity = rng.bool().then_some(Affinity { timeout_s: rng.u32(1..100) });
                service.reset_after_s = rng.bool().then(|| rng.u32(..40));
                for backend in &mut service.backends {
                    backend.weight = rng.u16(1..4);
                    backend.state = match rng.u8(..6) {
                        0 => BackendState::Draining,
                        1 => BackendState::Unserving,
                        _ => BackendState::Active,
                    };
                }
            }
            Delta { changed: vec![Arc::new(service.clone())], removed: Vec::new() }
        };
        let (snapshot, report) = self.compiler.apply(&delta);
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        self.tables.snapshot = snapshot;
    }
    /// Next hops resolve and vanish, change their MAC, and their ids with them.
    fn change_links(&mut self, rng: &mut Rng) {
        self.input = self.all.clone();
        let absent = rng.u8(..4);
        self.input.neighbours.retain(|_| rng.u8(..8) >= absent);
        rng.shuffle(&mut self.input.neighbours);
        if rng.u8(..4) == 0 && !self.input.neighbours.is_empty() {
            let at = rng.usize(..self.input.neighbours.len());
            self.input.neighbours[at].2 = Mac([2, 0, 0, 9, 9, rng.u8(..)]);
        }
        if rng.u8(..8) == 0 {
            let at = rng.usize(..self.input.routes.len());
            self.input.routes.remove(at);
        }
        if rng.u8(..8) == 0 {
            let at = rng.usize(..self.input.interfaces.len());
            self.input.interfaces[at].mtu = *rng.choice(&[1280, 1500, 9000]).unwrap();
        }
        self.tables.adjacencies = Arc::new(self.tables.adjacencies.next(self.input.clone()));
    }
    /// The interface of a port that sends frames with this tag.
    pub fn interface(&self, port: u8, vlan: Option<u16>) -> Option<InterfaceId> {
        let vlan = vlan.map(|tag| tag & 0x0fff);
        let at = self
            .input
            .interfaces
            .iter()
            .position(|interface| interface.port.0 == port && interface.vlan == vlan)?;
        Some(InterfaceId(at as u8))
    }
}

/// The address as it lies in a packet.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
