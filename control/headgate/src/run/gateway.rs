//! The running gateway, as the admin API sees it: both sides joined.

use super::books::{Books, epoch_s, not_read};
use super::control::SOURCE;
use super::explain;
use admin::metrics::BACKENDS_LABELLED_MAX;
use admin::{ControlReadings, Gateway, GatewayError, TrafficReadings};
use engine::{Engine, NoAnswer};
use ipnet::IpNet;
use model::answers::{
    BackendRow, BudgetRow, ConnectionFilter, Connections, Degraded, DropRow, Event,
    FlowExplanation, NeighbourRow, PoolRow, PortRow, ServiceExplanation, ServiceRow,
    ServiceTraffic, SourceState, Status, Workers,
};
use model::desired::{BackendState, ObjectName};
use model::ids::FiveTuple;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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

    fn degraded(&self, books: &Books) -> Vec<Degraded> {
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
    fn uptime_ms(&self) -> u64 {
        self.facts.started.elapsed().as_millis() as u64
    }
    /// Milliseconds since the control thread last came round, where that is too long.
    fn hangs_for_ms(&self) -> Option<u64> {
        let silent = self.uptime_ms().saturating_sub(self.heartbeat_ms.load(Relaxed));
        (silent > HEARTBEAT_MAX_MS).then_some(silent)
    }
}

impl Running {
    /// How the source is doing. While the control side hangs, nobody hears it.
    fn source_state(&self, books: &Books) -> SourceState {
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

    fn status_now(&self) -> Status {
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

    fn service_rows(&self) -> Vec<ServiceRow> {
        let books = self.books();
        let row = |status: &model::answers::ServiceStatus| ServiceRow {
            traffic: status.ports.iter().map(|p| books.traffic(&self.engine, &p.key)).collect(),
            status: status.clone(),
            live: books.live.get(&status.name).copied(),
        };
        books.statuses.values().map(row).collect()
    }

    fn backend_rows(&self) -> Vec<BackendRow> {
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

/// What the admin API shares with the control thread.
#[derive(Clone)]
pub struct Shared(pub Arc<Running>);

fn no_answer(error: NoAnswer) -> GatewayError {
    GatewayError::Timeout(error.0)
}

impl Shared {
    /// Asks what may block, off the threads that serve others.
    async fn blocking<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Running) -> Result<T, GatewayError> + Send + 'static,
    ) -> Result<T, GatewayError> {
        let running = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || ask(&running))
            .await
            .map_err(|error| GatewayError::Unavailable(format!("the answer failed: {error}")))?
    }
}

impl Gateway for Shared {
    fn live(&self) -> Result<(), String> {
        // Workers and mirror take the process with them; a control thread that panics is started
        // again, one that hangs is not.
        match self.0.hangs_for_ms() {
            Some(ms) => Err(format!("the control side has been silent for {} s", ms / 1000)),
            None => Ok(()),
        }
    }
    fn ready(&self) -> Result<(), String> {
        if self.0.draining.load(Relaxed) {
            return Err("draining".to_owned());
        }
        let books = self.0.books();
        // What was stored serves clients as well as what the source says.
        if !books.is_loaded() && books.desired.service_ports.is_empty() {
            return Err(not_read(&books.source_name));
        }
        Ok(())
    }
    async fn status(&self) -> Result<Status, GatewayError> {
        self.blocking(|running| Ok(running.status_now())).await
    }
    async fn services(&self) -> Result<Vec<ServiceRow>, GatewayError> {
        self.blocking(|running| Ok(running.service_rows())).await
    }
    async fn backends(&self) -> Result<Vec<BackendRow>, GatewayError> {
        self.blocking(|running| Ok(running.backend_rows())).await
    }
    async fn connections(&self, filter: ConnectionFilter) -> Result<Connections, GatewayError> {
        self.blocking(move |running| running.engine.connections(&filter).map_err(no_answer)).await
    }
    async fn drops(&self) -> Result<Vec<DropRow>, GatewayError> {
        Ok(self.0.engine.drops())
    }
    async fn neighbours(&self) -> Result<Vec<NeighbourRow>, GatewayError> {
        Ok(self.0.engine.neighbours())
    }
    async fn ports(&self) -> Result<Vec<PortRow>, GatewayError> {
        Ok(self.0.engine.ports())
    }
    async fn workers(&self) -> Result<Workers, GatewayError> {
        Ok(self.0.engine.workers())
    }
    async fn workers_measured(&self, time: Duration) -> Result<Workers, GatewayError> {
        self.blocking(move |running| Ok(running.engine.workers_measured(time))).await
    }
    async fn budgets(&self) -> Result<Vec<BudgetRow>, GatewayError> {
        Ok(self.0.engine.budgets())
    }
    async fn events(&self) -> Result<Vec<Event>, GatewayError> {
        Ok(self.0.books().events())
    }
    async fn pools(&self) -> Result<Vec<PoolRow>, GatewayError> {
        Ok(self.0.books().pools.clone())
    }
    async fn control(&self) -> Result<ControlReadings, GatewayError> {
        let books = self.0.books();
        Ok(ControlReadings {
            pools: books.pools.clone(),
            writes: books.write_counts,
            probes: books.probe_counts,
            probes_overruled: books.probes_overruled,
            endpoints_refused: books.endpoints_refused,
            programming: books.programming.clone(),
        })
    }
    async fn explain_flow(&self, flow: FiveTuple) -> Result<FlowExplanation, GatewayError> {
        self.blocking(move |running| {
            let answer = running.engine.explain(flow).map_err(no_answer)?;
            let node_ports = &running.facts.node_ports;
            Ok(explain::flow(&running.books().desired, node_ports, flow, answer))
        })
        .await
    }
    async fn explain_service(&self, name: ObjectName) -> Result<ServiceExplanation, GatewayError> {
        self.blocking(move |running| explain::service(running, &name)).await
    }
    async fn traffic(&self) -> Result<TrafficReadings, GatewayError> {
        self.blocking(|running| running.traffic()).await
    }
}

impl Running {
    /// What metrics need of traffic. Rows of more backends than have labels are not made.
    fn traffic(&self) -> Result<TrafficReadings, GatewayError> {
        let books = self.books();
        let reading = |key: &model::desired::ServicePortKey| ServiceTraffic {
            key: Arc::new(key.clone()),
            traffic: books.traffic(&self.engine, key),
        };
        let services = books.desired.service_ports.keys().map(reading).collect();
        let source_stale_ms = self.source_state(&books).stale_ms;
        let [_, backends_known] = books.backend_counts();
        drop(books);
        let all = backends_known as usize <= BACKENDS_LABELLED_MAX;
        let backends = if all { self.backend_rows() } else { Vec::new() };
        Ok(TrafficReadings { services, backends, backends_known, source_stale_ms })
    }
}
