//! A gateway that answers from constants.
#![allow(clippy::unwrap_used, dead_code)]

use admin::{ControlReadings, Gateway, GatewayError, Options, Server, TrafficReadings};
use model::answers::*;
use model::desired::{ObjectName, Scope, ServicePortKey};
use model::drops::DropReason;
use model::ids::{FiveTuple, Protocol, WorkerId};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

#[derive(Debug, Default)]
pub struct Fake {
    pub dead: AtomicBool,
    pub draining: AtomicBool,
    pub backends: usize,
    pub asked: Mutex<Vec<ConnectionFilter>>,
}

pub fn key() -> ServicePortKey {
    ServicePortKey {
        cluster: "".into(),
        service: ObjectName::new("default", "web"),
        port_name: "http".into(),
        protocol: Protocol::Tcp,
        scope: Scope::External,
    }
}

pub fn worker() -> WorkerRow {
    WorkerRow {
        worker: WorkerId(0),
        core: 1,
        generation: 7,
        busy_ratio: 0.25,
        ns_per_packet: 90.,
        busy_and_idle_s: [10., 30.],
        passes: vec![],
        mean_burst: 3.5,
        loops: 1_000,
        connections: [3, 1],
        connections_max: [262_144, 65_536],
        inserts: 9,
        half_open_evicted: 2,
        affinity: Default::default(),
        resets: 0,
        reset_probes: 0,
        ledger: Ledger { received: 10, sent: 8, dropped: 2, ..Ledger::default() },
    }
}

pub fn backend(number: usize) -> BackendRow {
    BackendRow {
        service: key(),
        name: format!("web-{number}"),
        address: ([198, 18, (number / 250) as u8, (number % 250) as u8], 80).into(),
        node: "node-1".into(),
        state: "active".into(),
        weight: 100,
        way: "198.18.1.11 reachable".into(),
        connections: 5,
        packets_in: 6,
        packets_out: 7,
    }
}

pub fn budget() -> BudgetRow {
    BudgetRow {
        interface: "front".into(),
        purpose: "host_other".into(),
        meaning: "To the host: anything else.".into(),
        rate: [20_000, 2_000],
        taken: 5,
        refused: 3,
    }
}

pub fn pool() -> PoolRow {
    PoolRow {
        name: "demo".into(),
        ranges: vec!["203.0.113.0-203.0.113.63".into()],
        priority: 100,
        auto_assign: true,
        ipv4: PoolCount { total: 64, used: 2, free: 62 },
        ..PoolRow::default()
    }
}

