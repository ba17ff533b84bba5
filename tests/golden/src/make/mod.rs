//! Makes the cases: what comes in, and by the rules of the RFCs and the architecture what has to
//! come out. Nothing here calls the pipeline, but for what no rule tells: the order of the NAT ports
//! towards a backend, to which the key of the cases leads ([`ports`]).

mod affinity;
mod budgets;
mod cluster;
mod doubt;
mod fates;
mod host;
mod hygiene;
mod icmp;
mod life;
mod limits;
mod link;
mod neighbour;
mod network;
mod ports;
mod ranges;
mod refusal;
mod reset;
mod tcp;
mod udp;

use crate::case::{Case, Change, Sent, ServiceCounts};
use crate::packet::{Body, Mac, Packet, packet};
use crate::world::{self, BACK_MAC, CLIENT_MAC, FRONT_MAC, ROUTER_MAC, at, backend_mac};
use std::net::SocketAddr;

/// Port `front`.
const FRONT: usize = 0;
/// Port `back`.
const BACK: usize = 1;

/// What identifications of fragments count from: learnt from the key.
const FIRST_FRAGMENT_ID: u32 = 0x61d6_2dd9;
/// The same of packets that routers may fragment.
const FIRST_IDENTIFICATION: u16 = 0x9e45;

/// Both families have the same hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

use Family::{V4, V6};

impl Family {
    /// One of two texts.
    const fn of<T: Copy>(self, v4: T, v6: T) -> T {
        match self {
            V4 => v4,
            V6 => v6,
        }
    }
    fn host(self, v4: &str, v6: &str, last: u8, port: u16) -> SocketAddr {
        SocketAddr::new(world::ip(&format!("{}{last}", self.of(v4, v6))), port)
    }
    /// A client on the front link: `.10` is published, others are not.
    fn client(self, last: u8, port: u16) -> SocketAddr {
        self.host("198.18.0.", "2001:db8:f::", last, port)
    }
    /// A client behind the router on the front link.
    fn far_client(self, last: u8, port: u16) -> SocketAddr {
        self.host("198.51.100.", "2001:db8:c::", last, port)
    }
    /// A frontend address: `.10` of most services, `.20` of those without backends.
    fn frontend(self, last: u8, port: u16) -> SocketAddr {
        self.host("203.0.113.", "2001:db8:a::", last, port)
    }
    /// A ClusterIP: `.10` has a backend, `.20` and `.30` have none.
    fn cluster(self, last: u8, port: u16) -> SocketAddr {
        self.host("198.19.0.", "2001:db8:5::", last, port)
    }
    /// A host on the back link: `.11` to `.14`, and `.200` the NAT address.
    fn back(self, last: u8, port: u16) -> SocketAddr {
        self.host("198.18.1.", "2001:db8:b::", last, port)
    }
    /// ICMP or ICMPv6 type, code and the word of an MTU.
    const fn echo_request(self) -> u8 {
        self.of(8, 128)
    }
    const fn echo_reply(self) -> u8 {
        self.of(0, 129)
    }
    const fn port_unreachable(self) -> (u8, u8) {
        self.of((3, 3), (1, 4))
    }
    const fn time_exceeded(self) -> (u8, u8) {
        self.of((11, 0), (3, 0))
    }
    const fn too_big(self) -> (u8, u8) {
        self.of((3, 4), (2, 0))
    }
}

/// A connection: what its packets look like on both sides.
#[derive(Clone, Debug)]
struct Flow {
    service: &'static str,
    client: SocketAddr,
    frontend: SocketAddr,
    nat: SocketAddr,
    backend: SocketAddr,
    client_mac: Mac,
    backend_mac: Mac,
    client_tag: Option<u16>,
    backend_tag: Option<u16>,
}

