//! Full NAT of a connection's packet (RFC 3022), with incremental checksums (RFC 1624).

use super::checksum;
use super::link::write_link;
use crate::adjacency::Adjacency;
use crate::connections::{Address, Direction, Entry};
use crate::frame::Frame;
use crate::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Fragment, Parsed, TCP, UDP, be16, put};
use model::ids::Family;

/// Rewrites addresses, ports, TTL and the link header. False where the frame has no room for the
/// link header.
#[inline]
pub fn translate<A: Address>(
    frame: &mut Frame<'_>,
    parsed: &Parsed,
    entry: &Entry<A>,
    direction: Direction,
    adjacency: &Adjacency,
) -> bool {
    let (source, destination, source_port, destination_port) = match direction {
        Direction::ToBackend => (entry.nat, entry.backend, entry.nat_port, entry.backend_port),
        Direction::ToClient => {
            (entry.frontend, entry.client, entry.frontend_port, entry.client_port)
        }
    };
    let (address_difference, difference) = match direction {
        Direction::ToBackend => (entry.address_difference, entry.difference),
        Direction::ToClient => (!entry.address_difference, !entry.difference),
    };
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let bytes = frame.bytes_mut();
    let ethertype = match A::FAMILY {
        Family::V4 => {
            source.write(bytes, l3 + 12);
            destination.write(bytes, l3 + 16);
            bytes[l3 + 8] = parsed.ttl - 1;
            // TTL is the upper half of its word: one less takes 0x0100 off the sum.
            let change = checksum::add(address_difference, !0x0100);
            let field = be16(bytes, l3 + 10).unwrap_or(0);
            put(bytes, l3 + 10, &checksum::update(field, change).to_be_bytes());
            ETHERTYPE_IPV4
        }
        Family::V6 => {
            source.write(bytes, l3 + 8);
            destination.write(bytes, l3 + 24);
            bytes[l3 + 7] = parsed.ttl - 1;
            ETHERTYPE_IPV6
        }
    };
    if !matches!(parsed.fragment, Fragment::Later(_)) {
        put(bytes, l4, &source_port.to_be_bytes());
        put(bytes, l4 + 2, &destination_port.to_be_bytes());
        l4_checksum(bytes, l4, parsed.protocol, difference);
    }
    let macs = (adjacency.destination, adjacency.source);
    write_link(frame, l3, macs, adjacency.vlan, ethertype)
}

#[inline]
fn l4_checksum(bytes: &mut [u8], l4: usize, protocol: u8, difference: u16) {
    let at = match protocol {
        TCP => l4 + 16,
        UDP => l4 + 6,
        _ => return,
    };
    let field = be16(bytes, at).unwrap_or(0);
    // UDP over IPv4 may go without (RFC 768); 0 then stays 0, and never comes out otherwise.
    if protocol == UDP && field == 0 {
        return;
    }
    let mut updated = checksum::update(field, difference);
    if protocol == UDP && updated == 0 {
        updated = 0xffff;
    }
    put(bytes, at, &updated.to_be_bytes());
}
