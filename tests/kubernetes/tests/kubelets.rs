//! The player of kubelets, by its own tests: hundreds of pods that come and go, under Go's race
//! detector. A lock that is never given back ends by Go's own limit, with all stacks.

use anyhow::{Result, ensure};
use rig::command::finish;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Half of a minute is enough where nothing is to be built, which takes two minutes the first time.
const LIMIT: &str = "-timeout=240s";
const PATIENCE: Duration = Duration::from_secs(900);

#[test]
fn pods_come_and_go_under_the_race_detector() -> Result<()> {
    let Some(_alone) = rig::alone() else { return Ok(()) };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster");
    let mut go = Command::new("go");
    go.args(["test", "-race", "-count=1", "-v", LIMIT, "./kubelets"]);
    let said = finish(go.current_dir(source), PATIENCE)?;
    let text = String::from_utf8_lossy(&said.stdout);
    println!("{text}\n{}", String::from_utf8_lossy(&said.stderr));
    ensure!(said.status.success(), "{}", said.status);
    ensure!(text.contains("--- PASS: TestPodsComeAndGo"), "it didn't run");
    Ok(())
}
