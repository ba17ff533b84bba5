//! Connections that are not verified yet: a bounded ring in the order of their admission. What was
//! admitted lives [`LIFE_MIN_MS`] at least, so the ring's length is the cap on how many are admitted
//! in that time; a flood beyond it meets a named drop before it touches cold memory.

use model::limits::HALF_OPEN_LIFE_MIN_MS as LIFE_MIN_MS;

/// No connection.
const NONE: u32 = u32::MAX;
/// Places that are looked at for one admission.
const TRIES: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Admitted {
    entry: u32,
    since_ms: u32,
}

/// A place in the ring, from 1; 0 is none, as in zeroed memory.
pub type RingPlace = u32;

/// The ring of one protocol.
#[derive(Debug)]
pub struct HalfOpen {
    places: Box<[Admitted]>,
    next: usize,
}

impl HalfOpen {
    /// An empty ring for so many connections.
    pub fn new(places: usize) -> Self {
        let none = Admitted { entry: NONE, since_ms: 0 };
        Self { places: vec![none; places.max(1)].into_boxed_slice(), next: 0 }
    }
    /// Bytes of the ring.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.places)
    }
    /// Looks for a place, a free one where there is any among those that are looked at: as long as
    /// there is room nobody has to go. `Ok(Some(entry))`: that connection has to go for it. `Err`: all
    /// of them are younger than [`LIFE_MIN_MS`].
    pub fn find_place(&mut self, now_ms: u32) -> Result<Option<u32>, Refused> {
        let mut oldest: Option<(usize, Admitted)> = None;
        let mut at = self.next;
        for _ in 0..TRIES.min(self.places.len()) {
            let place = self.places[at];
            if place.entry == NONE {
                self.next = at;
                return Ok(None);
            }
            let age = now_ms.wrapping_sub(place.since_ms);
            let older = |(_, than): (usize, Admitted)| age > now_ms.wrapping_sub(than.since_ms);
            if age >= LIFE_MIN_MS && oldest.is_none_or(older) {
                oldest = Some((at, place));
            }
            at = self.after(at);
        }
        let Some((at, place)) = oldest else {
            self.next = at;
            return Err(Refused);
        };
        self.next = at;
        Ok(Some(place.entry))
    }
    /// Takes the place that was found, which is free by now.
    pub fn take(&mut self, entry: u32, now_ms: u32) -> RingPlace {
        let at = self.next;
        self.places[at] = Admitted { entry, since_ms: now_ms };
        self.next = self.after(at);
        at as u32 + 1
    }
    /// Takes places anew for a connection that was admitted then: to be called in the order of
    /// admission. `None` where all are taken.
    pub fn restore(&mut self, entry: u32, since_ms: u32) -> Option<RingPlace> {
        (self.places[self.next].entry == NONE).then(|| self.take(entry, since_ms))
    }
    /// Frees the place of a connection that is verified, or gone.
    pub fn leave(&mut self, place: RingPlace, entry: u32) {
        let at = (place as usize).wrapping_sub(1);
        if let Some(admitted) = self.places.get_mut(at).filter(|admitted| admitted.entry == entry) {
            admitted.entry = NONE;
        }
    }
    /// One that may go for a connection that needs a place in the table: the next that is old enough.
    pub fn oldest(&self, now_ms: u32) -> Option<u32> {
        let len = self.places.len();
        (0..len.min(64)).map(|step| self.places[(self.next + step) % len]).find_map(|place| {
            let old = now_ms.wrapping_sub(place.since_ms) >= LIFE_MIN_MS;
            (place.entry != NONE && old).then_some(place.entry)
        })
    }
    const fn after(&self, at: usize) -> usize {
        if at + 1 < self.places.len() { at + 1 } else { 0 }
    }
}

#[cfg(test)]
impl HalfOpen {
    /// The connections in it, each with its place.
    pub fn admitted(&self) -> impl Iterator<Item = (RingPlace, u32)> {
        let places = self.places.iter().enumerate();
        places.filter(|(_, p)| p.entry != NONE).map(|(at, p)| (at as u32 + 1, p.entry))
    }
}

/// Too many half-open connections were admitted within [`LIFE_MIN_MS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_admitted_lives_for_a_while() {
        let mut ring = HalfOpen::new(4);
        for entry in 0..4 {
            assert_eq!(ring.find_place(100), Ok(None));
            ring.take(entry, 100);
        }
        assert_eq!(ring.find_place(100 + LIFE_MIN_MS - 1), Err(Refused));
        assert_eq!(ring.find_place(100 + LIFE_MIN_MS), Ok(Some(0)));
    }

    #[test]
    fn one_that_left_makes_room_at_once() {
        let mut ring = HalfOpen::new(4);
        let places: Vec<_> = (0..4).map(|entry| ring.take(entry, 100)).collect();
        ring.leave(places[2], 2);
        ring.leave(places[3], 7);
        assert_eq!(ring.find_place(101), Ok(None));
        assert_eq!(ring.take(9, 101), places[2]);
        assert_eq!(ring.find_place(101), Err(Refused), "an entry leaves its own place alone");
    }

    /// Most of those that were admitted are verified soon: one that takes longer stays while there is
    /// room, however often the ring comes round.
    #[test]
    fn one_that_takes_long_stays_among_free_places() {
        let mut ring = HalfOpen::new(16);
        let slow = ring.take(77, 0);
        for n in 1..200u32 {
            let now_ms = n * LIFE_MIN_MS;
            assert_eq!(ring.find_place(now_ms), Ok(None), "at {n}");
            let place = ring.take(n, now_ms);
            assert_ne!(place, slow);
            ring.leave(place, n);
        }
    }

    #[test]
    fn of_those_that_are_looked_at_the_oldest_goes() {
        let mut ring = HalfOpen::new(4);
        for (entry, since_ms) in [(0, 50), (1, 10), (2, 90), (3, 70)] {
            ring.take(entry, since_ms);
        }
        assert_eq!(ring.find_place(10 + LIFE_MIN_MS), Ok(Some(1)));
    }
}
