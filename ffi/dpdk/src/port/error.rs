//! What can go wrong with a port.

use std::fmt;
use std::io;

use crate::Errno;

/// Of packets, as the port sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the wire.
    Receive,
    /// To the wire.
    Send,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Receive => "receive",
            Self::Send => "send",
        })
    }
}

/// Why something with a port failed.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The network namespace cannot be entered.
    #[error(
        "the network namespace {name:?} cannot be entered ({source}); make it with \
         `ip netns add`, and run with CAP_SYS_ADMIN"
    )]
    Netns {
        /// Its name.
        name: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// DPDK knows the device and has not made it.
    #[error(
        "the device {device} could not be attached: {errno}; check the driver's name and its \
         arguments, the rights (CAP_NET_ADMIN for net_tap, vfio-pci for PCI); DPDK says: {log}"
    )]
    Attach {
        /// As given.
        device: String,
        /// What `rte_dev_probe` or `rte_eth_from_rings` reports.
        errno: Errno,
        /// The end of its log.
        log: String,
    },
    /// It is a port of this process already.
    #[error("the device {0} is attached already; use another name")]
    AlreadyAttached(String),
    /// DPDK made the device, but no port of that name.
    #[error("the device {0} has no Ethernet port")]
    NoPort(String),
    /// More queues than the device has.
    #[error("{wanted} {direction} queues are wanted, and the device has at most {max}")]
    TooManyQueues {
        /// Which queues.
        direction: Direction,
        /// Asked for.
        wanted: u16,
        /// What it can.
        max: u16,
    },
    /// A port needs at least one queue of each kind.
    #[error("a port needs at least one {0} queue")]
    NoQueues(Direction),
    /// An MTU outside of the device's.
    #[error("an MTU of {wanted} bytes is wanted, and the device takes {min} to {max}")]
    Mtu {
        /// Asked for.
        wanted: u16,
        /// Smallest.
        min: u16,
        /// Largest.
        max: u16,
    },
    /// RSS was asked of a device that doesn't have it.
    #[error(
        "the device cannot spread packets by RSS as asked: {0}; configure it without, and let \
         the program hash"
    )]
    Rss(&'static str),
    /// A queue that isn't there.
    #[error("{direction} queue {index} is not configured: there are {count}")]
    NoSuchQueue {
        /// Which kind.
        direction: Direction,
        /// Asked for.
        index: u16,
        /// Configured.
        count: u16,
    },
    /// A queue has one handle.
    #[error("{direction} queue {index} was handed out before; each has one handle")]
    QueueTaken {
        /// Which kind.
        direction: Direction,
        /// Which.
        index: u16,
    },
    /// The port is in another state.
    #[error("the port must be {needed} for this")]
    State {
        /// What it has to be.
        needed: &'static str,
    },
    /// Queues are out.
    #[error("{0} queues of the port are still held; drop them before it is stopped")]
    QueuesHeld(usize),
    /// A call failed.
    #[error("{step} failed: {errno}; DPDK says: {log}")]
    Call {
        /// Which function of DPDK.
        step: &'static str,
        /// What it reports.
        errno: Errno,
        /// The end of its log.
        log: String,
    },
    /// A net_tap's signals cannot be ignored.
    #[error("net_tap's signals cannot be ignored: {0}")]
    Signals(#[source] io::Error),
}
