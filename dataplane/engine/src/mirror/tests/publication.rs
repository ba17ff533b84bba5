//! What is published of addresses, routes and neighbours.

use super::support::{Bed, addr, in_namespace, ip, twin, wait_for};
use crate::mirror::StaticRoute;
use crate::mirror::follow::Follower;
use crate::mirror::state::Link;
use ipnet::IpNet;
use model::ids::InterfaceId;
use pipeline::adjacency::{AdjacencyInput, Mac, Route};
use std::io::Write;
use std::process::{Command, Stdio};

const FRONT: InterfaceId = InterfaceId(0);
const BACK: InterfaceId = InterfaceId(1);

/// The routes to a prefix: interface and gateway.
fn routes(input: &AdjacencyInput, to: &str) -> Vec<(InterfaceId, Option<String>)> {
    let to: IpNet = to.parse().unwrap();
    let hop = |route: &Route| (route.interface, route.via.map(|via| via.to_string()));
    input.routes.iter().filter(|(prefix, _)| *prefix == to).map(|(_, route)| hop(route)).collect()
}

fn via(id: InterfaceId, gateway: &str) -> (InterfaceId, Option<String>) {
    (id, Some(gateway.to_owned()))
}

fn bed() -> Bed {
    let mut front = twin("front", &["192.0.2.1/24", "2001:db8::1/64"]);
    front.routes = vec![
        StaticRoute { to: "0.0.0.0/0".parse().unwrap(), via: addr("192.0.2.254") },
        StaticRoute { to: "::/0".parse().unwrap(), via: addr("2001:db8::fe") },
    ];
    let mut back = twin("back", &["198.18.0.1/16"]);
    back.interface.mtu = 9000;
    Bed::new(vec![front, back])
}

