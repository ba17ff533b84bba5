//! Secrets of the process: one from outside, and all others derived from it, so that what one of
//! them gives away tells nothing of another.

use model::ids::WorkerId;
use siphasher::sip::{SipHasher13, SipHasher24};
use std::hash::Hasher;

/// 128 random bits. Not shown, not stored, new with each start.
#[derive(Clone, Copy)]
pub struct Secret([u64; 2]);

/// What a derived secret is for: no two of a process are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The hash of a worker's connection tables.
    Connections(WorkerId),
    /// The numbers that a worker draws: halves of a key.
    Numbers(WorkerId, u8),
    /// The hash of the table of session affinity.
    Affinity,
    /// The name of the tables of slots and their keys.
    SlotKeys,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Of random bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        let all = u128::from_le_bytes(bytes);
        Self([all as u64, (all >> 64) as u64])
    }
    /// The secret for a purpose: SipHash-2-4 of the purpose, under this secret. Who knows some of
    /// them can neither tell this one nor others.
    pub fn derive(&self, purpose: Purpose) -> u64 {
        let words = match purpose {
            Purpose::Connections(worker) => [1, worker.0, 0],
            Purpose::Numbers(worker, half) => [2, worker.0, half],
            Purpose::Affinity => [3, 0, 0],
            Purpose::SlotKeys => [4, 0, 0],
        };
        let mut hasher = SipHasher24::new_with_keys(self.0[0], self.0[1]);
        hasher.write(&words);
        hasher.finish()
    }
    /// The key of a worker's numbers.
    pub fn numbers(&self, worker: WorkerId) -> [u64; 2] {
        [0, 1].map(|half| self.derive(Purpose::Numbers(worker, half)))
    }
}

/// A secret made of another by SipHash-2-4, from which the other one doesn't follow: for what may
/// come to be known, while the other mustn't.
pub fn one_way(secret: u64) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(secret, 0x6f6e_6520_7761_7921);
    hasher.write_u64(secret.rotate_left(32));
    hasher.finish()
}

/// Numbers that nobody outside can guess, however many of them are seen: ports and sequence numbers
/// leave the gateway. SipHash-1-3 of a counter, some 10 ns each.
#[derive(Debug)]
pub struct Numbers {
    keyed: SipHasher13,
    next: u64,
}

impl Numbers {
    /// The numbers of a key.
    pub fn new([a, b]: [u64; 2]) -> Self {
        Self { keyed: SipHasher13::new_with_keys(a, b), next: 0 }
    }
    /// The next one.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        let mut hasher = self.keyed;
        hasher.write_u64(self.next);
        self.next = self.next.wrapping_add(1);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn purposes() -> Vec<Purpose> {
        let workers = (0..=u8::MAX).map(WorkerId);
        let of = |w| [Purpose::Connections(w), Purpose::Numbers(w, 0), Purpose::Numbers(w, 1)];
        workers.flat_map(of).chain([Purpose::Affinity, Purpose::SlotKeys]).collect()
    }

    #[test]
    fn no_two_secrets_are_the_same_nor_differ_by_a_pattern() {
        let secret = Secret::new(*b"sixteen of bytes");
        let all: Vec<u64> = purposes().into_iter().map(|p| secret.derive(p)).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        let steps = all.windows(2).map(|pair| pair[0] ^ pair[1]).collect::<HashSet<_>>();
        assert_eq!(steps.len(), all.len() - 1);
        // Of another secret they are others, whichever bit of it differs.
        for byte in 0..16 {
            let mut other = *b"sixteen of bytes";
            other[byte] ^= 1;
            let other = Secret::new(other);
            assert!(purposes().into_iter().zip(&all).all(|(p, had)| other.derive(p) != *had));
        }
        assert_eq!(format!("{secret:?}"), "Secret");
    }

    #[test]
    fn what_is_made_one_way_differs_in_half_of_its_bits() {
        for secret in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            let flips =
                (0..64).map(|bit| (one_way(secret) ^ one_way(secret ^ 1 << bit)).count_ones());
            let flips: Vec<u32> = flips.collect();
            assert!(flips.iter().all(|of| (12..=52).contains(of)), "{secret:x}: {flips:?}");
        }
    }

    /// What was drawn before was an affine step and a product: of two numbers the third followed.
    #[test]
    fn numbers_are_even_and_those_of_workers_apart() {
        let secret = Secret::new(*b"sixteen of bytes");
        let draw = |worker: u8| {
            let mut numbers = Numbers::new(secret.numbers(WorkerId(worker)));
            (0..4096).map(|_| numbers.draw()).collect::<Vec<_>>()
        };
        let (first, second) = (draw(0), draw(1));
        assert_eq!(first, draw(0));
        let both: HashSet<_> = first.iter().chain(&second).collect();
        assert_eq!(both.len(), 2 * 4096);
        for bit in 0..64 {
            let ones = first.iter().filter(|n| **n >> bit & 1 == 1).count();
            assert!((1850..2250).contains(&ones), "bit {bit}: {ones} of 4096");
        }
    }
}
