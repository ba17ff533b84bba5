//! Entries and index of one family.

mod adopt;

pub use adopt::Adopted;

use super::entry::{Cold, Entry};
use super::free::FreePlaces;
use super::half_open::HalfOpen;
use super::header::{Header, Origin};
use super::index::{self, BUCKET_PLACES, Bucket, Direction, Place, buckets_for};
use super::key::{Address, Key};
use super::life::TimeoutTable;
use super::targets::Targets;
use crate::arch::memory::{Block, Memory, OutOfMemory, Slab};
use crate::arch::{prefetch, prefetch_all};
use crate::parse::UDP;
use crate::secret::one_way;
use model::limits::NAT_TARGETS_MAX;
use model::record::ConnectionState::{self, Closed, Stream, TimeWait};
use std::sync::atomic::{Ordering::SeqCst, compiler_fence};

/// One half-open connection of a protocol is allowed for so many places of the table.
const ENTRIES_PER_HALF_OPEN: usize = 8;
/// Places, spread over a full table, that are looked through for one to evict.
const EVICTION_TRIES: usize = 64;
/// Sweeps that a connection stays beyond its time while the side is asked that a RST was for.
const DOUBT_MS: u32 = 60_000;

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

/// Why a connection has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The table is full.
    TableFull,
    /// Too many are half open.
    HalfOpenFull,
}

/// The connection table of one worker and family.
#[derive(Debug)]
pub struct Shard<A: Address> {
    header: Slab<Header>,
    entries: Slab<Entry<A>>,
    cold: Slab<Cold<A>>,
    buckets: Slab<Bucket>,
    /// TCP's and UDP's: a flood of one leaves the other alone.
    half_open: [HalfOpen; 2],
    targets: Targets<A>,
    free: FreePlaces,
    /// Entries from here on have never been used.
    fresh: u32,
    used: usize,
    sweep_next: usize,
    evict_next: usize,
    /// When a half-open connection of TCP, of UDP, was last refused: the worker's milliseconds.
    refused_ms: [u64; 2],
    secret: u64,
}

/// Of a hash that it doesn't tell.
fn number_of(hash: u64) -> u32 {
    one_way(hash) as u32
}

/// The number that challenges of a connection acknowledge: `client` is the client's key, `secret`
/// the table's.
pub fn challenge_number<A: Address>(client: &Key<A>, secret: u64) -> u32 {
    number_of(A::hash(&A::tuple(client), secret))
}

const fn protocol_index(protocol: u8) -> usize {
    (protocol == UDP) as usize
}

