//! The control thread: objects in, snapshots out, and back to the source what became of them.
//!
//! It lives apart from the workers: a panic of it, or a source that hangs, leaves forwarding as it
//! was, and it is started again from what is on disk.

use super::books::{SOURCE, epoch_s, own_event, tell};
use super::gateway::Running;
use super::keep::Keeper;
use super::links::LinkNews;
use super::path::PacketPath;
use super::probing::Probing;
use super::selection::{Selection, Started};
use super::source::Source;
use model::desired::{Delta, Origin, ServicePort};
use sources::probe::{ProbeOptions, Prober};
use sources::store::{Loaded, Store, Stored};
use sources::{Change, Changes};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use translate::problem::reason;
use translate::writes::StatusWrite;
use translate::{Allocations, Index, Settings};

/// How long the thread waits for a change before it looks after everything else.
const TURN: Duration = Duration::from_millis(100);
/// How long it waits for the workers to use a change before it takes in the next one.
const IN_USE_MAX: Duration = Duration::from_secs(1);
/// How long after a failure it is started again, the first time and at most.
const RESTART_AFTER: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];
/// A run of this length has left the failures before it behind.
const RUNS_WELL: Duration = Duration::from_secs(60);
/// What is wrong while the control side doesn't run.
const FAILED: &str = "control";

/// Opens the source anew, after a failure too.
pub type Open = dyn Fn() -> anyhow::Result<Box<dyn Source>> + Send + Sync;
/// Settings for a source whose own addresses are these.
pub type SettingsFor = dyn Fn(&dyn Source) -> anyhow::Result<Settings> + Send + Sync;

/// What the control thread is made from.
pub struct Plan {
    /// Pools, ranges and own addresses.
    pub settings: Box<SettingsFor>,
    /// The source.
    pub source: Box<Open>,
    /// Where the state is kept.
    pub state_dir: PathBuf,
    /// The keys that the process started with; without them the source's aren't followed.
    pub started: Option<Started>,
    /// Where probes run; without one nothing is probed.
    pub runtime: Option<Handle>,
}

/// Runs the control loop until the gateway drains, and again after a failure.
pub fn supervise<P: PacketPath>(plan: &Plan, running: &Arc<Running<P>>) {
    let [first, longest] = RESTART_AFTER;
    let mut wait = first;
    while !running.draining.load(Relaxed) {
        let began = Instant::now();
        let turn = std::panic::AssertUnwindSafe(|| control(plan, running));
        let what = match std::panic::catch_unwind(turn) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => {
                "the control side panicked and is started again; headgate show events".to_owned()
            }
        };
        tracing::error!("{what}; forwarding goes on, and the control side is started again");
        let mut books = running.books();
        // Nobody hears the source, and nobody writes.
        let heard = books.source_heard.unwrap_or(running.facts.started);
        books.source_fails_since.get_or_insert(heard);
        books.source.in_step = false;
        if let Some(leadership) = &mut books.source.leadership {
            leadership.ours = false;
        }
        if books.wrong(FAILED, Some(&what)) {
            books.record(own_event("ControlFailed", what));
        }
        drop(books);
        if began.elapsed() > RUNS_WELL {
            wait = first;
        }
        let until = Instant::now() + wait;
        while Instant::now() < until && !running.draining.load(Relaxed) {
            running.beat();
            std::thread::sleep(TURN.min(wait));
        }
        wait = longest.min(wait * 2);
    }
}

fn control<P: PacketPath>(plan: &Plan, running: &Arc<Running<P>>) -> anyhow::Result<()> {
    let store = Arc::new(Store::open(&plan.state_dir)?);
    let stored = load(&store, running);
    let source = (plan.source)()?;
    let settings = (plan.settings)(&*source)?;
    let keeper = Keeper::start(Arc::clone(&store), Arc::clone(running))?;
    let mut control =
        Control::new(running, store, Some(keeper), source, settings, stored.allocations);
    let prober = |runtime| Prober::start(ProbeOptions::default(), runtime);
    control.selection = plan.started.as_ref().map(Selection::new);
    control.probing = Probing::new(plan.runtime.as_ref().map(prober));
    while !running.draining.load(Relaxed) {
        control.turn(TURN);
    }
    control.source.stop();
    Ok(())
}

/// What was stored. The gateway goes on without what can't be read.
fn load<P: PacketPath>(store: &Store, running: &Running<P>) -> Stored {
    let Loaded { stored, problems } = store.load();
    for problem in problems {
        tracing::error!("{problem}");
        running.books().record(own_event("StateLost", problem.to_string()));
    }
    stored
}

