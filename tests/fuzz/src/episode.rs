//! One episode: new tables and surroundings, then burst after burst. All of it follows from the
//! episode's seed, so that a failure is found again without all that came before.

use crate::check;
use crate::feed;
use crate::input::Input;
use crate::mutate::mutate;
use crate::stats::Stats;
use crate::world::World;
use fastrand::Rng;
use golden::drive;
use model::drops::DropReason;
use model::ids::WorkerId;
use model::limits::BURST_PACKETS_MAX;
use model::record::ConnectionState;
use pipeline::answer::{Rate, Rates};
use pipeline::arch::memory::HeapMemory;
use pipeline::counters::Counters;
use pipeline::frame::{Frame, Verdict};
use pipeline::{Now, Options, Pipeline};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Packets that came back and wait to be sent, at most.
const POOL_MAX: usize = 512;
/// Workers of a crowded episode: each has a sixteenth of the NAT ports.
const CROWD_WORKERS: u8 = 16;
/// Bursts that fill a crowded episode's NAT ports, at most.
const CROWD_BURSTS_MAX: usize = 600;

/// An invariant that didn't hold, and the burst that showed it.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What didn't hold.
    pub what: String,
    /// The frame of the burst that showed it, from 0.
    pub frame: Option<usize>,
    /// The worker.
    pub worker: usize,
    /// The burst.
    pub burst: Vec<Input>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, worker {}", self.what, self.worker)?;
        if let Some(input) = self.frame.and_then(|number| self.burst.get(number)) {
            writeln!(f, "the frame, number {}:\n{}", self.frame.unwrap_or(0), input.to_line())?;
        }
        writeln!(f, "the burst:")?;
        for input in &self.burst {
            writeln!(f, "{}", input.to_line())?;
        }
        Ok(())
    }
}

/// One episode.
#[derive(Debug)]
pub struct Episode {
    rng: Rng,
    world: World,
    pipelines: Vec<Pipeline>,
    pool: Vec<Input>,
    now: Now,
    swept_ms: [u64; 2],
    /// What it has done.
    pub stats: Stats,
}

