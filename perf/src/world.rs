//! What the pipelines work under: two interfaces, a router before the clients, services with their
//! backends on nodes on the link, NAT addresses.

use crate::packet::End;
use model::desired::{
    Backend, BackendState, DesiredState, Frontend, ObjectName, Origin, Scope, ServicePort,
    ServicePortKey,
};
use model::ids::{InterfaceId, PortId, Protocol};
use pipeline::adjacency::{Adjacencies, AdjacencyInput, Interface, Mac, Role, Route};
use pipeline::connections::Timeouts;
use pipeline::snapshot::Compiler;
use pipeline::steer::{NatAddress, SteerTable};
use pipeline::tables::Tables;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Our MACs, by port: 0 towards clients, 1 towards backends.
pub const OURS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
/// The MAC that packets come from.
pub const THEIRS: [u8; 6] = [2, 0, 0, 0, 1, 1];
/// NAT addresses.
pub const NAT_ADDRESSES: u32 = 4;

const ROUTER: u32 = 0xc612_0001;
const FIRST_NAT: u32 = 0xc613_ff00;
const FIRST_FRONTEND: u32 = 0xcb00_0000;
const FIRST_BACKEND: u32 = 0x0a00_0001;
const FIRST_NODE: u32 = 0xc613_0001;
/// Nodes at most. Each backend is a pod on one of them, which is the next hop towards it.
const NODES_MAX: u32 = 1_000;
const FIRST_CLIENT: u32 = 0x6440_0000;
const CLIENTS: u32 = 1 << 22;

/// The shape of a world.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Services, of one port each.
    pub services: u32,
    /// Backends of each.
    pub backends: u32,
    /// NAT addresses.
    pub nat_addresses: u32,
}

/// The frontend of a service.
pub const fn frontend(service: u32) -> End {
    End { address: FIRST_FRONTEND + service, port: 80 }
}

/// A client: no two numbers have the same address and port, and numbers beside each other have
/// little in common.
pub const fn client(number: u32) -> End {
    let place = number.wrapping_mul(0x9e37_79b1) % CLIENTS;
    let port = (number / CLIENTS + place.wrapping_mul(2_654_435) % 60_000) % 60_000;
    End { address: FIRST_CLIENT + place, port: 1024 + port as u16 }
}

fn ip(address: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(address))
}

/// One service port of a world. `first_backend` counts over all services.
pub fn service_port(number: u32, first_backend: u32, backends: u32) -> ServicePort {
    let end = frontend(number);
    ServicePort {
        key: ServicePortKey {
            cluster: "".into(),
            service: ObjectName::new("bench", &format!("service-{number}")),
            port_name: "http".into(),
            protocol: Protocol::Tcp,
            scope: Scope::External,
        },
        uid: "".into(),
        frontends: vec![Frontend {
            address: SocketAddr::new(ip(end.address), end.port),
            origin: Origin::LoadBalancer { pool: "bench".into() },
        }],
        backends: (first_backend..first_backend + backends)
            .map(|backend| Backend {
                address: SocketAddr::new(ip(FIRST_BACKEND + backend), 8080),
                node: "".into(),
                via: Some(ip(FIRST_NODE + backend % NODES_MAX)),
                name: "".into(),
                weight: 1,
                state: BackendState::Active,
            })
            .collect(),
        forwarding: Default::default(),
        target: Default::default(),
        refusal: Default::default(),
        affinity: None,
        source_ranges: Vec::new(),
        reset_after_s: None,
    }
}

/// The desired state of a world.
pub fn desired(shape: &Shape) -> DesiredState {
    let mut state = DesiredState::default();
    for number in 0..shape.services {
        let port = service_port(number, number * shape.backends, shape.backends);
        state.service_ports.insert(port.key.clone(), Arc::new(port));
    }
    state
}

fn adjacencies(shape: &Shape) -> Adjacencies {
    let interface = |name: &str, port: u8, role| Interface {
        name: name.into(),
        port: PortId(port),
        vlan: None,
        mac: Mac(OURS[usize::from(port)]),
        mtu: 1500,
        role,
    };
    let route = |prefix: &str, interface, via: Option<u32>| {
        prefix
            .parse()
            .ok()
            .map(|prefix| (prefix, Route { interface: InterfaceId(interface), via: via.map(ip) }))
    };
    let nodes = (0..(shape.services * shape.backends).min(NODES_MAX)).map(|node| {
        let [_, a, b, c] = node.to_be_bytes();
        (InterfaceId(1), ip(FIRST_NODE + node), Mac([2, 0, 1, a, b, c]))
    });
    let routes = [
        route("198.18.0.0/24", 0, None),
        route("0.0.0.0/0", 0, Some(ROUTER)),
        route("198.19.0.0/16", 1, None),
    ];
    Adjacencies::new(AdjacencyInput {
        fixed: Vec::new(),
        interfaces: vec![interface("front", 0, Role::Front), interface("back", 1, Role::Back)],
        addresses: Vec::new(),
        routes: routes.into_iter().flatten().collect(),
        neighbours: [(InterfaceId(0), ip(ROUTER), Mac(THEIRS))].into_iter().chain(nodes).collect(),
    })
}

/// The published tables of a world with one worker.
pub fn tables(shape: &Shape) -> Tables {
    tables_of(shape, 1)
}

/// The same with so many workers.
pub fn tables_of(shape: &Shape, workers: u8) -> Tables {
    let nat: Vec<_> = (0..shape.nat_addresses)
        .map(|n| NatAddress { interface: InterfaceId(1), address: ip(FIRST_NAT + n) })
        .collect();
    let (snapshot, _) = Compiler::default().apply(&desired(shape).as_delta());
    Tables {
        generation: 1,
        snapshot,
        adjacencies: Arc::new(adjacencies(shape)),
        steer: Arc::new(SteerTable::new(workers, &nat)),
    }
}

/// Time-outs under which nothing ends while a benchmark runs.
pub fn timeouts() -> Timeouts {
    Timeouts::default()
}
