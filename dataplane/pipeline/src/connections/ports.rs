//! The choice of a NAT port. A port is taken for one (protocol, backend address and port) at a
//! time, so that one NAT address carries many times 64,512 connections.

use super::entry::{Cold, Flags};
use super::key::{Address, Key};
use super::life::TimeoutTable;
use super::shard::{Found, Shard};
use super::targets::{Target, permute};
use crate::forwarding::{Kind, Life};
use crate::steer::Block;
use model::limits::{
    HALF_OPEN_LIFE_MIN_MS, NAT_BLOCK_PORTS, NAT_PORT_PAUSE_MS, NAT_PORT_PAUSE_SCARCE_MS,
    NAT_PORT_REST_MIN_MS, NAT_PORT_TRIES,
};
use model::record::ConnectionState::{
    Closed, Replied, Stream, SynReceived, SynSent, TimeWait, Unreplied,
};

/// Ports whose index buckets are asked for at a time.
const AHEAD: usize = 4;
/// Where more than one port in so many is taken, more than one is looked at at once.
const CROWDED: usize = 8;
/// Ports that are looked at for a UDP flow where none is free: any of them may be had.
const TRIES_FULL_UDP: usize = 32;
/// Where fewer than one port in so many is free, free ones aren't looked for at length.
const FREE_AT_LEAST: usize = 8;

/// Who wants a port.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a, A: Address> {
    /// The worker's ports on the interface.
    pub blocks: &'a [Block],
    /// How the connection will be forwarded.
    pub kind: Kind,
    /// The backend's address and port.
    pub backend: (A, u16),
    /// The protocol's number.
    pub protocol: u8,
    /// What the first packet says of its place in time.
    pub opening: Opening,
}

/// What a SYN says of its place in time: a host in TIME_WAIT takes one that comes after all that it
/// has seen (RFC 6191).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// Its sequence number.
    pub sequence: u32,
    /// Its timestamp (RFC 7323), where it has one.
    pub timestamp: Option<u32>,
}

impl Opening {
    /// True where a backend that still waits for late packets of the ended connection takes this
    /// SYN for a new one.
    pub fn is_after<A: Address>(&self, flags: Flags, cold: &Cold<A>) -> bool {
        let after = |new: u32, old: u32| new.wrapping_sub(old).cast_signed() > 0;
        match self.timestamp.filter(|_| flags.has(Flags::TIMESTAMPS)) {
            Some(timestamp) => after(timestamp, cold.last_timestamp),
            None => after(self.sequence, cold.last_sequence),
        }
    }
}

/// A NAT address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatPort<A> {
    /// The address.
    pub address: A,
    /// The port.
    pub port: u16,
    /// The connection that has it and has to go.
    pub instead_of: Option<u32>,
}

/// What a port that somebody has may be had for, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Ended, rested, and its backend takes the new one.
    Rested,
    /// Half open, or UDP without a stream.
    Short,
    /// A UDP stream.
    Stream,
}

/// Walks the worker's ports by the backend's own cursor through a keyed permutation, so that what
/// has rested longest comes first, and takes the first whose reply key has no connection. `fits`
/// says which ports may be taken. Where free ones are rare, the first is as good that has rested and
/// that the SYN comes after; where none of either kind is among those looked at, the oldest short one
/// met is taken, then the UDP stream that was silent for longest. `None`: nothing may be had, which
/// for a moment isn't tried again. The cursor goes on behind the port that was taken, so that the
/// walk passes over no others.
pub fn choose<A: Address>(
    shard: &mut Shard<A>,
    wish: &Wish<'_, A>,
    random: impl FnOnce() -> u64,
    now_ms: u64,
    timeouts: &TimeoutTable,
    fits: impl Fn(A, u16) -> bool,
) -> Option<NatPort<A>> {
    let ports = wish.blocks.len() * NAT_BLOCK_PORTS;
    let blank = wish.reply_key((A::default(), 0));
    let (mut start, mut crowded, mut full, mut scarce) = (None, false, false, false);
    let seed = shard.targets().seed(&blank);
    if let Some(target) = shard.targets().find_or_add(&blank, seed) {
        start = Some(target.cursor);
        crowded = is_crowded(target, ports);
        full = target.used as usize >= ports;
        scarce = target.used as usize >= ports - ports / FREE_AT_LEAST;
        let pause = target.none_before_ms.wrapping_sub(now_ms as u32);
        if scarce && pause != 0 && pause <= NAT_PORT_PAUSE_MS {
            return None;
        }
    }
    let start = start.unwrap_or_else(|| random() as u32);
    let mut walk = Walk { shard, wish, seed, start, crowded, full, scarce, now_ms, timeouts };
    let (steps, chosen) = walk.run(ports, fits);
    if let Some(target) = shard.targets().find(&blank, seed) {
        target.cursor = start.wrapping_add(steps) % (ports.max(1) as u32);
        if chosen.is_none() {
            let pause = if full { NAT_PORT_PAUSE_MS } else { NAT_PORT_PAUSE_SCARCE_MS };
            target.none_before_ms = (now_ms as u32).wrapping_add(pause);
        }
    }
    chosen
}

/// True where the first port of a backend's walk may well be taken.
const fn is_crowded<A>(target: &Target<A>, ports: usize) -> bool {
    target.used as usize >= ports / CROWDED
}

