//! The demo on a cluster, as `./run demo kubernetes --check` runs it: all is well, and the last line
//! says so in the words of the other demo.

use anyhow::{Context, Result, bail, ensure};
use rig::demo::Summary;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A minute where nothing else is to be done.
const PATIENCE: Duration = Duration::from_secs(600);
/// As many as the demo promises with `--check`.
const REQUESTS: u64 = 20_000;

/// The binary that cargo has put beside the gateway's.
fn program() -> Result<PathBuf> {
    let program = rig::gateway::program()?.with_file_name("rig");
    ensure!(program.is_file(), "no {}: run `cargo build -p rig`", program.display());
    Ok(program)
}

/// Runs it to its end; what it printed, and whether it says that all is well.
fn run() -> Result<(String, bool)> {
    let log = std::env::temp_dir().join(format!("headgate-demo-{}", std::process::id()));
    let file = File::create(&log)?;
    let mut command = Command::new(program()?);
    command.args(["demo", "kubernetes", "--check"]).stdin(Stdio::null());
    let mut child = command.stdout(file.try_clone()?).stderr(file).spawn()?;
    let begun = Instant::now();
    let ended = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if begun.elapsed() > PATIENCE {
            // What it leaves is removed by whoever makes namespaces next.
            child.kill()?;
            child.wait()?;
            break None;
        }
        sleep(Duration::from_millis(200));
    };
    let text = fs::read_to_string(&log)?;
    fs::remove_file(&log)?;
    print!("{text}");
    match ended {
        Some(status) => Ok((text, status.success())),
        None => bail!("the demo still ran after {PATIENCE:?}"),
    }
}

fn keys(value: &Value) -> Result<BTreeSet<&str>> {
    let object = value.as_object().context("the last line is no object")?;
    Ok(object.keys().map(String::as_str).collect())
}

#[test]
fn the_demo_on_a_cluster_is_well() -> Result<()> {
    let Some(_alone) = rig::alone() else { return Ok(()) };
    let (text, well) = run()?;
    let last = text.trim_end().lines().next_back().context("it printed nothing")?;
    let summary: Value = serde_json::from_str(last).with_context(|| last.to_owned())?;
    let both = serde_json::to_value(Summary::default())?;
    ensure!(keys(&summary)? == keys(&both)?, "{summary}, expected the keys of {both}");
    ensure!(well, "the demo isn't well: {summary}");
    for key in ["failed", "broken"] {
        ensure!(summary[key] == 0, "{key}: {summary}");
    }
    ensure!(summary["ledger"] == "exact", "{summary}");
    ensure!(summary["requests"].as_u64() == Some(REQUESTS), "{summary}");
    let by = summary["by_backend"].as_object().context("by_backend")?;
    let answered: u64 = by.values().filter_map(Value::as_u64).sum();
    ensure!(by.len() == 3 && answered == REQUESTS, "{summary}");
    Ok(())
}
