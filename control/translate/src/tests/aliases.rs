//! What other controllers' annotations mean.

use super::*;
use crate::pools::Scheme;
use crate::probes::Cadence;
use model::desired::{Affinity, Target};

fn annotated(name: &str, pairs: &[(&str, &str)]) -> Object {
    service(name, "LoadBalancer", |value| {
        value["spec"]["ports"][0]["nodePort"] = 30_080.into();
        for (key, text) in pairs {
            value["metadata"]["annotations"][key] = (*text).into();
        }
    })
}

fn aws(pairs: &[(&str, &str)]) -> Object {
    let prefix = "service.beta.kubernetes.io/aws-load-balancer-";
    let pairs: Vec<_> = pairs.iter().map(|(key, text)| (format!("{prefix}{key}"), *text)).collect();
    let pairs: Vec<_> = pairs.iter().map(|(key, text)| (key.as_str(), *text)).collect();
    annotated("a", &pairs)
}

fn index_with(change: impl FnOnce(&mut Wishes)) -> Index {
    let mut wishes = wishes();
    change(&mut wishes);
    Index::new(Settings::new(wishes).unwrap(), Allocations::default())
}

#[test]
fn metallbs_annotations_ask_as_ours_do() {
    let asks = |domain: &str, name: &str, port: u16| {
        let key = |key: &str| format!("{domain}/{key}");
        let mut object = annotated(
            name,
            &[
                (&key("loadBalancerIPs"), "203.0.113.101"),
                (&key("address-pool"), "other"),
                (&key("allow-shared-ip"), "k"),
            ],
        );
        if let Object::Service(service, _) = &mut object {
            let ports = service.spec.as_mut().and_then(|spec| spec.ports.as_mut()).unwrap();
            ports[0].port = i32::from(port);
        }
        object
    };
    let mut index = index_with(|wishes| wishes.metallb = true);
    index.take([asks("metallb.io", "a", 80), asks("metallb.universe.tf", "b", 81)]);
    assert_eq!((index.held("a"), index.held("b")), (vec!["203.0.113.101".into()], index.held("a")));
    let both = [
        ("headgate.dev/addresses", "203.0.113.12"),
        ("metallb.io/loadBalancerIPs", "203.0.113.11"),
        ("metallb.universe.tf/loadBalancerIPs", "203.0.113.10"),
    ];
    index.take([annotated("c", &both), annotated("d", &both[1..])]);
    assert_eq!(index.held("c"), ["203.0.113.12"], "ours count");
    assert_eq!(index.held("d"), ["203.0.113.11"], "the newer one counts");
    let mut index = index_with(|_| ());
    index.take([annotated("c", &both[1..])]);
    assert_eq!(index.held("c"), ["203.0.113.10"], "nobody opted in");
}

#[test]
fn services_for_aws_are_ours_where_that_was_asked_for() {
    let class = service("c", "LoadBalancer", |value| {
        value["spec"]["loadBalancerClass"] = "service.k8s.aws/nlb".into();
        value["spec"]["ports"][0]["nodePort"] = 30_080.into();
    });
    for (object, opted, ours) in [
        (class.clone(), true, true),
        (class, false, false),
        (aws(&[("type", "external")]), true, true),
        (aws(&[("type", "nlb")]), true, true),
        (aws(&[("type", "nlb-ip")]), true, true),
        (aws(&[("type", "clb")]), true, false),
        (aws(&[("scheme", "internal")]), true, false),
        (aws(&[("type", "external")]), false, false),
    ] {
        let name = object.key().name.name;
        let mut index = index_with(|wishes| {
            wishes.default_class = false;
            wishes.aws = opted;
        });
        index.take([object]);
        assert_eq!(!index.held(&name).is_empty(), ours, "{name} {opted}");
    }
}

