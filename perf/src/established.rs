//! What a packet of an established connection costs: the pipeline, the pipeline without its
//! prefetches, and the reference loop, turn by turn over the same packets.

use crate::bound::{BURST, Bound};
use crate::flows::{Flow, NOW, check_rewrites, establish, port_of, stream};
use crate::memory::HugeMemory;
use crate::packet::{BUFFERS, Buffer, HEADROOM, PACKET_LEN, Packet};
use crate::random::Random;
use crate::world::{NAT_ADDRESSES, Shape, tables, timeouts};
use anyhow::{Result, ensure};
use model::drops::DropReason;
use model::ids::PortId;
use pipeline::answer::Rate;
use pipeline::arch::memory::Slab;
use pipeline::counters::Counters;
use pipeline::frame::{Frame, Rx, Verdict};
use pipeline::tables::Tables;
use pipeline::{Options, Pipeline};
use std::sync::Arc;
use std::time::Instant;

/// Packets of a stream: 64 MiB, read in order. So each size pays alike for reading packets.
const STREAM_PACKETS: usize = 1 << 20;
/// Packets of a turn that are timed, after a fourth as many that bring the loop's own lines back.
pub const TURN_PACKETS: usize = 1 << 18;

/// One of the loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Loop {
    /// The pipeline.
    Pipeline,
    /// The reference.
    Bound,
    /// The pipeline without its prefetches.
    WithoutPrefetch,
}

/// The loops in the order of their turns.
pub const LOOPS: [Loop; 3] = [Loop::Pipeline, Loop::Bound, Loop::WithoutPrefetch];

/// The loops' tables of one size, and a stream of packets.
#[derive(Debug)]
pub struct Size {
    /// Established connections, which fill the table.
    pub connections: u32,
    /// Services that they are spread over.
    pub services: u32,
    /// Bytes of entries and index.
    pub memory_bytes: usize,
    tables: Tables,
    with: Pipeline,
    without: Pipeline,
    bound: Bound,
    stream: Slab<Packet>,
    pool: Slab<Buffer>,
    next: usize,
    /// Packets that the pipelines forwarded.
    pub forwarded: u64,
}

/// Options of a pipeline for `connections`.
pub fn options(connections: usize, seed: u64, prefetch: bool) -> Options {
    Options {
        connections: [connections, 1],
        timeouts: timeouts(),
        secret: seed ^ 0x5851_f42d_4c95_7f2d,
        selection_key: seed,
        // Time stands still while the connections are opened.
        new_connections: Rate { per_second: u32::MAX, burst: u32::MAX },
        prefetch,
        ..Options::default()
    }
}

impl Size {
    /// Opens `connections` connections to so many services of so many backends each in all tables.
    pub fn new(
        memory: &mut HugeMemory,
        connections: u32,
        (services, backends): (u32, u32),
        seed: u64,
    ) -> Result<Self> {
        let shape = Shape { services, backends, nat_addresses: NAT_ADDRESSES };
        let tables = tables(&shape);
        let mut random = Random(seed);
        let mut open = |prefetch| -> Result<(Pipeline, Vec<Flow>)> {
            let counters =
                Arc::new(Counters::new(services as usize, (services * backends) as usize));
            let options = options(connections as usize, seed, prefetch);
            let mut pipeline = Pipeline::new(&options, counters, memory)?;
            let flows = establish(&mut pipeline, &tables, 0, connections, services)?;
            check_rewrites(&mut pipeline, &tables, &flows, &mut random)?;
            Ok((pipeline, flows))
        };
        let (with, flows) = open(true)?;
        let (without, same) = open(false)?;
        ensure!(flows == same, "both pipelines choose alike");
        Ok(Self {
            connections,
            services,
            memory_bytes: with.memory_bytes(),
            bound: Bound::new(memory, &flows, seed)?,
            stream: stream(memory, &flows, STREAM_PACKETS, &mut random)?,
            pool: Slab::new(memory, BUFFERS)?,
            tables,
            with,
            without,
            next: 0,
            forwarded: 0,
        })
    }

