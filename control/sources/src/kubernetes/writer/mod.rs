//! Writes statuses and Events, while this gateway may.
//!
//! Whoever asks for a write never waits: a status replaces an earlier one of its Service, Events
//! that say the same are counted, and what is more than the limits is dropped and counted. One
//! task writes, a few requests at a time.

mod events;
mod status;

use super::connect::{Connection, Line};
use super::health::Watches;
use super::inbox::{Inbox, now};
use super::known::Known;
use super::lease::Lead;
use super::locked;
use super::options::Options;
use super::pace::Jitter;
use super::statuses::Statuses;
use super::trouble::{Sort, Trouble};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use model::answers::Event;
use model::desired::ObjectName;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;
use translate::Kind;
use translate::writes::StatusWrite;

/// What is known of each kind.
pub(super) type Names = Arc<BTreeMap<Kind, Arc<Mutex<Known>>>>;

/// Requests under way at once.
const AT_ONCE: usize = 8;
/// How often it is looked whether this gateway may write, while it mayn't.
const LOOK: Duration = Duration::from_millis(100);

/// How writing goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriterHealth {
    /// Statuses to be written, and Events to be sent.
    pub waiting: usize,
    /// Statuses written.
    pub statuses: u64,
    /// Statuses that another controller owns part of: not written until the Service changes.
    pub conflicts: u64,
    /// Events sent, repetitions of one counted once.
    pub events: u64,
    /// Events dropped: too many, or not to be written in a namespace that is going away.
    pub events_dropped: u64,
    /// Requests that failed and are made again.
    pub retries: u64,
}

/// What the task and those that ask share.
struct Queues {
    statuses: status::Wanted,
    events: events::Outbox,
    health: WriterHealth,
}

/// Takes what is to be written. Cloned freely; never blocks.
#[derive(Clone)]
pub struct Writer {
    queues: Arc<Mutex<Queues>>,
    work: Arc<Notify>,
    enabled: bool,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("health", &self.health()).finish_non_exhaustive()
    }
}

impl Writer {
    /// What is to stand in a Service's status from now on. It is written when this gateway may,
    /// and again where somebody takes it out.
    pub fn status(&self, write: StatusWrite) {
        if self.enabled {
            locked(&self.queues).statuses.want(write);
            self.work.notify_one();
        }
    }

    /// An Event about an object of the cluster. Where this gateway isn't the one that writes, it
    /// is forgotten after a while.
    pub fn event(&self, event: Event) {
        if self.enabled {
            let mut queues = locked(&self.queues);
            let dropped = queues.events.put(event, now());
            queues.health.events_dropped += dropped;
            drop(queues);
            self.work.notify_one();
        }
    }

    /// How writing goes.
    pub fn health(&self) -> WriterHealth {
        let queues = locked(&self.queues);
        let waiting = queues.statuses.waiting() + queues.events.waiting();
        WriterHealth { waiting, ..queues.health.clone() }
    }
}

/// What a writer is made from.
pub(super) struct Parts {
    pub line: Line,
    pub lead: Arc<Lead>,
    pub watches: Arc<Watches>,
    pub statuses: Arc<Statuses>,
    pub known: Names,
    pub inbox: Arc<Inbox>,
    pub jitter: Jitter,
    pub options: Options,
}

/// A writer and its task.
pub(super) fn make(mut parts: Parts) -> (Writer, impl Future<Output = ()> + Send) {
    let kept = parts.options.lease.as_ref().map_or(Duration::ZERO, |lease| lease.duration * 3);
    let queues = Queues {
        statuses: status::Wanted::new(parts.jitter.fork()),
        events: events::Outbox::new(kept),
        health: WriterHealth::default(),
    };
    let queues = Arc::new(Mutex::new(queues));
    let work = Arc::<Notify>::default();
    let enabled = parts.options.write;
    let writer = Writer { queues: queues.clone(), work: work.clone(), enabled };
    (writer, Task { parts, queues, work }.run())
}

/// What came of a request.
enum Done {
    Status(ObjectName, status::Outcome),
    Event(events::Key, Result<events::Sent, Trouble>),
}

struct Task {
    parts: Parts,
    queues: Arc<Mutex<Queues>>,
    work: Arc<Notify>,
}

impl Task {
    async fn run(self) {
        if !self.parts.options.write {
            return;
        }
        let mut under_way: FuturesUnordered<BoxFuture<'static, Done>> = FuturesUnordered::new();
        loop {
            let may = self.parts.lead.holds();
            if may {
                while under_way.len() < AT_ONCE
                    && let Some(request) = self.next()
                {
                    under_way.push(request);
                }
            } else {
                locked(&self.queues).events.age(now());
            }
            let due = locked(&self.queues).next_due();
            let wait = match due {
                _ if !may => LOOK,
                Some(at) => at.saturating_duration_since(now()).max(Duration::from_millis(1)),
                None => Duration::from_secs(1),
            };
            tokio::select! {
                Some(done) = under_way.next() => self.done(done),
                () = self.work.notified(), if may => {}
                () = self.parts.statuses.news.notified() => {
                    let changed = self.parts.statuses.changed();
                    locked(&self.queues).statuses.changed(&changed, |name| self.version(name));
                }
                () = sleep(wait) => {}
            }
        }
    }

