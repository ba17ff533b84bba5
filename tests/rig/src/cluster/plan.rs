//! Addresses of a cluster: documentation and benchmark ranges, as everywhere in the rig.

use crate::plan;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where ClusterIPs come from.
pub const SERVICES: [&str; 2] = ["198.19.0.0/17", "2001:db8:5e::/112"];
/// Where all pods' addresses come from.
pub const PODS: [&str; 2] = ["198.18.64.0/18", "2001:db8:50::/56"];
/// The port of every API server.
pub const API_PORT: u16 = 6443;
/// The bridge of the management network, in the namespace of the first API server.
pub(super) const BRIDGE: &str = "mgmt0";
/// The link to the management network, in every attached namespace.
pub(super) const LINK: &str = "mgmt";
/// The number on the management network of the first API server's namespace.
pub(super) const CONTROL: u8 = 1;
/// The number of the address that is moved between API servers.
pub(super) const SHARED: u8 = 9;
/// The number of the namespace that is attached first.
pub(super) const FIRST_ATTACHED: u8 = 10;

/// Both families of this number on the management network, which joins the API servers, the
/// nodes and the gateways' namespaces, and which no gateway forwards for.
pub fn management(number: u8) -> [IpAddr; 2] {
    [
        Ipv4Addr::new(198, 18, 254, number).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0xfe, 0, 0, 0, number.into()).into(),
    ]
}

/// The address of the API server that is in use, whichever that is.
pub fn shared() -> [IpAddr; 2] {
    management(SHARED)
}

/// The InternalIPs of node `index`, from 0: on the gateway's back network.
pub fn node(index: u8) -> [IpAddr; 2] {
    plan::back(151 + u16::from(index))
}

/// Where the addresses of the pods of node `index` come from. The first one is the node's own.
pub fn pod_cidrs(index: u8) -> [String; 2] {
    [format!("198.18.{}.0/24", 64 + index), format!("2001:db8:50:{index:x}::/64")]
}

/// The first address of each.
pub(super) fn pod_routers(index: u8) -> [String; 2] {
    [format!("198.18.{}.1", 64 + index), format!("2001:db8:50:{index:x}::1")]
}

pub(super) fn url(address: IpAddr, port: u16) -> String {
    format!("https://{}", std::net::SocketAddr::new(address, port))
}
