//! What a comparison asked, and whether that was enough to show anything.

use crate::differences::DIFFERENCES;
use std::collections::BTreeMap;

/// Of all questions at least so many of a hundred have each kind of answer.
const KIND_MIN: usize = 1;
/// Of the questions about frontends so many of a hundred have one right answer alone.
const EXACT_MIN: usize = 50;
/// So many of a hundred may have any answer.
const ANYTHING_MAX: usize = 10;

/// What was compared.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Questions asked of both.
    pub questions: usize,
    /// By kind of kube-proxy's answer.
    pub answers: BTreeMap<&'static str, usize>,
    /// How often each difference applied, in the order of [`DIFFERENCES`].
    pub differences: Vec<usize>,
    /// Questions about frontends that some Service has...
    pub owned: usize,
    /// ...and those of them to which one answer alone was right.
    pub exact: usize,
    /// Those to which the very same backends were right.
    pub exact_backends: usize,
    /// Questions to which any answer was right.
    pub anything: usize,
    /// Disagreements that no difference explains.
    pub failures: Vec<String>,
}

impl Tally {
    /// What a full run asked too little of: a comparison that lets everything pass agrees with
    /// everything.
    pub fn lacks(&self) -> Vec<String> {
        let mut lacks = Vec::new();
        let mut at_least = |what: &str, count: usize, of: usize, percent: usize| {
            if count * 100 < of * percent {
                lacks.push(format!("{what}: {count} of {of}, less than {percent} %"));
            }
        };
        for kind in ["backends", "drop", "reject", "not ours"] {
            let count = self.answers.get(kind).copied().unwrap_or(0);
            at_least(kind, count, self.questions, KIND_MIN);
        }
        at_least("one right answer for a frontend", self.exact, self.owned, EXACT_MIN);
        let backends = self.answers.get("backends").copied().unwrap_or(0);
        at_least("the very same backends", self.exact_backends, backends, EXACT_MIN);
        if self.anything * 100 > self.questions * ANYTHING_MAX {
            let (count, all) = (self.anything, self.questions);
            lacks.push(format!("any answer: {count} of {all}, more than {ANYTHING_MAX} %"));
        }
        for (place, difference) in DIFFERENCES.iter().enumerate() {
            if self.differences.get(place).is_none_or(|count| *count == 0) {
                lacks.push(format!("the difference \"{}\" never applied", difference.name));
            }
        }
        lacks
    }

    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.questions += other.questions;
        for (kind, count) in other.answers {
            *self.answers.entry(kind).or_default() += count;
        }
        self.differences.resize(DIFFERENCES.len(), 0);
        for (sum, count) in self.differences.iter_mut().zip(other.differences) {
            *sum += count;
        }
        self.owned += other.owned;
        self.exact += other.exact;
        self.exact_backends += other.exact_backends;
        self.anything += other.anything;
        self.failures.extend(other.failures);
    }
}
