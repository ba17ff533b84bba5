//! TCP and UDP packets by the million: written into a buffer without an allocation, with numbers
//! and timestamps as a stack would give them, and read back with every checksum verified. By other
//! code than the pipeline's.

use super::packets::Mac;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
/// Length of the Ethernet header.
pub const L3: usize = 14;
const TIMESTAMPS_LEN: usize = 12;

/// A TCP segment or UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub protocol: u8,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// Of TCP alone, as are the numbers.
    pub flags: u8,
    pub sequence: u32,
    pub acknowledged: u32,
    /// The timestamps option's value (RFC 7323).
    pub timestamp: Option<u32>,
    /// Eight bytes of data, or none.
    pub data: Option<u64>,
}

impl Segment {
    pub const fn tcp(source: SocketAddr, destination: SocketAddr, flags: u8) -> Self {
        Self {
            protocol: TCP,
            source,
            destination,
            flags,
            sequence: 0,
            acknowledged: 0,
            timestamp: None,
            data: None,
        }
    }
    pub const fn udp(source: SocketAddr, destination: SocketAddr, data: u64) -> Self {
        Self { protocol: UDP, data: Some(data), ..Self::tcp(source, destination, 0) }
    }
    pub const fn numbers(self, sequence: u32, acknowledged: u32) -> Self {
        Self { sequence, acknowledged, ..self }
    }
    pub const fn data(self, data: u64) -> Self {
        Self { data: Some(data), ..self }
    }
    pub const fn timestamp(self, timestamp: Option<u32>) -> Self {
        Self { timestamp, ..self }
    }

    /// Writes the frame; returns its length.
    pub fn write(&self, into: &mut [u8], (from, to): (Mac, Mac)) -> usize {
        into[..6].copy_from_slice(&to);
        into[6..12].copy_from_slice(&from);
        let v4 = self.source.is_ipv4();
        let l4 = L3 + if v4 { 20 } else { 40 };
        let end = l4 + self.write_l4(&mut into[l4..]);
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                into[12..14].copy_from_slice(&[8, 0]);
                let len = ((end - L3) as u16).to_be_bytes();
                let ip = &mut into[L3..l4];
                ip.copy_from_slice(&[
                    0x45,
                    0,
                    len[0],
                    len[1],
                    0,
                    7,
                    0x40,
                    0,
                    64,
                    self.protocol,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                ]);
                ip[12..16].copy_from_slice(&source.octets());
                ip[16..20].copy_from_slice(&destination.octets());
                let sum = complement(sum(ip));
                into[L3 + 10..L3 + 12].copy_from_slice(&sum);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                into[12..14].copy_from_slice(&[0x86, 0xdd]);
                let len = ((end - l4) as u16).to_be_bytes();
                into[L3..L3 + 8].copy_from_slice(&[
                    0x60,
                    0,
                    0,
                    0,
                    len[0],
                    len[1],
                    self.protocol,
                    64,
                ]);
                into[L3 + 8..L3 + 24].copy_from_slice(&source.octets());
                into[L3 + 24..l4].copy_from_slice(&destination.octets());
            }
            _ => panic!("two families"),
        }
        let at = l4 + if self.protocol == TCP { 16 } else { 6 };
        let sum = complement(l4_sum(&into[..end], l4, self.protocol));
        into[at..at + 2].copy_from_slice(&if sum == [0, 0] { [255, 255] } else { sum });
        end
    }

    /// Writes the transport header with a checksum of 0, and the data; returns their length.
    fn write_l4(&self, into: &mut [u8]) -> usize {
        let mut len = if self.protocol == UDP { 8 } else { 20 };
        into[..2].copy_from_slice(&self.source.port().to_be_bytes());
        into[2..4].copy_from_slice(&self.destination.port().to_be_bytes());
        if self.protocol == TCP {
            into[4..8].copy_from_slice(&self.sequence.to_be_bytes());
            into[8..12].copy_from_slice(&self.acknowledged.to_be_bytes());
            if let Some(timestamp) = self.timestamp {
                into[20..24].copy_from_slice(&[1, 1, 8, 10]);
                into[24..28].copy_from_slice(&timestamp.to_be_bytes());
                into[28..32].fill(0);
                len += TIMESTAMPS_LEN;
            }
            into[12..14].copy_from_slice(&[(len as u8 / 4) << 4, self.flags]);
            into[14..20].copy_from_slice(&[0xff, 0, 0, 0, 0, 0]);
        }
        let header = len;
        if let Some(data) = self.data {
            into[header..header + 8].copy_from_slice(&data.to_be_bytes());
            len += 8;
        }
        if self.protocol == UDP {
            into[4..6].copy_from_slice(&(len as u16).to_be_bytes());
            into[6..8].fill(0);
        }
        len
    }

    /// Reads a frame that [`Self::write`] has written, addresses and ports as they are by now.
    /// `verify`: every checksum must be right.
    pub fn read(bytes: &[u8], verify: bool) -> Self {
        let v4 = bytes[12] == 8;
        let l4 = L3 + if v4 { 20 } else { 40 };
        let protocol = bytes[L3 + if v4 { 9 } else { 6 }];
        if verify {
            assert!(!v4 || complement(sum(&bytes[L3..l4])) == [0, 0], "header checksum");
            assert_eq!(complement(l4_sum(bytes, l4, protocol)), [0, 0], "checksum of {protocol}");
        }
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let [source, destination] = if v4 {
            [12, 16].map(|at| IpAddr::V4(Ipv4Addr::from_bits(number(L3 + at))))
        } else {
            [8, 24].map(|at| {
                let octets: [u8; 16] = bytes[L3 + at..L3 + at + 16].try_into().unwrap();
                IpAddr::V6(Ipv6Addr::from(octets))
            })
        };
        let source = SocketAddr::new(source, word(l4));
        let destination = SocketAddr::new(destination, word(l4 + 2));
        let mut segment = Self { protocol, ..Self::tcp(source, destination, 0) };
        let mut header = 8;
        if protocol == TCP {
            header = usize::from(bytes[l4 + 12] >> 4) * 4;
            segment.flags = bytes[l4 + 13];
            segment = segment.numbers(number(l4 + 4), number(l4 + 8));
            segment.timestamp = (header == 20 + TIMESTAMPS_LEN).then(|| number(l4 + 24));
        }
        let data = bytes.get(l4 + header..l4 + header + 8);
        segment.data = data.map(|data| u64::from_be_bytes(data.try_into().unwrap()));
        segment
    }
}

/// The sum of 16-bit words (RFC 1071), an odd byte padded, not folded.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let whole: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    whole + u64::from(u32::from_be_bytes(last))
}

fn l4_sum(frame: &[u8], l4: usize, protocol: u8) -> u64 {
    let addresses = if l4 == L3 + 20 { L3 + 12..l4 } else { L3 + 8..l4 };
    sum(&frame[addresses]) + u64::from(protocol) + (frame.len() - l4) as u64 + sum(&frame[l4..])
}

fn complement(mut sum: u64) -> [u8; 2] {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
