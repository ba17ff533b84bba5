//! A packet's whole way, in the order that it lives it.
//!
//! ```text
//! look at all: fast lane, steer, hash, prefetch buckets -> find candidates, prefetch entries
//!           -> prefetch what they point to; for what has none: frontend, service, slot, backend
//!           -> one by one: the connection, in the fast lane: compare, way, rewrite, verdict
//!                          anything else: parse, steer, look up -> (miss: classify, select, insert)
//!                                         -> judge, rewrite, verdict
//! ```
//!
//! A burst is worked on in passes, so that the memory that one packet needs comes while others are
//! thought about. Only the last pass changes anything, packet by packet in the order of the burst: so
//! a burst means the same as its packets one by one.

use crate::begin::Beginning;
use crate::connections::{Address, Direction, Flags, Found, Key, Shard};
use crate::established::{self, Validity};
use crate::frame::{Frame, Verdict};
use crate::parse::lane::{self, Lane, Start};
use crate::parse::{self, Addresses, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Fragment, Parsed, parse};
use crate::pipeline::{Context, Pipeline};
use crate::rewrite::{self, Leg, translate_plain};
use crate::tables::Tables;
use crate::turn::{Packet, Turn};
use crate::{icmp, miss, next_hops};
use model::drops::DropReason;
use model::ids::{Family, WorkerId};
use model::limits::{BURST_PACKETS_MAX, HANDOVERS_MAX};

/// The worker's clock: monotonic, from a start of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Milliseconds since the start.
    pub ms: u64,
}

impl Now {
    /// Seconds since the start.
    pub const fn seconds(self) -> u32 {
        (self.ms / 1000) as u32
    }
}

/// What the passes have found out about a packet so far: 32 bytes, so that a burst of them is one
/// kilobyte. The packet's own bytes are in the first-level cache and are read again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// The hash of its tuple.
    pub hash: u64,
    /// Where its connection most likely is.
    pub candidate: Option<Found>,
    /// What the fast lane read.
    pub lane: Lane,
    /// How far it has come.
    pub stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It is to be parsed in full.
    Slow,
    /// It is in the fast lane.
    Fast,
    /// It has its verdict.
    Done,
}

impl Seen {
    const NOTHING: Self = Self { hash: 0, candidate: None, lane: Lane::NONE, stage: Stage::Slow };
}

