//! Where adjacencies lie, so that a connection finds its own by a number over all publications.
//!
//! A place keeps its number for as long as its next hop is known, whatever its content becomes.
//! Copies share what they don't change: a publication costs the chunks of what is new in it.

use super::{Adjacency, AdjacencyRef};
use crate::snapshot::Chunks;
use hashbrown::{DefaultHashBuilder, HashTable};
use model::ids::{AdjacencyId, InterfaceId};
use model::limits::{ADJACENCIES_MAX, ADJACENCIES_RESTING, ADJACENCY_PLACES};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

/// A next hop: its interface and address.
pub type NextHop = (InterfaceId, IpAddr);

/// Parts of the index: a change copies one, and a pointer for each other.
const SHARDS: usize = 256;

type Shard = HashTable<(NextHop, AdjacencyId)>;

/// One cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Place {
    adjacency: Adjacency,
    /// That of the holder, or, while the place rests, of the next one. Never 0.
    generation: u16,
    /// While it rests: the place that is the next to be given out.
    next: AdjacencyId,
}

impl Default for Place {
    fn default() -> Self {
        Self { adjacency: Adjacency::default(), generation: 1, next: AdjacencyRef::NONE.id }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Places {
    places: Chunks<Place>,
    shards: Vec<Arc<Shard>>,
    hasher: DefaultHashBuilder,
    held: usize,
    /// Places that were given out at least once.
    used: usize,
    resting: usize,
    /// Of those that rest, the one that was freed first, and the one that was freed last.
    oldest: AdjacencyId,
    newest: AdjacencyId,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            places: Chunks::default(),
            shards: (0..SHARDS).map(|_| Arc::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            held: 0,
            used: 0,
            resting: 0,
            oldest: AdjacencyRef::NONE.id,
            newest: AdjacencyRef::NONE.id,
        }
    }
}

impl Places {
    #[inline]
    pub fn get(&self, of: AdjacencyRef) -> Option<&Adjacency> {
        let place = self.places.get(of.id.index())?;
        (place.generation == of.generation).then_some(&place.adjacency)
    }
    /// Asks for the place of one, whoever holds it.
    #[inline(always)]
    pub fn prefetch(&self, of: AdjacencyRef) {
        if let Some(place) = self.places.get(of.id.index()) {
            crate::arch::prefetch(place);
        }
    }
    pub fn find(&self, hop: &NextHop) -> Option<AdjacencyRef> {
        let id = self.id_of(hop)?;
        let generation = self.places.get(id.index())?.generation;
        Some(AdjacencyRef { id, generation })
    }
    pub const fn len(&self) -> usize {
        self.held
    }
    /// All next hops, in no order.
    pub fn hops(&self) -> impl Iterator<Item = NextHop> + '_ {
        self.shards.iter().flat_map(|shard| shard.iter().map(|(hop, _)| *hop))
    }
    /// Puts a next hop's adjacency into the place that it has, or into one of its own. False where
    /// there is none left.
    pub fn put(&mut self, hop: NextHop, adjacency: Adjacency) -> bool {
        if let Some(id) = self.id_of(&hop) {
            // Connections follow without a look.
            if self.places.get(id.index()).is_some_and(|place| place.adjacency != adjacency) {
                self.places.get_mut(id.index()).adjacency = adjacency;
            }
            return true;
        }
        let Some(id) = self.take_place() else { return false };
        self.places.get_mut(id.index()).adjacency = adjacency;
        let (hash, shard) = self.shard_of(&hop);
        let hasher = &self.hasher;
        let shard = Arc::make_mut(&mut self.shards[shard]);
        shard.insert_unique(hash, (hop, id), |(hop, _)| hasher.hash_one(hop));
        self.held += 1;
        true
    }
    /// Frees the place of a next hop. Whoever remembers it finds nothing there from now on.
    pub fn remove(&mut self, hop: &NextHop) {
        let Some(id) = self.id_of(hop) else { return };
        let (hash, shard) = self.shard_of(hop);
        let shard = Arc::make_mut(&mut self.shards[shard]);
        if let Ok(entry) = shard.find_entry(hash, |(known, _)| known == hop) {
            entry.remove();
        }
        self.held -= 1;
        let place = self.places.get_mut(id.index());
        place.adjacency = Adjacency::default();
        place.generation = place.generation.wrapping_add(1).max(1);
        if self.resting == 0 {
            self.oldest = id;
        } else {
            self.places.get_mut(self.newest.index()).next = id;
        }
        self.newest = id;
        self.resting += 1;
    }
    fn take_place(&mut self) -> Option<AdjacencyId> {
        if self.held >= ADJACENCIES_MAX {
            return None;
        }
        let fresh = self.used < ADJACENCY_PLACES;
        if self.resting > ADJACENCIES_RESTING || !fresh {
            let id = self.oldest;
            self.oldest = self.places.get(id.index())?.next;
            self.resting -= 1;
            return Some(id);
        }
        self.used += 1;
        Some(AdjacencyId(self.used as u16 - 1))
    }
    fn id_of(&self, hop: &NextHop) -> Option<AdjacencyId> {
        let (hash, shard) = self.shard_of(hop);
        self.shards[shard].find(hash, |(known, _)| known == hop).map(|(_, id)| *id)
    }
    /// The upper half of the hash says which shard; the table in it needs the lower one and the
    /// topmost bits.
    fn shard_of(&self, hop: &NextHop) -> (u64, usize) {
        let hash = self.hasher.hash_one(hop);
        (hash, (hash >> 32) as usize % SHARDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adjacency::{Interface, Mac, Role};
    use model::ids::PortId;
    use std::net::Ipv4Addr;

    fn hop(n: u32) -> NextHop {
        (InterfaceId(0), IpAddr::V4(Ipv4Addr::from_bits(n)))
    }

    fn adjacency(n: u32) -> Adjacency {
        let interface = Interface {
            name: "back".into(),
            port: PortId(1),
            vlan: None,
            mac: Mac::default(),
            mtu: 1500,
            role: Role::Back,
        };
        let [a, b, c, d] = n.to_be_bytes();
        Adjacency::new(InterfaceId(0), &interface, Mac([2, 0, a, b, c, d]))
    }

    #[test]
    fn a_place_is_a_cache_line() {
        assert_eq!(size_of::<Place>(), 64);
    }

    #[test]
    fn a_place_that_was_freed_rests_and_is_never_anothers_by_the_old_name() {
        let mut places = Places::default();
        let mut old = Vec::new();
        // Each comes alone, so that places are taken again as soon as they may be.
        for n in 0..5 * ADJACENCIES_RESTING as u32 {
            assert!(places.put(hop(n), adjacency(n)));
            let of = places.find(&hop(n)).unwrap();
            assert_eq!(places.get(of), Some(&adjacency(n)));
            old.push(of);
            places.remove(&hop(n));
            assert_eq!((places.get(of), places.find(&hop(n))), (None, None));
        }
        assert_eq!(places.used, ADJACENCIES_RESTING + 1);
        assert!(old.iter().all(|of| places.get(*of).is_none()));
        let (first, second) = (old[0], old[ADJACENCIES_RESTING + 1]);
        assert_eq!((first.id, first.generation), (AdjacencyId(0), 1));
        assert_eq!((second.id, second.generation), (AdjacencyId(0), 2), "the longest free first");
    }

    #[test]
    fn generations_wrap_round_past_the_one_that_nobody_has() {
        let mut places = Places::default();
        places.put(hop(1), adjacency(1));
        places.places.get_mut(0).generation = u16::MAX;
        let last = places.find(&hop(1)).unwrap();
        places.remove(&hop(1));
        assert_eq!(places.get(last), None);
        assert_eq!(places.places.get(0).unwrap().generation, 1);
        assert_eq!(places.get(AdjacencyRef::NONE), None);
        assert_eq!(places.get(AdjacencyRef { id: AdjacencyId(0), generation: 0 }), None);
    }

    #[test]
    fn all_places_are_given_out_and_no_more() {
        let mut places = Places::default();
        for n in 0..ADJACENCIES_MAX as u32 {
            assert!(places.put(hop(n), adjacency(n)), "{n}");
        }
        assert!(!places.put(hop(u32::MAX), adjacency(0)));
        assert!(places.put(hop(7), adjacency(8)), "one that has its place may change");
        for n in 0..2 * ADJACENCY_PLACES as u32 {
            places.remove(&hop(n % ADJACENCIES_MAX as u32));
            assert!(places.put(hop(n % ADJACENCIES_MAX as u32), adjacency(n)), "{n}");
        }
        assert_eq!((places.len(), places.used), (ADJACENCIES_MAX, ADJACENCY_PLACES));
        let last = hop(ADJACENCIES_MAX as u32 - 1);
        assert!(places.get(places.find(&last).unwrap()).is_some());
    }

    #[test]
    fn a_copy_keeps_what_it_had_and_shares_the_rest() {
        let mut one = Places::default();
        for n in 0..1_000 {
            one.put(hop(n), adjacency(n));
        }
        let two = one.clone();
        one.put(hop(5), adjacency(9));
        one.remove(&hop(6));
        let was = two.find(&hop(5)).unwrap();
        assert_eq!((two.get(was), one.get(was)), (Some(&adjacency(5)), Some(&adjacency(9))));
        assert!(two.find(&hop(6)).is_some() && one.find(&hop(6)).is_none());
        let shared = one.shards.iter().zip(&two.shards).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert_eq!(shared, SHARDS - 1);
    }
}
