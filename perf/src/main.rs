//! What a packet costs in memory, beside a reference loop in the same, interleaved run.
//!
//! These are ratios of CPU cost on this machine. They say nothing about line rate.

mod begun;
mod bound;
mod established;
mod figures;
mod flows;
mod memory;
mod packet;
mod random;
mod report;
mod steered;
mod world;

use anyhow::{Result, bail};
use clap::Parser;
use established::{LOOPS, Loop, Size};
use figures::{Spread, ratios};
use memory::HugeMemory;
use report::{Conditions, Report};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use steered::Steered;

/// Services of the sizes that are measured with many, and backends of each: counters, stamps and next
/// hops then are as cold as connections are.
const MANY: (u32, u32) = (10_000, 10);
/// Connections among them.
const AMONG_MANY: [u32; 2] = [64_000, 1_000_000];
/// Connections of two workers.
const STEERED: u32 = 64_000;

/// What a packet costs in memory, beside a reference loop.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Numbers of connections, each measured with tables of its own.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 64_000, 1_000_000])]
    connections: Vec<u32>,
    /// Backends of the one service.
    #[arg(long, default_value_t = 100)]
    backends: u32,
    /// Rounds at most; in each, each loop has one turn at each size.
    #[arg(long, default_value_t = 1_000)]
    rounds: usize,
    /// Seconds for the rounds, after which none begins.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Seed of all that is chosen at random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Established packets alone: no new connections.
    #[arg(long)]
    short: bool,
    /// One loop alone, to be looked at by a profiler. Prints no table.
    #[arg(long = "loop", value_enum)]
    alone: Option<Loop>,
    /// First packets to so many services alone, for a profiler too.
    #[arg(long, value_name = "SERVICES", conflicts_with = "alone")]
    first: Option<u32>,
    /// Fail where 1 M connections cost more than 4 times 1 k, or the prefetch gains less than 1.3.
    #[arg(long)]
    check: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut memory = HugeMemory::default();
    if let Some(services) = arguments.first {
        return first_alone(&mut memory, services, &arguments);
    }
    let mut sizes = Vec::new();
    for connections in &arguments.connections {
        if *connections == 0 {
            bail!("--connections 0: expected one at least");
        }
        let shape = (1, arguments.backends);
        sizes.push(Size::new(&mut memory, *connections, shape, arguments.seed)?);
    }
    for connections in AMONG_MANY.iter().filter(|_| !arguments.short && arguments.alone.is_none()) {
        sizes.push(Size::new(&mut memory, *connections, MANY, arguments.seed)?);
    }
    if let Some(which) = arguments.alone {
        run_alone(&mut sizes, which, &arguments)?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = measure(&mut sizes, &mut memory, &arguments)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    let failures = if arguments.check { report.failures() } else { Vec::new() };
    for failure in &failures {
        eprintln!("failed: {failure}");
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn first_alone(memory: &mut HugeMemory, services: u32, arguments: &Arguments) -> Result<ExitCode> {
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    let among = begun::Among::new(services, arguments.seed);
    let mut samples = [const { Vec::new() }; 2];
    while samples[0].len() < arguments.rounds && Instant::now() < end {
        for (samples, took) in samples.iter_mut().zip(among.turn(memory, arguments.seed)?) {
            samples.push(took);
        }
    }
    let [to_ten, to_all] = samples.map(Spread::of);
    println!(
        "first packets, {services} services: {to_ten:.0} ns to ten of them, {to_all:.0} to all"
    );
    Ok(ExitCode::SUCCESS)
}

fn run_alone(sizes: &mut [Size], which: Loop, arguments: &Arguments) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    for size in sizes {
        let mut samples = Vec::new();
        while samples.len() < arguments.rounds && Instant::now() < end {
            size.advance();
            samples.push(size.turn(which)?);
        }
        println!("{which:?} {} {:.1} ns a packet", size.connections, Spread::of(samples));
    }
    Ok(())
}

fn measure(sizes: &mut [Size], memory: &mut HugeMemory, arguments: &Arguments) -> Result<Report> {
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    let mut samples = vec![[const { Vec::<f64>::new() }; LOOPS.len()]; sizes.len()];
    let mut rounds = 0;
    let mut steered = match arguments.short {
        true => None,
        false => Some(Steered::new(memory, STEERED, arguments.backends, arguments.seed)?),
    };
    let mut of_steered = [const { Vec::<f64>::new() }; 2];
    while rounds == 0 || rounds < arguments.rounds && Instant::now() < end {
        for (size, samples) in sizes.iter_mut().zip(&mut samples) {
            size.advance();
            // Each loop comes first, second and last in turn.
            for place in 0..LOOPS.len() {
                let which = (rounds + place) % LOOPS.len();
                samples[which].push(size.turn(LOOPS[which])?);
            }
        }
        if let Some(steered) = &mut steered {
            for (samples, took) in of_steered.iter_mut().zip(steered.turn()?) {
                samples.push(took);
            }
        }
        rounds += 1;
    }
    let described = memory.describe();
    let mut established = Vec::new();
    for (size, [with, bound, without]) in sizes.iter().zip(&samples) {
        size.check_counters()?;
        established.push(report::Established {
            connections: size.connections,
            services: size.services,
            bytes_a_connection: size.memory_bytes as f64 / f64::from(size.connections),
            pipeline: Spread::of(with.iter().copied()),
            bound: Spread::of(bound.iter().copied()),
            without_prefetch: Spread::of(without.iter().copied()),
            pipeline_to_bound: ratios(with, bound),
            prefetch_gain: ratios(without, with),
            growth: ratios(with, &samples[0][0]),
            forwarded: size.forwarded,
        });
    }
    let mut report = Report {
        conditions: Conditions::now(
            arguments.seed,
            rounds,
            established::TURN_PACKETS,
            arguments.backends,
            described,
        ),
        established,
        steered: steered.map(|steered| report::Steered {
            connections: steered.connections,
            handed_over: steered.forwarded[1] as f64 / steered.forwarded[0] as f64,
            packet: Spread::of(of_steered[0].iter().copied()),
            to_bound: ratios(&of_steered[0], &of_steered[1]),
        }),
        begun: None,
        first: Vec::new(),
    };
    if !arguments.short {
        measure_rare(&mut report, sizes, memory, arguments.seed)?;
    }
    Ok(report)
}

/// What happens less often than once a packet.
fn measure_rare(
    report: &mut Report,
    sizes: &mut [Size],
    memory: &mut HugeMemory,
    seed: u64,
) -> Result<()> {
    const TURNS: usize = 7;
    let Some(largest) =
        sizes.iter_mut().filter(|size| size.services == 1).max_by_key(|size| size.connections)
    else {
        return Ok(());
    };
    let [mut empty, mut crowded, mut packets, mut bound] = [const { Vec::new() }; 4];
    for _ in 0..TURNS {
        let begun = begun::turn(memory, seed)?;
        empty.push(begun.into_empty);
        crowded.push(begun.at_90_percent);
        largest.advance();
        packets.push(largest.turn(Loop::Pipeline)?);
        bound.push(largest.turn(Loop::Bound)?);
    }
    report.begun = Some(report::Begun {
        empty_to_established: ratios(&packets, &empty).median,
        to_bound: ratios(&empty, &bound),
        crowded_to_established: ratios(&packets, &crowded).median,
        into_empty: Spread::of(empty),
        at_90_percent: Spread::of(crowded),
    });
    let among = [10, 1_000, 10_000].map(|services| begun::Among::new(services, seed));
    let mut first = [const { [const { Vec::<f64>::new() }; 3] }; 3];
    for _ in 0..TURNS {
        for (among, samples) in among.iter().zip(&mut first) {
            let turn = among.turn(memory, seed)?;
            samples[0].push(turn[0]);
            samples[1].push(turn[1]);
            samples[2].push(largest.turn(Loop::Bound)?);
        }
    }
    for (among, samples) in among.iter().zip(&first) {
        report.first.push(report::First {
            services: among.services,
            to_ten: Spread::of(samples[0].iter().copied()),
            to_ten_ratio: ratios(&samples[0], &first[0][0]),
            to_all: Spread::of(samples[1].iter().copied()),
            to_all_to_bound: ratios(&samples[1], &samples[2]),
        });
    }
    Ok(())
}
