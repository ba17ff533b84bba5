//! Processes: those that we start, and what `/proc` says of any.

use crate::instance::Instance;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A process, told from a later one of the same number by the time of its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its number.
    pub pid: i32,
    /// Its start, in clock ticks since boot.
    pub start: u64,
}

impl Identity {
    /// The process of this number, where there is one that isn't a zombie.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may hold anything; the state is the word after it.
        let (_, rest) = stat.rsplit_once(") ")?;
        let words: Vec<&str> = rest.split(' ').collect();
        if matches!(words.first(), Some(&"Z" | &"X")) {
            return None;
        }
        Some(Self { pid, start: words.get(19)?.parse().ok()? })
    }
    /// This very process.
    pub fn own() -> Self {
        let pid = std::process::id().cast_signed();
        Self::of(pid).unwrap_or(Self { pid, start: 0 })
    }
    /// Whether it still runs.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// A process that we started, in a process group of its own. Dropped means killed.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with its output in `log`, and records it with the instance.
    pub fn start(
        instance: &Instance,
        name: &str,
        mut command: Command,
        log: &Path,
    ) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        let err = out.try_clone()?;
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", crate::command::said(&command)))?;
        let process = Self { child, name: name.into(), log: log.into(), ended: None };
        instance.record_process(process.pid())?;
        Ok(process)
    }
    /// Its number, which is also that of its group.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }
    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }
    /// How it ended, where it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }
    /// Fails where it has ended, with the last lines of its log.
    pub fn check_runs(&mut self) -> Result<()> {
        if let Some(status) = self.ended() {
            bail!("{} ended with {status}; {}", self.name, self.last_words());
        }
        Ok(())
    }
    /// The last lines of its log, and where the rest is.
    pub fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(12)..].join("\n    ");
        format!("its log {} ends in:\n    {tail}", self.log.display())
    }
    /// Sends `signal` and waits for the end; after `patience` the whole group is killed and that
    /// is an error. Gives the time that it took.
    pub fn stop(&mut self, signal: Signal, patience: Duration) -> Result<Duration> {
        let begun = Instant::now();
        if self.ended().is_none() {
            kill(Pid::from_raw(self.pid()), signal)?;
        }
        while self.ended().is_none() {
            if begun.elapsed() > patience {
                self.kill();
                bail!("{} still ran {patience:?} after {signal}; {}", self.name, self.last_words());
            }
            sleep(Duration::from_millis(2));
        }
        Ok(begun.elapsed())
    }
    /// `kill -9` for the whole group.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            // The group may have gone this very moment: then there is nothing to do.
            let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
            self.ended = crate::command::reap(&mut self.child).ok();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// For how long the thread of this name was ready to run while others had its core.
pub fn waited_for_core(pid: i32, thread: &str) -> Result<Duration> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        if fs::read_to_string(task.join("comm"))?.trim_end() == thread {
            let text = fs::read_to_string(task.join("schedstat"))?;
            let waited = text.split(' ').nth(1).context("a short schedstat")?;
            return Ok(Duration::from_nanos(waited.parse()?));
        }
    }
    bail!("process {pid} has no thread {thread}")
}

/// Ends processes that a dead owner left: asked first, killed after `patience`.
pub fn end_all(processes: &[Identity], patience: Duration) {
    for process in processes.iter().filter(|process| process.is_alive()) {
        let _ = kill(Pid::from_raw(process.pid), Signal::SIGTERM);
    }
    let begun = Instant::now();
    while processes.iter().any(|process| process.is_alive()) && begun.elapsed() < patience {
        sleep(Duration::from_millis(5));
    }
    for process in processes.iter().filter(|process| process.is_alive()) {
        let _ = killpg(Pid::from_raw(process.pid), Signal::SIGKILL);
    }
}
