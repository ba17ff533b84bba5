//! Several workers: packets arrive at any of them, and are handed over as their verdicts say.

use super::{Buffer, World, process};
use pipeline::arch::memory::HeapMemory;
use pipeline::counters::Counters;
use pipeline::frame::Verdict;
use pipeline::select::AffinityTable;
use pipeline::{Now, Options, Pipeline};
use std::sync::Arc;

use model::ids::WorkerId;

/// A sequence that looks random and repeats itself with its seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

pub struct Workers {
    pub pipelines: Vec<Pipeline>,
    /// Packets that each worker has handed to each other.
    pub handed: Vec<Vec<u64>>,
    pub taken: u64,
    /// The packets of the latest delivery in the order in which they ended.
    pub ended: Vec<usize>,
}

impl Workers {
    pub fn new(world: &World, connections: [usize; 2]) -> Self {
        let workers = world.workers;
        let affinity = Arc::new(AffinityTable::new(1024, 5));
        let pipelines = (0..workers).map(|worker| {
            let options = Options {
                worker: WorkerId(worker),
                connections,
                secret: 1 + u64::from(worker),
                affinity: Arc::clone(&affinity),
                ..Options::default()
            };
            let counters = Arc::new(Counters::new(64, 1024));
            Pipeline::new(&options, counters, &mut HeapMemory).unwrap()
        });
        Self {
            pipelines: pipelines.collect(),
            handed: vec![vec![0; usize::from(workers)]; usize::from(workers)],
            taken: 0,
            ended: Vec::new(),
        }
    }

    /// Gives each packet to a worker (the same place in `workers`) and carries it from worker to
    /// worker until it has another verdict. `workers` then names where each ended. The order of
    /// packets of a worker is kept.
    pub fn deliver(
        &mut self,
        world: &World,
        buffers: &mut [Buffer],
        workers: &mut [usize],
        now: Now,
    ) {
        self.taken += buffers.len() as u64;
        self.ended.clear();
        let mut moving: Vec<usize> = (0..buffers.len()).collect();
        while !moving.is_empty() {
            let mut next = Vec::new();
            for (worker, pipeline) in self.pipelines.iter_mut().enumerate() {
                let here: Vec<usize> =
                    moving.iter().copied().filter(|n| workers[*n] == worker).collect();
                for burst in here.chunks(32) {
                    let mut taken: Vec<Buffer> =
                        burst.iter().map(|n| std::mem::take(&mut buffers[*n])).collect();
                    process(pipeline, &world.tables, &mut taken, now);
                    for (n, buffer) in burst.iter().zip(taken) {
                        buffers[*n] = buffer;
                    }
                }
                next.extend(here);
            }
            next.retain(|n| {
                let Verdict::Handover(to) = buffers[*n].verdict else {
                    self.ended.push(*n);
                    return false;
                };
                assert_ne!(to.index(), workers[*n], "nobody hands over to itself");
                self.handed[workers[*n]][to.index()] += 1;
                workers[*n] = to.index();
                buffers[*n].rx.hops += 1;
                true
            });
            next.sort_unstable();
            moving = next;
        }
    }

    /// Drops over all workers.
    pub fn dropped(&self) -> u64 {
        let of = |p: &Pipeline| super::drops(p.counters()).iter().map(|(_, n)| n).sum::<u64>();
        self.pipelines.iter().map(of).sum()
    }
}
