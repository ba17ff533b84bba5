//! The configuration: read once, checked once, and trusted by everything after.
//!
//! [`load`] reads the files, the environment and the flags, merges them (defaults < files <
//! environment < flags) and makes a [`Config`] of them, or reports everything that is wrong.
//! What each key means stands in [`keys`].

mod announce;
mod build;
mod cross;
mod devices;
mod forwarding;
pub mod keys;
mod kubernetes;
mod layers;
mod problem;
mod read;
mod tree;
mod types;

pub use announce::{Announce, GatewayName};
pub use kubernetes::{Kubernetes, Source};
pub use layers::{DIRECTORY, Loaded, Sources, admin_socket, load};
pub use problem::{Place, Problem, Problems};
pub use types::{AddressRange, Device, Idle, MacAddr, PortRange, Rate, Role, SelectionKey, Vlan};

use admin::LoopbackAddress;
use ipnet::IpNet;
use model::ids::{InterfaceId, PortId};
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use translate::ForwardingSettings;

/// A configuration that holds together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// DPDK's environment.
    pub eal: Eal,
    /// Poll-mode cores; at least one, a `WorkerId` is an index into it.
    pub workers: Vec<Worker>,
    /// DPDK ports; at least one, a `PortId` is an index into it.
    pub ports: Vec<Port>,
    /// Interfaces; at least one towards clients and one towards backends. An `InterfaceId` is an
    /// index into it.
    pub interfaces: Vec<Interface>,
    /// NAT addresses.
    pub nat: Vec<Nat>,
    /// Pools of LoadBalancer addresses; at most one is the default.
    pub pools: Vec<Pool>,
    /// NodePort frontends.
    pub node_port: NodePort,
    /// Where externalIPs are served; nowhere if empty.
    pub external_ips: Vec<IpNet>,
    /// Where endpoints may be; `None` lets every unicast address be one.
    pub backend_ranges: Option<Vec<IpNet>>,
    /// How addresses are announced on links.
    pub announce: Announce,
    /// Where objects come from.
    pub source: Source,
    /// Which Services are ours.
    pub service: Service,
    /// `[aliases]`.
    pub aliases: Aliases,
    /// How Services are forwarded that don't say it themselves.
    pub forwarding: ForwardingSettings,
    /// Sizes of the connection tables.
    pub connections: Connections,
    /// After how much silence connections end.
    pub timeouts: Timeouts,
    /// Answers that workers make themselves.
    pub answers: Answers,
    /// Traffic for the host.
    pub host: Host,
    /// What workers do without packets.
    pub idle: Idle,
    /// The admin API.
    pub admin: Admin,
    /// Keys the choice of backends; `None`: what the Lease says or, without one, what was kept.
    pub selection_key: Option<SelectionKey>,
    /// Where what must outlive the process is kept.
    pub state_dir: PathBuf,
}

/// `[eal]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eal {
    /// Take memory from huge pages.
    pub huge_pages: bool,
    /// Memory for packets and rings, in MiB; connection tables have their own.
    pub memory_mib: NonZeroU32,
    /// Packet buffers.
    pub mbufs: NonZeroU32,
}

/// `[[worker]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker {
    /// The core.
    pub core: u32,
}

/// `[[port]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name that interfaces refer to.
    pub name: String,
    /// DPDK device.
    pub device: Device,
    /// Namespace in which the kernel side of a vdev lives: a name below `/run/netns`, or a path.
    pub netns: Option<String>,
    /// Receive queues; `None` means one for each worker, within what the device has.
    pub rx_queues: Option<NonZeroU16>,
    /// MAC address; `None` keeps the device's.
    pub mac: Option<MacAddr>,
    /// Places in each queue.
    pub descriptors: NonZeroU16,
}

/// `[[interface]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name in tables and commands.
    pub name: String,
    /// The port that carries it.
    pub port: PortId,
    /// VLAN; untagged if `None`.
    pub vlan: Option<Vlan>,
    /// The gateway's own addresses with their prefixes' lengths.
    pub addresses: Vec<IpNet>,
    /// Longest packet, in bytes.
    pub mtu: u16,
    /// Who is there.
    pub role: Role,
    /// Routes that are set on the host twin.
    pub routes: Vec<Route>,
    /// Neighbours that are set on the host twin, for those that answer neither ARP nor ND.
    pub neighbours: Vec<Neighbour>,
    /// Name of the TAP twin.
    pub host_name: String,
}

/// One of an interface's routes; both of one family, `via` on the interface's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub to: IpNet,
    /// Next hop.
    pub via: IpAddr,
}

