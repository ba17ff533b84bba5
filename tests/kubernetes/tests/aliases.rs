//! Manifests that were written for other load balancers, and pools chosen by what Services say: as
//! operators bring them, on a real API server.

use anyhow::{Context, Result, ensure};
use kubernetes::manifests::{NAMELESS, balanced, echo, web};
use kubernetes::{Test, gate, wait};
use rig::lines::LineClients;
use rig::load::{self, Load};
use rig::udp;
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};

/// Pools beside the rig's own, which has no scheme. Each begins with another address than `.0`.
const CONFIG: &str = r#"
[service]
default_class = false

[aliases]
aws = true
metallb = true

[[pool]]
name = "inside"
addresses = ["203.0.113.64/28", "2001:db8::40-2001:db8::4f"]
priority = 10
scheme = "internal"

[[pool]]
name = "outside"
addresses = ["203.0.113.80/28", "2001:db8::50-2001:db8::5f"]
priority = 10
scheme = "internet-facing"

[[pool]]
name = "shop"
addresses = ["203.0.113.96/28", "2001:db8::60-2001:db8::6f"]
priority = 1
service_selector = "tier=shop"
"#;

fn pods() -> String {
    web("web", 3) + &echo("echo", 2, &["TCP", "UDP"])
}

/// As somebody has them from a cluster on AWS.
const AWS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: plain}
spec:
  type: LoadBalancer
  loadBalancerClass: service.k8s.aws/nlb
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata:
  name: facing
  annotations:
    service.beta.kubernetes.io/aws-load-balancer-type: external
    service.beta.kubernetes.io/aws-load-balancer-nlb-target-type: ip
    service.beta.kubernetes.io/aws-load-balancer-scheme: internet-facing
    service.beta.kubernetes.io/aws-load-balancer-healthcheck-protocol: HTTP
    service.beta.kubernetes.io/aws-load-balancer-healthcheck-path: /ready
    service.beta.kubernetes.io/aws-load-balancer-healthcheck-interval: "1"
    service.beta.kubernetes.io/aws-load-balancer-healthcheck-healthy-threshold: "2"
    service.beta.kubernetes.io/aws-load-balancer-healthcheck-unhealthy-threshold: "2"
    service.beta.kubernetes.io/aws-load-balancer-cross-zone-load-balancing-enabled: "true"
    service.beta.kubernetes.io/aws-load-balancer-target-group-attributes: deregistration_delay.timeout_seconds=30,preserve_client_ip.enabled=true
    service.beta.kubernetes.io/aws-load-balancer-ssl-cert: arn:aws:acm:eu-west-1:123456789012:certificate/1
    service.beta.kubernetes.io/aws-load-balancer-subnets: subnet-1, subnet-2
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata:
  name: older
  annotations:
    service.beta.kubernetes.io/aws-load-balancer-type: nlb-ip
    service.beta.kubernetes.io/aws-load-balancer-internal: "true"
    service.beta.kubernetes.io/aws-load-balancer-target-group-attributes: stickiness.enabled=true,stickiness.type=source_ip
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: nobodys}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
"#;

/// One address for two Services.
const SHARED: &str = r#"
apiVersion: v1
kind: Service
metadata:
  name: lines
  annotations:
    metallb.io/loadBalancerIPs: 203.0.113.7,2001:db8::17
    metallb.io/allow-shared-ip: dns
spec:
  type: LoadBalancer
  loadBalancerClass: headgate.dev/gateway
  ipFamilyPolicy: RequireDualStack
  selector: {app: echo}
  ports: [{port: 53, targetPort: 7007}]
---
apiVersion: v1
kind: Service
metadata:
  name: datagrams
  annotations:
    metallb.universe.tf/loadBalancerIPs: 203.0.113.7,2001:db8::17
    metallb.universe.tf/allow-shared-ip: dns
spec:
  type: LoadBalancer
  loadBalancerClass: headgate.dev/gateway
  ipFamilyPolicy: RequireDualStack
  selector: {app: echo}
  ports: [{port: 53, targetPort: 7007, protocol: UDP}]
"#;

/// The same address without the word that shares it, and pools by name and by label.
const ALONE: &str = r#"
apiVersion: v1
kind: Service
metadata:
  name: greedy
  annotations: {metallb.io/loadBalancerIPs: '203.0.113.7,2001:db8::17'}
spec:
  type: LoadBalancer
  loadBalancerClass: headgate.dev/gateway
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata:
  name: named
  annotations: {metallb.io/address-pool: outside}
spec:
  type: LoadBalancer
  loadBalancerClass: headgate.dev/gateway
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata:
  name: labelled
  labels: {tier: shop}
spec:
  type: LoadBalancer
  loadBalancerClass: headgate.dev/gateway
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
"#;

#[test]
fn manifests_of_other_load_balancers_mean_what_they_meant() -> Result<()> {
    let Some(test) = gate::begin("aliases", CONFIG)? else { return Ok(()) };
    test.roll_out(&pods(), &["web", "echo"])?;
    test.cluster.apply(AWS)?;
    for (name, backends) in [("plain", 2), ("facing", 3), ("older", 3)] {
        test.at_workers(name, backends).with_context(|| name.to_owned())?;
    }
    written_for_aws(&test)?;
    health_checks_decide(&test)?;
    written_for_metallb(&test)?;
    test.settle()
}

