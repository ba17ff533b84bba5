//! Ways to backends and announcements of frontends: what a new snapshot asks of the mirror.

use crate::engine::Engine;
use model::ids::InterfaceId;
use pipeline::adjacency::Adjacencies;
use pipeline::snapshot::Snapshot;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How long a snapshot waits for the next hops that it is the first to need. Else the first
/// connection to a new backend would lose its SYN, and its client a second.
const RESOLVE_MAX: Duration = Duration::from_millis(30);
const RESOLVE_POLL: Duration = Duration::from_micros(200);

type Hop = (InterfaceId, IpAddr);

/// What was asked of the mirror so far.
#[derive(Debug, Default)]
pub struct Ways {
    /// Next hops of backends, and how many backends are behind each.
    hops: HashMap<Hop, u32>,
    /// Next hops that were waited for once.
    known: HashSet<Hop>,
    announced: BTreeSet<IpAddr>,
    /// The generation that `hops` was made from.
    generation: u64,
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
    /// Publishes a snapshot. Asks for the next hops that it needs first, waits a moment for those
    /// that are new, and announces the frontend addresses that are new. Returns the generation.
    pub fn publish(&self, snapshot: Arc<Snapshot>) -> u64 {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        self.resolve(&mut ways, &snapshot);
        let generation = self.publisher.update(|tables| tables.snapshot = Arc::clone(&snapshot));
        self.announce_new(&mut ways, &snapshot);
        generation
    }

    /// Looks again at the ways to backends after routes or neighbours have changed. To be called
    /// now and then; costs nothing while nothing has changed.
    pub fn refresh_ways(&self) {
        self.publisher.collect();
        let latest = self.publisher.latest();
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        if ways.generation != latest.generation {
            ways.generation = latest.generation;
            self.set_hops(&mut ways, hops(&latest.snapshot, &latest.adjacencies));
        }
    }

    /// Backends behind each next hop, as of the latest snapshot.
    pub fn backends_behind(&self) -> HashMap<(InterfaceId, IpAddr), u32> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner).hops.clone()
    }

    fn set_hops(&self, ways: &mut Ways, hops: HashMap<Hop, u32>) {
        let same = hops.len() == ways.hops.len() && hops.keys().all(|h| ways.hops.contains_key(h));
        ways.hops = hops;
        if let (Some(mirror), false) = (&self.mirror, same) {
            mirror.set_managed(ways.hops.keys().copied().collect());
        }
    }

    fn resolve(&self, ways: &mut Ways, snapshot: &Snapshot) {
        if self.mirror.is_none() {
            return;
        }
        let adjacencies = Arc::clone(&self.publisher.latest().adjacencies);
        self.set_hops(ways, hops(snapshot, &adjacencies));
        let mut missing: Vec<Hop> =
            ways.hops.keys().copied().filter(|hop| !ways.known.contains(hop)).collect();
        ways.known.retain(|hop| ways.hops.contains_key(hop));
        ways.known.extend(missing.iter().copied());
        let until = Instant::now() + RESOLVE_MAX;
        loop {
            let adjacencies = Arc::clone(&self.publisher.latest().adjacencies);
            missing.retain(|(interface, hop)| adjacencies.find(*interface, *hop).is_none());
            if missing.is_empty() || Instant::now() >= until {
                return;
            }
            std::thread::sleep(RESOLVE_POLL);
        }
    }

    fn announce_new(&self, ways: &mut Ways, snapshot: &Snapshot) {
        let Some(mirror) = &self.mirror else { return };
        let addresses: BTreeSet<IpAddr> = snapshot.frontend_addresses().into_iter().collect();
        let adjacencies = Arc::clone(&self.publisher.latest().adjacencies);
        let front = || {
            let interfaces = adjacencies.interfaces().iter().enumerate();
            interfaces.filter(|(_, i)| i.role.is_front()).map(|(id, _)| InterfaceId(id as u8))
        };
        let new: Vec<Hop> = addresses
            .difference(&ways.announced)
            .filter(|address| adjacencies.local(**address).is_none())
            .flat_map(|address| front().map(|interface| (interface, *address)))
            .collect();
        ways.announced = addresses;
        if !new.is_empty() {
            mirror.announce(new);
        }
    }

    pub(crate) fn announce_nat(&self) {
        if let Some(mirror) = &self.mirror {
            let steer = Arc::clone(&self.publisher.latest().steer);
            mirror.announce(steer.nat_addresses().map(|n| (n.interface, n.address)).collect());
        }
    }
}
