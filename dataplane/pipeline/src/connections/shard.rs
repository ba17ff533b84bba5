//! Entries and index of one family.

use super::entry::Entry;
use super::index::{self, BUCKET_PLACES, Bucket, Direction, Place};
use super::key::{Address, Key};
use super::life::Timeouts;
use crate::arch::memory::{Memory, OutOfMemory, Plain, Slab};
use crate::arch::prefetch;
use model::record::ConnectionState;

/// Index places for each key, in hundredths: buckets are two thirds full when the table
/// is.
const INDEX_PLACES_PERCENT: usize = 150;
/// A small table would not spread its keys well enough.
const BUCKETS_MIN: usize = 32;
/// One embryonic connection is allowed for so many places of the table.
const ENTRIES_PER_EMBRYO: usize = 4;
/// No next free entry.
const END: u32 = u32::MAX;
/// Places that are looked through for one to evict from a full table.
const EVICTION_TRIES: usize = 64;

/// A connection that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its place in the table.
    pub entry: u32,
    /// Which way the packet goes.
    pub direction: Direction,
}

impl Found {
    const fn at(place: Place) -> Self {
        Self { entry: place.entry(), direction: place.direction() }
    }
}

/// No room for another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFull;

/// The connection table of one worker and family.
#[derive(Debug)]
pub struct Shard<A>
where
    Entry<A>: Plain,
{
    entries: Slab<Entry<A>>,
    buckets: Slab<Bucket>,
    /// A ring: the embryonic connections in the order of their insertion.
    embryos: Box<[u32]>,
    embryo_next: usize,
    free: u32,
    /// Entries from here on have never been used.
    fresh: u32,
    used: usize,
    sweep_next: usize,
    secret: u64,
}

