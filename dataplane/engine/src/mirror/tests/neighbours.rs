//! Neighbours that the kernel resolves for us.

use super::support::{Bed, addr, asks_by_arp, in_namespace, ip, twin, wait_for};
use crate::mirror::{KernelNeighbour, NeighbourUse, StaticNeighbour};
use model::ids::InterfaceId;
use pipeline::adjacency::{AdjacencyInput, Mac};
use pipeline::mirror::Purpose;
use std::time::{Duration, Instant};

const FRONT: InterfaceId = InterfaceId(0);

fn has(input: &AdjacencyInput, address: &str, mac: Mac) -> bool {
    input.neighbours.contains(&(FRONT, addr(address), mac))
}

fn row(bed: &Bed, address: &str) -> Option<KernelNeighbour> {
    bed.mirror.neighbours().iter().find(|row| row.address == addr(address)).copied()
}

fn bed() -> Bed {
    Bed::new(vec![twin("front", &["192.0.2.1/24", "2001:db8::1/64"])])
}

#[test]
fn managed_next_hops_are_resolved_and_published() {
    in_namespace(|| {
        let bed = bed();
        let hops = ["192.0.2.9", "2001:db8::9"];
        for hop in hops {
            bed.worker.add_peer(hop, 9);
        }
        bed.mirror.set_managed(hops.map(|hop| (FRONT, addr(hop))).to_vec());
        for hop in hops {
            let mac = Mac([2, 0, 0, 0, 1, 9]);
            bed.wait_published(hop, |input| has(input, hop, mac));
            let row = wait_for("the row", || row(&bed, hop).filter(|row| row.mac.is_some()));
            assert_eq!((row.interface, row.mac, row.state), (FRONT, Some(mac), "reachable"));
            assert!(row.managed);
        }
        println!("{}", ip("neigh show dev front"));
        assert_eq!(ip("neigh show dev front").matches("managed").count(), 2);

        // What is no longer wanted is let go.
        bed.mirror.set_managed(vec![(FRONT, addr(hops[1]))]);
        wait_for("the release", || row(&bed, hops[0]).filter(|row| !row.managed));
        assert!(row(&bed, hops[1]).unwrap().managed);
        bed.check_ledger();
    });
}

#[test]
fn a_managed_next_hop_that_was_flushed_or_silent_comes_back() {
    in_namespace(|| {
        let bed = bed();
        bed.mirror.set_managed(vec![(FRONT, addr("192.0.2.9"))]);
        wait_for("a failure", || row(&bed, "192.0.2.9").filter(|row| row.state == "failed"));
        let mac = bed.worker.add_peer("192.0.2.9", 9);
        bed.worker.request(0, "192.0.2.9", Purpose::Resolve);
        bed.wait_published("an answer", |input| has(input, "192.0.2.9", mac));
        assert!(row(&bed, "192.0.2.9").unwrap().managed);
        ip("neigh del 192.0.2.9 dev front");
        bed.wait_published("the removal", |input| input.neighbours.is_empty());
        bed.wait_published("its return", |input| has(input, "192.0.2.9", mac));
    });
}

#[test]
fn gateways_of_routes_are_managed_without_being_asked_for() {
    in_namespace(|| {
        let bed = bed();
        let mac = bed.worker.add_peer("192.0.2.254", 254);
        ip("route add 198.51.100.0/24 via 192.0.2.254");
        bed.wait_published("the gateway", |input| has(input, "192.0.2.254", mac));
        bed.mirror.set_managed(Vec::new());
        ip("route del 198.51.100.0/24");
        wait_for("the release", || row(&bed, "192.0.2.254").filter(|row| !row.managed));
    });
}

#[test]
fn what_a_worker_has_seen_is_learnt_and_followed() {
    in_namespace(|| {
        let bed = bed();
        let (seen, other) = (Mac([2, 0, 0, 0, 2, 1]), Mac([2, 0, 0, 0, 2, 2]));
        for address in ["192.0.2.77", "2001:db8::77"] {
            bed.worker.request(0, address, Purpose::Seen(seen));
            bed.wait_published(address, |input| has(input, address, seen));
            assert_eq!(row(&bed, address).unwrap().state, "stale");
        }
        assert!(ip("neigh show 192.0.2.77 dev front").contains("02:00:00:00:02:01 STALE"));
        // Not on this link, a group, and a forged source that came by the router.
        let router = bed.worker.add_peer("192.0.2.254", 254);
        ip("route add 198.18.0.0/15 via 192.0.2.254");
        bed.wait_published("the router", |input| has(input, "192.0.2.254", router));
        bed.worker.request(0, "192.0.2.66", Purpose::Seen(router));
        bed.worker.request(0, "198.51.100.1", Purpose::Seen(other));
        bed.worker.request(0, "224.0.0.5", Purpose::Seen(other));
        // They have moved to another MAC; the same is said at most once a second.
        std::thread::sleep(Duration::from_millis(1100));
        for address in ["192.0.2.77", "2001:db8::77"] {
            bed.worker.request(0, address, Purpose::Seen(other));
            bed.wait_published("its move", |input| has(input, address, other));
        }
        let table = ip("neigh show dev front");
        assert!(!table.contains("02:00:00:00:02:01"), "{table}");
        assert!(!table.contains("198.51.100.1"), "{table}");
        assert!(!table.contains("192.0.2.66"), "{table}");
    });
}