impl Episode {
    /// The episode of a seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let workers = [1, 1, 1, 2, 2, 2, 2, CROWD_WORKERS][rng.usize(..8)];
        let crowd = workers == CROWD_WORKERS;
        let capacity = [1, 2, 4, 16, 64, 300, 1024, 1024][rng.usize(..8)];
        let capacity = if crowd { 8192 } else { capacity };
        let rates = match rng.u8(..4) {
            0 => Rates::default(),
            1 => Rates::all(Rate { per_second: 2, burst: 3 }),
            _ => Rates::all(Rate { per_second: 1_000_000_000, burst: 1_000_000 }),
        };
        let options = Options {
            connections: [capacity, capacity],
            rates,
            secret: rng.u64(..),
            selection_key: rng.u64(..),
            prefetch: rng.bool(),
            new_connections: match rng.u8(..8) {
                0 => Rate { per_second: 1, burst: 1 },
                _ => Rate { per_second: u32::MAX, burst: u32::MAX },
            },
            ..Options::default()
        };
        let mut episode = Self::with(workers, &options, rng);
        episode.stats.episodes = 1;
        episode
    }
    /// An episode with these options.
    pub fn with(workers: u8, options: &Options, rng: Rng) -> Self {
        let pipelines = (0..workers.min(2)).map(|worker| {
            let options = Options { worker: WorkerId(worker), ..options.clone() };
            let counters = Arc::new(Counters::new(64, 256));
            Pipeline::new(&options, counters, &mut HeapMemory).unwrap()
        });
        Self {
            rng,
            world: World::new(workers),
            pipelines: pipelines.collect(),
            pool: Vec::new(),
            now: Now { ms: 1 },
            swept_ms: [0; 2],
            stats: Stats::default(),
        }
    }
    /// Takes all NAT ports of the first worker towards one backend, in a crowded episode.
    pub fn begin(&mut self) -> Result<(), Failure> {
        if self.world.workers() != CROWD_WORKERS {
            return Ok(());
        }
        let syn = crate::seeds::syn();
        for _ in 0..CROWD_BURSTS_MAX {
            let syns = (0..BURST_PACKETS_MAX).map(|_| {
                let mut input = Input::new(syn.clone(), model::ids::PortId(0));
                let client = [198, 51, 100, self.rng.u8(1..)];
                input.bytes[26..30].copy_from_slice(&client);
                input.bytes[34..36].copy_from_slice(&self.rng.u16(1..).to_be_bytes());
                crate::layout::fix_ip(&mut input.bytes);
                crate::layout::fix_l4(&mut input.bytes);
                input.rx.hash = Some(0);
                input
            });
            let syns: Vec<Input> = syns.collect();
            self.pool.clear();
            self.process(0, syns.clone(), true)?;
            let replies = std::mem::take(&mut self.pool);
            for burst in replies.chunks(BURST_PACKETS_MAX) {
                self.process(0, burst.to_vec(), true)?;
            }
            self.process(0, syns.iter().filter_map(crate::feed::complete).collect(), true)?;
            if self.stats.drops[DropReason::NatPortsExhausted as usize] > 0 {
                break;
            }
        }
        Ok(())
    }
    /// One burst, and what happens around it.
    pub fn step(&mut self, seeds: &[Input]) -> Result<(), Failure> {
        let rng = &mut self.rng;
        if rng.u8(..32) == 0 {
            self.world.change(rng);
            self.stats.changes += 1;
        }
        let steps = [0, 0, 0, 1, 1, 20, 1000, 16_000];
        let mut ms = steps[rng.usize(..steps.len())];
        if rng.u16(..256) == 0 {
            ms = [400_000, 4_000_000, 90_000_000, u64::from(u32::MAX)][rng.usize(..4)];
        }
        self.now.ms += ms;
        let worker = rng.usize(..self.pipelines.len());
        let count = [1, 2, 8, BURST_PACKETS_MAX][rng.usize(..4)];
        let inputs: Vec<Input> = (0..count).map(|_| self.input(seeds)).collect();
        self.process(worker, inputs, false)?;
        if self.rng.u8(..4) == 0 {
            self.sweep(worker)?;
        }
        Ok(())
    }
    /// The next packet: a seed or one that came back, mutated or not.
    fn input(&mut self, seeds: &[Input]) -> Input {
        let rng = &mut self.rng;
        let fed = !self.pool.is_empty() && rng.bool();
        let from = if fed { &self.pool } else { seeds };
        let mut input = from[rng.usize(..from.len())].clone();
        let other = &seeds[rng.usize(..seeds.len())].bytes;
        // Connections get on only with packets as they should be.
        if !fed || rng.bool() {
            mutate(rng, &mut input, other, &self.world.addresses);
        }
        if rng.u8(..64) == 0 {
            input.rx.hash = Some(rng.u32(..));
        }
        input
    }
    /// Processes the packets as one burst, and those handed over where they are handed to.
    pub fn process(
        &mut self,
        worker: usize,
        inputs: Vec<Input>,
        faithful: bool,
    ) -> Result<(), Failure> {
        let fail = |what: String, frame, inputs: &[Input]| Failure {
            what,
            frame,
            worker,
            burst: inputs.to_vec(),
        };
        let pipeline = &mut self.pipelines[worker];
        let counted = drops(pipeline);
        let mut buffers: Vec<Vec<u8>> = inputs.iter().map(Input::buffer).collect();
        let mut frames: Vec<Frame<'_>> =
            inputs.iter().zip(&mut buffers).map(|(input, buffer)| input.frame(buffer)).collect();
        let (tables, now) = (&self.world.tables, self.now);
        let burst = AssertUnwindSafe(|| pipeline.process_burst(tables, &mut frames, now));
        if catch_unwind(burst).is_err() {
            return Err(fail("a panic".to_owned(), None, &inputs));
        }
        let mut expected = counted;
        let mut handed: Vec<Vec<Input>> = vec![Vec::new(); self.pipelines.len()];
        let me = WorkerId(worker as u8);
        for (number, (input, frame)) in inputs.iter().zip(&frames).enumerate() {
            check::frame(&self.world, me, input, frame)
                .map_err(|what| fail(what, Some(number), &inputs))?;
            self.stats.count(frame.verdict);
            match frame.verdict {
                Verdict::Drop(reason) => expected[reason as usize] += 1,
                Verdict::Handover(to) => {
                    if let Some(handed) = handed.get_mut(to.index()) {
                        let bytes = input.bytes_of(frame);
                        let mut next = Input { bytes, rx: frame.rx, ..input.clone() };
                        next.tail = frame.tail_len();
                        next.rx.hops += 1;
                        handed.push(next);
                    }
                }
                _ => feed_back(&mut self.rng, &mut self.pool, input, frame, faithful),
            }
        }
        self.stats.bursts += 1;
        let pipeline = &mut self.pipelines[worker];
        if drops(pipeline) != expected {
            return Err(fail("drop counters differ from verdicts".to_owned(), None, &inputs));
        }
        let (used, room) = (pipeline.connections(), pipeline.capacity());
        if used[0] > room[0] || used[1] > room[1] {
            return Err(fail("more connections than room".to_owned(), None, &inputs));
        }
        self.stats.connections_max = self.stats.connections_max.max(used[0] + used[1]);
        pipeline.take_requests().for_each(drop);
        for (to, handed) in handed.into_iter().enumerate().filter(|(_, list)| !list.is_empty()) {
            self.process(to, handed, faithful)?;
        }
        Ok(())
    }
    /// Sweeps a worker's tables, and counts what is left in them.
    pub fn sweep(&mut self, worker: usize) -> Result<(), Failure> {
        let pipeline = &mut self.pipelines[worker];
        pipeline.sweep(&self.world.tables, self.now);
        while let Some(made) = pipeline.take_generated() {
            check::generated(&self.world, made.port, made.bytes()).map_err(|what| Failure {
                what,
                frame: None,
                worker,
                burst: Vec::new(),
            })?;
            self.stats.generated += 1;
        }
        let [v4, v6] = pipeline.connections();
        let gauges = &pipeline.counters().connections;
        let gauged = gauges[0].read() + gauges[1].read();
        let records = drive::records(pipeline, &self.world.tables, self.now);
        for record in &records {
            let state = ConnectionState::ALL.iter().position(|state| *state == record.state);
            state.into_iter().for_each(|state| self.stats.states[state] += 1);
        }
        let listed = records.len();
        // A second sweep within a millisecond does nothing, not even this.
        let stale = std::mem::replace(&mut self.swept_ms[worker], self.now.ms) == self.now.ms;
        if !stale && gauged != (v4 + v6) as u64 || listed != v4 + v6 {
            let what = format!("{v4} + {v6} connections, {listed} listed, {gauged} gauged");
            return Err(Failure { what, frame: None, worker, burst: Vec::new() });
        }
        Ok(())
    }
}

