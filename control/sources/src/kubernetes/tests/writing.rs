//! What is written, to the letter.

use super::fake::Fault;
use super::rules::Rules;
use super::*;
use crate::kubernetes::{LeaseOptions, WriterHealth};
use model::answers::{Event, Severity};
use model::desired::ObjectName;
use model::ids::Protocol;
use std::collections::BTreeSet;
use translate::writes::{Ingress, IngressPort, IpMode, Programmed, StatusWrite};

pub(super) fn options() -> Options {
    let mut options = Options::new("gateway-1");
    options.write = true;
    options
}

pub(super) fn web() -> Name {
    ("services".into(), "default".into(), "web".into())
}

pub(super) fn write(uid: &str, good: bool) -> StatusWrite {
    let ingress = |address: &str, mode| Ingress {
        address: address.parse().unwrap(),
        mode,
        ports: Vec::new(),
    };
    StatusWrite {
        service: ObjectName::new("default", "web"),
        uid: uid.into(),
        ingress: vec![ingress("203.0.113.7", IpMode::Proxy), ingress("2001:db8:0::7", IpMode::Vip)],
        programmed: Some(Programmed {
            status: good,
            reason: if good { "Programmed" } else { "NoBackends" },
            message: "on every worker".to_owned(),
        }),
        finalizer: false,
        take_over: false,
    }
}

pub(super) fn withdrawn(uid: &str) -> StatusWrite {
    StatusWrite { ingress: Vec::new(), programmed: None, ..write(uid, true) }
}

pub(super) fn event(reason: &str, message: &str) -> Event {
    Event {
        time_s: 1_790_000_000,
        severity: Severity::Warning,
        reason: reason.to_owned(),
        kind: "Service".to_owned(),
        object: ObjectName::new("default", "web"),
        uid: String::new(),
        place: String::new(),
        message: message.to_owned(),
    }
}

/// A source with one Service, and its UID.
pub(super) async fn ready(fake: &Fake, options: Options) -> (Rig, String) {
    fake.with(|cluster| cluster.apply("services", service("web")));
    let mut rig = Rig::new(fake, options);
    pass(500).await;
    rig.take();
    let uid = fake.with(|cluster| cluster.objects[&web()]["metadata"]["uid"].clone());
    (rig, uid.as_str().unwrap().to_owned())
}

/// Bodies of the requests of this verb and resource.
pub(super) fn bodies(fake: &Fake, verb: &str, resource: &str) -> Vec<Value> {
    fake.with(|cluster| {
        let asked = cluster.asked.iter();
        let asked = asked.filter(|one| one.verb == verb && one.resource == resource);
        asked.map(|one| one.body.clone()).collect()
    })
}

pub(super) fn patches(fake: &Fake) -> Vec<Value> {
    bodies(fake, "patch", "services/status")
}

#[test]
fn a_status_is_applied_once_with_its_uid_and_nothing_else() {
    timeless(async {
        let fake = Fake::default();
        let (rig, uid) = ready(&fake, options()).await;
        for _ in 0..3 {
            rig.source.writer().status(write(&uid, true));
            pass(200).await;
        }
        let patches = patches(&fake);
        assert_eq!(patches.len(), 1, "what stands there isn't written again");
        let time = patches[0]["status"]["conditions"][0]["lastTransitionTime"].clone();
        assert!(time.as_str().unwrap().ends_with('Z') && time.as_str().unwrap().len() == 20);
        assert_eq!(
            patches[0],
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": { "name": "web", "namespace": "default", "uid": uid },
                "status": {
                    "loadBalancer": { "ingress": [
                        { "ip": "203.0.113.7", "ipMode": "Proxy" },
                        { "ip": "2001:db8::7", "ipMode": "VIP" },
                    ] },
                    "conditions": [{ "type": "headgate.dev/Programmed", "status": "True",
                        "reason": "Programmed", "message": "on every worker",
                        "lastTransitionTime": time }],
                },
            })
        );
        assert_eq!(rig.source.writer().health().statuses, 1);
        assert_eq!(rig.source.writer().health().waiting, 0);
    });
}

#[test]
fn the_transition_time_stays_while_the_status_does() {
    timeless(async {
        let fake = Fake::default();
        let mut old = service("web");
        old["metadata"]["managedFields"] =
            json!([{ "manager": "headgate", "operation": "Apply", "subresource": "status" }]);
        old["status"] = json!({ "conditions": [{ "type": "headgate.dev/Programmed",
            "status": "True", "reason": "Old", "message": "old",
            "lastTransitionTime": "2020-01-01T00:00:00Z" }] });
        fake.with(|cluster| cluster.apply("services", old));
        let mut rig = Rig::new(&fake, options());
        pass(500).await;
        rig.take();
        let uid = fake.with(|cluster| cluster.objects[&web()]["metadata"]["uid"].clone());
        let uid = uid.as_str().unwrap();
        rig.source.writer().status(write(uid, true));
        pass(500).await;
        rig.source.writer().status(write(uid, false));
        pass(500).await;
        let patches = patches(&fake);
        let time = |number: usize| {
            patches[number]["status"]["conditions"][0]["lastTransitionTime"].clone()
        };
        assert_eq!(time(0), "2020-01-01T00:00:00Z");
        assert_ne!(time(1), "2020-01-01T00:00:00Z");
    });
}

