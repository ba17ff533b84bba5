//! What must hold between the tables.

use super::devices::Item;
use super::problem::{Log, Place};
use super::read::Section;
use super::tree::Table;
use super::{Device, Eal, Interface, Nat, NodePort, Pool, Port, Worker};
use ipnet::IpNet;
use model::ids::Family;
use std::net::IpAddr;

/// What has been read; tables that are wrong are left out.
pub(super) struct Seen<'s, 'a> {
    pub(super) workers: &'s [Item<'a, Worker>],
    pub(super) ports: &'s [Item<'a, Port>],
    pub(super) interfaces: &'s [Item<'a, Interface>],
    pub(super) nat: &'s [Item<'a, Nat>],
    pub(super) pools: &'s [Item<'a, Pool>],
    pub(super) eal: Option<Eal>,
    pub(super) node_port: Option<&'s NodePort>,
    pub(super) node_port_section: &'s Section<'a>,
}

/// Notes what doesn't fit together.
pub(super) fn check(seen: &Seen<'_, '_>, root: &Table, log: &mut Log) {
    links(seen.interfaces, log);
    prefixes(seen.interfaces, log);
    routes(seen.interfaces, log);
    neighbours(seen.interfaces, log);
    twins(seen, log);
    node_ports(seen, log);
    pools(seen, log);
    // A table that was left out would make these speak of what isn't so.
    if log.problems.is_empty() {
        roles(seen.interfaces, root, log);
        nat(seen, log);
        unused(seen, log);
    }
}