/// Over longer than the time in which all that is managed is asked for again.
#[test]
fn what_an_operator_sets_stays_and_is_used() {
    in_namespace(|| {
        let bed = bed();
        let (set, other) = (Mac([2, 0, 0, 0, 2, 1]), Mac([2, 0, 0, 0, 2, 2]));
        let hops = ["192.0.2.9", "2001:db8::9", "192.0.2.10", "2001:db8::10"];
        ip("route add 198.51.100.0/24 via 192.0.2.10");
        ip("-6 route add 2001:db8:c::/48 via 2001:db8::10");
        // They are managed already, and unresolved, when the operator comes.
        bed.mirror.set_managed(hops[..2].iter().map(|hop| (FRONT, addr(hop))).collect());
        for (hop, way) in hops.into_iter().zip(["permanent", "permanent", "noarp", "noarp"]) {
            wait_for("a try", || row(&bed, hop));
            ip(&format!("neigh replace {hop} lladdr {set} dev front nud {way}"));
            bed.wait_published(hop, |input| has(input, hop, set));
        }
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(12) {
            for (hop, purpose) in hops.into_iter().flat_map(|hop| {
                let all = [Purpose::Resolve, Purpose::Seen(other), Purpose::InUse];
                all.map(|purpose| (hop, purpose))
            }) {
                bed.worker.request(0, hop, purpose);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        bed.mirror.set_managed(Vec::new());
        ip("route del 198.51.100.0/24");
        std::thread::sleep(Duration::from_millis(300));
        let table = ip("neigh show dev front nud all");
        println!("{table}");
        for (hop, word) in hops.into_iter().zip(["PERMANENT", "PERMANENT", "NOARP", "NOARP"]) {
            assert!(table.contains(&format!("{hop} lladdr {set} {word}")), "{hop}: {table}");
        }
        let published = bed.published.lock().unwrap();
        let first = published.iter().position(|input| has(input, hops[3], set)).unwrap();
        let all = |input: &AdjacencyInput| hops.iter().all(|hop| has(input, hop, set));
        assert!(published[first..].iter().all(all), "never unpublished in between");
    });
}

#[test]
fn neighbours_of_the_configuration_are_permanent_and_come_back() {
    in_namespace(|| {
        let mut front = twin("front", &["192.0.2.1/24", "2001:db8::1/64"]);
        let mac = Mac([2, 0, 0, 0, 2, 1]);
        let hops = ["192.0.2.9", "fe80::9"];
        front.neighbours = hops.map(|hop| StaticNeighbour { address: addr(hop), mac }).to_vec();
        let bed = Bed::new(vec![front]);
        assert!(hops.iter().all(|hop| has(&bed.published.lock().unwrap()[0], hop, mac)));
        bed.mirror.set_managed(hops.map(|hop| (FRONT, addr(hop))).to_vec());
        std::thread::sleep(Duration::from_millis(1500));
        let table = ip("neigh show dev front");
        assert_eq!(table.matches("PERMANENT").count(), 2, "{table}");
        assert_eq!(row(&bed, hops[0]).unwrap().used, NeighbourUse::NextHop);
        // A link that goes down forgets all its neighbours.
        ip("link set front down");
        bed.wait_published("none", |input| input.neighbours.is_empty());
        ip("link set front up");
        for hop in hops {
            bed.wait_published(hop, |input| has(input, hop, mac));
        }
        let asked = bed.worker.frames(|frame| asks_by_arp(frame, hops[0]));
        assert!(asked.is_empty(), "it was never asked for");
    });
}

#[test]
fn a_next_hop_in_use_is_kept_resolved_when_no_snapshot_names_it() {
    in_namespace(|| {
        let bed = bed();
        let hops = ["192.0.2.9", "2001:db8::9"];
        let macs = hops.map(|hop| bed.worker.add_peer(hop, 9));
        bed.mirror.set_managed(hops.map(|hop| (FRONT, addr(hop))).to_vec());
        for (hop, mac) in hops.into_iter().zip(macs) {
            bed.wait_published(hop, |input| has(input, hop, mac));
            bed.worker.request(0, hop, Purpose::InUse);
        }
        bed.mirror.set_managed(Vec::new());
        let in_use =
            |hop: &str| row(&bed, hop).filter(|row| row.used == NeighbourUse::InUse && row.managed);
        for hop in hops {
            wait_for("the use", || in_use(hop));
        }
        // Somebody flushes them: they come back, since connections need them.
        ip("neigh flush dev front");
        for (hop, mac) in hops.into_iter().zip(macs) {
            bed.wait_published("its return", |input| has(input, hop, mac));
            wait_for("the use", || in_use(hop));
        }
        assert_eq!(ip("neigh show dev front").matches("managed").count(), 2);
    });
}

#[test]
fn a_failed_neighbour_that_a_worker_sees_is_usable_at_once() {
    in_namespace(|| {
        let bed = bed();
        let mac = Mac([2, 0, 0, 0, 2, 1]);
        bed.worker.request(0, "192.0.2.77", Purpose::Resolve);
        wait_for("a failure", || row(&bed, "192.0.2.77").filter(|row| row.state == "failed"));
        bed.worker.request(0, "192.0.2.77", Purpose::Seen(mac));
        bed.wait_published("what was seen", |input| has(input, "192.0.2.77", mac));
    });
}

#[test]
fn a_worker_asks_once_a_second_and_the_kernel_resolves() {
    in_namespace(|| {
        let bed = bed();
        let mac = bed.worker.add_peer("192.0.2.77", 77);
        for _ in 0..100 {
            bed.worker.request(0, "192.0.2.77", Purpose::Resolve);
        }
        bed.wait_published("the answer", |input| has(input, "192.0.2.77", mac));
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(bed.worker.frames(|frame| asks_by_arp(frame, "192.0.2.77")).len(), 1);
        bed.check_ledger();
    });
}
