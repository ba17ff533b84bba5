//! The Toeplitz hash of receive side scaling, table-driven: one look-up a byte instead of 8
//! conditional exclusive-ors.

use crate::parse::Addresses;

/// A key: as long as the longest input and a hash.
pub type ToeplitzKey = [u8; 40];

/// The key that drivers come with, whose hashes are published (Microsoft, "Verifying the RSS Hash
/// Calculation"): for tests, as whoever knows the key can choose packets of one worker.
pub const KEY: ToeplitzKey = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// Bytes of an IPv6 4-tuple: the longest input.
const INPUT_MAX: usize = 36;

/// The bits of a hash that choose among the 128 entries of the redirection table: the lowest.
const CHOOSING: usize = 7;
/// Runs of eight input bits, by the first, of which clients may differ in no other: each byte of an
/// IPv4 source but the first, of an IPv6 source from the 32nd bit on, and of the source port; and the
/// lower bits of addresses and ports that are all even.
const RUNS: [usize; 20] =
    [8, 16, 23, 24, 32, 40, 48, 56, 64, 71, 72, 80, 88, 96, 104, 112, 120, 256, 263, 264];

/// True where the hash spreads what differs in one run of bits alone over the whole redirection
/// table, and evenly. The hash is linear: that is so where the seven bits that the eight input bits
/// turn over have full rank. A random key leaves a run with half or less of the table, and so maybe
/// a worker without traffic, more often than not.
fn spreads(key: &ToeplitzKey) -> bool {
    let bit = |at: usize| key[at / 8] >> (7 - at % 8) & 1;
    let turns = |input: usize| {
        let first = input + 32 - CHOOSING;
        (first..first + CHOOSING).fold(0u8, |turns, at| turns << 1 | bit(at))
    };
    RUNS.iter().all(|run| {
        // Gauss: each row that isn't a sum of those before it gives one more dimension.
        let mut basis = [0u8; CHOOSING];
        let dimensions = (*run..run + 8).filter(|input| {
            let mut row = turns(*input);
            for (at, held) in basis.iter_mut().enumerate() {
                if row >> at & 1 == 1 {
                    if *held == 0 {
                        *held = row;
                        return true;
                    }
                    row ^= *held;
                }
            }
            false
        });
        dimensions.count() == CHOOSING
    })
}

/// A key of these random bytes that spreads well; a few hundred are drawn for it. Not symmetric:
/// replies go by the lease of their NAT port.
pub fn good_key(mut random: impl FnMut() -> ToeplitzKey) -> ToeplitzKey {
    /// All of these fail with a source that isn't random, for which no key is better than another.
    const TRIES: usize = 1 << 20;
    let mut keys = std::iter::repeat_with(&mut random).take(TRIES);
    keys.find(spreads).unwrap_or(KEY)
}

/// The tables for one key: 36 KB.
pub struct Toeplitz {
    tables: Box<[[u32; 256]]>,
}

impl std::fmt::Debug for Toeplitz {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Toeplitz")
    }
}

