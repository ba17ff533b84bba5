//! A connection begins: which backend, which NAT port, and the entry that keeps both. Nothing is
//! kept for a packet that isn't forwarded.

use crate::adjacency::{Adjacency, AdjacencyRef, Hop};
use crate::answer::{self, Checked, IcmpError, refuse, reject};
use crate::connections::{
    Address, Cold, Direction, Entry, Flags, Found, Key, NatPort, Refusal, Shard, Wish,
    choose_nat_port,
};
use crate::forwarding::Owner;
use crate::frame::Verdict;
use crate::hash::keyed;
use crate::journey::Now;
use crate::judge::Segment;
use crate::next_hops;
use crate::parse::{Parsed, TCP};
use crate::pipeline::Context;
use crate::select::{AffinityTable, Target};
use crate::snapshot::Service;
use crate::steer::Block;
use crate::tables::Tables;
use crate::turn::{Packet, Turn};
use model::desired::{self, BackendState};
use model::drops::DropReason;
use model::ids::BackendId;
use model::record::ConnectionState;

/// The backend that a new connection gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picked {
    /// The backend.
    pub target: Target,
    /// Seconds for which affinity would have kept it; `None` where the hash chose.
    pub sticky_s: Option<u32>,
}

/// What a packet without a connection would begin, or begin anew.
#[derive(Clone, Copy, Debug)]
pub struct Beginning<'a, A: Address> {
    /// The packet's key.
    pub key: &'a Key<A>,
    /// The ended connection that has this key.
    pub instead_of: Option<u32>,
}

/// Where a new connection goes, and how.
struct Plan<'a, A: Address> {
    beginning: Beginning<'a, A>,
    service: &'a Service,
    picked: Picked,
    backend: (A, u16),
    to_backend: (Hop, A),
    to_client: Hop,
    /// What its first packet says, of TCP.
    first: Segment,
}

/// Selects a backend and a NAT port, and puts the connection in.
pub fn begin<A: Address>(
    shard: &mut Shard<A>,
    turn: &mut Turn<'_>,
    packet: &mut Packet<'_, '_>,
    beginning: Beginning<'_, A>,
    service: &Service,
) -> Result<Found, Verdict> {
    let drop = |reason| Verdict::Drop(reason);
    let Turn { tables, now, .. } = *turn;
    // Before cold memory is touched: what a flood brings ends here. Where there is no backend nothing
    // would begin, and clients are told so under the budget of answers.
    if !service.table(A::FAMILY).is_empty() {
        if !turn.context.may_begin(now) {
            return Err(drop(DropReason::NewConnectionsLimited));
        }
        if !shard.admits(beginning.key.protocol, now.ms) {
            return Err(drop(DropReason::HalfOpenFull));
        }
    }
    let choosing = turn.context.choosing(tables, now);
    let Some(picked) = choosing.pick(service, beginning.key) else {
        if let Some(counters) = turn.context.counters.services.get(service.id.slot as usize) {
            counters.refused.add(1);
        }
        return Err(match service.refusal[A::FAMILY.index()] {
            desired::Refusal::Reject => reject(turn, packet),
            desired::Refusal::Drop => Verdict::Drop(DropReason::NoBackend),
        });
    };
    let first = match beginning.key.protocol {
        TCP => Segment::read(packet.frame, packet.parsed),
        _ => Segment::default(),
    };
    let plan = plan(tables, beginning, service, picked, first).map_err(drop)?;
    let interface = plan.to_backend.0.interface;
    let blocks = tables.steer.blocks(turn.context.worker, interface, A::FAMILY);
    if service.kind.owner(Direction::ToClient) == Owner::PortLease && blocks.is_empty() {
        return Err(drop(DropReason::NatUnconfigured));
    }
    check(turn, packet, &plan)?;
    let nat = port(shard, turn, &plan, blocks).ok_or(drop(DropReason::NatPortsExhausted))?;
    insert(shard, turn, packet.parsed, &plan, nat)
}

#[inline(always)]
fn plan<'a, A: Address>(
    tables: &Tables,
    beginning: Beginning<'a, A>,
    service: &'a Service,
    picked: Picked,
    first: Segment,
) -> Result<Plan<'a, A>, DropReason> {
    let Target { address: socket, via, .. } = picked.target;
    let address = A::from_ip(socket.ip()).ok_or(DropReason::NoBackend)?;
    let to_backend = next_hops::to_backend(tables, socket.ip(), via);
    let to_backend = to_backend.ok_or(DropReason::NoRoute)?;
    let next_hop = A::from_ip(to_backend.address).ok_or(DropReason::NoRoute)?;
    let client = beginning.key.source.to_ip();
    let to_client = tables.adjacencies.hop(client, None).ok_or(DropReason::NoRoute)?;
    Ok(Plan {
        beginning,
        service,
        picked,
        backend: (address, socket.port()),
        to_backend: (to_backend, next_hop),
        to_client,
        first,
    })
}

