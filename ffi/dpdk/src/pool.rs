//! Pools of packet buffers.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys::rte_mempool;

use crate::{Burst, Eal, Errno, Mbuf};

/// Caching per thread that a pool allows at most (`RTE_MEMPOOL_CACHE_MAX_SIZE`).
pub const CACHE_MAX: u32 = 512;

/// Why a pool was not made.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// A name that DPDK cannot take.
    #[error("{0:?} is no name for a pool: 1 to 25 bytes without NUL")]
    Name(String),
    /// The cache must be at most [`CACHE_MAX`] and two thirds of the mbufs.
    #[error("a cache of {cache} mbufs a thread: at most {CACHE_MAX} and {mbufs} / 1.5 are allowed")]
    Cache {
        /// Asked for.
        cache: u32,
        /// Mbufs of the pool.
        mbufs: u32,
    },
    /// A pool keeps its name until the EAL goes.
    #[error("a pool named {0:?} exists or existed; use another name")]
    Exists(String),
    /// Everything else, usually too little memory.
    #[error(
        "{mbufs} mbufs of {data_room} bytes were refused ({errno}); raise the EAL's memory_mib \
         (and vm.nr_hugepages), or lower the number of mbufs"
    )]
    Refused {
        /// Mbufs asked for.
        mbufs: u32,
        /// Bytes of each.
        data_room: u16,
        /// What DPDK reports.
        errno: Errno,
    },
}

/// A pool of mbufs (`rte_pktmbuf_pool_create`), safe to use from any thread. Cloning makes another
/// handle.
///
/// Its memory comes back when the [`Eal`] goes, since mbufs may outlive the pool's handles.
#[derive(Clone, Debug)]
pub struct Pool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: NonNull<rte_mempool>,
    data_room: u16,
    size: u32,
    _eal: Eal,
}

// SAFETY: the mempool is made for several producers and consumers (DPDK's default handler
// `ring_mp_mc`), and lives as long as the EAL.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Pool {
    /// A pool of `mbufs` buffers on any memory socket; see [`Self::on_socket`].
    pub fn new(
        eal: &Eal,
        name: &str,
        mbufs: u32,
        cache: u32,
        data_room: u16,
    ) -> Result<Self, PoolError> {
        Self::on_socket(eal, name, mbufs, cache, data_room, None)
    }

    /// A pool of `mbufs` buffers (best 2^n - 1) with `cache` kept by each registered thread, in
    /// memory of `socket`: that of the port which receives into it
    /// ([`PortInfo::socket`](crate::PortInfo::socket)).
    ///
    /// `data_room` is the bytes of one buffer including 128 of headroom: 2176 takes a frame of
    /// 2048.
    pub fn on_socket(
        eal: &Eal,
        name: &str,
        mbufs: u32,
        cache: u32,
        data_room: u16,
        socket: Option<u32>,
    ) -> Result<Self, PoolError> {
        if name.is_empty() || name.len() > 25 {
            return Err(PoolError::Name(name.to_owned()));
        }
        let c_name = CString::new(name).map_err(|_| PoolError::Name(name.to_owned()))?;
        if cache > CACHE_MAX || u64::from(cache) * 3 > u64::from(mbufs) * 2 {
            return Err(PoolError::Cache { cache, mbufs });
        }
        let socket = crate::eal::socket_number(socket);
        // SAFETY: the EAL is initialised and the name is NUL-terminated; DPDK copies it.
        let pool = unsafe {
            dpdk_sys::rte_pktmbuf_pool_create(c_name.as_ptr(), mbufs, cache, 0, data_room, socket)
        };
        let Some(pool) = NonNull::new(pool) else {
            let errno = Errno::last();
            return Err(match errno.0 {
                libc::EEXIST => PoolError::Exists(name.to_owned()),
                _ => PoolError::Refused { mbufs, data_room, errno },
            });
        };
        eal.adopt_pool(pool.as_ptr());
        Ok(Self { inner: Arc::new(Inner { pool, data_room, size: mbufs, _eal: eal.clone() }) })
    }

    /// One empty mbuf with zeroed metadata, or `None` if all are in use.
    #[inline]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool lives.
        let mbuf = NonNull::new(unsafe { dpdk_sys::dk_mbuf_alloc(self.as_ptr()) })?;
        // SAFETY: just allocated, so it is ours alone.
        let mut mbuf = unsafe { Mbuf::from_raw(mbuf) };
        mbuf.set_meta([0; 2]);
        Some(mbuf)
    }

    /// Adds `count` empty mbufs to `burst`, all or none; `false` if the pool or the burst has no
    /// room for that.
    pub fn alloc_into<const N: usize>(&self, burst: &mut Burst<N>, count: usize) -> bool {
        let mut mbufs = [std::ptr::null_mut(); N];
        if count > N - burst.len() {
            return false;
        }
        let n = u32::try_from(count).unwrap_or(0);
        // SAFETY: room for `count`, which is at most N, pointers.
        let code = unsafe { dpdk_sys::dk_mbuf_alloc_bulk(self.as_ptr(), mbufs.as_mut_ptr(), n) };
        if code != 0 {
            return false;
        }
        for mbuf in mbufs.into_iter().take(count).filter_map(NonNull::new) {
            // SAFETY: just allocated, so it is ours alone.
            let mut mbuf = unsafe { Mbuf::from_raw(mbuf) };
            mbuf.set_meta([0; 2]);
            // Room was checked above.
            drop(burst.push(mbuf));
        }
        true
    }

    /// Mbufs free, those in threads' caches included. Exact when nobody allocates or frees; walks
    /// all caches, so not for the packet path.
    pub fn available(&self) -> u32 {
        // SAFETY: the pool lives.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.as_ptr()) }
    }

    /// Mbufs out: held by us, or by the receive queues of ports. As exact as
    /// [`Self::available`].
    pub fn in_use(&self) -> u32 {
        // SAFETY: the pool lives.
        unsafe { dpdk_sys::rte_mempool_in_use_count(self.as_ptr()) }
    }

    /// Mbufs in total.
    pub fn size(&self) -> u32 {
        self.inner.size
    }

    /// Bytes of one buffer, headroom included.
    pub fn data_room(&self) -> u16 {
        self.inner.data_room
    }

    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut rte_mempool {
        self.inner.pool.as_ptr()
    }
}
