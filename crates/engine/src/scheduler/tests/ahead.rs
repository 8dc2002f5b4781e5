//! Ordinary starts ahead of need.

use super::*;
use proptest::prelude::*;

/// A machine with one version whose start takes 300 ms, and its only environment, idle after a call of `service`, at 10 s.
fn slow_starter(options: EngineOptions, service: u64) -> (Machine, VersionId, EnvironmentId) {
    let mut machine = Machine::new(options);
    let version = machine.ordinary(128);
    let (_, actions) = machine.wait(version, 0);
    let (environment, actions) = machine.started(starts_of(&actions)[0], 300 * MS);
    assert_eq!(starts_of(&actions), [], "one call shows nothing");
    machine.finished(environment, 300 * MS + service);
    machine.pass(10 * SECOND);
    (machine, version, environment)
}

impl Machine {
    /// Plays until `now`, when somebody calls and waits for an environment if need be; all starts are done at once.
    fn served(&mut self, version: VersionId, now: u64) -> (EnvironmentId, Start) {
        let mut starts: VecDeque<_> = starts_of(&self.pass(now)).into();
        let (arrival, actions) = self.arrive(version, now);
        starts.extend(starts_of(&actions));
        let mut handed = match arrival {
            Arrival::Run(environment, start) => Some((environment, start)),
            _ => None,
        };
        while let Some(start) = starts.pop_front() {
            let (_, actions) = self.started(start, now);
            starts.extend(starts_of(&actions));
            handed = handed.or(actions.iter().find_map(|action| match action {
                Action::Hand(_, environment, start) => Some((*environment, *start)),
                _ => None,
            }));
        }
        handed.expect("whoever calls is served")
    }
}

fn one_spare() -> EngineOptions {
    EngineOptions { spares: 1, ..options() }
}

#[test]
fn the_second_of_two_calls_at_once_finds_an_environment_that_was_started_ahead() {
    let (mut machine, version, first) = slow_starter(one_spare(), 500 * MS);
    let (arrival, actions) = machine.arrive(version, 10 * SECOND);
    assert_eq!(arrival, Arrival::Run(first, Start::Warm));
    let starts = starts_of(&actions);
    assert_eq!(starts.len(), 1, "{actions:?}");
    let (spare, actions) = machine.started(starts[0], 10 * SECOND + 300 * MS);
    assert_eq!(actions, []);
    machine.finished(first, 10 * SECOND + 500 * MS);
    // Two at once. With the spare at work there is none again, so another one is made.
    assert_eq!(machine.arrive(version, 12 * SECOND), (Arrival::Run(first, Start::Warm), vec![]));
    let (arrival, actions) = machine.arrive(version, 12 * SECOND);
    assert_eq!(arrival, Arrival::Run(spare, Start::Spare));
    assert_eq!(starts_of(&actions).len(), 1);
    assert_eq!(machine.scheduler.counts(version).starting, 1);
}

#[test]
fn nothing_is_started_ahead_of_what_is_called_seldom_or_runs_shortly_or_must_not() {
    let starts_ahead = |options: EngineOptions, service: u64, call: u64| {
        let (mut machine, version, _) = slow_starter(options, service);
        machine.pass(call);
        starts_of(&machine.arrive(version, call).1).len()
    };
    assert_eq!(starts_ahead(one_spare(), 500 * MS, 10 * SECOND), 1);
    assert_eq!(
        starts_ahead(one_spare(), 500 * MS, 60 * SECOND + 500 * MS),
        0,
        "its last call was a minute ago"
    );
    assert_eq!(
        starts_ahead(one_spare(), MS, 10 * SECOND),
        0,
        "whoever comes second waits 1 ms for the first"
    );
    assert_eq!(starts_ahead(EngineOptions { spares: 0, ..options() }, 500 * MS, 10 * SECOND), 0);
    let tight = EngineOptions { memory_bytes: 200 * MB, ..one_spare() };
    assert_eq!(starts_ahead(tight, 500 * MS, 10 * SECOND), 0, "128 of 200 MB are at work");
    let narrow = EngineOptions { concurrent_starts: 1, ..one_spare() };
    assert_eq!(starts_ahead(narrow, 500 * MS, 10 * SECOND), 1);
}

