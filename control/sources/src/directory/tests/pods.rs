//! Services that select Pods.

use super::*;

/// A Pod `web-N` of app `web` with one address of each family and a container port `http`.
fn pod(number: u8, change: impl Fn(String) -> String) -> String {
    change(format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web-{number}, labels: {{app: web, v: \"1\"}}}}\n\
         spec:\n  nodeName: n1\n  containers:\n  - {{name: c, ports: [{{name: http, containerPort: 8080}}]}}\n\
         status:\n  phase: Running\n  podIPs: [{{ip: 198.51.100.{number}}}, {{ip: \"2001:db8::{number}\"}}]\n  \
         conditions: [{{type: Ready, status: \"True\"}}]\n"
    ))
}

fn service(spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, labels: {{team: a}}}}\nspec:\n  \
         selector: {{app: web}}\n  ports:\n  - {{name: http, port: 80, targetPort: http}}\n{spec}"
    )
}

/// `NAME FAMILY PORTS: ADDRESS CONDITIONS NODE` for each slice that is in force, with an entry for
/// each endpoint.
fn slices(source: &DirectorySource) -> Vec<String> {
    let text = |object: &Object| {
        let Object::EndpointSlice(slice, _) = object else { return None };
        let ports = slice.ports.iter().flatten().map(|port| {
            let protocol = port.protocol.as_deref().unwrap();
            format!("{}={}/{protocol}", port.name.as_deref().unwrap(), port.port.unwrap())
        });
        let endpoints = slice.endpoints.iter().flatten().map(|one| {
            let conditions = one.conditions.as_ref().unwrap();
            let letter = |on: Option<bool>, letter: &str| {
                if on == Some(true) { letter.to_owned() } else { String::new() }
            };
            format!(
                "{} {}{}{}",
                one.addresses[0],
                letter(conditions.ready, "r"),
                letter(conditions.serving, "s"),
                letter(conditions.terminating, "t"),
            )
        });
        let (ports, endpoints): (Vec<_>, Vec<_>) = (ports.collect(), endpoints.collect());
        let name = slice.metadata.name.as_deref().unwrap();
        Some(format!("{name} {} {}: {}", slice.address_type, ports.join(","), endpoints.join(", ")))
    };
    source.objects().filter_map(text).collect()
}

#[test]
fn which_pods_are_endpoints_and_how_they_stand() {
    let ready = "conditions: [{type: Ready, status: \"True\"}]";
    let cases: Vec<(&str, &str, &str)> = vec![
        ("", "", "198.51.100.1 rs"),
        (ready, "conditions: [{type: Ready, status: \"False\"}]", "198.51.100.1 "),
        (ready, "conditions: []", "198.51.100.1 "),
        (
            "name: web-1,",
            "name: web-1, deletionTimestamp: 2026-01-01T00:00:00Z,",
            "198.51.100.1 st",
        ),
        ("phase: Running", "phase: Pending", "198.51.100.1 rs"),
        ("phase: Running", "phase: Succeeded", ""),
        ("phase: Running", "phase: Failed", ""),
        ("app: web", "app: other", ""),
        ("name: web-1,", "name: web-1, namespace: other,", ""),
        (
            "podIPs: [{ip: 198.51.100.1}, {ip: \"2001:db8::1\"}]",
            "podIP: 198.51.100.9",
            "198.51.100.9 rs",
        ),
        ("podIPs: [{ip: 198.51.100.1}, {ip: \"2001:db8::1\"}]", "podIP: \"2001:db8::1\"", ""),
    ];
    for (from, to, expected) in cases {
        let text = format!("{}---\n{}", service(""), pod(1, |text| text.replace(from, to)));
        let directory = directory(&[("a.yaml", &text)]);
        let mut source = open(&directory);
        let (_, events) = short(&source.load());
        assert!(events.is_empty(), "{events:?}");
        let expected = match expected {
            "" => vec![],
            endpoint => vec![format!("web-selected-1 IPv4 http=8080/TCP: {endpoint}")],
        };
        assert_eq!(slices(&source), expected, "{from} -> {to}");
    }
}

