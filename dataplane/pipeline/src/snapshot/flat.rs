//! From (address, protocol, port) to a number: one flat table for a family, whose copies share what
//! they don't change.
//!
//! A bucket has seven places. Its first line holds their tags, numbers and ports, and says whether
//! keys of the bucket lie elsewhere: a look-up that finds nothing reads that line alone, one that
//! finds something the line of the addresses too. The hash is keyed at random, so that nobody can
//! choose keys that share a bucket; what a full one has no place for lies in a map beside it.
//!
//! Each bucket has a mark besides, a word of 64 bits in which each of its keys sets one: 512 buckets
//! to a page, and one line for the question whether a key may be there at all.

use crate::arch;
use crate::connections::Address;
use crate::hash::keyed;
use hashbrown::HashMap;
use model::ids::Protocol;
use std::hash::Hash;
use std::sync::Arc;

/// Places of a bucket; the eighth tag counts the keys that lie in the map.
const PLACES: usize = 7;
/// Buckets of a chunk. One change copies a chunk, 8 KiB (IPv6: 12), and a pointer for each other one.
const CHUNK: usize = 64;
/// Keys for each bucket at most, on average. Of a hundred buckets with four of seven places taken
/// on average, five are too full (Poisson), by one key or two.
const LOAD: usize = 4;

/// A number with its protocol, as a place holds it: 24 bits of number and flag, 8 of protocol.
const NUMBER_BITS: u32 = 24;
const NUMBER_MASK: u32 = (1 << NUMBER_BITS) - 1;

/// What is looked for. `protocol` is a number of the IP header; 0 with port 0: the address itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Name<A> {
    pub address: A,
    pub protocol: u8,
    pub port: u16,
}

impl<A> Name<A> {
    /// The name of a frontend.
    pub const fn of(address: A, protocol: Protocol, port: u16) -> Self {
        Self { address, protocol: protocol.number(), port }
    }
    /// The name of an address.
    pub const fn address(address: A) -> Self {
        Self { address, protocol: 0, port: 0 }
    }
}

#[derive(Clone, Debug)]
#[repr(C, align(64))]
struct Bucket<A> {
    tags: [u16; PLACES + 1],
    numbers: [u32; PLACES],
    ports: [u16; PLACES],
    addresses: [A; PLACES],
}

const _: () = assert!(std::mem::offset_of!(Bucket<u32>, addresses) < 64);
const _: () = assert!(std::mem::offset_of!(Bucket<u128>, addresses) == 64);
const _: () = assert!(size_of::<Bucket<u32>>() == 128 && size_of::<Bucket<u128>>() == 192);

#[derive(Clone, Debug)]
struct Chunk<A> {
    marks: [u64; CHUNK],
    buckets: [Bucket<A>; CHUNK],
}

/// The table.
#[derive(Clone, Debug)]
pub struct Flat<A> {
    chunks: Vec<Arc<Chunk<A>>>,
    /// What full buckets have no place for.
    beside: Arc<HashMap<Name<A>, u32>>,
    len: usize,
    secret: u64,
}

/// Where a name belongs: its bucket, its tag and its bit of the bucket's mark.
#[derive(Clone, Copy)]
struct Spot {
    bucket: usize,
    tag: u16,
    mark: u64,
}