impl Toeplitz {
    /// The tables for `key`.
    pub fn new(key: &ToeplitzKey) -> Self {
        let window = |bit: usize| {
            (0..32).fold(0u32, |word, i| {
                let at = bit + i;
                let set = key.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1);
                word << 1 | u32::from(set)
            })
        };
        let table = |byte: usize| {
            let windows: [u32; 8] = std::array::from_fn(|bit| window(byte * 8 + bit));
            std::array::from_fn(|value: usize| {
                (0..8)
                    .filter(|bit| value >> (7 - bit) & 1 == 1)
                    .fold(0, |hash, bit: usize| hash ^ windows[bit])
            })
        };
        Self { tables: (0..INPUT_MAX).map(table).collect() }
    }

    /// The hash over source address, destination address, source port, destination port.
    #[inline]
    pub fn hash(&self, addresses: &Addresses, source_port: u16, destination_port: u16) -> u32 {
        let ports = u32::from(source_port) << 16 | u32::from(destination_port);
        match *addresses {
            Addresses::V4 { source, destination } => {
                let at = self.fold(0, &source.to_be_bytes());
                let at = at ^ self.fold(4, &destination.to_be_bytes());
                at ^ self.fold(8, &ports.to_be_bytes())
            }
            Addresses::V6 { source, destination } => {
                let at = self.fold(0, &source.to_be_bytes());
                let at = at ^ self.fold(16, &destination.to_be_bytes());
                at ^ self.fold(32, &ports.to_be_bytes())
            }
        }
    }

    #[inline]
    fn fold(&self, at: usize, bytes: &[u8]) -> u32 {
        let tables = self.tables.get(at..).unwrap_or(&[]);
        bytes.iter().zip(tables).fold(0, |hash, (byte, table)| hash ^ table[usize::from(*byte)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// Pseudo-random keys, each from a seed of its own.
    fn keys(seed: u64) -> impl FnMut() -> ToeplitzKey {
        let mut state = seed;
        move || {
            std::array::from_fn(|_| {
                state = state.wrapping_add(1);
                (crate::hash::keyed(seed, state, 1, 2) >> 56) as u8
            })
        }
    }

    /// Flows of clients as there are: one with many ports, counted up by ones and by twos as Linux
    /// does; many with one port; a subnet of many with some; IPv6 clients that differ in the prefix
    /// alone, in the last bytes, and in a random interface id.
    fn patterns() -> Vec<Vec<(Addresses, u16)>> {
        const COUNT: u32 = 2048;
        let v4 = |n: u32| Addresses::V4 { source: 0xc633_6400 + n, destination: 0xcb00_710a };
        let v6 = |source: u128| Addresses::V6 { source, destination: (0x2001_0db8 << 96) + 0x10 };
        let prefix = 0x2001_0db8_0007u128 << 80;
        let random = |n: u32| u128::from(crate::hash::keyed(9, u64::from(n), 0, 0));
        let numbers = || 0..COUNT;
        vec![
            (0..256).map(|n| (v4(7), 32_768 + n as u16)).collect(),
            (0..256).map(|n| (v4(n), 4_000)).collect(),
            numbers().map(|n| (v4(7), 32_768 + n as u16)).collect(),
            numbers().map(|n| (v4(7), 32_768 + 2 * n as u16)).collect(),
            numbers().map(|n| (v4(n), 4_000)).collect(),
            numbers().map(|n| (v4(2 * n), 4_000)).collect(),
            numbers().map(|n| (v4(n % 256), 40_000 + (n / 256) as u16)).collect(),
            numbers().map(|n| (v6(prefix + 5), 32_768 + n as u16)).collect(),
            numbers().map(|n| (v6(prefix + 5), 32_768 + 2 * n as u16)).collect(),
            numbers().map(|n| (v6(prefix + u128::from(n)), 4_000)).collect(),
            numbers().map(|n| (v6(prefix + (u128::from(n) << 64) + 1), 4_000)).collect(),
            numbers().map(|n| (v6(prefix + random(n)), 4_000)).collect(),
        ]
    }

    /// The least and most that one of the workers gets, of an even share, over all patterns.
    fn shares(key: &ToeplitzKey, patterns: &[Vec<(Addresses, u16)>], workers: usize) -> [f64; 2] {
        let toeplitz = Toeplitz::new(key);
        let mut extremes = [1.0f64; 2];
        for flows in patterns {
            let mut counts = vec![0u32; workers];
            for (addresses, port) in flows {
                counts[toeplitz.hash(addresses, *port, 80) as usize % 128 % workers] += 1;
            }
            let even = flows.len() as f64 / workers as f64;
            for count in counts {
                extremes[0] = extremes[0].min(f64::from(count) / even);
                extremes[1] = extremes[1].max(f64::from(count) / even);
            }
        }
        extremes
    }

    #[test]
    fn a_thousand_keys_share_evenly() {
        let patterns = patterns();
        let (mut least, mut most) = (1.0f64, 1.0f64);
        for seed in 0..1000 {
            let key = good_key(keys(seed));
            for workers in 2..=4 {
                let [low, high] = shares(&key, &patterns, workers);
                assert!(low > 0.8 && high < 1.2, "key {seed}, {workers}: {low} to {high}");
                (least, most) = (least.min(low), most.max(high));
            }
        }
        println!("shares of 2, 3 and 4 workers under 1,000 keys: {least:.3} to {most:.3} of even");
    }

    /// Without the choice some keys leave a worker with next to nothing.
    #[test]
    fn not_every_key_is_good() {
        let patterns = patterns();
        let bad = (0..200).filter(|seed| shares(&keys(*seed)(), &patterns, 3)[0] < 0.8).count();
        assert!(bad > 2, "{bad} of 200 keys");
        assert_eq!(good_key(|| [0; 40]), KEY, "no source of keys");
    }

    /// The published vectors.
    #[test]
    fn hashes_are_the_published_ones() -> Result<(), std::net::AddrParseError> {
        let toeplitz = Toeplitz::new(&KEY);
        let v4 = |source: &str, destination: &str| -> Result<_, std::net::AddrParseError> {
            Ok(Addresses::V4 {
                source: source.parse::<Ipv4Addr>()?.to_bits(),
                destination: destination.parse::<Ipv4Addr>()?.to_bits(),
            })
        };
        let v6 = |source: &str, destination: &str| -> Result<_, std::net::AddrParseError> {
            Ok(Addresses::V6 {
                source: source.parse::<Ipv6Addr>()?.to_bits(),
                destination: destination.parse::<Ipv6Addr>()?.to_bits(),
            })
        };
        let hash = toeplitz.hash(&v4("66.9.149.187", "161.142.100.80")?, 2794, 1766);
        assert_eq!(hash, 0x51cc_c178);
        let hash = toeplitz.hash(&v4("199.92.111.2", "65.69.140.83")?, 14230, 4739);
        assert_eq!(hash, 0xc626_b0ea);
        let hash = toeplitz.hash(&v6("3ffe:2501:200:1fff::7", "3ffe:2501:200:3::1")?, 2794, 1766);
        assert_eq!(hash, 0x4020_7d3d);
        Ok(())
    }
}
