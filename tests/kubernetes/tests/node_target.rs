//! Nodes as backends: the gateway sends to their nodePorts, and the real kube-proxy goes on.

use anyhow::{Context, Result, ensure};
use kubernetes::manifests::{self, BALANCED, NAMELESS, web};
use kubernetes::{Test, gate, wait};
use rig::load;
use std::io::ErrorKind;
use std::net::SocketAddr;

/// A pod on one node alone, beside those that are on both.
const LONE: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: lone}
spec:
  replicas: 1
  selector: {matchLabels: {app: lone}}
  template:
    metadata: {labels: {app: lone}}
    spec:
      nodeSelector: {topology.kubernetes.io/zone: a}
      containers:
      - name: nginx
        image: nginx
        ports: [{name: http, containerPort: 8080}]
";

fn service(name: &str, app: &str, policy: &str) -> String {
    let policy = format!("externalTrafficPolicy: {policy}");
    let fields = [BALANCED, policy.as_str()];
    manifests::service(name, app, "headgate.dev/target: node", &fields, NAMELESS)
}

#[test]
fn nodes_are_backends_and_kube_proxy_goes_on() -> Result<()> {
    let Some(test) = gate::begin("node-target", "")? else { return Ok(()) };
    test.roll_out(&(web("web", 4) + LONE), &["web", "lone"])?;
    let services =
        [("cluster", "web", "Cluster"), ("local", "web", "Local"), ("one", "lone", "Local")];
    let yaml: String = services.iter().map(|(name, app, how)| service(name, app, how)).collect();
    test.cluster.apply(&yaml)?;
    for (name, app, _) in services {
        let nodes = if app == "web" { 2 } else { 1 };
        test.at_workers(name, nodes).with_context(|| name.to_owned())?;
        let targets = test.targets(name, 80)?;
        kube_proxy_knows(&test, &targets)?;
        test.answered_by(&targets, &test.pods(app)?).with_context(|| name.to_owned())?;
        check_backends(&test, name)?;
    }
    // What the operator is told: kube-proxy sees the gateway where it promised the client.
    test.story("local", &["SourceNotKept"])?;
    let told = test.events("cluster")?;
    ensure!(told.iter().all(|(reason, _)| reason != "SourceNotKept"), "{told:?}");

    // A node that no balancer is to use: Cluster goes by the other one. Local has none left that
    // holds an endpoint, and drops.
    let label = "node.kubernetes.io/exclude-from-external-load-balancers";
    test.cluster.kubectl(&format!("label node node-1 {label}=true"))?;
    test.at_workers("cluster", 1)?;
    test.answered_by(&test.targets("cluster", 80)?, &test.pods("web")?)?;
    for target in test.targets("one", 80)? {
        wait(&format!("{target} falls silent"), || {
            let (_, outcome) = load::attempt(&test.world.net.client, target)?;
            Ok(outcome.is_err_and(|error| error.kind() == ErrorKind::TimedOut))
        })?;
    }
    test.cluster.kubectl(&format!("label node node-1 {label}-"))?;
    test.at_workers("one", 1)?;
    test.answered_by(&test.targets("one", 80)?, &test.pods("lone")?)?;
    // No endpoint at all: refused, by Cluster and Local alike.
    test.cluster.kubectl("scale deployment/lone --replicas=0")?;
    for target in test.targets("one", 80)? {
        wait(&format!("{target} refuses"), || {
            let (_, outcome) = load::attempt(&test.world.net.client, target)?;
            Ok(outcome.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused))
        })?;
    }
    test.settle()
}

/// kube-proxy writes its rules once a second at most, and the gateway isn't told of it.
fn kube_proxy_knows(test: &Test, targets: &[SocketAddr]) -> Result<()> {
    wait(&format!("{targets:?} answer"), || test.answers(targets, 20).map(|_| true))
}

/// Backends are the nodes' first InternalIPs at the Service's nodePort, weighted by their pods.
fn check_backends(test: &Test, name: &str) -> Result<()> {
    let service = test.service(name)?;
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().context("nodePort")?;
    let rows = test.world.admin()?.backends()?;
    let rows: Vec<_> = rows.into_iter().filter(|row| &*row.service.service.name == name).collect();
    ensure!(!rows.is_empty(), "{name} has no backend");
    for row in &rows {
        let is_node = |node: &&rig::cluster::Node| node.addresses.contains(&row.address.ip());
        let node = test.cluster.nodes().iter().find(is_node);
        ensure!(node.is_some() && u64::from(row.address.port()) == port, "{row:?}");
    }
    Ok(())
}