#[test]
fn schemes_choose_the_pool() {
    for (pairs, held) in [
        (vec![("type", "nlb-ip")], "203.0.113.10"),
        (vec![("type", "nlb-ip"), ("scheme", "internet-facing")], "203.0.113.20"),
        (vec![("type", "nlb-ip"), ("internal", "true")], "203.0.113.10"),
        (vec![("type", "nlb-ip"), ("internal", "0.0.0.0/0")], "203.0.113.10"),
        (vec![("type", "nlb-ip"), ("internal", "false")], "203.0.113.20"),
        (
            vec![("type", "nlb-ip"), ("internal", "true"), ("scheme", "internet-facing")],
            "203.0.113.20",
        ),
    ] {
        let mut index = index_with(|wishes| {
            wishes.aws = true;
            let of = |name: &str, scheme, range: &str| Pool {
                scheme: Some(scheme),
                ..pool(name, true, &[range])
            };
            wishes.pools = vec![
                of("out", Scheme::InternetFacing, "203.0.113.20"),
                of("in", Scheme::Internal, "203.0.113.10"),
            ];
        });
        index.take([aws(&pairs)]);
        assert_eq!(index.held("a"), [held], "{pairs:?}");
    }
}

#[test]
fn what_can_be_meant_is() {
    let mut index = index_with(|wishes| wishes.aws = true);
    index.take([
        aws(&[
            ("type", "nlb-ip"),
            ("healthcheck-protocol", "HTTP"),
            ("healthcheck-port", "8081"),
            ("healthcheck-path", "/ok"),
            ("healthcheck-interval", "10"),
            ("healthcheck-timeout", "6"),
            ("healthcheck-healthy-threshold", "4"),
            ("healthcheck-unhealthy-threshold", "5"),
            ("cross-zone-load-balancing-enabled", "true"),
            (
                "target-group-attributes",
                "deregistration_delay.timeout_seconds=120,stickiness.enabled=true,\
                 stickiness.type=source_ip",
            ),
        ]),
        slice("s", "a", "IPv4", json!([endpoint("10.0.0.1", "rs")])),
    ]);
    assert!(index.problems("a").is_empty(), "{:?}", index.problems("a"));
    let port = index.port("a", "http");
    assert_eq!((port.target, port.reset_after_s), (Target::Endpoint, Some(120)));
    assert_eq!(port.affinity, Some(Affinity { timeout_s: 10_800 }));
    let spec = &index.services[&ObjectName::new("default", "a")].spec;
    let probe = spec.wants.probe.as_ref().unwrap();
    let cadence =
        Cadence { interval_ms: 10_000, timeout_ms: 6_000, healthy_after: 4, unhealthy_after: 5 };
    assert_eq!((&probe.check, probe.port), (&Check::Http { path: "/ok".into() }, Some(8_081)));
    assert_eq!(spec.wants.cadence, cadence);
    // Instances where nothing is said.
    index.take([aws(&[("type", "external"), ("healthcheck-interval", "10")])]);
    assert_eq!(index.port("a", "http").target, Target::Node);
    let spec = &index.services[&ObjectName::new("default", "a")].spec;
    assert_eq!(spec.wants.probe.as_ref().unwrap().check, Check::Tcp);
    let ours = annotated(
        "a",
        &[
            ("service.beta.kubernetes.io/aws-load-balancer-type", "external"),
            ("headgate.dev/target", "endpoint"),
        ],
    );
    index.take([ours]);
    assert_eq!(index.port("a", "http").target, Target::Endpoint, "ours count");
}

#[test]
fn what_cannot_be_honoured_is_named_once() {
    let mut index = index_with(|wishes| wishes.aws = true);
    let object = aws(&[
        ("type", "nlb-ip"),
        ("subnets", "subnet-1"),
        ("ssl-cert", "arn:aws:acm:x"),
        ("attributes", "deletion_protection.enabled=true"),
        ("cross-zone-load-balancing-enabled", "false"),
    ]);
    let built = index.take([object.clone()]);
    let prefix = "service.beta.kubernetes.io/aws-load-balancer-";
    let what = format!(
        "these mean nothing here: deletion_protection.enabled of {prefix}attributes, \
         {prefix}cross-zone-load-balancing-enabled \"false\", {prefix}ssl-cert, {prefix}subnets"
    );
    assert_eq!(index.problems("a"), [what]);
    let told =
        |built: &Built| built.events.iter().filter(|event| event.reason == "NotHonoured").count();
    assert_eq!(told(&built), 1);
    let mut again = object;
    if let Object::Service(service, _) = &mut again {
        service.metadata.labels = Some([("x".to_owned(), "y".to_owned())].into());
    }
    assert_eq!(told(&index.take([again])), 0);
}

