//! What must outlive a fault, what changes meanwhile, and how long it takes until that is seen.

use crate::gate::list;
use crate::manifests::{HTTP, balanced, echo, web};
use crate::{Test, wait};
use anyhow::{Context, Result, bail, ensure};
use rig::command::feed;
use rig::lines::LineClients;
use rig::load::{Load, Running};
use rig::plan;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How soon after a fault the state is to be right.
pub const PROMISED: Duration = Duration::from_secs(5);
/// The same on a machine that has more to do than it can, by the load of its last minute.
const PROMISED_LOADED: (f64, Duration) = (4.0, Duration::from_secs(10));
/// More than this is no excuse.
const AWAY_MAX: Duration = Duration::from_secs(30);
/// How soon it is to be noticed that nothing is heard any more.
pub const NOTICED: Duration = Duration::from_secs(60);
/// Long-lived connections in each family.
const LONG_LIVED: usize = 20;
/// Requests that are open at a time: the cluster needs the cores as well.
const CLIENTS: usize = 2;
/// Where the pods' web servers listen.
const WEB_PORT: u16 = 8080;

/// Long-lived connections and requests through the gateway.
pub struct Traffic {
    lines: Vec<LineClients>,
    load: Running,
}

impl Traffic {
    /// Starts it; the API server isn't asked.
    pub fn start(test: &Test, desk: &Desk) -> Result<Self> {
        let net = &test.world.net;
        let mut lines = Vec::new();
        for target in &desk.echo {
            let sources = net.client_addresses(target.ip());
            lines.push(LineClients::open(&net.client, &sources, *target, LONG_LIVED, |_| true)?);
        }
        let targets = desk.web.clone();
        let sources = test.world.sources();
        let load = Load { targets, sources, requests: 0, concurrency: CLIENTS };
        Ok(Self { lines, load: Running::endless(&net.client, &load) })
    }
    /// No connection broke, and no request failed.
    pub fn end(self) -> Result<()> {
        for lines in self.lines {
            lines.wait_for_lines(3);
            let report = lines.stop()?;
            println!(
                "long-lived connections: {}, lines: {}, broken: {}, slowest echo {:?}",
                report.connections, report.lines, report.broken, report.echo_max
            );
            report.check()?;
        }
        let outcome = self.load.stop()?;
        println!("requests: {}, failed: {}", outcome.requests, outcome.failed);
        ensure!(outcome.requests > 0, "no request was made");
        outcome.check_complete()
    }
}

/// A pod, as a slice names it.
#[derive(Clone, Debug)]
struct Pod {
    name: String,
    addresses: [IpAddr; 2],
    node: String,
}

/// Objects that change without any controller's help, which may be away: Services without a
/// selector and their slices, written by hand.
pub struct Desk {
    pods: Vec<Pod>,
    step: usize,
    /// Where web and echo servers are reached.
    web: Vec<SocketAddr>,
    echo: Vec<SocketAddr>,
    /// Where `told` is.
    told: Vec<SocketAddr>,
}

