use super::*;
use std::net::Ipv4Addr;

const FRONT: InterfaceId = InterfaceId(0);
const BACK: InterfaceId = InterfaceId(1);

fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 1, last])
}

fn interface(name: &str, port: u8, vlan: Option<u16>) -> Interface {
    let port = PortId(port);
    let mac = Mac([2, 0, 0, 0, 0, port.0]);
    Interface { name: name.into(), port, vlan, mac, mtu: 1500, role: Role::Both }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn input() -> AdjacencyInput {
    let to = |prefix: &str, interface, via: Option<&str>| {
        (prefix.parse().unwrap(), Route { interface, via: via.map(ip) })
    };
    AdjacencyInput {
        interfaces: vec![interface("front", 0, None), interface("back", 1, Some(7))],
        addresses: vec![(FRONT, ip("192.0.2.1")), (BACK, ip("2001:db8:b::1"))],
        routes: vec![
            to("0.0.0.0/0", FRONT, Some("192.0.2.254")),
            to("::/0", FRONT, Some("2001:db8:f::fe")),
            to("192.0.2.0/24", FRONT, None),
            to("2001:db8:f::/64", FRONT, None),
            to("2001:db8:b::/64", BACK, None),
        ],
        fixed: Vec::new(),
        neighbours: vec![
            (FRONT, ip("192.0.2.254"), mac(254)),
            (FRONT, ip("192.0.2.9"), mac(9)),
            (BACK, ip("2001:db8:b::9"), mac(19)),
        ],
    }
}

/// Numbers below what is asked, in a sequence that begins as `random` says.
fn drawing(mut random: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (random >> 33) % below
    }
}

fn change(id: InterfaceId, address: &str, mac: Option<Mac>) -> AdjacencyChange {
    AdjacencyChange { links: None, neighbours: vec![(id, ip(address), mac)] }
}

#[test]
fn a_next_hop_keeps_its_place_whatever_becomes_of_it() {
    let mut input = input();
    let first = Adjacencies::new(input.clone());
    for (id, address) in [(FRONT, "192.0.2.9"), (BACK, "2001:db8:b::9")] {
        let of = first.find(id, ip(address)).unwrap();
        // Others come before it and go, its MAC changes, and so do VLAN, port and MTU.
        let moved = first.with(&change(id, address, Some(mac(99))));
        assert_eq!(moved.find(id, ip(address)), Some(of));
        assert_eq!(moved.adjacency(of).unwrap().destination(), mac(99));
        assert_eq!(first.adjacency(of).unwrap().destination().0[5] % 10, 9, "the old table stays");
        input.interfaces[id.index()] = interface("moved", 5, Some(8));
        input.interfaces[id.index()].mtu = 9000;
        input.neighbours.rotate_left(1);
        let other = moved.next(input.clone());
        assert_eq!(other.find(id, ip(address)), Some(of));
        let adjacency = other.adjacency(of).unwrap();
        assert_eq!((adjacency.port, adjacency.mtu), (PortId(5), 9000));
        let tagged = adjacency.tagged().unwrap();
        assert_eq!(tagged[..6], other.adjacency(of).unwrap().destination().0);
        assert_eq!(tagged[6..16], [2, 0, 0, 0, 0, 5, 0x81, 0, 0, 8]);
    }
}

#[test]
fn who_leaves_and_comes_back_is_another() {
    let first = Adjacencies::new(input());
    let of = first.find(FRONT, ip("192.0.2.9")).unwrap();
    let gone = first.with(&change(FRONT, "192.0.2.9", None));
    assert_eq!((gone.adjacency(of), gone.find(FRONT, ip("192.0.2.9"))), (None, None));
    assert_eq!(gone.hop(ip("192.0.2.9"), None).unwrap().adjacency, None);
    let back = gone.with(&change(FRONT, "192.0.2.9", Some(mac(9))));
    assert_ne!(back.find(FRONT, ip("192.0.2.9")), Some(of));
    assert_eq!(back.adjacency(of), None);
    assert_eq!(back.count(), 3);
}

