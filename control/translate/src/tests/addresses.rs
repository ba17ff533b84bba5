//! LoadBalancer addresses and nodePorts: who gets which, and for how long.

use super::*;
use crate::problem::reason;
use model::answers::Severity;

fn asking(name: &str, addresses: &str) -> Object {
    service(name, "LoadBalancer", |value| {
        value["metadata"]["annotations"]["headgate.dev/addresses"] = addresses.into();
        if addresses.contains(':') && addresses.contains(',') {
            value["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
        } else if addresses.contains(':') {
            value["spec"]["ipFamilies"] = json!(["IPv6"]);
        }
    })
}

fn dual(name: &str, policy: &str) -> Object {
    service(name, "LoadBalancer", |value| {
        value["spec"]["ipFamilyPolicy"] = policy.into();
        value["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
    })
}

#[test]
fn a_balanced_service_gets_the_lowest_free_address_of_a_pool() {
    let mut index = index();
    let built = index.take([balanced("b"), balanced("a")]);
    assert_eq!(index.addresses("a"), ["203.0.113.10"]);
    assert_eq!(index.addresses("b"), ["203.0.113.11"]);
    assert_eq!(index.frontends("a", "http"), ["203.0.113.10:80 LoadBalancer"]);
    assert!(built.allocations_changed);
    assert_eq!(
        events(&built),
        [
            "IPAllocated Service default/a a.yaml:1: 203.0.113.10 from pool demo",
            "IPAllocated Service default/b b.yaml:1: 203.0.113.11 from pool demo",
        ]
    );
    let used: Vec<_> = index.pools().iter().map(|pool| pool.ipv4.used).collect();
    assert_eq!(used, [2, 0]);
}

#[test]
fn families_and_policies_decide_how_many() {
    for (policy, families, held) in [
        ("SingleStack", json!(["IPv4"]), vec!["203.0.113.10"]),
        ("SingleStack", json!(["IPv6"]), vec!["2001:db8::10"]),
        ("PreferDualStack", json!(["IPv6", "IPv4"]), vec!["203.0.113.10", "2001:db8::10"]),
        ("RequireDualStack", json!(["IPv4", "IPv6"]), vec!["203.0.113.10", "2001:db8::10"]),
        ("RequireDualStack", json!(["IPv6"]), vec!["203.0.113.10", "2001:db8::10"]),
        ("SingleStack", json!([]), vec!["203.0.113.10"]),
    ] {
        let mut index = index();
        index.take([service("a", "LoadBalancer", |value| {
            value["spec"]["ipFamilyPolicy"] = policy.into();
            value["spec"]["ipFamilies"] = families.clone();
        })]);
        assert_eq!(index.addresses("a"), held, "{policy} {families}");
        assert!(index.problems("a").is_empty());
    }
}

#[test]
fn require_is_all_or_nothing_and_prefer_takes_what_there_is() {
    let mut wishes = wishes();
    wishes.pools = vec![pool("demo", true, &["203.0.113.10", "2001:db8::10-2001:db8::11"])];
    let mut index = Index::new(Settings::new(wishes).unwrap(), Allocations::default());
    index.take([balanced("a")]);
    index.take([dual("p", "PreferDualStack"), dual("r", "RequireDualStack")]);
    assert_eq!(index.held("p"), ["2001:db8::10"]);
    assert!(index.problems("p").is_empty());
    assert!(index.held("r").is_empty());
    let what = "pool demo has not a free address of each family, as RequireDualStack asks";
    assert_eq!(index.problems("r"), [what]);
    // The rest later: to the first in rank.
    index.drop_service("a");
    assert_eq!(index.held("p"), ["203.0.113.10", "2001:db8::10"]);
    index.drop_service("p");
    assert_eq!(index.held("r"), ["203.0.113.10", "2001:db8::10"]);
    assert!(index.problems("r").is_empty());
}

#[test]
fn addresses_are_asked_for_by_field_or_annotation() {
    let mut index = index();
    index.take([
        service("field", "LoadBalancer", |value| {
            value["spec"]["loadBalancerIP"] = "203.0.113.12".into();
        }),
        asking("both", " 203.0.113.11 , 2001:db8::12 "),
        service("pool", "LoadBalancer", |value| {
            value["metadata"]["annotations"]["headgate.dev/pool"] = "other".into();
        }),
        balanced("any"),
    ]);
    assert_eq!(index.addresses("field"), ["203.0.113.12"]);
    let what = "loadBalancerIP is deprecated: headgate.dev/addresses can ask for both families";
    assert_eq!(index.problems("field"), [what]);
    assert_eq!(index.addresses("both"), ["203.0.113.11", "2001:db8::12"]);
    assert_eq!(index.addresses("pool"), ["203.0.113.100"]);
    assert_eq!(index.addresses("any"), ["203.0.113.10"], "a request goes before chance");
}

#[test]
fn requests_that_cannot_be_met_say_why_and_harm_nobody() {
    let annotate = |key: &'static str, text: &'static str| {
        move |value: &mut Value| value["metadata"]["annotations"][key] = text.into()
    };
    let addresses = "headgate.dev/addresses";
    let cases: Vec<(Object, &str, &str)> = vec![
        (
            asking("x", "203.0.113.10"),
            reason::ALLOCATION_FAILED,
            "203.0.113.10 is asked for, yet it belongs to default/a",
        ),
        (
            asking("x", "203.0.113.77"),
            reason::ALLOCATION_FAILED,
            "203.0.113.77 is asked for, yet no pool has it",
        ),
        (
            asking("x", "192.0.2.2"),
            reason::ADDRESS_REFUSED,
            "192.0.2.2 is asked for, yet it is an address of the gateway itself: ask for another",
        ),
        (
            asking("x", "198.51.100.254"),
            reason::ADDRESS_REFUSED,
            "198.51.100.254 is asked for, yet it is the address of a next hop: ask for another",
        ),
        (
            asking("x", "203.0.113.12"),
            reason::ADDRESS_REFUSED,
            "203.0.113.12 is asked for, yet it is an address of Node n1: ask for another",
        ),
        (
            service("x", "LoadBalancer", annotate(addresses, "203.0.113.11,203.0.113.12")),
            reason::ALLOCATION_FAILED,
            "2 IPv4 addresses are asked for: expected one",
        ),
        (
            service("x", "LoadBalancer", annotate(addresses, "nonsense")),
            reason::INVALID,
            "requested address \"nonsense\" is not an IP address",
        ),
        (
            service("x", "LoadBalancer", annotate(addresses, "2001:db8::11")),
            reason::ALLOCATION_FAILED,
            "2001:db8::11 is asked for, yet its ipFamilies have no IPv6",
        ),
        (
            service("x", "LoadBalancer", annotate("headgate.dev/pool", "none")),
            reason::ALLOCATION_FAILED,
            "there is no pool \"none\"; there are: demo, other",
        ),
        (
            service("x", "LoadBalancer", |value| {
                value["spec"]["loadBalancerIP"] = "203.0.113.11".into();
                value["metadata"]["annotations"][addresses] = "203.0.113.11".into();
            }),
            reason::ALLOCATION_FAILED,
            "both loadBalancerIP and headgate.dev/addresses ask for addresses: keep one",
        ),
        (
            service("x", "LoadBalancer", |value| {
                value["metadata"]["annotations"][addresses] = "203.0.113.11".into();
                value["metadata"]["annotations"]["headgate.dev/pool"] = "other".into();
            }),
            reason::ALLOCATION_FAILED,
            "203.0.113.11 is asked for, yet it is in pool demo, not in other",
        ),
    ];
    for (object, reason, message) in cases {
        let mut index = index();
        index.take([balanced("a")]);
        if message.contains("Node") {
            index.take([node("n1", &["203.0.113.12"])]);
        }
        let built = index.take([object]);
        assert_eq!(index.problems("x"), [message]);
        let event = built.events.iter().find(|event| event.severity == Severity::Warning).unwrap();
        assert_eq!((event.reason.as_str(), event.place.as_str()), (reason, "x.yaml:1"));
        assert_eq!(index.addresses("a"), ["203.0.113.10"]);
        let again = index.build();
        assert_eq!(again, Built::default(), "events come on transitions alone");
    }
}

#[test]
fn who_waits_for_an_address_gets_it_when_it_is_free() {
    let mut index = index();
    index.take([balanced("a")]);
    index.take([asking("x", "203.0.113.10"), asking("y", "203.0.113.10")]);
    assert!(index.held("x").is_empty());
    let built = index.drop_service("a");
    assert_eq!(index.addresses("x"), ["203.0.113.10"]);
    assert!(index.problems("x").is_empty());
    assert_eq!(index.problems("y"), ["203.0.113.10 is asked for, yet it belongs to default/x"]);
    assert_eq!(built.removed, [ObjectName::new("default", "a")]);
    assert_eq!(built.evaluated, 2);
}

#[test]
fn an_exhausted_pool_serves_those_who_wait_in_their_order() {
    let mut index = index();
    index.take(["a", "b", "c", "d", "e"].map(balanced));
    assert_eq!(index.problems("e"), ["pool demo has no free IPv4 address"]);
    let built = index.drop_service("b");
    assert_eq!(index.addresses("d"), ["203.0.113.11"]);
    assert!(index.addresses("e").is_empty());
    assert_eq!(built.evaluated, 1, "one address came free, one Service is looked at");
    assert_eq!(
        index.first_row("e").not_forwarded.as_deref(),
        Some("it has no LoadBalancer address yet")
    );
}

#[test]
fn an_address_goes_back_when_the_service_is_no_longer_balanced() {
    let mut index = index();
    index.take([balanced("a")]);
    let built = index.take([service("a", "ClusterIP", |_| {})]);
    assert!(index.allocations().is_empty());
    assert!(built.allocations_changed);
    assert_eq!(built.delta.removed.len(), 1);
    assert_eq!(
        events(&built),
        [
            "IPReleased Service default/a a.yaml:1: 203.0.113.10 is no longer its LoadBalancer address"
        ]
    );
    index.take([balanced("a"), balanced("b")]);
    index.take([service("a", "LoadBalancer", |value| {
        value["spec"]["loadBalancerClass"] = "example.com/other".into();
    })]);
    assert!(index.held("a").is_empty(), "another class");
}

#[test]
fn addresses_survive_a_restart_whatever_the_order() {
    let mut index = index();
    index.take([balanced("c")]);
    index.take([balanced("a"), balanced("b")]);
    let stored = serde_json::to_string(index.allocations()).unwrap();
    let stored: Allocations = serde_json::from_str(&stored).unwrap();
    let mut again =
        Index::resume(Settings::new(wishes()).unwrap(), stored, index.desired().clone());
    let built = again.take([balanced("b"), balanced("a"), balanced("c")]);
    assert_eq!(again.addresses("c"), ["203.0.113.10"]);
    assert!(!built.allocations_changed);
    assert!(built.delta.is_empty(), "what is forwarded already isn't changed");
    assert_eq!(built.statuses.len(), 3);
}

#[test]
fn a_resumed_state_loses_what_is_gone() {
    let mut index = index();
    index.take([balanced("a"), balanced("b")]);
    let mut again = Index::resume(
        Settings::new(wishes()).unwrap(),
        index.allocations().clone(),
        index.desired().clone(),
    );
    let built = again.take([balanced("b")]);
    assert_eq!(built.delta.removed.len(), 1);
    assert!(built.delta.changed.is_empty());
    assert_eq!(again.counts().service_ports, 1);
    // What the absent Service had is kept for its return as long as something else is free.
    again.take([balanced("n")]);
    assert_eq!(again.held("n"), ["203.0.113.12"]);
    again.take([balanced("o")]);
    assert_eq!(again.held("o"), ["203.0.113.10"], "nothing else is free");
}

#[test]
fn another_uid_is_another_service() {
    let with_uid = |uid: &'static str, requested: &'static str| {
        service("a", "LoadBalancer", move |value| {
            value["metadata"]["uid"] = uid.into();
            value["metadata"]["annotations"]["headgate.dev/addresses"] = requested.into();
        })
    };
    let mut index = index();
    index.take([with_uid("1", "203.0.113.10")]);
    index.take([asking("x", "203.0.113.10")]);
    assert_eq!(index.held("a"), ["203.0.113.10"]);
    index.take([with_uid("2", "203.0.113.11")]);
    assert_eq!(index.held("a"), ["203.0.113.11"]);
    assert_eq!(index.held("x"), ["203.0.113.10"]);
    assert_eq!(&*index.port("a", "http").uid, "2");
}

#[test]
fn an_address_that_turns_out_to_be_a_nodes_is_withdrawn() {
    let mut index = index();
    index.take([balanced("a"), asking("b", "203.0.113.11")]);
    let built = index.take([node("n1", &["203.0.113.10", "203.0.113.11"])]);
    assert!(index.addresses("a").is_empty());
    let refused = "pool \"demo\" has addresses of 203.0.113.10, an address of Node n1: take them \
                   out of 203.0.113.10-203.0.113.12";
    assert_eq!(index.problems("a"), [refused], "nothing is given out of such a pool");
    assert!(index.addresses("b").is_empty());
    assert_eq!(
        index.problems("b"),
        ["203.0.113.11 is asked for, yet it is an address of Node n1: ask for another"]
    );
    assert!(events(&built).contains(
        &"AddressRefused Service default/a a.yaml:1: 203.0.113.10 is no longer its LoadBalancer \
          address: it is an address of Node n1"
            .to_owned()
    ));
    index.delete(&key(Kind::Node, "n1"));
    index.build();
    assert_eq!(index.addresses("b"), ["203.0.113.11"]);
}

#[test]
fn a_pool_that_is_gone_is_kept_while_in_use() {
    let mut index = index();
    index.take([balanced("a")]);
    let mut wishes = wishes();
    wishes.pools = vec![pool("new", true, &["203.0.113.50-203.0.113.51"])];
    let mut again = Index::new(Settings::new(wishes).unwrap(), index.allocations().clone());
    again.take([balanced("a"), balanced("b")]);
    assert_eq!(again.addresses("a"), ["203.0.113.10"]);
    assert_eq!(again.addresses("b"), ["203.0.113.50"]);
}

#[test]
fn node_ports_are_given_where_none_is_written_and_kept() {
    let mut index = index();
    index.take([service("a", "NodePort", |_| {})]);
    let given = index.first_row("a").node_port.unwrap();
    assert!((30_086..=32_767).contains(&given), "{given}");
    assert_eq!(
        index.frontends("a", "http"),
        [format!("192.0.2.1:{given} NodePort")],
        "its families have no IPv6"
    );
    // Another asks for the very port: the holder keeps it.
    let other = |name: &str| {
        service(name, "NodePort", |value| value["spec"]["ports"][0]["nodePort"] = given.into())
    };
    index.take([other("0")]);
    assert_eq!(
        index.problems("0"),
        [format!("NodePort 192.0.2.1:{given}/TCP belongs to default/a")]
    );
    let stored = index.allocations().clone();
    let mut again = Index::new(Settings::new(wishes()).unwrap(), stored);
    again.take([other("0"), service("a", "NodePort", |_| {})]);
    assert_eq!(again.first_row("a").node_port, Some(given));
    again.drop_service("a");
    assert_eq!(again.frontends("0", "http"), [format!("192.0.2.1:{given} NodePort")]);
    assert!(again.allocations().is_empty());
}

#[test]
fn node_ports_run_out_and_come_back() {
    let mut wishes = wishes();
    wishes.node_port.first = 30_000;
    wishes.node_port.last = 30_001;
    let mut index = Index::new(Settings::new(wishes).unwrap(), Allocations::default());
    index.take(["a", "b", "c"].map(|name| service(name, "NodePort", |_| {})));
    assert_eq!(index.first_row("c").node_port, None);
    assert_eq!(index.problems("c"), ["no nodePort from 30000 to 30001 is free for port 80/TCP"]);
    index.drop_service("a");
    assert!(index.first_row("c").node_port.is_some());
    assert!(index.problems("c").is_empty());
}

#[test]
fn an_api_server_gives_node_ports_itself() {
    let mut wishes = wishes();
    wishes.node_port.allocate = false;
    let mut index = Index::new(Settings::new(wishes).unwrap(), Allocations::default());
    index.take([service("a", "NodePort", |_| {})]);
    assert_eq!(index.first_row("a").node_port, None);
}

#[test]
fn a_balanced_services_node_ports_are_served_by_annotation_alone() {
    let mut index = index();
    let with = |annotation: &'static str| {
        service("a", "LoadBalancer", move |value| {
            value["spec"]["ports"][0]["nodePort"] = 30_080.into();
            value["metadata"]["annotations"]["headgate.dev/node-ports"] = annotation.into();
        })
    };
    index.take([with("false")]);
    assert_eq!(index.frontends("a", "http"), ["203.0.113.10:80 LoadBalancer"]);
    assert_eq!(index.first_row("a").node_port, Some(30_080));
    index.take([with("true")]);
    assert_eq!(
        index.frontends("a", "http"),
        ["203.0.113.10:80 LoadBalancer", "192.0.2.1:30080 NodePort"]
    );
}

#[test]
fn a_stored_file_with_one_address_twice_gives_it_to_one() {
    let text = r#"[
        {"service": {"namespace": "default", "name": "a"}, "uid": "",
         "addresses": [{"address": "203.0.113.10", "pool": "demo"}]},
        {"service": {"namespace": "default", "name": "b"}, "uid": "",
         "addresses": [{"address": "203.0.113.10", "pool": "demo"},
                       {"address": "203.0.113.11", "pool": "demo"},
                       {"address": "203.0.113.12", "pool": "demo"}]}
    ]"#;
    let stored: Allocations = serde_json::from_str(text).unwrap();
    let mut index = Index::new(Settings::new(wishes()).unwrap(), stored);
    index.take([balanced("a"), balanced("b")]);
    assert_eq!(index.held("a"), ["203.0.113.10"]);
    assert_eq!(index.held("b"), ["203.0.113.11"], "one of a family");
}

