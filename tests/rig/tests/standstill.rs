//! A hang made on purpose, as `cargo test` would run it: it is named, explained and ended, nothing
//! of it is left, and the rest goes on.
#![allow(clippy::unwrap_used)]

use rig::instance::Instance;
use rig::namespace::Namespace;
use rig::process::Process;
use rig::runner::Tally;
use rig::runner::watch::{Limits, Still, run};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Makes the two tests below do what they are called. Without it they do nothing.
const ON_PURPOSE: &str = "RIG_STANDS_STILL";
/// What cargo would run: a binary with a test that stands still beside another one, which may have
/// ended by then, though nobody has heard what came of it; then another binary.
const CARGO: &str = "\"$0\" --exact stands_still goes_on --show-output; true";

fn on_purpose() -> bool {
    std::env::var_os(ON_PURPOSE).is_some()
}

#[test]
fn stands_still() {
    if !on_purpose() {
        return;
    }
    let made = nix_root().then(|| {
        let instance = Instance::create("still").unwrap();
        let namespace = Namespace::create(&instance, "still").unwrap();
        let mut command = namespace.command("sleep");
        command.arg("3600");
        let log = instance.logs().join("sleep.log");
        let process = Process::start(&instance, "sleep", command, &log).unwrap();
        println!("never shown");
        (instance, namespace, process)
    });
    std::thread::sleep(Duration::from_secs(3600));
    drop(made);
}

#[test]
fn goes_on() {
    if on_purpose() {
        println!("skipped: to be heard");
    }
}

fn nix_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|text| text.contains("\nUid:\t0\t"))
}

fn watched(limits: Limits) -> (bool, Vec<Still>, Tally) {
    let mut cargo = Command::new("sh");
    cargo.args(["-c", CARGO]).arg(std::env::current_exe().unwrap()).env(ON_PURPOSE, "1");
    let mut tally = Tally::default();
    let (ended_well, stood) = run(&mut cargo, limits, &mut |line| tally.read(line)).unwrap();
    (ended_well, stood, tally)
}

#[test]
fn what_stands_still_is_named_explained_and_ended() {
    let _alone = rig::alone();
    let second = Duration::from_secs(1);
    let begun = Instant::now();
    for limits in [
        Limits { silence: 4 * second, whole: 3600 * second },
        Limits { silence: 3600 * second, whole: 4 * second },
    ] {
        let (ended_well, stood, mut tally) = watched(limits);
        assert!(ended_well, "as cargo with --no-fail-fast it ends as its last one does");
        assert_eq!(stood.len(), 1);
        assert_eq!(stood[0].name, "standstill: stands_still");
        let text = stood[0].lines.join("\n");
        assert!(text.starts_with("stood still, and was ended: "), "{text}");
        assert!(text.contains("4s; all of this is in "), "{text}");
        // The thread of the test, and the call in which it sleeps.
        let sleeps = |line: &String| line.contains(" stands_still ") && line.contains("nanosleep");
        assert!(stood[0].lines.iter().any(sleeps), "{text}");
        if nix_root() {
            assert!(text.contains("sleep 3600\n"), "its child is named: {text}");
            check_gone();
        }
        // The other one ran, and the count is right.
        assert_eq!(tally.skipped, ["to be heard"]);
        assert_eq!((tally.passed, tally.failed), (0, 0));
        tally.add_still(stood);
        assert_eq!(tally.failed, 1);
        assert!(tally.failures[0].end[0].starts_with("stood still"), "{:?}", tally.failures);
    }
    assert!(begun.elapsed() < 120 * second, "{:?}", begun.elapsed());
}

/// Nothing is left of the ended test: no namespace, no process, no folder.
fn check_gone() {
    let of = |path: &str, begin: &str| {
        let names = Path::new(path).read_dir().into_iter().flatten().flatten();
        let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.find(|name| name.starts_with(begin))
    };
    assert_eq!(of("/run/netns", "hg-still-"), None);
    assert_eq!(of(rig::instance::BASE, "still-"), None);
    let mut pgrep = Command::new("pgrep");
    let left = rig::command::output_of(pgrep.args(["-f", "^sleep 3600$"]));
    assert!(left.is_err(), "{left:?}");
}
