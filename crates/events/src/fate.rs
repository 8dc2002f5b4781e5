//! What becomes of an event after an attempt: decided here, without I/O or a clock.

use crate::{Answer, Outcome, Treatment};
use bytes::Bytes;
use martlet_model::Timestamp;
use std::time::Duration;

/// The first wait of an event that found no capacity.
const FIRST_WAIT_MILLIS: u64 = 1_000;
/// The longest wait.
const LONGEST_WAIT_MILLIS: u64 = 5 * 60 * 1_000;

/// How it ended with an event, in the words of invocation records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The function ran and did not fail.
    Success,
    /// The function failed as often as it may be tried, or no longer exists.
    RetriesExhausted,
    /// The event became too old.
    EventAgeExceeded,
    /// The function is turned off.
    ZeroReservedConcurrency,
    /// The function has run too often in the event's chain of requests.
    RecursiveInvocation,
}

impl Condition {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::RetriesExhausted => "RetriesExhausted",
            Self::EventAgeExceeded => "EventAgeExceeded",
            Self::ZeroReservedConcurrency => "ZeroReservedConcurrency",
            Self::RecursiveInvocation => "RecursiveInvocation",
        }
    }
}

/// The end of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conclusion {
    pub(crate) condition: Condition,
    /// How often the function was invoked for it.
    pub(crate) invokes: u32,
    /// The HTTP status that a synchronous caller would have got at last; `None` when nothing was tried.
    pub(crate) status: Option<u16>,
    /// What the function answered at last, if it was reached.
    pub(crate) answer: Option<Answer>,
}

impl Conclusion {
    pub(crate) fn is_success(&self) -> bool {
        self.condition == Condition::Success
    }

    /// The document of the last answer.
    pub(crate) fn payload(&self) -> Option<&Bytes> {
        self.answer.as_ref().map(|answer| &answer.payload)
    }
}

/// What to do with an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is over.
    Concluded(Conclusion),
    /// The function failed: another attempt, from then on.
    Retry(Timestamp),
    /// It was not tried: another turn, from then on, which does not count.
    Postpone(Timestamp),
}

/// Where an event stands at its turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// Attempts that count, with the one of this turn.
    pub(crate) attempt: u32,
    /// Turns that found no capacity.
    pub(crate) postponed: u32,
    /// When the event was accepted.
    pub(crate) accepted: Timestamp,
    /// The wait after its first failure; after each further one it is twice as long.
    pub(crate) retry: Duration,
}

impl Standing {
    fn expiry(&self, treatment: &Treatment) -> Timestamp {
        self.accepted.plus_millis(millis(treatment.age))
    }

    fn concluded(&self, condition: Condition, invokes: u32, status: Option<u16>) -> Fate {
        Fate::Concluded(Conclusion { condition, invokes, status, answer: None })
    }

    /// The end of an event that is not to be tried at all; `None` when it is.
    pub(crate) fn before(&self, treatment: &Treatment, recursive: bool, now: Timestamp) -> Option<Fate> {
        let invokes = self.attempt - 1;
        if treatment.turned_off {
            return Some(self.concluded(Condition::ZeroReservedConcurrency, invokes, None));
        }
        if recursive && !treatment.recursion_allowed {
            return Some(self.concluded(Condition::RecursiveInvocation, invokes, Some(400)));
        }
        let throttled = (self.postponed > 0).then_some(429);
        let aged = self.expiry(treatment) <= now;
        aged.then(|| self.concluded(Condition::EventAgeExceeded, invokes, throttled))
    }

