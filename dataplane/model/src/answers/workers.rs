//! What the gateway itself is busy with: workers, passes, budgets.

use super::{Ledger, MirrorLedger};
use crate::ids::WorkerId;
use serde::{Deserialize, Serialize};

/// A worker in `show workers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// The worker.
    pub worker: WorkerId,
    /// Its core.
    pub core: u32,
    /// The published generation (snapshot or adjacencies) that it runs with.
    pub generation: u64,
    /// Share of its time spent in loops that found packets, over the last second, 0 to 1.
    pub busy_ratio: f64,
    /// Nanoseconds of such loops for each packet, over the last second; 0 without packets.
    #[serde(default)]
    pub ns_per_packet: f64,
    /// Seconds since start: in loops that found packets, and others.
    #[serde(default)]
    pub busy_and_idle_s: [f64; 2],
    /// What such loops spend their time on, where that was asked for.
    #[serde(default)]
    pub passes: Vec<PassRow>,
    /// Packets in a burst that wasn't empty, on average, over the last second.
    pub mean_burst: f64,
    /// Loops since start.
    pub loops: u64,
    /// Connections in its table: IPv4, IPv6.
    pub connections: [u64; 2],
    /// Places in its table: IPv4, IPv6.
    pub connections_max: [u64; 2],
    /// Connections inserted since start.
    pub inserts: u64,
    /// Embryonic connections that were overwritten by newer ones.
    pub half_open_evicted: u64,
    /// What session affinity did.
    #[serde(default)]
    pub affinity: AffinityCounts,
    /// RSTs to clients whose backend had gone for long enough.
    #[serde(default)]
    pub resets: u64,
    /// Segments sent to silent clients of such backends, which they answer and so get their RST.
    #[serde(default)]
    pub reset_probes: u64,
    /// Its ledger.
    pub ledger: Ledger,
}

/// A pass of a worker's loop, in `show workers --passes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PassRow {
    /// Its word: `receive`, `pipeline`, `deliver`, `from_host`, `sweep`, `send`, `other`.
    pub pass: String,
    /// Nanoseconds for each packet that the worker moved while it was measured.
    pub ns_per_packet: f64,
    /// Its share of the time of all passes, 0 to 1.
    pub share: f64,
}

/// The budget of a purpose on an interface, in `show budgets`: all workers together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetRow {
    /// The interface's name.
    pub interface: String,
    /// The purpose's word, as `host_routing`.
    pub purpose: String,
    /// What it is for.
    pub meaning: String,
    /// Packets a second for each worker, and as many at once.
    pub rate: [u32; 2],
    /// Packets that came out of it.
    pub taken: u64,
    /// Packets for which nothing was left.
    pub refused: u64,
}

/// What session affinity did with new connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AffinityCounts {
    /// Their client kept its backend.
    pub hits: u64,
    /// Their client was remembered from then on, or got another backend.
    pub begun: u64,
    /// There was no place to remember their client.
    pub full: u64,
}

/// The answer of `show workers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workers {
    /// The latest published generation.
    pub generation: u64,
    /// The latest generation that every worker runs with.
    pub generation_everywhere: u64,
    /// Clients that session affinity remembers, and those that it has room for.
    #[serde(default)]
    pub affinity_clients: [u64; 2],
    /// The workers.
    pub workers: Vec<WorkerRow>,
    /// The host mirror.
    pub mirror: MirrorLedger,
}
