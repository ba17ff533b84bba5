//! The index: buckets of eight tagged places, one cache line each. A key lies in one of two
//! buckets, so that a look-up reads two lines and no chain.

use crate::arch::{self, memory::Plain};

/// Places of a bucket.
pub const BUCKET_PLACES: usize = 8;

/// Index places for each key, in hundredths: buckets are three quarters full when the table is.
const INDEX_PLACES_PERCENT: usize = 133;
/// A small table would not spread its keys well enough.
const BUCKETS_MIN: usize = 32;

/// Set in a place that was found by the reply key.
const REPLY_BIT: u32 = 1 << 31;

/// Which of an entry's two keys was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client towards the backend.
    ToBackend,
    /// From the backend towards the client.
    ToClient,
}

/// A reference to an entry by one of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

impl Place {
    pub const fn new(entry: u32, direction: Direction) -> Self {
        match direction {
            Direction::ToBackend => Self(entry),
            Direction::ToClient => Self(entry | REPLY_BIT),
        }
    }
    #[inline(always)]
    pub const fn entry(self) -> u32 {
        self.0 & !REPLY_BIT
    }
    #[inline(always)]
    pub const fn direction(self) -> Direction {
        if self.0 & REPLY_BIT == 0 { Direction::ToBackend } else { Direction::ToClient }
    }
}

/// Tag 0 marks a free place.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Bucket {
    tags: [u16; BUCKET_PLACES],
    places: [u32; BUCKET_PLACES],
}

const _: () = assert!(size_of::<Bucket>() == 64);

// SAFETY: integers alone, for which every bit pattern is valid.
unsafe impl Plain for Bucket {}

/// Buckets of the index of a table for `capacity` connections.
pub fn buckets_for(capacity: usize) -> usize {
    let places = 2 * capacity * INDEX_PLACES_PERCENT / 100;
    places.div_ceil(BUCKET_PLACES).max(BUCKETS_MIN)
}

/// The tag of a hash; never 0.
#[inline(always)]
pub const fn tag(hash: u64) -> u16 {
    let tag = (hash >> 48) as u16;
    if tag == 0 { 1 } else { tag }
}

/// The two buckets of a hash, among `buckets`.
#[inline(always)]
pub const fn pair(hash: u64, buckets: usize) -> (usize, usize) {
    let first = ((hash as u32) as u64 * buckets as u64) >> 32;
    let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let second = (mixed * buckets as u64) >> 32;
    (first as usize, second as usize)
}

impl Bucket {
    /// One without a place.
    pub const EMPTY: Self = Self { tags: [0; BUCKET_PLACES], places: [0; BUCKET_PLACES] };
    /// The first place with this tag, here or in the `other` bucket of the hash. Which of the two it
    /// is depends on nothing that could be foreseen, so that no branch is made of it.
    #[inline(always)]
    pub fn first(&self, other: &Self, tag: u16) -> Option<Place> {
        let at = arch::matches_in_both((&self.tags, &other.tags), tag).trailing_zeros() as usize;
        let bucket = if at < BUCKET_PLACES { self } else { other };
        (at < 2 * BUCKET_PLACES).then(|| Place(bucket.places[at % BUCKET_PLACES]))
    }
    /// The places with this tag, in order.
    #[inline(always)]
    pub fn find(&self, tag: u16) -> impl Iterator<Item = Place> + '_ {
        let mut mask = arch::matches(&self.tags, tag);
        std::iter::from_fn(move || {
            if mask == 0 {
                return None;
            }
            let at = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            Some(Place(self.places[at % BUCKET_PLACES]))
        })
    }
    /// Puts a place in; false where the bucket is full.
    pub fn insert(&mut self, tag: u16, place: Place) -> bool {
        let free = arch::matches(&self.tags, 0);
        if free == 0 {
            return false;
        }
        let at = free.trailing_zeros() as usize;
        self.tags[at] = tag;
        self.places[at] = place.0;
        true
    }
    /// What lies at `at`, where it isn't free.
    pub fn place(&self, at: usize) -> Option<(u16, Place)> {
        (self.tags[at] != 0).then(|| (self.tags[at], Place(self.places[at])))
    }
    /// Takes a place out; false where it wasn't there.
    pub fn remove(&mut self, tag: u16, place: Place) -> bool {
        for at in 0..BUCKET_PLACES {
            if self.tags[at] == tag && self.places[at] == place.0 {
                self.tags[at] = 0;
                return true;
            }
        }
        false
    }
}
