//! How to put a packet on a wire: interfaces, their addresses, routes and next hops, as the mirror
//! thread learns them from the kernel and publishes them.

use hashbrown::{HashMap, HashSet};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::ids::{AdjacencyId, InterfaceId, PortId};
use model::limits::ADJACENCIES_MAX;
use prefix_trie::PrefixMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// An Ethernet address, in the order of the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// True for group addresses, broadcast included.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What an interface is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Frontends are answered and announced here.
    Front,
    /// Backends are reached here.
    Back,
    /// Both.
    Both,
}

impl Role {
    /// True where frontends are answered and announced.
    pub const fn is_front(self) -> bool {
        matches!(self, Self::Front | Self::Both)
    }
}

/// An interface: a (port, VLAN). Its place in the list is its [`InterfaceId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name from the configuration.
    pub name: Arc<str>,
    /// The port.
    pub port: PortId,
    /// The VLAN, for a tagged one.
    pub vlan: Option<u16>,
    /// The port's MAC.
    pub mac: Mac,
    /// Bytes of an IP packet at most.
    pub mtu: u16,
    /// What it is for.
    pub role: Role,
}

/// A next hop whose MAC is known, with all that its Ethernet header needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjacency {
    /// The interface.
    pub interface: InterfaceId,
    /// Its port.
    pub port: PortId,
    /// Its VLAN, for a tagged one.
    pub vlan: Option<u16>,
    /// Bytes of an IP packet at most.
    pub mtu: u16,
    /// Our MAC.
    pub source: Mac,
    /// The next hop's MAC.
    pub destination: Mac,
}

/// An adjacency as a connection keeps it: its place in the table, and which of the place's holders
/// it is. A place that another next hop has got since is another generation's, and isn't found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct AdjacencyRef {
    /// The place.
    pub id: AdjacencyId,
    /// Counts the holders of the place, from 1.
    pub generation: u16,
}

impl AdjacencyRef {
    /// No adjacency: the next hop's MAC is not in the published table.
    pub const NONE: Self = Self { id: AdjacencyId(u16::MAX), generation: 0 };
}

/// A route of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The interface that it leaves by.
    pub interface: InterfaceId,
    /// The next hop; `None` where the destination itself is on the link.
    pub via: Option<IpAddr>,
}

/// Where a packet for an address has to go next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The interface.
    pub interface: InterfaceId,
    /// The next hop: a router, or the destination itself.
    pub address: IpAddr,
    /// Its adjacency, where its MAC is known.
    pub adjacency: Option<AdjacencyRef>,
}

/// What the mirror thread knows, to be published.
#[derive(Clone, Debug, Default)]
pub struct AdjacencyInput {
    /// The interfaces.
    pub interfaces: Vec<Interface>,
    /// The addresses that the kernel holds on each twin.
    pub addresses: Vec<(InterfaceId, IpAddr)>,
    /// The kernel's routes over the twins; of equal prefixes the first counts.
    pub routes: Vec<(IpNet, Route)>,
    /// Resolved neighbours.
    pub neighbours: Vec<(InterfaceId, IpAddr, Mac)>,
}

/// The published table of interfaces, addresses, routes and adjacencies. Immutable.
#[derive(Clone, Debug, Default)]
pub struct Adjacencies {
    interfaces: Vec<Interface>,
    by_port: Vec<Vec<(Option<u16>, InterfaceId)>>,
    adjacencies: Vec<Adjacency>,
    by_hop: HashMap<(InterfaceId, IpAddr), AdjacencyId>,
    local: HashMap<IpAddr, InterfaceId>,
    /// Link-local addresses may be the same on several interfaces.
    local_on: HashSet<(InterfaceId, IpAddr)>,
    routes_v4: PrefixMap<Ipv4Net, Route>,
    routes_v6: PrefixMap<Ipv6Net, Route>,
}

