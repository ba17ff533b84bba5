//! Events of the cluster (`events.k8s.io/v1`), as `kubectl describe` and `kubectl events` show
//! them. What is said again becomes a series of the Event that said it first.

use super::super::connect::Connection;
use super::super::trouble::{Sort, Trouble};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::{Timestamp, Unit};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use model::answers::{Event, Severity};
use model::desired::ObjectName;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use translate::Kind;

/// Who reports, in every Event.
const CONTROLLER: &str = "headgate.dev/gateway";
/// What is done about the object; the API wants a word.
const ACTION: &str = "Program";
/// Different Events that wait, and that are remembered for their series.
const WAITING_MAX: usize = 1_000;
const REMEMBERED_MAX: usize = 4_000;
/// The API server forgets an Event after an hour; a series must find the one that it goes on.
const REMEMBERED: Duration = Duration::from_secs(50 * 60);
/// Events sent in a burst, and one more in each interval after that.
const BURST: u32 = 100;
const REFILL: Duration = Duration::from_millis(100);
/// A repetition is told at most once in this time, with the count.
const SERIES_EVERY: Duration = Duration::from_secs(10);
/// How often an Event is tried.
const TRIES: u32 = 8;
/// Bytes of a note, by the API.
const NOTE_MAX: usize = 1_024;

/// Events with the same key say the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    kind: Kind,
    object: ObjectName,
    uid: String,
    reason: String,
    note: String,
}

#[derive(Debug)]
struct Waiting {
    severity: Severity,
    count: u32,
    put: Instant,
    time: Timestamp,
    due: Instant,
    tries: u32,
    sent: bool,
}

#[derive(Clone, Debug)]
struct Remembered {
    name: String,
    count: u32,
    last: Instant,
}

/// What came of an Event.
#[derive(Debug)]
pub(super) enum Sent {
    /// It has this name now, and was counted so often.
    As { name: String, count: u32 },
    /// Its namespace takes no Events any longer.
    Unwanted,
}

/// Events to be sent and those that were.
#[derive(Debug)]
pub(super) struct Outbox {
    waiting: BTreeMap<Key, Waiting>,
    remembered: BTreeMap<Key, Remembered>,
    tokens: u32,
    refilled: Option<Instant>,
    /// How long one is kept while another gateway writes.
    kept: Duration,
}

impl Outbox {
    pub(super) const fn new(kept: Duration) -> Self {
        Self {
            waiting: BTreeMap::new(),
            remembered: BTreeMap::new(),
            tokens: BURST,
            refilled: None,
            kept,
        }
    }

    /// Takes an Event in. How many were dropped for it: this one, where there are too many.
    pub(super) fn put(&mut self, event: Event, now: Instant) -> u64 {
        let Some(kind) = kind(&event.kind) else { return 0 };
        let time = i64::try_from(event.time_s).ok().filter(|time| *time > 0);
        let time = time.and_then(|time| Timestamp::from_second(time).ok());
        let key = Key {
            kind,
            object: event.object,
            uid: event.uid,
            reason: event.reason,
            note: shortened(event.message),
        };
        if self.waiting.len() >= WAITING_MAX && !self.waiting.contains_key(&key) {
            return 1;
        }
        let last = self.remembered.get(&key).map(|one| one.last);
        let due = last.map_or(now, |last| (last + SERIES_EVERY).max(now));
        let waiting = self.waiting.entry(key).or_insert_with(|| Waiting {
            severity: event.severity,
            count: 0,
            put: now,
            time: Timestamp::now(),
            due,
            tries: 0,
            sent: false,
        });
        waiting.count += 1;
        waiting.time = time.unwrap_or_else(Timestamp::now);
        0
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = self.waiting.values().filter(|one| !one.sent).map(|one| one.due).min()?;
        match self.refilled.filter(|_| self.tokens == 0) {
            Some(refilled) => Some(due.max(refilled + REFILL)),
            None => Some(due),
        }
    }

    /// Forgets what another gateway has told, or nobody will read.
    pub(super) fn age(&mut self, now: Instant) {
        self.waiting.retain(|_, one| now.saturating_duration_since(one.put) < self.kept);
    }

    /// The next to be sent. `uid` knows objects whose Event doesn't say it.
    pub(super) fn next(
        &mut self,
        now: Instant,
        uid: impl Fn(Kind, &ObjectName) -> Option<Arc<str>>,
        identity: &str,
    ) -> Option<(Key, Letter)> {
        self.refill(now);
        if self.tokens == 0 {
            return None;
        }
        let (key, waiting) =
            self.waiting.iter_mut().find(|(_, one)| !one.sent && one.due <= now)?;
        self.tokens -= 1;
        waiting.sent = true;
        let before = self
            .remembered
            .get(key)
            .filter(|one| now.saturating_duration_since(one.last) < REMEMBERED);
        let known = if key.uid.is_empty() { uid(key.kind, &key.object) } else { None };
        let letter = Letter {
            key: key.clone(),
            uid: known.map_or_else(|| key.uid.clone(), |uid| uid.to_string()),
            severity: waiting.severity,
            count: waiting.count,
            time: waiting.time,
            before: before.cloned(),
            identity: identity.to_owned(),
        };
        Some((key.clone(), letter))
    }

    fn refill(&mut self, now: Instant) {
        let last = *self.refilled.get_or_insert(now);
        let since = now.saturating_duration_since(last).as_millis() / REFILL.as_millis();
        let more = u32::try_from(since).unwrap_or(BURST).min(BURST);
        if more > 0 {
            self.tokens = (self.tokens + more).min(BURST);
            self.refilled = Some(now);
        }
    }

