//! How little the gateway writes: for each transition no more than it takes to say it, nothing
//! where nothing is to be said, and nothing anew when it starts again.

use anyhow::{Context, Result, ensure};
use kubernetes::manifests::{self, BALANCED, HTTP, web};
use kubernetes::outage::wait_for_step;
use kubernetes::{PATIENCE, Test, gate, wait};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

/// As whom the gateway reports its Events.
const CLASS: &str = "headgate.dev/gateway";
/// Longer than a build, a write and what looks again at either.
const REST: Duration = Duration::from_secs(3);

fn service(name: &str, notes: &str, policy: &str) -> String {
    let policy = format!("externalTrafficPolicy: {policy}");
    manifests::service(name, "web", notes, &[BALANCED, policy.as_str()], HTTP)
}

#[test]
fn no_more_is_written_than_is_to_be_said() -> Result<()> {
    let Some(mut test) = gate::begin("writes", "")? else { return Ok(()) };
    test.roll_out(&web("web", 2), &["web"])?;
    new_ones(&test)?;
    other_addresses(&test)?;
    nodes_left_out(&test)?;
    started_again(&mut test)?;
    namespace_deleted(&test)?;
    test.settle()
}

/// Services whose pods are there already: one status each. An Event for each address, one that it
/// is programmed, and one for what isn't as it was asked for.
fn new_ones(test: &Test) -> Result<()> {
    let nodes = "headgate.dev/target: node";
    let none = "headgate.dev/addresses: '203.0.113.200,2001:db8::200'";
    for (name, notes, policy, events) in [
        ("web", "", "Cluster", 3),
        ("nodes", nodes, "Cluster", 3),
        // With its Event that the client's address isn't kept.
        ("local", nodes, "Local", 4),
    ] {
        // Slices may come a moment later than the Service: nobody serves it, then somebody does.
        test.writes_at_most(&format!("new Service {name}"), [2, events], || {
            test.cluster.apply(&service(name, notes, policy))?;
            test.at_workers(name, 2)?;
            test.programmed(name)
        })?;
    }
    // One Event a family.
    test.writes_at_most("new Service without a free address", [1, 2], || {
        test.cluster.apply(&service("asks", none, "Cluster"))?;
        test.story("asks", &["AllocationFailed"]).map(drop)
    })
}

/// Both addresses are given back, two others are given, and status says so once.
fn other_addresses(test: &Test) -> Result<()> {
    let wanted: Vec<SocketAddr> = vec!["203.0.113.11:80".parse()?, "[2001:db8::1b]:80".parse()?];
    test.writes_at_most("other addresses", [1, 4], || {
        let asked = "headgate.dev/addresses=203.0.113.11,2001:db8::1b";
        test.cluster.kubectl(&format!("annotate svc web --overwrite {asked}"))?;
        wait("the new addresses", || Ok(test.targets("web", 80)? == wanted))?;
        wait("they answer", || test.answers(&wanted, 10).map(|_| true))
    })?;
    test.answered_by(&wanted, &test.pods("web")?)
}

/// A node that no balancer is to use: that is nothing a status tells of.
fn nodes_left_out(test: &Test) -> Result<()> {
    let label = "node.kubernetes.io/exclude-from-external-load-balancers";
    for (what, change, backends) in
        [("a node is left out", "=true", 1), ("and taken in again", "-", 2)]
    {
        test.writes_at_most(what, [0, 0], || {
            test.cluster.kubectl(&format!("label node node-1 {label}{change}"))?;
            test.at_workers("nodes", backends)?;
            test.at_workers("local", backends)
        })?;
    }
    Ok(())
}

/// A gateway that is killed and starts again finds everything as it left it, and says nothing: not
/// of what is well, nor of what isn't.
fn started_again(test: &mut Test) -> Result<()> {
    let told = |test: &Test| -> Result<usize> {
        let events = test.cluster.get("events")?;
        Ok(gate::list(&events["items"]).filter(|one| one["reportingComponent"] == CLASS).count())
    };
    let (before, mark) = (told(test)?, test.cluster.audit_mark());
    test.world.gateway()?.kill();
    test.world.start_gateway()?;
    wait_for_step(test, true, PATIENCE)?;
    wait("it may write", || {
        let leadership = test.world.admin()?.status()?.source_state.leadership;
        Ok(leadership.is_some_and(|leadership| leadership.ours))
    })?;
    for name in ["web", "nodes", "local"] {
        test.at_workers(name, 2)?;
    }
    sleep(REST);
    let writes = test.writes_since(&mark)?;
    println!("killed and started again: writes {writes:?}");
    ensure!(writes.is_empty(), "a gateway that started again wrote {writes:?}");
    let after = told(test)?;
    ensure!(after == before, "there were {before:?} Events, and are {after:?}");
    test.answered_by(&test.targets("web", 80)?, &test.pods("web")?)
}

/// A namespace goes with a Service in it. What is told of it then may come too late, which is the
/// one thing that is refused; its addresses are another one's.
fn namespace_deleted(test: &Test) -> Result<()> {
    let asked = "headgate.dev/addresses: '203.0.113.12,2001:db8::1c'";
    let cluster = &test.cluster;
    cluster.kubectl("create namespace shop")?;
    let inside =
        |yaml: &str| yaml.replace("metadata: {name: ", "metadata: {namespace: shop, name: ");
    cluster.apply(&inside(&(web("web", 2) + &service("sold", asked, "Cluster"))))?;
    cluster.kubectl("rollout status deployment/web -n shop --timeout=60s")?;
    test.at_workers("sold", 2)?;
    let targets = test.targets("sold -n shop", 80)?;
    let answered = test.answers(&targets, 20)?;
    ensure!(answered.by_backend.len() == 2, "{answered:?}");

    let mark = cluster.audit_mark();
    // Its pods may go before it does, and then nobody serves it for a moment.
    test.writes_at_most("namespace deleted", [1, 2], || {
        cluster.kubectl("delete namespace shop --timeout=60s")?;
        wait("the gateway knows no such Service", || {
            let rows = test.world.admin()?.services()?;
            Ok(rows.iter().all(|row| &*row.status.name.name != "sold"))
        })
    })?;
    let entries = cluster.audit(&mark)?;
    let refused = entries.iter().filter(|e| e.user.username == gate::ACCOUNT && e.code() == 403);
    for entry in refused {
        println!("refused: {}", entry.message());
        ensure!(entry.object.namespace == "shop", "{entry:#?}");
    }
    cluster.apply(&service("heir", asked, "Cluster"))?;
    let now = test.targets("heir", 80)?;
    ensure!(now == targets, "{now:?} and not {targets:?}");
    let pods = test.pods("web").context("pods")?;
    test.at_workers("heir", pods.len())?;
    test.answered_by(&now, &pods)
}
