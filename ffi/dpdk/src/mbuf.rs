//! One packet: an owned chain of buffers.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use crate::Pool;
use dpdk_sys::rte_mbuf;

/// Bytes before the data of a fresh or received mbuf (`RTE_PKTMBUF_HEADROOM`).
pub const HEADROOM: u16 = dpdk_sys::DK_HEADROOM;

/// Bytes of metadata.
pub(crate) const META_SIZE: usize = 16;

/// Where metadata lies: the last 16 bytes of the second cache line, registered as a dynamic field
/// when the EAL is initialised.
pub(crate) const META_OFFSET: usize = 112;

const META_WORD: usize = (META_OFFSET - dpdk_sys::DK_MBUF_OFFSET_DYNFIELD1) / 4;
const _: () = assert!(META_WORD + META_SIZE / 4 == 9 && META_OFFSET.is_multiple_of(8));

/// What the device says of the IPv4 header's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpChecksum {
    /// Nothing: verify it.
    Unknown,
    /// It is right.
    Good,
    /// It is wrong.
    Bad,
    /// It is not right in the packet, but the packet's integrity was verified (a virtual peer).
    None,
}

/// What the device says of the TCP or UDP checksum; the values mean the same as [`IpChecksum`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4Checksum {
    /// Nothing.
    Unknown,
    /// It is right.
    Good,
    /// It is wrong.
    Bad,
    /// It is not filled in, but the payload's integrity was verified.
    None,
}

/// Data does not fit the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} bytes do not fit the {room} that the buffer has")]
pub struct NoRoom {
    /// Bytes to be stored.
    pub wanted: usize,
    /// Bytes that would fit.
    pub room: usize,
}

/// A range that is not inside the first segment's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes {start} to {end} are no range of a buffer of {len}")]
pub struct OutOfBuffer {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// The buffer's length.
    pub len: usize,
}

/// An owned packet: a chain of one or more buffers (segments), freed whole on drop.
///
/// It must not outlive the process's DPDK, which is seen to: memory stays mapped while any mbuf
/// is out.
#[derive(Debug)]
#[repr(transparent)]
pub struct Mbuf(NonNull<rte_mbuf>);

