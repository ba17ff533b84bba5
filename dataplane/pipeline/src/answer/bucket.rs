//! Token buckets.

/// A rate and the burst that it allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens a second.
    pub per_second: u32,
    /// Tokens that a full bucket holds.
    pub burst: u32,
}

impl Rate {
    /// So many a second, with a burst of a fifth of a second's and 16 at least.
    pub const fn per_second(per_second: u32) -> Self {
        let burst = per_second / 5;
        Self { per_second, burst: if burst < 16 { 16 } else { burst } }
    }
}

/// One bucket. Counts in thousandths of a token, so that a millisecond adds `per_second` of them.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    rate: Rate,
    thousandths: u64,
    filled_ms: u64,
}

impl Bucket {
    /// A full bucket.
    pub fn new(rate: Rate) -> Self {
        Self { rate, thousandths: u64::from(rate.burst) * 1000, filled_ms: 0 }
    }
    /// Takes a token; false where there is none.
    #[inline]
    pub fn take(&mut self, now_ms: u64) -> bool {
        let elapsed = now_ms.saturating_sub(self.filled_ms);
        if elapsed > 0 {
            let full = u64::from(self.rate.burst) * 1000;
            let more = elapsed.saturating_mul(u64::from(self.rate.per_second));
            self.thousandths = self.thousandths.saturating_add(more).min(full);
            self.filled_ms = now_ms;
        }
        match self.thousandths.checked_sub(1000) {
            Some(left) => {
                self.thousandths = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate() {
        let mut bucket = Bucket::new(Rate { per_second: 100, burst: 20 });
        let at_once = (0..50).filter(|_| bucket.take(5)).count();
        assert_eq!(at_once, 20);
        let in_a_second = (6..=1005).filter(|ms| bucket.take(*ms)).count();
        assert_eq!(in_a_second, 100);
    }
}
