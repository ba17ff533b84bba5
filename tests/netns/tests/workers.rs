//! Two workers share the ports of one gateway.

use anyhow::{Result, ensure};
use rig::config::GatewayOptions;
use rig::lines::LineClients;
use rig::plan;
use rig::world::WorldOptions;
use std::net::SocketAddr;

#[test]
fn two_workers_serve_http() -> Result<()> {
    let gateway = GatewayOptions { cores: vec![1, 0], ..GatewayOptions::default() };
    let options = WorldOptions { gateway, ..WorldOptions::new("workers") };
    let Some(test) = netns::build(&options)? else { return Ok(()) };
    let test = test.start()?;
    let targets: Vec<SocketAddr> = test.http_targets()?.iter().map(|(_, at)| *at).collect();
    let outcome = test.load(&targets, 3_000)?;
    outcome.check_complete()?;
    outcome.check_even(&test.names(), 0.1)?;
    for address in test.addresses("echo")? {
        let target = SocketAddr::new(address, plan::ECHO_PORT);
        let sources = test.net.client_addresses(address);
        let lines = LineClients::open(&test.net.client, &sources, target, 20, |_| true)?;
        lines.wait_for_lines(10);
        lines.stop()?.check()?;
    }
    let reading = test.settle()?;
    assert_eq!(reading.workers.workers.len(), 2);
    for row in &reading.workers.workers {
        println!("worker {}: {} inserts, {:?}", row.worker, row.inserts, row.ledger);
        ensure!(row.inserts > 0, "worker {} made no connection", row.worker);
    }
    // A kernel device can't know who owns a reply: some must have been handed over.
    ensure!(reading.total().handed_in > 0, "nothing was handed over: {:?}", reading.total());
    test.end()
}
