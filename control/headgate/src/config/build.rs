//! Reading the remaining tables, and putting the configuration together.

use super::announce::announce;
use super::forwarding::forwarding;
use super::problem::{Log, Place};
use super::read::{
    self, Section, boolean, directory, from_str, name, number, parsed, section, sections, within,
    word,
};
use super::tree::{Node, Table};
use super::types::{Idle, Rate, SelectionKey, host_address, prefix};
use super::{
    Admin, Aliases, Answers, Config, Connections, Host, NodePort, Pool, Service, Timeouts, cross,
    devices, keys, kubernetes,
};
use devices::Item;
use model::desired::Refusal;
use model::limits::{
    CONNECTIONS_PER_WORKER_MAX, NEW_CONNECTIONS_PER_SECOND, PATH_MTU_MIN, ROUTING_PEERS_MAX,
};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use translate::Scheme;

/// Makes the configuration, or notes everything that is in its way.
pub(super) fn config(root: &Table, log: &mut Log) -> Option<Config> {
    let eal = devices::eal(root, log);
    let workers = devices::workers(root, log);
    let ports = devices::ports(root, log);
    let interfaces = devices::interfaces(root, log);
    let nat = devices::nat(root, log);
    let pools = pools(root, log);
    let at_least_one = [
        ("worker", "[[worker]] with its core"),
        ("port", "[[port]] with its device"),
        ("interface", "[[interface]] with its port and addresses"),
    ];
    for (table, what) in at_least_one {
        if !root.contains_key(table) {
            log.problem(Place::Nowhere, table, format!("is missing; expected at least one {what}"));
        }
    }
    let node_port = node_port(root, log);
    let external_ips = section(root, "external_ips", log).list("ranges", log, parsed(prefix));
    let backend = section(root, "backend", log);
    let backend_ranges = backend.list("ranges", log, parsed(prefix));
    let backend_ranges = backend.has("ranges").then_some(backend_ranges);
    let announce = announce(root, log);
    let source = kubernetes::source(root, log);
    let aliases = aliases(root, log);
    let service_section = section(root, "service", log);
    let service = service(&service_section, root, log);
    let forwarding = forwarding(root, &service_section, log);
    let connections = connections(root, log);
    let timeouts = timeouts(root, log);
    let answers = answers(root, log);
    let host = host(root, log);
    let modes = [("backoff", Idle::Backoff), ("spin", Idle::Spin)];
    let idle = section(root, "idle", log).or("mode", Idle::Backoff, log, word(&modes));
    let admin = admin(root, log);
    let state_dir = directory(root, "state", "/var/lib/headgate", log);
    let gateway = section(root, "gateway", log);
    let selection_key = gateway.optional("selection_key", log, from_str::<SelectionKey>);
    let (node_port, node_port_section) = node_port;
    let seen = cross::Seen {
        workers: &workers,
        ports: &ports,
        interfaces: &interfaces,
        nat: &nat,
        pools: &pools,
        eal,
        node_port: node_port.as_ref(),
        node_port_section: &node_port_section,
    };
    cross::check(&seen, root, log);
    if !log.problems.is_empty() {
        return None;
    }
    Some(Config {
        eal: eal?,
        workers: values(workers),
        ports: values(ports),
        interfaces: values(interfaces),
        nat: values(nat),
        pools: values(pools),
        node_port: node_port?,
        external_ips,
        backend_ranges,
        announce: announce?,
        source: source?,
        service: service?,
        aliases: aliases?,
        forwarding: forwarding?,
        connections: connections?,
        timeouts: timeouts?,
        answers: answers?,
        host: host?,
        idle: idle?,
        admin: admin?,
        selection_key,
        state_dir: state_dir?,
    })
}

fn values<T>(items: Vec<Item<'_, T>>) -> Vec<T> {
    items.into_iter().map(|item| item.value).collect()
}

fn pools<'a>(root: &'a Table, log: &mut Log) -> Vec<Item<'a, Pool>> {
    let mut pools = Vec::new();
    let found = sections(root, "pool", log);
    for section in found {
        let name = section.required("name", log, name(63));
        let addresses = section.full_list("addresses", log, from_str);
        if let Some(value) = pool(&section, name, addresses, log) {
            pools.push(Item { section, value });
        }
    }
    devices::unique(&pools, "name", log, |pool| Some(pool.name.to_string()));
    pools
}

