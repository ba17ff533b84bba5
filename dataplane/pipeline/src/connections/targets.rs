//! What a worker knows of its NAT ports towards each backend: how many are in use, and where the
//! walk over them stands. Derived from the entries, and never believed where they can be asked.

use super::key::{Address, Key};
use crate::secret::one_way;

/// Places of a set.
const SET: usize = 4;

/// The ports towards one backend's address and port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target<A> {
    address: A,
    /// Ports in use, ended connections included.
    pub used: u32,
    /// Where the walk stands.
    pub cursor: u32,
    /// None was to be had, and none is looked for before this: the worker's milliseconds.
    pub none_before_ms: u32,
    port: u16,
    protocol: u8,
}

/// A bounded table by backend. One whose set is full of others in use isn't counted.
#[derive(Debug)]
pub struct Targets<A> {
    places: Box<[[Target<A>; SET]]>,
    secret: u64,
}

impl<A: Address> Targets<A> {
    /// An empty table for so many backends.
    pub fn new(backends: usize, secret: u64) -> Self {
        let sets = backends.div_ceil(SET).next_power_of_two();
        // Backends see the order of ports, which must tell nothing of the table's own secret.
        let secret = one_way(secret);
        Self { places: vec![[Target::default(); SET]; sets].into_boxed_slice(), secret }
    }
    /// Bytes of the table.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.places)
    }
    /// A number that is the target's own, and a secret: it keys the order of its ports.
    pub fn seed(&self, reply: &Key<A>) -> u64 {
        seed(reply, self.secret)
    }
    const fn set_of(&self, seed: u64) -> usize {
        seed as usize & (self.places.len() - 1)
    }
    fn set(&mut self, seed: u64) -> &mut [Target<A>; SET] {
        let set = self.set_of(seed);
        &mut self.places[set]
    }
    /// Asks for what is known of a backend, by any reply key of its.
    pub fn prefetch(&self, reply: &Key<A>) {
        crate::arch::prefetch_all(&self.places[self.set_of(self.seed(reply))]);
    }
    /// What is known of a backend, by any reply key of its; `seed` is its own, of [`Self::seed`].
    pub fn find(&mut self, reply: &Key<A>, seed: u64) -> Option<&mut Target<A>> {
        self.set(seed).iter_mut().find(|target| target.is_of(reply))
    }
    /// The same, to be looked at.
    pub fn peek(&self, reply: &Key<A>, seed: u64) -> Option<&Target<A>> {
        self.places[self.set_of(seed)].iter().find(|target| target.is_of(reply))
    }
    /// The same; one that isn't known yet takes the place of one whose ports are all free.
    pub fn find_or_add(&mut self, reply: &Key<A>, seed: u64) -> Option<&mut Target<A>> {
        let set = self.set(seed);
        let at = match set.iter().position(|target| target.is_of(reply)) {
            Some(at) => at,
            None => {
                let at = set.iter().position(|target| target.used == 0)?;
                let (address, port) = (reply.source, reply.source_port);
                let cursor = first_cursor(seed);
                let protocol = reply.protocol;
                set[at] = Target { address, port, protocol, cursor, used: 0, none_before_ms: 0 };
                at
            }
        };
        Some(&mut set[at])
    }
    /// A connection with this reply key begins.
    pub fn begin(&mut self, reply: &Key<A>) {
        let seed = self.seed(reply);
        if let Some(target) = self.find_or_add(reply, seed) {
            target.used += 1;
        }
    }
    /// It ends.
    pub fn end(&mut self, reply: &Key<A>) {
        let seed = self.seed(reply);
        if let Some(target) = self.find(reply, seed) {
            target.used = target.used.saturating_sub(1);
            target.none_before_ms = 0;
        }
    }
}

impl<A: Address> Target<A> {
    fn is_of(&self, reply: &Key<A>) -> bool {
        self.protocol == reply.protocol
            && self.port == reply.source_port
            && self.address == reply.source
    }
}

fn seed<A: Address>(reply: &Key<A>, secret: u64) -> u64 {
    let blank = Key { destination: A::default(), destination_port: 0, ..*reply };
    blank.hash(secret)
}

