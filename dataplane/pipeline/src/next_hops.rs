//! The next hops of a connection, found when it begins and again when routes change. The one towards
//! the backend is the connection's own for life, also when no snapshot knows the backend.

use crate::adjacency::{Adjacency, AdjacencyRef, Hop, Mac};
use crate::answer::{self, Class};
use crate::connections::{Address, Cold, Direction, Entry, Flags, Shard};
use crate::frame::Frame;
use crate::journey::Now;
use crate::mirror::{NeighbourRequest, Purpose};
use crate::parse::Parsed;
use crate::pipeline::Context;
use crate::tables::Tables;
use crate::turn::{Packet, Turn};
use model::drops::DropReason;
use model::ids::InterfaceId;
use model::record::ConnectionState;
use std::net::IpAddr;

/// The next hop towards a backend: never by an interface that isn't for backends, where a default
/// route would take it to the clients' side.
#[inline(always)]
pub fn to_backend(tables: &Tables, address: IpAddr, via: Option<IpAddr>) -> Option<Hop> {
    let hop = tables.adjacencies.hop(address, via)?;
    is_back(tables, hop.interface).then_some(hop)
}

/// True for an interface that backends are behind.
#[inline]
pub fn is_back(tables: &Tables, interface: InterfaceId) -> bool {
    tables.adjacencies.interface(interface).is_some_and(|interface| interface.role.is_back())
}

/// Finds both ways anew. Where the backend has gone, or has no way any more, the one it had stays.
pub fn find<A: Address>(tables: &Tables, entry: &mut Entry<A>, cold: &mut Cold<A>) {
    let backend = tables.snapshot.backend(entry.backend_id(cold));
    let hop = backend.and_then(|held| to_backend(tables, held.address.ip(), held.via));
    let hop = hop.and_then(|hop| Some((hop, A::from_ip(hop.address)?)));
    if let Some((hop, address)) = hop {
        cold.next_hop = address.to_wire();
        cold.next_hop_interface = hop.interface.0;
    }
    entry.set_flag(Flags::OWN_NEXT_HOP, hop.is_none());
    let (interface, address) = cold.next_hop();
    let back = is_back(tables, interface);
    entry.backend_adjacency =
        if back { found(tables, interface, address) } else { AdjacencyRef::NONE };
    let client = tables.adjacencies.hop(entry.client_key().source.to_ip(), None);
    entry.client_adjacency = client.and_then(|hop| hop.adjacency).unwrap_or(AdjacencyRef::NONE);
}

/// True where no route has changed that the connection uses: it is the current routes' from then on.
#[cold]
pub fn still_hold<A: Address>(shard: &mut Shard<A>, tables: &Tables, at: u32) -> bool {
    let Some((entry, cold)) = shard.whole_mut(at) else { return false };
    let uses =
        [entry.client_key().source.to_ip(), entry.reply_key().source.to_ip(), cold.next_hop().1];
    let hold = tables.adjacencies.routes_hold(entry.routes_stamp, uses);
    if hold {
        entry.routes_stamp = tables.routes_stamp();
    }
    hold
}

fn found(tables: &Tables, interface: InterfaceId, address: IpAddr) -> AdjacencyRef {
    tables.adjacencies.find(interface, address).unwrap_or(AdjacencyRef::NONE)
}

/// The adjacency that the connection's packets leave by which travel this way.
#[inline]
pub fn next_hop<A: Address>(
    turn: &mut Turn<'_>,
    entry: &mut Entry<A>,
    cold: &Cold<A>,
    direction: Direction,
) -> Result<Adjacency, DropReason> {
    match turn.tables.adjacencies.adjacency(entry.adjacency(direction)) {
        Some(adjacency) => Ok(*adjacency),
        None => unresolved(turn, entry, cold, direction),
    }
}

