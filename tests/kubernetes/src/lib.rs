//! Tests on a real Kubernetes cluster. Here is what they share.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail, ensure};
use rig::cluster::{Cluster, ClusterOptions, NodeOptions};
use rig::command::output_of;
use rig::namespace::Namespace;
use rig::net::Net;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What a cluster gets to do what it was asked: scheduling, starting, probing.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A test that is under way: a cluster in its network, and no other such test beside it.
pub struct Test {
    // Removed in this order, before others may begin.
    /// The cluster.
    pub cluster: Cluster,
    /// The network, with the client's and the gateway's namespaces.
    pub net: Net,
    _alone: rig::Alone,
}

/// Begins a test with a cluster of so many nodes, all of which have kube-proxy; `None` where the
/// machine can't do it, which is reported.
pub fn begin(kind: &str, options: &ClusterOptions, nodes: usize) -> Result<Option<Test>> {
    let Some(alone) = rig::alone() else { return Ok(None) };
    let net = Net::build(kind, 0)?;
    let mut cluster = Cluster::start(&net.instance, options)?;
    for index in 0..nodes {
        let zone = ["a", "b", "c"][index % 3];
        cluster.add_node(&net.switch, &NodeOptions::in_zone(zone))?;
    }
    cluster.wait_for_nodes()?;
    Ok(Some(Test { cluster, net, _alone: alone }))
}

/// Asks until the answer is yes; `what` is for the error.
pub fn wait(what: &str, mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    loop {
        let outcome = ask();
        if matches!(outcome, Ok(true)) {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            bail!("not within {PATIENCE:?}: {what}: {outcome:?}");
        }
        sleep(Duration::from_millis(100));
    }
}

/// The body that an HTTP server answers with.
pub fn get(from: &Namespace, target: SocketAddr, path: &str) -> Result<String> {
    let url = format!("http://{target}{path}");
    let mut command = from.command("curl");
    output_of(command.args(["-sS", "--fail", "--max-time", "3", &url]))
        .map(|text| text.trim().to_owned())
}

/// Asks so many times, and counts who answered. No request may fail.
pub fn who_answers(
    from: &Namespace,
    target: SocketAddr,
    times: usize,
) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for number in 0..times {
        let name = get(from, target, "/").with_context(|| format!("request {number}"))?;
        ensure!(!name.is_empty(), "an empty answer from {target}");
        *counts.entry(name).or_default() += 1;
    }
    Ok(counts)
}
