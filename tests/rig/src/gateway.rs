//! Headgate itself, running in the gateway's namespace.

use crate::admin::Admin;
use crate::config::{self, GatewayOptions, Places, Pod};
use crate::net::Net;
use crate::process::Process;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long next hops may take to answer.
const WAYS_PATIENCE: Duration = Duration::from_secs(4);
/// Time that a gateway gets to be ready, and far more than it needs.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Time that it gets to end after SIGTERM, and far more than it needs.
pub const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A running gateway. Dropped means killed.
pub struct Gateway {
    /// Its command line.
    pub admin: Admin,
    /// From its start until it was ready.
    pub ready_after: Duration,
    process: Process,
}

/// The binary: `RIG_HEADGATE` (variables that begin with HEADGATE_ are keys of its configuration),
/// else the one that cargo has put beside this program.
pub fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("RIG_HEADGATE") {
        return Ok(path.into());
    }
    let exe = std::env::current_exe()?;
    let found = exe.ancestors().skip(1).take(2).map(|dir| dir.join("headgate"));
    let found = found.into_iter().find(|path| path.is_file());
    found.with_context(|| {
        format!("no headgate beside {}: run `cargo build -p headgate`", exe.display())
    })
}

impl Gateway {
    /// Starts it, waits until it answers and all workers run with what it knows, and plugs the
    /// far ends of its ports in.
    pub fn start(net: &Net, places: &Places, options: &GatewayOptions) -> Result<Self> {
        let program = program()?;
        fs::create_dir_all(&places.state)?;
        fs::write(&places.config, config::text(net, places, options))?;
        let mut command = match &options.pod {
            None => net.gateway.command("taskset"),
            Some(pod) => as_pod(net, pod),
        };
        // The rig keeps to core 0; the gateway may use them all.
        command.args(["-c", &all_cores()]).arg(&program).arg("run");
        command.arg("--config").arg(&places.config);
        let begun = Instant::now();
        let log = net.instance.logs().join("headgate.log");
        let process = Process::start(&net.instance, "headgate", command, &log)?;
        let admin = Admin::new(&program, &places.socket);
        let mut gateway = Self { admin, ready_after: Duration::ZERO, process };
        net.wait_for_links(|| gateway.process.check_runs())?;
        gateway.wait_until_ready(begun)?;
        gateway.ready_after = begun.elapsed();
        net.plug_in()?;
        gateway.wait_for_ways();
        Ok(gateway)
    }
    /// The cables were plugged in after the start, so the backends' next hops answer only now: gives
    /// the gateway the time to ask again. A backend that never answers is a matter for the test.
    fn wait_for_ways(&self) {
        let begun = Instant::now();
        let resolved = |way: &str| !way.ends_with(" unresolved");
        let all = || self.admin.backends().is_ok_and(|rows| rows.iter().all(|b| resolved(&b.way)));
        while !all() && begun.elapsed() < WAYS_PATIENCE {
            sleep(Duration::from_millis(50));
        }
    }
    fn wait_until_ready(&mut self, begun: Instant) -> Result<()> {
        loop {
            self.process.check_runs()?;
            let latest = self.admin.status();
            if let Ok(status) = &latest {
                let [published, everywhere] = status.generation;
                let wrong = &status.degraded;
                let read = !wrong.iter().any(|d| d.what.ends_with("not been read yet"));
                // It can't be read at all: what was stored is forwarded.
                let never = wrong.iter().any(|d| d.what.starts_with("the kubeconfig "));
                if (read || never) && published == everywhere {
                    return Ok(());
                }
            }
            if begun.elapsed() > START_PATIENCE {
                let said = self.process.last_words();
                bail!("not ready after {START_PATIENCE:?}: {latest:?}; {said}");
            }
            sleep(Duration::from_millis(20));
        }
    }
    /// Number of the process.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }
    /// Fails where it has ended, with the last lines of its log.
    pub fn check_runs(&mut self) -> Result<()> {
        self.process.check_runs()
    }
    /// SIGTERM; gives the time until its end, which must be below [`STOP_LIMIT`].
    pub fn stop(&mut self) -> Result<Duration> {
        self.process.stop(Signal::SIGTERM, STOP_LIMIT)
    }
    /// The same with another signal, as SIGINT.
    pub fn stop_by(&mut self, signal: Signal) -> Result<Duration> {
        self.process.stop(signal, STOP_LIMIT)
    }
    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }
    /// How it ended, where it has.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.process.ended()
    }
}

/// Runs what follows where its credentials are where a pod's are, seen by nobody else.
fn as_pod(net: &Net, pod: &Pod) -> Command {
    const PREPARE: &str = "set -e; mount -t tmpfs none /var; \
                           mkdir -p /var/run/secrets/kubernetes.io; \
                           ln -s \"$0\" /var/run/secrets/kubernetes.io/serviceaccount; exec \"$@\"";
    let mut command = net.gateway.command("unshare");
    command.args(["--mount", "sh", "-c", PREPARE]).arg(&pod.credentials).arg("taskset");
    command.env("KUBERNETES_SERVICE_HOST", pod.server.ip().to_string());
    command.env("KUBERNETES_SERVICE_PORT", pod.server.port().to_string());
    command
}

/// `0-1` and the like.
fn all_cores() -> String {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    if online.trim().is_empty() { "0".into() } else { online.trim().into() }
}
