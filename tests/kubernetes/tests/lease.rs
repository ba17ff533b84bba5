//! Two gateways on one cluster: the holder of the Lease allocates addresses and writes, and when it
//! is killed the other one does, with no address given twice.

use anyhow::{Context, Result, ensure};
use kubernetes::manifests::balanced;
use kubernetes::outage::{Desk, Traffic};
use kubernetes::{Test, gate, wait};
use rig::cluster::{ClusterOptions, Via};
use rig::world::{World, WorldOptions};
use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long the Lease holds after its last renewal: the least that can be configured.
const LEASE: Duration = Duration::from_secs(5);

/// A gateway by this name among several.
fn known_as(identity: &str) -> Vec<(&'static str, String)> {
    let lasts = format!("\"{}s\"", LEASE.as_secs());
    vec![("identity", format!("{identity:?}")), ("lease_duration", lasts)]
}

/// The addresses that all Services have had.
#[derive(Default)]
struct Given(BTreeMap<String, Vec<String>>);

impl Given {
    /// Looks again: no address is given twice, and none that was given changes.
    fn look(&mut self, test: &Test) -> Result<usize> {
        let services = test.cluster.get("svc -A")?;
        let mut owners = BTreeMap::<String, String>::new();
        for service in gate::list(&services["items"]) {
            let uid = service["metadata"]["uid"].as_str().context("uid")?.to_owned();
            let ingress = gate::list(&service["status"]["loadBalancer"]["ingress"]);
            let now: Vec<String> =
                ingress.filter_map(|entry| entry["ip"].as_str().map(str::to_owned)).collect();
            for address in &now {
                let other = owners.insert(address.clone(), uid.clone());
                ensure!(other.is_none(), "{address} was given to {uid} and to {other:?}");
            }
            if let Some(before) = self.0.get(&uid) {
                ensure!(*before == now, "{uid} had {before:?} and has {now:?}");
            }
            if !now.is_empty() {
                self.0.insert(uid, now);
            }
        }
        Ok(owners.len())
    }
    /// Looks until so many addresses are given.
    fn wait_for(&mut self, test: &Test, count: usize) -> Result<()> {
        wait(&format!("{count} addresses are given"), || Ok(self.look(test)? == count))
    }
}

/// Services without endpoints, `NAME-1` and so on.
fn services(name: &str, count: usize) -> String {
    let one = |index| balanced(&format!("{name}-{index}"), "", "{port: 80}");
    (1..=count).map(one).collect()
}

/// Who holds the Lease, and how often that was another.
fn holder(test: &Test) -> Result<(String, u64)> {
    let lease = test.cluster.get("lease/headgate -n headgate-system")?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
    Ok((holder, lease["spec"]["leaseTransitions"].as_u64().unwrap_or_default()))
}

/// Waits until this gateway allocates and writes.
fn wait_for_leader(world: &World) -> Result<()> {
    wait("the gateway allocates and writes", || {
        let leadership = world.admin()?.status()?.source_state.leadership;
        Ok(leadership.is_some_and(|leadership| leadership.ours))
    })
}

#[test]
fn the_lease_moves_and_no_address_is_given_twice() -> Result<()> {
    let Some(mut test) = kubernetes::begin("lease", &ClusterOptions::default(), 1)? else {
        return Ok(());
    };
    // The first one has a network of its own, in which there are no nodes: it says who gets what.
    let mut first = World::build(&WorldOptions { backends: 0, ..WorldOptions::new("first") })?;
    test.cluster.attach(&first.net.gateway)?;
    let who = test.cluster.install_headgate()?;
    first.options.kubeconfig = Some(test.cluster.kubeconfig_with("first", &who, Via::Shared)?);
    first.options.kubernetes = known_as("first");
    first.start_gateway()?;
    wait_for_leader(&first)?;
    // The second one has the clients and the nodes.
    test.world.options.kubernetes = known_as("second");
    test.start_gateway()?;
    let leadership = test.world.admin()?.status()?.source_state.leadership.context("no Lease")?;
    ensure!(!leadership.ours && leadership.holder == "first", "{leadership:?}");

    let mut given = Given::default();
    let desk = Desk::open(&test)?;
    let used = given.look(&test)?;
    let traffic = Traffic::start(&test, &desk)?;
    let (_, transitions) = holder(&test)?;

    first.gateway()?.kill();
    let begun = Instant::now();
    test.cluster.apply(&services("orphan", 3))?;
    wait_for_leader(&test.world)?;
    println!(
        "the holder was killed: the other one writes after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    given.wait_for(&test, used + 6)?;
    println!("Services made meanwhile have addresses after {:.1} s", begun.elapsed().as_secs_f64());
    ensure!(holder(&test)? == ("second".to_owned(), transitions + 1), "{:?}", holder(&test)?);

    // The killed one comes back, and leaves it at that.
    first.start_gateway()?;
    test.cluster.apply(&services("late", 2))?;
    test.cluster.kubectl("delete svc orphan-1 --timeout=60s")?;
    given.wait_for(&test, used + 6 + 4 - 2)?;
    let until = Instant::now() + 3 * LEASE;
    while Instant::now() < until {
        given.look(&test)?;
        let leadership = first.admin()?.status()?.source_state.leadership.context("no Lease")?;
        ensure!(!leadership.ours && leadership.holder == "second", "{leadership:?}");
        sleep(Duration::from_millis(500));
    }
    ensure!(holder(&test)? == ("second".to_owned(), transitions + 1), "{:?}", holder(&test)?);
    wait("both gateways know the same addresses", || {
        let known = |world: &World| -> Result<BTreeMap<_, _>> {
            let rows = world.admin()?.services()?.into_iter();
            Ok(rows.map(|row| (row.status.name.to_string(), row.status.addresses)).collect())
        };
        let [ours, theirs] = [known(&test.world)?, known(&first)?];
        ensure!(ours == theirs, "{ours:?} and {theirs:?}");
        Ok(ours.values().map(Vec::len).sum::<usize>() == given.look(&test)?)
    })?;
    desk.is_served(&test)?;
    traffic.end()?;
    test.settle()?;
    println!("ledger of the other gateway: {}", first.settle()?);

    // Who ends in good order gives the Lease back.
    let begun = Instant::now();
    let ended = test.world.gateway()?.stop()?;
    let (who, _) = holder(&test)?;
    let log = fs::read_to_string(test.world.log())?;
    // Unless the machine was away for as long as that may take.
    ensure!(who != "second" || log.contains("runs out by itself"), "{who} holds the Lease still");
    wait_for_leader(&first)?;
    println!(
        "the holder was stopped and ended after {:.1} s: the other one writes after {:.1} s",
        ended.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    test.cluster.apply(&services("last", 1))?;
    let count = given.look(&test)?;
    given.wait_for(&test, count.max(used + 6 + 4 - 2 + 2))
}
