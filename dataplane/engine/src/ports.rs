//! Bringing ports up, and dealing their queues out to the workers.

use crate::config::{Device, PortSpec};
use crate::links::Watched;
use crate::outlet::Outlet;
use crate::worker::Inlet;
use dpdk::{
    Burst, Eal, Pool, Port, PortConfig, PortError, PortMonitor, Reception, RxQueue, TxQueue,
};
use model::answers::{DeviceCounters, PortRow};
use model::ids::{InterfaceId, PortId, WorkerId};
use pipeline::adjacency::Mac;
use std::sync::Arc;

/// Bytes of an Ethernet header with one 802.1Q tag.
const LINK_LEN_MAX: usize = 18;

/// A port that could not be brought up.
#[derive(Debug, thiserror::Error)]
#[error("port {name}: {source}")]
pub struct PortFailed {
    name: Arc<str>,
    source: PortError,
}

/// A running port.
pub struct RunningPort {
    name: Arc<str>,
    driver: String,
    mac: Mac,
    queues: (u16, u16),
    monitor: PortMonitor,
    reception: Reception,
    port: Port,
}

/// The queues of a running port, until they are dealt out. Apart from the port, which any thread
/// may ask: a queue is one thread's alone.
pub struct Queues {
    frame_max: usize,
    senders: u16,
    rx: Vec<RxQueue>,
    tx: Vec<TxQueue>,
}

/// Attaches, configures and starts a port.
pub fn bring_up(
    eal: &Eal,
    spec: PortSpec,
    pool: &Pool,
    mtu: u16,
    workers: u16,
) -> Result<(RunningPort, Queues), PortFailed> {
    let name = Arc::clone(&spec.name);
    try_bring_up(eal, spec, pool, mtu, workers).map_err(|source| PortFailed { name, source })
}

fn try_bring_up(
    eal: &Eal,
    spec: PortSpec,
    pool: &Pool,
    mtu: u16,
    workers: u16,
) -> Result<(RunningPort, Queues), PortError> {
    let mut port = match spec.device {
        Device::Named { device, netns } => Port::attach(eal, &device, netns.as_deref())?,
        Device::Made(port) => port,
    };
    let info = port.info()?;
    let (rx, tx) =
        queues(&info.driver, spec.rx_queues, workers, (info.max_rx_queues, info.max_tx_queues));
    let config = PortConfig {
        tx_queues: tx,
        rx_descriptors: spec.descriptors,
        tx_descriptors: spec.descriptors,
        // Rings in memory have no MTU to set.
        mtu: (info.max_mtu >= mtu && !info.driver.starts_with("net_ring")).then_some(mtu),
        ..PortConfig::new(pool.clone(), rx)
    };
    let granted = port.configure(config)?;
    if let Some(mac) = spec.mac {
        port.set_mac(mac.0)?;
    }
    let reception = port.start()?;
    let mac = Mac(port.mac()?);
    let rx = (0..rx).map(|q| port.rx_queue(q)).collect::<Result<Vec<_>, _>>()?;
    let tx = (0..tx).map(|q| port.tx_queue(q)).collect::<Result<Vec<_>, _>>()?;
    let running = RunningPort {
        name: spec.name,
        driver: info.driver,
        mac,
        queues: (rx.len() as u16, tx.len() as u16),
        monitor: port.monitor(),
        reception,
        port,
    };
    let frame_max = usize::from(granted.mtu.max(mtu)) + LINK_LEN_MAX;
    Ok((running, Queues { frame_max, senders: tx.len() as u16, rx, tx }))
}

/// Receive and send queues of a port. net_tap takes as many of the one as of the other.
fn queues(
    driver: &str,
    wanted: Option<u16>,
    workers: u16,
    (rx_max, tx_max): (u16, u16),
) -> (u16, u16) {
    let rx = wanted.unwrap_or(workers).clamp(1, rx_max.max(1));
    let tx = workers.clamp(1, tx_max.max(1));
    match driver {
        "net_tap" | "net_af_packet" | "net_ring" => (rx, rx),
        _ => (rx, tx),
    }
}

impl Queues {
    /// The receive queues of a worker: every so-many-th, so that all are polled by somebody.
    pub fn inlets(&mut self, id: PortId, worker: WorkerId, workers: usize) -> Vec<Inlet> {
        let (mine, others) = std::mem::take(&mut self.rx)
            .into_iter()
            .partition(|queue| usize::from(queue.index()) % workers == worker.index());
        self.rx = others;
        mine.into_iter().map(|queue| Inlet { port: id, queue }).collect()
    }
    /// The way out of a worker: a queue of its own while there are some, else through one that has.
    pub fn outlet(&mut self, worker: WorkerId) -> Outlet {
        let wanted = worker.index() as u16;
        match self.tx.iter().position(|queue| queue.index() == wanted) {
            Some(at) => Outlet::Own {
                queue: self.tx.remove(at),
                waiting: Box::new(Burst::new()),
                frame_max: self.frame_max,
            },
            None => Outlet::Through(WorkerId((wanted % self.senders.max(1)) as u8)),
        }
    }
}

impl RunningPort {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Its MAC.
    pub const fn mac(&self) -> Mac {
        self.mac
    }
    /// What watches its link; it carries these interfaces.
    pub(crate) fn watched(&self, interfaces: Vec<InterfaceId>) -> Watched {
        Watched {
            name: Arc::clone(&self.name),
            driver: self.driver.clone(),
            monitor: self.monitor.clone(),
            reception: self.reception,
            interfaces,
        }
    }
    /// Its row in `show ports`.
    pub fn row(&self) -> PortRow {
        let stats = self.monitor.stats().unwrap_or_default();
        PortRow {
            name: self.name.to_string(),
            device: self.port.device().to_owned(),
            driver: self.driver.clone(),
            mac: self.mac.to_string(),
            link_up: self.monitor.link_up().unwrap_or(false),
            rx_queues: self.queues.0,
            tx_queues: self.queues.1,
            device_counters: DeviceCounters {
                ipackets: stats.ipackets,
                opackets: stats.opackets,
                ibytes: stats.ibytes,
                obytes: stats.obytes,
                imissed: stats.imissed,
                ierrors: stats.ierrors,
                oerrors: stats.oerrors,
                rx_nombuf: stats.rx_nombuf,
            },
        }
    }
    /// Its driver.
    pub fn driver(&self) -> &str {
        &self.driver
    }
}

#[cfg(test)]
mod tests {
    use super::queues;

    #[test]
    fn queues_are_those_of_workers_and_device() {
        assert_eq!(queues("net_tap", None, 2, (16, 16)), (2, 2));
        assert_eq!(queues("net_tap", Some(1), 2, (16, 16)), (1, 1));
        assert_eq!(queues("mlx5_pci", None, 8, (1024, 4)), (8, 4));
        assert_eq!(queues("net_af_xdp", None, 2, (1, 1)), (1, 1));
        assert_eq!(queues("mlx5_pci", Some(0), 2, (8, 8)), (1, 2));
    }
}
