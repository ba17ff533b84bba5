//! The task that sends what is due, and takes account of what came of it.

use super::super::inbox::now;
use super::super::known::Entry;
use super::super::locked;
use super::super::statuses::Seen;
use super::super::trouble::{Sort, Trouble};
use super::wanted::Settled;
use super::{Parts, Queues, letter, status};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Service;
use model::desired::ObjectName;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::sleep;
use translate::Kind;
use translate::writes::StatusWrite;

/// Requests under way at once.
const AT_ONCE: usize = 8;
/// How often it is looked whether this gateway may write, while it mayn't.
const LOOK: Duration = Duration::from_millis(100);

/// A request that was answered, or wasn't.
struct Done {
    /// When it was sent, and over which connection.
    sent: Instant,
    connection: u64,
    outcome: Outcome,
}

/// What came of it.
enum Outcome {
    Status(status::Request, status::Outcome),
    Event(letter::Key, Result<letter::Sent, Trouble>),
}

/// Sends what is due.
pub(super) struct Task {
    pub(super) parts: Parts,
    pub(super) queues: Arc<Mutex<Queues>>,
    pub(super) work: Arc<Notify>,
}

impl Task {
    /// Goes on for ever.
    pub(super) async fn run(self) {
        if !self.parts.options.write {
            return;
        }
        let mut under_way: FuturesUnordered<BoxFuture<'static, Done>> = FuturesUnordered::new();
        loop {
            let may = self.may();
            if may {
                while under_way.len() < AT_ONCE
                    && let Some(request) = self.next()
                {
                    under_way.push(request);
                }
            }
            let full = under_way.len() >= AT_ONCE;
            let due = locked(&self.queues).next_due();
            let wait = match due {
                _ if !may => LOOK,
                Some(at) if !full => {
                    at.saturating_duration_since(now()).max(Duration::from_millis(1))
                }
                _ => Duration::from_secs(1),
            };
            tokio::select! {
                Some(done) = under_way.next() => self.done(done),
                () = self.work.notified(), if may && !full => {}
                () = self.parts.statuses.news.notified() => {
                    let changed = self.parts.statuses.changed();
                    locked(&self.queues).statuses.changed(&changed, |name| self.version(name));
                }
                () = sleep(wait.min(LOOK * 10)) => {}
            }
        }
    }

    /// Whether this gateway may write now. What is left of an earlier time goes.
    fn may(&self) -> bool {
        let mut queues = locked(&self.queues);
        let term = self.parts.lead.term();
        queues.statuses.of_term(term);
        if term.is_none() {
            queues.events.age(now());
        }
        self.well(&mut queues);
        term.is_some() && !queues.closed
    }

    /// Forgets faults of writes that have gone well since, or are no longer wanted.
    fn well(&self, queues: &mut Queues) {
        if queues.statuses.is_well() {
            self.parts.watches.problem("statuses", None);
        }
        if queues.events.is_well() {
            self.parts.watches.problem("events", None);
        }
    }

