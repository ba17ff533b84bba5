//! What `status`, `show` and `explain` answer, as they travel over the admin socket.

mod control;
mod workers;

pub use control::{
    Leadership, Live, PoolCount, PoolRow, ProbeCounts, ServiceFacts, SourceState, WriteCounts,
};
pub use workers::{AffinityCounts, BudgetRow, PassRow, WorkerRow, Workers};

use crate::desired::{ObjectName, ServicePortKey};
use crate::drops::DropReason;
use crate::ids::{FiveTuple, Protocol, WorkerId};
use crate::record::ConnectionRecord;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Severity {
    /// As it should be.
    Normal,
    /// Somebody should look at it.
    Warning,
}

/// Something that happened to an object, on a transition alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Seconds since the Unix epoch; 0 until the event is recorded.
    pub time_s: u64,
    /// Normal or Warning.
    pub severity: Severity,
    /// One word that operators know, as `IPAllocated`.
    pub reason: String,
    /// Kind of the object, as `Service`.
    pub kind: String,
    /// The object.
    pub object: ObjectName,
    /// The object's UID; empty where the source has none.
    #[serde(default)]
    pub uid: String,
    /// File and line that it came from, as `web.yaml:12`; empty where it came from no file.
    pub place: String,
    /// What happened and what to do.
    pub message: String,
}

/// One port of a Service, in `show services`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePortRow {
    /// What names it.
    pub key: ServicePortKey,
    /// `spec.ports[].port`.
    pub port: u16,
    /// `spec.ports[].nodePort`, given or allocated.
    pub node_port: Option<u16>,
    /// Backends that take new connections.
    pub active: u32,
    /// Backends that are known, in whatever state.
    pub known: u32,
    /// Why it isn't forwarded, where it isn't.
    pub not_forwarded: Option<String>,
}

/// What Headgate made of one Service: what would stand in its `status`, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The Service.
    pub name: ObjectName,
    /// `spec.type`.
    pub service_type: String,
    /// Addresses that are served for it: LoadBalancer addresses, then externalIPs.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePortRow>,
    /// Why the Service, or a part of it, isn't served. Each is one sentence with its remedy.
    pub problems: Vec<String>,
    /// File and line that it came from.
    pub place: String,
    /// What `explain service` needs beside it.
    #[serde(default)]
    pub facts: ServiceFacts,
}

/// A service port's traffic, summed over the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Connections begun.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients, from the IP header on.
    pub bytes_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes to clients, from the IP header on.
    pub bytes_out: u64,
    /// New connections refused for want of a backend.
    pub refused: u64,
}

/// A Service in `show services`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// What was made of it.
    pub status: ServiceStatus,
    /// Its traffic, for each port in the order of `status.ports`.
    pub traffic: Vec<Traffic>,
    /// What the workers run with; `None` where nothing of it is forwarded.
    #[serde(default)]
    pub live: Option<Live>,
}

/// A backend in `show backends`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendRow {
    /// The service port that it belongs to.
    pub service: ServicePortKey,
    /// Name of the pod, where known.
    pub name: String,
    /// Address and port.
    pub address: SocketAddr,
    /// Node, where known.
    pub node: String,
    /// `active` or `draining`.
    pub state: String,
    /// Weight.
    pub weight: u16,
    /// Its next hop and whether that is resolved: `198.18.1.11 reachable`.
    pub way: String,
    /// Connections begun.
    pub connections: u64,
    /// Packets towards it.
    pub packets_in: u64,
    /// Packets from it.
    pub packets_out: u64,
}

/// A drop reason in `show drops`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropRow {
    /// The reason.
    pub reason: DropReason,
    /// Packets, for each worker.
    pub by_worker: Vec<u64>,
    /// Their sum.
    pub packets: u64,
}

/// A neighbour (adjacency) in `show neighbours`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourRow {
    /// The interface's name.
    pub interface: String,
    /// Next hop.
    pub address: IpAddr,
    /// `02:00:00:00:00:01`, empty while unresolved.
    pub mac: String,
    /// The kernel's word: reachable, stale, delay, probe, failed, incomplete, permanent.
    pub state: String,
    /// `backend`: the next hop of some; `router`: that of a route; `client`: any other.
    #[serde(default)]
    pub kind: String,
    /// Service ports with a backend behind it.
    pub backends: u32,
}

