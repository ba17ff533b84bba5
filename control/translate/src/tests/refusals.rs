//! What is accepted and not forwarded, and hostile input.

use super::*;
use crate::problem::reason;

#[test]
fn what_is_not_forwarded_says_why() {
    let annotate = |key: &'static str, text: &'static str| {
        move |value: &mut Value| value["metadata"]["annotations"][key] = text.into()
    };
    let cases: Vec<(Object, &str)> = vec![
        (
            service("a", "ClusterIP", |_| {}),
            "a ClusterIP Service is for clients inside the cluster; those outside need type \
             LoadBalancer or NodePort, or externalIPs",
        ),
        (
            service("a", "ClusterIP", |value| value["spec"]["clusterIP"] = "None".into()),
            "it is headless (clusterIP: None): clients ask DNS for its pods",
        ),
        (
            service("a", "ExternalName", |_| {}),
            "ExternalName is a name in DNS, with nothing to forward to",
        ),
        (
            service("a", "Router", |_| {}),
            "its type \"Router\" is none of ClusterIP, NodePort, LoadBalancer, ExternalName",
        ),
        (
            service("a", "LoadBalancer", |value| {
                value["spec"]["ports"][0]["protocol"] = "SCTP".into();
            }),
            "SCTP is not available yet; there are TCP and UDP",
        ),
        (
            service("a", "LoadBalancer", annotate("headgate.dev/forwarding", "dsr")),
            "forwarding \"dsr\" is not available yet; there is \"nat\"",
        ),
        (
            service("a", "LoadBalancer", annotate("headgate.dev/forwarding", "magic")),
            "headgate.dev/forwarding is \"magic\": expected nat, transparent or dsr",
        ),
        (
            service("a", "LoadBalancer", annotate("headgate.dev/forwarding", "transparent")),
            "forwarding \"transparent\" is not available yet; there is \"nat\"",
        ),
        (
            service("a", "LoadBalancer", annotate("headgate.dev/proxy-protocol", "v2")),
            "the PROXY protocol (headgate.dev/proxy-protocol \"v2\") is not available yet: \
             backends that expect its header would refuse every connection",
        ),
        (
            service("a", "LoadBalancer", annotate("headgate.dev/proxy-protocol", "v3")),
            "headgate.dev/proxy-protocol is \"v3\": expected none, v1 or v2",
        ),
        (
            service("a", "LoadBalancer", annotate("headgate.dev/target", "pod")),
            "headgate.dev/target is \"pod\": expected endpoint or node",
        ),
        (
            service("a", "LoadBalancer", |value| {
                value["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }),
            "it is being deleted",
        ),
    ];
    for (object, why) in cases {
        let mut index = index();
        let built = index.take([balanced("other"), object]);
        assert_eq!(index.first_row("a").not_forwarded.as_deref(), Some(why));
        assert_eq!(built.delta.changed.len(), 1, "the other one is forwarded");
    }
}

#[test]
fn as_it_should_be_is_worth_no_event() {
    for object in [
        service("a", "ClusterIP", |_| {}),
        service("a", "ClusterIP", |value| value["spec"]["clusterIP"] = "None".into()),
        service("a", "ExternalName", |_| {}),
    ] {
        assert!(index().take([object]).events.is_empty());
    }
    let sctp = service("a", "LoadBalancer", |value| {
        value["spec"]["ports"][0]["protocol"] = "SCTP".into();
    });
    let built = index().take([sctp]);
    let warning = built.events.iter().find(|event| event.reason == reason::NOT_FORWARDED).unwrap();
    assert_eq!(
        warning.message,
        "port 80/SCTP is not forwarded: SCTP is not available yet; there are TCP and UDP"
    );
}

#[test]
fn affinity_is_forwarded_with_its_time() {
    let with = |seconds: Value| {
        service("a", "LoadBalancer", |value| {
            value["spec"]["sessionAffinity"] = "ClientIP".into();
            value["spec"]["sessionAffinityConfig"] = seconds;
        })
    };
    let mut index = index();
    let built = index.take([with(json!(null))]);
    assert_eq!(index.port("a", "http").affinity.unwrap().timeout_s, 10_800);
    assert!(index.problems("a").is_empty());
    assert!(built.events.iter().all(|event| event.reason == reason::IP_ALLOCATED));
    index.take([with(json!({"clientIP": {"timeoutSeconds": 60}}))]);
    assert_eq!(index.port("a", "http").affinity.unwrap().timeout_s, 60);
}

#[test]
fn source_ranges_never_leave_an_address_open() {
    let annotation = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let with = |field: Value, text: Value| {
        service("a", "LoadBalancer", |value| {
            value["spec"]["loadBalancerSourceRanges"] = field;
            value["metadata"]["annotations"][annotation] = text;
            value["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
            value["spec"]["externalIPs"] = json!(["198.51.100.7"]);
        })
    };
    let v4 = "203.0.113.10:80 LoadBalancer";
    let v6 = "[2001:db8::10]:80 LoadBalancer";
    // Field, annotation, what is served, prefixes that guard it, problems.
    let cases = [
        (json!([]), json!(""), vec![v4, v6], "", 0),
        (json!(["192.0.2.0/24"]), json!(""), vec![v4, v6], "192.0.2.0/24", 1),
        (
            json!(["192.0.2.0/24", "2001:db8::/32"]),
            json!(""),
            vec![v4, v6],
            "192.0.2.0/24 2001:db8::/32",
            0,
        ),
        (json!(["0.0.0.0/0"]), json!(""), vec![v4, v6], "0.0.0.0/0", 1),
        (json!([]), json!("192.0.2.7/24, ::/0"), vec![v4, v6], "192.0.2.0/24 ::/0", 0),
        (json!([]), json!(" 010.000.0.0/08 ,::/0"), vec![v4, v6], "10.0.0.0/8 ::/0", 0),
        (json!(["::/0"]), json!("192.0.2.0/24"), vec![v4, v6], "::/0", 1),
        // What can't be read might have been of the family that has nothing else.
        (json!(["nonsense"]), json!(""), vec![], "", 3),
        (json!([]), json!("192.0.2.0/240"), vec![], "", 3),
        (json!(["192.0.2.0/24", "x"]), json!(""), vec![v4], "192.0.2.0/24", 2),
        (json!(["192.0.2.0/24", "::/0", "x"]), json!(""), vec![v4, v6], "192.0.2.0/24 ::/0", 1),
    ];
    for (field, text, mut served, ranges, problems) in cases {
        let mut index = index();
        index.take([with(field.clone(), text.clone())]);
        served.push("198.51.100.7:80 externalIP");
        assert_eq!(index.frontends("a", "http"), served, "{field} {text}");
        assert_eq!(index.problems("a").len(), problems, "{field} {text} {:?}", index.problems("a"));
        let guards = &index.port("a", "http").source_ranges;
        let guards: Vec<_> = guards.iter().map(ToString::to_string).collect();
        assert_eq!(guards.join(" "), ranges, "{field} {text}");
    }
}

/// An annotation may be as long as 256 KiB, and a Service have thousands of ports.
#[test]
fn long_texts_are_cut_and_counted() {
    let long = "x".repeat(200_000);
    let words = "nothing,".repeat(20_000);
    let ports: Vec<_> = (1..=2_000).map(|n| json!({"name": format!("p{n}"), "port": n})).collect();
    for (annotation, text) in [
        ("headgate.dev/target", &long),
        ("headgate.dev/forwarding", &long),
        ("headgate.dev/proxy-protocol", &long),
        ("headgate.dev/pool", &long),
        ("headgate.dev/scheme", &long),
        ("headgate.dev/scheduler", &long),
        ("headgate.dev/addresses", &words),
        ("service.beta.kubernetes.io/load-balancer-source-ranges", &words),
        ("service.beta.kubernetes.io/aws-load-balancer-attributes", &words),
    ] {
        let mut index = Index::new(
            Settings::new(Wishes { aws: true, ..wishes() }).unwrap(),
            Allocations::default(),
        );
        let built = index.take([service("a", "LoadBalancer", |value| {
            value["metadata"]["annotations"][annotation] = text.as_str().into();
            let aws = "service.beta.kubernetes.io/aws-load-balancer-type";
            value["metadata"]["annotations"][aws] = "nlb-ip".into();
            value["spec"]["ports"] = Value::Array(ports.clone());
        })]);
        assert!(built.events.len() <= 40, "{annotation}: {} events", built.events.len());
        let status = index.status("a");
        let problems: usize = status.problems.iter().map(String::len).sum();
        let rows = status.ports.iter().filter_map(|row| row.not_forwarded.as_ref());
        let rows: usize = rows.map(String::len).sum();
        assert!(problems < 100_000 && rows < 600_000, "{annotation}: {problems}, {rows}");
    }
}

/// Each family is refused as the pool of its address says.
#[test]
fn pools_of_two_families_refuse_each_in_its_way() {
    let with = |v4, v6| {
        let of = |name: &str, refusal, range: &str| Pool { refusal, ..pool(name, true, &[range]) };
        let pools = vec![of("four", v4, "203.0.113.10"), of("six", v6, "2001:db8::10")];
        let mut index = Index::new(
            Settings::new(Wishes { pools, ..wishes() }).unwrap(),
            Allocations::default(),
        );
        index.take([service("a", "LoadBalancer", |value| {
            value["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
            value["spec"]["ipFamilyPolicy"] = "RequireDualStack".into();
        })]);
        index.port("a", "http").refusal
    };
    for both in [[Refusal::Reject, Refusal::Drop], [Refusal::Drop, Refusal::Reject]] {
        assert_eq!(with(both[0], both[1]), both);
    }
}

/// Nobody hears of Services that nobody is to reach from here.
#[test]
fn what_is_not_served_is_told_nothing_of_how() {
    let mut wishes = wishes();
    wishes.node_port.addresses.clear();
    let mut index = Index::new(Settings::new(wishes).unwrap(), Allocations::default());
    let built = index.take([
        service("a", "NodePort", |value| {
            value["spec"]["externalTrafficPolicy"] = "Local".into();
            value["metadata"]["annotations"]["headgate.dev/target"] = "node".into();
            value["spec"]["sessionAffinity"] = "ClientIP".into();
        }),
        service("b", "ClusterIP", |value| value["spec"]["ports"][0]["protocol"] = "SCTP".into()),
    ]);
    assert_eq!(events(&built), Vec::<String>::new());
}

#[test]
fn source_ranges_guard_the_node_ports_of_a_balanced_service() {
    let mut index = index();
    index.take([service("a", "LoadBalancer", |value| {
        value["spec"]["loadBalancerClass"] = "another/class".into();
        value["spec"]["loadBalancerSourceRanges"] = json!(["192.0.2.0/24"]);
        value["spec"]["ports"][0]["nodePort"] = 30_080.into();
        value["metadata"]["annotations"]["headgate.dev/node-ports"] = "true".into();
    })]);
    assert_eq!(index.frontends("a", "http"), ["192.0.2.1:30080 NodePort"]);
    assert!(index.port("a", "http").frontends[0].is_guarded());
    assert_eq!(index.port("a", "http").source_ranges.len(), 1);
}

#[test]
fn another_proxys_service_keeps_its_addresses_alone() {
    let proxied = |service_type| {
        service("a", service_type, |value| {
            value["metadata"]["labels"]["service.kubernetes.io/service-proxy-name"] = "x".into();
            value["metadata"]["annotations"]["headgate.dev/node-ports"] = "true".into();
            value["spec"]["ports"][0]["nodePort"] = 30_080.into();
        })
    };
    let mut index = index();
    index.take([proxied("NodePort")]);
    assert!(index.desired().service_ports.is_empty());
    index.take([proxied("LoadBalancer")]);
    assert_eq!(index.frontends("a", "http"), ["203.0.113.10:80 LoadBalancer"]);
}

#[test]
fn bad_ports_are_left_out_and_the_rest_is_served() {
    let mut index = index();
    index.take([service("a", "LoadBalancer", |value| {
        value["spec"]["ports"] = json!([
            {"name": "zero", "port": 0},
            {"name": "http", "port": 80},
            {"name": "high", "port": 65_536},
            {"name": "icmp", "port": 1, "protocol": "ICMP"},
            {"name": "http", "port": 81},
            {"name": "again", "port": 80},
            {"name": "node", "port": 82, "nodePort": -1},
        ]);
    })]);
    assert_eq!(index.frontends("a", "http"), ["203.0.113.10:80 LoadBalancer"]);
    assert_eq!(
        index.problems("a"),
        [
            "port 0 is not a port: expected 1 to 65535",
            "port 65536 is not a port: expected 1 to 65535",
            "protocol \"ICMP\" is none of TCP, UDP, SCTP",
            "port 81/TCP \"http\" is there twice: give each a name and a number of its own",
            "port 80/TCP \"again\" is there twice: give each a name and a number of its own",
            "nodePort -1 is not a port: expected 1 to 65535",
        ]
    );
}

#[test]
fn empty_objects_and_huge_lists_are_survived() {
    let mut index = index();
    for kind in ["Service", "EndpointSlice", "Node"] {
        let object = match kind {
            "Service" => Object::Service(Box::default(), Place::default()),
            "EndpointSlice" => Object::EndpointSlice(Box::default(), Place::default()),
            _ => Object::Node(Box::default(), Place::default()),
        };
        index.take([object]);
    }
    let ips: Vec<_> =
        (0..20_000u32).map(|n| std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string()).collect();
    let ports: Vec<_> = (1..=3_000).map(|n| json!({"name": format!("p{n}"), "port": n})).collect();
    index.take([service("a", "ClusterIP", |value| {
        value["spec"]["externalIPs"] = ips.into();
        value["spec"]["ports"] = ports.into();
    })]);
    assert_eq!(index.counts().frontends, model::limits::FRONTENDS_PER_SERVICE_MAX);
    assert!(index.problems("a").iter().any(|text| text.contains("only its first 4096 frontends")));
    let bad: Vec<_> = (0..10_000).map(|n| format!("bad{n}")).collect();
    index.take([service("a", "ClusterIP", |value| value["spec"]["externalIPs"] = bad.into())]);
    assert!(index.problems("a").len() <= 65);
    assert_eq!(index.drop_service("a").delta.removed.len(), 0);
    assert_eq!(index.counts().frontends, 0);
}

#[test]
fn a_full_gateway_says_so_and_makes_room_again() {
    let many = |name: &str, count: usize, base: u32| {
        let ports: Vec<_> =
            (1..=count).map(|n| json!({"name": format!("p{n}"), "port": n})).collect();
        service(name, "ClusterIP", |value| {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + base).to_string();
            value["spec"]["externalIPs"] = json!([address]);
            value["spec"]["ports"] = ports.into();
        })
    };
    let mut index = index();
    let full = model::limits::SERVICE_PORTS_MAX / 4_096;
    index.take((0..full).map(|n| many(&format!("s{n:02}"), 4_096, u32::try_from(n).unwrap())));
    assert_eq!(index.counts().service_ports, model::limits::SERVICE_PORTS_MAX);
    let built = index.take([many("z", 1, 100)]);
    assert!(built.delta.is_empty());
    let why = "the gateway has its limit of 65536 service ports already";
    assert_eq!(index.first_row("z").not_forwarded.as_deref(), Some(why));
    let built = index.drop_service("s00");
    assert_eq!(built.delta.changed.len(), 1);
    assert_eq!(index.first_row("z").not_forwarded, None);
}

#[test]
fn services_of_a_refused_pool_say_why_and_others_are_served() {
    let mut wishes = wishes();
    wishes.pools.push(pool("own", false, &["192.0.2.0/24"]));
    let mut index = Index::new(Settings::new(wishes).unwrap(), Allocations::default());
    let by_name = service("a", "LoadBalancer", |value| {
        value["metadata"]["annotations"]["headgate.dev/pool"] = "own".into();
    });
    let by_address = service("b", "LoadBalancer", |value| {
        value["spec"]["loadBalancerIP"] = "192.0.2.77".into();
    });
    let built = index.take([by_name, by_address, balanced("good")]);
    let status = |name: &str| {
        built.statuses.iter().find(|status| &*status.name.name == name).unwrap().clone()
    };
    for name in ["a", "b"] {
        let status = status(name);
        assert!(status.addresses.is_empty());
        let told = status.problems.iter().any(|text| {
            text.contains("pool \"own\" contains 192.0.2.1, an address of the gateway itself")
        });
        assert!(told, "{:?}", status.problems);
    }
    assert_eq!(status("good").addresses, [ip("203.0.113.10")]);
}
