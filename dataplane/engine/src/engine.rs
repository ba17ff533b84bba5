//! The engine: ports, workers and mirror, and what the control side can do with them.

use crate::config::EngineConfig;
use crate::counters::WorkerCounters;
use crate::idle::Idler;
use crate::links::Links;
use crate::mailbox::{Mailbox, mailbox};
use crate::memory::{TableFile, TableMemory, boot_ms};
use crate::mirror::{Mirror, MirrorConfig, MirrorError, MirrorPort, RING_FRAMES, TwinConfig};
use crate::outlet::{Outlets, Ring};
use crate::ports::{PortFailed, Queues, RunningPort, bring_up};
use crate::publish::{Publisher, Reader};
use crate::worker::{Inlet, Worker};
use crossbeam_channel::Receiver;
use dpdk::{
    Burst, Consumer, Eal, Pool, PoolError, RegistrationError, RingError, SpscRing,
    ThreadRegistration, pin_current_thread,
};
use model::ids::{InterfaceId, PortId, WorkerId};
use model::limits::{AFFINITY_CLIENTS_MAX, BACKENDS_MAX, HOST_FLOWS_MAX, SERVICE_PORTS_MAX};
use pipeline::adjacency::{Adjacencies, AdjacencyInput, Interface};
use pipeline::answer::Rates;
use pipeline::arch::memory::OutOfMemory;
use pipeline::connections::SlotKeys;
use pipeline::counters::Counters;
use pipeline::host_flows::HostFlows;
use pipeline::secret::{Purpose, Secret};
use pipeline::select::AffinityTable;
use pipeline::snapshot::Snapshot;
use pipeline::steer::SteerTable;
use pipeline::tables::Tables;
use pipeline::{Options, Pipeline};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Packets between each two workers.
const HANDOVER_RING: u32 = 512;
/// Mbufs that each worker keeps by itself.
const POOL_CACHE: u32 = 256;

