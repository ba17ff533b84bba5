//! What stands behind `./run test`: the parts, one after the other, and one line for each.

mod again;
mod explain;
mod tree;
pub mod watch;

use self::watch::{Limits, Still};
use crate::cluster;
use crate::command;
use crate::hugepages;
use crate::instance::Instance;
use anyhow::{Context, Result, bail};
use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Skips that are allowed: lines of a part's name and words that its reason holds.
const ALLOWED_SKIPS: &str = "tests/allowed-skips";

/// The package that asks kube-proxy, which is built with the test cluster.
const CONTRACT: &str = "contract";

/// Time that the build of the gateway gets, and far more than it needs.
const BUILD_PATIENCE: Duration = Duration::from_secs(60 * 60);

/// How much of a failed test's output is shown again at the end: lines, and characters of each.
const FAILURE_LINES: usize = 20;
const FAILURE_WIDTH: usize = 400;

/// A part of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Every package but the ones below.
    Unit,
    /// Packets with the answers that they must get.
    Golden,
    /// Network namespaces and real programs.
    Netns,
    /// A real Kubernetes cluster.
    Kubernetes,
    /// The whole pipeline against random input.
    Fuzz,
    /// Tests of the pipeline in their full size: floods, and an hour of traffic.
    Flood,
}

impl Part {
    /// In the order in which they run.
    pub const ALL: [Self; 6] =
        [Self::Unit, Self::Golden, Self::Netns, Self::Kubernetes, Self::Fuzz, Self::Flood];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Golden => "golden",
            Self::Netns => "netns",
            Self::Kubernetes => "kubernetes",
            Self::Fuzz => "fuzz",
            Self::Flood => "flood",
        }
    }
    /// The part of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.name() == name)
    }
    const fn is_package(self) -> bool {
        !matches!(self, Self::Unit | Self::Flood)
    }
    fn cargo_args(self) -> Vec<&'static str> {
        let mut args = vec!["test", "--no-fail-fast"];
        match self {
            Self::Unit => {
                args.push("--workspace");
                for part in Self::ALL.iter().filter(|part| part.is_package()) {
                    args.extend(["--exclude", part.name()]);
                }
                args.extend(["--exclude", CONTRACT]);
            }
            Self::Kubernetes => args.extend(["--package", self.name(), "--package", CONTRACT]),
            // Built for speed, they take their full size.
            Self::Flood => {
                args.extend(["--release", "--package", "pipeline"]);
                args.extend(["--test", "flood", "--test", "an_hour"]);
            }
            Self::Golden | Self::Netns | Self::Fuzz => args.extend(["--package", self.name()]),
        }
        args.extend(["--", "--show-output"]);
        args
    }
}

/// What came of a part, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed. Below zero for a moment where a skip is told before the count.
    pub passed: i64,
    /// Tests that failed; what couldn't be built counts as one.
    pub failed: u64,
    /// Why tests were skipped; one reason a test.
    pub skipped: Vec<String>,
    /// The tests that failed, with the end of what each printed.
    pub failures: Vec<Failure>,
    /// Where in the output of a test binary the next line is.
    section: Section,
}

/// A test that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// Its name.
    pub name: String,
    /// The last lines that it printed.
    pub end: VecDeque<String>,
}

/// The parts of what a test binary prints, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Section {
    /// Anything but the next two.
    #[default]
    Rest,
    /// After the word `failures:`.
    Failures,
    /// Below the heading of a test that failed.
    Output,
}

impl Tally {
    /// Takes in one line of what `cargo test` prints.
    pub fn read(&mut self, line: &str) {
        let line = line.trim_end();
        self.read_failure(line);
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count_before(counts, " passed");
            self.failed += count_before(counts, " failed").unsigned_abs();
        } else if let Some(reason) = line.strip_prefix("skipped: ") {
            // The harness counts it as passed.
            self.passed -= 1;
            self.skipped.push(reason.to_owned());
        } else if let Some((_, reason)) = line.split_once(" ... ignored")
            && line.starts_with("test ")
        {
            let reason = reason.trim_start_matches(", ");
            let reason = if reason.is_empty() { "no reason given" } else { reason };
            self.skipped.push(reason.to_owned());
        }
    }
    /// With `--show-output` what tests printed comes after all have run: that of the good ones
    /// under `successes:`, that of the others under `failures:`, which stands once more before the
    /// list of their names.
    fn read_failure(&mut self, line: &str) {
        let heading = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
        if line.starts_with("test result: ") {
            // Whatever a test has printed.
            self.section = Section::Rest;
            return;
        }
        match (self.section, line, heading) {
            (Section::Rest, "failures:", _) => self.section = Section::Failures,
            (Section::Failures | Section::Output, _, Some(name)) => {
                self.section = Section::Output;
                self.failures.push(Failure { name: name.to_owned(), ..Failure::default() });
            }
            (Section::Failures | Section::Output, "failures:", _) => self.section = Section::Rest,
            (Section::Output, "stack backtrace:" | "Stack backtrace:", _) => {
                self.section = Section::Failures;
            }
            (Section::Output, _, _) if !line.is_empty() => {
                if let Some(failure) = self.failures.last_mut() {
                    if failure.end.len() == FAILURE_LINES {
                        failure.end.pop_front();
                    }
                    failure.end.push_back(line.chars().take(FAILURE_WIDTH).collect());
                }
            }
            _ => {}
        }
    }
    /// Takes in what stood still: its end is told by nobody else.
    pub fn add_still(&mut self, stood: Vec<Still>) {
        for Still { name, lines, .. } in stood {
            self.failed += 1;
            let end = lines.into_iter().take(FAILURE_LINES);
            let end = end.map(|line| line.chars().take(FAILURE_WIDTH).collect()).collect();
            self.failures.push(Failure { name, end });
        }
    }
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
        self.failures.extend(other.failures);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped, .. } = self;
        write!(f, "{passed} passed, {failed} failed, {} skipped", skipped.len())
    }
}