impl Flow {
    /// A packet as the client sends it.
    fn up(&self, body: Body) -> Packet {
        packet((self.client_mac, FRONT_MAC), self.client, self.frontend, body).tag(self.client_tag)
    }
    /// A packet as the backend sends it.
    fn down(&self, body: Body) -> Packet {
        packet((self.backend_mac, BACK_MAC), self.backend, self.nat, body).tag(self.backend_tag)
    }
    /// The packet after the gateway.
    fn forwarded(&self, sent: &Packet) -> Packet {
        let mut out = sent.clone().ttl(sent.ttl - 1);
        out.padding.clear();
        if sent.destination == self.frontend {
            (out.source, out.destination) = (self.nat, self.backend);
            (out.macs, out.tag) = ((BACK_MAC, self.backend_mac), self.backend_tag);
        } else {
            (out.source, out.destination) = (self.frontend, self.client);
            (out.macs, out.tag) = ((FRONT_MAC, self.client_mac), self.client_tag);
        }
        out
    }
    /// With another client on the link.
    fn client(mut self, client: SocketAddr, mac: Mac) -> Self {
        (self.client, self.client_mac) = (client, mac);
        self
    }
    /// With another backend on the back link.
    fn backend(self, family: Family, last: u8, port: u16) -> Self {
        self.to(family.back(last, port), backend_mac(last))
    }
    /// With another backend, by way of this MAC.
    fn to(mut self, backend: SocketAddr, mac: Mac) -> Self {
        let udp = self.service.ends_with("dns");
        ports::give_back(self.backend, udp);
        (self.backend, self.backend_mac) = (backend, mac);
        self.nat.set_port(ports::take(self.backend, udp));
        self
    }
}

/// Puts a case together.
#[derive(Debug, Default)]
struct Maker {
    case: Case,
    us: u64,
    begun: usize,
    /// Challenges to clients of backends that have gone.
    challenged: usize,
    fragmented: u32,
}

impl Maker {
    /// A connection of `web` that begins now, from the published client on the link.
    fn web(&mut self, family: Family) -> Flow {
        let ports = (40_000 + self.begun as u16, 80, 8080);
        self.flow("web", family, ports)
    }
    /// A flow of `dns` that begins now.
    fn dns(&mut self, family: Family) -> Flow {
        let ports = (50_000 + self.begun as u16, 53, 5353);
        self.flow("dns", family, ports)
    }
    /// A connection of some service that begins now: ports of client, frontend and backend.
    fn flow(&mut self, service: &'static str, family: Family, ports: (u16, u16, u16)) -> Flow {
        let udp = service.ends_with("dns");
        let backend = family.back(11, ports.2);
        let nat = SocketAddr::new(family.back(200, 0).ip(), ports::take(backend, udp));
        self.begun += 1;
        let connections = &mut self.case.meta.connections[family.of(0, 1)];
        *connections += 1;
        self.counts(service).connections += 1;
        Flow {
            service,
            client: family.client(10, ports.0),
            frontend: family.frontend(10, ports.1),
            nat,
            backend,
            client_mac: CLIENT_MAC,
            backend_mac: backend_mac(11),
            client_tag: None,
            backend_tag: None,
        }
    }
    /// A flow of `tagged`, whose backend is on VLAN 200.
    fn tagged(&mut self) -> Flow {
        let flow = self.flow("tagged", V4, (41_000, 8200, 8080));
        ports::give_back(flow.backend, false);
        let backend = at("198.18.2.11:8080");
        let nat = SocketAddr::new(world::ip("198.18.2.200"), ports::take(backend, false));
        let backend_tag = Some(world::VLAN_BACK);
        Flow { nat, backend, backend_mac: backend_mac(0x2b), backend_tag, ..flow }
    }
    /// What becomes of a packet that isn't forwarded on a connection.
    fn counts(&mut self, service: &str) -> &mut ServiceCounts {
        self.case.meta.services.entry(service.to_owned()).or_default()
    }
    /// The connection ends on the way, as one of that family less.
    fn one_less(&mut self, family: Family) {
        self.case.meta.connections[family.of(0, 1)] -= 1;
    }
    /// Time passes.
    fn wait_ms(&mut self, ms: u64) {
        self.us = (self.us / 1000 + ms) * 1000;
    }
    /// The number of the packet that comes next.
    const fn next(&self) -> usize {
        self.case.sent.len() + 1
    }
    fn send(&mut self, port: usize, bytes: Vec<u8>, verdict: String) -> u64 {
        self.us += 1;
        self.case.sent.push(Sent { us: self.us, port, bytes });
        self.case.meta.verdicts.push(verdict);
        self.us
    }