#[test]
fn values_that_make_no_sense_name_their_annotation() {
    for (key, value, what) in [
        ("nlb-target-type", "pod", "expected ip or instance"),
        ("scheme", "public", "expected internal or internet-facing"),
        ("healthcheck-protocol", "grpc", "expected TCP, HTTP or HTTPS"),
        ("healthcheck-port", "http", "expected a number, 1 to 65535"),
        ("healthcheck-interval", "0", "expected a number, 1 to 65535"),
        ("cross-zone-load-balancing-enabled", "yes", "expected true or false"),
        ("target-group-attributes", "deregistration_delay", "expected NAME=VALUE"),
        ("target-group-attributes", "deregistration_delay.timeout_seconds=x", "expected 0 to 3600"),
    ] {
        let mut index = index_with(|wishes| wishes.aws = true);
        index.take([aws(&[("type", "nlb-ip"), (key, value)])]);
        let problems = index.problems("a");
        assert!(problems[0].contains(key) && problems[0].contains(what), "{key}: {problems:?}");
    }
    for (pair, reason) in [
        (("target-group-attributes", "preserve_client_ip.enabled=true"), "SourceNotKept"),
        (("healthcheck-protocol", "HTTPS"), "NotHonoured"),
        (("proxy-protocol", "*"), "NotForwarded"),
    ] {
        let mut index = index_with(|wishes| wishes.aws = true);
        index.take([aws(&[("type", "nlb-ip"), pair])]);
        assert_eq!(index.status("a").facts.reasons, [reason], "{pair:?}");
    }
}

#[test]
fn names_of_schedulers_are_understood() {
    for (name, affinity, reasons) in [
        ("rr", false, vec!["NotHonoured"]),
        ("wrr", false, vec!["NotHonoured"]),
        ("lc", false, vec!["NotHonoured"]),
        ("wlc", false, vec!["NotHonoured"]),
        ("mh", false, vec![]),
        ("sh", true, vec![]),
        ("dh", false, vec!["NotHonoured"]),
        ("fifo", false, vec!["Invalid"]),
    ] {
        let mut index = index();
        let built = index.take([annotated("a", &[("headgate.dev/scheduler", name)])]);
        assert_eq!(index.port("a", "http").affinity.is_some(), affinity, "{name}");
        assert_eq!(index.status("a").facts.reasons, reasons, "{name}");
        let loud =
            built.events.iter().any(|event| event.severity == model::answers::Severity::Warning);
        assert_eq!(loud, matches!(name, "lc" | "wlc" | "dh" | "fifo"), "{name}");
    }
}

/// Every annotation of ours stands in the table that operators read.
#[test]
fn the_table_of_annotations_has_them_all() {
    let table = include_str!("../../ANNOTATIONS.md");
    let sources = [
        include_str!("../spec.rs"),
        include_str!("../forwarding.rs"),
        include_str!("../aws.rs"),
        include_str!("../source_ranges.rs"),
    ];
    let words = sources.iter().flat_map(|text| text.split('"'));
    let ours = words.clone().filter(|word| word.starts_with("headgate.dev/"));
    let others = words.filter(|word| word.starts_with("service.beta.kubernetes.io/"));
    let all: std::collections::BTreeSet<_> = ours.chain(others).collect();
    assert!(all.len() > 20, "{all:?}");
    for name in all {
        assert!(table.contains(name), "{name}");
    }
    let keys = include_str!("../aws.rs").split("fn one(").nth(1).unwrap();
    let keys = keys.split("fn check(").next().unwrap().lines();
    for key in keys.filter_map(|line| line.trim().strip_prefix('"')?.split('"').next()) {
        assert!(key == "type" || table.contains(&format!("`{key}`")), "{key}");
    }
}
