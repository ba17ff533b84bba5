//! The families of the control side: source, leadership, pools, writes, probes.

use super::{Families, Labels};
use crate::gateway::ControlReadings;
use model::answers::{PoolCount, PoolRow, SourceState};
use std::fmt::Error;

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// How the source is doing, and who writes to it.
pub(super) fn source(state: &SourceState, to: &mut Families<'_>) -> Result<(), Error> {
    let help = "1 while what is forwarded is what the source says.";
    to.gauge("source_in_step", help, flag(state.in_step))?;
    let help = "1 once everything was read from the source.";
    to.gauge("source_loaded", help, flag(state.loaded))?;
    let help = "How often everything was listed anew.";
    to.counters("source_relists", help, [(Labels::new(), state.relists)])?;
    let Some(leadership) = &state.leadership else { return Ok(()) };
    let help = "1 while this gateway allocates addresses and writes status.";
    to.gauge("leader", help, flag(leadership.ours))?;
    let help = "Who holds the Lease: always 1, its labels say it.";
    let holder = vec![("lease", leadership.lease.clone()), ("holder", leadership.holder.clone())];
    to.gauges("lease_holder_info", help, [(holder, 1.)])
}

/// What the control side counts.
pub(super) fn counts(control: &ControlReadings, to: &mut Families<'_>) -> Result<(), Error> {
    let both = |value: fn(&PoolCount) -> u64| {
        control.pools.iter().flat_map(move |row| {
            [("IPv4", &row.ipv4), ("IPv6", &row.ipv6)]
                .map(|(family, count)| (pool(row, family), value(count) as f64))
        })
    };
    to.gauges("pool_addresses", "Addresses that a pool can give.", both(|count| count.total))?;
    let help = "Addresses of a pool that Services have.";
    to.gauges("pool_addresses_used", help, both(|count| count.used))?;
    if let Some(writes) = &control.writes {
        let results = [
            ("written", writes.statuses),
            ("conflict", writes.conflicts),
            ("failed", writes.failures),
        ];
        let results = results.map(|(result, count)| (vec![("result", result.to_owned())], count));
        to.counters("status_writes", "Writes of Services' status, by result.", results)?;
        let results = [("written", writes.events), ("failed", writes.event_failures)];
        let results = results.map(|(result, count)| (vec![("result", result.to_owned())], count));
        to.counters("event_writes", "Writes of Events, by result.", results)?;
    }
    let probes = &control.probes;
    let unknown = probes.active.saturating_sub(probes.healthy + probes.unhealthy);
    let states =
        [("healthy", probes.healthy), ("unhealthy", probes.unhealthy), ("unknown", unknown)];
    let states = states.map(|(state, count)| (vec![("state", state.to_owned())], count as f64));
    to.gauges("probes", "Active probes, by what they found.", states)?;
    let help = "Service ports whose backends all fail their probe and are used nevertheless.";
    to.gauge("probes_overruled", help, control.probes_overruled as f64)?;
    let help = "Endpoints that no Service may have as a backend.";
    to.gauge("endpoints_refused", help, control.endpoints_refused as f64)?;
    let help = "From the source's word to the last worker's use of a change.";
    to.histogram("network_programming_seconds", help, control.programming.histogram())
}

fn pool(row: &PoolRow, family: &str) -> Labels {
    vec![("pool", row.name.clone()), ("family", family.to_owned())]
}
