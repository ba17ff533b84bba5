//! What a connection is found by.

use crate::parse::Parsed;
use crate::rewrite::checksum;
use crate::select::mum;
use model::ids::Family;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address as an integer whose big-endian bytes are those of the wire: `u32` for IPv4, `u128`
/// for IPv6. The table exists once for each.
pub trait Address: Copy + Eq + Default + std::fmt::Debug + Send + 'static {
    /// The family.
    const FAMILY: Family;
    /// As two words, for hashing.
    fn words(self) -> (u64, u64);
    /// The folded sum of its 16-bit words.
    fn sum(self) -> u16;
    /// As an address.
    fn to_ip(self) -> IpAddr;
    /// From an address of this family.
    fn from_ip(ip: IpAddr) -> Option<Self>;
    /// Writes it in network byte order.
    fn write(self, bytes: &mut [u8], at: usize);
}

impl Address for u32 {
    const FAMILY: Family = Family::V4;
    #[inline(always)]
    fn words(self) -> (u64, u64) {
        (0, u64::from(self))
    }
    #[inline(always)]
    fn sum(self) -> u16 {
        checksum::sum32(self)
    }
    fn to_ip(self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(self))
    }
    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(ip) => Some(ip.to_bits()),
            IpAddr::V6(_) => None,
        }
    }
    #[inline(always)]
    fn write(self, bytes: &mut [u8], at: usize) {
        crate::parse::put(bytes, at, &self.to_be_bytes());
    }
}

impl Address for u128 {
    const FAMILY: Family = Family::V6;
    #[inline(always)]
    fn words(self) -> (u64, u64) {
        ((self >> 64) as u64, self as u64)
    }
    #[inline(always)]
    fn sum(self) -> u16 {
        checksum::sum128(self)
    }
    fn to_ip(self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from_bits(self))
    }
    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V6(ip) => Some(ip.to_bits()),
            IpAddr::V4(_) => None,
        }
    }
    #[inline(always)]
    fn write(self, bytes: &mut [u8], at: usize) {
        crate::parse::put(bytes, at, &self.to_be_bytes());
    }
}

/// Addresses, ports and protocol in the direction in which the packet travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<A> {
    /// Sender.
    pub source: A,
    /// Receiver.
    pub destination: A,
    /// Sender's port.
    pub source_port: u16,
    /// Receiver's port.
    pub destination_port: u16,
    /// Protocol number.
    pub protocol: u8,
}

impl<A: Address> Key<A> {
    /// The hash of the table: keyed at random, so that nobody can choose packets that share a
    /// bucket.
    #[inline(always)]
    pub fn hash(&self, secret: u64) -> u64 {
        let ports = u64::from(self.source_port) << 24
            | u64::from(self.destination_port) << 8
            | u64::from(self.protocol);
        let mixed = match A::FAMILY {
            Family::V4 => {
                let pair = self.source.words().1 << 32 | self.destination.words().1;
                mum(pair ^ secret, ports ^ 0x9e37_79b9_7f4a_7c15)
            }
            Family::V6 => {
                let (a, b) = self.source.words();
                let (c, d) = self.destination.words();
                // Every factor is keyed: one that a sender can make 0 would take the other along.
                let source = mum(a ^ secret, b ^ secret.rotate_left(17) ^ 0xe703_7ed1_a0b4_28db);
                let other = d ^ secret.rotate_left(49) ^ 0x8ebc_6af0_9c88_c6e3;
                let destination = mum(c ^ secret.rotate_left(32), other);
                mum(source ^ ports, destination ^ secret)
            }
        };
        mum(mixed ^ ports.rotate_left(40), secret ^ 0xa076_1d64_78bd_642f)
    }
    /// The same flow the other way.
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}

impl<A: Address> Key<A> {
    /// The key of a packet with these addresses.
    #[inline(always)]
    pub const fn of((source, destination): (A, A), parsed: &Parsed) -> Self {
        Self {
            source,
            destination,
            source_port: parsed.source_port,
            destination_port: parsed.destination_port,
            protocol: parsed.protocol,
        }
    }
}
