//! Carrying frames between the twins and the workers.

use super::announce::Place;
use super::gratuitous::announcement;
use super::ledger::MirrorCounters;
use super::ring::WorkerLink;
use super::twin::Twin;
use model::ids::InterfaceId;
use nix::errno::Errno;
use pipeline::adjacency::Mac;
use std::sync::Arc;

/// Bytes before the IP packet: the Ethernet header, and one tag for an interface that the host
/// has stacked on a twin.
pub(crate) const HEADER_BYTES_MAX: usize = 14 + 4;

/// Frames taken from one twin or one worker in one go.
const BATCH: usize = 64;

/// A twin and what is needed to serve it.
pub(crate) struct Served {
    pub twin: Twin,
    pub mac: Mac,
    pub frame_bytes_max: usize,
}

/// A twin can't be used any more.
#[derive(Debug, thiserror::Error)]
#[error("the twin {name} can't be {how}: {source}")]
pub(crate) struct CarryError {
    name: String,
    how: &'static str,
    #[source]
    source: Errno,
}

/// Holds the twins and the mirror's ends of the rings.
pub(crate) struct Carrier {
    twins: Vec<Served>,
    workers: Vec<WorkerLink>,
    counters: Arc<MirrorCounters>,
    frame: Box<[u8]>,
}

impl Carrier {
    pub fn new(
        twins: Vec<Served>,
        workers: Vec<WorkerLink>,
        counters: Arc<MirrorCounters>,
    ) -> Self {
        let longest = twins.iter().map(|served| served.frame_bytes_max).max().unwrap_or(0);
        // The kernel cuts what doesn't fit without a word: one byte more tells.
        let frame = vec![0; longest + 1].into_boxed_slice();
        Self { twins, workers, counters, frame }
    }
    /// The twins, by interface.
    pub fn twins(&self) -> impl Iterator<Item = &Twin> {
        self.twins.iter().map(|served| &served.twin)
    }
    /// The twins, to be removed.
    pub fn take_twins(&mut self) -> impl Iterator<Item = Twin> {
        self.twins.drain(..).map(|served| served.twin)
    }
    /// The mirror's ends of the workers' rings of requests, and the rest of the link.
    pub fn workers(&mut self) -> &mut [WorkerLink] {
        &mut self.workers
    }
    /// Writes to the twins what workers have given; gives the number of frames.
    pub fn feed_kernel(&mut self) -> Result<usize, CarryError> {
        let Self { twins, workers, counters, .. } = self;
        let mut frames = 0;
        for worker in workers {
            for _ in 0..BATCH {
                let Some(frame) = worker.from_worker.receive() else { break };
                frames += 1;
                counters.from_workers.add(1);
                let written = match twins.get(frame.interface().index()) {
                    Some(Served { twin, .. }) => twin.write(frame.bytes()).map_err(|source| {
                        CarryError { name: twin.name.clone(), how: "written to", source }
                    })?,
                    None => false,
                };
                if written {
                    counters.to_kernel.add(1);
                } else {
                    counters.dropped_to_kernel.add(1);
                }
            }
        }
        Ok(frames)
    }
    /// Gives workers what the kernel sends on one interface; gives the number of frames.
    pub fn feed_workers(&mut self, id: InterfaceId) -> Result<usize, CarryError> {
        let Some(served) = self.twins.get(id.index()) else { return Ok(0) };
        let mut frames = 0;
        while frames < BATCH {
            let length = match served.twin.read(&mut self.frame) {
                Ok(Some(length)) => length,
                Ok(None) => break,
                Err(source) => {
                    let name = served.twin.name.clone();
                    return Err(CarryError { name, how: "read from", source });
                }
            };
            frames += 1;
            self.counters.from_kernel.add(1);
            let frame = self.frame.get(..length).unwrap_or(&[]);
            give(&mut self.workers, &self.counters, id, frame, served.frame_bytes_max);
        }
        Ok(frames)
    }
    /// The kernel is to report its groups on an interface once more.
    pub fn report_groups(&self, id: InterfaceId) {
        if let Some(served) = self.twins.get(id.index()) {
            served.twin.pulse_carrier();
        }
    }
    /// Gives a worker the frame that announces an address.
    pub fn announce(&mut self, (id, address): Place) {
        let Some(served) = self.twins.get(id.index()) else { return };
        let frame = announcement(address, served.mac);
        self.counters.generated.add(1);
        give(&mut self.workers, &self.counters, id, &frame, served.frame_bytes_max);
    }
}

/// Gives a frame to the worker of its flow, so that a flow keeps its order. A frame longer than
/// the interface's MTU allows is dropped like one that finds the ring full.
fn give(
    workers: &mut [WorkerLink],
    counters: &MirrorCounters,
    id: InterfaceId,
    frame: &[u8],
    frame_bytes_max: usize,
) {
    let worker = flow_hash(frame) as usize % workers.len().max(1);
    let given = frame.len() <= frame_bytes_max
        && workers.get_mut(worker).is_some_and(|worker| {
            worker.to_worker.send(id, frame.len(), |bytes| bytes.copy_from_slice(frame))
        });
    if given {
        counters.to_workers.add(1);
    } else {
        counters.dropped_to_workers.add(1);
    }
}

/// A hash of who talks to whom: of the IP addresses, which every fragment has, or of the MACs.
fn flow_hash(frame: &[u8]) -> u32 {
    let range = match frame.get(12..14) {
        Some([0x08, 0x00]) => 26..34,
        Some([0x86, 0xdd]) => 22..54,
        _ => 0..12,
    };
    let bytes = frame.get(range).unwrap_or(&[]);
    // FNV-1a, folded, since few workers look at the low bits alone.
    let hash =
        bytes.iter().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193));
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_keep_their_worker_and_spread() {
        let mut hits = [0; 4];
        for host in 0..=255_u8 {
            let mut frame = [0_u8; 60];
            frame[12..14].copy_from_slice(&[0x08, 0x00]);
            frame[26..34].copy_from_slice(&[192, 0, 2, 1, 198, 51, 100, host]);
            let hash = flow_hash(&frame);
            // Ports and lengths don't matter: a fragment has none.
            frame[34..38].fill(host);
            frame[16] = host;
            assert_eq!(flow_hash(&frame), hash);
            hits[hash as usize % 4] += 1;
        }
        assert!(hits.iter().all(|n| *n > 32), "{hits:?}");
        assert_eq!(flow_hash(&[]), flow_hash(&[1]));
    }
}
