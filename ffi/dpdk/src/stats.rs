//! Counters of devices.

use std::ffi::CStr;
use std::sync::{Arc, Weak};

use dpdk_sys::{rte_eth_stats, rte_eth_xstat, rte_eth_xstat_name};

use crate::Errno;
use crate::port::inner::PortInner;

/// Why there are no counters.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// The port was dropped.
    #[error("the port is detached")]
    Gone,
    /// The driver failed or has no such counters.
    #[error("the device does not tell: {0}")]
    Refused(Errno),
}

/// Counters of a port since it was started or they were reset (`rte_eth_stats_get`). What exactly
/// bytes include is the driver's choice (the frame without FCS, usually).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets received.
    pub ipackets: u64,
    /// Packets sent.
    pub opackets: u64,
    /// Bytes received.
    pub ibytes: u64,
    /// Bytes sent.
    pub obytes: u64,
    /// Packets that the device dropped because receive queues were full.
    pub imissed: u64,
    /// Packets received with errors.
    pub ierrors: u64,
    /// Packets not sent; net_tap also counts those that it gave back.
    pub oerrors: u64,
    /// Packets lost because the pool was empty.
    pub rx_nombuf: u64,
}

/// Reads a port's counters from any thread, while workers poll it. Clones freely, and doesn't keep
/// the port: once that is dropped every call gives [`StatsError::Gone`].
#[derive(Clone, Debug)]
pub struct PortMonitor {
    port: Weak<PortInner>,
}

impl PortMonitor {
    pub(crate) fn new(port: Weak<PortInner>) -> Self {
        Self { port }
    }

    fn port(&self) -> Result<Arc<PortInner>, StatsError> {
        self.port.upgrade().ok_or(StatsError::Gone)
    }

    /// The basic counters.
    pub fn stats(&self) -> Result<PortStats, StatsError> {
        let port = self.port()?;
        let _control = port.lock();
        let mut raw = rte_eth_stats::default();
        // SAFETY: the port is attached; `raw` is there to be filled in.
        let code = unsafe { dpdk_sys::rte_eth_stats_get(port.id, &mut raw) };
        Errno::check(code).map_err(StatsError::Refused)?;
        Ok(PortStats {
            ipackets: raw.ipackets,
            opackets: raw.opackets,
            ibytes: raw.ibytes,
            obytes: raw.obytes,
            imissed: raw.imissed,
            ierrors: raw.ierrors,
            oerrors: raw.oerrors,
            rx_nombuf: raw.rx_nombuf,
        })
    }

    /// Sets the basic counters to 0.
    pub fn reset(&self) -> Result<(), StatsError> {
        let port = self.port()?;
        let _control = port.lock();
        // SAFETY: the port is attached.
        let code = unsafe { dpdk_sys::rte_eth_stats_reset(port.id) };
        Errno::check(code).map(|_| ()).map_err(StatsError::Refused)
    }

    /// Whether the device has a link. Does not wait for one.
    pub fn link_up(&self) -> Result<bool, StatsError> {
        let port = self.port()?;
        let _control = port.lock();
        // SAFETY: the port is attached.
        let code = unsafe { dpdk_sys::dk_link_up(port.id) };
        Errno::check(code).map(|up| up == 1).map_err(StatsError::Refused)
    }

    /// Lets in frames for exactly these groups, beside those for the port's MAC and broadcasts.
    /// Of use where the port doesn't let all groups in ([`Reception`](crate::Reception)).
    pub fn set_groups(&self, groups: &[[u8; 6]]) -> Result<(), StatsError> {
        self.port()?.set_groups(groups).map_err(StatsError::Refused)
    }

    /// Everything that the driver counts, by its names (`rte_eth_xstats_get`).
    pub fn xstats(&self) -> Result<Vec<(String, u64)>, StatsError> {
        let port = self.port()?;
        let _control = port.lock();
        // SAFETY: the port is attached; without places this only counts.
        let count = unsafe { dpdk_sys::rte_eth_xstats_get_names(port.id, std::ptr::null_mut(), 0) };
        let count = Errno::check(count).map_err(StatsError::Refused)?.cast_unsigned();
        let mut names = vec![rte_eth_xstat_name { name: [0; 64] }; count as usize];
        let places = names.as_mut_ptr();
        // SAFETY: attached; there are `count` places.
        let named = unsafe { dpdk_sys::rte_eth_xstats_get_names(port.id, places, count) };
        Errno::check(named).map_err(StatsError::Refused)?;
        let mut values = vec![rte_eth_xstat { id: 0, value: 0 }; count as usize];
        let places = values.as_mut_ptr();
        // SAFETY: attached; there are `count` places.
        let valued = unsafe { dpdk_sys::rte_eth_xstats_get(port.id, places, count) };
        let valued = Errno::check(valued).map_err(StatsError::Refused)?.cast_unsigned();
        // A driver may have grown more in between; those are left out.
        let values = values.iter().take(valued.min(count) as usize);
        let named = values.filter_map(|value| {
            let name = names.get(usize::try_from(value.id).ok()?)?;
            Some((text(&name.name), value.value))
        });
        Ok(named.collect())
    }
}

fn text(name: &[std::ffi::c_char; 64]) -> String {
    let bytes = name.map(|c| c as u8);
    CStr::from_bytes_until_nul(&bytes)
        .map_or(String::new(), |name| name.to_string_lossy().into_owned())
}
