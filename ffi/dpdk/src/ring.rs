//! Handing mbufs from one thread to one other (`rte_ring`, single producer and consumer).

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dpdk_sys::rte_ring;

use crate::{Burst, Eal, Errno};

/// Why a ring was not made.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// A ring holds at least 1 and at most 2^30 mbufs.
    #[error("a ring for {0} mbufs; 1 to 1073741824 are possible")]
    Capacity(u32),
    /// Too little memory, or too many rings.
    #[error("a ring for {capacity} mbufs was refused ({errno}); raise the EAL's memory_mib")]
    Refused {
        /// Mbufs it was to hold.
        capacity: u32,
        /// What DPDK reports.
        errno: Errno,
    },
}

/// A ring of mbufs for one producer and one consumer. What is in it when both are gone is freed.
#[derive(Debug)]
pub struct SpscRing {
    inner: Arc<Inner>,
}

/// The end that puts in. It may move to another thread and cannot be cloned.
#[derive(Debug)]
pub struct Producer(Arc<Inner>);

/// The end that takes out. It may move to another thread and cannot be cloned.
#[derive(Debug)]
pub struct Consumer(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    ring: NonNull<rte_ring>,
    _eal: Eal,
}

// SAFETY: the ring synchronises one producer with one consumer, and there is one of each: they
// cannot be cloned and put in and take out through `&mut`.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl SpscRing {
    /// A ring that holds `capacity` mbufs, in memory of any socket.
    pub fn new(eal: &Eal, capacity: u32) -> Result<Self, RingError> {
        Ok(Self { inner: Arc::new(Inner::new(eal, capacity)?) })
    }

    /// Its two ends.
    pub fn split(self) -> (Producer, Consumer) {
        (Producer(Arc::clone(&self.inner)), Consumer(self.inner))
    }
}

impl Producer {
    /// Puts in as many as there is room for, from the front, and returns how many; the others
    /// stay in `burst`, in order. In one step for the whole burst.
    #[inline]
    pub fn enqueue_burst<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        let (count, mbufs) = (burst.len() as u32, burst.as_raw().cast_const().cast());
        // SAFETY: the ring lives, this is its one producer, and `mbufs` holds `count` mbufs of
        // ours.
        let count =
            unsafe { dpdk_sys::dk_ring_sp_enqueue_burst(self.0.ring.as_ptr(), mbufs, count) }
                as usize;
        // The ring owns the first `count` now.
        burst.remove_first(count);
        count
    }

    /// Mbufs in the ring now; the consumer may be at it.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is empty now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Consumer {
    /// Adds what is in the ring to `burst`, as far as it has room, and returns how many.
    #[inline]
    pub fn dequeue_burst<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        let (room, mbufs) = (burst.room() as u32, burst.spare_raw().cast());
        // SAFETY: the ring lives, this is its one consumer, and `mbufs` has `room` places.
        let count = unsafe { dpdk_sys::dk_ring_sc_dequeue_burst(self.0.ring.as_ptr(), mbufs, room) }
            as usize;
        // SAFETY: the ring held owned mbufs, wrote `count`, at most `room`, and forgot them.
        unsafe { burst.grow(count) };
        count
    }

    /// Mbufs in the ring now; the producer may be at it.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is empty now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn new(eal: &Eal, capacity: u32) -> Result<Self, RingError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if capacity == 0 || capacity > 1 << 30 {
            return Err(RingError::Capacity(capacity));
        }
        let name = format!("hg_ring_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let name = CString::new(name).map_err(|_| RingError::Capacity(capacity))?;
        let flags = dpdk_sys::DK_RING_F_SPSC_EXACT;
        // SAFETY: the EAL is initialised and the name is NUL-terminated; DPDK copies it.
        let ring = unsafe { dpdk_sys::rte_ring_create(name.as_ptr(), capacity, -1, flags) };
        let refused = || RingError::Refused { capacity, errno: Errno::last() };
        let ring = NonNull::new(ring).ok_or_else(refused)?;
        Ok(Self { ring, _eal: eal.clone() })
    }

    fn len(&self) -> usize {
        // SAFETY: the ring lives.
        unsafe { dpdk_sys::dk_ring_count(self.ring.as_ptr()) as usize }
    }

    /// For net_ring, which then is the ring's other end.
    pub(crate) fn as_ptr(&self) -> *mut rte_ring {
        self.ring.as_ptr()
    }
}

/// A ring of which net_ring is the consumer: our producer, and what the port has to keep.
pub(crate) fn producer_for_port(eal: &Eal, size: u32) -> Result<(Producer, Arc<Inner>), RingError> {
    let inner = SpscRing::new(eal, size)?.inner;
    Ok((Producer(Arc::clone(&inner)), inner))
}

/// A ring of which net_ring is the producer.
pub(crate) fn consumer_for_port(eal: &Eal, size: u32) -> Result<(Consumer, Arc<Inner>), RingError> {
    let inner = SpscRing::new(eal, size)?.inner;
    Ok((Consumer(Arc::clone(&inner)), inner))
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut burst = Burst::<32>::new();
        loop {
            let places = burst.spare_raw().cast();
            // SAFETY: both ends are gone, so nobody else uses the ring; there are 32 places.
            let count =
                unsafe { dpdk_sys::dk_ring_sc_dequeue_burst(self.ring.as_ptr(), places, 32) };
            if count == 0 {
                break;
            }
            // SAFETY: `count` owned mbufs were written, at most 32.
            unsafe { burst.grow(count as usize) };
            burst.clear();
        }
        // SAFETY: from `rte_ring_create`, freed once; `_eal` has kept the EAL alive.
        unsafe { dpdk_sys::rte_ring_free(self.ring.as_ptr()) };
    }
}
