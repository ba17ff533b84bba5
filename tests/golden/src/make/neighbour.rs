//! ARP (RFC 826) and neighbour discovery (RFC 4861, RFC 4862).

use super::{BACK, BACKEND, Book, CLIENT, FRONT, FRONT_MAC, V4, V6, mac_text};
use crate::case::Rx;
use crate::packet::{ACK, Mac, Packet, SYN, arp, icmp, packet, tcp};
use crate::world::{BACK_MAC, CLIENT_MAC, backend_mac, ip};
use std::net::{IpAddr, SocketAddr};

const BROADCAST: Mac = [0xff; 6];
const NOBODY: Mac = [0; 6];

fn four(text: &str) -> [u8; 4] {
    match ip(text) {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(_) => panic!("{text} is no IPv4"),
    }
}

/// A request for `target` from a host on the link.
fn who_has(sender: (Mac, &str), target: &str) -> Vec<u8> {
    arp((sender.0, BROADCAST), 1, (sender.0, four(sender.1)), (NOBODY, four(target)))
}

/// Our reply to it.
fn is_at(ours: Mac, target: &str, asker: (Mac, &str)) -> Vec<u8> {
    arp((ours, asker.0), 2, (ours, four(target)), (asker.0, four(asker.1)))
}

/// Both: a host asks who has `target`, and what we reply.
pub(super) fn asked(ours: Mac, target: &str, asker: (Mac, &str)) -> (Vec<u8>, Vec<u8>) {
    (who_has(asker, target), is_at(ours, target, asker))
}

/// The same in IPv6; `macs` are the asker's and ours.
pub(super) fn solicited(macs: (Mac, Mac), target: &str, asker: (Mac, &str)) -> (Vec<u8>, Vec<u8>) {
    let sent = solicitation(macs, asker.1, target);
    (sent.bytes(), advertisement(macs.1, target, asker).bytes())
}

fn socket(text: &str) -> SocketAddr {
    SocketAddr::new(ip(text), 0)
}

fn octets(text: &str) -> [u8; 16] {
    match ip(text) {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(_) => panic!("{text} is no IPv6"),
    }
}

/// A neighbour solicitation for `target`, to its solicited-node group.
fn solicitation(macs: (Mac, Mac), source: &str, target: &str) -> Packet {
    let wanted = octets(target);
    let mut group = octets("ff02::1:ff00:0");
    group[13..].copy_from_slice(&wanted[13..]);
    let group_mac = [0x33, 0x33, 0xff, wanted[13], wanted[14], wanted[15]];
    let mut data = wanted.to_vec();
    if source != "::" {
        data.extend([1, 1]);
        data.extend(macs.0);
    }
    let destination = SocketAddr::new(IpAddr::from(group), 0);
    packet((macs.0, group_mac), socket(source), destination, icmp(135, 0, 0, &data)).ttl(255)
}

/// Our advertisement of `target`.
fn advertisement(ours: Mac, target: &str, asker: (Mac, &str)) -> Packet {
    let unsolicited = asker.1 == "::";
    let flags = if unsolicited { 0x2000_0000 } else { 0x6000_0000 };
    let mut data = octets(target).to_vec();
    data.extend([2, 1]);
    data.extend(ours);
    let (mac, to) = if unsolicited { ([0x33, 0x33, 0, 0, 0, 1], "ff02::1") } else { asker };
    packet((ours, mac), socket(target), socket(to), icmp(136, 0, flags, &data)).ttl(255)
}

pub(super) fn cases(book: &mut Book) {
    answered(book);
    not_answered(book);
    claimed(book);
    next_hops(book);
}

const ASKER: (Mac, &str) = (CLIENT_MAC, "198.18.0.10");
const ASKER_V6: (Mac, &str) = (CLIENT_MAC, "2001:db8:f::10");

