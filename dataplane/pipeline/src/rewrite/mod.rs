//! Changing a packet in place: link header, addresses, ports, TTL and checksums.

pub mod checksum;
mod icmp;
mod link;
mod nat;

pub use icmp::translate_error;
pub use link::{strip_link, turn_round, write_adjacency, write_link};
pub use nat::{Leg, Plain, translate, translate_plain};
