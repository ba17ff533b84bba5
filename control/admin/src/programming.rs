//! How long changes take from the source's word to the last worker's use.

use prometheus_client::metrics::histogram::Histogram;
use std::time::Duration;

/// Upper ends of the buckets, in seconds: from what one service port costs to what kube-proxy
/// takes.
const BUCKETS: [f64; 15] =
    [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1., 2., 5., 10., 30.];

/// A histogram that many may hold; they all see the same.
#[derive(Clone, Debug)]
pub struct ProgrammingTimes(Histogram);

impl Default for ProgrammingTimes {
    fn default() -> Self {
        Self(Histogram::new(BUCKETS))
    }
}

impl ProgrammingTimes {
    /// One change took this long.
    pub fn observe(&self, took: Duration) {
        self.0.observe(took.as_secs_f64());
    }

    pub(crate) const fn histogram(&self) -> &Histogram {
        &self.0
    }
}
