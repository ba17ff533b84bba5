//! What a new connection costs: classify, select a backend, choose a NAT port, insert.

use crate::established::{forward, options};
use crate::flows::establish;
use crate::memory::HugeMemory;
use crate::packet::{BUFFERS, Buffer, End, Packet, tcp};
use crate::random::Random;
use crate::world::{NAT_ADDRESSES, OURS, Shape, THEIRS, client, frontend, tables};
use anyhow::{Result, ensure};
use pipeline::Pipeline;
use pipeline::arch::memory::Slab;
use pipeline::counters::Counters;
use pipeline::parse::TCP_SYN;
use pipeline::tables::Tables;
use std::sync::Arc;
use std::time::Instant;

/// SYNs of a turn.
const SYNS: u32 = 1 << 16;
/// Ports of one NAT address.
const PORTS: u32 = 65_536 - 1_024;
const BACKENDS: u32 = 10;
/// SYNs at 90 % of the ports taken.
const CROWD: u32 = 4_096;

/// Nanoseconds a connection.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    /// Into an empty table for 1 M connections with nearly all NAT ports free.
    pub into_empty: f64,
    /// One backend and one NAT address, of whose ports 87 to 93 % are taken.
    pub at_90_percent: f64,
}

fn syns(first: u32, count: u32, services: u32) -> Vec<Packet> {
    (first..first + count).map(|n| syn(client(n), frontend(n % services))).collect()
}

fn syn(client: End, frontend: End) -> Packet {
    tcp((OURS[0], THEIRS), client, frontend, TCP_SYN)
}

fn time(
    pipeline: &mut Pipeline,
    tables: &Tables,
    syns: &[Packet],
    pool: &mut Slab<Buffer>,
) -> Result<f64> {
    let inserts = pipeline.counters().inserts.read();
    let start = Instant::now();
    let forwarded = forward(pipeline, tables, syns, pool);
    let elapsed = start.elapsed().as_nanos() as f64;
    let inserted = pipeline.counters().inserts.read() - inserts;
    let expected = syns.len() as u64;
    ensure!(
        (forwarded, inserted) == (expected, expected),
        "{forwarded} of {expected} SYNs forwarded, {inserted} inserted"
    );
    Ok(elapsed / expected as f64)
}

/// One turn of both.
pub fn turn(memory: &mut HugeMemory, seed: u64) -> Result<Begun> {
    Ok(Begun { into_empty: empty(memory, seed)?, at_90_percent: crowded(memory, seed)? })
}

fn empty(memory: &mut HugeMemory, seed: u64) -> Result<f64> {
    let shape = Shape { services: 1, backends: 100, nat_addresses: NAT_ADDRESSES };
    let tables = tables(&shape);
    let counters = Arc::new(Counters::new(1, 100));
    let mut pipeline = Pipeline::new(&options(1_000_000, seed, true), counters, memory)?;
    let mut pool = Slab::new(memory, BUFFERS)?;
    time(&mut pipeline, &tables, &syns(0, SYNS, 1), &mut pool)
}

fn crowded(memory: &mut HugeMemory, seed: u64) -> Result<f64> {
    let tables = tables(&Shape { services: 1, backends: 1, nat_addresses: 1 });
    let open = PORTS * 9 / 10 - CROWD / 2;
    let counters = Arc::new(Counters::new(1, 1));
    // So large that all of a turn may be half open.
    let capacity = PORTS as usize * 2;
    let mut pipeline = Pipeline::new(&options(capacity, seed, true), counters, memory)?;
    establish(&mut pipeline, &tables, 0, open, 1)?;
    let mut pool = Slab::new(memory, BUFFERS)?;
    time(&mut pipeline, &tables, &syns(open, CROWD, 1), &mut pool)
}

/// First packets among `services` services.
#[derive(Debug)]
pub struct Among {
    /// How many services there are.
    pub services: u32,
    tables: Tables,
    /// To ten of the services, so that only their number differs.
    to_ten: Vec<Packet>,
    /// To all of them.
    to_all: Vec<Packet>,
}

impl Among {
    /// So many services of ten backends each.
    pub fn new(services: u32, seed: u64) -> Self {
        let shape = Shape { services, backends: BACKENDS, nat_addresses: NAT_ADDRESSES };
        let mut random = Random(seed);
        let mut to = |number: &dyn Fn(usize) -> usize| {
            (0..SYNS / 2)
                .map(|n| syn(client(n), frontend(number(random.below(1 << 20)) as u32)))
                .collect()
        };
        let step = (services / 10) as usize;
        Self {
            services,
            tables: tables(&shape),
            to_ten: to(&|n| n % 10 * step),
            to_all: to(&|n| n % services as usize),
        }
    }
    /// Nanoseconds a first packet: to ten of the services, to all.
    pub fn turn(&self, memory: &mut HugeMemory, seed: u64) -> Result<[f64; 2]> {
        let mut result = [0.0; 2];
        for (result, syns) in result.iter_mut().zip([&self.to_ten, &self.to_all]) {
            let backends = self.services * BACKENDS;
            let counters = Arc::new(Counters::new(self.services as usize, backends as usize));
            let options = options(4 * SYNS as usize, seed, true);
            let mut pipeline = Pipeline::new(&options, counters, memory)?;
            let mut pool = Slab::new(memory, BUFFERS)?;
            *result = time(&mut pipeline, &self.tables, syns, &mut pool)?;
        }
        Ok(result)
    }
}
