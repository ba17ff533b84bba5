//! Every way by which clients reach a Service, under load while its pods come and go: nobody
//! notices, as long as pods serve until the gateway knows that they go.

use anyhow::{Context, Result, bail, ensure};
use kubernetes::manifests::{BALANCED, HTTP, balanced, service};
use kubernetes::{Test, gate, wait};
use rig::flows::{Datagrams, Greetings};
use rig::load::{self, Load, Outcome, Running};
use rig::plan;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Pods that serve for 2 s after they are told to go. The port `alt` is another server's, so that
/// its answers tell it from `http`.
const PODS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
      - name: nginx
        image: nginx
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /ready, port: http}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 2}}}
      - name: alt
        image: anything
        ports: [{name: alt, containerPort: 8443}]
        lifecycle: {preStop: {sleep: {seconds: 2}}}
        command:
        - sh
        - -c
        - |
          mkdir -p $POD_DIR/second && cd $POD_DIR/second
          cat > conf <<END
          user root; daemon off; pid $PWD/pid; worker_processes 1;
          events { worker_connections 1024; }
          http {
            access_log off; default_type text/plain;
            client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
            uwsgi_temp_path uwsgi; scgi_temp_path scgi;
            server {
              listen 8443 backlog=4096; listen [::]:8443 backlog=4096;
              location / { return 200 "$POD_NAME alt\n"; }
            }
          }
          END
          exec nginx -p $PWD -c $PWD/conf -e stderr
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  replicas: 3
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
      - name: echo
        image: headgate.dev/echo
        ports: [{containerPort: 7007, protocol: TCP}, {containerPort: 7007, protocol: UDP}]
        lifecycle: {preStop: {sleep: {seconds: 2}}}
"#;

const NODE_PORT: u16 = 30_082;
const EXTERNAL: [&str; 2] = ["203.0.113.131", "2001:db8:0:3::131"];

fn services() -> String {
    const LOCAL: &str = "externalTrafficPolicy: Local";
    const STICKY: &str = "sessionAffinity: ClientIP";
    // All clients but the last one.
    const RANGES: &str = "loadBalancerSourceRanges: [198.18.0.10/31, 198.18.0.12/32, \
                          '2001:db8:0:1::10/127', '2001:db8:0:1::12/128']";
    const NODES: &str = "headgate.dev/target: node";
    let np = format!("{{port: 80, targetPort: http, nodePort: {NODE_PORT}}}");
    let external = format!("externalIPs: {EXTERNAL:?}");
    let two = format!("{HTTP}, {{name: other, port: 8000, targetPort: alt}}");
    let echo = ["TCP", "UDP"].map(|protocol| {
        let name = protocol.to_lowercase();
        format!("{{name: {name}, port: 53, targetPort: 7007, protocol: {protocol}}}")
    });
    [
        service("np", "web", "", &["type: NodePort"], &np),
        service("ext", "web", "", &[external.as_str()], "{port: 8000, targetPort: http}"),
        balanced("ports", "web", &two),
        service("sticky", "web", "", &[BALANCED, STICKY], HTTP),
        service("guarded", "web", "", &[BALANCED, RANGES], HTTP),
        service("node-cluster", "web", NODES, &[BALANCED], HTTP),
        service("node-local", "web", NODES, &[BALANCED, LOCAL], HTTP),
        balanced("echo", "echo", &echo.join(", ")),
    ]
    .concat()
}

/// Services whose backends are the pods of `web`.
const OF_PODS: [&str; 5] = ["np", "ext", "ports", "sticky", "guarded"];
/// Requests that are open at a time: the cluster needs the cores as well.
const CLIENTS: [usize; 2] = [4, 1];
/// Flows of datagrams to each address.
const FLOWS: usize = 6;
/// How long a flow may be silent while its pod goes: from the end of its process until the workers
/// know. To new pods it has to get within [`PROMPT`].
const SILENCE: Duration = Duration::from_secs(5);
/// How soon a flow reaches a living pod.
const PROMPT: Duration = Duration::from_secs(3);
/// kube-proxy writes its rules once a second at most.
const SETTLED: Duration = Duration::from_secs(30);