/// A DPDK port in `show ports`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRow {
    /// Name from the configuration.
    pub name: String,
    /// Device string.
    pub device: String,
    /// DPDK's driver.
    pub driver: String,
    /// MAC address.
    pub mac: String,
    /// Link state.
    pub link_up: bool,
    /// Receive queues.
    pub rx_queues: u16,
    /// Transmit queues.
    pub tx_queues: u16,
    /// The device's own counters.
    pub device_counters: DeviceCounters,
}

/// An interface's link, as `status` and metrics have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRow {
    /// Name of the interface's twin.
    pub interface: String,
    /// Name of the port that carries it.
    pub port: String,
    /// Clients come by it.
    pub is_front: bool,
    /// The port has its link.
    pub up: bool,
    /// The host's twin is up.
    pub twin_up: bool,
}

/// The links, and the groups that we are in on them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// The interfaces.
    pub interfaces: Vec<LinkRow>,
    /// Solicited-node groups that are joined.
    pub groups: u64,
    /// What is wrong with groups, each one sentence with its remedy.
    pub problems: Vec<String>,
}

/// An address of ours that another station on the link uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictRow {
    /// Name of the interface's twin.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// The MAC that it was claimed for last.
    pub mac: String,
    /// It is another gateway of ours.
    pub is_gateway: bool,
    /// Seconds since the Unix epoch at which it began.
    pub since_s: u64,
    /// Claims that workers told.
    pub claims: u64,
    /// Announcements of ours that answered them.
    pub defences: u64,
}

/// What the device itself counts (`rte_eth_stats`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCounters {
    /// Packets received and given to us.
    pub ipackets: u64,
    /// Packets sent.
    pub opackets: u64,
    /// Bytes received.
    pub ibytes: u64,
    /// Bytes sent.
    pub obytes: u64,
    /// Packets lost because we didn't fetch them in time.
    pub imissed: u64,
    /// Packets received in error.
    pub ierrors: u64,
    /// Packets that could not be sent.
    pub oerrors: u64,
    /// Packets lost for want of a buffer.
    pub rx_nombuf: u64,
}

/// The ledger of one worker. Every term is counted where it happens:
/// `received + from_host + handed_in + generated = sent + to_host + handed_out + dropped +
/// in_flight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Packets received from ports.
    pub received: u64,
    /// Packets taken in from the host mirror.
    pub from_host: u64,
    /// Packets taken in from other workers.
    pub handed_in: u64,
    /// Packets made here, of no other packet: segments to silent clients whose backend has gone.
    #[serde(default)]
    pub generated: u64,
    /// Packets sent on ports; answers included.
    pub sent: u64,
    /// Packets given to the host mirror.
    pub to_host: u64,
    /// Packets given to other workers.
    pub handed_out: u64,
    /// Packets dropped, all reasons together, counted apart from the reasons.
    pub dropped: u64,
    /// Packets that the worker holds right now.
    pub in_flight: u64,
}

impl Ledger {
    /// What came in less what went out: 0 where nothing vanished and nothing was made up.
    pub const fn difference(&self) -> i64 {
        let came = self.received + self.from_host + self.handed_in + self.generated;
        let went = self.sent + self.to_host + self.handed_out + self.dropped + self.in_flight;
        came.wrapping_sub(went).cast_signed()
    }
    /// Adds another worker's.
    pub const fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.from_host += other.from_host;
        self.handed_in += other.handed_in;
        self.generated += other.generated;
        self.sent += other.sent;
        self.to_host += other.to_host;
        self.handed_out += other.handed_out;
        self.dropped += other.dropped;
        self.in_flight += other.in_flight;
    }
}

/// The ledger of the host mirror:
/// `from_kernel + generated = to_workers + dropped_to_workers` and
/// `from_workers = to_kernel + dropped_to_kernel`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorLedger {
    /// Frames read from the TAP twins.
    pub from_kernel: u64,
    /// Frames made here: gratuitous ARP and unsolicited NA.
    pub generated: u64,
    /// Frames given to workers.
    pub to_workers: u64,
    /// Frames that no worker could take.
    pub dropped_to_workers: u64,
    /// Frames taken from workers.
    pub from_workers: u64,
    /// Frames written to the TAP twins.
    pub to_kernel: u64,
    /// Frames that a twin refused.
    pub dropped_to_kernel: u64,
}

