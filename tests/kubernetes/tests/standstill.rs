//! A hang made on purpose, with a gateway and a cluster in the middle of their lives: the words of
//! both say where they are, and nothing of them is left.

use anyhow::{Result, ensure};
use kubernetes::gate;
use rig::runner::watch::{Limits, run};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Makes [`stands_still`] do what it is called. Without it it does nothing.
const ON_PURPOSE: &str = "RIG_STANDS_STILL";

#[test]
fn stands_still() -> Result<()> {
    if std::env::var_os(ON_PURPOSE).is_none() {
        return Ok(());
    }
    let starts = Arc::new(AtomicBool::new(true));
    // Who says something doesn't stand still; by a way that libtest doesn't take for itself.
    let says = Arc::clone(&starts);
    std::thread::spawn(move || {
        while says.load(Ordering::Relaxed) {
            let _ = writeln!(std::io::stdout(), "it starts");
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    let test = gate::begin("still", "")?;
    starts.store(false, Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(3600));
    drop(test);
    Ok(())
}

#[test]
fn gateway_and_cluster_say_where_they_are() -> Result<()> {
    // Asked for and given back: the other process needs it.
    if rig::alone().is_none() {
        return Ok(());
    }
    let limits = Limits { silence: Duration::from_secs(15), whole: Duration::from_secs(1200) };
    let mut cargo = Command::new("sh");
    // A shell of its own stands for cargo.
    cargo.args(["-c", "\"$0\" --exact stands_still; true"]).arg(std::env::current_exe()?);
    let (_, stood) = run(cargo.env(ON_PURPOSE, "1"), limits, &mut |_| ())?;
    ensure!(stood.len() == 1, "{} stood still", stood.len());
    let still = &stood[0];
    ensure!(still.name == "standstill: stands_still", "{}", still.name);
    let has = |words: &str| still.lines.iter().any(|line| line.contains(words));
    for question in ["status", "show workers", "show drops"] {
        ensure!(has(&format!("headgate {question}, of ")), "no {question}");
    }
    ensure!(has("WORKER ") && has(" LEDGER"), "no answer of the gateway");
    for role in ["kubelets", "controllers", "apiserver", "kube-proxy"] {
        let title = format!("cluster {role}:");
        let at = still.lines.iter().position(|line| line.ends_with(&title));
        let stacks = still.lines.iter().skip(at.unwrap_or(still.lines.len())).skip(1).take(40);
        ensure!(stacks.clone().any(|line| line.contains("goroutine ")), "{role}: no stacks");
    }
    for left in ["/run/netns", rig::instance::BASE] {
        let names = Path::new(left).read_dir().into_iter().flatten().flatten();
        let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let ours = names.find(|name| name.starts_with("still-") || name.starts_with("hg-control"));
        ensure!(ours.is_none(), "{left} has {ours:?}");
    }
    Ok(())
}
