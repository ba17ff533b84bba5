//! Whatever comes in: never a panic, always exactly one verdict, and every drop is counted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::packets::{ACK, FIN, Packet, RST, SYN};
use common::workers::Random;
use common::{
    BACK_MAC, BACK_PORT, FRONT_MAC, FRONT_PORT, HEADROOM, World, at, backend_ip, client,
    frontend_ip, mac_of, nat_ip, raw,
};
use model::desired::{BackendState, Delta};
use model::drops::DropReason;
use model::ids::{PortId, Protocol};
use pipeline::adjacency::{Interface, Role};
use pipeline::answer::{Rate, Rates};
use pipeline::frame::{ChecksumReport, Frame, Rx, Verdict};
use pipeline::{Now, Options, Pipeline};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

const VLAN: u16 = 100;
/// The back link's, whose tags the device takes off: what goes there grows by a tag.
const BACK_VLAN: u16 = 200;

fn rx_of(port: PortId) -> Rx {
    Rx { vlan: (port == BACK_PORT).then_some(BACK_VLAN), ..common::rx(port) }
}

/// What came out, counted by us: the pipeline's own counters must agree.
struct Gateway {
    world: World,
    pipeline: Pipeline,
    given: u64,
    sent: u64,
    answered: u64,
    host: u64,
    handed: u64,
    dropped: [u64; DropReason::COUNT],
    buffer: Vec<u8>,
}

impl Gateway {
    fn new(workers: u8) -> Self {
        let mut world = World::new(workers);
        let tagged = Interface {
            name: "tagged".into(),
            vlan: Some(VLAN),
            role: Role::Both,
            ..world.input.interfaces[0].clone()
        };
        world.input.interfaces[1].vlan = Some(BACK_VLAN);
        world.input.interfaces.push(tagged);
        world.publish_adjacencies();
        let mut changed = Vec::new();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let backends =
                [false, true].map(|v6| (at(backend_ip(v6, 10), 8080), BackendState::Active));
            let frontends = [false, true].map(|v6| at(frontend_ip(v6), 80));
            let key = common::key("web", protocol);
            changed.push(Arc::new(common::service(&key, &frontends, &backends)));
        }
        world.publish(&Delta { changed, removed: vec![] });
        // Limits would hide what the answers do.
        let rates = Rates::all(Rate { per_second: 1 << 30, burst: 1 << 30 });
        let pipeline = common::pipeline(&Options { rates, secret: 9, ..Options::default() });
        Self {
            world,
            pipeline,
            given: 0,
            sent: 0,
            answered: 0,
            host: 0,
            handed: 0,
            dropped: [0; DropReason::COUNT],
            buffer: vec![0; 4096],
        }
    }

    /// Processes `head`, followed by so many bytes unseen. `room`: around the frame in its buffer.
    fn give(&mut self, head: &[u8], tail_len: usize, room: usize, rx: Rx) -> Verdict {
        let end = room + head.len();
        self.buffer[room..end].copy_from_slice(head);
        let buffer = &mut self.buffer[..end + 4 * room];
        let mut frames = [Frame::new(buffer, room, end, tail_len, rx)];
        self.pipeline.process_burst(&self.world.tables, &mut frames, Now { ms: 10 });
        let [frame] = &frames;
        self.given += 1;
        match frame.verdict {
            Verdict::Pending => panic!("no verdict for {head:02x?}"),
            Verdict::Send(_) => self.sent += 1,
            Verdict::Answer(_) => self.answered += 1,
            Verdict::Host(_) => {
                self.host += 1;
                let untagged = if head[12..14] == [0x81, 0] {
                    [&head[..12], &head[16..]].concat()
                } else {
                    head.to_vec()
                };
                assert!(untagged.starts_with(frame.bytes()), "the host gets what came");
            }
            Verdict::Handover(_) => {
                self.handed += 1;
                assert!(head.starts_with(frame.bytes()), "handed over unchanged");
            }
            Verdict::Drop(reason) => self.dropped[reason as usize] += 1,
        }
        frame.verdict
    }

    /// Gives a packet in all manners that differ to the pipeline: as it is, with a device that
    /// vouches for its checksums, without room in its buffer.
    fn give_all(&mut self, bytes: &[u8], port: PortId) {
        let plain = rx_of(port);
        let good = ChecksumReport::Good;
        self.give(bytes, 0, HEADROOM, plain);
        self.give(bytes, 0, HEADROOM, Rx { ip_checksum: good, l4_checksum: good, ..plain });
        self.give(bytes, 0, 0, Rx { ip_checksum: good, ..plain });
    }

    fn check(&self) {
        let dropped: u64 = self.dropped.iter().sum();
        let out = self.sent + self.answered + self.host + self.handed + dropped;
        assert_eq!(self.given, out, "what goes in comes out");
        for reason in DropReason::ALL {
            let counted = self.pipeline.counters().dropped(*reason).read();
            assert_eq!(counted, self.dropped[*reason as usize], "{}", reason.label());
        }
    }

    /// Opens a connection of this worker's; returns a packet of the client's and one of the
    /// backend's.
    fn open(&mut self, protocol: Protocol, v6: bool) -> [Packet; 2] {
        for port in 2000.. {
            let syn = Packet::to_frontend(protocol, v6, 10, (port, 80));
            let out = common::one(
                &mut self.pipeline,
                &self.world.tables,
                &syn.build(),
                FRONT_PORT,
                Now { ms: 10 },
            );
            if out.verdict == Verdict::Send(BACK_PORT) {
                let sent = Packet { vlan: None, ..Packet::parse(out.frame()) };
                let reply = sent.reply(SYN | ACK, vec![]);
                self.give(&reply.build(), 0, HEADROOM, rx_of(BACK_PORT));
                self.given -= 1;
                self.sent -= 1;
                return [syn.flags(ACK).payload([1; 21]), reply.flags(ACK).payload([2; 24])];
            }
        }
        panic!("no port is this worker's");
    }
}