fn drops(pipeline: &Pipeline) -> [u64; DropReason::COUNT] {
    std::array::from_fn(|at| pipeline.counters().dropped(DropReason::ALL[at]).read())
}

/// What comes back for a frame. `faithful`: a SYN-ACK for each SYN, and nothing else.
fn feed_back(
    rng: &mut Rng,
    pool: &mut Vec<Input>,
    input: &Input,
    frame: &Frame<'_>,
    faithful: bool,
) {
    let (Verdict::Send(port) | Verdict::Answer(port)) = frame.verdict else { return };
    let out = input.bytes_of(frame);
    let mut put = |rng: &mut Rng, input: Option<Input>| match input {
        Some(input) if pool.len() < POOL_MAX => pool.push(input),
        Some(input) => pool[rng.usize(..POOL_MAX)] = input,
        None => {}
    };
    if faithful {
        if feed::is_syn(&out) {
            let accepted = feed::accept(&out, port);
            put(rng, accepted);
        }
        return;
    }
    let answered = matches!(frame.verdict, Verdict::Answer(_));
    if rng.u8(..if answered { 16 } else { 2 }) == 0 {
        let reply = feed::reply(rng, &out, port);
        put(rng, reply);
    }
    if rng.u8(..8) == 0 {
        let error = feed::error(rng, &out, port);
        put(rng, error);
    }
    if rng.u8(..4) == 0 {
        let next = feed::next(rng, input);
        put(rng, next);
    }
}
