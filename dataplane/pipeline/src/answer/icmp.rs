//! Echo replies and ICMP errors (RFC 792, RFC 4443, RFC 1812 section 4.3.2).

use super::{TTL, pseudo_sum, sender, write_ipv4, write_ipv6};
use crate::adjacency::Interface;
use crate::frame::Frame;
use crate::parse::{Addresses, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ICMP, ICMPV6, Parsed, be16, put};
use crate::rewrite::{checksum, turn_round};

/// Bytes of an ICMP error's own header.
const ICMP_LEN: usize = 8;
/// An IPv4 error quotes as much as fits in what every host takes (RFC 1812).
const ERROR_V4_MAX: usize = 576;
/// An IPv6 error quotes as much as fits in the smallest MTU (RFC 4443).
const ERROR_V6_MAX: usize = 1280;

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Nobody listens: type 3 code 3, or 1 code 4.
    PortUnreachable,
    /// TTL or hop limit used up: type 11, or 3.
    TimeExceeded,
    /// Too long for the next link, whose MTU is given: type 3 code 4, or 2.
    TooBig(u16),
}

impl IcmpError {
    /// Type, code and the 32-bit field after the checksum.
    const fn words(self, v6: bool) -> (u8, u8, u32) {
        match (self, v6) {
            (Self::PortUnreachable, false) => (3, 3, 0),
            (Self::PortUnreachable, true) => (1, 4, 0),
            (Self::TimeExceeded, false) => (11, 0, 0),
            (Self::TimeExceeded, true) => (3, 0, 0),
            (Self::TooBig(mtu), false) => (3, 4, mtu as u32),
            (Self::TooBig(mtu), true) => (2, 0, mtu as u32),
        }
    }
}

/// Turns an echo request into its reply: addresses swapped, type changed, the rest kept. False
/// where the frame has no room.
pub fn echo(frame: &mut Frame<'_>, parsed: &Parsed, interface: &Interface) -> bool {
    let to = sender(frame);
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let bytes = frame.bytes_mut();
    let (old_type, new_type, ethertype) = match parsed.addresses {
        Addresses::V4 { source, destination } => {
            put(bytes, l3 + 12, &destination.to_be_bytes());
            put(bytes, l3 + 16, &source.to_be_bytes());
            let change = checksum::difference(u16::from(parsed.ttl) << 8, u16::from(TTL) << 8);
            bytes[l3 + 8] = TTL;
            let field = be16(bytes, l3 + 10).unwrap_or(0);
            put(bytes, l3 + 10, &checksum::update(field, change).to_be_bytes());
            (8u8, 0u8, ETHERTYPE_IPV4)
        }
        Addresses::V6 { source, destination } => {
            put(bytes, l3 + 8, &destination.to_be_bytes());
            put(bytes, l3 + 24, &source.to_be_bytes());
            bytes[l3 + 7] = TTL;
            (128, 129, ETHERTYPE_IPV6)
        }
    };
    bytes[l4] = new_type;
    let change = checksum::difference(u16::from(old_type) << 8, u16::from(new_type) << 8);
    let field = be16(bytes, l4 + 2).unwrap_or(0);
    put(bytes, l4 + 2, &checksum::update(field, change).to_be_bytes());
    // The update never yields the other zero, which a message of nothing but zeros needs.
    let end = bytes.len().min(parsed.end());
    if bytes[l4..end].iter().all(|byte| *byte == 0) {
        put(bytes, l4 + 2, &[0xff, 0xff]);
    }
    turn_round(frame, l3, to, interface, ethertype)
}

/// Turns a packet into an ICMP error that quotes it, sent from the address that it was for. False
/// where the frame has no room in front.
pub fn error(
    frame: &mut Frame<'_>,
    parsed: &Parsed,
    interface: &Interface,
    error: IcmpError,
) -> bool {
    let to = sender(frame);
    let old_l3 = usize::from(parsed.l3);
    let (header_len, max, v6) = match parsed.addresses {
        Addresses::V4 { .. } => (20, ERROR_V4_MAX, false),
        Addresses::V6 { .. } => (40, ERROR_V6_MAX, true),
    };
    let room = max - header_len - ICMP_LEN;
    let quote = (frame.bytes().len() - old_l3).min(room);
    // The frame now begins with the error's own headers, and the quotation stays where it is.
    if !frame.move_start(old_l3 as isize - (14 + header_len + ICMP_LEN) as isize) {
        return false;
    }
    let (l3, l4) = (14, 14 + header_len);
    if !frame.resize(l4 + ICMP_LEN + quote) {
        return false;
    }
    let bytes = frame.bytes_mut();
    let (kind, code, word) = error.words(v6);
    bytes[l4] = kind;
    bytes[l4 + 1] = code;
    put(bytes, l4 + 2, &[0, 0]);
    put(bytes, l4 + 4, &word.to_be_bytes());
    let ethertype = match parsed.addresses {
        Addresses::V4 { source, destination } => {
            let len = header_len + ICMP_LEN + quote;
            write_ipv4(bytes, l3, len, ICMP, (destination, source));
            ETHERTYPE_IPV4
        }
        Addresses::V6 { source, destination } => {
            write_ipv6(bytes, l3, ICMP_LEN + quote, (ICMPV6, TTL), (destination, source));
            ETHERTYPE_IPV6
        }
    };
    let icmp = &mut bytes[l4..];
    let pseudo =
        if v6 { pseudo_sum(&Parsed { protocol: ICMPV6, ..*parsed }, ICMP_LEN + quote) } else { 0 };
    let sum = !checksum::fold(checksum::sum(icmp, u32::from(pseudo)));
    put(icmp, 2, &sum.to_be_bytes());
    turn_round(frame, l3, to, interface, ethertype)
}
