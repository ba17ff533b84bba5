//! Under pressure: ports that are used again while their backend still waits, and a flood beside
//! what must go on.

use anyhow::{Context, Result, anyhow, bail, ensure};
use model::drops::DropReason;
use netns::Test;
use rig::command::output_of;
use rig::flood::{Flood, Target};
use rig::heartbeat::{Beat, Beats, Heartbeat};
use rig::load::{Load, Outcome, Running};
use rig::net::{Host, KernelCounters};
use rig::world::{WEB_ADDRESS, WorldOptions};
use rig::{plan, process, snmp};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

/// Clients, each with timestamps of its own.
const CLIENTS: u16 = 8;
/// Connections a second of all of them, and for how many seconds. Twice as many use ports again
/// in a third of the time.
const SHORT: (u32, u32) = (6_000, 15);
/// The same where `PAWS_SECONDS` says for how long.
const RATE: u32 = 3_000;
/// Open at a time by each of them.
const OPEN: usize = 8;
/// A SYN that was lost is sent again after a second.
const SYN_AGAIN: Duration = Duration::from_millis(900);

fn size() -> Result<(u32, u32)> {
    let seconds = std::env::var("PAWS_SECONDS").ok().map(|text| text.parse()).transpose()?;
    Ok(seconds.map_or(SHORT, |seconds| (RATE, seconds)))
}

/// All clients at once, at so many a second in all, or as many as the machine does.
fn connect(clients: &[Host], target: SocketAddr, (rate, seconds): (u32, u32)) -> Result<Outcome> {
    let each = rate / clients.len() as u32;
    let requests = (each * seconds) as usize;
    let load = Load { targets: vec![target], sources: vec![], requests, concurrency: OPEN };
    let running = |client: &Host| Running::paced(&client.namespace, &load, each);
    let mut all = clients.iter().map(running).collect::<Vec<_>>().into_iter();
    let mut outcome = all.next().context("no client")?.join()?;
    for one in all {
        outcome.add(one.join()?)?;
    }
    Ok(outcome)
}

fn show(name: &str, times: &hdrhistogram::Histogram<u64>) {
    let at = |quantile| times.value_at_quantile(quantile);
    let (half, most, slowest) = (at(0.5), at(0.99), at(0.9999));
    println!("{name}: half within {half} us, 99 % {most}, 99.99 % {slowest}, all {}", times.max());
}

fn missed(test: &Test) -> Result<u64> {
    Ok(test.net.kernel_counters()?.iter().map(|KernelCounters { missed, .. }| missed).sum())
}

/// One NAT address has 64,512 ports for a backend, which keeps each for a minute after its end: from
/// the 22nd second on no port is free, and a host drops the SYN whose timestamp comes before that of
/// the connection that it waits for.
#[test]
fn a_port_is_used_again_by_whoever_its_backend_takes() -> Result<()> {
    let options = WorldOptions { backends: 1, ..WorldOptions::new("paws") };
    let Some(test) = netns::build(&options)? else { return Ok(()) };
    let test = test.start()?;
    let clients = test.net.crowd_in_front(CLIENTS)?;
    let backend = &test.net.backends[0].namespace;
    let missed_before = missed(&test)?;
    let outcome = connect(&clients, test.web()?[0], size()?)?;
    let (per_second, waiting) =
        (outcome.requests as f64 / outcome.elapsed.as_secs_f64(), snmp::waiting(backend)?);
    println!("{} connections, {per_second:.0} a second; {waiting} wait", outcome.requests);
    show("connect", &outcome.connect_us);
    show("to the end", &outcome.whole_us);
    let again = clients.iter().map(|client| snmp::tcp_ext(&client.namespace, "TCPSynRetrans"));
    let syns = again.sum::<Result<u64>>()?;
    let missed = missed(&test)? - missed_before;
    let dropped = snmp::too_old(backend)?;
    println!("PAWSTimewait {dropped}, SYNs sent again {syns}, missed by the devices {missed}");
    outcome.check_complete()?;
    ensure!(waiting > 0, "the backend doesn't close first");
    ensure!(outcome.requests > 64_512, "{} connections used no port again", outcome.requests);
    ensure!(dropped == 0, "the backend dropped {dropped} SYNs as old");
    ensure!(syns <= missed, "{syns} SYNs were sent again, {missed} packets weren't fetched");
    let longest = Duration::from_micros(outcome.whole_us.max());
    ensure!(longest < SYN_AGAIN || missed > 0, "a connection took {longest:?}");
    test.end()
}

/// What a flood is sent for.
const FLOOD: Duration = Duration::from_secs(10);
/// Probes a second.
const PROBES: u32 = 2;
/// So many missing packets in a row end a BFD session.
const BEATS: usize = 3;

