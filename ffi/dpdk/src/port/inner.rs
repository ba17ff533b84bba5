//! An attached port: what its handles share, and the calls on it.

use std::ffi::CStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dpdk_sys::{rte_eth_dev_info, rte_ether_addr};

use crate::netns::{Netns, run_in};
use crate::port::config::{Configured, PortConfig, PortInfo, Reception};
use crate::port::error::PortError;
use crate::{Eal, Errno, logs, ring_port};

/// Closes and detaches the port when the last handle (port or queue) goes.
#[derive(Debug)]
pub(crate) struct PortInner {
    pub(crate) id: u16,
    /// DPDK's calls for one port must not run at once.
    control: Mutex<()>,
    netns: Option<(String, Netns)>,
    /// Pools that its receive queues allocate from; kept while they may.
    pools: Mutex<Vec<crate::Pool>>,
    /// The rings that a port made of rings reads and writes.
    _rings: Option<ring_port::Wires>,
    eal: Eal,
}

impl PortInner {
    /// The caller has claimed port `id` ([`Eal::claim_port`]).
    pub(crate) fn new(
        eal: &Eal,
        id: u16,
        netns: Option<(String, Netns)>,
        rings: Option<ring_port::Wires>,
    ) -> Self {
        let (control, pools) = (Mutex::new(()), Mutex::new(Vec::new()));
        Self { id, control, netns, pools, _rings: rings, eal: eal.clone() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, ()> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` in the port's namespace.
    fn there<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, PortError> + Send,
    ) -> Result<T, PortError> {
        let (name, netns) = match &self.netns {
            Some((name, netns)) => (name.as_str(), Some(netns)),
            None => ("", None),
        };
        run_in(netns, work)
            .unwrap_or_else(|source| Err(PortError::Netns { name: name.to_owned(), source }))
    }

    pub(crate) fn raw_info(&self) -> Result<rte_eth_dev_info, PortError> {
        let mut raw = rte_eth_dev_info::default();
        call("rte_eth_dev_info_get", || {
            // SAFETY: the port is attached; `raw` is there to be filled in.
            unsafe { dpdk_sys::rte_eth_dev_info_get(self.id, &mut raw) }
        })?;
        Ok(raw)
    }

    pub(crate) fn info(&self) -> Result<PortInfo, PortError> {
        let raw = self.raw_info()?;
        let driver = if raw.driver_name.is_null() {
            String::new()
        } else {
            // SAFETY: a NUL-terminated name that lives as long as the driver.
            unsafe { CStr::from_ptr(raw.driver_name) }.to_string_lossy().into_owned()
        };
        // SAFETY: the port is attached.
        let socket = unsafe { dpdk_sys::rte_eth_dev_socket_id(self.id) };
        let (mac, socket) = (self.mac()?, u32::try_from(socket).ok());
        Ok(PortInfo::from_raw(self.id, &raw, driver, mac, socket))
    }

    pub(crate) fn mac(&self) -> Result<[u8; 6], PortError> {
        let mut mac = rte_ether_addr::default();
        call("rte_eth_macaddr_get", || {
            // SAFETY: the port is attached; `mac` is there to be filled in.
            unsafe { dpdk_sys::rte_eth_macaddr_get(self.id, &mut mac) }
        })?;
        Ok(mac.addr_bytes)
    }

    pub(crate) fn set_mac(&self, mac: [u8; 6]) -> Result<(), PortError> {
        let _control = self.lock();
        self.there(|| {
            let mut mac = rte_ether_addr { addr_bytes: mac };
            call("rte_eth_dev_default_mac_addr_set", || {
                // SAFETY: the port is attached; DPDK copies the address.
                unsafe { dpdk_sys::rte_eth_dev_default_mac_addr_set(self.id, &mut mac) }
            })
        })
    }

    pub(crate) fn configure(&self, config: &PortConfig) -> Result<Configured, PortError> {
        let info = self.info()?;
        config.check(&info)?;
        let _control = self.lock();
        // Before DPDK learns of the pool, and never taken out: a failed set-up may leave queues
        // that allocate from it.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).push(config.pool.clone());
        self.there(|| self.configure_here(config, &info))
    }

    fn configure_here(
        &self,
        config: &PortConfig,
        info: &PortInfo,
    ) -> Result<Configured, PortError> {
        let raw = self.raw_info()?;
        let conf = config.to_raw(info, &raw);
        call("rte_eth_dev_configure", || {
            let (rx, tx) = (config.rx_queues, config.tx_queues);
            // SAFETY: attached and stopped; `conf` and the key that it points to outlive the call,
            // which copies both.
            unsafe { dpdk_sys::rte_eth_dev_configure(self.id, rx, tx, &conf) }
        })?;
        let (mut rx, mut tx) = (config.rx_descriptors, config.tx_descriptors);
        call("rte_eth_dev_adjust_nb_rx_tx_desc", || {
            // SAFETY: attached; both numbers are there to be adjusted.
            unsafe { dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &mut rx, &mut tx) }
        })?;
        let mut granted = Configured::new(config, &conf, rx, tx);
        self.set_up_queues(config, &granted, &conf, &raw)?;
        call("rte_eth_dev_get_mtu", || {
            // SAFETY: attached; the MTU is there to be filled in.
            unsafe { dpdk_sys::rte_eth_dev_get_mtu(self.id, &mut granted.mtu) }
        })?;
        Ok(granted)
    }

    fn set_up_queues(
        &self,
        config: &PortConfig,
        granted: &Configured,
        conf: &dpdk_sys::rte_eth_conf,
        raw: &rte_eth_dev_info,
    ) -> Result<(), PortError> {
        // SAFETY: the port is attached.
        let socket = unsafe { dpdk_sys::rte_eth_dev_socket_id(self.id) }.cast_unsigned();
        let mut rx_conf = raw.default_rxconf;
        rx_conf.offloads = conf.rxmode.offloads;
        for queue in 0..config.rx_queues {
            let (count, pool) = (granted.rx_descriptors, config.pool.as_ptr());
            call("rte_eth_rx_queue_setup", || {
                // SAFETY: attached, configured and stopped; the pool is kept by `self.pools`.
                unsafe {
                    dpdk_sys::rte_eth_rx_queue_setup(self.id, queue, count, socket, &rx_conf, pool)
                }
            })?;
        }
        let mut tx_conf = raw.default_txconf;
        tx_conf.offloads = conf.txmode.offloads;
        for queue in 0..config.tx_queues {
            let count = granted.tx_descriptors;
            call("rte_eth_tx_queue_setup", || {
                // SAFETY: attached, configured and stopped.
                unsafe { dpdk_sys::rte_eth_tx_queue_setup(self.id, queue, count, socket, &tx_conf) }
            })?;
        }
        Ok(())
    }

    pub(crate) fn start(&self, config: &PortConfig) -> Result<Reception, PortError> {
        let info = self.info()?;
        let _control = self.lock();
        if info.driver == "net_tap" {
            // Before: once its signal handler has run, the driver waits for signals. After: it
            // sets the handler for queues that it opens.
            crate::ignore_tap_signals().map_err(PortError::Signals)?;
        }
        let reception = self.there(|| {
            call("rte_eth_dev_start", || {
                // SAFETY: attached, configured, every queue set up.
                unsafe { dpdk_sys::rte_eth_dev_start(self.id) }
            })?;
            self.after_start(config, &info)
        })?;
        if info.driver == "net_tap" {
            crate::ignore_tap_signals().map_err(PortError::Signals)?;
        }
        Ok(reception)
    }

    /// Opens the port as far as it goes. A device that refuses isn't broken: a virtual function
    /// may be trusted with no more than groups.
    fn open(&self, config: &PortConfig) -> Reception {
        // SAFETY: the port is attached.
        let everything = || unsafe { dpdk_sys::rte_eth_promiscuous_enable(self.id) };
        if config.promiscuous && everything() >= 0 {
            return Reception::Everything;
        }
        // SAFETY: the port is attached.
        let groups = unsafe { dpdk_sys::rte_eth_allmulticast_enable(self.id) };
        if groups >= 0 { Reception::AllGroups } else { Reception::ToldGroups }
    }

    /// Lets in frames for exactly these groups, where not all are let in.
    pub(crate) fn set_groups(&self, groups: &[[u8; 6]]) -> Result<(), Errno> {
        let _control = self.lock();
        let mut list: Vec<rte_ether_addr> =
            groups.iter().map(|group| rte_ether_addr { addr_bytes: *group }).collect();
        // SAFETY: the port is attached; DPDK copies the list, which is as long as it says.
        let code = unsafe {
            let (list, count) = (list.as_mut_ptr(), list.len() as u32);
            dpdk_sys::rte_eth_dev_set_mc_addr_list(self.id, list, count)
        };
        Errno::check(code).map(|_| ())
    }

    fn after_start(&self, config: &PortConfig, info: &PortInfo) -> Result<Reception, PortError> {
        let reception = self.open(config);
        let mut reta = config.rss.as_ref().map_or(Vec::new(), |rss| rss.reta_raw(info.reta_size));
        if !reta.is_empty() {
            call("rte_eth_dev_rss_reta_update", || {
                let entries = reta.as_mut_ptr();
                // SAFETY: attached; `entries` covers `reta_size` buckets in pieces of 64.
                unsafe { dpdk_sys::rte_eth_dev_rss_reta_update(self.id, entries, info.reta_size) }
            })?;
        }
        Ok(reception)
    }

    pub(crate) fn stop(&self) -> Result<(), PortError> {
        let _control = self.lock();
        self.there(|| {
            call("rte_eth_dev_stop", || {
                // SAFETY: attached, and no queue handle is left, so that nobody polls.
                unsafe { dpdk_sys::rte_eth_dev_stop(self.id) }
            })
        })
    }

    fn detach(&self) -> Result<(), PortError> {
        let device = self.raw_info()?.device;
        call("rte_dev_remove", || {
            // SAFETY: the device of an attached port; removing closes its port.
            unsafe { dpdk_sys::rte_dev_remove(device) }
        })
    }
}

impl Drop for PortInner {
    fn drop(&mut self) {
        // Nobody can be told; DPDK has logged why. Stopping one that is stopped does nothing.
        let _ = self.stop();
        let _ = self.there(|| self.detach());
        self.eal.release_port(self.id);
    }
}

/// Calls DPDK and turns a negative result into an error with the log of the call.
pub(crate) fn call(step: &'static str, function: impl FnOnce() -> i32) -> Result<(), PortError> {
    let mark = logs::mark();
    match Errno::check(function()) {
        Ok(_) => Ok(()),
        Err(errno) => Err(PortError::Call { step, errno, log: logs::since(mark) }),
    }
}
