//! What the gateway finds out by asking: nodes that lose kube-proxy, pods that fail a check of the
//! load balancer's own, nodes out of sight; and what becomes of clients of pods that are gone.

use anyhow::{Context, Result, bail, ensure};
use kubernetes::manifests::{self, BALANCED, HTTP};
use kubernetes::{AT_ONCE, Test, gate, get, wait};
use rig::cluster::ClusterOptions;
use rig::load;
use rig::plan;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Asked twice a second; three bad answers and two good ones decide, as by default.
const CONFIG: &str = "\n[probe]\ninterval = \"500ms\"\ntimeout = \"500ms\"\n";
/// Several times what three questions take, each of which may run into its time-out; without an
/// answer of theirs it would be never.
const DECIDED: Duration = Duration::from_secs(20);

/// A Deployment with the label `app: APP`, in a zone where one is named. None of its pods has a
/// probe that Kubernetes knows.
fn pods(name: &str, app: &str, replicas: usize, zone: &str, image: &str) -> String {
    let zone = match zone {
        "" => String::new(),
        zone => format!("      nodeSelector: {{topology.kubernetes.io/zone: {zone}}}\n"),
    };
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  \
         replicas: {replicas}\n  selector: {{matchLabels: {{app: {app}, set: {name}}}}}\n  \
         template:\n    metadata: {{labels: {{app: {app}, set: {name}}}}}\n    spec:\n{zone}      \
         containers:\n      - name: server\n        image: headgate.dev/{image}\n        \
         ports: [{{name: http, containerPort: 8080}}]\n---\n"
    )
}

fn service(name: &str, app: &str, notes: &str, policy: &str) -> String {
    let policy = format!("externalTrafficPolicy: {policy}");
    manifests::service(name, app, notes, &[BALANCED, policy.as_str()], HTTP)
}

/// Waits for so many backends; no longer than a decision takes.
fn decided(test: &Test, name: &str, backends: usize, what: &str) -> Result<()> {
    let begun = Instant::now();
    test.at_workers(name, backends)?;
    let took = begun.elapsed();
    println!("{what}: {backends} backends of {name} after {:.2} s", took.as_secs_f64());
    ensure!(took < DECIDED, "{what}: {took:?}, expected at most {DECIDED:?}");
    Ok(())
}

/// Weights of active backends by their node; both families have to agree.
fn weights(test: &Test, name: &str) -> Result<BTreeMap<String, u16>> {
    let mut weights = BTreeMap::<String, BTreeSet<u16>>::new();
    for row in test.world.admin()?.backends()? {
        if &*row.service.service.name == name && row.state == "active" {
            weights.entry(row.node).or_default().insert(row.weight);
        }
    }
    ensure!(weights.values().all(|both| both.len() == 1), "families differ: {weights:?}");
    Ok(weights.into_iter().filter_map(|(node, one)| Some((node, *one.first()?))).collect())
}

fn weigh(test: &Test, name: &str, wanted: &[(&str, u16)]) -> Result<()> {
    let wanted: BTreeMap<String, u16> =
        wanted.iter().map(|(node, weight)| ((*node).to_owned(), *weight)).collect();
    wait(&format!("weights of {name}: {wanted:?}"), || {
        let now = weights(test, name)?;
        ensure!(now == wanted, "{now:?}");
        Ok(true)
    })
}

#[test]
fn nodes_are_asked_whether_they_take_traffic() -> Result<()> {
    let Some(mut test) = gate::begin("node-probes", CONFIG)? else { return Ok(()) };
    let node = "headgate.dev/target: node";
    let local = format!("{node}, headgate.dev/node-probe: health-check-node-port");
    let yaml = [
        pods("three", "web", 3, "a", "nginx"),
        pods("one", "web", 1, "b", "nginx"),
        service("cluster", "web", node, "Cluster"),
        service("local", "web", &local, "Local"),
    ];
    test.roll_out(&yaml.concat(), &["three", "one"])?;
    for name in ["cluster", "local"] {
        test.at_workers(name, 2)?;
        let targets = test.targets(name, 80)?;
        wait(&format!("{name} answers"), || test.answers(&targets, 20).map(|_| true))?;
    }
    kube_proxy_stops(&mut test)?;
    weights_are_the_nodes_own_word(&mut test)?;
    test.settle()
}

