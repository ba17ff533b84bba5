//! Connections outlast what they were begun by, in a cluster: Service, slice and Node go, and data
//! goes on both ways for longer than any next hop is kept that nobody speaks of; never by the front.

use anyhow::{Context, Result, ensure};
use kubernetes::manifests::{balanced, echo};
use kubernetes::{AT_ONCE, Test, gate, wait};
use rig::lines::LineClients;
use rig::strays::Strays;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

/// What becomes of them stands in their names; those of `whole` lose the Node alone.
const SERVICES: [&str; 4] = ["emptied", "deleted", "internal", "whole"];
/// Whose pods are behind nodes, and on the link: in their nodes' own network.
const APPS: [&str; 2] = ["behind", "linked"];
/// Connections of each Service in each family.
const CONNECTIONS: usize = 2;
/// Lines on each of them after each change.
const LINES: u64 = 3;
/// A next hop is kept for a minute after its last use.
const LONG: Duration = Duration::from_secs(75);

fn services(what: &str) -> impl Iterator<Item = String> {
    APPS.into_iter().map(move |app| format!("{what}-{app}"))
}

fn open(test: &Test) -> Result<Vec<LineClients>> {
    let (behind, linked) = (echo("behind", 1, &["TCP"]), echo("linked", 1, &["TCP"]));
    let linked = linked.replace("      containers:", "      hostNetwork: true\n      containers:");
    test.roll_out(&(behind + &linked), &APPS)?;
    let mut clients = Vec::new();
    for what in SERVICES {
        for (name, app) in services(what).zip(APPS) {
            test.cluster.apply(&balanced(&name, app, "{port: 7007}"))?;
        }
    }
    for name in SERVICES.into_iter().flat_map(services) {
        test.at_workers(&name, 1)?;
        for target in test.targets(&name, 7007)? {
            let (client, sources) =
                (&test.world.net.client, test.world.net.client_addresses(target.ip()));
            clients.push(LineClients::open(client, &sources, target, CONNECTIONS, |_| true)?);
        }
    }
    Ok(clients)
}

/// All that they were begun by goes, one after the other.
fn everything_goes(test: &Test, go_on: impl Fn(&str) + Copy) -> Result<()> {
    for name in services("emptied") {
        let nobody = r#"{"spec":{"selector":{"app":"nobody"}}}"#;
        test.cluster.kubectl(&format!("patch svc {name} -p {nobody}"))?;
        test.at_workers(&name, 0)?;
    }
    go_on("the slices are empty");
    let admin = test.world.admin()?;
    for name in services("deleted") {
        test.cluster.kubectl(&format!("delete svc {name} --timeout=60s"))?;
        admin.wait_until("no Service", |admin| Ok(admin.service(&name).is_err()))?;
    }
    go_on("the Services are deleted");
    for name in services("internal") {
        let internal = r#"{"spec":{"type":"ClusterIP","loadBalancerClass":null}}"#;
        test.cluster.kubectl(&format!("patch svc {name} -p {internal}"))?;
        admin.wait_until("no address", |admin| {
            let mut rows = admin.services()?.into_iter();
            let served = rows.find(|row| *row.status.name.name == *name);
            Ok(served.is_none_or(|row| row.status.addresses.is_empty()))
        })?;
    }
    go_on("the Services are ClusterIPs");
    // Their pods run on.
    for (index, node) in test.cluster.nodes().iter().enumerate() {
        test.cluster.stop_kubelet(index)?;
        test.cluster.kubectl(&format!("delete node {} --timeout=60s", node.name))?;
    }
    let nodes: Vec<String> = test
        .cluster
        .nodes()
        .iter()
        .flat_map(|node| node.addresses.map(|ip| ip.to_string()))
        .collect();
    admin.wait_until("no way by a node", |admin| {
        let rows = admin.backends()?;
        let mut behind = rows.iter().filter(|row| row.name.starts_with("behind"));
        Ok(behind.all(|row| !nodes.iter().any(|ip| row.way.contains(ip))))
    })?;
    go_on("the Nodes are deleted");
    test.cluster.kubectl(&format!("delete pod --all {AT_ONCE}"))?;
    admin.wait_until("no backend", |admin| Ok(admin.backends()?.is_empty()))?;
    go_on("the pods' objects are deleted");
    Ok(())
}

fn forget(test: &Test, go_on: impl Fn(&str)) -> Result<()> {
    test.world.net.forget_next_hops()?;
    go_on("the neighbours are flushed");
    Ok(())
}

/// Whether the kernel keeps them so, although no snapshot names them: the gateway's packets don't
/// pass it, and by itself it would leave them stale.
fn are_resolved(test: &Test, next_hops: &[IpAddr]) -> Result<bool> {
    let rows = test.world.admin()?.neighbours()?;
    for address in next_hops {
        let row = rows.iter().find(|row| row.address == *address).context("not even there")?;
        ensure!(["reachable", "delay", "probe"].contains(&&*row.state), "{row:?}");
        ensure!(row.backends == 0, "{row:?}");
    }
    Ok(true)
}

#[test]
fn connections_outlast_all_that_they_were_begun_by() -> Result<()> {
    let Some(test) = gate::begin("outlast", "")? else { return Ok(()) };
    let net = &test.world.net;
    net.default_routes("add")?;
    let clients = open(&test)?;
    let rows = test.world.admin()?.backends()?;
    let strays = Strays::watch(&net.client, rows.iter().map(|row| row.address.ip()).collect())?;
    let nodes = test.cluster.nodes().iter().filter(|node| rows.iter().any(|r| r.node == node.name));
    let next_hops: Vec<IpAddr> = nodes.flat_map(|node| node.addresses).collect();
    ensure!(!next_hops.is_empty(), "{rows:?}");
    let go_on = |what: &str| {
        println!("{what}");
        LineClients::wait_for_lines_of_all(&clients, LINES);
    };
    everything_goes(&test, go_on)?;
    forget(&test, go_on)?;
    sleep(LONG);
    wait("the next hops are kept resolved", || are_resolved(&test, &next_hops))?;
    forget(&test, go_on)?;
    strays.check().context("in front")?;
    for lines in clients {
        let (_, frontend) = lines.first();
        lines.stop()?.check().with_context(|| frontend.to_string())?;
    }
    test.settle()
}