/// Valid packets of all kinds, with the ports that they come in by.
fn valid(gateway: &mut Gateway, v6: bool) -> Vec<(&'static str, Vec<u8>, PortId)> {
    let mut all = Vec::new();
    let mut front = |name, bytes| all.push((name, bytes, FRONT_PORT));
    let [tcp, tcp_reply] = gateway.open(Protocol::Tcp, v6);
    let [udp, udp_reply] = gateway.open(Protocol::Udp, v6);
    let syn = Packet::to_frontend(Protocol::Tcp, v6, 10, (3000, 80));
    front("SYN", syn.build());
    front("TCP", tcp.build());
    front("FIN", tcp.clone().flags(FIN | ACK).build());
    front("last hop", Packet { ttl: 1, ..tcp.clone() }.build());
    front("too long", tcp.clone().payload([0; 1600]).build());
    front("closed port", Packet::to_frontend(Protocol::Tcp, v6, 10, (3000, 81)).build());
    front("closed UDP port", Packet::to_frontend(Protocol::Udp, v6, 10, (3000, 81)).build());
    front("UDP", udp.build());
    front("VLAN", Packet { vlan: Some(VLAN), ..tcp.clone() }.build());
    front("VLAN, SYN", Packet { vlan: Some(VLAN), ..syn.clone() }.build());
    let own = at(client(v6, 1), 22);
    front("host", Packet { destination: own, ..syn.clone() }.build());
    front("host, VLAN", Packet { destination: own, vlan: Some(VLAN), ..syn.clone() }.build());
    for fragment in raw::fragments(&udp.clone().payload([7; 50]), 5, 24) {
        front("fragment", fragment);
    }
    for fragment in raw::fragments(&tcp.clone().payload([7; 50]), 6, 32) {
        front("fragment", fragment);
    }
    let macs = (mac_of(0, 10), FRONT_MAC);
    front("echo", raw::echo(macs, (client(v6, 10), frontend_ip(v6)), &[3; 11]));
    let towards_backend = tcp_reply.clone().payload([0; 30]);
    let seen_by_client = Packet {
        from: FRONT_MAC,
        to: mac_of(0, 10),
        source: tcp.destination,
        destination: tcp.source,
        ..towards_backend
    };
    front("error to backend", raw::icmp_error(&seen_by_client, 60));
    front("other protocol", raw::ip(macs, (client(v6, 10), frontend_ip(v6)), (132, 64), &[1; 30]));
    match (client(v6, 10), frontend_ip(v6)) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            front("ARP", raw::arp_request(mac_of(0, 10), a, b));
            front("options", Packet { options: vec![1; 12], ..tcp.clone() }.build());
            front("no checksum", Packet { checksum: false, ..udp.clone() }.build());
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            front("ND", raw::solicitation(mac_of(0, 10), a, b));
            let options = vec![0, 1, 1, 4, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0, 0, 0];
            let routing = vec![0, 0, 2, 0, 0, 0, 0, 0];
            front("hop by hop", raw::extended(&tcp, &[(0, options.clone())]));
            let chain = [(0, options.clone()), (43, routing), (60, options)];
            front("chain", raw::extended(&udp, &chain));
            let atomic = vec![0, 0, 0, 0, 0, 0, 0, 9];
            front("atomic fragment", raw::extended(&tcp, &[(44, atomic)]));
        }
        _ => panic!("two families"),
    }
    let macs = (mac_of(1, 10), BACK_MAC);
    all.push(("echo", raw::echo(macs, (backend_ip(v6, 10), nat_ip(v6, 0)), &[3; 11]), BACK_PORT));
    all.push(("reply", tcp_reply.build(), BACK_PORT));
    all.push(("UDP reply", udp_reply.build(), BACK_PORT));
    all.push((
        "unknown reply",
        Packet { source: at(backend_ip(v6, 11), 9), ..tcp_reply.clone() }.flags(RST).build(),
        BACK_PORT,
    ));
    for reply in [tcp_reply, udp_reply] {
        let forwarded = reply.reply(ACK, [0; 30]);
        all.push(("error to client", raw::icmp_error(&forwarded, 56), BACK_PORT));
    }
    all
}

