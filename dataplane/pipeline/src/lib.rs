//! The thinking of the packet path: packet bytes in, verdicts out.
//!
//! No DPDK, no clock, no system call, no lock and no allocation for a packet. [`journey`] is where
//! to start reading: it holds a packet's whole way in the order in which the packet lives it.

pub mod adjacency;
mod ahead;
pub mod answer;
pub mod arch;
mod begin;
mod bits;
pub mod claims;
pub mod connections;
pub mod counters;
mod established;
pub mod forwarding;
mod found;
pub mod frame;
pub mod hash;
mod host;
pub mod host_flows;
mod icmp;
mod inquiry;
pub mod journey;
mod judge;
mod learned;
pub mod mirror;
mod miss;
mod next_hops;

pub mod parse;
mod pipeline;
pub mod rewrite;
pub mod secret;
pub mod select;
pub mod snapshot;
pub mod steer;
mod sweep;
pub mod tables;
mod turn;
mod whose;

pub use found::{FlowFound, NextHopFound, Page};
pub use journey::Now;
pub use pipeline::{Options, Pipeline};
