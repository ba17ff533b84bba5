//! The gateway's surroundings: links, neighbours, routes, NAT addresses, and settings to start
//! from. The README draws it.

use golden::packet::Mac;
use golden::world::ip;
use model::ids::{InterfaceId, PortId};
use pipeline::adjacency::{AdjacencyInput, Interface, Mac as WireMac, Role, Route};
use pipeline::steer::NatAddress;
use translate::{NodePortSettings, Pool, Wishes};

/// Our MAC in front.
pub const FRONT_MAC: Mac = [2, 0, 0, 0, 0, 1];
/// Our MAC behind.
pub const BACK_MAC: Mac = [2, 0, 0, 0, 0, 2];
/// The next hop of all clients.
pub const ROUTER_MAC: Mac = [2, 0, 0, 0, 1, 0xfe];
/// Port in front.
pub const FRONT: PortId = PortId(0);
/// Port behind.
pub const BACK: PortId = PortId(1);
/// The gateway's own addresses in front, on which it serves NodePorts.
pub const OWN: [&str; 2] = ["192.0.2.1", "2001:db8:f::1"];
/// NAT addresses.
pub const NAT: [&str; 2] = ["198.18.1.200", "2001:db8:b::200"];
/// How many nodes are on the link behind: `node-1` at `198.18.1.11` and so on.
pub const NODES: u8 = 4;

/// InternalIPs of `node-N`, IPv4 and IPv6.
pub fn node_addresses(number: u8) -> [String; 2] {
    [format!("198.18.1.{}", 10 + number), format!("2001:db8:b::{}", 10 + number)]
}

/// NAT addresses as workers know them.
pub fn nat_addresses() -> Vec<NatAddress> {
    NAT.map(|text| NatAddress { interface: InterfaceId(1), address: ip(text) }).to_vec()
}

/// What the mirror thread would have learnt.
pub fn adjacency_input() -> AdjacencyInput {
    let interface = |name: &str, port, mac, role| Interface {
        name: name.into(),
        port,
        vlan: None,
        mac: WireMac(mac),
        mtu: 1500,
        role,
    };
    let route = |prefix: &str, interface, via: Option<&str>| {
        let route = Route { interface: InterfaceId(interface), via: via.map(ip) };
        (prefix.parse().unwrap(), route)
    };
    let router = WireMac(ROUTER_MAC);
    let mut neighbours = vec![
        (InterfaceId(0), ip("192.0.2.254"), router),
        (InterfaceId(0), ip("2001:db8:f::fe"), router),
        (InterfaceId(1), ip("198.18.1.254"), router),
        (InterfaceId(1), ip("2001:db8:b::fe"), router),
    ];
    for number in 1..=NODES {
        for address in node_addresses(number) {
            neighbours.push((InterfaceId(1), ip(&address), WireMac([2, 0, 0, 0, 2, number])));
        }
    }
    AdjacencyInput {
        fixed: Vec::new(),
        interfaces: vec![
            interface("front", FRONT, FRONT_MAC, Role::Front),
            interface("back", BACK, BACK_MAC, Role::Back),
        ],
        addresses: vec![
            (InterfaceId(0), ip(OWN[0])),
            (InterfaceId(0), ip(OWN[1])),
            (InterfaceId(1), ip("198.18.1.1")),
            (InterfaceId(1), ip("2001:db8:b::1")),
        ],
        routes: vec![
            route("192.0.2.0/24", 0, None),
            route("2001:db8:f::/64", 0, None),
            route("0.0.0.0/0", 0, Some("192.0.2.254")),
            route("::/0", 0, Some("2001:db8:f::fe")),
            route("198.18.1.0/24", 1, None),
            route("2001:db8:b::/64", 1, None),
            // Where tests put odd endpoints: a ClusterIP whose Service has gone.
            route("198.18.64.0/19", 1, Some("198.18.1.254")),
            route("2001:db8:c::/48", 1, Some("2001:db8:b::fe")),
            route("198.19.0.0/16", 1, Some("198.18.1.254")),
            route("2001:db8:d::/48", 1, Some("2001:db8:b::fe")),
        ],
        neighbours,
    }
}

/// A pool.
pub fn pool(name: &str, ranges: &[&str]) -> Pool {
    let ranges = ranges.iter().map(|text| text.parse().unwrap()).collect();
    Pool { name: name.into(), ranges, ..Pool::default() }
}

/// Settings to start from: one pool of both families, NodePorts on our own addresses.
pub fn wishes() -> Wishes {
    Wishes {
        pools: vec![pool("demo", &["203.0.113.10-203.0.113.19", "2001:db8:a::10-2001:db8:a::19"])],
        node_port: NodePortSettings {
            addresses: OWN.map(ip).to_vec(),
            ..NodePortSettings::default()
        },
        own_addresses: [OWN[0], OWN[1], "198.18.1.1", "2001:db8:b::1", NAT[0], NAT[1]]
            .map(ip)
            .to_vec(),
        next_hops: ["192.0.2.254", "2001:db8:f::fe"].map(ip).to_vec(),
        ..Wishes::default()
    }
}
