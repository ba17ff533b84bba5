//! What a run has done.

use model::drops::DropReason;
use model::record::ConnectionState;
use pipeline::frame::Verdict;
use std::fmt;

/// Reasons that the pipeline never gives, each with where it comes from.
pub const ELSEWHERE: [(DropReason, &str); 5] = [
    (DropReason::BufferShared, "the engine, whose pool has no buffer left for a copy"),
    (DropReason::HandoverFull, "the engine, whose ring to another worker is full"),
    (DropReason::TransmitFull, "the engine, whose port takes no more"),
    (DropReason::HostFull, "the engine, whose ring to the mirror is full"),
    (DropReason::HostOversize, "the mirror, which writes to the kernel"),
];

/// Counts of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Frames that went in; one that is handed over counts once at each worker.
    pub executions: u64,
    /// Bursts.
    pub bursts: u64,
    /// Episodes, each with new tables.
    pub episodes: u64,
    /// Verdicts: sent, answered, to the host, handed over, dropped.
    pub verdicts: [u64; 5],
    /// Drops by reason.
    pub drops: [u64; DropReason::COUNT],
    /// Connections that a sweep has met, by the state that they were in.
    pub states: [u64; ConnectionState::ALL.len()],
    /// Most connections that were in the tables at once.
    pub connections_max: usize,
    /// Publications.
    pub changes: u64,
    /// Frames that the gateway made itself.
    pub generated: u64,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            executions: 0,
            bursts: 0,
            episodes: 0,
            verdicts: [0; 5],
            drops: [0; DropReason::COUNT],
            states: [0; ConnectionState::ALL.len()],
            connections_max: 0,
            changes: 0,
            generated: 0,
        }
    }
}

impl Stats {
    /// Counts a verdict.
    pub fn count(&mut self, verdict: Verdict) {
        self.executions += 1;
        self.verdicts[match verdict {
            Verdict::Send(_) => 0,
            Verdict::Answer(_) => 1,
            Verdict::Host(_) => 2,
            Verdict::Handover(_) => 3,
            Verdict::Drop(_) | Verdict::Pending => 4,
        }] += 1;
        if let Verdict::Drop(reason) = verdict {
            self.drops[reason as usize] += 1;
        }
    }
    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        self.executions += other.executions;
        self.bursts += other.bursts;
        self.episodes += other.episodes;
        self.changes += other.changes;
        self.generated += other.generated;
        self.connections_max = self.connections_max.max(other.connections_max);
        for (sum, more) in self.verdicts.iter_mut().zip(other.verdicts) {
            *sum += more;
        }
        for (sum, more) in self.drops.iter_mut().zip(other.drops) {
            *sum += more;
        }
        for (sum, more) in self.states.iter_mut().zip(other.states) {
            *sum += more;
        }
    }
    /// Reasons that the pipeline can give and didn't, and states that no connection was in.
    pub fn missing(&self) -> Vec<&'static str> {
        let reasons = DropReason::ALL
            .iter()
            .filter(|reason| ELSEWHERE.iter().all(|(elsewhere, _)| elsewhere != *reason))
            .filter(|reason| self.drops[**reason as usize] == 0)
            .map(|reason| reason.label());
        let states = ConnectionState::ALL.iter().zip(self.states).filter(|(_, met)| *met == 0);
        reasons.chain(states.map(|(state, _)| state.name())).collect()
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { executions, bursts, episodes, changes, generated, connections_max, .. } = self;
        writeln!(
            f,
            "{executions} executions in {bursts} bursts, {episodes} episodes, {changes} \
             publications, at most {connections_max} connections, {generated} frames made"
        )?;
        let [sent, answered, host, handed, dropped] = self.verdicts;
        writeln!(
            f,
            "sent {sent}, answered {answered}, to the host {host}, handed over {handed}, dropped \
             {dropped}"
        )?;
        let reached = self.drops.iter().filter(|count| **count > 0).count();
        let due = DropReason::COUNT - ELSEWHERE.len();
        write!(f, "drop reasons reached: {reached} of {due}:")?;
        for reason in DropReason::ALL {
            let count = self.drops[*reason as usize];
            if count > 0 {
                write!(f, " {} {count}", reason.label())?;
            }
        }
        write!(f, "\nstates met by sweeps:")?;
        for (state, met) in ConnectionState::ALL.iter().zip(self.states) {
            write!(f, " {} {met}", state.name())?;
        }
        for (reason, from) in ELSEWHERE {
            write!(f, "\nnot asked for: {}: only from {from}", reason.label())?;
        }
        Ok(())
    }
}
