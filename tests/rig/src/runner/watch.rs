//! Running `cargo test` so that no test keeps the rest from running: one that stands still is
//! explained and ended, and the rest goes on, that of its own binary by a run without it.

use super::again::Again;
use super::explain::{explain, members};
use super::tree::{self, Member};
use crate::instance;
use crate::process::Identity;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// How often the processes are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// What is still heard after the end: others may hold the output open.
const AFTER_THE_END: Duration = Duration::from_secs(2);
/// Time that tests get to take away what they have made, once they are told to end.
const END_PATIENCE: Duration = Duration::from_secs(20);
/// Lines of an explanation that are printed. The file has all.
const LINES_SHOWN: usize = 600;

/// Names minutes, as a decimal number, for a test binary that says nothing.
const SILENCE_VARIABLE: &str = "RIG_STILL_MINUTES";

/// What a test binary is given.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From one test's end to the next one's, in one binary.
    pub silence: Duration,
    /// All of its tests together.
    pub whole: Duration,
}

impl Limits {
    /// Three times what the longest test and the longest binary take on two busy cores; the former
    /// can be set in the environment.
    pub fn usual() -> Self {
        let minutes = std::env::var(SILENCE_VARIABLE).ok().and_then(|text| text.parse().ok());
        let silence = Duration::from_secs(12 * 60);
        let given =
            minutes.and_then(|minutes: f64| Duration::try_from_secs_f64(minutes * 60.0).ok());
        let silence = given.filter(|given| !given.is_zero()).unwrap_or(silence);
        Self { silence, whole: (silence * 2).max(Duration::from_secs(60 * 60)) }
    }
}

/// Tests that stood still and were ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Still {
    /// The test binary and what it was running.
    pub name: String,
    /// Why it was ended, and where its processes were.
    pub lines: Vec<String>,
    /// The run of the binary's other tests, where they can be told from it.
    others: Option<Again>,
}

/// Runs it to its end; `hear` is given what it says, line by line. Gives whether it ended well, and
/// what was ended on the way. The other tests of what was ended are run then, once.
pub fn run(
    command: &mut Command,
    limits: Limits,
    hear: &mut dyn FnMut(&str),
) -> Result<(bool, Vec<Still>)> {
    let (ended_well, mut stood) = run_once(command, limits, hear)?;
    let others: Vec<Again> = stood.iter_mut().filter_map(|still| still.others.take()).collect();
    for others in others {
        println!("\nThe other tests of a binary that stood still:");
        stood.extend(run_once(&mut others.command(), limits, hear)?.1);
    }
    Ok((ended_well, stood))
}

