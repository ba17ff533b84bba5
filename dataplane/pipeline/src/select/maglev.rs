//! Maglev's table: each backend fills its share of the slots in an order of its own, so that a
//! change of the backends moves few slots (Eisenbud et al., NSDI 2016, section 3.4; but for the last
//! hundredth of the slots, which are given out as they come).

use crate::hash::keyed;
use model::ids::BackendId;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Table sizes: the largest primes below powers of two.
const LADDER: [u32; 16] = [
    127, 251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071, 262_139, 524_287,
    1_048_573, 2_097_143, 4_194_301,
];
/// Slots for each unit of weight: an unevenness of at most 1 in 100.
const SLOTS_PER_WEIGHT: u64 = 100;
const SEED_OFFSET: u64 = 0x6865_6164_6761_7465;
const SEED_SKIP: u64 = 0x6d61_676c_6576_2121;

/// Weights in sum that the largest table gives [`SLOTS_PER_WEIGHT`] slots each.
const WEIGHT_MAX: u64 = LADDER[LADDER.len() - 1] as u64 / SLOTS_PER_WEIGHT;

/// The size of the table: a pure function of the weights, so that gateways agree. Their sum is at
/// most [`WEIGHT_MAX`].
fn table_len(weight: u64) -> u32 {
    let wanted = weight * SLOTS_PER_WEIGHT;
    LADDER.into_iter().find(|len| u64::from(*len) >= wanted).unwrap_or(LADDER[LADDER.len() - 1])
}

/// The weights as the table knows them: those that ask for more than the largest table has are
/// taken in proportion, at least one each.
fn weights(backends: &[(Target, u16)]) -> Vec<u16> {
    let given = || backends.iter().map(|(_, weight)| (*weight).max(1));
    let sum: u64 = given().map(u64::from).sum();
    if sum <= WEIGHT_MAX {
        return given().collect();
    }
    let room = WEIGHT_MAX.saturating_sub(backends.len() as u64);
    given().map(|weight| (u64::from(weight) * room / sum).max(1) as u16).collect()
}

/// What a first packet needs of a backend, in one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub struct Target {
    /// The backend, whose slot names its counters.
    pub id: BackendId,
    /// Where to send.
    pub address: SocketAddr,
    /// A next hop, where it is on a link of ours.
    pub via: Option<IpAddr>,
}

const _: () = assert!(size_of::<Target>() == 64);

/// The table of one service port and family: a slot holds a place among the targets. Three lines
/// are read of it, none of which leads to another but by number: this, the slot's, the target's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maglev {
    slots: Arc<[u16]>,
    targets: Arc<[Target]>,
}

impl Maglev {
    /// Builds the table of backends with their weights. They are in order of address; the slots
    /// depend on addresses, ports and weights alone, never on ids, nor on any gateway's key. Empty
    /// where there is no backend.
    pub fn new(backends: &[(Target, u16)]) -> Self {
        if backends.is_empty() {
            return Self::default();
        }
        let weights = weights(backends);
        let len = table_len(weights.iter().copied().map(u64::from).sum());
        Self {
            slots: fill(backends, &weights, len as usize),
            targets: backends.iter().map(|(target, _)| *target).collect(),
        }
    }
    /// The same slots, of the same backends, which may have other next hops now.
    pub fn with_targets(&self, targets: impl Iterator<Item = Target>) -> Self {
        Self { slots: Arc::clone(&self.slots), targets: targets.collect() }
    }
    /// True where there is no backend.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }
    /// The slot of a hash.
    #[inline]
    fn slot(&self, hash: u64) -> Option<&u16> {
        // The upper bits of hash * len: no division, and even for every length.
        let slot = (u128::from(hash) * self.slots.len() as u128) >> 64;
        self.slots.get(slot as usize)
    }
    /// The backend for a hash, with what a first packet needs of it, or `None` where there is none.
    #[inline]
    pub fn target(&self, hash: u64) -> Option<&Target> {
        self.targets.get(usize::from(*self.slot(hash)?))
    }
    /// The backend for a hash.
    #[inline]
    pub fn select(&self, hash: u64) -> Option<BackendId> {
        self.target(hash).map(|target| target.id)
    }
    /// Asks for the line of a hash's slot before it is needed.
    #[inline]
    pub fn prefetch_slot(&self, hash: u64) {
        if let Some(slot) = self.slot(hash) {
            crate::arch::prefetch(slot);
        }
    }
    /// Asks for the line of a hash's backend, by way of its slot.
    #[inline]
    pub fn prefetch_target(&self, hash: u64) {
        if let Some(target) = self.target(hash) {
            crate::arch::prefetch(target);
        }
    }
    /// The backends.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }
    /// The slots, for tests of evenness.
    pub fn slots(&self) -> &[u16] {
        &self.slots
    }
}