/// Asks for what [`choose`] looks at first, where `nth` others towards the same backend come before.
pub fn prefetch_first<A: Address>(shard: &Shard<A>, wish: &Wish<'_, A>, nth: u32) {
    let blank = wish.reply_key((A::default(), 0));
    let seed = shard.peek_targets().seed(&blank);
    let Some(target) = shard.peek_targets().peek(&blank, seed) else { return };
    let ports = wish.blocks.len() * NAT_BLOCK_PORTS;
    let many = if is_crowded(target, ports) { AHEAD as u32 } else { 1 };
    for step in 0..many {
        let at = target.cursor.wrapping_add(nth).wrapping_add(step);
        let Some(source) = wish.port_at(at, seed) else { return };
        shard.prefetch_buckets(shard.hash(&A::tuple(&wish.reply_key(source))));
    }
}

impl<A: Address> Wish<'_, A> {
    /// The NAT address and port at a place of the backend's order.
    fn port_at(&self, place: u32, seed: u64) -> Option<(A, u16)> {
        let blocks = self.blocks.len() as u32;
        let place = place.checked_rem(blocks * NAT_BLOCK_PORTS as u32)?;
        let (block, port) = permute(place, blocks, seed);
        let block = self.blocks.get(block as usize)?;
        Some((A::from_ip(block.address)?, block.first_port + port as u16))
    }
    /// The key of replies to a NAT address and port.
    const fn reply_key(&self, source: (A, u16)) -> Key<A> {
        self.kind.reply_key(self.protocol, self.backend, source)
    }
}

struct Walk<'a, A: Address> {
    shard: &'a Shard<A>,
    wish: &'a Wish<'a, A>,
    seed: u64,
    start: u32,
    /// A look at one port won't do.
    crowded: bool,
    /// No port is free.
    full: bool,
    /// Few are.
    scarce: bool,
    now_ms: u64,
    timeouts: &'a TimeoutTable,
}

impl<A: Address> Walk<'_, A> {
    /// The steps that were made, and the port.
    fn run(&mut self, ports: usize, fits: impl Fn(A, u16) -> bool) -> (u32, Option<NatPort<A>>) {
        // For TCP one has to be met that has rested, among those that live on: else one is taken for
        // whose handshake the backend may still wait.
        let any = self.full && self.wish.kind.life(self.wish.protocol) == Life::Udp;
        let tries = ports.min(if any { TRIES_FULL_UDP } else { NAT_PORT_TRIES });
        let mut best: Option<(Rank, u32, (u32, NatPort<A>))> = None;
        let mut ahead = [(A::NO_TUPLE, 0u64, A::default(), 0u16); AHEAD];
        let mut first = 0;
        while first < tries {
            // Where most ports are free the first one is, nearly always.
            let many = if first == 0 && !self.crowded { 1 } else { AHEAD.min(tries - first) };
            for (step, place) in ahead[..many].iter_mut().enumerate() {
                let at = self.start.wrapping_add((first + step) as u32);
                let Some((address, port)) = self.wish.port_at(at, self.seed) else { continue };
                let tuple = A::tuple(&self.wish.reply_key((address, port)));
                let hash = self.shard.hash(&tuple);
                self.shard.prefetch_buckets(hash);
                *place = (tuple, hash, address, port);
            }
            for (step, (tuple, hash, address, port)) in ahead[..many].iter().enumerate() {
                let steps = (first + step) as u32 + 1;
                if *port == 0 || !fits(*address, *port) {
                    continue;
                }
                let nat = NatPort { address: *address, port: *port, instead_of: None };
                let Some(found) = self.shard.find(*hash, tuple) else { return (steps, Some(nat)) };
                let nat = NatPort { instead_of: Some(found.entry), ..nat };
                if self.shard.is_over(found.entry, self.now_ms, self.timeouts) {
                    return (steps, Some(nat));
                }
                let Some((rank, idle)) = self.rank(found) else { continue };
                if rank == Rank::Rested && self.scarce {
                    return (steps, Some(nat));
                }
                let better = best.is_none_or(|(best_rank, best_idle, _)| {
                    rank < best_rank
                        || rank == best_rank && rank != Rank::Rested && idle > best_idle
                });
                if better {
                    best = Some((rank, idle, (steps, nat)));
                }
            }
            first += many;
        }
        match best {
            Some((_, _, (steps, nat))) => (steps, Some(nat)),
            None => (tries as u32, None),
        }
    }
    /// What the connection's port may be had for, and for how long it has been silent.
    fn rank(&self, found: Found) -> Option<(Rank, u32)> {
        let (entry, cold) = self.shard.whole(found.entry)?;
        let idle = entry.idle_ms(self.now_ms);
        let rank = match entry.state()? {
            TimeWait if self.wish.opening.is_after(entry.flags, cold) => Rank::Rested,
            Closed => Rank::Rested,
            SynSent | SynReceived if idle >= HALF_OPEN_LIFE_MIN_MS => Rank::Short,
            Unreplied | Replied if idle >= HALF_OPEN_LIFE_MIN_MS => Rank::Short,
            Stream => Rank::Stream,
            _ => return None,
        };
        (rank != Rank::Rested || idle >= NAT_PORT_REST_MIN_MS).then_some((rank, idle))
    }
}

#[cfg(test)]
#[path = "ports_tests.rs"]
mod tests;
