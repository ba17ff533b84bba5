//! A packet as the pipeline sees it, and what can become of it.

use model::drops::DropReason;
use model::ids::{InterfaceId, PortId, WorkerId};

/// What the device says about a checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChecksumReport {
    /// It didn't look.
    #[default]
    Unknown,
    /// It is right.
    Good,
    /// It is wrong.
    Bad,
}

/// How the packet came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rx {
    /// The port that received it.
    pub port: PortId,
    /// The VLAN that the device took off, where it did. A tag in the frame itself is parsed.
    pub vlan: Option<u16>,
    /// The device's Toeplitz hash over the 4-tuple with the key of [`crate::steer`], where it has
    /// one.
    pub hash: Option<u32>,
    /// The device's report about the IPv4 header checksum.
    pub ip_checksum: ChecksumReport,
    /// The device's report about the TCP or UDP checksum.
    pub l4_checksum: ChecksumReport,
    /// How often workers have handed the packet over already.
    pub hops: u8,
    /// Source and destination port, where a fragment's home worker has found them.
    pub fragment_ports: Option<(u16, u16)>,
    /// The identification that all fragments of its packet leave with, given by the home worker.
    pub fragment_id: u32,
}

/// What becomes of a packet. Each packet ends in exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided yet: the state before the pipeline has seen it.
    Pending,
    /// Forwarded: leaves by this port as the frame now stands.
    Send(PortId),
    /// Turned round in place: leaves by this port as the frame now stands.
    Answer(PortId),
    /// For the host: goes to the mirror of this interface, unchanged but for a VLAN tag taken off.
    Host(InterfaceId),
    /// Another worker's, unchanged.
    Handover(WorkerId),
    /// Dropped.
    Drop(DropReason),
}

/// A packet: its first segment with the room around it, and the length of what follows.
///
/// Bytes are read and rewritten in place. Trailing segments are opaque: forwarding needs none of
/// them.
#[derive(Debug)]
pub struct Frame<'a> {
    buffer: &'a mut [u8],
    // Narrow, so that a frame is one cache line.
    start: u32,
    end: u32,
    tail_len: u32,
    /// How it came in.
    pub rx: Rx,
    /// What becomes of it.
    pub verdict: Verdict,
}

const _: () = assert!(size_of::<Frame<'_>>() == 64);

impl<'a> Frame<'a> {
    /// A frame whose first segment is `buffer[start..end]`, followed by `tail_len` bytes in other
    /// segments. Offsets beyond the buffer are cut to it.
    pub fn new(buffer: &'a mut [u8], start: usize, end: usize, tail_len: usize, rx: Rx) -> Self {
        let end = end.min(buffer.len());
        let (start, end) = (start.min(end) as u32, end as u32);
        Self { buffer, start, end, tail_len: tail_len as u32, rx, verdict: Verdict::Pending }
    }
    /// The first segment's bytes, from the Ethernet header on.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start as usize..self.end as usize).unwrap_or(&[])
    }
    /// The first segment's bytes, to be rewritten.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.start as usize..self.end as usize).unwrap_or(&mut [])
    }
    /// Where the first segment lies in the buffer: `(start, end)`.
    pub const fn span(&self) -> (usize, usize) {
        (self.start as usize, self.end as usize)
    }
    /// Bytes in all segments.
    #[inline]
    pub const fn total_len(&self) -> usize {
        (self.end - self.start) as usize + self.tail_len as usize
    }
    /// Bytes in the segments after the first.
    #[inline]
    pub const fn tail_len(&self) -> usize {
        self.tail_len as usize
    }
    /// Moves the start of the frame by `bytes` (negative: into the headroom). False, and nothing
    /// moved, where there is no room.
    #[inline]
    pub fn move_start(&mut self, bytes: isize) -> bool {
        // Into the headroom it is negative, which is beyond the end without a sign.
        let start = (self.start as isize + bytes).cast_unsigned();
        let fits = start <= self.end as usize;
        if fits {
            self.start = start as u32;
        }
        fits
    }
    /// Makes the frame `len` bytes long, all of them in the first segment: trailing segments are
    /// given up, bytes beyond the former end are zero. False where there is no room.
    pub fn resize(&mut self, len: usize) -> bool {
        let end = self.start as usize + len;
        if end > self.buffer.len() {
            return false;
        }
        if let Some(more) = self.buffer.get_mut(self.end as usize..end) {
            more.fill(0);
        }
        self.end = end as u32;
        self.tail_len = 0;
        true
    }
    /// Takes padding off: bytes beyond `len` that the network layer doesn't own.
    #[inline]
    pub const fn trim(&mut self, len: usize) {
        let end = self.start as usize + len;
        if self.tail_len == 0 && end < self.end as usize {
            self.end = end as u32;
        }
    }
}