fn pool(
    section: &Section<'_>,
    name: Option<String>,
    addresses: Vec<super::AddressRange>,
    log: &mut Log,
) -> Option<Pool> {
    let priority = section.or("priority", 100, log, number::<u16>(0..=65_535));
    let auto_assign = section.or("auto_assign", true, log, boolean);
    let avoid = section.or("avoid_buggy_addresses", false, log, boolean);
    let namespaces = section.list("namespaces", log, super::read::name(63));
    let namespace_selector = section.optional("namespace_selector", log, from_str_plain);
    let service_selector = section.optional("service_selector", log, from_str_plain);
    let schemes = [("internal", Scheme::Internal), ("internet-facing", Scheme::InternetFacing)];
    let scheme = section.optional("scheme", log, word(&schemes));
    let refusals = [("reject", Refusal::Reject), ("drop", Refusal::Drop)];
    let refusal = section.or("refusal", Refusal::Reject, log, word(&refusals));
    Some(Pool {
        name: name?.into(),
        addresses,
        priority: priority?,
        auto_assign: auto_assign?,
        avoid_buggy_addresses: avoid?,
        namespaces: namespaces.into_iter().map(Into::into).collect(),
        namespace_selector,
        service_selector,
        scheme,
        refusal: refusal?,
    })
}

fn node_port<'a>(root: &'a Table, log: &mut Log) -> (Option<NodePort>, Section<'a>) {
    let section = section(root, "node_port", log);
    let addresses = section.list("addresses", log, parsed(host_address));
    let range = section.optional("range", log, from_str);
    let range = if section.has("range") { range } else { "30000-32767".parse().ok() };
    (range.map(|range| NodePort { addresses, range }), section)
}

fn service(section: &Section<'_>, root: &Table, log: &mut Log) -> Option<Service> {
    let class = |text: &str| {
        let good = text.split('/').count() <= 2 && text.split('/').all(|part| !part.is_empty());
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        if good && text.chars().all(plain) {
            Ok(Arc::from(text))
        } else {
            Err("expected DOMAIN/NAME")
        }
    };
    let ours = Arc::from("headgate.dev/gateway");
    let load_balancer_class = section.or("load_balancer_class", ours, log, parsed(class));
    // In a cluster there may be another controller that serves those.
    let alone = !root.contains_key("kubernetes");
    let default_class = section.or("default_class", alone, log, boolean);
    Some(Service { load_balancer_class: load_balancer_class?, default_class: default_class? })
}

fn aliases(root: &Table, log: &mut Log) -> Option<Aliases> {
    let section = section(root, "aliases", log);
    let metallb = section.or("metallb", false, log, boolean);
    let aws = section.or("aws", false, log, boolean);
    Some(Aliases { metallb: metallb?, aws: aws? })
}

fn connections(root: &Table, log: &mut Log) -> Option<Connections> {
    let section = section(root, "connections", log);
    let most = CONNECTIONS_PER_WORKER_MAX as u64;
    let places = |key, default, most, log: &mut Log| {
        let places = section.or(key, default, log, number::<u32>(1_024..=most));
        places.and_then(NonZeroU32::new)
    };
    let ipv4 = places("ipv4", 262_144, most, log);
    let ipv6 = places("ipv6", 65_536, most / 2, log);
    let new = rate(&section, "new", NEW_CONNECTIONS_PER_SECOND, log);
    let path_mtu_min = section.or("path_mtu_min", PATH_MTU_MIN, log, number::<u16>(68..=9_216));
    Some(Connections { ipv4: ipv4?, ipv6: ipv6?, new: new?, path_mtu_min: path_mtu_min? })
}

