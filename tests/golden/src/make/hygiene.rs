//! What the parser drops, each by its reason.

use super::{BACK, Book, CLIENT, FRONT, Family, Maker, V4, V6};
use crate::case::Rx;
use crate::packet::{ACK, Body, FIN, Packet, RST, SYN, packet, tcp, udp};
use crate::world::{CLIENT_MAC, FRONT_MAC, at};
use etherparse::Ipv4HeaderSlice;

fn syn(f: Family) -> Packet {
    packet(CLIENT, f.client(10, 40_000), f.frontend(10, 80), tcp(SYN))
}

fn query(f: Family) -> Packet {
    packet(CLIENT, f.client(10, 40_000), f.frontend(10, 53), udp(b"question"))
}

/// The bytes with some of them replaced.
fn with(packet: &Packet, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut all = packet.bytes();
    all[at..at + bytes.len()].copy_from_slice(bytes);
    all
}

/// The same, and the IPv4 header checksum made right, so that nothing else is wrong.
fn with_sum(packet: &Packet, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut all = with(packet, at, bytes);
    all[24..26].fill(0);
    let header = Ipv4HeaderSlice::from_slice(&all[14..]).expect("a header").to_header();
    all[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    all
}

pub(super) fn cases(book: &mut Book) {
    link(book);
    network(book);
    transport(book);
    sources(book);
}

fn link(book: &mut Book) {
    book.case(800, "ethernet_truncated", "frames shorter than their link header", |m| {
        let frame = syn(V4).tag(Some(100)).bytes();
        for len in [0, 1, 13, 14, 17] {
            m.drop(FRONT, frame[..len].to_vec(), "ethernet_truncated");
        }
    });
    book.case(801, "vlan_unknown", "a VLAN that no interface of the port has", |m| {
        m.drop(FRONT, syn(V4).tag(Some(101)).bytes(), "vlan_unknown");
        m.drop(FRONT, syn(V6).tag(Some(200)).bytes(), "vlan_unknown");
        m.case.meta.rx.push(Rx { packet: 3, vlan: Some(7), ..Rx::default() });
        m.drop(FRONT, syn(V4).bytes(), "vlan_unknown");
    });
    book.case(802, "ethertype_unsupported", "LLDP, MPLS, lengths, and two tags", |m| {
        for kind in [0x88ccu16, 0x8847, 0x0026, 0x88a8] {
            m.drop(FRONT, with(&syn(V4), 12, &kind.to_be_bytes()), "ethertype_unsupported");
        }
        let twice = with(&syn(V4).tag(Some(100)), 16, &[0x81, 0]);
        m.drop(FRONT, twice, "ethertype_unsupported");
    });
    book.case(803, "not_our_mac", "frames for another station", |m| {
        m.drop(FRONT, syn(V4).to_mac(CLIENT_MAC).bytes(), "not_our_mac");
        m.drop(FRONT, syn(V6).to_mac(crate::world::BACK_MAC).bytes(), "not_our_mac");
        m.drop(BACK, syn(V6).to_mac(FRONT_MAC).bytes(), "not_our_mac");
    });
}

fn network(book: &mut Book) {
    book.both(804, "ip_truncated", "a frame that ends within the IP header", |m, f| {
        let frame = syn(f).bytes();
        for len in [14, 15, f.of(33, 53)] {
            m.drop(FRONT, frame[..len].to_vec(), "ip_truncated");
        }
    });
    book.both(806, "ip_version", "a version that contradicts the Ethertype", |m, f| {
        for version in [0x05, f.of(0x65, 0x45), 0xf5] {
            m.drop(FRONT, with(&syn(f), 14, &[version]), "ip_version");
        }
    });
    book.case(
        808,
        "ipv4_header_length",
        "an IPv4 header shorter than 20 or beyond the frame",
        |m| {
            for ihl in [0x40, 0x44, 0x4f] {
                m.drop(FRONT, with(&syn(V4), 14, &[ihl]), "ipv4_header_length");
            }
        },
    );
    book.case(
        809,
        "ipv4_total_length",
        "an IPv4 length below its header or beyond the frame",
        |m| {
            for len in [0u16, 19, 41, 65_535] {
                m.drop(FRONT, with_sum(&syn(V4), 16, &len.to_be_bytes()), "ipv4_total_length");
            }
        },
    );
    book.case(
        810,
        "ipv4_checksum",
        "a wrong IPv4 header checksum, ours to find or the device's",
        |m| {
            m.drop(FRONT, with(&syn(V4), 24, &[0, 0]), "ipv4_checksum");
            m.drop(FRONT, with(&syn(V4), 22, &[63]), "ipv4_checksum");
            m.case.meta.rx.push(Rx { packet: 3, ip_checksum: Some("bad".into()), ..Rx::default() });
            m.drop(FRONT, syn(V4).bytes(), "ipv4_checksum");
        },
    );
    book.case(811, "ipv6_payload_length", "an IPv6 length beyond the frame", |m| {
        for len in [21u16, 1000, 65_535] {
            m.drop(FRONT, with(&syn(V6), 18, &len.to_be_bytes()), "ipv6_payload_length");
        }
    });
    book.case(812, "ipv6_extension", "chains that are cut, too long, or ask to be bounced", |m| {
        let chain = |extensions: Vec<(u8, Vec<u8>)>| {
            let mut sent = syn(V6);
            sent.extensions = extensions;
            sent.bytes()
        };
        let pad = || vec![0, 1, 4, 0, 0, 0, 0];
        // A header that says that it is longer than the packet.
        m.drop(FRONT, chain(vec![(60, vec![9, 1, 4, 0, 0, 0, 0])]), "ipv6_extension");
        m.drop(FRONT, chain(vec![(60, pad()); 9]), "ipv6_extension");
        // Routing of type 0 with an address left (RFC 5095).
        m.drop(FRONT, chain(vec![(43, vec![0, 0, 1, 0, 0, 0, 0])]), "ipv6_extension");
        // A payload of 0: the jumbo option needs a chain that isn't there.
        let mut jumbo = syn(V6);
        jumbo.extensions = vec![(0, vec![0, 0xc2, 4, 0, 1, 0, 0])];
        m.drop(FRONT, with(&jumbo, 18, &[0, 0]), "ipv6_extension");
    });
    book.both(
        813,
        "fragment_malformed",
        "fragments of no or odd length, or beyond 65,535",
        |m, f| {
            let fragment = |offset: usize, more: bool, payload: usize| {
                let body = Body::Raw { protocol: 17, data: vec![0; 9000 + payload] };
                let parts = query(f).body(body).fragments(1, &[8000, 8000 + payload]);
                let mut bytes = parts[1].clone();
                let word = (offset as u16 / f.of(8, 1)) | (u16::from(more) * f.of(0x2000, 1));
                let at = f.of(20, 56);
                bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
                if f == V4 {
                    bytes[24..26].fill(0);
                    let header = Ipv4HeaderSlice::from_slice(&bytes[14..]).expect("a header");
                    let sum = header.to_header().calc_header_checksum();
                    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
                }
                bytes
            };
            m.drop(FRONT, fragment(800, true, 801), "fragment_malformed");
            m.drop(FRONT, fragment(0, true, 804), "fragment_malformed");
            m.drop(FRONT, fragment(65_528, false, 16), "fragment_malformed");
            m.drop(FRONT, fragment(800, false, 0), "fragment_malformed");
        },
    );
}

fn transport(book: &mut Book) {
    book.both(
        815,
        "l4_truncated",
        "a packet that ends within its TCP, UDP or ICMP header",
        |m, f| {
            let short =
                |protocol, len| syn(f).body(Body::Raw { protocol, data: vec![0x11; len] }).bytes();
            for (protocol, len) in [(6, 19), (6, 0), (17, 7), (f.of(1, 58), 7), (f.of(1, 58), 0)] {
                m.drop(FRONT, short(protocol, len), "l4_truncated");
            }
            // The frame goes on, as padding.
            let mut padded = syn(f).body(Body::Raw { protocol: 6, data: vec![0x11; 12] });
            padded.padding = vec![0x50; 40];
            m.drop(FRONT, padded.bytes(), "l4_truncated");
        },
    );
    book.both(817, "tcp_header_length", "a data offset below 20 or beyond the packet", |m, f| {
        for offset in [0x00, 0x40, 0x60, 0xf0] {
            m.drop(FRONT, with(&syn(f), f.of(46, 66), &[offset]), "tcp_header_length");
        }
    });
    book.both(819, "tcp_flags", "flags that no stack sends", |m, f| {
        for flags in [0, 0x08, 0x20, SYN | FIN, SYN | RST, SYN | FIN | ACK, 0x3f] {
            m.drop(FRONT, syn(f).body(tcp(flags)).bytes(), "tcp_flags");
        }
    });
    book.both(821, "udp_length", "a UDP length below 8 or beyond the packet", |m, f| {
        for len in [0u16, 7, 17, 65_535] {
            m.drop(FRONT, with(&query(f), f.of(38, 58), &len.to_be_bytes()), "udp_length");
        }
    });
    book.both(823, "l4_checksum_by_device", "a checksum that the device found wrong", |m, f| {
        for sent in [syn(f), query(f)] {
            let packet = m.next();
            m.case.meta.rx.push(Rx { packet, l4_checksum: Some("bad".into()), ..Rx::default() });
            m.drop(FRONT, sent.bytes(), "l4_checksum");
        }
    });
    book.both(825, "port_zero", "a port of 0", |m, f| {
        for sent in [syn(f), query(f)] {
            let zero = |mut at: std::net::SocketAddr| {
                at.set_port(0);
                at
            };
            m.drop(FRONT, sent.clone().from(zero(sent.source)).bytes(), "port_zero");
            m.drop(FRONT, sent.clone().to(zero(sent.destination)).bytes(), "port_zero");
        }
    });
    book.both(
        827,
        "wrong_stays_wrong",
        "a wrong checksum that nobody has reported stays wrong",
        |m, f| {
            let flow = m.web(f);
            m.handshake(&flow);
            let sent = flow.up(tcp(ACK)).data(b"flipped on the way");
            let mut bytes = sent.bytes();
            let mut expected = flow.forwarded(&sent).bytes();
            for bytes in [&mut bytes, &mut expected] {
                *bytes.last_mut().unwrap() ^= 1;
            }
            m.forward_as(&flow, &sent, (bytes, expected));
            m.case.meta.wrong_checksums.push(4);
        },
    );
    book.both(829, "good_by_device", "what the device has checked isn't checked again", |m, f| {
        let flow = m.web(f);
        let rx = Rx {
            packet: 1,
            ip_checksum: Some("good".into()),
            l4_checksum: Some("good".into()),
            ..Rx::default()
        };
        m.case.meta.rx.push(rx);
        m.forward(&flow, &flow.up(tcp(SYN)));
    });
}

fn drop_all(m: &mut Maker, f: Family, sources: &[&str], reason: &str) {
    for source in sources {
        for sent in [syn(f), query(f)] {
            let sent = sent.from(at(source));
            m.drop(FRONT, sent.bytes(), reason);
        }
    }
}

fn sources(book: &mut Book) {
    book.case(831, "source_martian_v4", "IPv4: sources that no host may use", |m| {
        let martians = [
            "0.0.0.0:7",
            "0.1.2.3:7",
            "127.0.0.1:7",
            "127.255.255.254:7",
            "224.0.0.1:7",
            "239.1.2.3:7",
            "240.0.0.1:7",
            "255.255.255.255:7",
        ];
        drop_all(m, V4, &martians, "source_martian");
    });
    book.case(832, "source_martian_v6", "IPv6: sources that no host may use", |m| {
        let martians =
            ["[::]:7", "[::1]:7", "[ff02::1]:7", "[ff0e::1:2]:7", "[::ffff:198.18.0.10]:7"];
        drop_all(m, V6, &martians, "source_martian");
    });
    book.both(833, "land", "a packet from the address that it is for", |m, f| {
        m.drop(FRONT, syn(f).from(f.frontend(10, 80)).bytes(), "land");
        m.drop(FRONT, query(f).from(f.frontend(10, 53)).bytes(), "land");
    });
    book.both(835, "source_own", "a packet from one of our own addresses", |m, f| {
        let own =
            f.of(["198.18.0.1:7", "198.18.1.1:7"], ["[2001:db8:f::1]:7", "[2001:db8:b::1]:7"]);
        drop_all(m, f, &own, "source_own");
        for source in [f.back(200, 2000), f.frontend(20, 80)] {
            m.drop(FRONT, syn(f).from(source).bytes(), "source_own");
        }
    });
}
