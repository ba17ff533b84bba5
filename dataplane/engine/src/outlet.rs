//! How packets leave a worker: by a send queue of its own, or through the worker that has one.

use crate::counters::LedgerCounters;
use crate::packet::Handed;
use dpdk::{Burst, Mbuf, Producer, TxQueue};
use model::drops::DropReason;
use model::ids::{PortId, WorkerId};
use pipeline::counters::Counters;

/// Calls without progress before a full device costs a packet: a device that is full for a moment
/// (net_tap while the kernel drains it) gets some microseconds.
const SEND_TRIES: u32 = 32;

/// Where packets for one port go.
pub enum Outlet {
    /// A queue of this worker's own.
    Own {
        /// The queue.
        queue: TxQueue,
        /// Packets that wait for the end of the loop, or for 32 of them.
        waiting: Box<Burst<32>>,
        /// The longest frame that the port takes, in bytes.
        frame_max: usize,
    },
    /// The port has fewer queues than there are workers: this one's packets go through another.
    Through(WorkerId),
}

/// All ways out of a worker.
pub struct Outlets {
    /// By port.
    pub ports: Vec<Outlet>,
    /// By worker; `None` for itself.
    pub rings: Vec<Option<Ring>>,
}

/// The way to another worker.
pub struct Ring {
    /// The ring.
    pub producer: Producer,
    /// Packets that wait for the end of the loop, or for 32 of them.
    pub waiting: Box<Burst<32>>,
}

/// Counts drops that happen outside the pipeline.
pub fn count_drop(ledger: &LedgerCounters, counters: &Counters, reason: DropReason, n: u64) {
    counters.dropped(reason).add(n);
    ledger.dropped.add(n);
}

impl Outlets {
    /// Sends a packet on a port, or has it sent.
    #[inline]
    pub fn send(
        &mut self,
        port: PortId,
        mut mbuf: Mbuf,
        ledger: &LedgerCounters,
        counters: &Counters,
    ) {
        let through = match self.ports.get_mut(port.index()) {
            Some(Outlet::Own { queue, waiting, frame_max }) => {
                if mbuf.len() > *frame_max {
                    count_drop(ledger, counters, DropReason::TransmitOversize, 1);
                    return;
                }
                if waiting.is_full() {
                    flush_port(queue, waiting, ledger, counters);
                }
                if waiting.push(mbuf).is_err() {
                    count_drop(ledger, counters, DropReason::TransmitFull, 1);
                }
                return;
            }
            Some(Outlet::Through(worker)) => *worker,
            None => {
                count_drop(ledger, counters, DropReason::TransmitFull, 1);
                return;
            }
        };
        mbuf.set_meta(Handed::Send(port).to_meta());
        self.hand_over(through, mbuf, ledger, counters);
    }
    /// Gives a packet, whose metadata is set, to another worker.
    #[inline]
    pub fn hand_over(
        &mut self,
        worker: WorkerId,
        mbuf: Mbuf,
        ledger: &LedgerCounters,
        counters: &Counters,
    ) {
        let Some(Some(ring)) = self.rings.get_mut(worker.index()) else {
            count_drop(ledger, counters, DropReason::HandoverLoop, 1);
            return;
        };
        if ring.waiting.is_full() {
            flush_ring(ring, ledger, counters);
        }
        if ring.waiting.push(mbuf).is_err() {
            count_drop(ledger, counters, DropReason::HandoverFull, 1);
        }
    }
    /// Sends all that waits.
    pub fn flush(&mut self, ledger: &LedgerCounters, counters: &Counters) {
        for outlet in &mut self.ports {
            if let Outlet::Own { queue, waiting, .. } = outlet
                && !waiting.is_empty()
            {
                flush_port(queue, waiting, ledger, counters);
            }
        }
        for ring in self.rings.iter_mut().flatten() {
            if !ring.waiting.is_empty() {
                flush_ring(ring, ledger, counters);
            }
        }
    }
}

fn flush_port(
    queue: &mut TxQueue,
    waiting: &mut Burst<32>,
    ledger: &LedgerCounters,
    counters: &Counters,
) {
    let sent = queue.send_all(waiting, SEND_TRIES);
    ledger.sent.add(sent.sent as u64);
    if sent.dropped > 0 {
        count_drop(ledger, counters, DropReason::TransmitFull, sent.dropped as u64);
    }
}

fn flush_ring(ring: &mut Ring, ledger: &LedgerCounters, counters: &Counters) {
    let handed = ring.producer.enqueue_burst(&mut ring.waiting);
    ledger.handed_out.add(handed as u64);
    let left = ring.waiting.len();
    if left > 0 {
        count_drop(ledger, counters, DropReason::HandoverFull, left as u64);
        ring.waiting.clear();
    }
}
