//! How to put a packet on a wire: interfaces, their addresses, routes and next hops, as the mirror
//! thread learns them from the kernel and publishes them.

mod links;
mod places;
mod route_stamps;

pub use links::{Ingress, Links};

use crate::parse::{ETHERNET_LEN, ETHERTYPE_VLAN, VLAN_TAG_LEN};
use hashbrown::HashSet;
use ipnet::IpNet;
use links::Compiled;
use model::ids::{AdjacencyId, InterfaceId, PortId};
use places::{NextHop, Places};
use route_stamps::RouteStamps;
use std::net::IpAddr;
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
    /// True where backends are reached.
    pub const fn is_back(self) -> bool {
        matches!(self, Self::Back | Self::Both)
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

/// A next hop whose MAC is known: its Ethernet header ready made, and what a packet has to fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adjacency {
    /// The header without its ethertype, which is the last two bytes of what is used.
    header: [u8; ETHERNET_LEN + VLAN_TAG_LEN],
    is_tagged: bool,
    is_fixed: bool,
    /// The interface.
    pub interface: InterfaceId,
    /// Its port.
    pub port: PortId,
    /// Bytes of an IP packet at most.
    pub mtu: u16,
}

impl Adjacency {
    /// How packets leave by an interface for a next hop with this MAC.
    pub fn new(id: InterfaceId, interface: &Interface, destination: Mac) -> Self {
        let mut header = [0; ETHERNET_LEN + VLAN_TAG_LEN];
        header[..6].copy_from_slice(&destination.0);
        header[6..12].copy_from_slice(&interface.mac.0);
        if let Some(vlan) = interface.vlan {
            header[12..14].copy_from_slice(&ETHERTYPE_VLAN.to_be_bytes());
            header[14..16].copy_from_slice(&vlan.to_be_bytes());
        }
        Self {
            header,
            is_tagged: interface.vlan.is_some(),
            is_fixed: false,
            interface: id,
            port: interface.port,
            mtu: interface.mtu,
        }
    }
    /// The next hop's MAC.
    pub fn destination(&self) -> Mac {
        Mac(std::array::from_fn(|at| self.header[at]))
    }
    /// True where an operator has set the MAC.
    #[inline(always)]
    pub const fn is_fixed(&self) -> bool {
        self.is_fixed
    }
    /// The header with an 802.1Q tag (IEEE 802.1Q), its last two bytes unset: there goes the
    /// ethertype. `None` where the interface has no tag.
    #[inline]
    pub fn tagged(&self) -> Option<&[u8; ETHERNET_LEN + VLAN_TAG_LEN]> {
        self.is_tagged.then_some(&self.header)
    }
    /// Both MACs, in the order of the wire.
    #[inline]
    pub fn macs(&self) -> &[u8] {
        &self.header[..ETHERNET_LEN - 2]
    }
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
    /// Those of the neighbours whose MAC an operator has set.
    pub fixed: Vec<(InterfaceId, IpAddr)>,
    /// Resolved neighbours.
    pub neighbours: Vec<(InterfaceId, IpAddr, Mac)>,
}

/// What differs from the publication before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdjacencyChange {
    /// Interfaces, addresses and routes, where one of them may differ.
    pub links: Option<Arc<Links>>,
    /// Neighbours whose MAC is another or has become known, and those that have gone (`None`).
    pub neighbours: Vec<(InterfaceId, IpAddr, Option<Mac>)>,
}

/// The published table of interfaces, addresses, routes and adjacencies. Immutable; what follows
/// it shares with it what stayed.
#[derive(Clone, Debug, Default)]
pub struct Adjacencies {
    compiled: Arc<Compiled>,
    stamps: RouteStamps,
    places: Places,
    /// MACs of gateways, on the interfaces that their routes leave by.
    routers: Arc<HashSet<(InterfaceId, Mac)>>,
}

