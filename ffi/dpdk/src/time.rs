//! The cycle counter. Needs no EAL for reading; its rate does.

use crate::Eal;

/// The CPU's time-stamp counter (`rte_rdtsc`), not serialising. See [`cycles_hz`] for its rate.
#[inline]
pub fn cycles() -> u64 {
    // SAFETY: reads a register.
    unsafe { dpdk_sys::dk_rdtsc() }
}

/// Cycles a second, measured when the EAL was initialised.
pub fn cycles_hz(_eal: &Eal) -> u64 {
    // SAFETY: reads a variable that `rte_eal_init` has set.
    unsafe { dpdk_sys::rte_get_tsc_hz() }
}