/// The packet is one that will be forwarded: it may go on, fits, is right, and has a way.
fn check<A: Address>(
    turn: &mut Turn<'_>,
    packet: &mut Packet<'_, '_>,
    plan: &Plan<'_, A>,
) -> Result<(), Verdict> {
    let parsed = packet.parsed;
    if parsed.ttl <= 1 {
        return Err(refuse(turn, packet, IcmpError::TimeExceeded));
    }
    // What begins in the place of another changes that one: it is believed when it is verified.
    let anew = plan.beginning.instead_of.is_some();
    match answer::check(packet.frame, parsed) {
        Checked::Wrong => return Err(Verdict::Drop(DropReason::L4Checksum)),
        Checked::Unknown if anew => return Err(Verdict::Drop(DropReason::SynInDoubt)),
        Checked::Unknown | Checked::Right => {}
    }
    let hop = &plan.to_backend.0;
    let adjacency = hop.adjacency.and_then(|of| turn.tables.adjacencies.adjacency(of));
    let Some(Adjacency { mtu, .. }) = adjacency else {
        turn.context.resolve(hop, turn.now);
        return Err(Verdict::Drop(DropReason::NeighbourUnresolved));
    };
    if parsed.ip_len > *mtu {
        return Err(refuse(turn, packet, IcmpError::TooBig(*mtu)));
    }
    Ok(())
}

/// The NAT port: the one that the client had, where its connection has ended at the same backend,
/// which takes this SYN for a new one; else the next.
fn port<A: Address>(
    shard: &mut Shard<A>,
    turn: &mut Turn<'_>,
    plan: &Plan<'_, A>,
    blocks: &[Block],
) -> Option<NatPort<A>> {
    let opening = plan.first.opening();
    if let Some(at) = plan.beginning.instead_of
        && let Some((entry, cold)) = shard.whole(at)
    {
        let reply = entry.reply_key();
        if (reply.source, reply.source_port) == plan.backend
            && entry.state() == Some(ConnectionState::TimeWait)
            && opening.is_after(entry.flags, cold)
        {
            let (address, port) = (reply.destination, reply.destination_port);
            return Some(NatPort { address, port, instead_of: Some(at) });
        }
    }
    let wish = Wish {
        blocks,
        kind: plan.service.kind,
        backend: plan.backend,
        protocol: plan.beginning.key.protocol,
        opening,
    };
    let Context { numbers, timeouts, .. } = &mut *turn.context;
    choose_nat_port(shard, &wish, || numbers.draw(), turn.now.ms, timeouts, |_, _| true)
}

fn insert<A: Address>(
    shard: &mut Shard<A>,
    turn: &mut Turn<'_>,
    parsed: &Parsed,
    plan: &Plan<'_, A>,
    nat: NatPort<A>,
) -> Result<Found, Verdict> {
    let (Beginning { key, instead_of }, service) = (plan.beginning, plan.service);
    let kind = service.kind;
    let mut evicted = 0;
    for at in [instead_of, nat.instead_of].into_iter().flatten() {
        let state = shard.entry(at).and_then(Entry::state);
        evicted += u64::from(state.is_some_and(ConnectionState::is_half_open));
        shard.remove(at);
    }
    let reply = kind.reply_key(key.protocol, plan.backend, (nat.address, nat.port));
    let backend = plan.picked.target.id;
    let mut entry = Entry::new(key, &reply);
    entry.last_seen_ms = turn.now.ms as u32;
    entry.backend_slot = backend.slot;
    entry.backend_stamp = turn.tables.validated_stamp(backend.slot);
    entry.routes_stamp = turn.tables.routes_stamp();
    entry.service_slot = service.id.slot;
    entry.client_adjacency = plan.to_client.adjacency.unwrap_or(AdjacencyRef::NONE);
    entry.backend_adjacency = plan.to_backend.0.adjacency.unwrap_or(AdjacencyRef::NONE);
    entry.kind = kind as u8;
    entry.set_flag(Flags::CLIENT_ON_LINK, next_hops::is_on_link(parsed, &plan.to_client));
    let cold = Cold {
        next_hop: plan.to_backend.1.to_wire(),
        next_hop_interface: plan.to_backend.0.interface.0,
        created_s: turn.now.seconds(),
        // What the backend's answer acknowledges.
        last_sequence: plan.first.end(parsed.tcp_flags),
        backend_generation: backend.generation,
        service_generation: service.id.generation,
        ..Cold::default()
    };
    let state = kind.life(key.protocol).first_state();
    let (at, pushed) = shard.insert(entry, cold, state, turn.now.ms).map_err(|refusal| {
        Verdict::Drop(match refusal {
            Refusal::TableFull => DropReason::TableFull,
            Refusal::HalfOpenFull => DropReason::HalfOpenFull,
        })
    })?;
    if plan.picked.sticky_s.is_some() {
        keep(turn, service, key, backend, true);
    }
    turn.context.begun_by = plan.to_backend.0.interface;
    let counters = &turn.context.counters;
    counters.inserts.add(1);
    counters.half_open_evicted.add(u64::from(pushed) + evicted);
    if let Some(service) = counters.services.get(service.id.slot as usize) {
        service.connections.add(1);
    }
    if let Some(backend) = counters.backends.get(backend.slot as usize) {
        backend.connections.add(1);
    }
    Ok(Found { entry: at, direction: Direction::ToBackend })
}

