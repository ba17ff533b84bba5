//! What a worker counts beside its pipeline: the ledger, and how busy it is.

use crate::load::{LoadCounters, PassCounters};
use model::answers::Ledger;
use pipeline::counters::Counter;

/// The terms of a worker's ledger, each counted where it happens.
#[derive(Debug, Default)]
pub struct LedgerCounters {
    /// Packets received from ports.
    pub received: Counter,
    /// Packets taken in from the host mirror.
    pub from_host: Counter,
    /// Packets taken in from other workers.
    pub handed_in: Counter,
    /// Packets made here.
    pub generated: Counter,
    /// Packets sent on ports.
    pub sent: Counter,
    /// Packets given to the host mirror.
    pub to_host: Counter,
    /// Packets given to other workers.
    pub handed_out: Counter,
    /// Packets dropped.
    pub dropped: Counter,
    /// Packets that the worker holds right now: a gauge.
    pub in_flight: Counter,
}

impl LedgerCounters {
    /// The terms at some moment not long ago. Exact while nothing moves.
    pub fn read(&self) -> Ledger {
        Ledger {
            received: self.received.read(),
            from_host: self.from_host.read(),
            handed_in: self.handed_in.read(),
            generated: self.generated.read(),
            sent: self.sent.read(),
            to_host: self.to_host.read(),
            handed_out: self.handed_out.read(),
            dropped: self.dropped.read(),
            in_flight: self.in_flight.read(),
        }
    }
}

/// All of a worker's counters but its pipeline's.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// The ledger.
    pub ledger: LedgerCounters,
    /// How busy it is.
    pub load: LoadCounters,
    /// What it is busy with, while somebody asks.
    pub passes: PassCounters,
}
