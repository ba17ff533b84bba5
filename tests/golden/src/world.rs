//! The world of the cases: ports, interfaces, neighbours, routes, NAT addresses and services. The
//! README draws it.

use crate::packet::Mac;
use model::desired::{
    Affinity, Backend, BackendState, Delta, Forwarding, Frontend, ObjectName, Origin, Refusal,
    Scope, ServicePort, ServicePortKey, Target,
};
use model::ids::{InterfaceId, PortId, Protocol};
use pipeline::adjacency::{Adjacencies, AdjacencyInput, Interface, Mac as WireMac, Role, Route};
use pipeline::snapshot::Compiler;
use pipeline::steer::{NatAddress, SteerTable};
use pipeline::tables::Tables;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Names of the ports, in the order of their ids.
pub const PORTS: [&str; 2] = ["front", "back"];
/// Names of the interfaces, in the order of their ids.
pub const INTERFACES: [&str; 4] = ["front", "back", "front100", "back200"];
/// VLAN of `front100`.
pub const VLAN_FRONT: u16 = 100;
/// VLAN of `back200`.
pub const VLAN_BACK: u16 = 200;
/// Our MAC on port `front`.
pub const FRONT_MAC: Mac = [2, 0, 0, 0, 0, 0x01];
/// Our MAC on port `back`.
pub const BACK_MAC: Mac = [2, 0, 0, 0, 0, 0x02];
/// The client on the front link whose MAC is published.
pub const CLIENT_MAC: Mac = [2, 0, 0, 0, 1, 0x10];
/// The router on the front link.
pub const ROUTER_MAC: Mac = [2, 0, 0, 0, 1, 0xfe];
/// MTU of every interface but `back200`, whose is 1400.
pub const MTU: u16 = 1500;
/// MTU of `back200`.
pub const MTU_BACK200: u16 = 1400;
/// Keys the tables of all cases.
pub const SECRET: u64 = 0x676f_6c64;

/// An address.
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}
/// An address and port.
pub fn at(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address and port"))
}
/// The MAC of the backend whose address ends in `last`.
pub const fn backend_mac(last: u8) -> Mac {
    [2, 0, 0, 0, 2, last]
}

/// The NAT addresses.
pub fn nat_addresses() -> Vec<NatAddress> {
    let nat =
        |interface, address| NatAddress { interface: InterfaceId(interface), address: ip(address) };
    vec![nat(1, "198.18.1.200"), nat(1, "2001:db8:b::200"), nat(3, "198.18.2.200")]
}

/// What the mirror thread would have learnt.
pub fn adjacency_input() -> AdjacencyInput {
    let interface = |name: &str, port, vlan, mac, mtu, role| Interface {
        name: name.into(),
        port: PortId(port),
        vlan,
        mac: WireMac(mac),
        mtu,
        role,
    };
    let route = |prefix: &str, interface, via: Option<&str>| {
        let route = Route { interface: InterfaceId(interface), via: via.map(ip) };
        (prefix.parse().unwrap(), route)
    };
    fn neighbour(interface: u8, address: &str, mac: Mac) -> (InterfaceId, IpAddr, WireMac) {
        (InterfaceId(interface), ip(address), WireMac(mac))
    }
    let mut neighbours = vec![
        neighbour(0, "198.18.0.10", CLIENT_MAC),
        neighbour(0, "2001:db8:f::10", CLIENT_MAC),
        neighbour(0, "198.18.0.254", ROUTER_MAC),
        neighbour(0, "2001:db8:f::fe", ROUTER_MAC),
        neighbour(2, "198.18.100.10", CLIENT_MAC),
        neighbour(3, "198.18.2.11", backend_mac(0x2b)),
    ];
    for last in 11..=14u8 {
        neighbours.push(neighbour(1, &format!("198.18.1.{last}"), backend_mac(last)));
        neighbours.push(neighbour(1, &format!("2001:db8:b::{last}"), backend_mac(last)));
    }
    AdjacencyInput {
        fixed: Vec::new(),
        interfaces: vec![
            interface("front", 0, None, FRONT_MAC, MTU, Role::Front),
            interface("back", 1, None, BACK_MAC, MTU, Role::Back),
            interface("front100", 0, Some(VLAN_FRONT), FRONT_MAC, MTU, Role::Front),
            interface("back200", 1, Some(VLAN_BACK), BACK_MAC, MTU_BACK200, Role::Back),
        ],
        addresses: vec![
            (InterfaceId(0), ip("198.18.0.1")),
            (InterfaceId(0), ip("2001:db8:f::1")),
            (InterfaceId(1), ip("198.18.1.1")),
            (InterfaceId(1), ip("2001:db8:b::1")),
            (InterfaceId(2), ip("198.18.100.1")),
            (InterfaceId(3), ip("198.18.2.1")),
        ],
        routes: vec![
            route("198.18.0.0/24", 0, None),
            route("198.18.100.0/24", 2, None),
            route("198.51.100.0/24", 0, Some("198.18.0.254")),
            route("2001:db8:f::/64", 0, None),
            route("2001:db8:c::/48", 0, Some("2001:db8:f::fe")),
            route("198.18.1.0/24", 1, None),
            route("198.18.2.0/24", 3, None),
            route("2001:db8:b::/64", 1, None),
            route("2001:db8:b2::/64", 3, None),
            route("10.244.0.0/16", 1, Some("198.18.1.14")),
        ],
        neighbours,
    }
}