#[test]
fn families_ports_and_unready_ones_go_by_the_service() {
    let two = "  - {name: dns, port: 53, targetPort: 5353, protocol: UDP}\n";
    let cases = [
        (
            "  ipFamilyPolicy: PreferDualStack\n",
            vec![
                "web-selected-1 IPv4 http=8080/TCP: 198.51.100.1 rs, 198.51.100.2 st",
                "web-selected-2 IPv6 http=8080/TCP: 2001:db8::1 rs, 2001:db8::2 st",
            ],
        ),
        (
            "  ipFamilies: [IPv6]\n",
            vec!["web-selected-1 IPv6 http=8080/TCP: 2001:db8::1 rs, 2001:db8::2 st"],
        ),
        (
            "  clusterIP: \"2001:db8:96::1\"\n",
            vec!["web-selected-1 IPv6 http=8080/TCP: 2001:db8::1 rs, 2001:db8::2 st"],
        ),
        (
            two,
            vec![
                "web-selected-1 IPv4 http=8080/TCP,dns=5353/UDP: 198.51.100.1 rs, 198.51.100.2 st",
            ],
        ),
        (
            "  publishNotReadyAddresses: true\n",
            vec!["web-selected-1 IPv4 http=8080/TCP: 198.51.100.1 rs, 198.51.100.2 rst"],
        ),
        ("  type: ExternalName\n  externalName: web.example\n", vec![]),
    ];
    let leaving = |text: String| {
        text.replace("name: web-2,", "name: web-2, deletionTimestamp: 2026-01-01T00:00:00Z,")
    };
    for (spec, expected) in cases {
        let text = [service(spec), pod(1, |text| text), pod(2, leaving)].join("---\n");
        let directory = directory(&[("a.yaml", &text)]);
        let mut source = open(&directory);
        let (_, events) = short(&source.load());
        assert!(events.is_empty(), "{events:?}");
        assert_eq!(slices(&source), expected, "{spec}");
    }
}

#[test]
fn pods_whose_ports_differ_have_slices_of_their_own() {
    let other = |text: String| text.replace("containerPort: 8080", "containerPort: 9090");
    let none = |text: String| text.replace("name: http, ", "name: web, ");
    let beside = |text: String| {
        text.replace("  containers:", "  initContainers:\n  - {name: i, restartPolicy: Always, ports: [{name: http, containerPort: 7070}]}\n  - {name: j, ports: [{name: http, containerPort: 1}]}\n  containers:")
            .replace("name: http, containerPort: 8080", "name: web, containerPort: 8080")
    };
    let all = [service(""), pod(1, other), pod(2, none), pod(3, beside), pod(4, other)];
    let directory = directory(&[("a.yaml", &all.join("---\n"))]);
    let mut source = open(&directory);
    source.load();
    assert_eq!(
        slices(&source),
        [
            "web-selected-1 IPv4 http=9090/TCP: 198.51.100.1 rs, 198.51.100.4 rs",
            "web-selected-2 IPv4 : 198.51.100.2 rs",
            "web-selected-3 IPv4 http=7070/TCP: 198.51.100.3 rs",
        ]
    );
}

#[test]
fn slices_follow_pods_and_services() {
    let directory = directory(&[("s.yaml", &service("")), ("p1.yaml", &pod(1, |text| text))]);
    let mut source = open(&directory);
    let (objects, _) = short(&source.load());
    assert_eq!(
        objects,
        ["+ Service default/web s.yaml:1", "+ EndpointSlice default/web-selected-1 s.yaml:1",]
    );
    let file = |name: &str| directory.path().join(name);
    fs::write(file("p2.yaml"), pod(2, |text| text)).unwrap();
    assert_eq!(short(&source.load()).0, ["+ EndpointSlice default/web-selected-1 s.yaml:1"]);
    assert_eq!(
        slices(&source),
        ["web-selected-1 IPv4 http=8080/TCP: 198.51.100.1 rs, 198.51.100.2 rs"]
    );
    // A slice that is given keeps its name.
    let given = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-selected-1}\n\
                 addressType: IPv4\nendpoints: []\nports: []\n";
    fs::write(file("g.yaml"), given).unwrap();
    assert_eq!(short(&source.load()).0, ["+ EndpointSlice default/web-selected-1 g.yaml:1"]);
    fs::remove_file(file("g.yaml")).unwrap();
    assert_eq!(
        short(&source.load()).0,
        [
            "- EndpointSlice default/web-selected-1",
            "+ EndpointSlice default/web-selected-1 s.yaml:1",
        ]
    );
    fs::remove_file(file("p1.yaml")).unwrap();
    fs::remove_file(file("p2.yaml")).unwrap();
    assert_eq!(short(&source.load()).0, ["- EndpointSlice default/web-selected-1"]);
    assert!(slices(&source).is_empty());
}