#[test]
fn no_pool_means_no_address() {
    let bare = Wishes { pools: Vec::new(), ..wishes() };
    let mut index = Index::new(Settings::new(bare).unwrap(), Allocations::default());
    index.take([balanced("a")]);
    assert_eq!(index.problems("a"), ["no pool of addresses is configured ([[pool]])"]);
    let mut undecided = wishes();
    undecided.pools[0].auto_assign = false;
    let mut index = Index::new(Settings::new(undecided).unwrap(), Allocations::default());
    index.take([balanced("a")]);
    assert_eq!(
        index.problems("a"),
        ["no pool serves Services that name none: name one by the annotation headgate.dev/pool"]
    );
}

#[test]
fn class_decides_whose_service_it_is() {
    let class = |class: Option<&'static str>| {
        service("a", "LoadBalancer", move |value| {
            value["spec"]["loadBalancerClass"] = class.into();
        })
    };
    for (default_class, given, ours) in [
        (true, None, true),
        (false, None, false),
        (false, Some("headgate.dev/gateway"), true),
        (true, Some("example.com/other"), false),
    ] {
        let wishes = Wishes { default_class, ..wishes() };
        let mut index = Index::new(Settings::new(wishes).unwrap(), Allocations::default());
        let built = index.take([class(given)]);
        assert_eq!(!index.held("a").is_empty(), ours, "{default_class} {given:?}");
        if !ours {
            assert!(built.events.is_empty(), "another's Service is worth no event");
            assert_eq!(index.problems("a").len(), 1);
        }
    }
}

#[test]
fn a_status_of_another_controller_is_left_alone() {
    let with_status = |address: &'static str| {
        service("a", "LoadBalancer", move |value| {
            value["status"] = json!({"loadBalancer": {"ingress": [{"ip": address}]}});
        })
    };
    let mut index = index();
    index.take([with_status("203.0.113.10")]);
    assert_eq!(index.held("a"), ["203.0.113.10"]);
    let built = index.take([with_status("192.0.2.99")]);
    assert!(index.held("a").is_empty());
    assert!(built.events.iter().any(|event| event.reason == reason::FOREIGN_STATUS));
}
