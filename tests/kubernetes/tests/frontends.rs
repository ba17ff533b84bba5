//! Every way by which clients reach a Service, on a real cluster.

use anyhow::{Context, Result, ensure};
use kubernetes::manifests::{BALANCED, NAMELESS, balanced, echo, service};
use kubernetes::{Test, gate};
use rig::lines::LineClients;
use rig::load::{self, Load};
use rig::{plan, udp};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

/// With a port more than others have.
const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: nginx
        image: nginx
        ports: [{name: http, containerPort: 8080}, {name: alt, containerPort: 8443}]
---
";

const SIX: &str = "
apiVersion: v1
kind: Service
metadata: {name: six}
spec:
  type: LoadBalancer
  loadBalancerClass: headgate.dev/gateway
  ipFamilies: [IPv6]
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
";

/// NodePorts outside the addresses of the gateway are kube-proxy's.
fn services() -> String {
    const EXTERNAL: &str = "externalIPs: [203.0.113.130, '2001:db8:0:3::130']";
    const STICKY: &str = "sessionAffinity: ClientIP";
    const RANGES: &str = "loadBalancerSourceRanges: [198.18.0.10/32, '2001:db8:0:1::10/128']";
    const NP: &str = "{port: 80, targetPort: http, nodePort: 30081}";
    const TWO: &str = "{name: http, port: 80, targetPort: http}, \
                       {name: other, port: 8000, targetPort: alt}";
    const ECHO: &str = "{name: lines, port: 53, targetPort: 7007}, \
                        {name: datagrams, port: 53, targetPort: 7007, protocol: UDP}";
    [
        service("np", "web", "", &["type: NodePort"], NP),
        service("ext", "web", "", &[EXTERNAL], "{port: 8000, targetPort: http}"),
        balanced("ports", "web", TWO),
        balanced("echo", "echo", ECHO),
        SIX.to_owned(),
        service("sticky", "web", "", &[BALANCED, STICKY], NAMELESS),
        service("guarded", "web", "", &[BALANCED, RANGES], NAMELESS),
    ]
    .concat()
}

#[test]
fn services_are_reached_in_every_way() -> Result<()> {
    let Some(test) = gate::begin("frontends", "")? else { return Ok(()) };
    let pods = WEB.to_owned() + &echo("echo", 2, &["TCP", "UDP"]);
    test.roll_out(&pods, &["web", "echo"])?;
    test.cluster.apply(&services())?;
    for service in ["np", "ext", "ports", "sticky", "guarded", "six"] {
        test.at_workers(service, 3).with_context(|| service.to_owned())?;
    }
    test.at_workers("echo", 2)?;
    println!("{}", test.cluster.kubectl("get svc")?);
    let web = test.pods("web")?;

    let own: Vec<SocketAddr> = sockets(&plan::GATEWAY_FRONT, 30_081)?;
    test.answered_by(&own, &web).context("NodePort")?;
    let external = sockets(&["203.0.113.130", "2001:db8:0:3::130"], 8000)?;
    test.answered_by(&external, &web).context("externalIPs")?;

    for port in [80, 8000] {
        test.answered_by(&test.targets("ports", port)?, &web).context("ports by name")?;
    }
    for target in test.targets("ports", 8443)? {
        let (_, outcome) = load::attempt(&test.world.net.client, target)?;
        let kind = outcome.err().map(|error| error.kind());
        ensure!(kind == Some(ErrorKind::ConnectionRefused), "{target}: {kind:?}");
    }
    one_number_two_protocols(&test)?;

    test.programmed("six")?;
    let only = test.ingress("six")?;
    ensure!(only.len() == 1 && only[0].is_ipv6(), "six has {only:?}");
    test.answered_by(&[SocketAddr::new(only[0], 80)], &web).context("IPv6 alone")?;

    stays_where_it_was(&test)?;
    guarded_by_ranges(&test)?;
    test.settle()
}

fn sockets(addresses: &[&str], port: u16) -> Result<Vec<SocketAddr>> {
    addresses.iter().map(|text| Ok(SocketAddr::new(text.parse()?, port))).collect()
}

fn one_number_two_protocols(test: &Test) -> Result<()> {
    let pods: BTreeSet<String> = test.pods("echo")?.into_iter().collect();
    let client = &test.world.net.client;
    for target in test.targets("echo", 53)? {
        let sources = test.world.net.client_addresses(target.ip());
        let lines = LineClients::open(client, &sources, target, 40, |_| true)?;
        lines.wait_for_lines(2);
        let by_tcp: BTreeSet<String> = lines.by_backend().keys().cloned().collect();
        lines.stop()?.check()?;
        let by_udp = udp::echo(client, &sources, target, 40, 3)?.into_keys().collect();
        ensure!([&by_tcp, &by_udp] == [&pods, &pods], "{target}: {by_tcp:?} and {by_udp:?}");
    }
    Ok(())
}

/// One client keeps its pod whatever its port is; several clients have several.
fn stays_where_it_was(test: &Test) -> Result<()> {
    let mut used = BTreeSet::new();
    for target in test.targets("sticky", 80)? {
        for source in test.world.net.client_addresses(target.ip()) {
            let load =
                Load { targets: vec![target], sources: vec![source], requests: 30, concurrency: 4 };
            let outcome = load::run(&test.world.net.client, &load)?;
            outcome.check_complete()?;
            let pods: Vec<&String> = outcome.by_backend.keys().collect();
            ensure!(pods.len() == 1, "{source} at {target} reached {pods:?}, expected one pod");
            used.extend(outcome.by_backend.into_keys());
        }
    }
    ensure!(used.len() >= 2, "all eight clients reached {used:?}");
    Ok(())
}

/// Who is inside is answered. Who isn't hears nothing at all.
fn guarded_by_ranges(test: &Test) -> Result<()> {
    let client = &test.world.net.client;
    for target in test.targets("guarded", 80)? {
        let family = usize::from(target.is_ipv6());
        let ask = |source: IpAddr| {
            client.within(|| load::connect(Some(source), target).and_then(|s| load::ask(s, "/")))
        };
        ask(plan::client(0)[family])??;
        let Err(error) = ask(plan::client(1)[family])? else {
            anyhow::bail!("{target} answers to a client outside of its source ranges");
        };
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        ensure!(kind == Some(ErrorKind::TimedOut), "{target}: {error:#}, expected silence");
    }
    Ok(())
}
