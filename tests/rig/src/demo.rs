//! The demo: real clients, a gateway, real servers, and every number measured in this very run.

mod cluster;
mod state;
mod steps;

pub use state::{FOLDER, enter, headgate, kubectl};

use crate::cluster::Cluster;
use crate::lines::LineClients;
use crate::world::{World, WorldOptions};
use crate::{hugepages, instance};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use state::State;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Requests of the demo with `--check`, and with a person in front.
const REQUESTS: [usize; 2] = [20_000, 3_000];

/// The last line of `--check`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Requests while nothing changed, to all addresses.
    pub requests: u64,
    /// Requests without a whole and right answer, also those that were made under changes.
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
    // Removed in this order.
    lines: Option<LineClients>,
    cluster: Option<Cluster>,
    world: World,
    summary: Summary,
    problems: Vec<String>,
    requests: usize,
}

/// Where the demo's Services come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder of manifests.
    Manifests,
    /// A real Kubernetes cluster.
    Kubernetes,
}

type Step = fn(&mut Demo) -> Result<String>;

impl Kind {
    const fn steps(self) -> &'static [Step] {
        match self {
            Self::Manifests => {
                &[Demo::serve, Demo::drain, Demo::refuse, Demo::explain, Demo::account]
            }
            Self::Kubernetes => &[
                Demo::apply,
                Demo::serve_from_pods,
                Demo::scale,
                Demo::roll,
                Demo::delete_pod,
                Demo::unready,
                Demo::refuse,
                Demo::explain,
                Demo::story,
                Demo::account,
            ],
        }
    }
    /// The world, and [`FOLDER`] with what a person may edit.
    fn world(self) -> Result<World> {
        let folder = Path::new(FOLDER);
        let options = WorldOptions::new("demo");
        let world = match self {
            Self::Manifests => {
                World::build(&WorldOptions { manifests: Some(folder.into()), ..options })?
            }
            Self::Kubernetes => {
                let world = World::build(&WorldOptions { backends: 0, ..options })?;
                std::fs::create_dir(folder).context(FOLDER)?;
                world
            }
        };
        world.net.instance.record_path(folder)?;
        Ok(world)
    }
}

/// Runs the demo; true where all is well. Without `check` it then stays up until Ctrl-C.
pub fn run(kind: Kind, check: bool) -> Result<bool> {
    let begun = Instant::now();
    instance::sweep()?;
    if Path::new(FOLDER).exists() {
        bail!("a demo runs already: end it with Ctrl-C where it was started, or `./run clean`");
    }
    let mut demo = Demo {
        lines: None,
        cluster: None,
        world: kind.world()?,
        summary: Summary::default(),
        problems: Vec::new(),
        requests: REQUESTS[usize::from(!check)],
    };
    if let Err(error) = demo.start(kind) {
        if !check {
            return Err(error);
        }
        println!("FAILED to start: {error:#}");
        demo.problems.push(format!("start: {error:#}"));
        demo.summary.ledger = "not read".to_owned();
        return demo.finish(begun);
    }
    for (index, step) in kind.steps().iter().enumerate() {
        demo.step(index + 1, *step);
    }
    if check {
        return demo.finish(begun);
    }
    demo.stay()
}

impl Demo {
    fn start(&mut self, kind: Kind) -> Result<()> {
        let instance = &self.world.net.instance;
        self.world.options.huge_pages = hugepages::reserve(instance)?;
        if !self.world.options.huge_pages {
            println!(
                "warning: this machine gives no {} huge pages of 2 MiB: running without",
                hugepages::WANTED
            );
        }
        if kind == Kind::Kubernetes {
            self.start_cluster()?;
        }
        self.world.start_gateway()?;
        State::of(&self.world, self.cluster.as_ref())?.write()?;
        self.show_head()?;
        if kind == Kind::Kubernetes {
            self.show_access()?;
        }
        Ok(())
    }
    /// Runs one step. A failure is told and the others still run.
    fn step(&mut self, number: usize, work: Step) {
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
        let Self { lines, cluster, world, mut summary, problems, .. } = self;
        drop((lines, cluster, world));
        for problem in &problems {
            println!("NOT WELL: {}", problem.lines().next().unwrap_or_default());
        }
        summary.seconds = (begun.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        println!("{}", serde_json::to_string(&summary)?);
        Ok(problems.is_empty())
    }
    /// Stays up until Ctrl-C, which removes everything, or until the gateway ends by itself.
    fn stay(mut self) -> Result<bool> {
        let (edit, address) = match &self.cluster {
            None => (format!("edit {FOLDER}/web.yaml"), crate::world::WEB_ADDRESS.to_owned()),
            Some(_) => {
                let edit = "./run kubectl scale deployment/web --replicas=5".to_owned();
                (edit, self.world.addresses("web")?[0].to_string())
            }
        };
        println!(
            "Now you: {edit} · ./run in client curl {address} · ./run headgate show drops \
             · Ctrl-C removes everything",
        );
        instance::expect_signal(i32::from(!self.problems.is_empty()));
        loop {
            std::thread::sleep(Duration::from_millis(500));
            self.world.gateway()?.check_runs()?;
        }
    }
}
