//! Backends come and go under long-lived connections: none of those to others breaks, and none of
//! the new ones goes to a backend that doesn't take any.

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

/// 1,000 new connections: none fails, and none reaches `away`.
fn none_goes_to(test: &Test, away: &str) -> Result<()> {
    let outcome = test.load(&test.web()?, NEW)?;
    outcome.check_complete()?;
    let got = outcome.by_backend.get(away).copied().unwrap_or(0);
    ensure!(got == 0, "{got} of {NEW} new connections reached {away}: {:?}", outcome.by_backend);
    Ok(())
}

#[test]
fn a_backend_leaves_in_every_way_and_comes_back() -> Result<()> {
    let Some(test) = netns::begin("backends")? else { return Ok(()) };
    let all: Vec<Endpoint> = test.net.backends.iter().map(Endpoint::of).collect();
    let clients = long_lived(&test, |name| name != "web-2")?;
    let changed = |change: fn(&mut Endpoint)| {
        let mut endpoints = all.clone();
        change(&mut endpoints[1]);
        endpoints
    };
    let not_ready = changed(|endpoint| endpoint.ready = false);
    let terminating = changed(|endpoint| {
        endpoint.ready = false;
        endpoint.terminating = true;
    });
    let gone: Vec<Endpoint> = all.iter().filter(|other| other.name != "web-2").cloned().collect();
    for (what, endpoints) in
        [("not ready", not_ready), ("terminating, serving", terminating), ("gone", gone)]
    {
        println!("web-2 {what}");
        apply(&test, &endpoints, 2)?;
        none_goes_to(&test, "web-2")?;
        apply(&test, &all, 3)?;
        let outcome = test.load(&test.web()?, NEW)?;
        outcome.check_complete()?;
        let back = outcome.by_backend.contains_key("web-2");
        ensure!(back, "web-2 got nothing after it came back: {:?}", outcome.by_backend);
    }
    none_broke(clients)?;
    test.end()
}

/// Not ready is no reason to break what is there.
#[test]
fn a_draining_backend_keeps_its_connections() -> Result<()> {
    let Some(test) = netns::begin("draining")? else { return Ok(()) };
    let mut endpoints: Vec<Endpoint> = test.net.backends.iter().map(Endpoint::of).collect();
    let clients = long_lived(&test, |name| name == "web-2")?;
    endpoints[1].ready = false;
    apply(&test, &endpoints, 2)?;
    none_goes_to(&test, "web-2")?;
    none_broke(clients)?;
    test.end()
}

#[test]
fn scaling_from_3_to_30_and_back_breaks_nothing() -> Result<()> {
    let options = WorldOptions { backends: 30, ..WorldOptions::new("scaling") };
    let Some(test) = netns::build(&options)? else { return Ok(()) };
    let all: Vec<Endpoint> = test.net.backends.iter().map(Endpoint::of).collect();
    let test = test.start()?;
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
