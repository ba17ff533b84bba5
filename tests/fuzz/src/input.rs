//! A frame on its way into the pipeline, and how it is written down.

use model::ids::PortId;
use pipeline::frame::{ChecksumReport, Frame, Rx};

/// A frame to be processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Its bytes, those in other segments included.
    pub bytes: Vec<u8>,
    /// How it came in.
    pub rx: Rx,
    /// Bytes of the buffer in front of it.
    pub headroom: usize,
    /// Bytes of the buffer behind its first segment.
    pub tailroom: usize,
    /// How many of its last bytes lie in another segment.
    pub tail: usize,
}

impl Input {
    /// A frame in one segment with the room that DPDK leaves.
    pub fn new(bytes: Vec<u8>, port: PortId) -> Self {
        let rx = Rx { port, ..Rx::default() };
        Self { bytes, rx, headroom: 128, tailroom: 2048, tail: 0 }
    }
    /// The buffer that holds its first segment.
    pub fn buffer(&self) -> Vec<u8> {
        let mut buffer = vec![0xa5; self.headroom];
        buffer.extend(&self.bytes[..self.head()]);
        buffer.resize(buffer.len() + self.tailroom, 0x5a);
        buffer
    }
    /// The frame in its buffer.
    pub fn frame<'a>(&self, buffer: &'a mut [u8]) -> Frame<'a> {
        let end = self.headroom + self.head();
        Frame::new(buffer, self.headroom, end, self.bytes.len() - self.head(), self.rx)
    }
    fn head(&self) -> usize {
        self.bytes.len() - self.tail.min(self.bytes.len())
    }
    /// The bytes of a processed frame, trailing segments included.
    pub fn bytes_of(&self, frame: &Frame<'_>) -> Vec<u8> {
        let tail = &self.bytes[self.bytes.len() - frame.tail_len().min(self.bytes.len())..];
        [frame.bytes(), tail].concat()
    }
    /// One line: `port vlan hash ip-checksum l4-checksum hops ports headroom tailroom tail bytes`.
    pub fn to_line(&self) -> String {
        let rx = &self.rx;
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let bytes: String = self.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!(
            "{} {} {} {} {} {} {} {} {} {} {bytes}",
            rx.port,
            or_dash(rx.vlan.map(|vlan| vlan.to_string())),
            or_dash(rx.hash.map(|hash| hash.to_string())),
            report_word(rx.ip_checksum),
            report_word(rx.l4_checksum),
            rx.hops,
            or_dash(rx.fragment_ports.map(|(from, to)| format!("{from}:{to}"))),
            self.headroom,
            self.tailroom,
            self.tail,
        )
    }
    /// The frame of a line.
    pub fn from_line(line: &str) -> Self {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [port, vlan, hash, ip, l4, hops, ports, headroom, tailroom, tail, rest @ ..] =
            &words[..]
        else {
            panic!("ten words and the bytes: {line}")
        };
        let given = |word: &str| (word != "-").then(|| word.to_owned());
        let hex = rest.concat();
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        Self {
            bytes: (0..hex.len()).step_by(2).map(byte).collect(),
            rx: Rx {
                port: PortId(port.parse().unwrap()),
                vlan: given(vlan).map(|word| word.parse().unwrap()),
                hash: given(hash).map(|word| word.parse().unwrap()),
                ip_checksum: report(ip),
                l4_checksum: report(l4),
                hops: hops.parse().unwrap(),
                fragment_ports: given(ports).map(|word| {
                    let (from, to) = word.split_once(':').unwrap();
                    (from.parse().unwrap(), to.parse().unwrap())
                }),
                ..Rx::default()
            },
            headroom: headroom.parse().unwrap(),
            tailroom: tailroom.parse().unwrap(),
            tail: tail.parse().unwrap(),
        }
    }
}

const fn report_word(report: ChecksumReport) -> &'static str {
    match report {
        ChecksumReport::Unknown => "unknown",
        ChecksumReport::Good => "good",
        ChecksumReport::Bad => "bad",
    }
}

fn report(word: &str) -> ChecksumReport {
    match word {
        "good" => ChecksumReport::Good,
        "bad" => ChecksumReport::Bad,
        _ => ChecksumReport::Unknown,
    }
}
