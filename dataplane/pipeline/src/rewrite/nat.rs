//! Full NAT of a connection's packet (RFC 3022), with incremental checksums (RFC 1624).

use super::checksum;
use super::link::write_adjacency;
use crate::adjacency::Adjacency;
use crate::connections::{Address, Direction, Entry};
use crate::frame::Frame;
use crate::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Fragment, Parsed, TCP, UDP, put};
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
    let (header, rest) = frame.bytes_mut().split_at_mut_checked(l4).unwrap_or_default();
    let header = header.get_mut(l3..).unwrap_or_default();
    let ethertype = match A::FAMILY {
        Family::V4 => {
            if let Some(header) = header.first_chunk_mut::<20>() {
                source.write(header, 12);
                destination.write(header, 16);
                header[8] = parsed.ttl - 1;
                // TTL is the upper half of its word: one less takes 0x0100 off the sum.
                let change = checksum::add(address_difference, !0x0100);
                let field = u16::from_be_bytes([header[10], header[11]]);
                put(header, 10, &checksum::update(field, change).to_be_bytes());
            }
            ETHERTYPE_IPV4
        }
        Family::V6 => {
            if let Some(header) = header.first_chunk_mut::<40>() {
                source.write(header, 8);
                destination.write(header, 24);
                header[7] = parsed.ttl - 1;
            }
            ETHERTYPE_IPV6
        }
    };
    if !matches!(parsed.fragment, Fragment::Later(_)) {
        l4_header(rest, parsed.protocol, (source_port, destination_port), difference);
    }
    write_adjacency(frame, l3, adjacency, ethertype)
}

/// Ports and checksum of TCP and UDP, whose headers are whole in a packet that parsed.
#[inline]
fn l4_header(l4: &mut [u8], protocol: u8, ports: (u16, u16), difference: u16) {
    if protocol == TCP {
        let Some(tcp) = l4.first_chunk_mut::<18>() else { return };
        put(tcp, 0, &ports.0.to_be_bytes());
        put(tcp, 2, &ports.1.to_be_bytes());
        let field = u16::from_be_bytes([tcp[16], tcp[17]]);
        put(tcp, 16, &checksum::update(field, difference).to_be_bytes());
    } else if protocol == UDP {
        let Some(udp) = l4.first_chunk_mut::<8>() else { return };
        put(udp, 0, &ports.0.to_be_bytes());
        put(udp, 2, &ports.1.to_be_bytes());
        let field = u16::from_be_bytes([udp[6], udp[7]]);
        // UDP over IPv4 may go without (RFC 768); 0 then stays 0, and never comes out otherwise.
        if field != 0 {
            let updated = checksum::update(field, difference);
            let updated = if updated == 0 { 0xffff } else { updated };
            put(udp, 6, &updated.to_be_bytes());
        }
    }
}