/// A service port as the cases write it: name, frontends, backends (`ADDRESS:PORT`, and
/// ` draining`, ` unserving` or ` via ADDRESS` after it).
pub fn service(
    name: &str,
    protocol: Protocol,
    frontends: &[&str],
    backends: &[&str],
) -> ServicePort {
    ServicePort {
        key: key(name, protocol),
        uid: name.into(),
        frontends: frontends
            .iter()
            .map(|text| Frontend { address: at(text), origin: Origin::ExternalIp })
            .collect(),
        backends: backends.iter().map(|text| backend(text)).collect(),
        forwarding: Forwarding::Nat,
        target: Target::Endpoint,
        refusal: [Refusal::Reject; 2],
        affinity: None,
        source_ranges: Vec::new(),
        reset_after_s: None,
    }
}

fn key(name: &str, protocol: Protocol) -> ServicePortKey {
    ServicePortKey {
        cluster: "".into(),
        service: ObjectName::new("default", name),
        port_name: "".into(),
        protocol,
        scope: Scope::External,
    }
}

/// A backend as the cases write it.
pub fn backend(text: &str) -> Backend {
    let mut words = text.split(' ');
    let mut backend = Backend {
        address: at(words.next().unwrap()),
        node: "".into(),
        via: None,
        name: "".into(),
        weight: 1,
        state: BackendState::Active,
    };
    while let Some(word) = words.next() {
        match word {
            "draining" => backend.state = BackendState::Draining,
            "unserving" => backend.state = BackendState::Unserving,
            "via" => backend.via = words.next().map(ip),
            other => panic!("{other} of backend {text}"),
        }
    }
    backend
}

/// The services: `web` and `dns` in both families, and one for each oddity.
pub fn services() -> Vec<ServicePort> {
    use Protocol::{Tcp, Udp};
    let silent = ServicePort {
        refusal: [Refusal::Drop; 2],
        ..service("silent", Tcp, &["203.0.113.21:80", "[2001:db8:a::21]:80"], &[])
    };
    let web = ["203.0.113.10:80", "[2001:db8:a::10]:80"];
    let dns = ["203.0.113.10:53", "[2001:db8:a::10]:53"];
    let empty = ["203.0.113.20:80", "[2001:db8:a::20]:80"];
    vec![
        service("web", Tcp, &web, &["198.18.1.11:8080", "[2001:db8:b::11]:8080"]),
        service("dns", Udp, &dns, &["198.18.1.11:5353", "[2001:db8:b::11]:5353"]),
        service("empty", Tcp, &empty, &[]),
        service("mute", Udp, &empty, &[]),
        silent,
        service("tagged", Tcp, &["203.0.113.10:8200"], &["198.18.2.11:8080"]),
        service("nonat", Tcp, &["[2001:db8:a::10]:8200"], &["[2001:db8:b2::11]:8080"]),
        service("lost", Tcp, &["203.0.113.10:8300"], &["192.0.2.11:8080"]),
        service("unresolved", Tcp, &["203.0.113.10:8400"], &["198.18.1.99:8080"]),
        service("pod", Tcp, &["203.0.113.10:8500"], &["10.244.3.7:8080 via 198.18.1.12"]),
        service("routed", Tcp, &["203.0.113.10:8600"], &["10.244.3.8:8080"]),
    ]
    .into_iter()
    .chain(guarded())
    .chain(sticky())
    .chain(inner())
    .chain([fading()])
    .collect()
}

