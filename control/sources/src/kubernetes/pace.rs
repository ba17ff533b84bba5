//! How long to wait before the next try.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// A source of numbers that spread what would otherwise happen at once. Not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    /// Differs in each process and call.
    pub(crate) fn random() -> Self {
        Self(RandomState::new().hash_one(std::process::id()))
    }

    /// The same numbers for the same seed.
    #[cfg(test)]
    pub(crate) const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (SplitMix64).
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From nothing up to `span`.
    pub(crate) fn below(&mut self, span: Duration) -> Duration {
        span.mul_f64((self.next() % 1_000) as f64 / 1_000.0)
    }

    /// Another one.
    pub(crate) const fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// From `span` up to a quarter more.
    pub(crate) fn stretch(&mut self, span: Duration) -> Duration {
        let share = (self.next() % 1_000) as f64 / 4_000.0;
        span + span.mul_f64(share)
    }
}

/// Waits that double from the first to the longest.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    /// Waits since it last went well.
    times: u32,
    jitter: Jitter,
}

impl Backoff {
    /// Both waits become up to a quarter longer by chance.
    pub(crate) const fn new(first: Duration, longest: Duration, jitter: Jitter) -> Self {
        Self { first, longest, times: 0, jitter }
    }

    /// How long to wait now.
    pub(crate) fn wait(&mut self) -> Duration {
        let wait = doubled(self.first, self.longest, self.times);
        self.times = self.times.saturating_add(1);
        self.jitter.stretch(wait)
    }

    /// It went well: the next wait is the first again.
    pub(crate) const fn reset(&mut self) {
        self.times = 0;
    }
}

/// `first`, doubled so many times, up to `longest`.
pub(crate) fn doubled(first: Duration, longest: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_again() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(500), Jitter::seeded(7));
        for least in [100, 200, 400, 500, 500] {
            let wait = backoff.wait();
            assert!(wait >= ms(least) && wait <= ms(least) * 5 / 4, "{wait:?} for {least}");
        }
        backoff.reset();
        assert!(backoff.wait() <= ms(125));
    }

    #[test]
    fn jitter_spreads() {
        let mut jitter = Jitter::seeded(1);
        let waits: Vec<_> = (0..100).map(|_| jitter.stretch(Duration::from_secs(4))).collect();
        let second = Duration::from_secs(1);
        assert!(waits.iter().any(|wait| *wait < Duration::from_secs(4) + second / 4));
        assert!(waits.iter().any(|wait| *wait > Duration::from_secs(4) + second * 3 / 4));
    }
}
