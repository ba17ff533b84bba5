//! What a worker counts beside its pipeline: the ledger, and how busy it is.

use model::answers::Ledger;
use pipeline::counters::Counter;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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

/// How busy a worker is.
#[derive(Debug, Default)]
pub struct LoadCounters {
    /// Loops since start.
    pub loops: Counter,
    busy_ratio: AtomicU64,
    mean_burst: AtomicU64,
}

impl LoadCounters {
    /// Share of loops that found packets, over the last second.
    pub fn busy_ratio(&self) -> f64 {
        f64::from_bits(self.busy_ratio.load(Relaxed))
    }
    /// Packets in a burst that wasn't empty, on average, over the last second.
    pub fn mean_burst(&self) -> f64 {
        f64::from_bits(self.mean_burst.load(Relaxed))
    }
}

/// A worker's own view of the current second.
#[derive(Debug, Default)]
pub struct Load {
    since_ms: u64,
    loops: u64,
    busy: u64,
    bursts: u64,
    packets: u64,
}

impl Load {
    /// Counts a burst.
    #[inline]
    pub const fn burst(&mut self, packets: usize) {
        if packets > 0 {
            self.bursts += 1;
            self.packets += packets as u64;
        }
    }
    /// Counts a loop; publishes the figures once a second.
    #[inline]
    pub fn end_loop(&mut self, busy: bool, now_ms: u64, counters: &LoadCounters) {
        self.loops += 1;
        self.busy += u64::from(busy);
        if now_ms.saturating_sub(self.since_ms) >= 1000 {
            let ratio = |a: u64, b: u64| (a as f64 / b.max(1) as f64).to_bits();
            counters.loops.add(self.loops);
            counters.busy_ratio.store(ratio(self.busy, self.loops), Relaxed);
            counters.mean_burst.store(ratio(self.packets, self.bursts), Relaxed);
            *self = Self { since_ms: now_ms, ..Self::default() };
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
}
