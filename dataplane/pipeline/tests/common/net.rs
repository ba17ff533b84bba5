//! Workers with hand-over between them, for packets by the million: nothing is allocated while they
//! run, the clock is simulated, and every packet is followed to its verdict.

use super::counting::allocations;
use super::packets::Mac;
use super::wire::Segment;
use super::workers::Random;
use super::{BACK_MAC, BACK_PORT, FRONT_MAC, FRONT_PORT, ROUTER_MAC, World, mac_of};
use model::drops::DropReason;
use model::ids::{PortId, WorkerId};
use model::record::ConnectionState;
use pipeline::arch::memory::HeapMemory;
use pipeline::counters::Counters;
use pipeline::frame::{Frame, Rx, Verdict};
use pipeline::select::AffinityTable;
use pipeline::{Now, Options, Pipeline};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

const HEAD: usize = 32;
const ROOM: usize = 256;
const BURST: usize = 32;
/// Kinds of packets whose time is told apart.
pub const LANES: usize = 2;

/// A packet with its buffer.
#[derive(Clone, Copy, Debug)]
pub struct Parcel {
    bytes: [u8; ROOM],
    span: (usize, usize),
    pub rx: Rx,
    pub verdict: Verdict,
    /// What the test knows it by.
    pub tag: u64,
    /// Where it ended.
    pub worker: usize,
}

impl Parcel {
    pub fn frame(&self) -> &[u8] {
        &self.bytes[self.span.0..self.span.1]
    }
    /// The segment that it is by now.
    pub fn segment(&self, verify: bool) -> Segment {
        Segment::read(self.frame(), verify)
    }
}

/// Packets by what became of them.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub taken: u64,
    pub sent: u64,
    pub answered: u64,
    pub host: u64,
    pub handed: u64,
    pub dropped: BTreeMap<DropReason, u64>,
    pub generated: u64,
}

pub struct Net {
    pub world: World,
    pub pipelines: Vec<Pipeline>,
    pub random: Random,
    pub now: Now,
    pub ledger: Ledger,
    /// Packets that have ended since it was emptied last.
    pub out: Vec<Parcel>,
    /// Allocations of the pipelines, sweeps included.
    pub allocations: u64,
    /// By lane: nanoseconds in the pipelines, and packets.
    pub time: [(u64, u64); LANES],
    queues: Vec<[Vec<Parcel>; LANES]>,
    spare: Vec<Parcel>,
}

impl Net {
    /// As many workers as the world has, with so many places for connections each.
    pub fn new(world: World, connections: [usize; 2], seed: u64) -> Self {
        let workers = usize::from(world.workers);
        let affinity = Arc::new(AffinityTable::new(1024, 5));
        let pipelines = (0..workers).map(|worker| {
            let options = Options {
                worker: WorkerId(worker as u8),
                connections,
                secret: (seed << 8) + worker as u64 + 1,
                selection_key: seed ^ 0x5bd1_e995,
                affinity: Arc::clone(&affinity),
                ..Options::default()
            };
            let counters = Arc::new(Counters::new(64, 1024));
            Pipeline::new(&options, counters, &mut HeapMemory).unwrap()
        });
        Self {
            pipelines: pipelines.collect(),
            queues: (0..workers).map(|_| Default::default()).collect(),
            world,
            random: Random(seed),
            now: Now { ms: 1 },
            ledger: Ledger::default(),
            out: Vec::new(),
            allocations: 0,
            time: [(0, 0); LANES],
            spare: Vec::new(),
        }
    }

