//! The connection table of one worker: never shared, never locked, allocated once.
//!
//! An index of tagged buckets leads to entries; one entry serves both directions of a connection,
//! and is found by either of its two keys. The memory outlives the process where somebody keeps it:
//! another one finds in its header what it holds, and makes all that is derived anew.

mod entry;
mod free;
mod half_open;
mod header;
mod index;
mod key;
mod life;
mod ports;
mod shard;
mod slot_keys;
mod targets;

pub use entry::{Cold, Entry, Flags, NO_SLOT};
pub use header::{Header, LAYOUT_VERSION, NotAdopted, Origin};
pub use index::Direction;
pub use key::{Address, Key};
pub use life::{Event, TimeoutTable, Timeouts, ends_in_doubt, next};
pub use ports::{
    NatPort, Opening, Wish, choose as choose_nat_port, prefetch_first as prefetch_nat_port,
};
pub use shard::{Adopted, Found, Refusal, Shard, challenge_number};
pub use slot_keys::{ByKey, Holders, SlotKeys};
pub use targets::nat_port_order;
