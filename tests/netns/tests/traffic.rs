//! Traffic of every kind through every kind of frontend, in both families.

use anyhow::{Result, ensure};
use rig::world::WorldOptions;
use rig::{download, load, plan, udp};
use std::net::SocketAddr;
use std::time::Duration;

const REQUESTS: usize = 20_000;
const CONCURRENT: usize = 1_000;
const GIB: u64 = 1 << 30;

#[test]
fn twenty_thousand_requests_are_answered_evenly() -> Result<()> {
    let Some(test) = netns::begin("requests")? else { return Ok(()) };
    let targets: Vec<SocketAddr> = test.http_targets()?.iter().map(|(_, at)| *at).collect();
    assert_eq!(targets.len(), 6);
    let logged = || -> Result<u64> { test.web.iter().map(|web| web.requests_logged()).sum() };
    let before = (test.retransmits()?, logged()?);
    let outcome = test.load(&targets, REQUESTS)?;
    let after = (test.retransmits()?, logged()?);
    outcome.check_complete()?;
    assert_eq!(outcome.requests, REQUESTS as u64);
    outcome.check_even(&test.names(), 0.1)?;
    assert_eq!(after.1 - before.1, REQUESTS as u64, "requests in the servers' logs");
    println!(
        "by backend {:?}; connect median {} us, longest {} us; retransmits client {}, servers {}",
        outcome.by_backend,
        outcome.connect_us.value_at_quantile(0.5),
        outcome.connect_us.max(),
        after.0[0] - before.0[0],
        after.0[1] - before.0[1],
    );
    // A lost SYN is sent again after a second.
    ensure!(outcome.connect_max() <= Duration::from_millis(900), "{:?}", outcome.connect_max());
    test.end()
}

#[test]
fn a_service_with_several_ports_is_served_on_each() -> Result<()> {
    let Some(test) = netns::begin("ports")? else { return Ok(()) };
    let addresses = test.addresses("web")?;
    let targets: Vec<SocketAddr> =
        addresses.iter().flat_map(|at| [80, 443].map(|port| SocketAddr::new(*at, port))).collect();
    let outcome = test.load(&targets, 400)?;
    outcome.check_complete()?;
    assert_eq!(outcome.by_target.len(), 4);
    test.end()
}

#[test]
fn udp_datagrams_are_echoed() -> Result<()> {
    let Some(test) = netns::begin("udp")? else { return Ok(()) };
    for address in test.addresses("echo")? {
        let target = SocketAddr::new(address, plan::ECHO_PORT);
        let sources = test.net.client_addresses(address);
        let flows = udp::echo(&test.net.client, &sources, target, 60, 50)?;
        println!("UDP flows to {target} by backend: {flows:?}");
        assert_eq!(flows.len(), 3, "60 flows reached {flows:?}");
    }
    test.end()
}

#[test]
fn a_gibibyte_arrives_as_it_was() -> Result<()> {
    let blob = netns::Removed::create("headgate-blob")?;
    let options = WorldOptions { blob: Some(blob.0.clone()), ..WorldOptions::new("download") };
    let Some(test) = netns::build(&options)? else { return Ok(()) };
    test.net.instance.record_path(&blob.0)?;
    let sha = download::make_blob(&blob.0, GIB)?;
    let test = test.start()?;
    for target in test.web()? {
        let (bytes, got, time) = download::fetch(&test.net.client, target, "/blob")?;
        assert_eq!(bytes, GIB);
        assert_eq!(got, sha, "SHA-256 of 1 GiB from {target}");
        println!("1 GiB from {target} in {:.1} s", time.as_secs_f64());
    }
    test.end()
}

#[test]
fn a_thousand_connections_are_open_at_once() -> Result<()> {
    let Some(test) = netns::begin("concurrent")? else { return Ok(()) };
    for target in test.web()? {
        let sources = test.net.client_addresses(target.ip());
        let answers = load::all_at_once(&test.net.client, &sources, target, CONCURRENT)?;
        assert_eq!(answers.values().sum::<u64>(), CONCURRENT as u64);
        println!("{CONCURRENT} connections to {target} at once: {answers:?}");
    }
    test.end()
}
