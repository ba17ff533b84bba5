//! One worker: connections both ways, answers, drops, chains; every book exact.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::flows::{Load, Traffic};
use common::packets::{ACK, Packet, RST, SYN, verify_ip};
use common::{DNS, DNS_V6, Shape, WEB, WEB_V6, World, at, host_v4, host_v6, mac, web_and_dns};
use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Icmpv4Type, Icmpv6Type, NetSlice,
    PacketBuilder, SlicedPacket, TransportSlice,
};
use model::drops::DropReason;
use model::ids::Protocol;
use std::net::{IpAddr, SocketAddr};

const CLIENT: u8 = 10;

#[test]
fn a_worker_between_two_wires() {
    let mut world = World::new(Shape::default());
    let start = world.engine.mbufs();
    assert_eq!(start.0, start.1);
    world.publish(&web_and_dns(1, &[11, 12, 13]));

    arp(&mut world);
    neighbour_discovery(&mut world);
    echo(&mut world);
    nobody_listens(&mut world);
    dropped(&mut world);
    split_headers(&mut world);
    println!("answers and drops: {:?}", common::drops(&world.engine));
    chains(&mut world);
    connections(&mut world);

    let ledgers = world.finish("one worker");
    assert_eq!(ledgers.len(), 1);
    assert_eq!((ledgers[0].handed_in, ledgers[0].handed_out, ledgers[0].to_host), (0, 0, 0));
}

fn client(destination: &str) -> Packet {
    let destination = at(destination);
    let ip = if destination.is_ipv4() { host_v4(0, CLIENT) } else { host_v6(0, CLIENT) };
    Packet {
        from: mac(0, CLIENT),
        to: mac(0, 1),
        protocol: Protocol::Tcp,
        source: SocketAddr::new(ip, 40_000),
        destination,
        ttl: 64,
        flags: SYN,
        payload: b"abc".to_vec(),
    }
}

fn arp(world: &mut World) {
    let ask = |world: &mut World, wire: usize, target: [u8; 4]| {
        let (asker, IpAddr::V4(ip)) = (mac(wire, CLIENT), host_v4(wire, CLIENT)) else {
            panic!("family")
        };
        let request = ArpPacket::new(
            ArpHardwareId::ETHERNET,
            EtherType::IPV4,
            ArpOperation::REQUEST,
            &asker,
            &ip.octets(),
            &[0; 6],
            &target,
        );
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2(asker, [0xff; 6]).arp(request.unwrap()).write(&mut bytes).unwrap();
        world.send(wire, 0, &bytes);
    };
    // A frontend on the front wire, a NAT address on the back wire.
    for (wire, target) in [(0, [203, 0, 113, 10]), (1, [198, 18, 1, 200])] {
        ask(world, wire, target);
        let answer = world.next();
        assert_eq!(answer.wire, wire);
        let sliced = SlicedPacket::from_ethernet(&answer.bytes).unwrap();
        let Some(NetSlice::Arp(arp)) = sliced.net else { panic!("no ARP: {answer:?}") };
        assert_eq!(arp.operation(), ArpOperation::REPLY);
        assert_eq!(
            (arp.sender_hw_addr(), arp.sender_protocol_addr()),
            (&mac(wire, 1)[..], &target[..])
        );
        assert_eq!(arp.target_hw_addr(), mac(wire, CLIENT));
        assert_eq!(answer.bytes[..6], mac(wire, CLIENT));
    }
    let before = world.dropped(DropReason::ArpNotOurs);
    ask(world, 1, [203, 0, 113, 10]);
    ask(world, 0, [198, 18, 0, 77]);
    world.settle();
    assert_eq!(world.dropped(DropReason::ArpNotOurs) - before, 2);
}

fn neighbour_discovery(world: &mut World) {
    let (IpAddr::V6(source), IpAddr::V6(target)) = (host_v6(1, 11), host_v6(1, 200)) else {
        panic!("family")
    };
    let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
    group[13..].copy_from_slice(&target.octets()[13..]);
    let mut body = target.octets().to_vec();
    body.extend([1, 1]);
    body.extend(mac(1, 11));
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(mac(1, 11), [0x33, 0x33, 0xff, group[13], group[14], group[15]])
        .ipv6(source.octets(), group, 255)
        .icmpv6_raw(135, 0, [0; 4])
        .write(&mut bytes, &body)
        .unwrap();
    let answer = world.exchange(1, 0, &bytes);
    assert_eq!((answer.wire, answer.bytes.len()), (1, 14 + 40 + 32));
    let sliced = SlicedPacket::from_ethernet(&answer.bytes).unwrap();
    let (ip, hops) = verify_ip(&answer.bytes, &sliced);
    assert_eq!((ip, hops), ((target.into(), source.into()), 255));
    let l4 = &answer.bytes[54..];
    assert_eq!((l4[0], &l4[8..24], &l4[26..32]), (136, &target.octets()[..], &mac(1, 1)[..]));
}

