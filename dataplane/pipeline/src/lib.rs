//! The thinking of the packet path: packet bytes in, verdicts out.
//!
//! No DPDK, no clock, no system call, no lock and no allocation for a packet. [`journey`] is where
//! to start reading: it holds a packet's whole way in the order in which the packet lives it.

pub mod adjacency;
pub mod answer;
pub mod arch;
pub mod connections;
pub mod counters;
pub mod frame;
pub mod journey;
pub mod mirror;
pub mod parse;
pub mod rewrite;
pub mod select;
pub mod snapshot;
pub mod steer;
pub mod tables;
