//! Several gateways on one API server: who writes, what the others make of it, what is written.

use super::*;
use crate::Authority;
use crate::problem::reason;
use crate::writes::{Ingress, StatusWrite};
use std::collections::BTreeSet;

/// An index on an API server.
fn on_api_server(change: impl FnOnce(&mut Wishes)) -> Index {
    let mut wishes = Wishes { authority: Authority::ApiServer, ..wishes() };
    change(&mut wishes);
    Index::new(Settings::new(wishes).unwrap(), Allocations::default())
}

fn writer() -> Index {
    let mut index = on_api_server(|_| ());
    index.set_writer(true);
    index
}

/// `object` with the status that a write leaves.
pub fn written(object: &Object, write: &StatusWrite) -> Object {
    let mut object = object.clone();
    let Object::Service(service, _) = &mut object else { unreachable!() };
    let port = |one: &crate::writes::IngressPort| json!({"port": one.port, "protocol": one.protocol.name(), "error": one.error});
    let ingress = |one: &Ingress| {
        let ports: Vec<_> = one.ports.iter().map(port).collect();
        json!({"ip": one.address.to_string(), "ipMode": one.mode.name(), "ports": ports})
    };
    let conditions: Vec<_> = write
        .programmed
        .iter()
        .map(|one| {
            json!({
                "type": "headgate.dev/Programmed", "reason": one.reason, "message": one.message,
                "status": if one.status { "True" } else { "False" },
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        })
        .collect();
    let ingress: Vec<_> = write.ingress.iter().map(ingress).collect();
    let status = json!({"loadBalancer": {"ingress": ingress}, "conditions": conditions});
    service.status = Some(serde_json::from_value(status).unwrap());
    let finalizers = service.metadata.finalizers.get_or_insert_default();
    finalizers.retain(|one| one != "headgate.dev/cleanup");
    if write.finalizer {
        finalizers.push("headgate.dev/cleanup".to_owned());
    }
    object
}

fn with_status(object: &Object, address: &str) -> Object {
    let mut object = object.clone();
    let Object::Service(service, _) = &mut object else { unreachable!() };
    let status = json!({"loadBalancer": {"ingress": [{"ip": address}]}});
    service.status = Some(serde_json::from_value(status).unwrap());
    object
}

fn born(name: &str, created: &str) -> Object {
    service(name, "LoadBalancer", |value| {
        value["metadata"]["creationTimestamp"] = created.into();
        value["metadata"]["uid"] = name.into();
    })
}

/// `203.0.113.10 | True Programmed: message` of the only write.
fn write_of(built: &Built) -> String {
    let [write] = built.writes.as_slice() else { panic!("{:?}", built.writes) };
    let addresses: Vec<_> = write.ingress.iter().map(|one| one.address.to_string()).collect();
    let programmed = write.programmed.as_ref().map_or_else(
        || "nothing".to_owned(),
        |one| format!("{} {}: {}", one.status, one.reason, one.message),
    );
    format!("{} | {programmed}", addresses.join(" "))
}

#[test]
fn the_writer_allocates_and_writes_once() {
    let mut index = writer();
    let a = born("a", "2026-01-01T00:00:00Z");
    let built = index.take([a.clone()]);
    assert_eq!(
        write_of(&built),
        "203.0.113.10 | true Programmed: forwarded on 203.0.113.10; no backend serves port 80/TCP"
    );
    let write = &built.writes[0];
    assert_eq!((&*write.uid, write.ingress[0].mode.name()), ("a", "Proxy"));
    assert!(write.ingress[0].ports.is_empty() && !write.finalizer && !write.take_over);
    let reasons: Vec<_> = built.events.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(reasons, [reason::IP_ALLOCATED, reason::PROGRAMMED]);
    assert!(built.events.iter().all(|event| event.uid == "a"));
    let echo = index.take([written(&a, write)]);
    assert!(echo.writes.is_empty() && echo.events.is_empty(), "what stands is right");
    let built = index.take([slice("s", "a", "IPv4", json!([endpoint("10.0.0.1", "rs")]))]);
    assert_eq!(write_of(&built), "203.0.113.10 | true Programmed: forwarded on 203.0.113.10");
    let built = index.take([slice(
        "s",
        "a",
        "IPv4",
        json!([endpoint("10.0.0.1", "rs"), endpoint("10.0.0.2", "rs")]),
    )]);
    assert!(built.writes.is_empty(), "how many they are is no news");
}

#[test]
fn who_does_not_write_follows_what_statuses_say() {
    let mut index = on_api_server(|_| ());
    let a = born("a", "2026-01-01T00:00:00Z");
    let built = index.take([a.clone()]);
    assert!(index.held("a").is_empty() && built.writes.is_empty());
    index.take([with_status(&a, "203.0.113.12")]);
    assert_eq!(index.frontends("a", "http"), ["203.0.113.12:80 LoadBalancer"]);
    index.take([with_status(&a, "203.0.113.11")]);
    assert_eq!(index.held("a"), ["203.0.113.11"]);
    index.take([a]);
    assert!(index.held("a").is_empty(), "the writer took it back");
}

#[test]
fn a_restart_takes_addresses_from_statuses_and_writes_nothing() {
    let mut index = writer();
    let objects = ["c", "b", "a"].map(|name| born(name, "2026-01-01T00:00:00Z"));
    let mut stand = Vec::new();
    for object in objects {
        let built = index.take([object.clone()]);
        stand.push(written(&object, &built.writes[0]));
    }
    let mut again = on_api_server(|_| ());
    let built = again.take(stand.into_iter().rev());
    assert_eq!((built.writes.len(), built.events.len()), (0, 0), "{:?}", built.events);
    again.set_writer(true);
    let built = again.build();
    assert_eq!((built.writes.len(), built.events.len(), built.delta.is_empty()), (0, 0, true));
    assert_eq!(again.desired(), index.desired());
}

#[test]
fn a_restart_tells_no_problem_again_where_the_status_says_it_all() {
    let local = |name: &str| {
        let mut object = born(name, "2026-01-01T00:00:00Z");
        let Object::Service(service, _) = &mut object else { unreachable!() };
        service.spec.as_mut().unwrap().external_traffic_policy = Some("Local".to_owned());
        object
    };
    let mut index = writer();
    let built = index.take([local("a")]);
    let told: Vec<_> = built.events.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(told, [reason::IP_ALLOCATED, reason::SOURCE_NOT_KEPT, reason::PROGRAMMED]);
    let message = &built.writes[0].programmed.as_ref().unwrap().message;
    assert!(message.contains("its pods see the gateway's address"), "{message}");
    let mut again = on_api_server(|_| ());
    let built = again.take([written(&local("a"), &built.writes[0]), local("b")]);
    let told: Vec<_> = built.events.iter().map(|event| (&*event.reason, &*event.uid)).collect();
    assert_eq!(told, [(reason::SOURCE_NOT_KEPT, "b")], "b is new");
    assert_eq!(built.known_events.len(), 1, "for those who ask here");
}

#[test]
fn what_the_packet_path_could_not_take_is_said_until_it_can() {
    let mut index = writer();
    let a = born("a", "2026-01-01T00:00:00Z");
    let built = index.take([a.clone()]);
    let name = ObjectName::new("default", "a");
    assert!(index.set_lost([name.clone()].into()) && !index.set_lost([name].into()));
    let lost = index.build();
    assert!(write_of(&lost).contains("| false LimitExceeded: "), "{}", write_of(&lost));
    // Both of our words come back, one after the other.
    assert!(index.take([written(&a, &built.writes[0])]).writes.is_empty());
    assert!(index.take([written(&a, &lost.writes[0])]).writes.is_empty());
    assert!(index.set_lost(BTreeSet::new()));
    assert!(write_of(&index.build()).contains("| true Programmed: "));
}

#[test]
fn a_service_made_anew_is_told_what_its_predecessor_was_told() {
    let mut index = writer();
    let asks = |uid: &str| {
        service("a", "LoadBalancer", |value| {
            value["metadata"]["uid"] = uid.into();
            value["spec"]["loadBalancerIP"] = "192.0.2.77".into();
        })
    };
    for uid in ["1", "2"] {
        let built = index.take([asks(uid)]);
        let told: Vec<_> = built.events.iter().map(|event| (&*event.reason, &*event.uid)).collect();
        assert_eq!(told, [(reason::ALLOCATION_FAILED, uid)]);
    }
}

/// An API server has said which families there are.
#[test]
fn a_cluster_of_one_family_gives_no_address_of_the_other() {
    let prefers = |families: Value| {
        service("a", "LoadBalancer", |value| {
            value["spec"]["ipFamilyPolicy"] = "PreferDualStack".into();
            value["spec"]["ipFamilies"] = families;
        })
    };
    let mut index = writer();
    index.take([prefers(json!(["IPv4"]))]);
    assert_eq!(index.held("a"), ["203.0.113.10"]);
    index.take([prefers(json!(["IPv4", "IPv6"]))]);
    assert_eq!(index.held("a"), ["203.0.113.10", "2001:db8::10"]);
}

#[test]
fn an_address_found_twice_stays_with_the_older() {
    let old = with_status(&born("z", "2026-01-01T00:00:00Z"), "203.0.113.10");
    let young = with_status(&born("a", "2026-01-02T00:00:00Z"), "203.0.113.10");
    for order in [[old.clone(), young.clone()], [young.clone(), old.clone()]] {
        let mut index = on_api_server(|_| ());
        for object in order {
            index.take([object]);
        }
        assert_eq!((index.held("z"), index.held("a")), (vec!["203.0.113.10".into()], vec![]));
        let what = "its status names 203.0.113.10, yet it belongs to default/z, the older Service";
        assert_eq!(index.problems("a"), [what]);
        index.set_writer(true);
        let built = index.build();
        assert_eq!(index.held("a"), ["203.0.113.11"]);
        let what = "AddressRefused Service default/a a.yaml:1: its status named 203.0.113.10, yet \
                    it belongs to default/z, the older Service";
        assert!(events(&built).contains(&what.to_owned()), "{:?}", events(&built));
        assert_eq!(built.writes.len(), 2);
    }
}

#[test]
fn a_status_that_another_puts_there_is_written_over_once_for_each_time() {
    let mut index = writer();
    let a = service("a", "LoadBalancer", |value| {
        value["spec"]["loadBalancerClass"] = "headgate.dev/gateway".into();
    });
    let built = index.take([a.clone()]);
    index.take([written(&a, &built.writes[0])]);
    let theirs = with_status(&a, "192.0.2.99");
    assert_eq!(index.take([theirs.clone()]).writes.len(), 1);
    let mut relabelled = theirs;
    if let Object::Service(service, _) = &mut relabelled {
        let annotations = service.metadata.annotations.get_or_insert_default();
        annotations.insert("headgate.dev/probe".to_owned(), "tcp".to_owned());
    }
    assert!(index.take([relabelled]).writes.is_empty(), "a conflict is not fought over");
    // Without a class it is theirs: nothing of ours stands there, so there is nothing to withdraw.
    let mut index = writer();
    let b = balanced("b");
    let built = index.take([b.clone()]);
    let ours = written(&b, &built.writes[0]);
    index.take([ours]);
    let built = index.take([with_status(&b, "192.0.2.99")]);
    assert!(built.writes.is_empty() && index.held("b").is_empty());
    let mut mine = with_status(&b, "192.0.2.99");
    if let Object::Service(service, _) = &mut mine {
        let annotations = service.metadata.annotations.get_or_insert_default();
        annotations.insert("headgate.dev/take-over".to_owned(), "true".to_owned());
    }
    let built = index.take([mine]);
    assert!(built.writes[0].take_over && !built.writes[0].ingress.is_empty());
}

#[test]
fn what_was_written_is_withdrawn_when_the_service_is_no_longer_ours() {
    let mut index = on_api_server(|wishes| wishes.finalizer = true);
    index.set_writer(true);
    let a = balanced("a");
    let built = index.take([a.clone()]);
    assert!(built.writes[0].finalizer);
    let ours = written(&a, &built.writes[0]);
    index.take([ours.clone()]);
    let mut leaving = ours.clone();
    if let Object::Service(service, _) = &mut leaving {
        service.metadata.deletion_timestamp =
            serde_json::from_value(json!("2026-01-02T00:00:00Z")).ok();
    }
    let built = index.take([leaving]);
    assert_eq!((write_of(&built).as_str(), built.writes[0].finalizer), (" | nothing", false));
    assert_eq!(built.delta.removed.len(), 1);

    // The API server wipes the addresses with the type; the condition is ours to take away.
    index.take([ours.clone()]);
    let mut inside = written(&service("a", "ClusterIP", |_| {}), &built.writes[0]);
    if let (Object::Service(new, _), Object::Service(old, _)) = (&mut inside, &ours) {
        let status = new.status.get_or_insert_default();
        status.conditions = old.status.as_ref().and_then(|status| status.conditions.clone());
    }
    assert_eq!(write_of(&index.take([inside])), " | nothing");
    assert!(index.take([service("a", "ClusterIP", |_| {})]).writes.is_empty());
    assert!(index.take([service("b", "ClusterIP", |_| {})]).writes.is_empty(), "never ours");
}

#[test]
fn conditions_say_why_not() {
    let mut index = writer();
    let refused = service("a", "LoadBalancer", |value| {
        value["spec"]["loadBalancerIP"] = "203.0.113.77".into();
    });
    let why = "203.0.113.77 is asked for, yet no pool has it";
    assert_eq!(write_of(&index.take([refused])), format!(" | false AddressPending: {why}"));
    let sctp = service("b", "LoadBalancer", |value| {
        value["spec"]["ports"] = json!([
            {"name": "http", "port": 80}, {"name": "s", "port": 81, "protocol": "SCTP"},
        ]);
    });
    let built = index.take([sctp]);
    let why = "port 81/SCTP is not forwarded: SCTP is not available yet; there are TCP and UDP";
    assert_eq!(write_of(&built), format!("203.0.113.10 | false NotForwarded: {why}"));
    let ports = &built.writes[0].ingress[0].ports;
    let errors: Vec<_> = ports.iter().map(|port| (port.port, port.error)).collect();
    assert_eq!(errors, [(80, None), (81, Some("headgate.dev/NotForwarded"))], "all or none");
    let node_port = |name: &str| {
        service(name, "NodePort", |value| value["spec"]["ports"][0]["nodePort"] = 30_080.into())
    };
    let built = index.take([node_port("c")]);
    let what = "forwarded on the gateway's NodePorts; no backend serves port 80/TCP";
    assert_eq!(write_of(&built), format!(" | true Programmed: {what}"));
    let built = index.take([node_port("d")]);
    let why = "port 80/TCP is not forwarded: its frontends belong to other Services";
    assert_eq!(write_of(&built), format!(" | false NotForwarded: {why}"));
}

#[test]
fn a_writer_that_lost_the_lease_goes_on_with_what_it_has() {
    let mut index = writer();
    let a = born("a", "2026-01-01T00:00:00Z");
    index.take([a.clone()]);
    index.set_writer(false);
    assert_eq!(index.build(), Built::default());
    assert_eq!(index.held("a"), ["203.0.113.10"]);
    // Another gave its address to b meanwhile, and a another one.
    let b = with_status(&born("b", "2026-01-02T00:00:00Z"), "203.0.113.10");
    index.take([b]);
    assert_eq!((index.held("a"), index.held("b")), (vec![], vec!["203.0.113.10".into()]));
    index.take([with_status(&a, "203.0.113.12")]);
    assert_eq!(index.held("a"), ["203.0.113.12"]);
}

#[test]
fn what_was_never_written_ends_when_another_writes() {
    let mut index = writer();
    let a = born("a", "2026-01-01T00:00:00Z");
    let built = index.take([a.clone(), born("b", "2026-01-02T00:00:00Z")]);
    index.take([written(&a, &built.writes[0])]);
    index.set_writer(false);
    index.build();
    assert_eq!((index.held("a").len(), index.held("b").len()), (1, 1));
    index.follow_another();
    index.build();
    assert_eq!((index.held("a"), index.held("b")), (vec!["203.0.113.10".into()], vec![]));
}

#[test]
fn an_address_of_ours_is_known_again_though_its_pool_is_gone() {
    let mut index = writer();
    let built = index.take([balanced("a")]);
    let ours = written(&balanced("a"), &built.writes[0]);
    let mut wishes = Wishes { authority: Authority::ApiServer, ..wishes() };
    wishes.pools = vec![pool("new", true, &["203.0.113.50"])];
    let settings = Settings::new(wishes).unwrap();
    let mut again = Index::new(settings, index.allocations().clone());
    again.set_writer(true);
    let built = again.take([ours]);
    assert_eq!(again.held("a"), ["203.0.113.10"]);
    assert!(built.writes.is_empty());
}
