//! From the configuration to what each part is made from.

use super::selection::Started;
use crate::config::{self, Config};
use engine::mirror::{AnnounceConfig, StaticNeighbour, StaticRoute};
use engine::{
    Device, DeviceString, DeviceStringError, EalOptions, EngineConfig, InterfaceSpec, PortSpec,
};
use pipeline::Options;
use pipeline::adjacency::{Mac, Role};
use pipeline::answer::{Class, Rate, Rates};
use pipeline::connections::Timeouts;
use pipeline::steer::NatAddress;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use translate::{
    AddressRange, ForwardingSettings, NodePortSettings, Pool, Settings, SettingsError, Wishes,
};

/// Cores that no worker has, of those that this process may use. Empty where workers have all.
pub fn spare_cores(config: &Config) -> Vec<usize> {
    let Ok(allowed) = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)) else {
        return Vec::new();
    };
    let taken = |core: usize| config.workers.iter().any(|worker| worker.core as usize == core);
    (0..nix::sched::CpuSet::count())
        .filter(|core| allowed.is_set(*core).unwrap_or(false) && !taken(*core))
        .collect()
}

/// What DPDK is given.
pub fn eal(config: &Config, spare: &[usize]) -> EalOptions {
    let first_worker = config.workers.first().map_or(0, |worker| worker.core);
    EalOptions {
        huge_pages: config.eal.huge_pages,
        memory_mib: config.eal.memory_mib.get(),
        program: "headgate".to_owned(),
        cpu: spare.first().map_or(first_worker, |core| *core as u32),
        pci: config.ports.iter().any(|port| matches!(port.device, config::Device::Pci(_))),
        ..EalOptions::default()
    }
}

/// What the engine is made from.
pub fn engine(
    config: &Config,
    started: &Started,
    spare: Vec<usize>,
) -> Result<EngineConfig, DeviceStringError> {
    let nat = config.nat.iter().flat_map(|nat| {
        nat.addresses
            .iter()
            .map(|address| NatAddress { interface: nat.interface, address: *address })
    });
    Ok(EngineConfig {
        cores: config.workers.iter().map(|worker| worker.core).collect(),
        ports: config.ports.iter().map(port).collect::<Result<_, _>>()?,
        interfaces: config.interfaces.iter().map(interface).collect(),
        nat: nat.collect(),
        pipeline: options(config, started.keys.selection),
        secret: started.secret,
        toeplitz: started.keys.toeplitz,
        idle: match config.idle {
            config::Idle::Backoff => engine::Idle::Backoff,
            config::Idle::Spin => engine::Idle::Spin,
        },
        mbufs: config.eal.mbufs.get(),
        huge_pages: config.eal.huge_pages,
        mirror: true,
        announce: announce(&config.announce),
        mirror_cores: spare,
    })
}

fn announce(announce: &config::Announce) -> AnnounceConfig {
    use engine::mirror::GatewayName;
    let name = |name: &config::GatewayName| match name {
        config::GatewayName::Mac(mac) => GatewayName::Mac(Mac(mac.bytes())),
        config::GatewayName::Address(address) => GatewayName::Address(*address),
    };
    AnnounceConfig {
        period: announce.period,
        gateways: announce.gateways.iter().map(name).collect(),
    }
}

fn port(port: &config::Port) -> Result<PortSpec, DeviceStringError> {
    Ok(PortSpec {
        name: port.name.as_str().into(),
        device: Device::Named {
            device: port.device.as_str().parse::<DeviceString>()?,
            netns: port.netns.clone(),
        },
        rx_queues: port.rx_queues.map(|queues| queues.get()),
        mac: port.mac.map(|mac| Mac(mac.bytes())),
        descriptors: port.descriptors.get(),
    })
}

fn interface(interface: &config::Interface) -> InterfaceSpec {
    InterfaceSpec {
        name: interface.host_name.as_str().into(),
        port: interface.port,
        vlan: interface.vlan.map(config::Vlan::get),
        mtu: interface.mtu,
        role: match interface.role {
            config::Role::Front => Role::Front,
            config::Role::Back => Role::Back,
            config::Role::Both => Role::Both,
        },
        addresses: interface.addresses.clone(),
        routes: interface
            .routes
            .iter()
            .map(|route| StaticRoute { to: route.to, via: route.via })
            .collect(),
        neighbours: interface
            .neighbours
            .iter()
            .map(|known| StaticNeighbour { address: known.address, mac: Mac(known.mac.bytes()) })
            .collect(),
    }
}

