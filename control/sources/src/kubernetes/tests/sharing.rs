//! Statuses that others write to as well, and faults that concern all of them.

use super::fake::Fault;
use super::writing::{bodies, options, patches, ready, web, withdrawn, write};
use super::*;
use crate::kubernetes::LeaseOptions;
use model::desired::ObjectName;
use translate::writes::StatusWrite;

/// Something about the Service changes.
fn change(fake: &Fake, with: impl FnOnce(&mut Value)) {
    fake.with(|cluster| {
        let mut service = cluster.objects[&web()].clone();
        with(&mut service);
        cluster.apply("services", service);
    });
}

fn reasons(fake: &Fake) -> Vec<Value> {
    bodies(fake, "create", "events").iter().map(|event| event["reason"].clone()).collect()
}

#[test]
fn what_is_withdrawn_over_the_ingress_of_another_is_withdrawn_once() {
    timeless(async {
        let fake = Fake::default();
        let (rig, uid) = ready(&fake, options()).await;
        rig.source.writer().status(write(&uid, true));
        pass(2_000).await;
        fake.with(|cluster| cluster.owners.insert(web(), "other-lb"));
        change(&fake, |service| {
            service["status"]["loadBalancer"] = json!({ "ingress": [{ "ip": "192.0.2.9" }] });
        });
        rig.source.writer().status(withdrawn(&uid));
        for _ in 0..10 {
            pass(10_000).await;
            change(&fake, |service| service["metadata"]["labels"] = json!({ "x": "y" }));
        }
        let empty = patches(&fake).iter().filter(|patch| patch["status"] == json!({})).count();
        assert_eq!(empty, 1);
        let status = fake.with(|cluster| cluster.objects[&web()]["status"].clone());
        assert_eq!(status["loadBalancer"]["ingress"][0]["ip"], "192.0.2.9");
        assert_eq!(status["conditions"], json!([]));
    });
}

#[test]
fn what_stays_as_it_is_is_told_once_and_left_until_the_service_changes() {
    timeless(async {
        let fake = Fake::default();
        let (rig, uid) = ready(&fake, options()).await;
        rig.source.writer().status(StatusWrite { finalizer: true, ..write(&uid, true) });
        pass(2_000).await;
        fake.with(|cluster| cluster.co_owned.insert(web()));
        rig.source.writer().status(withdrawn(&uid));
        for _ in 0..60 {
            pass(1_000).await;
            rig.source.writer().status(withdrawn(&uid));
        }
        assert_eq!(patches(&fake).len(), 2);
        let events = bodies(&fake, "create", "events");
        assert_eq!(events.len(), 1);
        assert_eq!(events[0]["reason"], "StatusConflict");
        let note = events[0]["note"].as_str().unwrap();
        assert!(note.contains("headgate.dev/cleanup") && note.contains("managed-fields"), "{note}");
        change(&fake, |service| service["metadata"]["labels"] = json!({ "x": "y" }));
        pass(60_000).await;
        assert_eq!((patches(&fake).len(), reasons(&fake).len()), (3, 1));
        fake.with(|cluster| cluster.co_owned.clear());
        change(&fake, |service| service["metadata"]["labels"] = json!({}));
        pass(60_000).await;
        let metadata = fake.with(|cluster| cluster.objects[&web()]["metadata"].clone());
        assert_eq!(metadata["finalizers"], json!([]));
    });
}

#[test]
fn a_webhook_that_writes_something_else_is_no_circle() {
    timeless(async {
        let fake = Fake::default();
        let (rig, uid) = ready(&fake, options()).await;
        fake.with(|cluster| cluster.webhook = Some("Other"));
        rig.source.writer().status(write(&uid, true));
        pass(60_000).await;
        assert_eq!(patches(&fake).len(), 1);
        assert_eq!(reasons(&fake), ["StatusConflict"]);
    });
}

/// Somebody who clears what we write makes no conflict: both go on, ever more seldom.
#[test]
fn two_that_write_after_each_other_slow_down() {
    timeless(async {
        let fake = Fake::default();
        let (rig, uid) = ready(&fake, options()).await;
        for _ in 0..600 {
            rig.source.writer().status(write(&uid, true));
            pass(100).await;
            let there = fake.with(|cluster| cluster.objects[&web()]["status"].clone());
            if there["loadBalancer"]["ingress"].is_array() {
                change(&fake, |service| service["status"]["loadBalancer"] = json!({}));
            }
        }
        let count = patches(&fake).len();
        assert!((5..=7).contains(&count), "{count} writes in a minute");
    });
}

