//! The daemon: joins the engine, `translate`, the source of objects and the admin API.
//!
//! ```text
//! source.rs -> translate -> compile -> publish -> workers
//!   (control thread: control.rs)       (engine, by way of path.rs)
//! source.rs <- status, Events <- what every worker runs with
//! admin socket -> gateway.rs -> books.rs (what the control side knows), engine (what workers know)
//! ```

mod books;
mod control;
mod explain;
mod gateway;
mod keep;
mod kubernetes;
mod links;
mod path;
mod plan;
mod probing;
mod selection;
mod shared;
mod source;
mod walk;

use crate::config::{Config, Source};
use admin::{Options, Server};
use anyhow::Context as _;
use engine::{Eal, Engine};
use gateway::{Facts, Running};
use shared::Shared;
use sources::kubernetes::{Examined, SelectionKey};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs the gateway until it is told to stop.
///
/// Called on the main thread outside any runtime, with logging set up: the EAL pins the thread
/// that initialises it, so it gets one of its own, and tokio's threads start apart from it.
///
/// # Errors
/// Where the gateway can't start, or ends other than by being told to.
pub fn run(config: Config) -> anyhow::Result<()> {
    let spare = plan::spare_cores(&config);
    keep_off_workers(&spare);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("can't start the control side's threads")?;
    let result = runtime.block_on(serve(config, spare));
    // A question that still waits for its answer must not hold up the end.
    runtime.shutdown_background();
    result
}

/// Threads that start from here on leave the workers' cores alone, where there are others.
fn keep_off_workers(spare: &[usize]) {
    let mut cores = nix::sched::CpuSet::new();
    for core in spare {
        let _ = cores.set(*core);
    }
    if !spare.is_empty() {
        let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cores);
    }
}

async fn serve(config: Config, spare: Vec<usize>) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut stop = Stop::listen()?;
    // The socket first: a second gateway learns that it is one before it touches a device.
    let admin = Options { socket: config.admin.socket.clone(), metrics: config.admin.metrics };
    let server = Server::bind(&admin).await?;
    let started_with = selection::start(&config)?;
    let control = control_plan(&config, &started_with, Handle::current())?;
    let settings = plan::settings(&config, Vec::new())?;
    let engine = plan::engine(&config, &started_with, spare.clone())?;
    let eal = plan::eal(&config, &spare);
    let engine = tokio::task::spawn_blocking(move || -> anyhow::Result<Engine> {
        Ok(Engine::start(Eal::init(eal)?, engine)?)
    })
    .await??;
    tracing::info!(drivers = ?engine.drivers(), "the packet path is up");
    let running = Arc::new(Running::new(engine, facts(&config, started)));
    for note in running.engine.notes() {
        running.books().wrong(&note, Some(&note));
    }
    for problem in &started_with.problems {
        tracing::error!("{problem}");
        running.books().record(books::own_event("StateLost", problem.clone()));
    }
    control::resume(&config.state_dir, &settings, &running)?;
    let for_control = Arc::clone(&running);
    let controller = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || control::supervise(&control, &for_control))
        .context("can't start the control thread")?;
    let shared = Arc::new(Shared(Arc::clone(&running)));
    let draining = Arc::clone(&running);
    let served = server
        .serve(shared, async move {
            let signal = stop.wait().await;
            tracing::info!("{signal}: stopping");
            draining.draining.store(true, Relaxed);
        })
        .await;
    // Where the server failed by itself, nobody has said so yet.
    running.draining.store(true, Relaxed);
    tokio::task::spawn_blocking(move || end(controller, &running)).await?;
    served?;
    Ok(())
}

/// What the control side is made from, each time that it is started.
fn control_plan(
    config: &Config,
    started: &selection::Started,
    runtime: Handle,
) -> anyhow::Result<control::Plan> {
    let range = config.node_port.range;
    let options = sources::directory::Options {
        node_port_first: range.first(),
        node_port_last: range.last(),
    };
    let settings = plan::settings(config, Vec::new())?;
    let (from, probes_on) = (config.source.clone(), runtime.clone());
    let selection = SelectionKey { key: started.keys.selection, configured: started.configured };
    let open = move || -> anyhow::Result<Box<dyn source::Source>> {
        match &from {
            Source::Directory(path) => {
                let source = source::Directory::open(path, options.clone())
                    .with_context(|| format!("manifests in {}", path.display()))?;
                Ok(Box::new(source))
            }
            Source::Kubernetes(given) => {
                Ok(Box::new(kubernetes::Kubernetes::start(given, &settings, selection, &runtime)?))
            }
        }
    };
    let wanted = config.clone();
    Ok(control::Plan {
        // What the source is reached by is nobody's to serve.
        settings: Box::new(move |source| Ok(plan::settings(&wanted, source.servers())?)),
        source: Box::new(open),
        state_dir: config.state_dir.clone(),
        started: Some(started.clone()),
        runtime: Some(probes_on),
    })
}

/// What `check` finds out about the API server; `None` where objects come from elsewhere.
pub fn look_at_api_server(config: &Config) -> Option<anyhow::Result<Examined>> {
    let Source::Kubernetes(given) = &config.source else { return None };
    let settings = plan::settings(config, Vec::new());
    Some(settings.map_err(Into::into).and_then(|settings| kubernetes::look(given, &settings)))
}

/// The control thread first, then the packet path.
fn end(controller: std::thread::JoinHandle<()>, running: &Running) {
    if controller.join().is_err() {
        tracing::error!("the control thread ended by a panic");
    }
    // A question may still be open; it finds stopped workers.
    running.engine.stop_workers();
}

fn facts(config: &Config, started: Instant) -> Facts {
    Facts {
        dpdk: engine::dpdk_version().trim_start_matches("DPDK ").to_owned(),
        huge_pages: if config.eal.huge_pages {
            plan::huge_pages(config.eal.memory_mib.get())
        } else {
            "none".to_owned()
        },
        cores: config.workers.iter().map(|worker| worker.core).collect(),
        source: source_name(&config.source),
        class: config.service.load_balancer_class.to_string(),
        node_ports: config.node_port.addresses.clone(),
        backends_anywhere: config.backend_ranges.is_none(),
        fronts: config
            .interfaces
            .iter()
            .filter(|interface| interface.role.is_front())
            .flat_map(|interface| interface.addresses.clone())
            .collect(),
        started,
    }
}

/// The source in a few words.
fn source_name(source: &Source) -> String {
    match source {
        Source::Directory(path) => format!("directory {}", path.display()),
        Source::Kubernetes(_) => "API server".to_owned(),
    }
}

/// SIGTERM and SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
    async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