impl Gateway for Fake {
    fn live(&self) -> Result<(), String> {
        if self.dead.load(Ordering::Relaxed) { Err("worker 0 stands still".into()) } else { Ok(()) }
    }
    fn ready(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Relaxed) { Err("draining".into()) } else { Ok(()) }
    }
    async fn status(&self) -> Result<Status, GatewayError> {
        Ok(Status {
            version: "0.1.0 abc1234".into(),
            dpdk: "22.11.7".into(),
            drivers: vec!["net_tap".into()],
            huge_pages: "256 x 2 MiB".into(),
            cores: vec![1],
            uptime_s: 12,
            source: "directory /etc/headgate/manifests".into(),
            source_state: SourceState {
                loaded: true,
                in_step: true,
                relists: 2,
                leadership: Some(Leadership {
                    ours: true,
                    lease: "headgate-system/headgate".into(),
                    holder: "gate-a".into(),
                    ..Leadership::default()
                }),
                ..SourceState::default()
            },
            services: [2, 1],
            service_ports: 1,
            backends: [3, 4],
            backends_anywhere: false,
            connections: 4,
            generation: [7, 7],
            last_change_us: Some(900),
            degraded: vec![],
            links: model::answers::Links::default(),
            conflicts: vec![],
            ledger: worker().ledger,
        })
    }
    async fn services(&self) -> Result<Vec<ServiceRow>, GatewayError> {
        Err(GatewayError::Timeout(WorkerId(3)))
    }
    async fn backends(&self) -> Result<Vec<BackendRow>, GatewayError> {
        Ok((0..self.backends).map(backend).collect())
    }
    async fn connections(&self, filter: ConnectionFilter) -> Result<Connections, GatewayError> {
        self.asked.lock().unwrap().push(filter);
        Ok(Connections { connections: vec![], more: true })
    }
    async fn drops(&self) -> Result<Vec<DropRow>, GatewayError> {
        let reason = DropReason::AnswerLimited;
        Ok(vec![DropRow { reason, by_worker: vec![2], packets: 2 }])
    }
    async fn neighbours(&self) -> Result<Vec<NeighbourRow>, GatewayError> {
        Err(GatewayError::Unavailable("starting".into()))
    }
    async fn ports(&self) -> Result<Vec<PortRow>, GatewayError> {
        Ok(vec![PortRow {
            name: "front".into(),
            device: "net_tap0,iface=hg-front".into(),
            driver: "net_tap".into(),
            mac: "02:00:00:00:00:01".into(),
            link_up: true,
            rx_queues: 1,
            tx_queues: 1,
            device_counters: DeviceCounters { ipackets: 10, opackets: 8, ..Default::default() },
        }])
    }
    async fn workers(&self) -> Result<Workers, GatewayError> {
        Ok(Workers {
            generation: 7,
            generation_everywhere: 7,
            affinity_clients: [0; 2],
            workers: vec![worker()],
            mirror: MirrorLedger::default(),
        })
    }
    async fn workers_measured(&self, time: Duration) -> Result<Workers, GatewayError> {
        let ns_per_packet = time.as_secs_f64();
        let pass = PassRow { pass: "pipeline".into(), ns_per_packet, share: 1. };
        let row = WorkerRow { passes: vec![pass], ..worker() };
        Ok(Workers { workers: vec![row], ..self.workers().await? })
    }
    async fn budgets(&self) -> Result<Vec<BudgetRow>, GatewayError> {
        Ok(vec![budget()])
    }
    async fn events(&self) -> Result<Vec<Event>, GatewayError> {
        Ok(vec![])
    }
    async fn explain_flow(&self, flow: FiveTuple) -> Result<FlowExplanation, GatewayError> {
        let answer = FlowAnswer {
            owner: WorkerId(0),
            service: Some(key()),
            connection: None,
            selected: None,
            chosen_by: "no_backend".into(),
            affinity_left_s: None,
            reset_in_s: None,
            way: None,
            drop: None,
        };
        Ok(FlowExplanation { flow, answer, origin: None, backend_name: None, remedy: None })
    }
    async fn explain_service(&self, name: ObjectName) -> Result<ServiceExplanation, GatewayError> {
        if *name.name == *"web" {
            return Ok(ServiceExplanation { service: name, steps: vec![] });
        }
        Err(GatewayError::NotFound(format!("no Service {name} is known")))
    }
    async fn pools(&self) -> Result<Vec<PoolRow>, GatewayError> {
        Ok(vec![pool()])
    }
    async fn control(&self) -> Result<ControlReadings, GatewayError> {
        let control = ControlReadings {
            pools: vec![pool()],
            writes: Some(WriteCounts { statuses: 4, conflicts: 1, ..WriteCounts::default() }),
            probes: ProbeCounts { active: 3, healthy: 1, unhealthy: 1 },
            endpoints_refused: 2,
            ..ControlReadings::default()
        };
        control.programming.observe(Duration::from_millis(3));
        Ok(control)
    }
    async fn traffic(&self) -> Result<TrafficReadings, GatewayError> {
        let traffic = Traffic { connections: 5, bytes_in: 640, ..Traffic::default() };
        Ok(TrafficReadings {
            services: vec![ServiceTraffic { key: Arc::new(key()), traffic }],
            backends: (0..self.backends).map(backend).collect(),
            backends_known: self.backends as u32,
            source_stale_ms: 1_500,
        })
    }
}

/// A served gateway in a directory of its own.
pub struct Running {
    pub directory: tempfile::TempDir,
    pub gateway: Arc<Fake>,
    pub stop: oneshot::Sender<()>,
    pub served: JoinHandle<()>,
    pub metrics: Option<std::net::SocketAddr>,
}

impl Running {
    pub async fn start(gateway: Fake) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            socket: directory.path().join("run/headgate.sock"),
            metrics: Some("127.0.0.1:0".parse().unwrap()),
        };
        let server = Server::bind(&options).await.unwrap();
        let metrics = server.metrics_address();
        let gateway = Arc::new(gateway);
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn({
            let gateway = Arc::clone(&gateway);
            async move {
                let stopped = async { drop(stopped.await) };
                server.serve(gateway, stopped).await.unwrap();
            }
        });
        Self { directory, gateway, stop, served, metrics }
    }
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("run/headgate.sock")
    }
    pub fn client(&self) -> admin::Client {
        admin::Client::new(self.socket())
    }
}
