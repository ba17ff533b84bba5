//! Another LoadBalancer controller on the same cluster, as a cloud's is: nobody takes what is the
//! other's, and no status moves to and fro.

use anyhow::{Result, anyhow, ensure};
use kubernetes::manifests::{self, NAMELESS, load_balancer, web};
use kubernetes::{Test, gate, wait};
use rig::cluster::{AuditMark, Cluster};
use rig::command::output_of;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// The finalizer of cloud controllers, and the range that the other one has addresses in.
const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";
const RANGE: &str = "192.0.2.";
/// How long nothing may be written to.
const STILL: Duration = Duration::from_secs(6);

fn service(name: &str, class: Option<&str>) -> String {
    manifests::service(name, "web", "", &[load_balancer(class).as_str()], NAMELESS)
}

/// A controller of Services without a class: the cloud's way, status and finalizer by patches,
/// whenever they aren't as it left them. It asks at short intervals, so that a quarrel would show.
struct Other {
    stop: AtomicBool,
    writes: AtomicUsize,
}

impl Other {
    fn run(&self, cluster: &Cluster) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            self.look(cluster)?;
            sleep(Duration::from_millis(300));
        }
        Ok(())
    }
    fn look(&self, cluster: &Cluster) -> Result<()> {
        let services = cluster.get("svc")?;
        for (index, service) in gate::list(&services["items"]).enumerate() {
            let spec = &service["spec"];
            if spec["type"] != "LoadBalancer" || !spec["loadBalancerClass"].is_null() {
                continue;
            }
            let name = service["metadata"]["name"].as_str().unwrap_or_default();
            let mut finalizers = gate::list(&service["metadata"]["finalizers"]);
            let has = finalizers.any(|one| one == FINALIZER);
            if !service["metadata"]["deletionTimestamp"].is_null() {
                if has {
                    self.patch(cluster, name, r#"{"metadata":{"finalizers":null}}"#, &[])?;
                }
                continue;
            }
            if !has {
                let patch = format!(r#"{{"metadata":{{"finalizers":["{FINALIZER}"]}}}}"#);
                self.patch(cluster, name, &patch, &[])?;
            }
            let ingress = &service["status"]["loadBalancer"]["ingress"];
            if !ingress[0]["ip"].as_str().is_some_and(|ip| ip.starts_with(RANGE)) {
                let ip = format!("{RANGE}{}", 10 + index);
                let patch =
                    format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{ip}"}}]}}}}}}"#);
                self.patch(cluster, name, &patch, &["--subresource=status"])?;
            }
        }
        Ok(())
    }
    fn patch(&self, cluster: &Cluster, name: &str, patch: &str, more: &[&str]) -> Result<()> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let mut command = cluster.kubectl_command(0)?;
        command.args(["patch", "svc", name, "--type=merge", "-p", patch]).args(more);
        output_of(&mut command).map(drop)
    }
}

/// The version of every Service.
fn versions(test: &Test) -> Result<String> {
    let columns = "NAME:.metadata.name,VERSION:.metadata.resourceVersion,F:.metadata.finalizers";
    test.cluster.kubectl(&format!("get svc -o custom-columns={columns}"))
}

/// Nobody writes to any Service.
fn still(test: &Test) -> Result<()> {
    let before = versions(test)?;
    sleep(STILL);
    let after = versions(test)?;
    ensure!(before == after, "somebody writes on and on:\n{before}\n{after}");
    Ok(())
}

fn has_other(test: &Test, name: &str) -> Result<()> {
    wait(&format!("{name} has an address and the finalizer of the other controller"), || {
        let service = test.service(name)?;
        let ip = service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str();
        Ok(ip.is_some_and(|ip| ip.starts_with(RANGE))
            && service["metadata"]["finalizers"][0] == FINALIZER)
    })
}

/// Writes of the gateway to the status of this Service.
fn written(test: &Test, name: &str) -> Result<usize> {
    let entries = test.cluster.audit(&AuditMark::default())?;
    let own = entries.iter().filter(|entry| entry.user.username == gate::ACCOUNT);
    let to =
        own.filter(|e| e.is_write() && e.object.resource == "services" && e.object.name == name);
    Ok(to.count())
}

#[test]
fn two_controllers_share_a_cluster() -> Result<()> {
    let Some(mut test) = gate::begin("coexistence", "\n[service]\ndefault_class = false\n")? else {
        return Ok(());
    };
    test.roll_out(&web("web", 2), &["web"])?;
    let other = Other { stop: AtomicBool::new(false), writes: AtomicUsize::new(0) };
    beside_the_other(&test, &other)?;
    // The same where services without a class are ours, but for those that have an address.
    test.world.options.more = "\n[service]\ndefault_class = true\n".into();
    test.world.start_gateway()?;
    test.at_workers("ours", 2)?;
    beside_it_as_default(&test, &other)?;
    test.settle()
}

/// Runs the other controller while `work` runs.
fn with_other(test: &Test, other: &Other, work: impl FnOnce() -> Result<()>) -> Result<()> {
    other.stop.store(false, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| other.run(&test.cluster));
        let outcome = work();
        other.stop.store(true, Ordering::Relaxed);
        let ended = running.join().map_err(|_| anyhow!("the other controller panicked"))?;
        ended.and(outcome)
    })
}

fn beside_the_other(test: &Test, other: &Other) -> Result<()> {
    with_other(test, other, || {
        let ours = service("ours", Some("headgate.dev/gateway"));
        let third = service("third", Some("example.net/third"));
        let yaml = [ours, third, service("theirs", None)].concat();
        test.cluster.apply(&yaml)?;
        has_other(test, "theirs")?;
        let targets: Vec<SocketAddr> = test.targets("ours", 80)?;
        test.at_workers("ours", 2)?;
        test.answered_by(&targets, &test.pods("web")?)?;
        still(test)?;
        ensure!(other.writes.load(Ordering::Relaxed) == 2, "the other had to write again");
        for name in ["theirs", "third"] {
            ensure!(written(test, name)? == 0, "the gateway wrote to {name}");
        }
        ensure!(test.ingress("third")?.is_empty(), "a class that nobody has got an address");
        ensure!(test.service("ours")?["metadata"]["finalizers"].is_null(), "ours has a finalizer");
        // Gone, by its own controller's leave alone.
        test.cluster.kubectl("delete svc theirs --timeout=60s")?;
        test.cluster.apply(&service("theirs", None))?;
        has_other(test, "theirs")
    })?;
    println!("the other controller wrote {} times", other.writes.load(Ordering::Relaxed));
    Ok(())
}

fn beside_it_as_default(test: &Test, other: &Other) -> Result<()> {
    // What has the other's address stays the other's, and the story says so.
    test.story("theirs", &["ForeignStatus"])?;
    ensure!(written(test, "theirs")? == 0, "the gateway wrote to theirs");
    // What is new and has no class is ours now, as long as the other one doesn't run.
    test.cluster.apply(&service("fresh", None))?;
    let targets = test.targets("fresh", 80)?;
    test.at_workers("fresh", 2)?;
    test.answered_by(&targets, &test.pods("web")?)?;
    ensure!(test.service("theirs")?["metadata"]["finalizers"][0] == FINALIZER);
    test.cluster.kubectl("delete svc fresh --timeout=60s")?;
    with_other(test, other, || {
        still(test)?;
        test.cluster.kubectl("delete svc theirs --timeout=60s").map(drop)
    })
}