#[test]
fn only_links_and_routes_change_the_stamp() {
    let first = Adjacencies::new(input());
    let stamp = first.routes_stamp();
    let mut now = first.with(&change(FRONT, "192.0.2.9", Some(mac(1))));
    now = now.with(&change(FRONT, "192.0.2.10", Some(mac(2))));
    now = now.with(&change(FRONT, "192.0.2.254", None));
    now = now.next(input());
    assert_eq!(now.routes_stamp(), stamp);
    let mut stamps = vec![stamp];
    let changes: [fn(&mut AdjacencyInput); 3] = [
        |input| input.interfaces[0].mtu = 1400,
        |input| input.addresses.truncate(1),
        |input| input.routes.truncate(3),
    ];
    for change in changes {
        let mut input = input();
        change(&mut input);
        now = now.next(input);
        stamps.push(now.routes_stamp());
    }
    stamps.dedup();
    assert_eq!(stamps.len(), 4, "{stamps:?}");
}

#[test]
fn routers_are_known_by_the_macs_of_next_hops_of_routes() {
    let first = Adjacencies::new(input());
    assert!(first.is_router_mac(FRONT, mac(254)));
    assert!(!first.is_router_mac(BACK, mac(254)), "on its own link alone");
    assert!(!first.is_router_mac(FRONT, mac(9)));
    // The gateway of the other family has the same machine, or another.
    let now = first.with(&change(FRONT, "2001:db8:f::fe", Some(mac(253))));
    assert!(now.is_router_mac(FRONT, mac(253)) && now.is_router_mac(FRONT, mac(254)));
    let now = now.with(&change(FRONT, "192.0.2.254", Some(mac(252))));
    assert!(now.is_router_mac(FRONT, mac(252)) && !now.is_router_mac(FRONT, mac(254)));
    let mut without = input();
    without.routes.retain(|(_, route)| route.via.is_none());
    assert!(!now.next(without).is_router_mac(FRONT, mac(254)));
}

/// After any walk of changes the table says what one made at once says, and no reference ever
/// leads to another next hop than the one that it was given for.
#[test]
fn a_walk_of_changes_ends_where_a_fresh_table_begins() {
    let mut draw = drawing(7);
    let mut given = std::collections::HashMap::new();
    let mut table = Adjacencies::new(AdjacencyInput { neighbours: Vec::new(), ..input() });
    let mut known = std::collections::BTreeMap::new();
    for step in 0..20_000 {
        let at = Ipv4Addr::from_bits(0xc000_0200 + draw(200) as u32);
        let hop = (InterfaceId(draw(2) as u8), IpAddr::V4(at));
        let mac = (draw(3) > 0).then(|| mac(draw(256) as u8));
        table = table.with(&AdjacencyChange { links: None, neighbours: vec![(hop.0, hop.1, mac)] });
        match mac {
            Some(mac) => known.insert(hop, mac),
            None => known.remove(&hop),
        };
        if let Some(of) = table.find(hop.0, hop.1) {
            assert_eq!(*given.entry((of.id.0, of.generation)).or_insert(hop), hop, "step {step}");
        }
    }
    assert_eq!(table.count(), known.len());
    for (hop, mac) in &known {
        let of = table.find(hop.0, hop.1).unwrap();
        assert_eq!(table.adjacency(of).unwrap().destination(), *mac);
    }
    for ((id, generation), hop) in given {
        let of = AdjacencyRef { id: AdjacencyId(id), generation };
        if table.adjacency(of).is_some() {
            assert_eq!(table.find(hop.0, hop.1), Some(of));
        }
    }
}

