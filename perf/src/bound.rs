//! The reference loop: what any gateway that keeps connections in a table has to do, and nothing
//! else. A prefetched look-up in two tagged buckets, the read of a 64-byte entry, the swap of the
//! key, incremental checksums. No parsing, no checks of lengths, checksums, time-outs or states, no
//! TTL, no link header, no counters, no verdicts.

use crate::flows::Flow;
use crate::memory::HugeMemory;
use crate::packet::{Buffer, End, IP, Packet, TCP};
use anyhow::{Result, ensure};
use pipeline::arch::memory::{Plain, Slab};
use pipeline::arch::{matches, prefetch};
use pipeline::rewrite::checksum;

/// Packets that are worked on at a time.
pub const BURST: usize = 32;
const PLACES: usize = 8;
const REPLY_BIT: u32 = 1 << 31;

/// Addresses and ports as they stand in a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
struct Key {
    addresses: u64,
    ports: u32,
}

impl Key {
    const fn of(source: End, destination: End) -> Self {
        Self {
            addresses: (source.address as u64) << 32 | destination.address as u64,
            ports: (source.port as u32) << 16 | destination.port as u32,
        }
    }
    #[inline(always)]
    fn read(line: &[u8; 64]) -> Self {
        let addresses: [u8; 8] = std::array::from_fn(|i| line[IP + 12 + i]);
        let ports: [u8; 4] = std::array::from_fn(|i| line[TCP + i]);
        Self { addresses: u64::from_be_bytes(addresses), ports: u32::from_be_bytes(ports) }
    }
    /// Swaps to the other key: its sender is where this packet came for.
    #[inline(always)]
    fn write_reversed(self, line: &mut [u8; 64]) {
        let addresses = self.addresses.rotate_left(32).to_be_bytes();
        let ports = self.ports.rotate_left(16).to_be_bytes();
        line[IP + 12..IP + 20].copy_from_slice(&addresses);
        line[TCP..TCP + 4].copy_from_slice(&ports);
    }
    #[inline(always)]
    fn hash(self, secret: u64) -> u64 {
        let mixed = fold(self.addresses ^ secret, u64::from(self.ports) ^ 0x9e37_79b9_7f4a_7c15);
        fold(mixed ^ u64::from(self.ports), secret ^ 0xa076_1d64_78bd_642f)
    }
    fn sum(self) -> u16 {
        let addresses = checksum::add(
            checksum::sum32((self.addresses >> 32) as u32),
            checksum::sum32(self.addresses as u32),
        );
        checksum::add(addresses, checksum::sum32(self.ports))
    }
}

#[inline(always)]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    (product >> 64) as u64 ^ product as u64
}

/// As large as an entry of the pipeline.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Entry {
    keys: [Key; 2],
    /// Of the addresses, and of addresses and ports, by direction.
    differences: [[u16; 2]; 2],
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u16; PLACES],
    places: [u32; PLACES],
}

// SAFETY: integers alone, for which every bit pattern is valid.
unsafe impl Plain for Entry {}
// SAFETY: integers alone, for which every bit pattern is valid.
unsafe impl Plain for Bucket {}

const _: () = assert!(size_of::<Entry>() == 64 && size_of::<Bucket>() == 64);

/// The reference's table: entries and buckets of the same size and number as the pipeline's.
#[derive(Debug)]
pub struct Bound {
    entries: Slab<Entry>,
    buckets: Slab<Bucket>,
    secret: u64,
}

impl Bound {
    /// A table of these connections.
    pub fn new(memory: &mut HugeMemory, flows: &[Flow], secret: u64) -> Result<Self> {
        let buckets = (flows.len() * 3).div_ceil(PLACES).max(32);
        let mut table = Self {
            entries: Slab::new(memory, flows.len())?,
            buckets: Slab::new(memory, buckets)?,
            secret,
        };
        for (number, flow) in flows.iter().enumerate() {
            let client = Key::of(flow.client, flow.frontend);
            let reply = Key::of(flow.backend, flow.nat);
            let addresses = |key: Key| Key { ports: 0, ..key }.sum();
            let there = [
                checksum::difference(addresses(client), addresses(reply)),
                checksum::difference(client.sum(), reply.sum()),
            ];
            let differences = [there, there.map(|difference| !difference)];
            table.entries[number] = Entry { keys: [client, reply], differences };
            for (key, bit) in [(client, 0), (reply, REPLY_BIT)] {
                ensure!(table.insert(key, number as u32 | bit), "no room for connection {number}");
            }
        }
        Ok(table)
    }

