//! Ports: attach a device, configure, start, take its queues, stop, detach.

mod config;
mod device;
mod error;
pub(crate) mod inner;

use std::ffi::CString;
use std::sync::Arc;

use crate::netns::{Netns, run_in};
use crate::{Eal, Errno, PortMonitor, PortStats, RxQueue, StatsError, TxQueue, logs, ring_port};

pub use config::{Configured, PortConfig, PortInfo, Reception, Rss, RxOffloads, TxOffloads};
pub use device::{DeviceString, DeviceStringError};
pub use error::{Direction, PortError};
use inner::PortInner;

/// An attached device. Dropping it, and all its queues, closes and detaches the device: the kernel
/// interface of a net_tap vanishes.
#[derive(Debug)]
pub struct Port {
    inner: Arc<PortInner>,
    device: String,
    state: State,
    /// Each queue handle holds a clone.
    tokens: Arc<()>,
}

#[derive(Debug)]
enum State {
    Attached,
    Configured(PortConfig, Configured),
    Started { config: PortConfig, granted: Configured, rx: Vec<bool>, tx: Vec<bool> },
}

impl Port {
    /// Attaches `device` (`rte_dev_probe`), or takes over one that DPDK made when it was
    /// initialised.
    ///
    /// With `netns`, the device is made, configured and started in the network namespace
    /// `/run/netns/NETNS`, on threads of their own: the caller's namespace stays. This is how a
    /// net_tap's kernel interface gets into a namespace; moving it there afterwards breaks it.
    pub fn attach(
        eal: &Eal,
        device: &DeviceString,
        netns: Option<&str>,
    ) -> Result<Self, PortError> {
        let open = |name: &str| match Netns::open(name) {
            Ok(netns) => Ok((name.to_owned(), netns)),
            Err(source) => Err(PortError::Netns { name: name.to_owned(), source }),
        };
        let netns = netns.map(open).transpose()?;
        // PCI devices (and `--vdev`) were made when the EAL was initialised.
        if find(device.name()).is_none() {
            probe(device, netns.as_ref())?;
        }
        let id = find(device.name()).ok_or_else(|| PortError::NoPort(device.to_string()))?;
        if !eal.claim_port(id) {
            return Err(PortError::AlreadyAttached(device.to_string()));
        }
        Ok(Self::new(PortInner::new(eal, id, netns, None), device.to_string()))
    }

    pub(crate) fn from_rings(eal: &Eal, id: u16, name: &str, wires: ring_port::Wires) -> Self {
        Self::new(PortInner::new(eal, id, None, Some(wires)), name.to_owned())
    }

    fn new(inner: PortInner, device: String) -> Self {
        let (inner, tokens) = (Arc::new(inner), Arc::new(()));
        Self { inner, device, state: State::Attached, tokens }
    }

    /// The device as it was named.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// DPDK's number of the port.
    pub fn id(&self) -> u16 {
        self.inner.id
    }

    /// What the device is and can.
    pub fn info(&self) -> Result<PortInfo, PortError> {
        self.inner.info()
    }

    /// Configures a stopped port and its queues, and says what was granted.
    pub fn configure(&mut self, config: PortConfig) -> Result<Configured, PortError> {
        if matches!(self.state, State::Started { .. }) {
            return Err(PortError::State { needed: "stopped" });
        }
        self.state = State::Attached;
        let granted = self.inner.configure(&config)?;
        self.state = State::Configured(config, granted);
        Ok(granted)
    }

    /// Starts a configured port. For net_tap it ignores the driver's signals
    /// ([`ignore_tap_signals`](crate::ignore_tap_signals)). Says what it lets in.
    pub fn start(&mut self) -> Result<Reception, PortError> {
        let State::Configured(config, granted) = &self.state else {
            return Err(PortError::State { needed: "configured and stopped" });
        };
        let (config, granted) = (config.clone(), *granted);
        let reception = self.inner.start(&config)?;
        let rx = vec![false; granted.rx_queues.into()];
        let tx = vec![false; granted.tx_queues.into()];
        self.state = State::Started { config, granted, rx, tx };
        Ok(reception)
    }

