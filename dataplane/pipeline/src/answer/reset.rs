//! TCP resets (RFC 9293, sections 3.5.2 and 3.10.7.1).

use super::{TTL, pseudo_sum, sender, write_ipv4, write_ipv6};
use crate::adjacency::Interface;
use crate::frame::Frame;
use crate::parse::{
    Addresses, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Parsed, TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN,
    be32, put, tcp_header_len,
};
use crate::rewrite::{checksum, turn_round};

const TCP_LEN: usize = 20;

/// Turns a TCP packet into the RST that refuses it. The packet must not be a RST itself. False
/// where the frame has no room.
pub fn reset(frame: &mut Frame<'_>, parsed: &Parsed, interface: &Interface) -> bool {
    let to = sender(frame);
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let tcp = frame.bytes().get(l4..).unwrap_or(&[]);
    let sequence = be32(tcp, 4).unwrap_or(0);
    let acknowledged = be32(tcp, 8).unwrap_or(0);
    let data = parsed.l4_len().saturating_sub(tcp_header_len(tcp).unwrap_or(TCP_LEN)) as u32;
    let (sequence, acknowledgement, flags) = if parsed.tcp_flags & TCP_ACK != 0 {
        (acknowledged, 0, TCP_RST)
    } else {
        let controls =
            (parsed.tcp_flags & TCP_SYN != 0) as u32 + (parsed.tcp_flags & TCP_FIN != 0) as u32;
        let next = sequence.wrapping_add(data).wrapping_add(controls);
        (0, next, TCP_RST | TCP_ACK)
    };
    let (header_len, ethertype) = match parsed.addresses {
        Addresses::V4 { .. } => (20, ETHERTYPE_IPV4),
        Addresses::V6 { .. } => (40, ETHERTYPE_IPV6),
    };
    let l4 = l3 + header_len;
    if !frame.resize(l4 + TCP_LEN) {
        return false;
    }
    let bytes = frame.bytes_mut();
    match parsed.addresses {
        Addresses::V4 { source, destination } => {
            write_ipv4(bytes, l3, 20 + TCP_LEN, TCP, (destination, source));
        }
        Addresses::V6 { source, destination } => {
            write_ipv6(bytes, l3, TCP_LEN, (TCP, TTL), (destination, source));
        }
    }
    let tcp = &mut bytes[l4..l4 + TCP_LEN];
    tcp.fill(0);
    put(tcp, 0, &parsed.destination_port.to_be_bytes());
    put(tcp, 2, &parsed.source_port.to_be_bytes());
    put(tcp, 4, &sequence.to_be_bytes());
    put(tcp, 8, &acknowledgement.to_be_bytes());
    tcp[12] = (TCP_LEN as u8 / 4) << 4;
    tcp[13] = flags;
    let sum = checksum::sum(tcp, u32::from(pseudo_sum(parsed, TCP_LEN)));
    put(tcp, 16, &(!checksum::fold(sum)).to_be_bytes());
    turn_round(frame, l3, to, interface, ethertype)
}
