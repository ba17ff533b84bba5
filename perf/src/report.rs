//! What a run has found, as a table and as JSON.

use crate::figures::Spread;
use serde::Serialize;
use std::fmt;
use std::process::Command;

/// 1 M connections may cost so many times what 1 k do.
pub const GROWTH_MAX: f64 = 4.0;
/// Leaving the prefetch out at 1 M has to cost so many times as much.
pub const PREFETCH_GAIN_MIN: f64 = 1.3;

/// Under what a run was made.
#[derive(Clone, Debug, Serialize)]
pub struct Conditions {
    /// Commit of the sources, with `+` where they had changes.
    pub commit: String,
    /// The processor.
    pub cpu: String,
    /// Compiler, profile and flags.
    pub build: String,
    /// Where the tables lay.
    pub memory: String,
    /// Seed of all that was chosen at random.
    pub seed: u64,
    /// Rounds: each loop had one turn at each size in each.
    pub rounds: usize,
    /// Packets that a turn timed.
    pub packets_a_turn: usize,
    /// Backends of the one service.
    pub backends: u32,
    /// The load of the machine over the last minute: other programs cost time.
    pub load: String,
}

/// Established packets at one size. Times in nanoseconds a packet.
#[derive(Clone, Debug, Serialize)]
pub struct Established {
    /// Connections in the table.
    pub connections: u32,
    /// Services that they are spread over.
    pub services: u32,
    /// Bytes of table for each, both directions.
    pub bytes_a_connection: f64,
    /// The pipeline.
    pub pipeline: Spread,
    /// The reference loop.
    pub bound: Spread,
    /// The pipeline without its prefetches.
    pub without_prefetch: Spread,
    /// Pipeline against reference.
    pub pipeline_to_bound: Spread,
    /// Without against with prefetches.
    pub prefetch_gain: Spread,
    /// Pipeline against the pipeline at the smallest size.
    pub growth: Spread,
    /// Packets that both pipelines forwarded, as their counters confirm.
    pub forwarded: u64,
}

/// New connections. Times in nanoseconds a connection.
#[derive(Clone, Debug, Serialize)]
pub struct Begun {
    /// Into an empty table.
    pub into_empty: Spread,
    /// At 90 % of the NAT ports taken.
    pub at_90_percent: Spread,
    /// Into an empty table, against a packet of the reference at the largest size.
    pub to_bound: Spread,
    /// Inserts a second into an empty table against established packets a second at 1 M.
    pub empty_to_established: f64,
    /// The same at 90 %.
    pub crowded_to_established: f64,
}

/// First packets among services. Times in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct First {
    /// Services.
    pub services: u32,
    /// To ten of them.
    pub to_ten: Spread,
    /// To ten of them, against the smallest number of services.
    pub to_ten_ratio: Spread,
    /// To all of them.
    pub to_all: Spread,
    /// To all of them, against a packet of the reference at the largest size.
    pub to_all_to_bound: Spread,
}

/// Two workers on one core, of which one gets all packets. Times in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Steered {
    /// Connections of both.
    pub connections: u32,
    /// Share of the packets that were handed over.
    pub handed_over: f64,
    /// A packet, on both workers together.
    pub packet: Spread,
    /// Against the reference.
    pub to_bound: Spread,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Under what.
    pub conditions: Conditions,
    /// By size.
    pub established: Vec<Established>,
    /// Hand-over.
    pub steered: Option<Steered>,
    /// New connections.
    pub begun: Option<Begun>,
    /// By number of services.
    pub first: Vec<First>,
}

impl Report {
    /// What is not as it must be.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let Some(smallest) = self.established.iter().map(|e| e.connections).min() else {
            return failures;
        };
        let at = |size| self.established.iter().find(|e| (e.connections, e.services) == (size, 1));
        let Some(million) = at(1_000_000).filter(|_| smallest <= 1_000) else {
            failures.push("--check needs --connections with 1000 and 1000000".to_owned());
            return failures;
        };
        let (growth, gain) = (million.growth.median, million.prefetch_gain.median);
        if growth > GROWTH_MAX {
            failures.push(format!(
                "1 M connections cost {growth:.2} times 1 k, {GROWTH_MAX} at most are allowed"
            ));
        }
        if gain < PREFETCH_GAIN_MIN {
            failures.push(format!(
                "without the prefetch 1 M connections cost {gain:.2} times as much, expected \
                 {PREFETCH_GAIN_MIN} at least"
            ));
        }
        failures
    }
}

