//! API servers that end, fall silent and forget, under load: no connection breaks, the gateway says
//! what it doesn't know, and is right again soon after.

use anyhow::{Context, Result, ensure};
use kubernetes::outage::{Desk, NOTICED, Traffic, allowed, wait_for_step};
use kubernetes::{Test, gate};
use rig::cluster::{AuditMark, ClusterOptions};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long the API server is away, in seconds; less for who hasn't the time.
const AWAY: (&str, u64) = ("RIG_AWAY_SECONDS", 60);

#[test]
fn api_servers_end_fall_silent_and_forget() -> Result<()> {
    // Kubelets lose the API server as well, and their nodes are not to be given up for that: from
    // then on, until one of their pods has answered the gateway's own probe, nobody is known to
    // serve, and new connections are refused for up to a second. That is shown by `probes.rs`; here
    // no request may fail.
    let node_grace = away()? + 2 * NOTICED;
    let options = ClusterOptions { node_grace, ..ClusterOptions::default() };
    let Some(mut test) = kubernetes::begin("faults", &options, 2)? else { return Ok(()) };
    test.start_gateway()?;
    let second = test.cluster.add_api_server()?;
    let mut desk = Desk::open(&test)?;
    let traffic = Traffic::start(&test, &desk)?;
    stopped(&mut test, &mut desk, second)?;
    frozen(&mut test, &mut desk, second)?;
    forgotten(&mut test, &mut desk, second)?;
    traffic.end()?;
    settle(&test)?;
    started_without(&mut test, &mut desk, second)?;
    settle(&test)
}

fn away() -> Result<Duration> {
    let seconds = std::env::var(AWAY.0).ok().map(|text| text.parse()).transpose()?;
    Ok(Duration::from_secs(seconds.unwrap_or(AWAY.1)))
}

/// The ledger is exact. What was refused isn't looked at: an API server that has just started
/// refuses what it hasn't read the rules for yet.
fn settle(test: &Test) -> Result<()> {
    println!("ledger: {}", test.world.settle()?);
    test.world.check_kernel_forwards_nothing()
}

/// The gateway's API server ends, the cluster changes by way of another one, and it starts again.
fn stopped(test: &mut Test, desk: &mut Desk, second: usize) -> Result<()> {
    let away = away()?;
    desk.change(test, 0)?;
    test.cluster.kill_api_server(0)?;
    let begun = Instant::now();
    wait_for_step(test, false, NOTICED)?;
    let noticed = begun.elapsed();
    desk.change(test, second)?;
    let admin = test.world.admin()?;
    while begun.elapsed() < away {
        let state = admin.status()?.source_state;
        ensure!(!state.in_step, "in step with an API server that is away: {state:?}");
        sleep(Duration::from_millis(500));
    }
    // What people and their alerts are told.
    let said = admin.text(&["status"])?;
    ensure!(said.contains("not in step for ") && said.contains("can't be reached"), "{said}");
    println!(
        "API server away for {:.1} s: noticed after {:.2} s",
        begun.elapsed().as_secs_f64(),
        noticed.as_secs_f64()
    );
    told_the_truth(test, begun)?;
    test.cluster.start_api_server(0)?;
    desk.right_after(test, "API server started again", Instant::now())?;
    back_in_step(test)
}

/// The metrics say that nothing was heard since then, and no more.
fn told_the_truth(test: &Test, begun: Instant) -> Result<()> {
    let admin = test.world.admin()?;
    let least = begun.elapsed().as_secs_f64();
    let stale = admin.metric("headgate_source_stale_seconds")?;
    let most = begun.elapsed().as_secs_f64();
    println!("  stale for {stale:.1} s by the metric, of {most:.1} s");
    // A watch may have been quiet for a while before.
    let quiet = NOTICED.as_secs_f64();
    ensure!((least - 1.0..most + quiet).contains(&stale), "stale for {stale} s after {least} s");
    ensure!(admin.metric("headgate_source_in_step")? == 0.0, "in step by the metric");
    Ok(())
}

