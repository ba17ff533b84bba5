//! Bad manifests harm nobody else, and each is told with file, line and object.

use anyhow::{Context, Result, ensure};
use model::answers::Severity;
use netns::Test;
use rig::manifests::{Port, Service};
use rig::plan;
use rig::world::WEB_ADDRESS;
use std::net::SocketAddr;

/// Waits for warnings that come from `file`, and gives them with their places.
fn warnings(test: &Test, file: &str, count: usize) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let place = format!("{file}:");
    let waited = rig::admin::wait(&format!("{count} warnings about {file}"), || {
        found = test
            .admin()?
            .events()?
            .into_iter()
            .filter(|e| e.severity == Severity::Warning && e.place.contains(&place))
            .map(|event| (event.place, format!("{} {}", event.object, event.message)))
            .collect();
        Ok(found.len() >= count)
    });
    waited.with_context(|| format!("{found:?}"))?;
    println!("{found:#?}");
    for (place, text) in &found {
        let line = place.rsplit(':').next().and_then(|line| line.parse::<u32>().ok());
        ensure!(line.is_some_and(|line| line > 0), "no line in {place:?}: {text}");
    }
    Ok(found)
}

/// What `show services` says is wrong with `default/NAME`.
fn problems(test: &Test, name: &str) -> Result<String> {
    let mut text = String::new();
    rig::admin::wait(&format!("show services tells what is wrong with {name}"), || {
        text = test.admin()?.service(name)?.status.problems.join("; ");
        Ok(!text.is_empty())
    })?;
    println!("{name}: {text}");
    Ok(text)
}

fn service(test: &Test, name: &str, kind: &'static str) -> Service {
    let port = Port::tcp("http", 80, plan::HTTP_PORT);
    Service::new(name, kind, vec![port], &test.net.backends)
}

#[test]
fn what_cannot_be_parsed_is_named_and_the_rest_is_served() -> Result<()> {
    let Some(test) = netns::begin("unparsable")? else { return Ok(()) };
    test.check_serves()?;
    let broken = "apiVersion: v1\nkind: Service\nmetadata:\n  name: [broken\nspec: }\n";
    test.manifests.write("broken.yaml", broken)?;
    warnings(&test, "broken.yaml", 1)?;
    test.check_serves()?;
    // Also a file that was good: what it said stays, until it can be read again.
    test.manifests.write("ext.yaml", broken)?;
    warnings(&test, "ext.yaml", 1)?;
    test.check_serves()?;
    test.end()
}

#[test]
fn a_taken_address_stays_with_its_owner() -> Result<()> {
    let Some(test) = netns::begin("taken")? else { return Ok(()) };
    let mut taker = service(&test, "taker", "LoadBalancer");
    taker.requested = Some(WEB_ADDRESS.parse()?);
    test.manifests.apply(&taker)?;
    let text = problems(&test, "taker")?;
    ensure!(text.contains(WEB_ADDRESS) && text.contains("web"), "who has it? {text}");
    warnings(&test, "taker.yaml", 1)?;
    test.check_serves()?;
    test.end()
}

#[test]
fn odd_slices_are_named_and_the_good_endpoints_serve() -> Result<()> {
    let Some(test) = netns::begin("odd")? else { return Ok(()) };
    let slice = |name: &str, kind: &str, port: u16, address: &str| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}\n  \
             namespace: default\n  labels: {{kubernetes.io/service-name: odd}}\n\
             addressType: {kind}\nports:\n- {{name: http, protocol: TCP, port: {port}}}\n\
             endpoints:\n- addresses: [\"{address}\"]\n  conditions: {{ready: true}}\n"
        )
    };
    let mut odd = service(&test, "odd", "LoadBalancer");
    odd.endpoints.truncate(1);
    let text = odd.yaml()
        + &slice("odd-fqdn", "FQDN", 80, "web.example.com")
        + &slice("odd-family", "IPv4", 80, "2001:db8:0:2::12")
        + &slice("odd-port", "IPv4", 0, "198.18.1.12")
        + &slice("odd-loopback", "IPv4", 80, "127.0.0.1");
    test.manifests.write("odd.yaml", &text)?;
    let found = warnings(&test, "odd.yaml", 4)?;
    for name in ["odd-fqdn", "odd-family", "odd-port", "odd-loopback"] {
        ensure!(found.iter().any(|(_, text)| text.contains(name)), "nothing names {name}");
    }
    let [first, second] = test.addresses("odd")?;
    let targets = [first, second].map(|address| SocketAddr::new(address, 80));
    let outcome = test.load(&targets, 100)?;
    outcome.check_complete()?;
    assert_eq!(outcome.by_backend.keys().collect::<Vec<_>>(), ["web-1"]);
    test.check_serves()?;
    test.end()
}

#[test]
fn addresses_that_belong_to_somebody_else_are_refused() -> Result<()> {
    let Some(test) = netns::begin("refused")? else { return Ok(()) };
    // A Node's address, although the configured ranges hold it.
    let node = |name: &str, address: &str| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nstatus:\n  addresses:\n  \
             - {{type: InternalIP, address: {address}}}\n"
        )
    };
    test.manifests.write("node-a.yaml", &node("a", "203.0.113.140"))?;
    for (name, external) in [
        ("ext-node", "203.0.113.140"),
        ("ext-gateway", plan::GATEWAY_FRONT[0]),
        ("ext-nat", plan::NAT[0]),
        ("ext-range", "198.18.0.77"),
    ] {
        let mut refused = service(&test, name, "ClusterIP");
        refused.dual_stack = false;
        refused.external = vec![external.into()];
        test.manifests.apply(&refused)?;
        let text = problems(&test, name)?;
        ensure!(text.contains(external), "{name}: {text}");
        let row = test.admin()?.service(name)?;
        ensure!(row.status.addresses.is_empty(), "{name} is served: {:?}", row.status.addresses);
    }
    let mut requested = service(&test, "requested", "LoadBalancer");
    requested.dual_stack = false;
    requested.requested = Some(plan::GATEWAY_FRONT[0].parse()?);
    test.manifests.apply(&requested)?;
    let text = problems(&test, "requested")?;
    ensure!(text.contains(plan::GATEWAY_FRONT[0]), "{text}");
    test.check_serves()?;
    test.end()
}
