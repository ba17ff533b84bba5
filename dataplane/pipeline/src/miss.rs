//! A packet without a connection: whose is it, and what is due?

use crate::answer::{self, Class, reject};
use crate::begin::{Beginning, begin};
use crate::claims;
use crate::connections::{Address, Found, Shard};
use crate::frame::{Frame, Verdict};
use crate::host::{to_host, to_host_as};
use crate::journey::Now;
use crate::parse::{Addresses, Fragment, Parsed, TCP, be16};
use crate::pipeline::Context;
use crate::tables::Tables;
pub use crate::whose::{Whose, whose};
use model::drops::DropReason;
use model::ids::InterfaceId;
use std::net::IpAddr;

/// A TCP or UDP packet without a connection: the new connection that it begins, or its verdict.
#[cold]
pub fn classify<A: Address>(
    shard: &mut Shard<A>,
    context: &mut Context,
    tables: &Tables,
    (frame, beginning): (&mut Frame<'_>, &Beginning<'_, A>),
    now: Now,
) -> Result<Found, Verdict> {
    let Beginning { parsed, key, .. } = *beginning;
    let source = key.source.to_ip();
    if !matches!(whose(tables, source), Whose::Nobody | Whose::LinkGroup) {
        return Err(Verdict::Drop(DropReason::SourceOwn));
    }
    let destination = key.destination.to_ip();
    if let Some(frontend) =
        tables.snapshot.find_frontend(destination, key.protocol, key.destination_port)
    {
        let begins = parsed.protocol != TCP || parsed.is_bare_syn();
        if matches!(parsed.fragment, Fragment::Later(_)) {
            return Err(Verdict::Drop(DropReason::FragmentUnknown));
        }
        if answer::is_to_group(frame) {
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
            return begin(shard, context, tables, (frame, beginning), frontend.service, now);
        }
        return Err(reject(context, tables, frame, parsed, now));
    }
    Err(match whose(tables, destination) {
        Whose::Local(_) | Whose::LinkGroup => to_host(context, tables, frame, parsed, now),
        Whose::Frontend | Whose::Nat => reject(context, tables, frame, parsed, now),
        Whose::Nobody => Verdict::Drop(DropReason::NotOurs),
    })
}

/// ARP: requests for what workers hold are answered here, the rest that concerns us is the host's.
#[cold]
pub fn arp(
    context: &mut Context,
    tables: &Tables,
    frame: &mut Frame<'_>,
    parsed: &Parsed,
    now: Now,
) -> Verdict {
    const REQUEST: u16 = 1;
    const REPLY: u16 = 2;
    let operation = be16(frame.bytes(), usize::from(parsed.l4));
    let Addresses::V4 { source, destination } = parsed.addresses else {
        return Verdict::Drop(DropReason::ArpMalformed);
    };
    let source_ip = parsed.addresses.source();
    if matches!(operation, Some(REQUEST | REPLY))
        && let Some(mac) = claims::arp_sender(frame, parsed)
        && context.claims.see(tables, (parsed.interface, source_ip, mac), now, || true)
    {
        return Verdict::Drop(DropReason::AddressClaimed);
    }
    match operation {
        Some(REPLY) => to_host_as(context, Class::HostNeighbour, frame, parsed, now),
        Some(REQUEST) if holds(tables, parsed.interface, parsed.addresses.destination()) => context
            .answer(Class::Neighbour, tables, (frame, parsed), now, |frame, interface| {
                answer::arp_reply(frame, parsed, interface)
            }),
        Some(REQUEST) => {
            let asked = parsed.addresses.destination();
            // A gratuitous request tells where its sender is now.
            if tables.adjacencies.is_local_on(parsed.interface, asked) || source == destination {
                to_host_as(context, Class::HostNeighbour, frame, parsed, now)
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
