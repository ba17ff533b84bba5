//! What time does to connections: a walk over the tables between bursts, a few places at a time.

use crate::answer::{Class, challenge};
use crate::connections::{Address, Direction, Entry, Flags, NO_SLOT, Shard, ends_in_doubt};
use crate::established::leave;
use crate::forwarding::Life;
use crate::journey::Now;
use crate::next_hops;
use crate::pipeline::Pipeline;
use crate::tables::Tables;
use crate::turn::Turn;
use model::desired::BackendState;
use model::ids::WorkerId;
use model::record::ConnectionState;

/// Times that a side is asked whether it lives.
const ASKED_MAX: u8 = 2;
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
        let places = [due(self.v4.capacity()), due(self.v6.capacity())];
        let mut turn = Turn { context: &mut self.context, tables, now };
        sweep(&mut self.v4, &mut turn, places[0]);
        sweep(&mut self.v6, &mut turn, places[1]);
        if self.context.worker == WorkerId(0) {
            self.context.affinity.sweep(elapsed, now.seconds());
        }
        self.context.counters.connections[0].set(self.v4.len() as u64);
        self.context.counters.connections[1].set(self.v6.len() as u64);
    }
}

fn sweep<A: Address>(shard: &mut Shard<A>, turn: &mut Turn<'_>, places: usize) {
    for _ in 0..places {
        let Some(at) = shard.sweep_next() else { continue };
        let Some(state) = shard.entry(at).and_then(Entry::state) else { continue };
        if shard.is_over(at, turn.now.ms, &turn.context.timeouts) {
            shard.remove(at);
            continue;
        }
        look_after_next_hop(shard, turn, at);
        let Some((entry, cold)) = shard.whole_mut(at).filter(|(entry, _)| entry.is_used()) else {
            continue;
        };
        let idle = entry.idle_ms(turn.now.ms);
        if ends_in_doubt(state) && idle >= turn.context.timeouts[state as usize] {
            ask(shard, turn, at);
        } else if cold.reset_s != 0 && turn.now.seconds() >= cold.reset_s {
            reset(shard, turn, at);
        }
    }
}

/// Sees to a connection whose backend has gone or doesn't serve: UDP ends, TCP goes on, and its next
/// hop is kept resolved, which no snapshot names any more.
fn look_after_next_hop<A: Address>(shard: &mut Shard<A>, turn: &mut Turn<'_>, at: u32) {
    let Some((entry, cold)) = shard.whole_mut(at) else { return };
    let is_as_it_was = entry.backend_slot != NO_SLOT
        && entry.backend_stamp == turn.tables.backend_stamp(entry.backend_slot);
    if !is_as_it_was {
        let backend = turn.tables.snapshot.backend(entry.backend_id(cold));
        let serves = backend.is_some_and(|backend| backend.state != BackendState::Unserving);
        if entry.life() == Some(Life::Udp) && !serves {
            shard.remove(at);
            return;
        }
        // Its slot may have a new holder, whose counters aren't this connection's.
        if turn.tables.snapshot.service(entry.service_id(cold)).is_none() {
            entry.service_slot = NO_SLOT;
        }
        if backend.is_none() {
            leave(turn.tables, entry, cold, turn.now);
            entry.set_flag(Flags::OWN_NEXT_HOP, true);
        }
    }
    if entry.flags.has(Flags::OWN_NEXT_HOP) {
        let (interface, address) = cold.next_hop();
        turn.context.in_use(interface, address, turn.now);
    }
}

/// The client shall get a RST. A RST must carry the very number that the client expects next, which
/// isn't known here: its next packet tells, and is answered. A silent client is sent a segment that
/// it has to answer by such a packet (RFC 9293 section 3.10.7.4): with each sweep another one, until
/// the connection has been due for as long as ended ones stay.
#[cold]
fn reset<A: Address>(shard: &mut Shard<A>, turn: &mut Turn<'_>, at: u32) {
    let Some((entry, cold)) = shard.whole_mut(at) else { return };
    let service = turn.tables.snapshot.service(entry.service_id(cold));
    if service.is_some_and(|service| service.reset_after_s.is_none()) {
        cold.reset_s = 0;
        return;
    }
    if entry.state() != Some(ConnectionState::Due) {
        entry.last_seen_ms = turn.now.ms as u32;
        shard.set_state(at, ConnectionState::Due, turn.now.ms);
    }
    let told = challenged(shard, turn, at, Direction::ToClient, Class::Challenge);
    if told == Challenged::Sent {
        turn.context.counters.reset_probes.add(1);
    }
}

/// The side that a RST or FIN was for is asked whether it lives: by its answer the connection goes
/// on, without one it ends.
#[cold]
fn ask<A: Address>(shard: &mut Shard<A>, turn: &mut Turn<'_>, at: u32) {
    let Some((entry, cold)) = shard.whole_mut(at) else { return };
    let Some(state) = entry.state() else { return };
    if cold.asked >= ASKED_MAX {
        shard.remove(at);
        return;
    }
    let receiver = if entry.flags.has(Flags::FROM_BACKEND) {
        Direction::ToClient
    } else {
        Direction::ToBackend
    };
    let challenged = challenged(shard, turn, at, receiver, Class::Challenge);
    let timeout_ms = turn.context.timeouts[state as usize];
    let Some((entry, cold)) = shard.whole_mut(at) else { return };
    match challenged {
        Challenged::Sent => {
            cold.asked += 1;
            turn.context.counters.doubt_probes.add(1);
        }
        // None ends unasked: where forged segments are many, each waits for its turn.
        Challenged::Later => entry.last_seen_ms = (turn.now.ms as u32).wrapping_sub(timeout_ms),
        Challenged::NoNextHop => {}
    }
}

/// What became of a segment that a side has to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenged {
    /// It is sent.
    Sent,
    /// The budget is used up, or too many frames wait.
    Later,
    /// The side isn't to be reached.
    NoNextHop,
}

/// Sends the side that `direction` leads to a segment that it has to answer, of the class's budget.
pub fn challenged<A: Address>(
    shard: &mut Shard<A>,
    turn: &mut Turn<'_>,
    at: u32,
    direction: Direction,
    class: Class,
) -> Challenged {
    let Some((entry, cold)) = shard.whole_mut(at) else { return Challenged::NoNextHop };
    if entry.routes_stamp != turn.tables.routes_stamp() {
        next_hops::find(turn.tables, entry, cold);
    }
    let Ok(adjacency) = next_hops::next_hop(turn, entry, cold, direction) else {
        return Challenged::NoNextHop;
    };
    let Some(entry) = shard.entry(at) else { return Challenged::NoNextHop };
    let acknowledged = shard.challenge_number(entry);
    let made = |random| challenge(entry, direction, &adjacency, (random as u32, acknowledged));
    if turn.context.generate(class, turn.now, made) { Challenged::Sent } else { Challenged::Later }
}