fn echo(world: &mut World) {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(mac(0, CLIENT), mac(0, 1))
        .ipv4([198, 18, 0, CLIENT], [203, 0, 113, 10], 64)
        .icmpv4_echo_request(7, 9)
        .write(&mut bytes, b"ping of fifty-six bytes")
        .unwrap();
    let answer = world.exchange(0, 0, &bytes);
    let sliced = SlicedPacket::from_ethernet(&answer.bytes).unwrap();
    let (ip, _) = verify_ip(&answer.bytes, &sliced);
    assert_eq!(ip, (at(WEB).ip(), host_v4(0, CLIENT)));
    let Some(TransportSlice::Icmpv4(icmp)) = sliced.transport else { panic!("{answer:?}") };
    assert!(matches!(icmp.icmp_type(), Icmpv4Type::EchoReply(e) if (e.id, e.seq) == (7, 9)));
    assert_eq!(icmp.payload(), b"ping of fifty-six bytes");

    let (IpAddr::V6(source), IpAddr::V6(target)) = (host_v6(0, CLIENT), at(WEB_V6).ip()) else {
        panic!("family")
    };
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(mac(0, CLIENT), mac(0, 1))
        .ipv6(source.octets(), target.octets(), 64)
        .icmpv6_echo_request(8, 10)
        .write(&mut bytes, b"and six")
        .unwrap();
    let answer = world.exchange(0, 0, &bytes);
    let sliced = SlicedPacket::from_ethernet(&answer.bytes).unwrap();
    assert_eq!(verify_ip(&answer.bytes, &sliced).0, (target.into(), source.into()));
    let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!("{answer:?}") };
    assert!(matches!(icmp.icmp_type(), Icmpv6Type::EchoReply(e) if (e.id, e.seq) == (8, 10)));
    assert_eq!(icmp.payload(), b"and six");
}

/// Ports that no service has: refused at once, in both families and protocols.
fn nobody_listens(world: &mut World) {
    for destination in ["203.0.113.10:81", "[2001:db8:f::10]:81"] {
        let syn = client(destination);
        let answer = world.exchange(0, 0, &syn.build());
        let rst = answer.packet();
        assert_eq!((answer.wire, rst.flags), (0, RST | ACK));
        assert_eq!(rst, Packet { ttl: 64, ..syn.reply(RST | ACK, Vec::new()) });
        // A packet of no connection to a port that is served.
        let stray =
            Packet { destination: SocketAddr::new(at(destination).ip(), 80), ..syn.clone() };
        let answer = world.exchange(0, 0, &Packet { flags: ACK, ..stray.clone() }.build());
        assert_eq!(answer.packet(), stray.reply(RST, Vec::new()));

        let udp = Packet { protocol: Protocol::Udp, flags: 0, ..syn };
        let answer = world.exchange(0, 0, &udp.build());
        let sliced = SlicedPacket::from_ethernet(&answer.bytes).unwrap();
        let (ip, _) = verify_ip(&answer.bytes, &sliced);
        assert_eq!(ip, (udp.destination.ip(), udp.source.ip()));
        let kind = match sliced.transport {
            Some(TransportSlice::Icmpv4(icmp)) => (icmp.type_u8(), icmp.code_u8()),
            Some(TransportSlice::Icmpv6(icmp)) => (icmp.type_u8(), icmp.code_u8()),
            other => panic!("{other:?}"),
        };
        assert_eq!(kind, if udp.source.is_ipv4() { (3, 3) } else { (1, 4) });
    }
}

