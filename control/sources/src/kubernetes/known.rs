//! What is known of one kind: names and versions, not objects.
//!
//! The index keeps what it needs of an object; here is what tells a list from what was told
//! before. A list may be old, or have lost what it shouldn't: see [`Known::begin`] and
//! [`Known::finish`].

use super::statuses::Seen;
use crate::Change;
use model::desired::ObjectName;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use translate::{Kind, Object, ObjectKey};

/// From this many a removal of more than half is held back.
const MANY: u64 = 20;

/// One object as it was told last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// `resourceVersion`; the API promises that it can be compared.
    pub version: u64,
    /// `uid`.
    pub uid: Arc<str>,
    /// Endpoints that serve in a slice; 1 for every other kind.
    pub weight: u32,
    /// A Service that may have an address: of type LoadBalancer, and not being deleted.
    pub balanced: bool,
}

/// An object that came in, with what is kept of it.
#[derive(Debug)]
pub(super) struct Arrived {
    pub name: ObjectName,
    pub entry: Entry,
    /// What stands in its status, where that is written by us.
    pub seen: Option<Seen>,
    pub object: Object,
}

/// A list that is being read.
#[derive(Debug)]
pub(super) struct Listing {
    version: u64,
    listed: HashSet<ObjectName>,
    /// Objects that come with fewer endpoints than they had.
    shrunk: Vec<Arrived>,
}

/// A list from before what has been seen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Older {
    /// The list's version.
    pub listed: u64,
    /// The highest that was seen.
    pub seen: u64,
}

/// What becomes of an event.
#[derive(Debug, PartialEq)]
pub(super) enum Told {
    /// It is news.
    News(Change),
    /// It was known.
    Known,
    /// It comes after what it should have come before: only a list can tell.
    OutOfOrder,
}

/// What is held back.
#[derive(Debug)]
struct Held {
    until: Instant,
    removals: BTreeMap<ObjectName, Option<Arrived>>,
}

/// What is known of one kind.
#[derive(Debug)]
pub(super) struct Known {
    kind: Kind,
    objects: HashMap<ObjectName, Entry>,
    seen: u64,
    listed_once: bool,
    held: Option<Held>,
    /// Since when lists are older than what was seen.
    older_since: Option<Instant>,
}

