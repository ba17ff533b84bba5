//! Which pool a Service gets from, and what is in a pool's way.

use super::*;
use crate::pools::Scheme;
use model::answers::PoolCount;

fn with(pools: Vec<Pool>) -> Index {
    Index::new(Settings::new(Wishes { pools, ..wishes() }).unwrap(), Allocations::default())
}

/// A pool of one IPv4 address, `203.0.113.N`.
fn one(name: &str, last: u8) -> Pool {
    pool(name, true, &[&format!("203.0.113.{last}")])
}

fn labelled(name: &str, label: &str, value: &str) -> Object {
    service(name, "LoadBalancer", |object| object["metadata"]["labels"][label] = value.into())
}

fn namespace(name: &str, labels: Value) -> Object {
    let value = json!({"metadata": {"name": name, "labels": labels}});
    Object::Namespace(Box::new(serde_json::from_value(value).unwrap()), Place::default())
}

fn service_cidr(name: &str, cidrs: &[&str]) -> Object {
    let value = json!({"metadata": {"name": name, "uid": "u"}, "spec": {"cidrs": cidrs}});
    Object::ServiceCidr(Box::new(serde_json::from_value(value).unwrap()), Place::default())
}

#[test]
fn the_first_pool_that_is_for_it_and_has_room_serves() {
    let mut index = with(vec![
        Pool { priority: 20, ..one("late", 30) },
        Pool { priority: 10, ..one("first", 10) },
        Pool { priority: 10, ..one("second", 20) },
        Pool { auto_assign: false, priority: 0, ..one("named", 40) },
    ]);
    index.take(["a", "b", "c", "d"].map(balanced));
    let held: Vec<_> = ["a", "b", "c"].iter().flat_map(|name| index.held(name)).collect();
    assert_eq!(held, ["203.0.113.10", "203.0.113.20", "203.0.113.30"]);
    assert_eq!(index.problems("d"), ["pools first, second, late have no free IPv4 address"]);
    index.drop_service("b");
    assert_eq!(index.held("d"), ["203.0.113.20"], "whichever of them has room again");
    assert_eq!(
        index.pools().iter().map(|pool| pool.ipv4).collect::<Vec<_>>(),
        [
            PoolCount { total: 1, used: 1, free: 0 },
            PoolCount { total: 1, used: 1, free: 0 },
            PoolCount { total: 1, used: 1, free: 0 },
            PoolCount { total: 1, used: 0, free: 1 },
        ]
    );
}

#[test]
fn selectors_and_namespaces_choose() {
    let mut index = with(vec![
        Pool { service_selector: "tier=gold".parse().ok(), priority: 1, ..one("gold", 10) },
        Pool { namespaces: vec!["shop".into()], ..one("shop", 20) },
        Pool { namespace_selector: "team in (red,blue)".parse().ok(), ..one("teams", 30) },
    ]);
    assert!(index.settings().needs_namespaces());
    index.take([balanced("plain")]);
    assert_eq!(
        index.problems("plain"),
        ["no pool is for it: pool gold is for Services with the labels \"tier=gold\" alone; \
             pool shop is not for Services of namespace default; pool teams is not for Services of \
             namespace default"]
    );
    index.take([labelled("gold", "tier", "gold")]);
    assert_eq!(index.held("gold"), ["203.0.113.10"]);
    index.take([namespace("default", json!({"team": "green"}))]);
    assert!(index.held("plain").is_empty());
    index.take([namespace("default", json!({"team": "red"}))]);
    assert_eq!(index.held("plain"), ["203.0.113.30"]);
    index.delete(&key(Kind::Namespace, "default"));
    assert_eq!(index.build(), Built::default(), "what is given stays");
    let asking = service("asks", "LoadBalancer", |value| {
        value["metadata"]["annotations"]["headgate.dev/addresses"] = "203.0.113.20".into();
    });
    index.take([asking]);
    assert_eq!(
        index.problems("asks"),
        ["203.0.113.20 is asked for, yet it is in a pool that is not for Services of namespace \
             default"]
    );
}

