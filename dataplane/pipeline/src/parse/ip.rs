//! IPv4 (RFC 791) and IPv6 with its extension headers (RFC 8200).

use super::{Addresses, Fragment, ICMPV6, Parsed, be32, be128};
use crate::frame::{ChecksumReport, Frame};
use crate::rewrite::checksum;
use model::drops::DropReason;

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const EXTENSIONS_MAX: usize = 8;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

#[inline]
pub(super) fn parse_v4(
    bytes: &[u8],
    frame: &Frame<'_>,
    parsed: &mut Parsed,
) -> Result<(), DropReason> {
    let l3 = usize::from(parsed.l3);
    let rest = bytes.get(l3..).ok_or(DropReason::IpTruncated)?;
    let header: &[u8; IPV4_LEN] = rest.first_chunk().ok_or(DropReason::IpTruncated)?;
    if header[0] >> 4 != 4 {
        return Err(DropReason::IpVersion);
    }
    let header_len = usize::from(header[0] & 0x0f) * 4;
    if header_len < IPV4_LEN || header_len > rest.len() {
        return Err(DropReason::Ipv4HeaderLength);
    }
    let ip_len = u16::from_be_bytes([header[2], header[3]]);
    if usize::from(ip_len) < header_len || usize::from(ip_len) > frame.total_len() - l3 {
        return Err(DropReason::Ipv4TotalLength);
    }
    match frame.rx.ip_checksum {
        ChecksumReport::Good => {}
        ChecksumReport::Bad => return Err(DropReason::Ipv4Checksum),
        ChecksumReport::Unknown => {
            // Nearly all headers have no options: a sum of known length takes no loop.
            let sum = match header_len {
                IPV4_LEN => checksum::sum(header, 0),
                _ => checksum::sum(&rest[..header_len], 0),
            };
            if checksum::fold(sum) != 0xffff {
                return Err(DropReason::Ipv4Checksum);
            }
        }
    }
    let id = u32::from(u16::from_be_bytes([header[4], header[5]]));
    let flags = u16::from_be_bytes([header[6], header[7]]);
    let more = flags & 0x2000 != 0;
    let offset = usize::from(flags & 0x1fff) * 8;
    let payload = usize::from(ip_len) - header_len;
    parsed.fragment = fragment(id, offset, more, payload)?;
    parsed.l4 = (l3 + header_len) as u16;
    parsed.ip_len = ip_len;
    parsed.addresses = Addresses::V4 {
        source: be32(header, 12).ok_or(DropReason::IpTruncated)?,
        destination: be32(header, 16).ok_or(DropReason::IpTruncated)?,
    };
    parsed.protocol = header[9];
    parsed.ttl = header[8];
    Ok(())
}

#[inline]
pub(super) fn parse_v6(
    bytes: &[u8],
    frame: &Frame<'_>,
    parsed: &mut Parsed,
) -> Result<(), DropReason> {
    let l3 = usize::from(parsed.l3);
    let rest = bytes.get(l3..).ok_or(DropReason::IpTruncated)?;
    let header: &[u8; IPV6_LEN] = rest.first_chunk().ok_or(DropReason::IpTruncated)?;
    if header[0] >> 4 != 6 {
        return Err(DropReason::IpVersion);
    }
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let ip_len = IPV6_LEN + payload;
    if ip_len > frame.total_len() - l3 || ip_len > usize::from(u16::MAX) {
        return Err(DropReason::Ipv6PayloadLength);
    }
    parsed.l4 = (l3 + IPV6_LEN) as u16;
    parsed.ip_len = ip_len as u16;
    parsed.addresses = Addresses::V6 {
        source: be128(header, 8).ok_or(DropReason::IpTruncated)?,
        destination: be128(header, 24).ok_or(DropReason::IpTruncated)?,
    };
    parsed.protocol = header[6];
    parsed.ttl = header[7];
    if matches!(parsed.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS) {
        walk_extensions(rest, parsed, ip_len)?;
    }
    Ok(())
}

/// Follows the chain of extension headers to the transport header.
fn walk_extensions(rest: &[u8], parsed: &mut Parsed, ip_len: usize) -> Result<(), DropReason> {
    let bad = DropReason::Ipv6Extension;
    let mut at = IPV6_LEN;
    for _ in 0..EXTENSIONS_MAX {
        let header: &[u8; 8] = match parsed.protocol {
            HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS => {
                rest.get(at..).and_then(<[u8]>::first_chunk).ok_or(bad)?
            }
            _ => break,
        };
        let mut len = 8 + usize::from(header[1]) * 8;
        match parsed.protocol {
            // Type 0 lets a sender bounce packets between hosts (RFC 5095).
            ROUTING if header[2] == 0 && header[3] != 0 => return Err(bad),
            FRAGMENT => {
                len = 8;
                let flags = u16::from_be_bytes([header[2], header[3]]);
                let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                let offset = usize::from(flags & 0xfff8);
                if parsed.fragment != Fragment::No || at + len > ip_len {
                    return Err(DropReason::FragmentMalformed);
                }
                parsed.fragment = fragment(id, offset, flags & 1 != 0, ip_len - at - len)?;
                parsed.fragment_header = parsed.l3 + at as u16;
            }
            _ => {}
        }
        at += len;
        if at > ip_len || at > rest.len() {
            return Err(bad);
        }
        parsed.protocol = header[0];
        if matches!(parsed.fragment, Fragment::Later(_)) {
            break;
        }
    }
    if matches!(parsed.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
        && !matches!(parsed.fragment, Fragment::Later(_))
    {
        return Err(bad);
    }
    parsed.l4 = (usize::from(parsed.l3) + at) as u16;
    Ok(())
}

/// All fragments but the last hold a multiple of 8 bytes, and none reaches beyond 65,535.
fn fragment(id: u32, offset: usize, more: bool, payload: usize) -> Result<Fragment, DropReason> {
    if offset == 0 && !more {
        return Ok(Fragment::No);
    }
    let uneven = more && !payload.is_multiple_of(8);
    if payload == 0 || uneven || offset + payload > usize::from(u16::MAX) {
        return Err(DropReason::FragmentMalformed);
    }
    Ok(if offset == 0 { Fragment::First(id) } else { Fragment::Later(id) })
}

/// Sources that no host may have (RFC 1122 section 3.2.1.3, RFC 4291).
pub(super) fn check_source(parsed: &Parsed) -> Result<(), DropReason> {
    let (martian, land) = match parsed.addresses {
        Addresses::V4 { source, destination } => {
            let first = source >> 24;
            (first == 0 || first == 127 || first >= 224, source == destination)
        }
        Addresses::V6 { source, destination } => {
            // `::` asks whether an address is free (RFC 4862); `::ffff:0:0/96` is no wire address.
            let unspecified = source == 0 && parsed.protocol != ICMPV6;
            let mapped = source >> 32 == 0xffff;
            let multicast = source >> 120 == 0xff;
            (unspecified || mapped || multicast || source == 1, source == destination)
        }
    };
    if martian {
        Err(DropReason::SourceMartian)
    } else if land {
        Err(DropReason::Land)
    } else {
        Ok(())
    }
}
