//! Looking ahead: what the packets of a burst will need comes while others are thought about.
//! Nothing is decided here: what is found may be another's by the time that it is needed.

use crate::arch::prefetch;
use crate::begin::Hashes;
use crate::connections::{Address, Found, Key, Opening, Shard, Wish, prefetch_nat_port};
use crate::forwarding::Kind;
use crate::frame::Frame;
use crate::journey::{Now, Seen, Stage};
use crate::parse::TCP;
use crate::parse::lane::Lane;
use crate::pipeline::{Context, Pipeline};
use crate::select::Target;
use crate::snapshot::Service;
use crate::tables::Tables;
use model::ids::Family;
use model::limits::BURST_PACKETS_MAX;

/// A packet that most likely begins a connection.
struct First<'a> {
    family: Family,
    protocol: u8,
    /// Its service port.
    place: &'a Option<Service>,
    /// What may select its backend.
    hashes: Hashes,
    /// The service port, once it has come, and what does select.
    selected: Option<(&'a Service, u64)>,
}

impl Pipeline {
    /// Brings the entries, then what the entries point to, and for packets without one what their
    /// connection will begin with.
    #[inline(always)]
    pub(crate) fn look_ahead(
        &self,
        tables: &Tables,
        frames: &[Frame<'_>],
        seen: &mut [Seen],
        now: Now,
    ) {
        for seen in seen.iter_mut().filter(|seen| seen.stage == Stage::Fast) {
            seen.candidate = match seen.lane.family {
                Family::V4 => bring_entry(&self.v4, seen.hash),
                Family::V6 => bring_entry(&self.v6, seen.hash),
            };
        }
        let mut all = true;
        for seen in seen.iter() {
            let Some(found) = seen.candidate else {
                all = false;
                continue;
            };
            match seen.lane.family {
                Family::V4 => bring_targets(&self.v4, &self.context, tables, found),
                Family::V6 => bring_targets(&self.v6, &self.context, tables, found),
            }
        }
        if !all {
            self.look_ahead_for_firsts(tables, frames, seen, now);
        }
    }

    /// One pass for each line that leads to the next: frontend, service port, slot, backend, and what
    /// is kept of that.
    #[cold]
    fn look_ahead_for_firsts(
        &self,
        tables: &Tables,
        frames: &[Frame<'_>],
        seen: &[Seen],
        now: Now,
    ) {
        // In a flood nothing is brought for what will be refused.
        let refused = |lane: &Lane| match lane.family {
            Family::V4 => self.v4.refuses(lane.protocol, now.ms),
            Family::V6 => self.v6.refuses(lane.protocol, now.ms),
        };
        let without = || {
            let both = seen.iter().zip(frames);
            both.filter(|(seen, _)| seen.stage == Stage::Fast && seen.candidate.is_none()).filter(
                |(seen, _)| {
                    // What nothing can begin with is none of them.
                    let begins = seen.lane.protocol != TCP || !seen.lane.ordinary;
                    begins && !refused(&seen.lane)
                },
            )
        };
        for (seen, frame) in without() {
            match seen.lane.family {
                Family::V4 => bring_frontend::<u32>(tables, frame, &seen.lane),
                Family::V6 => bring_frontend::<u128>(tables, frame, &seen.lane),
            }
        }
        let mut firsts = [const { None }; BURST_PACKETS_MAX];
        let mut fresh = [0; 2];
        for (first, (seen, frame)) in firsts.iter_mut().zip(without()) {
            let (lane, key) = (&seen.lane, self.context.selection_key);
            *first = match lane.family {
                Family::V4 => bring_service(&self.v4, tables, frame, lane, key, &mut fresh[0]),
                Family::V6 => bring_service(&self.v6, tables, frame, lane, key, &mut fresh[1]),
            };
        }
        for first in firsts.iter_mut().flatten() {
            let Some(service) = first.place else { continue };
            let hash = first.hashes.at(service);
            service.table(first.family).prefetch_slot(hash);
            first.selected = Some((service, hash));
        }
        for first in firsts.iter().flatten() {
            let Some((service, hash)) = first.selected else { continue };
            service.table(first.family).prefetch_target(hash);
            if let Some(counters) = self.context.counters.services.get(service.id.slot as usize) {
                prefetch(counters);
            }
        }
        for (first, kind, target) in with_targets(&firsts) {
            if let Some(counters) = self.context.counters.backends.get(target.id.slot as usize) {
                prefetch(counters);
            }
            tables.snapshot.prefetch_backend(target.id.slot);
            match first.family {
                Family::V4 => bring_ports(&self.v4, first.protocol, kind, target),
                Family::V6 => bring_ports(&self.v6, first.protocol, kind, target),
            }
        }
        // Connections to the same backend get ports one after the other.
        let mut begun = [None; BURST_PACKETS_MAX];
        for (n, (first, kind, target)) in with_targets(&firsts).enumerate() {
            let nth = begun[..n].iter().filter(|id| **id == Some(target.id)).count() as u32;
            begun[n] = Some(target.id);
            match first.family {
                Family::V4 => self.bring_port(&self.v4, tables, first.protocol, kind, target, nth),
                Family::V6 => self.bring_port(&self.v6, tables, first.protocol, kind, target, nth),
            }
        }
    }
}

/// Those that have a backend, how they will be forwarded, and which it is.
fn with_targets<'a>(
    firsts: &'a [Option<First<'a>>],
) -> impl Iterator<Item = (&'a First<'a>, Kind, &'a Target)> {
    firsts.iter().flatten().filter_map(|first| {
        let (service, hash) = first.selected?;
        Some((first, service.kind, service.table(first.family).target(hash)?))
    })
}

