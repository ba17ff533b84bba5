//! Probes of endpoints, hints, ClusterIPs, and what annotations say about forwarding.

use super::*;
use crate::ForwardingSettings;
use crate::probes::Cadence;
use model::desired::Scope;

const HEALTHY: Health = Health::Healthy { weight: None };
const SICK: Health = Health::Unhealthy { closed: false };

fn annotated(pairs: &[(&str, &str)]) -> Object {
    service("a", "LoadBalancer", |value| {
        for (key, text) in pairs {
            value["metadata"]["annotations"][format!("headgate.dev/{key}")] = (*text).into();
        }
    })
}

fn answer(index: &mut Index, address: &str, health: Health) {
    for key in asked(index) {
        if key.address.to_string() == address {
            index.probed(&key, health);
        }
    }
    index.build();
}

#[test]
fn endpoints_that_fail_are_left_out_while_others_answer() {
    let mut index = index();
    let three =
        json!([endpoint("10.1.0.1", "rs"), endpoint("10.1.0.2", "rs"), endpoint("10.1.0.3", "s"),]);
    let built =
        index.take([annotated(&[("probe", "tcp")]), slice("s", "a", "IPv4", three.clone())]);
    let started: Vec<_> =
        built.probes.started.iter().map(|(key, _)| key.address.to_string()).collect();
    assert_eq!(started, ["10.1.0.1:8080", "10.1.0.2:8080"], "those that may take connections");
    assert_eq!(index.backends("a"), ["10.1.0.1:8080", "10.1.0.2:8080", "(10.1.0.3:8080)"]);
    answer(&mut index, "10.1.0.1:8080", SICK);
    assert_eq!(index.backends("a"), ["(10.1.0.1:8080)", "10.1.0.2:8080", "(10.1.0.3:8080)"]);
    answer(&mut index, "10.1.0.2:8080", SICK);
    assert_eq!(index.backends("a"), ["10.1.0.1:8080", "10.1.0.2:8080", "(10.1.0.3:8080)"]);
    assert_eq!(index.counts().probes_overruled, 1);
    answer(&mut index, "10.1.0.1:8080", HEALTHY);
    assert_eq!(index.backends("a"), ["10.1.0.1:8080", "(10.1.0.2:8080)", "(10.1.0.3:8080)"]);
    // Nobody asks any longer, and what was known is forgotten.
    let built = index.take([annotated(&[])]);
    assert_eq!((built.probes.started.len(), built.probes.stopped.len()), (0, 2));
    assert_eq!(index.backends("a")[1], "10.1.0.2:8080");
    assert_eq!(index.counts().probes_overruled, 0);
    // An answer that comes too late is nobody's.
    let late = built.probes.stopped[0].clone();
    index.probed(&late, SICK);
    assert_eq!(index.build(), Built::default());
}

#[test]
fn one_that_is_not_heard_yet_gets_nothing_while_another_is_good() {
    let mut index = index();
    let of = |last: &[u8]| {
        let all = last.iter().map(|n| endpoint(&format!("10.1.0.{n}"), "rs"));
        slice("s", "a", "IPv4", Value::Array(all.collect()))
    };
    index.take([annotated(&[("probe", "tcp")]), of(&[1])]);
    answer(&mut index, "10.1.0.1:8080", HEALTHY);
    index.take([of(&[1, 2])]);
    assert_eq!(index.backends("a"), ["10.1.0.1:8080", "(10.1.0.2:8080)"]);
    answer(&mut index, "10.1.0.2:8080", HEALTHY);
    assert_eq!(index.backends("a"), ["10.1.0.1:8080", "10.1.0.2:8080"]);
    // A rollout that leaves none of those that were known.
    index.take([of(&[3])]);
    assert_eq!(index.backends("a"), ["10.1.0.3:8080"]);
}

#[test]
fn where_our_zone_fails_others_are_asked() {
    let mut index = forwarding(ForwardingSettings { zone: Some("a".into()), ..Default::default() });
    let hinted = |address: &str, zone: &str| {
        let mut value = endpoint(address, "rs");
        value["hints"] = json!({"forZones": [{"name": zone}]});
        value
    };
    let both = json!([hinted("10.1.0.1", "a"), hinted("10.1.0.2", "b")]);
    index.take([annotated(&[("probe", "tcp")]), slice("s", "a", "IPv4", both)]);
    assert_eq!(index.backends("a"), ["10.1.0.1:8080", "(10.1.0.2:8080)"]);
    answer(&mut index, "10.1.0.1:8080", SICK);
    assert_eq!(index.backends("a"), ["(10.1.0.1:8080)", "10.1.0.2:8080"]);
    answer(&mut index, "10.1.0.2:8080", SICK);
    assert_eq!(index.backends("a"), ["10.1.0.1:8080", "(10.1.0.2:8080)"], "all fail");
    answer(&mut index, "10.1.0.1:8080", HEALTHY);
    assert_eq!(index.backends("a"), ["10.1.0.1:8080", "(10.1.0.2:8080)"]);
}

