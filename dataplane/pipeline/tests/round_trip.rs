//! What the client sends reaches the backend with the tuple expected, and the reply comes back
//! with the original one. etherparse recomputes all checksums and lengths.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::packets::{ACK, Packet, SYN};
use common::{
    BACK_MAC, BACK_PORT, Buffer, FRONT_MAC, FRONT_PORT, World, at, backend_ip, frontend_ip, mac_of,
    nat_ip,
};
use model::desired::BackendState;
use model::ids::{PortId, Protocol};
use pipeline::frame::{Rx, Verdict};
use pipeline::{Now, Options, Pipeline};
use proptest::prelude::*;
use std::net::SocketAddr;

#[derive(Clone, Debug)]
struct Case {
    v6: bool,
    udp: bool,
    checksum: bool,
    /// VLANs of the front and the back link.
    vlans: [Option<u16>; 2],
    /// The device takes tags off.
    stripped: bool,
    client: u8,
    ports: (u16, u16),
    backend_port: u16,
    ttl: u8,
    options: Vec<u8>,
    padding: usize,
    /// Bytes of each packet that lie in segments of their own, at most.
    tail: usize,
    there: Vec<u8>,
    back: Vec<u8>,
}

fn case() -> impl Strategy<Value = Case> {
    let vlan = || proptest::option::of(1u16..4095);
    let bytes = || {
        prop_oneof![
            4 => proptest::collection::vec(any::<u8>(), 0..100),
            1 => proptest::collection::vec(any::<u8>(), 1300..1400),
        ]
    };
    let options = (0usize..=10).prop_map(|words| vec![1; 4 * words]);
    let flow = (10u8..14, 1u16.., 1u16.., 1u16..);
    (
        any::<[bool; 4]>(),
        [vlan(), vlan()],
        flow,
        2u8..,
        options,
        (0usize..60, 0usize..40),
        (bytes(), bytes()),
    )
        .prop_map(
            |(flags, vlans, (client, from, to, backend_port), ttl, options, rest, data)| {
                let [v6, udp, checksum, stripped] = flags;
                let options = if v6 { vec![] } else { options };
                let ((padding, tail), (there, back)) = (rest, data);
                let checksum = checksum || v6 || !udp;
                let ports = (from, to);
                Case {
                    v6,
                    udp,
                    checksum,
                    vlans,
                    stripped,
                    client,
                    ports,
                    backend_port,
                    ttl,
                    options,
                    padding,
                    tail,
                    there,
                    back,
                }
            },
        )
}

struct Gateway {
    world: World,
    pipeline: Pipeline,
    case: Case,
}

impl Gateway {
    fn new(case: &Case) -> Self {
        let mut world = World::new(1);
        world.input = common::input(case.vlans[0], case.vlans[1]);
        world.publish_adjacencies();
        let key = common::key("web", protocol(case));
        let frontend = at(frontend_ip(case.v6), case.ports.1);
        let backend = (at(backend_ip(case.v6, 20), case.backend_port), BackendState::Active);
        world.put(common::service(&key, &[frontend], &[backend]));
        let pipeline = common::pipeline(&Options { secret: 5, ..Options::default() });
        Self { world, pipeline, case: case.clone() }
    }

    /// Sends a packet through, and takes apart what comes out.
    fn pass(&mut self, packet: &Packet, port: PortId) -> Packet {
        let mut rx = Rx { port, ..Rx::default() };
        let mut sent = packet.clone();
        if self.case.stripped {
            rx.vlan = sent.vlan.take();
        }
        let mut bytes = sent.build();
        let whole = bytes.len();
        bytes.resize(whole + self.case.padding, 0xaa);
        // Headers lie in the first segment.
        let tail = self.case.tail.min(sent.payload.len() + self.case.padding);
        let tail_bytes = bytes[bytes.len() - tail..].to_vec();
        let mut buffer = [Buffer::new(&bytes, rx).split(tail)];
        common::process(&mut self.pipeline, &self.world.tables, &mut buffer, Now { ms: 5 });
        let [buffer] = buffer;
        let out = if port == FRONT_PORT { BACK_PORT } else { FRONT_PORT };
        assert_eq!(buffer.verdict, Verdict::Send(out));
        let mut bytes = buffer.frame().to_vec();
        if tail > 0 {
            // What nobody saw leaves as it came, padding included: that is not trimmed then.
            assert_eq!(buffer.tail_len, tail);
            bytes.extend(tail_bytes);
            bytes.truncate(bytes.len() - self.case.padding);
        }
        Packet::parse(&bytes)
    }
}

fn protocol(case: &Case) -> Protocol {
    if case.udp { Protocol::Udp } else { Protocol::Tcp }
}

fn there_and_back(case: &Case) {
    let mut gateway = Gateway::new(case);
    let frontend = at(frontend_ip(case.v6), case.ports.1);
    let backend = at(backend_ip(case.v6, 20), case.backend_port);
    let first = Packet {
        vlan: case.vlans[0],
        ttl: case.ttl,
        options: case.options.clone(),
        checksum: case.checksum,
        ..Packet::to_frontend(protocol(case), case.v6, case.client, case.ports)
    };
    let mut nat: Option<SocketAddr> = None;
    for (flags, there, back_flags, back) in [
        (SYN, vec![], SYN | ACK, vec![]),
        (ACK, case.there.clone(), ACK, case.back.clone()),
        (ACK, case.back.clone(), ACK, case.there.clone()),
    ] {
        // UDP has no flags: the parser says SYN for it.
        let flags = if case.udp { SYN } else { flags };
        let back_flags = if case.udp { SYN } else { back_flags };
        let sent = first.clone().flags(flags).payload(there);
        let got = gateway.pass(&sent, FRONT_PORT);
        let source = *nat.get_or_insert(got.source);
        assert!(source.ip() == nat_ip(case.v6, 0) && source.port() >= 1024, "{source}");
        let expected = Packet {
            from: BACK_MAC,
            to: mac_of(1, 20),
            vlan: case.vlans[1],
            source,
            destination: backend,
            ttl: case.ttl - 1,
            ..sent.clone()
        };
        assert_eq!(got, expected, "at the backend");
        let reply = Packet { options: case.options.clone(), ..got.reply(back_flags, back) };
        let reply = Packet { ttl: case.ttl, ..reply };
        let got = gateway.pass(&reply, BACK_PORT);
        let expected = Packet {
            from: FRONT_MAC,
            to: sent.from,
            vlan: case.vlans[0],
            source: frontend,
            destination: sent.source,
            ttl: case.ttl - 1,
            ..reply
        };
        assert_eq!(got, expected, "at the client");
    }
    assert_eq!(common::drops(gateway.pipeline.counters()), []);
    assert_eq!(gateway.pipeline.counters().inserts.read(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 3000, failure_persistence: None, ..ProptestConfig::default()
    })]
    #[test]
    fn the_way_there_and_back_keeps_everything(case in case()) {
        there_and_back(&case);
    }
}
