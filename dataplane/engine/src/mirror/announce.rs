//! When which address is announced: so that neighbours and switches learn at once that it is here,
//! and learn it again where they have forgotten.

use model::ids::InterfaceId;
use pipeline::hash::mum;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Each announcement is made at these moments after it was asked for, since a single frame may be
/// lost (RFC 5227 section 3 and RFC 9131 repeat as well).
const MOMENTS_S: [u64; 3] = [0, 1, 3];

/// Frames in one round of the thread, one round at most each [`PACE`]: 12,800 a second, a fifth
/// of what a ring of 512 frames takes in from an idle mirror.
const ROUND_MAX: usize = 64;
const PACE: Duration = Duration::from_millis(5);

/// Addresses that are announced, each on each of its links. Over the shortest period of ten
/// seconds they are 6,554 frames a second, half of the pace.
pub(crate) const ANNOUNCEMENTS_MAX: usize = 65_536;

/// Where an address is to be announced.
pub(crate) type Place = (InterfaceId, IpAddr);

/// When something is due; the number tells those of one moment apart.
type Due = (Instant, u64);

/// One that is announced.
#[derive(Default)]
struct Standing {
    /// Its next announcement; none where the slow ones are off, or it is quiet.
    due: Option<Due>,
    /// Somebody else has the address, and isn't fought.
    quiet: bool,
}

/// The addresses that are announced, and when each is next.
#[derive(Default)]
pub(crate) struct Announcer {
    /// From one slow announcement to the next; `None`: there are none.
    period: Option<Duration>,
    due: BTreeMap<Due, (Place, usize)>,
    places: HashMap<Place, Standing>,
    numbers: u64,
    not_before: Option<Instant>,
}

impl Announcer {
    /// Announces again after each `period`.
    pub fn new(period: Option<Duration>) -> Self {
        Self { period, ..Self::default() }
    }
    /// Begins to announce; a place that is being announced begins anew. Gives the number of
    /// places that were refused because there are too many.
    pub fn add(&mut self, places: impl IntoIterator<Item = Place>, now: Instant) -> usize {
        let mut refused = 0;
        for place in places {
            if self.places.len() < ANNOUNCEMENTS_MAX || self.places.contains_key(&place) {
                self.places.entry(place).or_default();
                self.put(place, 0, now);
            } else {
                refused += 1;
            }
        }
        refused
    }
    /// Announces no longer.
    pub fn remove(&mut self, places: impl IntoIterator<Item = Place>) {
        for place in places {
            if let Some(due) = self.places.remove(&place).and_then(|standing| standing.due) {
                self.due.remove(&due);
            }
        }
    }
    /// Announces everything on an interface anew: its link was away.
    pub fn again(&mut self, id: InterfaceId, now: Instant) {
        let on_it = self.places.keys().filter(|place| place.0 == id);
        for place in on_it.copied().collect::<Vec<_>>() {
            self.put(place, 0, now);
        }
    }
    /// Announces once, at once, where the place is announced at all, also one that was quiet.
    pub fn once(&mut self, place: Place, now: Instant) {
        if let Some(standing) = self.places.get_mut(&place) {
            standing.quiet = false;
        }
        self.put(place, MOMENTS_S.len() - 1, now);
    }
    /// Keeps quiet about a place, or no longer: then it is announced anew.
    pub fn set_quiet(&mut self, place: Place, quiet: bool, now: Instant) {
        let Some(standing) = self.places.get_mut(&place) else { return };
        if std::mem::replace(&mut standing.quiet, quiet) == quiet {
            return;
        }
        if let Some(due) = standing.due.take() {
            self.due.remove(&due);
        }
        self.put(place, 0, now);
    }
    /// Has the place announced next at `at`.
    fn put(&mut self, place: Place, moment: usize, at: Instant) {
        let Some(standing) = self.places.get_mut(&place) else { return };
        if let Some(due) = standing.due.take() {
            self.due.remove(&due);
        }
        if standing.quiet {
            return;
        }
        self.numbers += 1;
        let due = (at, self.numbers);
        standing.due = Some(due);
        self.due.insert(due, (place, moment));
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
            if let Some(standing) = self.places.get_mut(&place) {
                standing.due = None;
            }
            round.push(place);
            if let Some(wait) = self.wait_after(place, moment) {
                self.put(place, moment + 1, now + wait);
            }
        }
        if !round.is_empty() {
            self.not_before = Some(now + PACE);
        }
        round
    }
    /// How long after its `moment` a place is announced next. The first slow one comes somewhere
    /// within the period, so that they spread over it, and the others a period later each.
    fn wait_after(&self, place: Place, moment: usize) -> Option<Duration> {
        match MOMENTS_S.get(moment + 1) {
            Some(next_s) => Some(Duration::from_secs(next_s - MOMENTS_S[moment])),
            None if moment + 1 == MOMENTS_S.len() => self.period.map(|p| p.mul_f64(phase(place))),
            None => self.period,
        }
    }
}

