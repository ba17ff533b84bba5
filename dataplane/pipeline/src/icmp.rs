//! ICMP, ICMPv6 and whatever else has no ports.

use crate::answer::{self, Class};
use crate::claims::{self, Claim};
use crate::connections::{Address, Direction, Flags, Key, Shard};
use crate::established::{self, Validity};
use crate::frame::{Frame, Verdict};
use crate::host::{to_host, to_host_as};
use crate::miss::{Whose, holds, whose};
use crate::next_hops;
use crate::parse::quoted::{Quoted, is_error, quoted};
use crate::parse::{Fragment, ICMP, ICMPV6, Parsed, be16, be32, be128};
use crate::pipeline::Context;
use crate::rewrite::{Leg, translate_error};
use crate::turn::{Packet, Turn};
use model::drops::DropReason;
use model::ids::Family;
use std::net::{IpAddr, Ipv6Addr};

const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Router and neighbour discovery and redirects: from the link alone, which their hop limit proves.
const DISCOVERY_TYPES: std::ops::RangeInclusive<u8> = 133..=137;

/// The fate of a packet without ports.
#[cold]
pub fn conclude<A: Address>(
    shard: &mut Shard<A>,
    turn: &mut Turn<'_>,
    packet: &mut Packet<'_, '_>,
) -> Verdict {
    let parsed = packet.parsed;
    let kind = packet.frame.bytes().get(usize::from(parsed.l4)).copied();
    let later = matches!(parsed.fragment, Fragment::Later(_));
    // Each ICMP belongs to its own family.
    let own = matches!((parsed.protocol, A::FAMILY), (ICMP, Family::V4) | (ICMPV6, Family::V6));
    let (Some(kind), false, true) = (kind, later, own) else {
        return other(turn, packet);
    };
    if parsed.protocol == ICMPV6 && DISCOVERY_TYPES.contains(&kind) {
        return neighbour_discovery(turn, packet, kind);
    }
    // `::` may take part in those alone (RFC 4291 section 2.5.2): nobody could be answered.
    if parsed.addresses.source().is_unspecified() {
        return Verdict::Drop(DropReason::SourceMartian);
    }
    if let Some(quoted) = quoted(packet.frame.bytes(), parsed)
        && let Some(verdict) = error(shard, turn, packet, &quoted)
    {
        return verdict;
    }
    let request = match parsed.protocol {
        ICMP => ECHO_REQUEST,
        _ => ECHO_REQUEST_V6,
    };
    match whose(turn.tables, parsed.addresses.destination()) {
        Whose::Local(_) | Whose::LinkGroup => to_host(turn, packet),
        Whose::Nobody => Verdict::Drop(DropReason::NotOurs),
        Whose::Frontend | Whose::Nat if kind == request => echo(turn, packet),
        Whose::Frontend | Whose::Nat if is_error(parsed.protocol, kind) => {
            Verdict::Drop(DropReason::IcmpUnmatched)
        }
        Whose::Frontend | Whose::Nat => Verdict::Drop(DropReason::IcmpUnsupported),
    }
}

/// A transport protocol that isn't forwarded: the host may want it.
fn other(turn: &mut Turn<'_>, packet: &mut Packet<'_, '_>) -> Verdict {
    match whose(turn.tables, packet.parsed.addresses.destination()) {
        Whose::Local(_) | Whose::LinkGroup => to_host(turn, packet),
        Whose::Nobody => Verdict::Drop(DropReason::NotOurs),
        Whose::Frontend | Whose::Nat if matches!(packet.parsed.fragment, Fragment::Later(_)) => {
            Verdict::Drop(DropReason::FragmentUnknown)
        }
        Whose::Frontend | Whose::Nat => Verdict::Drop(DropReason::ProtocolUnsupported),
    }
}

fn echo(turn: &mut Turn<'_>, packet: &mut Packet<'_, '_>) -> Verdict {
    // A fragmented request would need its fragments turned round one by one: the reply's checksum
    // covers them all, but none of them is there at once.
    if packet.parsed.fragment != Fragment::No || answer::is_to_group(packet.frame) {
        return Verdict::Drop(DropReason::IcmpUnsupported);
    }
    turn.answer(Class::Echo, packet, |packet, interface| {
        answer::echo(packet.frame, packet.parsed, interface)
    })
}

