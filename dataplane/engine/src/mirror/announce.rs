//! Gratuitous ARP and unsolicited neighbour advertisements: so that neighbours and switches learn
//! at once that an address is here.

use model::ids::InterfaceId;
use pipeline::adjacency::Mac;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Each announcement is made at these moments after it was asked for, since a single frame may be
/// lost (RFC 5227 section 3 and RFC 9131 repeat as well).
const MOMENTS_S: [u64; 3] = [0, 1, 3];

/// Frames in one round of the thread, one round at most each [`PACE`]: 12,800 a second, a fifth
/// of what a ring of 512 frames takes in from an idle mirror.
const ROUND_MAX: usize = 64;
const PACE: Duration = Duration::from_millis(5);

/// Announcements that may be waiting: one for each frontend address and NAT address, and more.
pub(crate) const ANNOUNCEMENTS_MAX: usize = 65_536;

/// Where an address is to be announced.
pub(crate) type Place = (InterfaceId, IpAddr);

/// The announcements that are still to be made.
#[derive(Default)]
pub(crate) struct Announcer {
    due: BTreeMap<(Instant, u64), (Place, usize)>,
    by_place: HashMap<Place, (Instant, u64)>,
    numbers: u64,
    not_before: Option<Instant>,
}

impl Announcer {
    /// Begins to announce; a place that is being announced begins anew. Gives the number of
    /// places that were refused because too many are waiting.
    pub fn add(&mut self, places: impl IntoIterator<Item = Place>, now: Instant) -> usize {
        let mut refused = 0;
        for place in places {
            if let Some(key) = self.by_place.remove(&place) {
                self.due.remove(&key);
            }
            if self.due.len() >= ANNOUNCEMENTS_MAX {
                refused += 1;
            } else {
                self.put(place, 0, now);
            }
        }
        refused
    }
    fn put(&mut self, place: Place, moment: usize, at: Instant) {
        self.numbers += 1;
        let key = (at, self.numbers);
        self.due.insert(key, (place, moment));
        self.by_place.insert(place, key);
    }
    /// The places whose moment has come, at most a round of them, each put back for its next
    /// moment.
    pub fn take_due(&mut self, now: Instant) -> Vec<Place> {
        if self.due.is_empty() || self.not_before.is_some_and(|at| now < at) {
            return Vec::new();
        }
        let mut round = Vec::new();
        while round.len() < ROUND_MAX {
            let Some(entry) = self.due.first_entry() else { break };
            if entry.key().0 > now {
                break;
            }
            let (place, moment) = entry.remove();
            self.by_place.remove(&place);
            round.push(place);
            if let Some(next_s) = MOMENTS_S.get(moment + 1) {
                let wait = Duration::from_secs(next_s - MOMENTS_S[moment]);
                self.put(place, moment + 1, now + wait);
            }
        }
        if !round.is_empty() {
            self.not_before = Some(now + PACE);
        }
        round
    }
}

/// The frame that announces `address` at `mac`.
pub(crate) fn announcement(address: IpAddr, mac: Mac) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => gratuitous_arp(address, mac),
        IpAddr::V6(address) => unsolicited_advertisement(address, mac),
    }
}

/// An ARP announcement (RFC 5227 section 3): a broadcast request whose sender and target address
/// are the announced one. Padded to the 60 bytes that Ethernet wants.
fn gratuitous_arp(address: Ipv4Addr, mac: Mac) -> Vec<u8> {
    let mut frame = Vec::with_capacity(60);
    frame.extend([0xff; 6]);
    frame.extend(mac.0);
    frame.extend([0x08, 0x06]);
    // Ethernet, IPv4, lengths 6 and 4, request.
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac.0);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame.resize(60, 0);
    frame
}

/// Bytes of a neighbour advertisement with the option that holds our MAC.
const ADVERTISEMENT_BYTES: u8 = 32;