fn sockets(addresses: &[&str], port: u16) -> Result<Vec<SocketAddr>> {
    addresses.iter().map(|text| Ok(SocketAddr::new(text.parse()?, port))).collect()
}

/// Clients of all kinds, and where they go.
struct Clients {
    /// Whose backends are pods.
    pods: Vec<SocketAddr>,
    /// Whose backends are nodes: what becomes of them there is kube-proxy's to say.
    nodes: Vec<SocketAddr>,
    echo: Vec<SocketAddr>,
    sources: Vec<IpAddr>,
    datagrams: Datagrams,
}

impl Clients {
    fn open(test: &Test) -> Result<Self> {
        let mut pods = sockets(&plan::GATEWAY_FRONT, NODE_PORT)?;
        pods.extend(sockets(&EXTERNAL, 8000)?);
        for (name, port) in [("ports", 80), ("ports", 8000), ("sticky", 80), ("guarded", 80)] {
            pods.extend(test.targets(name, port)?);
        }
        let nodes = [test.targets("node-cluster", 80)?, test.targets("node-local", 80)?].concat();
        let echo = test.targets("echo", 53)?;
        // All but the one whom `guarded` keeps out.
        let sources: Vec<IpAddr> = (0..plan::CLIENTS - 1).flat_map(plan::client).collect();
        let client = &test.world.net.client;
        let datagrams = Datagrams::start(client, &sources, &echo, FLOWS)?;
        Ok(Self { pods, nodes, echo, sources, datagrams })
    }
    fn load(&self, targets: &[SocketAddr], requests: usize, concurrency: usize) -> Load {
        let (targets, sources) = (targets.to_vec(), self.sources.clone());
        Load { targets, sources, requests, concurrency }
    }
    /// Does something while all of them go on; gives what became of requests to pods and to nodes.
    fn meanwhile(
        &self,
        test: &Test,
        what: &str,
        change: impl FnOnce() -> Result<()>,
    ) -> Result<[Outcome; 2]> {
        let client = &test.world.net.client;
        let begin = |targets: &[SocketAddr], clients| {
            Running::endless(client, &self.load(targets, 0, clients))
        };
        let (pods, nodes) = (begin(&self.pods, CLIENTS[0]), begin(&self.nodes, CLIENTS[1]));
        let greetings = Greetings::start(client, &self.sources, &self.echo);
        self.datagrams.mark();
        let changed = change();
        let (pods, nodes, greeted) = (pods.stop()?, nodes.stop()?, greetings.stop()?);
        changed.with_context(|| what.to_owned())?;
        println!(
            "{what}: to pods {} requests, failed {}; by way of nodes {}, failed {}; TCP to echo \
             {}, failed {}; UDP flows silent for {:.2} s at most",
            pods.requests,
            pods.failed,
            nodes.requests,
            nodes.failed,
            greeted.connections,
            greeted.failed,
            self.datagrams.silence_max().as_secs_f64(),
        );
        if nodes.failed > 0 {
            println!("  by way of nodes: {:?}", nodes.errors);
        }
        greeted.check()?;
        Ok([pods, nodes])
    }
    /// The same, and nobody notices: but for kube-proxy's way of a second, after which nothing
    /// fails by way of nodes either.
    fn unnoticed(
        &self,
        test: &Test,
        what: &str,
        change: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let [pods, _] = self.meanwhile(test, what, change)?;
        pods.check_complete().with_context(|| what.to_owned())?;
        for (target, at) in &pods.by_target {
            ensure!(!at.by_backend.is_empty(), "{what}: nobody asked {target}");
        }
        let silence = self.datagrams.silence_max();
        ensure!(silence < SILENCE, "{what}: a UDP flow was silent for {silence:?}");
        self.datagrams.wait_for_answers(PROMPT).with_context(|| what.to_owned())?;
        self.settled(test, &[]).map(drop)
    }
    /// Waits until kube-proxy knows as well: from then on no request fails that goes by nodes, and
    /// none reaches one of these pods.
    fn settled(&self, test: &Test, gone: &[String]) -> Result<Outcome> {
        let client = &test.world.net.client;
        let begun = Instant::now();
        loop {
            let tried = load::run(client, &self.load(&self.nodes, 40, 4))?;
            if tried.failed == 0 {
                break;
            }
            ensure!(begun.elapsed() < SETTLED, "by way of nodes: {:?}", tried.errors);
        }
        let outcome = load::run(client, &self.load(&self.nodes, 200, 4))?;
        outcome.check_complete().context("by way of nodes, where all had settled")?;
        ensure!(
            outcome.by_backend.keys().all(|pod| !gone.contains(pod)),
            "{gone:?} are gone: {outcome:?}"
        );
        Ok(outcome)
    }
}

