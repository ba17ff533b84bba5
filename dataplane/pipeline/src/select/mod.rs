//! Which backend takes a new connection: Maglev (Eisenbud et al., NSDI 2016).

mod affinity;
mod maglev;

pub use affinity::{AffinityClient, AffinityFull, AffinityTable, Sticky};
pub use maglev::Maglev;

/// Multiplies to 128 bits and folds: a non-linear mix of two words.
#[inline]
pub const fn mum(a: u64, b: u64) -> u64 {
    let product = (a as u128).wrapping_mul(b as u128);
    (product >> 64) as u64 ^ product as u64
}

/// A hash of three words under a key. Not the hash of the connection table: its key is shared by
/// all gateways that serve the same addresses, so that they choose alike.
#[inline]
pub const fn keyed(key: u64, a: u64, b: u64, c: u64) -> u64 {
    let x = mum(a ^ key ^ 0xa076_1d64_78bd_642f, b ^ 0xe703_7ed1_a0b4_28db);
    mum(x ^ c, key ^ 0x8ebc_6af0_9c88_c6e3)
}
