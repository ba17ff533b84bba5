//! Fragments and ICMP errors between two workers: by way of their home to the owner, both ways.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::flows::{Load, Random, Traffic};
use common::packets::{Packet, verify_ip};
use common::{ROUTER, Shape, World, cores, host_v4, host_v6, mac, web_and_dns};
use etherparse::checksum::Sum16BitWords;
use etherparse::{PacketBuilder, SlicedPacket};
use model::ids::Protocol;
use pipeline::adjacency::Role;
use std::net::{IpAddr, SocketAddr};

/// Bytes of the datagram in the first fragment, UDP header included.
const CUT: usize = 512;

#[test]
fn fragments_and_errors_find_their_owner() {
    let wires = vec![(Role::Front, 2), (Role::Back, 2)];
    let mut world = World::new(Shape { cores: cores(2), wires, ..Shape::default() });
    world.publish(&web_and_dns(1, &[11, 12, 13]));
    let traffic = Traffic::run(&mut world, Load { flows: 800, packets: 2, ..Load::default() });
    let mut random = Random(5);
    let before = world.engine.ledger();
    let (mut datagrams, mut errors) = (0, 0);
    for (number, flow) in traffic.flows.iter().enumerate() {
        let (backend, nat) = flow.seen.unwrap();
        let queue = random.below(2);
        if flow.protocol == Protocol::Udp {
            let to_backend = datagram(0, (flow.client, flow.frontend), number);
            let whole = across(&mut world, (0, queue), &to_backend, number as u32);
            assert_eq!((whole.source, whole.destination), (nat, backend));
            assert_eq!(whole.payload, to_backend.payload);
            let to_client = datagram(1, (backend, nat), number + 1);
            let whole = across(&mut world, (1, random.below(2)), &to_client, number as u32);
            assert_eq!((whole.source, whole.destination), (flow.frontend, flow.client));
            assert_eq!(whole.payload, to_client.payload);
            datagrams += 2;
        }
        let at_backend = Packet {
            protocol: flow.protocol,
            flags: common::packets::ACK,
            ..datagram(0, (nat, backend), number)
        };
        let answer = world.exchange(1, queue, &too_big(&at_backend.build()));
        assert_eq!(answer.wire, 0);
        check_error(&answer.bytes, (flow.client, flow.frontend));
        errors += 1;
    }
    world.settle();
    let after = world.engine.ledger();
    println!(
        "fragments: {datagrams} datagrams in two fragments each, {errors} errors, {} hand-overs",
        after.handed_in - before.handed_in
    );
    assert_eq!(after.dropped, 0, "{:?}", common::drops(&world.engine));
    assert_eq!(after.received - before.received, 2 * datagrams + errors);
    let ledgers = world.finish("fragments");
    assert!(ledgers.iter().all(|ledger| ledger.handed_in > 300 && ledger.handed_out > 300));
}

fn datagram(wire: usize, (source, destination): (SocketAddr, SocketAddr), fill: usize) -> Packet {
    Packet {
        from: mac(wire, ROUTER),
        to: mac(wire, 1),
        protocol: Protocol::Udp,
        source,
        destination,
        ttl: 64,
        flags: 0,
        payload: (0..1000).map(|place| (place * 7 + fill) as u8).collect(),
    }
}

/// Sends a datagram in two fragments, and gives what the receiver makes of what comes.
fn across(world: &mut World, (wire, queue): (usize, usize), packet: &Packet, id: u32) -> Packet {
    let bytes = packet.build();
    let pieces = if packet.source.is_ipv4() { split_v4(&bytes, id) } else { split_v6(&bytes, id) };
    let came = pieces.map(|piece| {
        let arrived = world.exchange(wire, queue, &piece);
        assert_ne!(arrived.wire, wire);
        arrived.bytes
    });
    Packet::parse(&if packet.source.is_ipv4() { join_v4(&came) } else { join_v6(&came) })
}

fn fix_v4(bytes: &mut [u8]) {
    let len = (bytes.len() - 14) as u16;
    bytes[16..18].copy_from_slice(&len.to_be_bytes());
    bytes[24..26].fill(0);
    let sum = Sum16BitWords::new().add_slice(&bytes[14..34]).ones_complement();
    bytes[24..26].copy_from_slice(&sum.to_ne_bytes());
}

