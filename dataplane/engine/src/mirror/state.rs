//! What the kernel holds about the twins: addresses, routes and neighbours, and how its messages
//! are read.

use super::netlink::OWN_PROTOCOL;
use ipnet::IpNet;
use model::ids::InterfaceId;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop,
    RouteNextHopFlags, RouteType, RouteVia,
};
use pipeline::adjacency::{Interface, Links, Mac, Route};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A neighbour on the link of an interface.
pub(crate) type Key = (InterfaceId, IpAddr);

/// A neighbour as the kernel holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub mac: Option<Mac>,
    pub state: NeighbourState,
    /// The kernel keeps it resolved by itself.
    pub managed: bool,
}

impl Neighbour {
    /// The MAC, where packets may be sent to it.
    pub const fn usable(&self) -> Option<Mac> {
        match self.state {
            NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp => self.mac,
            _ => None,
        }
    }
    /// Somebody has set it by hand: it is used as it is, and nothing is asked.
    pub const fn is_fixed(&self) -> bool {
        matches!(self.state, NeighbourState::Permanent | NeighbourState::Noarp)
    }
    /// The kernel's word for the state.
    pub const fn word(&self) -> &'static str {
        match self.state {
            NeighbourState::Reachable => "reachable",
            NeighbourState::Stale => "stale",
            NeighbourState::Delay => "delay",
            NeighbourState::Probe => "probe",
            NeighbourState::Permanent => "permanent",
            NeighbourState::Noarp => "noarp",
            NeighbourState::Incomplete => "incomplete",
            NeighbourState::Failed => "failed",
            _ => "none",
        }
    }
}

/// A route of the main table, whichever interface it leaves by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KernelRoute {
    pub prefix: IpNet,
    pub metric: u32,
    /// The link's number.
    pub index: u32,
    pub via: Option<IpAddr>,
}

/// A twin's link.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub index: u32,
    pub interface: Interface,
    /// The MTU that the kernel holds; somebody may have lowered it.
    pub mtu: u32,
}

/// All of it. The order of neighbours makes publications comparable.
#[derive(Debug, Default)]
pub(crate) struct KernelState {
    links: Vec<Link>,
    by_index: HashMap<u32, InterfaceId>,
    addresses: Vec<(InterfaceId, IpAddr)>,
    routes: Vec<(IpNet, u32, Route)>,
    /// Prefixes that are on a link of ours.
    on_link: Vec<(IpNet, InterfaceId)>,
    /// Links that somebody has set down.
    down: BTreeSet<InterfaceId>,
    neighbours: BTreeMap<Key, (Neighbour, u32)>,
    /// Those that an operator has set.
    fixed: BTreeSet<Key>,
    /// Those that packets may be sent to.
    usable: usize,
    /// Neighbours whose usable MAC is another than when [`Self::take_changed`] was last called.
    changed: HashSet<Key>,
    /// Counts the times that neighbours were read from the start.
    reading: u32,
}