fn dropped(world: &mut World) {
    let good = client(WEB).build();
    let mut bad_sum = good.clone();
    bad_sum[24] ^= 1;
    let mut not_ours = good.clone();
    not_ours[5] ^= 1;
    let elsewhere = client("198.51.100.1:80").build();
    let rst = Packet { flags: RST, ..client(WEB) }.build();
    let mut wrong_l4 = Packet { flags: ACK, ..client(WEB) }.build();
    *wrong_l4.last_mut().unwrap() ^= 1;
    for (bytes, reason) in [
        (&good[..13], DropReason::EthernetTruncated),
        (&good[..20], DropReason::IpTruncated),
        (&bad_sum[..], DropReason::Ipv4Checksum),
        (&not_ours[..], DropReason::NotOurMac),
        (&elsewhere[..], DropReason::NotOurs),
        (&rst[..], DropReason::TcpNoConnection),
        (&wrong_l4[..], DropReason::L4Checksum),
    ] {
        let before = world.dropped(reason);
        for _ in 0..50 {
            world.send(0, 0, bytes);
        }
        assert!(world.drain_all().is_empty());
        world.settle();
        assert_eq!(world.dropped(reason) - before, 50, "{reason:?}");
    }
}

/// Headers lie in the first segment: what doesn't is dropped by name, and freed whole.
fn split_headers(world: &mut World) {
    for (frontend, cut, reason) in [
        (WEB, 30, DropReason::IpTruncated),
        (WEB, 50, DropReason::L4Truncated),
        (WEB_V6, 70, DropReason::L4Truncated),
    ] {
        let before = world.dropped(reason);
        let bytes = client(frontend).build();
        for _ in 0..50 {
            world.send_segments(0, 0, &[&bytes[..cut], &bytes[cut..]]);
        }
        assert!(world.drain_all().is_empty());
        world.settle();
        assert_eq!(world.dropped(reason) - before, 50, "{reason:?}");
    }
}

/// Chains are forwarded whole, and an answer to one frees its tail.
fn chains(world: &mut World) {
    for (frontend, flags) in [(WEB, SYN), (WEB_V6, SYN), (DNS, 0), (DNS_V6, 0)] {
        let mut packet = client(frontend);
        packet.source.set_port(50_000);
        if flags == 0 {
            packet.protocol = Protocol::Udp;
        }
        packet.flags = flags;
        packet.payload = (0..1200_u32).map(|n| (n % 251) as u8).collect();
        let bytes = packet.build();
        let pieces: [&[u8]; 3] = [&bytes[..90], &bytes[90..91], &bytes[91..]];
        world.send_segments(0, 0, &pieces);
        let arrived = world.next();
        assert_eq!(arrived.wire, 1);
        let at_backend = arrived.packet();
        assert_eq!(at_backend.payload, packet.payload);
        // And back, as a chain again.
        let payload = at_backend.payload.iter().rev().copied().collect();
        let reply = at_backend.reply(if flags == 0 { 0 } else { SYN | ACK }, payload).build();
        world.send_segments(1, 0, &[&reply[..80], &reply[80..]]);
        let at_client = world.next().packet();
        assert_eq!(at_client.source, packet.destination);
        assert!(at_client.payload.iter().eq(packet.payload.iter().rev()));
    }
    world.settle();
    for destination in [WEB, WEB_V6, "203.0.113.10:81", "[2001:db8:f::10]:81"] {
        let packet = Packet { flags: ACK, payload: vec![7; 1000], ..client(destination) };
        let bytes = packet.build();
        for _ in 0..100 {
            world.send_segments(0, 0, &[&bytes[..80], &bytes[80..500], &bytes[500..]]);
            let answer = world.next().packet();
            assert_eq!((answer.flags, answer.payload.len()), (RST, 0));
        }
    }
    world.settle();
    assert_eq!(world.pool.in_use(), 0, "the tails are free again");
}

fn connections(world: &mut World) {
    let (sent, inserts) = (world.engine.ledger().sent, world.inserts(0));
    let traffic = Traffic::run(world, Load { flows: 2_000, packets: 12, ..Load::default() });
    assert_eq!(traffic.came, [24_000; 2]);
    assert_eq!((traffic.out_of_order, traffic.strayed), (0, 0));
    world.settle();
    assert_eq!(world.engine.ledger().sent - sent, 48_000);
    assert_eq!(world.inserts(0) - inserts, 2_000);
    let mut backends: Vec<_> = traffic.flows.iter().map(|f| f.seen.unwrap().0).collect();
    backends.sort();
    backends.dedup();
    assert_eq!(backends.len(), 12, "3 hosts, 2 families, 2 protocols");
    assert!(traffic.flows.iter().all(|flow| flow.seen.unwrap().1.ip() == nat(flow.client)));
}

fn nat(client: SocketAddr) -> IpAddr {
    if client.is_ipv4() { host_v4(1, 200) } else { host_v6(1, 200) }
}
