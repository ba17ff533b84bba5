//! Whatever happens in whatever order: the end is what the last objects say.

use super::gateways::given_once;
use super::*;
use model::desired::DesiredState;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// One step of a history.
#[derive(Clone)]
enum Step {
    Apply(Object),
    Delete(ObjectKey),
    Build,
}

/// What a failure shows: the parts of the objects that are there.
impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let json = match self {
            Self::Apply(Object::Service(object, _)) => serde_json::to_string(object),
            Self::Apply(Object::EndpointSlice(object, _)) => serde_json::to_string(object),
            Self::Apply(Object::Node(object, _)) => serde_json::to_string(object),
            Self::Apply(Object::Namespace(object, _)) => serde_json::to_string(object),
            Self::Apply(Object::ServiceCidr(object, _)) => serde_json::to_string(object),
            Self::Delete(key) => return write!(f, "delete {key}"),
            Self::Build => return f.write_str("build"),
        };
        write!(f, "apply {}", json.unwrap_or_default())
    }
}

fn any_service() -> impl Strategy<Value = Object> {
    let name = prop::sample::select(vec!["a", "b", "c", "d", "e", "f"]);
    let kind = prop::sample::select(vec!["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]);
    let created = prop::option::of(prop::sample::select(vec![
        "2026-01-01T00:00:00Z",
        "2026-01-02T00:00:00Z",
    ]));
    let uid = prop::option::of(prop::sample::select(vec!["1", "2"]));
    let request = prop::option::of(prop::sample::select(vec![
        "203.0.113.10",
        "203.0.113.11",
        "203.0.113.77",
        "192.0.2.1",
        "2001:db8::11",
        "x",
    ]));
    let pool = prop::option::weighted(0.2, prop::sample::select(vec!["other", "none"]));
    let families = prop::sample::select(vec![
        json!(null),
        json!(["IPv4"]),
        json!(["IPv6"]),
        json!(["IPv4", "IPv6"]),
    ]);
    let policy = prop::option::of(prop::sample::select(vec![
        "SingleStack",
        "PreferDualStack",
        "RequireDualStack",
    ]));
    let external = prop::option::of(prop::sample::select(vec![
        "203.0.113.10",
        "203.0.113.12",
        "198.51.100.7",
        "198.51.100.8",
        "10.0.0.9",
        "8.8.8.8",
    ]));
    let node_port = prop::option::of(prop::sample::select(vec![30_000, 30_001, 30_002, 80]));
    let port = prop::sample::select(vec![80, 81, 0]);
    let protocol = prop::sample::select(vec!["TCP", "UDP", "SCTP"]);
    let cluster_ip = prop::option::weighted(
        0.4,
        prop::sample::select(vec!["10.96.0.1", "10.96.0.2", "198.51.100.7", "10.0.0.8"]),
    );
    (
        (name, kind, created, uid),
        (request, pool, families, policy, any::<bool>()),
        (external, node_port, port, protocol),
        (any::<bool>(), any::<bool>(), cluster_ip),
    )
        .prop_map(
            |((name, kind, created, uid), (request, pool, families, policy, shares), rest, how)| {
                let (external, node_port, port, protocol) = rest;
                let (nodes, local, cluster_ip) = how;
                service(name, kind, |value| {
                    let metadata = &mut value["metadata"];
                    metadata["creationTimestamp"] = created.into();
                    metadata["uid"] = uid.into();
                    let mut annotations = serde_json::Map::new();
                    if let Some(pool) = pool {
                        annotations.insert("headgate.dev/pool".to_owned(), pool.into());
                    }
                    if shares {
                        annotations.insert("headgate.dev/share-key".to_owned(), "k".into());
                    }
                    if nodes {
                        annotations.insert("headgate.dev/target".to_owned(), "node".into());
                    }
                    if cluster_ip.is_some() {
                        annotations.insert("headgate.dev/cluster-ip".to_owned(), "true".into());
                    }
                    metadata["annotations"] = annotations.into();
                    let spec = &mut value["spec"];
                    if local {
                        spec["externalTrafficPolicy"] = "Local".into();
                        spec["internalTrafficPolicy"] = "Local".into();
                    }
                    spec["clusterIP"] = cluster_ip.into();
                    spec["loadBalancerIP"] = request.into();
                    spec["ipFamilies"] = families;
                    spec["ipFamilyPolicy"] = policy.into();
                    if let Some(external) = external {
                        spec["externalIPs"] = json!([external]);
                    }
                    spec["ports"] = json!([
                        {"name": "http", "port": port, "protocol": protocol, "nodePort": node_port},
                        {"name": "more", "port": 443},
                    ]);
                })
            },
        )
}

fn any_slice() -> impl Strategy<Value = Object> {
    let addresses = prop::sample::select(vec![
        "10.1.0.1",
        "10.1.0.2",
        "198.51.100.7",
        "203.0.113.10",
        "127.0.0.1",
        "fd00::1",
        "odd",
    ]);
    let conditions = prop::sample::select(vec!["rs", "st", "s", "t", ""]);
    let node = prop::sample::select(vec!["n1", "n2"]);
    let one = (addresses, conditions, node).prop_map(|(address, conditions, node)| {
        let mut value = endpoint(address, conditions);
        value["nodeName"] = node.into();
        value
    });
    let name = prop::sample::select(vec!["s1", "s2", "s3", "s4"]);
    let service = prop::sample::select(vec!["a", "b", "c", "gone"]);
    let family = prop::sample::select(vec!["IPv4", "IPv6", "FQDN"]);
    (name, service, family, prop::collection::vec(one, 0..5))
        .prop_map(|(name, service, family, all)| slice(name, service, family, all.into()))
}

fn any_node() -> impl Strategy<Value = Object> {
    let name = prop::sample::select(vec!["n1", "n2"]);
    let addresses = prop::sample::subsequence(
        vec!["10.0.0.9", "203.0.113.11", "10.0.0.8", "fd00::9", "odd"],
        0..4,
    );
    (name, addresses, any::<bool>(), any::<bool>()).prop_map(|(name, addresses, out, unknown)| {
        let mut object = node(name, &addresses);
        if let Object::Node(node, _) = &mut object {
            let excluded = "node.kubernetes.io/exclude-from-external-load-balancers";
            let labels = out.then(|| [(excluded.to_owned(), String::new())].into());
            node.metadata.labels = labels;
            let condition = k8s_openapi::api::core::v1::NodeCondition {
                type_: "Ready".to_owned(),
                status: if unknown { "Unknown" } else { "False" }.to_owned(),
                ..Default::default()
            };
            node.status.as_mut().unwrap().conditions = Some(vec![condition]);
        }
        object
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    let object = prop_oneof![4 => any_service(), 2 => any_slice(), 1 => any_node()];
    let apply = object.clone().prop_map(Step::Apply);
    let delete = object.prop_map(|object| Step::Delete(object.key()));
    prop_oneof![6 => apply, 2 => delete, 2 => Just(Step::Build)]
}

fn small() -> Settings {
    let mut wishes = wishes();
    wishes.node_port.first = 30_000;
    wishes.node_port.last = 30_002;
    Settings::new(wishes).unwrap()
}

/// No two service ports have one frontend.
fn frontends_have_one_owner(state: &DesiredState) -> Result<(), TestCaseError> {
    let mut seen = BTreeSet::new();
    for port in state.service_ports.values() {
        for frontend in &port.frontends {
            let fresh = seen.insert((frontend.address, port.key.protocol));
            prop_assert!(fresh, "{} twice", frontend.address);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn histories_end_where_the_last_objects_lead(steps in prop::collection::vec(any_step(), 0..60)) {
        let mut index = Index::new(small(), Allocations::default());
        let mut last: BTreeMap<ObjectKey, Object> = BTreeMap::new();
        let mut summed = DesiredState::default();
        let mut statuses: BTreeMap<ObjectName, ServiceStatus> = BTreeMap::new();
        for step in steps.into_iter().chain([Step::Build]) {
            match step {
                Step::Apply(object) => {
                    last.insert(object.key(), object.clone());
                    index.apply(object);
                    continue;
                }
                Step::Delete(key) => {
                    last.remove(&key);
                    index.delete(&key);
                    continue;
                }
                Step::Build => {}
            }
            let before = index.allocations().clone();
            let built = index.build();
            summed.apply(&built.delta);
            for name in &built.removed {
                statuses.remove(name);
            }
            for status in built.statuses {
                statuses.insert(status.name.clone(), status);
            }
            prop_assert!(built.allocations_changed || before == *index.allocations());
            prop_assert_eq!(&summed, index.desired(), "deltas add up to the state");
            frontends_have_one_owner(&summed)?;
            given_once(&index)?;
        }
        let told: Vec<_> = index.statuses().cloned().collect();
        prop_assert_eq!(statuses.into_values().collect::<Vec<_>>(), told.clone());
        prop_assert_eq!(index.build(), Built::default(), "nothing is left to do");

        let mut fresh = Index::new(small(), index.allocations().clone());
        let built = fresh.take(last.into_values());
        prop_assert_eq!(fresh.desired(), index.desired());
        prop_assert_eq!(fresh.statuses().cloned().collect::<Vec<_>>(), told);
        prop_assert_eq!(fresh.allocations(), index.allocations());
        prop_assert_eq!(fresh.counts(), index.counts());
        prop_assert_eq!(asked(&fresh), asked(&index));
        prop_assert_eq!(asked(&fresh).len(), built.probes.started.len());
        prop_assert_eq!(built.delta.changed.len(), index.desired().service_ports.len());
    }

    #[test]
    fn the_order_within_a_build_does_not_matter(
        objects in prop::collection::vec(any_service(), 0..8).prop_map(|all| {
            all.into_iter().map(|one| (one.key(), one)).collect::<BTreeMap<_, _>>()
        }),
        seed in any::<prop::sample::Index>(),
    ) {
        let objects: Vec<_> = objects.into_values().collect();
        let mut turned = objects.clone();
        if !turned.is_empty() {
            let by = seed.index(turned.len());
            turned.rotate_left(by);
        }
        let (mut one, mut other) =
            (Index::new(small(), Allocations::default()), Index::new(small(), Allocations::default()));
        one.take(objects);
        other.take(turned);
        prop_assert_eq!(one.desired(), other.desired());
        prop_assert_eq!(one.allocations(), other.allocations());
    }
}