/// A node without kube-proxy takes no new connections. What rules it has left go on, so nobody
/// notices. Where no node has it, something else serves nodePorts, and they are asked.
fn kube_proxy_stops(test: &mut Test) -> Result<()> {
    let targets = test.targets("cluster", 80)?;
    test.cluster.stop_kube_proxy(0)?;
    let outcome = test.under_load(&targets, || {
        decided(test, "cluster", 1, "kube-proxy of node-1 stopped")?;
        decided(test, "local", 1, "and by its health check nodePort")
    })?;
    println!("meanwhile {} requests, failed {}", outcome.requests, outcome.failed);
    outcome.check_complete()?;
    let rows = test.world.admin()?.backends()?;
    let mut used = rows.iter().filter(|row| row.state == "active");
    ensure!(used.all(|row| row.node == "node-2"), "{rows:#?}");
    let alone = test.pods("web")?;
    test.answered_by(&targets, &alone).context("by way of node-2 to all pods")?;

    test.cluster.stop_kube_proxy(1)?;
    decided(test, "cluster", 2, "no node has kube-proxy's health port")?;
    test.answers(&targets, 100)?;
    for index in [0, 1] {
        test.cluster.start_kube_proxy(index)?;
    }
    // It reads all Services and writes its rules before it says that it is well.
    test.at_workers("cluster", 2)?;
    test.at_workers("local", 2)?;
    weigh(test, "local", &[("node-1", 3), ("node-2", 1)])?;
    wait("all nodes answer", || test.answers(&targets, 40).map(|_| true))?;
    test.answered_by(&targets, &alone)
}

/// What counts is what kube-proxy says in `X-Load-Balancing-Endpoint-Weight`: cut off from the API
/// server, it goes by the endpoints that it knows, and the slices alone would say otherwise.
fn weights_are_the_nodes_own_word(test: &mut Test) -> Result<()> {
    let node = test.cluster.nodes()[0].namespace.clone();
    let service = test.service("local")?;
    let port = service["spec"]["healthCheckNodePort"].as_u64().context("healthCheckNodePort")?;
    let said = |test: &Test| -> Result<u64> {
        let at = SocketAddr::new(test.cluster.nodes()[0].addresses[0], u16::try_from(port)?);
        let mut command = node.command("curl");
        command.args(["-sS", "-i", "--max-time", "3", &format!("http://{at}/healthz")]);
        let text = rig::command::output_of(&mut command)?;
        let header = "x-load-balancing-endpoint-weight: ";
        let found = text
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix(header)?.trim().parse().ok());
        found.with_context(|| format!("no weight in {text}"))
    };
    wait("kube-proxy says 3", || Ok(said(test)? == 3))?;
    // Before that all fail, and all are used as the slices say.
    wait("no probe fails", || {
        Ok(test.world.admin()?.metric("headgate_probes{state=\"unhealthy\"}")? == 0.0)
    })?;
    test.cluster.cut(&node, true)?;
    test.cluster.kubectl("scale deployment/three --replicas=1")?;
    wait("the slices name two pods", || {
        let named = "get endpointslices -l kubernetes.io/service-name=local \
                     -o jsonpath={.items[*].endpoints[*].targetRef.name}";
        let named = test.cluster.kubectl(named)?;
        Ok(named.split_whitespace().collect::<BTreeSet<_>>().len() == 2)
    })?;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let now = weights(test, "local")?;
        ensure!(now.get("node-1") == Some(&3), "{now:?} where kube-proxy says 3");
        sleep(Duration::from_millis(200));
    }
    test.cluster.cut(&node, false)?;
    let begun = Instant::now();
    weigh(test, "local", &[("node-1", 1), ("node-2", 1)])?;
    println!("weight 1 where kube-proxy knows, after {:.1} s", begun.elapsed().as_secs_f64());
    let targets = [test.targets("cluster", 80)?, test.targets("local", 80)?].concat();
    wait("kube-proxy knows", || test.answers(&targets, 20).map(|_| true))?;
    test.answered_by(&targets, &test.pods("web")?)
}

