//! The connection table of one worker: never shared, never locked, allocated once.
//!
//! An index of tagged buckets leads to entries; one entry serves both directions of a connection,
//! and is found by either of its two keys.

mod entry;
mod free;
mod half_open;
mod index;
mod key;
mod life;
mod ports;
mod shard;
mod targets;

pub use entry::{Cold, Entry, Flags, NO_SLOT};
pub use index::Direction;
pub use key::{Address, Key};
pub use life::{Event, TimeoutTable, Timeouts, ends_in_doubt, next};
pub use ports::{NatPort, Opening, Wish, choose as choose_nat_port};
pub use shard::{Found, Refusal, Shard};
pub use targets::nat_port_order;