#[test]
fn what_is_asked_and_how_often() {
    let given = [
        ("probe", "http"),
        ("probe-path", "/ready?full=1"),
        ("probe-port", "9090"),
        ("probe-interval", "500ms"),
        ("probe-timeout", "2s"),
        ("probe-healthy-after", "1"),
        ("probe-unhealthy-after", "5"),
    ];
    let mut index = index();
    let endpoints = json!([endpoint("10.1.0.1", "rs")]);
    let built = index.take([annotated(&given), slice("s", "a", "IPv4", endpoints)]);
    let (key, cadence) = &built.probes.started[0];
    assert_eq!(key.address.to_string(), "10.1.0.1:9090");
    assert_eq!(key.check, Check::Http { path: "/ready?full=1".into() });
    let expected =
        Cadence { interval_ms: 500, timeout_ms: 2_000, healthy_after: 1, unhealthy_after: 5 };
    assert_eq!(*cadence, expected);
    // Another Service that asks the same shares the probe at the quicker pace.
    let mut other = annotated(&given);
    if let Object::Service(service, _) = &mut other {
        service.metadata.name = Some("b".to_owned());
        let annotations = service.metadata.annotations.as_mut().unwrap();
        annotations.insert("headgate.dev/probe-interval".to_owned(), "200ms".to_owned());
    }
    let built = index.take([other, slice("t", "b", "IPv4", json!([endpoint("10.1.0.1", "rs")]))]);
    assert_eq!(built.probes.started[0].1.interval_ms, 200);
    assert_eq!(index.drop_service("a").probes, Default::default());
    assert_eq!(index.drop_service("b").probes.stopped.len(), 1);
}

#[test]
fn annotations_that_make_no_sense_are_named_and_ignored() {
    for (key, text, expected) in [
        ("probe", "ping", "tcp, http or none"),
        ("probe-path", "ready", "a path, as /healthz"),
        ("reset-after", "soon", "never, or 1s to 7d"),
        ("reset-after", "0", "never, or 1s to 7d"),
        ("reset-after", "8d", "never, or 1s to 7d"),
        ("cluster-ip", "yes", "\"true\" or \"false\""),
        ("node-probe", "ping", "healthz, health-check-node-port or none"),
    ] {
        let mut index = index();
        index.take([annotated(&[(key, text)])]);
        let what = format!("headgate.dev/{key} is \"{text}\": expected {expected}; it is ignored");
        assert_eq!(index.problems("a"), [what]);
        assert_eq!(index.port("a", "http").reset_after_s, None);
    }
    for (key, text) in [
        ("probe-port", "0"),
        ("probe-interval", "1ms"),
        ("probe-timeout", "2h"),
        ("probe-healthy-after", "0"),
        ("probe-unhealthy-after", "x"),
    ] {
        let mut index = index();
        index.take([annotated(&[("probe", "tcp"), (key, text)])]);
        assert_eq!(index.problems("a").len(), 1, "{key}");
    }
}

#[test]
fn clients_of_a_gone_backend_are_told_after_the_time_given() {
    let settings = ForwardingSettings { reset_after_s: Some(300), ..ForwardingSettings::default() };
    for (text, expected) in
        [(None, Some(300)), (Some("30s"), Some(30)), (Some("2m"), Some(120)), (Some("never"), None)]
    {
        let mut index = forwarding(settings.clone());
        let pairs: Vec<_> = text.iter().map(|text| ("reset-after", *text)).collect();
        index.take([annotated(&pairs)]);
        assert_eq!(index.port("a", "http").reset_after_s, expected, "{text:?}");
    }
}

/// Nodes n1 (out of sight) and n2 (not ready).
fn cut_off() -> Vec<Object> {
    [("n1", "Unknown"), ("n2", "False")]
        .map(|(name, status)| {
            let value = json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                "status": {"conditions": [{"type": "Ready", "status": status}]},
            });
            Object::Node(Box::new(serde_json::from_value(value).unwrap()), Place::default())
        })
        .to_vec()
}