#[test]
fn what_was_written_is_withdrawn_and_what_was_not_is_left_alone() {
    timeless(async {
        let fake = Fake::default();
        let (rig, uid) = ready(&fake, options()).await;
        rig.source.writer().status(withdrawn(&uid));
        pass(500).await;
        assert_eq!(patches(&fake), Vec::<Value>::new());
        rig.source.writer().status(write(&uid, true));
        pass(500).await;
        rig.source.writer().status(withdrawn(&uid));
        pass(500).await;
        assert_eq!(patches(&fake)[1]["status"], json!({}));
        let status = fake.with(|cluster| cluster.objects[&web()]["status"].clone());
        assert_eq!(status, json!({ "loadBalancer": {}, "conditions": [] }));
    });
}

#[test]
fn the_finalizer_comes_and_goes_with_the_status() {
    timeless(async {
        let fake = Fake::default();
        let (rig, uid) = ready(&fake, options()).await;
        rig.source.writer().status(StatusWrite { finalizer: true, ..write(&uid, true) });
        pass(500).await;
        rig.source.writer().status(withdrawn(&uid));
        pass(500).await;
        let patches = patches(&fake);
        assert_eq!(patches.len(), 2);
        assert_eq!(patches[0]["metadata"]["finalizers"], json!(["headgate.dev/cleanup"]));
        assert_eq!(patches[1]["metadata"]["finalizers"], Value::Null);
    });
}

#[test]
fn ports_that_are_not_served_stand_beside_the_address() {
    timeless(async {
        let fake = Fake::default();
        let (rig, uid) = ready(&fake, options()).await;
        let mut partly = write(&uid, false);
        let port = |port, error| IngressPort { port, protocol: Protocol::Tcp, error };
        partly.ingress[0].ports =
            vec![port(80, None), port(443, Some("headgate.dev/PortConflict"))];
        rig.source.writer().status(partly.clone());
        pass(500).await;
        let ports = json!([
            {"port": 80, "protocol": "TCP"},
            {"port": 443, "protocol": "TCP", "error": "headgate.dev/PortConflict"},
        ]);
        assert_eq!(patches(&fake)[0]["status"]["loadBalancer"]["ingress"][0]["ports"], ports);
        rig.source.writer().status(partly);
        pass(500).await;
        assert_eq!(patches(&fake).len(), 1, "it stands there");
    });
}

#[test]
fn a_service_made_anew_is_not_hit() {
    timeless(async {
        let fake = Fake::default();
        let (rig, uid) = ready(&fake, options()).await;
        rig.source.writer().status(write("another", true));
        pass(5_000).await;
        assert_eq!(patches(&fake), Vec::<Value>::new(), "it is known to be another");
        assert_eq!(rig.source.writer().health().waiting, 0);
        // One that was made anew, which nobody has told yet.
        fake.with(|cluster| {
            cluster.freeze(None);
            cluster.delete(&web());
            cluster.apply("services", service("web"));
        });
        rig.source.writer().status(write(&uid, true));
        pass(2_000).await;
        assert_eq!(patches(&fake).len(), 1);
        let status = fake.with(|cluster| cluster.objects[&web()]["status"].clone());
        assert_eq!(status, Value::Null);
        // One that is gone.
        fake.with(|cluster| cluster.delete(&web()));
        rig.source.writer().status(write(&uid, true));
        pass(2_000).await;
        assert_eq!(patches(&fake).len(), 2);
        assert_eq!(rig.source.writer().health(), WriterHealth::default());
    });
}

#[test]
fn a_conflict_is_told_once_and_waits_for_the_service_to_change() {
    timeless(async {
        let fake = Fake::default();
        let (mut rig, uid) = ready(&fake, options()).await;
        fake.with(|cluster| cluster.owners.insert(web(), "other-lb"));
        rig.source.writer().status(write(&uid, true));
        pass(60_000).await;
        assert_eq!(patches(&fake).len(), 1);
        let events = bodies(&fake, "create", "events");
        assert_eq!(events.len(), 1);
        assert_eq!(events[0]["reason"], "StatusConflict");
        let note = events[0]["note"].as_str().unwrap();
        for part in ["other-lb", "loadBalancerClass", "headgate.dev/take-over=true"] {
            assert!(note.contains(part), "{note}");
        }
        let told: Vec<_> = rig.take().into_iter().flat_map(|changes| changes.diagnostics).collect();
        assert_eq!(told.len(), 1, "`show events` has it too");
        // The other one lets go, which changes the Service.
        fake.with(|cluster| {
            cluster.owners.clear();
            let service = cluster.objects[&web()].clone();
            cluster.apply("services", service);
        });
        pass(10_000).await;
        assert_eq!(patches(&fake).len(), 2);
        let status = fake.with(|cluster| cluster.objects[&web()]["status"].clone());
        assert_eq!(status["loadBalancer"]["ingress"][0]["ip"], "203.0.113.7");
    });
}

