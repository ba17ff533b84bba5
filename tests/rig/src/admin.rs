//! Asking a running gateway, by its own command line: what people see is what is tested.

use crate::command::{self, finish, output_of, said};
use anyhow::{Context, Result, bail};
use model::answers::{
    BackendRow, Connections, DropRow, Event, FlowExplanation, NeighbourRow, PortRow,
    ServiceExplanation, ServiceRow, Status, Workers,
};
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Names the socket to the command line.
pub const SOCKET_VARIABLE: &str = "HEADGATE_ADMIN_SOCKET";

/// The command line of one gateway.
#[derive(Clone, Debug)]
pub struct Admin {
    program: PathBuf,
    socket: PathBuf,
}

impl Admin {
    /// For the gateway that answers on `socket`.
    pub fn new(program: &Path, socket: &Path) -> Self {
        Self { program: program.into(), socket: socket.into() }
    }
    /// Where it answers.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
    /// `headgate ARGS`, with the socket in its environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env(SOCKET_VARIABLE, &self.socket).env("NO_COLOR", "1");
        command
    }
    /// What it prints. `status` of a degraded gateway prints and ends badly, so that an answer
    /// counts whatever the exit status is.
    pub fn text(&self, args: &[&str]) -> Result<String> {
        let mut command = self.command(args);
        let output = finish(&mut command, command::PATIENCE)?;
        if output.stdout.is_empty() && !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("{} ended with {}: {}", said(&command), output.status, error.trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
    /// What it prints as JSON.
    pub fn ask<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let text = self.text(&[args, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("headgate {args:?} said {text}"))
    }
    /// A metric without labels, of those that the socket gives to whoever scrapes it.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let mut command = Command::new("curl");
        command.args(["-sS", "--fail", "--max-time", "3", "--unix-socket"]).arg(&self.socket);
        let text = output_of(command.arg("http://localhost/metrics"))?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("no metric {name} in {text}"))?.trim().parse()?)
    }
    /// `headgate status`.
    pub fn status(&self) -> Result<Status> {
        self.ask(&["status"])
    }
    /// `headgate show services`.
    pub fn services(&self) -> Result<Vec<ServiceRow>> {
        self.ask(&["show", "services"])
    }
    /// `headgate show backends`.
    pub fn backends(&self) -> Result<Vec<BackendRow>> {
        self.ask(&["show", "backends"])
    }
    /// `headgate show connections`.
    pub fn connections(&self) -> Result<Connections> {
        self.ask(&["show", "connections"])
    }
    /// `headgate show drops`.
    pub fn drops(&self) -> Result<Vec<DropRow>> {
        self.ask(&["show", "drops"])
    }
    /// `headgate show neighbours`.
    pub fn neighbours(&self) -> Result<Vec<NeighbourRow>> {
        self.ask(&["show", "neighbours"])
    }
    /// `headgate show ports`.
    pub fn ports(&self) -> Result<Vec<PortRow>> {
        self.ask(&["show", "ports"])
    }
    /// `headgate show workers`.
    pub fn workers(&self) -> Result<Workers> {
        self.ask(&["show", "workers"])
    }
    /// `headgate show events`.
    pub fn events(&self) -> Result<Vec<Event>> {
        self.ask(&["show", "events"])
    }
    /// `headgate explain tcp CLIENT FRONTEND`.
    pub fn explain_tcp(&self, client: SocketAddr, frontend: SocketAddr) -> Result<FlowExplanation> {
        self.ask(&["explain", "tcp", &client.to_string(), &frontend.to_string()])
    }
    /// `headgate explain service NAMESPACE/NAME`.
    pub fn explain_service(&self, name: &str) -> Result<ServiceExplanation> {
        self.ask(&["explain", "service", name])
    }
    /// The row of `default/NAME` in `show services`.
    pub fn service(&self, name: &str) -> Result<ServiceRow> {
        let rows = self.services()?;
        let row = rows.into_iter().find(|row| &*row.status.name.name == name);
        row.with_context(|| format!("show services doesn't name {name}"))
    }
    /// Backends of `default/SERVICE` that take new connections, by address.
    pub fn active(&self, service: &str) -> Result<Vec<SocketAddr>> {
        let rows = self.backends()?.into_iter();
        Ok(rows
            .filter(|row| &*row.service.service.name == service && row.state == "active")
            .map(|row| row.address)
            .collect())
    }
    /// Waits until every worker runs with what was the latest generation when it was called.
    pub fn wait_for_generation(&self) -> Result<u64> {
        let wanted = self.workers()?.generation;
        wait(&format!("generation {wanted} on all workers"), || {
            Ok(self.workers()?.generation_everywhere >= wanted)
        })?;
        Ok(wanted)
    }
    /// Waits until the control side shows what `seen` looks for, and then until every worker runs
    /// with it.
    pub fn wait_until(&self, what: &str, seen: impl Fn(&Self) -> Result<bool>) -> Result<u64> {
        wait(what, || seen(self))?;
        self.wait_for_generation()
    }
}

/// Time that what is waited for gets, and far more than it needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again for at most [`PATIENCE`].
pub fn wait(what: &str, mut seen: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    loop {
        let latest = seen();
        if matches!(latest, Ok(true)) {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            latest?;
            bail!("waited {PATIENCE:?} in vain for: {what}");
        }
        sleep(Duration::from_millis(10));
    }
}