    fn insert(&mut self, key: Key, place: u32) -> bool {
        let hash = key.hash(self.secret);
        let (first, second) = self.pair(hash);
        self.put(first, tag(hash), place)
            || self.put(second, tag(hash), place)
            || [first, second].into_iter().any(|at| self.make_room(at, tag(hash), place))
    }

    fn put(&mut self, at: usize, tag: u16, place: u32) -> bool {
        let bucket = &mut self.buckets[at];
        let free = matches(&bucket.tags, 0);
        if free == 0 {
            return false;
        }
        let at = free.trailing_zeros() as usize;
        bucket.tags[at] = tag;
        bucket.places[at] = place;
        true
    }

    fn make_room(&mut self, bucket: usize, new_tag: u16, new_place: u32) -> bool {
        for at in 0..PLACES {
            let place = self.buckets[bucket].places[at];
            let entry = &self.entries[(place & !REPLY_BIT) as usize];
            let hash = entry.keys[usize::from(place & REPLY_BIT != 0)].hash(self.secret);
            let (first, second) = self.pair(hash);
            let other = if first == bucket { second } else { first };
            if other != bucket && self.put(other, tag(hash), place) {
                self.buckets[bucket].tags[at] = new_tag;
                self.buckets[bucket].places[at] = new_place;
                return true;
            }
        }
        false
    }

    #[inline(always)]
    fn pair(&self, hash: u64) -> (usize, usize) {
        let buckets = self.buckets.len() as u64;
        let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        ((((hash & 0xffff_ffff) * buckets) >> 32) as usize, ((mixed * buckets) >> 32) as usize)
    }

    /// Rewrites the packets of the stream in the buffers, burst by burst. Returns how many found
    /// their connection.
    #[inline(never)]
    pub fn run(&self, stream: &[Packet], pool: &mut [Buffer]) -> u64 {
        let pool = pool.as_chunks_mut::<BURST>().0;
        let mut found = 0;
        for (number, packets) in stream.as_chunks::<BURST>().0.iter().enumerate() {
            let bursts = pool.len();
            let buffers = &mut pool[number % bursts];
            for (buffer, packet) in buffers.iter_mut().zip(packets) {
                buffer.load(packet);
            }
            found += self.burst(buffers);
        }
        found
    }

    #[inline(always)]
    fn burst(&self, buffers: &mut [Buffer; BURST]) -> u64 {
        let mut hashes = [0; BURST];
        for (buffer, hash) in buffers.iter_mut().zip(&mut hashes) {
            *hash = Key::read(buffer.line()).hash(self.secret);
            let (first, second) = self.pair(*hash);
            prefetch(&self.buckets[first]);
            prefetch(&self.buckets[second]);
        }
        for hash in &hashes {
            let tag = tag(*hash);
            let (first, second) = self.pair(*hash);
            for bucket in [first, second] {
                let bucket = &self.buckets[bucket];
                let found = matches(&bucket.tags, tag);
                if found != 0 {
                    let place = bucket.places[found.trailing_zeros() as usize % PLACES];
                    prefetch(&self.entries[(place & !REPLY_BIT) as usize]);
                    break;
                }
            }
        }
        let mut found = 0;
        for (buffer, hash) in buffers.iter_mut().zip(&hashes) {
            found += u64::from(self.rewrite(buffer.line(), *hash));
        }
        found
    }

    #[inline(always)]
    fn rewrite(&self, line: &mut [u8; 64], hash: u64) -> bool {
        let key = Key::read(line);
        let tag = tag(hash);
        let (first, second) = self.pair(hash);
        for bucket in [first, second] {
            let bucket = &self.buckets[bucket];
            let mut found = matches(&bucket.tags, tag);
            while found != 0 {
                let place = bucket.places[found.trailing_zeros() as usize % PLACES];
                found &= found - 1;
                let entry = &self.entries[(place & !REPLY_BIT) as usize];
                let direction = usize::from(place & REPLY_BIT != 0);
                if entry.keys[direction] == key {
                    entry.keys[1 - direction].write_reversed(line);
                    let [addresses, all] = entry.differences[direction];
                    update(line, IP + 10, addresses);
                    update(line, TCP + 16, all);
                    return true;
                }
            }
        }
        false
    }
}

#[inline(always)]
const fn tag(hash: u64) -> u16 {
    let tag = (hash >> 48) as u16;
    if tag == 0 { 1 } else { tag }
}

#[inline(always)]
fn update(line: &mut [u8; 64], at: usize, difference: u16) {
    let field = u16::from_be_bytes([line[at], line[at + 1]]);
    line[at..at + 2].copy_from_slice(&checksum::update(field, difference).to_be_bytes());
}
