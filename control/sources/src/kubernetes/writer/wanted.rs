//! What is wanted of every Service's status, and when it is to be written.

#[cfg(test)]
mod tests;

use super::super::pace::{Jitter, doubled};
use model::desired::ObjectName;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use translate::writes::StatusWrite;

/// The first wait after a failed write, and the longest.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// How soon the same is written once more over somebody else's writes, at first and at last: two
/// that both write after each other must not go round in a circle. One who leaves the Service
/// alone for the longest has stopped.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_LONGEST: Duration = Duration::from_secs(300);
/// How soon a wish that the server refused is tried once more. A Service that has just changed its
/// type refuses what was right before; what is wanted now, or the change, comes in meanwhile.
const REFUSED_AGAIN: Duration = Duration::from_secs(1);

/// Where a Service's status stands.
#[derive(Clone, Debug, PartialEq)]
enum State {
    /// To be looked at and written, from then on.
    Due(Instant),
    /// On its way since the Service was of this version; `again` where something else is wanted
    /// meanwhile.
    Sent { again: bool, version: Option<u64> },
    /// Nothing is to be done before the Service changes.
    Standing,
    /// Not before the Service is of another version than this, and not before then; or at `retry`,
    /// where it may be somebody else's doing.
    Blocked { version: u64, until: Instant, retry: Option<Instant> },
}

