//! Publishing tables to the workers without locking them out: quiescent-state based reclamation.
//!
//! There is one pointer. A worker loads it at the start of each loop, and by that says that it has
//! let go of what it had before. The control side swaps the pointer and frees what was there once
//! every worker has said so. Workers free nothing and wait for nobody.

use crossbeam_utils::CachePadded;
use model::ids::WorkerId;
use pipeline::tables::Tables;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex, PoisonError};

/// A reader that isn't there any more holds nothing back.
const OFFLINE: u64 = u64::MAX;

#[derive(Debug)]
struct Shared {
    current: AtomicPtr<Tables>,
    /// The generation of `current`, set after it.
    generation: AtomicU64,
    /// The generation that each reader has begun a loop with.
    seen: Box<[CachePadded<AtomicU64>]>,
    /// The control side's own. It lives here, so that whatever a reader may still hold goes after
    /// the reader.
    state: Mutex<State>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let current = self.current.load(Acquire);
        // SAFETY: made by `Box::into_raw` in `Publisher`, never freed while it is current, and
        // nobody else holds `Shared` any more.
        drop(unsafe { Box::from_raw(current) });
    }
}

/// The control side's end. Several threads may publish: the mirror its adjacencies, the control
/// thread its snapshots.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct State {
    /// What is published, for whoever isn't a worker.
    latest: Arc<Tables>,
    /// What was published before, with the generation that replaced it.
    retired: Vec<(u64, Box<Tables>)>,
}

/// A worker's end.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    slot: usize,
}

impl Publisher {
    /// Publishes the first tables, and makes a reader for each worker.
    pub fn new(first: Tables, workers: usize) -> (Self, Vec<Reader>) {
        let generation = first.generation;
        let shared = Arc::new(Shared {
            current: AtomicPtr::new(Box::into_raw(Box::new(first.clone()))),
            generation: AtomicU64::new(generation),
            seen: (0..workers).map(|_| CachePadded::new(AtomicU64::new(0))).collect(),
            state: Mutex::new(State { latest: Arc::new(first), retired: Vec::new() }),
        });
        let readers =
            (0..workers).map(|slot| Reader { shared: Arc::clone(&shared), slot }).collect();
        (Self { shared }, readers)
    }
    /// Publishes what `change` makes of the latest tables, under the next generation, which it
    /// returns. Frees what no worker can hold any more.
    pub fn update(&self, change: impl FnOnce(&mut Tables)) -> u64 {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = (*state.latest).clone();
        change(&mut next);
        next.generation = state.latest.generation + 1;
        let generation = next.generation;
        state.latest = Arc::new(next.clone());
        let old = self.shared.current.swap(Box::into_raw(Box::new(next)), AcqRel);
        self.shared.generation.store(generation, Release);
        // SAFETY: made by `Box::into_raw` here or in `new`; it is no longer current, so this is
        // the one owner, and it is kept until no reader can hold it.
        let old = unsafe { Box::from_raw(old) };
        state.retired.push((generation, old));
        self.reclaim(&mut state);
        generation
    }
    fn reclaim(&self, state: &mut State) {
        let oldest = self.generation_everywhere();
        state.retired.retain(|(replaced_by, _)| *replaced_by > oldest);
    }
    /// Frees what no worker can hold any more. Returns how many are still held.
    pub fn collect(&self) -> usize {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.reclaim(&mut state);
        state.retired.len()
    }
    /// The latest tables.
    pub fn latest(&self) -> Arc<Tables> {
        Arc::clone(&self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).latest)
    }
    /// The generation that a worker runs with; the latest one where the worker has ended.
    pub fn generation_of(&self, worker: WorkerId) -> u64 {
        let seen = self.shared.seen.get(worker.index()).map_or(OFFLINE, |seen| seen.load(Acquire));
        if seen == OFFLINE { self.generation() } else { seen }
    }
    /// The latest generation.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Acquire)
    }
    /// The latest generation that every worker runs with.
    pub fn generation_everywhere(&self) -> u64 {
        let workers = 0..self.shared.seen.len();
        workers
            .map(|worker| self.generation_of(WorkerId(worker as u8)))
            .min()
            .unwrap_or_else(|| self.generation())
    }
}

impl Reader {
    /// The current tables. Calling it again says that the ones from before are let go of, which
    /// the borrow makes sure of.
    #[inline]
    pub fn read(&mut self) -> &Tables {
        // Whoever reads generation g sees the swap to g: the pointer loaded below is g's or newer.
        let generation = self.shared.generation.load(Acquire);
        self.shared.seen[self.slot].store(generation, Release);
        let current = self.shared.current.load(Acquire);
        // SAFETY: the publisher frees tables only when every reader has stored a generation at
        // least that of their successor; this one has stored `generation`, and what it loaded is
        // of that or a newer one, so it lives until the next call, which needs `&mut self`.
        unsafe { &*current }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.seen[self.slot].store(OFFLINE, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::adjacency::Adjacencies;
    use pipeline::snapshot::Snapshot;
    use pipeline::steer::SteerTable;
    use std::sync::atomic::AtomicBool;

    fn tables() -> Tables {
        Tables {
            generation: 1,
            snapshot: Arc::new(Snapshot::default()),
            adjacencies: Arc::new(Adjacencies::default()),
            steer: Arc::new(SteerTable::new(1, &[])),
        }
    }

    #[test]
    fn tables_are_freed_when_every_reader_has_moved_on() {
        let (publisher, mut readers) = Publisher::new(tables(), 2);
        let first = Arc::downgrade(&publisher.latest().snapshot);
        let _held = readers[0].read();
        publisher.update(|tables| tables.snapshot = Arc::new(Snapshot::default()));
        assert!(first.upgrade().is_some(), "reader 0 may still look at it");
        let _ = readers[0].read();
        assert_eq!(publisher.collect(), 1, "reader 1 has not begun a loop yet");
        let _ = readers[1].read();
        assert_eq!(publisher.collect(), 0);
        assert!(first.upgrade().is_none());
        assert_eq!(publisher.generation_everywhere(), 2);
        publisher.update(|_| ());
        drop(readers);
        assert_eq!(publisher.collect(), 0, "readers that ended hold nothing back");
    }

    /// A reader that saw freed or torn tables would see their parts disagree.
    #[test]
    fn readers_under_publication_see_whole_tables() {
        let (publisher, readers) = Publisher::new(tables(), 2);
        let stop = AtomicBool::new(false);
        let workers_of = |generation: u64| (generation % 16) as u8 + 1;
        publisher.update(|tables| tables.steer = Arc::new(SteerTable::new(workers_of(2), &[])));
        std::thread::scope(|scope| {
            for mut reader in readers {
                let stop = &stop;
                scope.spawn(move || {
                    let mut last = 0;
                    while !stop.load(Relaxed) {
                        let tables = reader.read();
                        assert!(tables.generation >= last, "generations never go back");
                        assert_eq!(tables.steer.workers(), workers_of(tables.generation));
                        last = tables.generation;
                    }
                });
            }
            for generation in 3..2_000u64 {
                let steer = Arc::new(SteerTable::new(workers_of(generation), &[]));
                publisher.update(|tables| tables.steer = steer);
            }
            stop.store(true, Relaxed);
        });
        assert_eq!(publisher.collect(), 0);
    }
}