impl<A: Address> Shard<A> {
    /// An empty table for `capacity` connections, in one block of memory that begins with a header.
    pub fn new(
        memory: &mut dyn Memory,
        capacity: usize,
        origin: &Origin,
    ) -> Result<Self, OutOfMemory> {
        let capacity = capacity.max(1);
        let header = Header::new::<A>(origin, capacity, buckets_for(capacity));
        let bytes = header.bytes().ok_or(OutOfMemory(usize::MAX))?;
        let mut shard = Self::over(memory.block(bytes)?, &header)?;
        shard.header[0] = header;
        shard.set_whole(true);
        Ok(shard)
    }
    /// A table over memory as the header says: as if it were empty, whatever its entries are.
    fn over(mut block: Block, header: &Header) -> Result<Self, OutOfMemory> {
        let (capacity, secret) = (header.capacity(), header.secret());
        let ring = || HalfOpen::new(capacity / ENTRIES_PER_HALF_OPEN);
        Ok(Self {
            header: Slab::take(&mut block, 1)?,
            entries: Slab::take(&mut block, capacity)?,
            cold: Slab::take(&mut block, capacity)?,
            buckets: Slab::take(&mut block, buckets_for(capacity))?,
            half_open: [ring(), ring()],
            targets: Targets::new((capacity / 16).min(NAT_TARGETS_MAX), secret),
            free: FreePlaces::new(capacity, true),
            fresh: 0,
            used: 0,
            sweep_next: 0,
            evict_next: 0,
            refused_ms: [0; 2],
            secret,
        })
    }
    /// Says in the header that the memory holds a whole table, or that it is being changed as a whole.
    fn set_whole(&mut self, whole: bool) {
        compiler_fence(SeqCst);
        self.header[0].set_whole(whole);
        compiler_fence(SeqCst);
    }
    /// What stands before the table in its memory.
    pub fn header(&self) -> &Header {
        &self.header[0]
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
    /// Bytes of entries, index and all that is kept for them.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.header)
            + size_of_val(&*self.entries)
            + size_of_val(&*self.cold)
            + size_of_val(&*self.buckets)
            + self.half_open.iter().map(HalfOpen::memory_bytes).sum::<usize>()
            + self.targets.memory_bytes()
            + self.free.memory_bytes()
    }
    /// The hash of a tuple in this table.
    #[inline(always)]
    pub fn hash(&self, tuple: &A::Tuple) -> u64 {
        A::hash(tuple, self.secret)
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
        self.buckets[first].first(&self.buckets[second], tag).map(Found::at)
    }
    /// Asks for an entry.
    #[inline(always)]
    pub fn prefetch_entry(&self, entry: u32) {
        if let Some(entry) = self.entries.get(entry as usize) {
            prefetch(entry);
        }
    }
    /// Asks for the place of a connection that is to begin, `nth` of those that will.
    #[inline]
    pub fn prefetch_free(&self, nth: u32) {
        let Some(at) = self.free.first().map(|first| (first + nth) as usize) else { return };
        if let (Some(entry), Some(cold)) = (self.entries.get(at), self.cold.get(at)) {
            prefetch_all(entry);
            prefetch_all(cold);
        }
    }
    /// The connection with this tuple: the candidate, where it is that; else by the index.
    #[inline(always)]
    pub fn find_first(
        &self,
        candidate: Option<Found>,
        hash: u64,
        tuple: &A::Tuple,
    ) -> Option<Found> {
        candidate.filter(|found| self.has_tuple(*found, tuple)).or_else(|| self.find(hash, tuple))
    }
    /// The connection with this tuple.
    pub fn find(&self, hash: u64, tuple: &A::Tuple) -> Option<Found> {
        let (first, second) = index::pair(hash, self.buckets.len());
        let tag = index::tag(hash);
        self.find_in(first, tag, tuple).or_else(|| self.find_in(second, tag, tuple))
    }
    /// The connection with this key.
    pub fn find_key(&self, key: &Key<A>) -> Option<Found> {
        let tuple = A::tuple(key);
        self.find(self.hash(&tuple), &tuple)
    }
    #[inline(always)]
    fn find_in(&self, bucket: usize, tag: u16, tuple: &A::Tuple) -> Option<Found> {
        self.buckets[bucket].find(tag).map(Found::at).find(|found| self.has_tuple(*found, tuple))
    }
    /// True where the entry is in use and this is its tuple in this direction.
    #[inline(always)]
    fn has_tuple(&self, found: Found, tuple: &A::Tuple) -> bool {
        self.entries
            .get(found.entry as usize)
            .is_some_and(|entry| entry.is_used() && A::same(entry.tuple(found.direction), tuple))
    }
    /// A connection by its place.
    #[inline(always)]
    pub fn entry(&self, at: u32) -> Option<&Entry<A>> {
        self.entries.get(at as usize)
    }
    /// A connection by its place, to be changed; its state by [`Self::set_state`].
    #[inline(always)]
    pub fn entry_mut(&mut self, at: u32) -> Option<&mut Entry<A>> {
        self.entries.get_mut(at as usize)
    }
    /// A connection with its cold record.
    #[inline(always)]
    pub fn whole(&self, at: u32) -> Option<(&Entry<A>, &Cold<A>)> {
        Some((self.entries.get(at as usize)?, self.cold.get(at as usize)?))
    }
    /// A connection with its cold record, to be changed.
    #[inline(always)]
    pub fn whole_mut(&mut self, at: u32) -> Option<(&mut Entry<A>, &mut Cold<A>)> {
        Some((self.entries.get_mut(at as usize)?, self.cold.get_mut(at as usize)?))
    }
    /// What is known of the NAT ports towards backends.
    pub const fn targets(&mut self) -> &mut Targets<A> {
        &mut self.targets
    }
    /// What is known of the NAT ports towards backends, to be looked at.
    pub const fn peek_targets(&self) -> &Targets<A> {
        &self.targets
    }
    /// Asks for what is known of the NAT ports towards a backend, by any reply key of its.
    pub fn prefetch_ports(&self, reply: &Key<A>) {
        self.targets.prefetch(reply);
    }
    /// True where one more half-open connection of the protocol would be admitted: asked before
    /// anything else is looked up for it.
    pub fn admits(&mut self, protocol: u8, now_ms: u64) -> bool {
        let ring = protocol_index(protocol);
        let admits = self.half_open[ring].find_place(now_ms as u32).is_ok();
        if !admits {
            self.refused_ms[ring] = now_ms;
        }
        admits
    }
    /// True where one was refused this very millisecond: most likely the next one is, too.
    #[inline]
    pub const fn refuses(&self, protocol: u8, now_ms: u64) -> bool {
        self.refused_ms[protocol_index(protocol)] == now_ms
    }
    /// The number that a segment of ours acknowledges which a side of the connection has to answer.
    #[cold]
    pub fn challenge_number(&self, entry: &Entry<A>) -> u32 {
        number_of(self.hash(entry.tuple(Direction::ToBackend)))
    }
    /// Puts a connection in, under both its keys, in the state that it begins with, which is half
    /// open. The caller has made sure that neither key is there. Returns its place and whether
    /// another half-open one had to go for it.
    pub fn insert(
        &mut self,
        entry: Entry<A>,
        cold: Cold<A>,
        state: ConnectionState,
        now_ms: u64,
    ) -> Result<(u32, bool), Refusal> {
        let reply = entry.reply_key();
        let ring = protocol_index(reply.protocol);
        let displaced =
            self.half_open[ring].find_place(now_ms as u32).map_err(|_| Refusal::HalfOpenFull)?;
        let mut evicted = displaced.is_some();
        if let Some(displaced) = displaced {
            self.remove(displaced);
        }
        if self.used == self.entries.len() && !self.evict(now_ms as u32, &[TimeWait, Closed]) {
            let oldest = self.half_open.iter().find_map(|ring| ring.oldest(now_ms as u32));
            match oldest {
                Some(oldest) => self.remove(oldest),
                // Whoever gets answers to datagrams has streams at will: a table full of them keeps
                // nobody out. Those in use were heard of later.
                None if self.evict(now_ms as u32, &[Stream]) => {}
                None => return Err(Refusal::TableFull),
            }
            evicted = true;
        }
        let at = self.free.first().ok_or(Refusal::TableFull)?;
        // Before its keys are in the index: whoever makes room there looks at what it moves.
        self.write(at, entry, cold, state);
        if !self.index(at) {
            self.entries[at as usize].set_state(None);
            return Err(Refusal::TableFull);
        }
        self.free.take(at);
        self.fresh = self.fresh.max(at + 1);
        self.used += 1;
        self.cold[at as usize].half_open = self.half_open[ring].take(at, now_ms as u32);
        self.targets.begin(&reply);
        Ok((at, evicted))
    }
    /// Writes a connection so that whoever reads the memory, this process having died meanwhile,
    /// finds all of it or none.
    fn write(&mut self, at: u32, entry: Entry<A>, cold: Cold<A>, state: ConnectionState) {
        let at = at as usize;
        self.cold[at] = Cold { half_open: 0, ..cold };
        self.entries[at] = entry;
        compiler_fence(SeqCst);
        self.entries[at].set_state(Some(state));
    }
    /// The connection is in another state.
    pub fn set_state(&mut self, at: u32, state: ConnectionState, now_ms: u64) {
        let Some(entry) = self.entries.get_mut(at as usize) else { return };
        let was = entry.state();
        entry.set_state(Some(state));
        let ring = protocol_index(entry.protocol());
        match (was.is_some_and(ConnectionState::is_half_open), state.is_half_open()) {
            (true, false) => self.leave_ring(at, ring),
            (false, true) => self.enter_ring(at, ring, now_ms),
            _ => {}
        }
    }
    fn leave_ring(&mut self, at: u32, ring: usize) {
        let Some(cold) = self.cold.get_mut(at as usize) else { return };
        self.half_open[ring].leave(cold.half_open, at);
        cold.half_open = 0;
    }
    /// A connection that was verified and begins anew: where there is no place among the half-open
    /// ones it goes without, as it was counted once.
    fn enter_ring(&mut self, at: u32, ring: usize, now_ms: u64) {
        let Ok(displaced) = self.half_open[ring].find_place(now_ms as u32) else { return };
        if let Some(displaced) = displaced {
            self.remove(displaced);
        }
        self.cold[at as usize].half_open = self.half_open[ring].take(at, now_ms as u32);
    }
    /// Takes a connection out.
    pub fn remove(&mut self, at: u32) {
        let Some(entry) = self.entries.get_mut(at as usize).filter(|entry| entry.is_used()) else {
            return;
        };
        entry.set_state(None);
        compiler_fence(SeqCst);
        let entry = *entry;
        for direction in [Direction::ToBackend, Direction::ToClient] {
            self.unindex(entry.tuple(direction), Place::new(at, direction));
        }
        let reply = entry.reply_key();
        self.leave_ring(at, protocol_index(reply.protocol));
        self.targets.end(&reply);
        self.used -= 1;
        self.free.put(at);
    }
    /// The place that a sweep looks at, and on to the next one; `None` where it was never used.
    pub fn sweep_next(&mut self) -> Option<u32> {
        let at = self.sweep_next;
        self.sweep_next = if at + 1 < self.entries.len() { at + 1 } else { 0 };
        (at < self.fresh as usize).then_some(at as u32)
    }
    /// True where the connection has been silent for longer than its state allows, and, where that
    /// state may be a forger's work, for as long as it takes to ask.
    #[inline]
    pub fn is_over(&self, at: u32, now_ms: u64, timeouts: &TimeoutTable) -> bool {
        self.entries.get(at as usize).is_some_and(|entry| is_over(entry, now_ms, timeouts))
    }
    /// The connections from `at` on, up to `entries` places, and where to go on (0: at the end).
    pub fn page(
        &self,
        at: u32,
        entries: usize,
    ) -> (impl Iterator<Item = (&Entry<A>, &Cold<A>)>, u32) {
        let end = (at as usize + entries).min(self.fresh as usize);
        let start = (at as usize).min(end);
        let next = if end == self.fresh as usize { 0 } else { end as u32 };
        let both = self.entries[start..end].iter().zip(&self.cold[start..end]);
        (both.filter(|(entry, _)| entry.is_used()), next)
    }

