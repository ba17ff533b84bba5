//! Packets as the benchmarks send them: 64 bytes of Ethernet on the wire, 60 without the frame
//! check sequence, of which the last six are padding behind an IPv4 and a TCP header.

use pipeline::arch::memory::Plain;
use pipeline::parse::{TCP_ACK, TCP_SYN};
use pipeline::rewrite::checksum;

/// Bytes of a packet as a device delivers it.
pub const PACKET_LEN: usize = 60;
/// Room in front of a packet, as DPDK leaves it.
pub const HEADROOM: usize = 128;
/// Bytes from one buffer to the next: a `struct rte_mbuf`, its headroom and 2 KiB.
const BUFFER_LEN: usize = 2304;
/// Buffers of a pool. What is touched of them is 64 KiB: more than a first-level cache, and well
/// within a second-level one.
pub const BUFFERS: usize = 1024;

/// Where things are in a packet.
pub const IP: usize = 14;
/// The TCP header.
pub const TCP: usize = IP + 20;

/// Number of every SYN-ACK.
const ISN: u32 = 1_999;

/// A prebuilt packet in a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Packet(pub [u8; 64]);

/// A buffer that packets are copied to.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Buffer(pub [u8; BUFFER_LEN]);

// SAFETY: bytes alone, for which every bit pattern is valid.
unsafe impl Plain for Packet {}
// SAFETY: bytes alone, for which every bit pattern is valid.
unsafe impl Plain for Buffer {}

impl Buffer {
    /// Puts a packet behind the headroom.
    #[inline(always)]
    pub fn load(&mut self, packet: &Packet) {
        self.0[HEADROOM..HEADROOM + 64].copy_from_slice(&packet.0);
    }
    /// The packet's cache line.
    #[inline(always)]
    pub fn line(&mut self) -> &mut [u8; 64] {
        self.0[HEADROOM..].first_chunk_mut().unwrap_or_else(|| unreachable!())
    }
}

/// One end of a TCP flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// IPv4 address.
    pub address: u32,
    /// Port.
    pub port: u16,
}

/// A TCP packet with right checksums.
pub fn tcp(macs: ([u8; 6], [u8; 6]), source: End, destination: End, flags: u8) -> Packet {
    let mut bytes = [0u8; 64];
    bytes[..6].copy_from_slice(&macs.0);
    bytes[6..12].copy_from_slice(&macs.1);
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    bytes[IP..IP + 12].copy_from_slice(&[0x45, 0, 0, 40, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0]);
    bytes[IP + 12..IP + 16].copy_from_slice(&source.address.to_be_bytes());
    bytes[IP + 16..IP + 20].copy_from_slice(&destination.address.to_be_bytes());
    let sum = !checksum::fold(checksum::sum(&bytes[IP..TCP], 0));
    bytes[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
    bytes[TCP..TCP + 2].copy_from_slice(&source.port.to_be_bytes());
    bytes[TCP + 2..TCP + 4].copy_from_slice(&destination.port.to_be_bytes());
    // A SYN-ACK has the number that all other segments acknowledge.
    let sequence = if flags == TCP_SYN | TCP_ACK { ISN } else { ISN + 1 };
    bytes[TCP + 4..TCP + 8].copy_from_slice(&sequence.to_be_bytes());
    if flags & TCP_ACK != 0 {
        bytes[TCP + 8..TCP + 12].copy_from_slice(&(ISN + 1).to_be_bytes());
    }
    bytes[TCP + 12..TCP + 16].copy_from_slice(&[0x50, flags, 0xff, 0xff]);
    let sum = !tcp_sum(&bytes);
    bytes[TCP + 16..TCP + 18].copy_from_slice(&sum.to_be_bytes());
    Packet(bytes)
}

/// The folded sum over pseudo header and TCP header; all ones where the checksum in it is right.
fn tcp_sum(bytes: &[u8; 64]) -> u16 {
    let addresses = checksum::sum(&bytes[IP + 12..IP + 20], 0);
    checksum::add(
        checksum::fold(checksum::sum(&bytes[TCP..TCP + 20], addresses)),
        checksum::pseudo(6, 20),
    )
}

/// The ends of a packet: (source, destination).
pub fn ends(bytes: &[u8; 64]) -> (End, End) {
    let address =
        |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    (
        End { address: address(IP + 12), port: port(TCP) },
        End { address: address(IP + 16), port: port(TCP + 2) },
    )
}

/// True where both checksums are right.
pub fn is_sound(bytes: &[u8; 64]) -> bool {
    checksum::fold(checksum::sum(&bytes[IP..TCP], 0)) == 0xffff && tcp_sum(bytes) == 0xffff
}
