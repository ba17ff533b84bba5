//! `headgate explain service` on a real cluster: for each way in which a Service isn't reached the
//! step where its walk stops, a remedy that can be typed, and a walk to its end once that is put
//! right.

use anyhow::{Context, Result, bail, ensure};
use kubernetes::manifests::{self, load_balancer};
use kubernetes::{Test, gate, wait};
use rig::command::{feed, output_of};
use rig::plan;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;

/// A pool with room for one Service, for those that ask for it.
const CONFIG: &str = r#"
[service]
default_class = false

[[pool]]
name = "tiny"
addresses = ["203.0.113.64-203.0.113.64", "2001:db8::40-2001:db8::40"]
auto_assign = false
"#;

/// `web` is well. Nobody listens in `closed`, which is ready for all that Kubernetes knows.
const PODS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: nginx
        image: nginx
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /ready, port: http}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: closed}
spec:
  replicas: 1
  selector: {matchLabels: {app: closed}}
  template:
    metadata: {labels: {app: closed}}
    spec:
      containers:
      - name: sleeper
        image: anything
        command: [sleep, '1000']
---
";

const OURS: &str = "headgate.dev/gateway";
const NODE_PORT: u16 = 30_083;
/// What is read of type LoadBalancer alone, with a value that makes sense there.
const BALANCED_ONLY: [(&str, &str); 6] = [
    ("headgate.dev/addresses", "203.0.113.9,2001:db8::19"),
    ("headgate.dev/scheme", "internal"),
    ("headgate.dev/share-key", "word"),
    ("headgate.dev/take-over", "true"),
    ("headgate.dev/node-ports", "true"),
    ("headgate.dev/pool", "demo"),
];

/// A dual-stack Service for the pods of `app`, where one is named. Its port is a number, so that
/// it has one in `closed` as well.
fn service(name: &str, notes: &str, kind: &str, app: &str) -> String {
    manifests::service(name, app, notes, &[kind], "{name: http, port: 80, targetPort: 8080}")
}

/// The same of type LoadBalancer, with a class or without one.
fn balanced(name: &str, notes: &str, class: Option<&str>, app: &str) -> String {
    service(name, notes, &load_balancer(class), app)
}

/// Where a walk stops.
struct Stop {
    question: String,
    finding: String,
    remedy: String,
}

/// Walks: how many answers are good, and where it stops, if it does.
fn walk(test: &Test, name: &str) -> Result<(usize, Option<Stop>)> {
    let told = test.world.admin()?.explain_service(&format!("default/{name}"))?;
    let good = told.steps.iter().take_while(|step| step.good).count();
    let stop = told.steps.get(good).map(|step| Stop {
        question: step.question.clone(),
        finding: step.finding.clone(),
        remedy: step.remedy.clone().unwrap_or_default(),
    });
    let all = good + usize::from(stop.is_some());
    ensure!(all == told.steps.len(), "it goes on after a no: {told:#?}");
    Ok((good, stop))
}

/// Waits until all answers are good.
fn well(test: &Test, name: &str) -> Result<()> {
    wait(&format!("{name} is well"), || {
        let (good, stop) = walk(test, name)?;
        if let Some(Stop { question, finding, remedy }) = stop {
            bail!("no {question}: {finding} -> {remedy}");
        }
        ensure!(good >= 8, "only {good} questions");
        Ok(true)
    })
}

/// Waits until the walk stops at this question with these words in its finding or remedy, and types
/// what the remedy says.
fn stops(test: &Test, name: &str, question: &str, words: &[&str]) -> Result<()> {
    let mut found = None;
    wait(&format!("{name} stops at {question:?}"), || {
        let stop = walk(test, name)?.1.context("all is well")?;
        let said = format!("no {}: {} -> {}", stop.question, stop.finding, stop.remedy);
        ensure!(stop.question == question, "{said}");
        ensure!(words.iter().all(|word| said.contains(word)), "{words:?} are not all in {said}");
        ensure!(said.lines().count() == 1, "more than a line: {said}");
        found = Some((stop, said));
        Ok(true)
    })?;
    let (stop, said) = found.context("no stop")?;
    println!("{name}: {said}");
    let commands = commands(&stop.remedy);
    ensure!(!commands.is_empty(), "the remedy names nothing to type: {}", stop.remedy);
    for command in commands {
        let output = typed(test, &command).with_context(|| format!("remedy {:?}", stop.remedy))?;
        println!("  $ {command}\n{}", output.trim_end());
    }
    Ok(())
}

/// What a person's shell makes of it.
fn typed(test: &Test, command: &str) -> Result<String> {
    let program = test.cluster.kubectl_program()?;
    let folder = program.parent().context("kubectl's folder")?.display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).env("PATH", path);
    // What kubectl remembers of this cluster goes away with it.
    shell.env("HOME", test.world.net.instance.dir());
    output_of(shell.env("KUBECONFIG", test.cluster.host_kubeconfig()?))
}

