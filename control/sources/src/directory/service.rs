//! What the API server does to a Service: defaults, then validation.

use super::Options;
use super::tree::Node;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{
    ClientIPConfig, Service, ServicePort, ServiceSpec, SessionAffinityConfig,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::HashSet;
use std::net::IpAddr;

/// Seconds after which a client is forgotten unless given.
const AFFINITY_TIMEOUT_S: i32 = 10_800;
/// The longest such time, a day.
const AFFINITY_TIMEOUT_S_MAX: i32 = 86_400;
/// What is wrong with one Service that is told in one message.
const FAULTS_MAX: usize = 4;

/// Fills in what isn't given. `ipFamilies` and `ipFamilyPolicy` depend on the pools and are left
/// to who knows those.
pub(super) fn complete(service: &mut Service) {
    let spec = service.spec.get_or_insert_default();
    let kind = spec.type_.get_or_insert_with(|| "ClusterIP".to_owned()).clone();
    for port in spec.ports.iter_mut().flatten() {
        complete_port(port);
    }
    let affinity = spec.session_affinity.get_or_insert_with(|| "None".to_owned());
    if affinity == "ClientIP" {
        let config =
            spec.session_affinity_config.get_or_insert_with(SessionAffinityConfig::default);
        let client = config.client_ip.get_or_insert_with(ClientIPConfig::default);
        client.timeout_seconds.get_or_insert(AFFINITY_TIMEOUT_S);
    }
    if kind == "ExternalName" {
        return;
    }
    spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".to_owned());
    let outside = kind == "NodePort" || kind == "LoadBalancer";
    if outside || spec.external_ips.as_ref().is_some_and(|all| !all.is_empty()) {
        spec.external_traffic_policy.get_or_insert_with(|| "Cluster".to_owned());
    }
    if kind == "LoadBalancer" {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
}

fn complete_port(port: &mut ServicePort) {
    port.protocol.get_or_insert_with(|| "TCP".to_owned());
    let unset = match &port.target_port {
        None | Some(IntOrString::Int(0)) => true,
        Some(IntOrString::String(name)) => name.is_empty(),
        Some(IntOrString::Int(_)) => false,
    };
    if unset {
        port.target_port = Some(IntOrString::Int(port.port));
    }
}

/// What is wrong, each with the path of the field.
#[derive(Default)]
struct Faults {
    list: Vec<(String, String)>,
}

impl Faults {
    fn add(&mut self, path: impl Into<String>, what: impl Into<String>) {
        if self.list.len() < FAULTS_MAX {
            self.list.push((path.into(), what.into()));
        }
    }

    fn one_of(&mut self, path: &str, given: Option<&str>, known: &[&str]) {
        let Some(given) = given else { return };
        if !known.contains(&given) {
            let what = format!("\"{}\" is none of {}", shown(given), known.join(", "));
            self.add(path, what);
        }
    }
}

/// A text from a manifest, cut to what a message has room for.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Refuses what the API server refuses. The error is a line and what is wrong.
pub(super) fn check(
    service: &Service,
    node: &Node,
    options: &Options,
) -> Result<(), (u32, String)> {
    let absent = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&absent);
    let mut faults = Faults::default();
    check_words(spec, &mut faults);
    check_ports(spec, options, &mut faults);
    check_addresses(spec, &mut faults);
    check_affinity(spec, &mut faults);
    let Some((path, _)) = faults.list.first() else { return Ok(()) };
    let line = node.line_of(path);
    let told: Vec<_> = faults.list.iter().map(|(path, what)| format!("{path}: {what}")).collect();
    Err((line, told.join("; ")))
}

fn check_words(spec: &ServiceSpec, faults: &mut Faults) {
    let kind = spec.type_.as_deref().unwrap_or_default();
    let kinds = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
    faults.one_of("spec.type", Some(kind), &kinds);
    let policies = ["Cluster", "Local"];
    let external = spec.external_traffic_policy.as_deref();
    faults.one_of("spec.externalTrafficPolicy", external, &policies);
    let internal = spec.internal_traffic_policy.as_deref();
    faults.one_of("spec.internalTrafficPolicy", internal, &policies);
    let families = ["SingleStack", "PreferDualStack", "RequireDualStack"];
    faults.one_of("spec.ipFamilyPolicy", spec.ip_family_policy.as_deref(), &families);
    let mut seen = HashSet::new();
    for (place, family) in spec.ip_families.iter().flatten().enumerate().take(16) {
        let path = format!("spec.ipFamilies.{place}");
        faults.one_of(&path, Some(family), &["IPv4", "IPv6"]);
        if !seen.insert(family) {
            faults.add(path, format!("\"{}\" is there twice", shown(family)));
        }
    }
    if kind == "ExternalName" && spec.external_name.as_deref().unwrap_or_default().is_empty() {
        faults.add("spec.externalName", "a Service of type ExternalName needs one");
    }
    let ranges = spec.load_balancer_source_ranges.as_ref();
    if ranges.is_some_and(|all| !all.is_empty()) && kind != "LoadBalancer" {
        let what = "only a Service of type LoadBalancer may have them";
        faults.add("spec.loadBalancerSourceRanges", what);
    }
    let outside = kind == "NodePort" || kind == "LoadBalancer";
    let outside = outside || spec.external_ips.as_ref().is_some_and(|all| !all.is_empty());
    if external.is_some() && !outside {
        let what = "only a Service that is reached from outside of the cluster may have it";
        faults.add("spec.externalTrafficPolicy", what);
    }
    if spec.load_balancer_class.is_some() && kind != "LoadBalancer" {
        faults.add("spec.loadBalancerClass", "only a Service of type LoadBalancer may have it");
    }
}

fn check_ports(spec: &ServiceSpec, options: &Options, faults: &mut Faults) {
    let kind = spec.type_.as_deref().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && kind != "ExternalName" && spec.cluster_ip.as_deref() != Some("None") {
        faults.add("spec.ports", "a Service needs at least one port");
    }
    let (mut names, mut numbers, mut node_ports) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (place, port) in ports.iter().enumerate() {
        let path = format!("spec.ports.{place}");
        check_port(port, &path, ports.len() > 1, faults);
        check_node_port(port, &path, kind, options, faults);
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() && !names.insert(name) {
            faults.add(format!("{path}.name"), format!("\"{}\" is there twice", shown(name)));
        }
        if !numbers.insert((port.port, protocol)) {
            let what = format!("{}/{} is there twice", port.port, shown(protocol));
            faults.add(format!("{path}.port"), what);
        }
        let node_port = port.node_port.unwrap_or(0);
        if node_port != 0 && !node_ports.insert((node_port, protocol)) {
            let what = format!("{node_port}/{} is there twice", shown(protocol));
            faults.add(format!("{path}.nodePort"), what);
        }
    }
}

fn check_port(port: &ServicePort, path: &str, several: bool, faults: &mut Faults) {
    let name = port.name.as_deref().unwrap_or_default();
    if name.is_empty() && several {
        faults.add(format!("{path}.name"), "needed where a Service has several ports");
    } else if !name.is_empty() && !is_label(name) {
        let what = format!("\"{}\": expected lower-case letters, digits and '-'", shown(name));
        faults.add(format!("{path}.name"), what);
    }
    faults.one_of(&format!("{path}.protocol"), port.protocol.as_deref(), &["TCP", "UDP", "SCTP"]);
    if !is_port(port.port) {
        let what = format!("{} is not a port: expected 1 to 65535", port.port);
        faults.add(format!("{path}.port"), what);
    }
    match &port.target_port {
        Some(IntOrString::Int(number)) if !is_port(*number) && *number != port.port => {
            let what = format!("{number} is not a port: expected 1 to 65535");
            faults.add(format!("{path}.targetPort"), what);
        }
        Some(IntOrString::String(name)) if !is_port_name(name) => {
            let what = format!("\"{}\" is neither a port nor a port's name", shown(name));
            faults.add(format!("{path}.targetPort"), what);
        }
        _ => {}
    }
}

fn check_node_port(
    port: &ServicePort,
    path: &str,
    kind: &str,
    options: &Options,
    faults: &mut Faults,
) {
    let path = format!("{path}.nodePort");
    let Some(number) = port.node_port.filter(|&number| number != 0) else { return };
    let (first, last) = (options.node_port_first, options.node_port_last);
    if kind == "ClusterIP" {
        faults.add(path, "a Service of type ClusterIP can't have one");
    } else if u16::try_from(number).is_ok_and(|number| (first..=last).contains(&number)) {
        // As it should be.
    } else {
        faults.add(path, format!("{number} is out of range: expected {first} to {last}"));
    }
}

fn check_addresses(spec: &ServiceSpec, faults: &mut Faults) {
    for (place, text) in spec.external_ips.iter().flatten().enumerate() {
        let path = format!("spec.externalIPs.{place}");
        match text.parse::<IpAddr>() {
            Err(_) => faults.add(path, format!("\"{}\" is not an IP address", shown(text))),
            Ok(address) => {
                if let Some(what) = special(address) {
                    faults.add(path, format!("{address} is {what} address"));
                }
            }
        }
    }
    let cluster = spec.cluster_ip.iter().map(|text| ("spec.clusterIP".to_owned(), text));
    let several = spec.cluster_ips.iter().flatten().enumerate();
    let several = several.map(|(place, text)| (format!("spec.clusterIPs.{place}"), text));
    for (path, text) in cluster.chain(several) {
        if !matches!(text.as_str(), "" | "None") && text.parse::<IpAddr>().is_err() {
            faults.add(path, format!("\"{}\" is neither an IP address nor None", shown(text)));
        }
    }
    if spec.type_.as_deref() == Some("LoadBalancer") {
        for (place, text) in spec.load_balancer_source_ranges.iter().flatten().enumerate() {
            if text.trim().parse::<IpNet>().is_err() {
                let path = format!("spec.loadBalancerSourceRanges.{place}");
                faults.add(path, format!("\"{}\" is not a prefix as 192.0.2.0/24", shown(text)));
            }
        }
    }
}

fn check_affinity(spec: &ServiceSpec, faults: &mut Faults) {
    let affinity = spec.session_affinity.as_deref();
    faults.one_of("spec.sessionAffinity", affinity, &["None", "ClientIP"]);
    let client = spec.session_affinity_config.as_ref().and_then(|all| all.client_ip.as_ref());
    let Some(seconds) = client.and_then(|client| client.timeout_seconds) else { return };
    if affinity == Some("ClientIP") && !(1..=AFFINITY_TIMEOUT_S_MAX).contains(&seconds) {
        let path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        faults.add(path, format!("{seconds} s: expected 1 to {AFFINITY_TIMEOUT_S_MAX}"));
    }
}

/// What the API server calls an address that no Service can have from outside.
fn special(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    match address {
        _ if address.is_unspecified() => Some("the unspecified"),
        _ if address.is_loopback() => Some("a loopback"),
        _ if link_local => Some("a link-local"),
        _ if address.is_multicast() => Some("a multicast"),
        _ => None,
    }
}

fn is_port(number: i32) -> bool {
    (1..=65_535).contains(&number)
}

/// A label as RFC 1123 has it.
pub(super) fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A port's name as IANA has it (RFC 6335, 5.1).
fn is_port_name(text: &str) -> bool {
    text.len() <= 15
        && is_label(text)
        && !text.contains("--")
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
}
