//! How Services are forwarded that don't say it themselves: keys of `[service]`, `[cluster_ip]`,
//! `[topology]` and `[probe]`.

use super::problem::Log;
use super::read::{Section, boolean, number, parsed, section, word};
use super::tree::{Node, Table};
use super::types::duration;
use model::desired::{ObjectName, Target};
use std::time::Duration;
use translate::probes::Cadence;
use translate::{ForwardingSettings, NodeProbe};

/// Reads them. `service` is the section of that name.
pub(super) fn forwarding(
    root: &Table,
    service: &Section<'_>,
    log: &mut Log,
) -> Option<ForwardingSettings> {
    let targets = [("endpoint", Target::Endpoint), ("node", Target::Node)];
    let target = service.or("target", Target::Endpoint, log, word(&targets));
    let proxy_name = service.optional("proxy_name", log, parsed(label));
    let reset_after_s = service.or("reset_after", None, log, parsed(reset_after));
    let cluster_ip = section(root, "cluster_ip", log);
    let cluster_ips = cluster_ip.or("serve", false, log, boolean);
    let cluster_ips_of = cluster_ip.list("services", log, parsed(object_name));
    let topology = section(root, "topology", log);
    let zone = topology.optional("zone", log, parsed(label));
    let node_name = topology.optional("node_name", log, parsed(node));
    let probe = section(root, "probe", log);
    let node_probes = [
        ("healthz", NodeProbe::Healthz),
        ("health-check-node-port", NodeProbe::HealthCheckNodePort),
        ("none", NodeProbe::Off),
    ];
    let node_probe = probe.or("node", NodeProbe::Healthz, log, word(&node_probes));
    let unknown_nodes = probe.or("unknown_nodes", true, log, boolean);
    let cadence = cadence(&probe, log);
    Some(ForwardingSettings {
        target: target?,
        cluster_ips: cluster_ips?,
        cluster_ips_of,
        proxy_name,
        zone,
        node_name,
        reset_after_s: reset_after_s?,
        api_servers: Vec::new(),
        node_probe: node_probe?,
        ignore_unknown_nodes: !unknown_nodes?,
        cadence: cadence?,
    })
}

fn cadence(probe: &Section<'_>, log: &mut Log) -> Option<Cadence> {
    let default = Cadence::default();
    let interval_ms = probe.or("interval", default.interval_ms, log, time_ms("1h", 3_600_000));
    let timeout_ms = probe.or("timeout", default.timeout_ms, log, time_ms("10s", 10_000));
    let mut count = |key, default| probe.or(key, default, log, number::<u16>(1..=100));
    let healthy_after = count("healthy_after", default.healthy_after);
    let unhealthy_after = count("unhealthy_after", default.unhealthy_after);
    Some(Cadence {
        interval_ms: interval_ms?,
        timeout_ms: timeout_ms?,
        healthy_after: healthy_after?,
        unhealthy_after: unhealthy_after?,
    })
}

/// From 100 ms to `most`, which is so many milliseconds.
fn time_ms(most: &str, most_ms: u32) -> impl Fn(&Node) -> Result<u32, String> {
    move |node| {
        let time = parsed(duration)(node)?;
        let ms = u32::try_from(time.as_millis()).ok();
        let good = ms.filter(|ms| (100..=most_ms).contains(ms));
        good.ok_or_else(|| format!("{time:?} is out of range; allowed are 100ms to {most}"))
    }
}

fn reset_after(text: &str) -> Result<Option<u32>, String> {
    const ALLOWED: &str = "expected never, or 1s to 7d";
    if text == "never" {
        return Ok(None);
    }
    let time = duration(text).map_err(|_| ALLOWED.to_owned())?;
    let most = Duration::from_secs(7 * 86_400);
    let seconds = time.as_millis().div_ceil(1_000);
    let seconds = u32::try_from(seconds).ok().filter(|&seconds| seconds > 0 && time <= most);
    seconds.map(Some).ok_or_else(|| ALLOWED.to_owned())
}

/// The value of a label (the syntax of Kubernetes), not empty.
fn label(text: &str) -> Result<String, &'static str> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let good = bytes.len() <= 63
        && bytes.iter().copied().all(inner)
        && ends(bytes.first())
        && ends(bytes.last());
    if good { Ok(text.to_owned()) } else { Err("expected 1 to 63 of a-z A-Z 0-9 - _ .") }
}

/// The name of a Node.
fn node(text: &str) -> Result<String, &'static str> {
    let good = text.len() <= 253 && text.split('.').all(is_name);
    if good { Ok(text.to_owned()) } else { Err("expected the name of a Node") }
}

fn object_name(text: &str) -> Result<ObjectName, &'static str> {
    match text.split_once('/') {
        Some((namespace, name)) if is_name(namespace) && is_name(name) => {
            Ok(ObjectName::new(namespace, name))
        }
        _ => Err("expected NAMESPACE/NAME, as default/kubernetes"),
    }
}

fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}
