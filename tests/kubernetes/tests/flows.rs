//! A Deployment behind a LoadBalancer Service, with real kubectl: from `apply` to pods that are
//! killed at once.

use anyhow::{Result, ensure};
use kubernetes::{Test, gate};
use rig::load::Outcome;
use std::net::SocketAddr;

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
      - name: nginx
        image: nginx
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /ready, port: http}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 2}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  loadBalancerClass: headgate.dev/gateway
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
";

#[test]
fn a_deployment_is_served_while_it_changes() -> Result<()> {
    let Some(test) = gate::begin("flows", "")? else { return Ok(()) };
    let mark = test.cluster.audit_mark();
    test.roll_out(WEB, &["web"])?;
    let targets = test.targets("web", 80)?;
    let shown = test.cluster.kubectl("get svc web")?;
    println!("{shown}");
    for target in &targets {
        ensure!(shown.contains(&target.ip().to_string()), "{target} isn't shown:\n{shown}");
    }
    test.at_workers("web", 3)?;
    test.answered_by(&targets, &test.pods("web")?)?;
    let writes = test.writes_since(&mark)?;
    println!("written for a new Service with three pods: {writes:?}");
    // Its addresses and that nobody serves it yet, then that somebody does; an Event for each
    // address, and one that it is programmed.
    ensure!(writes.get("services status").is_some_and(|count| *count <= 2), "{writes:?}");
    ensure!(writes.get("events").is_none_or(|count| *count <= 3), "{writes:?}");

    // A change of endpoints is nothing that status tells of.
    for (what, replicas) in [("scale from 3 to 6", 6), ("scale from 6 to 2", 2)] {
        change(&test, &targets, what, || {
            test.scale("web", replicas)?;
            test.at_workers("web", replicas)
        })?;
        test.answered_by(&targets, &test.pods("web")?)?;
    }
    change(&test, &targets, "rollout restart", || {
        test.restart("web")?;
        test.at_workers("web", 2)
    })?;
    let before = test.pods("web")?;
    change(&test, &targets, "delete pod", || {
        test.cluster.kubectl(&format!("delete pod {} --timeout=60s", before[0]))?;
        test.rolled_out("web")?;
        test.at_workers("web", 2)
    })?;
    let after = test.pods("web")?;
    ensure!(!after.contains(&before[0]) && after.len() == 2, "{before:?} became {after:?}");
    test.answered_by(&targets, &after)?;
    kill(&test, &targets)?;
    test.settle()
}

/// No request fails, and nothing is written.
fn change(
    test: &Test,
    targets: &[SocketAddr],
    what: &str,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    test.writes_at_most(what, [0, 0], || {
        let outcome = test.under_load(targets, work)?;
        println!("{what}: {}", told(&outcome));
        outcome.check_complete()
    })
}

fn told(outcome: &Outcome) -> String {
    let Outcome { requests, failed, by_backend, .. } = outcome;
    format!("{requests} requests, failed {failed}, by pod {by_backend:?}")
}

/// Pods without grace: what was open fails, and once the workers know, nothing goes there.
fn kill(test: &Test, targets: &[SocketAddr]) -> Result<()> {
    test.scale("web", 4)?;
    test.at_workers("web", 4)?;
    let victims = test.pods("web")?[..2].to_vec();
    let outcome = test.under_load(targets, || test.kill(&victims))?;
    println!("two of four pods killed at once: {}", told(&outcome));
    // From here on an attempt to reach one of the two would fail.
    let outcome = test.answers(targets, 500)?;
    println!("after that: {}", told(&outcome));
    ensure!(
        outcome.by_backend.keys().all(|pod| !victims.contains(pod)),
        "{victims:?} are gone: {outcome:?}"
    );
    test.rolled_out("web")?;
    test.at_workers("web", 4)?;
    test.answered_by(targets, &test.pods("web")?)
}