impl Conditions {
    /// Asks git, the processor and the compiler.
    pub fn now(
        seed: u64,
        rounds: usize,
        packets_a_turn: usize,
        backends: u32,
        memory: String,
    ) -> Self {
        let commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
        let sources = ["status", "--porcelain", "--", "dataplane/pipeline/src", "perf/src"];
        let changed = git(&sources).is_some_and(|text| !text.is_empty());
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = |name: &str| {
            let line = cpus.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let flags = env!("BENCH_RUSTFLAGS");
        Self {
            commit: commit + if changed { "+" } else { "" },
            cpu: format!(
                "{} (family {} model {})",
                cpu("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
                cpu("cpu family").unwrap_or_default(),
                cpu("model\t").unwrap_or_default()
            ),
            build: format!(
                "{}, {}, RUSTFLAGS \"{flags}\"",
                env!("BENCH_RUSTC"),
                env!("BENCH_PROFILE")
            ),
            memory,
            seed,
            rounds,
            packets_a_turn,
            backends,
            load: load.split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let output = Command::new("git").args(["-C", root]).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = f.precision().unwrap_or(1);
        let Self { median, min, max } = self;
        write!(f, "{median:.precision$} ({min:.precision$}-{max:.precision$})")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.conditions;
        writeln!(f, "commit {} · {}", c.commit, c.build)?;
        writeln!(f, "cpu {} · load {} · one core, in memory", c.cpu, c.load)?;
        writeln!(f, "memory {}", c.memory)?;
        writeln!(
            f,
            "seed {} · {} rounds of {} packets a turn · {} backends",
            c.seed, c.rounds, c.packets_a_turn, c.backends
        )?;
        writeln!(f, "median (least-largest); ratios are medians of ratios within a round\n")?;
        self.show_established(f)?;
        if let Some(steered) = &self.steered {
            let Steered { connections, handed_over, packet, to_bound } = steered;
            writeln!(f, "\ntwo workers on this core, all packets to the queue of one of them")?;
            writeln!(
                f,
                "  {connections} connections, {:.0} % handed over: {packet:.1} ns a packet, {:.2} to bound",
                100.0 * handed_over,
                to_bound.median
            )?;
        }
        if let Some(begun) = &self.begun {
            writeln!(
                f,
                "\nnew connections, ns each; inserts/s against established packets/s at 1 M; to bound"
            )?;
            let row = |name: &str, spread: &Spread, ratio: f64| {
                format!("  {name:<44} {:<22} {ratio:.2}", format!("{spread:.0}"))
            };
            let to_bound = begun.to_bound.median;
            writeln!(
                f,
                "{}   {to_bound:.1}",
                row("empty table, ports free", &begun.into_empty, begun.empty_to_established)
            )?;
            let name = "90 % of ports taken, evicting";
            writeln!(f, "{}", row(name, &begun.at_90_percent, begun.crowded_to_established))?;
        }
        if !self.first.is_empty() {
            writeln!(f, "\nfirst packet by number of services, ns")?;
            writeln!(
                f,
                "  {:>8}  {:<22} {:<8} {:<22} to bound",
                "services", "to ten of them", "ratio", "to all"
            )?;
            for first in &self.first {
                let (ten, ratio) =
                    (format!("{:.0}", first.to_ten), format!("{:.2}", first.to_ten_ratio));
                let (all, bound) = (format!("{:.0}", first.to_all), first.to_all_to_bound.median);
                writeln!(f, "  {:>8}  {ten:<22} {ratio:<8} {all:<22} {bound:.1}", first.services)?;
            }
        }
        Ok(())
    }
}

impl Report {
    fn show_established(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "established connections at random, both directions, ns a packet")?;
        writeln!(
            f,
            "  {:>11} {:>8}  {:<20} {:<20} {:<20} {:>8} {:>9} {:>7} {:>7}",
            "connections",
            "services",
            "pipeline",
            "bound",
            "without prefetch",
            "to bound",
            "prefetch",
            "growth",
            "bytes"
        )?;
        for e in &self.established {
            writeln!(
                f,
                "  {:>11} {:>8}  {:<20} {:<20} {:<20} {:>8.2} {:>9.2} {:>7.2} {:>7.0}",
                e.connections,
                e.services,
                format!("{:.1}", e.pipeline),
                format!("{:.1}", e.bound),
                format!("{:.1}", e.without_prefetch),
                e.pipeline_to_bound.median,
                e.prefetch_gain.median,
                e.growth.median,
                e.bytes_a_connection
            )?;
        }
        let forwarded: u64 = self.established.iter().map(|e| e.forwarded).sum();
        writeln!(f, "  {forwarded} packets through the pipelines, all forwarded: counters agree")
    }
}
