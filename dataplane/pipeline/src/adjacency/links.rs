//! Interfaces, the host's addresses and routes, compiled for the look-ups that packets need.

use super::{Interface, Mac, Route};
use crate::bits::AddressBits;
use hashbrown::{HashMap, HashSet};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::ids::{Family, InterfaceId, PortId};
use prefix_trie::PrefixMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// All that decides where a packet goes next, short of the next hop's MAC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// The interfaces; a place in the list is an [`InterfaceId`].
    pub interfaces: Vec<Interface>,
    /// The addresses that the kernel holds on each twin.
    pub addresses: Vec<(InterfaceId, IpAddr)>,
    /// The kernel's routes over the twins; of equal prefixes the first counts.
    pub routes: Vec<(IpNet, Route)>,
    /// Neighbours whose MAC an operator has set: what their packets come from changes nothing.
    pub fixed: Vec<(InterfaceId, IpAddr)>,
}

/// Routes of a family that are looked through one by one.
const FEW_ROUTES: usize = 12;

/// What is asked of an interface for each packet that comes in by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// The interface.
    pub id: InterfaceId,
    /// Its VLAN.
    pub vlan: Option<u16>,
    /// Its MAC.
    pub mac: Mac,
    /// True where backends are behind it.
    pub is_back: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Compiled {
    /// What it was made of.
    pub links: Arc<Links>,
    by_port: Vec<Vec<Ingress>>,
    local: HashMap<IpAddr, InterfaceId>,
    /// Of `local`: asked first.
    local_bits: AddressBits,
    /// Link-local addresses may be the same on several interfaces.
    local_on: HashSet<(InterfaceId, IpAddr)>,
    routes_v4: PrefixMap<Ipv4Net, Route>,
    routes_v6: PrefixMap<Ipv6Net, Route>,
    /// The same of each family, the longest first, where they are few.
    few: [Option<Vec<Few>>; 2],
    /// Prefixes whose addresses are on a link themselves.
    on_link: Vec<IpNet>,
    /// Of the neighbours those whose MAC is set by hand.
    pub fixed: HashSet<(InterfaceId, IpAddr)>,
    /// The next hops of routes: the routers of each link.
    pub gateways: HashSet<(InterfaceId, IpAddr)>,
}

impl Compiled {
    pub fn new(links: Arc<Links>) -> Self {
        let mut new = Self::default();
        for (number, interface) in links.interfaces.iter().enumerate() {
            let port = interface.port.index();
            if new.by_port.len() <= port {
                new.by_port.resize(port + 1, Vec::new());
            }
            new.by_port[port].push(Ingress {
                id: InterfaceId(number as u8),
                vlan: interface.vlan,
                mac: interface.mac,
                is_back: interface.role.is_back(),
            });
        }
        for (id, address) in links.addresses.iter().copied() {
            new.local.insert(address, id);
            new.local_bits.add(address);
            new.local_on.insert((id, address));
        }
        for (prefix, route) in links.routes.iter().copied() {
            match prefix {
                IpNet::V4(prefix) => {
                    new.routes_v4.entry(prefix).or_insert(route);
                }
                IpNet::V6(prefix) => {
                    new.routes_v6.entry(prefix).or_insert(route);
                }
            }
            if route.via.is_none() {
                new.on_link.push(prefix);
            }
            new.gateways.extend(route.via.map(|via| (route.interface, via)));
        }
        new.few = [
            few(new.routes_v4.iter().map(|(net, route)| (IpNet::V4(net), *route))),
            few(new.routes_v6.iter().map(|(net, route)| (IpNet::V6(net), *route))),
        ];
        new.fixed = links.fixed.iter().copied().collect();
        new.links = links;
        new
    }
    /// The route of this very prefix.
    pub fn route_to(&self, net: IpNet) -> Option<Route> {
        match net {
            IpNet::V4(net) => self.routes_v4.get(&net).copied(),
            IpNet::V6(net) => self.routes_v6.get(&net).copied(),
        }
    }
    /// True where the prefix, or one that it lies within, is on a link.
    pub fn is_on_link(&self, net: IpNet) -> bool {
        self.on_link.iter().any(|link| link.contains(&net))
    }
    pub fn interface(&self, id: InterfaceId) -> Option<&Interface> {
        self.links.interfaces.get(id.index())
    }
    #[inline(always)]
    pub fn ingress(&self, port: PortId, vlan: Option<u16>) -> Option<&Ingress> {
        self.by_port.get(port.index())?.iter().find(|ingress| ingress.vlan == vlan)
    }
    pub fn local(&self, address: IpAddr) -> Option<InterfaceId> {
        self.local_bits.may_have(address).then(|| self.local.get(&address).copied())?
    }
    pub fn is_local_on(&self, interface: InterfaceId, address: IpAddr) -> bool {
        self.local_on.contains(&(interface, address))
    }
    pub fn route(&self, destination: IpAddr) -> Option<Route> {
        if let Some(few) = &self.few[Family::of(destination).index()] {
            let address = bits(destination);
            let found = few.iter().find(|few| (address ^ few.network) & few.mask == 0);
            return found.map(|few| few.route);
        }
        match destination {
            IpAddr::V4(ip) => self.routes_v4.get_lpm(&host_v4(ip)).map(|(_, route)| *route),
            IpAddr::V6(ip) => self.routes_v6.get_lpm(&host_v6(ip)).map(|(_, route)| *route),
        }
    }
}

/// A route as it is looked for among a few.
#[derive(Clone, Copy, Debug)]
struct Few {
    network: u128,
    mask: u128,
    route: Route,
}

impl Few {
    fn new(net: IpNet, route: Route) -> Self {
        Self { network: bits(net.network()), mask: bits(net.netmask()), route }
    }
}

/// Most gateways have a handful of routes, which are sooner looked through than walked in a trie.
fn few(routes: impl Iterator<Item = (IpNet, Route)>) -> Option<Vec<Few>> {
    let routes = routes.take(FEW_ROUTES + 1);
    let mut routes: Vec<Few> = routes.map(|(net, route)| Few::new(net, route)).collect();
    routes.sort_unstable_by_key(|few| std::cmp::Reverse(few.mask));
    (routes.len() <= FEW_ROUTES).then_some(routes)
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn host_v4(ip: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::new_assert(ip, 32)
}

fn host_v6(ip: Ipv6Addr) -> Ipv6Net {
    Ipv6Net::new_assert(ip, 128)
}