impl KernelState {
    pub fn new(links: Vec<Link>) -> Self {
        let number = |(place, link): (usize, &Link)| (link.index, InterfaceId(place as u8));
        let by_index = links.iter().enumerate().map(number).collect();
        Self { links, by_index, ..Self::default() }
    }
    /// The interface whose twin has this number.
    pub fn interface_of(&self, index: u32) -> Option<InterfaceId> {
        self.by_index.get(&index).copied()
    }
    /// The link of an interface.
    pub fn link(&self, id: InterfaceId) -> Option<&Link> {
        self.links.get(id.index())
    }
    /// Takes over the MTU of a link; true where it changes what is published.
    pub fn set_mtu(&mut self, id: InterfaceId, mtu: u32) -> bool {
        match self.links.get_mut(id.index()) {
            Some(link) if link.mtu != mtu => {
                link.mtu = mtu;
                true
            }
            _ => false,
        }
    }
    /// Takes over whether a link is up; true where that is news.
    pub fn set_up(&mut self, id: InterfaceId, up: bool) -> bool {
        if up { self.down.remove(&id) } else { self.down.insert(id) }
    }
    /// Takes over all addresses. They are few.
    pub fn set_addresses(&mut self, mut addresses: Vec<(InterfaceId, IpAddr)>) -> bool {
        addresses.sort_unstable();
        addresses.dedup();
        let differ = self.addresses != addresses;
        self.addresses = addresses;
        differ
    }
    /// Takes over all routes of one family; those of equal prefixes in order of metric, then in
    /// the kernel's order.
    pub fn set_routes(&mut self, is_ipv6: bool, routes: Vec<KernelRoute>) -> bool {
        let of_family = |prefix: &IpNet| prefix.addr().is_ipv6() == is_ipv6;
        let mut new: Vec<_> =
            self.routes.iter().filter(|(prefix, ..)| !of_family(prefix)).copied().collect();
        new.extend(routes.iter().filter_map(|route| {
            let interface = self.interface_of(route.index)?;
            Some((route.prefix, route.metric, Route { interface, via: route.via }))
        }));
        new.sort_by_key(|(prefix, metric, _)| (*prefix, *metric));
        let differ = self.routes != new;
        let on_link = |(prefix, _, route): &(IpNet, u32, Route)| {
            route.via.is_none().then_some((*prefix, route.interface))
        };
        self.on_link = new.iter().filter_map(on_link).collect();
        self.routes = new;
        differ
    }
    /// The next hops of routes that go through a gateway.
    pub fn gateways(&self) -> impl Iterator<Item = Key> + '_ {
        self.routes.iter().filter_map(|(_, _, route)| Some((route.interface, route.via?)))
    }
    /// True where the address is on the link of the interface.
    pub fn is_on_link(&self, (id, address): Key) -> bool {
        self.on_link.iter().any(|(prefix, on)| *on == id && prefix.contains(&address))
    }
    /// The number of the link on which `via` is the next hop towards an address; `None` where the
    /// address itself is on a link, or `via` isn't.
    pub fn link_towards(&self, address: IpAddr, via: IpAddr) -> Option<u32> {
        let on = |ip: &IpAddr| self.on_link.iter().find(|(prefix, _)| prefix.contains(ip));
        if on(&address).is_some() {
            return None;
        }
        on(&via).and_then(|(_, id)| self.link(*id)).map(|link| link.index)
    }
    /// Takes over a neighbour.
    /// True where what an operator has set is another.
    pub fn set_neighbour(&mut self, key: Key, neighbour: Neighbour) -> bool {
        let old = self.neighbours.insert(key, (neighbour, self.reading));
        self.note(key, old.and_then(|(old, _)| old.usable()), neighbour.usable());
        if neighbour.is_fixed() { self.fixed.insert(key) } else { self.fixed.remove(&key) }
    }
    /// Forgets a neighbour; true where it was known.
    pub fn forget_neighbour(&mut self, key: &Key) -> bool {
        let Some((old, _)) = self.neighbours.remove(key) else { return false };
        self.note(*key, old.usable(), None);
        self.fixed.remove(key);
        true
    }
    fn note(&mut self, key: Key, old: Option<Mac>, new: Option<Mac>) {
        if old != new {
            self.changed.insert(key);
            self.usable = self.usable + usize::from(new.is_some()) - usize::from(old.is_some());
        }
    }
    /// The neighbours whose usable MAC may be another than at the last call.
    pub fn take_changed(&mut self) -> impl Iterator<Item = Key> + '_ {
        self.changed.drain()
    }
    /// How many neighbours packets may be sent to.
    pub const fn usable_count(&self) -> usize {
        self.usable
    }
    /// The neighbours that packets may be sent to.
    pub fn usable(&self) -> impl Iterator<Item = (Key, Mac)> + '_ {
        self.neighbours().filter_map(|(key, neighbour)| Some((*key, neighbour.usable()?)))
    }
    /// One neighbour.
    pub fn neighbour(&self, key: &Key) -> Option<&Neighbour> {
        self.neighbours.get(key).map(|(neighbour, _)| neighbour)
    }
    /// All neighbours.
    pub fn neighbours(&self) -> impl Iterator<Item = (&Key, &Neighbour)> {
        self.neighbours.iter().map(|(key, (neighbour, _))| (key, neighbour))
    }
    /// Neighbours are being read from the start.
    pub fn begin_neighbours(&mut self) {
        self.reading = self.reading.wrapping_add(1);
    }
    /// All have been read: forgets those that weren't met. True where an operator had set one of them.
    pub fn end_neighbours(&mut self) -> bool {
        let fixed = self.fixed.len();
        let unmet =
            |(key, (_, met)): (&Key, &(Neighbour, u32))| (*met != self.reading).then_some(*key);
        let gone: Vec<Key> = self.neighbours.iter().filter_map(unmet).collect();
        for key in gone {
            self.forget_neighbour(&key);
        }
        self.fixed.len() != fixed
    }
    /// Interfaces, addresses and routes, as they are to be published.
    pub fn links(&self) -> Links {
        let interface = |link: &Link| {
            let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX).min(link.interface.mtu);
            Interface { mtu, ..link.interface.clone() }
        };
        Links {
            interfaces: self.links.iter().map(interface).collect(),
            addresses: self.addresses.clone(),
            routes: self.routes.iter().map(|(prefix, _, route)| (*prefix, *route)).collect(),
            fixed: self.fixed.iter().copied().collect(),
        }
    }
}