/// And says so everywhere.
fn back_in_step(test: &Test) -> Result<()> {
    wait_for_step(test, true, allowed().0)?;
    let admin = test.world.admin()?;
    ensure!(admin.metric("headgate_source_in_step")? == 1.0, "not in step by the metric");
    let stale = admin.metric("headgate_source_stale_seconds")?;
    ensure!(stale == 0.0, "in step, and stale for {stale} s");
    Ok(())
}

/// The gateway's API server falls silent, its connections stay open; the shared address moves to
/// another one.
fn frozen(test: &mut Test, desk: &mut Desk, second: usize) -> Result<()> {
    test.cluster.freeze_api_server(0)?;
    let begun = Instant::now();
    wait_for_step(test, false, NOTICED)?;
    println!("silence was noticed after {:.2} s", begun.elapsed().as_secs_f64());
    told_the_truth(test, begun)?;
    desk.change(test, second)?;
    test.cluster.move_shared_address(second)?;
    desk.right_after(test, "address moved away from a frozen API server", Instant::now())?;
    back_in_step(test)?;
    test.cluster.thaw_api_server(0)
}

/// The gateway is cut off while what it has seen last is forgotten by etcd and all API servers.
fn forgotten(test: &mut Test, desk: &mut Desk, second: usize) -> Result<()> {
    let gateway = test.world.net.gateway.clone();
    let relists = test.world.admin()?.status()?.source_state.relists;
    test.cluster.cut(&gateway, true)?;
    let begun = Instant::now();
    wait_for_step(test, false, NOTICED)?;
    println!("the cut was noticed after {:.2} s", begun.elapsed().as_secs_f64());
    told_the_truth(test, begun)?;
    desk.change(test, second)?;
    test.cluster.kill_api_server(second)?;
    test.cluster.compact_etcd()?;
    test.cluster.start_api_server(second)?;
    let mark = test.cluster.audit_mark();
    test.cluster.cut(&gateway, false)?;
    desk.right_after(test, "cut ended, its watches' versions forgotten", Instant::now())?;
    back_in_step(test)?;
    check_listed_anew(test, &mark, relists)?;

    test.cluster.cut(&gateway, true)?;
    let begun = Instant::now();
    wait_for_step(test, false, NOTICED)?;
    told_the_truth(test, begun)?;
    desk.change(test, second)?;
    test.cluster.cut(&gateway, false)?;
    desk.right_after(test, "cut ended", Instant::now())?;
    back_in_step(test)
}

/// Watches were told 410, and the lists after that were quorum reads.
fn check_listed_anew(test: &Test, mark: &AuditMark, relists: u64) -> Result<()> {
    let now = test.world.admin()?.status()?.source_state.relists;
    ensure!(now > relists, "nothing was listed anew: {relists} before, {now} now");
    let entries = test.cluster.audit(mark)?;
    let lists: Vec<&str> = entries
        .iter()
        .filter(|entry| entry.user.username == gate::ACCOUNT && entry.verb == "list")
        .map(|entry| &*entry.uri)
        .collect();
    println!("listed anew: {lists:?}");
    let slices = lists.iter().any(|uri| uri.contains("/endpointslices"));
    ensure!(slices && lists.iter().all(|uri| !uri.contains("resourceVersion=")), "{lists:?}");
    Ok(())
}

/// A gateway starts where no API server is.
fn started_without(test: &mut Test, desk: &mut Desk, second: usize) -> Result<()> {
    test.world.gateway()?.stop()?;
    test.cluster.kill_api_server(0)?;
    test.cluster.kill_api_server(second)?;
    let begun = Instant::now();
    test.world.start_gateway()?;
    desk.is_served(test)?;
    let gateway = test.world.gateway.as_ref().context("gateway")?;
    println!(
        "started without an API server: ready after {:.2} s, everything answers after {:.2} s",
        gateway.ready_after.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    let state = test.world.admin()?.status()?.source_state;
    ensure!(!state.loaded && !state.in_step, "{state:?}");
    let traffic = Traffic::start(test, desk)?;
    test.cluster.start_api_server(second)?;
    let since = Instant::now();
    wait_for_step(test, true, allowed().0)?;
    println!("in step {:.2} s after the API server is ready", since.elapsed().as_secs_f64());
    test.cluster.start_api_server(0)?;
    desk.change(test, 0)?;
    desk.right_after(test, "changed after a start without an API server", Instant::now())?;
    traffic.end()
}
