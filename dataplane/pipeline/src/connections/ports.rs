//! The choice of a NAT port. A port is taken for one (protocol, backend address and port) at a
//! time, so that one NAT address carries many times 64,512 connections.

use super::entry::Entry;
use super::key::{Address, Key};
use super::life::Timeouts;
use super::shard::Shard;
use crate::arch::memory::Plain;
use crate::steer::Block;
use model::limits::{NAT_BLOCK_PORTS, NAT_PORT_TRIES};
use model::record::ConnectionState;

/// A NAT address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatPort<A> {
    /// The address.
    pub address: A,
    /// The port.
    pub port: u16,
    /// True where an embryonic connection had to go for it.
    pub evicted: bool,
}

/// Walks the worker's ports from a random start, in steps of a random odd length, and takes the
/// first whose reply key has no connection. Steps of one would gather taken ports in runs, which
/// then are walked again and again. A connection whose time is over doesn't count; after [`NAT_PORT_TRIES`] misses the
/// oldest ended one met is overwritten, then the oldest embryonic one. `None`: all are in use.
pub fn choose<A: Address>(
    shard: &mut Shard<A>,
    blocks: &[Block],
    (backend, backend_port, protocol): (A, u16, u8),
    random: u64,
    now_ms: u64,
    timeouts: &Timeouts,
) -> Option<NatPort<A>>
where
    Entry<A>: Plain,
{
    let ports = blocks.len() * NAT_BLOCK_PORTS;
    let start = ((u128::from(random) * ports as u128) >> 64) as usize;
    // Odd, as the number of ports is a multiple of 256: the walk repeats itself late, if ever.
    let stride = random as u32 as usize | 1;
    // By age: (idle, entry, its port).
    let mut oldest_closed: Option<(u32, u32, NatPort<A>)> = None;
    let mut oldest_embryonic: Option<(u32, u32, NatPort<A>)> = None;
    for step in 0..ports.min(NAT_PORT_TRIES) {
        let at = (start + step * stride) % ports;
        let block = blocks.get(at / NAT_BLOCK_PORTS)?;
        let port = block.first_port + (at % NAT_BLOCK_PORTS) as u16;
        let nat = NatPort { address: A::from_ip(block.address)?, port, evicted: false };
        let key = Key {
            source: backend,
            destination: nat.address,
            source_port: backend_port,
            destination_port: port,
            protocol,
        };
        let Some(found) = shard.find(shard.hash(&key), &key) else { return Some(nat) };
        if shard.is_over(found.entry, now_ms, timeouts) {
            shard.remove(found.entry);
            return Some(nat);
        }
        let Some(entry) = shard.entry(found.entry) else { continue };
        let idle = entry.idle_ms(now_ms);
        let oldest = match entry.state() {
            Some(ConnectionState::Closed) => &mut oldest_closed,
            Some(ConnectionState::Embryonic) => &mut oldest_embryonic,
            _ => continue,
        };
        if oldest.is_none_or(|(age, ..)| idle > age) {
            *oldest = Some((idle, found.entry, nat));
        }
    }
    let evicted = oldest_closed.is_none();
    let (_, entry, nat) = oldest_closed.or(oldest_embryonic)?;
    shard.remove(entry);
    Some(NatPort { evicted, ..nat })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::memory::{HeapMemory, OutOfMemory};
    use crate::parse::TCP;
    use std::collections::HashSet;
    use std::net::IpAddr;

    const NAT: u32 = 0xc612_01c8;
    const BACKEND: (u32, u16, u8) = (0xc612_010b, 80, TCP);

    fn one_block() -> Vec<Block> {
        vec![Block { address: IpAddr::from(NAT.to_be_bytes()), first_port: 1024 }]
    }

    fn fill(shard: &mut Shard<u32>, n: usize, state: ConnectionState) -> HashSet<u16> {
        let timeouts = Timeouts::default();
        let mut taken = HashSet::new();
        for i in 0..n {
            let random = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let Some(nat) = choose(shard, &one_block(), BACKEND, random, 0, &timeouts) else {
                break;
            };
            assert!(taken.insert(nat.port), "port {} taken twice", nat.port);
            let entry = Entry {
                client: i as u32,
                backend: BACKEND.0,
                backend_port: BACKEND.1,
                nat: nat.address,
                nat_port: nat.port,
                protocol: TCP,
                state: state as u8,
                ..Entry::default()
            };
            assert!(shard.insert(entry).is_ok());
        }
        taken
    }

    #[test]
    fn each_port_is_taken_once_and_another_backend_has_them_all_again() -> Result<(), OutOfMemory> {
        let mut shard = Shard::<u32>::new(&mut HeapMemory, 1000, 7)?;
        let taken = fill(&mut shard, 128, ConnectionState::Established);
        assert_eq!(taken.len(), 128);
        let other = (BACKEND.0 + 1, 80, TCP);
        let nat = choose(&mut shard, &one_block(), other, 0, 0, &Timeouts::default());
        assert_eq!(nat.map(|n| n.port), Some(1024));
        Ok(())
    }

    #[test]
    fn when_all_are_met_in_use_ended_ones_are_overwritten_first() -> Result<(), OutOfMemory> {
        let mut shard = Shard::<u32>::new(&mut HeapMemory, 2000, 7)?;
        // A walk of 128 sees free ports until the block's 256 are all taken.
        let all: HashSet<u16> = (0..64).flat_map(|round| fill_more(&mut shard, round)).collect();
        assert_eq!(all.len(), 256);
        let timeouts = Timeouts::default();
        let before = shard.len();
        assert_eq!(choose(&mut shard, &one_block(), BACKEND, 0, 0, &timeouts), None);
        for at in 0..shard.capacity() as u32 {
            if let Some(entry) = shard.entry_mut(at).filter(|e| e.nat_port == 1030) {
                entry.state = ConnectionState::Closed as u8;
            }
        }
        let nat = choose(&mut shard, &one_block(), BACKEND, 0, 10, &timeouts);
        assert_eq!(nat.map(|n| n.port), Some(1030));
        assert_eq!(shard.len(), before - 1, "the ended one made room");
        Ok(())
    }

    fn fill_more(shard: &mut Shard<u32>, round: u64) -> Vec<u16> {
        let mut taken = Vec::new();
        for i in 0..16 {
            let n = shard.len();
            let random = (round * 16 + i + 1).wrapping_mul(0xd1b5_4a32_d192_ed03);
            let Some(nat) = choose(shard, &one_block(), BACKEND, random, 0, &Timeouts::default())
            else {
                break;
            };
            let entry = Entry {
                client: n as u32,
                backend: BACKEND.0,
                backend_port: BACKEND.1,
                nat: nat.address,
                nat_port: nat.port,
                protocol: TCP,
                state: ConnectionState::Established as u8,
                ..Entry::default()
            };
            assert!(shard.insert(entry).is_ok());
            taken.push(nat.port);
        }
        taken
    }
}