fn split_v4(bytes: &[u8], id: u32) -> [Vec<u8>; 2] {
    let (header, body) = bytes.split_at(34);
    [(0x2000, &body[..CUT]), ((CUT / 8) as u16, &body[CUT..])].map(|(offset, body)| {
        let mut piece = [header, body].concat();
        piece[18..20].copy_from_slice(&(id as u16).to_be_bytes());
        piece[20..22].copy_from_slice(&offset.to_be_bytes());
        fix_v4(&mut piece);
        piece
    })
}

fn join_v4([first, last]: &[Vec<u8>; 2]) -> Vec<u8> {
    assert_eq!((&first[20..22], &last[20..22]), (&[0x20, 0][..], &[0, (CUT / 8) as u8][..]));
    assert_eq!(first[18..20], last[18..20]);
    let mut whole = [first, &last[34..]].concat();
    whole[20..22].fill(0);
    fix_v4(&mut whole);
    whole
}

fn split_v6(bytes: &[u8], id: u32) -> [Vec<u8>; 2] {
    let (header, body) = bytes.split_at(54);
    [(1u16, &body[..CUT]), (CUT as u16, &body[CUT..])].map(|(offset, body)| {
        let mut extension = vec![header[20], 0];
        extension.extend(offset.to_be_bytes());
        extension.extend(id.to_be_bytes());
        let mut piece = [header, &extension, body].concat();
        let len = (piece.len() - 54) as u16;
        piece[18..20].copy_from_slice(&len.to_be_bytes());
        piece[20] = 44;
        piece
    })
}

fn join_v6([first, last]: &[Vec<u8>; 2]) -> Vec<u8> {
    assert_eq!((first[20], &first[56..58], &last[56..58]), (44, &[0, 1][..], &[2, 0][..]));
    let mut whole = [&first[..54], &first[62..], &last[62..]].concat();
    let len = (whole.len() - 54) as u16;
    whole[18..20].copy_from_slice(&len.to_be_bytes());
    whole[20] = first[54];
    whole
}

/// What a router behind the gateway says of a packet that is too big for its next link.
fn too_big(packet: &[u8]) -> Vec<u8> {
    let link = PacketBuilder::ethernet2(mac(1, ROUTER), mac(1, 1));
    let quoted = &packet[14..14 + 200];
    let mut bytes = Vec::new();
    if packet[12..14] == [0x08, 0x00] {
        let IpAddr::V4(router) = host_v4(1, ROUTER) else { panic!("family") };
        let nat = packet[26..30].try_into().unwrap();
        let ip = link.ipv4(router.octets(), nat, 64);
        ip.icmpv4_raw(3, 4, [0, 0, 0x05, 0x78]).write(&mut bytes, quoted).unwrap();
    } else {
        let IpAddr::V6(router) = host_v6(1, ROUTER) else { panic!("family") };
        let nat = packet[22..38].try_into().unwrap();
        let ip = link.ipv6(router.octets(), nat, 64);
        ip.icmpv6_raw(2, 0, [0, 0, 0x05, 0x78]).write(&mut bytes, quoted).unwrap();
    }
    bytes
}

/// The client must recognise its own packet in the quotation.
fn check_error(bytes: &[u8], (client, frontend): (SocketAddr, SocketAddr)) {
    let sliced = SlicedPacket::from_ethernet(bytes).unwrap();
    let ((_, to), _) = verify_ip(bytes, &sliced);
    assert_eq!(to, client.ip());
    let l4 = if client.is_ipv4() { 34 } else { 54 };
    let kind = if client.is_ipv4() { [3, 4] } else { [2, 0] };
    assert_eq!((&bytes[l4..l4 + 2], &bytes[l4 + 4..l4 + 8]), (&kind[..], &[0, 0, 5, 0x78][..]));
    let quoted = &bytes[l4 + 8..];
    let (sum, ports) = match (client.ip(), frontend.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            assert_eq!((&quoted[12..16], &quoted[16..20]), (&from.octets()[..], &to.octets()[..]));
            let sum = Sum16BitWords::new().add_slice(&quoted[..20]).ones_complement();
            (sum, &quoted[20..24])
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            assert_eq!((&quoted[8..24], &quoted[24..40]), (&from.octets()[..], &to.octets()[..]));
            (0, &quoted[40..44])
        }
        _ => panic!("two families"),
    };
    assert_eq!(sum, 0, "the quoted header's checksum");
    let expected = [client.port().to_be_bytes(), frontend.port().to_be_bytes()].concat();
    assert_eq!(ports, expected);
}
