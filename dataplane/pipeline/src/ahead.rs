//! Looking ahead: what the packets of a burst will need comes while others are thought about.
//! Nothing is decided here: what is found may be another's by the time that it is needed.

use crate::arch::prefetch;
use crate::begin::Hashes;
use crate::connections::{Address, Found, Key, Shard};
use crate::forwarding::Kind;
use crate::frame::Frame;
use crate::journey::{Now, Seen, Stage};
use crate::parse::lane::Lane;
use crate::pipeline::{Context, Pipeline};
use crate::select::Target;
use crate::tables::Tables;
use model::ids::Family;
use model::limits::BURST_PACKETS_MAX;

/// A packet that most likely begins a connection.
#[derive(Clone, Copy)]
struct First {
    lane: Lane,
    /// What selects its backend.
    hashes: Hashes,
    /// The slot of its service port.
    service: u32,
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
            both.filter(|(seen, _)| seen.stage == Stage::Fast && seen.candidate.is_none())
                .filter(|(seen, _)| !refused(&seen.lane))
        };
        for (seen, frame) in without() {
            match seen.lane.family {
                Family::V4 => bring_frontend::<u32>(tables, frame, &seen.lane),
                Family::V6 => bring_frontend::<u128>(tables, frame, &seen.lane),
            }
        }
        let mut firsts = [None; BURST_PACKETS_MAX];
        let mut fresh = [0; 2];
        for (first, (seen, frame)) in firsts.iter_mut().zip(without()) {
            let (lane, key) = (&seen.lane, self.context.selection_key);
            *first = match lane.family {
                Family::V4 => bring_service(&self.v4, tables, frame, (lane, key, &mut fresh[0])),
                Family::V6 => bring_service(&self.v6, tables, frame, (lane, key, &mut fresh[1])),
            };
        }
        for First { lane, hashes, service } in firsts.iter().flatten() {
            let Some(service) = tables.snapshot.service_at(*service) else { continue };
            service.table(lane.family).prefetch_slot(hashes.at(service));
        }
        for First { lane, hashes, service } in firsts.iter().flatten() {
            let Some(service) = tables.snapshot.service_at(*service) else { continue };
            service.table(lane.family).prefetch_target(hashes.at(service));
            if let Some(counters) = self.context.counters.services.get(service.id.slot as usize) {
                prefetch(counters);
            }
        }
        for First { lane, hashes, service } in firsts.iter().flatten() {
            let Some(service) = tables.snapshot.service_at(*service) else { continue };
            let Some(target) = service.table(lane.family).target(hashes.at(service)) else {
                continue;
            };
            if let Some(counters) = self.context.counters.backends.get(target.id.slot as usize) {
                prefetch(counters);
            }
            tables.snapshot.prefetch_backend(target.id.slot);
            match lane.family {
                Family::V4 => bring_ports(&self.v4, service.kind, target, lane.protocol),
                Family::V6 => bring_ports(&self.v6, service.kind, target, lane.protocol),
            }
        }
    }
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
fn bring_service<A: Address>(
    shard: &Shard<A>,
    tables: &Tables,
    frame: &Frame<'_>,
    (lane, selection_key, fresh): (&Lane, u64, &mut u32),
) -> Option<First> {
    let key = key::<A>(frame, lane)?;
    let (address, port) = (key.destination.to_ip(), key.destination_port);
    let service = tables.snapshot.prefetch_service(address, lane.protocol, port)?;
    shard.prefetch_free(*fresh);
    *fresh += 1;
    Some(First { lane: *lane, hashes: Hashes::of(&key, selection_key), service })
}

/// Asks for what is known of the NAT ports towards a backend.
fn bring_ports<A: Address>(shard: &Shard<A>, kind: Kind, target: &Target, protocol: u8) {
    if let Some(source) = A::from_ip(target.address.ip()) {
        let backend = (source, target.address.port());
        shard.prefetch_ports(&kind.reply_key(protocol, backend, (A::default(), 0)));
    }
}