/// The answer of `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version and commit.
    pub version: String,
    /// DPDK's version.
    pub dpdk: String,
    /// Drivers of the ports.
    pub drivers: Vec<String>,
    /// Huge pages, as `256 x 2 MiB`, or `none`.
    pub huge_pages: String,
    /// Cores of the workers.
    pub cores: Vec<u32>,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Where the objects come from, as `directory /etc/headgate/manifests`.
    pub source: String,
    /// How that is doing.
    #[serde(default)]
    pub source_state: SourceState,
    /// Services known, and those of them that are served.
    pub services: [u32; 2],
    /// Service ports that are forwarded.
    pub service_ports: u32,
    /// Backends: active, known.
    pub backends: [u32; 2],
    /// No range is configured in which they have to be: every unicast address is allowed.
    #[serde(default)]
    pub backends_anywhere: bool,
    /// Connections, IPv4 and IPv6 together.
    pub connections: u64,
    /// The latest published generation and the one that every worker runs with.
    pub generation: [u64; 2],
    /// From the latest change of the source to its use by the last worker, in microseconds.
    pub last_change_us: Option<u64>,
    /// What is wrong, and since when (seconds since the Unix epoch). Empty means healthy.
    pub degraded: Vec<Degraded>,
    /// The links, and the groups that we are in on them.
    #[serde(default)]
    pub links: Links,
    /// Addresses of ours that other stations use, other gateways among them.
    #[serde(default)]
    pub conflicts: Vec<ConflictRow>,
    /// All workers' ledgers summed.
    pub ledger: Ledger,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degraded {
    /// What, with the remedy.
    pub what: String,
    /// Seconds since the Unix epoch.
    pub since_s: u64,
}

/// Which connections `show connections` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionFilter {
    /// Client address, and port if given.
    pub source: Option<(IpAddr, Option<u16>)>,
    /// Frontend address, and port if given.
    pub destination: Option<(IpAddr, Option<u16>)>,
    /// `namespace/name` of the Service.
    pub service: Option<ObjectName>,
    /// The state's word.
    pub state: Option<String>,
    /// Transport protocol.
    pub protocol: Option<Protocol>,
    /// Rows at most.
    pub limit: usize,
}

/// The answer of `show connections`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Those that match, up to the limit.
    pub connections: Vec<ConnectionRecord>,
    /// True where the limit cut the list.
    pub more: bool,
}

/// What the packet path would do with a packet: found by looking, nothing is changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowAnswer {
    /// The worker that owns the flow.
    pub owner: WorkerId,
    /// The service port whose frontend the destination is.
    pub service: Option<ServicePortKey>,
    /// The connection, where there is one.
    pub connection: Option<ConnectionRecord>,
    /// The backend that a new connection would get, and why that one.
    pub selected: Option<SocketAddr>,
    /// One word for how: `maglev`, `affinity`, `connection`, `source_ranges` (the client is kept
    /// out), `no_backend`, `own_address`, `nat_address`, `frontend_address` (no such port),
    /// `not_ours`.
    pub chosen_by: String,
    /// Seconds for which session affinity still keeps the client's backend, where it does.
    #[serde(default)]
    pub affinity_left_s: Option<u32>,
    /// Seconds until the client gets a RST, since its backend has gone; 0 where it is due.
    #[serde(default)]
    pub reset_in_s: Option<u32>,
    /// Next hop of the packet when forwarded: interface, address, MAC and state.
    pub way: Option<String>,
    /// The reason for which it would be dropped, or that stands in the way.
    pub drop: Option<DropReason>,
}

/// The answer of `explain` for a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowExplanation {
    /// What was asked.
    pub flow: FiveTuple,
    /// What the packet path says.
    pub answer: FlowAnswer,
    /// Origin of the frontend, as `LoadBalancer, pool demo`.
    pub origin: Option<String>,
    /// Name of the backend.
    pub backend_name: Option<String>,
    /// The remedy, where the packet doesn't get through.
    pub remedy: Option<String>,
}

/// One step of `explain service`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What was asked, as `has an address`.
    pub question: String,
    /// Whether the answer is yes.
    pub good: bool,
    /// What was found.
    pub finding: String,
    /// What to do, where the answer is no.
    pub remedy: Option<String>,
}

/// The answer of `explain service`: the steps up to the first "no".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceExplanation {
    /// The Service.
    pub service: ObjectName,
    /// The steps.
    pub steps: Vec<Step>,
}

/// A reading of one counter of a service port or backend, used for metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTraffic {
    /// The service port.
    pub key: Arc<ServicePortKey>,
    /// Its traffic.
    pub traffic: Traffic,
}
