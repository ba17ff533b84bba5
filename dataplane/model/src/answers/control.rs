//! What the control side alone knows: its source, who writes, pools, and what is live since when.

use serde::{Deserialize, Serialize};

/// How the source of objects is doing, in `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// Everything there is was told at least once, by this process.
    pub loaded: bool,
    /// What is forwarded is what the source says now.
    pub in_step: bool,
    /// Milliseconds since it was last known to be; 0 while it is.
    pub stale_ms: u64,
    /// Why it isn't, with the remedy; empty while it is.
    pub problem: String,
    /// How often everything was listed anew since the start.
    pub relists: u64,
    /// Who allocates addresses and writes status; `None` for a source that nobody writes to.
    pub leadership: Option<Leadership>,
}

/// Who allocates addresses and writes status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leadership {
    /// This gateway does.
    pub ours: bool,
    /// The Lease as `namespace/name`; empty where there is none to share.
    pub lease: String,
    /// Identity of its holder; empty where nobody holds it, or nobody knows.
    pub holder: String,
    /// Why this gateway doesn't write, or can't; empty where it does.
    pub problem: String,
}

/// What was written to the API server since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteCounts {
    /// Statuses written.
    pub statuses: u64,
    /// Statuses that another controller owns.
    pub conflicts: u64,
    /// Statuses that could not be written, and are tried again.
    pub failures: u64,
    /// Events written.
    pub events: u64,
    /// Events that could not be written.
    pub event_failures: u64,
}

/// Active probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeCounts {
    /// Asked regularly.
    pub active: u64,
    /// Of those, the ones that answer as they should.
    pub healthy: u64,
    /// Of those, the ones that don't.
    pub unhealthy: u64,
}

/// How many addresses of one family a pool has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolCount {
    /// Addresses that it gives out; 2^64 - 1 where there are more.
    pub total: u64,
    /// Those that some Service has, each once.
    pub used: u64,
    /// Those that can be given.
    pub free: u64,
}

/// A pool in `show pools`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRow {
    /// Its name.
    pub name: String,
    /// Its addresses, as `203.0.113.10-203.0.113.19`.
    pub ranges: Vec<String>,
    /// `internal` or `internet-facing`, where that was said.
    pub scheme: Option<String>,
    /// The lower number comes first.
    pub priority: u16,
    /// Serves Services that name no pool.
    pub auto_assign: bool,
    /// Keeps addresses that end in .0 and .255 back.
    pub avoid_buggy_addresses: bool,
    /// Namespaces that it is for.
    pub namespaces: Vec<String>,
    /// Labels of Namespaces that it is for.
    pub namespace_selector: Option<String>,
    /// Labels of Services that it is for.
    pub service_selector: Option<String>,
    /// Its IPv4 addresses.
    pub ipv4: PoolCount,
    /// Its IPv6 addresses.
    pub ipv6: PoolCount,
    /// Why nothing is given out of it.
    pub refused: Option<String>,
}

/// What of a Service the workers run with, and since when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// The published generation that holds its latest change. A worker whose generation is this or
    /// higher runs with it.
    pub generation: u64,
    /// When that change was published, in seconds since the Unix epoch.
    pub changed_s: u64,
    /// From the source's word to the last worker's use, in microseconds; `None` while some worker
    /// runs without it.
    pub took_us: Option<u64>,
}

/// What stands in a Service and its slices, for `explain service`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceFacts {
    /// Of type LoadBalancer, yet not ours to give an address to.
    pub foreign: bool,
    /// Why nothing of the Service is forwarded, whosever it is; empty where something may be.
    pub withheld: String,
    /// `spec.loadBalancerClass`; empty where it names none.
    pub class: String,
    /// `spec.selector` as kubectl writes it, `app=web`; empty where there is none.
    pub selector: String,
    /// EndpointSlices that name the Service.
    pub slices: u32,
    /// Their endpoints.
    pub endpoints: u32,
    /// Those of them that are ready.
    pub ready: u32,
    /// Annotations that mean something for type LoadBalancer alone, where it has another.
    pub idle_annotations: Vec<String>,
    /// The reasons of its problems, in their order.
    pub reasons: Vec<String>,
}