    /// A packet of a connection, forwarded.
    fn forward(&mut self, flow: &Flow, sent: &Packet) {
        let expected = flow.forwarded(sent).bytes();
        self.forward_as(flow, sent, (sent.bytes(), expected));
    }
    /// The packet and what comes of it as bytes; which way `of` goes tells the direction.
    fn forward_as(&mut self, flow: &Flow, of: &Packet, (sent, expected): (Vec<u8>, Vec<u8>)) {
        let tag = |tag: Option<u16>| if tag.is_some() { 18 } else { 14 };
        let up = of.source == flow.client;
        let counts = self.counts(flow.service);
        if up {
            counts.packets_in += 1;
            counts.bytes_in += (expected.len() - tag(flow.backend_tag)) as u64;
        } else {
            counts.packets_out += 1;
            counts.bytes_out += (expected.len() - tag(flow.client_tag)) as u64;
        }
        self.translated(if up { FRONT } else { BACK }, sent, expected);
    }
    /// A frame that leaves by the other port.
    fn translated(&mut self, port: usize, sent: Vec<u8>, expected: Vec<u8>) {
        let out = 1 - port;
        let us = self.send(port, sent, format!("send {}", world::PORTS[out]));
        self.case.expected[out].push((us, expected));
    }
    /// A frame that is turned round.
    fn answer(&mut self, port: usize, sent: Vec<u8>, expected: Vec<u8>) {
        let us = self.send(port, sent, format!("answer {}", world::PORTS[port]));
        self.case.expected[port].push((us, expected));
    }
    /// A frame for the host, by the number of the interface.
    fn host(&mut self, (port, interface): (usize, usize), sent: Vec<u8>, expected: Vec<u8>) {
        let us = self.send(port, sent, format!("host {}", world::INTERFACES[interface]));
        self.case.host[interface].push((us, expected));
    }
    /// A frame that is dropped.
    fn drop(&mut self, port: usize, sent: Vec<u8>, reason: &str) {
        self.send(port, sent, format!("drop {reason}"));
    }
    /// A frame that is handed over.
    fn handover(&mut self, port: usize, sent: Vec<u8>, worker: u8) {
        self.send(port, sent, format!("handover {worker}"));
    }
    /// A service's backends from the next packet on.
    fn backends(&mut self, service: &str, backends: &[&str]) {
        let change = Change {
            before: self.next(),
            service: Some(service.to_owned()),
            backends: Some(backends.iter().map(|text| (*text).to_owned()).collect()),
            ..Change::default()
        };
        self.case.meta.change.push(change);
    }
    /// A service's source ranges from the next packet on.
    fn source_ranges(&mut self, service: &str, ranges: &[&str]) {
        let change = Change {
            before: self.next(),
            service: Some(service.to_owned()),
            source_ranges: Some(ranges.iter().map(|text| (*text).to_owned()).collect()),
            ..Change::default()
        };
        self.case.meta.change.push(change);
    }
    /// The tables are swept before the next packet, at its time.
    fn sweep(&mut self) {
        let change = Change { before: self.next(), sweep: true, ..Change::default() };
        self.case.meta.change.push(change);
    }
    /// A frame that the sweep before the next packet makes.
    fn generate(&mut self, port: usize, bytes: Vec<u8>) {
        self.case.generated[port].push((self.us + 1, bytes));
    }
    /// A frame that the host sends before the next packet.
    fn host_sends(&mut self, frame: &[u8]) {
        let digits = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        let change = Change { before: self.next(), host_sends: Some(digits), ..Change::default() };
        self.case.meta.change.push(change);
    }
    /// A neighbour from the next packet on.
    fn neighbour(&mut self, interface: &str, address: &str, mac: Option<Mac>) {
        let change = Change {
            before: self.next(),
            neighbour: Some([interface.to_owned(), address.to_owned()]),
            mac: mac.map(mac_text),
            ..Change::default()
        };
        self.case.meta.change.push(change);
    }
    /// Both sides close, the client first, and each FIN is acknowledged.
    fn close(&mut self, flow: &Flow) {
        use crate::packet::{ACK, FIN, tcp};
        self.forward(flow, &flow.up(tcp(FIN | ACK)).numbers(1000, 2000));
        self.forward(flow, &flow.down(tcp(FIN | ACK)).numbers(2000, 1001));
        self.forward(flow, &flow.up(tcp(ACK)).numbers(1001, 2001));
    }
    /// The identification that the fragments of the next packet leave with.
    fn fragment_id(&mut self) -> u32 {
        self.fragmented += 1;
        FIRST_FRAGMENT_ID + self.fragmented
    }
    /// The identification of the packet after `before` others that routers may fragment.
    const fn identification(&self, before: u16) -> u16 {
        FIRST_IDENTIFICATION + 1 + before
    }
    /// SYN, SYN-ACK and ACK of a connection.
    fn handshake(&mut self, flow: &Flow) {
        use crate::packet::{ACK, SYN, tcp};
        self.forward(flow, &flow.up(tcp(SYN)));
        self.forward(flow, &flow.down(tcp(SYN | ACK)));
        self.forward(flow, &flow.up(tcp(ACK)));
    }
}

fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The cases under construction.
#[derive(Debug, Default)]
struct Book(Vec<Case>);

impl Book {
    /// A case.
    fn case(&mut self, number: u16, name: &str, about: &str, make: impl FnOnce(&mut Maker)) {
        ports::reset();
        let mut maker = Maker { us: 1_000_000, ..Maker::default() };
        make(&mut maker);
        maker.case.name = format!("{number:03}_{name}");
        maker.case.about = about.to_owned();
        // Nothing stands in the file about services that nothing happened to.
        maker.case.meta.services.retain(|_, counts| *counts != ServiceCounts::default());
        self.0.push(maker.case);
    }
    /// A case for each family; IPv6 has the next number.
    fn both(&mut self, number: u16, name: &str, about: &str, make: impl Fn(&mut Maker, Family)) {
        for family in [V4, V6] {
            let number = number + family.of(0, 1);
            let name = format!("{name}_{}", family.of("v4", "v6"));
            let about = format!("{}: {about}", family.of("IPv4", "IPv6"));
            self.case(number, &name, &about, |maker| make(maker, family));
        }
    }
}

/// All cases.
pub fn all() -> Vec<Case> {
    let mut book = Book::default();
    tcp::cases(&mut book);
    doubt::cases(&mut book);
    udp::cases(&mut book);
    link::cases(&mut book);
    network::cases(&mut book);
    icmp::cases(&mut book);
    neighbour::cases(&mut book);
    refusal::cases(&mut book);
    hygiene::cases(&mut book);
    fates::cases(&mut book);
    limits::cases(&mut book);
    budgets::cases(&mut book);
    host::cases(&mut book);
    life::cases(&mut book);
    ranges::cases(&mut book);
    affinity::cases(&mut book);
    cluster::cases(&mut book);
    reset::cases(&mut book);
    let mut cases = book.0;
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    for pair in cases.windows(2) {
        assert!(pair[0].name[..3] != pair[1].name[..3], "two cases {}", pair[1].name);
    }
    cases
}

/// What quotes a packet: an ICMP error from `source` to `destination`.
fn quoting(
    macs: (Mac, Mac),
    (source, destination): (SocketAddr, SocketAddr),
    (kind, code): (u8, u8),
    word: u32,
    quoted: &[u8],
) -> Packet {
    packet(macs, source, destination, crate::packet::icmp(kind, code, word, quoted))
}

/// An answer that we make ourselves: from the address that the packet was for, identification 0.
fn ours(sent: &Packet, body: Body) -> Packet {
    let mut answer = sent.clone().reversed().body(body).ttl(64);
    (answer.id, answer.df) = (0, true);
    answer.options.clear();
    answer.extensions.clear();
    answer.padding.clear();
    answer
}

/// MACs of the router on the front link towards us.
const ROUTER: (Mac, Mac) = (ROUTER_MAC, FRONT_MAC);
/// MACs of the client on the front link towards us.
const CLIENT: (Mac, Mac) = (CLIENT_MAC, FRONT_MAC);
/// MACs of the first backend towards us.
const BACKEND: (Mac, Mac) = (backend_mac(11), BACK_MAC);
