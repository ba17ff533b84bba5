//! A case on disk: `about.md`, `send.PORT.pcap`, `expect.PORT.pcap` and `case.toml`.

use crate::capture::{self, Stamped};
use crate::world::{INTERFACES, PORTS};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What captures can't say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Meta {
    /// What becomes of each packet sent, in the order of time: `send back`, `answer front`,
    /// `host front`, `handover 1`, `drop not_ours`.
    pub verdicts: Vec<String>,
    /// Requests about next hops, in order: `back 198.18.1.99`, and the MAC where it was seen.
    pub requests: Vec<String>,
    /// Connections in the tables at the end: IPv4, IPv6.
    pub connections: [usize; 2],
    /// How many workers share the traffic; the case runs on the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<u8>,
    /// Room in the tables where it isn't 1024 each: IPv4, IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<[usize; 2]>,
    /// Bytes in front of each frame where they aren't 128.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headroom: Option<usize>,
    /// Before the first packet, every NAT port towards this service's IPv4 backend is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exhausted: Option<String>,
    /// Packets expected whose L4 checksum came wrong and stays wrong, from 1.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wrong_checksums: Vec<usize>,
    /// Counters of the service ports that the case touches, at its end.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, ServiceCounts>,
    /// Rates that aren't the usual ones, by class: tokens a second, burst.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rates: BTreeMap<String, [u32; 2]>,
    /// New connections a second that a worker begins, and how many at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_connections: Option<[u32; 2]>,
    /// Routing peers that aren't on a link.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
    /// What the device says about single packets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rx: Vec<Rx>,
    /// What is published between packets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub change: Vec<Change>,
}

/// Counters of a service port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceCounts {
    /// Connections begun.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients, from the IP header on.
    pub bytes_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes to clients, from the IP header on.
    pub bytes_out: u64,
    /// New connections refused for want of a backend.
    pub refused: u64,
}

/// What the device, or another worker, says about a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rx {
    /// Which packet sent, from 1.
    pub packet: usize,
    /// The VLAN that it took off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// The IPv4 checksum: `good` or `bad`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_checksum: Option<String>,
    /// The L4 checksum: `good` or `bad`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l4_checksum: Option<String>,
    /// Times that it was handed over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hops: Option<u8>,
    /// Source and destination port that the home of its fragments found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragment_ports: Option<[u16; 2]>,
    /// The frame's last bytes lie in another segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<usize>,
}

/// What is published before a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Change {
    /// Before which packet sent, from 1.
    pub before: usize,
    /// A service by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The service's backends from now on; without these and source ranges, the service goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<String>>,
    /// The service's source ranges from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_ranges: Option<Vec<String>>,
    /// The tables are swept as a whole.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sweep: bool,
    /// A frame that the host sends, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_sends: Option<String>,
    /// A neighbour: interface and address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbour: Option<[String; 2]>,
    /// The neighbour's MAC from now on; without, it is unresolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

/// A frame that comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Microseconds from the start.
    pub us: u64,
    /// Number of the port.
    pub port: usize,
    /// The frame.
    pub bytes: Vec<u8>,
}

/// A case.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// Folder: `NNN_name`.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// What captures can't say.
    pub meta: Meta,
    /// What comes in, in the order of time.
    pub sent: Vec<Sent>,
    /// What leaves, by port.
    pub expected: [Vec<Stamped>; PORTS.len()],
    /// What the gateway makes itself when it is swept, by port, at the time of the packet after.
    pub generated: [Vec<Stamped>; PORTS.len()],
    /// What the host gets, by interface.
    pub host: [Vec<Stamped>; INTERFACES.len()],
}

impl Case {
    /// Reads the case of a folder.
    pub fn read(folder: &Path) -> Self {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let about = fs::read_to_string(folder.join("about.md"));
        let about = about.unwrap_or_else(|e| panic!("{name}/about.md: {e}"));
        let text = fs::read_to_string(folder.join("case.toml"));
        let text = text.unwrap_or_else(|e| panic!("{name}/case.toml: {e}"));
        let meta = toml::from_str(&text).unwrap_or_else(|e| panic!("{name}/case.toml: {e}"));
        let mut sent = Vec::new();
        for (port, word) in PORTS.iter().enumerate() {
            let frames = capture::read(&folder.join(format!("send.{word}.pcap")));
            sent.extend(frames.into_iter().map(|(us, bytes)| Sent { us, port, bytes }));
        }
        sent.sort_by_key(|frame| frame.us);
        let of =
            |kind: &str, word: &str| capture::read(&folder.join(format!("{kind}.{word}.pcap")));
        Self {
            name,
            about: about.trim().to_owned(),
            meta,
            sent,
            expected: PORTS.map(|word| of("expect", word)),
            generated: PORTS.map(|word| of("generate", word)),
            host: INTERFACES.map(|word| of("host", word)),
        }
    }
    /// Writes the case under `cases`.
    pub fn write(&self, cases: &Path) {
        let folder = cases.join(&self.name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("about.md"), format!("{}\n", self.about)).unwrap();
        fs::write(folder.join("case.toml"), toml::to_string(&self.meta).unwrap()).unwrap();
        for (port, word) in PORTS.iter().enumerate() {
            let sent = self.sent.iter().filter(|frame| frame.port == port);
            let sent: Vec<_> = sent.map(|frame| (frame.us, frame.bytes.clone())).collect();
            capture::write(&folder.join(format!("send.{word}.pcap")), &sent);
            capture::write(&folder.join(format!("expect.{word}.pcap")), &self.expected[port]);
            capture::write(&folder.join(format!("generate.{word}.pcap")), &self.generated[port]);
        }
        for (interface, word) in INTERFACES.iter().enumerate() {
            capture::write(&folder.join(format!("host.{word}.pcap")), &self.host[interface]);
        }
    }
}

/// The folder of the cases.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}

/// All cases, in the order of their names.
pub fn all() -> Vec<Case> {
    let mut folders: Vec<_> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    folders.iter().map(|folder| Case::read(folder)).collect()
}