fn roles(interfaces: &[Item<'_, Interface>], root: &Table, log: &mut Log) {
    if interfaces.is_empty() {
        return;
    }
    let place = root.get("interface").map_or(Place::Nowhere, |node| node.place.clone());
    if !interfaces.iter().any(|item| item.value.role.is_front()) {
        let what = "no interface has the role front (or both): no client could reach a frontend";
        log.problem(place.clone(), "interface.role", what);
    }
    if !interfaces.iter().any(|item| item.value.role.is_back()) {
        let what = "no interface has the role back (or both): no backend could be reached";
        log.problem(place, "interface.role", what);
    }
}

fn links(interfaces: &[Item<'_, Interface>], log: &mut Log) {
    for (position, item) in interfaces.iter().enumerate() {
        let link = |interface: &Interface| (interface.port, interface.vlan);
        let mut earlier = interfaces.iter().take(position);
        if let Some(other) = earlier.find(|other| link(&other.value) == link(&item.value)) {
            let what = format!(
                "its port and VLAN already belong to \"{}\" at {}; set another vlan",
                other.value.name,
                other.section.place("port")
            );
            log.problem(item.section.place("port"), "interface.port", what);
        }
    }
}

/// Link-local prefixes are the same on every link.
fn is_link_local(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(v6) if v6.addr().is_unicast_link_local())
}

fn prefixes(interfaces: &[Item<'_, Interface>], log: &mut Log) {
    for (position, item) in interfaces.iter().enumerate() {
        for net in &item.value.addresses {
            let twice = item.value.addresses.iter().filter(|other| other.addr() == net.addr());
            if twice.count() > 1 {
                let what = format!("{} stands there twice", net.addr());
                log.problem(item.section.place("addresses"), "interface.addresses", what);
                break;
            }
            if is_link_local(net) {
                continue;
            }
            for other in interfaces.iter().take(position) {
                let shared = other.value.addresses.iter().find(|there| {
                    !is_link_local(there) && (there.contains(net) || net.contains(*there))
                });
                let Some(there) = shared else { continue };
                let what = format!(
                    "{net} overlaps {there} of interface \"{}\" at {}; a prefix lies on one link",
                    other.value.name,
                    other.section.place("addresses")
                );
                log.problem(item.section.place("addresses"), "interface.addresses", what);
            }
        }
    }
}

fn routes(interfaces: &[Item<'_, Interface>], log: &mut Log) {
    for item in interfaces {
        for route in &item.value.routes {
            if let Some(what) = not_a_neighbour(&item.value, route.via) {
                let what = format!("via {} {what}", route.via);
                log.problem(item.section.place("routes"), "interface.routes", what);
            }
        }
    }
}

fn neighbours(interfaces: &[Item<'_, Interface>], log: &mut Log) {
    for item in interfaces {
        let list = &item.value.neighbours;
        for (position, neighbour) in list.iter().enumerate() {
            let address = neighbour.address;
            let what = if list.iter().take(position).any(|other| other.address == address) {
                format!("{address} stands there twice")
            } else if let Some(what) = not_a_neighbour(&item.value, address) {
                format!("{address} {what}")
            } else {
                continue;
            };
            log.problem(item.section.place("neighbours"), "interface.neighbours", what);
        }
    }
}

/// Why an address can't be that of another host on the interface's link.
fn not_a_neighbour(interface: &Interface, address: IpAddr) -> Option<String> {
    let local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let on_link = interface.addresses.iter().any(|net| net.contains(&address));
    if interface.addresses.iter().any(|net| net.addr() == address) {
        Some("is the interface's own address; a next hop is another host".to_owned())
    } else if !on_link && !local {
        let nets: Vec<String> =
            interface.addresses.iter().map(|net| net.trunc().to_string()).collect();
        Some(format!("is not on this link ({})", nets.join(", ")))
    } else {
        None
    }
}

/// A TAP twin can't have the name of a device's kernel side that stays in the same namespace.
fn twins(seen: &Seen<'_, '_>, log: &mut Log) {
    for port in seen.ports.iter().filter(|port| port.value.netns.is_none()) {
        let Some(kernel_side) = port.value.device.argument("iface") else { continue };
        let same = |item: &&Item<'_, Interface>| item.value.host_name == kernel_side;
        if let Some(item) = seen.interfaces.iter().find(same) {
            let what = format!(
                "\"{kernel_side}\" is also the kernel side of port \"{}\" at {}; set host_name",
                port.value.name,
                port.section.place("device")
            );
            log.problem(item.section.place("host_name"), "interface.host_name", what);
        }
    }
}

fn node_ports(seen: &Seen<'_, '_>, log: &mut Log) {
    let Some(node_port) = seen.node_port else { return };
    for address in &node_port.addresses {
        let own = |item: &Item<'_, Interface>| {
            item.value.addresses.iter().any(|net| net.addr() == *address)
        };
        if !seen.interfaces.iter().any(own) && log.problems.is_empty() {
            let all: Vec<String> = seen
                .interfaces
                .iter()
                .flat_map(|item| item.value.addresses.iter().map(|net| net.addr().to_string()))
                .collect();
            let what =
                format!("{address} is no address of an interface (there are: {})", all.join(", "));
            log.problem(seen.node_port_section.place("addresses"), "node_port.addresses", what);
        }
    }
}

fn pools(seen: &Seen<'_, '_>, log: &mut Log) {
    for (position, item) in seen.pools.iter().enumerate() {
        for (number, range) in item.value.addresses.iter().enumerate() {
            let earlier = seen.pools.iter().take(position);
            let others =
                earlier.flat_map(|other| other.value.addresses.iter().map(move |r| (other, r)));
            let own = item.value.addresses.iter().take(number).map(|r| (item, r));
            if let Some((other, there)) = others.chain(own).find(|(_, there)| there.overlaps(range))
            {
                let what = format!(
                    "{range} overlaps {there} of pool \"{}\" at {}",
                    other.value.name,
                    other.section.place("addresses")
                );
                log.problem(item.section.place("addresses"), "pool.addresses", what);
            }
            // Not an error: such addresses are refused one by one, and told with the Service.
            let taken = taken(seen).find(|(address, _)| range.contains(*address));
            if let Some((address, whose)) = taken {
                let what = format!("{range} holds {address}, {whose}; it won't be given out");
                log.warning(item.section.place("addresses"), "pool.addresses", what);
            }
        }
    }
}

/// Addresses that no frontend may have.
fn taken<'s>(seen: &'s Seen<'_, '_>) -> impl Iterator<Item = (IpAddr, &'static str)> + 's {
    let own = seen.interfaces.iter().flat_map(|item| {
        let own = item.value.addresses.iter().map(|net| (net.addr(), "an interface's address"));
        own.chain(item.value.routes.iter().map(|route| (route.via, "a next hop")))
    });
    let nat = seen.nat.iter().flat_map(|item| item.value.addresses.iter());
    own.chain(nat.map(|address| (*address, "a NAT address")))
}

fn nat(seen: &Seen<'_, '_>, log: &mut Log) {
    let mut known: Vec<(IpAddr, Place)> = Vec::new();
    for item in seen.nat {
        let place = item.section.place("addresses");
        let Some(interface) = seen.interfaces.get(item.value.interface.index()) else { continue };
        let name = &interface.value.name;
        if !interface.value.role.is_back() {
            let what = format!("interface \"{name}\" has the role front: no backend is there");
            log.problem(item.section.place("interface"), "nat.interface", what);
        }
        for address in &item.value.addresses {
            let own = |other: &&Item<'_, Interface>| {
                other.value.addresses.iter().any(|net| net.addr() == *address)
            };
            if let Some(other) = seen.interfaces.iter().find(own) {
                let what = format!(
                    "{address} is the address of interface \"{}\" at {}; a NAT address is no host address",
                    other.value.name,
                    other.section.place("addresses")
                );
                log.problem(place.clone(), "nat.addresses", what);
            } else if !interface.value.addresses.iter().any(|net| net.contains(address)) {
                let what = format!(
                    "{address} is in no prefix of interface \"{name}\"; the backends need a route to it"
                );
                log.warning(place.clone(), "nat.addresses", what);
            }
            if let Some((_, first)) = known.iter().find(|(known, _)| known == address) {
                let what = format!("{address} is already a NAT address at {first}");
                log.problem(place.clone(), "nat.addresses", what);
            }
            known.push((*address, place.clone()));
        }
    }
}

/// Warns of what is allowed but serves nobody.
fn unused(seen: &Seen<'_, '_>, log: &mut Log) {
    for (number, item) in seen.interfaces.iter().enumerate() {
        for family in [Family::V4, Family::V6] {
            let has = |address: IpAddr| Family::of(address) == family;
            let nets = &item.value.addresses;
            let nat = seen.nat.iter().filter(|nat| nat.value.interface.index() == number);
            let nat = nat.flat_map(|nat| &nat.value.addresses).any(|address| has(*address));
            let routable = nets.iter().any(|net| has(net.addr()) && !is_link_local(net));
            if item.value.role == super::Role::Back && routable && !nat {
                let what = format!(
                    "interface \"{}\" has no [[nat]] address of {family}: its {family} backends get no traffic",
                    item.value.name
                );
                log.warning(item.section.place("addresses"), "interface.addresses", what);
            }
        }
    }
    for (number, port) in seen.ports.iter().enumerate() {
        if !seen.interfaces.iter().any(|item| item.value.port.index() == number) {
            let what = format!("no [[interface]] uses port \"{}\"", port.value.name);
            log.warning(port.section.place("name"), "port.name", what);
        }
        if matches!(port.value.device, Device::Pci(_)) && port.value.netns.is_some() {
            let what = "a PCI device has no kernel side; netns is ignored";
            log.warning(port.section.place("netns"), "port.netns", what);
        }
    }
    let Some(eal) = seen.eal else { return };
    let queues =
        |port: &Port| port.rx_queues.map_or(seen.workers.len(), |queues| usize::from(queues.get()));
    let rings = seen
        .ports
        .iter()
        .map(|port| 2 * queues(&port.value) * usize::from(port.value.descriptors.get()));
    let rings: usize = rings.sum();
    if rings > eal.mbufs.get() as usize {
        let what = format!(
            "the queues alone can hold {rings} buffers, there are {}; raise eal.mbufs or lower port.descriptors",
            eal.mbufs
        );
        log.warning(Place::Nowhere, "eal.mbufs", what);
    }
}
