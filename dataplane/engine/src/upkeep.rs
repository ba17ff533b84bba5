//! Next hops of backends and announcements of frontends: what a new snapshot asks of the mirror.

use crate::engine::Engine;
use crate::mirror::HostWay;
use model::ids::{BackendId, InterfaceId, ServiceId};
use pipeline::adjacency::Adjacencies;
use pipeline::snapshot::{Report, Snapshot};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How long a snapshot waits for the next hops that it is the first to need. Else the first
/// connection to a new backend would lose its SYN, and its client a second.
const RESOLVE_MAX: Duration = Duration::from_millis(30);
const RESOLVE_POLL: Duration = Duration::from_micros(200);
/// How often all backends are looked at, at most: 100,000 take some 10 ms.
const REFRESH_AFTER: Duration = Duration::from_secs(1);

type Hop = (InterfaceId, IpAddr);

/// What was asked of the mirror so far.
#[derive(Debug, Default)]
pub struct Upkeep {
    /// Next hops of backends, and how many backends are behind each: those that left since all
    /// were looked at are still counted.
    hops: HashMap<Hop, u32>,
    announced: HashSet<IpAddr>,
    /// The generation and the time at which all backends were looked at.
    generation: u64,
    looked: Option<Instant>,
}

fn hops(snapshot: &Snapshot, adjacencies: &Adjacencies) -> HashMap<Hop, u32> {
    let mut hops = HashMap::new();
    for (_, backend) in snapshot.backends() {
        if let Some(hop) = adjacencies.hop(backend.address.ip(), backend.via) {
            *hops.entry((hop.interface, hop.address)).or_insert(0) += 1;
        }
    }
    hops
}

impl Engine {
    /// Publishes a snapshot as a whole. Returns the generation.
    pub fn publish(&self, snapshot: Arc<Snapshot>) -> u64 {
        let everything = Report {
            services_begun: snapshot.services().map(|service| service.id).collect(),
            backends_changed: snapshot.backends().map(|(id, _)| id).collect(),
            addresses_touched: snapshot.frontend_addresses(),
            ..Report::default()
        };
        self.publish_change(snapshot, &everything)
    }

    /// Publishes a snapshot that differs from the one before as the report says, and costs what
    /// that costs. Asks for the next hops that it is the first to need, waits a moment for them,
    /// and announces the frontend addresses that are new. Returns the generation.
    pub fn publish_change(&self, snapshot: Arc<Snapshot>, report: &Report) -> u64 {
        let mut upkeep = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        self.resolve(&mut upkeep, &snapshot, &report.backends_changed);
        self.name_slots(&snapshot, &report.services_begun);
        let generation = self.publisher.update(|tables| tables.snapshot = Arc::clone(&snapshot));
        self.announce_new(&mut upkeep, &snapshot, &report.addresses_touched);
        generation
    }

    /// Says beside the connection tables whose the slots are, before an entry can name them.
    fn name_slots(&self, snapshot: &Snapshot, begun: &[ServiceId]) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for service in begun.iter().filter_map(|id| snapshot.service(*id)) {
            keys.begin(service.id, &service.key);
        }
    }

    /// Looks again at the next hops of all backends, after routes or backends have changed. To be called
    /// now and then; costs nothing while nothing has changed.
    pub fn refresh_ways(&self) {
        self.publisher.collect();
        let latest = self.publisher.latest();
        let mut upkeep = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        let due = upkeep.looked.is_none_or(|looked| looked.elapsed() >= REFRESH_AFTER);
        if upkeep.generation == latest.generation || !due {
            return;
        }
        upkeep.generation = latest.generation;
        upkeep.looked = Some(Instant::now());
        let hops = hops(&latest.snapshot, &latest.adjacencies);
        let same =
            hops.len() == upkeep.hops.len() && hops.keys().all(|h| upkeep.hops.contains_key(h));
        upkeep.hops = hops;
        if !same {
            self.manage(&upkeep);
        }
    }

    /// Gives the host itself a way to an address by a next hop, for as long as what this returns
    /// lives: workers know the next hops of pods, the kernel doesn't.
    pub fn host_way(&self, address: IpAddr, via: IpAddr) -> HostWay {
        self.mirror.as_ref().map(|mirror| mirror.host_way(address, via)).unwrap_or_default()
    }

    /// Waits until the kernel knows all ways that were asked for; false where it takes longer.
    pub fn wait_for_host_ways(&self, longest: Duration) -> bool {
        self.mirror.as_ref().is_none_or(|mirror| mirror.wait_for_host_ways(longest))
    }

    /// Backends behind each next hop, as of the latest snapshot.
    pub fn backends_behind(&self) -> HashMap<(InterfaceId, IpAddr), u32> {
        self.upkeep.lock().unwrap_or_else(PoisonError::into_inner).hops.clone()
    }

    fn manage(&self, upkeep: &Upkeep) {
        if let Some(mirror) = &self.mirror {
            mirror.set_managed(upkeep.hops.keys().copied().collect());
        }
    }

    fn resolve(&self, upkeep: &mut Upkeep, snapshot: &Snapshot, changed: &[BackendId]) {
        if self.mirror.is_none() {
            return;
        }
        let adjacencies = self.adjacencies();
        let mut missing = Vec::new();
        for backend in changed.iter().filter_map(|id| snapshot.backend(*id)) {
            let Some(hop) = adjacencies.hop(backend.address.ip(), backend.via) else { continue };
            let hop = (hop.interface, hop.address);
            let behind = upkeep.hops.entry(hop).or_insert(0);
            if *behind == 0 {
                missing.push(hop);
            }
            *behind += 1;
        }
        if missing.is_empty() {
            return;
        }
        self.manage(upkeep);
        let until = Instant::now() + RESOLVE_MAX;
        loop {
            let adjacencies = self.adjacencies();
            missing.retain(|(interface, hop)| adjacencies.find(*interface, *hop).is_none());
            if missing.is_empty() || Instant::now() >= until {
                return;
            }
            std::thread::sleep(RESOLVE_POLL);
        }
    }

    fn announce_new(&self, upkeep: &mut Upkeep, snapshot: &Snapshot, touched: &[IpAddr]) {
        if self.mirror.is_none() {
            return;
        }
        let adjacencies = self.adjacencies();
        let front = || {
            let interfaces = adjacencies.interfaces().iter().enumerate();
            interfaces.filter(|(_, i)| i.role.is_front()).map(|(id, _)| InterfaceId(id as u8))
        };
        let (mut new, mut gone): (Vec<Hop>, Vec<Hop>) = Default::default();
        for address in touched {
            if !snapshot.is_frontend_address(*address) {
                if upkeep.announced.remove(address) {
                    gone.extend(front().map(|interface| (interface, *address)));
                }
            } else if upkeep.announced.insert(*address) && adjacencies.local(*address).is_none() {
                new.extend(front().map(|interface| (interface, *address)));
            }
        }
        self.hold(new, gone);
    }

    /// Announces addresses and joins their groups, or no longer.
    fn hold(&self, new: Vec<Hop>, gone: Vec<Hop>) {
        if new.is_empty() && gone.is_empty() {
            return;
        }
        if let Some(links) = &self.links {
            links.change(&new, &gone);
        }
        if let Some(mirror) = &self.mirror {
            mirror.withdraw(gone);
            mirror.announce(new);
        }
    }

    pub(crate) fn announce_nat(&self) {
        let steer = Arc::clone(&self.publisher.latest().steer);
        self.hold(steer.nat_addresses().map(|n| (n.interface, n.address)).collect(), Vec::new());
    }
}
