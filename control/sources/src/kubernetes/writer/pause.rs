//! A fault that concerns everything to be written stops all of it, and not each by itself: an
//! account without rights would be refused once for every Service.

use super::super::pace::{Backoff, Jitter};
use std::time::{Duration, Instant};

/// The first wait after a fault, and the longest.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);

/// Whether one sort of writes goes on.
#[derive(Debug)]
pub(super) struct Pause {
    backoff: Backoff,
    /// When the last fault was met, and until when nothing is sent; `None` while all is well.
    fault: Option<(Instant, Instant)>,
}

impl Pause {
    pub(super) const fn new(jitter: Jitter) -> Self {
        Self { backoff: Backoff::new(FIRST, LONGEST, jitter), fault: None }
    }

    /// When what is due at `due` can be sent, with so many under way. After a fault they go one by
    /// one, until one goes well.
    pub(super) fn opens(&self, due: Instant, under_way: usize) -> Option<Instant> {
        match self.fault {
            None => Some(due),
            Some(_) if under_way > 0 => None,
            Some((_, until)) => Some(due.max(until)),
        }
    }

    /// A request that was sent at `sent` met a fault; the server may ask for a longer wait.
    pub(super) fn failed(&mut self, sent: Instant, now: Instant, after: Option<Duration>) {
        let at_least = now + after.unwrap_or_default();
        match &mut self.fault {
            // Those that were under way together met one fault.
            Some((met, until)) if sent < *met => *until = at_least.max(*until),
            _ => self.fault = Some((now, at_least.max(now + self.backoff.wait()))),
        }
    }

    /// The server took a request, or said what is wrong with that one alone.
    pub(super) fn well(&mut self) {
        if self.fault.take().is_some() {
            self.backoff.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_stops_all_and_is_tried_one_by_one() {
        let mut pause = Pause::new(Jitter::seeded(1));
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(pause.opens(start, 7), Some(start));
        // Eight that were under way fail for one reason: one wait.
        for _ in 0..8 {
            pause.failed(start, after(10), None);
        }
        let opens = pause.opens(start, 0).unwrap();
        assert!(opens >= after(210) && opens <= after(260));
        assert_eq!(pause.opens(start, 1), None);
        // The next try waits twice as long, or as long as the server asks for.
        pause.failed(after(300), after(310), None);
        assert!(pause.opens(start, 0).unwrap() >= after(710));
        pause.failed(after(900), after(910), Some(Duration::from_secs(9)));
        assert_eq!(pause.opens(start, 0), Some(after(9_910)));
        pause.well();
        assert_eq!(pause.opens(start, 7), Some(start));
    }
}
