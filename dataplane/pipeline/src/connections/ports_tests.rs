use super::*;
use crate::arch::memory::{HeapMemory, OutOfMemory};
use crate::connections::{Entry, Origin, Timeouts};
use crate::parse::{TCP, UDP};
use model::record::ConnectionState::{self, Established};
use std::collections::HashSet;
use std::net::IpAddr;

const NAT: u32 = 0xc612_01c8;
const BACKEND: (u32, u16) = (0xc612_010b, 80);

fn blocks(n: u16) -> Vec<Block> {
    let address = IpAddr::from(NAT.to_be_bytes());
    (0..n).map(|n| Block { address, first_port: 1024 + n * 256 }).collect()
}

struct World {
    shard: Shard<u32>,
    blocks: Vec<Block>,
    timeouts: TimeoutTable,
    begun: u32,
}

impl World {
    fn new(blocks_count: u16) -> Result<Self, OutOfMemory> {
        Ok(Self {
            shard: Shard::new(&mut HeapMemory, 8000, &Origin::of_secret(7))?,
            blocks: blocks(blocks_count),
            timeouts: Timeouts::default().by_number(),
            begun: 0,
        })
    }
    fn choose(
        &mut self,
        to: (u32, u16),
        protocol: u8,
        opening: Opening,
        ms: u64,
    ) -> Option<NatPort<u32>> {
        let wish = Wish { blocks: &self.blocks, kind: Kind::Nat, backend: to, protocol, opening };
        choose(&mut self.shard, &wish, || 0, ms, &self.timeouts, |_, _| true)
    }
    /// Begins a connection and takes it to a state. Its port, and whether another had to go.
    fn begin(
        &mut self,
        protocol: u8,
        state: ConnectionState,
        opening: Opening,
        ms: u64,
    ) -> Option<(u16, bool)> {
        let nat = self.choose(BACKEND, protocol, opening, ms)?;
        if let Some(at) = nat.instead_of {
            self.shard.remove(at);
        }
        self.begun += 1;
        let client = Key {
            source: self.begun,
            destination: 1,
            source_port: 9,
            destination_port: 80,
            protocol,
        };
        let reply = Key {
            source: BACKEND.0,
            destination: nat.address,
            source_port: BACKEND.1,
            destination_port: nat.port,
            protocol,
        };
        let mut entry = Entry::new(&client, &reply);
        entry.last_seen_ms = ms as u32;
        entry.set_flag(Flags::TIMESTAMPS, opening.timestamp.is_some());
        let cold = Cold {
            last_sequence: opening.sequence,
            last_timestamp: opening.timestamp.unwrap_or(0),
            ..Cold::default()
        };
        let first = if protocol == TCP { SynSent } else { Unreplied };
        let (at, _) = self.shard.insert(entry, cold, first, ms).ok()?;
        self.shard.set_state(at, state, ms);
        Some((nat.port, nat.instead_of.is_some()))
    }
}

#[test]
fn each_port_is_taken_once_and_another_backend_has_them_all_again() -> Result<(), OutOfMemory> {
    let mut world = World::new(2)?;
    let taken: HashSet<u16> = (0..512)
        .filter_map(|_| world.begin(TCP, Established, Opening::default(), 0))
        .map(|(port, _)| port)
        .collect();
    assert_eq!(taken.len(), 512, "without one miss");
    assert_eq!(world.begin(TCP, Established, Opening::default(), 0), None);
    assert!(world.choose((BACKEND.0 + 1, 80), TCP, Opening::default(), 0).is_some());
    assert!(world.choose((BACKEND.0, 81), TCP, Opening::default(), 0).is_some());
    assert!(world.choose(BACKEND, UDP, Opening::default(), 0).is_some());
    Ok(())
}

#[test]
fn where_nothing_is_to_be_had_nothing_is_looked_at_for_a_moment() -> Result<(), OutOfMemory> {
    let mut world = World::new(1)?;
    for _ in 0..256 {
        assert!(world.begin(TCP, Established, Opening::default(), 1000).is_some());
    }
    let none = |world: &mut World, ms| world.choose(BACKEND, TCP, Opening::default(), ms).is_none();
    assert!(none(&mut world, 1000));
    // One that ends meanwhile opens the door at once.
    let at = (0..256).find(|at| world.shard.entry(*at).is_some_and(Entry::is_used)).unwrap_or(0);
    assert!(none(&mut world, 1000 + u64::from(NAT_PORT_PAUSE_MS) - 1));
    world.shard.remove(at);
    // A walk sees half of the ports, and the next one the others.
    let later = |n: u64| 1001 + n * u64::from(NAT_PORT_PAUSE_SCARCE_MS);
    assert!((0..2).any(|n| !none(&mut world, later(n))));
    Ok(())
}