/// The walk begins anywhere: a place that was another's tells nothing.
const fn first_cursor(seed: u64) -> u32 {
    (seed >> 32) as u32
}

/// The order in which the NAT ports towards a backend are taken while all are free: the `step`-th as
/// its block among `blocks`, and its place in the block. `reply` is any reply key of the backend's,
/// `secret` the table's.
pub fn nat_port_order<A: Address>(
    reply: &Key<A>,
    secret: u64,
    (step, blocks): (u32, u32),
) -> (u32, u32) {
    let seed = seed(reply, one_way(secret));
    permute(first_cursor(seed).wrapping_add(step), blocks, seed)
}

/// Place `at` of a keyed permutation of `blocks` x 256 ports: a Feistel network over (block, port in
/// it), so that no table is needed and what was taken long ago comes up last.
pub fn permute(at: u32, blocks: u32, seed: u64) -> (u32, u32) {
    const PORTS: u32 = model::limits::NAT_BLOCK_PORTS as u32;
    let (mut block, mut port) = (at / PORTS % blocks, at % PORTS);
    for round in 0..3u64 {
        let of = |value: u32, salt: u64| {
            let key = seed.rotate_left(21 * round as u32) ^ salt;
            (crate::hash::mum(u64::from(value) ^ key, key ^ 0x9fb2_1c65_1e98_df25) >> 32) as u32
        };
        port = port.wrapping_add(of(block, 0xd1b5_4a32_d192_ed03)) % PORTS;
        // A share of `blocks`, by a product: a remainder would cost most of the round.
        let by = (u64::from(of(port, 0x2545_f491_4f6c_dd1d)) * u64::from(blocks)) >> 32;
        let moved = block + by as u32;
        block = if moved >= blocks { moved - blocks } else { moved };
    }
    (block, port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reply(address: u32, port: u16) -> Key<u32> {
        Key { source: address, destination: 7, source_port: port, destination_port: 9, protocol: 6 }
    }

    proptest! {
        #[test]
        fn each_port_comes_once_a_round(blocks in 1u32..300, seed: u64) {
            let mut seen = vec![false; blocks as usize * 256];
            for at in 0..blocks * 256 {
                let (block, port) = permute(at, blocks, seed);
                let place = (block * 256 + port) as usize;
                prop_assert!(!std::mem::replace(&mut seen[place], true));
            }
        }
    }

    /// A seed under which a round's product is all ones.
    #[test]
    fn no_seed_overflows() {
        let seed = !0xd1b5_4a32_d192_ed03;
        let places: std::collections::HashSet<_> =
            (0..512).map(|at| permute(at, 2, seed)).collect();
        assert_eq!(places.len(), 512);
    }

    #[test]
    fn ports_in_use_are_counted_by_backend() {
        let mut targets = Targets::<u32>::new(8, 7);
        for n in 0..3 {
            (0..=n).for_each(|_| targets.begin(&reply(n, 80)));
        }
        targets.begin(&reply(0, 81));
        targets.end(&reply(2, 80));
        let mut used = |n, port| {
            let (reply, seed) = (reply(n, port), targets.seed(&reply(n, port)));
            targets.find(&reply, seed).map(|target| target.used)
        };
        assert_eq!([used(0, 80), used(1, 80), used(2, 80), used(0, 81)], [1, 2, 2, 1].map(Some));
        assert_eq!(used(9, 80), None);
    }

    #[test]
    fn a_backend_in_use_is_never_displaced() {
        let mut targets = Targets::<u32>::new(4, 7);
        (0..4).for_each(|n| targets.begin(&reply(n, 80)));
        targets.begin(&reply(4, 80));
        let seeds = [1, 4].map(|n| targets.seed(&reply(n, 80)));
        assert!(targets.find(&reply(4, 80), seeds[1]).is_none(), "not counted");
        targets.end(&reply(1, 80));
        assert!(targets.find_or_add(&reply(4, 80), seeds[1]).is_some());
        assert!(targets.find(&reply(1, 80), seeds[0]).is_none());
    }
}
