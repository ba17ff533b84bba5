//! How busy a worker is, in cycles: a loop that found packets is busy from its beginning to its end,
//! whatever else passes is idle. What a busy loop is busy with is measured while somebody asks.

use dpdk::cycles;
use pipeline::counters::Counter;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How busy a worker is. Published once a second.
#[derive(Debug, Default)]
pub struct LoadCounters {
    /// Loops since start.
    pub loops: Counter,
    /// Cycles of loops that found packets, since start.
    pub busy_cycles: Counter,
    /// All other cycles since start, asleep or polling.
    pub idle_cycles: Counter,
    busy_ratio: AtomicU64,
    mean_burst: AtomicU64,
    packet_cycles: AtomicU64,
}

impl LoadCounters {
    /// Share of the time spent in loops that found packets, over the last second.
    pub fn busy_ratio(&self) -> f64 {
        f64::from_bits(self.busy_ratio.load(Relaxed))
    }
    /// Packets in a burst that wasn't empty, on average, over the last second.
    pub fn mean_burst(&self) -> f64 {
        f64::from_bits(self.mean_burst.load(Relaxed))
    }
    /// Busy cycles for each packet, on average, over the last second; 0 without packets.
    pub fn packet_cycles(&self) -> f64 {
        f64::from_bits(self.packet_cycles.load(Relaxed))
    }
}

/// A worker's own view of the current second.
#[derive(Debug)]
pub struct Load {
    since_ms: u64,
    /// When the loop began, or the one before ended.
    mark: u64,
    loops: u64,
    busy_cycles: u64,
    idle_cycles: u64,
    bursts: u64,
    packets_in_bursts: u64,
    packets: u64,
}

impl Load {
    /// Begins to count.
    pub fn new() -> Self {
        Self::since(0, cycles())
    }
    const fn since(since_ms: u64, mark: u64) -> Self {
        Self {
            since_ms,
            mark,
            loops: 0,
            busy_cycles: 0,
            idle_cycles: 0,
            bursts: 0,
            packets_in_bursts: 0,
            packets: 0,
        }
    }
    /// A loop begins. What passed since the one before was spent waiting.
    #[inline]
    pub fn begin_loop(&mut self) -> u64 {
        let now = cycles();
        self.idle_cycles += now.saturating_sub(self.mark);
        self.mark = now;
        now
    }
    /// Counts a burst.
    #[inline]
    pub const fn burst(&mut self, packets: usize) {
        if packets > 0 {
            self.bursts += 1;
            self.packets_in_bursts += packets as u64;
        }
    }
    /// A loop ends that moved so many packets; publishes the figures once a second.
    #[inline]
    pub fn end_loop(&mut self, packets: usize, now_ms: u64, counters: &LoadCounters) {
        let now = cycles();
        let spent = now.saturating_sub(self.mark);
        self.mark = now;
        self.loops += 1;
        self.packets += packets as u64;
        if packets > 0 {
            self.busy_cycles += spent;
        } else {
            self.idle_cycles += spent;
        }
        if now_ms.saturating_sub(self.since_ms) >= 1000 {
            self.publish(counters);
            *self = Self::since(now_ms, now);
        }
    }

    #[cold]
    fn publish(&self, counters: &LoadCounters) {
        let ratio = |a: u64, b: u64| (a as f64 / b.max(1) as f64).to_bits();
        counters.loops.add(self.loops);
        counters.busy_cycles.add(self.busy_cycles);
        counters.idle_cycles.add(self.idle_cycles);
        let all = self.busy_cycles + self.idle_cycles;
        counters.busy_ratio.store(ratio(self.busy_cycles, all), Relaxed);
        counters.mean_burst.store(ratio(self.packets_in_bursts, self.bursts), Relaxed);
        counters.packet_cycles.store(ratio(self.busy_cycles, self.packets), Relaxed);
    }
}

/// What a loop does, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Pass {
    /// Takes bursts from ports and from other workers; polls that found nothing don't count.
    Receive,
    /// Gives each packet its verdict.
    Pipeline,
    /// Does what the verdicts say.
    Deliver,
    /// Sends what the host gives.
    FromHost,
    /// Looks after connections whose time is over.
    Sweep,
    /// Sends what has gathered for ports and other workers.
    Send,
    /// Answers inquiries, asks for next hops.
    Other,
}

