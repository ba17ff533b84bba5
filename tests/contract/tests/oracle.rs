//! Random schedules of objects, given to kube-proxy and to the gateway.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use contract::compare::Bench;
use contract::differences::{DIFFERENCES, TOLD};
use contract::schedule::SLOTS;
use contract::tally::Tally;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Schedules unless `CONTRACT_SCHEDULES` says otherwise.
const SCHEDULES: u64 = 2000;
/// Failures that are printed in full.
const SHOWN: usize = 3;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// The program of the test cluster; `CONTRACT_ORACLE` saves building it.
fn program() -> PathBuf {
    std::env::var_os("CONTRACT_ORACLE").map_or_else(|| rig::cluster::build().unwrap(), Into::into)
}

#[test]
fn the_gateway_does_what_kube_proxy_does() {
    let first = number("CONTRACT_SEED", 0);
    let end = first + number("CONTRACT_SCHEDULES", SCHEDULES);
    let next = AtomicU64::new(first);
    let program = program();
    let work = || {
        let mut tally = Tally::default();
        let mut bench = Bench::start(&program);
        loop {
            let from = next.fetch_add(SLOTS, Ordering::Relaxed);
            let from = if from < first + SLOTS { from } else { from / SLOTS * SLOTS };
            if from >= end {
                return tally;
            }
            let last = (from / SLOTS + 1) * SLOTS;
            let seeds: Vec<u64> = (from..last.min(end)).collect();
            tally.add(bench.run(&seeds));
        }
    };
    let mut tally = Tally::default();
    thread::scope(|scope| {
        for one in [scope.spawn(work), scope.spawn(work)] {
            tally.add(one.join().unwrap());
        }
    });
    println!("{} schedules, {} questions: {:?}", end - first, tally.questions, tally.answers);
    println!(
        "one right answer: {} of {} questions about frontends; the very same backends: {}; any \
         answer: {}",
        tally.exact, tally.owned, tally.exact_backends, tally.anything
    );
    for (difference, count) in DIFFERENCES.iter().zip(&tally.differences) {
        println!("{count:>7} {}: {}", difference.name, difference.reason);
    }
    for (name, reason) in TOLD {
        println!("   told {name}: {reason}");
    }
    for failure in tally.failures.iter().take(50) {
        println!("{}", failure.lines().take(3).collect::<Vec<_>>().join("\n"));
    }
    let shown: Vec<_> = tally.failures.iter().take(SHOWN).map(String::as_str).collect();
    assert!(
        tally.failures.is_empty(),
        "{} disagreements, of which:\n{}",
        tally.failures.len(),
        shown.join("\n")
    );
    // Fewer schedules may do without some of it.
    if end - first >= SCHEDULES {
        let lacks = tally.lacks();
        assert!(lacks.is_empty(), "the questions show too little:\n{}", lacks.join("\n"));
    }
}