/// The kubectl commands in a sentence, each up to where the sentence goes on.
fn commands(sentence: &str) -> Vec<String> {
    let (mut found, mut rest) = (Vec::new(), sentence);
    while let Some(at) = rest.find("kubectl ") {
        let (command, after) = rest[at..].split_at(length(&rest[at..]));
        found.push(command.trim_end().to_owned());
        rest = after;
    }
    found
}

fn length(text: &str) -> usize {
    const GOES_ON: [&str; 4] = [" shows ", " lists ", " tells ", " and "];
    let mut quoted = false;
    for (at, letter) in text.char_indices() {
        let rest = &text[at..];
        match letter {
            '\'' => quoted = !quoted,
            _ if quoted => {}
            ';' | '?' => return at,
            ',' | ':' | '.' if rest.len() == 1 || rest[1..].starts_with(' ') => return at,
            ' ' if GOES_ON.iter().any(|words| rest.starts_with(words)) => return at,
            _ => {}
        }
    }
    text.len()
}

#[test]
fn commands_are_found_in_sentences() {
    let of = |text: &str| commands(text).join(" | ");
    assert_eq!(
        of("headgate show pools, and kubectl get services -A: who has them?"),
        "kubectl get services -A"
    );
    assert_eq!(
        of("set it; kubectl get svc x -o wide shows the ports"),
        "kubectl get svc x -o wide"
    );
    assert_eq!(
        of("is it? kubectl get networkpolicies; else this. kubectl -n a describe pod b."),
        "kubectl get networkpolicies | kubectl -n a describe pod b"
    );
    let patch = "kubectl -n a patch service b -p '{\"spec\":{\"type\":\"X\", \"y\": \"and ? z\"}}'";
    assert_eq!(of(&format!("patch it: {patch}")), patch);
    assert_eq!(of("nothing to type"), "");
}

#[test]
fn the_walk_names_what_is_wrong_and_what_to_do() -> Result<()> {
    let Some(test) = gate::begin("explain", CONFIG)? else { return Ok(()) };
    test.roll_out(&(PODS.to_owned() + &manifests::web("mute", 1)), &["web", "mute", "closed"])?;
    test.cluster.apply(&balanced("web", "", Some(OURS), "web"))?;
    well(&test, "web")?;
    println!("{}", test.world.admin()?.text(&["explain", "service", "default/web"])?);
    endpoints(&test)?;
    addresses(&test)?;
    classes(&test)?;
    annotations(&test)?;
    node_ports(&test)?;
    silence(&test)?;
    well(&test, "web")?;
    test.settle()
}

/// No slice, a selector that matches nothing, pods that aren't ready.
fn endpoints(test: &Test) -> Result<()> {
    let select = |name: &str| {
        let patch = r#"{"spec":{"selector":{"app":"web"}}}"#;
        test.cluster.kubectl(&format!("patch svc {name} -p {patch}"))
    };
    test.cluster.apply(&balanced("bare", "", Some(OURS), ""))?;
    stops(test, "bare", "has it EndpointSlices", &["no slice names it", "no selector"])?;
    select("bare")?;
    well(test, "bare")?;

    test.cluster.apply(&balanced("lost", "", Some(OURS), "nobody"))?;
    stops(test, "lost", "has it endpoints", &["selector app=nobody matches no pod"])?;
    select("lost")?;
    well(test, "lost")?;

    let files: Vec<_> = test
        .pods("web")?
        .iter()
        .map(|pod| test.cluster.pod_dir("default", pod).join("unready"))
        .collect();
    files.iter().try_for_each(|file| fs::write(file, ""))?;
    stops(test, "web", "is one ready", &["endpoints is ready", "readiness probes"])?;
    files.iter().try_for_each(fs::remove_file)?;
    well(test, "web")
}

/// A pool that is used up.
fn addresses(test: &Test) -> Result<()> {
    let tiny = "headgate.dev/pool: tiny";
    test.cluster.apply(&balanced("first", tiny, Some(OURS), "web"))?;
    well(test, "first")?;
    test.cluster.apply(&balanced("second", tiny, Some(OURS), "web"))?;
    let words = ["tiny", "not a free address of each family", "headgate show pools"];
    stops(test, "second", "has it an address", &words)?;
    let pools = test.world.admin()?.text(&["show", "pools"])?;
    ensure!(pools.contains("tiny"), "{pools}");
    test.cluster.kubectl("delete svc first --timeout=60s")?;
    well(test, "second")
}

