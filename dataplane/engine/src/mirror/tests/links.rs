//! Links that go and come back, groups, and other stations that use our addresses.

use super::support::{Bed, OUR_MAC, addr, in_namespace, ip, twin, wait_for};
use crate::mirror::conflicts::GatewayName;
use crate::mirror::gratuitous::announcement;
use crate::mirror::groups::{Group, Groups, solicited_node};
use crate::mirror::{AnnounceConfig, Place};
use model::ids::InterfaceId;
use model::limits::GROUPS_MAX;
use pipeline::adjacency::Mac;
use pipeline::claims::Claim;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

const FRONT: InterfaceId = InterfaceId(0);
const STRANGER: Mac = Mac([2, 0, 0, 0, 0, 0x66]);

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// Frames that announced an address.
fn announced(bed: &Bed, address: IpAddr) -> usize {
    let wanted = announcement(address, OUR_MAC);
    bed.worker.frames(|frame| frame == wanted).len()
}

/// True for an MLDv2 report (RFC 3810 section 5.2) with a record for the group, behind the
/// hop-by-hop header with the router alert.
fn reports(frame: &[u8], group: Ipv6Addr) -> bool {
    let is_report = frame.get(12..14) == Some(&[0x86, 0xdd])
        && frame.get(20) == Some(&0)
        && frame.get(54) == Some(&58)
        && frame.get(62) == Some(&143);
    is_report
        && frame.get(70..).is_some_and(|records| {
            records.chunks_exact(20).any(|record| record[4..20] == group.octets())
        })
}

#[test]
fn a_twin_that_returns_is_announced_anew() {
    in_namespace(|| {
        let bed = Bed::new(vec![twin("front", &["192.0.2.1/24"]), twin("back", &[])]);
        let (here, there) = (addr("203.0.113.10"), addr("2001:db8::a"));
        bed.mirror.announce(vec![(FRONT, here), (InterfaceId(1), there)]);
        wait_for("three announcements", || (announced(&bed, here) == 3).then_some(()));
        ip("link set front down");
        wait_for("it to be seen", || bed.mirror.is_twin_down(FRONT).then_some(()));
        assert!(!bed.mirror.is_twin_down(InterfaceId(1)));
        ip("link set front up");
        wait_for("three more", || (announced(&bed, here) == 6).then_some(()));
        assert!(!bed.mirror.is_twin_down(FRONT));
        assert_eq!(announced(&bed, there), 3, "the other one wasn't away");
        bed.mirror.withdraw(vec![(FRONT, here)]);
        bed.mirror.on_link_up()(vec![FRONT, InterfaceId(1)]);
        wait_for("the other one", || (announced(&bed, there) >= 4).then_some(()));
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(announced(&bed, here), 6, "it was withdrawn");
        bed.check_ledger();
    });
}

#[test]
fn groups_are_reported_and_again_when_the_link_comes_up() {
    in_namespace(|| {
        let bed = Bed::new(vec![twin("front", &[])]);
        let group = solicited_node(v6("2001:db8:f::12:3456"));
        let count = || bed.worker.frames(|frame| reports(frame, group)).len();
        let mut groups = Groups::new(bed.mirror.twin_numbers());
        let wanted = BTreeSet::from([(FRONT, group)]);
        assert!(groups.follow(&wanted, Instant::now()).unwrap());
        wait_for("a report", || (count() > 0).then_some(()));
        // The kernel repeats it (RFC 3810 section 9.1: after a second at most, once).
        std::thread::sleep(Duration::from_millis(2_500));
        let before = count();
        std::thread::sleep(Duration::from_millis(1_500));
        assert_eq!(count(), before, "it has come to rest");
        bed.mirror.on_link_up()(vec![FRONT]);
        wait_for("a report when the link is up", || (count() > before).then_some(()));
        assert!(groups.follow(&BTreeSet::new(), Instant::now()).unwrap());
        assert_eq!(groups.len(), 0);
        bed.check_ledger();
    });
}

/// More groups than one socket takes.
#[test]
fn as_many_groups_as_are_allowed_are_joined_and_left() {
    in_namespace(|| {
        let bed = Bed::new(vec![twin("front", &[])]);
        let mut groups = Groups::new(bed.mirror.twin_numbers());
        let group = |n: u128| {
            (FRONT, solicited_node(Ipv6Addr::from_bits(v6("2001:db8:f::1:0").to_bits() + n)))
        };
        let wanted: BTreeSet<Group> = (0..GROUPS_MAX as u128).map(group).collect();
        let since = Instant::now();
        while !groups.follow(&wanted, since).unwrap() {}
        println!("{GROUPS_MAX} groups in {:?}", since.elapsed());
        let listed = || {
            let text = std::fs::read_to_string("/proc/thread-self/net/igmp6").unwrap();
            text.lines().filter(|line| line.contains("ff0200000000000000000001ff01")).count()
        };
        assert_eq!(listed(), GROUPS_MAX);
        while !groups.follow(&BTreeSet::from([group(7)]), since).unwrap() {}
        assert_eq!((groups.len(), listed()), (1, 1));
        while !groups.follow(&wanted, since).unwrap() {}
        assert_eq!(listed(), GROUPS_MAX);
    });
}

/// Tells claims by the worker.
fn claim(bed: &Bed, (interface, address): Place, mac: Mac) {
    let claim = Claim { interface, address, mac };
    assert!(bed.worker.with_port(move |port| port.tell(claim)));
}

#[test]
fn a_stranger_is_defended_against_and_a_gateway_is_not() {
    in_namespace(|| {
        let gateway = Mac([2, 0, 0, 0, 0, 0x77]);
        let announce = AnnounceConfig {
            period: None,
            gateways: vec![GatewayName::Mac(gateway), GatewayName::Address(addr("192.0.2.9"))],
        };
        let bed = Bed::announcing(vec![twin("front", &["192.0.2.1/24"])], announce);
        ip("neigh add 192.0.2.9 lladdr 02:00:00:00:00:99 dev front");
        bed.wait_published("the gateway's neighbour", |input| !input.neighbours.is_empty());
        let ours = [addr("203.0.113.10"), addr("2001:db8::a"), addr("203.0.113.11")];
        bed.mirror.announce(ours.map(|address| (FRONT, address)).to_vec());
        let counts = || ours.map(|address| announced(&bed, address));
        wait_for("three announcements each", || (counts() == [3; 3]).then_some(()));
        for _ in 0..100 {
            claim(&bed, (FRONT, ours[0]), STRANGER);
            claim(&bed, (FRONT, ours[1]), gateway);
            claim(&bed, (FRONT, ours[2]), Mac([2, 0, 0, 0, 0, 0x99]));
            std::thread::sleep(Duration::from_millis(2));
        }
        let told = wait_for("all to be told", || {
            let told = bed.mirror.conflicts();
            let claims: u64 = told.iter().map(|one| one.claims).sum();
            (claims == 300).then_some(told)
        });
        let rows: Vec<_> =
            told.iter().map(|one| (one.place.1, one.is_gateway, one.defences)).collect();
        assert_eq!(rows, [(ours[0], false, 1), (ours[2], true, 0), (ours[1], true, 0)]);
        assert_eq!(counts(), [4, 3, 3], "one defence in ten seconds, none against gateways");
        bed.check_ledger();
    });
}
