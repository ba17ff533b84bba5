//! What the control side knows and the admin API tells.

use super::path::PacketPath;
use admin::ProgrammingTimes;
use engine::BackendTraffic;
use model::answers::{
    Degraded, Event, Live, PoolRow, ProbeCounts, ServiceStatus, Severity, SourceState, Traffic,
    WriteCounts,
};
use model::desired::{Backend, BackendState, Delta, DesiredState, ObjectName, ServicePortKey};
use model::limits::EVENTS_KEPT;
use pipeline::snapshot::{Compiler, Report};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What is wrong with the source.
pub const SOURCE: &str = "source";

/// What the control side knows. Written by the control thread alone.
#[derive(Debug, Default)]
pub struct Books {
    /// What is forwarded.
    pub desired: DesiredState,
    /// What was made of each Service.
    pub statuses: BTreeMap<ObjectName, ServiceStatus>,
    /// The latest events.
    events: VecDeque<Event>,
    /// Compiles changes, and knows the slots.
    compiler: Compiler,
    /// What the counters of each slot stood at when its holder got it.
    service_bases: HashMap<u32, Traffic>,
    backend_bases: HashMap<u32, BackendTraffic>,
    /// What is wrong and since when, by what it concerns.
    degraded: BTreeMap<String, (String, u64)>,
    /// From the detection of the latest change to its use by the last worker, in microseconds.
    pub last_change_us: Option<u64>,
    /// Where the objects come from.
    pub source_name: String,
    /// How the source is doing.
    pub source: SourceState,
    /// Since when nobody has heard the source, for a fault of the control side.
    pub source_fails_since: Option<Instant>,
    /// When the source was heard last.
    pub source_heard: Option<Instant>,
    /// Service ports of which a part could not be compiled.
    lost: BTreeSet<ServicePortKey>,
    /// What was written to the source; `None` where nothing ever is.
    pub write_counts: Option<WriteCounts>,
    /// Active probes.
    pub probe_counts: ProbeCounts,
    /// Service ports whose backends all fail their probe and are used nevertheless.
    pub probes_overruled: u64,
    /// Endpoints that no Service may have as a backend.
    pub endpoints_refused: u64,
    /// Pools, and what is used of them.
    pub pools: Vec<PoolRow>,
    /// From the source's word to the last worker's use, of each change.
    pub programming: ProgrammingTimes,
    /// What the workers run with, and since when.
    pub live: BTreeMap<ObjectName, Live>,
}

/// An event about the gateway itself.
pub fn own_event(reason: &str, message: String) -> Event {
    Event {
        time_s: 0,
        severity: Severity::Warning,
        reason: reason.to_owned(),
        kind: "Gateway".to_owned(),
        object: ObjectName::new("", "headgate"),
        uid: String::new(),
        place: String::new(),
        message,
    }
}

/// What is wrong until the source has been read.
pub fn not_read(source: &str) -> String {
    format!("{source} has not been read yet")
}

/// Seconds since the Unix epoch.
pub fn epoch_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The Services that a change is about.
fn services_of(delta: &Delta) -> BTreeSet<&ObjectName> {
    let changed = delta.changed.iter().map(|port| &port.key.service);
    changed.chain(delta.removed.iter().map(|key| &key.service)).collect()
}

