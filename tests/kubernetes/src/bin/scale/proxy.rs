//! What kube-proxy says of itself.

use anyhow::{Context, Result};
use rig::command::output_of;
use rig::namespace::Namespace;
use std::collections::BTreeMap;
use std::fmt;

const NAME: &str = "kubeproxy_network_programming_duration_seconds_bucket";

/// A histogram of Prometheus: how many took at most so many milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Buckets(BTreeMap<u64, u64>);

/// kube-proxy's network programming duration so far.
pub fn programming(node: &Namespace) -> Result<Buckets> {
    let mut curl = node.command("curl");
    let text = output_of(curl.args(["-sS", "--fail", "http://127.0.0.1:10249/metrics"]))?;
    let mut buckets = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with(NAME)) {
        let (head, count) = line.rsplit_once(' ').context("a metric without a value")?;
        let bound = head.split_once("le=\"").and_then(|(_, rest)| rest.split_once('"'));
        let bound = bound.context("a bucket without a bound")?.0;
        let ms = if bound == "+Inf" { u64::MAX } else { (bound.parse::<f64>()? * 1e3) as u64 };
        *buckets.entry(ms).or_default() += count.parse::<f64>()? as u64;
    }
    Ok(Buckets(buckets))
}

impl Buckets {
    /// What has come since.
    pub fn since(&self, before: &Self) -> Self {
        let had = |bound: &u64| before.0.get(bound).copied().unwrap_or_default();
        Self(
            self.0
                .iter()
                .map(|(bound, count)| (*bound, count.saturating_sub(had(bound))))
                .collect(),
        )
    }
    /// The bound below which this share of all lies, in milliseconds.
    fn below(&self, share: f64) -> u64 {
        let all = self.0.get(&u64::MAX).copied().unwrap_or_default() as f64;
        let found = self.0.iter().find(|(_, count)| **count as f64 >= all * share);
        found.map_or(u64::MAX, |(bound, _)| *bound)
    }
}

impl fmt::Display for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.get(&u64::MAX).copied().unwrap_or_default();
        write!(
            f,
            "{all} endpoints, p50 at most {} ms, p99 at most {} ms",
            self.below(0.5),
            self.below(0.99)
        )
    }
}