/// The type changes and takes the addresses with it: they are not written again before it is known
/// what is wanted then.
#[test]
fn a_service_of_another_type_is_sent_no_address() {
    timeless(async {
        let fake = Fake::default();
        let (rig, uid) = ready(&fake, options()).await;
        rig.source.writer().status(write(&uid, true));
        pass(5_000).await;
        change(&fake, |service| {
            service["spec"]["type"] = json!("ClusterIP");
            service["status"]["loadBalancer"] = json!({});
        });
        pass(30_000).await;
        assert_eq!(patches(&fake).len(), 1);
        change(&fake, |service| service["spec"]["type"] = json!("LoadBalancer"));
        pass(1_000).await;
        assert_eq!(patches(&fake).len(), 2);
        assert_eq!(rig.source.writer().health().waiting, 0);
    });
}

/// A loses the Lease, somebody else gives the Service another address, and A has it back.
#[test]
fn what_was_wanted_in_an_earlier_term_is_not_written() {
    timeless(async {
        let fake = Fake::default();
        let lease = json!({ "metadata": { "name": "headgate", "namespace": "headgate-system" } });
        fake.with(|cluster| cluster.apply("leases", lease));
        let options = Options { lease: Some(LeaseOptions::default()), ..options() };
        let (mut rig, uid) = ready(&fake, options).await;
        pass(1_000).await;
        rig.take();
        let first = rig.source.term();
        rig.source.writer().status(write(&uid, true));
        pass(1_000).await;
        assert_eq!((patches(&fake).len(), first.is_some()), (1, true));
        let held_by = |holder: &str| {
            let name: Name = ("leases".into(), "headgate-system".into(), "headgate".into());
            fake.with(|cluster| {
                let mut lease = cluster.objects[&name].clone();
                lease["spec"]["holderIdentity"] = json!(holder);
                cluster.apply("leases", lease);
            });
        };
        held_by("gateway-2");
        pass(10_000).await;
        assert_eq!(rig.source.term(), None);
        change(&fake, |service| {
            service["status"]["loadBalancer"] = json!({ "ingress": [{ "ip": "203.0.113.8" }] });
        });
        pass(1_000).await;
        held_by("");
        for _ in 0..30 {
            pass(1_000).await;
            rig.take();
        }
        assert!(rig.source.term() > first, "{:?}", rig.source.term());
        assert_eq!(patches(&fake).len(), 1);
        rig.source.writer().status(write(&uid, true));
        pass(1_000).await;
        assert_eq!(patches(&fake).len(), 2);
    });
}

#[test]
fn what_concerns_all_is_met_once_and_not_by_every_service() {
    timeless(async {
        let fake = Fake::default();
        fake.with(|cluster| {
            for number in 0..100 {
                cluster.apply("services", service(&format!("web-{number}")));
            }
        });
        let (rig, _) = ready(&fake, options()).await;
        let forbidden = Fault::Status(403, "User cannot patch services/status".to_owned());
        fake.with(|cluster| cluster.faults.insert("services/status".to_owned(), forbidden));
        for number in 0..100 {
            let name = format!("web-{number}");
            let object = ("services".to_owned(), "default".to_owned(), name.clone());
            let uid = fake.with(|cluster| cluster.objects[&object]["metadata"]["uid"].clone());
            let service = ObjectName::new("default", &name);
            let wish = StatusWrite { service, ..write(uid.as_str().unwrap(), true) };
            rig.source.writer().status(wish);
        }
        pass(1_000).await;
        let what = rig.source.health().what;
        assert!(what.contains("RBAC is too small"), "{what}");
        pass(60_000).await;
        let sent = patches(&fake).len();
        assert!((10..=20).contains(&sent), "{sent} requests in a minute");
        assert_eq!(rig.source.health().what, what, "one problem, in the same words");
        fake.with(|cluster| cluster.faults.clear());
        pass(60_000).await;
        assert_eq!(rig.source.writer().health().statuses, 100);
        assert_eq!(rig.source.health().what, "");
    });
}

#[test]
fn a_lost_answer_leaves_no_fault_behind() {
    timeless(async {
        let fake = Fake::default();
        let (rig, uid) = ready(&fake, options()).await;
        fake.with(|cluster| cluster.faults.insert("services/status".to_owned(), Fault::Lost));
        rig.source.writer().status(write(&uid, true));
        pass(100).await;
        assert!(rig.source.health().what.contains("writing the status"));
        pass(10_000).await;
        // The watch has told that it stands there.
        assert_eq!(patches(&fake).len(), 1);
        assert_eq!(rig.source.health().what, "");
        assert_eq!(rig.source.writer().health().status_retries, 1);
    });
}