#[test]
fn what_is_started_ahead_displaces_nothing() {
    let options = EngineOptions { memory_bytes: 260 * MB, ..one_spare() };
    let (mut machine, version, first) = slow_starter(options, 500 * MS);
    let other = machine.ordinary(128);
    let kept = machine.warm(other, 1, 11 * SECOND)[0];
    let (arrival, actions) = machine.arrive(version, 12 * SECOND);
    assert_eq!((arrival, actions), (Arrival::Run(first, Start::Warm), vec![]), "no room beside the idle one");
    assert_eq!(machine.arrive(other, 13 * SECOND).0, Arrival::Run(kept, Start::Warm));
}

#[test]
fn spares_that_nobody_takes_are_made_no_more_until_one_is_missed() {
    let (mut machine, version, first) = slow_starter(one_spare(), 2 * SECOND);
    let mut made = vec![];
    let mut call = |machine: &mut Machine, number: u64| {
        // One call after the other, often enough to be lively for ever.
        let now = (20 + 50 * number) * SECOND;
        machine.pass(now);
        let (arrival, actions) = machine.arrive(version, now);
        assert_eq!(arrival, Arrival::Run(first, Start::Warm));
        for start in starts_of(&actions) {
            made.push(number);
            machine.started(start, now + 300 * MS);
        }
        machine.finished(first, now + 2 * SECOND);
        assert!(machine.scheduler.environments() <= 2);
        made.clone()
    };
    let seen = (0..2000u64).map(|number| call(&mut machine, number)).last().unwrap();
    assert!((1..100).contains(&seen.len()), "{} spares for one caller", seen.len());
    assert!(seen.last().is_some_and(|last| *last < 1000), "{seen:?}");
    assert_eq!(machine.scheduler.environments(), 1);
    // At times that nobody could foresee there are two at once, soon after one that was alone.
    let (mut spares, mut hours) = (0, 30);
    for round in 0..25 {
        hours += 5 + round % 3 * 6;
        let now = hours * 60 * MINUTE;
        for call in 0..3 {
            let (alone, _) = machine.served(version, now + call * 20 * SECOND);
            machine.finished(alone, now + (call * 20 + 2) * SECOND);
        }
        let (first, _) = machine.served(version, now + MINUTE);
        let (second, start) = machine.served(version, now + MINUTE + 500 * MS);
        spares += usize::from(start == Start::Spare);
        machine.finished(first, now + MINUTE + 3 * SECOND);
        machine.finished(second, now + MINUTE + 4 * SECOND);
    }
    assert!((5..25).contains(&spares), "{spares} of 25: what is missed is made ahead again");
}

proptest! {
    /// However it is called, a version has at most one environment more than it ever had callers at once, and a start of
    /// one that nobody waits for is begun only when none is idle or on its way.
    #[test]
    fn one_environment_more_than_callers_is_the_most(
        steps in proptest::collection::vec((0..4u8, 1..30_000u64), 1..200),
        slow in any::<bool>(),
    ) {
        let mut machine = Machine::new(one_spare());
        let version = machine.ordinary(20);
        let (mut busy, mut starts, mut now, mut most) = (vec![], VecDeque::new(), 0, 0);
        for (step, millis) in steps {
            now += millis * if slow { MS } else { MS / 20 };
            let mut actions = machine.pass(now);
            let mut lonely = 0;
            match step {
                0 | 1 => {
                    let (arrival, more) = machine.arrive(version, now);
                    if let Arrival::Run(environment, _) = arrival {
                        busy.push(environment);
                        lonely = starts_of(&more).len();
                    }
                    actions.extend(more);
                }
                2 if !starts.is_empty() => actions.extend(machine.started(starts.remove(0).unwrap(), now).1),
                _ if !busy.is_empty() => actions.extend(machine.finished(busy.remove(0), now)),
                _ => {}
            }
            for action in actions {
                match action {
                    Action::Start(start, _) => starts.push_back(start),
                    Action::Hand(_, environment, _) => busy.push(environment),
                    _ => {}
                }
            }
            let counts = machine.scheduler.counts(version);
            prop_assert!(lonely == 0 || (lonely, counts.idle, counts.starting) == (1, 0, 1), "{counts:?}");
            most = most.max(machine.scheduler.callers());
            prop_assert!(machine.scheduler.environments() <= most + 1, "{counts:?} with {most} callers at most");
        }
    }
}