/// Both Deployments have so many pods, and every worker knows.
fn scale(test: &Test, replicas: usize) -> Result<()> {
    test.scale("web", replicas)?;
    test.scale("echo", replicas)?;
    known(test, replicas)
}

fn known(test: &Test, replicas: usize) -> Result<()> {
    for name in OF_PODS.into_iter().chain(["echo"]) {
        test.at_workers(name, replicas).with_context(|| name.to_owned())?;
    }
    Ok(())
}

/// Each port is answered by all pods, and by the server that is meant.
fn right_ports(test: &Test) -> Result<()> {
    let pods = test.pods("web")?;
    let alt: Vec<String> = pods.iter().map(|pod| format!("{pod} alt")).collect();
    test.answered_by(&test.targets("ports", 80)?, &pods)?;
    test.answered_by(&test.targets("ports", 8000)?, &alt)
}

/// The pod of each client of `sticky`.
fn kept(test: &Test) -> Result<BTreeMap<IpAddr, String>> {
    let mut kept = BTreeMap::new();
    for target in test.targets("sticky", 80)? {
        for source in test.world.net.client_addresses(target.ip()) {
            let (targets, sources) = (vec![target], vec![source]);
            let load = Load { targets, sources, requests: 10, concurrency: 2 };
            let outcome = load::run(&test.world.net.client, &load)?;
            outcome.check_complete()?;
            let mut pods = outcome.by_backend.into_keys();
            let pod = pods.next().context("no answer")?;
            ensure!(pods.next().is_none(), "{source} at {target} reached several pods");
            kept.insert(source, pod);
        }
    }
    Ok(kept)
}

#[test]
fn every_way_is_served_while_pods_come_and_go() -> Result<()> {
    let Some(test) = gate::begin("changes", "")? else { return Ok(()) };
    test.roll_out(PODS, &["web", "echo"])?;
    test.cluster.apply(&services())?;
    known(&test, 3)?;
    let clients = Clients::open(&test)?;
    clients.datagrams.wait_for_answers(kubernetes::PATIENCE)?;
    wait("kube-proxy knows", || clients.settled(&test, &[]).map(|_| true))?;
    right_ports(&test)?;

    more_and_fewer(&test, &clients)?;
    clients.unnoticed(&test, "rollout restart", || {
        test.restart("web")?;
        test.restart("echo")?;
        known(&test, 2)
    })?;
    right_ports(&test)?;
    one_deleted(&test, &clients)?;
    none_and_some(&test, &clients)?;
    kept_out(&test)?;
    one_killed(&test, &clients)?;
    drop(clients);
    test.settle()
}

/// A client keeps its pod when there are more; and a flow of datagrams does.
fn more_and_fewer(test: &Test, clients: &Clients) -> Result<()> {
    let before = kept(test)?;
    let flows = |clients: &Clients| -> Vec<String> {
        clients.datagrams.flows().into_iter().map(|flow| flow.backend).collect()
    };
    let answered_by = flows(clients);
    clients.unnoticed(test, "scale from 3 to 5", || scale(test, 5))?;
    right_ports(test)?;
    let after = kept(test)?;
    ensure!(after == before, "clients left their pods for new ones: {before:?} became {after:?}");
    ensure!(flows(clients) == answered_by, "UDP flows left their pods for new ones");
    clients.unnoticed(test, "scale from 5 to 2", || scale(test, 2))?;
    right_ports(test)?;
    let (pods, after) = (test.pods("web")?, kept(test)?);
    for (client, pod) in &after {
        let former = &before[client];
        ensure!(pods.contains(pod), "{client} is at {pod}, which is gone");
        ensure!(pod == former || !pods.contains(former), "{client} left {former} for {pod}");
    }
    Ok(())
}

