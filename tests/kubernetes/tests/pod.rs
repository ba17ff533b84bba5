//! A gateway that runs as a pod: no kubeconfig, but what a kubelet puts there.

use anyhow::{Context, Result, bail};
use kubernetes::manifests::{NAMELESS, balanced, web};
use kubernetes::outage::{wait_for_problem, wait_for_step};
use kubernetes::{PATIENCE, Test};
use rig::cluster::{ClusterOptions, Credentials, plan};
use rig::config::Pod;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// As a kubelet writes a new token: its readers see all of it or the one before.
fn put_token(test: &Test, who: &Credentials, folder: &Path, lifetime: Duration) -> Result<()> {
    test.cluster.renew_token(who, lifetime)?;
    let Credentials::Token { file, .. } = who else { bail!("no token") };
    let fresh = folder.join("fresh");
    fs::copy(file, &fresh)?;
    Ok(fs::rename(&fresh, folder.join("token"))?)
}

#[test]
fn a_gateway_runs_as_a_pod_does() -> Result<()> {
    let Some(mut test) = kubernetes::begin("pod", &ClusterOptions::default(), 2)? else {
        return Ok(());
    };
    let who = test.cluster.install_headgate()?;
    let folder = test.world.net.instance.dir().join("serviceaccount");
    fs::create_dir_all(&folder)?;
    fs::copy(test.cluster.authority(), folder.join("ca.crt"))?;
    fs::write(folder.join("namespace"), "headgate-system")?;
    let hour = Duration::from_secs(3600);
    put_token(&test, &who, &folder, hour)?;
    let server = SocketAddr::new(plan::shared()[0], plan::API_PORT);
    test.world.options.pod = Some(Pod { credentials: folder.clone(), server });
    test.world.start_gateway()?;
    let yaml = web("web", 2) + &balanced("web", "web", NAMELESS);
    test.roll_out(&yaml, &["web"])?;
    test.at_workers("web", 2)?;
    let targets = test.targets("web", 80)?;
    test.answered_by(&targets, &test.pods("web")?)?;

    // A token that has ended is the kubelet's to renew, and is taken up without a restart.
    put_token(&test, &who, &folder, Duration::from_secs(1))?;
    let told = wait_for_problem(&test, &["doesn't accept the credentials", "kubelet"])?;
    println!("an expired token, told: {told}");
    put_token(&test, &who, &folder, hour)?;
    wait_for_step(&test, true, PATIENCE).context("with a token that is good again")?;
    test.answered_by(&targets, &test.pods("web")?)?;
    test.settle()
}
