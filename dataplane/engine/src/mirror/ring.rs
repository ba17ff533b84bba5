//! The rings between a worker and the mirror thread: one pair of frame rings and one ring of
//! requests for each worker.
//!
//! A frame travels in a slot that was allocated at start-up. Full slots go one way through one
//! ring, empty ones come back through another, so that only the bytes of the frame are ever
//! copied, nothing is allocated later, and no memory is uninitialised.

use model::ids::InterfaceId;
use pipeline::claims::Claim;
use pipeline::mirror::NeighbourRequest;
use rtrb::{Consumer, Producer, RingBuffer};

/// Requests about neighbours that a worker may have waiting. The worker's token bucket lets
/// through fewer in the half millisecond that an idle mirror sleeps.
const REQUESTS_MAX: usize = 256;

/// Claims to our addresses that a worker may have waiting: ten a second of each link.
const CLAIMS_MAX: usize = 64;

#[derive(Default)]
struct Slot {
    interface: InterfaceId,
    len: usize,
    bytes: Box<[u8]>,
}

/// The giving end of a frame ring.
pub(crate) struct FrameSender {
    full: Producer<Slot>,
    free: Consumer<Slot>,
}

/// The taking end of a frame ring.
pub(crate) struct FrameReceiver {
    full: Consumer<Slot>,
    free: Producer<Slot>,
}

/// A frame in its slot; dropped, the slot is free again.
pub struct MirrorFrame<'a> {
    slot: Slot,
    free: &'a mut Producer<Slot>,
}

impl MirrorFrame<'_> {
    /// The interface whose twin it comes from, or goes to.
    pub const fn interface(&self) -> InterfaceId {
        self.slot.interface
    }
    /// The frame from the Ethernet header on, without checksum and without the interface's tag.
    pub fn bytes(&self) -> &[u8] {
        self.slot.bytes.get(..self.slot.len).unwrap_or(&[])
    }
}

impl Drop for MirrorFrame<'_> {
    fn drop(&mut self) {
        // There are as many places as slots, so that it can't be full.
        let _ = self.free.push(std::mem::take(&mut self.slot));
    }
}

/// A ring of so many frames of at most so many bytes.
pub(crate) fn frame_ring(frames: usize, frame_bytes_max: usize) -> (FrameSender, FrameReceiver) {
    let (full_in, full_out) = RingBuffer::new(frames);
    let (mut free_in, free_out) = RingBuffer::new(frames);
    for _ in 0..frames {
        let bytes = vec![0; frame_bytes_max].into_boxed_slice();
        let _ = free_in.push(Slot { bytes, ..Slot::default() });
    }
    (FrameSender { full: full_in, free: free_out }, FrameReceiver { full: full_out, free: free_in })
}

impl FrameSender {
    /// Gives a frame of `len` bytes, written by `fill`. False, and `fill` isn't called, where the
    /// ring is full or the frame too long for a slot.
    #[inline]
    pub fn send(&mut self, to: InterfaceId, len: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        let fits = self.free.peek().is_ok_and(|slot| len <= slot.bytes.len());
        if !fits {
            return false;
        }
        let Ok(mut slot) = self.free.pop() else { return false };
        slot.interface = to;
        slot.len = len;
        fill(&mut slot.bytes[..len]);
        // A free slot has a place in the ring of full ones.
        self.full.push(slot).is_ok()
    }
}

impl FrameReceiver {
    /// The next frame.
    #[inline]
    pub fn receive(&mut self) -> Option<MirrorFrame<'_>> {
        let slot = self.full.pop().ok()?;
        Some(MirrorFrame { slot, free: &mut self.free })
    }
}

/// A worker's end: no lock, no system call, no allocation.
pub struct MirrorPort {
    frames_out: FrameSender,
    frames_in: FrameReceiver,
    requests: Producer<NeighbourRequest>,
    claims: Producer<Claim>,
}

/// The mirror thread's end.
pub(crate) struct WorkerLink {
    pub from_worker: FrameReceiver,
    pub to_worker: FrameSender,
    pub requests: Consumer<NeighbourRequest>,
    pub claims: Consumer<Claim>,
}

