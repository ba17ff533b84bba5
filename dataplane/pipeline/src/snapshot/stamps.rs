//! What tells a worker, without a look into the snapshot, that a backend stands otherwise than when
//! a connection was validated: a number for each slot, which changes with the backend in it.
//!
//! The number lies in two places: in the snapshot's own record of the slot, and in one flat array
//! that all workers read, a load for each packet. The compiler writes the array before the snapshot
//! is published, so whoever reads the new snapshot reads the new number too: publication orders
//! them. From then on no entry of the old number passes for valid. Meanwhile a worker may read the
//! new number while it still has the old snapshot; an entry that it validates takes the old record's
//! number, which isn't the array's, and is looked at again until the worker has the new snapshot.
//! Written after publication instead, the array would let entries pass under a snapshot in which
//! their backend has gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The number of a slot that nobody ever held, and of what is no slot.
const NOBODY: u32 = 0;

/// No slot ever has this number: an entry that bears it is looked at again with each packet.
pub const NEVER: u32 = u32::MAX;

/// The array, which all snapshots of a compiler share.
#[derive(Clone, Debug, Default)]
pub struct BackendStamps(Arc<[AtomicU32]>);

impl BackendStamps {
    /// An array of so many slots.
    pub fn new(slots: u32) -> Self {
        Self((0..slots).map(|_| AtomicU32::new(NOBODY)).collect())
    }
    /// The number of a slot now.
    #[inline(always)]
    pub fn get(&self, slot: u32) -> u32 {
        self.0.get(slot as usize).map_or(NOBODY, |stamp| stamp.load(Relaxed))
    }
    /// Asks for the slot's line before it is needed.
    #[inline(always)]
    pub fn prefetch(&self, slot: u32) {
        if let Some(stamp) = self.0.get(slot as usize) {
            crate::arch::prefetch(stamp);
        }
    }
    /// Gives the slot another number, and returns it. It comes again after 2^32 changes of
    /// backends, in which time the sweep has looked at every entry.
    pub fn renew(&self, slot: u32) -> u32 {
        // One sequence for the process: entries outlive a compiler where another one takes over.
        static LATEST: AtomicU32 = AtomicU32::new(NOBODY);
        let mut stamp = LATEST.fetch_add(1, Relaxed).wrapping_add(1);
        while matches!(stamp, NOBODY | NEVER) {
            stamp = LATEST.fetch_add(1, Relaxed).wrapping_add(1);
        }
        if let Some(place) = self.0.get(slot as usize) {
            place.store(stamp, Relaxed);
        }
        stamp
    }
}