#[test]
fn valid_packets_are_what_they_are_called() {
    for v6 in [false, true] {
        let mut gateway = Gateway::new(1);
        let wanted = |name: &str| match name {
            "echo" | "ARP" | "ND" | "closed port" | "closed UDP port" | "last hop" | "too long" => {
                "answer"
            }
            "host" | "host, VLAN" => "host",
            "other protocol" | "unknown reply" => "drop",
            _ => "send",
        };
        for (name, bytes, port) in valid(&mut gateway, v6) {
            let verdict = gateway.give(&bytes, 0, HEADROOM, rx_of(port));
            let got = match verdict {
                Verdict::Send(_) => "send",
                Verdict::Answer(_) => "answer",
                Verdict::Host(_) => "host",
                Verdict::Drop(_) => "drop",
                other => panic!("{name}: {other:?}"),
            };
            assert_eq!(got, wanted(name), "{name}, IPv6 {v6}: {verdict:?}");
        }
        gateway.check();
    }
}

fn everywhere(what: &str, each: impl Fn(&mut Gateway, &[u8], PortId)) -> [u64; DropReason::COUNT] {
    let began = Instant::now();
    let mut given = 0;
    let mut dropped = [0; DropReason::COUNT];
    for (v6, workers) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
        let mut gateway = Gateway::new(workers);
        for (_, bytes, port) in valid(&mut gateway, v6) {
            each(&mut gateway, &bytes, port);
        }
        gateway.check();
        given += gateway.given;
        for (sum, n) in dropped.iter_mut().zip(gateway.dropped) {
            *sum += n;
        }
    }
    let kinds = dropped.iter().filter(|n| **n > 0).count();
    println!("{what}: {given} packets, {kinds} drop reasons, {:.1?}", began.elapsed());
    dropped
}

#[test]
fn every_truncation() {
    let dropped = everywhere("truncations", |gateway, bytes, port| {
        for len in 0..bytes.len().min(200) {
            gateway.give_all(&bytes[..len], port);
        }
    });
    use DropReason::{
        ArpMalformed, EthernetTruncated, IpTruncated, Ipv4TotalLength, Ipv6PayloadLength,
    };
    for reason in [EthernetTruncated, IpTruncated, Ipv4TotalLength, Ipv6PayloadLength, ArpMalformed]
    {
        assert!(dropped[reason as usize] > 0, "{reason:?}");
    }
}