/// The link's number and the address that the kernel holds on it.
pub(crate) fn read_address(message: &AddressMessage) -> Option<(u32, IpAddr)> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    // IPv4 on a point-to-point link: the local one is ours, the other the peer's.
    let address = local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    Some((message.header.index, address))
}

/// The table that a route is in.
pub(crate) fn table_of(message: &RouteMessage) -> u32 {
    let given = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    given.unwrap_or(u32::from(message.header.table))
}

/// A route that the host has for its own packets alone.
pub(crate) fn is_host_way(message: &RouteMessage) -> bool {
    message.header.protocol == OWN_PROTOCOL
        && table_of(message) == u32::from(RouteHeader::RT_TABLE_MAIN)
}

/// The address that a route leads to.
pub(crate) fn destination_of(message: &RouteMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => read_route_address(address),
        _ => None,
    })
}

/// A unicast route of the main table that a plain packet can take, and that isn't for the host
/// alone. Of several next hops the first living one.
pub(crate) fn read_route(message: &RouteMessage) -> Option<KernelRoute> {
    let header = &message.header;
    let plain = header.kind == RouteType::Unicast
        && header.tos == 0
        && header.source_prefix_length == 0
        && !header.flags.intersects(RouteFlags::Cloned | RouteFlags::Dead)
        && table_of(message) == u32::from(RouteHeader::RT_TABLE_MAIN)
        && !is_host_way(message);
    if !plain {
        return None;
    }
    let (mut to, mut metric) = (None, 0);
    let mut hop = read_hop(&message.attributes, None)?;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = Some(read_route_address(address)?),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::MultiPath(hops) => hop = first_living(hops)?,
            _ => {}
        }
    }
    let any = match header.address_family {
        netlink_packet_route::AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        netlink_packet_route::AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let prefix = IpNet::new(to.unwrap_or(any), header.destination_prefix_length).ok()?.trunc();
    Some(KernelRoute { prefix, metric, index: hop.0?, via: hop.1 })
}

type KernelHop = (Option<u32>, Option<IpAddr>);

fn first_living(hops: &[RouteNextHop]) -> Option<KernelHop> {
    hops.iter()
        .filter(|hop| !hop.flags.contains(RouteNextHopFlags::Dead))
        .find_map(|hop| read_hop(&hop.attributes, Some(hop.interface_index)))
}

/// The link and gateway of a next hop; `None` where it wants an encapsulation.
fn read_hop(attributes: &[RouteAttribute], index: Option<u32>) -> Option<KernelHop> {
    let mut hop = (index, None);
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(index) => hop.0 = Some(*index),
            RouteAttribute::Gateway(address) => hop.1 = Some(read_route_address(address)?),
            RouteAttribute::Via(RouteVia::Inet(address)) => hop.1 = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => hop.1 = Some((*address).into()),
            RouteAttribute::Via(_)
            | RouteAttribute::EncapType(_)
            | RouteAttribute::Encap(_)
            | RouteAttribute::NewDestination(_) => return None,
            _ => {}
        }
    }
    Some(hop)
}

const fn read_route_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