/// Forwards what was forwarded last, before the source has been read: a restart without its source
/// serves on.
pub fn resume<P: PacketPath>(
    state_dir: &std::path::Path,
    settings: &Settings,
    running: &Running<P>,
) -> anyhow::Result<()> {
    let stored = load(&Store::open(state_dir)?, running);
    if !stored.desired.service_ports.is_empty() {
        let mut books = running.books();
        let mut delta = stored.desired.as_delta();
        for port in &mut delta.changed {
            withhold_reserved(settings, Arc::make_mut(port));
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

/// A change that waits for the last worker.
struct Pending {
    generation: u64,
    /// When the source told it; `None` for what no source told just now.
    detected: Option<Instant>,
    delta: Delta,
    writes: Vec<StatusWrite>,
}

/// The control loop.
pub struct Control<'a, P: PacketPath> {
    running: &'a Running<P>,
    store: Arc<Store>,
    keeper: Option<Keeper>,
    index: Index,
    /// The source.
    pub source: Box<dyn Source>,
    probing: Probing,
    links: LinkNews,
    /// What keys the choice of backends.
    selection: Option<Selection>,
    pending: VecDeque<Pending>,
    /// Everything there is was taken in once.
    loaded: bool,
    /// The term in which this gateway allocates and writes, while it does.
    writes: Option<u64>,
    /// Another gateway does.
    another_writes: bool,
    /// What was compiled asks for another build.
    again: bool,
}

impl<'a, P: PacketPath> Control<'a, P> {
    /// A loop that goes on from what is forwarded.
    pub fn new(
        running: &'a Running<P>,
        store: Arc<Store>,
        keeper: Option<Keeper>,
        source: Box<dyn Source>,
        settings: Settings,
        allocations: Allocations,
    ) -> Self {
        let (desired, lost) = {
            let books = running.books();
            (books.desired.clone(), books.lost())
        };
        let mut index = Index::resume(settings, allocations, desired);
        index.set_lost(lost);
        let mut books = running.books();
        books.source_name = source.name();
        books.wrong(FAILED, None);
        drop(books);
        let (probing, pending) = (Probing::default(), VecDeque::new());
        Self {
            running,
            store,
            keeper,
            index,
            source,
            probing,
            links: LinkNews::default(),
            selection: None,
            pending,
            loaded: false,
            writes: None,
            another_writes: false,
            again: false,
        }
    }

    /// Once round: waits for a change, takes it in, and looks after everything else.
    pub fn turn(&mut self, wait: Duration) {
        let changes = self.source.next(wait);
        // One that no longer writes follows what is told, from the first word on.
        if self.source.writes() != self.writes {
            self.index.set_writer(false);
        }
        let heard = self.probing.tell(&mut self.index);
        if let Some(changes) = changes {
            self.loaded |= changes.full;
            self.take_in(Some(changes));
        } else if heard {
            self.take_in(None);
        }
        if self.lead() {
            self.take_in(None);
        }
        if std::mem::take(&mut self.again) {
            self.take_in(None);
        }
        self.settle();
        self.note_source();
        self.note_links();
        if let Some(selection) = &mut self.selection {
            selection.agree(self.source.selection_key(), self.running, &self.store);
        }
        self.running.engine.refresh_ways();
        self.running.beat();
    }

    /// Follows who writes. True where that is another, or the same in another term. Before anybody
    /// writes, what the statuses say has been taken in once.
    fn lead(&mut self) -> bool {
        let another = self.loaded && self.source.another_writes();
        let writes = self.source.writes().filter(|_| self.loaded);
        let follows = !std::mem::replace(&mut self.another_writes, another) && another;
        let begins_or_ends = std::mem::replace(&mut self.writes, writes) != writes;
        if begins_or_ends {
            tracing::info!(writes = writes.is_some(), "allocating addresses and writing status");
            // What was to be written in an earlier term may be wrong by now: it is decided anew.
            for change in &mut self.pending {
                change.writes.clear();
            }
            self.index.set_writer(false);
            self.index.set_writer(writes.is_some());
        }
        if follows {
            self.index.follow_another();
        }
        begins_or_ends || follows
    }

    /// One change of the source: all the way to the workers.
    fn take_in(&mut self, changes: Option<Changes>) {
        let (mut detected, mut full, mut events) = (None, false, Vec::new());
        if let Some(changes) = changes {
            for change in changes.changes {
                match change {
                    Change::Apply(object) => self.index.apply(object),
                    Change::Delete(key) => self.index.delete(&key),
                }
            }
            (detected, full, events) = (Some(changes.detected), changes.full, changes.diagnostics);
        }
        let mut built = self.index.build();
        // An address is remembered before anybody can see it.
        if built.allocations_changed {
            self.running.keep("allocations", self.store.save_allocations(self.index.allocations()));
        }
        self.probing.change(std::mem::take(&mut built.probes), &self.running.engine);
        let probe_counts = self.probing.counts();
        let mut books = self.running.books();
        if full {
            // Services that went while the control side was down are in nobody's change.
            books.statuses.clear();
            // What was there before the source was read is nothing that it told just now.
            detected = None;
        }
        if !built.delta.is_empty() {
            books.change(&self.running.engine, &built.delta);
            let lost = books.lost();
            if self.index.set_lost(lost.clone()) {
                self.again = true;
                // What was built didn't know of it, and is said anew.
                built.writes.retain(|write| !lost.contains(&write.service));
                built.events.retain(|event| {
                    event.reason != reason::PROGRAMMED || !lost.contains(&event.object)
                });
            }
            if let Some(keeper) = &self.keeper {
                keeper.put(built.delta.clone());
            }
        }
        for name in &built.removed {
            books.statuses.remove(name);
            books.live.remove(name);
        }
        books.probe_counts = probe_counts;
        let counts = self.index.counts();
        books.probes_overruled = counts.probes_overruled as u64;
        books.endpoints_refused = counts.endpoints_refused as u64;
        if built.pools_changed {
            books.pools = self.index.pools();
        }
        for status in built.statuses {
            books.statuses.insert(status.name.clone(), status);
        }
        for event in events.drain(..) {
            tell(&event);
            books.record(event);
        }
        for mut event in built.known_events {
            event.time_s = epoch_s();
            books.record(event);
        }
        for mut event in built.events {
            event.time_s = epoch_s();
            tell(&event);
            self.source.event(&event);
            books.record(event);
        }
        drop(books);
        if !built.delta.is_empty() || !built.writes.is_empty() {
            let generation = self.running.engine.generations()[0];
            let (delta, writes) = (built.delta, built.writes);
            self.pending.push_back(Pending { generation, detected, delta, writes });
            self.wait_everywhere(generation);
        }
    }

    /// Waits until every worker runs with a generation, though not for ever.
    fn wait_everywhere(&self, generation: u64) {
        let until = Instant::now() + IN_USE_MAX;
        while self.running.engine.generations()[1] < generation && Instant::now() < until {
            std::thread::sleep(Duration::from_micros(20));
        }
    }

    /// Says of what every worker runs with that it does.
    fn settle(&mut self) {
        let everywhere = self.running.engine.generations()[1];
        while self.pending.front().is_some_and(|change| change.generation <= everywhere) {
            let Some(change) = self.pending.pop_front() else { return };
            if let (Some(detected), false) = (change.detected, change.delta.is_empty()) {
                self.running.books().in_use(&change.delta, detected.elapsed());
            }
            for write in change.writes {
                self.source.status(write);
            }
        }
    }

    /// Notes what happens on the links.
    fn note_links(&mut self) {
        let (links, conflicts) = (self.running.engine.links(), self.running.engine.conflicts());
        let mut books = self.running.books();
        let events = self.links.note(&mut books, &links, &conflicts, Instant::now());
        drop(books);
        events.iter().for_each(|event| self.source.event(event));
    }

    /// Notes how the source is doing.
    fn note_source(&self) {
        let state = self.source.state();
        let counts = self.source.counts();
        let name = self.source.name();
        let mut books = self.running.books();
        // What an earlier run of this loop took in is known still.
        let loaded = self.loaded || books.source.loaded;
        let problem = match (state.problem.as_str(), loaded) {
            ("", true) => None,
            ("", false) => Some(super::books::not_read(&name)),
            (problem, _) => Some(problem.to_owned()),
        };
        if let (true, Some(problem)) = (books.wrong(SOURCE, problem.as_deref()), &problem) {
            tracing::warn!("{problem}");
        }
        books.source = state;
        books.source.loaded = loaded;
        books.source_fails_since = None;
        books.source_heard = Some(Instant::now());
        books.source_name = name;
        books.write_counts = counts;
    }
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