/// A service whose clients get a RST 40 s after their backend has gone.
fn fading() -> ServicePort {
    let to = ["198.18.1.11:8080", "[2001:db8:b::11]:8080"];
    let frontends = ["203.0.113.10:8720", "[2001:db8:a::10]:8720"];
    ServicePort { reset_after_s: Some(40), ..service("fading", Protocol::Tcp, &frontends, &to) }
}

/// Services with source ranges.
fn guarded() -> [ServicePort; 3] {
    use Protocol::{Tcp, Udp};
    let guarded = |name, protocol, frontends: &[&str], backends: &[&str], ranges: &[&str]| {
        let mut port = service(name, protocol, frontends, backends);
        // The first of each family is a LoadBalancer's, and so guarded.
        for frontend in &mut port.frontends[..2] {
            frontend.origin = Origin::LoadBalancer { pool: "golden".into() };
        }
        ServicePort { source_ranges: prefixes(ranges), ..port }
    };
    const RANGES: [&str; 4] =
        ["198.51.100.0/25", "198.51.100.200/32", "2001:db8:c::/120", "2001:db8:c::200/128"];
    let tcp = ["203.0.113.10:8700", "[2001:db8:a::10]:8700"];
    let open = ["203.0.113.10:8701", "[2001:db8:a::10]:8701"];
    let half = ["203.0.113.10:8702", "[2001:db8:a::10]:8702"];
    let to = ["198.18.1.11:8080", "[2001:db8:b::11]:8080"];
    let dns = ["198.18.1.11:5353", "[2001:db8:b::11]:5353"];
    [
        guarded("walled", Tcp, &[tcp, open].concat(), &to, &RANGES),
        guarded("walldns", Udp, &tcp, &dns, &RANGES),
        guarded("half", Tcp, &half, &to, &["192.0.2.0/24"]),
    ]
}

/// Prefixes as the cases write them.
fn prefixes<T: AsRef<str>>(texts: &[T]) -> Vec<ipnet::IpNet> {
    texts.iter().map(|text| text.as_ref().parse().unwrap()).collect()
}

/// Services with session affinity of a minute.
fn sticky() -> [ServicePort; 2] {
    let sticky = |name, protocol, frontends: &[&str], backends: &[&str]| ServicePort {
        affinity: Some(Affinity { timeout_s: 60 }),
        ..service(name, protocol, frontends, backends)
    };
    let tcp = [
        "203.0.113.10:8710",
        "203.0.113.10:8711",
        "[2001:db8:a::10]:8710",
        "[2001:db8:a::10]:8711",
    ];
    let udp = ["203.0.113.10:8710", "[2001:db8:a::10]:8710"];
    let to = ["198.18.1.11:8080", "[2001:db8:b::11]:8080"];
    let dns = ["198.18.1.11:5353", "[2001:db8:b::11]:5353"];
    [sticky("sticky", Protocol::Tcp, &tcp, &to), sticky("stickydns", Protocol::Udp, &udp, &dns)]
}