/// Why the engine could not be started. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A port could not be brought up.
    #[error(transparent)]
    Port(#[from] PortFailed),
    /// No memory for packet buffers.
    #[error("{0}")]
    Pool(#[from] PoolError),
    /// No memory for connection tables.
    #[error("{0}")]
    Table(#[from] OutOfMemory),
    /// No memory for a ring between workers.
    #[error("{0}")]
    Ring(#[from] RingError),
    /// The mirror could not be started.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// A worker's thread could not be started.
    #[error("worker {worker} on core {core}: {what}")]
    Worker {
        /// The worker.
        worker: WorkerId,
        /// Its core.
        core: u32,
        /// What went wrong.
        what: String,
    },
}

/// A running worker, as the control side sees it.
pub(crate) struct WorkerHandle {
    pub core: u32,
    pub counters: Arc<WorkerCounters>,
    pub pipeline: Arc<Counters>,
    pub capacity: [usize; 2],
    pub mailbox: Mailbox,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A running engine, which any thread may ask. Dropped, it stops: workers first, then the mirror,
/// then the ports.
pub struct Engine {
    pub(crate) workers: Vec<WorkerHandle>,
    stop: Arc<AtomicBool>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) mirror: Option<Mirror>,
    /// Watches the links, where there is a mirror.
    pub(crate) links: Option<Links>,
    pub(crate) ports: Vec<RunningPort>,
    pub(crate) pool: Pool,
    pub(crate) started: Instant,
    pub(crate) affinity: Arc<AffinityTable>,
    /// Workers look at it in each loop.
    selection_key: Arc<AtomicU64>,
    pub(crate) upkeep: Mutex<crate::upkeep::Upkeep>,
    /// Whose the slots are that the connection tables name.
    pub(crate) keys: Mutex<SlotKeys>,
    /// The files of the connection tables and of the keys, kept open: whoever is to keep the memory
    /// when this process ends gets them.
    files: Vec<TableFile>,
    pub(crate) rates: Rates,
    pub(crate) eal: Eal,
}

impl Engine {
    /// Brings ports, mirror and workers up. Nothing is forwarded until a snapshot is published.
    pub fn start(eal: Eal, config: EngineConfig) -> Result<Self, EngineError> {
        let workers = config.cores.len().max(1);
        let pool = Pool::new(&eal, &pool_name(), config.mbufs, POOL_CACHE, data_room(&config))?;
        let (mut ports, mut queues) = (Vec::new(), Vec::new());
        let mtu = |port: usize| {
            let mtus = config.interfaces.iter().filter(|i| i.port.index() == port).map(|i| i.mtu);
            mtus.max().unwrap_or(1500)
        };
        for (number, spec) in config.ports.into_iter().enumerate() {
            let (port, its_queues) = bring_up(&eal, spec, &pool, mtu(number), workers as u16)?;
            ports.push(port);
            queues.push(its_queues);
        }
        let (interfaces, twins) = interfaces(&config.interfaces, &ports);
        let tables = Tables {
            generation: 1,
            snapshot: Arc::new(Snapshot::default()),
            adjacencies: Arc::new(Adjacencies::new(AdjacencyInput {
                interfaces,
                ..AdjacencyInput::default()
            })),
            steer: Arc::new(SteerTable::with_key(workers as u8, &config.nat, &config.toeplitz)),
        };
        let (publisher, readers) = Publisher::new(tables, workers);
        let publisher = Arc::new(publisher);
        let (mirror, host) = if config.mirror {
            let mirror = MirrorConfig {
                twins,
                workers,
                ring_frames: RING_FRAMES,
                cores: config.mirror_cores.clone(),
                announce: config.announce,
            };
            start_mirror(mirror, &publisher)?
        } else {
            (None, Vec::new())
        };
        let mut sparse = TableMemory::sparse();
        let (started, epoch_ms) = (Instant::now(), boot_ms());
        // No two processes' secrets are the same.
        let keys_id = config.secret.derive(Purpose::SlotKeys);
        let names: Vec<&str> = config.interfaces.iter().map(|i| &*i.name).collect();
        let keys = SlotKeys::new(&mut sparse, SERVICE_PORTS_MAX, keys_id, &names)?;
        let links = match &mirror {
            Some(mirror) => {
                Some(watch(&ports, &config.interfaces, mirror, &publisher, config.mirror_cores)?)
            }
            None => None,
        };
        let mut engine = Self {
            workers: Vec::new(),
            stop: Arc::new(AtomicBool::new(false)),
            publisher,
            mirror,
            links,
            ports,
            pool,
            started,
            affinity: Arc::new(AffinityTable::new(
                AFFINITY_CLIENTS_MAX,
                config.secret.derive(Purpose::Affinity),
            )),
            selection_key: Arc::new(AtomicU64::new(config.pipeline.selection_key)),
            upkeep: Mutex::default(),
            keys: Mutex::new(keys),
            files: sparse.files,
            rates: config.pipeline.rates,
            eal: eal.clone(),
        };
        let parts = Parts {
            readers,
            host,
            rings: rings(&eal, workers)?,
            queues,
            options: Options { workers: workers as u8, epoch_ms, keys: keys_id, ..config.pipeline },
            secret: config.secret,
            idle: config.idle,
            huge_pages: config.huge_pages,
        };
        engine.start_workers(&eal, &config.cores, parts)?;
        engine.announce_nat();
        Ok(engine)
    }

    fn start_workers(
        &mut self,
        eal: &Eal,
        cores: &[u32],
        mut parts: Parts,
    ) -> Result<(), EngineError> {
        let mut memory = TableMemory::new(parts.huge_pages);
        let mut host = parts.host.into_iter();
        let host_flows = Arc::new(HostFlows::new(HOST_FLOWS_MAX));
        for (number, (core, reader)) in cores.iter().zip(parts.readers).enumerate() {
            let id = WorkerId(number as u8);
            let affinity = Arc::clone(&self.affinity);
            let host_flows = Arc::clone(&host_flows);
            // What leaves the gateway tells nothing of other workers, nor of the tables' keys.
            let options = parts.options.of_worker(id, &parts.secret);
            let options = Options { affinity, host_flows, ..options };
            let counts = Arc::new(Counters::new(SERVICE_PORTS_MAX, BACKENDS_MAX));
            let pipeline = Pipeline::new(&options, Arc::clone(&counts), &mut memory)?;
            let counters = Arc::new(WorkerCounters::default());
            let (mailbox, inbox) = mailbox(id);
            let (to, from) = parts.rings.of(number);
            let worker = Worker {
                reader,
                inlets: inlets(&mut parts.queues, id, cores.len()),
                handed_in: from,
                outlets: Outlets {
                    ports: parts.queues.iter_mut().map(|queues| queues.outlet(id)).collect(),
                    rings: to,
                },
                host: host.next(),
                pool: self.pool.clone(),
                inbox,
                counters: Arc::clone(&counters),
                idler: Idler::new(parts.idle),
                stop: Arc::clone(&self.stop),
                started: self.started,
                selection_key: Arc::clone(&self.selection_key),
                pipeline,
            };
            let capacity = worker.pipeline.capacity();
            let thread = spawn(eal, worker, *core)?;
            self.workers.push(WorkerHandle {
                core: *core,
                counters,
                pipeline: counts,
                capacity,
                mailbox,
                thread: Mutex::new(Some(thread)),
            });
        }
        self.files.append(&mut memory.files);
        Ok(())
    }

    /// Lets workers choose backends for new connections under another key.
    pub fn set_selection_key(&self, key: u64) {
        self.selection_key.store(key, Relaxed);
    }

    /// Stops the workers and waits until they have ended. Packets stay where they are.
    pub fn stop_workers(&self) {
        self.stop.store(true, Relaxed);
        for worker in &self.workers {
            let thread = worker.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            if thread.is_some_and(|thread| thread.join().is_err()) {
                tracing::error!(core = worker.core, "a worker ended by a panic");
            }
        }
    }

    /// Stops the workers, then the mirror, then the ports; waits until all is gone.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop_workers();
        self.links = None;
        self.mirror = None;
        self.ports.clear();
    }
}

/// What workers are made of beside their ports.
struct Parts {
    readers: Vec<Reader>,
    host: Vec<MirrorPort>,
    rings: Rings,
    queues: Vec<Queues>,
    options: Options,
    secret: Secret,
    idle: crate::idle::Idle,
    huge_pages: bool,
}

/// Rings between each two workers, until they are dealt out.
struct Rings {
    to: Vec<Vec<Option<Ring>>>,
    from: Vec<Vec<Consumer>>,
}

impl Rings {
    fn of(&mut self, worker: usize) -> (Vec<Option<Ring>>, Vec<Consumer>) {
        (std::mem::take(&mut self.to[worker]), std::mem::take(&mut self.from[worker]))
    }
}

fn rings(eal: &Eal, workers: usize) -> Result<Rings, RingError> {
    let mut rings = Rings {
        to: (0..workers).map(|_| Vec::new()).collect(),
        from: (0..workers).map(|_| Vec::new()).collect(),
    };
    for from in 0..workers {
        for to in 0..workers {
            if from == to {
                rings.to[from].push(None);
                continue;
            }
            let (producer, consumer) = SpscRing::new(eal, HANDOVER_RING)?.split();
            rings.to[from].push(Some(Ring { producer, waiting: Box::new(Burst::new()) }));
            rings.from[to].push(consumer);
        }
    }
    Ok(rings)
}

/// A pool keeps its name until the EAL goes: a second engine, or a second try, needs another.
fn pool_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("packets_{}", NEXT.fetch_add(1, Relaxed))
}

fn inlets(queues: &mut [Queues], worker: WorkerId, workers: usize) -> Vec<Inlet> {
    let ports = queues.iter_mut().enumerate();
    ports.flat_map(|(id, queues)| queues.inlets(PortId(id as u8), worker, workers)).collect()
}

/// Bytes of a packet buffer: the longest frame in one segment, for answers are made in place.
fn data_room(config: &EngineConfig) -> u16 {
    let mtu = config.interfaces.iter().map(|interface| interface.mtu).max().unwrap_or(1500);
    mtu.max(1920).saturating_add(256)
}

fn interfaces(
    specs: &[crate::config::InterfaceSpec],
    ports: &[RunningPort],
) -> (Vec<Interface>, Vec<TwinConfig>) {
    let interface = |spec: &crate::config::InterfaceSpec| Interface {
        name: Arc::clone(&spec.name),
        port: spec.port,
        vlan: spec.vlan,
        mac: ports.get(spec.port.index()).map(RunningPort::mac).unwrap_or_default(),
        mtu: spec.mtu,
        role: spec.role,
    };
    let twin = |spec: &crate::config::InterfaceSpec| TwinConfig {
        interface: interface(spec),
        addresses: spec.addresses.clone(),
        routes: spec.routes.clone(),
        neighbours: spec.neighbours.clone(),
    };
    (specs.iter().map(interface).collect(), specs.iter().map(twin).collect())
}

fn start_mirror(
    config: MirrorConfig,
    publisher: &Arc<Publisher>,
) -> Result<(Option<Mirror>, Vec<MirrorPort>), MirrorError> {
    let publisher = Arc::clone(publisher);
    let (mirror, ports) = Mirror::start(config, move |change| {
        // Nobody else publishes adjacencies meanwhile; routes take longer to compile than others
        // shall wait.
        let adjacencies = Arc::new(publisher.latest().adjacencies.with(&change));
        publisher.update(|tables| tables.adjacencies = adjacencies);
    })?;
    Ok((Some(mirror), ports))
}

/// Begins to watch the links of the ports.
fn watch(
    ports: &[RunningPort],
    interfaces: &[crate::config::InterfaceSpec],
    mirror: &Mirror,
    publisher: &Arc<Publisher>,
    cores: Vec<usize>,
) -> Result<Links, MirrorError> {
    let of_port = |port: usize| {
        let numbered = interfaces.iter().enumerate();
        let carried = numbered.filter(|(_, interface)| interface.port.index() == port);
        carried.map(|(number, _)| InterfaceId(number as u8)).collect()
    };
    let watched = ports.iter().enumerate().map(|(n, port)| port.watched(of_port(n))).collect();
    let publisher = Arc::clone(publisher);
    Links::start(watched, mirror.twin_numbers(), publisher, mirror.on_link_up(), cores)
        .map_err(MirrorError::Thread)
}

/// Starts a worker's thread, and waits until it is pinned and registered.
fn spawn(eal: &Eal, worker: Worker, core: u32) -> Result<JoinHandle<()>, EngineError> {
    let id = worker.id();
    let failed = |what: String| EngineError::Worker { worker: id, core, what };
    let (report, ready): (_, Receiver<Result<(), String>>) = crossbeam_channel::bounded(1);
    let eal = eal.clone();
    let body = move || {
        let begin = || -> Result<ThreadRegistration, String> {
            pin_current_thread(core).map_err(|error| {
                format!("{error}; does the core exist, and may this process use it (taskset)?")
            })?;
            ThreadRegistration::new(&eal).map_err(|error: RegistrationError| error.to_string())
        };
        let registration = begin();
        let failure = registration.as_ref().err().cloned();
        let begun = failure.is_none();
        let _ = report.send(failure.map_or(Ok(()), Err));
        if begun {
            let _ends_the_process = AbortOnPanic;
            worker.run();
        }
    };
    let thread = std::thread::Builder::new()
        .name(format!("worker-{id}"))
        .spawn(body)
        .map_err(|error| failed(error.to_string()))?;
    let what = match ready.recv() {
        Ok(Ok(())) => return Ok(thread),
        Ok(Err(what)) => what,
        Err(_) => "its thread died".to_owned(),
    };
    // It still has the worker, with queues of ports that another try may want.
    let _ = thread.join();
    Err(failed(what))
}

/// A worker must not die alone: its connections would be lost without a sign.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}
