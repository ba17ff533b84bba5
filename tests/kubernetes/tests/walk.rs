//! One Service under one name through all its types, and the story that its Events tell.

use anyhow::{Context, Result, ensure};
use kubernetes::manifests::{BALANCED, HTTP, service, web};
use kubernetes::{Test, gate, wait};
use rig::{load, plan};
use std::io::ErrorKind;
use std::net::SocketAddr;

const NODE_PORT: u16 = 30_090;

/// The Service as somebody applies it, over and over under one name.
fn manifest(kind: &str, port: u16) -> String {
    let class = "  loadBalancerClass: headgate.dev/gateway\n";
    let cluster = "  ipFamilyPolicy: RequireDualStack\n";
    let (fields, node_port) = match kind {
        "ExternalName" => ("  externalName: web.example\n".to_owned(), String::new()),
        "ClusterIP" => (cluster.to_owned(), String::new()),
        "NodePort" => (cluster.to_owned(), format!(", nodePort: {NODE_PORT}")),
        _ => (format!("{cluster}{class}"), format!(", nodePort: {NODE_PORT}")),
    };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: walker}}\nspec:\n  type: {kind}\n{fields}  \
         selector: {{app: web}}\n  ports: [{{name: http, port: {port}, targetPort: http{node_port}}}]\n"
    )
}

/// Where the Service is reached, as the status says, when it has come to rest.
struct Stop {
    balanced: Vec<SocketAddr>,
}

/// Applies the Service and waits until its status says what it is to say for its type, by no more
/// statuses and Events than these.
fn step(test: &Test, kind: &str, port: u16, writes: [usize; 2]) -> Result<Stop> {
    test.writes_at_most(&format!("{kind} at port {port}"), writes, || reach(test, kind, port))?;
    let shown = test.cluster.kubectl("get svc walker --no-headers")?;
    println!("{}", shown.trim_end());
    ensure!(shown.split_whitespace().nth(1) == Some(kind), "{shown}");
    let addresses = test.ingress("walker")?;
    for address in &addresses {
        ensure!(shown.contains(&address.to_string()), "{address} isn't shown: {shown}");
    }
    test.world.admin()?.wait_for_generation()?;
    let balanced = addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect();
    Ok(Stop { balanced })
}

fn reach(test: &Test, kind: &str, port: u16) -> Result<()> {
    test.cluster.apply(&manifest(kind, port))?;
    // A condition for whom clients outside of the cluster reach through the gateway.
    let wanted = match kind {
        "LoadBalancer" => (2, Some("True")),
        "NodePort" => (0, Some("True")),
        _ => (0, None),
    };
    wait(&format!("the status of a {kind}"), || {
        let service = test.service("walker")?;
        let addresses = gate::list(&service["status"]["loadBalancer"]["ingress"]).count();
        let mut conditions = gate::list(&service["status"]["conditions"]);
        let programmed = conditions.find(|one| one["type"] == "headgate.dev/Programmed");
        let programmed = programmed.and_then(|one| one["status"].as_str());
        ensure!((addresses, programmed) == wanted, "{:#}", service["status"]);
        Ok(true)
    })
}

fn own() -> Result<Vec<SocketAddr>> {
    let parsed = plan::GATEWAY_FRONT.iter().map(|text| text.parse());
    parsed.map(|address| Ok(SocketAddr::new(address?, NODE_PORT))).collect()
}

/// Refused, or nobody's address any more: in no case an answer.
fn unanswered(test: &Test, targets: &[SocketAddr], refused: bool) -> Result<()> {
    for target in targets {
        let (_, outcome) = load::attempt(&test.world.net.client, *target)?;
        let kind = outcome.err().map(|error| error.kind());
        let expected = kind.is_some() && (!refused || kind == Some(ErrorKind::ConnectionRefused));
        ensure!(expected, "{target}: {kind:?}, expected {}", if refused { "RST" } else { "no" });
    }
    Ok(())
}

