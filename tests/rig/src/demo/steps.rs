//! The steps of the demo: each does something and gives the line that says what came of it.

use super::Demo;
use crate::lines::LineClients;
use crate::load::{self, Outcome};
use crate::manifests::Service;
use crate::plan;
use anyhow::{Context, Result, bail, ensure};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

/// Longest connect that counts as good: below the first retransmit of a SYN, after a second.
const CONNECT_LIMIT: Duration = Duration::from_millis(900);
/// A refusal within this time was no time-out.
const REFUSAL_LIMIT: Duration = Duration::from_millis(500);
/// Long-lived connections of step 2.
const LONG_LIVED: usize = 100;
/// New connections after the change of step 2.
const PROBES: usize = 300;

impl Demo {
    pub(super) fn show_head(&self) -> Result<()> {
        let status = self.world.admin()?.status()?;
        let cores: Vec<String> = status.cores.iter().map(u32::to_string).collect();
        println!(
            "Headgate {} · DPDK {} {} · {} worker{} on core {} · huge pages {}",
            status.version,
            status.dpdk,
            status.drivers.join(" "),
            cores.len(),
            if cores.len() == 1 { "" } else { "s" },
            cores.join(", "),
            status.huge_pages,
        );
        println!("software devices: this shows behaviour, not line rate");
        let [client, _] = plan::client(0);
        let behind = match &self.cluster {
            None => format!("{} (nginx)", self.world.names().join(" ")),
            Some(cluster) => {
                let names: Vec<&str> = cluster.nodes().iter().map(|n| n.name.as_str()).collect();
                format!("{} (kube-proxy, pods)", names.join(" "))
            }
        };
        println!("client {client} - tap - [headgate] - tap - {behind}");
        print!("{}", self.world.admin()?.text(&["show", "services"])?);
        Ok(())
    }
    /// Requests over LoadBalancer, NodePort and externalIP, in both families.
    pub(super) fn serve(&mut self) -> Result<String> {
        let world = &self.world;
        let targets = world.http_targets()?;
        let logged = || -> Result<Vec<u64>> {
            world.web.iter().map(crate::nginx::Nginx::requests_logged).collect()
        };
        let before = (world.retransmits()?, logged()?);
        let addresses: Vec<SocketAddr> = targets.iter().map(|(_, target)| *target).collect();
        let outcome = world.load(&addresses, self.requests)?;
        let after = (world.retransmits()?, logged()?);
        self.summary.requests = outcome.requests;
        self.summary.failed = outcome.failed;
        self.summary.by_backend.clone_from(&outcome.by_backend);
        show_targets(&targets, &outcome);
        outcome.check_complete()?;
        let names = world.names();
        outcome.check_even(&names, 0.1)?;
        for (index, name) in names.iter().enumerate() {
            let answered = after.1[index] - before.1[index];
            if outcome.by_backend.get(name) != Some(&answered) {
                bail!("{name} logged {answered} requests: expected {:?}", outcome.by_backend);
            }
        }
        if outcome.connect_max() > CONNECT_LIMIT {
            bail!("a connect took {:?}, expected {CONNECT_LIMIT:?} at most", outcome.connect_max());
        }
        let connect = &outcome.connect_us;
        Ok(format!(
            "{} connections from {} addresses   ok {}  failed {}   connect median {:.2} ms, longest \
             {:.2} ms   retransmits client {}, servers {}   servers' logs agree",
            outcome.requests,
            world.sources().len() / 2,
            outcome.requests - outcome.failed,
            outcome.failed,
            connect.value_at_quantile(0.5) as f64 / 1e3,
            connect.max() as f64 / 1e3,
            after.0[0] - before.0[0],
            after.0[1] - before.0[1],
        ))
    }
    /// A backend goes out of service under open connections, and comes back.
    pub(super) fn drain(&mut self) -> Result<String> {
        let world = &self.world;
        let admin = world.admin()?;
        let [address, _] = world.addresses("echo")?;
        let target = SocketAddr::new(address, plan::ECHO_PORT);
        let client = &world.net.client;
        let sources = world.net.client_addresses(address);
        let lines = LineClients::open(client, &sources, target, LONG_LIVED, |_| true)?;
        lines.wait_for_lines(2);
        self.set_ready("echo", false)?;
        self.set_ready("web", false)?;
        let change_us = admin.status()?.last_change_us;
        let [web, _] = world.addresses("web")?;
        let outcome = world.load(&[SocketAddr::new(web, 80)], PROBES)?;
        let new = outcome.by_backend.get("web-2").copied().unwrap_or(0);
        lines.wait_for_lines(5);
        let report = lines.stop()?;
        self.summary.broken = report.broken;
        self.set_ready("echo", true)?;
        self.set_ready("web", true)?;
        outcome.check_complete()?;
        report.check()?;
        if new > 0 {
            bail!("{new} of {PROBES} new connections went to web-2, expected none");
        }
        let change = change_us.context("status doesn't say how long the change took")?;
        Ok(format!(
            "web-2 not ready under {} open connections ({} lines): file change to last worker {:.1} \
             ms, broken {}, new to web-2 {new} of {PROBES}",
            report.connections,
            report.lines,
            change as f64 / 1e3,
            report.broken,
        ))
    }
    fn set_ready(&self, name: &str, ready: bool) -> Result<()> {
        let mut service: Service = self.world.usual(name)?;
        service.endpoint("web-2")?.ready = ready;
        self.world.manifests.apply(&service)?;
        let [address, _] = plan::backend(1);
        let what = format!("web-2 of {name} {}", if ready { "active" } else { "draining" });
        let seen = |admin: &crate::admin::Admin| {
            Ok(admin.active(name)?.iter().any(|backend| backend.ip() == address) == ready)
        };
        self.world.admin()?.wait_until(&what, seen).map(drop)
    }
    /// A Service without endpoints answers at once.
    pub(super) fn refuse(&mut self) -> Result<String> {
        let [address, _] = self.world.addresses("empty")?;
        let target = SocketAddr::new(address, 80);
        // The quickest of three: this machine may have been away for a while.
        let mut quickest = Duration::MAX;
        for _ in 0..3 {
            let (time, outcome) = load::attempt(&self.world.net.client, target)?;
            match outcome {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                other => bail!("expected a refusal, got {other:?} after {time:?}"),
            }
            quickest = quickest.min(time);
        }
        ensure!(quickest < REFUSAL_LIMIT, "expected a refusal at once, got one after {quickest:?}");
        let ms = quickest.as_secs_f64() * 1e3;
        Ok(format!("no endpoints: refused in {ms:.1} ms (not a time-out)"))
    }
    /// Why a connection goes where it goes.
    pub(super) fn explain(&mut self) -> Result<String> {
        let world = &self.world;
        let [address, _] = world.addresses("echo")?;
        let target = SocketAddr::new(address, plan::ECHO_PORT);
        let sources = world.net.client_addresses(address);
        let lines = LineClients::open(&world.net.client, &sources, target, 1, |_| true)?;
        lines.wait_for_lines(1);
        let (from, to) = lines.first();
        let backend = lines.by_backend().keys().next().cloned().unwrap_or_default();
        let (from_text, to_text) = (from.to_string(), to.to_string());
        let text = world.admin()?.text(&["explain", "tcp", &from_text, &to_text])?;
        let answer = world.admin()?.explain_tcp(from, to)?;
        lines.stop()?.check()?;
        let shown = answer.backend_name.unwrap_or_default();
        if shown != backend {
            bail!("explain names backend \"{shown}\", the server said \"{backend}\": {text}");
        }
        let indented: String = text.lines().map(|line| format!("\n    {line}")).collect();
        Ok(format!("$ headgate explain tcp {from} {to}{indented}"))
    }
    /// The ledger and its witnesses.
    pub(super) fn account(&mut self) -> Result<String> {
        self.world.check_kernel_forwards_nothing()?;
        match self.world.settle() {
            Ok(reading) => {
                self.summary.ledger = "exact".into();
                Ok(format!("ledger: {reading}; kernel counters agree"))
            }
            Err(error) => {
                let text = format!("{error:#}");
                self.summary.ledger = text.lines().next().unwrap_or_default().to_owned();
                Err(error)
            }
        }
    }
}

/// What came of the requests to each address.
pub(super) fn show_targets(targets: &[(&str, SocketAddr)], outcome: &Outcome) {
    for (origin, target) in targets {
        let at = outcome.by_target.get(target).cloned().unwrap_or_default();
        let good: u64 = at.by_backend.values().sum();
        let shares: Vec<String> = at.by_backend.values().map(u64::to_string).collect();
        println!(
            "    {:<40} {origin:<12} ok {good}  failed {}   {}",
            format!("{} connections to {target}", good + at.failed),
            at.failed,
            shares.join(" / "),
        );
    }
}