#[test]
fn pods_are_asked_and_clients_of_gone_ones_told() -> Result<()> {
    let Some(test) = gate::begin("pod-probes", CONFIG)? else { return Ok(()) };
    let probe = "headgate.dev/probe: http, headgate.dev/probe-path: /ready, \
                 headgate.dev/probe-interval: 500ms";
    let yaml = [
        pods("web", "web", 3, "", "nginx"),
        pods("lines", "lines", 3, "", "echo"),
        service("web", "web", probe, "Cluster"),
        service("lines", "lines", "headgate.dev/reset-after: 5s", "Cluster"),
    ];
    test.roll_out(&yaml.concat(), &["web", "lines"])?;
    test.at_workers("web", 3)?;
    test.at_workers("lines", 3)?;
    checks_decide(&test)?;
    pods_are_clients(&test)?;
    endpoints_by_hand(&test)?;
    gone_clients_are_told(&test)?;
    test.settle()
}

/// A pod that fails the check leaves, though it is ready for all that Kubernetes knows. Where all
/// fail, the check is to blame, and all are used.
fn checks_decide(test: &Test) -> Result<()> {
    let (targets, pods) = (test.targets("web", 80)?, test.pods("web")?);
    test.probes_are("healthy", 6)?;
    let files: Vec<_> =
        pods.iter().map(|pod| test.cluster.pod_dir("default", pod).join("unready")).collect();
    let outcome = test.under_load(&targets, || {
        fs::write(&files[0], "")?;
        decided(test, "web", 2, "one pod fails the check")
    })?;
    outcome.check_complete()?;
    test.answered_by(&targets, &pods[1..])?;
    let outcome = test.under_load(&targets, || {
        files.iter().try_for_each(|file| fs::write(file, ""))?;
        // One family is a moment later than the other.
        test.probes_are("unhealthy", 6)?;
        test.story("web", &["AllProbesFail"])?;
        test.at_workers("web", 3)
    })?;
    println!("while all pods failed: {} requests, failed {}", outcome.requests, outcome.failed);
    outcome.check_complete()?;
    test.answered_by(&targets, &pods)?;
    files.iter().try_for_each(fs::remove_file)?;
    test.probes_are("healthy", 6)?;
    test.at_workers("web", 3)?;
    wait("no problem is left", || {
        let problems = test.world.admin()?.service("web")?.status.problems;
        ensure!(problems.is_empty(), "{problems:?}");
        Ok(true)
    })?;
    test.answered_by(&targets, &pods)
}

/// A pod reaches its own Service by its LoadBalancer addresses, others and itself. The way is
/// through the gateway, which every pod's default route leads to; back to pods it is given the
/// routes that a CNI's BGP would put there.
fn pods_are_clients(test: &Test) -> Result<()> {
    for node in test.cluster.nodes() {
        for (prefix, address) in node.pod_cidrs.iter().zip(node.addresses) {
            test.world.net.gateway.ip(&format!("route replace {prefix} via {address}"))?;
        }
    }
    let pods: BTreeSet<String> = test.pods("web")?.into_iter().collect();
    let own = pods.first().context("no pod")?;
    let inside = test.cluster.pod_namespace("default", own)?;
    let begun = |test: &Test| -> Result<u64> {
        let rows = test.world.admin()?.backends()?.into_iter();
        let of_web = rows.filter(|row| &*row.service.service.name == "web");
        Ok(of_web.map(|row| row.connections).sum())
    };
    for target in test.targets("web", 80)? {
        wait(&format!("a pod reaches {target}"), || get(&inside, target, "/").map(|_| true))?;
        let before = begun(test)?;
        let mut by = BTreeSet::new();
        for _ in 0..60 {
            by.insert(get(&inside, target, "/")?);
        }
        wait("all of it went through the gateway", || Ok(begun(test)? >= before + 60))?;
        ensure!(
            by == pods,
            "{own} reached {by:?} at {target}, expected {pods:?}, itself among them"
        );
        let source: IpAddr = get(&inside, target, "/source")?.parse()?;
        let nat: IpAddr = plan::NAT[usize::from(target.is_ipv6())].parse()?;
        ensure!(source == nat, "a pod was reached from {source}, expected {nat}");
    }
    Ok(())
}

