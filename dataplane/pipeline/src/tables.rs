//! What is published to the workers: one pointer to all that they read and never write.

use crate::adjacency::Adjacencies;
use crate::snapshot::Snapshot;
use crate::steer::SteerTable;
use std::sync::Arc;

/// The published tables. A burst is processed under one of them.
#[derive(Clone, Debug)]
pub struct Tables {
    /// Counts publications, of whichever part, from 1.
    pub generation: u64,
    /// Services, frontends and backends.
    pub snapshot: Arc<Snapshot>,
    /// Interfaces, addresses, routes and next hops.
    pub adjacencies: Arc<Adjacencies>,
    /// Which worker owns what.
    pub steer: Arc<SteerTable>,
}

impl Tables {
    /// The generation as a connection's entry holds it. It wraps after 2^32 publications, which at
    /// 100 a second takes 16 months in which an entry would have to stay silent to be mistaken.
    #[inline]
    pub const fn stamp(&self) -> u32 {
        self.generation as u32
    }
    /// Changes whenever the backend in this slot is another, or stands otherwise: a connection that
    /// was validated under another stamp is looked at again on its next packet, and then takes the
    /// stamp of the snapshot's own record, [`Snapshot::backend_stamp_of`].
    #[inline(always)]
    pub fn backend_stamp(&self, slot: u32) -> u32 {
        self.snapshot.stamps().get(slot)
    }
    /// The stamp of a connection that was validated by this snapshot's record of its backend.
    #[inline]
    pub fn validated_stamp(&self, slot: u32) -> u32 {
        self.snapshot.backend_stamp_of(slot)
    }
    /// Asks for the line of [`Self::backend_stamp`] before it is needed.
    #[inline(always)]
    pub fn prefetch_backend_stamp(&self, slot: u32) {
        self.snapshot.stamps().prefetch(slot);
    }
    /// Changes whenever an interface or a route is another: next hops are then found anew.
    #[inline]
    pub fn routes_stamp(&self) -> u32 {
        self.adjacencies.routes_stamp()
    }
    /// The stamp of an entry that is to be looked at again whatever is published next.
    pub const fn stale_stamp(&self) -> u32 {
        self.stamp().wrapping_sub(1)
    }
}