    /// The next request that is due.
    fn next(&self) -> Option<BoxFuture<'static, Done>> {
        let connection = self.parts.line.get();
        let limit = self.parts.options.timing.answer;
        let mut queues = locked(&self.queues);
        let (sent, number) = (now(), connection.number);
        if let Some(request) = self.next_status(&mut queues, sent) {
            return Some(Box::pin(async move {
                let outcome = request.send(&connection, limit).await;
                Done { sent, connection: number, outcome: Outcome::Status(request, outcome) }
            }));
        }
        if queues.event_due().is_none_or(|at| at > sent) {
            return None;
        }
        let uid = |kind: Kind, name: &ObjectName| {
            self.parts.known.get(&kind).and_then(|known| locked(known).uid(name))
        };
        let (key, letter) = queues.events.next(sent, uid, &self.parts.options.identity)?;
        Some(Box::pin(async move {
            let outcome = letter.send(&connection, limit).await;
            Done { sent, connection: number, outcome: Outcome::Event(key, outcome) }
        }))
    }

    fn next_status(&self, queues: &mut Queues, now: Instant) -> Option<status::Request> {
        while queues.status_due().is_some_and(|at| at <= now) {
            let write = queues.statuses.next(now, |name| self.version(name))?;
            let name = write.service.clone();
            let known = self.known(&name);
            let request = match wanted_of(&write, known.as_ref()) {
                Some(settled) => Err(settled),
                None => status::Request::of(write, self.parts.statuses.get(&name).as_ref())
                    .ok_or(Settled::Standing),
            };
            match request {
                Ok(_) if queues.statuses.too_soon(&name, now) => {}
                Ok(request) => return Some(request),
                Err(settled) => {
                    let version = known.map(|entry| entry.version);
                    queues.statuses.settle(&name, settled, version, now);
                }
            }
        }
        None
    }

    /// What the watch has told of a Service.
    fn known(&self, name: &ObjectName) -> Option<Entry> {
        locked(self.parts.known.get(&Kind::Service)?).entry(name).cloned()
    }

    fn version(&self, name: &ObjectName) -> Option<u64> {
        self.known(name).map(|entry| entry.version)
    }

    fn done(&self, done: Done) {
        let mut queues = locked(&self.queues);
        match done.outcome {
            Outcome::Status(request, outcome) => {
                let trouble = match outcome {
                    status::Outcome::Failed(trouble) => {
                        let settled = Settled::Failed(trouble.retry_after);
                        queues.health.status_retries += 1;
                        queues.statuses.settle(request.service(), settled, None, now());
                        Some(trouble)
                    }
                    outcome => {
                        self.answered(&mut queues, &request, outcome);
                        None
                    }
                };
                self.troubled("statuses", trouble, done.sent, done.connection, &mut queues);
            }
            Outcome::Event(key, sent) => {
                let trouble = match sent {
                    Ok(sent) => {
                        match sent {
                            letter::Sent::As { .. } => queues.health.events += 1,
                            letter::Sent::Unwanted => queues.health.events_unwanted += 1,
                        }
                        queues.events.settle(&key, sent, now());
                        None
                    }
                    Err(trouble) => {
                        if queues.events.failed(&key, now()) {
                            queues.health.events_dropped += 1;
                        } else {
                            queues.health.event_retries += 1;
                        }
                        Some(trouble)
                    }
                };
                self.troubled("events", trouble, done.sent, done.connection, &mut queues);
            }
        }
        self.well(&mut queues);
    }

    /// The server said something of a status.
    fn answered(&self, queues: &mut Queues, request: &status::Request, outcome: status::Outcome) {
        let name = request.service();
        let mut known = self.version(name);
        let (settled, event) = match outcome {
            status::Outcome::Written(service) => {
                queues.health.statuses += 1;
                let seen = Seen::of(&service);
                let version = super::super::kinds::version(&service.metadata);
                let altered = request.altered(seen.as_ref());
                known = self.note(name, &service, seen);
                match altered {
                    None => (Settled::Written(version), None),
                    Some(event) => (Settled::Altered(version), Some(event)),
                }
            }
            status::Outcome::Conflict(event) => (Settled::Conflict, Some(*event)),
            status::Outcome::Refused(event) => (Settled::Refused, Some(*event)),
            status::Outcome::Gone | status::Outcome::Failed(_) => (Settled::Gone, None),
        };
        match settled {
            Settled::Conflict | Settled::Altered(_) => queues.health.conflicts += 1,
            Settled::Refused => queues.health.status_retries += 1,
            _ => {}
        }
        if queues.statuses.settle(name, settled, known, now())
            && let Some(event) = event
        {
            tracing::warn!(service = %name, "{}", event.message);
            self.parts.inbox.diagnose(event.clone());
            if self.parts.options.events {
                queues.health.events_dropped += queues.events.put(event, now());
            }
        }
    }

    /// Notes what stands in a status by an answer, unless the watch has told something later or
    /// that the Service is gone. Gives the version that the watch has told.
    fn note(&self, name: &ObjectName, service: &Service, seen: Option<Seen>) -> Option<u64> {
        // The watch notes what it tells under the same lock.
        let known = locked(self.parts.known.get(&Kind::Service)?);
        let told = known.version(name)?;
        if super::super::kinds::version(&service.metadata).is_some_and(|version| version >= told) {
            self.parts.statuses.note(name, seen);
        }
        Some(told)
    }

    /// Takes account of a fault, or that there was none.
    fn troubled(
        &self,
        about: &'static str,
        trouble: Option<Trouble>,
        sent: Instant,
        connection: u64,
        queues: &mut Queues,
    ) {
        let pause = match about {
            "statuses" => &mut queues.status_pause,
            _ => &mut queues.event_pause,
        };
        let Some(trouble) = trouble else { return pause.well() };
        if trouble.sort.concerns_all() {
            pause.failed(sent, now(), trouble.retry_after);
        } else {
            pause.well();
        }
        if matches!(trouble.sort, Sort::Silent | Sort::Credentials) {
            self.parts.line.doubt(connection);
        }
        if self.parts.watches.problem(about, Some(&trouble)) {
            tracing::warn!("{}", trouble.what);
        }
    }
}

/// What is wanted of a Service as it is known: `None` where it is to be looked at. A change of its
/// type, or another Service under its name, is known here before what is wanted then has been
/// decided; an address would be refused until then.
fn wanted_of(write: &StatusWrite, known: Option<&Entry>) -> Option<Settled> {
    let Some(known) = known else { return Some(Settled::Gone) };
    let other = !write.uid.is_empty() && known.uid != write.uid;
    let unfit = !known.balanced && !write.ingress.is_empty();
    (other || unfit).then_some(Settled::Standing)
}
