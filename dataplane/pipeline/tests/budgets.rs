//! Who may use up what: floods of one kind, on one link, beside what has to go on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::packets::{ACK, Mac, Packet, SYN};
use common::workers::Random;
use common::{
    BACK, BACK_PORT, FRONT, FRONT_MAC, FRONT_PORT, ROUTER_MAC, World, at, backend_ip, client,
    frontend_ip, mac_of, nat_ip, one, raw,
};
use model::desired::BackendState;
use model::drops::DropReason;
use model::ids::{PortId, Protocol};
use pipeline::answer::Class;
use pipeline::frame::Verdict;
use pipeline::host_flows::HostFlows;
use pipeline::{Now, Options, Pipeline};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Three seconds, a hundred foreign packets each millisecond: ten times the largest budget.
const SECONDS: u64 = 3;
const FLOOD_EACH_MS: usize = 100;

/// A host far away, anybody's to forge.
fn far(v6: bool, random: &mut Random) -> IpAddr {
    let n = random.below(60_000) as u16;
    if v6 {
        format!("2001:db8:ffff::{n:x}").parse().unwrap()
    } else {
        IpAddr::from([192, 0, 2, (n % 250) as u8 + 1])
    }
}

fn own(v6: bool) -> IpAddr {
    client(v6, 1)
}

/// From a MAC to the gateway's front port.
fn packet(protocol: Protocol, from: Mac, source: SocketAddr, destination: SocketAddr) -> Packet {
    let v6 = source.is_ipv6();
    let mut packet = Packet::to_frontend(protocol, v6, 10, (1, 1)).flags(ACK);
    (packet.from, packet.source, packet.destination) = (from, source, destination);
    packet
}

fn with_ttl(packet: &Packet, ttl: u8) -> Vec<u8> {
    let mut bytes = packet.build();
    if packet.source.is_ipv6() {
        bytes[21] = ttl;
    } else {
        bytes[22] = ttl;
        raw::fix_ipv4(&mut bytes, 14);
    }
    bytes
}

/// Runs a flood beside what must not be lost, and gives how much of the flood passed. `flood` and
/// `good` make the packets of a moment with the port that they come in by.
fn flood_beside(
    pipeline: &mut Pipeline,
    world: &World,
    mut flood: impl FnMut(&mut Random) -> (Vec<u8>, PortId),
    mut good: impl FnMut(u64) -> Vec<(Vec<u8>, PortId)>,
) -> u64 {
    let (mut random, mut passed) = (Random(0x5eed), 0);
    for ms in 1_000..1_000 + SECONDS * 1_000 {
        for _ in 0..FLOOD_EACH_MS {
            let (bytes, port) = flood(&mut random);
            let out = one(pipeline, &world.tables, &bytes, port, Now { ms });
            passed += u64::from(!matches!(out.verdict, Verdict::Drop(_)));
        }
        for (bytes, port) in good(ms) {
            let out = one(pipeline, &world.tables, &bytes, port, Now { ms });
            let verdict = out.verdict;
            assert!(
                matches!(verdict, Verdict::Host(_) | Verdict::Answer(_)),
                "at {ms} ms: {verdict:?} of {bytes:02x?}"
            );
        }
    }
    passed
}

fn refused(pipeline: &Pipeline, class: Class) -> u64 {
    pipeline.counters().budget(class, FRONT).unwrap().refused.read()
}

/// Forged BGP and BFD with a TTL of 64, some of it in the name of the very neighbour, never costs
/// the neighbours one packet.
#[test]
fn forged_routing_leaves_neighbours_theirs() {
    for v6 in [false, true] {
        let world = World::new(1);
        let mut pipeline = common::pipeline(&Options::default());
        let neighbour = client(v6, 10);
        let flood = |random: &mut Random| {
            let source = if random.below(4) == 0 { neighbour } else { far(v6, random) };
            let (protocol, port) = [(Protocol::Tcp, 179), (Protocol::Udp, 3784)][random.below(2)];
            let source = at(source, 1024 + random.below(60_000) as u16);
            let flood = packet(protocol, ROUTER_MAC, source, at(own(v6), port));
            (with_ttl(&flood, 64), FRONT_PORT)
        };
        let good = |ms| {
            let mut good = Vec::new();
            if ms % 10 == 0 {
                let (from, to) = (at(neighbour, 50_000), at(own(v6), 179));
                let bgp = packet(Protocol::Tcp, mac_of(0, 10), from, to);
                good.push((with_ttl(&bgp, 1), FRONT_PORT));
            }
            if ms % 50 == 0 {
                let (from, to) = (at(client(v6, 99), 50_000), at(own(v6), 3784));
                let bfd = packet(Protocol::Udp, mac_of(0, 99), from, to);
                good.push((with_ttl(&bfd, 255), FRONT_PORT));
            }
            good
        };
        let passed = flood_beside(&mut pipeline, &world, flood, good);
        assert!(passed < 20_000 * SECONDS + 5_000, "{passed} of the flood passed");
        assert_eq!(refused(&pipeline, Class::HostRouting), 0);
        assert!(refused(&pipeline, Class::HostOther) > 100_000 * SECONDS / 2);
    }
}

