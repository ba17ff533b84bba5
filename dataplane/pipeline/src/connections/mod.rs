//! The connection table of one worker: never shared, never locked, allocated once.
//!
//! An index of tagged buckets leads to entries; one entry serves both directions of a connection,
//! and is found by either of its two keys.

mod entry;
mod index;
mod key;
mod life;
mod ports;
mod shard;

pub use entry::{Entry, NO_ADJACENCY};
pub use index::Direction;
pub use key::{Address, Key};
pub use life::{Timeouts, advance};
pub use ports::{NatPort, choose as choose_nat_port};
pub use shard::{Found, Shard, TableFull};