impl Known {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            objects: HashMap::new(),
            seen: 0,
            listed_once: false,
            held: None,
            older_since: None,
        }
    }

    /// An object as it was told last.
    pub(super) fn entry(&self, name: &ObjectName) -> Option<&Entry> {
        self.objects.get(name)
    }

    /// The UID of an object.
    pub(super) fn uid(&self, name: &ObjectName) -> Option<Arc<str>> {
        self.objects.get(name).map(|entry| entry.uid.clone())
    }

    /// Objects whose removal is held back, and until when.
    pub(super) fn held(&self) -> Option<(usize, Instant)> {
        self.held.as_ref().map(|held| (held.removals.len(), held.until))
    }

    /// The version of an object.
    pub(super) fn version(&self, name: &ObjectName) -> Option<u64> {
        self.objects.get(name).map(|entry| entry.version)
    }

    /// Stands for a version that can't be read: higher than what was seen.
    pub(super) const fn next_version(&self) -> u64 {
        self.seen.saturating_add(1)
    }

    /// How many objects there are.
    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// A list begins. One from before what was seen comes from a server that has fallen behind,
    /// and is refused, but not for ever: storage that was restored from a backup stays behind.
    pub(super) fn begin(
        &mut self,
        version: u64,
        now: Instant,
        patience: Duration,
    ) -> Result<Listing, Older> {
        if version < self.seen {
            let since = *self.older_since.get_or_insert(now);
            if now.saturating_duration_since(since) < patience {
                return Err(Older { listed: version, seen: self.seen });
            }
            // Its versions tell nothing about those that were seen.
            self.seen = version;
            self.objects.values_mut().for_each(|entry| entry.version = 0);
        }
        self.older_since = None;
        Ok(Listing { version, listed: HashSet::new(), shrunk: Vec::new() })
    }

    /// A page of it: what can be told at once, which is what takes nothing away.
    pub(super) fn page(&mut self, listing: &mut Listing, arrived: Vec<Arrived>) -> Vec<Change> {
        let mut changes = Vec::new();
        for one in arrived {
            listing.listed.insert(one.name.clone());
            match self.objects.get(&one.name) {
                Some(known) if known.version == one.entry.version => {}
                Some(known) if one.entry.weight < known.weight => listing.shrunk.push(one),
                _ => changes.push(self.take_in(one)),
            }
        }
        changes
    }

    /// The list's end: what has gone or shrunk. More than half of many is held back for `hold`:
    /// so much goes at once by a mistake more often than on purpose, and what the watch delivers
    /// from here on corrects it.
    pub(super) fn finish(&mut self, listing: Listing, now: Instant, hold: Duration) -> Vec<Change> {
        let Listing { version, listed, shrunk } = listing;
        self.seen = self.seen.max(version);
        let mut removals = BTreeMap::new();
        let mut lost = 0;
        for (name, entry) in &self.objects {
            if !listed.contains(name) {
                lost += u64::from(entry.weight);
                removals.insert(name.clone(), None);
            }
        }
        for one in shrunk {
            let had = self.objects.get(&one.name).map_or(0, |entry| entry.weight);
            lost += u64::from(had.saturating_sub(one.entry.weight));
            removals.insert(one.name.clone(), Some(one));
        }
        let before: u64 = self.objects.values().map(|entry| u64::from(entry.weight)).sum();
        let first = !std::mem::replace(&mut self.listed_once, true);
        if !first && before >= MANY && lost * 2 > before && !hold.is_zero() {
            let until = self.held.as_ref().map_or(now + hold, |held| held.until);
            if until > now {
                self.held = Some(Held { until, removals });
                return Vec::new();
            }
        }
        self.held = None;
        self.remove(removals)
    }

    /// What was held back long enough.
    pub(super) fn release(&mut self, now: Instant) -> Vec<Change> {
        match self.held.take_if(|held| held.until <= now) {
            Some(held) => self.remove(held.removals),
            None => Vec::new(),
        }
    }

    /// A delivered event: it is never held back.
    pub(super) fn applied(&mut self, arrived: Arrived) -> Told {
        let version = arrived.entry.version;
        if version <= self.seen {
            return match self.objects.get(&arrived.name) {
                Some(known) if known.version >= version => Told::Known,
                _ => Told::OutOfOrder,
            };
        }
        self.seen = version;
        Told::News(self.take_in(arrived))
    }

    /// A delivered deletion.
    pub(super) fn deleted(&mut self, name: ObjectName, version: u64) -> Told {
        if version <= self.seen {
            return match self.objects.get(&name) {
                Some(known) if known.version < version => Told::OutOfOrder,
                _ => Told::Known,
            };
        }
        self.seen = version;
        self.unhold(&name);
        match self.objects.remove(&name) {
            Some(_) => Told::News(Change::Delete(ObjectKey { kind: self.kind, name })),
            None => Told::Known,
        }
    }

    /// The server is this far and has nothing to tell.
    pub(super) fn bookmarked(&mut self, version: u64) {
        self.seen = self.seen.max(version);
    }

    fn take_in(&mut self, arrived: Arrived) -> Change {
        self.unhold(&arrived.name);
        self.objects.insert(arrived.name, arrived.entry);
        Change::Apply(arrived.object)
    }

    fn unhold(&mut self, name: &ObjectName) {
        if let Some(held) = &mut self.held {
            held.removals.remove(name);
            if held.removals.is_empty() {
                self.held = None;
            }
        }
    }

    fn remove(&mut self, removals: BTreeMap<ObjectName, Option<Arrived>>) -> Vec<Change> {
        let mut changes = Vec::with_capacity(removals.len());
        for (name, shrunk) in removals {
            match shrunk {
                Some(arrived) => changes.push(self.take_in(arrived)),
                None => {
                    if self.objects.remove(&name).is_some() {
                        changes.push(Change::Delete(ObjectKey { kind: self.kind, name }));
                    }
                }
            }
        }
        changes
    }
}