#[test]
fn a_status_is_taken_over_where_that_is_asked_for() {
    timeless(async {
        let fake = Fake::default();
        let (rig, uid) = ready(&fake, options()).await;
        fake.with(|cluster| cluster.owners.insert(web(), "other-lb"));
        rig.source.writer().status(write(&uid, true));
        pass(1_000).await;
        rig.source.writer().status(StatusWrite { take_over: true, ..write(&uid, true) });
        pass(1_000).await;
        let status = fake.with(|cluster| cluster.objects[&web()]["status"].clone());
        assert_eq!(status["loadBalancer"]["ingress"][0]["ip"], "203.0.113.7");
    });
}

#[test]
fn failed_writes_are_made_again_and_only_the_last_wish_counts() {
    timeless(async {
        let fake = Fake::default();
        let (rig, uid) = ready(&fake, options()).await;
        let away = Fault::Status(503, "etcd".to_owned());
        fake.with(|cluster| cluster.faults.insert("services/status".to_owned(), away));
        for good in [true, false, true, false] {
            rig.source.writer().status(write(&uid, good));
            pass(3_000).await;
        }
        assert!(rig.source.health().what.contains("etcd"), "{:?}", rig.source.health());
        assert!(rig.source.health().in_step, "the watches are as good as ever");
        fake.with(|cluster| cluster.faults.clear());
        pass(40_000).await;
        let status = fake.with(|cluster| cluster.objects[&web()]["status"].clone());
        assert_eq!(status["conditions"][0]["reason"], "NoBackends");
        assert_eq!(rig.source.health().what, "");
        assert_eq!(rig.source.writer().health().statuses, 1);
    });
}

#[test]
fn nothing_is_written_while_another_gateway_holds_the_lease() {
    timeless(async {
        let fake = Fake::default();
        let lease = json!({ "metadata": { "name": "headgate", "namespace": "headgate-system" },
            "spec": { "holderIdentity": "gateway-2", "leaseDurationSeconds": 15 } });
        fake.with(|cluster| cluster.apply("leases", lease));
        let mut options = options();
        options.lease = Some(LeaseOptions::default());
        let (mut rig, uid) = ready(&fake, options).await;
        rig.source.writer().status(write(&uid, true));
        rig.source.writer().event(event("AllocationFailed", "no address is free"));
        pass(10_000).await;
        assert!(patches(&fake).is_empty() && bodies(&fake, "create", "events").is_empty());
        assert_eq!(rig.source.term(), None);
        // It is silent, and we take over.
        for _ in 0..40 {
            pass(1_000).await;
            rig.take();
        }
        assert!(patches(&fake).is_empty(), "what was wanted before is no longer to be trusted");
        rig.source.writer().status(write(&uid, true));
        pass(1_000).await;
        assert_eq!(patches(&fake).len(), 1);
        assert_eq!(bodies(&fake, "create", "events").len(), 1, "what was said shortly before");
    });
}

/// Everything that the gateway does, with exactly the rights of `control/deploy`.
#[test]
fn the_shipped_roles_grant_what_is_used_and_nothing_else() {
    timeless(async {
        let rules = Rules::of(&["role.yaml", "lease.yaml", "namespaces/role.yaml"]);
        let fake = Fake::default();
        fake.with(|cluster| {
            cluster.rules = Some(rules.clone());
            cluster.apply(
                "leases",
                json!({ "metadata": { "name": "headgate",
                "namespace": "headgate-system" } }),
            );
        });
        let mut options = options();
        options.namespaces_needed = true;
        options.lease = Some(LeaseOptions::default());
        let (mut rig, uid) = ready(&fake, options).await;
        pass(2_000).await;
        rig.take();
        rig.source.writer().status(write(&uid, true));
        for _ in 0..2 {
            rig.source.writer().event(event("Invalid", "something"));
            pass(20_000).await;
        }
        let used: BTreeSet<_> =
            fake.with(|cluster| cluster.asked.iter().map(|asked| asked.grant()).collect());
        let granted = rules.grants();
        assert!(used.is_subset(&granted), "missing: {:?}", used.difference(&granted));
        let unused: BTreeSet<_> = granted.difference(&used).cloned().collect();
        // `get` comes with `list`: what may be listed may be looked at by `kubectl get` too.
        let beyond: Vec<_> = unused.iter().filter(|(_, _, verb)| verb != "get").collect();
        assert!(beyond.is_empty(), "granted and never needed: {beyond:?}");
        assert_eq!(rig.source.health().what, "");
    });
}
