//! What time does to connections: a walk over the tables between bursts, a few places at a time.

use crate::answer::challenge;
use crate::arch::memory::Plain;
use crate::connections::{Address, Direction, Entry, Shard};
use crate::established::{NO_SLOT, find_ways, leave, way};
use crate::journey::Now;
use crate::parse::{TCP, UDP};
use crate::pipeline::{Context, Pipeline};
use crate::snapshot::Standing;
use crate::tables::Tables;
use model::ids::WorkerId;
use model::record::ConnectionState;

/// A whole sweep of a table takes so many milliseconds.
const SWEEP_MS: u64 = 15_000;
const SWEEP_MS_WIDE: u128 = SWEEP_MS as u128;

impl Pipeline {
    /// Takes out connections whose time is over, and sees to those whose backend has gone: as much
    /// of the tables as is due by `now`, so that a whole sweep takes 15 s however often this is
    /// called.
    pub fn sweep(&mut self, tables: &Tables, now: Now) {
        let elapsed = now.ms.saturating_sub(self.swept_ms).min(SWEEP_MS);
        if elapsed == 0 {
            return;
        }
        // Where a sweep is at a time: each place is looked at once in a whole sweep, not more often.
        let until = |capacity: usize, ms: u64| (u128::from(ms) * capacity as u128) / SWEEP_MS_WIDE;
        let due = |capacity: usize| {
            (until(capacity, now.ms) - until(capacity, now.ms - elapsed)) as usize
        };
        self.swept_ms = now.ms;
        let places = due(self.v4.capacity());
        sweep(&mut self.v4, &mut self.context, tables, places, now);
        let places = due(self.v6.capacity());
        sweep(&mut self.v6, &mut self.context, tables, places, now);
        if self.context.worker == WorkerId(0) {
            self.context.affinity.sweep(elapsed, now.seconds());
        }
        self.context.counters.connections[0].set(self.v4.len() as u64);
        self.context.counters.connections[1].set(self.v6.len() as u64);
    }
}

fn sweep<A: Address>(
    shard: &mut Shard<A>,
    context: &mut Context,
    tables: &Tables,
    places: usize,
    now: Now,
) where
    Entry<A>: Plain,
{
    for _ in 0..places {
        let Some(at) = shard.sweep_next() else { continue };
        if shard.is_over(at, now.ms, &context.timeouts) {
            shard.remove(at);
            continue;
        }
        let Some(entry) = shard.entry_mut(at).filter(|entry| entry.is_used()) else { continue };
        match entry.reset_s() {
            Some(second) if now.seconds() < second => {}
            Some(_) => reset(context, tables, entry, now),
            None => match standing(tables, entry) {
                Standing::Unserving | Standing::Gone if entry.protocol == UDP => shard.remove(at),
                Standing::Gone if entry.protocol == TCP => leave(tables, entry, now),
                _ => {}
            },
        }
    }
}

/// How the backend stands; not looked up where nothing has been published since the latest packet.
fn standing<A: Address>(tables: &Tables, entry: &Entry<A>) -> Standing {
    if entry.stamp == tables.stamp() && entry.backend_slot != NO_SLOT {
        return Standing::Active;
    }
    tables.snapshot.standing(entry.backend_id())
}

/// The client shall get a RST. A RST must carry the very number that the client expects next, which
/// isn't known here: its next packet tells, and is answered. A silent client is sent a segment that
/// it has to answer by such a packet (RFC 9293 section 3.10.7.4): with each sweep another one, until
/// the connection has been closed for as long as closed ones stay.
#[cold]
fn reset<A: Address>(context: &mut Context, tables: &Tables, entry: &mut Entry<A>, now: Now) {
    let service = tables.snapshot.service(entry.service_id());
    if service.is_some_and(|service| service.reset_after_s.is_none()) {
        entry.embryo_or_reset = 0;
        return;
    }
    if entry.state() != Some(ConnectionState::Closed) {
        entry.state = ConnectionState::Closed as u8;
        entry.last_seen_ms = now.ms as u32;
    }
    find_ways(tables, entry);
    entry.stamp = tables.stale_stamp();
    let mut learned = None;
    let Ok(adjacency) = way(context, tables, (entry, Direction::ToClient), &mut learned, now)
    else {
        return;
    };
    if context.generate(now, |random| challenge(entry, adjacency, random as u32)) {
        context.counters.reset_probes.add(1);
    }
}