/// A Service without a selector, and Endpoints written by hand, which a controller mirrors.
fn endpoints_by_hand(test: &Test) -> Result<()> {
    let pod = test.pods("web")?.remove(0);
    let address = test.cluster.kubectl(&format!("get pod {pod} -o jsonpath={{.status.podIP}}"))?;
    let yaml = service("hand", "web", "", "Cluster")
        .replace("  selector: {app: web}\n", "")
        .replace("RequireDualStack", "SingleStack\n  ipFamilies: [IPv4]");
    test.cluster.apply(&yaml)?;
    test.cluster.apply(&format!(
        "apiVersion: v1\nkind: Endpoints\nmetadata: {{name: hand}}\nsubsets:\n\
         - addresses: [{{ip: {address}}}]\n  ports: [{{name: http, port: 8080}}]\n"
    ))?;
    test.at_workers("hand", 1)?;
    test.programmed("hand")?;
    let addresses = test.ingress("hand")?;
    ensure!(addresses.len() == 1, "{addresses:?}");
    let targets = [SocketAddr::new(addresses[0], 80)];
    // No node is named in it, so that routes alone lead there: those of a moment ago.
    wait("the mirrored endpoint answers", || test.answers(&targets, 5).map(|_| true))?;
    test.answered_by(&targets, &[pod])?;
    test.cluster.kubectl("delete endpoints hand --timeout=60s")?;
    test.at_workers("hand", 0)
}

/// A connection to a server of lines, and whose it is.
fn open(test: &Test, target: SocketAddr) -> Result<(BufReader<TcpStream>, String)> {
    let client = &test.world.net.client;
    let stream = client.within(|| load::connect(None, target))??;
    let mut reader = BufReader::new(stream);
    let mut name = String::new();
    reader.read_line(&mut name).context("no greeting")?;
    reader.get_ref().set_read_timeout(Some(Duration::from_millis(200)))?;
    Ok((reader, name.trim_end().to_owned()))
}

