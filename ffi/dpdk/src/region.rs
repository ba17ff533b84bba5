//! Zeroed memory for large tables, from huge pages where the EAL has them.

use std::ffi::c_void;
use std::ptr::NonNull;

use crate::Eal;

/// Alignment of every region: a cache line, in bytes.
pub const REGION_ALIGN: usize = 64;

/// Why a region was not given.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// Zero bytes were asked for.
    #[error("a region of 0 bytes")]
    Empty,
    /// The EAL's memory is too small or too fragmented.
    #[error(
        "DPDK has no {bytes} contiguous bytes left on socket {socket:?}; raise the memory given \
         to the EAL (and vm.nr_hugepages)"
    )]
    NoMemory {
        /// Bytes asked for.
        bytes: usize,
        /// Memory socket asked for; `None` is any.
        socket: Option<u32>,
    },
}

/// Zeroed, 64-byte aligned memory (`rte_zmalloc_socket`), given back on drop.
///
/// Reached through a raw pointer, as its users lay out tables of their own in it. It keeps the
/// [`Eal`] alive.
#[derive(Debug)]
pub struct Region {
    start: NonNull<u8>,
    len: usize,
    _eal: Eal,
}

// SAFETY: plain memory that nothing else points to; DPDK's allocator may be called on any thread.
unsafe impl Send for Region {}

impl Region {
    /// `bytes` zeroed bytes on memory socket `socket` (`None`: any).
    pub fn new(eal: &Eal, bytes: usize, socket: Option<u32>) -> Result<Self, RegionError> {
        if bytes == 0 {
            return Err(RegionError::Empty);
        }
        let on = crate::eal::socket_number(socket);
        // SAFETY: the EAL is initialised; the alignment is a power of two; the type is optional.
        let start = unsafe {
            dpdk_sys::rte_zmalloc_socket(std::ptr::null(), bytes, REGION_ALIGN as u32, on)
        };
        let start = NonNull::new(start.cast()).ok_or(RegionError::NoMemory { bytes, socket })?;
        Ok(Self { start, len: bytes, _eal: eal.clone() })
    }

    /// Its first byte; valid for [`Self::len`] bytes while the region lives.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Its bytes.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: `len` bytes, initialised to zero, borrowed from `self` alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Its length in bytes, never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: from `rte_zmalloc_socket`, freed once; `_eal` has kept the EAL alive.
        unsafe { dpdk_sys::rte_free(self.start.as_ptr().cast::<c_void>()) };
    }
}
