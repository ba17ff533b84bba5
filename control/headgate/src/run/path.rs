//! What the control loop needs of the packet path.

use engine::{BackendTraffic, Engine, HostWay};
use model::answers::{ConflictRow, Links, Traffic};
use model::ids::{BackendId, ServiceId};
use pipeline::snapshot::{Report, Snapshot};
use std::net::IpAddr;
use std::sync::Arc;

/// The packet path, as the control loop sees it; its tests have one without packets.
pub trait PacketPath: Send + Sync + 'static {
    /// Publishes a snapshot and what comes with it; returns its generation.
    fn publish(&self, snapshot: Arc<Snapshot>, report: &Report) -> u64;
    /// The latest published generation, and the one that every worker runs with.
    fn generations(&self) -> [u64; 2];
    /// Lets workers choose backends under another key.
    fn set_selection_key(&self, key: u64);
    /// Looks after the ways to the backends.
    fn refresh_ways(&self);
    /// Gives the host itself a way to an address by a next hop, as long as what this returns lives.
    fn host_way(&self, address: IpAddr, via: IpAddr) -> HostWay;
    /// The links, and the groups that we are in on them.
    fn links(&self) -> Links;
    /// Addresses of ours that other stations use.
    fn conflicts(&self) -> Vec<ConflictRow>;
    /// Traffic of the slot of a service port.
    fn service_traffic(&self, id: ServiceId) -> Traffic;
    /// Traffic of the slot of a backend.
    fn backend_traffic(&self, id: BackendId) -> BackendTraffic;
}

impl PacketPath for Engine {
    fn publish(&self, snapshot: Arc<Snapshot>, report: &Report) -> u64 {
        self.publish_change(snapshot, report)
    }
    fn generations(&self) -> [u64; 2] {
        Self::generations(self)
    }
    fn set_selection_key(&self, key: u64) {
        Self::set_selection_key(self, key);
    }
    fn refresh_ways(&self) {
        Self::refresh_ways(self);
    }
    fn host_way(&self, address: IpAddr, via: IpAddr) -> HostWay {
        Self::host_way(self, address, via)
    }
    fn links(&self) -> Links {
        Self::links(self)
    }
    fn conflicts(&self) -> Vec<ConflictRow> {
        Self::conflicts(self)
    }
    fn service_traffic(&self, id: ServiceId) -> Traffic {
        Self::service_traffic(self, id)
    }
    fn backend_traffic(&self, id: BackendId) -> BackendTraffic {
        Self::backend_traffic(self, id)
    }
}