/// Services with ClusterIPs: one with a backend, one without, and one that is silent in IPv4 and
/// refuses in IPv6.
fn inner() -> [ServicePort; 3] {
    let inner = |name, last: u8, backends: &[&str]| {
        let frontends = [format!("198.19.0.{last}:80"), format!("[2001:db8:5::{last}]:80")];
        let frontends = frontends.each_ref().map(String::as_str);
        let mut port = service(name, Protocol::Tcp, &frontends, backends);
        port.key.scope = Scope::Internal;
        for frontend in &mut port.frontends {
            frontend.origin = Origin::ClusterIp;
        }
        port
    };
    let mut apart = inner("apart", 30, &[]);
    apart.refusal = [Refusal::Drop, Refusal::Reject];
    let to = ["198.18.1.11:8080", "[2001:db8:b::11]:8080"];
    [inner("inner", 10, &to), inner("hollow", 20, &[]), apart]
}

/// The world of a case, which its changes move on.
#[derive(Debug)]
pub struct World {
    compiler: Compiler,
    services: Vec<ServicePort>,
    input: AdjacencyInput,
    /// The tables as they are published now.
    pub tables: Tables,
}

impl World {
    /// The world of the cases, for so many workers.
    pub fn new(workers: u8) -> Self {
        Self::with(workers, services(), adjacency_input(), &nat_addresses())
    }
    /// A world of other services, neighbours and NAT addresses.
    pub fn with(
        workers: u8,
        services: Vec<ServicePort>,
        input: AdjacencyInput,
        nat: &[NatAddress],
    ) -> Self {
        let mut compiler = Compiler::default();
        let changed = services.iter().cloned().map(Arc::new).collect();
        let (snapshot, report) = compiler.apply(&Delta { changed, removed: Vec::new() });
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        let tables = Tables {
            generation: 1,
            snapshot,
            adjacencies: Arc::new(Adjacencies::new(input.clone())),
            steer: Arc::new(SteerTable::new(workers, nat)),
        };
        Self { compiler, services, input, tables }
    }
    /// The services that are there.
    pub fn services(&self) -> &[ServicePort] {
        &self.services
    }
    /// The slot of a service port, for its counters.
    pub fn slot(&self, name: &str) -> Option<usize> {
        let key = self.services.iter().find(|port| &*port.key.service.name == name)?.key.clone();
        self.compiler.service(&key).map(|id| id.slot as usize)
    }
    /// Gives a service other backends.
    pub fn set_backends(&mut self, name: &str, backends: &[&str]) {
        let list = backends.iter().map(|text| backend(text)).collect();
        let port = self.services.iter_mut().find(|port| &*port.key.service.name == name);
        let port = port.unwrap_or_else(|| panic!("no service {name}"));
        port.backends = list;
        let changed = vec![Arc::new(port.clone())];
        self.publish(&Delta { changed, removed: Vec::new() });
    }
    /// Gives a service other source ranges.
    pub fn set_source_ranges(&mut self, name: &str, ranges: &[String]) {
        let port = self.services.iter_mut().find(|port| &*port.key.service.name == name);
        let port = port.unwrap_or_else(|| panic!("no service {name}"));
        port.source_ranges = prefixes(ranges);
        let changed = vec![Arc::new(port.clone())];
        self.publish(&Delta { changed, removed: Vec::new() });
    }
    /// Takes a service away.
    pub fn remove_service(&mut self, name: &str) {
        let at = self.services.iter().position(|port| &*port.key.service.name == name);
        let gone = self.services.remove(at.unwrap_or_else(|| panic!("no service {name}")));
        self.publish(&Delta { changed: Vec::new(), removed: vec![gone.key] });
    }
    /// Learns or, with `None`, forgets the MAC of a neighbour on the interface of that name.
    pub fn set_neighbour(&mut self, interface: &str, address: IpAddr, mac: Option<Mac>) {
        let number = INTERFACES.iter().position(|name| *name == interface).unwrap();
        let id = InterfaceId(number as u8);
        self.input.neighbours.retain(|(at, ip, _)| (*at, *ip) != (id, address));
        self.input.neighbours.extend(mac.map(|mac| (id, address, WireMac(mac))));
        self.tables.adjacencies = Arc::new(self.tables.adjacencies.next(self.input.clone()));
        self.tables.generation += 1;
    }
    fn publish(&mut self, delta: &Delta) {
        let (snapshot, report) = self.compiler.apply(delta);
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        self.tables.snapshot = snapshot;
        self.tables.generation += 1;
    }
}
