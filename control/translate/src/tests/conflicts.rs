//! externalIPs, NodePorts, and two Services that want one frontend.

use super::*;
use crate::problem::reason;

fn external(name: &str, address: &str) -> Object {
    service(name, "ClusterIP", |value| value["spec"]["externalIPs"] = json!([address]))
}

fn at(name: &str, time: &'static str, change: impl FnOnce(&mut Value)) -> Object {
    service(name, "ClusterIP", |value| {
        value["metadata"]["creationTimestamp"] = time.into();
        change(value);
    })
}

#[test]
fn external_ips_are_served_on_any_type() {
    for service_type in ["ClusterIP", "NodePort", "LoadBalancer"] {
        let mut index = index();
        index.take([service("a", service_type, |value| {
            value["spec"]["externalIPs"] = json!(["198.51.100.7"]);
        })]);
        let frontends = index.frontends("a", "http");
        assert!(frontends.contains(&"198.51.100.7:80 externalIP".to_owned()), "{service_type}");
        assert_eq!(index.addresses("a").last().unwrap(), "198.51.100.7");
    }
}

#[test]
fn external_ips_that_are_never_a_services_are_refused() {
    for (address, message) in [
        ("198.51.100.1", "it is an address of the gateway itself"),
        ("198.51.100.254", "it is the address of a next hop"),
        ("10.0.0.9", "it is an address of Node n1"),
        ("127.0.0.1", "it is a loopback address"),
        ("8.8.8.8", "the configuration allows no such range ([external_ips] ranges)"),
        ("203.0.113.10", "it is a LoadBalancer address of default/lb"),
    ] {
        let mut index = index();
        index.take([balanced("lb"), node("n1", &["10.0.0.9"])]);
        let built = index.take([external("a", address)]);
        let message = format!("externalIP {address} is refused: {message}");
        assert_eq!(index.problems("a"), std::slice::from_ref(&message));
        let text = format!("AddressRefused Service default/a a.yaml:1: {message}");
        assert_eq!(events(&built), [text]);
        assert!(built.delta.is_empty());
    }
}

#[test]
fn an_external_ip_that_becomes_a_nodes_is_withdrawn_and_comes_back() {
    let mut index = index();
    index.take([external("a", "10.0.0.9")]);
    assert_eq!(index.frontends("a", "http"), ["10.0.0.9:80 externalIP"]);
    let built = index.take([node("n1", &["10.0.0.9"])]);
    assert_eq!(built.delta.removed.len(), 1);
    assert_eq!(built.events[0].reason, reason::ADDRESS_REFUSED);
    index.delete(&key(Kind::Node, "n1"));
    assert_eq!(index.build().delta.changed.len(), 1);
}

#[test]
fn the_pool_keeps_off_external_ips() {
    let mut index = index();
    index.take([external("e", "203.0.113.10")]);
    index.take([balanced("a")]);
    assert_eq!(index.addresses("a"), ["203.0.113.11"]);
    index.take([service("x", "LoadBalancer", |value| {
        value["metadata"]["annotations"]["headgate.dev/addresses"] = "203.0.113.10".into();
    })]);
    assert_eq!(
        index.problems("x"),
        ["203.0.113.10 is asked for, yet it is an externalIP of default/e"]
    );
    index.drop_service("e");
    assert_eq!(index.addresses("x"), ["203.0.113.10"]);
}

#[test]
fn a_service_may_name_its_own_address_as_external_ip() {
    let mut index = index();
    index.take([service("a", "LoadBalancer", |value| {
        value["spec"]["externalIPs"] = json!(["203.0.113.10"]);
        value["metadata"]["annotations"]["headgate.dev/addresses"] = "203.0.113.10".into();
    })]);
    assert_eq!(index.frontends("a", "http"), ["203.0.113.10:80 LoadBalancer"]);
    assert!(index.problems("a").is_empty());
}

