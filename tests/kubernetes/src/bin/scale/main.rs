//! Headgate beside kube-proxy on a real API server with thousands of Services: how long a cold
//! start takes, how much memory it needs, and how long a changed endpoint takes to the last worker.

mod objects;
mod proxy;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use hdrhistogram::Histogram;
use kubernetes::Test;
use objects::Objects;
use rig::cluster::ClusterOptions;
use std::fs;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Headgate beside kube-proxy on a real API server with thousands of Services.
#[derive(Debug, Parser)]
#[command(name = "scale")]
struct Arguments {
    /// Services of type LoadBalancer.
    #[arg(long, default_value_t = 10_000)]
    services: u32,
    /// Endpoints of each.
    #[arg(long, default_value_t = 10)]
    endpoints: u32,
    /// Changes of one endpoint.
    #[arg(long, default_value_t = 500)]
    changes: u32,
    /// From one change to the next, in milliseconds.
    #[arg(long, default_value_t = 100)]
    pace_ms: u64,
    /// Seed of all that is chosen at random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// How long anything of this may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// Addresses for all the Services.
const POOL: &str = "
[[pool]]
name = \"scale\"
addresses = [\"198.18.128.0-198.18.191.255\"]
";

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let options = ClusterOptions::default();
    let Some(mut test) = kubernetes::begin("scale", &options, 1)? else { return Ok(()) };
    test.world.options.more = POOL.to_owned();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    test.start_gateway()?;
    let idle = footprint(&mut test)?;
    println!("without Services: ready after {:.1} s, {} MiB", idle.0.as_secs_f64(), idle.1);
    test.world.gateway()?.stop()?;

    let node = test.cluster.nodes().first().context("a node")?.name.clone();
    let kubeconfig = test.cluster.host_kubeconfig()?;
    let mut objects = runtime.block_on(Objects::connect(&kubeconfig, &node, arguments.seed))?;
    let begun = Instant::now();
    runtime.block_on(objects.create(arguments.services, arguments.endpoints))?;
    println!(
        "{} Services with {} endpoints are in the API server after {:.0} s",
        arguments.services,
        arguments.services * arguments.endpoints,
        begun.elapsed().as_secs_f64()
    );
    test.start_gateway()?;
    let known = runtime.block_on(until_forwarded(&test, &objects, arguments.services))?;
    let (_, mebibytes) = footprint(&mut test)?;
    println!(
        "all Services in the workers {:.1} s after the start ({:.1} s without Services); {mebibytes} \
         MiB; statuses written after {:.1} s",
        known.0.as_secs_f64(),
        idle.0.as_secs_f64(),
        known.1.as_secs_f64(),
    );
    runtime.block_on(changes(&test, &mut objects, &arguments))?;
    test.world.settle()?;
    println!("ledger: exact");
    Ok(())
}

/// Time until it was ready, and its resident memory in MiB; huge pages are not in it.
fn footprint(test: &mut Test) -> Result<(Duration, u64)> {
    let gateway = test.world.gateway()?;
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line.and_then(|rest| rest.split_whitespace().next()).unwrap_or("0").parse()?;
    Ok((gateway.ready_after, kib / 1024))
}

/// From the gateway's start: until all Services are forwarded, and until all statuses stand in
/// the API server.
async fn until_forwarded(
    test: &Test,
    objects: &Objects,
    services: u32,
) -> Result<(Duration, Duration)> {
    let admin = test.world.admin()?;
    let client = admin::Client::new(admin.socket());
    let started = Instant::now()
        .checked_sub(test.world.gateway.as_ref().context("a gateway")?.ready_after)
        .context("a clock")?;
    let begun = Instant::now();
    let mut forwarded = None;
    loop {
        let status = client.status().await?;
        let everywhere = status.generation[0] == status.generation[1];
        if forwarded.is_none() && status.service_ports >= services && everywhere {
            forwarded = Some(started.elapsed());
        }
        if let Some(forwarded) = forwarded
            && objects.with_address().await? >= services as usize
        {
            return Ok((forwarded, started.elapsed()));
        }
        ensure!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {status:?}");
        sleep(Duration::from_millis(if forwarded.is_some() { 1_000 } else { 20 })).await;
    }
}

/// Changes one endpoint after the other; how long until the last worker uses it, and what
/// kube-proxy says of the same changes.
async fn changes(test: &Test, objects: &mut Objects, arguments: &Arguments) -> Result<()> {
    let admin = test.world.admin()?;
    let client = admin::Client::new(admin.socket());
    let node = &test.cluster.nodes().first().context("a node")?.namespace;
    let before = proxy::programming(node)?;
    let mut times = Histogram::<u64>::new(3)?;
    let mut requests = Histogram::<u64>::new(3)?;
    for _ in 0..arguments.changes {
        let generation = client.workers().await?.generation_everywhere;
        let began = Instant::now();
        objects.change().await?;
        requests.record(began.elapsed().as_micros() as u64)?;
        while client.workers().await?.generation_everywhere <= generation {
            ensure!(began.elapsed() < PATIENCE, "a change isn't in use after {PATIENCE:?}");
        }
        times.record(began.elapsed().as_micros() as u64)?;
        sleep(Duration::from_millis(arguments.pace_ms)).await;
    }
    // kube-proxy writes its rules once a second at most.
    sleep(Duration::from_secs(15)).await;
    let after = proxy::programming(node)?;
    let ms = |us: u64| us as f64 / 1e3;
    println!(
        "one endpoint changed, from the request to the API server to the last worker's use, {} \
         times: p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms (the request itself: p50 {:.1}, p99 {:.1})",
        times.len(),
        ms(times.value_at_quantile(0.5)),
        ms(times.value_at_quantile(0.99)),
        ms(times.max()),
        ms(requests.value_at_quantile(0.5)),
        ms(requests.value_at_quantile(0.99)),
    );
    println!(
        "kube-proxy on the same changes, network_programming_duration: {}",
        after.since(&before)
    );
    let own = client.text("/metrics").await?;
    for line in own.lines().filter(|line| line.starts_with("headgate_network_programming_seconds"))
    {
        println!("  {line}");
    }
    Ok(())
}
