//! What an engine is made from. Everything here has been validated by whoever made it.

use crate::idle::Idle;
use crate::mirror::{AnnounceConfig, StaticNeighbour, StaticRoute};
use dpdk::{DeviceString, Port};
use ipnet::IpNet;
use model::ids::PortId;
use pipeline::Options;
use pipeline::adjacency::{Mac, Role};
use pipeline::secret::Secret;
use pipeline::steer::{NatAddress, ToeplitzKey};
use std::sync::Arc;

/// Where a port comes from.
#[derive(Debug)]
pub enum Device {
    /// DPDK attaches it, in a network namespace where one is named.
    Named {
        /// As `net_tap0,iface=hg0`.
        device: DeviceString,
        /// The namespace in which the kernel's side of a virtual device lives.
        netns: Option<String>,
    },
    /// It is there already, not configured yet: rings in memory.
    Made(Port),
}

/// A DPDK port.
#[derive(Debug)]
pub struct PortSpec {
    /// Name from the configuration.
    pub name: Arc<str>,
    /// Where it comes from.
    pub device: Device,
    /// Receive queues; `None`: one for each worker, as far as the device has them.
    pub rx_queues: Option<u16>,
    /// MAC address; `None`: the device's own.
    pub mac: Option<Mac>,
    /// Descriptors of each queue.
    pub descriptors: u16,
}

/// An interface. Its place in the list is its `InterfaceId`.
#[derive(Clone, Debug)]
pub struct InterfaceSpec {
    /// Name of its twin in the kernel.
    pub name: Arc<str>,
    /// The port.
    pub port: PortId,
    /// The VLAN, for a tagged one.
    pub vlan: Option<u16>,
    /// Bytes of an IP packet at most.
    pub mtu: u16,
    /// What it is for.
    pub role: Role,
    /// The host's addresses on its twin.
    pub addresses: Vec<IpNet>,
    /// Static routes over it.
    pub routes: Vec<StaticRoute>,
    /// Neighbours whose MAC is set and never asked for.
    pub neighbours: Vec<StaticNeighbour>,
}

/// What an engine is made from.
#[derive(Debug)]
pub struct EngineConfig {
    /// The core of each worker.
    pub cores: Vec<u32>,
    /// The ports. A place in the list is a `PortId`.
    pub ports: Vec<PortSpec>,
    /// The interfaces.
    pub interfaces: Vec<InterfaceSpec>,
    /// The NAT addresses.
    pub nat: Vec<NatAddress>,
    /// How each worker's pipeline is set up; who it is and its secrets are filled in.
    pub pipeline: Options,
    /// What all secrets of the process are derived from.
    pub secret: Secret,
    /// Keys the hash that says whose a client's packet is.
    pub toeplitz: ToeplitzKey,
    /// How workers wait.
    pub idle: Idle,
    /// Packet buffers.
    pub mbufs: u32,
    /// Whether tables lie on huge pages, where those are free.
    pub huge_pages: bool,
    /// Whether there is a host mirror. Without one, tests publish adjacencies themselves.
    pub mirror: bool,
    /// How the mirror announces addresses.
    pub announce: AnnounceConfig,
    /// Cores that the mirror may run on; empty: any.
    pub mirror_cores: Vec<usize>,
}
