//! What the fuzzer begins with: every golden packet, and a few made by hand so that all protocols
//! are there even without them.

use crate::input::Input;
use golden::packet::{ACK, Body, FIN, Mac, Packet, RST, SYN, arp, icmp, packet, tcp, udp};
use golden::world::{BACK_MAC, CLIENT_MAC, FRONT_MAC, VLAN_FRONT, at, backend_mac};
use model::ids::PortId;
use pcap_file::pcap::PcapReader;
use std::fs::{self, File};
use std::path::Path;

/// All packets of all captures of the golden cases; those that were sent and those that came out.
pub fn golden() -> Vec<Input> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/cases");
    let mut folders = entries(&cases);
    folders.retain(|path| path.is_dir());
    let mut seeds = Vec::new();
    for path in folders.iter().flat_map(|folder| entries(folder)) {
        if path.extension().is_some_and(|extension| extension == "pcap") {
            read(&path, &mut seeds);
        }
    }
    seeds
}

fn entries(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(listing) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = listing.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn read(path: &Path, seeds: &mut Vec<Input>) {
    let name = path.file_name().unwrap().to_string_lossy();
    let port = PortId(u8::from(name.contains("back")));
    let mut reader = PcapReader::new(File::open(path).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    while let Some(packet) = reader.next_packet() {
        let packet = packet.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut bytes = packet.data.into_owned();
        // What came out was for others: as a seed it comes to us.
        if !name.starts_with("send") && bytes.len() >= 6 {
            bytes[..6].copy_from_slice(if port.0 == 0 { &FRONT_MAC } else { &BACK_MAC });
        }
        seeds.push(Input::new(bytes, port));
    }
}

const IN: (Mac, Mac) = (CLIENT_MAC, FRONT_MAC);

fn client(from: &str, to: &str, body: Body) -> Packet {
    packet(IN, at(from), at(to), body)
}

/// A SYN from behind the router to the frontend `web`.
pub fn syn() -> Vec<u8> {
    client("198.51.100.9:4000", "203.0.113.10:80", tcp(SYN)).bytes()
}

/// Packets made by hand.
pub fn made() -> Vec<Input> {
    let mut front: Vec<Vec<u8>> = Vec::new();
    let mut back: Vec<Vec<u8>> = Vec::new();
    let big = vec![0x42; 1420];
    for (from, to) in [("198.18.0.10", "203.0.113"), ("[2001:db8:f::10]", "[2001:db8:a:")] {
        let to = |last: &str, port: u16| match to.strip_prefix('[') {
            Some(_) => format!("{to}:{last}]:{port}"),
            None => format!("{to}.{last}:{port}"),
        };
        let from = |port: u16| format!("{from}:{port}");
        for (last, port) in
            [("10", 80), ("20", 80), ("21", 80), ("10", 8200), ("10", 8300), ("10", 8400)]
                .into_iter()
                .chain([("10", 8500), ("10", 8600), ("10", 9999)])
        {
            front.push(client(&from(40_000), &to(last, port), tcp(SYN)).bytes());
        }
        let web = client(&from(40_001), &to("10", 80), tcp(SYN));
        for flags in [ACK, FIN | ACK, RST, SYN | ACK] {
            front.push(web.clone().body(tcp(flags)).data(b"GET / HTTP/1.0\r\n\r\n").bytes());
        }
        front.push(client(&from(40_002), &to("10", 8200), tcp(SYN)).data(&big).bytes());
        front.push(web.clone().ttl(1).bytes());
        front.extend(web.clone().data(&[7; 64]).fragments(77, &[24, 48]));
        front.push(client(&from(5000), &to("10", 53), udp(b"question")).bytes());
        front.push(client(&from(5001), &to("20", 80), udp(b"nobody")).bytes());
        front.extend(client(&from(5002), &to("10", 53), udp(&[1; 100])).fragments(78, &[16, 64]));
        let v4 = web.is_v4();
        let (request, gone, code, raw) = if v4 { (8, 3, 3, 132) } else { (128, 1, 4, 132) };
        front.push(web.clone().body(icmp(request, 0, 0x0001_0001, b"ping")).bytes());
        front.push(web.clone().body(icmp(gone, code, 0, &web.clone().reversed().ip())).bytes());
        front.push(web.clone().body(Body::Raw { protocol: raw, data: vec![0; 32] }).bytes());
        front.push(web.clone().body(Body::Raw { protocol: 89, data: vec![0; 32] }).bytes());
    }
    let tagged = client("198.18.100.10:4000", "203.0.113.10:80", tcp(SYN)).tag(Some(VLAN_FRONT));
    front.push(tagged.bytes());
    front.push(client("198.51.100.9:4000", "203.0.113.10:80", tcp(SYN)).bytes());
    front.push(client("198.18.0.55:4000", "203.0.113.10:80", tcp(SYN)).bytes());
    front.push(client("198.18.0.10:4000", "198.18.0.1:22", tcp(SYN)).bytes());
    let mut extended = client("[2001:db8:f::10]:4003", "[2001:db8:a::10]:80", tcp(SYN));
    extended.extensions = vec![(0, vec![0, 1, 4, 0, 0, 0, 0]), (60, vec![0, 1, 4, 0, 0, 0, 0])];
    front.push(extended.bytes());
    let mut options = client("198.18.0.10:4004", "203.0.113.10:80", tcp(SYN));
    options.options = vec![1, 1, 1, 0];
    front.push(options.bytes());
    let target = [0x20, 1, 0xd, 0xb8, 0, 0xa, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
    let solicit = |from: &str| {
        let data = [&target[..], &[1, 1], &CLIENT_MAC].concat();
        let group = "[ff02::1:ff00:10]:0";
        client(from, group, icmp(135, 0, 0, &data)).ttl(255).to_mac([0x33, 0x33, 0xff, 0, 0, 0x10])
    };
    front.push(solicit("[2001:db8:f::10]:0").bytes());
    front.push(solicit("[::]:0").bytes());
    for (operation, last) in [(1, 10), (1, 99), (2, 10)] {
        let (asker, target) = ((CLIENT_MAC, [198, 18, 0, 10]), ([0; 6], [203, 0, 113, last]));
        front.push(arp((CLIENT_MAC, [0xff; 6]), operation, asker, target));
    }
    let reply = packet(
        (backend_mac(11), BACK_MAC),
        at("198.18.1.11:8080"),
        at("198.18.1.200:2000"),
        tcp(SYN | ACK),
    );
    back.push(reply.bytes());
    back.push(reply.body(icmp(8, 0, 1, b"ping")).bytes());
    let front = front.into_iter().map(|bytes| Input::new(bytes, PortId(0)));
    front.chain(back.into_iter().map(|bytes| Input::new(bytes, PortId(1)))).collect()
}
