//! Counters of one worker. One writer, many readers: a count is a plain load and store, visible to
//! whoever reads at a scrape. Nothing is ever reset; readers subtract.

use crate::answer::Class;
use model::drops::DropReason;
use model::ids::InterfaceId;
use model::limits::INTERFACES_MAX;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter with a single writer.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the worker that owns the counter may call it: two writers lose counts.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }
    /// Sets a gauge. Only by the owning worker.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
    /// The value at some moment not long ago.
    pub fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Counters of a service port: a cache line of their own.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct ServiceCounters {
    /// Connections begun.
    pub connections: Counter,
    /// Packets from clients.
    pub packets_in: Counter,
    /// Bytes from clients, from the IP header on.
    pub bytes_in: Counter,
    /// Packets to clients.
    pub packets_out: Counter,
    /// Bytes to clients, from the IP header on.
    pub bytes_out: Counter,
    /// New connections refused for want of a backend.
    pub refused: Counter,
}

/// Counters of a backend: half a cache line.
#[derive(Debug, Default)]
#[repr(C, align(32))]
pub struct BackendCounters {
    /// Connections begun.
    pub connections: Counter,
    /// Packets towards it.
    pub packets_in: Counter,
    /// Packets from it.
    pub packets_out: Counter,
}

/// What was asked of a budget.
#[derive(Debug, Default)]
pub struct BudgetCounters {
    /// Tokens taken.
    pub taken: Counter,
    /// Asked for while there was none.
    pub refused: Counter,
}

/// Counters of one worker's pipeline.
#[derive(Debug)]
pub struct Counters {
    /// By the slot of the service port.
    pub services: Box<[ServiceCounters]>,
    /// By the slot of the backend.
    pub backends: Box<[BackendCounters]>,
    /// By reason.
    drops: [Counter; DropReason::COUNT],
    /// By interface and class: 64 times 12 of 16 bytes, 12 KiB.
    budgets: Box<[[BudgetCounters; Class::COUNT]]>,
    /// Connections inserted.
    pub inserts: Counter,
    /// Half-open connections and UDP flows that newer ones overwrote.
    pub half_open_evicted: Counter,
    /// Connections that were looked at again since their backend, or a route, had changed.
    pub revalidations: Counter,
    /// Segments sent to the side that a RST or FIN was for, to hear whether it lives.
    pub doubt_probes: Counter,
    /// New connections whose client kept its backend by session affinity.
    pub affinity_hits: Counter,
    /// Clients that session affinity began to remember, or gave another backend.
    pub affinity_begun: Counter,
    /// New connections whose client session affinity had no place to remember.
    pub affinity_full: Counter,
    /// RSTs to clients whose backend had gone for long enough.
    pub resets: Counter,
    /// Segments sent to silent clients of such backends, which they answer and so get their RST.
    pub reset_probes: Counter,
    /// Connections in the table now, by family: a gauge.
    pub connections: [Counter; 2],
}

impl Counters {
    /// Zeroed counters for so many service ports and backends.
    pub fn new(service_ports: usize, backends: usize) -> Self {
        Self {
            services: (0..service_ports).map(|_| ServiceCounters::default()).collect(),
            backends: (0..backends).map(|_| BackendCounters::default()).collect(),
            drops: std::array::from_fn(|_| Counter::default()),
            budgets: (0..INTERFACES_MAX).map(|_| Default::default()).collect(),
            inserts: Counter::default(),
            half_open_evicted: Counter::default(),
            revalidations: Counter::default(),
            doubt_probes: Counter::default(),
            affinity_hits: Counter::default(),
            affinity_begun: Counter::default(),
            affinity_full: Counter::default(),
            resets: Counter::default(),
            reset_probes: Counter::default(),
            connections: Default::default(),
        }
    }
    /// The counter of a drop reason.
    #[inline]
    pub fn dropped(&self, reason: DropReason) -> &Counter {
        &self.drops[reason as usize]
    }
    /// The counters of a budget; `None` for an interface that there can't be.
    #[inline]
    pub fn budget(&self, class: Class, interface: InterfaceId) -> Option<&BudgetCounters> {
        Some(&self.budgets.get(interface.index())?[class as usize])
    }
}