/// Both sides have shown that they hear each other: what a forged source must not reach is kept
/// now, the client's backend for session affinity and the client's MAC.
pub fn verified<A: Address>(
    shard: &Shard<A>,
    turn: &mut Turn<'_>,
    packet: &Packet<'_, '_>,
    found: Found,
) {
    let Some((entry, cold)) = shard.whole(found.entry) else { return };
    let key = entry.client_key();
    if found.direction == Direction::ToBackend && entry.flags.has(Flags::CLIENT_ON_LINK) {
        next_hops::tell_client(turn, packet, entry);
    }
    let Some(service) = turn.tables.snapshot.service(entry.service_id(cold)) else { return };
    let backend = entry.backend_id(cold);
    if turn.tables.snapshot.backend(backend).is_some() {
        keep(turn, service, &key, backend, false);
    }
}

/// What a backend is chosen by, beside the packet and its service port.
#[derive(Clone, Copy, Debug)]
pub struct Choosing<'a> {
    /// Which backend clients had last.
    pub affinity: &'a AffinityTable,
    /// Keys the choice.
    pub selection_key: u64,
    /// What is published.
    pub tables: &'a Tables,
    /// The time.
    pub now: Now,
}

impl Choosing<'_> {
    /// The backend that a new connection gets; `None` where no backend is active. Changes nothing.
    #[inline(always)]
    pub fn pick<A: Address>(&self, service: &Service, key: &Key<A>) -> Option<Picked> {
        let chosen = |hash| {
            let target = *service.table(A::FAMILY).target(hash)?;
            Some(Picked { target, sticky_s: None })
        };
        let hash = Hashes::of(key, self.selection_key).at(service);
        if service.affinity_s.is_none() {
            return chosen(hash);
        }
        let client = self.affinity.client(service.id, key.source.words());
        if let Some(sticky) = self.affinity.find(client, self.now.seconds())
            && let Some(held) = self.tables.snapshot.backend(sticky.backend)
            && held.state == BackendState::Active
            && held.service == service.id
        {
            let target = Target { id: sticky.backend, address: held.address, via: held.via };
            return Some(Picked { target, sticky_s: Some(sticky.left_s) });
        }
        // The same on every gateway, whatever the client's port and the frontend.
        chosen(hash)
    }
}

/// The client keeps the backend of its connection: the one that it `had`, where that is so.
fn keep<A: Address>(
    turn: &Turn<'_>,
    service: &Service,
    key: &Key<A>,
    backend: BackendId,
    had: bool,
) {
    let Some(timeout_s) = service.affinity_s else { return };
    let (context, now) = (&*turn.context, turn.now);
    let client = context.affinity.client(service.id, key.source.words());
    let known = context.affinity.find(client, now.seconds());
    if !had && known.is_some_and(|known| known.backend == backend) {
        return;
    }
    let kept = context.affinity.keep(client, backend, now.seconds(), timeout_s);
    let counters = &context.counters;
    match (had, kept) {
        (true, _) => counters.affinity_hits.add(1),
        (false, Ok(())) => counters.affinity_begun.add(1),
        (false, Err(_)) => counters.affinity_full.add(1),
    }
}

/// What selects a backend, under the key that gateways share.
#[derive(Clone, Copy, Debug)]
pub struct Hashes {
    /// Over all five fields.
    by_connection: u64,
    /// Over the client's address alone.
    by_client: u64,
}

impl Hashes {
    /// Those of a packet.
    #[inline]
    pub fn of<A: Address>(key: &Key<A>, selection_key: u64) -> Self {
        let (a, b) = key.source.words();
        let (c, d) = key.destination.words();
        let ports = u64::from(key.source_port) << 24
            | u64::from(key.destination_port) << 8
            | u64::from(key.protocol);
        Self {
            by_connection: keyed(selection_key, keyed(selection_key, a, b, ports), c, d),
            by_client: keyed(selection_key, a, b, 0),
        }
    }
    /// The one that counts at a service port, where affinity doesn't know the client.
    #[inline]
    pub const fn at(self, service: &Service) -> u64 {
        if service.affinity_s.is_some() { self.by_client } else { self.by_connection }
    }
}