fn answered(book: &mut Book) {
    book.case(600, "arp_frontend", "ARP for a frontend's address on a front interface", |m| {
        for target in ["203.0.113.10", "203.0.113.20"] {
            m.answer(FRONT, who_has(ASKER, target), is_at(FRONT_MAC, target, ASKER));
        }
        // A unicast probe, padded to the shortest frame.
        let mut probe = who_has(ASKER, "203.0.113.10");
        probe[..6].copy_from_slice(&FRONT_MAC);
        probe.resize(60, 0);
        m.answer(FRONT, probe, is_at(FRONT_MAC, "203.0.113.10", ASKER));
    });
    book.case(
        601,
        "ns_frontend",
        "a solicitation for a frontend's address on a front interface",
        |m| {
            let target = "2001:db8:a::10";
            let sent = solicitation(CLIENT, ASKER_V6.1, target);
            m.answer(FRONT, sent.bytes(), advertisement(FRONT_MAC, target, ASKER_V6).bytes());
            let unicast = sent.to_mac(FRONT_MAC).to(socket(target));
            m.answer(FRONT, unicast.bytes(), advertisement(FRONT_MAC, target, ASKER_V6).bytes());
        },
    );
    let backend = (backend_mac(11), "198.18.1.11");
    book.case(602, "arp_nat", "ARP for a NAT address on its link", move |m| {
        m.answer(BACK, who_has(backend, "198.18.1.200"), is_at(BACK_MAC, "198.18.1.200", backend));
    });
    book.case(603, "ns_nat", "a solicitation for a NAT address on its link", |m| {
        let asker = (backend_mac(11), "2001:db8:b::11");
        let sent = solicitation(BACKEND, asker.1, "2001:db8:b::200");
        m.answer(BACK, sent.bytes(), advertisement(BACK_MAC, "2001:db8:b::200", asker).bytes());
    });
    book.case(604, "arp_probe", "a probe whether a frontend's address is free: it isn't", |m| {
        let asker = (CLIENT_MAC, "0.0.0.0");
        m.answer(FRONT, who_has(asker, "203.0.113.10"), is_at(FRONT_MAC, "203.0.113.10", asker));
    });
    book.case(
        605,
        "dad_probe",
        "whether a frontend's address is free: all nodes learn that it isn't",
        |m| {
            let sent = solicitation(CLIENT, "::", "2001:db8:a::10");
            let answer = advertisement(FRONT_MAC, "2001:db8:a::10", (CLIENT_MAC, "::"));
            m.answer(FRONT, sent.bytes(), answer.bytes());
        },
    );
    book.case(
        606,
        "arp_vlan",
        "ARP on a VLAN is answered on it, also where the device took the tag",
        |m| {
            let asker = (CLIENT_MAC, "198.18.100.10");
            let tagged = |bytes: Vec<u8>| [&bytes[..12], &[0x81, 0, 0, 100], &bytes[12..]].concat();
            let answer = tagged(is_at(FRONT_MAC, "203.0.113.10", asker));
            m.answer(FRONT, tagged(who_has(asker, "203.0.113.10")), answer.clone());
            m.case.meta.rx.push(Rx { packet: 2, vlan: Some(100), ..Rx::default() });
            m.answer(FRONT, who_has(asker, "203.0.113.10"), answer);
        },
    );
    book.case(607, "ns_vlan", "a solicitation on a VLAN is answered on it", |m| {
        let sent = solicitation(CLIENT, ASKER_V6.1, "2001:db8:a::10").tag(Some(100));
        let answer = advertisement(FRONT_MAC, "2001:db8:a::10", ASKER_V6).tag(Some(100));
        m.answer(FRONT, sent.bytes(), answer.bytes());
    });
}

