//! Backends come and go under long-lived connections: none of those to others breaks, and none of
//! the new ones goes to a backend that doesn't take any. Backends are on the link and behind a node.

use anyhow::{Result, ensure};
use netns::Test;
use rig::lines::LineClients;
use rig::manifests::Endpoint;
use rig::plan;
use rig::world::WorldOptions;
use std::net::SocketAddr;

const LONG_LIVED: usize = 100;
const NEW: usize = 1_000;
const SERVICES: [&str; 2] = ["web", "echo"];
/// Those that leave: one on the link, one behind the node.
const LEAVING: [&str; 2] = ["web-1", "web-2"];

fn begin(kind: &str, backends: u16) -> Result<Option<Test>> {
    let options = WorldOptions { backends, node: true, ..WorldOptions::new(kind) };
    let Some(test) = netns::build(&options)? else { return Ok(None) };
    test.start().map(Some)
}

/// Half of the connections in each family, all to backends that `wanted` says yes to.
fn long_lived(test: &Test, wanted: fn(&str) -> bool) -> Result<Vec<LineClients>> {
    let open = |address| {
        let target = SocketAddr::new(address, plan::ECHO_PORT);
        let sources = test.net.client_addresses(address);
        LineClients::open(&test.net.client, &sources, target, LONG_LIVED / 2, wanted)
    };
    test.addresses("echo")?.into_iter().map(open).collect()
}

fn none_broke(clients: Vec<LineClients>) -> Result<()> {
    for lines in clients {
        lines.wait_for_lines(3);
        let report = lines.stop()?;
        println!("{report:?}");
        report.check()?;
    }
    Ok(())
}

/// Writes both Services with `endpoints` and waits until every worker runs with `active` backends
/// of each, counted over both families.
fn apply(test: &Test, endpoints: &[Endpoint], active: usize) -> Result<()> {
    for name in SERVICES {
        let mut service = test.usual(name)?;
        service.endpoints = endpoints.to_vec();
        test.manifests.apply(&service)?;
    }
    // Each backend counts once for each port of its Service: two ports, two families.
    let admin = test.admin()?;
    let generation = admin.wait_until(&format!("{active} active backends"), |admin| {
        let counts = SERVICES.map(|name| admin.active(name).map(|list| list.len()));
        Ok(counts.into_iter().collect::<Result<Vec<_>>>()? == [4 * active; 2])
    })?;
    let workers = admin.workers()?;
    ensure!(workers.generation_everywhere >= generation, "{workers:?}");
    Ok(())
}

/// 1,000 new connections: none fails, and none reaches those that leave.
fn none_goes_to_the_leaving(test: &Test) -> Result<()> {
    let outcome = test.load(&test.web()?, NEW)?;
    outcome.check_complete()?;
    let reached = LEAVING.iter().any(|name| outcome.by_backend.contains_key(*name));
    ensure!(
        !reached,
        "of {NEW} new connections some reached {LEAVING:?}: {:?}",
        outcome.by_backend
    );
    Ok(())
}

#[test]
fn backends_leave_in_every_way_and_come_back() -> Result<()> {
    let Some(test) = begin("backends", 4)? else { return Ok(()) };
    let all: Vec<Endpoint> = test.net.backends.iter().map(Endpoint::of).collect();
    let clients = long_lived(&test, |name| !LEAVING.contains(&name))?;
    let changed = |change: fn(&mut Endpoint)| {
        let mut endpoints = all.clone();
        endpoints[..2].iter_mut().for_each(change);
        endpoints
    };
    let not_ready = changed(|endpoint| endpoint.ready = false);
    let terminating = changed(|endpoint| {
        endpoint.ready = false;
        endpoint.terminating = true;
    });
    let gone = all[2..].to_vec();
    for (what, endpoints) in
        [("not ready", not_ready), ("terminating, serving", terminating), ("gone", gone)]
    {
        println!("{LEAVING:?} {what}");
        apply(&test, &endpoints, 2)?;
        none_goes_to_the_leaving(&test)?;
        apply(&test, &all, 4)?;
        let outcome = test.load(&test.web()?, NEW)?;
        outcome.check_complete()?;
        for name in LEAVING {
            let back = outcome.by_backend.contains_key(name);
            ensure!(back, "{name} got nothing after it came back: {:?}", outcome.by_backend);
        }
    }
    none_broke(clients)?;
    test.end()
}

/// Not ready is no reason to break what is there.
#[test]
fn draining_backends_keep_their_connections() -> Result<()> {
    let Some(test) = begin("draining", 4)? else { return Ok(()) };
    let mut endpoints: Vec<Endpoint> = test.net.backends.iter().map(Endpoint::of).collect();
    let clients = long_lived(&test, |name| LEAVING.contains(&name))?;
    endpoints[..2].iter_mut().for_each(|endpoint| endpoint.ready = false);
    apply(&test, &endpoints, 2)?;
    none_goes_to_the_leaving(&test)?;
    none_broke(clients)?;
    test.end()
}

#[test]
fn scaling_from_3_to_30_and_back_breaks_nothing() -> Result<()> {
    let Some(test) = begin("scaling", 30)? else { return Ok(()) };
    let all: Vec<Endpoint> = test.net.backends.iter().map(Endpoint::of).collect();
    apply(&test, &all[..3], 3)?;
    let clients = long_lived(&test, |_| true)?;
    apply(&test, &all, 30)?;
    let outcome = test.load(&test.web()?, 6_000)?;
    outcome.check_complete()?;
    assert_eq!(outcome.by_backend.len(), 30, "{:?}", outcome.by_backend);
    apply(&test, &all[..3], 3)?;
    let outcome = test.load(&test.web()?, NEW)?;
    outcome.check_complete()?;
    outcome.check_even(&test.names()[..3], 0.25)?;
    none_broke(clients)?;
    test.end()
}