impl<A: Address> Shard<A>
where
    Entry<A>: Plain,
{
    /// An empty table for `capacity` connections. `secret` keys its hash.
    pub fn new(memory: &mut dyn Memory, capacity: usize, secret: u64) -> Result<Self, OutOfMemory> {
        let capacity = capacity.max(1);
        let places = 2 * capacity * INDEX_PLACES_PERCENT / 100;
        Ok(Self {
            entries: Slab::new(memory, capacity)?,
            buckets: Slab::new(memory, places.div_ceil(BUCKET_PLACES).max(BUCKETS_MIN))?,
            embryos: vec![END; (capacity / ENTRIES_PER_EMBRYO).max(1)].into_boxed_slice(),
            embryo_next: 0,
            free: END,
            fresh: 0,
            used: 0,
            sweep_next: 0,
            secret,
        })
    }
    /// Connections in the table.
    pub const fn len(&self) -> usize {
        self.used
    }
    /// True where there is none.
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }
    /// Connections that it has room for.
    pub fn capacity(&self) -> usize {
        self.entries.len()
    }
    /// Bytes of entries and index.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.entries) + size_of_val(&*self.buckets) + size_of_val(&*self.embryos)
    }
    /// The hash of a key in this table.
    #[inline(always)]
    pub fn hash(&self, key: &Key<A>) -> u64 {
        key.hash(self.secret)
    }
    /// Asks for the two buckets of a hash.
    #[inline(always)]
    pub fn prefetch_buckets(&self, hash: u64) {
        let (first, second) = index::pair(hash, self.buckets.len());
        prefetch(&self.buckets[first]);
        prefetch(&self.buckets[second]);
    }
    /// The first place whose tag fits, which most likely is the one looked for. Reads the buckets
    /// alone.
    #[inline(always)]
    pub fn candidate(&self, hash: u64) -> Option<Found> {
        let (first, second) = index::pair(hash, self.buckets.len());
        let tag = index::tag(hash);
        self.buckets[first].first(tag).or_else(|| self.buckets[second].first(tag)).map(Found::at)
    }
    /// Asks for an entry.
    #[inline(always)]
    pub fn prefetch_entry(&self, entry: u32) {
        if let Some(entry) = self.entries.get(entry as usize) {
            prefetch(entry);
        }
    }
    /// The connection with this key: the candidate, where it is that; else by the index.
    #[inline(always)]
    pub fn find_first(&self, candidate: Option<Found>, hash: u64, key: &Key<A>) -> Option<Found> {
        candidate.filter(|found| self.has_key(*found, key)).or_else(|| self.find(hash, key))
    }
    /// The connection with this key.
    pub fn find(&self, hash: u64, key: &Key<A>) -> Option<Found> {
        let (first, second) = index::pair(hash, self.buckets.len());
        let tag = index::tag(hash);
        self.find_in(first, tag, key).or_else(|| self.find_in(second, tag, key))
    }
    #[inline(always)]
    fn find_in(&self, bucket: usize, tag: u16, key: &Key<A>) -> Option<Found> {
        self.buckets[bucket].find(tag).map(Found::at).find(|found| self.has_key(*found, key))
    }
    /// True where the entry is in use and this is its key in this direction.
    #[inline(always)]
    fn has_key(&self, found: Found, key: &Key<A>) -> bool {
        self.entries
            .get(found.entry as usize)
            .is_some_and(|entry| entry.is_used() && entry.key(found.direction) == *key)
    }
    /// A connection by its place.
    #[inline(always)]
    pub fn entry(&self, at: u32) -> Option<&Entry<A>> {
        self.entries.get(at as usize)
    }
    /// A connection by its place, to be changed. Its keys must stay.
    #[inline(always)]
    pub fn entry_mut(&mut self, at: u32) -> Option<&mut Entry<A>> {
        self.entries.get_mut(at as usize)
    }
    /// Puts a connection in, under both its keys. The caller has made sure that neither is there.
    /// Returns its place and whether an embryonic one had to go for it.
    pub fn insert(&mut self, mut entry: Entry<A>) -> Result<(u32, bool), TableFull> {
        let mut evicted = false;
        let embryonic = entry.state() == Some(ConnectionState::Embryonic);
        if embryonic {
            evicted = self.evict_embryo_at(self.embryo_next);
        }
        if self.used == self.entries.len() && !self.evict_closed(entry.last_seen_ms) {
            if !self.evict_oldest_embryo() {
                return Err(TableFull);
            }
            evicted = true;
        }
        let at = self.take_free();
        // Before its keys are in the index: whoever makes room there looks at what it moves.
        entry.embryo_or_reset = 0;
        self.entries[at as usize] = entry;
        if !self.index(&entry, at) {
            self.put_free(at);
            return Err(TableFull);
        }
        if embryonic {
            self.entries[at as usize].embryo_or_reset = self.embryo_next as u32 + 1;
            self.embryos[self.embryo_next] = at;
            self.embryo_next = (self.embryo_next + 1) % self.embryos.len();
        }
        self.used += 1;
        Ok((at, evicted))
    }
    /// Takes a connection out.
    pub fn remove(&mut self, at: u32) {
        let Some(entry) = self.entries.get(at as usize).copied().filter(Entry::is_used) else {
            return;
        };
        let directions =
            [(entry.client_key(), Direction::ToBackend), (entry.reply_key(), Direction::ToClient)];
        for (key, direction) in directions {
            self.unindex(&key, Place::new(at, direction));
        }
        self.used -= 1;
        self.put_free(at);
    }
    /// The place that a sweep looks at, and on to the next one; `None` where it was never used.
    pub fn sweep_next(&mut self) -> Option<u32> {
        let at = self.sweep_next;
        self.sweep_next = if at + 1 < self.entries.len() { at + 1 } else { 0 };
        (at < self.fresh as usize).then_some(at as u32)
    }
    /// True where the connection has been silent for longer than its state allows.
    #[inline]
    pub fn is_over(&self, at: u32, now_ms: u64, timeouts: &Timeouts) -> bool {
        self.entries.get(at as usize).is_some_and(|entry| {
            let state = entry.state();
            state.is_some_and(|s| entry.idle_ms(now_ms) >= timeouts.of(entry.protocol, s))
        })
    }
    /// The connections from `at` on, up to `entries` places, and where to go on (0: at the end).
    pub fn page(&self, at: u32, entries: usize) -> (impl Iterator<Item = &Entry<A>>, u32) {
        let end = (at as usize + entries).min(self.fresh as usize);
        let start = (at as usize).min(end);
        let next = if end == self.fresh as usize { 0 } else { end as u32 };
        (self.entries[start..end].iter().filter(|entry| entry.is_used()), next)
    }

    fn index(&mut self, entry: &Entry<A>, at: u32) -> bool {
        let client = entry.client_key();
        let place = Place::new(at, Direction::ToBackend);
        if !self.index_key(&client, place) {
            return false;
        }
        if !self.index_key(&entry.reply_key(), Place::new(at, Direction::ToClient)) {
            self.unindex(&client, place);
            return false;
        }
        true
    }

    fn index_key(&mut self, key: &Key<A>, place: Place) -> bool {
        let hash = self.hash(key);
        let (first, second) = index::pair(hash, self.buckets.len());
        let tag = index::tag(hash);
        self.buckets[first].insert(tag, place)
            || self.buckets[second].insert(tag, place)
            || (self.make_room(first) || self.make_room(second))
                && (self.buckets[first].insert(tag, place)
                    || self.buckets[second].insert(tag, place))
    }

    /// Moves one place of a full bucket to its other bucket (cuckoo hashing, one step deep). At two
    /// thirds full a bucket is full with a chance of about one in six, and all eight others with
    /// one in 6^8.
    #[cold]
    fn make_room(&mut self, bucket: usize) -> bool {
        for at in 0..BUCKET_PLACES {
            let Some((tag, place)) = self.buckets[bucket].place(at) else { return true };
            let Some(entry) = self.entries.get(place.entry() as usize) else { continue };
            let key = entry.key(place.direction());
            let (first, second) = index::pair(self.hash(&key), self.buckets.len());
            let other = if first == bucket { second } else { first };
            if other != bucket && self.buckets[other].insert(tag, place) {
                self.buckets[bucket].clear(at);
                return true;
            }
        }
        false
    }

    fn unindex(&mut self, key: &Key<A>, place: Place) {
        let hash = self.hash(key);
        let (first, second) = index::pair(hash, self.buckets.len());
        let tag = index::tag(hash);
        let found =
            self.buckets[first].remove(tag, place) || self.buckets[second].remove(tag, place);
        debug_assert!(found, "a used entry is in the index under both its keys");
    }

    /// Makes room in the ring of embryonic connections. True where one had to go.
    fn evict_embryo_at(&mut self, place: usize) -> bool {
        let at = self.embryos[place];
        let still = self.entries.get(at as usize).is_some_and(|entry| {
            entry.state() == Some(ConnectionState::Embryonic)
                && entry.embryo_or_reset == place as u32 + 1
        });
        if still {
            self.remove(at);
        }
        still
    }

    /// Takes out the oldest of the ended connections that lie next before the sweep: a full table
    /// of ended ones takes new ones. False where none lies there.
    fn evict_closed(&mut self, now_ms: u32) -> bool {
        let len = self.fresh as usize;
        let places = (0..len.min(EVICTION_TRIES)).map(|i| (self.sweep_next + i) % len);
        let closed = places.filter(|at| {
            self.entries.get(*at).is_some_and(|e| e.state() == Some(ConnectionState::Closed))
        });
        let oldest = closed.max_by_key(|at| now_ms.wrapping_sub(self.entries[*at].last_seen_ms));
        let Some(at) = oldest else { return false };
        self.sweep_next = (at + 1) % len;
        self.remove(at as u32);
        true
    }

    fn evict_oldest_embryo(&mut self) -> bool {
        let len = self.embryos.len();
        (0..len.min(EVICTION_TRIES)).any(|i| self.evict_embryo_at((self.embryo_next + i) % len))
    }

    fn take_free(&mut self) -> u32 {
        if self.free == END {
            self.fresh += 1;
            return self.fresh - 1;
        }
        let at = self.free;
        self.free = self.entries[at as usize].last_seen_ms;
        at
    }

    fn put_free(&mut self, at: u32) {
        self.entries[at as usize] = Entry { last_seen_ms: self.free, state: 0, ..Entry::default() };
        self.free = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::memory::HeapMemory;
    use crate::parse::TCP;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn entry(n: u32, state: ConnectionState) -> Entry<u32> {
        Entry {
            client: 0xc612_0000 + n,
            frontend: 0xcb00_710a,
            backend: 0xc612_0100 + n % 7,
            nat: 0xc612_01c8,
            client_port: 1000,
            frontend_port: 80,
            backend_port: 8080,
            nat_port: 1024 + n as u16,
            protocol: TCP,
            state: state as u8,
            ..Entry::default()
        }
    }

    fn find(shard: &Shard<u32>, key: Key<u32>) -> Option<Found> {
        shard.find(shard.hash(&key), &key)
    }

    proptest! {
        /// The table behaves as a map, whatever is put in and taken out.
        #[test]
        fn behaves_as_a_map(steps in proptest::collection::vec((any::<bool>(), 0u32..48), 1..300)) {
            let mut shard = Shard::<u32>::new(&mut HeapMemory, 32, 42)
                .map_err(|e| TestCaseError::fail(e.to_string()))?;
            let mut model: HashMap<u32, u32> = HashMap::new();
            for (put, n) in steps {
                let e = entry(n, ConnectionState::Established);
                match (put, model.contains_key(&n)) {
                    (true, false) => match shard.insert(e) {
                        Ok((at, false)) => { model.insert(n, at); }
                        Ok((_, true)) => prop_assert!(false, "nothing embryonic to evict"),
                        Err(TableFull) => prop_assert_eq!(model.len(), 32),
                    },
                    (false, true) => { shard.remove(model[&n]); model.remove(&n); }
                    _ => {}
                }
                prop_assert_eq!(shard.len(), model.len());
                for n in 0..48 {
                    let e = entry(n, ConnectionState::Established);
                    let at = model.get(&n).copied();
                    let client = find(&shard, e.client_key());
                    prop_assert_eq!(client.map(|f| (f.entry, f.direction)),
                        at.map(|at| (at, Direction::ToBackend)));
                    let reply = find(&shard, e.reply_key());
                    prop_assert_eq!(reply.map(|f| (f.entry, f.direction)),
                        at.map(|at| (at, Direction::ToClient)));
                }
            }
        }
    }

    #[test]
    fn a_full_table_takes_all_it_promised() -> Result<(), OutOfMemory> {
        let mut shard = Shard::<u32>::new(&mut HeapMemory, 60_000, 7)?;
        for n in 0..60_000 {
            assert!(shard.insert(entry(n, ConnectionState::Established)).is_ok(), "at {n}");
        }
        assert_eq!(shard.insert(entry(60_001, ConnectionState::Established)), Err(TableFull));
        Ok(())
    }

    #[test]
    fn a_table_full_of_ended_connections_takes_new_ones() -> Result<(), OutOfMemory> {
        let mut shard = Shard::<u32>::new(&mut HeapMemory, 100, 7)?;
        for n in 0..100 {
            let state =
                if n % 10 == 0 { ConnectionState::Established } else { ConnectionState::Closed };
            assert!(shard.insert(entry(n, state)).is_ok());
        }
        for n in 100..190 {
            assert!(shard.insert(entry(n, ConnectionState::Established)).is_ok(), "at {n}");
        }
        assert_eq!(shard.insert(entry(190, ConnectionState::Established)), Err(TableFull));
        for n in (0..100).step_by(10) {
            let kept = entry(n, ConnectionState::Established);
            assert!(find(&shard, kept.client_key()).is_some(), "{n} was not ended");
        }
        Ok(())
    }

    /// Small tables fill their buckets unevenly, so that room is made again and again.
    #[test]
    fn making_room_loses_nobody() -> Result<(), OutOfMemory> {
        for secret in 0..200 {
            let mut shard = Shard::<u32>::new(&mut HeapMemory, 120, secret)?;
            let mut in_table = Vec::new();
            for n in 0..120 {
                let e = entry(n, ConnectionState::Established);
                if shard.insert(e).is_ok() {
                    in_table.push(e);
                }
            }
            for e in &in_table {
                let client = find(&shard, e.client_key()).map(|found| found.direction);
                let reply = find(&shard, e.reply_key()).map(|found| found.direction);
                assert_eq!(client, Some(Direction::ToBackend), "secret {secret}");
                assert_eq!(reply, Some(Direction::ToClient), "secret {secret}");
            }
        }
        Ok(())
    }

    #[test]
    fn embryonic_connections_are_bounded_and_never_push_out_others() -> Result<(), OutOfMemory> {
        let mut shard = Shard::<u32>::new(&mut HeapMemory, 40, 7)?;
        let good = entry(0, ConnectionState::Established);
        assert!(shard.insert(good).is_ok());
        let mut evicted = 0;
        for n in 1..1000 {
            evicted +=
                usize::from(shard.insert(entry(n, ConnectionState::Embryonic)).is_ok_and(|i| i.1));
        }
        assert_eq!(shard.len(), 1 + 10, "a quarter of 40 places");
        assert_eq!(evicted, 999 - 10);
        assert!(find(&shard, good.client_key()).is_some());
        Ok(())
    }
}
