//! The host's own ways to pods.

use super::support::{Bed, addr, in_namespace, ip, twin, wait_for};
use ipnet::IpNet;
use std::time::Duration;

const PODS: [(&str, &str); 2] = [("198.19.0.5", "192.0.2.11"), ("2001:db8:d::5", "2001:db8::11")];

/// The marked routes of both families.
fn marked() -> String {
    ip("-4 route show proto 72") + &ip("-6 route show proto 72")
}

fn all_there() -> bool {
    let routes = marked();
    PODS.iter().all(|(pod, via)| routes.contains(&format!("{pod} via {via} dev front")))
}

#[test]
fn a_held_way_is_a_route_of_the_kernel_and_nothing_that_workers_hear_of() {
    in_namespace(|| {
        let bed = Bed::new(vec![twin("front", &["192.0.2.1/24", "2001:db8::1/64"])]);
        let before = bed.published.lock().unwrap().last().cloned().unwrap();
        let hold = || PODS.map(|(pod, via)| bed.mirror.host_way(addr(pod), addr(via)));
        let ways = hold();
        assert!(bed.mirror.wait_for_host_ways(Duration::from_secs(20)));
        assert!(all_there(), "{}", marked());
        // A pod answers, by way of its node.
        let mac = bed.worker.add_peer("192.0.2.11", 11);
        bed.worker.peers.lock().unwrap().insert(addr("198.19.0.5"), mac);
        let answered = || {
            let mut ping = std::process::Command::new("ping");
            ping.args(["-c1", "-W1", "198.19.0.5"])
                .output()
                .is_ok_and(|output| output.status.success())
                .then_some(())
        };
        wait_for("an answer of the pod", answered);

        // It is put back where somebody takes it away, and after the link was down.
        ip("route flush proto 72");
        wait_for("the way of IPv4", || marked().contains("198.19.0.5").then_some(()));
        ip("link set front down");
        ip("link set front up");
        ip("-6 addr replace 2001:db8::1/64 dev front nodad");
        wait_for("the ways after the link was down", || all_there().then_some(()));

        let again = hold();
        drop(ways);
        assert!(bed.mirror.wait_for_host_ways(Duration::from_secs(20)));
        assert!(all_there(), "{}", marked());
        drop(again);
        assert!(bed.mirror.wait_for_host_ways(Duration::from_secs(20)));
        assert_eq!(marked(), "");
        bed.wait_published("the routes as before", |now| now.routes == before.routes);
        let pods = PODS.map(|(pod, _)| IpNet::from(addr(pod)));
        let published = bed.published.lock().unwrap();
        let told = published.iter().flat_map(|one| &one.routes);
        assert!(!told.into_iter().any(|(prefix, _)| pods.contains(prefix)));
        drop(published);
        bed.check_ledger();
    });
}
