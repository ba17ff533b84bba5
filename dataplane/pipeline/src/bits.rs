//! Whether an address may be one of a few: a line of bits that is asked before a map.

use std::net::IpAddr;

/// Words of the line.
const WORDS: usize = 8;

/// A bit for each of a few hundred addresses. Not keyed: whoever finds addresses that share a bit
/// with one of ours makes the map be asked, and no more.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
pub struct AddressBits([u64; WORDS]);

impl AddressBits {
    /// False where the address isn't one of them; true where it may be.
    #[inline]
    pub fn may_have(&self, address: IpAddr) -> bool {
        let (word, bit) = place(address);
        self.0[word] & bit != 0
    }
    /// One more.
    pub fn add(&mut self, address: IpAddr) {
        let (word, bit) = place(address);
        self.0[word] |= bit;
    }
}

#[inline]
const fn place(address: IpAddr) -> (usize, u64) {
    let folded = match address {
        IpAddr::V4(ip) => ip.to_bits() as u64,
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            bits as u64 ^ ((bits >> 64) as u64).rotate_left(32)
        }
    };
    let hash = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55;
    (hash as usize / 64 % WORDS, 1 << (hash % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn those_that_were_added_are_known_and_few_others() {
        let v4 = |n: u32| IpAddr::from(Ipv4Addr::from_bits(0xc612_0100 + n));
        let v6 = |n: u32| IpAddr::from(Ipv6Addr::from_bits((0x2001_0db8 << 96) + u128::from(n)));
        let mut bits = AddressBits::default();
        (0..32).for_each(|n| [v4(n), v6(n)].into_iter().for_each(|ip| bits.add(ip)));
        assert!((0..32).all(|n| bits.may_have(v4(n)) && bits.may_have(v6(n))));
        let strangers = (1000..11_000).filter(|n| bits.may_have(v4(*n)) || bits.may_have(v6(*n)));
        let strangers = strangers.count();
        assert!(strangers < 3000, "{strangers} of 20,000");
    }
}
