//! Reading `[eal]`, `[[worker]]`, `[[port]]`, `[[interface]]` and `[[nat]]`: the tables that name
//! each other.

use super::problem::{Log, did_you_mean};
use super::read::{self, Section, boolean, from_str, name, number, parsed, sections, text, word};
use super::tree::{Node, Table, Value};
use super::types::{MacAddr, Vlan, host_address, network, unicast};
use super::{Eal, Interface, Nat, Neighbour, Port, Role, Route, Worker};
use ipnet::IpNet;
use model::ids::{InterfaceId, PortId};
use model::limits::{
    INTERFACE_NAME_MAX, INTERFACES_MAX, NAT_ADDRESSES_MAX, PORTS_MAX, STATIC_NEIGHBOURS_MAX,
    WORKERS_MAX,
};
use std::net::IpAddr;

/// Something that was read, with the table that it was read from. Tables that are wrong leave
/// none, so that positions alone don't lead back.
pub(super) struct Item<'a, T> {
    pub(super) section: Section<'a>,
    pub(super) value: T,
}

pub(super) fn eal(root: &Table, log: &mut Log) -> Option<Eal> {
    let section = read::section(root, "eal", log);
    let huge_pages = section.or("huge_pages", true, log, boolean);
    let memory_mib = section.or("memory_mib", 256, log, number(64..=1_048_576));
    let mbufs = section.or("mbufs", 16_384, log, number(1_024..=8_388_608));
    // A buffer of 2,176 bytes, its header and its share of the pool's bookkeeping.
    let needed_mib = u64::from(mbufs?) * 2_432 / (1 << 20) + 1;
    if needed_mib > u64::from(memory_mib?) {
        let what = format!(
            "{} buffers take {needed_mib} MiB, but eal.memory_mib is {}; raise it or use fewer",
            mbufs?, memory_mib?
        );
        log.problem(section.place("mbufs"), "eal.mbufs", what);
        return None;
    }
    Some(Eal {
        huge_pages: huge_pages?,
        memory_mib: memory_mib?.try_into().ok()?,
        mbufs: mbufs?.try_into().ok()?,
    })
}

fn at_most<T>(items: &[Item<'_, T>], most: usize, key: &str, log: &mut Log) {
    if let Some(item) = items.get(most) {
        let what = format!("there are {}, allowed are {most} at most", items.len());
        log.problem(item.section.place(""), key, what);
    }
}

pub(super) fn workers<'a>(root: &'a Table, log: &mut Log) -> Vec<Item<'a, Worker>> {
    let mut workers: Vec<Item<'_, Worker>> = Vec::new();
    let found = sections(root, "worker", log);
    for section in found {
        let Some(core) = section.required("core", log, number::<u32>(0..=1_023)) else { continue };
        if let Some(other) = workers.iter().find(|other| other.value.core == core) {
            let what = format!(
                "core {core} already has a worker at {}; give each a core of its own",
                other.section.place("core")
            );
            log.problem(section.place("core"), "worker.core", what);
        }
        workers.push(Item { section, value: Worker { core } });
    }
    at_most(&workers, WORKERS_MAX, "worker", log);
    workers
}

/// A namespace's name below `/run/netns`, or the path of one.
fn netns(text: &str) -> Result<String, &'static str> {
    let bad =
        text.is_empty() || text.contains('\0') || (text.contains('/') && !text.starts_with('/'));
    if bad {
        Err("expected the name of a network namespace, or its absolute path")
    } else {
        Ok(text.to_owned())
    }
}

