//! Threads of our own that DPDK knows of, pinned to cores, and safe from net_tap's signals.

use std::io;
use std::marker::PhantomData;

use crate::{Eal, Errno};

/// First and last real-time signal that programs may use with glibc.
const SIGNALS_REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Why a thread was not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// The thread holds a registration already.
    #[error("this thread is registered with DPDK already; keep one registration a thread")]
    AlreadyRegistered,
    /// All slots are in use.
    #[error(
        "DPDK has no slot left for another thread ({0}); end registered threads, or drop their \
         registrations, first"
    )]
    Refused(Errno),
}

/// The calling thread's slot in DPDK (`rte_thread_register`): gives it a cache in every mbuf pool,
/// so that allocating takes about a third of the time.
///
/// Pin the thread first: DPDK notes its affinity now. There are 127 slots; dropping gives this one
/// back, and the type cannot leave its thread.
#[derive(Debug)]
pub struct ThreadRegistration {
    _eal: Eal,
    _not_send: PhantomData<*mut ()>,
}

impl ThreadRegistration {
    /// Registers the calling thread.
    pub fn new(eal: &Eal) -> Result<Self, RegistrationError> {
        // SAFETY: reads a thread-local integer.
        let lcore = unsafe { dpdk_sys::dk_lcore_id() };
        if lcore != dpdk_sys::DK_LCORE_ID_ANY {
            return Err(RegistrationError::AlreadyRegistered);
        }
        // SAFETY: the EAL is initialised (`eal` shows it) and this thread is not registered.
        let code = unsafe { dpdk_sys::rte_thread_register() };
        Errno::check(code).map_err(RegistrationError::Refused)?;
        Ok(Self { _eal: eal.clone(), _not_send: PhantomData })
    }

    /// The slot's number: the index of this thread's caches, below 128.
    pub fn lcore(&self) -> u32 {
        // SAFETY: reads a thread-local integer.
        unsafe { dpdk_sys::dk_lcore_id() }
    }
}

impl Drop for ThreadRegistration {
    fn drop(&mut self) {
        // SAFETY: this thread registered itself, and `_eal` has kept the EAL alive.
        unsafe { dpdk_sys::rte_thread_unregister() };
    }
}

/// Lets the calling thread run on `core` (the kernel's number) alone.
pub fn pin_current_thread(core: u32) -> io::Result<()> {
    let core = usize::try_from(core).unwrap_or(usize::MAX);
    if core >= libc::CPU_SETSIZE.unsigned_abs() as usize {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("core {core} is above the {} that the kernel's mask holds", libc::CPU_SETSIZE),
        ));
    }
    // SAFETY: a bit mask, for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `core` is below CPU_SETSIZE, checked above.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: 0 is the calling thread, and `set` is a mask of the size given.
    let code = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ignores SIGIO and the real-time signals 34 to 64, for the whole process.
///
/// net_tap asks the kernel for a signal at each packet; when their queue overflows the process
/// dies of SIGIO, and once its handler has run the driver believes signals rather than polling.
/// A port of that driver calls this by itself before it starts. Nothing else in the process may
/// rely on these signals.
pub fn ignore_tap_signals() -> io::Result<()> {
    for signal in std::iter::once(libc::SIGIO).chain(SIGNALS_REAL_TIME) {
        // SAFETY: SIG_IGN runs no code of ours.
        let previous = unsafe { libc::signal(signal, libc::SIG_IGN) };
        if previous == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