#[test]
fn of_two_claimants_the_older_has_the_frontend() {
    let ip = |value: &mut Value| value["spec"]["externalIPs"] = json!(["198.51.100.7"]);
    let uid = |uid: &'static str| {
        move |value: &mut Value| {
            value["spec"]["externalIPs"] = json!(["198.51.100.7"]);
            value["metadata"]["uid"] = uid.into();
        }
    };
    let early = "2026-01-01T00:00:00Z";
    let late = "2026-01-02T00:00:00Z";
    let pairs = [
        (at("z", early, ip), at("a", late, ip)),
        (at("z", early, uid("1")), at("a", early, uid("2"))),
        (at("a", early, ip), at("z", early, ip)),
        (at("z", late, ip), external("a", "198.51.100.7")),
    ];
    for (winner, loser) in pairs {
        let (winner_name, loser_name) = (winner.key().name, loser.key().name);
        for order in [[winner.clone(), loser.clone()], [loser, winner]] {
            let mut index = index();
            for object in order {
                index.take([object]);
            }
            let (won, lost) = (&*winner_name.name, &*loser_name.name);
            assert_eq!(index.frontends(won, "http"), ["198.51.100.7:80 externalIP"]);
            assert_eq!(
                index.problems(lost),
                [format!("externalIP 198.51.100.7:80/TCP belongs to {winner_name}")]
            );
            assert_eq!(
                index.first_row(lost).not_forwarded.as_deref(),
                Some("its frontends belong to other Services")
            );
            let built = index.drop_service(won);
            assert_eq!(index.frontends(lost, "http"), ["198.51.100.7:80 externalIP"]);
            assert_eq!((built.delta.changed.len(), built.delta.removed.len()), (1, 1));
            assert!(index.problems(lost).is_empty());
        }
    }
}

#[test]
fn one_address_may_serve_two_services_on_two_ports() {
    let mut index = index();
    index.take([
        external("a", "198.51.100.7"),
        service("b", "ClusterIP", |value| {
            value["spec"]["externalIPs"] = json!(["198.51.100.7"]);
            value["spec"]["ports"][0]["protocol"] = "UDP".into();
        }),
        service("c", "ClusterIP", |value| {
            value["spec"]["externalIPs"] = json!(["198.51.100.7"]);
            value["spec"]["ports"][0]["port"] = 81.into();
        }),
    ]);
    for name in ["a", "b", "c"] {
        assert!(index.problems(name).is_empty(), "{name}");
    }
}

#[test]
fn a_conflict_is_told_once() {
    let mut index = index();
    index.take([external("a", "198.51.100.7")]);
    let built = index.take([external("b", "198.51.100.7")]);
    assert_eq!(
        events(&built),
        ["PortConflict Service default/b b.yaml:1: externalIP 198.51.100.7:80/TCP belongs to \
             default/a"]
    );
    let built = index.take([slice("s", "b", "IPv4", json!([endpoint("10.1.0.1", "rs")]))]);
    assert!(built.events.is_empty());
    assert_eq!(built.evaluated, 1);
}

#[test]
fn explicit_node_ports_conflict_by_age_and_are_checked() {
    let with = |name: &str, number: i32| {
        service(name, "NodePort", move |value| {
            value["spec"]["ports"][0]["nodePort"] = number.into();
            value["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
        })
    };
    let mut index = index();
    index.take([with("b", 30_080), with("c", 80)]);
    assert_eq!(
        index.frontends("b", "http"),
        ["192.0.2.1:30080 NodePort", "[2001:db8:1::1]:30080 NodePort"]
    );
    assert_eq!(index.problems("c"), ["nodePort 80 is not from 30000 to 32767"]);
    index.take([with("a", 30_080)]);
    assert_eq!(index.frontends("a", "http").len(), 2);
    assert_eq!(index.problems("b").len(), 2);
    index.drop_service("a");
    assert_eq!(index.frontends("b", "http").len(), 2);
}

#[test]
fn a_node_port_twice_in_one_service_is_one() {
    let mut index = index();
    index.take([service("a", "NodePort", |value| {
        value["spec"]["ports"] = json!([
            {"name": "x", "port": 80, "nodePort": 30_080},
            {"name": "y", "port": 81, "nodePort": 30_080},
        ]);
    })]);
    assert_eq!(index.frontends("a", "x"), ["192.0.2.1:30080 NodePort"]);
    assert_eq!(index.problems("a"), ["nodePort 30080/TCP is there twice"]);
}