impl Pass {
    /// All of them, with their words.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Receive, "receive"),
        (Self::Pipeline, "pipeline"),
        (Self::Deliver, "deliver"),
        (Self::FromHost, "from_host"),
        (Self::Sweep, "sweep"),
        (Self::Send, "send"),
        (Self::Other, "other"),
    ];
}

/// Cycles by pass.
#[derive(Debug, Default)]
pub struct PassCounters {
    until_ms: AtomicU64,
    /// Packets of the loops that were measured.
    pub packets: Counter,
    cycles: [Counter; Pass::ALL.len()],
}

impl PassCounters {
    /// Asks the worker to measure until its clock shows so many milliseconds, at least.
    pub fn measure_until(&self, ms: u64) {
        self.until_ms.fetch_max(ms, Relaxed);
    }
    /// Cycles of a pass so far.
    pub fn cycles(&self, pass: Pass) -> u64 {
        self.cycles[pass as usize].read()
    }
    /// A watch for a loop that began at this cycle; one that does nothing while nobody asks.
    #[inline]
    pub fn watch(&self, now_ms: u64, began: u64) -> Watch<'_> {
        let to = (now_ms < self.until_ms.load(Relaxed)).then_some(self);
        Watch { to, mark: began }
    }
}

/// Measures the passes of one loop.
#[derive(Debug)]
pub struct Watch<'a> {
    to: Option<&'a PassCounters>,
    mark: u64,
}

impl Watch<'_> {
    /// A pass has ended. It counts where it did something.
    #[inline]
    pub fn lap(&mut self, pass: Pass, counts: bool) {
        let Some(to) = self.to else { return };
        let now = cycles();
        if counts {
            to.cycles[pass as usize].add(now.saturating_sub(self.mark));
        }
        self.mark = now;
    }
    /// The loop has moved so many packets.
    #[inline]
    pub fn packets(&self, packets: usize) {
        if let Some(to) = self.to {
            to.packets.add(packets as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// Busy is a matter of time, not of loops: a loop of a millisecond with packets beside a hundred
    /// thousand short ones without.
    #[test]
    fn busy_is_a_share_of_time() {
        let (mut load, counters) = (Load::new(), LoadCounters::default());
        let spin = |time: Duration| {
            let until = Instant::now() + time;
            while Instant::now() < until {}
        };
        for turn in 0..20 {
            load.begin_loop();
            load.burst(32);
            spin(Duration::from_millis(3));
            load.end_loop(32, 0, &counters);
            for _ in 0..1_000 {
                load.begin_loop();
                load.end_loop(0, 0, &counters);
            }
            std::thread::sleep(Duration::from_millis(1));
            load.begin_loop();
            load.end_loop(0, 1_000 * u64::from(turn == 19), &counters);
        }
        let busy = counters.busy_ratio();
        assert!((0.4..0.95).contains(&busy), "{busy}");
        assert_eq!(counters.mean_burst(), 32.);
        assert!(counters.packet_cycles() > 0.);
        assert_eq!(counters.loops.read(), 20 * 1_002);
        assert!(counters.busy_cycles.read() > 0 && counters.idle_cycles.read() > 0);
    }

    #[test]
    fn passes_are_measured_while_somebody_asks() {
        let counters = PassCounters::default();
        let lap = |now_ms| {
            let mut watch = counters.watch(now_ms, cycles());
            std::hint::black_box((0..1_000).sum::<u64>());
            watch.lap(Pass::Receive, false);
            std::hint::black_box((0..1_000).sum::<u64>());
            watch.lap(Pass::Pipeline, true);
            watch.packets(3);
        };
        lap(5);
        assert_eq!((counters.cycles(Pass::Pipeline), counters.packets.read()), (0, 0));
        counters.measure_until(10);
        counters.measure_until(7);
        lap(9);
        lap(10);
        assert!(counters.cycles(Pass::Pipeline) > 0);
        assert_eq!((counters.cycles(Pass::Receive), counters.packets.read()), (0, 3));
    }
}