#[test]
fn every_change_of_one_byte() {
    let dropped = everywhere("changes", |gateway, bytes, port| {
        let mut bytes = bytes.to_vec();
        for place in 0..bytes.len().min(130) {
            let was = bytes[place];
            for value in (0..=255).filter(|value| *value != was) {
                bytes[place] = value;
                gateway.give_all(&bytes, port);
            }
            bytes[place] = was;
        }
    });
    use DropReason as R;
    for reason in [
        R::VlanUnknown,
        R::EthertypeUnsupported,
        R::NotOurMac,
        R::ArpMalformed,
        R::ArpNotOurs,
        R::IpVersion,
        R::Ipv4HeaderLength,
        R::Ipv4TotalLength,
        R::Ipv4Checksum,
        R::Ipv6PayloadLength,
        R::Ipv6Extension,
        R::L4Truncated,
        R::TcpHeaderLength,
        R::TcpFlags,
        R::UdpLength,
        R::L4Checksum,
        R::PortZero,
        R::SourceMartian,
        R::SourceOwn,
        R::FragmentMalformed,
        R::FragmentUnknown,
        R::TtlExpired,
        R::NotOurs,
        R::ProtocolUnsupported,
        R::IcmpUnsupported,
        R::IcmpUnmatched,
        R::NdMalformed,
        R::NdNotOurs,
        R::TcpNoConnection,
        R::TransmitOversize,
        R::MtuExceeded,
    ] {
        assert!(dropped[reason as usize] > 0, "{reason:?} is never met");
    }
}

/// Length fields that lie, with the IPv4 checksum made right again: the head alone, and with bytes
/// behind it that would make the lie true.
#[test]
fn every_lying_length() {
    everywhere("lying lengths", |gateway, bytes, port| {
        let l3 = if bytes.get(12..14) == Some(&[0x81, 0]) { 18 } else { 14 };
        let v4 = bytes[l3] >> 4 == 4;
        let l4 = l3 + if v4 { usize::from(bytes[l3] & 15) * 4 } else { 40 };
        let lies = (0..=bytes.len() as u16 + 9).chain([0x7fff, 0x8000, 0xfff7, 0xffff]);
        for (field, lie) in
            [l3 + 2, l3 + 4, l4 + 4].into_iter().flat_map(|f| lies.clone().map(move |l| (f, l)))
        {
            let mut bytes = bytes.to_vec();
            let Some(place) = bytes.get_mut(field..field + 2) else { continue };
            place.copy_from_slice(&lie.to_be_bytes());
            if v4 {
                raw::fix_ipv4(&mut bytes, l3);
            }
            gateway.give_all(&bytes, port);
            gateway.give(&bytes, 65_535, HEADROOM, rx_of(port));
        }
        for nibble in 0..=15u8 {
            for (place, shift) in [(l3, 0), (l4 + 12, 4)] {
                let mut bytes = bytes.to_vec();
                let Some(byte) = bytes.get_mut(place) else { continue };
                *byte = *byte & (0xf0 >> shift) | nibble << shift;
                gateway.give_all(&bytes, port);
                gateway.give(&bytes, 300, HEADROOM, rx_of(port));
            }
        }
    });
}

/// Sets a field to a value, and the IPv4 checksum right.
fn with(bytes: &[u8], at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + value.len()].copy_from_slice(value);
    if bytes[12..14] == [8, 0] {
        raw::fix_ipv4(&mut bytes, 14);
    }
    bytes
}