    fn index(&mut self, at: u32) -> bool {
        let entry = self.entries[at as usize];
        let (client, reply) =
            (Place::new(at, Direction::ToBackend), Place::new(at, Direction::ToClient));
        if !self.index_tuple(entry.tuple(Direction::ToBackend), client) {
            return false;
        }
        if !self.index_tuple(entry.tuple(Direction::ToClient), reply) {
            self.unindex(entry.tuple(Direction::ToBackend), client);
            return false;
        }
        true
    }

    fn index_tuple(&mut self, tuple: &A::Tuple, place: Place) -> bool {
        let hash = self.hash(tuple);
        let (first, second) = index::pair(hash, self.buckets.len());
        let tag = index::tag(hash);
        self.buckets[first].insert(tag, place)
            || self.buckets[second].insert(tag, place)
            || (self.make_room(first, 2) || self.make_room(second, 2))
                && (self.buckets[first].insert(tag, place)
                    || self.buckets[second].insert(tag, place))
    }

    /// Moves one place of a full bucket to its other bucket (cuckoo hashing, `depth` steps deep).
    #[cold]
    fn make_room(&mut self, bucket: usize, depth: u32) -> bool {
        for at in 0..BUCKET_PLACES {
            let Some((tag, place)) = self.buckets[bucket].place(at) else { return true };
            let Some(entry) = self.entries.get(place.entry() as usize) else { continue };
            let hash = self.hash(entry.tuple(place.direction()));
            let (first, second) = index::pair(hash, self.buckets.len());
            let other = if first == bucket { second } else { first };
            if other == bucket {
                continue;
            }
            let moved = self.buckets[other].insert(tag, place)
                || depth > 1
                    && self.make_room(other, depth - 1)
                    && self.buckets[other].insert(tag, place);
            if moved {
                // Deeper moves may have changed this bucket too: the place is looked for.
                self.buckets[bucket].remove(tag, place);
                return true;
            }
        }
        false
    }