/// An ICMP error: translated where the packet that it quotes belongs to a connection of ours. The
/// error travels against the quoted packet, so its connection is found by the reversed key.
fn error<A: Address>(
    shard: &mut Shard<A>,
    turn: &mut Turn<'_>,
    packet: &mut Packet<'_, '_>,
    quoted: &Quoted,
) -> Option<Verdict> {
    let parsed = packet.parsed;
    let key = Key {
        source: A::from_ip(quoted.addresses.destination())?,
        destination: A::from_ip(quoted.addresses.source())?,
        source_port: quoted.destination_port,
        destination_port: quoted.source_port,
        protocol: quoted.protocol,
    };
    let found = shard.find_key(&key)?;
    // We sent the quoted packet from this address: an error to any other isn't about it.
    if parsed.addresses.destination() != quoted.addresses.source() {
        return None;
    }
    if established::current(shard, turn, found.entry) == Validity::Over {
        return None;
    }
    if parsed.ttl <= 1 {
        return Some(Verdict::Drop(DropReason::TtlExpired));
    }
    // The checksum comes after the token: what is looked at is as long as the packet.
    if !turn.context.may(Class::IcmpError, parsed.interface, turn.now) {
        return Some(Verdict::Drop(DropReason::IcmpLimited));
    }
    if !answer::verify(packet.frame, parsed) {
        return Some(Verdict::Drop(DropReason::L4Checksum));
    }
    let (entry, cold) = shard.whole_mut(found.entry)?;
    let direction = found.direction;
    if direction == Direction::ToBackend && is_too_narrow::<A>(turn.context, packet.frame, parsed) {
        entry.set_flag(Flags::MAY_FRAGMENT, A::FAMILY == Family::V4);
        return Some(Verdict::Drop(DropReason::PathMtuFloor));
    }
    let adjacency = match next_hops::next_hop(turn, entry, cold, direction) {
        Ok(adjacency) => adjacency,
        Err(reason) => return Some(Verdict::Drop(reason)),
    };
    // No error is sent about an error.
    if parsed.ip_len > adjacency.mtu {
        return Some(Verdict::Drop(DropReason::MtuExceeded));
    }
    let leg = Leg { kind: entry.kind()?, entry, direction };
    Some(if translate_error(packet.frame, parsed, quoted, leg, &adjacency) {
        Verdict::Send(adjacency.port)
    } else {
        Verdict::Drop(DropReason::TransmitOversize)
    })
}

/// True for a "packet too big" that asks for less than a backend shall be told: it keeps one path MTU
/// for all clients behind a NAT address, and one client, or a forger, would make it small for all.
/// Over IPv6 nobody may ask for less than 1280 (RFC 8200 section 5), and whoever asks for more is
/// right: routers can't fragment.
fn is_too_narrow<A: Address>(context: &Context, frame: &Frame<'_>, parsed: &Parsed) -> bool {
    const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
    const PACKET_TOO_BIG: u8 = 2;
    const IPV6_MTU_MIN: u32 = 1280;
    let error = frame.bytes().get(usize::from(parsed.l4)..).unwrap_or(&[]);
    match A::FAMILY {
        Family::V4 => {
            let mtu = be16(error, 6).unwrap_or(0);
            error.starts_with(&FRAGMENTATION_NEEDED) && mtu < context.path_mtu_min
        }
        Family::V6 => {
            let mtu = be32(error, 4).unwrap_or(0);
            error.first() == Some(&PACKET_TOO_BIG) && mtu < IPV6_MTU_MIN
        }
    }
}

/// Neighbour discovery (RFC 4861): solicitations for what workers hold are answered here, the rest
/// is the host's.
fn neighbour_discovery(turn: &mut Turn<'_>, packet: &mut Packet<'_, '_>, kind: u8) -> Verdict {
    let parsed = packet.parsed;
    let l4 = usize::from(parsed.l4);
    if parsed.ttl != 255 {
        return Verdict::Drop(DropReason::NdMalformed);
    }
    if claimed(turn, packet, kind) {
        return Verdict::Drop(DropReason::AddressClaimed);
    }
    if kind != SOLICITATION {
        return to_host_as(Class::HostNeighbour, turn, packet);
    }
    let code = packet.frame.bytes().get(l4 + 1).copied();
    let (Some(target), Some(0), true) =
        (be128(packet.frame.bytes(), l4 + 8), code, parsed.l4_len() >= 24)
    else {
        return Verdict::Drop(DropReason::NdMalformed);
    };
    let target_ip = IpAddr::V6(Ipv6Addr::from_bits(target));
    if turn.tables.adjacencies.is_local_on(parsed.interface, target_ip) {
        return to_host_as(Class::HostNeighbour, turn, packet);
    }
    if !holds(turn.tables, parsed.interface, target_ip) {
        return Verdict::Drop(DropReason::NdNotOurs);
    }
    turn.answer(Class::Neighbour, packet, |packet, interface| {
        answer::neighbour_advertisement(packet.frame, parsed, interface, target)
    })
}

/// True where another station advertises an address of ours, or solicits from it.
fn claimed(turn: &mut Turn<'_>, packet: &Packet<'_, '_>, kind: u8) -> bool {
    let parsed = packet.parsed;
    let address = match kind {
        ADVERTISEMENT => be128(packet.frame.bytes(), usize::from(parsed.l4) + 8)
            .map(|target| IpAddr::V6(Ipv6Addr::from_bits(target))),
        SOLICITATION => Some(parsed.addresses.source()),
        _ => None,
    };
    let Some(address) = address.filter(|_| parsed.l4_len() >= 24) else { return false };
    let Some(mac) = claims::discovery_sender(packet.frame, parsed, kind) else {
        return false;
    };
    // The checksum last: it is what costs, and only of what would be told.
    let claim = Claim { interface: parsed.interface, address, mac };
    turn.context.claims.see(turn.tables, claim, turn.now, || answer::verify(packet.frame, parsed))
}
