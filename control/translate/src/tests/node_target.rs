//! Nodes as backends.

use super::*;
use crate::problem::reason;
use crate::{ForwardingSettings, NodeProbe};
use model::desired::{Refusal, Target};

/// A balanced Service with target `node` and nodePort 30080, under an externalTrafficPolicy.
fn target_node(policy: &'static str, change: impl FnOnce(&mut Value)) -> Object {
    service("a", "LoadBalancer", |value| {
        value["metadata"]["annotations"]["headgate.dev/target"] = "node".into();
        value["spec"]["externalTrafficPolicy"] = policy.into();
        value["spec"]["ports"][0]["nodePort"] = 30_080.into();
        change(value);
    })
}

/// Nodes n1 to n3 at 10.0.0.1 to 10.0.0.3, changed by `change`.
fn nodes(change: impl Fn(&str, &mut Value)) -> Vec<Object> {
    ["n1", "n2", "n3"].map(|name| changed_node(name, |value| change(name, value))).to_vec()
}

fn changed_node(name: &str, change: impl FnOnce(&mut Value)) -> Object {
    let mut value = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {}},
        "spec": {},
        "status": {"addresses": [
            {"type": "ExternalIP", "address": "198.51.100.99"},
            {"type": "InternalIP", "address": format!("10.0.0.{}", &name[1..])},
            {"type": "InternalIP", "address": format!("10.0.1.{}", &name[1..])},
        ]},
    });
    change(&mut value);
    Object::Node(Box::new(serde_json::from_value(value).unwrap()), Place::default())
}

/// Endpoints as `n1:rs n2:st`: node and conditions, at addresses 10.1.0.1 and on.
fn endpoints(text: &str) -> Value {
    let one = |(number, word): (usize, &str)| {
        let (node, letters) = word.split_once(':').unwrap();
        let mut value = endpoint(&format!("10.1.0.{}", number + 1), letters);
        value["nodeName"] = node.into();
        value
    };
    text.split_whitespace().enumerate().map(one).collect()
}