impl Books {
    /// Makes a change: compiles and publishes it. Returns the generation, and what could not be
    /// compiled.
    pub fn change<P: PacketPath>(&mut self, path: &P, delta: &Delta) -> (u64, Report) {
        let (snapshot, report) = self.compiler.apply(delta);
        for id in &report.services_begun {
            self.service_bases.insert(id.slot, path.service_traffic(*id));
        }
        for id in &report.backends_begun {
            self.backend_bases.insert(id.slot, path.backend_traffic(*id));
        }
        self.desired.apply(delta);
        let generation = path.publish(snapshot, &report);
        self.note_lost(delta, &report);
        for name in services_of(delta) {
            let live = Live { generation, changed_s: epoch_s(), took_us: None };
            self.live.insert(name.clone(), live);
        }
        (generation, report)
    }
    /// Notes what could not be compiled, and tells what is new of it.
    fn note_lost(&mut self, delta: &Delta, report: &Report) {
        let changed = delta.changed.iter().map(|port| &port.key);
        let looked_at = changed.chain(&delta.removed);
        let before: BTreeSet<_> = looked_at.filter_map(|key| self.lost.take(key)).collect();
        for problem in &report.problems {
            if self.lost.insert(problem.key.clone()) && !before.contains(&problem.key) {
                let text = format!("{}: {}", problem.key, problem.what);
                self.record(own_event("NotCompiled", text));
            }
        }
    }
    /// The Services of which a part could not be compiled.
    pub fn lost(&self) -> BTreeSet<ObjectName> {
        self.lost.iter().map(|key| key.service.clone()).collect()
    }
    /// Every worker runs with a change, this long after the source told it.
    pub fn in_use(&mut self, delta: &Delta, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.last_change_us = Some(took_us);
        self.programming.observe(took);
        for name in services_of(delta) {
            if let Some(live) = self.live.get_mut(name) {
                live.took_us = Some(took_us);
            }
        }
    }
    /// Remembers an event.
    pub fn record(&mut self, mut event: Event) {
        if event.time_s == 0 {
            event.time_s = epoch_s();
        }
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
    /// The latest events, oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.events.iter().cloned().collect()
    }
    /// Says what is wrong with something, since now if nothing was before, or that nothing is. True
    /// where that is news.
    pub fn wrong(&mut self, about: &str, what: Option<&str>) -> bool {
        let Some(what) = what else { return self.degraded.remove(about).is_some() };
        match self.degraded.get_mut(about) {
            Some((told, _)) if told == what => false,
            Some((told, _)) => {
                what.clone_into(told);
                true
            }
            None => {
                self.degraded.insert(about.to_owned(), (what.to_owned(), epoch_s()));
                true
            }
        }
    }
    /// Whether the source has been read in full once.
    pub const fn is_loaded(&self) -> bool {
        self.source.loaded
    }
    /// What is wrong.
    pub fn degraded(&self) -> Vec<Degraded> {
        let row = |(what, since): &(String, u64)| Degraded { what: what.clone(), since_s: *since };
        self.degraded.values().map(row).collect()
    }
    /// A service port's traffic since it has its slot.
    pub fn traffic<P: PacketPath>(&self, path: &P, key: &ServicePortKey) -> Traffic {
        let Some(id) = self.compiler.service(key) else { return Traffic::default() };
        let (now, base) = (
            path.service_traffic(id),
            self.service_bases.get(&id.slot).copied().unwrap_or_default(),
        );
        Traffic {
            connections: now.connections - base.connections.min(now.connections),
            packets_in: now.packets_in - base.packets_in.min(now.packets_in),
            bytes_in: now.bytes_in - base.bytes_in.min(now.bytes_in),
            packets_out: now.packets_out - base.packets_out.min(now.packets_out),
            bytes_out: now.bytes_out - base.bytes_out.min(now.bytes_out),
            refused: now.refused - base.refused.min(now.refused),
        }
    }
    /// A backend's traffic since it has its slot.
    pub fn backend_traffic<P: PacketPath>(
        &self,
        path: &P,
        key: &ServicePortKey,
        address: SocketAddr,
    ) -> BackendTraffic {
        let Some(id) = self.compiler.backend(key, address) else {
            return BackendTraffic::default();
        };
        let (now, base) = (
            path.backend_traffic(id),
            self.backend_bases.get(&id.slot).copied().unwrap_or_default(),
        );
        BackendTraffic {
            connections: now.connections - base.connections.min(now.connections),
            packets_in: now.packets_in - base.packets_in.min(now.packets_in),
            packets_out: now.packets_out - base.packets_out.min(now.packets_out),
        }
    }
    /// Backends of all service ports: active, known.
    pub fn backend_counts(&self) -> [u32; 2] {
        let all = self.desired.service_ports.values().flat_map(|port| &port.backends);
        all.fold([0, 0], |[active, known], backend: &Backend| {
            [active + u32::from(backend.state == BackendState::Active), known + 1]
        })
    }
    /// Services known, and those of them of which something is forwarded.
    pub fn service_counts(&self) -> [u32; 2] {
        let served =
            |status: &&ServiceStatus| status.ports.iter().any(|port| port.not_forwarded.is_none());
        [self.statuses.len(), self.statuses.values().filter(served).count()].map(|n| n as u32)
    }
}

/// Events are logged, too.
pub fn tell(event: &Event) {
    let Event { reason, kind, object, place, message, .. } = event;
    match event.severity {
        Severity::Normal => tracing::info!(%reason, %place, "{kind} {object}: {message}"),
        Severity::Warning => tracing::warn!(%reason, %place, "{kind} {object}: {message}"),
    }
}