impl Desk {
    /// Starts the pods, and writes the first state.
    pub fn open(test: &Test) -> Result<Self> {
        let yaml = [
            web("web", 3),
            echo("echo", 3, &["TCP"]),
            balanced("web", "web", HTTP),
            balanced("echo", "echo", "{name: lines, port: 7007}"),
        ];
        test.roll_out(&yaml.concat(), &["web", "echo"])?;
        test.at_workers("web", 3)?;
        test.at_workers("echo", 3)?;
        let found = test.cluster.get("pods -l app=web")?;
        let pods = list(&found["items"]).map(|pod| {
            let text = |path: &str| pod.pointer(path).and_then(|value| value.as_str());
            let address = |path| Ok::<_, anyhow::Error>(text(path).context("podIPs")?.parse()?);
            Ok(Pod {
                name: text("/metadata/name").context("name")?.to_owned(),
                addresses: [address("/status/podIPs/0/ip")?, address("/status/podIPs/1/ip")?],
                node: text("/spec/nodeName").context("nodeName")?.to_owned(),
            })
        });
        let mut desk = Self {
            pods: pods.collect::<Result<_>>()?,
            step: 0,
            web: test.targets("web", 80)?,
            echo: test.targets("echo", plan::ECHO_PORT)?,
            told: Vec::new(),
        };
        desk.change(test, 0)?;
        desk.told = test.targets("told", 80)?;
        desk.wait_until_right(test, Instant::now())?;
        Ok(desk)
    }
    fn pod(&self) -> &Pod {
        &self.pods[self.step % self.pods.len()]
    }
    fn newest(&self) -> String {
        format!("new-{}", self.step)
    }
    /// The next state, by way of the API server of this index: `told` is served by another pod,
    /// one Service goes and another one comes.
    pub fn change(&mut self, test: &Test, server: usize) -> Result<()> {
        let former = self.newest();
        self.step += 1;
        let yaml = service("told", self.pod()) + &service(&self.newest(), self.pod());
        feed(test.cluster.kubectl_command(server)?.args(["apply", "-f", "-"]), &yaml)?;
        let mut delete = test.cluster.kubectl_command(server)?;
        delete.args(["delete", "--ignore-not-found", "--wait=false"]);
        let gone = ["svc", "endpointslice", "endpointslice"]
            .into_iter()
            .zip([former.clone(), format!("{former}-4"), format!("{former}-6")])
            .map(|(kind, name)| format!("{kind}/{name}"));
        rig::command::output_of(delete.args(gone)).map(drop)
    }
    /// Whether the workers run with the latest state, but for addresses that are to be given.
    fn is_told(&self, test: &Test) -> Result<bool> {
        let admin = test.world.admin()?;
        let wanted: BTreeSet<SocketAddr> =
            self.pod().addresses.into_iter().map(|ip| SocketAddr::new(ip, WEB_PORT)).collect();
        let now: BTreeSet<SocketAddr> = admin.active("told")?.into_iter().collect();
        if now != wanted {
            return Ok(false);
        }
        let rows = admin.services()?;
        let newest = self.newest();
        let mut names = rows.iter().map(|row| &*row.status.name.name);
        let one = names.clone().filter(|name| name.starts_with("new-")).count() == 1;
        Ok(one && names.any(|name| name == newest))
    }
    /// Waits until the state is right: what was told is what the workers run with, and then the
    /// new Service has its addresses in the cluster too and is answered there. Gives the time to
    /// the first, and to all, and for how long of it this machine was away.
    pub fn wait_until_right(&self, test: &Test, since: Instant) -> Result<[Duration; 3]> {
        let before = away();
        wait("the workers run with the latest state", || self.is_told(test))?;
        test.world.admin()?.wait_for_generation()?;
        let told = since.elapsed();
        let admin = test.world.admin()?;
        let newest = self.newest();
        let mut targets = Vec::new();
        wait("the new Service has addresses", || {
            let addresses = admin.service(&newest)?.status.addresses;
            targets = addresses.into_iter().map(|ip| SocketAddr::new(ip, 80)).collect();
            let active = admin.active(&newest)?.len();
            Ok(targets.len() == 2 && active == 2)
        })?;
        let all = since.elapsed();
        let away = away().saturating_sub(before).min(AWAY_MAX);
        admin.wait_for_generation()?;
        self.answers(test, &targets)?;
        Ok([told, all, away])
    }
    /// The pod of the latest state answers at these addresses, and where `told` always was.
    fn answers(&self, test: &Test, targets: &[SocketAddr]) -> Result<()> {
        let targets = [targets, &self.told].concat();
        let outcome = test.world.load(&targets, 10 * targets.len())?;
        outcome.check_complete()?;
        let by: Vec<&String> = outcome.by_backend.keys().collect();
        ensure!(by == [&self.pod().name], "answered by {by:?}, expected {}", self.pod().name);
        Ok(())
    }
    /// What was served last is served: by the pod of the latest state, by all web servers.
    pub fn is_served(&self, test: &Test) -> Result<()> {
        self.answers(test, &[])?;
        let outcome = test.world.load(&self.web, 100)?;
        outcome.check_complete()?;
        let by = &outcome.by_backend;
        ensure!(by.len() == self.pods.len(), "answered by {by:?}");
        Ok(())
    }
    /// The same, printed and held to the promise.
    pub fn right_after(&self, test: &Test, what: &str, since: Instant) -> Result<()> {
        let [told, all, away] = self.wait_until_right(test, since)?;
        let (allowed, load) = allowed();
        println!(
            "{what}: the state is right after {:.2} s, the new Service has addresses after {:.2} s \
             (promised: {} s; allowed with a load of {load}: {} s; this machine was away for {:.2} s)",
            told.as_secs_f64(),
            all.as_secs_f64(),
            PROMISED.as_secs(),
            allowed.as_secs(),
            away.as_secs_f64()
        );
        ensure!(all < allowed + away, "{what}: right after {told:?}, all of it after {all:?}");
        Ok(())
    }
}

