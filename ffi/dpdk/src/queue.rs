//! The queues of a started port.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::Burst;
use crate::port::inner::PortInner;

/// The one handle of a receive queue. It may move to another thread and cannot be shared.
#[derive(Debug)]
pub struct RxQueue(Queue);

/// The one handle of a send queue. It may move to another thread and cannot be shared.
#[derive(Debug)]
pub struct TxQueue(Queue);

#[derive(Debug)]
struct Queue {
    port: u16,
    index: u16,
    /// Goes before `_port`, though nothing depends on that.
    _token: Arc<()>,
    _port: Arc<PortInner>,
    _not_sync: PhantomData<Cell<()>>,
}

/// What became of a burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Sent {
    /// Taken by the device.
    pub sent: usize,
    /// Freed because the device would not take them.
    pub dropped: usize,
}

impl Queue {
    fn new(inner: Arc<PortInner>, index: u16, token: Arc<()>) -> Self {
        Self { port: inner.id, index, _token: token, _port: inner, _not_sync: PhantomData }
    }
}

impl RxQueue {
    pub(crate) fn new(inner: Arc<PortInner>, index: u16, token: Arc<()>) -> Self {
        Self(Queue::new(inner, index, token))
    }

    /// The port's number.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// The queue's number in the port.
    pub fn index(&self) -> u16 {
        self.0.index
    }

    /// Adds what has arrived to `burst`, as far as it has room, and returns how many.
    ///
    /// Give an empty burst of 32: vector drivers receive nothing into fewer than 4 places. The
    /// [metadata](crate::Mbuf::meta) of received mbufs is undefined.
    #[inline]
    pub fn receive<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        let (room, mbufs) = (burst.room() as u16, burst.spare_raw());
        // SAFETY: the port is started while this handle lives, the queue exists, this is its one
        // handle, and `mbufs` has `room` places.
        let count = unsafe { dpdk_sys::dk_rx_burst(self.0.port, self.0.index, mbufs, room) };
        // SAFETY: the driver wrote `count`, at most `room`, mbufs and gave them away.
        unsafe { burst.grow(count.into()) };
        count.into()
    }
}

impl TxQueue {
    pub(crate) fn new(inner: Arc<PortInner>, index: u16, token: Arc<()>) -> Self {
        Self(Queue::new(inner, index, token))
    }

    /// The port's number.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// The queue's number in the port.
    pub fn index(&self) -> u16 {
        self.0.index
    }

    /// Gives the device as many as it takes, from the front, and returns how many; the others
    /// stay in `burst`, in order.
    ///
    /// Some drivers free what they cannot send and count it as sent (see `oerrors`).
    #[inline]
    pub fn send<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        let (len, mbufs) = (burst.len() as u16, burst.as_raw());
        // SAFETY: the port is started while this handle lives, the queue exists, this is its one
        // handle, and `mbufs` holds `len` mbufs of ours.
        let count = unsafe { dpdk_sys::dk_tx_burst(self.0.port, self.0.index, mbufs, len) };
        // The driver owns the first `count` now.
        burst.remove_first(count.into());
        count.into()
    }

    /// Sends all of `burst`, which is empty afterwards: what the device won't take is freed.
    ///
    /// Calls that bring no progress are repeated `tries` times in total, for a device that is
    /// full for a moment. Then the first mbuf is dropped and those behind get one call more: a
    /// frame that the device never takes (net_tap and more than 1522 bytes) costs itself alone.
    pub fn send_all<const N: usize>(&mut self, burst: &mut Burst<N>, tries: u32) -> Sent {
        let mut result = Sent::default();
        let mut tries_left = tries;
        while !burst.is_empty() {
            let count = self.send(burst);
            result.sent += count;
            if count > 0 {
                continue;
            }
            if tries_left > 0 {
                tries_left -= 1;
                std::hint::spin_loop();
            } else {
                burst.drop_first();
                result.dropped += 1;
            }
        }
        result
    }
}
