//! The packet that an ICMP error quotes: as much of its headers as tells the connection.

use super::{Addresses, Fragment, ICMP, ICMPV6, Parsed, TCP, UDP, be16, be32, be128};
use model::ids::Family;

/// Length of an ICMP or ICMPv6 error's own header.
pub const ICMP_ERROR_LEN: usize = 8;

/// The flow of a quoted packet, in the direction in which that packet travelled. Offsets count
/// from the frame's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Offset of the quoted network header.
    pub l3: usize,
    /// Offset of the quoted transport header.
    pub l4: usize,
    /// Its addresses.
    pub addresses: Addresses,
    /// Its source port.
    pub source_port: u16,
    /// Its destination port.
    pub destination_port: u16,
    /// Its protocol, TCP or UDP.
    pub protocol: u8,
}

/// True for the types that quote a packet: destination unreachable, source quench, time exceeded,
/// parameter problem; in ICMPv6 all below 128.
pub fn is_error(protocol: u8, icmp_type: u8) -> bool {
    match protocol {
        ICMP => matches!(icmp_type, 3 | 4 | 11 | 12),
        ICMPV6 => (1..=4).contains(&icmp_type),
        _ => false,
    }
}

/// The quoted packet of an ICMP error, where it is TCP or UDP of the same family, whole up to the
/// ports, and no later fragment. Quoted IPv6 extension headers are not looked behind. An error in
/// fragments quotes nothing: no worker has the whole of it, to verify and to translate.
pub fn quoted(bytes: &[u8], parsed: &Parsed) -> Option<Quoted> {
    if parsed.fragment != Fragment::No {
        return None;
    }
    let bytes = &bytes[..bytes.len().min(parsed.end())];
    let error = usize::from(parsed.l4);
    if !is_error(parsed.protocol, *bytes.get(error)?) {
        return None;
    }
    let l3 = error + ICMP_ERROR_LEN;
    let inner = bytes.get(l3..)?;
    let (header_len, protocol, addresses) = match parsed.addresses.family() {
        Family::V4 => {
            let header_len = usize::from(inner.first()? & 0x0f) * 4;
            let later = be16(inner, 6)? & 0x1fff != 0;
            if inner[0] >> 4 != 4 || header_len < 20 || later {
                return None;
            }
            let (source, destination) = (be32(inner, 12)?, be32(inner, 16)?);
            (header_len, *inner.get(9)?, Addresses::V4 { source, destination })
        }
        Family::V6 => {
            if inner.first()? >> 4 != 6 {
                return None;
            }
            let (source, destination) = (be128(inner, 8)?, be128(inner, 24)?);
            (40, *inner.get(6)?, Addresses::V6 { source, destination })
        }
    };
    if !matches!(protocol, TCP | UDP) {
        return None;
    }
    Some(Quoted {
        l3,
        l4: l3 + header_len,
        addresses,
        source_port: be16(inner, header_len)?,
        destination_port: be16(inner, header_len + 2)?,
        protocol,
    })
}