#[test]
fn a_freed_port_rests_until_all_others_had_their_turn() -> Result<(), OutOfMemory> {
    let mut world = World::new(1)?;
    let (first, _) = world.begin(TCP, Established, Opening::default(), 0).unwrap_or_default();
    world.shard.remove(0);
    for step in 1..256 {
        let (port, _) = world.begin(TCP, Established, Opening::default(), 0).unwrap_or_default();
        assert_ne!(port, first, "at {step}");
        world.shard.remove(0);
    }
    assert_eq!(world.begin(TCP, Established, Opening::default(), 0), Some((first, false)));
    Ok(())
}

/// All ports are in TIME_WAIT: one is taken whose backend takes the SYN for a new one.
#[test]
fn where_none_is_free_one_that_rested_is_taken_for_a_syn_that_comes_after()
-> Result<(), OutOfMemory> {
    let mut world = World::new(1)?;
    let stamped = |timestamp| Opening { sequence: 7, timestamp: Some(timestamp) };
    for _ in 0..256 {
        assert!(world.begin(TCP, TimeWait, stamped(1_000_000), 0).is_some());
    }
    assert_eq!(world.begin(TCP, TimeWait, stamped(1_000_001), 999), None, "not before they rested");
    assert_eq!(world.begin(TCP, TimeWait, stamped(999_999), 2_000), None, "PAWS would drop it");
    let later = 2_000 + u64::from(NAT_PORT_PAUSE_MS);
    let again = world.begin(TCP, TimeWait, stamped(1_000_001), later);
    assert!(again.is_some_and(|(_, instead)| instead));
    // Without a timestamp the sequence number has to come after.
    let plain = |sequence| Opening { sequence, timestamp: None };
    assert_eq!(world.begin(TCP, TimeWait, plain(7), later), None);
    assert!(world.begin(TCP, TimeWait, plain(8), 2 * later).is_some());
    // Established ones are never taken.
    for at in 0..256 {
        world.shard.set_state(at, Established, 0);
    }
    assert_eq!(world.begin(TCP, TimeWait, stamped(2_000_000), 70_000), None);
    Ok(())
}

/// A backend waits a minute by its timers, which is up to 5.1 s more by the clock.
#[test]
fn a_port_is_free_when_its_backend_waits_no_more() -> Result<(), OutOfMemory> {
    let mut world = World::new(1)?;
    let stamped = |timestamp| Opening { sequence: 7, timestamp: Some(timestamp) };
    for _ in 0..256 {
        assert!(world.begin(TCP, TimeWait, stamped(1_000_000), 0).is_some());
    }
    assert_eq!(world.begin(TCP, TimeWait, stamped(999_999), 65_120), None);
    assert!(world.begin(TCP, TimeWait, stamped(999_999), 70_000).is_some());
    Ok(())
}

/// The walk takes ports in the order in which they began to rest, and doesn't hurry past them as long
/// as one is free somewhere: it would soon be round, and take what hasn't rested.
#[test]
fn where_few_ports_are_free_what_rested_longest_comes_first() -> Result<(), OutOfMemory> {
    let mut world = World::new(4)?;
    let stamped = |timestamp| Opening { sequence: 7, timestamp: Some(timestamp) };
    let ports: Vec<u16> = (0..1024)
        .filter_map(|n| world.begin(TCP, TimeWait, stamped(n), u64::from(n)))
        .map(|(port, _)| port)
        .collect();
    assert_eq!(ports.len(), 1024);
    world.shard.remove(900);
    for n in 0..800u32 {
        let got = world.begin(TCP, TimeWait, stamped(2000 + n), 3000 + u64::from(n));
        assert_eq!(got, Some((ports[n as usize], true)), "at {n}");
    }
    Ok(())
}

