//! What is told of a Service for whoever asks why it isn't reached.

use super::*;
use crate::problem::reason;

#[test]
fn slices_and_their_endpoints_are_counted() {
    let mut index = index();
    index.take([balanced("a")]);
    assert_eq!(index.status("a").facts.slices, 0);
    index.take([
        slice("s", "a", "IPv4", json!([])),
        slice("t", "a", "IPv4", json!([endpoint("10.1.0.1", "rs"), endpoint("10.1.0.2", "st")])),
        slice("u", "other", "IPv4", json!([endpoint("10.1.0.3", "rs")])),
    ]);
    let facts = &index.status("a").facts;
    assert_eq!((facts.slices, facts.endpoints, facts.ready), (2, 2, 1));
}

#[test]
fn what_the_service_says_is_told() {
    let mut index = index();
    let annotated = |kind: &str| {
        service("a", kind, |value| {
            value["spec"]["selector"] = json!({"app": "web", "tier": "front"});
            value["metadata"]["annotations"] =
                json!({"headgate.dev/addresses": "203.0.113.1", "headgate.dev/forwarding": "nat"});
        })
    };
    index.take([annotated("ClusterIP")]);
    let facts = &index.status("a").facts;
    assert_eq!(facts.selector, "app=web,tier=front");
    assert_eq!(facts.idle_annotations, ["headgate.dev/addresses"]);
    assert!(!facts.foreign);
    index.take([annotated("LoadBalancer")]);
    assert_eq!(index.status("a").facts.idle_annotations, Vec::<String>::new());
    index.take([service("a", "LoadBalancer", |value| {
        value["spec"]["loadBalancerClass"] = json!("example.com/other");
    })]);
    let facts = &index.status("a").facts;
    assert!(facts.foreign && facts.class == "example.com/other");
    assert_eq!(facts.reasons, [reason::NOT_FORWARDED]);
}