impl Adjacencies {
    /// Compiles what the mirror thread knows. Neighbours beyond [`ADJACENCIES_MAX`], or of an
    /// interface that isn't listed, are left out: packets for them are dropped as unresolved.
    ///
    /// [`ADJACENCIES_MAX`]: model::limits::ADJACENCIES_MAX
    pub fn new(input: AdjacencyInput) -> Self {
        Self::default().next(input)
    }
    /// What follows this table where `input` is all that is known. Next hops that stay keep their
    /// places.
    pub fn next(&self, input: AdjacencyInput) -> Self {
        let AdjacencyInput { interfaces, addresses, routes, fixed, neighbours } = input;
        let stay: HashSet<NextHop> = neighbours.iter().map(|(id, ip, _)| (*id, *ip)).collect();
        let gone =
            self.places.hops().filter(|hop| !stay.contains(hop)).map(|(id, ip)| (id, ip, None));
        let known = neighbours.into_iter().map(|(id, ip, mac)| (id, ip, Some(mac)));
        self.with(&AdjacencyChange {
            links: Some(Arc::new(Links { interfaces, addresses, routes, fixed })),
            neighbours: gone.chain(known).collect(),
        })
    }
    /// What follows this table after a change; it costs what the change costs.
    pub fn with(&self, change: &AdjacencyChange) -> Self {
        let mut next = self.clone();
        let mut routers_may_differ = false;
        if let Some(links) = &change.links
            && *links != self.compiled.links
        {
            next.compiled = Arc::new(Compiled::new(Arc::clone(links)));
            next.stamps.change(&self.compiled, &next.compiled);
            let before = &self.compiled.links;
            if links.interfaces != before.interfaces || links.fixed != before.fixed {
                next.renew();
            }
            routers_may_differ = true;
        }
        // Those that go make room for those that come.
        for (id, address, _) in change.neighbours.iter().filter(|(.., mac)| mac.is_none()) {
            next.places.remove(&(*id, *address));
        }
        for (id, address, mac) in &change.neighbours {
            if let Some(made) = mac.and_then(|mac| next.made((*id, *address), mac)) {
                next.places.put((*id, *address), made);
            }
            routers_may_differ |= next.compiled.gateways.contains(&(*id, *address));
        }
        if routers_may_differ {
            next.find_routers();
        }
        next
    }
    /// Makes all headers anew, after an interface has become another.
    fn renew(&mut self) {
        let hops: Vec<NextHop> = self.places.hops().collect();
        for hop in hops {
            let mac = self.find(hop.0, hop.1).and_then(|of| self.adjacency(of));
            let mac = mac.map(Adjacency::destination);
            match mac.and_then(|mac| self.made(hop, mac)) {
                Some(made) => {
                    self.places.put(hop, made);
                }
                None => self.places.remove(&hop),
            }
        }
    }
    fn made(&self, hop: NextHop, mac: Mac) -> Option<Adjacency> {
        let made = Adjacency::new(hop.0, self.compiled.interface(hop.0)?, mac);
        Some(Adjacency { is_fixed: self.compiled.fixed.contains(&hop), ..made })
    }
    fn find_routers(&mut self) {
        let gateways = self.compiled.gateways.iter();
        let mac =
            |hop: &NextHop| self.adjacency(self.places.find(hop)?).map(Adjacency::destination);
        self.routers = Arc::new(gateways.filter_map(|hop| Some((hop.0, mac(hop)?))).collect());
    }
    /// The interfaces; a place in the list is an [`InterfaceId`].
    pub fn interfaces(&self) -> &[Interface] {
        &self.compiled.links.interfaces
    }
    /// One interface.
    #[inline]
    pub fn interface(&self, id: InterfaceId) -> Option<&Interface> {
        self.compiled.interface(id)
    }
    /// The interface of a port and VLAN.
    #[inline(always)]
    pub fn ingress(&self, port: PortId, vlan: Option<u16>) -> Option<&Ingress> {
        self.compiled.ingress(port, vlan)
    }
    /// Changes whenever an interface, an address of the host or a route is another, and then alone:
    /// a next hop's MAC that is learned or changes leaves it as it is.
    #[inline]
    pub const fn routes_stamp(&self) -> u32 {
        self.stamps.latest()
    }
    /// True where the next hops towards these addresses, which were found under this stamp, are what
    /// they were: no route has changed since where one of them lies.
    pub fn routes_hold(&self, stamp: u32, addresses: [IpAddr; 3]) -> bool {
        self.stamps.holds(stamp, addresses)
    }
    /// One adjacency, where its place is still its own.
    #[inline]
    pub fn adjacency(&self, of: AdjacencyRef) -> Option<&Adjacency> {
        self.places.get(of)
    }
    /// Asks for an adjacency before it is needed.
    #[inline(always)]
    pub fn prefetch(&self, of: AdjacencyRef) {
        self.places.prefetch(of);
    }
    /// How many adjacencies there are.
    pub const fn count(&self) -> usize {
        self.places.len()
    }
    /// The interface that holds this address as the host's own.
    #[inline]
    pub fn local(&self, address: IpAddr) -> Option<InterfaceId> {
        self.compiled.local(address)
    }
    /// True where the host has this address on this interface.
    pub fn is_local_on(&self, interface: InterfaceId, address: IpAddr) -> bool {
        self.compiled.is_local_on(interface, address)
    }
    /// True where the MAC is that of a router on this link: of the next hop of a route. What it
    /// sends has come from anywhere, and its source address says nothing about who has this MAC.
    pub fn is_router_mac(&self, interface: InterfaceId, mac: Mac) -> bool {
        self.routers.contains(&(interface, mac))
    }
    /// The next hops of routes.
    pub fn routers(&self) -> impl Iterator<Item = (InterfaceId, IpAddr)> + '_ {
        self.compiled.gateways.iter().copied()
    }
    /// The longest matching route.
    pub fn route(&self, destination: IpAddr) -> Option<Route> {
        self.compiled.route(destination)
    }
    /// Where a packet for `destination` has to go next. `via` is a next hop that holds if it is on
    /// a link of ours and the destination itself isn't.
    #[inline(always)]
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
        self.places.find(&(interface, address))
    }
}

#[cfg(test)]
mod tests;
