//! An ICMP error about a connection: it and the packet that it quotes are translated, so that path
//! MTU discovery works through the gateway (RFC 5508 section 4.2).

use super::link::write_adjacency;
use super::{Leg, checksum};
use crate::adjacency::Adjacency;
use crate::connections::Address;
use crate::frame::Frame;
use crate::parse::quoted::Quoted;
use crate::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Parsed, TCP, UDP, be16, put};
use model::ids::Family;

/// Translates the error. `direction` is the way that the error travels: towards the backend when
/// a host on the client's side sent it. False where the frame has no room for the link header.
pub fn translate_error<A: Address>(
    frame: &mut Frame<'_>,
    parsed: &Parsed,
    quoted: &Quoted,
    Leg { kind, entry, direction }: Leg<'_, A>,
    adjacency: &Adjacency,
) -> bool {
    // The quoted packet travelled the other way: its receiver's side is where the error comes from.
    let key = A::key(&kind.rewritten(entry, direction));
    let (source, destination) = (key.source, key.destination);
    let (addresses, all) = entry.differences(direction);
    let (addresses, all) = (addresses.word(), all.word());
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let bytes = frame.bytes_mut();
    let end = bytes.len().min(parsed.end());
    let bytes = &mut bytes[..end];
    let before = icmp_sum(bytes, l4);
    inner(bytes, quoted, (destination, source), (addresses, all));
    put(bytes, quoted.l4, &key.destination_port.to_be_bytes());
    put(bytes, quoted.l4 + 2, &key.source_port.to_be_bytes());
    let mut change = checksum::difference(before, icmp_sum(bytes, l4));
    let ethertype = match A::FAMILY {
        Family::V4 => {
            outer_v4(bytes, l3, source, destination, parsed.ttl);
            ETHERTYPE_IPV4
        }
        Family::V6 => {
            let old = checksum::fold(checksum::sum(&bytes[l3 + 8..l3 + 40], 0));
            source.write(bytes, l3 + 8);
            destination.write(bytes, l3 + 24);
            bytes[l3 + 7] = parsed.ttl - 1;
            let new = checksum::add(source.sum(), destination.sum());
            change = checksum::add(change, checksum::difference(old, new));
            ETHERTYPE_IPV6
        }
    };
    let field = be16(bytes, l4 + 2).unwrap_or(0);
    put(bytes, l4 + 2, &checksum::update(field, change).to_be_bytes());
    write_adjacency(frame, l3, adjacency, ethertype)
}

/// The sum of the message without its checksum field.
fn icmp_sum(bytes: &[u8], l4: usize) -> u16 {
    let type_and_code = bytes.get(l4..l4 + 2).unwrap_or(&[]);
    let rest = bytes.get(l4 + 4..).unwrap_or(&[]);
    checksum::fold(checksum::sum(rest, checksum::sum(type_and_code, 0)))
}

/// Addresses and checksums of the quoted packet, which goes from `source` to `destination`.
fn inner<A: Address>(
    bytes: &mut [u8],
    quoted: &Quoted,
    (source, destination): (A, A),
    (addresses, all): (u16, u16),
) {
    let l3 = quoted.l3;
    match A::FAMILY {
        Family::V4 => {
            source.write(bytes, l3 + 12);
            destination.write(bytes, l3 + 16);
            let field = be16(bytes, l3 + 10).unwrap_or(0);
            put(bytes, l3 + 10, &checksum::update(field, addresses).to_be_bytes());
        }
        Family::V6 => {
            source.write(bytes, l3 + 8);
            destination.write(bytes, l3 + 24);
        }
    }
    // The quotation may end before the checksum.
    let at = match quoted.protocol {
        TCP => quoted.l4 + 16,
        UDP => quoted.l4 + 6,
        _ => return,
    };
    if let Some(field) = be16(bytes, at).filter(|field| quoted.protocol == TCP || *field != 0) {
        let updated = checksum::update(field, all);
        // For UDP 0 would mean that there is none.
        let never_zero = if quoted.protocol == UDP && updated == 0 { 0xffff } else { updated };
        put(bytes, at, &never_zero.to_be_bytes());
    }
}

fn outer_v4<A: Address>(bytes: &mut [u8], l3: usize, source: A, destination: A, ttl: u8) {
    let old = checksum::fold(checksum::sum(&bytes[l3 + 12..l3 + 20], 0));
    source.write(bytes, l3 + 12);
    destination.write(bytes, l3 + 16);
    bytes[l3 + 8] = ttl - 1;
    let new = checksum::add(source.sum(), destination.sum());
    let change = checksum::add(checksum::difference(old, new), !0x0100);
    let field = be16(bytes, l3 + 10).unwrap_or(0);
    put(bytes, l3 + 10, &checksum::update(field, change).to_be_bytes());
}
