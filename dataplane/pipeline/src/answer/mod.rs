//! Answers made in place, by turning the frame round.

mod bucket;
mod budget;
mod challenge;
mod icmp;
mod neighbour;
mod refusal;
mod reset;

use crate::adjacency::Mac;
use crate::frame::{ChecksumReport, Frame};
use crate::parse::{Addresses, Fragment, Kind, Parsed, TCP, UDP, be16};
use crate::rewrite::checksum;

pub use bucket::{Bucket, Rate};
pub use budget::{Budgets, Class, Rates};
pub use challenge::{Generated, challenge};
pub use icmp::{IcmpError, echo, error};
pub use neighbour::{arp_reply, neighbour_advertisement};
pub(crate) use refusal::{refuse, reject, reject_as};
pub use reset::reset;

/// TTL and hop limit of what we send ourselves.
const TTL: u8 = 64;

/// The MAC that sent the frame.
pub fn sender(frame: &Frame<'_>) -> Mac {
    let bytes = frame.bytes();
    Mac(bytes.get(6..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default())
}

/// True where the frame was sent to a group: such packets get no RST and no ICMP error (RFC 1122).
pub fn is_to_group(frame: &Frame<'_>) -> bool {
    frame.bytes().first().is_some_and(|byte| byte & 1 == 1)
}

/// What is known of a packet's L4 checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It is right, or the packet rightly has none.
    Right,
    /// It is wrong.
    Wrong,
    /// Nobody has all of the packet: it is a fragment, or its trailing segments are opaque.
    Unknown,
}

/// Verifies the L4 checksum, unless the device has.
pub fn check(frame: &Frame<'_>, parsed: &Parsed) -> Checked {
    if parsed.kind == Kind::Arp {
        return Checked::Right;
    }
    if parsed.fragment != Fragment::No {
        return Checked::Unknown;
    }
    match frame.rx.l4_checksum {
        ChecksumReport::Good => Checked::Right,
        _ if frame.tail_len() > 0 => Checked::Unknown,
        _ if is_right(frame, parsed) => Checked::Right,
        _ => Checked::Wrong,
    }
}

/// True unless the checksum of a packet that we answer ourselves is known to be wrong. Trailing
/// segments are opaque: with them the device's word alone counts.
pub fn verify(frame: &Frame<'_>, parsed: &Parsed) -> bool {
    check(frame, parsed) != Checked::Wrong
}

fn is_right(frame: &Frame<'_>, parsed: &Parsed) -> bool {
    let (l4, mut len) = (usize::from(parsed.l4), parsed.l4_len());
    if parsed.protocol == UDP {
        // What lies behind the datagram isn't covered by its checksum.
        let udp_len = be16(frame.bytes(), l4 + 4).map_or(0, usize::from);
        len = len.min(udp_len);
    }
    let Some(l4_bytes) = frame.bytes().get(l4..l4 + len) else { return false };
    if parsed.protocol == UDP && be16(l4_bytes, 6) == Some(0) {
        return matches!(parsed.addresses, Addresses::V4 { .. });
    }
    let with_pseudo_header =
        matches!(parsed.protocol, TCP | UDP) || matches!(parsed.addresses, Addresses::V6 { .. });
    let start = if with_pseudo_header { pseudo_sum(parsed, len) } else { 0 };
    checksum::fold(checksum::sum(l4_bytes, u32::from(start))) == 0xffff
}

/// The sum of the pseudo header for `len` bytes of the packet's own protocol and addresses. The
/// same for the answer, since it swaps the addresses.
fn pseudo_sum(parsed: &Parsed, len: usize) -> u16 {
    let addresses = match parsed.addresses {
        Addresses::V4 { source, destination } => {
            checksum::add(checksum::sum32(source), checksum::sum32(destination))
        }
        Addresses::V6 { source, destination } => {
            checksum::add(checksum::sum128(source), checksum::sum128(destination))
        }
    };
    checksum::add(addresses, checksum::pseudo(parsed.protocol, len))
}

/// Writes an IPv4 header without options, checksum included.
fn write_ipv4(
    bytes: &mut [u8],
    l3: usize,
    len: usize,
    protocol: u8,
    (source, destination): (u32, u32),
) {
    let Some(header) = bytes.get_mut(l3..l3 + 20) else { return };
    header.fill(0);
    header[0] = 0x45;
    header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    header[6] = 0x40; // don't fragment, so that the identification of 0 is allowed (RFC 6864)
    header[8] = TTL;
    header[9] = protocol;
    header[12..16].copy_from_slice(&source.to_be_bytes());
    header[16..20].copy_from_slice(&destination.to_be_bytes());
    let sum = !checksum::fold(checksum::sum(header, 0));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Writes an IPv6 header.
fn write_ipv6(
    bytes: &mut [u8],
    l3: usize,
    payload: usize,
    (next_header, hop_limit): (u8, u8),
    (source, destination): (u128, u128),
) {
    let Some(header) = bytes.get_mut(l3..l3 + 40) else { return };
    header.fill(0);
    header[0] = 0x60;
    header[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
    header[6] = next_header;
    header[7] = hop_limit;
    header[8..24].copy_from_slice(&source.to_be_bytes());
    header[24..40].copy_from_slice(&destination.to_be_bytes());
}