    /// Goes on to other packets, which the next turns of all loops share.
    pub const fn advance(&mut self) {
        self.next = (self.next + TURN_PACKETS) % STREAM_PACKETS;
    }

    /// One loop's turn: nanoseconds a packet.
    pub fn turn(&mut self, which: Loop) -> Result<f64> {
        let before = (self.next + STREAM_PACKETS - TURN_PACKETS / 4) % STREAM_PACKETS;
        let warm = before..before + TURN_PACKETS / 4;
        let timed = self.next..self.next + TURN_PACKETS;
        self.run(which, warm)?;
        let start = Instant::now();
        self.run(which, timed)?;
        Ok(start.elapsed().as_nanos() as f64 / TURN_PACKETS as f64)
    }

    fn run(&mut self, which: Loop, packets: std::ops::Range<usize>) -> Result<()> {
        let packets = &self.stream[packets];
        let done = match which {
            Loop::Pipeline => forward(&mut self.with, &self.tables, packets, &mut self.pool),
            Loop::Bound => self.bound.run(packets, &mut self.pool),
            Loop::WithoutPrefetch => {
                forward(&mut self.without, &self.tables, packets, &mut self.pool)
            }
        };
        ensure!(
            done == packets.len() as u64,
            "{which:?} with {} connections forwarded {done} of {} packets",
            self.connections,
            packets.len()
        );
        if which != Loop::Bound {
            self.forwarded += done;
        }
        Ok(())
    }

    /// Compares the pipelines' own counters with what was sent through them: nothing dropped, and
    /// each packet counted once by service and once by backend.
    pub fn check_counters(&self) -> Result<()> {
        let mut counted = [0; 2];
        for pipeline in [&self.with, &self.without] {
            let counters = pipeline.counters();
            for reason in DropReason::ALL {
                let dropped = counters.dropped(*reason).read();
                ensure!(dropped == 0, "{dropped} packets dropped: {reason:?}");
            }
            counted[0] += counters.services.iter().map(|c| c.packets_in.read()).sum::<u64>()
                + counters.services.iter().map(|c| c.packets_out.read()).sum::<u64>();
            counted[1] += counters
                .backends
                .iter()
                .map(|c| c.packets_in.read() + c.packets_out.read())
                .sum::<u64>();
        }
        // Three packets a handshake, and 2,000 whose bytes were compared, in each pipeline.
        let expected = self.forwarded + 2 * (3 * u64::from(self.connections) + 2_000);
        ensure!(
            counted == [expected; 2],
            "counted {counted:?} packets by service and backend, expected {expected}"
        );
        Ok(())
    }
}

/// Sends the packets through the pipeline in bursts. Returns how many were forwarded.
#[inline(never)]
pub fn forward(
    pipeline: &mut Pipeline,
    tables: &Tables,
    stream: &[Packet],
    pool: &mut [Buffer],
) -> u64 {
    let pool = pool.as_chunks_mut::<BURST>().0;
    let mut forwarded = 0;
    for (number, packets) in stream.as_chunks::<BURST>().0.iter().enumerate() {
        let bursts = pool.len();
        let buffers = &mut pool[number % bursts];
        for (buffer, packet) in buffers.iter_mut().zip(packets) {
            buffer.load(packet);
        }
        let mut ports = packets.iter().map(port_of);
        let mut frames = buffers.each_mut().map(|buffer| {
            let rx = Rx { port: PortId(ports.next().unwrap_or(0)), ..Rx::default() };
            Frame::new(&mut buffer.0, HEADROOM, HEADROOM + PACKET_LEN, 0, rx)
        });
        pipeline.process_burst(tables, &mut frames, NOW);
        for frame in &frames {
            forwarded += u64::from(matches!(frame.verdict, Verdict::Send(_)));
        }
    }
    forwarded
}
