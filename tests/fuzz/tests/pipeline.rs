//! The fuzzer's run, and what it has found so far.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fuzz::episode::Episode;
use fuzz::input::Input;
use fuzz::seeds;
use fuzz::stats::Stats;
use pipeline::Options;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// Bursts of an episode.
const STEPS: u64 = 3000;
/// A shorter run isn't asked to reach every drop reason.
const SECONDS_FOR_REASONS: u64 = 20;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

/// The seed of an episode; that of the first is the run's own.
fn seed_of(seed: u64, episode: u64) -> u64 {
    seed.wrapping_add(episode.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[test]
fn the_whole_pipeline_holds_under_fuzzing() {
    let seconds = variable("HEADGATE_FUZZ_SECONDS").unwrap_or(60);
    let seed = variable("HEADGATE_FUZZ_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos()) ^ now.as_secs() << 20
    });
    let (golden, made) = (seeds::golden(), seeds::made());
    println!("{} golden packets and {} made ones; seed {seed}", golden.len(), made.len());
    assert!(!golden.is_empty(), "no golden packets under tests/golden/cases");
    let seeds = [golden, made].concat();
    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds);
    let mut stats = Stats::default();
    for number in 0.. {
        let episode_seed = seed_of(seed, number);
        let mut episode = Episode::new(episode_seed);
        let failed = |iteration: u64, failure| -> ! {
            panic!(
                "episode {number}, iteration {iteration}: {failure}\
                 again: HEADGATE_FUZZ_SEED={episode_seed} cargo test -p fuzz"
            )
        };
        episode.begin().unwrap_or_else(|failure| failed(0, failure));
        for iteration in 1..=STEPS {
            episode.step(&seeds).unwrap_or_else(|failure| failed(iteration, failure));
            if Instant::now() >= end {
                break;
            }
        }
        stats.add(&episode.stats);
        if Instant::now() >= end {
            break;
        }
    }
    let took = begun.elapsed().as_secs_f64();
    println!("{stats}\n{took:.1} s, {:.0} executions a second", stats.executions as f64 / took);
    let missing = stats.missing();
    if seconds >= SECONDS_FOR_REASONS {
        assert!(
            missing.is_empty(),
            "drop reasons and states not reached: {missing:?}; seed {seed}"
        );
    } else {
        println!("not reached in this short run: {missing:?}");
    }
}

#[test]
fn what_was_found_stays_fixed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "hex") {
            continue;
        }
        files += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let inputs: Vec<Input> = lines.map(Input::from_line).collect();
        assert!(!inputs.is_empty(), "{} is empty", path.display());
        for workers in [1, 2] {
            for at_once in [1, 32] {
                let rng = fastrand::Rng::with_seed(1);
                let mut episode = Episode::with(workers, &Options::default(), rng);
                for burst in inputs.chunks(at_once) {
                    let done = episode.process(0, burst.to_vec(), false);
                    done.unwrap_or_else(|failure| panic!("{}: {failure}", path.display()));
                }
            }
        }
    }
    assert!(files > 0, "no stored packets");
}

#[test]
fn a_packet_is_written_and_read_back() {
    for input in seeds::made() {
        assert_eq!(Input::from_line(&input.to_line()), input);
    }
}
