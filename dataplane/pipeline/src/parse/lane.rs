//! The fast lane: what nearly all packets are. TCP or UDP behind IPv4 without options or IPv6
//! without extensions, whole, with all headers in the first segment, for our MAC, and with nothing
//! odd about it. Whatever isn't so is none of the lane's, and parsed in full; whatever is so would
//! have been parsed to the same.

use super::l4::{TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, UDP};
use super::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, ethernet};
use crate::adjacency::Adjacencies;
use crate::connections::Address;
use crate::frame::{ChecksumReport, Frame};
use crate::rewrite::checksum;
use model::ids::{Family, InterfaceId};

const TCP_LEN: usize = 20;
const UDP_LEN: usize = 8;

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
    /// The interface that it came in by.
    pub interface: InterfaceId,
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
        interface: InterfaceId(0),
        family: Family::V4,
        ordinary: false,
    };
}

/// Looks whether a frame is the fast lane's.
#[inline(always)]
pub fn read(frame: &Frame<'_>, adjacencies: &Adjacencies) -> Option<Lane> {
    let bytes = frame.bytes();
    let link = ethernet::link(bytes, &frame.rx, adjacencies).ok().filter(|link| link.for_us)?;
    let room = frame.total_len() - usize::from(link.l3);
    let rest = bytes.get(usize::from(link.l3)..)?;
    let (family, ip_len, protocol, ttl) = match link.ethertype {
        ETHERTYPE_IPV4 => v4(rest, room, frame.rx.ip_checksum)?,
        ETHERTYPE_IPV6 => v6(rest, room)?,
        _ => return None,
    };
    if ttl <= 1 || frame.rx.l4_checksum == ChecksumReport::Bad {
        return None;
    }
    let header_len = if family == Family::V4 { u32::HEADER_LEN } else { u128::HEADER_LEN };
    let l4_len = usize::from(ip_len) - header_len;
    let l4 = rest.get(header_len..)?;
    let ordinary = match protocol {
        TCP => tcp(l4, l4_len)?,
        UDP => udp(l4, l4_len)?,
        _ => return None,
    };
    let (l3, interface) = (link.l3, link.interface);
    Some(Lane { ip_len, l3: l3 as u8, protocol, ttl, interface, family, ordinary })
}

#[inline(always)]
fn v4(rest: &[u8], room: usize, report: ChecksumReport) -> Option<(Family, u16, u8, u8)> {
    let header: &[u8; 20] = rest.first_chunk()?;
    let ip_len = u16::from_be_bytes([header[2], header[3]]);
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    let first = header[12];
    let odd_source = first == 0 || first == 127 || first >= 224 || header[12..16] == header[16..20];
    let right = match report {
        ChecksumReport::Good => true,
        ChecksumReport::Bad => false,
        ChecksumReport::Unknown => checksum::fold(checksum::sum(header, 0)) == 0xffff,
    };
    let plain = header[0] == 0x45 && fragment == 0 && !odd_source && right;
    (plain && usize::from(ip_len) >= 20 && usize::from(ip_len) <= room).then_some((
        Family::V4,
        ip_len,
        header[9],
        header[8],
    ))
}

#[inline(always)]
fn v6(rest: &[u8], room: usize) -> Option<(Family, u16, u8, u8)> {
    let header: &[u8; 40] = rest.first_chunk()?;
    let ip_len = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    // Unspecified, loopback and mapped addresses begin with eight zeros, as no other source does.
    let odd_source =
        header[8] == 0xff || header[8..16] == [0; 8] || header[8..24] == header[24..40];
    let plain = header[0] >> 4 == 6 && !odd_source;
    (plain && ip_len <= room && ip_len <= usize::from(u16::MAX)).then_some((
        Family::V6,
        ip_len as u16,
        header[6],
        header[7],
    ))
}

#[inline(always)]
fn tcp(l4: &[u8], l4_len: usize) -> Option<bool> {
    let header: &[u8; TCP_LEN] = l4.first_chunk().filter(|_| l4_len >= TCP_LEN)?;
    let header_len = usize::from(header[12] >> 4) * 4;
    let flags = header[13] & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN);
    (header_len >= TCP_LEN && header_len <= l4_len && has_ports(header)).then_some(flags == TCP_ACK)
}

#[inline(always)]
fn udp(l4: &[u8], l4_len: usize) -> Option<bool> {
    let header: &[u8; UDP_LEN] = l4.first_chunk().filter(|_| l4_len >= UDP_LEN)?;
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    (len >= UDP_LEN && len <= l4_len && has_ports(header)).then_some(true)
}

#[inline(always)]
const fn has_ports(l4: &[u8]) -> bool {
    (l4[0] != 0 || l4[1] != 0) && (l4[2] != 0 || l4[3] != 0)
}