impl Pipeline {
    /// Gives each frame its verdict, and leaves it as it is to be sent.
    pub fn process_burst(&mut self, tables: &Tables, frames: &mut [Frame<'_>], now: Now) {
        for frames in frames.chunks_mut(BURST_PACKETS_MAX) {
            let mut seen = [Seen::NOTHING; BURST_PACKETS_MAX];
            for (frame, seen) in frames.iter_mut().zip(&mut seen) {
                self.look(tables, frame, seen);
            }
            if self.context.prefetch {
                self.look_ahead(tables, frames, &mut seen[..frames.len()], now);
            }
            for (frame, seen) in frames.iter_mut().zip(&seen) {
                if seen.stage != Stage::Done {
                    frame.verdict = self.conclude(tables, frame, seen, now);
                }
                self.context.count(frame.verdict);
            }
        }
    }

    /// Pass 1: what nearly all packets are is seen at once, another owner's leaves, and the index
    /// buckets of the others are asked for.
    #[inline(always)]
    fn look(&self, tables: &Tables, frame: &mut Frame<'_>, seen: &mut Seen) {
        let Some(start) = lane::start(frame, &tables.adjacencies) else { return };
        match start.ethertype {
            ETHERTYPE_IPV4 => self.look_in(&self.v4, tables, frame, seen, start),
            ETHERTYPE_IPV6 => self.look_in(&self.v6, tables, frame, seen, start),
            _ => {}
        }
    }

    #[inline(always)]
    fn look_in<A: Address>(
        &self,
        shard: &Shard<A>,
        tables: &Tables,
        frame: &mut Frame<'_>,
        seen: &mut Seen,
        start: Start,
    ) {
        let Some(rest) = frame.bytes().get(start.l3..) else { return };
        let room = rest.len() + frame.tail_len();
        let Some(lane) = lane::read::<A>(rest, room, &frame.rx, start) else { return };
        let Some(tuple) = A::read(rest, 0) else { return };
        if tables.steer.workers() > 1 {
            let key = A::key(&tuple);
            let addresses = Addresses::of(key.source, key.destination);
            let ports = (key.source_port, key.destination_port);
            let owner = tables.steer.owner_of(&addresses, ports, frame.rx.hash);
            if let Some(verdict) = self.hand_over(frame, owner) {
                (frame.verdict, seen.stage) = (verdict, Stage::Done);
                return;
            }
        }
        let hash = shard.hash(&tuple);
        if self.context.prefetch {
            shard.prefetch_buckets(hash);
        }
        (seen.hash, seen.lane, seen.stage) = (hash, lane, Stage::Fast);
    }

    /// Pass 4: the packet's fate.
    #[inline(always)]
    fn conclude(
        &mut self,
        tables: &Tables,
        frame: &mut Frame<'_>,
        seen: &Seen,
        now: Now,
    ) -> Verdict {
        if seen.stage == Stage::Fast && seen.lane.ordinary {
            let context = &self.context;
            let verdict = match seen.lane.family {
                Family::V4 => fast(&mut self.v4, context, tables, frame, seen, now),
                Family::V6 => fast(&mut self.v6, context, tables, frame, seen, now),
            };
            if let Some(verdict) = verdict {
                return verdict;
            }
        }
        self.slow(tables, frame, now)
    }

    /// Whatever the fast lane isn't for.
    #[inline(never)]
    fn slow(&mut self, tables: &Tables, frame: &mut Frame<'_>, now: Now) -> Verdict {
        let mut parsed = Parsed::EMPTY;
        if let Err(reason) = parse(frame, &tables.adjacencies, &mut parsed) {
            return Verdict::Drop(reason);
        }
        if let Some(verdict) = self.steer(tables, frame, &mut parsed, now) {
            return verdict;
        }
        let (v4, v6) = (&mut self.v4, &mut self.v6);
        let turn = &mut Turn { context: &mut self.context, tables, now };
        let packet = &mut Packet { frame, parsed: &parsed };
        if parsed.kind == parse::Kind::Arp {
            return miss::arp(turn, packet);
        }
        match parsed.addresses {
            Addresses::V4 { .. } if !parsed.has_ports() => icmp::conclude(v4, turn, packet),
            Addresses::V6 { .. } if !parsed.has_ports() => icmp::conclude(v6, turn, packet),
            Addresses::V4 { source, destination } => {
                fate(v4, turn, packet, &Key::of(source, destination, &parsed))
            }
            Addresses::V6 { source, destination } => {
                fate(v6, turn, packet, &Key::of(source, destination, &parsed))
            }
        }
    }

    /// Another owner's packet leaves here, before any look-up. Ports of fragments are found at the
    /// home of their packet, on the way to the owner.
    fn steer(
        &mut self,
        tables: &Tables,
        frame: &mut Frame<'_>,
        parsed: &mut Parsed,
        now: Now,
    ) -> Option<Verdict> {
        if parsed.fragment != Fragment::No
            && let Some(verdict) = self.find_ports(tables, frame, parsed, now)
        {
            return Some(verdict);
        }
        let owner = tables.steer.owner(parsed, frame.bytes(), frame.rx.hash)?;
        self.hand_over(frame, owner)
    }

    /// The verdict that hands the packet over, where the owner is another worker.
    fn hand_over(&self, frame: &Frame<'_>, owner: WorkerId) -> Option<Verdict> {
        if owner == self.context.worker {
            None
        } else if frame.rx.hops >= HANDOVERS_MAX {
            Some(Verdict::Drop(DropReason::HandoverLoop))
        } else {
            Some(Verdict::Handover(owner))
        }
    }

    /// The ports of a fragment: they come with it from its home, or this is its home.
    fn find_ports(
        &mut self,
        tables: &Tables,
        frame: &mut Frame<'_>,
        parsed: &mut Parsed,
        now: Now,
    ) -> Option<Verdict> {
        let (Fragment::First(id) | Fragment::Later(id)) = parsed.fragment else { return None };
        if let Some(ports) = frame.rx.fragment_ports {
            (parsed.source_port, parsed.destination_port) = ports;
            return None;
        }
        let home = tables.steer.home(&parsed.addresses, parsed.protocol, id);
        if let Some(verdict) = self.hand_over(frame, home) {
            return Some(verdict);
        }
        if !parsed.has_ports() {
            return None;
        }
        let found = if matches!(parsed.fragment, Fragment::First(_)) {
            let new_id = self.context.next_fragment_id(tables.steer.workers());
            Some(self.context.fragments.learn(parsed, id, new_id, now.ms))
        } else {
            self.context.fragments.find(parsed, id, now.ms)
        };
        let Some(found) = found else { return Some(Verdict::Drop(DropReason::FragmentUnknown)) };
        (parsed.source_port, parsed.destination_port) = found.ports;
        (frame.rx.fragment_ports, frame.rx.fragment_id) = (Some(found.ports), found.id);
        None
    }
}

/// The fast lane: an ordinary packet of a connection on which nothing has changed. `None` where
/// anything is to be asked beyond that.
#[inline(always)]
fn fast<A: Address>(
    shard: &mut Shard<A>,
    context: &Context,
    tables: &Tables,
    frame: &mut Frame<'_>,
    seen: &Seen,
    now: Now,
) -> Option<Verdict> {
    let lane = &seen.lane;
    let tuple = A::read(frame.bytes(), usize::from(lane.l3))?;
    let found = shard.find_first(seen.candidate, seen.hash, &tuple)?;
    if shard.entry(found.entry)?.routes_stamp != tables.routes_stamp()
        && !next_hops::still_hold(shard, tables, found.entry)
    {
        return None;
    }
    let entry = shard.entry_mut(found.entry)?;
    let unchanged = entry.is_steady()
        && entry.idle_ms(now.ms) < context.timeouts[entry.state_number()]
        && entry.backend_stamp == tables.backend_stamp(entry.backend_slot);
    if !unchanged {
        return None;
    }
    let adjacency = tables.adjacencies.adjacency(entry.adjacency(found.direction))?;
    if lane.ip_len > adjacency.mtu {
        return None;
    }
    let stands_otherwise = match found.direction {
        Direction::ToBackend => {
            entry.flags.has(Flags::CLIENT_ON_LINK)
                && next_hops::moved(tables, frame, entry).is_some()
        }
        Direction::ToClient => !lane.by_back,
    };
    if stands_otherwise {
        return None;
    }
    let kind = entry.kind()?;
    entry.last_seen_ms = now.ms as u32;
    let entry = &*entry;
    established::count(context, entry, lane.ip_len, found.direction);
    frame.trim(usize::from(lane.l3) + usize::from(lane.ip_len));
    let plain = rewrite::Plain { l3: usize::from(lane.l3), protocol: lane.protocol, ttl: lane.ttl };
    let leg = Leg { kind, entry, direction: found.direction };
    Some(if translate_plain(frame, plain, leg, adjacency) {
        Verdict::Send(adjacency.port)
    } else {
        Verdict::Drop(DropReason::TransmitOversize)
    })
}

/// Looks the packet up; forwards it on its connection, or finds out what to do without one.
fn fate<A: Address>(
    shard: &mut Shard<A>,
    turn: &mut Turn<'_>,
    packet: &mut Packet<'_, '_>,
    key: &Key<A>,
) -> Verdict {
    let mut beginning = Beginning { key, instead_of: None };
    if let Some(found) = shard.find_key(key) {
        match established::validity(shard, turn, packet.parsed, found) {
            Validity::Live => return established::forward(shard, turn, packet, found),
            Validity::Due => return established::reset_client(shard, turn, packet, found),
            Validity::InDoubt => return established::ask(shard, turn, found),
            Validity::NotAllowed => return Verdict::Drop(DropReason::SourceNotAllowed),
            Validity::FromFront => return Verdict::Drop(DropReason::ReplyFromFront),
            Validity::Anew => beginning.instead_of = Some(found.entry),
            Validity::Over => {}
        }
    }
    match miss::classify(shard, turn, packet, beginning) {
        Ok(found) => established::forward_first(shard, turn, packet, found),
        Err(verdict) => verdict,
    }
}