impl<A: Address + Hash> Flat<A> {
    pub fn new(secret: u64) -> Self {
        Self { chunks: Vec::new(), beside: Arc::default(), len: 0, secret }
    }
    #[inline(always)]
    fn spot(&self, name: &Name<A>) -> Spot {
        let (a, b) = name.address.words();
        let rest = u64::from(name.port) << 8 | u64::from(name.protocol);
        let hash = keyed(self.secret, a, b, rest);
        // The number of buckets is a power of two, or none.
        let bucket = hash as usize & (self.chunks.len() * CHUNK).wrapping_sub(1);
        let tag = (hash >> 48) as u16;
        Spot { bucket, tag: if tag == 0 { 1 } else { tag }, mark: 1 << (hash >> 40 & 63) }
    }
    #[inline(always)]
    fn bucket(&self, spot: Spot) -> Option<&Bucket<A>> {
        let chunk = self.chunks.get(spot.bucket / CHUNK)?;
        Some(&chunk.buckets[spot.bucket % CHUNK])
    }
    /// Asks for the lines of a name before they are needed.
    #[inline]
    pub fn prefetch(&self, name: &Name<A>) {
        if let Some(bucket) = self.bucket(self.spot(name)) {
            arch::prefetch(&bucket.tags);
            arch::prefetch(&bucket.addresses[PLACES / 2]);
        }
    }
    /// False where the name isn't there; true where it most likely is.
    #[inline]
    pub fn may_have(&self, name: &Name<A>) -> bool {
        let spot = self.spot(name);
        let chunk = self.chunks.get(spot.bucket / CHUNK);
        chunk.is_some_and(|chunk| chunk.marks[spot.bucket % CHUNK] & spot.mark != 0)
    }
    /// The number of a name.
    #[inline]
    pub fn get(&self, name: &Name<A>) -> Option<u32> {
        let spot = self.spot(name);
        let bucket = self.bucket(spot)?;
        match bucket.find(spot.tag, name) {
            Some(at) => Some(bucket.numbers[at] & NUMBER_MASK),
            None if bucket.tags[PLACES] == 0 => None,
            None => self.beside.get(name).copied(),
        }
    }
    /// Gives a name this number of at most 24 bits.
    pub fn set(&mut self, name: Name<A>, number: u32) {
        if self.get(&name).is_none() {
            self.len += 1;
            if self.len > LOAD * self.chunks.len() * CHUNK {
                self.grow();
            }
        }
        self.put(name, number);
    }
    /// Takes a name out.
    pub fn remove(&mut self, name: &Name<A>) {
        if self.get(name).is_none() {
            return;
        }
        self.len -= 1;
        let spot = self.spot(name);
        let Some(chunk) = self.chunks.get_mut(spot.bucket / CHUNK) else { return };
        let chunk = Arc::make_mut(chunk);
        let bucket = &mut chunk.buckets[spot.bucket % CHUNK];
        if let Some(at) = bucket.find(spot.tag, name) {
            bucket.tags[at] = 0;
        } else {
            Arc::make_mut(&mut self.beside).remove(name);
            bucket.tags[PLACES] -= 1;
        }
        // Of what lies beside, the mark isn't known here: its bits stay as they are.
        if bucket.tags[PLACES] == 0 {
            let names: Vec<Name<A>> = bucket.names().map(|(name, _)| name).collect();
            let marks = names.iter().fold(0, |marks, name| marks | self.spot(name).mark);
            if let Some(chunk) = self.chunks.get_mut(spot.bucket / CHUNK) {
                Arc::make_mut(chunk).marks[spot.bucket % CHUNK] = marks;
            }
        }
    }
    /// All names with their numbers, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Name<A>, u32)> + '_ {
        let buckets = self.chunks.iter().flat_map(|chunk| &chunk.buckets);
        let beside = self.beside.iter().map(|(name, number)| (*name, *number));
        buckets.flat_map(Bucket::names).chain(beside)
    }

    fn put(&mut self, name: Name<A>, number: u32) {
        let spot = self.spot(&name);
        let Some(chunk) = self.chunks.get_mut(spot.bucket / CHUNK) else { return };
        let chunk = Arc::make_mut(chunk);
        chunk.marks[spot.bucket % CHUNK] |= spot.mark;
        let bucket = &mut chunk.buckets[spot.bucket % CHUNK];
        let held = bucket.find(spot.tag, &name);
        // A name that lies beside stays there, though a place may have become free.
        let is_beside = held.is_none() && self.beside.contains_key(&name);
        let free = || bucket.tags[..PLACES].iter().position(|tag| *tag == 0);
        let place = if is_beside { None } else { held.or_else(free) };
        if let Some(at) = place {
            bucket.tags[at] = spot.tag;
            bucket.numbers[at] = u32::from(name.protocol) << NUMBER_BITS | number & NUMBER_MASK;
            bucket.ports[at] = name.port;
            bucket.addresses[at] = name.address;
            return;
        }
        let new = Arc::make_mut(&mut self.beside).insert(name, number & NUMBER_MASK).is_none();
        bucket.tags[PLACES] += u16::from(new);
    }

    /// Twice as many buckets. Whoever added the names that make it necessary paid for as many
    /// changes.
    fn grow(&mut self) {
        let empty = Bucket {
            tags: [0; PLACES + 1],
            numbers: [0; PLACES],
            ports: [0; PLACES],
            addresses: [A::default(); PLACES],
        };
        let chunk = Chunk { marks: [0; CHUNK], buckets: std::array::from_fn(|_| empty.clone()) };
        let chunks = (2 * self.chunks.len()).max(1);
        let larger = Self {
            chunks: (0..chunks).map(|_| Arc::new(chunk.clone())).collect(),
            beside: Arc::default(),
            len: self.len,
            secret: self.secret,
        };
        let smaller = std::mem::replace(self, larger);
        for (name, number) in smaller.iter() {
            self.put(name, number);
        }
    }
}

