//! Other stations that say that an address of ours is theirs: by ARP (RFC 5227 section 2.4) or by
//! neighbour discovery (RFC 4862 section 5.4). They are dropped, counted and told.

use crate::adjacency::Mac;
use crate::answer::{self, Bucket, Rate};
use crate::frame::Frame;
use crate::journey::Now;
use crate::miss::holds;
use crate::parse::{ETHERNET_LEN, Parsed};
use crate::tables::Tables;
use model::ids::InterfaceId;
use model::limits::INTERFACES_MAX;
use std::net::IpAddr;

/// Claims that wait for the engine to fetch them, at most.
const WAITING_MAX: usize = 16;
/// Claims that a worker tells of one interface: whoever forges them fills nothing but this.
const RATE: Rate = Rate { per_second: 10, burst: 10 };

/// Another station uses one of our addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The interface on whose link it is.
    pub interface: InterfaceId,
    /// The address.
    pub address: IpAddr,
    /// The MAC that it says has the address.
    pub mac: Mac,
}

/// The claims that were seen and are to be told, and a bucket for each interface.
#[derive(Debug)]
pub struct Claims {
    waiting: Vec<Claim>,
    buckets: [Bucket; INTERFACES_MAX],
}

impl Default for Claims {
    fn default() -> Self {
        let buckets = [(); INTERFACES_MAX].map(|()| Bucket::new(RATE));
        Self { waiting: Vec::with_capacity(WAITING_MAX), buckets }
    }
}

impl Claims {
    /// True where a station says that `address`, which workers answer for on this interface or
    /// which is the host's own there, is at `mac`, and that isn't a MAC of ours. It will be told,
    /// unless too many were, or the packet isn't right.
    pub fn see(
        &mut self,
        tables: &Tables,
        claim: Claim,
        now: Now,
        is_right: impl FnOnce() -> bool,
    ) -> bool {
        if !is_another_s(tables, &claim) {
            return false;
        }
        let bucket = self.buckets.get_mut(claim.interface.index());
        // One that won't be told isn't looked at any further.
        if self.waiting.len() >= WAITING_MAX || !bucket.is_some_and(|bucket| bucket.take(now.ms)) {
            return true;
        }
        let right = is_right();
        if right {
            self.waiting.push(claim);
        }
        right
    }
    /// True where claims wait.
    pub const fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
    /// Takes them.
    pub fn take(&mut self) -> impl Iterator<Item = Claim> + '_ {
        self.waiting.drain(..)
    }
}

/// True where `address` is ours on this interface, and `mac` isn't.
fn is_another_s(tables: &Tables, Claim { interface, address, mac }: &Claim) -> bool {
    let (interface, address) = (*interface, *address);
    let ours =
        holds(tables, interface, address) || tables.adjacencies.is_local_on(interface, address);
    ours && tables.adjacencies.interfaces().iter().all(|one| one.mac != *mac)
}

/// The MAC that an ARP packet says its sender has.
pub fn arp_sender(frame: &Frame<'_>, parsed: &Parsed) -> Option<Mac> {
    mac_at(frame, usize::from(parsed.l3) + 8)
}

/// The MAC that a neighbour advertisement (136) or solicitation (135) tells: its option with a
/// link-layer address, or else the frame's sender.
pub fn discovery_sender(frame: &Frame<'_>, parsed: &Parsed, kind: u8) -> Option<Mac> {
    const ADVERTISEMENT: u8 = 136;
    // RFC 4861 section 4.6.1: the target's, or the source's.
    let wanted = if kind == ADVERTISEMENT { 2 } else { 1 };
    let end = parsed.end().min(frame.bytes().len());
    let mut at = usize::from(parsed.l4) + 24;
    while let Some([option, units]) = frame.bytes().get(at..end).and_then(|rest| rest.first_chunk())
    {
        if *option == wanted && *units == 1 && at + 8 <= end {
            return mac_at(frame, at + 2);
        }
        // RFC 4861 section 4.6: a packet with an option of length 0 is discarded.
        if *units == 0 {
            return None;
        }
        at += usize::from(*units) * 8;
    }
    Some(answer::sender(frame)).filter(|_| frame.bytes().len() >= ETHERNET_LEN)
}

fn mac_at(frame: &Frame<'_>, at: usize) -> Option<Mac> {
    let bytes: [u8; 6] = *frame.bytes().get(at..)?.first_chunk()?;
    Some(Mac(bytes)).filter(|mac| !mac.is_multicast() && mac.0 != [0; 6])
}
