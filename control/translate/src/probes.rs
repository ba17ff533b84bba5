//! Active probes: what is to be asked, and what came of it. Asking is the caller's.

use std::net::SocketAddr;
use std::sync::Arc;

/// What is asked of an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// A TCP connection that opens.
    Tcp,
    /// `GET` of this path over HTTP/1.1, answered by 200 to 399.
    Http {
        /// The path, with its leading slash.
        path: Arc<str>,
    },
}

/// What names a probe. Services that ask the same of the same address share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeKey {
    /// Where it connects to.
    pub address: SocketAddr,
    /// What it asks.
    pub check: Check,
}

/// How often it is asked, and how many answers decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cadence {
    /// From one question to the next.
    pub interval_ms: u32,
    /// How long an answer may take.
    pub timeout_ms: u32,
    /// Good answers in a row that make it healthy again.
    pub healthy_after: u16,
    /// Bad answers in a row that make it unhealthy.
    pub unhealthy_after: u16,
}

impl Default for Cadence {
    fn default() -> Self {
        Self { interval_ms: 5_000, timeout_ms: 1_000, healthy_after: 2, unhealthy_after: 3 }
    }
}

/// What came of a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Too few answers yet.
    #[default]
    Unknown,
    /// It answers as it should.
    Healthy {
        /// What the header `X-Load-Balancing-Endpoint-Weight` said, where it was there.
        weight: Option<u32>,
    },
    /// It doesn't.
    Unhealthy {
        /// True where the port is closed (a refused connection), false for everything else.
        closed: bool,
    },
}

/// Probes that begin, or go on at another pace, and those that end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeChange {
    /// To be asked from now on. One that is asked already takes up the new cadence.
    pub started: Vec<(ProbeKey, Cadence)>,
    /// Not to be asked any longer.
    pub stopped: Vec<ProbeKey>,
}