    pub(super) fn sent(&mut self, key: &Key, sent: Sent, now: Instant) {
        let Some(mut waiting) = self.waiting.remove(key) else { return };
        let Sent::As { name, count } = sent else { return };
        let told = self.remembered.get(key).map_or(0, |one| one.count);
        // What came while it was on its way isn't in what was told.
        let more = waiting.count.saturating_sub(count.saturating_sub(told));
        if self.remembered.len() >= REMEMBERED_MAX {
            let oldest = self.remembered.iter().min_by_key(|(_, one)| one.last);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.remembered.remove(&oldest);
            }
        }
        self.remembered.insert(key.clone(), Remembered { name, count, last: now });
        if more > 0 {
            (waiting.count, waiting.sent, waiting.tries) = (more, false, 0);
            waiting.due = now + SERIES_EVERY;
            self.waiting.insert(key.clone(), waiting);
        }
    }

    pub(super) fn failed(&mut self, key: &Key, now: Instant) {
        let Some(waiting) = self.waiting.get_mut(key) else { return };
        waiting.sent = false;
        waiting.tries += 1;
        waiting.due = now + Duration::from_secs(1 << waiting.tries.min(6));
        if waiting.tries >= TRIES {
            self.waiting.remove(key);
        }
    }
}

/// The kinds that an Event can be about.
fn kind(name: &str) -> Option<Kind> {
    let kinds =
        [Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::Namespace, Kind::ServiceCidr];
    kinds.into_iter().find(|kind| kind.name() == name)
}

const fn api_version(kind: Kind) -> &'static str {
    match kind {
        Kind::Service | Kind::Node | Kind::Namespace => "v1",
        Kind::EndpointSlice => "discovery.k8s.io/v1",
        Kind::ServiceCidr => "networking.k8s.io/v1",
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > NOTE_MAX {
        let mut end = NOTE_MAX - 3;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// An Event on its way.
pub(super) struct Letter {
    key: Key,
    uid: String,
    severity: Severity,
    count: u32,
    time: Timestamp,
    before: Option<Remembered>,
    identity: String,
}

impl Letter {
    fn namespace(&self) -> &str {
        let namespace = &self.key.object.namespace;
        if namespace.is_empty() { "default" } else { namespace }
    }

    pub(super) async fn send(
        self,
        connection: &Connection,
        limit: Duration,
    ) -> Result<Sent, Trouble> {
        let api: Api<api::Event> = Api::namespaced(connection.client.clone(), self.namespace());
        let doing = format!("creating an Event about {} {}", self.key.kind, self.key.object);
        if let Some(before) = &self.before {
            let count = before.count + self.count;
            let patch = json!({ "series": {
                "count": count,
                "lastObservedTime": MicroTime(micros(self.time)),
            } });
            let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
            let request = api.patch(&before.name, &params, &patch);
            match super::answered(connection, &doing, limit, request).await {
                Ok(_) => return Ok(Sent::As { name: before.name.clone(), count }),
                Err((trouble, _)) if trouble.sort == Sort::Missing => {}
                Err((trouble, status)) => return unwanted(trouble, status.as_deref()),
            }
        }
        let event = self.event();
        let name = event.metadata.name.clone().unwrap_or_default();
        let params = PostParams::default();
        let request = api.create(&params, &event);
        match super::answered(connection, &doing, limit, request).await {
            Ok(_) => Ok(Sent::As { name, count: self.count }),
            // It was sent before, and its answer lost.
            Err((trouble, _)) if trouble.sort == Sort::Conflict => {
                Ok(Sent::As { name, count: self.count })
            }
            Err((trouble, status)) => unwanted(trouble, status.as_deref()),
        }
    }

    fn event(&self) -> api::Event {
        let Key { kind, object, reason, note, .. } = &self.key;
        let time = MicroTime(micros(self.time));
        // As client-go names them: the object and a number that no other has.
        let stem: String = object.name.chars().take(200).collect();
        let name = format!("{stem}.{:x}", Timestamp::now().as_nanosecond());
        let series = (self.count > 1).then(|| api::EventSeries {
            count: i32::try_from(self.count).unwrap_or(i32::MAX),
            last_observed_time: time.clone(),
        });
        api::Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(self.namespace().to_owned()),
                ..ObjectMeta::default()
            },
            event_time: Some(time),
            action: Some(ACTION.to_owned()),
            reason: Some(reason.clone()),
            note: Some(note.clone()),
            type_: Some(
                match self.severity {
                    Severity::Normal => "Normal",
                    Severity::Warning => "Warning",
                }
                .to_owned(),
            ),
            regarding: Some(ObjectReference {
                api_version: Some(api_version(*kind).to_owned()),
                kind: Some(kind.name().to_owned()),
                namespace: (!object.namespace.is_empty()).then(|| object.namespace.to_string()),
                name: Some(object.name.to_string()),
                uid: (!self.uid.is_empty()).then(|| self.uid.clone()),
                ..ObjectReference::default()
            }),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.identity.clone()),
            series,
            ..api::Event::default()
        }
    }
}

/// A namespace that goes away refuses Events, which is no fault of anybody's.
fn unwanted(trouble: Trouble, status: Option<&kube::core::Status>) -> Result<Sent, Trouble> {
    let terminating = status.is_some_and(|status| {
        let causes = status.details.iter().flat_map(|details| &details.causes);
        status.message.contains("being terminated")
            || causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
    });
    match trouble.sort {
        Sort::Forbidden if terminating => Ok(Sent::Unwanted),
        Sort::Missing | Sort::Invalid => Ok(Sent::Unwanted),
        _ => Err(trouble),
    }
}

/// As the API keeps them.
fn micros(time: Timestamp) -> Timestamp {
    time.round(Unit::Microsecond).unwrap_or(time)
}