#[test]
fn endpoints_on_nodes_out_of_sight_serve_where_they_answer() {
    let on = |address: &str, node: &str, letters: &str| {
        let mut value = endpoint(address, letters);
        value["nodeName"] = node.into();
        value
    };
    let endpoints = json!([
        on("10.1.0.1", "n1", ""),
        on("10.1.0.2", "n2", ""),
        on("10.1.0.3", "n1", "t"),
        on("10.1.0.4", "n1", ""),
    ]);
    let mut index = index();
    index.take(cut_off());
    index.take([balanced("a"), slice("s", "a", "IPv4", endpoints.clone())]);
    let at: Vec<_> = asked(&index).iter().map(|key| key.address.to_string()).collect();
    assert_eq!(at, ["10.1.0.1:8080", "10.1.0.4:8080"]);
    assert_eq!(index.first_row("a").active, 0, "not before they answer");
    answer(&mut index, "10.1.0.4:8080", HEALTHY);
    assert_eq!(index.first_row("a").active, 1);
    assert_eq!(index.backends("a")[3], "10.1.0.4:8080");
    // One that is ready, or leaves in order, goes before.
    for letters in ["rs", "st"] {
        let ready = slice("t", "a", "IPv4", json!([on("10.1.0.9", "n2", letters)]));
        let built = index.take([ready]);
        assert_eq!(built.probes.stopped.len(), 2);
        assert_eq!(index.backends("a")[4], "10.1.0.9:8080");
        assert_eq!(index.first_row("a").active, 1);
        index.delete(&key(Kind::EndpointSlice, "t"));
        assert_eq!(index.build().probes.started.len(), 2);
    }
    let settings =
        ForwardingSettings { ignore_unknown_nodes: true, ..ForwardingSettings::default() };
    let mut index = forwarding(settings);
    index.take(cut_off());
    index.take([balanced("a"), slice("s", "a", "IPv4", endpoints)]);
    assert_eq!(asked(&index), []);
}

#[test]
fn hints_are_kept_where_all_ready_ones_have_some_and_one_is_ours() {
    let here = ForwardingSettings {
        zone: Some("z1".to_owned()),
        node_name: Some("n1".to_owned()),
        ..ForwardingSettings::default()
    };
    // Endpoints as zone/node hints with conditions; which are active; under Local all are.
    type Case = (&'static [(&'static str, &'static str, &'static str)], &'static [usize]);
    let cases: &[Case] = &[
        (&[("z1", "", "rs"), ("z2", "", "rs")], &[1]),
        (&[("z1", "", "rs"), ("z2", "", "rs"), ("", "", "rs")], &[1, 2, 3]),
        (&[("z2", "", "rs"), ("z3", "", "rs")], &[1, 2]),
        (&[("z1", "", "rs"), ("z2", "", "rs"), ("", "", "st")], &[1]),
        (&[("z1", "n2", "rs"), ("z2", "n1", "rs")], &[2]),
        (&[("z1", "n2", "rs"), ("z2", "n3", "rs")], &[1]),
        (&[("z1", "", "rs"), ("z2", "n1", "rs")], &[1]),
        (&[("z1", "", "st"), ("z2", "", "st")], &[1, 2]),
        (&[("z1", "", "s"), ("z2", "", "rs")], &[2]),
    ];
    for (given, expected) in cases {
        let one = |(number, (zone, node, letters)): (usize, &(&str, &str, &str))| {
            let mut value = endpoint(&format!("10.1.0.{}", number + 1), letters);
            let list = |name: &str| {
                if name.is_empty() { json!([]) } else { json!([{ "name": name }]) }
            };
            value["hints"] = json!({"forZones": list(zone), "forNodes": list(node)});
            value
        };
        let endpoints: Vec<_> = given.iter().enumerate().map(one).collect();
        let active = |settings: ForwardingSettings, policy: &str| {
            let mut index = forwarding(settings);
            index.take([
                service("a", "LoadBalancer", |value| {
                    value["spec"]["externalTrafficPolicy"] = policy.into();
                }),
                slice("s", "a", "IPv4", endpoints.clone().into()),
            ]);
            let backends = index.backends("a").into_iter().enumerate();
            let active = backends.filter(|(_, text)| !text.starts_with('('));
            active.map(|(at, _)| at + 1).collect::<Vec<_>>()
        };
        assert_eq!(active(here.clone(), "Cluster"), *expected, "{given:?}");
        let all = active(ForwardingSettings::default(), "Cluster");
        assert_eq!(active(here.clone(), "Local"), all, "{given:?}");
    }
}