/// Most ports have connections that live on: the few that have rested are found before the port of a
/// half-open connection is taken, whose backend may still send.
#[test]
fn one_that_rested_is_looked_for_among_those_that_live_on() -> Result<(), OutOfMemory> {
    let mut world = World::new(4)?;
    let stamped = |timestamp| Opening { sequence: 7, timestamp: Some(timestamp) };
    let ports: Vec<u16> = (0..1024)
        .filter_map(|n| {
            let state = match n % 100 {
                5 => SynReceived,
                60 => TimeWait,
                _ => Established,
            };
            world.begin(TCP, state, stamped(n), 0)
        })
        .map(|(port, _)| port)
        .collect();
    for n in 0..10 {
        let got = world.begin(TCP, Established, stamped(2000), 9_000);
        assert_eq!(got, Some((ports[60 + 100 * n], true)), "at {n}");
    }
    Ok(())
}

/// UDP: the oldest short one gives way, once it is three seconds old, and when there is none the stream
/// that was silent longest.
#[test]
fn short_flows_give_way_before_streams() -> Result<(), OutOfMemory> {
    let mut world = World::new(1)?;
    let mut ports = Vec::new();
    for n in 0..256u64 {
        let state = if n % 2 == 0 { Stream } else { Replied };
        ports.push(world.begin(UDP, state, Opening::default(), n).map(|(port, _)| port));
    }
    for n in 0..128 {
        let got = world.begin(UDP, Stream, Opening::default(), 3_300 + n);
        assert!(
            got.is_some_and(|(port, _)| ports
                .iter()
                .skip(1)
                .step_by(2)
                .any(|short| *short == Some(port))),
            "a short one"
        );
    }
    let got = world.begin(UDP, Stream, Opening::default(), 4_000).map(|(port, _)| port);
    assert!(ports.iter().step_by(2).any(|stream| *stream == got), "an old stream");
    Ok(())
}

/// The answer to a question that was just asked would reach whoever has its port.
#[test]
fn no_young_flow_gives_way() -> Result<(), OutOfMemory> {
    let mut world = World::new(1)?;
    for _ in 0..256 {
        assert!(world.begin(UDP, Unreplied, Opening::default(), 0).is_some());
    }
    assert_eq!(world.begin(UDP, Unreplied, Opening::default(), 2_999), None);
    assert!(world.begin(UDP, Unreplied, Opening::default(), 3_100).is_some());
    Ok(())
}

/// A backend whose last free port is far off costs a walk each few milliseconds, not with each SYN.
#[test]
fn where_free_ports_are_rare_walks_rest() -> Result<(), OutOfMemory> {
    let mut world = World::new(4)?;
    let key = Key {
        source: BACKEND.0,
        destination: NAT,
        source_port: BACKEND.1,
        destination_port: 0,
        protocol: TCP,
    };
    let cursor = |world: &mut World| {
        let seed = world.shard.peek_targets().seed(&key);
        world.shard.peek_targets().peek(&key, seed).map(|target| target.cursor)
    };
    // All but the last of the round.
    for _ in 0..4 * 256 - 1 {
        assert!(world.begin(TCP, Established, Opening::default(), 0).is_some());
    }
    // The walk begins right behind it.
    let seed = world.shard.targets().seed(&key);
    if let Some(target) = world.shard.targets().find(&key, seed) {
        target.cursor = (target.cursor + 1) % (4 * 256);
    }
    let (mut walks, mut at, mut found) = (0, cursor(&mut world), None);
    for ms in 1..100 {
        for _ in 0..20 {
            found = found.or(world.choose(BACKEND, TCP, Opening::default(), ms).map(|_| ms));
            let now = cursor(&mut world);
            walks += u32::from(now != at);
            at = now;
        }
        if found.is_some() {
            break;
        }
    }
    let walks_to_it = (4 * 256_u32).div_ceil(NAT_PORT_TRIES as u32);
    assert!(found.is_some_and(|ms| ms <= 1 + u64::from(walks_to_it * NAT_PORT_PAUSE_SCARCE_MS)));
    assert!(walks <= walks_to_it + 20, "{walks}");
    Ok(())
}

#[test]
fn only_ports_that_fit_are_taken() -> Result<(), OutOfMemory> {
    let mut world = World::new(2)?;
    let wish = Wish {
        blocks: &world.blocks.clone(),
        kind: Kind::Nat,
        backend: BACKEND,
        protocol: TCP,
        opening: Opening::default(),
    };
    for n in 0..64u64 {
        let even =
            choose(&mut world.shard, &wish, || n, 0, &world.timeouts, |_, port| port % 2 == 0);
        assert!(even.is_some_and(|nat| nat.port % 2 == 0));
    }
    Ok(())
}
