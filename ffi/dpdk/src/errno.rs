//! Error numbers as DPDK returns them.

use std::ffi::CStr;
use std::fmt;

/// A positive error number (`man 3 errno`, plus DPDK's own above 1000).
///
/// Made only where a call has failed: DPDK's `rte_errno` is stale after success.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// The calling thread's `rte_errno`, right after a call that failed.
    pub(crate) fn last() -> Self {
        // SAFETY: reads a thread-local integer that exists for every thread.
        Self(unsafe { dpdk_sys::dk_errno() })
    }

    /// From a return code: a negative error number; a bare -1 usually means "see `rte_errno`".
    pub(crate) fn from_return(code: i32) -> Self {
        let last = Self::last();
        if code == -1 && last.0 > 0 { last } else { Self(code.saturating_abs()) }
    }

    /// `Ok` for zero and above, as most DPDK calls mean it.
    pub(crate) fn check(code: i32) -> Result<i32, Self> {
        if code < 0 { Err(Self::from_return(code)) } else { Ok(code) }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: returns a pointer to a constant or to a buffer of this thread; any number is
        // allowed.
        let text = unsafe { dpdk_sys::rte_strerror(self.0) };
        if text.is_null() {
            return write!(f, "errno {}", self.0);
        }
        // SAFETY: not null, NUL-terminated, and not overwritten before the next call on this
        // thread.
        let text = unsafe { CStr::from_ptr(text) };
        write!(f, "{} (errno {})", text.to_string_lossy(), self.0)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({self})")
    }
}

impl std::error::Error for Errno {}