    fn unindex(&mut self, tuple: &A::Tuple, place: Place) {
        let hash = self.hash(tuple);
        let (first, second) = index::pair(hash, self.buckets.len());
        let tag = index::tag(hash);
        let found =
            self.buckets[first].remove(tag, place) || self.buckets[second].remove(tag, place);
        debug_assert!(found, "a used entry is in the index under both its keys");
    }

    /// Takes out the longest silent of some connections in these states, from all over the table.
    /// False where there is none among those that are looked at.
    fn evict(&mut self, now_ms: u32, states: &[ConnectionState]) -> bool {
        let len = self.fresh as usize;
        let step = (len / EVICTION_TRIES).max(1);
        let places = (0..len.min(EVICTION_TRIES)).map(|i| (self.evict_next + i * step) % len);
        let in_state = places
            .filter(|at| self.entries[*at].state().is_some_and(|state| states.contains(&state)));
        let silent = |at: &usize| now_ms.wrapping_sub(self.entries[*at].last_seen_ms);
        let Some(at) = in_state.max_by_key(silent) else { return false };
        self.evict_next = (at + 1) % len;
        self.remove(at as u32);
        true
    }
}

/// See [`Shard::is_over`].
#[inline]
pub fn is_over<A: Address>(entry: &Entry<A>, now_ms: u64, timeouts: &TimeoutTable) -> bool {
    let longest = timeouts[entry.state_number()];
    let idle = entry.idle_ms(now_ms);
    entry.is_used()
        && idle >= longest
        && (idle >= longest.saturating_add(DOUBT_MS)
            || !entry.state().is_some_and(super::life::ends_in_doubt))
}

#[cfg(test)]
#[path = "shard_tests.rs"]
mod tests;