/// However many routes there are.
#[test]
fn the_longest_matching_route_is_found_among_few_and_many() {
    let mut draw = drawing(9);
    for round in 0..400 {
        let mut routes: Vec<(IpNet, Route)> = Vec::new();
        for _ in 0..draw(if round % 2 == 0 { 9 } else { 40 }) {
            // Few addresses, so that prefixes lie within each other.
            let (v6, bits, len) = (draw(2) == 1, draw(8) as u128, draw(5) as u8);
            let (address, len): (IpAddr, u8) = if v6 {
                (std::net::Ipv6Addr::from_bits(bits << 125).into(), len)
            } else {
                (Ipv4Addr::from_bits((bits as u32) << 29).into(), len)
            };
            let net = IpNet::new(address, len).unwrap().trunc();
            let via = (draw(2) == 1).then(|| ip("192.0.2.254"));
            routes.push((net, Route { interface: InterfaceId(draw(200) as u8), via }));
        }
        let table = Adjacencies::new(AdjacencyInput { routes: routes.clone(), ..input() });
        for bits in 0..16_u32 {
            let v4: IpAddr = Ipv4Addr::from_bits(bits << 28).into();
            let v6: IpAddr = std::net::Ipv6Addr::from_bits(u128::from(bits) << 124).into();
            for address in [v4, v6] {
                let matching = routes.iter().filter(|(net, _)| net.contains(&address)).rev();
                // Of equal prefixes the first counts, which `rev` makes the last of the longest.
                let longest = matching.max_by_key(|(net, _)| net.prefix_len());
                assert_eq!(table.route(address), longest.map(|(_, route)| *route), "{routes:?}");
            }
        }
    }
}

/// Whose next hops a change of routes makes others is told of it, whatever the change; and few others
/// are, where it isn't of what is on a link.
#[test]
fn whom_a_change_of_routes_concerns_is_told() {
    let mut draw = drawing(11);
    let (mut concerned, mut told, mut asked) = (0, 0, 0);
    for _ in 0..300 {
        let mut input = input();
        let mut table = Adjacencies::new(input.clone());
        for _ in 0..12 {
            let before = table.clone();
            for _ in 0..=draw(2) {
                let (v6, len) = (draw(2) == 1, 8 + draw(24) as u8);
                let bits = draw(1 << 12) as u32;
                let address: IpAddr = if v6 {
                    std::net::Ipv6Addr::from_bits(u128::from(0x2001_0000 | bits << 4) << 96).into()
                } else {
                    Ipv4Addr::from_bits(0xc000_0000 | bits << 8).into()
                };
                let net = IpNet::new(address, len).unwrap().trunc();
                let via = ip(if v6 { "2001:db8:f::fd" } else { "192.0.2.253" });
                let via = (draw(12) > 0).then_some(via);
                match (input.routes.iter().position(|(of, _)| *of == net), draw(3)) {
                    (Some(at), _) => drop(input.routes.remove(at)),
                    (None, 0) if input.routes.len() > 6 => drop(input.routes.remove(6)),
                    (None, _) => input.routes.push((net, Route { interface: FRONT, via })),
                }
            }
            table = table.next(input.clone());
            for _ in 0..40 {
                let v6 = draw(2) == 1;
                let mut address = |n: u64| -> IpAddr {
                    let bits = draw(1 << 12) as u32;
                    if v6 {
                        let high = u128::from(0x2001_0000 | bits << 4) << 96;
                        std::net::Ipv6Addr::from_bits(high + u128::from(n)).into()
                    } else {
                        Ipv4Addr::from_bits(0xc000_0000 | bits << 8 | n as u32).into()
                    }
                };
                let (client, backend, via) = (address(1), address(2), address(3));
                let hops =
                    |table: &Adjacencies| (table.hop(client, None), table.hop(backend, Some(via)));
                let (was, is) = (hops(&before), hops(&table));
                let next_hop = was.1.map_or(backend, |hop| hop.address);
                let holds = table.routes_hold(before.routes_stamp(), [client, backend, next_hop]);
                assert!(was == is || !holds, "{client}, {backend} by {via}: {was:?}, now {is:?}");
                (asked, concerned, told) =
                    (asked + 1, concerned + u32::from(was != is), told + u32::from(!holds));
            }
        }
    }
    println!("{asked} asked, {concerned} concerned, {told} told");
    assert!(concerned > 1_000 && told < asked / 2, "{concerned}, {told} of {asked}");
}