/// A node out of sight, and in sight again: since when, and how long ago it was heard.
fn node_that_is(ready: &str, since: &str, heard: &str) -> Object {
    let mut object = node("n1", &["10.0.0.1"]);
    let Object::Node(node, _) = &mut object else { unreachable!() };
    let condition = json!([{
        "type": "Ready", "status": ready, "lastTransitionTime": since, "lastHeartbeatTime": heard,
    }]);
    let status = node.status.as_mut().unwrap();
    status.conditions = Some(serde_json::from_value(condition).unwrap());
    object
}

#[test]
fn a_slice_of_before_counts_for_a_minute_after_its_node_is_back() {
    const BACK: &str = "2026-01-01T00:10:00Z";
    let unready = || {
        let mut value = endpoint("10.1.0.1", "");
        value["nodeName"] = "n1".into();
        slice("s", "a", "IPv4", json!([value]))
    };
    let mut index = index();
    index.take([balanced("a"), unready(), node_that_is("Unknown", BACK, BACK)]);
    answer(&mut index, "10.1.0.1:8080", HEALTHY);
    assert_eq!(index.backends("a"), ["10.1.0.1:8080"]);
    for heard in [BACK, "2026-01-01T00:10:59Z"] {
        index.take([node_that_is("True", BACK, heard)]);
        assert_eq!(index.backends("a"), ["10.1.0.1:8080"], "{heard}");
    }
    // A pod that wasn't ready before the cut either.
    index.take([node_that_is("True", BACK, "2026-01-01T00:11:00Z")]);
    assert_eq!(index.backends("a"), ["(10.1.0.1:8080)"]);
}

fn with_cluster_ip(change: impl FnOnce(&mut Value)) -> Object {
    service("a", "ClusterIP", |value| {
        value["spec"]["clusterIPs"] = json!(["10.96.0.7", "2001:db8:96::7"]);
        change(value);
    })
}

#[test]
fn cluster_ips_are_served_on_demand() {
    let all = ForwardingSettings { cluster_ips: true, ..ForwardingSettings::default() };
    let none = ForwardingSettings::default();
    for (settings, annotation, served) in
        [(&all, "", true), (&all, "false", false), (&none, "true", true), (&none, "", false)]
    {
        let mut index = forwarding(settings.clone());
        index.take([with_cluster_ip(|value| {
            value["metadata"]["annotations"]["headgate.dev/cluster-ip"] = annotation.into();
        })]);
        assert_eq!(!index.desired().service_ports.is_empty(), served, "{annotation}");
        if served {
            let expected = ["10.96.0.7:80 ClusterIP", "[2001:db8:96::7]:80 ClusterIP"];
            assert_eq!(index.frontends("a", "http"), expected);
            assert_eq!(index.port("a", "http").key.scope, Scope::Internal);
            assert_eq!(index.first_row("a").not_forwarded, None);
            assert!(index.status("a").addresses.is_empty(), "nothing for status.loadBalancer");
        }
    }
    let mut index = forwarding(all.clone());
    let api_server = || {
        let mut object = with_cluster_ip(|_| {});
        if let Object::Service(service, _) = &mut object {
            service.metadata.name = Some("kubernetes".to_owned());
        }
        object
    };
    index.take([api_server()]);
    assert!(index.desired().service_ports.is_empty(), "the API server's only by name");
    let named = ForwardingSettings {
        cluster_ips_of: vec![ObjectName::new("default", "kubernetes")],
        ..ForwardingSettings::default()
    };
    let mut index = forwarding(named);
    index.take([api_server()]);
    assert_eq!(index.desired().service_ports.len(), 1);
    let mut index = forwarding(all);
    index.take([with_cluster_ip(|value| {
        value["metadata"]["labels"]["service.kubernetes.io/service-proxy-name"] = "x".into();
    })]);
    assert!(index.desired().service_ports.is_empty());
}