#[test]
fn addresses_that_old_equipment_mistakes_are_not_given() {
    let all = pool("p", true, &["203.0.113.255-203.0.114.1"]);
    let mut index = with(vec![Pool { avoid_buggy_addresses: true, ..all }]);
    let asking = service("b", "LoadBalancer", |value| {
        value["metadata"]["annotations"]["headgate.dev/addresses"] = "203.0.114.0".into();
    });
    index.take([balanced("a"), asking]);
    assert_eq!(index.held("a"), ["203.0.114.1"]);
    assert_eq!(
        index.problems("b"),
        ["203.0.114.0 is asked for, yet pool p keeps addresses that end in .0 or .255 back"]
    );
    assert_eq!(index.pools()[0].ipv4, PoolCount { total: 1, used: 1, free: 0 });
}

#[test]
fn pools_in_the_way_of_the_cluster_are_refused_and_keep_what_they_gave() {
    let mut pod_cidr = node("n1", &["192.0.2.77"]);
    if let Object::Node(node, _) = &mut pod_cidr {
        node.spec.get_or_insert_default().pod_cidrs = Some(vec!["203.0.113.0/28".to_owned()]);
    }
    for (object, what) in [
        (node("n1", &["203.0.113.12"]), "203.0.113.12, an address of Node n1"),
        (pod_cidr, "203.0.113.0/28, the pod CIDR of Node n1"),
        (
            service_cidr("kubernetes", &["192.0.2.128/25", "203.0.113.0/24"]),
            "203.0.113.0/24, the range of ServiceCIDR kubernetes",
        ),
    ] {
        let mut index = index();
        index.take([balanced("a")]);
        let key = object.key();
        let built = index.take([object.clone(), balanced("b")]);
        let why = format!(
            "pool \"demo\" has addresses of {what}: take them out of 203.0.113.10-203.0.113.12"
        );
        assert_eq!(index.held("a"), ["203.0.113.10"], "{what}");
        assert_eq!(index.problems("b"), [why.as_str()]);
        let events = events(&built);
        let text = format!("AddressRefused {key} : nothing is given out of it: {why}");
        assert!(events.contains(&text), "{events:?}");
        let row = index.pools().swap_remove(0);
        assert_eq!((row.ipv4.free, row.refused.as_ref()), (0, Some(&why)));
        assert_eq!(index.take([object]), Built::default());
        index.delete(&key);
        index.build();
        assert_eq!(index.held("b"), ["203.0.113.11"], "as soon as it is out of the way");
        assert_eq!(index.pools()[0].refused, None);
    }
}

#[test]
fn another_pool_serves_while_one_is_refused() {
    let mut index = with(vec![one("first", 10), one("second", 20)]);
    index.take([service_cidr("x", &["203.0.113.8/29"]), balanced("a")]);
    assert_eq!(index.held("a"), ["203.0.113.20"]);
    assert!(index.problems("a").is_empty());
}

#[test]
fn rows_say_what_a_pool_is_for() {
    let index = with(vec![Pool {
        namespaces: vec!["shop".into()],
        namespace_selector: "team=red".parse().ok(),
        service_selector: "!hidden".parse().ok(),
        scheme: Some(Scheme::Internal),
        ..pool("p", false, &["203.0.113.1-203.0.113.9", "2001:db8::/64"])
    }]);
    let row = index.pools().swap_remove(0);
    let (ipv6, scheme) = (row.ipv6.total, row.scheme.as_deref());
    assert_eq!((ipv6, scheme, row.auto_assign), (u64::MAX, Some("internal"), false));
    assert_eq!(row.ranges[0], "203.0.113.1-203.0.113.9");
    let chosen = (row.namespace_selector.as_deref(), row.service_selector.as_deref());
    assert_eq!(chosen, (Some("team=red"), Some("!hidden")));
}
