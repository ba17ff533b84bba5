//! The demo on a cluster, as `./run demo kubernetes --check` runs it: all is well, and the last line
//! says so in the words of the other demo.

use anyhow::{Context, Result, ensure};
use rig::command::finish;
use rig::demo::Summary;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

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
    let mut command = Command::new(program()?);
    // What it leaves where it is killed is removed by whoever makes namespaces next.
    let said = finish(command.args(["demo", "kubernetes", "--check"]), PATIENCE)?;
    let text = String::from_utf8(said.stdout)?;
    print!("{text}\n{}", String::from_utf8_lossy(&said.stderr));
    Ok((text, said.status.success()))
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
