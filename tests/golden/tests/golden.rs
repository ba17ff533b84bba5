//! Runs every case, packet by packet and in bursts.

use golden::case::{self, Case};
use golden::run::{Mode, run};
use model::drops::DropReason;
use pipeline::frame::Verdict;
use std::collections::BTreeSet;

/// Reasons that the pipeline itself never gives, each with the reason why.
const OF_THE_ENGINE: &[(DropReason, &str)] = &[
    (DropReason::HandoverFull, "the engine's rings between workers are full"),
    (DropReason::TransmitFull, "the engine's ports take no more"),
    (DropReason::BufferShared, "a driver that keeps buffers is no part of a case"),
    (DropReason::HostFull, "the engine's rings to the mirror are full"),
    (DropReason::HostOversize, "the mirror's slots are too short"),
];

fn run_all(mode: Mode) -> (Vec<Case>, BTreeSet<DropReason>) {
    let cases = case::all();
    let mut reached = BTreeSet::new();
    let mut failed = Vec::new();
    for case in &cases {
        let run = run(case, mode);
        reached.extend(run.verdicts.iter().filter_map(|verdict| match verdict {
            Verdict::Drop(reason) => Some(*reason),
            _ => None,
        }));
        if !run.problems.is_empty() {
            let text = run.problems.join("\n  ");
            failed.push(format!("{} ({})\n  {text}", case.name, case.about));
        }
    }
    let n = failed.len();
    assert!(failed.is_empty(), "{n} of {} cases failed:\n{}", cases.len(), failed.join("\n"));
    (cases, reached)
}

#[test]
fn every_case_packet_by_packet() {
    let (cases, reached) = run_all(Mode::Single);
    assert!(cases.len() >= 150, "{} cases", cases.len());
    let missing: Vec<_> = DropReason::ALL
        .iter()
        .filter(|reason| !reached.contains(*reason))
        .filter(|reason| !OF_THE_ENGINE.iter().any(|(engine, _)| engine == *reason))
        .collect();
    assert!(missing.is_empty(), "no case reaches {missing:?}");
    for (reason, why) in OF_THE_ENGINE {
        assert!(!reached.contains(reason), "{reason:?} is reached, so it isn't that {why}");
    }
    let packets: usize = cases.iter().map(|case| case.sent.len()).sum();
    println!("{} cases, {packets} packets, {} drop reasons", cases.len(), reached.len());
}

#[test]
fn every_case_in_bursts() {
    run_all(Mode::Burst);
}

/// The files are what the generator writes, so that both can be read for what the other means.
#[test]
fn the_files_are_what_the_generator_makes() {
    let files = case::all();
    for made in golden::make::all() {
        let file = files.iter().find(|case| case.name == made.name);
        let file = file.unwrap_or_else(|| panic!("{} isn't there: run make-cases", made.name));
        assert_eq!(file.about, made.about, "{}", made.name);
        assert_eq!(file.meta, made.meta, "{}", made.name);
        assert_eq!(file.sent, made.sent, "{}", made.name);
        assert_eq!(file.expected, made.expected, "{}", made.name);
        assert_eq!(file.host, made.host, "{}", made.name);
    }
}

/// A case that expects something else than what is right has to fail.
#[test]
fn a_wrong_expectation_fails() {
    let case = case::all().into_iter().find(|case| case.name.ends_with("tcp_life_v4")).unwrap();
    let fails = |change: &dyn Fn(&mut Case)| {
        let mut case = case.clone();
        change(&mut case);
        assert!(!run(&case, Mode::Single).problems.is_empty());
    };
    for port in [0, 1] {
        for at in 0..case.expected[port][0].1.len() {
            fails(&|case| case.expected[port][0].1[at] ^= 1);
        }
    }
    fails(&|case| case.expected[1].truncate(1));
    fails(&|case| case.expected[1][0].0 += 1);
    fails(&|case| case.expected.swap(0, 1));
    fails(&|case| case.meta.verdicts[0] = "answer back".to_owned());
    fails(&|case| case.meta.connections = [2, 0]);
    fails(&|case| case.meta.requests.push("back 198.18.1.11".to_owned()));
    fails(&|case| case.meta.services.clear());
    assert!(run(&case, Mode::Single).problems.is_empty());
}
