//! What a connection is found by.

use crate::arch::memory::Plain;
use crate::hash::mum;
use crate::parse::Parsed;
use crate::rewrite::checksum::{self, Difference};
use model::ids::Family;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address as an integer whose big-endian bytes are those of the wire: `u32` for IPv4, `u128`
/// for IPv6. The table exists once for each.
///
/// A [`Tuple`](Address::Tuple) is a key as it stands in a packet, so that one comparison finds it and
/// one store rewrites it. Of its bytes some are no key's; an entry keeps something else there.
///
/// | | IPv4 | IPv6 |
/// |---|---|---|
/// | bytes of the network header and what follows it | 8 to 23 | 4 to 43 |
/// | no key's | TTL 0, checksum 2 and 3 | payload length 0 and 1, hop limit 3 |
/// | protocol or next header | 1 | 2 |
/// | addresses, ports | 4 to 11, 12 to 15 | 4 to 35, 36 to 39 |
pub trait Address: Copy + Eq + Default + std::fmt::Debug + Send + 'static {
    /// The family.
    const FAMILY: Family;
    /// Offset of the tuple in the network header. It reaches into the transport header, where that
    /// follows at once.
    const TUPLE_AT: usize;
    /// Bytes of the network header without options or extensions.
    const HEADER_LEN: usize;
    /// A key as it stands in a packet.
    type Tuple: Plain + PartialEq + std::fmt::Debug + Send + Sync + 'static;
    /// An address as it stands in a packet.
    type Wire: Plain + PartialEq + Default + std::fmt::Debug + Send + Sync + 'static;
    /// No key: all zero.
    const NO_TUPLE: Self::Tuple;
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
    /// As it stands in a packet.
    fn to_wire(self) -> Self::Wire;
    /// From what stands in a packet.
    fn from_wire(wire: Self::Wire) -> Self;
    /// The tuple of a key; bytes that are no key's are zero.
    fn tuple(key: &Key<Self>) -> Self::Tuple;
    /// The key of a tuple.
    fn key(tuple: &Self::Tuple) -> Key<Self>;
    /// The tuple of a packet whose network header begins at `l3`.
    fn read(bytes: &[u8], l3: usize) -> Option<Self::Tuple>;
    /// True where both are of one key.
    fn same(a: &Self::Tuple, b: &Self::Tuple) -> bool;
    /// The same key the other way round.
    fn turned(tuple: &Self::Tuple) -> Self::Tuple;
    /// Writes a tuple's addresses and ports into a packet without options or extensions whose network
    /// header `header` begins with, and its TTL, which is one less than it was; `difference` is what
    /// the addresses add to a sum.
    fn store(header: &mut [u8], tuple: &Self::Tuple, ttl: u8, difference: Difference);
    /// The hash of the tuple's key, see [`Key::hash`].
    fn hash(tuple: &Self::Tuple, secret: u64) -> u64;
    /// The two bytes that an entry keeps in a tuple.
    fn spare(tuple: &Self::Tuple) -> [u8; 2];
    /// Sets them.
    fn set_spare(tuple: &mut Self::Tuple, bytes: [u8; 2]);
}

/// Bits of an IPv4 tuple that are a key's: not TTL and checksum.
const KEY_V4: u128 = u128::from_ne_bytes([
    0, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
]);

impl Address for u32 {
    const FAMILY: Family = Family::V4;
    const TUPLE_AT: usize = 8;
    const HEADER_LEN: usize = 20;
    type Tuple = [u8; 16];
    type Wire = [u8; 4];
    const NO_TUPLE: [u8; 16] = [0; 16];
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
    #[inline(always)]
    fn to_wire(self) -> [u8; 4] {
        self.to_be_bytes()
    }
    #[inline(always)]
    fn from_wire(wire: [u8; 4]) -> Self {
        Self::from_be_bytes(wire)
    }
    #[inline(always)]
    fn tuple(key: &Key<Self>) -> [u8; 16] {
        let [a, b, c, d] = key.source.to_be_bytes();
        let [e, f, g, h] = key.destination.to_be_bytes();
        let ([i, j], [k, l]) = (key.source_port.to_be_bytes(), key.destination_port.to_be_bytes());
        [0, key.protocol, 0, 0, a, b, c, d, e, f, g, h, i, j, k, l]
    }
    #[inline(always)]
    fn key(tuple: &[u8; 16]) -> Key<Self> {
        let [_, protocol, _, _, a, b, c, d, e, f, g, h, i, j, k, l] = *tuple;
        Key {
            source: Self::from_be_bytes([a, b, c, d]),
            destination: Self::from_be_bytes([e, f, g, h]),
            source_port: u16::from_be_bytes([i, j]),
            destination_port: u16::from_be_bytes([k, l]),
            protocol,
        }
    }
    #[inline(always)]
    fn read(bytes: &[u8], l3: usize) -> Option<[u8; 16]> {
        bytes.get(l3 + Self::TUPLE_AT..)?.first_chunk().copied()
    }
    #[inline(always)]
    fn same(a: &[u8; 16], b: &[u8; 16]) -> bool {
        (u128::from_ne_bytes(*a) ^ u128::from_ne_bytes(*b)) & KEY_V4 == 0
    }
    #[inline(always)]
    fn turned(tuple: &[u8; 16]) -> [u8; 16] {
        let [_, protocol, _, _, a, b, c, d, e, f, g, h, i, j, k, l] = *tuple;
        [0, protocol, 0, 0, e, f, g, h, a, b, c, d, k, l, i, j]
    }
    #[inline(always)]
    fn store(header: &mut [u8], tuple: &[u8; 16], ttl: u8, difference: Difference) {
        let Some(place) = header.get_mut(Self::TUPLE_AT..).and_then(<[u8]>::first_chunk_mut) else {
            return;
        };
        let place: &mut [u8; 16] = place;
        let field = difference.update([place[2], place[3]], [Difference::TTL_LESS]);
        let [_, protocol, _, _, rest @ ..] = *tuple;
        place[..4].copy_from_slice(&[ttl, protocol, field[0], field[1]]);
        place[4..].copy_from_slice(&rest);
    }
    #[inline(always)]
    fn hash(tuple: &[u8; 16], secret: u64) -> u64 {
        let [_, protocol, _, _, a, b, c, d, e, f, g, h, i, j, k, l] = *tuple;
        let pair = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        let ports = u64::from(u32::from_ne_bytes([i, j, k, l])) << 8 | u64::from(protocol);
        finish(mum(pair ^ secret, ports ^ 0x9e37_79b9_7f4a_7c15), ports, secret)
    }
    #[inline(always)]
    fn spare(tuple: &[u8; 16]) -> [u8; 2] {
        [tuple[2], tuple[3]]
    }
    #[inline(always)]
    fn set_spare(tuple: &mut [u8; 16], bytes: [u8; 2]) {
        tuple[2..4].copy_from_slice(&bytes);
    }
}

