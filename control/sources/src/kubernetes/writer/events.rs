//! Events that are to be told: which, how often and when.

use super::letter::{Key, Letter, Remembered, Sent};
use k8s_openapi::jiff::Timestamp;
use model::answers::{Event, Severity};
use model::desired::ObjectName;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use translate::Kind;

/// Different Events that wait, and that are remembered for their series.
const WAITING_MAX: usize = 1_000;
const REMEMBERED_MAX: usize = 4_000;
/// How long the API server keeps an Event, by default, after it was written last. One that has gone
/// there is made anew.
const KEPT: Duration = Duration::from_secs(60 * 60);
/// Events sent in a burst, and one more in each interval after that.
const BURST: u32 = 100;
const REFILL: Duration = Duration::from_millis(100);
/// A repetition is told at most once in this time, with the count.
const SERIES_EVERY: Duration = Duration::from_secs(10);
/// How often an Event is tried.
const TRIES: u32 = 8;
/// Bytes of a note, by the API.
const NOTE_MAX: usize = 1_024;

#[derive(Debug)]
struct Waiting {
    severity: Severity,
    count: u32,
    put: Instant,
    born: Timestamp,
    time: Timestamp,
    due: Instant,
    tries: u32,
    sent: bool,
}

/// Events to be sent and those that were.
#[derive(Debug)]
pub(super) struct Outbox {
    waiting: BTreeMap<Key, Waiting>,
    remembered: BTreeMap<Key, Remembered>,
    /// Those of `waiting` that are on their way.
    sent: usize,
    /// One of them may have failed.
    failed: bool,
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
            sent: 0,
            failed: false,
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
            born: Timestamp::now(),
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

    /// How many are on their way.
    pub(super) const fn sent(&self) -> usize {
        self.sent
    }

    /// Whether none waits to be sent once more.
    pub(super) fn is_well(&mut self) -> bool {
        self.failed = self.failed && self.waiting.values().any(|one| one.tries > 0);
        !self.failed
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
        self.sent += 1;
        waiting.sent = true;
        let known = if key.uid.is_empty() { uid(key.kind, &key.object) } else { None };
        let letter = Letter {
            key: key.clone(),
            uid: known.map_or_else(|| key.uid.clone(), |uid| uid.to_string()),
            severity: waiting.severity,
            count: waiting.count,
            time: waiting.time,
            before: self.remembered.get(key).cloned(),
            born: waiting.born,
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

    /// It was told, or isn't to be.
    pub(super) fn settle(&mut self, key: &Key, sent: Sent, now: Instant) {
        self.sent = self.sent.saturating_sub(1);
        let Some(mut waiting) = self.waiting.remove(key) else { return };
        let Sent::As { name, count, told } = sent else { return };
        // What came while it was on its way isn't in what was told.
        let more = waiting.count.saturating_sub(told);
        self.remember(key, Remembered { name, count, last: now });
        if more > 0 {
            (waiting.count, waiting.sent, waiting.tries) = (more, false, 0);
            waiting.due = now + SERIES_EVERY;
            self.waiting.insert(key.clone(), waiting);
        }
    }

    fn remember(&mut self, key: &Key, told: Remembered) {
        if self.remembered.len() >= REMEMBERED_MAX {
            let fresh = |one: &Remembered| told.last.saturating_duration_since(one.last) < KEPT;
            self.remembered.retain(|_, one| fresh(one));
        }
        if self.remembered.len() >= REMEMBERED_MAX {
            let oldest = self.remembered.iter().min_by_key(|(_, one)| one.last);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.remembered.remove(&oldest);
            }
        }
        self.remembered.insert(key.clone(), told);
    }

    /// It couldn't be told. True where it was tried often enough, and is dropped.
    pub(super) fn failed(&mut self, key: &Key, now: Instant) -> bool {
        self.sent = self.sent.saturating_sub(1);
        let Some(waiting) = self.waiting.get_mut(key) else { return false };
        self.failed = true;
        waiting.sent = false;
        waiting.tries += 1;
        waiting.due = now + Duration::from_secs(1 << waiting.tries.min(6));
        let enough = waiting.tries >= TRIES;
        if enough {
            self.waiting.remove(key);
        }
        enough
    }
}

/// The kinds that an Event can be about.
fn kind(name: &str) -> Option<Kind> {
    let kinds =
        [Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::Namespace, Kind::ServiceCidr];
    kinds.into_iter().find(|kind| kind.name() == name)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            time_s: 1_790_000_000,
            severity: Severity::Warning,
            reason: "Invalid".to_owned(),
            kind: "Service".to_owned(),
            object: ObjectName::new("default", "web"),
            uid: "1".to_owned(),
            place: String::new(),
            message: "something".to_owned(),
        }
    }

    /// What happens once more, long after it was told, happened once more and not twice.
    #[test]
    fn what_is_told_late_is_told_once() {
        let mut outbox = Outbox::new(Duration::ZERO);
        let mut now = Instant::now();
        for count in 1..4 {
            outbox.put(event(), now);
            let (key, letter) = outbox.next(now, |_, _| None, "a").unwrap();
            assert_eq!(letter.before.map_or(0, |before| before.count) + 1, count);
            assert_eq!((outbox.sent(), letter.count), (1, 1));
            outbox.settle(&key, Sent::As { name: "web.1".to_owned(), count, told: 1 }, now);
            assert_eq!((outbox.sent(), outbox.waiting()), (0, 0), "nothing is left to tell");
            now += Duration::from_secs(55 * 60);
        }
    }

    #[test]
    fn one_that_is_tried_too_often_leaves_no_fault_behind() {
        let mut outbox = Outbox::new(Duration::ZERO);
        let mut now = Instant::now();
        outbox.put(event(), now);
        let mut dropped = false;
        while let Some((key, _)) = outbox.next(now, |_, _| None, "a") {
            assert!(!dropped);
            dropped = outbox.failed(&key, now);
            assert_eq!(outbox.is_well(), dropped);
            now += Duration::from_secs(100);
        }
        assert!(dropped);
    }
}