fn options(config: &Config, selection_key: u64) -> Options {
    let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX >> 1);
    let number = |n: NonZeroU32| n.get() as usize;
    let timeouts = &config.timeouts;
    let rate =
        |rate: config::Rate| Rate { per_second: rate.per_second.get(), burst: rate.burst.get() };
    let rates = Rates::default()
        .with(Class::Refusal, rate(config.answers.refusals))
        .with(Class::Reset, rate(config.answers.refusals))
        .with(Class::TimeExceeded, rate(config.answers.time_exceeded))
        .with(Class::TooBig, rate(config.answers.too_big))
        .with(Class::Echo, rate(config.answers.echo))
        .with(Class::Neighbour, rate(config.answers.neighbour))
        .with(Class::HostNeighbour, rate(config.host.arp_nd))
        .with(Class::Challenge, rate(config.answers.challenges))
        .with(Class::Doubt, rate(config.answers.challenges))
        .with(Class::HostRouting, rate(config.host.routing))
        .with(Class::HostPeer, rate(config.host.routing))
        .with(Class::HostBegun, rate(config.host.begun))
        .with(Class::HostOther, rate(config.host.other));
    Options {
        connections: [number(config.connections.ipv4), number(config.connections.ipv6)],
        timeouts: Timeouts {
            tcp_syn_sent_ms: ms(timeouts.tcp_syn_sent),
            tcp_syn_received_ms: ms(timeouts.tcp_syn_received),
            tcp_established_ms: ms(timeouts.tcp_established),
            tcp_fin_wait_ms: ms(timeouts.tcp_fin_wait),
            tcp_close_wait_ms: ms(timeouts.tcp_close_wait),
            tcp_time_wait_ms: ms(timeouts.tcp_time_wait),
            tcp_closed_ms: ms(timeouts.tcp_closed),
            udp_ms: ms(timeouts.udp),
            udp_stream_ms: ms(timeouts.udp_stream),
        },
        new_connections: rate(config.connections.new),
        path_mtu_min: config.connections.path_mtu_min,
        rates,
        peers: config.host.peers.clone().into(),
        selection_key,
        ..Options::default()
    }
}

/// What `translate` may serve, and where. `servers` are addresses of the source itself.
pub fn settings(config: &Config, servers: Vec<IpAddr>) -> Result<Settings, SettingsError> {
    let range = |range: &config::AddressRange| AddressRange::new(range.first(), range.last());
    Settings::new(Wishes {
        pools: config
            .pools
            .iter()
            .map(|pool| Pool {
                name: Arc::clone(&pool.name),
                ranges: pool.addresses.iter().filter_map(range).collect(),
                priority: pool.priority,
                auto_assign: pool.auto_assign,
                avoid_buggy_addresses: pool.avoid_buggy_addresses,
                namespaces: pool.namespaces.clone(),
                namespace_selector: pool.namespace_selector.clone(),
                service_selector: pool.service_selector.clone(),
                scheme: pool.scheme,
                refusal: pool.refusal,
            })
            .collect(),
        node_port: NodePortSettings {
            addresses: config.node_port.addresses.clone(),
            first: config.node_port.range.first(),
            last: config.node_port.range.last(),
            // An API server does so itself.
            allocate: matches!(config.source, config::Source::Directory(_)),
        },
        external_ip_ranges: config.external_ips.clone(),
        own_addresses: config.own_addresses().chain(config.nat_addresses()).collect(),
        next_hops: config
            .interfaces
            .iter()
            .flat_map(|interface| interface.routes.iter().map(|route| route.via))
            .collect(),
        backend_ranges: config.backend_ranges.clone().unwrap_or_default(),
        load_balancer_class: config.service.load_balancer_class.to_string(),
        default_class: config.service.default_class,
        metallb: config.aliases.metallb,
        aws: config.aliases.aws,
        authority: match &config.source {
            config::Source::Directory(_) => translate::Authority::Local,
            config::Source::Kubernetes(_) => translate::Authority::ApiServer,
        },
        finalizer: matches!(&config.source, config::Source::Kubernetes(one) if one.finalizer),
        forwarding: ForwardingSettings { api_servers: servers, ..config.forwarding.clone() },
    })
}

/// Huge pages in words: `128 x 2 MiB`.
pub fn huge_pages(memory_mib: u32) -> String {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let size_kib = text
        .lines()
        .find_map(|line| line.strip_prefix("Hugepagesize:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<u32>().ok())
        .filter(|size| *size > 0)
        .unwrap_or(2048);
    format!("{} x {} MiB", (memory_mib * 1024).div_ceil(size_kib), size_kib / 1024)
}