/// Both addresses of the Service are in the ranges that begin so.
fn from_pool(test: &Test, name: &str, begins: [&str; 2], last: std::ops::Range<u8>) -> Result<()> {
    let ips = test.targets(name, 80)?;
    for (target, begins) in ips.iter().zip(begins) {
        let text = target.ip().to_string();
        let end = text.strip_prefix(begins).with_context(|| format!("{name} has {text}"))?;
        let number = if target.is_ipv4() { end.parse()? } else { u8::from_str_radix(end, 16)? };
        ensure!(last.contains(&number) || target.is_ipv6(), "{name} has {text}");
    }
    Ok(())
}

const V4: &str = "203.0.113.";

fn written_for_aws(test: &Test) -> Result<()> {
    let pods = test.pods("web")?;
    let at = |name| test.targets(name, 80);
    // Internal by default, and nodes are the targets by default.
    from_pool(test, "plain", [V4, "2001:db8::4"], 64..80)?;
    let nodes: BTreeSet<IpAddr> =
        test.cluster.nodes().iter().flat_map(|node| node.addresses).collect();
    let backends: BTreeSet<IpAddr> =
        test.world.admin()?.active("plain")?.iter().map(SocketAddr::ip).collect();
    ensure!(backends == nodes, "plain goes to {backends:?}, and not to the nodes");
    // kube-proxy writes its rules once a second at most.
    wait("plain answers", || test.answers(&at("plain")?, 20).map(|_| true))?;
    test.answered_by(&at("plain")?, &pods)?;

    from_pool(test, "facing", [V4, "2001:db8::5"], 80..96)?;
    test.answered_by(&at("facing")?, &pods)?;
    // What can't be honoured is told, once and all together.
    test.story("facing", &["NotHonoured"])?;
    test.story("facing", &["SourceNotKept"])?;
    let told = test.events("facing")?;
    let idle: Vec<_> = told.iter().filter(|(reason, _)| reason == "NotHonoured").collect();
    let named = |word: &str| idle.iter().any(|(_, message)| message.contains(word));
    ensure!(idle.len() == 1 && named("ssl-cert") && named("subnets"), "{told:#?}");

    from_pool(test, "older", [V4, "2001:db8::4"], 64..80)?;
    for target in at("older")? {
        for source in test.world.net.client_addresses(target.ip()) {
            let (targets, sources) = (vec![target], vec![source]);
            let load = Load { targets, sources, requests: 20, concurrency: 4 };
            let outcome = load::run(&test.world.net.client, &load)?;
            outcome.check_complete()?;
            ensure!(outcome.by_backend.len() == 1, "{source}: {:?}", outcome.by_backend);
        }
    }
    // Without a class and without a word for it a Service is somebody else's.
    ensure!(test.ingress("nobodys")?.is_empty(), "nobodys has an address");
    ensure!(test.service("nobodys")?["status"]["conditions"].is_null(), "nobodys has a condition");
    Ok(())
}

/// A pod that is ready for Kubernetes and fails the load balancer's own check gets nothing new, as
/// long as it does. The host reaches it by way of its node.
fn health_checks_decide(test: &Test) -> Result<()> {
    let pods = test.pods("web")?;
    test.probes_are("healthy", 6)?;
    let sick = pods.first().context("no pod")?;
    let unready = test.cluster.pod_dir("default", sick).join("unready");
    fs::write(&unready, "")?;
    test.at_workers("facing", 2)?;
    let rest: Vec<String> = pods.iter().filter(|pod| *pod != sick).cloned().collect();
    test.answered_by(&test.targets("facing", 80)?, &rest)?;
    fs::remove_file(&unready)?;
    test.at_workers("facing", 3)?;
    test.answered_by(&test.targets("facing", 80)?, &pods)?;
    // All of them: a check that everybody fails decides nothing, and says so.
    for pod in &pods {
        fs::write(test.cluster.pod_dir("default", pod).join("unready"), "")?;
    }
    // One family is a moment later than the other.
    test.probes_are("unhealthy", 6)?;
    test.story("facing", &["AllProbesFail"])?;
    test.at_workers("facing", 3)?;
    test.answered_by(&test.targets("facing", 80)?, &pods)?;
    for pod in &pods {
        fs::remove_file(test.cluster.pod_dir("default", pod).join("unready"))?;
    }
    Ok(())
}