#[inline(always)]
fn bring_entry<A: Address>(shard: &Shard<A>, hash: u64) -> Option<Found> {
    let found = shard.candidate(hash)?;
    shard.prefetch_entry(found.entry);
    Some(found)
}

#[inline(always)]
fn bring_targets<A: Address>(shard: &Shard<A>, context: &Context, tables: &Tables, found: Found) {
    let Some(entry) = shard.entry(found.entry) else { return };
    if let Some(counters) = context.counters.services.get(entry.service_slot as usize) {
        prefetch(counters);
    }
    if let Some(counters) = context.counters.backends.get(entry.backend_slot as usize) {
        prefetch(counters);
    }
    tables.prefetch_backend_stamp(entry.backend_slot);
    tables.adjacencies.prefetch(entry.adjacency(found.direction));
}

fn key<A: Address>(frame: &Frame<'_>, lane: &Lane) -> Option<Key<A>> {
    A::read(frame.bytes(), usize::from(lane.l3)).map(|tuple| A::key(&tuple))
}

fn bring_frontend<A: Address>(tables: &Tables, frame: &Frame<'_>, lane: &Lane) {
    if let Some(key) = key::<A>(frame, lane) {
        let (address, port) = (key.destination.to_ip(), key.destination_port);
        tables.snapshot.prefetch_frontend(address, lane.protocol, port);
    }
}

/// Asks for the service port of a frontend, and for a place for the connection.
fn bring_service<'a, A: Address>(
    shard: &Shard<A>,
    tables: &'a Tables,
    frame: &Frame<'_>,
    lane: &Lane,
    selection_key: u64,
    fresh: &mut u32,
) -> Option<First<'a>> {
    let key = key::<A>(frame, lane)?;
    let (address, port) = (key.destination.to_ip(), key.destination_port);
    let place = tables.snapshot.prefetch_service(address, lane.protocol, port)?;
    shard.prefetch_free(*fresh);
    *fresh += 1;
    let hashes = Hashes::of(&key, selection_key);
    let (family, protocol) = (lane.family, lane.protocol);
    Some(First { family, protocol, place, hashes, selected: None })
}

/// Asks for what is known of the NAT ports towards a backend.
fn bring_ports<A: Address>(shard: &Shard<A>, protocol: u8, kind: Kind, target: &Target) {
    if let Some(address) = A::from_ip(target.address.ip()) {
        let backend = (address, target.address.port());
        shard.prefetch_ports(&kind.reply_key(protocol, backend, (A::default(), 0)));
    }
}

impl Pipeline {
    /// Asks for where the reply key of the port will lie that a connection most likely gets: it leaves
    /// by the interface that the one before left by, and `nth` of the burst come before it.
    fn bring_port<A: Address>(
        &self,
        shard: &Shard<A>,
        tables: &Tables,
        protocol: u8,
        kind: Kind,
        target: &Target,
        nth: u32,
    ) {
        let Some(address) = A::from_ip(target.address.ip()) else { return };
        let Context { worker, begun_by, .. } = self.context;
        let wish = Wish {
            blocks: tables.steer.blocks(worker, begun_by, A::FAMILY),
            kind,
            backend: (address, target.address.port()),
            protocol,
            opening: Opening::default(),
        };
        prefetch_nat_port(shard, &wish, nth);
    }
}