impl Address for u128 {
    const FAMILY: Family = Family::V6;
    const TUPLE_AT: usize = 4;
    const HEADER_LEN: usize = 40;
    type Tuple = [u8; 40];
    type Wire = [u8; 16];
    const NO_TUPLE: [u8; 40] = [0; 40];
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
    #[inline(always)]
    fn to_wire(self) -> [u8; 16] {
        self.to_be_bytes()
    }
    #[inline(always)]
    fn from_wire(wire: [u8; 16]) -> Self {
        Self::from_be_bytes(wire)
    }
    #[inline(always)]
    fn tuple(key: &Key<Self>) -> [u8; 40] {
        let mut tuple = [0; 40];
        tuple[2] = key.protocol;
        tuple[4..20].copy_from_slice(&key.source.to_be_bytes());
        tuple[20..36].copy_from_slice(&key.destination.to_be_bytes());
        tuple[36..38].copy_from_slice(&key.source_port.to_be_bytes());
        tuple[38..40].copy_from_slice(&key.destination_port.to_be_bytes());
        tuple
    }
    #[inline(always)]
    fn key(tuple: &[u8; 40]) -> Key<Self> {
        let address = |at: usize| Self::from_be_bytes(std::array::from_fn(|i| tuple[at + i]));
        Key {
            source: address(4),
            destination: address(20),
            source_port: u16::from_be_bytes([tuple[36], tuple[37]]),
            destination_port: u16::from_be_bytes([tuple[38], tuple[39]]),
            protocol: tuple[2],
        }
    }
    #[inline(always)]
    fn read(bytes: &[u8], l3: usize) -> Option<[u8; 40]> {
        bytes.get(l3 + Self::TUPLE_AT..)?.first_chunk().copied()
    }
    #[inline(always)]
    fn same(a: &[u8; 40], b: &[u8; 40]) -> bool {
        a[2] == b[2] && a[4..] == b[4..]
    }
    #[inline(always)]
    fn turned(tuple: &[u8; 40]) -> [u8; 40] {
        let mut turned = *tuple;
        turned[4..20].copy_from_slice(&tuple[20..36]);
        turned[20..36].copy_from_slice(&tuple[4..20]);
        turned[36..38].copy_from_slice(&tuple[38..40]);
        turned[38..40].copy_from_slice(&tuple[36..38]);
        turned
    }
    #[inline(always)]
    fn store(header: &mut [u8], tuple: &[u8; 40], ttl: u8, _: Difference) {
        let Some(place) = header.get_mut(Self::TUPLE_AT..).and_then(<[u8]>::first_chunk_mut) else {
            return;
        };
        let place: &mut [u8; 40] = place;
        place[3] = ttl;
        place[4..].copy_from_slice(&tuple[4..]);
    }
    #[inline(always)]
    fn hash(tuple: &[u8; 40], secret: u64) -> u64 {
        let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| tuple[at + i]));
        let ports = u32::from_ne_bytes([tuple[36], tuple[37], tuple[38], tuple[39]]);
        let ports = u64::from(ports) << 8 | u64::from(tuple[2]);
        // Every factor is keyed: one that a sender can make 0 would take the other along.
        let source =
            mum(word(4) ^ secret, word(12) ^ secret.rotate_left(17) ^ 0xe703_7ed1_a0b4_28db);
        let other = word(28) ^ secret.rotate_left(49) ^ 0x8ebc_6af0_9c88_c6e3;
        let destination = mum(word(20) ^ secret.rotate_left(32), other);
        finish(mum(source ^ ports, destination ^ secret), ports, secret)
    }
    #[inline(always)]
    fn spare(tuple: &[u8; 40]) -> [u8; 2] {
        [tuple[0], tuple[1]]
    }
    #[inline(always)]
    fn set_spare(tuple: &mut [u8; 40], bytes: [u8; 2]) {
        tuple[..2].copy_from_slice(&bytes);
    }
}

#[inline(always)]
const fn finish(mixed: u64, ports: u64, secret: u64) -> u64 {
    mum(mixed ^ ports.rotate_left(40), secret ^ 0xa076_1d64_78bd_642f)
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
    #[inline]
    pub fn hash(&self, secret: u64) -> u64 {
        A::hash(&A::tuple(self), secret)
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
    pub const fn of(source: A, destination: A, parsed: &Parsed) -> Self {
        Self {
            source,
            destination,
            source_port: parsed.source_port,
            destination_port: parsed.destination_port,
            protocol: parsed.protocol,
        }
    }
}
