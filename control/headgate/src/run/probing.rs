//! Active probes: asks what builds want asked, and tells the next build what came of it.

use super::path::PacketPath;
use engine::HostWay;
use model::answers::ProbeCounts;
use sources::probe::Prober;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use translate::Index;
use translate::probes::{Health, ProbeChange, ProbeKey};

/// Builds follow answers no faster than this: one node that goes takes many probes with it.
const ANSWERS_EVERY: Duration = Duration::from_millis(200);

/// Probes that go on, and what was heard of them.
#[derive(Default)]
pub struct Probing {
    prober: Option<Prober>,
    heard: HashMap<ProbeKey, Health>,
    /// The host's own ways to what is asked.
    ways: HashMap<ProbeKey, HostWay>,
    active: u64,
    told: Option<Instant>,
}

impl Probing {
    /// With somebody who asks; without one nothing is ever heard.
    pub fn new(prober: Option<Prober>) -> Self {
        Self { prober, ..Self::default() }
    }

    /// What a build wants asked from now on.
    pub fn change<P: PacketPath>(&mut self, change: ProbeChange, path: &P) {
        for key in &change.stopped {
            self.heard.remove(key);
            self.ways.remove(key);
        }
        if let Some(prober) = &mut self.prober {
            for (key, _) in &change.started {
                if let Some(via) = key.via.filter(|_| !self.ways.contains_key(key)) {
                    self.ways.insert(key.clone(), path.host_way(key.address.ip(), via));
                }
            }
            prober.change(change);
            self.active = prober.len() as u64;
        }
    }

    /// Tells the index what was heard. True where it differs from before.
    pub fn tell(&mut self, index: &mut Index) -> bool {
        let Some(prober) = &mut self.prober else { return false };
        if self.told.is_some_and(|told| told.elapsed() < ANSWERS_EVERY) {
            return false;
        }
        let results = prober.results();
        if results.is_empty() {
            return false;
        }
        self.told = Some(Instant::now());
        for (key, health) in results {
            index.probed(&key, health);
            self.heard.insert(key, health);
        }
        true
    }

    /// How they are. To be asked after a change: it looks at all of them.
    pub fn counts(&self) -> ProbeCounts {
        let count = |is: fn(&Health) -> bool| self.heard.values().filter(|one| is(one)).count();
        ProbeCounts {
            active: self.active,
            healthy: count(|one| matches!(one, Health::Healthy { .. })) as u64,
            unhealthy: count(|one| matches!(one, Health::Unhealthy { .. })) as u64,
        }
    }
}
