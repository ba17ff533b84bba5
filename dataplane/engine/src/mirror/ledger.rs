//! The ledger of the mirror: each term is counted where it happens, by the mirror thread alone,
//! and read by whoever wants to.

use model::answers::MirrorLedger;
use pipeline::counters::Counter;

/// The terms of [`MirrorLedger`].
#[derive(Debug, Default)]
pub(crate) struct MirrorCounters {
    pub from_kernel: Counter,
    pub generated: Counter,
    pub to_workers: Counter,
    pub dropped_to_workers: Counter,
    pub from_workers: Counter,
    pub to_kernel: Counter,
    pub dropped_to_kernel: Counter,
}

impl MirrorCounters {
    /// A reading. The terms are read one after another while the thread goes on: the equations of
    /// the ledger hold exactly when it is at rest.
    pub fn read(&self) -> MirrorLedger {
        MirrorLedger {
            from_kernel: self.from_kernel.read(),
            generated: self.generated.read(),
            to_workers: self.to_workers.read(),
            dropped_to_workers: self.dropped_to_workers.read(),
            from_workers: self.from_workers.read(),
            to_kernel: self.to_kernel.read(),
            dropped_to_kernel: self.dropped_to_kernel.read(),
        }
    }
}
