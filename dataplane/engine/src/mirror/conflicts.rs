//! Other stations that use addresses of ours (RFC 5227 section 2.4).
//!
//! A gateway of ours is told and never fought. A stranger is told, too, and gets one announcement
//! of ours for each claim, but not more often than RFC 5227 allows, and a few in all: two hosts
//! that both insist would else take the address from each other for ever.

use super::announce::Place;
use model::limits::CONFLICTS_MAX;
use pipeline::adjacency::Mac;
use pipeline::claims::Claim;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// From one defence to the next (`DEFEND_INTERVAL` of RFC 5227).
const DEFEND_EVERY: Duration = Duration::from_secs(10);
/// Defences in one conflict.
const DEFENCES_MAX: u32 = 6;
/// A conflict is over when nobody has claimed the address for so long. A host that talks to nobody
/// new says who it is every minute or two.
const OVER_AFTER: Duration = Duration::from_secs(300);

/// What another gateway of ours is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayName {
    /// The MAC of its port.
    Mac(Mac),
    /// An address of it on a link of ours, whose MAC the kernel knows.
    Address(IpAddr),
}

/// An address of ours that another station uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// On which link, and the address.
    pub place: Place,
    /// The MAC that it was claimed for last.
    pub mac: Mac,
    /// It is another gateway of ours.
    pub is_gateway: bool,
    /// Seconds since the Unix epoch at which it began.
    pub since_s: u64,
    /// Claims that workers told.
    pub claims: u64,
    /// Announcements that answered them.
    pub defences: u32,
}

struct Seen {
    conflict: Conflict,
    last: Instant,
    defended: Option<Instant>,
}

/// What is to be done about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Announce the address once.
    Defend,
    /// Announce it no longer.
    KeepQuiet,
    /// Nothing.
    Nothing,
}

/// The conflicts there are.
#[derive(Default)]
pub(crate) struct Conflicts {
    seen: BTreeMap<Place, Seen>,
    /// Something differs from the last [`Self::news`].
    changed: bool,
    /// When it is looked for those that are over.
    look_at: Option<Instant>,
}

impl Conflicts {
    /// Takes in a claim.
    pub fn take(&mut self, claim: Claim, is_gateway: bool, now: Instant) -> Due {
        let place = (claim.interface, claim.address);
        if self.seen.len() >= CONFLICTS_MAX && !self.seen.contains_key(&place) {
            return Due::Nothing;
        }
        let seen = self.seen.entry(place).or_insert_with(|| Seen {
            conflict: Conflict {
                place,
                mac: claim.mac,
                is_gateway,
                since_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
                claims: 0,
                defences: 0,
            },
            last: now,
            defended: None,
        });
        self.changed = true;
        seen.last = now;
        seen.conflict.claims += 1;
        (seen.conflict.mac, seen.conflict.is_gateway) = (claim.mac, is_gateway);
        if is_gateway || seen.conflict.defences >= DEFENCES_MAX {
            return Due::KeepQuiet;
        }
        if seen.defended.is_some_and(|at| now.saturating_duration_since(at) < DEFEND_EVERY) {
            return Due::Nothing;
        }
        seen.conflict.defences += 1;
        seen.defended = Some(now);
        Due::Defend
    }
    /// Forgets the conflicts that are over, and gives their places.
    pub fn end(&mut self, now: Instant) -> Vec<Place> {
        if self.seen.is_empty() || self.look_at.is_some_and(|at| now < at) {
            return Vec::new();
        }
        self.look_at = Some(now + Duration::from_secs(1));
        let over = |seen: &Seen| now.saturating_duration_since(seen.last) >= OVER_AFTER;
        let ended: Vec<Place> =
            self.seen.iter().filter(|(_, seen)| over(seen)).map(|(place, _)| *place).collect();
        self.seen.retain(|_, seen| !over(seen));
        self.changed |= !ended.is_empty();
        ended
    }
    /// All there are, where something has changed since the last time.
    pub fn news(&mut self) -> Option<Vec<Conflict>> {
        std::mem::take(&mut self.changed)
            .then(|| self.seen.values().map(|seen| seen.conflict).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ids::InterfaceId;
    use std::net::Ipv4Addr;

    const STRANGER: Mac = Mac([2, 0, 0, 0, 0, 0x66]);

    fn claim(n: u32, mac: Mac) -> Claim {
        let address = IpAddr::V4(Ipv4Addr::from_bits(n));
        Claim { interface: InterfaceId(0), address, mac }
    }

    #[test]
    fn a_stranger_is_answered_every_ten_seconds_and_six_times_in_all() {
        let mut conflicts = Conflicts::default();
        let start = Instant::now();
        let due: Vec<(u64, Due)> = (0..200)
            .map(|s| {
                let now = start + Duration::from_secs(s);
                (s, conflicts.take(claim(1, STRANGER), false, now))
            })
            .collect();
        let defended = due.iter().filter(|(_, due)| *due == Due::Defend).map(|(s, _)| *s);
        assert_eq!(defended.collect::<Vec<_>>(), [0, 10, 20, 30, 40, 50]);
        assert!(due[51..].iter().all(|(_, due)| *due == Due::KeepQuiet));
        let told = conflicts.news().unwrap();
        assert_eq!((told.len(), told[0].claims, told[0].defences), (1, 200, 6));
    }

    #[test]
    fn another_gateway_is_never_fought() {
        let mut conflicts = Conflicts::default();
        let start = Instant::now();
        for s in 0..100 {
            let due = conflicts.take(claim(1, STRANGER), true, start + Duration::from_secs(s));
            assert_eq!(due, Due::KeepQuiet);
        }
        assert!(conflicts.news().unwrap()[0].is_gateway);
    }

    #[test]
    fn a_forger_of_many_addresses_and_macs_is_bounded() {
        let mut conflicts = Conflicts::default();
        let start = Instant::now();
        let mut defences = 0;
        for n in 0..100_000_u32 {
            let mac = Mac([2, 1, (n >> 16) as u8, (n >> 8) as u8, n as u8, 0]);
            let now = start + Duration::from_millis(u64::from(n));
            defences += u32::from(conflicts.take(claim(n % 1_000, mac), false, now) == Due::Defend);
        }
        let told = conflicts.news().unwrap();
        assert_eq!(told.len(), CONFLICTS_MAX);
        assert!(defences <= CONFLICTS_MAX as u32 * DEFENCES_MAX, "{defences}");
    }

    #[test]
    fn a_conflict_ends_by_silence_and_its_place_is_given_back() {
        let mut conflicts = Conflicts::default();
        let start = Instant::now();
        conflicts.take(claim(1, STRANGER), false, start);
        conflicts.take(claim(2, STRANGER), false, start + OVER_AFTER);
        assert_eq!(conflicts.news().map(|told| told.len()), Some(2));
        assert_eq!(conflicts.news(), None, "nothing new");
        let ended = conflicts.end(start + OVER_AFTER);
        assert_eq!(ended, [(InterfaceId(0), claim(1, STRANGER).address)]);
        assert_eq!(conflicts.news().map(|told| told.len()), Some(1));
    }
}
