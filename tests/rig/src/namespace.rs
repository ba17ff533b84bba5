//! Network namespaces: made by name with `ip netns`, entered by threads with `setns`.

use crate::command::{feed, output_of};
use crate::instance::Instance;
use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread::{self, JoinHandle};

/// A network namespace. It goes away with the instance that it was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes `hg-ROLE-TAG`, with its loopback up. Nothing is forwarded in it, and IPv6 addresses
    /// are good for use at once (no duplicate address detection, no router advertisements).
    pub fn create(instance: &Instance, role: &str) -> Result<Self> {
        let name = format!("hg-{role}-{}", instance.tag());
        instance.record_namespace(&name)?;
        output_of(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        namespace.within(|| -> Result<()> {
            for (key, value) in [
                ("ipv4/ip_forward", "0"),
                ("ipv6/conf/all/forwarding", "0"),
                ("ipv6/conf/all/disable_ipv6", "0"),
                ("ipv6/conf/default/disable_ipv6", "0"),
                ("ipv6/conf/all/accept_dad", "0"),
                ("ipv6/conf/default/accept_dad", "0"),
                ("ipv6/conf/default/accept_ra", "0"),
                ("ipv6/conf/default/router_solicitations", "0"),
            ] {
                let path = format!("/proc/sys/net/{key}");
                fs::write(&path, value).with_context(|| format!("cannot write {path}"))?;
            }
            Ok(())
        })??;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }
    /// `hg-ROLE-TAG`, which somebody else has made.
    pub fn existing(instance: &Instance, role: &str) -> Result<Self> {
        let name = format!("hg-{role}-{}", instance.tag());
        if !Path::new("/run/netns").join(&name).exists() {
            bail!("there is no namespace {name}");
        }
        Ok(Self { name })
    }
    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// A command that will run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = enter_by_name(&self.name);
        command.arg(program);
        command
    }
    /// `ip ARGS` inside; the arguments are words with spaces between them.
    pub fn ip(&self, args: &str) -> Result<String> {
        output_of(self.command("ip").args(args.split_whitespace()))
    }
    /// Many `ip` commands inside, one a line, in one process.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        feed(self.command("ip").args(["-batch", "-"]), lines)
    }
    /// Moves the calling thread inside; threads and processes that it starts are born there.
    pub fn enter(&self) -> Result<()> {
        let path = format!("/run/netns/{}", self.name);
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {path}"))
    }
    /// Runs `work` inside and waits for it. The calling thread stays where it is.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| self.enter().map(|()| work()));
            inside.join().map_err(|_| anyhow!("a thread in namespace {} panicked", self.name))?
        })
    }
    /// Starts a thread inside.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<Result<T>> {
        let namespace = self.clone();
        thread::spawn(move || namespace.enter().map(|()| work()))
    }
    /// Whether a network interface of this name is inside.
    pub fn has_link(&self, link: &str) -> bool {
        self.ip(&format!("-j link show dev {link}")).is_ok()
    }
}

/// The beginning of a command that will run in the namespace of this name. Not `ip netns exec`:
/// that mounts /sys anew, which a plain chroot doesn't allow.
pub fn enter_by_name(name: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{name}"));
    command
}