    /// A segment comes in by a port, at any worker.
    pub fn push(&mut self, lane: usize, tag: u64, port: PortId, segment: &Segment) {
        let worker = self.random.below(self.pipelines.len());
        self.push_at(worker, lane, tag, port, |into| segment.write(into, macs(port, segment)));
    }
    /// A frame comes in by a port, at any worker.
    pub fn push_bytes(&mut self, lane: usize, tag: u64, port: PortId, bytes: &[u8]) {
        let worker = self.random.below(self.pipelines.len());
        self.push_at(worker, lane, tag, port, |into| {
            into[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        });
    }
    /// What `write` writes comes in at a worker.
    pub fn push_at(
        &mut self,
        worker: usize,
        lane: usize,
        tag: u64,
        port: PortId,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) {
        let rx = Rx { port, ..Rx::default() };
        let verdict = Verdict::Pending;
        let mut parcel = Parcel { bytes: [0; ROOM], span: (HEAD, HEAD), rx, verdict, tag, worker };
        parcel.span.1 += write(&mut parcel.bytes[HEAD..]);
        self.ledger.taken += 1;
        self.queues[worker][lane].push(parcel);
    }

    /// Carries all that waits to its end, in bursts of either lane in turn.
    pub fn run(&mut self) {
        while self.queues.iter().flatten().any(|queue| !queue.is_empty()) {
            for worker in 0..self.pipelines.len() {
                for lane in 0..LANES {
                    self.run_queue(worker, lane);
                }
            }
        }
    }

    fn run_queue(&mut self, worker: usize, lane: usize) {
        let mut queue = std::mem::take(&mut self.spare);
        std::mem::swap(&mut queue, &mut self.queues[worker][lane]);
        for burst in queue.chunks_mut(BURST) {
            self.process(worker, lane, burst);
        }
        for parcel in queue.drain(..) {
            self.end(worker, lane, parcel);
        }
        self.spare = queue;
    }

    fn process(&mut self, worker: usize, lane: usize, burst: &mut [Parcel]) {
        let mut frames: Vec<Frame<'_>> = burst
            .iter_mut()
            .map(|p| Frame::new(&mut p.bytes, p.span.0, p.span.1, 0, p.rx))
            .collect();
        let (before, began) = (allocations(), Instant::now());
        self.pipelines[worker].process_burst(&self.world.tables, &mut frames, self.now);
        self.time[lane].0 += began.elapsed().as_nanos() as u64;
        self.time[lane].1 += frames.len() as u64;
        self.allocations += allocations() - before;
        let mut came = [((0, 0), Rx::default(), Verdict::Pending); BURST];
        for (frame, came) in frames.iter().zip(&mut came) {
            *came = (frame.span(), frame.rx, frame.verdict);
        }
        drop(frames);
        for (parcel, came) in burst.iter_mut().zip(came) {
            (parcel.span, parcel.rx, parcel.verdict) = came;
        }
    }

    fn end(&mut self, worker: usize, lane: usize, mut parcel: Parcel) {
        parcel.worker = worker;
        match parcel.verdict {
            Verdict::Handover(to) => {
                assert_ne!(to.index(), worker, "nobody hands over to itself");
                self.ledger.handed += 1;
                parcel.rx.hops += 1;
                self.queues[to.index()][lane].push(parcel);
                return;
            }
            Verdict::Pending => panic!("every packet has a verdict"),
            Verdict::Send(_) => self.ledger.sent += 1,
            Verdict::Answer(_) => self.ledger.answered += 1,
            Verdict::Host(_) => self.ledger.host += 1,
            Verdict::Drop(reason) => *self.ledger.dropped.entry(reason).or_default() += 1,
        }
        self.out.push(parcel);
    }

    /// A millisecond goes by: the sweeps of all workers. Frames of their own are in `out` as sent,
    /// with this tag.
    pub fn tick(&mut self, tag: u64) {
        self.now.ms += 1;
        for (worker, pipeline) in self.pipelines.iter_mut().enumerate() {
            let before = allocations();
            pipeline.sweep(&self.world.tables, self.now);
            self.allocations += allocations() - before;
            pipeline.take_requests().for_each(drop);
            while let Some(generated) = pipeline.take_generated() {
                self.ledger.generated += 1;
                let (rx, verdict) = (Rx::default(), Verdict::Send(generated.port));
                let mut parcel =
                    Parcel { bytes: [0; ROOM], span: (HEAD, HEAD), rx, verdict, tag, worker };
                let bytes = generated.bytes();
                parcel.span.1 += bytes.len();
                parcel.bytes[HEAD..HEAD + bytes.len()].copy_from_slice(bytes);
                self.out.push(parcel);
            }
        }
    }

    /// Every packet has one verdict, and what was dropped is counted under its reason.
    pub fn balance(&self) {
        let ledger = &self.ledger;
        let dropped: u64 = ledger.dropped.values().sum();
        let ended = ledger.sent + ledger.answered + ledger.host + dropped;
        assert_eq!(ledger.taken, ended, "{ledger:?}");
        for reason in DropReason::ALL {
            let counted: u64 =
                self.pipelines.iter().map(|p| p.counters().dropped(*reason).read()).sum();
            let seen = ledger.dropped.get(reason).copied().unwrap_or(0);
            assert_eq!(counted, seen, "{}", reason.label());
        }
    }

    /// Connections in the tables of all workers, by family.
    pub fn connections(&self) -> [usize; 2] {
        let of = |family: usize| self.pipelines.iter().map(|p| p.connections()[family]).sum();
        [of(0), of(1)]
    }
    /// Connections by state.
    pub fn states(&self) -> BTreeMap<ConnectionState, usize> {
        let mut states = BTreeMap::new();
        for pipeline in &self.pipelines {
            for record in super::records(pipeline, &self.world.tables, self.now) {
                *states.entry(record.state).or_default() += 1;
            }
        }
        states
    }
    /// Nanoseconds a packet of a lane.
    pub fn ns(&self, lane: usize) -> f64 {
        self.time[lane].0 as f64 / self.time[lane].1.max(1) as f64
    }
}

/// From clients behind the router, or from a backend on its link.
pub fn macs(port: PortId, segment: &Segment) -> (Mac, Mac) {
    assert!(port == FRONT_PORT || port == BACK_PORT);
    if port == FRONT_PORT {
        return (ROUTER_MAC, FRONT_MAC);
    }
    let last = match segment.source.ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(ip) => ip.octets()[15],
    };
    (mac_of(1, last), BACK_MAC)
}