/// The adjacency isn't that of the connection's next hop any more, or wasn't known: it is looked for
/// again. A client on the link may have told its MAC itself; anything else is asked for.
#[cold]
fn unresolved<A: Address>(
    turn: &mut Turn<'_>,
    entry: &mut Entry<A>,
    cold: &Cold<A>,
    direction: Direction,
) -> Result<Adjacency, DropReason> {
    let (interface, address) = match direction {
        Direction::ToBackend => {
            let (interface, address) = cold.next_hop();
            if !is_back(turn.tables, interface) {
                return Err(DropReason::NoRoute);
            }
            (interface, address)
        }
        Direction::ToClient => {
            let hop = turn.tables.adjacencies.hop(entry.client_key().source.to_ip(), None);
            let hop = hop.ok_or(DropReason::NoRoute)?;
            (hop.interface, hop.address)
        }
    };
    let known = found(turn.tables, interface, address);
    let published = turn.tables.adjacencies.adjacency(known);
    // What a client's own packet told is newer, until it is published.
    let fixed = published.is_some_and(Adjacency::is_fixed);
    let told = (direction == Direction::ToClient && !fixed)
        .then(|| {
            turn.context.learned.find(interface, address, published.map(Adjacency::destination))
        })
        .flatten();
    if let Some(adjacency) = published.filter(|_| told.is_none()) {
        turn.context.counters.revalidations.add(1);
        match direction {
            Direction::ToBackend => entry.backend_adjacency = known,
            Direction::ToClient => entry.client_adjacency = known,
        }
        return Ok(*adjacency);
    }
    let Some(mac) = told else {
        // A SYN with a forged source on the link asks for somebody who isn't there.
        let forged = direction == Direction::ToClient
            && address == entry.client_key().source.to_ip()
            && entry.state().is_some_and(ConnectionState::is_half_open);
        let class = if forged { Class::RequestHalfOpen } else { Class::Request };
        let request = NeighbourRequest { interface, address, purpose: Purpose::Resolve };
        turn.context.request(class, request, turn.now);
        return Err(DropReason::NeighbourUnresolved);
    };
    by_mac(turn.tables, interface, mac).ok_or(DropReason::NoRoute)
}

/// The adjacency of a station on the link of an interface.
fn by_mac(tables: &Tables, id: InterfaceId, destination: Mac) -> Option<Adjacency> {
    let interface = tables.adjacencies.interface(id)?;
    Some(Adjacency::new(id, interface, destination))
}

/// True where the client is on the link that its packet came by, and told its own MAC with it: a
/// router's is no client's.
pub fn is_on_link(parsed: &Parsed, to_client: &Hop) -> bool {
    to_client.address == parsed.addresses.source() && to_client.interface == parsed.interface
}

/// A client on the link that has another MAC than its adjacency, or none: its next packets go there.
/// A router's MAC is no client's, whatever source a packet claims.
pub fn follow_client<A: Address>(
    turn: &mut Turn<'_>,
    packet: &Packet<'_, '_>,
    entry: &mut Entry<A>,
) {
    let parsed = packet.parsed;
    if !entry.flags.has(Flags::CLIENT_ON_LINK) {
        return;
    }
    let Some(mac) = moved(turn.tables, packet.frame, entry) else { return };
    let client = parsed.addresses.source();
    if mac.is_multicast() || turn.tables.adjacencies.is_router_mac(parsed.interface, mac) {
        return;
    }
    entry.client_adjacency = AdjacencyRef::NONE;
    let published = found(turn.tables, parsed.interface, client);
    let published = turn.tables.adjacencies.adjacency(published).map(Adjacency::destination);
    if published == Some(mac) {
        turn.context.learned.forget(parsed.interface, client);
        return;
    }
    if turn.context.learned.learn(parsed.interface, client, mac, published)
        && entry.state().is_some_and(|state| !state.is_half_open())
    {
        tell(turn.context, parsed, mac, turn.now);
    }
}

/// The kernel is told of a verified client's MAC, where that isn't published.
pub fn tell_client<A: Address>(turn: &mut Turn<'_>, packet: &Packet<'_, '_>, entry: &Entry<A>) {
    if let Some(mac) = moved(turn.tables, packet.frame, entry)
        && !turn.tables.adjacencies.is_router_mac(packet.parsed.interface, mac)
    {
        tell(turn.context, packet.parsed, mac, turn.now);
    }
}

fn tell(context: &mut Context, parsed: &Parsed, mac: Mac, now: Now) {
    let (interface, address) = (parsed.interface, parsed.addresses.source());
    let request = NeighbourRequest { interface, address, purpose: Purpose::Seen(mac) };
    context.request(Class::Seen, request, now);
}

/// The MAC that a packet of a client on the link came from, where it isn't that of its adjacency. One
/// that an operator has set is the client's whatever its packets come from.
#[inline(always)]
pub fn moved<A: Address>(tables: &Tables, frame: &Frame<'_>, entry: &Entry<A>) -> Option<Mac> {
    let mac = answer::sender(frame);
    let known = tables.adjacencies.adjacency(entry.client_adjacency);
    known.is_none_or(|known| known.destination() != mac && !known.is_fixed()).then_some(mac)
}
