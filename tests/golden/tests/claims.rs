//! Floods of forged claims to addresses of ours: each is dropped and counted, few are told, and
//! those of one link don't crowd out those of another.

#![allow(clippy::panic, clippy::unwrap_used)]

use golden::drive::{self, Input};
use golden::packet::{Mac, arp, icmp, packet};
use golden::world::World;
use model::drops::DropReason;
use model::ids::{InterfaceId, PortId};
use pipeline::Now;
use pipeline::adjacency::Mac as WireMac;
use pipeline::claims::Claim;
use pipeline::frame::{Rx, Verdict};
use std::net::{IpAddr, SocketAddr};

const CLAIMED: Verdict = Verdict::Drop(DropReason::AddressClaimed);

fn came(port: u8, bytes: Vec<u8>) -> Input {
    Input::new(bytes, Rx { port: PortId(port), ..Rx::default() })
}

fn by_arp(mac: Mac, address: [u8; 4]) -> Vec<u8> {
    arp((mac, [0xff; 6]), 2, (mac, address), ([0; 6], address))
}

/// An advertisement with this target, and with the MAC in its option.
fn by_discovery(mac: Mac, target: &str) -> Vec<u8> {
    let target: IpAddr = target.parse().unwrap();
    let IpAddr::V6(ip) = target else { panic!("{target} is no IPv6") };
    let data = [&ip.octets()[..], &[14, 1, 0, 0, 0, 0, 0, 0, 2, 1], &mac].concat();
    let macs = ([2, 9, 9, 9, 9, 9], [0x33, 0x33, 0, 0, 0, 1]);
    let to = SocketAddr::new("ff02::1".parse().unwrap(), 0);
    let body = icmp(136, 0, 0x2000_0000, &data);
    packet(macs, SocketAddr::new(target, 0), to, body).ttl(255).bytes()
}

#[test]
fn a_flood_on_one_link_is_counted_and_told_ten_times_a_second() {
    let world = World::new(1);
    let mut pipeline = drive::pipeline(&drive::options());
    let (mut told, mut behind) = (0, 0);
    for ms in 0..10_000_u64 {
        let mac = [2, 1, 0, (ms >> 8) as u8, ms as u8, 1];
        let front = [came(0, by_arp(mac, [203, 0, 113, 10])), {
            came(0, by_discovery(mac, "2001:db8:a::10"))
        }];
        let back = came(1, by_arp([2, 0, 0, 0, 9, 9], [198, 18, 1, 200]));
        let mut inputs = front.to_vec();
        inputs.extend((ms % 1_000 == 999).then_some(back));
        let outcomes = drive::burst(&mut pipeline, &world.tables, &inputs, Now { ms });
        assert!(outcomes.iter().all(|outcome| outcome.verdict == CLAIMED), "{outcomes:?}");
        for claim in pipeline.claims().take() {
            told += u32::from(claim.interface == InterfaceId(0));
            behind += u32::from(claim.interface == InterfaceId(1));
        }
    }
    let counted = pipeline.counters().dropped(DropReason::AddressClaimed).read();
    assert_eq!(counted, 20_010, "each is counted");
    assert!((100..=110).contains(&told), "{told} of 20,000 were told");
    assert_eq!(behind, 10, "all of the other link's");
}

#[test]
fn what_is_told_is_the_address_and_the_mac_that_claims_it() {
    let world = World::new(1);
    let mut pipeline = drive::pipeline(&drive::options());
    let mac = [2, 0, 0, 0, 9, 0x66];
    let inputs = [
        came(0, by_arp(mac, [203, 0, 113, 10])),
        came(0, by_discovery(mac, "2001:db8:a::10")),
        came(1, by_discovery(mac, "2001:db8:b::200")),
    ];
    let outcomes = drive::burst(&mut pipeline, &world.tables, &inputs, Now { ms: 0 });
    assert!(outcomes.iter().all(|outcome| outcome.verdict == CLAIMED), "{outcomes:?}");
    let claim = |interface, address: &str| Claim {
        interface: InterfaceId(interface),
        address: address.parse().unwrap(),
        mac: WireMac(mac),
    };
    let expected =
        [claim(0, "203.0.113.10"), claim(0, "2001:db8:a::10"), claim(1, "2001:db8:b::200")];
    assert_eq!(pipeline.claims().take().collect::<Vec<_>>(), expected);
}

#[test]
fn claims_that_name_no_host_are_told_to_nobody() {
    let world = World::new(1);
    let mut pipeline = drive::pipeline(&drive::options());
    for mac in [[0; 6], [0xff; 6], [3, 0, 0, 0, 0, 1]] {
        let mut inputs = vec![came(0, by_arp(mac, [203, 0, 113, 10]))];
        inputs.push(came(0, by_discovery(mac, "2001:db8:a::10")));
        drive::burst(&mut pipeline, &world.tables, &inputs, Now { ms: 0 });
    }
    assert!(pipeline.claims().is_empty());
}
