//! Writes statuses and Events, while this gateway may.
//!
//! Whoever asks for a write never waits: a status replaces an earlier one of its Service, Events
//! that say the same are counted, and what is more than the limits is dropped and counted. One
//! task writes, a few requests at a time. `wanted` says which status is to be written when, and
//! `status` how; `events` and `letter` do the same for Events. `pause` stops all of them for a
//! fault that concerns all. `task` sends them.

mod events;
mod letter;
mod pause;
mod status;
mod task;
mod wanted;

use super::connect::{Connection, Line};
use super::health::Watches;
use super::inbox::{Inbox, now};
use super::known::Known;
use super::lease::Lead;
use super::locked;
use super::options::Options;
use super::pace::Jitter;
use super::statuses::Statuses;
use super::trouble::{Doing, Trouble};
use model::answers::Event;
use pause::Pause;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use translate::Kind;
use translate::writes::StatusWrite;

/// What is known of each kind.
pub(super) type Names = Arc<BTreeMap<Kind, Arc<Mutex<Known>>>>;

/// How writing goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriterHealth {
    /// Statuses to be written, and Events to be sent; some of them not yet.
    pub waiting: usize,
    /// Statuses written.
    pub statuses: u64,
    /// Statuses that another controller owns part of: not written until the Service changes.
    pub conflicts: u64,
    /// Writes of a status that failed, or were refused.
    pub status_retries: u64,
    /// Events sent, repetitions of one counted once.
    pub events: u64,
    /// Events dropped: too many, or tried too often.
    pub events_dropped: u64,
    /// Events that nobody can be told, since their namespace is going away.
    pub events_unwanted: u64,
    /// Events that failed and are sent again.
    pub event_retries: u64,
}

/// What the task and those that ask share.
struct Queues {
    statuses: wanted::Wanted,
    status_pause: Pause,
    events: events::Outbox,
    event_pause: Pause,
    health: WriterHealth,
    /// Nothing more is sent.
    closed: bool,
}

impl Queues {
    /// When the next status can be sent.
    fn status_due(&self) -> Option<Instant> {
        self.status_pause.opens(self.statuses.next_due()?, self.statuses.sent())
    }

    /// When the next Event can be sent.
    fn event_due(&self) -> Option<Instant> {
        self.event_pause.opens(self.events.next_due()?, self.events.sent())
    }

    fn next_due(&self) -> Option<Instant> {
        [self.status_due(), self.event_due()].into_iter().flatten().min()
    }
}

/// Takes what is to be written. Cloned freely; never blocks.
#[derive(Clone)]
pub struct Writer {
    queues: Arc<Mutex<Queues>>,
    lead: Arc<Lead>,
    work: Arc<Notify>,
    enabled: bool,
    events: bool,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("health", &self.health()).finish_non_exhaustive()
    }
}

impl Writer {
    /// What is to stand in a Service's status from now on, and again where somebody takes it out,
    /// as long as this gateway may write without a break. It is forgotten where it mayn't: what
    /// others write meanwhile may change what is right.
    pub fn status(&self, write: StatusWrite) {
        if self.enabled {
            let mut queues = locked(&self.queues);
            if let Some(term) = self.lead.term() {
                queues.statuses.want(write, term);
            }
            drop(queues);
            self.work.notify_one();
        }
    }

    /// An Event about an object of the cluster. Where this gateway isn't the one that writes, it
    /// is forgotten after a while.
    pub fn event(&self, event: Event) {
        if self.enabled && self.events {
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

    /// Whether something is on its way, or could be sent now.
    pub(super) fn is_busy(&self) -> bool {
        let queues = locked(&self.queues);
        let due = queues.next_due().is_some_and(|at| at <= now());
        due || queues.statuses.sent() + queues.events.sent() > 0
    }

    /// Sends nothing more.
    pub(super) fn close(&self) {
        locked(&self.queues).closed = true;
    }

    /// Statuses that may be written still by what was sent.
    pub(super) fn statuses_on_their_way(&self) -> usize {
        locked(&self.queues).statuses.sent()
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
        statuses: wanted::Wanted::new(parts.jitter.fork()),
        status_pause: Pause::new(parts.jitter.fork()),
        events: events::Outbox::new(kept),
        event_pause: Pause::new(parts.jitter.fork()),
        health: WriterHealth::default(),
        closed: false,
    };
    let queues = Arc::new(Mutex::new(queues));
    let work = Arc::<Notify>::default();
    let writer = Writer {
        queues: queues.clone(),
        lead: parts.lead.clone(),
        work: work.clone(),
        enabled: parts.options.write,
        events: parts.options.events,
    };
    (writer, task::Task { parts, queues, work }.run())
}

/// What the server said to a request, within the time for it.
async fn answered<T>(
    connection: &Connection,
    doing: &Doing,
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