/// What went on beside a flood.
struct Beside {
    requests: Outcome,
    probes: Outcome,
    beats: Beats,
}

/// Whoever sends on the front link is told of each packet that the device has no place for, knows
/// the gateway for good, and is answered wherever its addresses are.
fn make_floodable(test: &Test) -> Result<Target> {
    let (client, link) = (&test.net.client, test.net.front_link());
    output_of(client.command("tc").args(["qdisc", "replace", "dev", &link, "root", "noqueue"]))?;
    let [hop, _] = plan::client(0);
    test.net.gateway.ip(&format!("route add default via {hop} dev hg-front"))?;
    let ports = test.admin()?.ports()?;
    let text = &ports.first().context("no port")?.mac;
    let SocketAddr::V4(frontend) = test.web()?[0] else { bail!("no IPv4 frontend") };
    for address in [plan::GATEWAY_FRONT[0], WEB_ADDRESS] {
        let known = format!("neigh replace {address} lladdr {text} dev {link} nud permanent");
        client.ip(&known)?;
    }
    let bytes: Result<Vec<u8>, _> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
    let mac = bytes?.try_into().map_err(|_| anyhow!("\"{text}\" is no MAC"))?;
    Ok(Target { link, mac, frontend })
}

fn flood(test: &Test, target: &Target) -> Result<Beside> {
    let (client, gateway) = (&test.net.client, &test.net.gateway);
    let targets = test.web()?.to_vec();
    let load = Load { targets, sources: test.sources(), requests: 0, concurrency: 16 };
    let backend = SocketAddr::new(test.net.backends[0].addresses[0], plan::HTTP_PORT);
    let requests = PROBES as usize * FLOOD.as_secs() as usize;
    let probe = Load { targets: vec![backend], sources: vec![], requests, concurrency: 4 };
    let neighbour = (client, plan::client(0)[0]);
    let beats = Heartbeat::start(neighbour, (gateway, plan::GATEWAY_FRONT[0].parse()?))?;
    let flood = Flood::start(client, target);
    let requests = Running::endless(client, &load);
    let probes = Running::paced(gateway, &probe, PROBES);
    sleep(FLOOD);
    println!("the flood: {:?}", flood.stop()?);
    Ok(Beside { beats: beats.stop()?, requests: requests.stop()?, probes: probes.join()? })
}

fn tell(beside: &Beside) {
    for (target, outcome) in &beside.requests.by_target {
        let answered: u64 = outcome.by_backend.values().sum();
        println!("{target}: {answered} requests answered, {} not", outcome.failed);
    }
    show("connect", &beside.requests.connect_us);
    println!("probes: {} of {} failed", beside.probes.failed, beside.probes.requests);
    show("to the end", &beside.probes.whole_us);
    let count = |what| beside.beats.count(what);
    println!(
        "BFD: {} came, {} had no place in the device's queue, {} were lost behind it",
        count(Beat::Came),
        count(Beat::Refused),
        count(Beat::Lost)
    );
}

/// What the device's own queue has no place for is nobody's fault here, and counted apart.
#[test]
fn beside_a_flood_the_host_hears_its_neighbours_and_its_backends() -> Result<()> {
    let Some(mut test) = netns::begin("flooded")? else { return Ok(()) };
    let pid = test.gateway()?.pid();
    let waited = || process::waited_for_core(pid, "worker-0");
    let target = make_floodable(&test)?;
    let before = (test.net.kernel_counters()?[1].missed, waited()?);
    let beside = flood(&test, &target)?;
    tell(&beside);
    let missed = test.net.kernel_counters()?[1].missed - before.0;
    let waited = waited()?.saturating_sub(before.1);
    let syns = snmp::tcp_ext(&test.net.gateway, "TCPSynRetrans")?;
    println!("SYNs of probes sent again {syns}, missed by the device at the back {missed}");
    println!("the worker waited for its core for {waited:.1?}");
    let reading = test.settle()?;
    let (mirror, beats) = (reading.workers.mirror, &beside.beats);
    ensure!(mirror.dropped_to_workers + mirror.dropped_to_kernel == 0, "{mirror:?}");
    let limited = reading.drops.iter().find(|row| row.reason == DropReason::HostLimited);
    ensure!(limited.is_none_or(|row| row.packets == 0), "{limited:?}");
    ensure!(beats.count(Beat::Lost) == 0, "{beats:?}");
    ensure!(syns <= missed, "{syns} SYNs of probes were sent again, the device missed {missed}");
    // A worker without its core fetches nothing: that is the machine's fault.
    if waited >= FLOOD / 2 {
        println!("not judged: gaps between BFD packets, and whether each probe was answered");
    } else {
        ensure!(beats.gap_max() < BEATS, "{beats:?}");
        beside.probes.check_complete()?;
    }
    test.end()
}