pub(super) fn ports<'a>(root: &'a Table, log: &mut Log) -> Vec<Item<'a, Port>> {
    let mut ports = Vec::new();
    let found = sections(root, "port", log);
    for section in found {
        let name = section.required("name", log, name(INTERFACE_NAME_MAX));
        let device = section.required("device", log, from_str);
        let netns = section.optional("netns", log, parsed(netns));
        let rx_queues = section.optional("rx_queues", log, number::<u16>(1..=64));
        let mac = section.optional("mac", log, from_str);
        let descriptors = section.or("descriptors", 1_024, log, number::<u16>(64..=32_768));
        let (Some(name), Some(device), Some(descriptors)) = (name, device, descriptors) else {
            continue;
        };
        let Ok(descriptors) = descriptors.try_into() else { continue };
        let rx_queues = rx_queues.and_then(|queues| queues.try_into().ok());
        let value = Port { name, device, netns, rx_queues, mac, descriptors };
        ports.push(Item { section, value });
    }
    unique(&ports, "name", log, |port| Some(port.name.clone()));
    unique(&ports, "device", log, |port| Some(port.device.name().to_owned()));
    unique(&ports, "mac", log, |port| port.mac.map(|mac| mac.to_string()));
    at_most(&ports, PORTS_MAX, "port", log);
    ports
}

/// Refuses what two tables call the same.
pub(super) fn unique<T>(
    items: &[Item<'_, T>],
    key: &str,
    log: &mut Log,
    named: impl Fn(&T) -> Option<String>,
) {
    for (position, item) in items.iter().enumerate() {
        let Some(name) = named(&item.value) else { continue };
        let earlier = items.iter().take(position);
        let Some(earlier) =
            earlier.clone().find(|other| named(&other.value).as_ref() == Some(&name))
        else {
            continue;
        };
        let what = format!("\"{name}\" is already taken at {}", earlier.section.place(key));
        log.problem(item.section.place(key), &item.section.full(key), what);
    }
}

/// The names that the tables `[[table]]` give themselves, also those of tables that are wrong
/// otherwise: one slip shall not be told twice.
fn names(root: &Table, table: &str) -> Vec<String> {
    let Some(Node { value: Value::List(list), .. }) = root.get(table) else { return Vec::new() };
    let name = |item: &Node| match &item.value {
        Value::Table(table) => {
            table.get("name").and_then(|node| text(node).ok()).map(str::to_owned)
        }
        _ => None,
    };
    list.iter().map(|item| name(item).unwrap_or_default()).collect()
}

/// The position of the table that a key refers to.
fn referred<'k>(known: &'k [String], what: &'k str) -> impl Fn(&Node) -> Result<u8, String> + 'k {
    move |node| {
        let wanted = text(node)?;
        let position = known.iter().position(|name| name == wanted && !name.is_empty());
        if let Some(position) = position.and_then(|position| u8::try_from(position).ok()) {
            return Ok(position);
        }
        let named = known.iter().map(String::as_str).filter(|name| !name.is_empty());
        let near = did_you_mean(wanted, named.clone());
        let near = near.map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"));
        let all = named.collect::<Vec<_>>().join(", ");
        let all = if all.is_empty() { "none".to_owned() } else { all };
        Err(format!("no {what} is called \"{wanted}\"{near} (there are: {all})"))
    }
}

fn own_address(text: &str) -> Result<IpNet, String> {
    let net = network(text)?;
    unicast(net.addr())?;
    if let IpNet::V4(v4) = net
        && v4.prefix_len() < 31
        && (v4.addr() == v4.network() || v4.addr() == v4.broadcast())
    {
        return Err("the network's or broadcast address can't be a host's".to_owned());
    }
    Ok(net)
}

fn route(node: &Node) -> Result<Route, String> {
    const FORM: &str = "expected { to = \"0.0.0.0/0\", via = \"198.18.0.254\" }";
    let Value::Table(table) = &node.value else {
        return Err(format!("{FORM}, found {}", node.value.described()));
    };
    if let Some(key) = table.keys().find(|key| !matches!(key.as_str(), "to" | "via")) {
        return Err(format!("unknown key \"{key}\"; {FORM}"));
    }
    let (Some(to), Some(via)) = (table.get("to"), table.get("via")) else {
        return Err(FORM.to_owned());
    };
    let to: IpNet = parsed(super::types::prefix)(to)?;
    let via: IpAddr = parsed(host_address)(via)?;
    if to.addr().is_ipv4() != via.is_ipv4() {
        return Err(format!("to {to} and via {via} are of two families"));
    }
    Ok(Route { to, via })
}

fn neighbour(node: &Node) -> Result<Neighbour, String> {
    const FORM: &str = "expected { address = \"198.18.0.9\", mac = \"02:00:00:00:00:09\" }";
    let Value::Table(table) = &node.value else {
        return Err(format!("{FORM}, found {}", node.value.described()));
    };
    if let Some(key) = table.keys().find(|key| !matches!(key.as_str(), "address" | "mac")) {
        return Err(format!("unknown key \"{key}\"; {FORM}"));
    }
    let (Some(address), Some(mac)) = (table.get("address"), table.get("mac")) else {
        return Err(FORM.to_owned());
    };
    Ok(Neighbour { address: parsed(host_address)(address)?, mac: from_str::<MacAddr>(mac)? })
}

const ROLES: &[(&str, Role)] =
    &[("front", Role::Front), ("back", Role::Back), ("both", Role::Both)];

pub(super) fn interfaces<'a>(root: &'a Table, log: &mut Log) -> Vec<Item<'a, Interface>> {
    let ports = names(root, "port");
    let mut interfaces = Vec::new();
    let found = sections(root, "interface", log);
    for section in found {
        let before = log.problems.len();
        let name = section.required("name", log, name(INTERFACE_NAME_MAX));
        let port = section.required("port", log, referred(&ports, "[[port]]"));
        let vlan = section.optional("vlan", log, number::<u16>(1..=4_094));
        let addresses = section.full_list("addresses", log, parsed(own_address));
        let mtu = section.or("mtu", 1_500, log, number::<u16>(1_280..=9_216));
        let role = section.or("role", Role::Both, log, word(ROLES));
        let routes = section.list("routes", log, route);
        let neighbours = section.list("neighbours", log, neighbour);
        if neighbours.len() > STATIC_NEIGHBOURS_MAX {
            let what = format!(
                "there are {}, allowed are {STATIC_NEIGHBOURS_MAX} at most",
                neighbours.len()
            );
            log.problem(section.place("neighbours"), "interface.neighbours", what);
        }
        let host_name = host_name(&section, name.as_deref(), log);
        if log.problems.len() > before {
            continue;
        }
        let (Some(name), Some(port), Some(mtu), Some(role), Some(host_name)) =
            (name, port, mtu, role, host_name)
        else {
            continue;
        };
        let vlan = vlan.and_then(Vlan::new);
        let port = PortId(port);
        let value =
            Interface { name, port, vlan, addresses, mtu, role, routes, neighbours, host_name };
        interfaces.push(Item { section, value });
    }
    unique(&interfaces, "name", log, |interface| Some(interface.name.clone()));
    unique(&interfaces, "host_name", log, |interface| Some(interface.host_name.clone()));
    at_most(&interfaces, INTERFACES_MAX, "interface", log);
    interfaces
}