/// The host's own queries go on beside noise to the ports that it asks from, whichever worker notes
/// them and whichever receives their answers.
#[test]
fn noise_leaves_the_host_its_answers() {
    for v6 in [false, true] {
        let world = World::new(1);
        let flows = Arc::new(HostFlows::new(1 << 16));
        let options = || Options { host_flows: Arc::clone(&flows), ..Options::default() };
        let (sender, mut receiver) = (common::pipeline(&options()), common::pipeline(&options()));
        let server = client(v6, 200);
        let flood = |random: &mut Random| {
            let source = at(far(v6, random), [53, 443][random.below(2)]);
            let to = at(own(v6), 32_768 + random.below(20_000) as u16);
            let protocol = [Protocol::Tcp, Protocol::Udp][random.below(2)];
            (packet(protocol, ROUTER_MAC, source, to).build(), FRONT_PORT)
        };
        let good = |ms: u64| {
            let local = at(own(v6), 32_768 + (ms % 20_000) as u16);
            let query = packet(Protocol::Udp, FRONT_MAC, local, at(server, 53));
            sender.host_flows().note(&query.build(), Now { ms });
            let answer = packet(Protocol::Udp, ROUTER_MAC, at(server, 53), local);
            vec![(answer.build(), FRONT_PORT)]
        };
        flood_beside(&mut receiver, &world, flood, good);
        assert_eq!(refused(&receiver, Class::HostBegun), 0);
        assert!(refused(&receiver, Class::HostOther) > 0);
        let taken = receiver.counters().budget(Class::HostBegun, FRONT).unwrap().taken.read();
        assert_eq!(taken, SECONDS * 1_000);
    }
}

/// ARP and neighbour discovery in front, for a frontend and for the host, cost the link behind none
/// of its own.
#[test]
fn a_flood_in_front_leaves_the_link_behind_its_neighbours() {
    let mut world = World::new(1);
    let frontends = [false, true].map(|v6| at(frontend_ip(v6), 80));
    world.put(common::service(&common::key("web", Protocol::Tcp), &frontends, &[]));
    let mut pipeline = common::pipeline(&Options::default());
    let asks = |mac: Mac, source: IpAddr, target: IpAddr| match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => raw::arp_request(mac, source, target),
        (IpAddr::V6(source), IpAddr::V6(target)) => raw::solicitation(mac, source, target),
        _ => panic!("of one family"),
    };
    let flood = |random: &mut Random| {
        let v6 = random.below(2) == 1;
        let target = [frontend_ip(v6), own(v6)][random.below(2)];
        let who = 10 + random.below(200) as u8;
        (asks(mac_of(0, who), client(v6, who), target), FRONT_PORT)
    };
    let good = |ms: u64| {
        let (v6, who) = (ms % 2 == 1, 10 + (ms % 90) as u8);
        let target = [nat_ip(v6, 0), backend_ip(v6, 1)][(ms / 2 % 2) as usize];
        vec![(asks(mac_of(1, who), backend_ip(v6, who), target), BACK_PORT)]
    };
    flood_beside(&mut pipeline, &world, flood, good);
    for class in [Class::Neighbour, Class::HostNeighbour] {
        assert!(refused(&pipeline, class) > 0);
        assert_eq!(pipeline.counters().budget(class, BACK).unwrap().refused.read(), 0);
    }
}

/// A traceroute of a thousand hosts doesn't keep a sender from learning its MTU.
#[test]
fn time_exceeded_leaves_packet_too_big_its_budget() {
    for v6 in [false, true] {
        let mut world = World::new(1);
        let key = common::key("web", Protocol::Udp);
        let backends = [(at(backend_ip(v6, 10), 8080), model::desired::BackendState::Active)];
        world.put(common::service(&key, &[at(frontend_ip(v6), 80)], &backends));
        let mut pipeline = common::pipeline(&Options::default());
        let sent = |who, port| Packet::to_frontend(Protocol::Udp, v6, who, (port, 80));
        let begun =
            one(&mut pipeline, &world.tables, &sent(11, 7).build(), FRONT_PORT, Now { ms: 900 });
        assert!(matches!(begun.verdict, Verdict::Send(_)), "{:?}", begun.verdict);
        let flood = |_: &mut Random| (with_ttl(&sent(11, 7), 1), FRONT_PORT);
        let good = |ms: u64| match ms % 20 {
            0 => vec![(dont_fragment(&sent(11, 7).payload([1; 1_600])), FRONT_PORT)],
            _ => vec![],
        };
        flood_beside(&mut pipeline, &world, flood, good);
        assert!(refused(&pipeline, Class::TimeExceeded) > 0);
        assert_eq!(refused(&pipeline, Class::TooBig), 0);
    }
}

