//! The Toeplitz hash of receive side scaling, table-driven: one look-up a byte instead of 8
//! conditional exclusive-ors.

use crate::parse::Addresses;

/// The key that drivers come with, whose hashes are published (Microsoft, "Verifying the RSS Hash
/// Calculation"). Set alike on all front ports.
pub const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// Bytes of an IPv6 4-tuple: the longest input.
const INPUT_MAX: usize = 36;

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
    pub fn new(key: &[u8; 40]) -> Self {
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
