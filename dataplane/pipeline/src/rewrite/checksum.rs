//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums are ones' complement sums of 16-bit words in network byte order.

/// Adds the bytes to a running sum. A trailing odd byte counts as the upper half of a word, so an
/// odd piece may only come last.
#[inline]
pub fn sum(bytes: &[u8], sum: u32) -> u32 {
    // Words of 32 bits add up to the same as their halves, modulo 65,535, and in whichever byte order
    // they are read; 2^32 of them fit. The sum is turned round, not each word.
    let (words, rest) = bytes.as_chunks::<4>();
    let mut total = add_up(words);
    let (words, odd) = rest.as_chunks::<2>();
    for word in words {
        total += u64::from(u16::from_ne_bytes(*word));
    }
    if let [last] = odd {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    sum + u32::from(u16::from_be(fold64(total)))
}

/// Words of 32 bits as they are read, added up.
#[inline]
fn add_up(words: &[[u8; 4]]) -> u64 {
    words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum()
}

/// Folds a running sum of wide words to 16 bits.
#[inline]
const fn fold64(total: u64) -> u16 {
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 32) + (total & 0xffff_ffff);
    fold(total as u32)
}

/// True where the sum over an IPv4 header without options is that of a right checksum. That is so in
/// whichever byte order the words are read.
#[inline]
pub fn is_right(header: &[u8; 20]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    fold64(add_up(words)) == 0xffff
}

/// Folds a running sum to 16 bits.
#[inline]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// Adds two folded sums.
#[inline]
pub const fn add(a: u16, b: u16) -> u16 {
    fold(a as u32 + b as u32)
}

/// The folded sum of a 32-bit field.
#[inline]
pub const fn sum32(value: u32) -> u16 {
    fold((value >> 16) + (value & 0xffff))
}

/// The folded sum of a 128-bit field.
#[inline]
pub const fn sum128(value: u128) -> u16 {
    let mut total = 0u32;
    let mut rest = value;
    while rest != 0 {
        total += (rest & 0xffff) as u32;
        rest >>= 16;
    }
    fold(total)
}

/// The difference that turns a sum with `old` into one with `new`, for [`update`].
#[inline]
pub const fn difference(old: u16, new: u16) -> u16 {
    add(!old, new)
}

/// The checksum field after the covered words have changed by `difference` (RFC 1624, equation 3).
#[inline]
pub const fn update(field: u16, difference: u16) -> u16 {
    !add(!field, difference)
}

/// What a rewrite adds to a sum, in the byte order of the wire: words add up to the same sum in
/// whichever order they are read (RFC 1071 section 2 (B)), so that none of a packet's is turned round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference(u16);

impl Difference {
    /// TTL is the upper half of its word: one less takes 0x0100 off the sum.
    pub const TTL_LESS: Self = Self::of(!0x0100);
    /// One in the order of this processor.
    pub const fn of(difference: u16) -> Self {
        Self(difference.to_be())
    }
    /// One as it was kept.
    #[inline(always)]
    pub const fn from_bytes(bytes: [u8; 2]) -> Self {
        Self(u16::from_ne_bytes(bytes))
    }
    /// To be kept.
    pub const fn to_bytes(self) -> [u8; 2] {
        self.0.to_ne_bytes()
    }
    /// In the order of this processor.
    pub const fn word(self) -> u16 {
        u16::from_be(self.0)
    }
    /// What the way back adds.
    #[inline(always)]
    pub const fn back(self) -> Self {
        Self(!self.0)
    }
    /// The checksum field after this change and `more` (RFC 1624, equation 3).
    #[inline(always)]
    pub fn update<const N: usize>(self, field: [u8; 2], more: [Self; N]) -> [u8; 2] {
        let sum = u32::from(!u16::from_ne_bytes(field)) + u32::from(self.0);
        let sum = more.iter().fold(sum, |sum, more| sum + u32::from(more.0));
        (!fold(sum)).to_ne_bytes()
    }
}

/// The folded sum of the pseudo header of TCP, UDP or ICMPv6 without its addresses.
#[inline]
pub const fn pseudo(protocol: u8, l4_len: usize) -> u16 {
    fold((l4_len >> 16) as u32 + (l4_len & 0xffff) as u32 + protocol as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Checked against etherparse, which recomputes in full.
        #[test]
        fn an_updated_checksum_is_the_recomputed_one(
            old: [u8; 4], new: [u8; 4], port: u16, new_port: u16,
            payload in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            use etherparse::TcpHeader;
            let dst = [203, 0, 113, 1];
            let tcp = TcpHeader::new(port, 80, 7, 8);
            let before = tcp.calc_checksum_ipv4_raw(old, dst, &payload)
                .map_err(|e| TestCaseError::fail(e.to_string()))?;
            let mut changed = tcp.clone();
            changed.source_port = new_port;
            let after = changed.calc_checksum_ipv4_raw(new, dst, &payload)
                .map_err(|e| TestCaseError::fail(e.to_string()))?;
            let difference = add(
                difference(sum32(u32::from_be_bytes(old)), sum32(u32::from_be_bytes(new))),
                difference(port, new_port),
            );
            let updated = update(before, difference);
            // 0x0000 and 0xffff are both zero in ones' complement.
            prop_assert!(updated == after || (updated ^ after) == 0xffff && (after == 0 || updated == 0));
            let in_wire_order = Difference::of(difference);
            prop_assert_eq!(in_wire_order.update(before.to_be_bytes(), []), updated.to_be_bytes());
            let twice = in_wire_order.update(before.to_be_bytes(), [Difference::TTL_LESS]);
            let one_by_one = update(before, add(difference, !0x0100));
            prop_assert_eq!(u16::from_be_bytes(twice) % 0xffff, one_by_one % 0xffff);
            // The way back is the complement of the way there.
            prop_assert_eq!(add(update(updated, !difference), 0) % 0xffff, before % 0xffff);
        }
    }
}