    /// The next request that is due.
    fn next(&self) -> Option<BoxFuture<'static, Done>> {
        let connection = self.parts.line.get();
        let limit = self.parts.options.timing.answer;
        let mut queues = locked(&self.queues);
        while let Some(write) = queues.statuses.next(now()) {
            let name = write.service.clone();
            let seen = self.parts.statuses.get(&name);
            match status::Request::of(write, seen) {
                None => queues.statuses.settle(&name, status::Settled::Written, now()),
                Some(request) => {
                    return Some(Box::pin(async move {
                        let outcome = request.send(&connection, limit).await;
                        Done::Status(name, outcome)
                    }));
                }
            }
        }
        let uid = |kind: Kind, name: &ObjectName| {
            self.parts.known.get(&kind).and_then(|known| locked(known).uid(name))
        };
        let (key, letter) = queues.events.next(now(), uid, &self.parts.options.identity)?;
        Some(Box::pin(async move {
            let sent = letter.send(&connection, limit).await;
            Done::Event(key, sent)
        }))
    }

    fn version(&self, name: &ObjectName) -> Option<u64> {
        let known = self.parts.known.get(&Kind::Service)?;
        locked(known).version(name)
    }

    fn done(&self, done: Done) {
        match done {
            Done::Status(name, outcome) => self.status_done(&name, outcome),
            Done::Event(key, sent) => self.event_done(&key, sent),
        }
    }

    fn status_done(&self, name: &ObjectName, outcome: status::Outcome) {
        let mut queues = locked(&self.queues);
        let settled = match outcome {
            status::Outcome::Written(service) => {
                queues.health.statuses += 1;
                self.parts.watches.problem("statuses", None);
                let newer = super::kinds::version(&service.metadata) >= self.version(name);
                if newer {
                    self.parts.statuses.put(name, super::statuses::Seen::of(&service));
                }
                status::Settled::Written
            }
            status::Outcome::Gone => status::Settled::Gone,
            status::Outcome::Refused { event, conflict } => {
                queues.health.conflicts += u64::from(conflict);
                let first = queues.statuses.blocked(name).is_none();
                if first {
                    tracing::warn!(service = %name, "{}", event.message);
                    self.parts.inbox.diagnose((*event).clone());
                    queues.health.events_dropped += queues.events.put(*event, now());
                }
                status::Settled::Blocked(self.version(name).unwrap_or_default())
            }
            status::Outcome::Failed(trouble) => {
                queues.health.retries += 1;
                self.troubled("statuses", &trouble);
                status::Settled::Failed(trouble.retry_after)
            }
        };
        queues.statuses.settle(name, settled, now());
    }

    fn event_done(&self, key: &events::Key, sent: Result<events::Sent, Trouble>) {
        let mut queues = locked(&self.queues);
        match sent {
            Ok(sent) => {
                self.parts.watches.problem("events", None);
                if matches!(sent, events::Sent::Unwanted) {
                    queues.health.events_dropped += 1;
                } else {
                    queues.health.events += 1;
                }
                queues.events.sent(key, sent, now());
            }
            Err(trouble) => {
                queues.health.retries += 1;
                self.troubled("events", &trouble);
                queues.events.failed(key, now());
            }
        }
    }

    fn troubled(&self, about: &'static str, trouble: &Trouble) {
        if matches!(trouble.sort, Sort::Silent | Sort::Credentials) {
            self.parts.line.doubt(self.parts.line.get().number);
        }
        if self.parts.watches.problem(about, Some(trouble.what.clone())) {
            tracing::warn!("{}", trouble.what);
        }
    }
}

impl Queues {
    fn next_due(&self) -> Option<std::time::Instant> {
        [self.statuses.next_due(), self.events.next_due()].into_iter().flatten().min()
    }
}

/// What the server said to a request, within the time for it.
async fn answered<T>(
    connection: &Connection,
    doing: &str,
    limit: Duration,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, (Trouble, Option<Box<kube::core::Status>>)> {
    match tokio::time::timeout(limit, request).await {
        Err(_) => Err((Trouble::silent(doing, limit, &connection.facts), None)),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            let trouble = Trouble::of(&error, doing, &connection.facts);
            let status = match error {
                kube::Error::Api(status) => Some(status),
                _ => None,
            };
            Err((trouble, status))
        }
    }
}