/// Where in the period a place has its turn, from 0 to 1.
fn phase((id, address): Place) -> f64 {
    let bits = match address {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let (high, low) = ((bits >> 64) as u64, bits as u64);
    let hash = mum(low ^ 0x9e37_79b9_7f4a_7c15, high ^ 0xe703_7ed1_a0b4_28db ^ u64::from(id.0));
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn place(n: u32) -> Place {
        (InterfaceId(0), IpAddr::V4(Ipv4Addr::from_bits(n)))
    }

    /// Milliseconds at which a place is announced, up to `until_ms`.
    fn moments(announcer: &mut Announcer, start: Instant, until_ms: u64) -> Vec<u64> {
        let times = (0..until_ms).step_by(10);
        times
            .flat_map(|ms| {
                let due = announcer.take_due(start + Duration::from_millis(ms));
                due.into_iter().map(move |_| ms)
            })
            .collect()
    }

    #[test]
    fn each_place_is_announced_three_times_and_without_a_period_no_more() {
        let mut announcer = Announcer::default();
        let start = Instant::now();
        assert_eq!(announcer.add([place(1)], start), 0);
        assert_eq!(moments(&mut announcer, start, 5_000), [0, 1000, 3000]);
        assert!(announcer.due.is_empty());
    }

    #[test]
    fn with_a_period_it_goes_on_and_addresses_spread_over_it() {
        let mut announcer = Announcer::new(Some(Duration::from_secs(10)));
        let start = Instant::now();
        announcer.add((0..1_000).map(place), start);
        let all = moments(&mut announcer, start, 33_000);
        // From 13 s on every second holds its tenth of them.
        for second in 13..33 {
            let here = all.iter().filter(|ms| **ms / 1000 == second).count();
            assert!((60..140).contains(&here), "second {second}: {here}");
        }
        let slow = all.iter().filter(|ms| (13_000..23_000).contains(*ms)).count();
        assert_eq!(slow, 1_000, "each once in a period");
    }

    #[test]
    fn a_place_asked_for_again_begins_anew_and_isnt_doubled() {
        let mut announcer = Announcer::default();
        let start = Instant::now();
        announcer.add([place(1), place(1)], start);
        assert_eq!(announcer.take_due(start).len(), 1);
        announcer.add([place(1)], start + Duration::from_millis(500));
        assert_eq!(announcer.due.len(), 1);
        assert_eq!(announcer.take_due(start + Duration::from_millis(500)).len(), 1);
        assert_eq!(announcer.take_due(start + Duration::from_millis(1000)).len(), 0);
    }

    #[test]
    fn a_link_that_comes_back_has_its_own_addresses_announced_anew() {
        let mut announcer = Announcer::default();
        let start = Instant::now();
        let other = (InterfaceId(1), place(1).1);
        announcer.add([place(1), other], start);
        assert_eq!(moments(&mut announcer, start, 5_000).len(), 6);
        announcer.again(InterfaceId(1), start + Duration::from_secs(5));
        assert_eq!(announcer.take_due(start + Duration::from_secs(5)), [other]);
        announcer.remove([other]);
        announcer.again(InterfaceId(1), start + Duration::from_secs(6));
        assert!(announcer.due.is_empty(), "what was taken back isn't announced");
    }

    #[test]
    fn one_that_is_quiet_isnt_announced_whatever_happens() {
        let mut announcer = Announcer::new(Some(Duration::from_secs(10)));
        let start = Instant::now();
        announcer.add([place(1)], start);
        announcer.set_quiet(place(1), true, start);
        announcer.again(InterfaceId(0), start);
        announcer.add([place(1)], start);
        assert!(moments(&mut announcer, start, 40_000).is_empty());
        let later = start + Duration::from_secs(40);
        announcer.once(place(1), later);
        assert_eq!(moments(&mut announcer, later, 100), [0], "but for a defence");
        announcer.set_quiet(place(1), true, later);
        let later = later + Duration::from_secs(1);
        announcer.set_quiet(place(1), false, later);
        assert_eq!(moments(&mut announcer, later, 3_500), [0, 1000, 3000]);
    }

    #[test]
    fn announcements_are_paced_and_bounded() {
        let mut announcer = Announcer::default();
        let start = Instant::now();
        assert_eq!(announcer.add((0..ANNOUNCEMENTS_MAX as u32 + 5).map(place), start), 5);
        assert_eq!(announcer.take_due(start).len(), ROUND_MAX);
        assert_eq!(announcer.take_due(start).len(), 0);
        assert_eq!(announcer.take_due(start + PACE).len(), ROUND_MAX);
    }
}
