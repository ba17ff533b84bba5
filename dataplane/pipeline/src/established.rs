//! A packet of a connection that is in the table: the slow lane, which asks everything. What the
//! fast lane of `journey.rs` leaves out, it leaves to this.

use crate::adjacency::Adjacency;
use crate::answer::{Class, IcmpError, refuse, reject_as};
use crate::connections::{Address, Cold, Direction, Entry, Flags, Found, NO_SLOT, Shard};
use crate::forwarding::Life;
use crate::frame::Verdict;
use crate::journey::Now;
use crate::judge;
use crate::next_hops;
use crate::parse::{Parsed, TCP_RST};
use crate::pipeline::Context;
use crate::rewrite::{Leg, translate};
use crate::sweep;
use crate::tables::Tables;
use crate::turn::{Packet, Turn};
use model::desired::BackendState;
use model::drops::DropReason;
use model::record::ConnectionState;
use std::sync::atomic::{Ordering::SeqCst, compiler_fence};

/// What a connection that was found is to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// The packet goes on it.
    Live,
    /// Its backend has gone for so long that the client gets a RST.
    Due,
    /// None: it has been taken out, as its time was over, or it had to end.
    Over,
    /// A SYN begins anew in its place.
    Anew,
    /// A SYN that may be forged, on a connection whose backend takes no new one: its client is asked.
    InDoubt,
    /// A SYN of a client that may not begin a connection any more.
    NotAllowed,
    /// A backend's packet, by an interface that isn't for backends.
    FromFront,
}

/// What the connection that was found is to the packet.
pub fn validity<A: Address>(
    shard: &mut Shard<A>,
    turn: &Turn<'_>,
    parsed: &Parsed,
    found: Found,
) -> Validity {
    if found.direction == Direction::ToClient && !next_hops::is_back(turn.tables, parsed.interface)
    {
        return Validity::FromFront;
    }
    let validity = current(shard, turn, found.entry);
    if validity == Validity::Over || found.direction == Direction::ToClient {
        // What the backend still sends is the client's to answer, and so to get its RST.
        return if validity == Validity::Over { validity } else { Validity::Live };
    }
    if parsed.is_bare_syn() {
        return syn(shard, turn.tables, found.entry);
    }
    match validity {
        Validity::Due if parsed.tcp_flags & TCP_RST != 0 => Validity::Live,
        other => other,
    }
}

/// A SYN of the client on its connection. The backend judges it, while it takes new connections;
/// after both FINs it begins anew.
fn syn<A: Address>(shard: &Shard<A>, tables: &Tables, at: u32) -> Validity {
    use ConnectionState::{Due, TimeWait};
    let Some((entry, cold)) = shard.whole(at) else { return Validity::Over };
    let Some(state) = entry.state() else { return Validity::Over };
    let client = entry.client_key();
    let frontend = tables.snapshot.find_frontend(
        client.destination.to_ip(),
        client.protocol,
        client.destination_port,
    );
    if frontend.is_some_and(|frontend| !frontend.admits(client.source.to_ip())) {
        return Validity::NotAllowed;
    }
    let backend = tables.snapshot.backend(entry.backend_id(cold));
    let active = backend.is_some_and(|backend| backend.state == BackendState::Active);
    match state {
        TimeWait | Due => Validity::Anew,
        _ if active => Validity::Live,
        _ if state.is_half_open() => Validity::Anew,
        _ => Validity::InDoubt,
    }
}

/// How a connection that was found stands, validated under the current tables. It has been taken
/// out where its time was over or it had to end.
pub fn current<A: Address>(shard: &mut Shard<A>, turn: &Turn<'_>, at: u32) -> Validity {
    if shard.is_over(at, turn.now.ms, &turn.context.timeouts) {
        shard.remove(at);
    }
    let Some(entry) = shard.entry(at).filter(|entry| entry.is_used()) else {
        return Validity::Over;
    };
    if entry.state() == Some(ConnectionState::Due) {
        return Validity::Due;
    }
    if entry.backend_stamp == turn.tables.backend_stamp(entry.backend_slot)
        && (entry.routes_stamp == turn.tables.routes_stamp()
            || next_hops::still_hold(shard, turn.tables, at))
    {
        return Validity::Live;
    }
    revalidate(shard, turn, at)
}

/// Looks at a connection again as its backend or a route has changed. It has to end where it is UDP
/// towards a backend that no longer serves. TCP is never ended by an update.
#[cold]
fn revalidate<A: Address>(shard: &mut Shard<A>, turn: &Turn<'_>, at: u32) -> Validity {
    let Some((entry, cold)) = shard.whole_mut(at) else { return Validity::Over };
    turn.context.counters.revalidations.add(1);
    let backend = turn.tables.snapshot.backend(entry.backend_id(cold));
    let serves = backend.is_some_and(|backend| backend.state != BackendState::Unserving);
    if entry.life() == Some(Life::Udp) && !serves {
        shard.remove(at);
        return Validity::Over;
    }
    next_hops::find(turn.tables, entry, cold);
    if backend.is_none() {
        leave(turn.tables, entry, cold, turn.now);
    }
    // Its slot may have a new holder, whose counters aren't this connection's.
    if turn.tables.snapshot.service(entry.service_id(cold)).is_none() {
        entry.service_slot = NO_SLOT;
    }
    entry.backend_stamp = turn.tables.validated_stamp(entry.backend_slot);
    entry.routes_stamp = turn.tables.routes_stamp();
    Validity::Live
}

