//! How the watches are, and since when what they told may be old.

use super::inbox::now;
use super::locked;
use super::trouble::{Sort, Trouble};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use translate::Kind;

/// How one watch is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchHealth {
    /// What it watches.
    pub kind: Kind,
    /// It has listed once.
    pub listed: bool,
    /// What keeps it from following; `None` while it follows.
    pub problem: Option<String>,
    /// How long ago the server last said something on it: an event, a bookmark, an answer.
    pub quiet: Duration,
    /// Objects known.
    pub objects: usize,
    /// Lists read, the first one included.
    pub lists: u64,
    /// Events delivered.
    pub events: u64,
    /// Failures.
    pub failures: u64,
    /// Lists refused because they were older than what was seen.
    pub older_refused: u64,
    /// Objects whose removal is held back.
    pub held_back: usize,
}

/// How the source is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceHealth {
    /// Every watch has listed and follows, and nothing is held back. A connection that dies
    /// without a word is noticed within `ping_every + ping_answer` (HTTP/2), or
    /// `watch + watch_grace` at the latest: until then this says true.
    pub in_step: bool,
    /// Since when what is known may be old: when the server was last heard on the watch that is
    /// quiet for longest among those that don't follow. `None` while in step.
    pub stale_since: Option<Instant>,
    /// What is wrong, in one sentence with its remedy; empty while nothing is. Wrong files of
    /// credentials and forbidden writes stand here too, while the watches are in step.
    pub what: String,
    /// The API server.
    pub server: String,
    /// Each watch.
    pub watches: Vec<WatchHealth>,
}

impl SourceHealth {
    /// Lists read after the first of each kind.
    pub fn relists(&self) -> u64 {
        self.watches.iter().map(|watch| watch.lists.saturating_sub(1)).sum()
    }
}

#[derive(Debug)]
struct State {
    listed: bool,
    problem: Option<String>,
    heard: Instant,
    objects: usize,
    lists: u64,
    events: u64,
    failures: u64,
    older_refused: u64,
    held_back: usize,
}

/// What the watches say of themselves.
#[derive(Debug)]
pub(super) struct Watches {
    states: Mutex<BTreeMap<Kind, State>>,
    /// What else is wrong, by what it concerns.
    problems: Mutex<BTreeMap<&'static str, Trouble>>,
}

impl Watches {
    pub(super) fn new(kinds: impl IntoIterator<Item = Kind>) -> Self {
        let state = || State {
            listed: false,
            problem: None,
            heard: now(),
            objects: 0,
            lists: 0,
            events: 0,
            failures: 0,
            older_refused: 0,
            held_back: 0,
        };
        let states = kinds.into_iter().map(|kind| (kind, state())).collect();
        Self { states: Mutex::new(states), problems: Mutex::default() }
    }

    fn with(&self, kind: Kind, change: impl FnOnce(&mut State)) {
        if let Some(state) = locked(&self.states).get_mut(&kind) {
            change(state);
        }
    }

    /// The server said something: the watch follows.
    pub(super) fn heard(&self, kind: Kind, events: u64) {
        self.with(kind, |state| {
            state.heard = now();
            state.problem = None;
            state.events += events;
        });
    }

    /// A list was read to its end.
    pub(super) fn listed(&self, kind: Kind) {
        self.with(kind, |state| {
            state.heard = now();
            state.problem = None;
            state.listed = true;
            state.lists += 1;
        });
    }

    /// How much there is, and how much of it is only there because its removal is held back.
    pub(super) fn counted(&self, kind: Kind, objects: usize, held_back: usize) {
        self.with(kind, |state| (state.objects, state.held_back) = (objects, held_back));
    }

    /// It doesn't follow. True where that is news.
    pub(super) fn failed(&self, kind: Kind, trouble: &Trouble) -> bool {
        let mut news = false;
        self.with(kind, |state| {
            news = state.problem.as_ref() != Some(&trouble.what);
            state.problem = Some(trouble.what.clone());
            state.failures += 1;
            state.older_refused += u64::from(trouble.sort == Sort::Older);
        });
        news
    }

    /// The server hasn't this kind, and is asked for it now and then.
    pub(super) fn absent(&self, kind: Kind) {
        self.with(kind, |state| {
            state.heard = now();
            state.problem = None;
            state.listed = true;
        });
    }

    /// Something beside the watches is wrong, or no longer. True where that is news. What is of one
    /// sort is one problem: it stays in the words in which it was told first, whichever of many
    /// objects meets it next.
    pub(super) fn problem(&self, about: &'static str, trouble: Option<&Trouble>) -> bool {
        let mut problems = locked(&self.problems);
        let Some(trouble) = trouble else { return problems.remove(about).is_some() };
        if problems.get(about).is_some_and(|known| known.sort == trouble.sort) {
            return false;
        }
        problems.insert(about, trouble.clone());
        true
    }

    /// What is wrong beside the watches.
    fn other(&self) -> Option<String> {
        locked(&self.problems).values().next().map(|trouble| trouble.what.clone())
    }

    /// How it all is.
    pub(super) fn health(&self, server: &str) -> SourceHealth {
        let now = now();
        let states = locked(&self.states);
        let behind =
            |state: &&State| !state.listed || state.problem.is_some() || state.held_back > 0;
        let stale_since = states.values().filter(behind).map(|state| state.heard).min();
        let mut what = states.values().find_map(|state| state.problem.clone());
        if what.is_none() {
            what = states.iter().find_map(|(kind, state)| {
                (state.held_back > 0).then(|| format!(
                    "a list without {} of {} {kind}s that were there: their removal is held back \
                     for a moment, in case that was a mistake",
                    state.held_back, state.objects
                ))
            });
        }
        let what = what.or_else(|| self.other());
        let waiting = states.iter().find(|(_, state)| !state.listed);
        let what = what
            .or_else(|| waiting.map(|(kind, _)| format!("waiting for the first list of {kind}s")));
        let watches = states.iter().map(|(kind, state)| WatchHealth {
            kind: *kind,
            listed: state.listed,
            problem: state.problem.clone(),
            quiet: now.saturating_duration_since(state.heard),
            objects: state.objects,
            lists: state.lists,
            events: state.events,
            failures: state.failures,
            older_refused: state.older_refused,
            held_back: state.held_back,
        });
        SourceHealth {
            in_step: stale_since.is_none(),
            stale_since,
            what: what.unwrap_or_default(),
            server: server.to_owned(),
            watches: watches.collect(),
        }
    }
}
