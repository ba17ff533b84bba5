//! Neighbours that the kernel resolves for us.

use super::support::{Bed, addr, asks_by_arp, in_namespace, ip, twin, wait_for};
use crate::mirror::KernelNeighbour;
use model::ids::InterfaceId;
use pipeline::adjacency::{AdjacencyInput, Mac};
use std::time::Duration;

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
        bed.worker.request(0, "192.0.2.9", None);
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
fn what_a_worker_has_seen_is_learnt_and_never_overrides() {
    in_namespace(|| {
        let bed = bed();
        let (seen, other) = (Mac([2, 0, 0, 0, 2, 1]), Mac([2, 0, 0, 0, 2, 2]));
        for address in ["192.0.2.77", "2001:db8::77"] {
            bed.worker.request(0, address, Some(seen));
            bed.wait_published(address, |input| has(input, address, seen));
            assert_eq!(row(&bed, address).unwrap().state, "stale");
        }
        assert!(ip("neigh show 192.0.2.77 dev front").contains("02:00:00:00:02:01 STALE"));

        ip("neigh add 192.0.2.78 lladdr 02:00:00:00:02:01 dev front nud permanent");
        // The second of these isn't known to be there when it is asked for.
        for address in ["192.0.2.78", "192.0.2.77"] {
            bed.worker.request(0, address, Some(other));
        }
        // Beyond a router, not on this link, and a group.
        bed.worker.request(0, "198.51.100.1", Some(other));
        bed.worker.request(0, "224.0.0.5", Some(other));
        std::thread::sleep(Duration::from_millis(1200));
        bed.worker.request(0, "192.0.2.77", Some(other));
        std::thread::sleep(Duration::from_millis(100));
        let table = ip("neigh show dev front");
        assert!(!table.contains("02:00:00:00:02:02"), "{table}");
        assert!(!table.contains("198.51.100.1"), "{table}");
        assert!(table.contains("192.0.2.78 lladdr 02:00:00:00:02:01 PERMANENT"), "{table}");
    });
}

#[test]
fn a_failed_neighbour_that_a_worker_sees_is_usable_at_once() {
    in_namespace(|| {
        let bed = bed();
        let mac = Mac([2, 0, 0, 0, 2, 1]);
        bed.worker.request(0, "192.0.2.77", None);
        wait_for("a failure", || row(&bed, "192.0.2.77").filter(|row| row.state == "failed"));
        bed.worker.request(0, "192.0.2.77", Some(mac));
        bed.wait_published("what was seen", |input| has(input, "192.0.2.77", mac));
    });
}

#[test]
fn a_worker_asks_once_a_second_and_the_kernel_resolves() {
    in_namespace(|| {
        let bed = bed();
        let mac = bed.worker.add_peer("192.0.2.77", 77);
        for _ in 0..100 {
            bed.worker.request(0, "192.0.2.77", None);
        }
        bed.wait_published("the answer", |input| has(input, "192.0.2.77", mac));
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(bed.worker.frames(|frame| asks_by_arp(frame, "192.0.2.77")).len(), 1);
        bed.check_ledger();
    });
}
