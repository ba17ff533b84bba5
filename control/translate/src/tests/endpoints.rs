//! Which endpoints become backends.

use super::*;
use crate::problem::reason;
use model::desired::Backend;

/// An index with Service `default/a` and one slice of it with these endpoints.
fn with(endpoints: Value) -> Index {
    let mut index = index();
    index.take([balanced("a"), slice("s", "a", "IPv4", endpoints)]);
    index
}

#[test]
fn ready_ones_else_serving_and_terminating_ones_else_none() {
    type Case = (&'static [(&'static str, &'static str)], &'static [&'static str]);
    let cases: &[Case] = &[
        (&[("10.1.0.1", "rs"), ("10.1.0.2", "rs")], &["10.1.0.1:8080", "10.1.0.2:8080"]),
        (&[("10.1.0.1", "rs"), ("10.1.0.2", "st")], &["10.1.0.1:8080", "(10.1.0.2:8080)"]),
        (&[("10.1.0.1", ""), ("10.1.0.2", "rs")], &["(10.1.0.1:8080)", "10.1.0.2:8080"]),
        (&[("10.1.0.1", "st"), ("10.1.0.2", "t")], &["10.1.0.1:8080", "(10.1.0.2:8080)"]),
        (&[("10.1.0.1", "s"), ("10.1.0.2", "t")], &["(10.1.0.1:8080)", "(10.1.0.2:8080)"]),
        (&[], &[]),
        // publishNotReadyAddresses is folded into ready.
        (&[("10.1.0.1", "rst"), ("10.1.0.2", "st")], &["10.1.0.1:8080", "(10.1.0.2:8080)"]),
        // In order of address, whatever the slice's order.
        (&[("10.1.0.10", "rs"), ("10.1.0.9", "rs")], &["10.1.0.9:8080", "10.1.0.10:8080"]),
    ];
    for (given, expected) in cases {
        let endpoints: Vec<_> = given.iter().map(|(ip, letters)| endpoint(ip, letters)).collect();
        let index = with(endpoints.into());
        assert_eq!(index.backends("a"), *expected, "{given:?}");
        let row = index.first_row("a");
        assert_eq!(row.known as usize, expected.len());
        let active = expected.iter().filter(|text| !text.starts_with('(')).count();
        assert_eq!(row.active as usize, active);
    }
}

#[test]
fn conditions_that_are_not_given_are_ready_serving_and_not_terminating() {
    for conditions in [json!(null), json!({}), json!({"ready": null, "serving": null})] {
        let index = with(json!([{"addresses": ["10.1.0.1"], "conditions": conditions}]));
        assert_eq!(index.backends("a"), ["10.1.0.1:8080"], "{conditions}");
    }
    let index = with(json!([
        {"addresses": ["10.1.0.1"], "conditions": {"ready": false, "terminating": true}},
    ]));
    assert_eq!(index.backends("a"), ["10.1.0.1:8080"], "serving is true where not given");
}

#[test]
fn families_choose_apart() {
    let mut index = index();
    index.take([
        balanced("a"),
        slice("s4", "a", "IPv4", json!([endpoint("10.1.0.1", "rs"), endpoint("10.1.0.2", "st")])),
        slice("s6", "a", "IPv6", json!([endpoint("fd00::2", "st")])),
    ]);
    assert_eq!(index.backends("a"), ["10.1.0.1:8080", "(10.1.0.2:8080)", "[fd00::2]:8080"]);
}

#[test]
fn slices_join_and_the_one_that_is_not_terminating_wins() {
    let mut index = index();
    let ready = || slice("x", "a", "IPv4", json!([endpoint("10.1.0.1", "rs")]));
    let leaving = || {
        let endpoints = json!([endpoint("10.1.0.1", "st"), endpoint("10.1.0.2", "rs")]);
        slice("y", "a", "IPv4", endpoints)
    };
    index.take([balanced("a"), leaving(), ready()]);
    assert_eq!(index.backends("a"), ["10.1.0.1:8080", "10.1.0.2:8080"]);
    index.delete(&key(Kind::EndpointSlice, "x"));
    index.build();
    assert_eq!(index.backends("a"), ["(10.1.0.1:8080)", "10.1.0.2:8080"]);
    // It moves to another Service.
    index.take([balanced("b"), slice("y", "b", "IPv4", json!([endpoint("10.1.0.2", "rs")]))]);
    assert!(index.backends("a").is_empty());
    assert_eq!(index.backends("b"), ["10.1.0.2:8080"]);
}

#[test]
fn ports_join_by_name_and_protocol() {
    let mut index = index();
    let two = |value: &mut Value| {
        value["spec"]["ports"] = json!([
            {"name": "http", "port": 80},
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns", "port": 53, "protocol": "TCP"},
        ]);
    };
    let ports = json!([
        {"name": "http", "port": 8080, "protocol": "TCP"},
        {"name": "http", "port": 8081, "protocol": "TCP"},
        {"name": "dns", "port": 5353, "protocol": "UDP"},
        {"name": "other", "port": 99},
    ]);
    let endpoints = json!([endpoint("10.1.0.1", "rs")]);
    index.take([
        service("a", "LoadBalancer", two),
        slice_with("s", "a", "IPv4", endpoints.clone(), ports),
    ]);
    assert_eq!(index.backends("a"), ["10.1.0.1:8080", "10.1.0.1:8081"]);
    let known: Vec<_> = index.status("a").ports.iter().map(|row| row.known).collect();
    assert_eq!(known, [2, 1, 0]);
    // A port without a name joins one without a name, whether nil or empty.
    index.take([
        service("n", "LoadBalancer", |value| value["spec"]["ports"] = json!([{"port": 80}])),
        slice_with("t", "n", "IPv4", endpoints, json!([{"name": "", "port": 8080}])),
    ]);
    assert_eq!(index.port("n", "").backends.len(), 1);
}

#[test]
fn odd_parts_of_slices_are_left_out_with_their_place() {
    let good = endpoint("10.1.0.1", "rs");
    let cases = [
        (
            "FQDN",
            json!([endpoint("a.example", "rs")]),
            json!([{"name": "http", "port": 8080}]),
            "addressType FQDN is not forwarded to: use IPv4 or IPv6",
        ),
        (
            "IPv5",
            json!([good]),
            json!([{"name": "http", "port": 8080}]),
            "addressType \"IPv5\" is none of IPv4, IPv6, FQDN",
        ),
        (
            "IPv4",
            json!([endpoint("fd00::1", "rs")]),
            json!([{"name": "http", "port": 8080}]),
            "endpoint fd00::1 is not of the slice's addressType IPv4",
        ),
        (
            "IPv4",
            json!([endpoint("nonsense", "rs")]),
            json!([]),
            "endpoint \"nonsense\" is not an IP address",
        ),
        ("IPv4", json!([{"addresses": []}]), json!([]), "an endpoint has no address"),
        (
            "IPv4",
            json!([good]),
            json!([{"name": "http", "port": 0}]),
            "port \"http\" is 0: expected 1 to 65535",
        ),
        (
            "IPv4",
            json!([good]),
            json!([{"name": "http", "port": 65_536}]),
            "port \"http\" is 65536: expected 1 to 65535",
        ),
        (
            "IPv4",
            json!([good]),
            json!([{"name": "http"}]),
            "port \"http\" has no number and is skipped",
        ),
        (
            "IPv4",
            json!([good]),
            json!([{"name": "http", "port": 1, "protocol": "ICMP"}]),
            "protocol \"ICMP\" of port \"http\" is unknown",
        ),
    ];
    for (family, endpoints, ports, message) in cases {
        let mut index = index();
        index
            .take([balanced("a"), slice("good", "a", "IPv4", json!([endpoint("10.1.0.9", "rs")]))]);
        let built = index.take([slice_with("s", "a", family, endpoints, ports)]);
        assert_eq!(index.backends("a"), ["10.1.0.9:8080"], "the others keep forwarding");
        assert_eq!(
            index.problems("a"),
            [format!("EndpointSlice default/s (s.yaml:20): {message}")]
        );
        let text = format!(
            "EndpointRefused Service default/a s.yaml:20: EndpointSlice default/s: {message}"
        );
        assert_eq!(events(&built), [text]);
    }
}

#[test]
fn only_the_first_address_counts() {
    let index = with(json!([{"addresses": ["10.1.0.1", "10.1.0.2"]}]));
    assert_eq!(index.backends("a"), ["10.1.0.1:8080"]);
}

#[test]
fn addresses_that_no_endpoint_may_have_are_refused() {
    for (address, why) in [
        ("192.0.2.2", "an address of the gateway itself"),
        ("198.51.100.254", "the address of a next hop"),
        ("203.0.113.10", "a frontend's address"),
        ("10.96.0.1", "a Service's clusterIP"),
        ("127.0.0.1", "a loopback address"),
        ("169.254.1.1", "a link-local address"),
        ("224.0.0.1", "a multicast address"),
        ("255.255.255.255", "a reserved or broadcast address"),
        ("0.0.0.0", "an unspecified address"),
    ] {
        let mut index = with(json!([endpoint("10.1.0.9", "rs")]));
        index.take([service("c", "ClusterIP", |value| {
            value["spec"]["clusterIP"] = "10.96.0.1".into();
        })]);
        let built = index.take([slice("t", "a", "IPv4", json!([endpoint(address, "rs")]))]);
        assert_eq!(index.backends("a"), ["10.1.0.9:8080"]);
        let message = format!("endpoint {address} is refused: it is {why}");
        assert_eq!(
            index.problems("a"),
            [format!("EndpointSlice default/t (t.yaml:20): {message}")]
        );
        assert_eq!(built.events[0].reason, reason::ENDPOINT_REFUSED);
        assert_eq!(built.events[0].place, "t.yaml:20");
    }
    for (address, why) in [
        ("::1", "a loopback"),
        ("::", "an unspecified"),
        ("fe80::1", "a link-local"),
        ("ff02::1", "a multicast"),
        ("::ffff:10.1.0.1", "an IPv4-mapped"),
    ] {
        let mut index = index();
        index.take([balanced("a"), slice("t", "a", "IPv6", json!([endpoint(address, "rs")]))]);
        assert!(index.backends("a").is_empty());
        assert!(index.problems("a")[0].contains(&format!("it is {why} address")), "{address}");
    }
}

#[test]
fn backend_ranges_are_kept() {
    let wishes = Wishes { backend_ranges: vec!["10.1.0.0/16".parse().unwrap()], ..wishes() };
    let mut index = Index::new(Settings::new(wishes).unwrap(), Allocations::default());
    let endpoints = json!([endpoint("10.1.0.1", "rs"), endpoint("10.2.0.1", "rs")]);
    index.take([balanced("a"), slice("s", "a", "IPv4", endpoints)]);
    assert_eq!(index.backends("a"), ["10.1.0.1:8080"]);
    assert!(index.problems("a")[0].contains("[backend] ranges"));
}

#[test]
fn an_endpoint_is_refused_as_soon_as_its_address_is_a_frontends() {
    let mut index = index();
    let external = service("e", "ClusterIP", |value| {
        value["spec"]["externalIPs"] = json!(["198.51.100.7"]);
    });
    index.take([balanced("a"), slice("s", "a", "IPv4", json!([endpoint("198.51.100.7", "rs")]))]);
    assert_eq!(index.backends("a"), ["198.51.100.7:8080"]);
    let built = index.take([external]);
    assert!(index.backends("a").is_empty());
    assert_eq!(built.evaluated, 2);
    index.drop_service("e");
    assert_eq!(index.backends("a"), ["198.51.100.7:8080"]);
}

#[test]
fn a_backend_knows_its_node_its_way_and_its_name() {
    let mut index = index();
    let endpoints = json!([{
        "addresses": ["10.1.0.1"], "nodeName": "n1",
        "targetRef": {"kind": "Pod", "name": "web-1", "namespace": "default"},
    }]);
    index.take([balanced("a"), balanced("b"), slice("s", "a", "IPv4", endpoints)]);
    let way = |index: &Index| -> Backend { index.port("a", "http").backends[0].clone() };
    assert_eq!((&*way(&index).node, &*way(&index).name, way(&index).via), ("n1", "web-1", None));
    let built = index.take([node("n1", &["fd00::1", "10.0.0.1", "10.0.0.2"])]);
    assert_eq!(way(&index).via, Some(ip("10.0.0.1")));
    assert_eq!(built.evaluated, 1);
    assert_eq!(
        index.take([node("n1", &["fd00::1", "10.0.0.1"])]).evaluated,
        0,
        "the way is the same"
    );
    index.take([node("n1", &["10.0.0.3"])]);
    assert_eq!(way(&index).via, Some(ip("10.0.0.3")));
    index.delete(&key(Kind::Node, "n1"));
    index.build();
    assert_eq!(way(&index).via, None);
}

#[test]
fn a_limit_cuts_draining_backends_first() {
    let many = |count: u32, letters: &str, base: u32| -> Vec<Value> {
        let address = |offset| std::net::Ipv4Addr::from(base + offset).to_string();
        (0..count).map(|offset| endpoint(&address(offset), letters)).collect()
    };
    let mut index = index();
    index.take([
        balanced("a"),
        slice("d", "a", "IPv4", many(100, "s", 0x0a01_0000).into()),
        slice("r", "a", "IPv4", many(16_380, "rs", 0x0a02_0000).into()),
    ]);
    let row = index.first_row("a");
    assert_eq!((row.active, row.known), (16_380, 16_384));
    assert_eq!(index.problems("a"), ["96 backends of port 80 are beyond the limit"]);
}

#[test]
fn many_odd_endpoints_are_counted_not_listed() {
    let odd: Vec<_> = (0..1000).map(|number| endpoint(&format!("x{number}"), "rs")).collect();
    let index = with(odd.into());
    assert_eq!(index.problems("a").len(), 9);
    assert!(index.problems("a")[8].ends_with("992 more endpoints or ports are refused"));
}
