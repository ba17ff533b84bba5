//! What the watches have told and the control thread hasn't taken yet.
//!
//! One entry an object, so that it never holds more than there are objects, however long nobody
//! takes. Nothing is handed out before every watch has listed once.

use super::locked;
use crate::{Change, Changes};
use model::answers::Event;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};
use tokio::time::Instant as Clock;
use translate::{Kind, ObjectKey};

/// A storm goes on while changes follow each other within this.
const STORM_GAP: Duration = Duration::from_millis(5);

/// Now; in tests with a clock of their own, by that.
pub(super) fn now() -> Instant {
    Clock::now().into_std()
}

#[derive(Debug)]
struct State {
    /// Kinds that haven't listed yet.
    unlisted: BTreeSet<Kind>,
    pending: BTreeMap<ObjectKey, Change>,
    diagnostics: Vec<Event>,
    /// When the oldest of what is pending came, and the newest.
    came: Option<(Instant, Instant)>,
    /// When something was handed out last; `None` before the first time.
    handed: Option<Instant>,
    /// The last quorum list of Services that was asked for and is in `pending`...
    listed: u64,
    /// ...and in what was handed out.
    handed_list: u64,
}

/// Where watches put changes and the control thread takes them.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    filled: Condvar,
    gather: Duration,
}

impl Inbox {
    pub(super) fn new(kinds: impl IntoIterator<Item = Kind>, gather: Duration) -> Self {
        let state = State {
            unlisted: kinds.into_iter().collect(),
            pending: BTreeMap::new(),
            diagnostics: Vec::new(),
            came: None,
            handed: None,
            listed: 0,
            handed_list: 0,
        };
        Self { state: Mutex::new(state), filled: Condvar::new(), gather }
    }

    /// Changes of a watch. A later one of an object stands for an earlier one.
    pub(super) fn put(&self, changes: impl IntoIterator<Item = Change>) {
        let mut state = locked(&self.state);
        let mut any = false;
        for change in changes {
            any = true;
            let key = match &change {
                Change::Apply(object) => object.key(),
                Change::Delete(key) => key.clone(),
            };
            state.pending.insert(key, change);
        }
        if any {
            state.note();
            self.filled.notify_all();
        }
    }

    /// Something for `show events`.
    pub(super) fn diagnose(&self, event: Event) {
        let mut state = locked(&self.state);
        state.diagnostics.push(event);
        state.note();
        self.filled.notify_all();
    }

    /// A kind has been listed, which was asked for as number `asked`.
    pub(super) fn listed(&self, kind: Kind, asked: u64) {
        let mut state = locked(&self.state);
        if state.unlisted.remove(&kind) && state.unlisted.is_empty() {
            state.note();
        }
        if kind == Kind::Service {
            state.listed = state.listed.max(asked);
        }
        self.filled.notify_all();
    }

    /// The last quorum list of Services that the control thread has.
    pub(super) fn handed_list(&self) -> u64 {
        locked(&self.state).handed_list
    }

    /// Everything that is there, without waiting for more.
    #[cfg(test)]
    pub(super) fn take(&self) -> Option<Changes> {
        locked(&self.state).take()
    }

    /// Waits for changes, at most for `wait`. The first of a burst comes at once; what follows
    /// within the gathering time comes together.
    pub(super) fn next(&self, wait: Duration) -> Option<Changes> {
        let until = Instant::now() + wait;
        let mut state = locked(&self.state);
        loop {
            let now = Instant::now();
            let ready = state.ready(now, self.gather);
            if ready.is_some_and(|left| left.is_zero()) || now >= until {
                return state.take();
            }
            let left = until.saturating_duration_since(now);
            let left = ready.map_or(left, |ready| ready.min(left));
            state = match self.filled.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

impl State {
    fn note(&mut self) {
        let now = now();
        self.came = Some(self.came.map_or((now, now), |(first, _)| (first, now)));
    }

    /// In how long what is there is to be handed out; `None` where there is nothing.
    fn ready(&self, now: Instant, gather: Duration) -> Option<Duration> {
        let (first, newest) = self.came?;
        if !self.unlisted.is_empty() {
            return None;
        }
        let calm = self.handed.is_none_or(|handed| now.saturating_duration_since(handed) >= gather);
        let until = if calm { now } else { (newest + STORM_GAP).min(first + gather) };
        Some(until.saturating_duration_since(now))
    }

    fn take(&mut self) -> Option<Changes> {
        if !self.unlisted.is_empty() {
            return None;
        }
        self.handed_list = self.listed;
        let full = self.handed.is_none();
        let (detected, _) = self.came.take().or_else(|| full.then(|| (now(), now())))?;
        self.handed = Some(now());
        let mut changes = Vec::with_capacity(self.pending.len());
        let mut applied = Vec::with_capacity(self.pending.len());
        for change in std::mem::take(&mut self.pending).into_values() {
            match change {
                Change::Delete(_) if full => {}
                Change::Delete(_) => changes.push(change),
                Change::Apply(_) => applied.push(change),
            }
        }
        changes.append(&mut applied);
        let diagnostics = std::mem::take(&mut self.diagnostics);
        Some(Changes { changes, diagnostics, detected, full })
    }
}
