//! A packet's whole way, in the order that it lives it.
//!
//! ```text
//! parse all -> steer all -> prefetch buckets -> find candidates -> prefetch what they need
//!           -> one by one: look up -> (miss: classify, select, insert) -> rewrite -> verdict
//! ```
//!
//! A burst is worked on in passes, so that the memory that one packet needs comes while others are
//! thought about. Only the last pass changes the connection table, packet by packet in the order of
//! the burst: so a burst means the same as its packets one by one.

use crate::arch::memory::Plain;
use crate::arch::prefetch;
use crate::connections::{Address, Entry, Found, Key, Shard};
use crate::established::Validity;
use crate::frame::{Frame, Verdict};
use crate::miss;
use crate::parse::{Addresses, Fragment, Kind, Parsed, parse};
use crate::pipeline::{Context, Pipeline};
use crate::tables::Tables;
use crate::{established, icmp};
use model::drops::DropReason;
use model::ids::WorkerId;
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

/// What the passes have found out about a packet so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// The parsed packet; `None` where it has its verdict already.
    parsed: Option<Parsed>,
    /// The hash of its key, where it has ports.
    hash: u64,
    /// Where its connection most likely is.
    candidate: Option<Found>,
}

impl Pipeline {
    /// Gives each frame its verdict, and leaves it as it is to be sent.
    pub fn process_burst(&mut self, tables: &Tables, frames: &mut [Frame<'_>], now: Now) {
        for frames in frames.chunks_mut(BURST_PACKETS_MAX) {
            let mut seen = [Seen::default(); BURST_PACKETS_MAX];
            for (frame, seen) in frames.iter_mut().zip(&mut seen) {
                self.parse(tables, frame, seen);
            }
            for (frame, seen) in frames.iter_mut().zip(&mut seen) {
                self.steer(tables, frame, seen, now);
            }
            self.look_ahead(tables, &mut seen[..frames.len()]);
            for (frame, seen) in frames.iter_mut().zip(&seen) {
                if let Some(parsed) = &seen.parsed {
                    frame.verdict = self.conclude(tables, frame, (parsed, seen), now);
                    self.context.count(frame.verdict);
                }
            }
        }
    }

    /// Pass 1: from bytes to what the rest trusts.
    #[inline]
    fn parse(&self, tables: &Tables, frame: &mut Frame<'_>, seen: &mut Seen) {
        let parsed = seen.parsed.insert(Parsed::EMPTY);
        if let Err(reason) = parse(frame, &tables.adjacencies, parsed) {
            frame.verdict = Verdict::Drop(reason);
            self.context.count(frame.verdict);
            seen.parsed = None;
        }
    }

    /// Pass 2: another owner's packet leaves here, before any look-up. Ports of fragments are
    /// found at the home of their packet, on the way to the owner.
    #[inline]
    fn steer(&mut self, tables: &Tables, frame: &mut Frame<'_>, seen: &mut Seen, now: Now) {
        let Some(parsed) = &mut seen.parsed else { return };
        let mut verdict = None;
        if parsed.fragment != Fragment::No {
            verdict = self.find_ports(tables, frame, parsed, now);
        }
        if verdict.is_none() {
            let owner = tables.steer.owner(parsed, frame.bytes(), frame.rx.hash);
            verdict = owner.and_then(|owner| self.hand_over(frame, owner));
        }
        if let Some(verdict) = verdict {
            frame.verdict = verdict;
            self.context.count(verdict);
            seen.parsed = None;
        }
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
        if matches!(parsed.fragment, Fragment::First(_)) {
            self.context.fragments.learn(parsed, id, now.ms);
        } else {
            match self.context.fragments.find(parsed, id, now.ms) {
                Some(ports) => (parsed.source_port, parsed.destination_port) = ports,
                None => return Some(Verdict::Drop(DropReason::FragmentUnknown)),
            }
        }
        frame.rx.fragment_ports = Some((parsed.source_port, parsed.destination_port));
        None
    }

    /// Passes 3 to 5: brings the index buckets, then the entries, then what the entries point to.
    /// Nothing is decided here: what is found may be another's by the time that it is needed.
    #[inline]
    fn look_ahead(&self, tables: &Tables, seen: &mut [Seen]) {
        let ahead = self.context.prefetch;
        for seen in seen.iter_mut() {
            let Some(parsed) = seen.parsed.as_ref().filter(|p| p.has_ports()) else { continue };
            seen.hash = match parsed.addresses {
                Addresses::V4 { source, destination } => {
                    bring_buckets(&self.v4, &Key::of((source, destination), parsed), ahead)
                }
                Addresses::V6 { source, destination } => {
                    bring_buckets(&self.v6, &Key::of((source, destination), parsed), ahead)
                }
            };
        }
        if !ahead {
            return;
        }
        for seen in seen.iter_mut() {
            let Some(parsed) = seen.parsed.as_ref().filter(|p| p.has_ports()) else { continue };
            seen.candidate = match parsed.addresses {
                Addresses::V4 { .. } => bring_entry(&self.v4, seen.hash),
                Addresses::V6 { .. } => bring_entry(&self.v6, seen.hash),
            };
        }
        for seen in seen.iter() {
            let (Some(parsed), Some(found)) = (&seen.parsed, seen.candidate) else { continue };
            match parsed.addresses {
                Addresses::V4 { .. } => bring_targets(&self.v4, &self.context, tables, found),
                Addresses::V6 { .. } => bring_targets(&self.v6, &self.context, tables, found),
            }
        }
    }

    /// Pass 6: the packet's fate.
    #[inline]
    fn conclude(
        &mut self,
        tables: &Tables,
        frame: &mut Frame<'_>,
        (parsed, seen): (&Parsed, &Seen),
        now: Now,
    ) -> Verdict {
        let (v4, v6, context) = (&mut self.v4, &mut self.v6, &mut self.context);
        if parsed.kind == Kind::Arp {
            return miss::arp(context, tables, frame, parsed, now);
        }
        match parsed.addresses {
            Addresses::V4 { .. } if !parsed.has_ports() => {
                icmp::conclude(v4, context, tables, frame, parsed, now)
            }
            Addresses::V6 { .. } if !parsed.has_ports() => {
                icmp::conclude(v6, context, tables, frame, parsed, now)
            }
            Addresses::V4 { source, destination } => {
                let key = Key::of((source, destination), parsed);
                fate(v4, context, tables, (frame, parsed, seen), &key, now)
            }
            Addresses::V6 { source, destination } => {
                let key = Key::of((source, destination), parsed);
                fate(v6, context, tables, (frame, parsed, seen), &key, now)
            }
        }
    }
}

/// Looks the packet up; forwards it on its connection, or finds out what to do without one.
#[inline]
fn fate<A: Address>(
    shard: &mut Shard<A>,
    context: &mut Context,
    tables: &Tables,
    (frame, parsed, seen): (&mut Frame<'_>, &Parsed, &Seen),
    key: &Key<A>,
    now: Now,
) -> Verdict
where
    Entry<A>: Plain,
{
    if let Some(found) = shard.find_first(seen.candidate, seen.hash, key) {
        match established::validity(shard, context, tables, (parsed, found), now) {
            Validity::Live(_) => {
                return established::forward(shard, context, tables, (frame, parsed, found), now);
            }
            Validity::Due => {
                return established::reset_client(
                    shard,
                    context,
                    tables,
                    (frame, parsed, found),
                    now,
                );
            }
            Validity::Over => {}
        }
    }
    match miss::classify(shard, context, tables, (frame, parsed, key), now) {
        Ok(found) => established::forward(shard, context, tables, (frame, parsed, found), now),
        Err(verdict) => verdict,
    }
}

#[inline]
fn bring_buckets<A: Address>(shard: &Shard<A>, key: &Key<A>, ahead: bool) -> u64
where
    Entry<A>: Plain,
{
    let hash = shard.hash(key);
    if ahead {
        shard.prefetch_buckets(hash);
    }
    hash
}

#[inline]
fn bring_entry<A: Address>(shard: &Shard<A>, hash: u64) -> Option<Found>
where
    Entry<A>: Plain,
{
    let found = shard.candidate(hash)?;
    shard.prefetch_entry(found.entry);
    Some(found)
}

#[inline]
fn bring_targets<A: Address>(shard: &Shard<A>, context: &Context, tables: &Tables, found: Found)
where
    Entry<A>: Plain,
{
    let Some(entry) = shard.entry(found.entry) else { return };
    if let Some(counters) = context.counters.services.get(entry.service_slot as usize) {
        prefetch(counters);
    }
    if let Some(counters) = context.counters.backends.get(entry.backend_slot as usize) {
        prefetch(counters);
    }
    if let Some(adjacency) = tables.adjacencies.adjacency(entry.adjacency(found.direction)) {
        prefetch(adjacency);
    }
}
