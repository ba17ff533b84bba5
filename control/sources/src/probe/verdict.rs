//! From answers to health: as many in a row as the cadence asks for. A first answer that is good
//! decides by itself: somebody may wait for it, as clients do whose node is out of sight.

use super::ask::Answer;
use translate::probes::{Cadence, Health};

/// What was answered lately.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    health: Health,
    good: u16,
    bad: u16,
}

impl Verdict {
    /// Counts an answer in. Gives the health where it differs from before.
    pub(super) fn count(&mut self, answer: Answer, cadence: &Cadence) -> Option<Health> {
        let now = match answer {
            Answer::Good { weight } => {
                let first = self.health == Health::Unknown && (self.good, self.bad) == (0, 0);
                (self.good, self.bad) = (self.good.saturating_add(1), 0);
                let healthy = first
                    || matches!(self.health, Health::Healthy { .. })
                    || self.good >= cadence.healthy_after.max(1);
                if healthy { Health::Healthy { weight } } else { self.health }
            }
            Answer::Bad { closed } => {
                (self.good, self.bad) = (0, self.bad.saturating_add(1));
                let unhealthy = matches!(self.health, Health::Unhealthy { .. })
                    || self.bad >= cadence.unhealthy_after.max(1);
                if unhealthy { Health::Unhealthy { closed } } else { self.health }
            }
        };
        let differs = now != self.health;
        self.health = now;
        differs.then_some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Answer = Answer::Good { weight: None };
    const BAD: Answer = Answer::Bad { closed: false };

    #[test]
    fn it_takes_as_many_in_a_row_as_the_cadence_says() {
        let cadence = Cadence { healthy_after: 2, unhealthy_after: 3, ..Cadence::default() };
        let mut verdict = Verdict::default();
        let healthy = Some(Health::Healthy { weight: None });
        let unhealthy = Some(Health::Unhealthy { closed: false });
        let told: Vec<_> = [BAD, GOOD, GOOD, BAD, BAD, GOOD, BAD, BAD, BAD, BAD, GOOD, GOOD]
            .into_iter()
            .map(|answer| verdict.count(answer, &cadence))
            .collect();
        let none = None;
        assert_eq!(
            told,
            [none, none, healthy, none, none, none, none, none, unhealthy, none, none, healthy]
        );
    }

    #[test]
    fn a_first_answer_that_is_good_decides() {
        let cadence = Cadence { healthy_after: 5, ..Cadence::default() };
        let mut verdict = Verdict::default();
        assert_eq!(verdict.count(GOOD, &cadence), Some(Health::Healthy { weight: None }));
    }

    #[test]
    fn a_new_weight_and_another_way_to_fail_are_told_at_once() {
        let cadence = Cadence { healthy_after: 1, unhealthy_after: 1, ..Cadence::default() };
        let mut verdict = Verdict::default();
        let weight = |weight| Answer::Good { weight: Some(weight) };
        let told = |weight| Some(Health::Healthy { weight: Some(weight) });
        assert_eq!(verdict.count(weight(3), &cadence), told(3));
        assert_eq!(verdict.count(weight(3), &cadence), None);
        assert_eq!(verdict.count(weight(1), &cadence), told(1));
        let bad = |closed| (Answer::Bad { closed }, Some(Health::Unhealthy { closed }));
        for (answer, told) in [bad(false), bad(true), bad(false)] {
            assert_eq!(verdict.count(answer, &cadence), told);
        }
    }

    #[test]
    fn thresholds_of_nothing_mean_one() {
        let cadence = Cadence { healthy_after: 0, unhealthy_after: 0, ..Cadence::default() };
        assert!(Verdict::default().count(GOOD, &cadence).is_some());
        assert!(Verdict::default().count(BAD, &cadence).is_some());
    }
}