/// What a promise of [`PROMISED`] allows on this machine now, and its load.
pub fn allowed() -> (Duration, f64) {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
    let (limit, more) = PROMISED_LOADED;
    (if load > limit { more } else { PROMISED }, load)
}

/// How long this machine, or this process on it, did not run although it had something to do, since
/// this was asked first: a thread that sleeps again and again adds up by how much it woke too late.
fn away() -> Duration {
    const NAP: Duration = Duration::from_millis(20);
    /// What is usual on a machine that is busy.
    const USUAL: Duration = Duration::from_millis(30);
    static MS: AtomicU64 = AtomicU64::new(0);
    static COUNTS: Once = Once::new();
    COUNTS.call_once(|| {
        std::thread::spawn(|| {
            loop {
                let begun = Instant::now();
                sleep(NAP);
                let late = begun.elapsed().saturating_sub(NAP);
                if late > USUAL {
                    let late = u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
                    MS.fetch_add(late, Ordering::Relaxed);
                }
            }
        });
    });
    Duration::from_millis(MS.load(Ordering::Relaxed))
}

/// A Service whose endpoint is this pod, in both families.
fn service(name: &str, pod: &Pod) -> String {
    let port = format!("{{name: http, port: 80, targetPort: {WEB_PORT}}}");
    let mut text = balanced(name, "", &port);
    for (family, address) in [4, 6].into_iter().zip(pod.addresses) {
        text.push_str(&format!(
            "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-{family}
  labels: {{kubernetes.io/service-name: {name}}}
addressType: IPv{family}
ports: [{{name: http, port: {WEB_PORT}}}]
endpoints: [{{addresses: [\"{address}\"], nodeName: {}, conditions: {{ready: true}}}}]
---
",
            pod.node
        ));
    }
    text
}

/// Waits until the gateway says that it is in step, or that it isn't.
pub fn wait_for_step(test: &Test, in_step: bool, patience: Duration) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let state = test.world.admin()?.status()?.source_state;
        if state.in_step == in_step {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > patience {
            bail!("in step for {patience:?} is not {in_step}: {state:?}");
        }
        sleep(Duration::from_millis(50));
    }
}

/// Waits until the gateway tells of a problem with all of these words, in `headgate status`.
pub fn wait_for_problem(test: &Test, words: &[&str]) -> Result<String> {
    let mut told = String::new();
    wait(&format!("a problem with {words:?} in headgate status"), || {
        let status = test.world.admin()?.status()?;
        let all: Vec<String> = status.degraded.into_iter().map(|one| one.what).collect();
        let found = all.iter().find(|what| words.iter().all(|word| what.contains(word)));
        told = found.cloned().unwrap_or_default();
        ensure!(found.is_some(), "{all:?}");
        Ok(true)
    })?;
    Ok(told)
}