/// The clients of a pod that is deleted get another one, the others keep theirs.
fn one_deleted(test: &Test, clients: &Clients) -> Result<()> {
    let before = kept(test)?;
    let victim = before.values().next().context("no client")?.clone();
    clients.unnoticed(test, "delete pod", || {
        test.cluster.kubectl(&format!("delete pod {victim} --timeout=60s"))?;
        test.rolled_out("web")?;
        test.gone(std::slice::from_ref(&victim))?;
        known(test, 2)
    })?;
    right_ports(test)?;
    let after = kept(test)?;
    for (client, pod) in &before {
        let now = &after[client];
        ensure!(*now != victim, "{client} is at {victim}, which is gone");
        ensure!(now == pod || *pod == victim, "{client} left {pod} for {now}");
    }
    Ok(())
}

/// Where no pod is left, a connection is refused. UDP flows find the next pod that there is.
fn none_and_some(test: &Test, clients: &Clients) -> Result<()> {
    test.scale("echo", 0)?;
    test.at_workers("echo", 0)?;
    for target in &clients.echo {
        let (_, outcome) = load::attempt(&test.world.net.client, *target)?;
        let kind = outcome.err().map(|error| error.kind());
        ensure!(kind == Some(ErrorKind::ConnectionRefused), "{target}: {kind:?}");
    }
    test.scale("echo", 2)?;
    test.at_workers("echo", 2)?;
    let within = clients.datagrams.wait_for_answers(PROMPT)?;
    let (pods, by) = (test.pods("echo")?, clients.datagrams.by_backend());
    ensure!(by.keys().all(|pod| pods.contains(pod)), "{pods:?} are there, {by:?} answered");
    let flows = clients.datagrams.flows();
    let refused: u64 = flows.iter().map(|flow| flow.refused).sum();
    println!(
        "echo from 0 to 2 pods: {} UDP flows are answered {:.2} s after the workers know, by \
         {by:?}; told that nobody is there {refused} times",
        flows.len(),
        within.as_secs_f64()
    );
    ensure!(refused > 0, "nobody was told that no pod was there");
    Ok(())
}

/// Who is outside of the source ranges hears nothing, also after all that.
fn kept_out(test: &Test) -> Result<()> {
    for target in test.targets("guarded", 80)? {
        let source = plan::client(plan::CLIENTS - 1)[usize::from(target.is_ipv6())];
        let heard = test.world.net.client.within(|| load::connect(Some(source), target))?;
        let Err(error) = heard else { bail!("{target} answers to {source}") };
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        ensure!(kind == Some(ErrorKind::TimedOut), "{target}: {error:#}, expected silence");
    }
    Ok(())
}

/// Without grace what is open fails; once the workers know, nothing goes there any more.
fn one_killed(test: &Test, clients: &Clients) -> Result<()> {
    scale(test, 3)?;
    clients.settled(test, &[])?;
    let victims = [test.pods("web")?.remove(0)];
    let [pods, nodes] =
        clients.meanwhile(test, "one of three pods killed at once", || test.kill(&victims))?;
    println!("  first errors: {:?} and {:?}", pods.errors, nodes.errors);
    let outcome = load::run(&test.world.net.client, &clients.load(&clients.pods, 600, 8))?;
    outcome.check_complete().context("where every worker knew")?;
    let gone = |pod: &String| pod.starts_with(&victims[0]);
    ensure!(!outcome.by_backend.keys().any(gone), "{victims:?} are gone: {outcome:?}");
    let by_nodes = clients.settled(test, &victims)?;
    println!(
        "after that: to pods {} requests, failed {}; by way of nodes {}, failed {}",
        outcome.requests, outcome.failed, by_nodes.requests, by_nodes.failed
    );
    test.rolled_out("web")?;
    known(test, 3)?;
    right_ports(test)
}
