//! Full NAT of a connection's packet (RFC 3022), with incremental checksums (RFC 1624).

use super::checksum::{self, Difference};
use super::link::write_adjacency;
use crate::adjacency::Adjacency;
use crate::connections::{Address, Direction, Entry, Flags};
use crate::forwarding::Kind;
use crate::frame::Frame;
use crate::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Fragment, Parsed, TCP, UDP, be16, put};
use crate::turn::Packet;
use model::ids::Family;

/// "Don't fragment" in an IPv4 header's flags.
const DONT_FRAGMENT: u16 = 0x4000;

const fn ethertype(family: Family) -> u16 {
    match family {
        Family::V4 => ETHERTYPE_IPV4,
        Family::V6 => ETHERTYPE_IPV6,
    }
}

/// A connection, as one of its packets travels along it.
#[derive(Clone, Copy, Debug)]
pub struct Leg<'a, A: Address> {
    /// How it is forwarded.
    pub kind: Kind,
    /// The connection.
    pub entry: &'a Entry<A>,
    /// The packet's way.
    pub direction: Direction,
}

/// A packet without options, extensions or fragments, whose network header begins at `l3`.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    /// Offset of the network header.
    pub l3: usize,
    /// The transport protocol's number.
    pub protocol: u8,
    /// TTL or hop limit, above 1.
    pub ttl: u8,
}

/// Rewrites such a packet: addresses, ports, TTL, checksums and the link header. False where the
/// frame has no room for the link header.
#[inline(always)]
pub fn translate_plain<A: Address>(
    frame: &mut Frame<'_>,
    plain: Plain,
    Leg { kind, entry, direction }: Leg<'_, A>,
    adjacency: &Adjacency,
) -> bool {
    let (addresses, all) = entry.differences(direction);
    let tuple = kind.rewritten(entry, direction);
    let bytes = frame.bytes_mut();
    if let Some(header) = bytes.get_mut(plain.l3..) {
        A::store(header, &tuple, plain.ttl - 1, addresses);
        if let Some(l4) = header.get_mut(A::HEADER_LEN..) {
            l4_checksum(l4, plain.protocol, all);
        }
    }
    write_adjacency(frame, plain.l3, adjacency, ethertype(A::FAMILY))
}

/// Rewrites any packet: addresses, ports, TTL and the link header. A fragment leaves with the
/// identification that its home gave it, lest two clients' packets that have the same one are put
/// together; `identification` is for a packet that routers may have to fragment. False where the frame has no room for the link header.
pub fn translate<A: Address>(
    Packet { frame, parsed }: &mut Packet<'_, '_>,
    Leg { kind, entry, direction }: Leg<'_, A>,
    adjacency: &Adjacency,
    identification: u16,
) -> bool {
    let (addresses, all) = entry.differences(direction);
    let key = A::key(&kind.rewritten(entry, direction));
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    if parsed.fragment != Fragment::No {
        let id = frame.rx.fragment_id;
        identify::<A>(frame, parsed, id);
    } else if entry.flags.has(Flags::MAY_FRAGMENT) && direction == Direction::ToClient {
        allow_fragments::<A>(frame, parsed, identification);
    }
    let (header, rest) = frame.bytes_mut().split_at_mut_checked(l4).unwrap_or_default();
    let header = header.get_mut(l3..).unwrap_or_default();
    match A::FAMILY {
        Family::V4 => {
            if let Some(header) = header.first_chunk_mut::<20>() {
                key.source.write(header, 12);
                key.destination.write(header, 16);
                header[8] = parsed.ttl - 1;
                let field = [header[10], header[11]];
                put(header, 10, &addresses.update(field, [Difference::TTL_LESS]));
            }
        }
        Family::V6 => {
            if let Some(header) = header.first_chunk_mut::<40>() {
                key.source.write(header, 8);
                key.destination.write(header, 24);
                header[7] = parsed.ttl - 1;
            }
        }
    }
    if !matches!(parsed.fragment, Fragment::Later(_)) {
        put(rest, 0, &key.source_port.to_be_bytes());
        put(rest, 2, &key.destination_port.to_be_bytes());
        l4_checksum(rest, parsed.protocol, all);
    }
    write_adjacency(frame, l3, adjacency, ethertype(A::FAMILY))
}

/// Gives a fragment another identification.
fn identify<A: Address>(frame: &mut Frame<'_>, parsed: &Parsed, id: u32) {
    let bytes = frame.bytes_mut();
    match A::FAMILY {
        Family::V4 => {
            let l3 = usize::from(parsed.l3);
            let (Some(old), Some(field)) = (be16(bytes, l3 + 4), be16(bytes, l3 + 10)) else {
                return;
            };
            let field = checksum::update(field, checksum::difference(old, id as u16));
            put(bytes, l3 + 4, &(id as u16).to_be_bytes());
            put(bytes, l3 + 10, &field.to_be_bytes());
        }
        Family::V6 if parsed.fragment_header != 0 => {
            put(bytes, usize::from(parsed.fragment_header) + 4, &id.to_be_bytes());
        }
        Family::V6 => {}
    }
}

/// Lets routers fragment an IPv4 packet, which needs an identification then.
fn allow_fragments<A: Address>(frame: &mut Frame<'_>, parsed: &Parsed, identification: u16) {
    let l3 = usize::from(parsed.l3);
    let bytes = frame.bytes_mut();
    let Some(flags) = be16(bytes, l3 + 6).filter(|_| A::FAMILY == Family::V4) else { return };
    if flags & DONT_FRAGMENT == 0 {
        return;
    }
    let (Some(id), Some(field)) = (be16(bytes, l3 + 4), be16(bytes, l3 + 10)) else { return };
    let change = checksum::add(
        checksum::difference(flags, flags & !DONT_FRAGMENT),
        checksum::difference(id, identification),
    );
    put(bytes, l3 + 4, &identification.to_be_bytes());
    put(bytes, l3 + 6, &(flags & !DONT_FRAGMENT).to_be_bytes());
    put(bytes, l3 + 10, &checksum::update(field, change).to_be_bytes());
}

/// The checksum of TCP or UDP, whose header is whole in a packet that parsed, after what it covers
/// has changed by `difference`.
#[inline(always)]
fn l4_checksum(l4: &mut [u8], protocol: u8, difference: Difference) {
    if protocol == TCP {
        let Some(tcp) = l4.first_chunk_mut::<18>() else { return };
        let field = difference.update([tcp[16], tcp[17]], []);
        (tcp[16], tcp[17]) = (field[0], field[1]);
    } else if protocol == UDP {
        let Some(udp) = l4.first_chunk_mut::<8>() else { return };
        let field = [udp[6], udp[7]];
        // UDP over IPv4 may go without (RFC 768); 0 then stays 0, and never comes out otherwise.
        if field != [0; 2] {
            let updated = difference.update(field, []);
            let updated = if updated == [0; 2] { [0xff; 2] } else { updated };
            (udp[6], udp[7]) = (updated[0], updated[1]);
        }
    }
}