/// The two ends for one worker.
pub(crate) fn worker_link(frames: usize, frame_bytes_max: usize) -> (MirrorPort, WorkerLink) {
    let (to_host, from_worker) = frame_ring(frames, frame_bytes_max);
    let (to_worker, from_host) = frame_ring(frames, frame_bytes_max);
    let (ask, requests) = RingBuffer::new(REQUESTS_MAX);
    let (tell, claims) = RingBuffer::new(CLAIMS_MAX);
    (
        MirrorPort { frames_out: to_host, frames_in: from_host, requests: ask, claims: tell },
        WorkerLink { from_worker, to_worker, requests, claims },
    )
}

impl MirrorPort {
    /// Gives a frame to the host: its bytes from the Ethernet header on, the interface's tag taken
    /// off. False where the ring is full or the frame longer than a slot; then the frame is the
    /// worker's to count as dropped.
    #[inline]
    pub fn to_host(&mut self, interface: InterfaceId, frame: &[u8]) -> bool {
        self.frames_out.send(interface, frame.len(), |bytes| bytes.copy_from_slice(frame))
    }
    /// As [`Self::to_host`], for a frame that lies in pieces: `gather` gets exactly `len` bytes,
    /// still holding an old frame, and writes all of them.
    #[inline]
    pub fn to_host_with(
        &mut self,
        interface: InterfaceId,
        len: usize,
        gather: impl FnOnce(&mut [u8]),
    ) -> bool {
        self.frames_out.send(interface, len, gather)
    }
    /// Whether the host has sent a frame.
    #[inline]
    pub fn has_from_host(&self) -> bool {
        !self.frames_in.full.is_empty()
    }
    /// The next frame that the host sends. The slot is free again when the frame is dropped.
    #[inline]
    pub fn from_host(&mut self) -> Option<MirrorFrame<'_>> {
        self.frames_in.receive()
    }
    /// Tells that another station uses an address of ours. False where too many wait.
    #[inline]
    pub fn tell(&mut self, claim: Claim) -> bool {
        self.claims.push(claim).is_ok()
    }
    /// Asks about a next hop. False where too many requests are waiting.
    #[inline]
    pub fn request(&mut self, request: NeighbourRequest) -> bool {
        self.requests.push(request).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::mirror::Purpose;

    #[test]
    fn frames_keep_order_and_length_and_slots_come_back() {
        let (mut give, mut take) = frame_ring(2, 64);
        for round in 0..100_u8 {
            assert!(give.send(InterfaceId(1), 60, |bytes| bytes.fill(round)));
            assert!(give.send(InterfaceId(2), 3, |bytes| bytes.fill(round)));
            assert!(!give.send(InterfaceId(3), 1, |_| panic!("the ring is full")));
            let first = take.receive().unwrap();
            assert_eq!((first.interface(), first.bytes()), (InterfaceId(1), &[round; 60][..]));
            drop(first);
            let second = take.receive().unwrap();
            assert_eq!((second.interface(), second.bytes()), (InterfaceId(2), &[round; 3][..]));
            drop(second);
            assert!(take.receive().is_none());
        }
    }

    #[test]
    fn a_frame_too_long_for_a_slot_is_refused_and_costs_no_slot() {
        let (mut give, mut take) = frame_ring(1, 64);
        assert!(!give.send(InterfaceId(0), 65, |_| panic!("it doesn't fit")));
        assert!(give.send(InterfaceId(0), 64, |bytes| bytes.fill(1)));
        assert_eq!(take.receive().unwrap().bytes().len(), 64);
    }

    #[test]
    fn two_threads_pass_frames_without_loss() {
        let (mut port, mut link) = worker_link(8, 64);
        let worker = std::thread::spawn(move || {
            let mut sent = 0_u32;
            while sent < 10_000 {
                if port.to_host(InterfaceId(0), &sent.to_be_bytes()) {
                    sent += 1;
                }
            }
        });
        let mut expected = 0_u32;
        while expected < 10_000 {
            let Some(frame) = link.from_worker.receive() else { continue };
            assert_eq!(frame.bytes(), expected.to_be_bytes());
            expected += 1;
        }
        worker.join().unwrap();
    }

    #[test]
    fn requests_are_bounded() {
        let (mut port, mut link) = worker_link(1, 64);
        let request = NeighbourRequest {
            interface: InterfaceId(0),
            address: "192.0.2.1".parse().unwrap(),
            purpose: Purpose::Resolve,
        };
        assert_eq!((0..1000).filter(|_| port.request(request)).count(), REQUESTS_MAX);
        assert_eq!(link.requests.pop().unwrap(), request);
        assert!(port.request(request));
    }
}