fn host_name(section: &Section<'_>, name: Option<&str>, log: &mut Log) -> Option<String> {
    let given = section.optional("host_name", log, read::name(INTERFACE_NAME_MAX));
    if given.is_some() || section.has("host_name") {
        return given;
    }
    let made = format!("hg-{}", name?);
    if made.len() <= INTERFACE_NAME_MAX {
        return Some(made);
    }
    let what = format!(
        "\"{made}\", the name of its twin on the host, is longer than {INTERFACE_NAME_MAX}; set host_name"
    );
    log.problem(section.place("name"), "interface.name", what);
    None
}

pub(super) fn nat<'a>(root: &'a Table, log: &mut Log) -> Vec<Item<'a, Nat>> {
    let interfaces = names(root, "interface");
    let mut all = Vec::new();
    let found = sections(root, "nat", log);
    for section in found {
        let interface = section.required("interface", log, referred(&interfaces, "[[interface]]"));
        let addresses = section.full_list("addresses", log, parsed(host_address));
        if let Some(interface) = interface {
            let value = Nat { interface: InterfaceId(interface), addresses };
            all.push(Item { section, value });
        }
    }
    let count: usize = all.iter().map(|item| item.value.addresses.len()).sum();
    if let (true, Some(last)) = (count > NAT_ADDRESSES_MAX, all.last()) {
        let what = format!("there are {count}, allowed are {NAT_ADDRESSES_MAX} at most");
        log.problem(last.section.place("addresses"), "nat.addresses", what);
    }
    all
}
