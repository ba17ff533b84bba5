//! Events, and who has told them before.

use super::fake::Fault;
use super::writing::{bodies, event, options, ready, web, write};
use super::*;

/// The Events that the server has.
fn there(fake: &Fake) -> Vec<Value> {
    fake.with(|cluster| {
        let events = cluster.objects.iter().filter(|(name, _)| name.0 == "events");
        events.map(|(_, event)| event.clone()).collect()
    })
}

#[test]
fn an_event_is_made_once_and_repeated_as_a_series() {
    timeless(async {
        let fake = Fake::default();
        let (rig, uid) = ready(&fake, options()).await;
        for _ in 0..5 {
            rig.source.writer().event(event("AllocationFailed", "no address is free"));
            pass(3_000).await;
        }
        pass(15_000).await;
        let events = bodies(&fake, "create", "events");
        assert_eq!(events.len(), 1);
        let event = &events[0];
        assert!(event["metadata"]["name"].as_str().unwrap().starts_with("web."));
        assert_eq!(event["metadata"]["namespace"], "default");
        assert_eq!(
            event["regarding"],
            json!({ "apiVersion": "v1", "kind": "Service",
            "namespace": "default", "name": "web", "uid": uid })
        );
        assert_eq!(event["reportingController"], "headgate.dev/gateway");
        assert_eq!(event["reportingInstance"], "gateway-1");
        assert_eq!(
            (&event["type"], &event["note"]),
            (&json!("Warning"), &json!("no address is free"))
        );
        assert_eq!(event["eventTime"], "2026-09-21T14:13:20.000000Z");
        let series = bodies(&fake, "patch", "events");
        assert_eq!(series.last().unwrap()["series"]["count"], 5);
        assert!(series.len() <= 2, "{series:?}");
    });
}

#[test]
fn events_are_limited_and_never_wait() {
    timeless(async {
        let fake = Fake::default();
        let (rig, _) = ready(&fake, options()).await;
        for number in 0..1_500 {
            rig.source.writer().event(event("Invalid", &format!("problem {number}")));
        }
        pass(2_000).await;
        let health = rig.source.writer().health();
        assert_eq!(health.events_dropped, 500);
        let sent = bodies(&fake, "create", "events").len();
        assert!((100..=125).contains(&sent), "a burst and a trickle: {sent}");
        rig.source.writer().event(event("Invalid", &"ü".repeat(2_000)));
        pass(200_000).await;
        let notes = bodies(&fake, "create", "events");
        let longest = notes.iter().map(|one| one["note"].as_str().unwrap().len()).max();
        assert!(longest.is_some_and(|longest| longest <= 1_024));
    });
}

#[test]
fn a_namespace_that_goes_away_takes_no_events_and_nobody_is_told() {
    timeless(async {
        let fake = Fake::default();
        let (rig, _) = ready(&fake, options()).await;
        let going = "unable to create new content in namespace x because it is being terminated";
        let going = Fault::Status(403, going.to_owned());
        fake.with(|cluster| cluster.faults.insert("events".to_owned(), going));
        rig.source.writer().event(event("Invalid", "something"));
        pass(30_000).await;
        assert_eq!(bodies(&fake, "create", "events").len(), 1);
        assert_eq!(rig.source.health().what, "");
        let health = rig.source.writer().health();
        assert_eq!((health.events_unwanted, health.events_dropped), (1, 0));
    });
}

#[test]
fn a_lost_answer_makes_no_second_event() {
    timeless(async {
        let fake = Fake::default();
        let (rig, _) = ready(&fake, options()).await;
        fake.with(|cluster| cluster.faults.insert("events".to_owned(), Fault::Lost));
        rig.source.writer().event(event("Invalid", "something"));
        pass(100).await;
        assert!(rig.source.health().what.contains("creating an Event"));
        fake.with(|cluster| cluster.faults.clear());
        pass(20_000).await;
        assert_eq!(bodies(&fake, "create", "events").len(), 2);
        let there = there(&fake);
        assert_eq!((there.len(), &there[0]["series"]), (1, &Value::Null));
        assert_eq!(rig.source.health().what, "");
        assert_eq!(rig.source.writer().health().events, 1);
    });
}

/// `kubectl describe` lists them by name.
#[test]
fn names_are_in_the_order_of_what_happened() {
    timeless(async {
        let fake = Fake::default();
        let (rig, _) = ready(&fake, options()).await;
        let reasons = ["AllocationFailed", "IPAllocated", "Programmed", "IPReleased"];
        for reason in reasons {
            rig.source.writer().event(event(reason, "something"));
        }
        pass(2_000).await;
        let mut told = there(&fake);
        told.sort_by_key(|event| event["metadata"]["name"].to_string());
        let told: Vec<_> = told.iter().map(|event| event["reason"].as_str().unwrap()).collect();
        assert_eq!(told, reasons);
    });
}

#[test]
fn none_is_made_where_none_is_wanted() {
    timeless(async {
        let fake = Fake::default();
        let (mut rig, uid) = ready(&fake, Options { events: false, ..options() }).await;
        fake.with(|cluster| cluster.owners.insert(web(), "other-lb"));
        rig.source.writer().status(write(&uid, true));
        rig.source.writer().event(event("Invalid", "something"));
        pass(5_000).await;
        assert_eq!(bodies(&fake, "create", "events"), Vec::<Value>::new());
        let told: Vec<_> = rig.take().into_iter().flat_map(|changes| changes.diagnostics).collect();
        assert_eq!(told[0].reason, "StatusConflict", "`show events` has it");
    });
}