fn run_once(
    command: &mut Command,
    limits: Limits,
    hear: &mut dyn FnMut(&str),
) -> Result<(bool, Vec<Still>)> {
    let said = crate::command::said(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {said}"))?;
    let output = child.stdout.take().context("its output")?;
    let (told, heard) = channel();
    thread::spawn(move || forward(output, &told));
    let mut watch = Watch { limits, running: None, quiet: Instant::now(), slow: BTreeSet::new() };
    let mut stood = Vec::new();
    let ended_well = listen(&mut child, &heard, &mut watch, hear, &mut stood)?;
    Ok((ended_well, stood))
}

fn forward(mut output: impl Read, told: &std::sync::mpsc::Sender<Vec<u8>>) {
    let mut chunk = vec![0; 16 << 10];
    while let Ok(length @ 1..) = output.read(&mut chunk) {
        if told.send(chunk[..length].to_vec()).is_err() {
            return;
        }
    }
}

fn listen(
    child: &mut Child,
    heard: &Receiver<Vec<u8>>,
    watch: &mut Watch,
    hear: &mut dyn FnMut(&str),
    stood: &mut Vec<Still>,
) -> Result<bool> {
    let pid = child.id().cast_signed();
    let (mut line, mut looked, mut ended) = (Vec::new(), Instant::now(), None);
    loop {
        let came = heard.recv_timeout(LOOK);
        if let Ok(bytes) = &came {
            for byte in bytes {
                line.push(*byte);
                if *byte == b'\n' {
                    let text = String::from_utf8_lossy(&line);
                    watch.hear(&text);
                    hear(&text);
                    line.clear();
                }
            }
        }
        if ended.is_none() {
            ended = child.try_wait()?.map(|status| (status, Instant::now()));
        }
        if let Some((status, at)) = ended
            && (matches!(came, Err(RecvTimeoutError::Disconnected)) || at.elapsed() > AFTER_THE_END)
        {
            return Ok(status.success());
        }
        if matches!(came, Err(RecvTimeoutError::Disconnected)) {
            // It has closed its output and lives on.
            sleep(Duration::from_millis(20));
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            stood.extend(watch.look(pid, &String::from_utf8_lossy(&line)));
        }
    }
}

/// The test binary that runs, and since when it says nothing.
struct Watch {
    limits: Limits,
    running: Option<(Identity, Instant)>,
    quiet: Instant,
    /// Tests that libtest calls slow: a minute after their begin.
    slow: BTreeSet<String>,
}

impl Watch {
    fn hear(&mut self, line: &str) {
        self.quiet = Instant::now();
        let Some(rest) = line.trim_end().strip_prefix("test ") else { return };
        if let Some((name, _)) = rest.split_once(" has been running for over ") {
            self.slow.insert(name.to_owned());
        } else if let Some((name, _)) = rest.split_once(" ... ") {
            self.slow.remove(name);
        }
    }
    /// Ends the binary that runs where its time is over. While nothing but building goes on there
    /// is none.
    fn look(&mut self, pid: i32, unfinished: &str) -> Option<Still> {
        let members = tree::below(pid);
        let Some(binary) = members.iter().find(|member| member.runs_tests()) else {
            self.running = None;
            return None;
        };
        let begun = match self.running {
            Some((known, begun)) if known == binary.identity => begun,
            _ => {
                self.running = Some((binary.identity, Instant::now()));
                self.quiet = Instant::now();
                self.slow.clear();
                return None;
            }
        };
        // It waits for another run on this machine.
        let pids: Vec<i32> = members.iter().map(|member| member.identity.pid).collect();
        if crate::others_are_alone(&pids) {
            self.quiet = Instant::now();
            self.running = Some((binary.identity, Instant::now()));
            return None;
        }
        let Limits { silence, whole } = self.limits;
        let why = if self.quiet.elapsed() > silence {
            format!("no test of it ended for {silence:?}")
        } else if begun.elapsed() > whole {
            format!("it still ran after {whole:?}")
        } else {
            return None;
        };
        self.running = None;
        Some(self.end(binary, &why, unfinished))
    }
    fn end(&self, binary: &Member, why: &str, unfinished: &str) -> Still {
        let file = binary.test_name();
        let tests = self.tests(binary, unfinished);
        let others = Again::without(binary.identity.pid, &tests);
        let name = format!("{file}: {}", tests.into_iter().collect::<Vec<_>>().join(", "));
        let all = instance::logs_folder().join(format!("stood-still-{file}.log"));
        let mut lines =
            vec![format!("stood still, and was ended: {why}; all of this is in {}", all.display())];
        let members = members(binary.identity.pid);
        lines.extend(explain(&members));
        lines.extend(end_all(binary.identity, &members));
        show(&all, &name, &lines);
        Still { name, lines, others }
    }
    /// Those that run, as far as it can be known.
    fn tests(&self, binary: &Member, unfinished: &str) -> BTreeSet<String> {
        let mut names = self.slow.clone();
        // One at a time is announced by half a line.
        let half = unfinished.strip_prefix("test ").and_then(|rest| rest.split_once(" ..."));
        names.extend(half.map(|(name, _)| name.to_owned()));
        if names.is_empty() {
            let first = binary.name().chars().take(15).collect::<String>();
            names.extend(binary.threads().into_iter().filter(|name| *name != first));
        }
        names
    }
}

/// Prints an explanation, and keeps all of it in a file.
fn show(file: &Path, name: &str, lines: &[String]) {
    println!("\nSTANDS STILL: {name}");
    lines.iter().take(LINES_SHOWN).for_each(|line| println!("    {line}"));
    let text = format!("{name}\n{}\n", lines.join("\n"));
    let kept = file.parent().map_or(Ok(()), fs::create_dir_all);
    if let Err(error) = kept.and_then(|()| fs::write(file, text)) {
        println!("    {}: {error}", file.display());
    }
    println!();
}

/// Asks the binary to end, as Ctrl-C does, kills what is left, and removes what they have made.
fn end_all(binary: Identity, members: &[Member]) -> Vec<String> {
    let begun = Instant::now();
    let _ = kill(Pid::from_raw(binary.pid), Signal::SIGTERM);
    while binary.is_alive() && begun.elapsed() < END_PATIENCE {
        sleep(Duration::from_millis(20));
    }
    let left: Vec<&Member> = members.iter().filter(|member| member.identity.is_alive()).collect();
    for member in &left {
        let _ = kill(Pid::from_raw(member.identity.pid), Signal::SIGKILL);
    }
    let mut lines = vec![format!("{} processes were killed", left.len())];
    // The binary's end is taken by cargo, and its instances are those of a dead owner then.
    while left.iter().any(|member| member.identity.is_alive()) && begun.elapsed() < 2 * END_PATIENCE
    {
        sleep(Duration::from_millis(5));
    }
    match instance::sweep() {
        Ok(swept) => lines.push(format!("what {swept} runs had left was removed")),
        Err(error) => lines.push(format!("what it has left can't be removed: {error:#}")),
    }
    lines
}