    /// What becomes of it after its turn.
    pub(crate) fn after(&self, outcome: Outcome, treatment: &Treatment, now: Timestamp) -> Fate {
        let expiry = self.expiry(treatment);
        match outcome {
            Outcome::Completed(answer) => {
                let next = now.plus_millis(self.retry_millis());
                let condition = match &answer.function_error {
                    None => Condition::Success,
                    Some(_) if treatment.retries < self.attempt => Condition::RetriesExhausted,
                    Some(_) if expiry <= next => Condition::EventAgeExceeded,
                    Some(_) => return Fate::Retry(next),
                };
                let invokes = self.attempt;
                Fate::Concluded(Conclusion { condition, invokes, status: Some(200), answer: Some(answer) })
            }
            Outcome::Throttled | Outcome::Unavailable if expiry <= now => {
                self.concluded(Condition::EventAgeExceeded, self.attempt - 1, Some(429))
            }
            Outcome::Throttled | Outcome::Unavailable => {
                let next = now.plus_millis(wait_millis(self.postponed));
                Fate::Postpone(next.min(expiry))
            }
            Outcome::FunctionGone => self.concluded(Condition::RetriesExhausted, self.attempt - 1, Some(404)),
        }
    }

    fn retry_millis(&self) -> u64 {
        let doublings = self.attempt.saturating_sub(1).min(20);
        millis(self.retry).saturating_mul(1 << doublings)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How long an event waits that found no capacity `before` times already.
fn wait_millis(before: u32) -> u64 {
    (FIRST_WAIT_MILLIS << before.min(20)).min(LONGEST_WAIT_MILLIS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use martlet_model::Version;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn standing(attempt: u32, postponed: u32, accepted: Timestamp) -> Standing {
        Standing { attempt, postponed, accepted, retry: Duration::from_secs(60) }
    }

    fn failed() -> Outcome {
        Outcome::Completed(Answer {
            version: Version::Latest,
            payload: "{}".into(),
            function_error: Some("Unhandled".to_owned()),
        })
    }

    fn succeeded() -> Outcome {
        Outcome::Completed(Answer { version: Version::Latest, payload: "1".into(), function_error: None })
    }

    fn condition(fate: &Fate) -> Option<(&'static str, u32, Option<u16>)> {
        match fate {
            Fate::Concluded(end) => Some((end.condition.as_str(), end.invokes, end.status)),
            Fate::Retry(_) | Fate::Postpone(_) => None,
        }
    }

    #[test]
    fn a_failure_is_tried_again_after_one_and_two_minutes() {
        let usual = Treatment::default();
        let after = |attempt| standing(attempt, 0, NOW).after(failed(), &usual, NOW);
        assert_eq!(after(1), Fate::Retry(NOW.plus_millis(60_000)));
        assert_eq!(after(2), Fate::Retry(NOW.plus_millis(120_000)));
        assert_eq!(condition(&after(3)), Some(("RetriesExhausted", 3, Some(200))));
        // What crashes cut off counts, and by itself ends nothing.
        assert_eq!(condition(&after(9)), Some(("RetriesExhausted", 9, Some(200))));
        let good = standing(9, 0, NOW).after(succeeded(), &usual, NOW);
        assert_eq!(condition(&good), Some(("Success", 9, Some(200))));
    }

    #[test]
    fn fewer_retries_are_fewer() {
        for (retries, ends_at) in [(0, 1), (1, 2)] {
            let treatment = Treatment { retries, ..Treatment::default() };
            for attempt in 1..=3 {
                let fate = standing(attempt, 0, NOW).after(failed(), &treatment, NOW);
                assert_eq!(condition(&fate).is_some(), attempt >= ends_at, "{retries} {attempt}");
            }
        }
    }

    #[test]
    fn an_event_whose_next_attempt_would_be_too_late_ends_with_the_answer_it_has() {
        let treatment = Treatment { age: Duration::from_secs(60), ..Treatment::default() };
        let fate = standing(1, 0, NOW).after(failed(), &treatment, NOW);
        assert_eq!(condition(&fate), Some(("EventAgeExceeded", 1, Some(200))));
        let Fate::Concluded(end) = fate else { panic!("it is over") };
        assert_eq!(end.payload().map(|payload| &payload[..]), Some(&b"{}"[..]));
        let fate = standing(1, 0, NOW.plus_millis(1)).after(failed(), &treatment, NOW);
        assert_eq!(fate, Fate::Retry(NOW.plus_millis(60_000)));
    }

    #[test]
    fn what_found_no_capacity_waits_longer_and_longer_and_never_past_its_age() {
        let usual = Treatment::default();
        for (before, seconds) in [(0, 1), (1, 2), (2, 4), (8, 256), (9, 300), (1_000, 300)] {
            for outcome in [Outcome::Throttled, Outcome::Unavailable] {
                let fate = standing(1, before, NOW).after(outcome, &usual, NOW);
                assert_eq!(fate, Fate::Postpone(NOW.plus_millis(seconds * 1_000)), "{before}");
            }
        }
        let short = Treatment { age: Duration::from_secs(60), ..usual };
        let fate = standing(1, 9, NOW).after(Outcome::Throttled, &short, NOW);
        assert_eq!(fate, Fate::Postpone(NOW.plus_millis(60_000)));
        let aged = NOW.plus_millis(60_000);
        let fate = standing(1, 9, NOW).before(&short, false, aged).expect("too old");
        assert_eq!(condition(&fate), Some(("EventAgeExceeded", 0, Some(429))));
        let never_tried = standing(1, 0, NOW).before(&short, false, aged).expect("too old");
        assert_eq!(condition(&never_tried), Some(("EventAgeExceeded", 0, None)));
        assert!(standing(1, 9, NOW).before(&short, false, Timestamp(aged.0 - 1)).is_none());
    }

    #[test]
    fn a_function_that_is_off_or_gone_or_recursive_ends_its_events_at_once() {
        let off = Treatment { turned_off: true, ..Treatment::default() };
        let fate = standing(2, 0, NOW).before(&off, true, NOW).expect("over");
        assert_eq!(condition(&fate), Some(("ZeroReservedConcurrency", 1, None)));
        let gone = standing(1, 0, NOW).after(Outcome::FunctionGone, &Treatment::default(), NOW);
        assert_eq!(condition(&gone), Some(("RetriesExhausted", 0, Some(404))));
        let recursive = standing(1, 0, NOW).before(&Treatment::default(), true, NOW).expect("over");
        assert_eq!(condition(&recursive), Some(("RecursiveInvocation", 0, Some(400))));
        let allowed = Treatment { recursion_allowed: true, ..Treatment::default() };
        assert!(standing(1, 0, NOW).before(&allowed, true, NOW).is_none());
    }

    proptest! {
        /// Whatever happens in whatever order, an event ends: after `retries + 1` failures, or when it is too old.
        #[test]
        fn every_event_ends(
            retries in 0_u32..=2,
            age in 60_u64..=21_600,
            turns in proptest::collection::vec(any::<bool>(), 0..400),
        ) {
            let treatment = Treatment { retries, age: Duration::from_secs(age), ..Treatment::default() };
            let (mut now, mut attempt, mut postponed) = (NOW, 1, 0);
            let (mut failures, mut ended) = (0, None);
            for throttled in turns.into_iter().chain(std::iter::repeat_n(true, 200)) {
                let at = standing(attempt, postponed, NOW);
                let fate = at.before(&treatment, false, now).unwrap_or_else(|| {
                    at.after(if throttled { Outcome::Throttled } else { failed() }, &treatment, now)
                });
                match fate {
                    Fate::Concluded(end) => {
                        failures += u32::from(end.answer.is_some());
                        ended = Some(end);
                        break;
                    }
                    Fate::Retry(next) => {
                        prop_assert!(now < next && next < NOW.plus_millis(age * 1_000));
                        (now, attempt, failures) = (next, attempt + 1, failures + 1);
                    }
                    Fate::Postpone(next) => {
                        prop_assert!(now < next && next <= NOW.plus_millis(age * 1_000));
                        (now, postponed) = (next, postponed + 1);
                    }
                }
            }
            let end = ended.expect("two hundred turns without capacity take longer than six hours");
            prop_assert_eq!(end.invokes, failures);
            prop_assert!(failures <= retries + 1);
            if end.condition == Condition::RetriesExhausted {
                prop_assert_eq!(failures, retries + 1);
            }
        }
    }
}
