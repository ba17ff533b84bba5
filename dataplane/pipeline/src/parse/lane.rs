//! The fast lane: what nearly all packets are. TCP or UDP behind IPv4 without options or IPv6
//! without extensions, whole, with all headers in the first segment, for our MAC, and with nothing
//! odd about it. Whatever isn't so is none of the lane's, and parsed in full; whatever is so would
//! have been parsed to the same.

use super::ethernet;
use super::l4::{TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, UDP};
use crate::adjacency::Adjacencies;
use crate::connections::Address;
use crate::frame::{ChecksumReport, Frame, Rx};
use crate::rewrite::checksum;
use model::ids::Family;

const TCP_LEN: usize = 20;
const UDP_LEN: usize = 8;

/// Where the network header of a frame for our MAC begins, and what it is.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Offset of the network header.
    pub l3: usize,
    /// What it is.
    pub ethertype: u16,
    /// True where the frame came in by an interface for backends.
    pub by_back: bool,
}

/// Looks at the link header: `None` where it isn't the fast lane's.
#[inline(always)]
pub fn start(frame: &Frame<'_>, adjacencies: &Adjacencies) -> Option<Start> {
    let Ok(link) = ethernet::link(frame.bytes(), &frame.rx, adjacencies) else { return None };
    let (l3, ethertype, by_back) = (link.l3, link.ethertype, link.ingress.is_back);
    link.for_us.then_some(Start { l3, ethertype, by_back })
}

/// A packet in the fast lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Length of the IP packet, header included.
    pub ip_len: u16,
    /// Offset of the network header.
    pub l3: u8,
    /// The transport protocol's number.
    pub protocol: u8,
    /// TTL or hop limit, above 1.
    pub ttl: u8,
    /// True where it came in by an interface for backends.
    pub by_back: bool,
    /// The family.
    pub family: Family,
    /// True where it neither opens nor closes a TCP connection.
    pub ordinary: bool,
}

impl Lane {
    /// Where [`read`] begins.
    pub const NONE: Self = Self {
        ip_len: 0,
        l3: 0,
        protocol: 0,
        ttl: 0,
        by_back: false,
        family: Family::V4,
        ordinary: false,
    };
}

/// Looks whether a packet is the fast lane's. `rest` is what the first segment has from the network
/// header on, `room` all that the frame has from there.
#[inline(always)]
pub fn read<A: Address>(rest: &[u8], room: usize, rx: &Rx, start: Start) -> Option<Lane> {
    let (ip_len, protocol, ttl) = match A::FAMILY {
        Family::V4 => v4(rest, rx.ip_checksum)?,
        Family::V6 => v6(rest)?,
    };
    let ip_len_wide = usize::from(ip_len);
    if ttl <= 1 || rx.l4_checksum == ChecksumReport::Bad || ip_len_wide > room {
        return None;
    }
    let l4 = rest.get(A::HEADER_LEN..)?;
    let ordinary = match protocol {
        TCP => tcp(l4, ip_len_wide.checked_sub(A::HEADER_LEN + TCP_LEN)?)?,
        UDP => udp(l4, ip_len_wide.checked_sub(A::HEADER_LEN + UDP_LEN)?)?,
        _ => return None,
    };
    let Start { l3, by_back, .. } = start;
    Some(Lane { ip_len, l3: l3 as u8, protocol, ttl, by_back, family: A::FAMILY, ordinary })
}

#[inline(always)]
fn v4(rest: &[u8], report: ChecksumReport) -> Option<(u16, u8, u8)> {
    let header: &[u8; 20] = rest.first_chunk()?;
    let fragment = u16::from_ne_bytes([header[6], header[7]]) & 0x3fff_u16.to_be();
    let first = header[12];
    let odd_source = first == 0 || first == 127 || first >= 224 || header[12..16] == header[16..20];
    let right = match report {
        ChecksumReport::Good => true,
        ChecksumReport::Bad => false,
        ChecksumReport::Unknown => checksum::is_right(header),
    };
    let plain = header[0] == 0x45 && fragment == 0 && !odd_source && right;
    plain.then_some((u16::from_be_bytes([header[2], header[3]]), header[9], header[8]))
}

#[inline(always)]
fn v6(rest: &[u8]) -> Option<(u16, u8, u8)> {
    let header: &[u8; 40] = rest.first_chunk()?;
    let ip_len = u16::from_be_bytes([header[4], header[5]]).checked_add(40)?;
    // Unspecified, loopback and mapped addresses begin with eight zeros, as no other source does.
    let odd_source =
        header[8] == 0xff || header[8..16] == [0; 8] || header[8..24] == header[24..40];
    let plain = header[0] >> 4 == 6 && !odd_source;
    plain.then_some((ip_len, header[6], header[7]))
}

/// Whether it is ordinary; `more` is what the packet has beyond the least header.
#[inline(always)]
fn tcp(l4: &[u8], more: usize) -> Option<bool> {
    let header: &[u8; TCP_LEN] = l4.first_chunk()?;
    let header_len = usize::from(header[12] >> 4) * 4;
    let flags = header[13] & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN);
    let whole = header_len >= TCP_LEN && header_len <= TCP_LEN + more;
    (whole && has_ports(header)).then_some(flags == TCP_ACK)
}

/// As [`tcp`].
#[inline(always)]
fn udp(l4: &[u8], more: usize) -> Option<bool> {
    let header: &[u8; UDP_LEN] = l4.first_chunk()?;
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let whole = len >= UDP_LEN && len <= UDP_LEN + more;
    (whole && has_ports(header)).then_some(true)
}

#[inline(always)]
const fn has_ports(l4: &[u8]) -> bool {
    u16::from_ne_bytes([l4[0], l4[1]]) != 0 && u16::from_ne_bytes([l4[2], l4[3]]) != 0
}