fn not_answered(book: &mut Book) {
    book.case(610, "arp_own", "ARP for the gateway's own address is the host's", |m| {
        let sent = who_has(ASKER, "198.18.0.1");
        m.host((FRONT, 0), sent.clone(), sent);
    });
    book.case(611, "ns_own", "a solicitation for the gateway's own address is the host's", |m| {
        let sent = solicitation(CLIENT, ASKER_V6.1, "2001:db8:f::1").bytes();
        m.host((FRONT, 0), sent.clone(), sent);
    });
    book.case(
        612,
        "arp_foreign",
        "ARP for another host, a NAT address of another link, or for a \
        frontend on a back interface, isn't ours",
        |m| {
            m.drop(FRONT, who_has(ASKER, "198.18.0.77"), "arp_not_ours");
            m.drop(FRONT, who_has(ASKER, "198.18.1.200"), "arp_not_ours");
            m.drop(FRONT, who_has(ASKER, "198.18.1.1"), "arp_not_ours");
            m.drop(BACK, who_has((backend_mac(11), "198.18.1.11"), "203.0.113.10"), "arp_not_ours");
        },
    );
    book.case(613, "ns_foreign", "the same of solicitations", |m| {
        for target in ["2001:db8:f::77", "2001:db8:b::200", "2001:db8:b::1"] {
            m.drop(FRONT, solicitation(CLIENT, ASKER_V6.1, target).bytes(), "nd_not_ours");
        }
        let sent = solicitation(BACKEND, "2001:db8:b::11", "2001:db8:a::10");
        m.drop(BACK, sent.bytes(), "nd_not_ours");
    });
    book.case(
        614,
        "arp_gratuitous",
        "gratuitous ARP and replies tell the kernel who is where",
        |m| {
            for operation in [1, 2] {
                let me = (CLIENT_MAC, four("198.18.0.77"));
                let sent = arp((CLIENT_MAC, BROADCAST), operation, me, (NOBODY, me.1));
                m.host((FRONT, 0), sent.clone(), sent);
            }
            let reply =
                arp(CLIENT, 2, (CLIENT_MAC, four("198.18.0.10")), (FRONT_MAC, four("198.18.0.1")));
            m.host((FRONT, 0), reply.clone(), reply);
        },
    );
    book.case(
        615,
        "nd_for_the_host",
        "advertisements, router advertisements and listener reports",
        |m| {
            let from = socket("2001:db8:f::77");
            let all = |kind, ttl| {
                let to = (CLIENT_MAC, [0x33, 0x33, 0, 0, 0, 1]);
                packet(to, from, socket("ff02::1"), icmp(kind, 0, 0, &[0; 20])).ttl(ttl).bytes()
            };
            for sent in [all(136, 255), all(134, 255), all(143, 1), all(130, 1)] {
                m.host((FRONT, 0), sent.clone(), sent);
            }
        },
    );
    book.case(
        616,
        "arp_malformed",
        "ARP that is cut, of other hardware, or with an unknown operation",
        |m| {
            let sent = who_has(ASKER, "203.0.113.10");
            m.drop(FRONT, sent[..41].to_vec(), "arp_malformed");
            let with = |at: usize, value: u8| {
                let mut bytes = sent.clone();
                bytes[at] = value;
                bytes
            };
            for bytes in [with(15, 6), with(16, 0x86), with(18, 8), with(19, 16), with(21, 3)] {
                m.drop(FRONT, bytes, "arp_malformed");
            }
        },
    );
    book.case(617, "nd_malformed", "discovery from off the link, with a code, or cut", |m| {
        let sent = solicitation(CLIENT, ASKER_V6.1, "2001:db8:a::10");
        m.drop(FRONT, sent.clone().ttl(254).bytes(), "nd_malformed");
        let target = octets("2001:db8:a::10");
        m.drop(FRONT, sent.clone().body(icmp(135, 1, 0, &target)).bytes(), "nd_malformed");
        m.drop(FRONT, sent.body(icmp(135, 0, 0, &target[..15])).bytes(), "nd_malformed");
    });
    book.case(618, "ns_checksum", "a solicitation with a wrong checksum gets no answer", |m| {
        let mut sent = solicitation(CLIENT, ASKER_V6.1, "2001:db8:a::10").bytes();
        sent[56] ^= 0xff;
        m.drop(FRONT, sent, "l4_checksum");
    });
}

/// Another station says that it has an address of ours (RFC 5227 section 2.4).
fn claimed(book: &mut Book) {
    const STRANGER: Mac = [2, 0, 0, 0, 1, 0x66];
    let said = |mac, operation, address| {
        let me = (mac, four(address));
        arp((mac, BROADCAST), operation, me, (NOBODY, me.1))
    };
    book.case(
        620,
        "arp_claimed",
        "ARP whose sender says that a frontend, a NAT address or the gateway's own address is its",
        move |m| {
            for (port, address) in [
                (FRONT, "203.0.113.10"),
                (FRONT, "198.18.0.1"),
                (BACK, "198.18.1.200"),
                (BACK, "198.18.1.1"),
            ] {
                for operation in [1, 2] {
                    m.drop(port, said(STRANGER, operation, address), "address_claimed");
                }
            }
            // It asks for somebody else, or for us.
            for asked in ["198.18.0.77", "203.0.113.20", "198.18.0.1"] {
                m.drop(FRONT, who_has((STRANGER, "203.0.113.10"), asked), "address_claimed");
            }
        },
    );
    book.case(
        621,
        "arp_not_claimed",
        "our own announcement comes back, from a port of ours, and a frontend on a back link is \
         nobody's",
        move |m| {
            for mac in [FRONT_MAC, BACK_MAC] {
                let sent = said(mac, 1, "203.0.113.10");
                m.answer(FRONT, sent, is_at(FRONT_MAC, "203.0.113.10", (mac, "203.0.113.10")));
            }
            let sent = said(STRANGER, 2, "203.0.113.10");
            m.host((BACK, 1), sent.clone(), sent);
        },
    );
    book.case(622, "na_claimed", "an advertisement of an address of ours", move |m| {
        let to_all = (STRANGER, "::");
        for (port, target) in [
            (FRONT, "2001:db8:a::10"),
            (FRONT, "2001:db8:f::1"),
            (BACK, "2001:db8:b::200"),
            (BACK, "2001:db8:b::1"),
        ] {
            m.drop(port, advertisement(STRANGER, target, to_all).bytes(), "address_claimed");
            // From another address, and without the option: the frame's sender it is.
            let bare = icmp(136, 0, 0, &octets(target));
            let sent = advertisement(STRANGER, "2001:db8:f::77", to_all).body(bare);
            m.drop(port, sent.bytes(), "address_claimed");
        }
    });
    book.case(
        623,
        "na_not_claimed",
        "our own advertisement comes back; one with a wrong checksum or from afar claims nothing",
        |m| {
            let target = "2001:db8:a::10";
            let ours = advertisement(FRONT_MAC, target, (STRANGER, "::")).bytes();
            m.host((FRONT, 0), ours.clone(), ours);
            let claim = advertisement(STRANGER, target, (STRANGER, "::"));
            let mut wrong = claim.clone().bytes();
            wrong[56] ^= 0xff;
            m.host((FRONT, 0), wrong.clone(), wrong);
            m.drop(FRONT, claim.ttl(254).bytes(), "nd_malformed");
        },
    );
    book.case(624, "ns_claimed", "a solicitation from an address of ours", |m| {
        let sent = solicitation((STRANGER, FRONT_MAC), "2001:db8:a::10", "2001:db8:f::1");
        m.drop(FRONT, sent.bytes(), "address_claimed");
    });
    book.case(625, "arp_claimed_vlan", "the same on a VLAN", move |m| {
        let sent = said(STRANGER, 1, "203.0.113.10");
        let tagged = [&sent[..12], &[0x81, 0, 0, 100], &sent[12..]].concat();
        m.drop(FRONT, tagged, "address_claimed");
    });
}