#[test]
fn one_service_walks_through_all_types() -> Result<()> {
    let Some(test) = gate::begin("walk", "")? else { return Ok(()) };
    test.roll_out(&web("web", 2), &["web"])?;
    let pods = test.pods("web")?;
    let own = own()?;

    step(&test, "ClusterIP", 80, [0, 0])?;
    unanswered(&test, &own, true)?;
    step(&test, "NodePort", 80, [1, 1])?;
    test.at_workers("walker", 2)?;
    test.answered_by(&own, &pods).context("NodePort")?;

    // Its addresses; that it is programmed was said.
    let first = step(&test, "LoadBalancer", 80, [1, 2])?.balanced;
    test.at_workers("walker", 2)?;
    test.answered_by(&first, &pods).context("LoadBalancer")?;
    // Its nodePort is kube-proxy's alone now, for nobody asked for more.
    unanswered(&test, &own, true)?;
    let moved = step(&test, "LoadBalancer", 8000, [0, 0])?.balanced;
    wait("the new port answers", || test.answers(&moved, 2).map(|_| true))?;
    let ips = |at: &[SocketAddr]| at.iter().map(SocketAddr::ip).collect::<Vec<_>>();
    ensure!(ips(&moved) == ips(&first), "{first:?} became {moved:?} with the port");
    unanswered(&test, &first, true)?;

    // The API server has wiped the addresses by then; the condition is ours to take back.
    step(&test, "ExternalName", 8000, [1, 2])?;
    unanswered(&test, &moved, false)?;
    unanswered(&test, &own, true)?;

    let again = step(&test, "LoadBalancer", 80, [1, 3])?.balanced;
    test.at_workers("walker", 2)?;
    test.answered_by(&again, &pods).context("LoadBalancer again")?;
    step(&test, "NodePort", 80, [1, 2])?;
    wait("the NodePort answers", || test.answers(&own, 2).map(|_| true))?;
    test.answered_by(&own, &pods).context("NodePort again")?;
    unanswered(&test, &again, false)?;
    step(&test, "ClusterIP", 80, [1, 0])?;
    unanswered(&test, &own, true)?;

    test.writes_at_most("deleted", [0, 0], || {
        test.cluster.kubectl("delete svc walker --timeout=60s").map(drop)
    })?;
    tells_its_story(&test)?;
    test.settle()
}

/// An address that no pool has; one that a pool has; and none any more.
fn tells_its_story(test: &Test) -> Result<()> {
    let nobodys = "headgate.dev/addresses: '203.0.113.200,2001:db8::18'";
    test.writes_at_most("no address", [1, 1], || {
        test.cluster.apply(&service("story", "web", nobodys, &[BALANCED], HTTP))?;
        test.story("story", &["AllocationFailed"])?;
        let condition = "{.status.conditions[?(@.type=='headgate.dev/Programmed')].status}";
        wait("the condition is False", || {
            Ok(test.cluster.kubectl(&format!("get svc story -o jsonpath={condition}"))? == "False")
        })
    })?;
    ensure!(test.ingress("story")?.is_empty(), "an address in spite of the problem");

    test.writes_at_most("addresses of a pool", [1, 3], || {
        let asked = "headgate.dev/addresses=203.0.113.8,2001:db8::18";
        test.cluster.kubectl(&format!("annotate svc story --overwrite {asked}"))?;
        test.programmed("story")
    })?;
    let targets = test.targets("story", 80)?;
    let expected = ["203.0.113.8:80".parse()?, "[2001:db8::18]:80".parse()?];
    ensure!(targets == expected, "{targets:?}");
    test.at_workers("story", 2)?;
    test.answered_by(&targets, &test.pods("web")?)?;

    let patch = r#"{"spec":{"type":"ClusterIP","loadBalancerClass":null}}"#;
    let mut command = test.cluster.kubectl_command(0)?;
    rig::command::output_of(command.args(["patch", "svc", "story", "-p", patch]))?;
    let told = test.story("story", &["AllocationFailed", "IPAllocated", "IPReleased"])?;
    println!("Events of story: {told:?}");
    let described = test.cluster.kubectl("describe svc story")?;
    let (_, events) = described.split_once("Events:").context("no Events are described")?;
    println!("{}", events.trim_end());
    let at =
        |reason: &str| events.find(reason).with_context(|| format!("{reason} isn't described"));
    ensure!(at("AllocationFailed")? < at("IPAllocated")?, "{events}");
    ensure!(at("IPAllocated")? < at("IPReleased")?, "{events}");
    // One for the first, three for the second, one for each address that is given back.
    ensure!(told.len() <= 6, "more Events than transitions: {told:?}");
    Ok(())
}