/// The link's number, the address, and what the kernel holds of a unicast neighbour.
pub(crate) fn read_neighbour(message: &NeighbourMessage) -> Option<(u32, IpAddr, Neighbour)> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let mut neighbour = Neighbour { mac: None, state: message.header.state, managed: false };
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                address = Some(IpAddr::V4(*ip));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                address = Some(IpAddr::V6(*ip));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                neighbour.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
            }
            NeighbourAttribute::ExtFlags(flags) => {
                neighbour.managed = flags.contains(NeighbourExtFlags::Managed);
            }
            _ => {}
        }
    }
    // The kernel keeps entries for groups, too; nobody forwards to them.
    let address = address.filter(|address| !address.is_multicast())?;
    if neighbour.mac.is_some_and(Mac::is_multicast) {
        return None;
    }
    Some((message.header.ifindex, address, neighbour))
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::AddressFamily;

    fn route(attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        message.attributes = attributes;
        message
    }

    #[test]
    fn a_route_without_destination_is_the_default_route() {
        let gateway = RouteAddress::Inet(Ipv4Addr::new(192, 0, 2, 254));
        let message = route(vec![RouteAttribute::Oif(7), RouteAttribute::Gateway(gateway)]);
        let read = read_route(&message).unwrap();
        assert_eq!(read.prefix.to_string(), "0.0.0.0/0");
        assert_eq!((read.index, read.metric), (7, 0));
        assert_eq!(read.via.unwrap().to_string(), "192.0.2.254");
    }

    #[test]
    fn routes_that_a_plain_packet_cant_take_are_left_out() {
        let good = route(vec![RouteAttribute::Oif(7)]);
        assert!(read_route(&good).is_some());
        let mut others = vec![good; 6];
        others[0].header.kind = RouteType::BlackHole;
        others[1].header.tos = 4;
        others[2].header.flags = RouteFlags::Dead;
        others[3].attributes.push(RouteAttribute::Table(1000));
        others[4].attributes.clear();
        others[5].header.destination_prefix_length = 33;
        for message in others {
            assert_eq!(read_route(&message), None, "{message:?}");
        }
    }

    #[test]
    fn of_several_next_hops_the_first_living_one_counts() {
        let hop = |index, flags| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = index;
            hop.flags = flags;
            hop
        };
        let hops = vec![hop(1, RouteNextHopFlags::Dead), hop(2, RouteNextHopFlags::empty())];
        let message = route(vec![RouteAttribute::MultiPath(hops)]);
        assert_eq!(read_route(&message).unwrap().index, 2);
    }

    #[test]
    fn only_neighbours_with_a_mac_in_a_good_state_are_usable() {
        use NeighbourState as S;
        let mac = Some(Mac([2, 0, 0, 0, 0, 9]));
        let good = [S::Reachable, S::Stale, S::Delay, S::Probe, S::Permanent, S::Noarp];
        for state in good {
            assert_eq!(Neighbour { mac, state, managed: false }.usable(), mac);
            assert_eq!(Neighbour { mac: None, state, managed: false }.usable(), None);
        }
        for state in [S::Incomplete, S::Failed, S::None] {
            assert_eq!(Neighbour { mac, state, managed: false }.usable(), None);
        }
    }

    #[test]
    fn a_reading_forgets_the_neighbours_that_it_didnt_meet() {
        let mut state = KernelState::default();
        let known =
            Neighbour { mac: Some(Mac::default()), state: NeighbourState::Stale, managed: false };
        let key = |n| (InterfaceId(0), IpAddr::from([192, 0, 2, n]));
        state.set_neighbour(key(1), known);
        state.set_neighbour(key(2), known);
        assert_eq!(state.take_changed().count(), 2);
        state.begin_neighbours();
        state.set_neighbour(key(2), known);
        // An event in between counts as met.
        state.set_neighbour(key(3), known);
        state.end_neighbours();
        assert_eq!(state.neighbours().map(|(key, _)| *key).collect::<Vec<_>>(), [key(2), key(3)]);
        let mut changed: Vec<Key> = state.take_changed().collect();
        changed.sort_unstable();
        assert_eq!((changed, state.usable_count()), (vec![key(1), key(3)], 2));
    }

    #[test]
    fn only_another_usable_mac_is_a_change() {
        let mut state = KernelState::default();
        let key = (InterfaceId(0), IpAddr::from([192, 0, 2, 1]));
        let mac = Some(Mac([2, 0, 0, 0, 0, 9]));
        let mut set = |mac, word| {
            state.set_neighbour(key, Neighbour { mac, state: word, managed: false });
            (state.take_changed().count(), state.usable_count())
        };
        use NeighbourState as S;
        assert_eq!(set(None, S::Incomplete), (0, 0));
        assert_eq!(set(mac, S::Reachable), (1, 1));
        for word in [S::Stale, S::Delay, S::Probe, S::Reachable, S::Permanent] {
            assert_eq!(set(mac, word), (0, 1));
        }
        assert_eq!(set(Some(Mac([2, 0, 0, 0, 0, 8])), S::Stale), (1, 1));
        assert_eq!(set(mac, S::Failed), (1, 0));
    }
}