impl State {
    /// When it is to be looked at.
    const fn due(&self) -> Option<Instant> {
        match self {
            Self::Due(at) | Self::Blocked { retry: Some(at), .. } => Some(*at),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct One {
    write: StatusWrite,
    state: State,
    /// Failures in a row.
    failures: u32,
    /// How often in a row it was blocked.
    blocks: u32,
    /// By another controller, which owns it for the next wish too.
    conflict: bool,
    /// That was told.
    told: bool,
    /// The server has refused this wish once.
    refused: bool,
    /// When this wish was written last, and how often it was.
    written: Option<(Instant, u32)>,
    /// A wish of an earlier term, on its way still.
    dropped: bool,
}

/// What is to become of a Service after a request, or a look.
#[derive(Clone, Copy, Debug)]
pub(super) enum Settled {
    /// What is wanted stands there, or can't be wanted of the Service as it is.
    Standing,
    /// It was written; the Service is of this version since.
    Written(Option<u64>),
    /// The Service isn't there, or another one is under its name.
    Gone,
    /// Another controller owns it.
    Conflict,
    /// It was taken and changed on its way; the Service is of this version since.
    Altered(Option<u64>),
    /// The server doesn't want it.
    Refused,
    /// Another time, not sooner than this.
    Failed(Option<Duration>),
}

/// What is wanted of all Services.
#[derive(Debug)]
pub(super) struct Wanted {
    services: BTreeMap<ObjectName, One>,
    due: BTreeSet<(Instant, ObjectName)>,
    sent: usize,
    /// Those whose last request failed.
    failing: BTreeSet<ObjectName>,
    /// The term of the Lease that the wishes are of.
    term: Option<u64>,
    jitter: Jitter,
}

impl Wanted {
    pub(super) const fn new(jitter: Jitter) -> Self {
        Self {
            services: BTreeMap::new(),
            due: BTreeSet::new(),
            sent: 0,
            failing: BTreeSet::new(),
            term: None,
            jitter,
        }
    }

    /// Follows who writes. What was wanted in an earlier term was decided before what others have
    /// written since, and is said anew.
    pub(super) fn of_term(&mut self, term: Option<u64>) {
        if std::mem::replace(&mut self.term, term) == term {
            return;
        }
        self.due.clear();
        self.failing.clear();
        self.services.retain(|_, one| {
            one.dropped = true;
            matches!(one.state, State::Sent { .. })
        });
    }

    /// A new wish for a Service, which replaces an earlier one.
    pub(super) fn want(&mut self, write: StatusWrite, term: u64) {
        self.of_term(Some(term));
        let (name, now) = (write.service.clone(), super::now());
        let Some(one) = self.services.get_mut(&name) else {
            self.services.insert(name.clone(), One::new(write));
            self.state(&name, State::Due(now));
            return;
        };
        if one.write == write && !one.dropped {
            // Somebody else wrote meanwhile: look, and leave every wait as it is.
            if one.state == State::Standing {
                self.state(&name, State::Due(now));
            }
            return;
        }
        let insists = insists(&write) || one.write.uid != write.uid || one.dropped;
        let held = one.conflict && !insists;
        if !held {
            (one.blocks, one.conflict, one.told) = (0, false, false);
        }
        (one.refused, one.written, one.dropped) = (false, None, false);
        one.write = write;
        let at = match &mut one.state {
            State::Sent { again, .. } => {
                *again = true;
                return;
            }
            State::Blocked { .. } if held => return,
            // A fault, or an owner, isn't gone because something else is wanted.
            State::Due(at) if held || one.failures > 0 => now.max(*at),
            _ => now,
        };
        self.state(&name, State::Due(at));
    }

    /// How many wait to be looked at or written, now or later.
    pub(super) fn waiting(&self) -> usize {
        self.due.len() + self.sent
    }

    /// How many are on their way.
    pub(super) const fn sent(&self) -> usize {
        self.sent
    }

    /// Whether what failed last has gone well since, or is no longer wanted.
    pub(super) fn is_well(&self) -> bool {
        self.failing.is_empty()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next that is due; it counts as sent. `version` knows the Services.
    pub(super) fn next(
        &mut self,
        now: Instant,
        version: impl Fn(&ObjectName) -> Option<u64>,
    ) -> Option<StatusWrite> {
        let (_, name) = self.due.first().filter(|(at, _)| *at <= now)?.clone();
        self.state(&name, State::Sent { again: false, version: version(&name) });
        self.services.get(&name).map(|one| one.write.clone())
    }

    /// Puts a Service off where the same was written to it a moment ago.
    pub(super) fn too_soon(&mut self, name: &ObjectName, now: Instant) -> bool {
        let Some(one) = self.services.get_mut(name) else { return false };
        let Some((last, times)) = one.written else { return false };
        let at = last + doubled(AGAIN_FIRST, AGAIN_LONGEST, times.saturating_sub(1));
        if now >= at {
            if now.saturating_duration_since(at) >= AGAIN_LONGEST {
                one.written = None;
            }
            return false;
        }
        self.state(name, State::Due(at));
        true
    }

    /// What came of a request. `known` is the version of the Service that the watch has told. True
    /// where it is to be told that the status isn't written.
    pub(super) fn settle(
        &mut self,
        name: &ObjectName,
        settled: Settled,
        known: Option<u64>,
        now: Instant,
    ) -> bool {
        let Some(one) = self.services.get_mut(name) else { return false };
        let State::Sent { again, version } = one.state else { return false };
        if one.dropped || (matches!(settled, Settled::Gone) && !again) {
            self.remove(name);
            return false;
        }
        let failed = matches!(settled, Settled::Failed(_));
        if known.is_none() && !failed && !again {
            // Deleted while it was on its way, which nobody tells a second time.
            self.remove(name);
            return false;
        }
        let (state, tell) = one.settled(settled, version, known, now, &mut self.jitter);
        // What came of another wish says nothing of this one, but for who owns the status.
        let fresh = again && !failed && (!one.conflict || insists(&one.write));
        if again {
            (one.refused, one.written) = (false, None);
        }
        let tell = tell && !fresh && !std::mem::replace(&mut one.told, true);
        if failed {
            self.failing.insert(name.clone());
        } else {
            self.failing.remove(name);
        }
        self.state(name, if fresh { State::Due(now) } else { state });
        tell
    }

    /// Something changed at these Services: what was written may no longer stand there.
    pub(super) fn changed(
        &mut self,
        names: &BTreeSet<ObjectName>,
        version: impl Fn(&ObjectName) -> Option<u64>,
    ) {
        let now = super::now();
        for name in names {
            let Some(one) = self.services.get(name) else { continue };
            match (version(name), &one.state) {
                (None, State::Sent { .. }) => {}
                (None, _) => self.remove(name),
                (Some(_), State::Standing) => self.state(name, State::Due(now)),
                (Some(is), State::Blocked { version, until, retry }) if is > *version => {
                    let at = now.max(retry.map_or(*until, |retry| retry.min(*until)));
                    self.state(name, State::Due(at));
                }
                _ => {}
            }
        }
    }

    fn remove(&mut self, name: &ObjectName) {
        self.leave(name);
        self.failing.remove(name);
        self.services.remove(name);
    }

    /// Takes a Service out of what is counted by its state.
    fn leave(&mut self, name: &ObjectName) {
        let Some(one) = self.services.get(name) else { return };
        if let Some(at) = one.state.due() {
            self.due.remove(&(at, name.clone()));
        }
        self.sent -= usize::from(matches!(one.state, State::Sent { .. }));
    }

    fn state(&mut self, name: &ObjectName, state: State) {
        self.leave(name);
        if let Some(at) = state.due() {
            self.due.insert((at, name.clone()));
        }
        self.sent += usize::from(matches!(state, State::Sent { .. }));
        if let Some(one) = self.services.get_mut(name) {
            one.state = state;
        }
    }
}

impl One {
    const fn new(write: StatusWrite) -> Self {
        Self {
            write,
            state: State::Standing,
            failures: 0,
            blocks: 0,
            conflict: false,
            told: false,
            refused: false,
            written: None,
            dropped: false,
        }
    }

    /// The state after a request that was sent at version `sent`, and whether that is to be told.
    fn settled(
        &mut self,
        settled: Settled,
        sent: Option<u64>,
        known: Option<u64>,
        now: Instant,
        jitter: &mut Jitter,
    ) -> (State, bool) {
        if let Settled::Failed(after) = settled {
            let wait = doubled(RETRY_FIRST, RETRY_LONGEST, self.failures);
            self.failures += 1;
            return (State::Due(now + jitter.stretch(wait).max(after.unwrap_or_default())), false);
        }
        self.failures = 0;
        if matches!(settled, Settled::Written(_) | Settled::Altered(_)) {
            self.written = Some((now, self.written.map_or(0, |(_, times)| times) + 1));
        }
        let version = match settled {
            Settled::Altered(version) => version,
            Settled::Conflict => sent,
            Settled::Refused if self.refused => sent,
            Settled::Refused => {
                self.refused = true;
                return (State::Due(now + REFUSED_AGAIN), false);
            }
            other => {
                (self.blocks, self.conflict, self.told, self.refused) = (0, false, false, false);
                // Where somebody wrote before the answer came, that has been told already.
                let later = matches!(other, Settled::Written(version) if known > version);
                let gone = matches!(other, Settled::Gone);
                let state = if later || gone { State::Due(now) } else { State::Standing };
                return (state, false);
            }
        };
        self.conflict = matches!(settled, Settled::Conflict);
        // What refuses may be a webhook, which changes without the Service.
        let retry =
            matches!(settled, Settled::Refused).then(|| now + jitter.stretch(AGAIN_LONGEST));
        let until = now + jitter.stretch(doubled(AGAIN_FIRST, AGAIN_LONGEST, self.blocks));
        self.blocks += 1;
        let version = version.unwrap_or_default();
        // What has changed while it was on its way is told once only.
        if known.is_some_and(|known| known > version) {
            return (State::Due(until), true);
        }
        (State::Blocked { version, until, retry }, true)
    }
}

/// Worth another try at once where another controller owned the wish before it: no ingress is
/// asked for, which nobody else can own, or theirs is to be taken.
fn insists(write: &StatusWrite) -> bool {
    write.take_over || write.ingress.is_empty()
}
