//! A packet without a connection: whose is it, and what is due?

use crate::answer::{self, Class, reject};
use crate::begin::{Beginning, begin};
use crate::claims::{self, Claim};
use crate::connections::{Address, Found, Shard};
use crate::frame::Verdict;
use crate::host::{to_host, to_host_as};
use crate::parse::{Addresses, Fragment, TCP, be16};
use crate::tables::Tables;
use crate::turn::{Packet, Turn};
pub use crate::whose::{Whose, whose};
use model::drops::DropReason;
use model::ids::InterfaceId;
use std::net::IpAddr;

/// A TCP or UDP packet without a connection: the new connection that it begins, or its verdict.
#[cold]
pub fn classify<A: Address>(
    shard: &mut Shard<A>,
    turn: &mut Turn<'_>,
    packet: &mut Packet<'_, '_>,
    beginning: Beginning<'_, A>,
) -> Result<Found, Verdict> {
    let parsed = packet.parsed;
    let key = beginning.key;
    let source = key.source.to_ip();
    if !matches!(whose(turn.tables, source), Whose::Nobody | Whose::LinkGroup) {
        return Err(Verdict::Drop(DropReason::SourceOwn));
    }
    let destination = key.destination.to_ip();
    if let Some(frontend) =
        turn.tables.snapshot.find_frontend(destination, key.protocol, key.destination_port)
    {
        let begins = parsed.protocol != TCP || parsed.is_bare_syn();
        if matches!(parsed.fragment, Fragment::Later(_)) {
            return Err(Verdict::Drop(DropReason::FragmentUnknown));
        }
        if answer::is_to_group(packet.frame) {
            return Err(Verdict::Drop(DropReason::NotOurs));
        }
        // Silence, before anything could be told of the service port and its backends.
        if !frontend.admits(source) {
            return Err(Verdict::Drop(DropReason::SourceNotAllowed));
        }
        if begins && parsed.protocol == TCP && parsed.fragment != Fragment::No {
            return Err(Verdict::Drop(DropReason::SynFragment));
        }
        if begins {
            return begin(shard, turn, packet, beginning, frontend.service);
        }
        return Err(reject(turn, packet));
    }
    Err(match whose(turn.tables, destination) {
        Whose::Local(_) | Whose::LinkGroup => to_host(turn, packet),
        Whose::Frontend | Whose::Nat => reject(turn, packet),
        Whose::Nobody => Verdict::Drop(DropReason::NotOurs),
    })
}

/// ARP: requests for what workers hold are answered here, the rest that concerns us is the host's.
#[cold]
pub fn arp(turn: &mut Turn<'_>, packet: &mut Packet<'_, '_>) -> Verdict {
    let parsed = packet.parsed;
    const REQUEST: u16 = 1;
    const REPLY: u16 = 2;
    let operation = be16(packet.frame.bytes(), usize::from(parsed.l4));
    let Addresses::V4 { source, destination } = parsed.addresses else {
        return Verdict::Drop(DropReason::ArpMalformed);
    };
    let source_ip = parsed.addresses.source();
    if matches!(operation, Some(REQUEST | REPLY))
        && let Some(mac) = claims::arp_sender(packet.frame, parsed)
        && turn.context.claims.see(
            turn.tables,
            Claim { interface: parsed.interface, address: source_ip, mac },
            turn.now,
            || true,
        )
    {
        return Verdict::Drop(DropReason::AddressClaimed);
    }
    match operation {
        Some(REPLY) => to_host_as(Class::HostNeighbour, turn, packet),
        Some(REQUEST) if holds(turn.tables, parsed.interface, parsed.addresses.destination()) => {
            turn.answer(Class::Neighbour, packet, |packet, interface| {
                answer::arp_reply(packet.frame, parsed, interface)
            })
        }
        Some(REQUEST) => {
            let asked = parsed.addresses.destination();
            // A gratuitous request tells where its sender is now.
            if turn.tables.adjacencies.is_local_on(parsed.interface, asked) || source == destination
            {
                to_host_as(Class::HostNeighbour, turn, packet)
            } else {
                Verdict::Drop(DropReason::ArpNotOurs)
            }
        }
        _ => Verdict::Drop(DropReason::ArpMalformed),
    }
}

/// True where workers answer for this address on this interface: frontends on front ones, NAT
/// addresses on theirs. The host answers for its own addresses itself.
pub fn holds(tables: &Tables, interface: InterfaceId, address: IpAddr) -> bool {
    match whose(tables, address) {
        Whose::Frontend => {
            tables.adjacencies.interface(interface).is_some_and(|i| i.role.is_front())
        }
        Whose::Nat => tables.steer.nat_interface(address) == Some(interface),
        Whose::Local(_) | Whose::LinkGroup | Whose::Nobody => false,
    }
}
