//! The control thread: objects in, snapshots out.
//!
//! It lives apart from the workers: a panic of it, or a source that hangs, leaves forwarding as it
//! was, and it is started again from what is on disk.

use super::gateway::Running;
use anyhow::Context as _;
use engine::Engine;
use model::answers::{Event, Severity};
use model::desired::{ObjectName, Origin, ServicePort};
use sources::directory::DirectorySource;
use sources::store::{Store, Stored};
use sources::{Change, Changes};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use translate::{Index, Settings};

/// How long the thread waits for a change before it looks after the ways to the backends.
const TURN: Duration = Duration::from_millis(100);
/// How long it waits for the workers to use a change, to measure that.
const IN_USE_MAX: Duration = Duration::from_secs(1);
/// How long after a panic it is started again.
const RESTART_AFTER: Duration = Duration::from_millis(500);
/// How long the desired state may be older on disk than in the workers: it is written whole.
const STORE_AFTER: Duration = Duration::from_millis(500);
/// What is wrong while the control side doesn't run.
const RESTARTING: &str = "the control side failed and is started again; headgate show events";

/// What the control thread is made from.
#[derive(Clone)]
pub struct Plan {
    /// Pools, ranges and own addresses.
    pub settings: Settings,
    /// The directory of manifests.
    pub manifests: PathBuf,
    /// Where the state is kept.
    pub state_dir: PathBuf,
}

/// Runs the control loop until the gateway drains, and again after a panic.
pub fn supervise(plan: &Plan, running: &Arc<Running>) {
    while !running.draining.load(Relaxed) {
        let turn = std::panic::AssertUnwindSafe(|| control(plan, running));
        let what = match std::panic::catch_unwind(turn) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "the control thread panicked".to_owned(),
        };
        tracing::error!("{what}; forwarding goes on, and the control side is started again");
        let mut books = running.books();
        if books.degrade(RESTARTING, true) {
            books.record(own_event("ControlFailed", what));
        }
        drop(books);
        std::thread::sleep(RESTART_AFTER);
    }
}

fn control(plan: &Plan, running: &Running) -> anyhow::Result<()> {
    let store = Store::open(&plan.state_dir)?;
    let stored = load(&store, running);
    let mut index =
        Index::resume(plan.settings.clone(), stored.allocations, running.books().desired.clone());
    let node_port = plan.settings.node_port();
    let options = sources::directory::Options {
        node_port_first: node_port.first,
        node_port_last: node_port.last,
    };
    let mut source = DirectorySource::open(&plan.manifests, options)
        .with_context(|| format!("manifests in {}", plan.manifests.display()))?;
    let first = source.load();
    let mut unstored: Option<Instant> = None;
    if take_in(&mut index, &store, running, first) {
        unstored = Some(Instant::now());
    }
    {
        let mut books = running.books();
        books.set_loaded(&running.facts.source);
        books.degrade(RESTARTING, false);
    }
    while !running.draining.load(Relaxed) {
        if let Some(changes) = source.next(TURN)
            && take_in(&mut index, &store, running, changes)
        {
            unstored.get_or_insert_with(Instant::now);
        }
        if unstored.is_some_and(|since| since.elapsed() >= STORE_AFTER) {
            unstored = None;
            keep(running, "desired state", store.save_desired(index.desired()));
        }
        running.engine.refresh_ways();
        running.beat();
    }
    if unstored.is_some() {
        keep(running, "desired state", store.save_desired(index.desired()));
    }
    Ok(())
}

/// What was stored. What can't be read has been moved aside; the gateway goes on without it.
fn load(store: &Store, running: &Running) -> Stored {
    store
        .load()
        .unwrap_or_else(|error| {
            tracing::error!("{error}");
            running.books().record(own_event("StateLost", error.to_string()));
            None
        })
        .unwrap_or_default()
}

/// Forwards what was forwarded last, before the source has been read: a restart without its source
/// serves on.
pub fn resume(plan: &Plan, running: &Running) -> anyhow::Result<()> {
    let stored = load(&Store::open(&plan.state_dir)?, running);
    if !stored.desired.service_ports.is_empty() {
        let mut books = running.books();
        let mut delta = stored.desired.as_delta();
        for port in &mut delta.changed {
            withhold_reserved(&plan.settings, Arc::make_mut(port));
        }
        books.change(&running.engine, &delta);
        tracing::info!(service_ports = delta.changed.len(), "forwarding the last good state");
    }
    Ok(())
}

/// Takes out what the configuration has come to forbid since the state was stored.
fn withhold_reserved(settings: &Settings, port: &mut ServicePort) {
    port.frontends.retain(|frontend| {
        frontend.origin == Origin::NodePort || settings.reserved(frontend.address.ip()).is_none()
    });
}

/// One change of the source: all the way to the last worker. True where the desired state differs.
fn take_in(index: &mut Index, store: &Store, running: &Running, changes: Changes) -> bool {
    for change in changes.changes {
        match change {
            Change::Apply(object) => index.apply(object),
            Change::Delete(key) => index.delete(&key),
        }
    }
    let built = index.build();
    // An address is remembered before anybody can see it.
    if built.allocations_changed {
        keep(running, "allocations", store.save_allocations(index.allocations()));
    }
    let generation = {
        let mut books = running.books();
        let generation = if built.delta.is_empty() {
            None
        } else {
            let (generation, report) = books.change(&running.engine, &built.delta);
            for problem in report.problems {
                let text = format!("{}: {}", problem.key, problem.what);
                books.record(own_event("NotCompiled", text));
            }
            Some(generation)
        };
        if changes.full {
            // Services that went while the control side was down are in nobody's change.
            books.statuses.clear();
        }
        for name in &built.removed {
            books.statuses.remove(name);
            books.live.remove(name);
        }
        for status in built.statuses {
            books.statuses.insert(status.name.clone(), status);
        }
        for event in changes.diagnostics.into_iter().chain(built.events) {
            tell(&event);
            books.record(event);
        }
        generation
    };
    if let Some(generation) = generation {
        let used = wait_everywhere(&running.engine, generation);
        if used {
            let took = changes.detected.elapsed().as_micros() as u64;
            running.books().in_use(&built.delta, took);
        }
    }
    generation.is_some()
}

/// Waits until every worker runs with a generation. False where one doesn't in time.
fn wait_everywhere(engine: &Engine, generation: u64) -> bool {
    let until = Instant::now() + IN_USE_MAX;
    while engine.generations()[1] < generation {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_micros(20));
    }
    true
}

fn keep(running: &Running, what: &str, saved: Result<(), sources::store::StoreError>) {
    let wrong = format!("the {what} can't be stored: a restart would not know it");
    if let Err(error) = &saved {
        tracing::error!("{what}: {error}");
    }
    running.books().degrade(&wrong, saved.is_err());
}

fn own_event(reason: &str, message: String) -> Event {
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

/// What would be an Event in a cluster is logged.
fn tell(event: &Event) {
    let Event { reason, kind, object, place, message, .. } = event;
    match event.severity {
        Severity::Normal => tracing::info!(%reason, %place, "{kind} {object}: {message}"),
        Severity::Warning => tracing::warn!(%reason, %place, "{kind} {object}: {message}"),
    }
}