/// The number in front of `word`.
fn count_before(text: &str, word: &str) -> i64 {
    let number = text.split(word).next().and_then(|front| front.rsplit(' ').next());
    number.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Runs the parts in the folder of the workspace; true where nothing failed and every skip is
/// allowed.
pub fn run(workspace: &Path, parts: &[Part]) -> Result<bool> {
    let allowed = allowed_skips(workspace)?;
    let mut total = Tally::default();
    let mut lines = Vec::new();
    for part in parts {
        println!("== {}", part.name());
        let begun = Instant::now();
        let mut tally = run_part(workspace, *part)?;
        let seconds = begun.elapsed().as_secs();
        let mut notes = Vec::new();
        for reason in &tally.skipped {
            let is_allowed =
                allowed.iter().any(|(name, words)| name == part.name() && reason.contains(words));
            tally.failed += u64::from(!is_allowed);
            let note = if is_allowed { "skipped" } else { "FAILED, not an allowed skip" };
            notes.push(format!("        {note}: {reason}"));
        }
        if tally.passed <= 0 && tally.failed == 0 && tally.skipped.is_empty() {
            tally.failed += 1;
            notes.push("        FAILED: no test ran".to_owned());
        }
        notes.dedup();
        lines.push(format!("{:<10} {tally}, {seconds} s", part.name()));
        lines.extend(notes);
        total.add(tally);
    }
    for Failure { name, end } in &total.failures {
        println!("\nFAILED: {name}, the end of what it printed:");
        for line in end {
            println!("    {line}");
        }
    }
    println!("\n{}\n{total}", lines.join("\n"));
    Ok(total.failed == 0)
}

fn run_part(workspace: &Path, part: Part) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut huge_pages = None;
    if part == Part::Kubernetes {
        // Here, where its progress can be seen.
        cluster::build()?;
    }
    if matches!(part, Part::Netns | Part::Kubernetes) {
        // The tests start the binary: it must be there, and of this very source.
        let mut build = Command::new("cargo");
        build.args(["build", "--package", "headgate"]).current_dir(workspace);
        if !command::succeeds(&mut build, BUILD_PATIENCE)? {
            tally.failed += 1;
            return Ok(tally);
        }
        if nix::unistd::geteuid().is_root() {
            let instance = Instance::create("tests")?;
            if !hugepages::reserve(&instance)? {
                println!("warning: no huge pages on this machine: testing without");
            }
            huge_pages = Some(instance);
        }
    }
    let mut cargo = Command::new("cargo");
    cargo.args(part.cargo_args()).current_dir(workspace);
    let mut hear = |line: &str| {
        print!("{line}");
        tally.read(line);
    };
    let (ended_well, stood) = watch::run(&mut cargo, Limits::usual(), &mut hear)?;
    tally.add_still(stood);
    // What fails without a failed test (it can't be built, it crashed) is a failure too.
    if !ended_well && tally.failed == 0 {
        tally.failed += 1;
    }
    drop(huge_pages);
    Ok(tally)
}

fn allowed_skips(workspace: &Path) -> Result<Vec<(String, String)>> {
    let path = workspace.join(ALLOWED_SKIPS);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut allowed = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let Some((part, words)) = line.split_once(' ') else {
            bail!("{}: a line is a part and words of a reason: {line}", path.display());
        };
        allowed.push((part.to_owned(), words.trim().to_owned()));
    }
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_cargo_prints() {
        let mut tally = Tally::default();
        for line in [
            "test a ... ok",
            "test b ... ignored, takes an hour",
            "test c ... ignored",
            "---- a stdout ----",
            "skipped: not root",
            "test result: ok. 5 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out",
            "successes:",
            "---- a stdout ----",
            "what nobody needs",
            "",
            "failures:",
            "",
            "---- d stdout ----",
            "it begins",
            "",
            "Error: it broke",
            "",
            "Stack backtrace:",
            "   0: what nobody needs",
            "",
            "---- e stdout ----",
            "Error: it broke too",
            "",
            "failures:",
            "    d",
            "    e",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            tally.read(line);
        }
        let skipped = ["takes an hour", "no reason given", "not root"];
        assert_eq!((tally.passed, tally.failed), (5, 2));
        assert_eq!(tally.skipped, skipped);
        let failures: Vec<_> = tally
            .failures
            .iter()
            .map(|one| (one.name.as_str(), Vec::from(one.end.clone())))
            .collect();
        let d = vec!["it begins".to_owned(), "Error: it broke".to_owned()];
        assert_eq!(failures, [("d", d), ("e", vec!["Error: it broke too".to_owned()])]);
    }
}