fn dont_fragment(packet: &Packet) -> Vec<u8> {
    let mut bytes = packet.build();
    if packet.source.is_ipv4() {
        bytes[20] |= 0x40;
        raw::fix_ipv4(&mut bytes, 14);
    }
    bytes
}

/// Whatever strangers send, and whatever the host answers them, the table of what the host began
/// stays empty; full, it keeps what it has and notes nothing more.
#[test]
fn strangers_begin_nothing_for_the_host() {
    let world = World::new(1);
    let flows = Arc::new(HostFlows::new(64));
    let options = Options { host_flows: Arc::clone(&flows), ..Options::default() };
    let mut pipeline = common::pipeline(&options);
    let mut random = Random(3);
    for n in 0..20_000u64 {
        let now = Now { ms: 1_000 + n };
        let v6 = random.below(2) == 1;
        let protocol = [Protocol::Tcp, Protocol::Udp][random.below(2)];
        let source = at(far(v6, &mut random), 1 + random.below(65_000) as u16);
        let port = [22, 53, 179, 8_080][random.below(4)];
        let came = packet(protocol, ROUTER_MAC, source, at(own(v6), port)).flags(SYN);
        one(&mut pipeline, &world.tables, &came.build(), FRONT_PORT, now);
        flows.note(&came.reply(SYN | ACK, []).build(), now);
        flows.note(&came.reply(ACK, [1]).build(), now);
        one(&mut pipeline, &world.tables, &came.flags(ACK).build(), FRONT_PORT, now);
    }
    assert_eq!(pipeline.counters().budget(Class::HostBegun, FRONT).unwrap().taken.read(), 0);
    let begins = |n: u16| {
        packet(Protocol::Udp, FRONT_MAC, at(own(false), 32_768 + n), at(client(false, 9), 53))
    };
    let now = Now { ms: 30_000 };
    (0..1_000).for_each(|n| flows.note(&begins(n).build(), now));
    let answered = |n: &u16, pipeline: &mut Pipeline| {
        let before = pipeline.counters().budget(Class::HostBegun, FRONT).unwrap().taken.read();
        let out = one(pipeline, &world.tables, &begins(*n).reply(ACK, []).build(), FRONT_PORT, now);
        assert!(!matches!(out.verdict, Verdict::Drop(reason) if reason != DropReason::HostLimited));
        pipeline.counters().budget(Class::HostBegun, FRONT).unwrap().taken.read() > before
    };
    let kept = (0..1_000).filter(|n| answered(n, &mut pipeline)).count();
    assert_eq!(kept, 64);
}

/// SYNs with forged sources on the link, which the backend answers: the kernel is asked for few of
/// them, and for as many as before of those that have completed a handshake.
#[test]
fn forged_sources_leave_verified_clients_their_requests() {
    for v6 in [false, true] {
        let mut world = World::new(1);
        let key = common::key("web", Protocol::Tcp);
        let backend = (at(backend_ip(v6, 10), 8080), BackendState::Active);
        world.put(common::service(&key, &[at(frontend_ip(v6), 80)], &[backend]));
        let mut pipeline =
            common::pipeline(&Options { connections: [1 << 16; 2], ..Options::default() });
        let known: Vec<IpAddr> = world.input.neighbours.iter().map(|(_, ip, _)| *ip).collect();
        let stranger = (2..=255).find(|n| !known.contains(&client(v6, *n))).unwrap();
        let (mut asked, mut answered) = (0, 0);
        for n in 0..4_000_u16 {
            let mut syn = Packet::to_frontend(Protocol::Tcp, v6, stranger, (1_000 + n, 80));
            // Forged by somebody beyond the router: the MAC tells nothing of who has the address.
            syn.from = ROUTER_MAC;
            let out = one(&mut pipeline, &world.tables, &syn.build(), FRONT_PORT, Now { ms: 1 });
            if out.verdict != Verdict::Send(BACK_PORT) {
                continue;
            }
            let reply = Packet::parse(out.frame()).reply(SYN | ACK, vec![]).build();
            let out = one(&mut pipeline, &world.tables, &reply, BACK_PORT, Now { ms: 1 });
            answered += 1;
            assert_eq!(out.verdict, Verdict::Drop(DropReason::NeighbourUnresolved));
            asked += pipeline.take_requests().count();
        }
        assert!(answered > 1_000 && asked <= 200, "{asked} requests of {answered} answers");
        assert!(refused(&pipeline, Class::RequestHalfOpen) >= answered - 200);
        assert_eq!(refused(&pipeline, Class::Request), 0);
    }
}
