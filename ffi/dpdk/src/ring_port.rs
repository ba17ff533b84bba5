//! Ports in memory (net_ring) with the far end of their wire in hand, for tests and benchmarks.

use std::ffi::CString;
use std::sync::Arc;

use dpdk_sys::rte_ring;

use crate::ring::{self, Consumer, Producer, RingError};
use crate::{Burst, Eal, Errno, Port, PortError, logs};

/// Mbufs that a wire holds in each direction of each queue.
pub const WIRE_CAPACITY: u32 = 1024;

/// The longest name of a port.
const NAME_MAX: usize = 32;

/// The rings of a port; it keeps them until it is closed.
#[derive(Debug)]
pub(crate) struct Wires(#[expect(dead_code, reason = "held for their drop")] Vec<Arc<ring::Inner>>);

/// Makes ports out of rings (`rte_eth_from_rings`).
#[derive(Debug)]
pub struct RingPort;

/// The far end of the wire of one queue pair.
#[derive(Debug)]
pub struct RingEnd {
    inject: Producer,
    drain: Consumer,
}

impl RingPort {
    /// A port named `net_ring_NAME` with `queues` queues both ways (at most 16), and the far end
    /// of each. It still has to be configured, with that number of queues, and started.
    pub fn create(eal: &Eal, name: &str, queues: u16) -> Result<(Port, Vec<RingEnd>), PortError> {
        let device = format!("net_ring_{name}");
        let mark = logs::mark();
        let failed = |errno| PortError::Attach {
            device: format!("net_ring_{name}"),
            errno,
            log: logs::since(mark),
        };
        let c_name = CString::new(name).map_err(|_| failed(Errno(libc::EINVAL)))?;
        if name.is_empty() || name.len() > NAME_MAX || queues == 0 {
            return Err(failed(Errno(libc::EINVAL)));
        }
        if crate::port::find(&device).is_some() {
            return Err(PortError::AlreadyAttached(device));
        }
        let no_ring = |error| match error {
            RingError::Refused { errno, .. } => failed(errno),
            RingError::Capacity(_) => failed(Errno(libc::EINVAL)),
        };
        let (mut ends, mut kept) = (Vec::new(), Vec::new());
        let (mut rx, mut tx): (Vec<*mut rte_ring>, Vec<*mut rte_ring>) = (vec![], vec![]);
        for _ in 0..queues {
            let (inject, from) = ring::producer_for_port(eal, WIRE_CAPACITY).map_err(no_ring)?;
            let (drain, to) = ring::consumer_for_port(eal, WIRE_CAPACITY).map_err(no_ring)?;
            rx.push(from.as_ptr());
            tx.push(to.as_ptr());
            kept.extend([from, to]);
            ends.push(RingEnd { inject, drain });
        }
        let (count, rx, tx) = (u32::from(queues), rx.as_ptr(), tx.as_ptr());
        // SAFETY: both arrays hold `count` live rings, which the port keeps until it is closed;
        // on each the port is one end and `RingEnd` the other.
        let id = unsafe { dpdk_sys::rte_eth_from_rings(c_name.as_ptr(), rx, count, tx, count, 0) };
        let id = Errno::check(id).map_err(failed)?;
        let id = u16::try_from(id).map_err(|_| failed(Errno(libc::ERANGE)))?;
        if !eal.claim_port(id) {
            return Err(PortError::AlreadyAttached(device));
        }
        Ok((Port::from_rings(eal, id, &device, Wires(kept)), ends))
    }
}

impl RingEnd {
    /// Puts packets on the wire towards the port's receive queue; what has no room stays in
    /// `burst`, in order. Returns how many went.
    #[inline]
    pub fn inject<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        self.inject.enqueue_burst(burst)
    }

    /// Adds what the port's send queue put on the wire to `burst`, and returns how many.
    #[inline]
    pub fn drain<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        self.drain.dequeue_burst(burst)
    }

    /// Both directions as ends of their own, for two threads.
    pub fn split(self) -> (Producer, Consumer) {
        (self.inject, self.drain)
    }
}