    /// Receive queue `index` of a started port, once until it is stopped.
    pub fn rx_queue(&mut self, index: u16) -> Result<RxQueue, PortError> {
        let State::Started { rx, .. } = &mut self.state else {
            return Err(PortError::State { needed: "started" });
        };
        take(rx, index, Direction::Receive)?;
        Ok(RxQueue::new(Arc::clone(&self.inner), index, Arc::clone(&self.tokens)))
    }

    /// Send queue `index` of a started port, once until it is stopped.
    pub fn tx_queue(&mut self, index: u16) -> Result<TxQueue, PortError> {
        let State::Started { tx, .. } = &mut self.state else {
            return Err(PortError::State { needed: "started" });
        };
        take(tx, index, Direction::Send)?;
        Ok(TxQueue::new(Arc::clone(&self.inner), index, Arc::clone(&self.tokens)))
    }

    /// Stops a started port, whose queue handles must all be gone. It stays configured.
    pub fn stop(&mut self) -> Result<(), PortError> {
        let State::Started { config, granted, .. } = &self.state else {
            return Err(PortError::State { needed: "started" });
        };
        let held = Arc::strong_count(&self.tokens) - 1;
        if held > 0 {
            return Err(PortError::QueuesHeld(held));
        }
        self.inner.stop()?;
        self.state = State::Configured(config.clone(), *granted);
        Ok(())
    }

    /// What the last [`Self::configure`] granted.
    pub fn granted(&self) -> Option<Configured> {
        match &self.state {
            State::Attached => None,
            State::Configured(_, granted) | State::Started { granted, .. } => Some(*granted),
        }
    }

    /// The MAC address.
    pub fn mac(&self) -> Result<[u8; 6], PortError> {
        self.inner.mac()
    }

    /// Changes the MAC address.
    pub fn set_mac(&self, mac: [u8; 6]) -> Result<(), PortError> {
        self.inner.set_mac(mac)
    }

    /// The device's counters.
    pub fn stats(&self) -> Result<PortStats, StatsError> {
        self.monitor().stats()
    }

    /// Whether the device has a link.
    pub fn link_up(&self) -> Result<bool, StatsError> {
        self.monitor().link_up()
    }

    /// A handle for reading counters from another thread; it does not keep the port.
    pub fn monitor(&self) -> PortMonitor {
        PortMonitor::new(Arc::downgrade(&self.inner))
    }
}

/// Makes the device in the namespace.
fn probe(device: &DeviceString, netns: Option<&(String, Netns)>) -> Result<(), PortError> {
    let mark = logs::mark();
    let probed = run_in(netns.map(|(_, netns)| netns), || {
        // SAFETY: the EAL is initialised; DPDK copies the text.
        let code = unsafe { dpdk_sys::rte_dev_probe(device.as_c_str().as_ptr()) };
        Errno::check(code)
    });
    let probed = probed.map_err(|source| {
        let name = netns.map_or(String::new(), |(name, _)| name.clone());
        PortError::Netns { name, source }
    })?;
    probed.map(|_| ()).map_err(|errno| {
        let log = logs::since(mark);
        PortError::Attach { device: device.to_string(), errno, log }
    })
}

fn take(taken: &mut [bool], index: u16, direction: Direction) -> Result<(), PortError> {
    let count = taken.len() as u16;
    match taken.get_mut(usize::from(index)) {
        None => Err(PortError::NoSuchQueue { direction, index, count }),
        Some(true) => Err(PortError::QueueTaken { direction, index }),
        Some(free) => {
            *free = true;
            Ok(())
        }
    }
}

/// The port that DPDK knows by `name`.
pub(crate) fn find(name: &str) -> Option<u16> {
    let name = CString::new(name).ok()?;
    let mut id = 0;
    // SAFETY: a NUL-terminated name and a number to be filled in.
    let code = unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut id) };
    (code == 0).then_some(id)
}