/// Another class, and none. A class can't be changed.
fn classes(test: &Test) -> Result<()> {
    for (name, class, words) in [
        ("other", Some("example.com/lb"), ["class \"example.com/lb\"", OURS]),
        ("classless", None, ["it has no class", OURS]),
    ] {
        test.cluster.apply(&balanced(name, "", class, "web"))?;
        stops(test, name, "is it ours", &words)?;
        test.cluster.kubectl(&format!("delete svc {name} --timeout=60s"))?;
        test.cluster.apply(&balanced(name, "", Some(OURS), "web"))?;
        well(test, name)?;
    }
    Ok(())
}

/// Annotations that count for type LoadBalancer alone are named on any other. The remedy makes it
/// one that is ours.
fn annotations(test: &Test) -> Result<()> {
    test.cluster.apply(&service("plain", "", "type: ClusterIP", "web"))?;
    test.cluster.apply(&service("noted", "", "type: NodePort", "web"))?;
    let admin = test.world.admin()?;
    for (annotation, value) in BALANCED_ONLY {
        for name in ["plain", "noted"] {
            test.cluster.kubectl(&format!("annotate svc {name} {annotation}={value}"))?;
            wait(&format!("{annotation} is named for {name}"), || {
                let said = admin.text(&["explain", "service", &format!("default/{name}")])?;
                ensure!(said.contains(annotation), "{said}");
                Ok(true)
            })?;
            test.cluster.kubectl(&format!("annotate svc {name} {annotation}-"))?;
        }
    }
    test.cluster.kubectl("annotate svc plain headgate.dev/pool=demo")?;
    let words = ["headgate.dev/pool", "type LoadBalancer", "ClusterIP", "loadBalancerClass"];
    stops(test, "plain", "is it ours", &words)?;
    // Which was done, by typing it.
    well(test, "plain")?;
    test.targets("plain", 80).map(drop)
}

/// A nodePort is answered on the addresses that are listed for it, and on no other.
fn node_ports(test: &Test) -> Result<()> {
    let patch = format!(r#"{{"spec":{{"ports":[{{"port":80,"nodePort":{NODE_PORT}}}]}}}}"#);
    test.cluster.kubectl(&format!("patch svc noted -p {patch}"))?;
    well(test, "noted")?;
    let admin = test.world.admin()?;
    let nodes = test.cluster.nodes().iter().flat_map(|node| node.addresses);
    let back = plan::GATEWAY_BACK.iter().map(|text| text.parse::<IpAddr>());
    let asked: Vec<IpAddr> = nodes.map(Ok).chain(back).collect::<Result<_, _>>()?;
    for address in asked {
        let client = plan::client(0)[usize::from(address.is_ipv6())];
        let (from, to) = (SocketAddr::new(client, 40_000), SocketAddr::new(address, NODE_PORT));
        wait(&format!("{to} is explained"), || {
            let told = admin.explain_tcp(from, to)?.remedy.context("no remedy")?;
            let words = [format!("nodePort {NODE_PORT}"), "default/noted".to_owned()];
            let front = plan::GATEWAY_FRONT.iter().all(|own| told.contains(own));
            ensure!(front && words.iter().all(|word| told.contains(word)), "{told}");
            Ok(true)
        })?;
    }
    Ok(())
}

/// A pod whose port is closed, and one that hears nothing of what comes from the gateway.
fn silence(test: &Test) -> Result<()> {
    const ASKED: &str = "does a backend of each node answer";
    test.cluster.apply(&balanced("closed", "", Some(OURS), "closed"))?;
    let pod = test.pods("closed")?.remove(0);
    let describe = format!("describe pod {pod}");
    stops(test, "closed", ASKED, &["refused", "listen on that port", &describe])?;
    let patch = r#"{"spec":{"selector":{"app":"web"}}}"#;
    test.cluster.kubectl(&format!("patch svc closed -p {patch}"))?;
    well(test, "closed")?;

    test.cluster.apply(&balanced("mute", "", Some(OURS), "mute"))?;
    well(test, "mute")?;
    let pod = test.pods("mute")?.remove(0);
    let inside = test.cluster.pod_namespace("default", &pod)?;
    // As a policy of the cluster's network does it; the node's own questions pass.
    let rules = "table inet mute {\nchain input {\ntype filter hook input priority 0; policy accept;\n\
                 ip saddr 198.18.1.0/24 tcp dport 8080 drop\n\
                 ip6 saddr 2001:db8:0:2::/64 tcp dport 8080 drop\n}\n}\n";
    feed(inside.command("nft").args(["-f", "-"]), rules)?;
    let describe = format!("describe pod {pod}");
    stops(test, "mute", ASKED, &["timed out", "net.ipv4.ip_forward", &describe])?;
    output_of(inside.command("nft").args(["delete", "table", "inet", "mute"]))?;
    well(test, "mute")
}