/// The connection's backend has gone: nobody counts under its slot any more, which may have a new
/// holder, and the time runs after which a TCP client gets its RST.
pub fn leave<A: Address>(tables: &Tables, entry: &mut Entry<A>, cold: &mut Cold<A>, now: Now) {
    use ConnectionState::{CloseWait, Established, FinWait, LastAck, Reset, SynReceived};
    if entry.backend_slot == NO_SLOT {
        return;
    }
    let after_s = tables.snapshot.reset_after_s(entry.backend_id(cold), entry.service_id(cold));
    let lives = matches!(
        entry.state(),
        Some(SynReceived | Established | FinWait | CloseWait | LastAck | Reset)
    );
    if let (true, 0, Some(after_s)) = (lives, cold.reset_s, after_s) {
        // A second more, since this one has begun.
        cold.reset_s = now.seconds().saturating_add(after_s).saturating_add(1);
    }
    // Whoever finds the memory after this process has died between the two does all of it again.
    compiler_fence(SeqCst);
    entry.backend_slot = NO_SLOT;
}

/// The client learns by a RST that its backend has gone, and the connection ends.
#[cold]
pub fn reset_client<A: Address>(
    shard: &mut Shard<A>,
    turn: &mut Turn<'_>,
    packet: &mut Packet<'_, '_>,
    found: Found,
) -> Verdict {
    let verdict = reject_as(Class::Reset, turn, packet);
    if matches!(verdict, Verdict::Answer(_)) {
        turn.context.counters.resets.add(1);
        shard.remove(found.entry);
    }
    verdict
}

/// A SYN that may be forged is not forwarded: its client is sent a segment that it answers by a RST if
/// it has begun anew (RFC 9293 section 3.10.7.3), and otherwise by one that tells that it lives.
#[cold]
pub fn ask<A: Address>(shard: &mut Shard<A>, turn: &mut Turn<'_>, found: Found) -> Verdict {
    sweep::challenged(shard, turn, found.entry, Direction::ToClient, Class::Doubt);
    Verdict::Drop(DropReason::SynInDoubt)
}

/// Forwards the packet on its connection.
pub fn forward<A: Address>(
    shard: &mut Shard<A>,
    turn: &mut Turn<'_>,
    packet: &mut Packet<'_, '_>,
    found: Found,
) -> Verdict {
    let parsed = packet.parsed;
    if parsed.ttl <= 1 {
        return refuse(turn, packet, IcmpError::TimeExceeded);
    }
    let Some((entry, cold)) = shard.whole_mut(found.entry) else {
        return Verdict::Drop(DropReason::TableFull);
    };
    if found.direction == Direction::ToBackend {
        next_hops::follow_client(turn, packet, entry);
    }
    let adjacency = match next_hops::next_hop(turn, entry, cold, found.direction) {
        Ok(adjacency) => adjacency,
        Err(reason) => return Verdict::Drop(reason),
    };
    if parsed.ip_len > adjacency.mtu {
        return refuse(turn, packet, IcmpError::TooBig(adjacency.mtu));
    }
    entry.last_seen_ms = turn.now.ms as u32;
    count(turn.context, entry, parsed.ip_len, found.direction);
    judge::judge(shard, turn, packet, found);
    send(shard, turn.context, packet, found, &adjacency)
}

/// Forwards the packet that has begun its connection: all that is asked of one was asked when it
/// began.
pub fn forward_first<A: Address>(
    shard: &mut Shard<A>,
    turn: &mut Turn<'_>,
    packet: &mut Packet<'_, '_>,
    found: Found,
) -> Verdict {
    let Some(entry) = shard.entry_mut(found.entry) else {
        return Verdict::Drop(DropReason::TableFull);
    };
    next_hops::follow_client(turn, packet, entry);
    count(turn.context, entry, packet.parsed.ip_len, found.direction);
    let Some(adjacency) = turn.tables.adjacencies.adjacency(entry.adjacency(found.direction))
    else {
        return Verdict::Drop(DropReason::NeighbourUnresolved);
    };
    send(shard, turn.context, packet, found, adjacency)
}

/// Rewrites the packet for the next hop.
fn send<A: Address>(
    shard: &Shard<A>,
    context: &mut Context,
    packet: &mut Packet<'_, '_>,
    found: Found,
    adjacency: &Adjacency,
) -> Verdict {
    let Some(entry) = shard.entry(found.entry) else {
        return Verdict::Drop(DropReason::TableFull);
    };
    let Some(kind) = entry.kind() else {
        return Verdict::Drop(DropReason::TableFull);
    };
    let may_fragment = entry.flags.has(Flags::MAY_FRAGMENT);
    let identification = if may_fragment { context.next_identification() } else { 0 };
    if translate(packet, Leg { kind, entry, direction: found.direction }, adjacency, identification)
    {
        Verdict::Send(adjacency.port)
    } else {
        Verdict::Drop(DropReason::TransmitOversize)
    }
}

/// Counts a packet by its service port and backend.
#[inline(always)]
pub fn count<A: Address>(context: &Context, entry: &Entry<A>, ip_len: u16, direction: Direction) {
    let counters = &context.counters;
    let bytes = u64::from(ip_len);
    if let Some(service) = counters.services.get(entry.service_slot as usize) {
        match direction {
            Direction::ToBackend => {
                service.packets_in.add(1);
                service.bytes_in.add(bytes);
            }
            Direction::ToClient => {
                service.packets_out.add(1);
                service.bytes_out.add(bytes);
            }
        }
    }
    if let Some(backend) = counters.backends.get(entry.backend_slot as usize) {
        match direction {
            Direction::ToBackend => backend.packets_in.add(1),
            Direction::ToClient => backend.packets_out.add(1),
        }
    }
}
