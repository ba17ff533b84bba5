//! Tests on a real Kubernetes cluster. Here is what they share.
#![forbid(unsafe_code)]

pub mod gate;
pub mod manifests;
pub mod outage;

use anyhow::{Context, Result, bail};
use rig::cluster::{Cluster, ClusterOptions, NodeOptions, Via};
use rig::command::output_of;
use rig::load::{self, Load};
use rig::namespace::Namespace;
use rig::world::{World, WorldOptions};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What a cluster gets to do what it was asked: scheduling, starting, probing.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What `kubectl delete pod` is given to delete it without grace: it waits for the object's end.
pub const AT_ONCE: &str = "--grace-period=0 --force --timeout=60s";

/// A test that is under way: a cluster in its network, and no other such test beside it.
pub struct Test {
    // Removed in this order, before others may begin.
    /// The cluster.
    pub cluster: Cluster,
    /// The client, the gateway once it is started, and the network.
    pub world: World,
    _alone: rig::Alone,
}

/// Begins a test with a cluster of so many nodes, all of which have kube-proxy; `None` where the
/// machine can't do it, which is reported.
pub fn begin(kind: &str, options: &ClusterOptions, nodes: usize) -> Result<Option<Test>> {
    let Some(alone) = rig::alone() else { return Ok(None) };
    let world = World::build(&WorldOptions { backends: 0, ..WorldOptions::new(kind) })?;
    let mut cluster = Cluster::start(&world.net.instance, options)?;
    println!("the cluster can be used after {:.1} s", cluster.ready_after.as_secs_f64());
    cluster.attach(&world.net.gateway)?;
    for index in 0..nodes {
        let zone = ["a", "b", "c"][index % 3];
        cluster.add_node(&world.net.switch, &NodeOptions::in_zone(zone))?;
    }
    cluster.wait_for_nodes()?;
    Ok(Some(Test { cluster, world, _alone: alone }))
}

impl Test {
    /// Starts the gateway under the very rules that are shipped for it.
    pub fn start_gateway(&mut self) -> Result<()> {
        let who = self.cluster.install_headgate()?;
        let kubeconfig = self.cluster.kubeconfig_with("headgate", &who, Via::Shared)?;
        self.world.options.kubeconfig = Some(kubeconfig);
        self.world.start_gateway()
    }
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

/// Asks so many times from these addresses of a namespace, and counts who answered. No request
/// may fail.
pub fn who_answers(
    from: &Namespace,
    sources: &[IpAddr],
    target: SocketAddr,
    times: usize,
) -> Result<BTreeMap<String, u64>> {
    let (targets, sources) = (vec![target], sources.to_vec());
    let outcome = load::run(from, &Load { targets, sources, requests: times, concurrency: 4 })?;
    outcome.check_complete().with_context(|| target.to_string())?;
    Ok(outcome.by_backend)
}