// SAFETY: an mbuf belongs to its holder alone, and pools take it back from any thread.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes over a chain.
    ///
    /// # Safety
    ///
    /// `raw` must be the head of a valid chain of which a reference is the caller's to give. Its
    /// buffers may have other holders, who only read: they are written where there are none.
    #[inline]
    pub(crate) unsafe fn from_raw(raw: NonNull<rte_mbuf>) -> Self {
        Self(raw)
    }

    #[inline]
    fn raw(&self) -> &rte_mbuf {
        // SAFETY: a valid mbuf that is ours alone (`from_raw`).
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn raw_mut(&mut self) -> &mut rte_mbuf {
        // SAFETY: a valid mbuf that is ours alone (`from_raw`), borrowed exclusively.
        unsafe { self.0.as_mut() }
    }

    /// Bytes of the packet in all segments.
    #[inline]
    pub fn len(&self) -> usize {
        self.raw().pkt_len as usize
    }

    /// Whether the packet has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.raw().pkt_len == 0
    }

    /// Number of segments, at least 1.
    #[inline]
    pub fn segments(&self) -> u16 {
        self.raw().nb_segs
    }

    /// Bytes of the packet in the first segment.
    #[inline]
    pub fn head_len(&self) -> usize {
        self.raw().data_len.into()
    }

    /// The packet's bytes in the first segment.
    #[inline]
    pub fn head(&self) -> &[u8] {
        segment_data(self.raw())
    }

    /// True where the first segment's bytes are ours alone to write: nobody else holds its buffer,
    /// which may be its own or one that a driver has attached (AF_XDP, mlx5), and the data lie
    /// within it. To be asked of what a driver gives; [`Self::copy`] makes one that is.
    #[inline]
    pub fn is_writable(&self) -> bool {
        let raw = self.raw();
        let foreign = raw.ol_flags & (dpdk_sys::DK_MBUF_EXTERNAL | dpdk_sys::DK_MBUF_INDIRECT) != 0;
        fits(raw) && self.is_held_once() && !(foreign && self.has_shared_buffer())
    }

    #[inline]
    fn is_held_once(&self) -> bool {
        // SAFETY: the place of a field of an mbuf that is valid.
        let count = unsafe { &raw mut (*self.0.as_ptr()).refcnt };
        // SAFETY: aligned and alive; whoever else counts it does so by atomic operations.
        let holders = unsafe { AtomicU16::from_ptr(count) };
        holders.load(Relaxed) == 1
    }

    /// Whether somebody else may have the buffer, of an mbuf whose buffer isn't its own.
    #[cold]
    fn has_shared_buffer(&self) -> bool {
        // SAFETY: reads the flags of an mbuf that is valid, and the counter of its buffer.
        unsafe { dpdk_sys::dk_mbuf_has_shared_buffer(self.0.as_ptr()) != 0 }
    }

    /// A copy with buffers of its own, and all that the device said of the packet. `None` where the
    /// pool is empty, or the data aren't where the mbuf says.
    #[cold]
    pub fn copy(&self, pool: &Pool) -> Option<Self> {
        if !self.segments_raw().all(fits) {
            return None;
        }
        // SAFETY: reads a valid chain, within its buffers as was asked above, and takes mbufs of a
        // live pool.
        let copy =
            unsafe { dpdk_sys::rte_pktmbuf_copy(self.0.as_ptr(), pool.as_ptr(), 0, u32::MAX) };
        // SAFETY: a fresh chain, which nobody else has.
        NonNull::new(copy).map(|copy| unsafe { Self::from_raw(copy) })
    }

    fn segments_raw(&self) -> impl Iterator<Item = &rte_mbuf> {
        // SAFETY: segments of a chain that is ours and borrowed.
        std::iter::successors(Some(self.raw()), |raw| unsafe { raw.next.as_ref() })
    }

    /// The first segment's whole buffer, headroom and tailroom included, and the offset and
    /// length of the data in it: both within it, whatever a driver wrote. Empty where others hold
    /// the buffer as well.
    #[inline]
    pub fn buffer_mut(&mut self) -> (&mut [u8], usize, usize) {
        if !self.is_writable() {
            return (&mut [], 0, 0);
        }
        let raw = self.raw_mut();
        let (start, len) = (raw.buf_addr.cast::<u8>(), usize::from(raw.buf_len));
        let (data_off, data_len) = (usize::from(raw.data_off), usize::from(raw.data_len));
        // SAFETY: `buf_addr` is valid for `buf_len` bytes, apart from the header, and ours alone,
        // as was asked above; pool memory is initialised (mapped zeroed), and so is a device's.
        let buffer = unsafe { std::slice::from_raw_parts_mut(start, len) };
        (buffer, data_off, data_len)
    }

    /// Makes bytes `start..end` of the first segment's buffer its data, and adjusts the packet's
    /// length. `end` of a fresh mbuf's data is its `start`. An mbuf that others hold stays as it is.
    #[inline]
    pub fn set_head(&mut self, start: usize, end: usize) -> Result<(), OutOfBuffer> {
        let len = if self.is_held_once() { usize::from(self.raw().buf_len) } else { 0 };
        let raw = self.raw_mut();
        if start > end || end > len {
            return Err(OutOfBuffer { start, end, len });
        }
        // Both are at most `buf_len`, which is 16 bits wide.
        let (data_off, data_len) = (start as u16, (end - start) as u16);
        raw.pkt_len = raw.pkt_len - u32::from(raw.data_len) + u32::from(data_len);
        raw.data_off = data_off;
        raw.data_len = data_len;
        Ok(())
    }

    /// Frees all segments but the first; the packet is then what that holds.
    #[inline]
    pub fn truncate_to_head(&mut self) {
        let raw = self.raw_mut();
        let tail = NonNull::new(std::mem::replace(&mut raw.next, std::ptr::null_mut()));
        raw.nb_segs = 1;
        raw.pkt_len = raw.data_len.into();
        if let Some(tail) = tail {
            // SAFETY: the rest of a chain that was ours, cut off above; freed by this drop.
            drop(unsafe { Self::from_raw(tail) });
        }
    }

    /// The RSS hash that the device computed, if it did.
    #[inline]
    pub fn rss_hash(&self) -> Option<u32> {
        if self.raw().ol_flags & dpdk_sys::DK_MBUF_RX_RSS_HASH == 0 {
            return None;
        }
        let hash = self.raw().__bindgen_anon_2;
        // SAFETY: every variant of the union is plain integers, and the flag says that this one
        // was written.
        let hash = unsafe { hash.hash };
        // SAFETY: as above.
        Some(unsafe { hash.rss })
    }

    /// What the device says of the checksums.
    #[inline]
    pub fn rx_checksum(&self) -> (IpChecksum, L4Checksum) {
        let flags = self.raw().ol_flags;
        let ip = match flags & dpdk_sys::DK_MBUF_RX_IP_CKSUM_MASK {
            0 => IpChecksum::Unknown,
            dpdk_sys::DK_MBUF_RX_IP_CKSUM_GOOD => IpChecksum::Good,
            dpdk_sys::DK_MBUF_RX_IP_CKSUM_BAD => IpChecksum::Bad,
            _ => IpChecksum::None,
        };
        let l4 = match flags & dpdk_sys::DK_MBUF_RX_L4_CKSUM_MASK {
            0 => L4Checksum::Unknown,
            dpdk_sys::DK_MBUF_RX_L4_CKSUM_GOOD => L4Checksum::Good,
            dpdk_sys::DK_MBUF_RX_L4_CKSUM_BAD => L4Checksum::Bad,
            _ => L4Checksum::None,
        };
        (ip, l4)
    }

    /// The VLAN tag (TCI, host order) that the device took out of the packet; `None` if it took
    /// none out, in which case a tag may still be in the bytes.
    #[inline]
    pub fn vlan_tci(&self) -> Option<u16> {
        let stripped = self.raw().ol_flags & dpdk_sys::DK_MBUF_RX_VLAN_STRIPPED != 0;
        stripped.then_some(self.raw().vlan_tci)
    }

    /// The port that received it; 65535 for an mbuf from [`Pool::alloc`](crate::Pool::alloc).
    #[inline]
    pub fn port(&self) -> u16 {
        self.raw().port
    }

    /// 16 bytes that travel with the mbuf through rings and queues of ours. Zero after
    /// [`Pool::alloc`](crate::Pool::alloc); **whatever it was** after receiving: set it first.
    #[inline]
    pub fn meta(&self) -> [u64; 2] {
        let word = |index: usize| u64::from(self.raw().dynfield1[META_WORD + index]);
        [word(0) | word(1) << 32, word(2) | word(3) << 32]
    }

    /// Sets the bytes that [`Self::meta`] gives.
    #[inline]
    pub fn set_meta(&mut self, meta: [u64; 2]) {
        let words = &mut self.raw_mut().dynfield1;
        words[META_WORD] = meta[0] as u32;
        words[META_WORD + 1] = (meta[0] >> 32) as u32;
        words[META_WORD + 2] = meta[1] as u32;
        words[META_WORD + 3] = (meta[1] >> 32) as u32;
    }

    /// Makes `bytes` the whole packet, in one segment behind the usual headroom.
    pub fn copy_from_slice(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let (buffer, ..) = self.buffer_mut();
        let start = usize::from(HEADROOM).min(buffer.len());
        let room = buffer.len() - start;
        let no_room = NoRoom { wanted: bytes.len(), room };
        buffer.get_mut(start..start + bytes.len()).ok_or(no_room)?.copy_from_slice(bytes);
        self.truncate_to_head();
        self.set_head(start, start + bytes.len()).map_err(|_| no_room)
    }

    /// Adds `bytes` at the end of a packet of one segment; a chain has no room.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let segments = self.segments();
        let (buffer, start, len) = self.buffer_mut();
        let end = start + len;
        let room = if segments == 1 { buffer.len().saturating_sub(end) } else { 0 };
        if bytes.len() > room {
            return Err(NoRoom { wanted: bytes.len(), room });
        }
        buffer[end..end + bytes.len()].copy_from_slice(bytes);
        let wanted = bytes.len();
        self.set_head(start, end + wanted).map_err(|_| NoRoom { wanted, room })
    }

    /// Hangs `tail`'s segments behind this packet's; gives it back if there would be over 65535
    /// segments or 2^32 bytes.
    pub fn chain(&mut self, tail: Self) -> Result<(), Self> {
        let segments = self.raw().nb_segs.checked_add(tail.raw().nb_segs);
        let bytes = self.raw().pkt_len.checked_add(tail.raw().pkt_len);
        let (Some(segments), Some(bytes)) = (segments, bytes) else { return Err(tail) };
        let mut last = self.0;
        // SAFETY: a segment of a chain that is ours, borrowed for the length of this read.
        while let Some(next) = NonNull::new(unsafe { last.as_ref() }.next) {
            last = next;
        }
        // SAFETY: as above, borrowed exclusively.
        unsafe { last.as_mut() }.next = std::mem::ManuallyDrop::new(tail).0.as_ptr();
        let raw = self.raw_mut();
        raw.nb_segs = segments;
        raw.pkt_len = bytes;
        Ok(())
    }

    /// Copies the packet from all its segments to `bytes`, as far as that goes, and returns how
    /// many were copied.
    pub fn read_into(&self, bytes: &mut [u8]) -> usize {
        let mut copied = 0;
        for segment in self.segments_raw() {
            let data = segment_data(segment);
            let count = data.len().min(bytes.len() - copied);
            bytes[copied..copied + count].copy_from_slice(&data[..count]);
            copied += count;
        }
        copied
    }

    /// Asks the CPU to fetch the packet's first cache line.
    #[inline]
    pub fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let raw = self.raw();
            let data = raw.buf_addr.cast::<i8>().wrapping_add(raw.data_off.into());
            // SAFETY: a hint, harmless for any address; SSE is part of x86-64.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(data) };
        }
    }
}

/// Whether the data lie within the buffer, which drivers that attach their own have to see to.
#[inline]
const fn fits(raw: &rte_mbuf) -> bool {
    raw.data_off as u32 + raw.data_len as u32 <= raw.buf_len as u32
}

#[inline]
fn segment_data(raw: &rte_mbuf) -> &[u8] {
    let data_off = raw.data_off.min(raw.buf_len);
    let data_len = raw.data_len.min(raw.buf_len - data_off);
    let start = raw.buf_addr.cast::<u8>().wrapping_add(data_off.into());
    // SAFETY: inside the buffer by the lines above; it is initialised and borrowed with the chain.
    unsafe { std::slice::from_raw_parts(start, data_len.into()) }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: ours alone, and freed once.
        unsafe { dpdk_sys::dk_mbuf_free(self.0.as_ptr()) };
    }
}

#[cfg(test)]
mod tests;
