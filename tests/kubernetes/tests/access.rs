//! What an operator gets wrong: rules that are too small, credentials that have ended, files that
//! aren't there. Each is told with its remedy, what is forwarded stays, and once it is put right
//! the gateway is in step without a restart.

use anyhow::{Context, Result, ensure};
use kubernetes::outage::{Desk, Traffic, wait_for_problem, wait_for_step};
use kubernetes::{PATIENCE, Test, gate};
use rig::cluster::Credentials;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);

/// A problem is told, and is over once it is put right.
fn told_and_put_right(
    test: &Test,
    what: &str,
    words: &[&str],
    remedy: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let begun = Instant::now();
    let told = wait_for_problem(test, words)?;
    println!("{what}, told after {:.1} s: {told}", begun.elapsed().as_secs_f64());
    let log = fs::read_to_string(test.world.log())?;
    ensure!(words.iter().all(|word| log.contains(word)), "the log doesn't tell of {words:?}");
    remedy()?;
    let begun = Instant::now();
    wait_for_step(test, true, PATIENCE)?;
    kubernetes::wait("headgate status is good", || {
        let degraded = test.world.admin()?.status()?.degraded;
        ensure!(degraded.is_empty(), "{degraded:?}");
        Ok(true)
    })?;
    println!("  put right, good after {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

struct Files {
    kubeconfig: PathBuf,
    good: String,
    who: Credentials,
}

impl Files {
    fn of(test: &Test) -> Result<Self> {
        let kubeconfig = test.world.options.kubeconfig.clone().context("kubeconfig")?;
        let good = fs::read_to_string(&kubeconfig)?;
        let (namespace, name) = ("headgate-system", "headgate");
        let who = test.cluster.credentials_for_account(namespace, name, HOUR)?;
        Ok(Self { kubeconfig, good, who })
    }
    /// Puts the good kubeconfig back.
    fn put_back(&self) -> Result<()> {
        self.put(&self.good)
    }
    /// Its readers see all of it or nothing.
    fn put(&self, text: &str) -> Result<()> {
        let fresh = self.kubeconfig.with_extension("fresh");
        fs::write(&fresh, text)?;
        Ok(fs::rename(&fresh, &self.kubeconfig)?)
    }
}

#[test]
fn access_that_is_lost_is_told_and_forwarding_goes_on() -> Result<()> {
    let Some(mut test) = gate::begin("trust", "")? else { return Ok(()) };
    let mut desk = Desk::open(&test)?;
    let files = Files::of(&test)?;
    let traffic = Traffic::start(&test, &desk)?;
    while_it_runs(&test, &files)?;
    desk.change(&test, 0)?;
    desk.right_after(&test, "changed after all that", Instant::now())?;
    traffic.end()?;
    println!("ledger: {}", test.world.settle()?);
    from_the_start(&mut test, &desk, &files)?;
    println!("ledger: {}", test.world.settle()?);
    test.world.check_kernel_forwards_nothing()
}

/// With traffic, in a gateway that runs.
fn while_it_runs(test: &Test, files: &Files) -> Result<()> {
    let cluster = &test.cluster;
    let rules = r#"[{"op":"replace","path":"/rules/0/resources","value":["services"]}]"#;
    cluster.kubectl(&format!("patch clusterrole headgate --type=json -p {rules}"))?;
    let words = ["RBAC is too small", "nodes", "kubectl apply -k control/deploy"];
    told_and_put_right(test, "rule for nodes missing", &words, || {
        cluster.install_headgate().map(drop)
    })?;

    cluster.renew_token(&files.who, Duration::from_secs(1))?;
    let words = ["doesn't accept the credentials", "expired", "create token"];
    told_and_put_right(test, "token expired", &words, || cluster.renew_token(&files.who, HOUR))?;

    let other = cluster.foreign_authority()?;
    let ours = cluster.authority().display().to_string();
    files.put(&files.good.replace(&ours, &other.display().to_string()))?;
    let words = ["isn't signed by the authority in", "wrong CA", "certificate-authority-data"];
    told_and_put_right(test, "wrong CA", &words, || files.put_back())?;

    fs::remove_file(&files.kubeconfig)?;
    let words = ["can't be read", "kubernetes.kubeconfig"];
    told_and_put_right(test, "kubeconfig removed", &words, || files.put_back())
}

/// A gateway that starts with a kubeconfig that is no good serves what was stored.
fn from_the_start(test: &mut Test, desk: &Desk, files: &Files) -> Result<()> {
    test.world.gateway()?.stop()?;
    fs::remove_file(&files.kubeconfig)?;
    test.world.start_gateway()?;
    desk.is_served(test)?;
    let traffic = Traffic::start(test, desk)?;
    let missing = ["can't be read", "No such file", "kubernetes.kubeconfig"];
    let path = files.kubeconfig.display().to_string();
    for (what, text, words) in [
        ("no kubeconfig", None, &missing[..]),
        ("bad YAML", Some("clusters: [".to_owned()), &[&*path, "kubectl --kubeconfig", "version"]),
        (
            "unknown context",
            Some(files.good.replace("current-context: headgate", "current-context: nowhere")),
            &["no context nowhere", "kubernetes.context", "headgate"],
        ),
    ] {
        if let Some(text) = text {
            files.put(&text)?;
        }
        println!("{what}, told: {}", wait_for_problem(test, words)?);
        let checked = test.world.check()?;
        let tells = words.iter().all(|word| checked.contains(word));
        ensure!(tells, "headgate check doesn't tell of {words:?}:\n{checked}");
    }
    files.put_back()?;
    let begun = Instant::now();
    wait_for_step(test, true, PATIENCE)?;
    println!("the right kubeconfig: in step after {:.1} s", begun.elapsed().as_secs_f64());
    traffic.end()
}
