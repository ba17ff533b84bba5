//! What a worker does when there is nothing to do.

use std::time::Duration;

/// How a worker waits for packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// It polls on: the least latency, and the core is always busy.
    Spin,
    /// It sleeps for longer and longer, up to a tenth of a millisecond: for software devices, which
    /// share their cores.
    #[default]
    Backoff,
}

/// Empty loops before the first sleep.
const PATIENCE: u32 = 64;
const SLEEP_MIN: Duration = Duration::from_micros(5);
const SLEEP_MAX: Duration = Duration::from_micros(100);

/// The state of the waiting.
#[derive(Debug)]
pub struct Idler {
    mode: Idle,
    empty: u32,
    sleep: Duration,
}

impl Idler {
    /// Begins to wait in this way.
    pub const fn new(mode: Idle) -> Self {
        Self { mode, empty: 0, sleep: SLEEP_MIN }
    }
    /// The loop has ended, with packets or without.
    #[inline]
    pub fn end_loop(&mut self, busy: bool) {
        if busy || self.mode == Idle::Spin {
            self.empty = 0;
            self.sleep = SLEEP_MIN;
            return;
        }
        self.empty += 1;
        if self.empty > PATIENCE {
            std::thread::sleep(self.sleep);
            self.sleep = (self.sleep * 2).min(SLEEP_MAX);
        } else {
            std::hint::spin_loop();
        }
    }
}
