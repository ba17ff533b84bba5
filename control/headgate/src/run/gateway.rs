//! The running gateway, as the admin API sees it: both sides joined.

use super::books::{Books, SOURCE, epoch_s, not_read};
use super::path::PacketPath;
use engine::Engine;
use ipnet::IpNet;
use model::answers::{BackendRow, Degraded, ServiceRow, SourceState, Status};
use model::desired::BackendState;
use sources::store::StoreError;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Everything that the admin API may ask.
pub struct Running<P = Engine> {
    /// The packet path.
    pub engine: P,
    /// What the control side knows.
    books: Mutex<Books>,
    /// Facts for `status`.
    pub facts: Facts,
    /// Set while stopping.
    pub draining: AtomicBool,
    /// When the control thread last came round, in milliseconds since the start.
    heartbeat_ms: AtomicU64,
}

/// The control thread comes round ten times a second, or is busy with a large change.
const HEARTBEAT_MAX_MS: u64 = 15_000;

/// What doesn't change while the gateway runs.
pub struct Facts {
    /// DPDK's version.
    pub dpdk: String,
    /// Huge pages, in words.
    pub huge_pages: String,
    /// Cores of the workers.
    pub cores: Vec<u32>,
    /// Where the objects come from.
    pub source: String,
    /// The class of LoadBalancer Services that is ours.
    pub class: String,
    /// Where NodePorts are answered.
    pub node_ports: Vec<IpAddr>,
    /// No range is configured in which backends have to be.
    pub backends_anywhere: bool,
    /// Prefixes of the links towards clients.
    pub fronts: Vec<IpNet>,
    /// When the gateway started.
    pub started: Instant,
}

impl<P> Running<P> {
    /// A gateway that has not read its source yet.
    pub fn new(engine: P, facts: Facts) -> Self {
        let mut books = Books::default();
        books.source_name.clone_from(&facts.source);
        books.wrong(SOURCE, Some(&not_read(&facts.source)));
        Self {
            engine,
            books: Mutex::new(books),
            facts,
            draining: AtomicBool::new(false),
            heartbeat_ms: AtomicU64::new(0),
        }
    }
    /// The books. A panic of whoever held them leaves them as they were: each change is made in
    /// the order in which a reader may see it.
    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn degraded(&self, books: &Books) -> Vec<Degraded> {
        let hangs = self.hangs_for_ms().map(|ms| Degraded {
            what: "the control side hangs: forwarding stays as it was".to_owned(),
            since_s: epoch_s().saturating_sub(ms / 1000),
        });
        books.degraded().into_iter().chain(hangs).collect()
    }
    /// The control thread has come round.
    pub fn beat(&self) {
        self.heartbeat_ms.store(self.uptime_ms(), Relaxed);
    }
    pub(super) fn uptime_ms(&self) -> u64 {
        self.facts.started.elapsed().as_millis() as u64
    }
    /// Milliseconds since the control thread last came round, where that is too long.
    pub(super) fn hangs_for_ms(&self) -> Option<u64> {
        let silent = self.uptime_ms().saturating_sub(self.heartbeat_ms.load(Relaxed));
        (silent > HEARTBEAT_MAX_MS).then_some(silent)
    }
}

impl<P: PacketPath> Running<P> {
    /// Notes whether something could be kept.
    pub fn keep(&self, what: &str, saved: Result<(), StoreError>) {
        let wrong = format!("the {what} can't be stored: a restart would not know it");
        if let Err(error) = &saved {
            tracing::error!("{what}: {error}");
        }
        self.books().wrong(what, saved.is_err().then_some(&*wrong));
    }
}

impl Running {
    /// How the source is doing. While the control side hangs, nobody hears it.
    pub(super) fn source_state(&self, books: &Books) -> SourceState {
        let mut state = books.source.clone();
        if let Some(since) = books.source_fails_since {
            let ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            state.stale_ms = state.stale_ms.max(ms);
        }
        if let Some(ms) = self.hangs_for_ms() {
            state.in_step = false;
            state.stale_ms = state.stale_ms.max(ms);
        }
        state
    }

    pub(super) fn status_now(&self) -> Status {
        let books = self.books();
        Status {
            version: crate::VERSION.to_owned(),
            dpdk: self.facts.dpdk.clone(),
            drivers: self.engine.drivers(),
            huge_pages: self.facts.huge_pages.clone(),
            cores: self.facts.cores.clone(),
            uptime_s: self.facts.started.elapsed().as_secs(),
            source: books.source_name.clone(),
            source_state: self.source_state(&books),
            services: books.service_counts(),
            service_ports: books.desired.service_ports.len() as u32,
            backends: books.backend_counts(),
            backends_anywhere: self.facts.backends_anywhere,
            connections: self.engine.connection_count(),
            generation: self.engine.generations(),
            last_change_us: books.last_change_us,
            degraded: self.degraded(&books),
            links: self.engine.links(),
            conflicts: self.engine.conflicts(),
            ledger: self.engine.ledger(),
        }
    }

    pub(super) fn service_rows(&self) -> Vec<ServiceRow> {
        let books = self.books();
        let row = |status: &model::answers::ServiceStatus| ServiceRow {
            traffic: status.ports.iter().map(|p| books.traffic(&self.engine, &p.key)).collect(),
            status: status.clone(),
            live: books.live.get(&status.name).copied(),
        };
        books.statuses.values().map(row).collect()
    }

    pub(super) fn backend_rows(&self) -> Vec<BackendRow> {
        let books = self.books();
        let adjacencies = self.engine.adjacencies();
        let mut rows = Vec::new();
        for port in books.desired.service_ports.values() {
            for backend in &port.backends {
                let traffic = books.backend_traffic(&self.engine, &port.key, backend.address);
                let hop = adjacencies.hop(backend.address.ip(), backend.via);
                let way = match hop {
                    None => "no route".to_owned(),
                    Some(hop) if hop.adjacency.is_some() => format!("{} resolved", hop.address),
                    Some(hop) => format!("{} unresolved", hop.address),
                };
                rows.push(BackendRow {
                    service: port.key.clone(),
                    name: backend.name.to_string(),
                    address: backend.address,
                    node: backend.node.to_string(),
                    state: match backend.state {
                        BackendState::Active => "active".to_owned(),
                        BackendState::Draining => "draining".to_owned(),
                        BackendState::Unserving => "unserving".to_owned(),
                    },
                    weight: backend.weight,
                    way,
                    connections: traffic.connections,
                    packets_in: traffic.packets_in,
                    packets_out: traffic.packets_out,
                });
            }
        }
        rows
    }
}