fn written_for_metallb(test: &Test) -> Result<()> {
    let client = &test.world.net.client;
    let pods: BTreeSet<String> = test.pods("echo")?.into_iter().collect();
    // Of Services that are as old as each other one would be first by its name.
    test.cluster.apply(SHARED)?;
    test.at_workers("lines", 2)?;
    test.at_workers("datagrams", 2)?;
    let shared: [IpAddr; 2] = ["203.0.113.7".parse()?, "2001:db8::17".parse()?];
    for name in ["lines", "datagrams"] {
        let targets: Vec<IpAddr> = test.targets(name, 53)?.iter().map(SocketAddr::ip).collect();
        ensure!(targets == shared, "{name} has {targets:?}");
    }
    for ip in shared {
        let (target, sources) = (SocketAddr::new(ip, 53), test.world.net.client_addresses(ip));
        let lines = LineClients::open(client, &sources, target, 40, |_| true)?;
        lines.wait_for_lines(2);
        let by_tcp: BTreeSet<String> = lines.by_backend().keys().cloned().collect();
        lines.stop()?.check()?;
        let by_udp: BTreeSet<String> =
            udp::echo(client, &sources, target, 40, 3)?.into_keys().collect();
        ensure!([&by_tcp, &by_udp] == [&pods, &pods], "{target}: {by_tcp:?} and {by_udp:?}");
    }
    // Nobody else gets it who doesn't say the word.
    test.cluster.apply(ALONE)?;
    test.story("greedy", &["AllocationFailed"])?;
    ensure!(test.ingress("greedy")?.is_empty(), "greedy has an address");
    from_pool(test, "named", [V4, "2001:db8::5"], 80..96)?;
    from_pool(test, "labelled", [V4, "2001:db8::6"], 96..112)?;
    let pools = test.world.admin()?.text(&["show", "pools"])?;
    println!("{pools}");
    for pool in ["demo", "inside", "outside", "shop"] {
        ensure!(pools.contains(pool), "{pool} isn't shown:\n{pools}");
    }
    // Once the last one has left, the address is free again.
    test.cluster.kubectl("delete svc lines datagrams --timeout=60s")?;
    let targets = test.targets("greedy", 80)?;
    ensure!(targets.iter().map(SocketAddr::ip).eq(shared), "{targets:?}");
    test.answered_by(&targets, &test.pods("web")?)
}

/// The finalizer where it was asked for, and the address of another controller taken over where
/// that was asked for.
#[test]
fn services_are_held_and_taken_over_where_asked_for() -> Result<()> {
    let Some(mut test) = gate::begin("held", "")? else { return Ok(()) };
    test.world.options.kubernetes.push(("finalizer", "true".into()));
    test.world.start_gateway()?;
    test.roll_out(&pods(), &["web"])?;
    test.cluster.apply(&balanced("held", "web", NAMELESS))?;
    let targets = test.targets("held", 80)?;
    let finalizers = |test: &Test| -> Result<Vec<String>> {
        let service = test.service("held")?;
        let all = gate::list(&service["metadata"]["finalizers"]);
        Ok(all.filter_map(|one| one.as_str().map(str::to_owned)).collect())
    };
    ensure!(finalizers(&test)? == ["headgate.dev/cleanup"], "{:?}", finalizers(&test)?);
    test.at_workers("held", 3)?;
    test.answered_by(&targets, &test.pods("web")?)?;
    // It goes with the type, and comes back with it.
    let patch = |kind: &str, class: &str| -> Result<()> {
        let body = format!(r#"{{"spec":{{"type":"{kind}","loadBalancerClass":{class}}}}}"#);
        let mut command = test.cluster.kubectl_command(0)?;
        rig::command::output_of(command.args(["patch", "svc", "held", "-p", &body])).map(drop)
    };
    patch("ClusterIP", "null")?;
    wait("the finalizer goes with the type", || Ok(finalizers(&test)?.is_empty()))?;
    patch("LoadBalancer", "\"headgate.dev/gateway\"")?;
    wait("it comes back", || Ok(finalizers(&test)? == ["headgate.dev/cleanup"]))?;
    // Deleted, it is held for no longer than its forwarding takes to end.
    test.cluster.kubectl("delete svc held --timeout=30s")?;
    let rows = test.world.admin()?.services()?;
    ensure!(rows.iter().all(|row| &*row.status.name.name != "held"), "held is known still");

    taken_over(&test)?;
    test.settle()
}

/// Another controller writes its own address over ours: it is left to it, until the Service says
/// otherwise.
fn taken_over(test: &Test) -> Result<()> {
    test.cluster.apply(&balanced("left", "web", NAMELESS))?;
    let ours = test.targets("left", 80)?;
    let body = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.9"}]}}}"#;
    let mut command = test.cluster.kubectl_command(0)?;
    command.args(["patch", "svc", "left", "--subresource=status", "--type=merge", "-p", body]);
    rig::command::output_of(command.args(["--field-manager", "other-controller"]))?;
    test.story("left", &["StatusConflict"])?;
    let theirs: IpAddr = "192.0.2.9".parse()?;
    ensure!(test.ingress("left")? == [theirs], "the other's address was taken without a word");
    // Who has the address goes on being served there.
    test.at_workers("left", 3)?;
    test.answered_by(&ours, &test.pods("web")?)?;
    test.cluster.kubectl("annotate svc left headgate.dev/take-over=true")?;
    let expected: Vec<IpAddr> = ours.iter().map(SocketAddr::ip).collect();
    wait("the status is ours", || Ok(test.ingress("left")? == expected))?;
    test.answered_by(&ours, &test.pods("web")?)
}
