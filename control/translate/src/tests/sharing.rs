//! Several Services with one address.

use super::*;

const ADDRESS: &str = "203.0.113.10";

fn sharing(name: &str, key: &str, port: u16) -> Object {
    sharing_as(name, key, port, "TCP")
}

fn sharing_as(name: &str, key: &str, port: u16, protocol: &str) -> Object {
    service(name, "LoadBalancer", |value| {
        let annotations = &mut value["metadata"]["annotations"];
        annotations["headgate.dev/addresses"] = ADDRESS.into();
        annotations["headgate.dev/share-key"] = key.into();
        value["spec"]["ports"] = json!([{"name": "http", "port": port, "protocol": protocol}]);
    })
}

#[test]
fn one_key_and_different_ports_share_an_address() {
    let mut index = index();
    index.take([sharing("a", "k", 80), sharing("b", "k", 443), sharing_as("c", "k", 80, "UDP")]);
    for name in ["a", "b", "c"] {
        assert_eq!(index.held(name), [ADDRESS]);
        assert!(index.problems(name).is_empty());
    }
    assert_eq!(index.frontends("b", "http"), ["203.0.113.10:443 LoadBalancer"]);
    assert_eq!(index.pools()[0].ipv4.used, 1, "counted once");
    index.drop_service("a");
    index.drop_service("b");
    index.take([balanced("other")]);
    assert_eq!(index.held("other"), ["203.0.113.11"], "still in use");
    index.drop_service("c");
    index.take([balanced("late")]);
    assert_eq!(index.held("late"), [ADDRESS], "the last one has left");
}

#[test]
fn ports_that_collide_name_the_other() {
    let mut index = index();
    index.take([sharing("a", "k", 80), sharing("b", "k", 80), sharing("c", "k", 443)]);
    assert_eq!((index.held("a"), index.held("c")), (vec![ADDRESS.into()], vec![ADDRESS.into()]));
    assert_eq!(
        index.problems("b"),
        ["203.0.113.10 is asked for, yet default/a, which shares it by \"k\", has port 80/TCP \
             as well"]
    );
    index.take([sharing("a", "k", 8080)]);
    assert_eq!(index.held("b"), [ADDRESS], "the other's port has gone");
    assert!(index.problems("b").is_empty());
    // Ports that come to collide later: the older keeps the frontend, the address is still shared.
    index.take([sharing("b", "k", 443)]);
    assert_eq!(index.problems("c"), ["LoadBalancer 203.0.113.10:443/TCP belongs to default/b"]);
    index.take([sharing("a", "k", 443)]);
    assert_eq!(index.frontends("a", "http"), ["203.0.113.10:443 LoadBalancer"]);
}

#[test]
fn other_keys_or_none_do_not_share() {
    for (one, other) in [("k", "l"), ("k", ""), ("", "k")] {
        let mut index = index();
        index.take([sharing("a", one, 80)]);
        index.take([sharing("b", other, 443)]);
        assert_eq!(
            index.problems("b"),
            ["203.0.113.10 is asked for, yet it belongs to default/a, and the annotation \
                 headgate.dev/share-key of both is not the same"]
        );
    }
    let mut index = index();
    index.take([sharing("a", "", 80), sharing("b", "", 443)]);
    assert_eq!(
        index.problems("b"),
        ["203.0.113.10 is asked for, yet it belongs to default/a"],
        "no key is no common key"
    );
}

#[test]
fn who_ceases_to_share_leaves_the_address_to_the_first_in_rank() {
    let mut index = index();
    index.take([sharing("a", "k", 80), sharing("b", "k", 443)]);
    let built = index.take([sharing("b", "l", 443)]);
    assert_eq!((index.held("a"), index.held("b")), (vec![ADDRESS.into()], Vec::new()));
    assert!(events(&built).contains(
        &"AddressRefused Service default/b b.yaml:1: 203.0.113.10 is no longer its LoadBalancer \
          address: it belongs to default/a"
            .to_owned()
    ));
    index.take([sharing("b", "k", 443)]);
    index.take([sharing("a", "l", 80)]);
    assert_eq!((index.held("a"), index.held("b")), (vec![ADDRESS.into()], Vec::new()));
    index.take([sharing("b", "l", 443)]);
    assert_eq!(index.held("b"), [ADDRESS]);
}

#[test]
fn a_shared_address_survives_a_restart() {
    let mut index = index();
    index.take([sharing("a", "k", 80), sharing("b", "k", 443), balanced("c")]);
    let text = serde_json::to_string(index.allocations()).unwrap();
    let stored: Allocations = serde_json::from_str(&text).unwrap();
    let mut again =
        Index::resume(Settings::new(wishes()).unwrap(), stored, index.desired().clone());
    let built = again.take([balanced("c"), sharing("b", "k", 443), sharing("a", "k", 80)]);
    assert!(built.delta.is_empty() && !built.allocations_changed);
}