/// The time from `since` until the connection is reset. It may end in no other way.
fn until_reset(reader: &mut BufReader<TcpStream>, since: Instant) -> Result<Duration> {
    let mut buffer = [0; 64];
    while since.elapsed() < kubernetes::PATIENCE {
        let heard = reader.get_mut().write_all(b"still there?\n");
        let heard = heard.and_then(|()| reader.read(&mut buffer));
        match heard.map_err(|error| error.kind()) {
            Err(ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(ErrorKind::ConnectionReset) => return Ok(since.elapsed()),
            other => bail!("{other:?} after {:?}, expected a reset", since.elapsed()),
        }
        sleep(Duration::from_millis(200));
    }
    bail!("no reset in {:?}", kubernetes::PATIENCE)
}

/// Pods vanish as with a machine that loses its power: no word of theirs reaches anybody. Their
/// clients get a RST when the time for it has come, and not before.
fn gone_clients_are_told(test: &Test) -> Result<()> {
    const WAIT: Duration = Duration::from_secs(5);
    // The table is looked through twice, in 15 s each, and a client that hears nothing sends at
    // growing distances.
    const LATER: Duration = Duration::from_secs(45);
    for target in test.targets("lines", 80)? {
        let (mut reader, pod) = open(test, target)?;
        test.cluster.pod_namespace("default", &pod)?.ip("link set eth0 down")?;
        let begun = Instant::now();
        test.cluster.kubectl(&format!("delete pod {pod} {AT_ONCE}"))?;
        let reset = until_reset(&mut reader, begun)?;
        println!(
            "{target}: {pod} was deleted, its client was reset {:.1} s later",
            reset.as_secs_f64()
        );
        ensure!(reset >= WAIT, "reset after {reset:?}, and not after {WAIT:?}");
        ensure!(reset < WAIT + LATER, "reset after {reset:?}");
        test.gone(&[pod])?;
        test.rolled_out("lines")?;
        test.at_workers("lines", 3)?;
    }
    Ok(())
}

/// All kubelets fall silent: Kubernetes takes all pods for unready, and they serve.
#[test]
fn pods_on_nodes_out_of_sight_are_used() -> Result<()> {
    let options =
        ClusterOptions { node_grace: Duration::from_secs(4), ..ClusterOptions::default() };
    let Some(mut test) = kubernetes::begin("unknown", &options, 2)? else { return Ok(()) };
    CONFIG.clone_into(&mut test.world.options.more);
    test.start_gateway()?;
    let yaml = [pods("web", "web", 3, "", "nginx"), service("web", "web", "", "Cluster")];
    test.roll_out(&yaml.concat(), &["web"])?;
    test.at_workers("web", 3)?;
    let (targets, names) = (test.targets("web", 80)?, test.pods("web")?);
    let ready = |node: &str| -> Result<String> {
        let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        test.cluster.kubectl(&format!("get node/{node} -o {path}"))
    };
    let nodes: Vec<String> = test.cluster.nodes().iter().map(|node| node.name.clone()).collect();
    let outcome = test.under_load(&targets, || {
        for index in 0..nodes.len() {
            test.cluster.stop_kubelet(index)?;
        }
        wait("all nodes are Unknown", || {
            let states: Result<Vec<String>> = nodes.iter().map(|node| ready(node)).collect();
            Ok(states?.iter().all(|state| state == "Unknown"))
        })?;
        wait("no endpoint is ready", || {
            let path = "jsonpath={.items[*].endpoints[*].conditions.ready}";
            let slices = "get endpointslices -l kubernetes.io/service-name=web";
            let ready = test.cluster.kubectl(&format!("{slices} -o {path}"))?;
            Ok(!ready.contains("true"))
        })?;
        test.story("web", &["UnknownNodesUsed"])?;
        test.at_workers("web", 3)
    })?;
    // From the last ready pod to the first good answer of one, nobody is known to serve.
    println!(
        "all nodes fell out of sight: {} requests, refused until the first good answer {}: {:?}",
        outcome.requests, outcome.failed, outcome.errors
    );
    let share = outcome.failed as f64 / outcome.requests as f64;
    ensure!(share < 0.5, "{} of {} requests failed", outcome.failed, outcome.requests);
    let outcome = test.answers(&targets, 200)?;
    println!("after that: {} requests, failed {}", outcome.requests, outcome.failed);
    test.answered_by(&targets, &names)?;

    let outcome = test.under_load(&targets, || {
        for index in 0..nodes.len() {
            test.cluster.start_kubelet(index)?;
        }
        test.cluster.kubectl("wait --for=condition=Ready pod -l app=web --timeout=60s")?;
        wait("no problem is left", || {
            let problems = test.world.admin()?.service("web")?.status.problems;
            ensure!(problems.is_empty(), "{problems:?}");
            Ok(true)
        })?;
        test.at_workers("web", 3)
    })?;
    // A node may be in sight before its pods are said to be ready.
    println!(
        "in sight again: {} requests, failed {}: {:?}",
        outcome.requests, outcome.failed, outcome.errors
    );
    test.answered_by(&targets, &names)?;
    test.settle()
}
