//! The demo: real clients, a gateway, real servers, and every number measured in this very run.

mod state;
mod steps;

pub use state::{FOLDER, enter, headgate};

use crate::world::{World, WorldOptions};
use crate::{hugepages, instance};
use anyhow::{Result, bail};
use serde::Serialize;
use state::State;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Requests of the demo with `--check`, and with a person in front.
const REQUESTS: [usize; 2] = [20_000, 3_000];

/// The last line of `--check`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Requests of step 1.
    pub requests: u64,
    /// Those without a whole and right answer.
    pub failed: u64,
    /// Answers by backend.
    pub by_backend: BTreeMap<String, u64>,
    /// Long-lived connections that missed a line.
    pub broken: u64,
    /// `exact`, or what differs.
    pub ledger: String,
    /// Time of all steps together.
    pub seconds: f64,
}

/// The demo while it runs.
struct Demo {
    world: World,
    summary: Summary,
    problems: Vec<String>,
    requests: usize,
}

/// Runs the demo; true where all is well. Without `check` it then stays up until Ctrl-C.
pub fn run(check: bool) -> Result<bool> {
    let begun = Instant::now();
    instance::sweep()?;
    if Path::new(FOLDER).exists() {
        bail!("a demo runs already: end it with Ctrl-C where it was started, or `./run clean`");
    }
    let options =
        WorldOptions { manifests: Some(PathBuf::from(FOLDER)), ..WorldOptions::new("demo") };
    let world = World::build(&options)?;
    world.net.instance.record_path(Path::new(FOLDER))?;
    let requests = REQUESTS[usize::from(!check)];
    let mut demo = Demo { world, summary: Summary::default(), problems: Vec::new(), requests };
    if let Err(error) = demo.start() {
        if !check {
            return Err(error);
        }
        println!("FAILED to start: {error:#}");
        demo.problems.push(format!("start: {error:#}"));
        demo.summary.ledger = "not read".to_owned();
        return demo.finish(begun);
    }
    demo.step("1", Demo::serve);
    demo.step("2", Demo::drain);
    demo.step("3", Demo::refuse);
    demo.step("4", Demo::explain);
    demo.step("5", Demo::account);
    if check {
        return demo.finish(begun);
    }
    demo.stay()
}

impl Demo {
    fn start(&mut self) -> Result<()> {
        let instance = &self.world.net.instance;
        self.world.options.huge_pages = hugepages::reserve(instance)?;
        if !self.world.options.huge_pages {
            println!(
                "warning: this machine gives no {} huge pages of 2 MiB: running without",
                hugepages::WANTED
            );
        }
        self.world.start_gateway()?;
        State::of(&self.world)?.write()?;
        self.show_head()
    }
    /// Runs one step. A failure is told and the others still run.
    fn step(&mut self, number: &str, work: fn(&mut Self) -> Result<String>) {
        match work(self) {
            Ok(line) => println!("[{number}] {line}"),
            Err(error) => {
                println!("[{number}] FAILED: {error:#}");
                println!("    the gateway's log: {}", self.world.log().display());
                self.problems.push(format!("step {number}: {error:#}"));
            }
        }
    }
    /// The end of `--check`: stops the gateway, removes everything, and prints the summary.
    fn finish(mut self, begun: Instant) -> Result<bool> {
        match self.world.gateway().and_then(|gateway| gateway.stop()) {
            Ok(time) => println!("stopped {:.0} ms after SIGTERM", time.as_secs_f64() * 1e3),
            Err(error) => self.problems.push(format!("stopping: {error:#}")),
        }
        let Self { world, mut summary, problems, .. } = self;
        drop(world);
        for problem in &problems {
            println!("NOT WELL: {}", problem.lines().next().unwrap_or_default());
        }
        summary.seconds = (begun.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        println!("{}", serde_json::to_string(&summary)?);
        Ok(problems.is_empty())
    }
    /// Stays up until Ctrl-C, which removes everything, or until the gateway ends by itself.
    fn stay(mut self) -> Result<bool> {
        println!(
            "Now you: edit {FOLDER}/web.yaml · ./run in client curl {} · ./run headgate show drops \
             · Ctrl-C removes everything",
            crate::world::WEB_ADDRESS
        );
        instance::expect_signal(i32::from(!self.problems.is_empty()));
        loop {
            std::thread::sleep(Duration::from_millis(500));
            self.world.gateway()?.check_runs()?;
        }
    }
}
