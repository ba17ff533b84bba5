//! What steering costs: all packets come to the queue of one of two workers, which hands those of the
//! other one over. Both run on this core, burst by burst; the ring between them is left out.

use crate::bound::{BURST, Bound};
use crate::established::{TURN_PACKETS, options};
use crate::flows::{NOW, establish_by, port_of, send, stream};
use crate::memory::HugeMemory;
use crate::packet::{BUFFERS, Buffer, HEADROOM, PACKET_LEN, Packet};
use crate::random::Random;
use crate::world::{NAT_ADDRESSES, Shape, tables_of};
use anyhow::{Result, ensure};
use arrayvec::ArrayVec;
use model::ids::{PortId, WorkerId};
use pipeline::arch::memory::Slab;
use pipeline::counters::Counters;
use pipeline::frame::{Frame, Rx, Verdict};
use pipeline::tables::Tables;
use pipeline::{Options, Pipeline};
use std::sync::Arc;
use std::time::Instant;

const WORKERS: u8 = 2;
/// Packets of the stream.
const STREAM_PACKETS: usize = 2 * TURN_PACKETS;

/// Two workers with their connections, and the reference with the same.
#[derive(Debug)]
pub struct Steered {
    /// Connections of both.
    pub connections: u32,
    tables: Tables,
    workers: [Pipeline; WORKERS as usize],
    bound: Bound,
    stream: Slab<Packet>,
    pool: Slab<Buffer>,
    next: usize,
    /// Packets that were forwarded, and how many of them had been handed over.
    pub forwarded: [u64; 2],
}

impl Steered {
    /// Opens the connections.
    pub fn new(
        memory: &mut HugeMemory,
        connections: u32,
        backends: u32,
        seed: u64,
    ) -> Result<Self> {
        let shape = Shape { services: 1, backends, nat_addresses: NAT_ADDRESSES };
        let tables = tables_of(&shape, WORKERS);
        let mut worker = |worker: u8| {
            let counters = Arc::new(Counters::new(1, backends as usize));
            // Half of them each, or somewhat more.
            let room = connections as usize * 6 / 10 + 64;
            let options = options(room, seed ^ u64::from(worker), true);
            let options = Options { worker: WorkerId(worker), workers: WORKERS, ..options };
            Pipeline::new(&options, counters, memory)
        };
        let mut workers = [worker(0)?, worker(1)?];
        let through = |packet: &Packet, port| {
            let first = send(&mut workers[0], &tables, packet, port);
            match first.0 {
                Verdict::Handover(to) => send(&mut workers[to.index()], &tables, packet, port),
                _ => first,
            }
        };
        let flows = establish_by(through, 0, connections, 1)?;
        let mut random = Random(seed);
        Ok(Self {
            connections,
            bound: Bound::new(memory, &flows, seed)?,
            stream: stream(memory, &flows, STREAM_PACKETS, &mut random)?,
            pool: Slab::new(memory, BUFFERS)?,
            tables,
            workers,
            next: 0,
            forwarded: [0; 2],
        })
    }

    /// A turn of both over the same packets: nanoseconds a packet of the workers, and of the
    /// reference.
    pub fn turn(&mut self) -> Result<[f64; 2]> {
        self.next = (self.next + TURN_PACKETS) % STREAM_PACKETS;
        let packets = &self.stream[self.next..self.next + TURN_PACKETS];
        let (warm, _) = packets.split_at(TURN_PACKETS / 4);
        let mut run = |packets: &[Packet]| {
            let done = forward(&mut self.workers, &self.tables, packets, &mut self.pool);
            self.forwarded[0] += done[0];
            self.forwarded[1] += done[1];
            done[0]
        };
        run(warm);
        let start = Instant::now();
        let done = run(packets);
        let steered = start.elapsed();
        self.bound.run(warm, &mut self.pool);
        let start = Instant::now();
        let reference = self.bound.run(packets, &mut self.pool);
        let bound = start.elapsed();
        let all = TURN_PACKETS as u64;
        ensure!((done, reference) == (all, all), "{done} and {reference} of {all} forwarded");
        Ok([steered, bound].map(|took| took.as_nanos() as f64 / TURN_PACKETS as f64))
    }
}

/// Sends the packets through the first worker, and those of the other one on through that. Returns
/// how many were forwarded, and how many of them by the other one.
#[inline(never)]
fn forward(
    [first, other]: &mut [Pipeline; 2],
    tables: &Tables,
    stream: &[Packet],
    pool: &mut [Buffer],
) -> [u64; 2] {
    let pool = pool.as_chunks_mut::<BURST>().0;
    let mut forwarded = [0; 2];
    for (number, packets) in stream.as_chunks::<BURST>().0.iter().enumerate() {
        let bursts = pool.len();
        let buffers = &mut pool[number % bursts];
        let mut frames = ArrayVec::<_, BURST>::new();
        for (buffer, packet) in buffers.iter_mut().zip(packets) {
            buffer.load(packet);
            frames.push(frame(buffer, port_of(packet), 0));
        }
        first.process_burst(tables, &mut frames, NOW);
        let verdicts: ArrayVec<_, BURST> = frames.iter().map(|frame| frame.verdict).collect();
        drop(frames);
        let mut handed = ArrayVec::<_, BURST>::new();
        for ((buffer, packet), verdict) in buffers.iter_mut().zip(packets).zip(verdicts) {
            match verdict {
                Verdict::Send(_) => forwarded[0] += 1,
                Verdict::Handover(_) => handed.push(frame(buffer, port_of(packet), 1)),
                _ => {}
            }
        }
        other.process_burst(tables, &mut handed, NOW);
        let sent = handed.iter().filter(|frame| matches!(frame.verdict, Verdict::Send(_))).count();
        forwarded = [forwarded[0] + sent as u64, forwarded[1] + sent as u64];
    }
    forwarded
}

fn frame(buffer: &mut Buffer, port: u8, hops: u8) -> Frame<'_> {
    let rx = Rx { port: PortId(port), hops, ..Rx::default() };
    Frame::new(&mut buffer.0, HEADROOM, HEADROOM + PACKET_LEN, 0, rx)
}