fn fill(backends: &[(Target, u16)], weights: &[u16], len: usize) -> Arc<[u16]> {
    let mut slots = vec![0; len];
    // Towards the end a walk meets many taken slots before a free one. A bit each stays in the
    // first levels of the cache where the slots of a large table don't.
    let mut taken = vec![0u64; len.div_ceil(64)];
    // Each backend's walk over the slots: where it stands, and how far it steps.
    let mut walks: Vec<(usize, usize)> = backends
        .iter()
        .map(|(Target { address, .. }, _)| {
            let (a, b) = words(address.ip());
            let port = u64::from(address.port());
            let offset = keyed(SEED_OFFSET, a, b, port) % len as u64;
            let skip = keyed(SEED_SKIP, a, b, port) % (len as u64 - 1) + 1;
            (offset as usize, skip as usize)
        })
        .collect();
    // Whole rounds, in which each takes as many slots as its weight says.
    let round: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
    for _ in 0..len / round {
        for (place, (walk, weight)) in walks.iter_mut().zip(weights).enumerate() {
            for _ in 0..*weight {
                while taken[walk.0 / 64] >> (walk.0 % 64) & 1 == 1 {
                    walk.0 += walk.1;
                    if walk.0 >= len {
                        walk.0 -= len;
                    }
                }
                taken[walk.0 / 64] |= 1 << (walk.0 % 64);
                slots[walk.0] = place as u16;
            }
        }
    }
    // What is left is less than a hundredth of the table, and would take most of all steps, since
    // walks meet hardly anything free. It goes to the first ones as it comes.
    let places = weights.iter().enumerate();
    let mut places =
        places.flat_map(|(place, weight)| std::iter::repeat_n(place as u16, (*weight).into()));
    for (at, slot) in slots.iter_mut().enumerate() {
        if taken[at / 64] >> (at % 64) & 1 == 0 {
            *slot = places.next().unwrap_or_default();
        }
    }
    slots.into()
}

fn words(ip: IpAddr) -> (u64, u64) {
    match ip {
        IpAddr::V4(ip) => (u64::from(ip.to_bits()), 4),
        IpAddr::V6(ip) => ((ip.to_bits() >> 64) as u64, ip.to_bits() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn backends(count: u32, weight: impl Fn(u32) -> u16) -> Vec<(Target, u16)> {
        (0..count)
            .map(|n| {
                let ip = IpAddr::from((0xc612_0000 + n).to_be_bytes());
                let id = BackendId { slot: 7 * n, generation: 1 };
                (Target { id, address: SocketAddr::new(ip, 80), via: None }, weight(n))
            })
            .collect()
    }

    proptest! {
        #[test]
        fn slots_are_even_by_weight(count in 1u32..60, seed in any::<u32>()) {
            let list = backends(count, |n| 1 + (n.wrapping_mul(seed) % 5) as u16);
            let maglev = Maglev::new(&list);
            let total: u64 = list.iter().map(|b| u64::from(b.1)).sum();
            for (place, backend) in list.iter().enumerate() {
                let have = maglev.slots().iter().filter(|s| usize::from(**s) == place).count();
                let share = maglev.slots().len() as f64 * f64::from(backend.1) / total as f64;
                prop_assert!((have as f64) <= share * 1.01 + 1.0, "{have} of {share}");
                prop_assert!((have as f64) >= share * 0.99 - f64::from(backend.1), "{have} of {share}");
            }
        }

        #[test]
        fn ids_do_not_matter(count in 1u32..40, shift in 1u32..1000) {
            let list = backends(count, |_| 1);
            let mut others = list.clone();
            for other in &mut others {
                other.0.id.slot += shift;
            }
            let a = Maglev::new(&list);
            let b = Maglev::new(&others);
            prop_assert_eq!(a.slots(), b.slots());
        }
    }

    /// As nodes have them, which hold from one to a thousand endpoints.
    #[test]
    fn unlike_weights_are_honoured_within_a_hundredth() {
        const WEIGHTS: [u16; 6] = [1, 1000, 37, 250, 999, 3];
        let list = backends(6, |n| WEIGHTS[n as usize]);
        let maglev = Maglev::new(&list);
        let total: f64 = WEIGHTS.iter().map(|weight| f64::from(*weight)).sum();
        for (place, weight) in WEIGHTS.iter().enumerate() {
            let have = maglev.slots().iter().filter(|s| usize::from(**s) == place).count() as f64;
            let share = maglev.slots().len() as f64 * f64::from(*weight) / total;
            assert!((0.99..=1.01).contains(&(have / share)), "weight {weight}: {have} of {share}");
        }
    }

    /// A hundred nodes with up to a thousand endpoints each: more than a table has room for.
    #[test]
    fn weights_beyond_the_largest_table_are_taken_in_proportion() {
        let weight = |n: u32| if n < 50 { 1_000 } else { 500 };
        let list = backends(100, weight);
        let maglev = Maglev::new(&list);
        let slots = maglev.slots().len() as f64;
        let mut have = vec![0u32; 100];
        maglev.slots().iter().for_each(|place| have[usize::from(*place)] += 1);
        for (n, have) in have.into_iter().enumerate() {
            let share = slots * f64::from(weight(n as u32)) / 75_000.0;
            assert!((0.99..=1.01).contains(&(f64::from(have) / share)), "{n}: {have} of {share}");
        }
    }

    #[test]
    fn removing_one_of_ten_moves_few_other_slots() {
        let all = backends(10, |_| 1);
        let fewer: Vec<_> = all[..9].to_vec();
        let (before, after) = (Maglev::new(&all), Maglev::new(&fewer));
        let mut moved = 0;
        let n = 10_000u64;
        for i in 0..n {
            let hash = keyed(1, i, 2, 3);
            let was = before.select(hash);
            if was != Some(all[9].0.id) && was != after.select(hash) {
                moved += 1;
            }
        }
        assert!(moved < n / 20, "{moved} of {n}");
        assert_eq!(Maglev::new(&[]).select(42), None);
    }
}