fn timeouts(root: &Table, log: &mut Log) -> Option<Timeouts> {
    let section = section(root, "timeouts", log);
    let mut get = |key, seconds, least, most| {
        section.or(key, Duration::from_secs(seconds), log, within(least, most))
    };
    let tcp_syn_sent = get("tcp_syn_sent", 30, "1s", "10m");
    let tcp_syn_received = get("tcp_syn_received", 60, "1s", "10m");
    let tcp_established = get("tcp_established", 86_400, "10s", "7d");
    let tcp_fin_wait = get("tcp_fin_wait", 120, "1s", "1h");
    let tcp_close_wait = get("tcp_close_wait", 3_600, "1s", "1d");
    let tcp_time_wait = get("tcp_time_wait", 70, "1s", "10m");
    let tcp_closed = get("tcp_closed", 10, "1s", "10m");
    let udp = get("udp", 30, "1s", "10m");
    let udp_stream = get("udp_stream", 300, "1s", "1d");
    Some(Timeouts {
        tcp_syn_sent: tcp_syn_sent?,
        tcp_syn_received: tcp_syn_received?,
        tcp_established: tcp_established?,
        tcp_fin_wait: tcp_fin_wait?,
        tcp_close_wait: tcp_close_wait?,
        tcp_time_wait: tcp_time_wait?,
        tcp_closed: tcp_closed?,
        udp: udp?,
        udp_stream: udp_stream?,
    })
}

/// A token bucket: where nobody says otherwise it holds a tenth of a second's worth, and at least
/// one receive burst.
fn rate(section: &Section<'_>, what: &str, default: u32, log: &mut Log) -> Option<Rate> {
    const ALLOWED: RangeInclusive<u64> = 1..=100_000_000;
    let per_second =
        section.or(&format!("{what}_per_second"), default, log, number::<u32>(ALLOWED));
    let tenth = (per_second.unwrap_or(default) / 10).max(32);
    let burst = section.or(&format!("{what}_burst"), tenth, log, number::<u32>(ALLOWED));
    Some(Rate { per_second: per_second?.try_into().ok()?, burst: burst?.try_into().ok()? })
}

fn answers(root: &Table, log: &mut Log) -> Option<Answers> {
    let section = section(root, "answers", log);
    let refusals = rate(&section, "refusals", 10_000, log);
    let time_exceeded = rate(&section, "time_exceeded", 1_000, log);
    let too_big = rate(&section, "too_big", 1_000, log);
    let echo = rate(&section, "echo", 10_000, log);
    let neighbour = rate(&section, "neighbour", 10_000, log);
    let challenges = rate(&section, "challenges", 10_000, log);
    Some(Answers {
        refusals: refusals?,
        time_exceeded: time_exceeded?,
        too_big: too_big?,
        echo: echo?,
        neighbour: neighbour?,
        challenges: challenges?,
    })
}

fn host(root: &Table, log: &mut Log) -> Option<Host> {
    let section = section(root, "host", log);
    let arp_nd = rate(&section, "arp_nd", 2_000, log);
    let routing = rate(&section, "routing", 10_000, log);
    let peers = section.list("peers", log, parsed(host_address));
    if peers.len() > ROUTING_PEERS_MAX {
        let what = format!("{} peers; allowed are {ROUTING_PEERS_MAX}", peers.len());
        log.problem(section.place("peers"), "host.peers", what);
    }
    let begun = rate(&section, "begun", 20_000, log);
    let other = rate(&section, "other", 20_000, log);
    Some(Host { arp_nd: arp_nd?, routing: routing?, peers, begun: begun?, other: other? })
}

fn admin(root: &Table, log: &mut Log) -> Option<Admin> {
    let section = section(root, "admin", log);
    let default = PathBuf::from(keys::SOCKET_DEFAULT);
    let socket = section.or("socket", default, log, |node| {
        let path = read::path(node)?;
        // sun_path of unix(7) has 108 bytes, the last one NUL.
        if path.as_os_str().len() > 107 {
            return Err("expected a path of at most 107 bytes, as sockets have".to_owned());
        }
        Ok(path)
    });
    let metrics = section.optional("metrics", log, from_str_plain);
    Some(Admin { socket: socket?, metrics })
}

/// As [`from_str`], for an error that already quotes the text.
fn from_str_plain<T: std::str::FromStr<Err: std::fmt::Display>>(node: &Node) -> Result<T, String> {
    read::text(node)?.parse().map_err(|error: T::Err| error.to_string())
}