#[test]
fn lies_have_their_reasons() {
    use DropReason as R;
    let build = |protocol, v6| Packet::to_frontend(protocol, v6, 10, (3000, 80)).build();
    let [tcp, tcp6] = [false, true].map(|v6| build(Protocol::Tcp, v6));
    let [udp, udp6] = [false, true].map(|v6| build(Protocol::Udp, v6));
    let chain = |body: Vec<u8>, kind| {
        raw::extended(&Packet::to_frontend(Protocol::Tcp, true, 10, (3000, 80)), &[(kind, body)])
    };
    let mut wrong = tcp.clone();
    wrong[24] ^= 1;
    let cases = [
        (with(&tcp, 16, &[0, 41]), R::Ipv4TotalLength),
        (with(&tcp, 16, &[0, 19]), R::Ipv4TotalLength),
        (with(&tcp, 16, &[0, 39]), R::L4Truncated),
        (with(&tcp, 14, &[0x44]), R::Ipv4HeaderLength),
        (with(&tcp[..34], 14, &[0x45]), R::Ipv4TotalLength),
        (with(&tcp, 14, &[0x65]), R::IpVersion),
        (wrong, R::Ipv4Checksum),
        (with(&tcp, 46, &[0x40]), R::TcpHeaderLength),
        (with(&tcp, 46, &[0x60]), R::TcpHeaderLength),
        (with(&tcp6, 66, &[0x60]), R::TcpHeaderLength),
        (with(&tcp, 47, &[0]), R::TcpFlags),
        (with(&tcp, 47, &[SYN | FIN]), R::TcpFlags),
        (with(&tcp, 47, &[SYN | RST]), R::TcpFlags),
        (with(&udp, 38, &[0, 7]), R::UdpLength),
        (with(&udp, 38, &[0, 9]), R::UdpLength),
        (with(&udp6, 58, &[0, 9]), R::UdpLength),
        (with(&udp, 34, &[0, 0]), R::PortZero),
        (with(&tcp6, 18, &[0, 21]), R::Ipv6PayloadLength),
        (with(&tcp6, 18, &[0, 19]), R::L4Truncated),
        (with(&tcp6, 14, &[0x40]), R::IpVersion),
        (chain(vec![0, 9, 1, 4, 0, 0, 0, 0], 0), R::Ipv6Extension),
        (chain(vec![0, 0, 0, 1, 0, 0, 0, 0], 43), R::Ipv6Extension),
        (with(&tcp, 20, &[0x3f, 0xff]), R::FragmentMalformed),
        (with(&tcp, 26, &[127]), R::SourceMartian),
        (with(&tcp, 26, &[203, 0, 113, 10]), R::Land),
        (with(&tcp, 26, &[198, 18, 0, 1]), R::SourceOwn),
    ];
    let mut gateway = Gateway::new(1);
    for (n, (bytes, reason)) in cases.iter().enumerate() {
        let verdict = gateway.give(bytes, 0, HEADROOM, rx_of(FRONT_PORT));
        assert_eq!(verdict, Verdict::Drop(*reason), "case {n}");
    }
    gateway.check();
}

/// The first segment ends anywhere, also within the headers.
#[test]
fn every_split() {
    let dropped = everywhere("splits", |gateway, bytes, port| {
        let good = ChecksumReport::Good;
        for head in 0..=bytes.len().min(300) {
            let (head, tail) = bytes.split_at(head);
            let plain = rx_of(port);
            for rx in [plain, Rx { ip_checksum: good, l4_checksum: good, ..plain }] {
                gateway.give(head, tail.len(), HEADROOM, rx);
                gateway.give(head, tail.len() + 20_000, HEADROOM, rx);
                gateway.give(head, tail.len(), 0, rx);
            }
        }
    });
    assert!(dropped[DropReason::L4Truncated as usize] > 0);
}

#[test]
fn random_bytes() {
    let mut random = Random(4711);
    let began = Instant::now();
    for workers in [1, 2] {
        let mut gateway = Gateway::new(workers);
        for n in 0..150_000usize {
            let mut bytes: Vec<u8> = (0..random.below(120)).map(|_| random.next() as u8).collect();
            let types = [[8, 0], [0x86, 0xdd], [8, 6], [0x81, 0]];
            if let (Some(header), true) = (bytes.get_mut(..14), n % 16 > 0) {
                header[..6].copy_from_slice(&FRONT_MAC);
                header[12..].copy_from_slice(&types[n % 4]);
            }
            // Half of them get on past the first fields.
            if let (Some(ip), true) = (bytes.get_mut(14..54), n % 32 > 15) {
                ip[0] = if n % 4 == 0 { 0x45 } else { 0x60 };
                ip[if n % 4 == 0 { 2 } else { 4 }] = 0;
                ip[9] = [1, 6, 17, 9][random.below(4)];
                ip[6] = [0, 6, 17, 43, 44, 58, 60][random.below(7)];
            }
            let ip_checksum = ChecksumReport::Good;
            let rx = Rx { port: PortId(random.below(3) as u8), ip_checksum, ..Rx::default() };
            let rx = if n % 8 > 0 { Rx { port: FRONT_PORT, ..rx } } else { rx };
            gateway.give(&bytes, random.below(2) * random.below(200), HEADROOM, rx);
        }
        gateway.check();
    }
    println!("random bytes: 300000 packets, {:.1?}", began.elapsed());
}
