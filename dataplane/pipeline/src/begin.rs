//! A connection begins: which backend, which NAT port, and the entry that keeps both.

use crate::adjacency::{AdjacencyRef, Hop};
use crate::answer;
use crate::arch::memory::Plain;
use crate::connections::{
    Address, Direction, Entry, Found, Key, NO_ADJACENCY, Shard, choose_nat_port,
};
use crate::frame::{Frame, Verdict};
use crate::journey::Now;
use crate::mirror::Purpose;
use crate::miss::reject;
use crate::parse::Parsed;
use crate::pipeline::Context;
use crate::select::{AffinityTable, keyed};
use crate::snapshot::Service;
use crate::tables::Tables;
use model::desired::{BackendState, Refusal};
use model::drops::DropReason;
use model::ids::BackendId;
use model::record::ConnectionState;

/// The backend that a new connection gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picked {
    /// The backend.
    pub backend: BackendId,
    /// Seconds for which affinity would have kept it; `None` where the hash chose.
    pub sticky_s: Option<u32>,
}

/// Selects a backend and a NAT port, and puts the connection in.
pub fn begin<A: Address>(
    shard: &mut Shard<A>,
    context: &mut Context,
    tables: &Tables,
    (frame, parsed, key): (&mut Frame<'_>, &Parsed, &Key<A>),
    service: &Service,
    now: Now,
) -> Result<Found, Verdict>
where
    Entry<A>: Plain,
{
    let Some(picked) = pick((&context.affinity, context.selection_key), tables, service, key, now)
    else {
        if let Some(counters) = context.counters.services.get(service.id.slot as usize) {
            counters.refused.add(1);
        }
        return Err(match service.refusal[A::FAMILY.index()] {
            Refusal::Reject => reject(context, tables, frame, parsed, now),
            Refusal::Drop => Verdict::Drop(DropReason::NoBackend),
        });
    };
    let drop = |reason| Verdict::Drop(reason);
    let backend = tables.snapshot.backend(picked.backend).ok_or(drop(DropReason::NoBackend))?;
    let address = A::from_ip(backend.address.ip()).ok_or(drop(DropReason::NoBackend))?;
    let adjacencies = &tables.adjacencies;
    let to_backend =
        adjacencies.hop(backend.address.ip(), backend.via).ok_or(drop(DropReason::NoRoute))?;
    let to_client = adjacencies.hop(key.source.to_ip(), None).ok_or(drop(DropReason::NoRoute))?;
    let blocks = tables.steer.blocks(context.worker, to_backend.interface, A::FAMILY);
    if blocks.is_empty() {
        return Err(drop(DropReason::NatUnconfigured));
    }
    let random = context.random();
    let to = (address, backend.address.port(), key.protocol);
    let nat = choose_nat_port(shard, blocks, to, random, now.ms, &context.timeouts)
        .ok_or(drop(DropReason::NatPortsExhausted))?;
    learn_client(context, frame, parsed, &to_client, now);
    let adjacency = |of: Option<AdjacencyRef>| of.map_or(NO_ADJACENCY, |of| of.id.0);
    let mut entry = Entry {
        client: key.source,
        frontend: key.destination,
        backend: address,
        nat: nat.address,
        client_port: key.source_port,
        frontend_port: key.destination_port,
        backend_port: backend.address.port(),
        nat_port: nat.port,
        last_seen_ms: now.ms as u32,
        created_s: now.seconds(),
        stamp: tables.stamp(),
        backend_slot: picked.backend.slot,
        backend_generation: picked.backend.generation,
        service_slot: service.id.slot,
        service_generation: service.id.generation,
        client_adjacency: adjacency(to_client.adjacency),
        backend_adjacency: adjacency(to_backend.adjacency),
        protocol: key.protocol,
        state: ConnectionState::Embryonic as u8,
        ..Entry::default()
    };
    entry.set_differences();
    let (at, evicted) = shard.insert(entry).map_err(|_| drop(DropReason::TableFull))?;
    keep(context, service, key, picked, now);
    let counters = &context.counters;
    counters.inserts.add(1);
    counters.embryonic_evicted.add(u64::from(evicted) + u64::from(nat.evicted));
    if let Some(service) = counters.services.get(service.id.slot as usize) {
        service.connections.add(1);
    }
    if let Some(backend) = counters.backends.get(picked.backend.slot as usize) {
        backend.connections.add(1);
    }
    Ok(Found { entry: at, direction: Direction::ToBackend })
}

/// A client on the link told its MAC with this very packet.
fn learn_client(
    context: &mut Context,
    frame: &Frame<'_>,
    parsed: &Parsed,
    to_client: &Hop,
    now: Now,
) {
    let on_link = to_client.adjacency.is_none()
        && to_client.address == parsed.addresses.source()
        && to_client.interface == parsed.interface;
    if on_link {
        let mac = answer::sender(frame);
        if context.learned.learn(parsed.interface, to_client.address, mac) {
            context.request(parsed.interface, to_client.address, Purpose::Seen(mac), now);
        }
    }
}

/// The backend that a new connection gets; `None` where no backend is active. Changes nothing.
pub fn pick<A: Address>(
    (affinity, selection_key): (&AffinityTable, u64),
    tables: &Tables,
    service: &Service,
    key: &Key<A>,
    now: Now,
) -> Option<Picked> {
    let chosen = |hash| service.table(A::FAMILY).select(hash);
    let maglev = |backend| Picked { backend, sticky_s: None };
    if service.affinity_s.is_none() {
        return chosen(selection_hash(key, selection_key)).map(maglev);
    }
    let client = affinity.client(service.id, key.source.words());
    if let Some(sticky) = affinity.find(client, now.seconds())
        && tables.snapshot.backend(sticky.backend).is_some_and(|backend| {
            backend.state == BackendState::Active && backend.service == service.id
        })
    {
        return Some(Picked { backend: sticky.backend, sticky_s: Some(sticky.left_s) });
    }
    // The same on every gateway, whatever the client's port and the frontend.
    let (a, b) = key.source.words();
    chosen(keyed(selection_key, a, b, 0)).map(maglev)
}

/// The client keeps the backend of its new connection.
fn keep<A: Address>(context: &Context, service: &Service, key: &Key<A>, picked: Picked, now: Now) {
    let Some(timeout_s) = service.affinity_s else { return };
    let client = context.affinity.client(service.id, key.source.words());
    let kept = context.affinity.keep(client, picked.backend, now.seconds(), timeout_s);
    let counters = &context.counters;
    match (picked.sticky_s, kept) {
        (Some(_), _) => counters.affinity_hits.add(1),
        (None, Ok(())) => counters.affinity_begun.add(1),
        (None, Err(_)) => counters.affinity_full.add(1),
    }
}

/// The hash that selects a backend: over all five fields, under the key that gateways share.
fn selection_hash<A: Address>(key: &Key<A>, selection_key: u64) -> u64 {
    let (a, b) = key.source.words();
    let (c, d) = key.destination.words();
    let ports = u64::from(key.source_port) << 24
        | u64::from(key.destination_port) << 8
        | u64::from(key.protocol);
    keyed(selection_key, keyed(selection_key, a, b, ports), c, d)
}