/// An unsolicited neighbour advertisement to all nodes (RFC 4861 sections 4.4 and 7.2.6): override
/// set, solicited and router not.
fn unsolicited_advertisement(address: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(address.octets());
    // Option 2, target link-layer address, one unit of eight bytes.
    message.extend([2, 1]);
    message.extend(mac.0);
    let checksum = icmp6_checksum(address, all_nodes, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = Vec::with_capacity(86);
    frame.extend([0x33, 0x33, 0, 0, 0, 1]);
    frame.extend(mac.0);
    frame.extend([0x86, 0xdd]);
    // Version 6, no traffic class, no flow label; ICMPv6; hop limit 255, which receivers check.
    frame.extend([0x60, 0, 0, 0, 0, ADVERTISEMENT_BYTES, 58, 255]);
    frame.extend(address.octets());
    frame.extend(all_nodes.octets());
    frame.extend(message);
    frame
}

/// The checksum over the pseudo header and a message of even length (RFC 4443 section 2.3).
fn icmp6_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words = source.segments().into_iter().chain(destination.segments());
    let header: u32 = words.map(u32::from).sum::<u32>() + message.len() as u32 + 58;
    let body: u32 =
        message.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let mut sum = header + body;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 0x0a]);

    #[test]
    fn a_gratuitous_arp_is_byte_for_byte_as_rfc_5227_says() {
        let expected = "ffffffffffff02000000000a08060001080006040001\
                        02000000000acb00710a000000000000cb00710a\
                        000000000000000000000000000000000000";
        let frame = announcement("203.0.113.10".parse().unwrap(), MAC);
        assert_eq!(hex(&frame), expected);
    }

    #[test]
    fn an_unsolicited_advertisement_is_byte_for_byte_as_rfc_4861_says() {
        let expected = "33330000000102000000000a86dd60000000002\
                        03aff20010db8000000000000000000000010ff020000000000000000000000000001\
                        8800f9032000000020010db8000000000000000000000010020102000000000a";
        let frame = announcement("2001:db8::10".parse().unwrap(), MAC);
        assert_eq!(hex(&frame), expected);
    }

    #[test]
    fn another_implementation_accepts_the_advertisement() {
        let address: Ipv6Addr = "2001:db8::ffff:10".parse().unwrap();
        let frame = announcement(address.into(), Mac([0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]));
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv6(ip)) = packet.net else { panic!("no IPv6") };
        let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("no ICMPv6") };
        assert_eq!(ip.header().hop_limit(), 255);
        assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
    }

    #[test]
    fn each_place_is_announced_three_times_and_then_forgotten() {
        let mut announcer = Announcer::default();
        let start = Instant::now();
        let place = (InterfaceId(1), "203.0.113.10".parse().unwrap());
        assert_eq!(announcer.add([place], start), 0);
        let mut moments = Vec::new();
        for ms in (0..5000).step_by(10) {
            let due = announcer.take_due(start + Duration::from_millis(ms));
            moments.extend(due.iter().map(|_| ms));
        }
        assert_eq!(moments, [0, 1000, 3000]);
        assert!(announcer.due.is_empty());
        assert!(announcer.by_place.is_empty());
    }

    #[test]
    fn a_place_asked_for_again_begins_anew_and_isnt_doubled() {
        let mut announcer = Announcer::default();
        let start = Instant::now();
        let place = (InterfaceId(1), "203.0.113.10".parse().unwrap());
        announcer.add([place, place], start);
        assert_eq!(announcer.take_due(start).len(), 1);
        announcer.add([place], start + Duration::from_millis(500));
        assert_eq!(announcer.due.len(), 1);
        assert_eq!(announcer.take_due(start + Duration::from_millis(500)).len(), 1);
        assert_eq!(announcer.take_due(start + Duration::from_millis(1000)).len(), 0);
    }

    #[test]
    fn announcements_are_paced_and_bounded() {
        let mut announcer = Announcer::default();
        let start = Instant::now();
        let places = (0..ANNOUNCEMENTS_MAX as u32 + 5)
            .map(|n| (InterfaceId(0), IpAddr::V4(Ipv4Addr::from_bits(n))));
        assert_eq!(announcer.add(places, start), 5);
        assert_eq!(announcer.take_due(start).len(), ROUND_MAX);
        assert_eq!(announcer.take_due(start).len(), 0);
        assert_eq!(announcer.take_due(start + PACE).len(), ROUND_MAX);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