#[test]
fn inside_and_outside_have_a_service_port_each() {
    let settings = ForwardingSettings { cluster_ips: true, ..ForwardingSettings::default() };
    let mut index = forwarding(settings);
    let both = |change: &dyn Fn(&mut Value)| {
        service("a", "LoadBalancer", |value| {
            value["spec"]["clusterIPs"] = json!(["10.96.0.7"]);
            change(value);
        })
    };
    let endpoints = json!([endpoint("10.1.0.1", "rs"), endpoint("10.1.0.2", "s")]);
    index.take([both(&|_| {}), slice("s", "a", "IPv4", endpoints)]);
    let told = |index: &Index| -> Vec<_> {
        let ports = index.desired().service_ports.values();
        ports
            .map(|port| {
                let active = port.active(model::ids::Family::V4).count();
                (port.key.scope, active, port.backends.len(), port.refusal[0])
            })
            .collect()
    };
    let (outside, inside) = (Scope::External, Scope::Internal);
    assert_eq!(told(&index), [(outside, 1, 2, Refusal::Reject), (inside, 1, 2, Refusal::Reject)]);
    let scopes: Vec<_> = index.status("a").ports.iter().map(|row| row.key.scope).collect();
    assert_eq!(scopes, [outside, inside]);
    // Nothing is local to a gateway.
    index.take([both(&|value| value["spec"]["internalTrafficPolicy"] = "Local".into())]);
    assert_eq!(told(&index), [(outside, 1, 2, Refusal::Reject), (inside, 0, 2, Refusal::Drop)]);
    index.take([slice("s", "a", "IPv4", json!([endpoint("10.1.0.2", "s")]))]);
    assert_eq!(told(&index), [(outside, 0, 1, Refusal::Reject), (inside, 0, 1, Refusal::Reject)]);
}

#[test]
fn cluster_ips_that_are_never_a_services_are_refused() {
    let settings = ForwardingSettings {
        cluster_ips: true,
        api_servers: vec![ip("198.51.100.66")],
        ..ForwardingSettings::default()
    };
    for (address, what) in [
        ("192.0.2.2", "an address of the gateway itself"),
        ("198.51.100.66", "the address of an API server"),
        ("198.51.100.67", "the address of an API server"),
        ("203.0.113.10", "a LoadBalancer address of default/lb"),
        ("127.0.0.1", "a loopback address"),
    ] {
        let mut index = forwarding(settings.clone());
        let api = slice("k", "kubernetes", "IPv4", json!([endpoint("198.51.100.67", "rs")]));
        index.take([balanced("lb"), api]);
        index.take([service("a", "ClusterIP", |value| {
            value["spec"]["clusterIP"] = address.into();
        })]);
        assert_eq!(index.problems("a"), [format!("clusterIP {address} is refused: it is {what}")]);
    }
}

#[test]
fn an_address_of_an_api_server_is_never_served() {
    let mut index = index();
    let external = service("a", "ClusterIP", |value| {
        value["spec"]["externalIPs"] = json!(["198.51.100.67"]);
    });
    index.take([external]);
    assert_eq!(index.frontends("a", "http").len(), 1);
    let api = slice("k", "kubernetes", "IPv4", json!([endpoint("198.51.100.67", "rs")]));
    index.take([api]);
    assert!(index.desired().service_ports.is_empty());
    let what = "externalIP 198.51.100.67 is refused: it is the address of an API server";
    assert_eq!(index.problems("a"), [what]);
    index.delete(&key(Kind::EndpointSlice, "k"));
    index.build();
    assert_eq!(index.frontends("a", "http").len(), 1);
}

#[test]
fn refused_endpoints_are_counted_while_their_service_is_forwarded() {
    let mut index = index();
    let odd = json!([endpoint("127.0.0.1", "rs"), endpoint("10.1.0.1", "rs")]);
    index.take([balanced("a"), slice("s", "a", "IPv4", odd.clone())]);
    assert_eq!(index.counts().endpoints_refused, 1);
    let built = index.take([service("c", "ClusterIP", |_| {}), slice("t", "c", "IPv4", odd)]);
    assert_eq!(index.counts().endpoints_refused, 1);
    assert!(built.events.is_empty(), "nobody waits for what isn't forwarded");
    index.drop_service("a");
    assert_eq!(index.counts().endpoints_refused, 0);
}

#[test]
fn service_cidrs_are_known() {
    let cidr = |name: &str, cidrs: Value| {
        let value = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": name}, "spec": {"cidrs": cidrs},
        });
        Object::ServiceCidr(Box::new(serde_json::from_value(value).unwrap()), Place::default())
    };
    let mut index = index();
    index.take([
        cidr("kubernetes", json!(["10.96.0.0/16", "2001:db8:96::/112"])),
        cidr("more", json!(["10.97.0.0/16", "odd"])),
    ]);
    let known =
        |index: &Index| index.service_cidrs().map(|net| net.to_string()).collect::<Vec<_>>();
    assert_eq!(known(&index), ["10.96.0.0/16", "2001:db8:96::/112", "10.97.0.0/16"]);
    index.delete(&cidr("kubernetes", json!([])).key());
    assert_eq!(known(&index), ["10.97.0.0/16"]);
}
