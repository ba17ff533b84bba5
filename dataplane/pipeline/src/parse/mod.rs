//! From bytes to what the rest of the pipeline trusts.
//!
//! A packet that parses has headers whose lengths agree with each other and with the frame, a
//! right IPv4 header checksum, no checksum that the device found wrong, possible TCP flags and
//! ports, and a source that a host may have. Everything else ends here with its reason.

mod ethernet;
mod ip;
mod l4;
pub mod lane;
pub mod quoted;

use crate::adjacency::Adjacencies;
use crate::frame::{ChecksumReport, Frame};
use model::drops::DropReason;
use model::ids::{Family, InterfaceId};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use ethernet::{ETHERNET_LEN, VLAN_TAG_LEN};
pub use l4::{
    ICMP, ICMPV6, TCP, TCP_ACK, TCP_FIN, TCP_PSH, TCP_RST, TCP_SYN, TCP_URG, UDP, tcp_header_len,
};

/// Ethertype of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// Ethertype of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Ethertype of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// Ethertype of an 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;

/// Source and destination as integers whose big-endian bytes are those of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// IPv4.
    V4 {
        /// Sender.
        source: u32,
        /// Receiver.
        destination: u32,
    },
    /// IPv6.
    V6 {
        /// Sender.
        source: u128,
        /// Receiver.
        destination: u128,
    },
}

impl Addresses {
    /// Those of a key's integers.
    #[inline(always)]
    pub fn of<A: crate::connections::Address>(source: A, destination: A) -> Self {
        let ((a, b), (c, d)) = (source.words(), destination.words());
        match A::FAMILY {
            Family::V4 => Self::V4 { source: b as u32, destination: d as u32 },
            Family::V6 => Self::V6 {
                source: u128::from(a) << 64 | u128::from(b),
                destination: u128::from(c) << 64 | u128::from(d),
            },
        }
    }
    /// The sender.
    pub fn source(&self) -> IpAddr {
        match *self {
            Self::V4 { source, .. } => IpAddr::V4(Ipv4Addr::from_bits(source)),
            Self::V6 { source, .. } => IpAddr::V6(Ipv6Addr::from_bits(source)),
        }
    }
    /// The receiver.
    pub fn destination(&self) -> IpAddr {
        match *self {
            Self::V4 { destination, .. } => IpAddr::V4(Ipv4Addr::from_bits(destination)),
            Self::V6 { destination, .. } => IpAddr::V6(Ipv6Addr::from_bits(destination)),
        }
    }
    /// The family.
    pub const fn family(&self) -> Family {
        match self {
            Self::V4 { .. } => Family::V4,
            Self::V6 { .. } => Family::V6,
        }
    }
}

/// Whether the packet is a fragment, and which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fragment {
    /// It is whole.
    #[default]
    No,
    /// The first, which holds the ports. The identification.
    First(u32),
    /// A later one, without ports. The identification.
    Later(u32),
}

/// What kind of packet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ARP for Ethernet and IPv4.
    Arp,
    /// IPv4 or IPv6.
    Ip,
}

/// What the headers say. Offsets count from the frame's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// ARP or IP.
    pub kind: Kind,
    /// The interface that it came in by.
    pub interface: InterfaceId,
    /// Offset of the network header.
    pub l3: u16,
    /// Offset of the transport header.
    pub l4: u16,
    /// Length of the IP packet, header included.
    pub ip_len: u16,
    /// The addresses; for ARP those of its payload.
    pub addresses: Addresses,
    /// Source port; 0 where there is none.
    pub source_port: u16,
    /// Destination port; 0 where there is none.
    pub destination_port: u16,
    /// The transport protocol's number.
    pub protocol: u8,
    /// TCP's flags, as in the header's 14th byte.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// Offset of IPv6's fragment header; 0 where there is none.
    pub fragment_header: u16,
}

impl Parsed {
    /// Where the IP packet ends. A frame of several segments may have padding behind it.
    pub fn end(&self) -> usize {
        usize::from(self.l3) + usize::from(self.ip_len)
    }
    /// Length of the transport header and what follows it, in bytes.
    pub fn l4_len(&self) -> usize {
        self.end().saturating_sub(usize::from(self.l4))
    }
    /// True for a TCP packet that may begin a connection: SYN alone of SYN, ACK, RST, FIN.
    pub const fn is_bare_syn(&self) -> bool {
        self.tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN) == TCP_SYN
    }
    /// True for IPv4.
    pub const fn protocol_is_v4(&self) -> bool {
        matches!(self.addresses, Addresses::V4 { .. })
    }
    /// True where the packet carries an untouched L4 header with ports.
    pub const fn has_ports(&self) -> bool {
        matches!(self.protocol, TCP | UDP)
    }
}

impl Parsed {
    /// What [`parse`] begins with.
    pub const EMPTY: Self = Self {
        kind: Kind::Ip,
        interface: InterfaceId(0),
        l3: 0,
        l4: 0,
        ip_len: 0,
        addresses: Addresses::V4 { source: 0, destination: 0 },
        source_port: 0,
        destination_port: 0,
        protocol: 0,
        tcp_flags: 0,
        ttl: 0,
        fragment: Fragment::No,
        fragment_header: 0,
    };
}

/// Parses a frame into `parsed`, which comes empty and is filled in place: it is too large to be
/// handed on from layer to layer. Padding after the network layer's packet is taken off the frame.
/// After an error `parsed` means nothing.
#[inline]
pub fn parse(
    frame: &mut Frame<'_>,
    adjacencies: &Adjacencies,
    parsed: &mut Parsed,
) -> Result<(), DropReason> {
    let bytes = frame.bytes();
    let link = ethernet::link(bytes, &frame.rx, adjacencies)?;
    (parsed.interface, parsed.l3) = (link.ingress.id, link.l3 as u16);
    match link.ethertype {
        ETHERTYPE_IPV4 => ip::parse_v4(bytes, frame, parsed)?,
        ETHERTYPE_IPV6 => ip::parse_v6(bytes, frame, parsed)?,
        ETHERTYPE_ARP => return ethernet::parse_arp(bytes, parsed),
        _ => return Err(DropReason::EthertypeUnsupported),
    }
    l4::parse(bytes, parsed)?;
    if frame.rx.l4_checksum == ChecksumReport::Bad && parsed.fragment == Fragment::No {
        return Err(DropReason::L4Checksum);
    }
    ip::check_source(parsed)?;
    frame.trim(usize::from(parsed.l3) + usize::from(parsed.ip_len));
    Ok(())
}

/// A 16-bit field in network byte order, where the bytes reach that far.
#[inline]
pub fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A 32-bit field in network byte order, where the bytes reach that far.
#[inline]
pub fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A 128-bit field in network byte order, where the bytes reach that far.
#[inline]
pub fn be128(bytes: &[u8], at: usize) -> Option<u128> {
    Some(u128::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Writes bytes where the buffer reaches that far; a shorter one is left as it is.
#[inline]
pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}