impl Adjacencies {
    /// Compiles what the mirror thread knows. Neighbours beyond [`ADJACENCIES_MAX`], or of an
    /// interface that isn't listed, are left out: packets for them are dropped as unresolved.
    pub fn new(input: AdjacencyInput) -> Self {
        let mut table = Self { interfaces: input.interfaces, ..Self::default() };
        for (number, interface) in table.interfaces.iter().enumerate() {
            let port = interface.port.index();
            if table.by_port.len() <= port {
                table.by_port.resize(port + 1, Vec::new());
            }
            table.by_port[port].push((interface.vlan, InterfaceId(number as u8)));
        }
        for (id, address) in input.addresses {
            table.local.insert(address, id);
            table.local_on.insert((id, address));
        }
        for (prefix, route) in input.routes {
            match prefix {
                IpNet::V4(prefix) => {
                    table.routes_v4.entry(prefix).or_insert(route);
                }
                IpNet::V6(prefix) => {
                    table.routes_v6.entry(prefix).or_insert(route);
                }
            }
        }
        for (id, address, mac) in input.neighbours.into_iter().take(ADJACENCIES_MAX) {
            let Some(interface) = table.interfaces.get(id.index()) else { continue };
            table.by_hop.insert((id, address), AdjacencyId(table.adjacencies.len() as u16));
            table.adjacencies.push(Adjacency {
                interface: id,
                port: interface.port,
                vlan: interface.vlan,
                mtu: interface.mtu,
                source: interface.mac,
                destination: mac,
            });
        }
        table
    }
    /// The interfaces; a place in the list is an [`InterfaceId`].
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }
    /// One interface.
    #[inline]
    pub fn interface(&self, id: InterfaceId) -> Option<&Interface> {
        self.interfaces.get(id.index())
    }
    /// The interface of a port and VLAN.
    #[inline]
    pub fn interface_of(&self, port: PortId, vlan: Option<u16>) -> Option<InterfaceId> {
        let list = self.by_port.get(port.index())?;
        list.iter().find(|(tag, _)| *tag == vlan).map(|(_, id)| *id)
    }
    /// One adjacency, where its place is still its own.
    #[inline]
    pub fn adjacency(&self, of: AdjacencyRef) -> Option<&Adjacency> {
        self.adjacencies.get(of.id.index())
    }
    /// The interface that holds this address as the host's own.
    #[inline]
    pub fn local(&self, address: IpAddr) -> Option<InterfaceId> {
        self.local.get(&address).copied()
    }
    /// True where the host has this address on this interface.
    pub fn is_local_on(&self, interface: InterfaceId, address: IpAddr) -> bool {
        self.local_on.contains(&(interface, address))
    }
    /// The longest matching route.
    pub fn route(&self, destination: IpAddr) -> Option<Route> {
        match destination {
            IpAddr::V4(ip) => self.routes_v4.get_lpm(&host_v4(ip)).map(|(_, route)| *route),
            IpAddr::V6(ip) => self.routes_v6.get_lpm(&host_v6(ip)).map(|(_, route)| *route),
        }
    }
    /// Where a packet for `destination` has to go next. `via` is a next hop that holds if it is on
    /// a link of ours and the destination itself isn't.
    pub fn hop(&self, destination: IpAddr, via: Option<IpAddr>) -> Option<Hop> {
        let route = self.route(destination);
        let by_via = via
            .filter(|_| route.is_none_or(|route| route.via.is_some()))
            .and_then(|via| self.route(via).filter(|to| to.via.is_none()).map(|to| (to, via)));
        let (interface, address) = match (by_via, route) {
            (Some((to, via)), _) => (to.interface, via),
            (None, Some(route)) => (route.interface, route.via.unwrap_or(destination)),
            (None, None) => return None,
        };
        Some(Hop { interface, address, adjacency: self.find(interface, address) })
    }
    /// The adjacency of a next hop, where its MAC is known.
    pub fn find(&self, interface: InterfaceId, address: IpAddr) -> Option<AdjacencyRef> {
        let id = self.by_hop.get(&(interface, address)).copied()?;
        Some(AdjacencyRef { id, generation: 1 })
    }
}

fn host_v4(ip: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::new_assert(ip, 32)
}

fn host_v6(ip: Ipv6Addr) -> Ipv6Net {
    Ipv6Net::new_assert(ip, 128)
}