/// One of an interface's neighbours: on its link, and named once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address.
    pub mac: MacAddr,
}

/// `[[nat]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nat {
    /// Interface towards the backends.
    pub interface: InterfaceId,
    /// Source addresses that the backends see; none is an address of an interface.
    pub addresses: Vec<IpAddr>,
}

/// `[[pool]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Name that Services ask for.
    pub name: Arc<str>,
    /// Its addresses; pools don't overlap.
    pub addresses: Vec<AddressRange>,
    /// Of several that a Service may have, the lower number comes first.
    pub priority: u16,
    /// Serves Services that name no pool.
    pub auto_assign: bool,
    /// Keeps addresses that end in .0 and .255 back.
    pub avoid_buggy_addresses: bool,
    /// Namespaces that it is for.
    pub namespaces: Vec<Arc<str>>,
    /// Labels of Namespaces that it is for.
    pub namespace_selector: Option<translate::selector::Selector>,
    /// Labels of Services that it is for.
    pub service_selector: Option<translate::selector::Selector>,
    /// Where its clients are.
    pub scheme: Option<translate::Scheme>,
    /// What becomes of new connections to a Service without backends.
    pub refusal: model::desired::Refusal,
}

/// `[node_port]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePort {
    /// Own addresses on which NodePorts are answered.
    pub addresses: Vec<IpAddr>,
    /// Node ports that may be given.
    pub range: PortRange,
}

/// `[service]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `spec.loadBalancerClass` that is ours.
    pub load_balancer_class: Arc<str>,
    /// Services without a class are ours as well.
    pub default_class: bool,
}

/// `[aliases]`: what other controllers' annotations mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aliases {
    /// MetalLB's.
    pub metallb: bool,
    /// Those of the AWS Load Balancer Controller, whose Services are ours then.
    pub aws: bool,
}

/// `[connections]`, for each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Places for IPv4.
    pub ipv4: NonZeroU32,
    /// Places for IPv6.
    pub ipv6: NonZeroU32,
    /// How many begin.
    pub new: Rate,
    /// The least path MTU that a backend is told of.
    pub path_mtu_min: u16,
}

/// `[timeouts]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP: SYN seen, no SYN-ACK yet.
    pub tcp_syn_sent: Duration,
    /// TCP: SYN-ACK seen, not acknowledged yet.
    pub tcp_syn_received: Duration,
    /// TCP: idle.
    pub tcp_established: Duration,
    /// TCP: a FIN that nobody has acknowledged.
    pub tcp_fin_wait: Duration,
    /// TCP: one side has closed, and the other knows.
    pub tcp_close_wait: Duration,
    /// TCP: both have closed.
    pub tcp_time_wait: Duration,
    /// TCP: refused.
    pub tcp_closed: Duration,
    /// UDP: no stream yet.
    pub udp: Duration,
    /// UDP: a stream.
    pub udp_stream: Duration,
}

/// `[answers]`, for each worker and interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers {
    /// RST and port unreachable.
    pub refusals: Rate,
    /// ICMP time exceeded.
    pub time_exceeded: Rate,
    /// ICMP packet too big.
    pub too_big: Rate,
    /// Echo replies.
    pub echo: Rate,
    /// ARP and ND answers.
    pub neighbour: Rate,
    /// Segments that a silent peer has to answer.
    pub challenges: Rate,
}

/// `[host]`, for each worker and interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// ARP and ND.
    pub arp_nd: Rate,
    /// BGP, BFD, OSPF and VRRP of neighbours, and as much again of `peers`.
    pub routing: Rate,
    /// Routing peers that aren't on a link of ours.
    pub peers: Vec<IpAddr>,
    /// Answers to what the host itself began.
    pub begun: Rate,
    /// All else.
    pub other: Rate,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The Unix socket.
    pub socket: PathBuf,
    /// Loopback address for metrics.
    pub metrics: Option<LoopbackAddress>,
}

impl Config {
    /// The interface's number.
    pub fn interface_id(&self, name: &str) -> Option<InterfaceId> {
        let index = self.interfaces.iter().position(|interface| interface.name == name)?;
        u8::try_from(index).ok().map(InterfaceId)
    }
    /// All of the gateway's own addresses, in the order of the interfaces.
    pub fn own_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.interfaces.iter().flat_map(|interface| interface.addresses.iter().map(IpNet::addr))
    }
    /// All NAT addresses, in the order of the configuration.
    pub fn nat_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.nat.iter().flat_map(|nat| nat.addresses.iter().copied())
    }
}

#[cfg(test)]
mod tests;