impl<A: Address> Bucket<A> {
    /// The place of a name.
    #[inline(always)]
    fn find(&self, tag: u16, name: &Name<A>) -> Option<usize> {
        let mut mask = arch::matches(&self.tags, tag) & ((1 << PLACES) - 1);
        while mask != 0 {
            let at = mask.trailing_zeros() as usize % PLACES;
            mask &= mask - 1;
            let same = self.ports[at] == name.port
                && (self.numbers[at] >> NUMBER_BITS) as u8 == name.protocol
                && self.addresses[at] == name.address;
            if same {
                return Some(at);
            }
        }
        None
    }
    fn names(&self) -> impl Iterator<Item = (Name<A>, u32)> + '_ {
        (0..PLACES).filter(|at| self.tags[*at] != 0).map(|at| {
            let protocol = (self.numbers[at] >> NUMBER_BITS) as u8;
            let name = Name { address: self.addresses[at], protocol, port: self.ports[at] };
            (name, self.numbers[at] & NUMBER_MASK)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(n: u32) -> Name<u32> {
        Name { address: n / 50, protocol: if n.is_multiple_of(2) { 6 } else { 17 }, port: n as u16 }
    }

    proptest! {
        /// A map, whatever its hash is: with one bucket alone, most lies beside.
        #[test]
        fn behaves_as_a_map(
            steps in proptest::collection::vec((any::<bool>(), 0u32..400, 0..=NUMBER_MASK), 1..900),
            secret: u64,
        ) {
            let mut flat = Flat::<u32>::new(secret);
            let mut model = std::collections::HashMap::new();
            let mut before = Vec::new();
            for (at, (puts, n, number)) in steps.into_iter().enumerate() {
                if at % 100 == 0 {
                    before.push((flat.clone(), model.clone()));
                }
                if puts {
                    flat.set(name(n), number);
                    model.insert(name(n), number);
                } else {
                    flat.remove(&name(n));
                    model.remove(&name(n));
                }
            }
            before.push((flat, model));
            // Those from before are as they were.
            for (flat, model) in before {
                prop_assert_eq!(flat.len, model.len());
                for n in 0..400 {
                    prop_assert_eq!(flat.get(&name(n)), model.get(&name(n)).copied());
                    prop_assert!(flat.may_have(&name(n)) || !model.contains_key(&name(n)));
                }
                let all: std::collections::HashMap<_, _> = flat.iter().collect();
                prop_assert_eq!(all, model);
            }
        }
    }

    /// As many as there may be: few lie beside, and marks tell strangers apart.
    #[test]
    fn holds_all_frontends_there_may_be() {
        let mut flat = Flat::<u128>::new(7);
        let name = |n: u128| Name { address: n << 64 | 1, protocol: 6, port: 80 };
        let all = model::limits::FRONTENDS_MAX as u128;
        (0..all).for_each(|n| flat.set(name(n), n as u32));
        assert!((0..all).all(|n| flat.get(&name(n)) == Some(n as u32)));
        assert!((all..2 * all).all(|n| flat.get(&name(n)).is_none()));
        let taken = (all..2 * all).filter(|n| flat.may_have(&name(*n))).count();
        assert!(taken < model::limits::FRONTENDS_MAX / 12, "{taken} strangers passed for ours");
        assert!(flat.beside.len() < model::limits::FRONTENDS_MAX / 40, "{}", flat.beside.len());
    }

    /// A copy shares all chunks but that of the change.
    #[test]
    fn one_change_copies_one_chunk() {
        let mut flat = Flat::<u32>::new(7);
        (0..100_000).for_each(|n| flat.set(Name { address: n, protocol: 6, port: 80 }, n));
        let before = flat.clone();
        flat.set(Name { address: 5, protocol: 6, port: 80 }, 1);
        flat.remove(&Name { address: 5, protocol: 6, port: 80 });
        let pairs = flat.chunks.iter().zip(&before.chunks);
        assert_eq!(pairs.filter(|(new, old)| !Arc::ptr_eq(new, old)).count(), 1);
    }
}