/// `n1=2 (n2) [n3]`: nodes with their weight; those that drain, those that don't serve.
fn told(index: &Index) -> String {
    let port = index.port("a", "http");
    let one = |backend: &model::desired::Backend| {
        assert_eq!(backend.address.port(), 30_080);
        assert_eq!(backend.via, Some(backend.address.ip()));
        match backend.state {
            BackendState::Active => format!("{}={}", backend.node, backend.weight),
            BackendState::Draining => format!("({})", backend.node),
            BackendState::Unserving => format!("[{}]", backend.node),
        }
    };
    port.backends.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn with(policy: &'static str, nodes: Vec<Object>, given: &str) -> Index {
    let mut index = index();
    index.take(nodes);
    index.take([target_node(policy, |_| {}), slice("s", "a", "IPv4", endpoints(given))]);
    index
}

#[test]
fn which_nodes_take_connections_and_what_refuses() {
    let cases = [
        ("Cluster", "n1:rs n1:rs n2:rs", "n1=2 n2=1 n3=1", Refusal::Reject),
        ("Cluster", "n1:rs n2:st", "n1=1 n2=1 n3=1", Refusal::Reject),
        ("Cluster", "n1:st n1:st n2:", "n1=2 n2=1 n3=1", Refusal::Reject),
        ("Cluster", "n1:s", "(n1) (n2) (n3)", Refusal::Reject),
        ("Cluster", "n1:", "[n1] [n2] [n3]", Refusal::Reject),
        ("Cluster", "", "", Refusal::Reject),
        ("Cluster", "elsewhere:rs", "n1=1 n2=1 n3=1", Refusal::Reject),
        ("Local", "n1:rs n1:rs n2:rs", "n1=2 n2=1", Refusal::Reject),
        ("Local", "n1:rs n2:st n3:", "n1=1 (n2) [n3]", Refusal::Reject),
        ("Local", "n1:st n2:st n2:st n3:t", "n1=1 n2=2 [n3]", Refusal::Reject),
        ("Local", "n1:s", "(n1)", Refusal::Reject),
        ("Local", "", "", Refusal::Reject),
        // Endpoints there are, yet not where a packet may go.
        ("Local", "elsewhere:rs", "", Refusal::Drop),
        ("Local", "elsewhere:st n1:", "[n1]", Refusal::Drop),
        ("Local", "elsewhere:rs n1:st", "n1=1", Refusal::Reject),
    ];
    for (policy, given, expected, refusal) in cases {
        let index = with(policy, nodes(|_, _| {}), given);
        assert_eq!(told(&index), expected, "{policy} {given}");
        let port = index.port("a", "http");
        assert_eq!(port.refusal, [refusal, Refusal::Reject], "{policy} {given}");
        assert_eq!(port.target, Target::Node);
        let active = expected.split_whitespace().filter(|word| word.contains('=')).count();
        assert_eq!(index.first_row("a").active as usize, active);
    }
}

#[test]
fn which_nodes_may_be_backends() {
    let label = |text: &'static str| {
        move |value: &mut Value| {
            let key = "node.kubernetes.io/exclude-from-external-load-balancers";
            value["metadata"]["labels"][key] = text.into();
        }
    };
    type Change = Box<dyn Fn(&mut Value)>;
    let cases: Vec<(Change, bool)> = vec![
        (Box::new(label("")), false),
        (Box::new(label("true")), false),
        (Box::new(label("no")), false),
        (Box::new(label("false")), true),
        (Box::new(label("False")), true),
        (Box::new(label("F")), true),
        (Box::new(label("0")), true),
        (Box::new(label("fALSE")), false),
        (
            Box::new(|value| {
                let taint =
                    json!({"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"});
                value["spec"]["taints"] = json!([taint]);
            }),
            false,
        ),
        (
            Box::new(|value| {
                value["spec"]["taints"] = json!([{"key": "other", "effect": "NoExecute"}]);
                value["spec"]["unschedulable"] = true.into();
            }),
            true,
        ),
        (
            Box::new(|value| {
                value["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into()
            }),
            false,
        ),
        (
            Box::new(|value| {
                value["status"]["conditions"] = json!([{"type": "Ready", "status": "False"}]);
            }),
            true,
        ),
        (Box::new(|value| value["status"]["addresses"] = json!([])), false),
        // The gateway itself.
        (
            Box::new(|value| {
                value["status"]["addresses"] =
                    json!([{"type": "InternalIP", "address": "192.0.2.2"}]);
            }),
            false,
        ),
    ];
    for (number, (change, may)) in cases.into_iter().enumerate() {
        let excluded = nodes(|name, value| {
            if name == "n2" {
                change(value);
            }
        });
        let index = with("Cluster", excluded.clone(), "n1:rs n2:rs");
        assert_eq!(told(&index), if may { "n1=1 n2=1 n3=1" } else { "n1=1 n3=1" }, "{number}");
        // For target endpoint it counts as any other.
        let mut index = index;
        index.take([service("a", "LoadBalancer", |_| {})]);
        assert_eq!(index.backends("a"), ["10.1.0.1:8080", "10.1.0.2:8080"], "{number}");
    }
}

#[test]
fn families_go_by_the_first_internal_address_of_each() {
    let mut index = index();
    let dual = changed_node("n1", |value| {
        value["status"]["addresses"] = json!([
            {"type": "InternalIP", "address": "2001:db8:9::2"},
            {"type": "InternalIP", "address": "10.0.0.1"},
            {"type": "InternalIP", "address": "2001:db8:9::1"},
        ]);
    });
    let mut six = endpoint("2001:db8:8::1", "rs");
    six["nodeName"] = "n1".into();
    index.take([
        dual,
        target_node("Local", |value| value["spec"]["ipFamilies"] = json!(["IPv6", "IPv4"])),
        slice("s4", "a", "IPv4", endpoints("elsewhere:rs")),
        slice("s6", "a", "IPv6", json!([six])),
    ]);
    let port = index.port("a", "http");
    assert_eq!(index.backends("a"), ["[2001:db8:9::2]:30080"]);
    assert_eq!(port.refusal, [Refusal::Drop, Refusal::Reject]);
}

#[test]
fn what_makes_nodes_impossible_is_said() {
    let key = "service.kubernetes.io/service-proxy-name";
    let mut index = index();
    index.take(nodes(|_, _| {}));
    index.take([slice("s", "a", "IPv4", endpoints("n1:rs"))]);
    index.take([target_node("Cluster", |value| {
        value["spec"]["ports"][0]["nodePort"] = json!(null);
        value["spec"]["allocateLoadBalancerNodePorts"] = false.into();
    })]);
    let why = "target \"node\" needs a nodePort, and it has none (allocateLoadBalancerNodePorts \
               is false)";
    assert_eq!(index.first_row("a").not_forwarded.as_deref(), Some(why));
    assert_eq!(index.problems("a"), [format!("port 80/TCP is not forwarded: {why}")]);

    index.take([target_node("Cluster", |value| value["metadata"]["labels"][key] = "x".into())]);
    assert_eq!(index.backends("a"), ["10.1.0.1:8080"]);
    assert!(index.problems("a")[0].contains("its endpoints are the backends"));

    let built = index.take([target_node("Cluster", |value| {
        value["spec"]["sessionAffinity"] = "ClientIP".into();
    })]);
    assert_eq!(built.events[0].reason, reason::AFFINITY_INEFFECTIVE);
    let built = index.take([target_node("Local", |_| {})]);
    assert_eq!(built.events[0].reason, reason::SOURCE_NOT_KEPT);

    let ours = ForwardingSettings {
        proxy_name: Some("x".to_owned()),
        target: Target::Node,
        ..ForwardingSettings::default()
    };
    let mut index = forwarding(ours);
    index.take(nodes(|_, _| {}));
    index.take([
        slice("s", "a", "IPv4", endpoints("n1:rs")),
        service("a", "NodePort", |value| {
            value["metadata"]["labels"][key] = "x".into();
            value["spec"]["ports"][0]["nodePort"] = 30_080.into();
        }),
        service("c", "ClusterIP", |_| {}),
    ]);
    assert_eq!(told(&index), "n1=1 n2=1 n3=1", "the name is ours, and the target the default");
    assert!(index.problems("c").is_empty());
}

#[test]
fn a_change_of_a_node_concerns_those_that_have_nodes_as_backends() {
    let mut index = with("Cluster", nodes(|_, _| {}), "n1:rs");
    index.take([balanced("b"), slice("t", "b", "IPv4", endpoints("n1:rs"))]);
    let built = index.take([changed_node("n4", |_| {})]);
    assert_eq!(built.evaluated, 1);
    assert_eq!(told(&index), "n1=1 n2=1 n3=1 n4=1");
    index.delete(&key(Kind::Node, "n1"));
    assert_eq!(index.build().evaluated, 2);
    assert_eq!(told(&index), "n2=1 n3=1 n4=1");
}

/// The answer of a probe by its address.
fn answer(index: &mut Index, address: &str, health: Health) {
    let keys = asked(index).into_iter().filter(|key| key.address.to_string() == address);
    for key in keys.collect::<Vec<_>>() {
        index.probed(&key, health);
    }
    index.build();
}

const HEALTHY: Health = Health::Healthy { weight: None };
const SICK: Health = Health::Unhealthy { closed: false };
const CLOSED: Health = Health::Unhealthy { closed: true };

#[test]
fn nodes_are_asked_once_each_and_those_that_fail_are_left_out() {
    let mut index = with("Cluster", nodes(|_, _| {}), "n1:rs");
    let at = |index: &Index| {
        let keys = asked(index);
        assert!(keys.iter().all(|key| key.check == Check::Http { path: "/healthz".into() }));
        keys.iter().map(|key| key.address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(at(&index), ["10.0.0.1:10256", "10.0.0.2:10256", "10.0.0.3:10256"]);
    answer(&mut index, "10.0.0.1:10256", HEALTHY);
    answer(&mut index, "10.0.0.2:10256", SICK);
    assert_eq!(told(&index), "n1=1 (n2) (n3)", "one that hasn't answered yet gets nothing");
    answer(&mut index, "10.0.0.3:10256", HEALTHY);
    assert_eq!(told(&index), "n1=1 (n2) n3=1");
    answer(&mut index, "10.0.0.1:10256", SICK);
    answer(&mut index, "10.0.0.3:10256", SICK);
    assert_eq!(told(&index), "n1=1 n2=1 n3=1", "all fail: all are used");
    assert_eq!(index.counts().probes_overruled, 1);
    assert!(index.problems("a")[0].starts_with("every backend of port 80/TCP fails its probe"));
    answer(&mut index, "10.0.0.2:10256", HEALTHY);
    assert_eq!(told(&index), "(n1) n2=1 (n3)");
    assert_eq!(index.counts().probes_overruled, 0);
    // A node more, a node less, none wanted any longer.
    index.delete(&key(Kind::Node, "n3"));
    let built = index.take([changed_node("n4", |_| {})]);
    assert_eq!(built.probes.started[0].0.address.to_string(), "10.0.0.4:10256");
    assert_eq!(built.probes.stopped[0].address.to_string(), "10.0.0.3:10256");
    assert_eq!(index.drop_service("a").probes.stopped.len(), 3);
}

#[test]
fn where_no_node_has_the_health_port_the_node_port_is_asked() {
    let mut index = with("Cluster", nodes(|_, _| {}), "n1:rs");
    for number in 1..=3 {
        answer(&mut index, &format!("10.0.0.{number}:10256"), CLOSED);
    }
    assert_eq!(told(&index), "n1=1 n2=1 n3=1");
    assert!(index.problems("a").is_empty(), "not asked yet is not failed");
    let own = asked(&index).into_iter().filter(|key| key.check == Check::Tcp);
    let own: Vec<_> = own.map(|key| key.address.to_string()).collect();
    assert_eq!(own, ["10.0.0.1:30080", "10.0.0.2:30080", "10.0.0.3:30080"]);
    answer(&mut index, "10.0.0.3:30080", CLOSED);
    assert_eq!(told(&index), "n1=1 n2=1 (n3)");
    answer(&mut index, "10.0.0.3:10256", HEALTHY);
    assert_eq!(asked(&index).len(), 3, "the port is open again");
    assert_eq!(told(&index), "(n1) (n2) n3=1");
}

/// A node that joins, and one that dies, say nothing of what kube-proxy is to the others.
#[test]
fn the_node_port_stays_asked_while_nodes_come_and_go() {
    let mut index = with("Cluster", nodes(|_, _| {}), "n1:rs");
    for number in 1..=3 {
        answer(&mut index, &format!("10.0.0.{number}:10256"), CLOSED);
    }
    for number in 1..=3 {
        answer(&mut index, &format!("10.0.0.{number}:30080"), HEALTHY);
    }
    index.take([changed_node("n4", |_| {})]);
    assert_eq!(told(&index), "n1=1 n2=1 n3=1 (n4)");
    answer(&mut index, "10.0.0.4:30080", HEALTHY);
    assert_eq!(told(&index), "n1=1 n2=1 n3=1 n4=1");
    answer(&mut index, "10.0.0.2:10256", SICK);
    answer(&mut index, "10.0.0.2:30080", SICK);
    assert_eq!(told(&index), "n1=1 (n2) n3=1 n4=1");
    assert!(index.problems("a").is_empty(), "{:?}", index.problems("a"));
}

#[test]
fn the_health_check_node_port_is_asked_on_demand() {
    let with = |policy, probe: &'static str| {
        let mut index = with(policy, nodes(|_, _| {}), "n1:rs n2:rs n2:rs");
        index.take([target_node(policy, |value| {
            value["metadata"]["annotations"]["headgate.dev/node-probe"] = probe.into();
            value["spec"]["healthCheckNodePort"] = 31_000.into();
        })]);
        index
    };
    let mut index = with("Local", "health-check-node-port");
    answer(&mut index, "10.0.0.1:31000", Health::Healthy { weight: Some(7) });
    answer(&mut index, "10.0.0.2:31000", HEALTHY);
    assert_eq!(told(&index), "n1=7 n2=2");
    answer(&mut index, "10.0.0.2:31000", SICK);
    assert_eq!(told(&index), "n1=7 (n2)");
    for (policy, probe) in [("Cluster", "health-check-node-port"), ("Local", "healthz")] {
        let own = asked(&with(policy, probe));
        assert!(own.iter().all(|key| key.address.port() == 10_256), "{policy} {probe}");
    }
    let mut index = with("Cluster", "none");
    answer(&mut index, "10.0.0.1:10256", SICK);
    assert_eq!(told(&index), "n1=1 n2=2 n3=1");
    let settings =
        ForwardingSettings { node_probe: NodeProbe::Off, ..ForwardingSettings::default() };
    let mut index = forwarding(settings);
    index.take(nodes(|_, _| {}));
    index.take([target_node("Cluster", |_| {}), slice("s", "a", "IPv4", endpoints("n1:rs"))]);
    assert_eq!(asked(&index), []);
}

#[test]
fn nodes_out_of_sight_are_used_where_no_other_is_left_and_they_answer() {
    let unknown = |name: &str, value: &mut Value| {
        let status = if name == "n3" { "False" } else { "Unknown" };
        value["status"]["conditions"] = json!([{"type": "Ready", "status": status}]);
    };
    for policy in ["Cluster", "Local"] {
        let mut index = with(policy, nodes(unknown), "n1:s n1: n2: n3:");
        answer(&mut index, "10.0.0.2:30080", CLOSED);
        answer(&mut index, "10.0.0.3:30080", HEALTHY);
        answer(&mut index, "10.0.0.1:30080", HEALTHY);
        assert!(told(&index).starts_with("n1=2 "), "{policy}: {}", told(&index));
        assert_eq!(index.first_row("a").active, 1);
        assert!(index.problems("a").last().unwrap().contains("lost sight of"));
        index.take([slice("s", "a", "IPv4", endpoints("n3:rs n1:"))]);
        let expected = if policy == "Local" { "[n1] n3=1" } else { "n1=1 n2=1 n3=1" };
        assert_eq!(told(&index), expected, "{policy}");
    }
}
