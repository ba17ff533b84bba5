//! A safe API over the parts of DPDK that Headgate uses.
//!
//! Ownership across the FFI is a type: an [`Mbuf`] frees its chain, a [`Burst`] is an array of
//! owned mbufs, sending takes what was sent and leaves the rest, and each queue of a port has one
//! handle. Everything that points into DPDK's memory keeps the [`Eal`] alive, except mbufs
//! themselves: a word more in each would cost too much. For them, memory is not given back while
//! any is out (see [`Eal::shutdown`]).
//!
//! Lengths are in bytes, indices count from 0, and packet bytes are in network order unless an
//! item says otherwise. Behaviour is that of the DPDK 22.11 programmer's guide and API reference.

pub mod burst;
pub mod eal;
pub mod errno;
pub mod logs;
pub mod mbuf;
mod netns;
pub mod pool;
pub mod port;
pub mod queue;
pub mod ring;
pub mod ring_port;
pub mod stats;
pub mod thash;
pub mod thread;
pub mod time;

pub use burst::Burst;
pub use eal::{Eal, EalError, EalOptions, LogLevel, ShutdownError, version};
pub use errno::Errno;
pub use mbuf::{IpChecksum, L4Checksum, Mbuf, NoRoom, OutOfBuffer};
pub use pool::{Pool, PoolError};
pub use port::{
    Configured, DeviceString, DeviceStringError, Direction, Port, PortConfig, PortError, PortInfo,
    Reception, Rss, RxOffloads, TxOffloads,
};
pub use queue::{RxQueue, Sent, TxQueue};
pub use ring::{Consumer, Producer, RingError, SpscRing};
pub use ring_port::{RingEnd, RingPort};
pub use stats::{PortMonitor, PortStats, StatsError};
pub use thread::{RegistrationError, ThreadRegistration, ignore_tap_signals, pin_current_thread};
pub use time::{cycles, cycles_hz};