#[test]
fn configured_addresses_and_routes_are_published_first() {
    in_namespace(|| {
        let bed = bed();
        let first = bed.published.lock().unwrap()[0].clone();
        let of = |id| {
            let mine = first.addresses.iter().filter(move |(on, _)| *on == id);
            mine.map(|(_, address)| address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of(FRONT), ["192.0.2.1", "2001:db8::1", "fe80::ff:fe00:1"]);
        assert_eq!(of(BACK), ["198.18.0.1", "fe80::ff:fe00:1"]);
        assert_eq!(routes(&first, "192.0.2.0/24"), [(FRONT, None)]);
        assert_eq!(routes(&first, "198.18.0.0/16"), [(BACK, None)]);
        assert_eq!(routes(&first, "2001:db8::/64"), [(FRONT, None)]);
        assert_eq!(routes(&first, "0.0.0.0/0"), [via(FRONT, "192.0.2.254")]);
        assert_eq!(routes(&first, "::/0"), [via(FRONT, "2001:db8::fe")]);
        assert_eq!(first.interfaces[1].mtu, 9000);
        assert!(ip("-d link show back").contains("mtu 9000"));
        assert!(ip("link show front").contains("02:00:00:00:00:01"));
        let notes = bed.mirror.notes();
        assert!(notes.is_empty(), "{notes:?}");
    });
}

#[test]
fn changes_are_followed() {
    in_namespace(|| {
        let bed = bed();
        ip("addr add 192.0.2.2/24 dev front");
        bed.wait_published("an address", |input| {
            input.addresses.contains(&(FRONT, addr("192.0.2.2")))
        });
        ip("addr del 192.0.2.2/24 dev front");
        bed.wait_published("its removal", |input| {
            !input.addresses.contains(&(FRONT, addr("192.0.2.2")))
        });
        ip("route add 203.0.113.0/24 via 198.18.0.7 metric 50");
        ip("route add 203.0.113.0/24 via 192.0.2.7 metric 10");
        bed.wait_published("both, the better one first", |input| {
            routes(input, "203.0.113.0/24") == [via(FRONT, "192.0.2.7"), via(BACK, "198.18.0.7")]
        });
        ip("route replace 203.0.113.0/24 via 192.0.2.8 metric 10");
        bed.wait_published("the replacement alone", |input| {
            routes(input, "203.0.113.0/24") == [via(FRONT, "192.0.2.8"), via(BACK, "198.18.0.7")]
        });
        ip("route add 100.64.0.0/10 nexthop via 198.18.0.8 nexthop via 192.0.2.8");
        bed.wait_published("the first of several", |input| {
            routes(input, "100.64.0.0/10") == [via(BACK, "198.18.0.8")]
        });
        ip("route add 100.65.0.0/16 via inet6 fe80::5 dev back");
        bed.wait_published("IPv4 via IPv6", |input| {
            routes(input, "100.65.0.0/16") == [via(BACK, "fe80::5")]
        });
        ip(
            "-6 route add 2001:db8:1::/48 nexthop via fe80::6 dev back nexthop via fe80::7 dev front",
        );
        bed.wait_published("an IPv6 one", |input| {
            routes(input, "2001:db8:1::/48") == [via(BACK, "fe80::6")]
        });
        // Neither another table nor another kind is a route for packets that we forward.
        ip("route add 100.66.0.0/16 via 198.18.0.8 table 100");
        ip("route add blackhole 100.67.0.0/16");
        ip("route add 100.68.0.0/16 via 198.18.0.8");
        bed.wait_published("a plain one", |input| !routes(input, "100.68.0.0/16").is_empty());
        let last = bed.published.lock().unwrap().last().unwrap().clone();
        assert!(routes(&last, "100.66.0.0/16").is_empty());
        assert!(routes(&last, "100.67.0.0/16").is_empty());
        ip("link set back mtu 1400");
        bed.wait_published("the lower MTU", |input| input.interfaces[1].mtu == 1400);
    });
}

#[test]
fn routes_that_vanish_with_their_link_are_gone() {
    in_namespace(|| {
        let bed = bed();
        ip("route add 203.0.113.0/24 via 198.18.0.7");
        bed.wait_published("the route", |input| !routes(input, "203.0.113.0/24").is_empty());
        ip("link set back down");
        bed.wait_published("neither route", |input| {
            routes(input, "203.0.113.0/24").is_empty() && routes(input, "198.18.0.0/16").is_empty()
        });
        ip("link set back up");
        bed.wait_published("the link's own", |input| !routes(input, "198.18.0.0/16").is_empty());
    });
}

/// Has `ip` do many things in one go.
fn batch(lines: impl Iterator<Item = String>) {
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    for line in lines {
        writeln!(input, "{line}").unwrap();
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_storm_is_gathered_and_ends_in_the_kernels_state() {
    in_namespace(|| {
        let bed = bed();
        let before = bed.published.lock().unwrap().len();
        let since = std::time::Instant::now();
        let place = |n: u32| format!("198.18.{}.{}", 1 + n / 200, 1 + n % 200);
        batch((0..10_000).map(|n| {
            let mac = format!("02:00:00:01:{:02x}:{:02x}", n >> 8, n & 255);
            format!("neigh replace {} lladdr {mac} dev back nud permanent", place(n))
        }));
        batch((0..10_000).step_by(2).map(|n| format!("neigh del {} dev back", place(n))));
        batch(
            (0..500).map(|n| format!("route add 10.{}.{}.0/24 via 198.18.0.7", n / 250, n % 250)),
        );
        let took = since.elapsed();
        let ours =
            |input: &AdjacencyInput| input.neighbours.iter().filter(|(id, ..)| *id == BACK).count();
        bed.wait_published("5000 neighbours and 500 routes", |input| {
            let through = |(_, route): &&(IpNet, Route)| route.via == Some(addr("198.18.0.7"));
            ours(input) == 5000 && input.routes.iter().filter(through).count() == 500
        });
        let publications = bed.published.lock().unwrap().len() - before;
        println!("20,500 changes in {took:?}: {publications} publications");
        assert!(publications as u128 <= 2 + since.elapsed().as_millis() / 5);
        let table = ip("neigh show dev back nud permanent");
        let last = bed.published.lock().unwrap().last().unwrap().clone();
        let unpublished = |line: &&str| {
            let address = addr(line.split(' ').next().unwrap());
            !last.neighbours.iter().any(|(id, ip, _)| (*id, *ip) == (BACK, address))
        };
        let permanent = |line: &&str| line.contains("PERMANENT");
        let missing: Vec<&str> = table.lines().filter(permanent).filter(unpublished).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert_eq!(table.matches("PERMANENT").count(), 5000);
        for (_, address, mac) in last.neighbours.iter().filter(|(id, ..)| *id == BACK) {
            assert!(table.contains(&format!("{address} lladdr {mac} ")), "{address}");
        }
        bed.check_ledger();
    });
}

#[test]
fn lost_events_are_mended_by_reading_all_again() {
    in_namespace(|| {
        ip("tuntap add front mode tap");
        let index = nix::net::if_::if_nametoindex("front").unwrap();
        let interface = twin("front", &[]).interface;
        let mut follower = Follower::new(vec![Link { index, interface, mtu: 1500 }]).unwrap();
        let place = |n: u32| format!("198.18.{}.{}", 1 + n / 200, 1 + n % 200);
        ip("link set front up");
        ip("addr add 198.18.0.1/16 dev front");
        // Nobody reads meanwhile.
        for round in 0..3_u8 {
            batch((0..10_000).map(|n| {
                format!("neigh replace {} lladdr 02:00:00:00:00:{round:02x} dev front", place(n))
            }));
        }
        batch((1..10_000).map(|n| format!("neigh del {} dev front", place(n))));
        let settled = |follower: &Follower| {
            follower.has_read_all() && follower.is_settled(std::time::Instant::now())
        };
        wait_for("the kernel's state", || {
            follower.look(std::time::Instant::now()).unwrap();
            (settled(&follower) && follower.state().neighbours().count() == 1).then_some(())
        });
        assert!(follower.overruns() > 0);
        let neighbours: Vec<_> = follower.state().usable().collect();
        assert_eq!(neighbours, [((FRONT, addr("198.18.1.1")), Mac([2, 0, 0, 0, 0, 2]))]);
        assert!(follower.state().links().addresses.contains(&(FRONT, addr("198.18.0.1"))));
    });
}