fn next_hops(book: &mut Book) {
    book.case(
        630,
        "unresolved",
        "a backend that nobody has resolved yet: asked for, then reached",
        |m| {
            let mut flow = m.flow("unresolved", V4, (43_000, 8400, 8080));
            flow = flow.backend(V4, 99, 8080);
            let syn = flow.up(tcp(SYN));
            m.drop(FRONT, syn.bytes(), "neighbour_unresolved");
            m.case.meta.requests.push("back 198.18.1.99".to_owned());
            m.wait_ms(1000);
            m.neighbour("back", "198.18.1.99", Some(backend_mac(99)));
            m.forward(&flow, &syn);
            m.forward(&flow, &flow.down(tcp(SYN | ACK)));
        },
    );
    for (number, f) in [(631, V4), (632, V6)] {
        let name = f.of("client_learned_v4", "client_learned_v6");
        let about = "the MAC of an unpublished client on the link comes from its SYN";
        book.case(number, name, about, |m| {
            let mac = [2, 0, 0, 0, 1, 0x20];
            let flow = m.web(f).client(f.client(20, 2000), mac);
            m.forward(&flow, &flow.up(tcp(SYN)));
            m.forward(&flow, &flow.down(tcp(SYN | ACK)));
            m.case.meta.requests.push(format!("front {} {}", flow.client.ip(), mac_text(mac)));
            m.forward(&flow, &flow.up(tcp(ACK)));
        });
    }
    book.case(633, "client_corrected", "what is published corrects what was learned", |m| {
        let mac = [2, 0, 0, 0, 1, 0x20];
        let flow = m.web(V4).client(V4.client(20, 2000), mac);
        m.forward(&flow, &flow.up(tcp(SYN)));
        m.neighbour("front", "198.18.0.20", Some([2, 0, 0, 0, 1, 0x21]));
        let moved = super::Flow { client_mac: [2, 0, 0, 0, 1, 0x21], ..flow };
        m.forward(&moved, &moved.down(tcp(SYN | ACK)));
    });
    book.case(
        634,
        "backend_moves",
        "a backend gets another MAC in the middle of a connection",
        |m| {
            let flow = m.web(V4);
            m.handshake(&flow);
            m.neighbour("back", "198.18.1.11", Some(backend_mac(0x77)));
            let moved = super::Flow { backend_mac: backend_mac(0x77), ..flow };
            m.forward(&moved, &moved.up(tcp(ACK)).data(b"where are you now?"));
            m.neighbour("back", "198.18.1.11", None);
            m.drop(FRONT, moved.up(tcp(ACK)).bytes(), "neighbour_unresolved");
            m.case.meta.requests.push("back 198.18.1.11".to_owned());
        },
    );
    book.case(
        635,
        "far_client_unresolved",
        "a client behind a router that nobody has resolved",
        |m| {
            m.neighbour("front", "198.18.0.254", None);
            let flow = m.web(V4).client(V4.far_client(9, 1025), super::ROUTER_MAC);
            m.forward(&flow, &flow.up(tcp(SYN)));
            m.drop(BACK, flow.down(tcp(SYN | ACK)).bytes(), "neighbour_unresolved");
            m.case.meta.requests.push("front 198.18.0.254".to_owned());
        },
    );
}
