use super::*;
use std::collections::VecDeque;
use std::time::Duration;

mod ahead;
mod forks;
mod provisioned;

const MB: u64 = 1 << 20;
const MS: u64 = 1_000;

fn options() -> EngineOptions {
    EngineOptions {
        memory_bytes: 1024 * MB,
        idle: Duration::from_secs(60),
        freeze_after: Duration::from_millis(50),
        spares: 0,
        longest_wait: Duration::from_secs(600),
        ..EngineOptions::default()
    }
}

struct Machine {
    scheduler: Scheduler,
    actions: Vec<Action>,
}

impl Machine {
    fn new(options: EngineOptions) -> Self {
        Self { scheduler: Scheduler::new(options), actions: vec![] }
    }

    fn ordinary(&mut self, memory_mb: u64) -> VersionId {
        let function = self.scheduler.add_function(Moment(0));
        self.scheduler.add_version(function, memory_mb * MB, false, Moment(0))
    }

    fn forkable(&mut self, memory_mb: u64) -> VersionId {
        let function = self.scheduler.add_function(Moment(0));
        self.scheduler.add_version(function, memory_mb * MB, true, Moment(0))
    }

    fn take(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    fn arrive(&mut self, version: VersionId, now: u64) -> (Arrival, Vec<Action>) {
        self.arrive_for(version, Wanted::Any, now)
    }

    fn arrive_for(&mut self, version: VersionId, wanted: Wanted, now: u64) -> (Arrival, Vec<Action>) {
        let arrival = self.scheduler.arrive(version, wanted, Moment(now), &mut self.actions);
        (arrival, self.take())
    }

    fn wait(&mut self, version: VersionId, now: u64) -> (Ticket, Vec<Action>) {
        match self.arrive(version, now) {
            (Arrival::Wait(ticket), actions) => (ticket, actions),
            other => panic!("{other:?}"),
        }
    }

    fn started(&mut self, start: StartId, now: u64) -> (EnvironmentId, Vec<Action>) {
        let environment = self.scheduler.started(start, 10 * MB, Moment(now), &mut self.actions);
        (environment, self.take())
    }

    fn prepared(&mut self, start: StartId, now: u64) -> (TemplateId, Vec<Action>) {
        let template = self.scheduler.prepared(start, 30 * MB, Moment(now), &mut self.actions);
        (template, self.take())
    }

    fn finished(&mut self, environment: EnvironmentId, now: u64) -> Vec<Action> {
        self.scheduler.finished(environment, 10 * MB, Moment(now), &mut self.actions);
        self.take()
    }

    fn tick(&mut self, now: u64) -> (Option<u64>, Vec<Action>) {
        let next = self.scheduler.tick(Moment(now), &mut self.actions);
        (next.map(|next| next.0), self.take())
    }

    /// Plays until `now`, one timer after the other.
    fn pass(&mut self, now: u64) -> Vec<Action> {
        let mut all = vec![];
        while let Some(due) = self.scheduler.next_tick().filter(|due| due.0 <= now) {
            all.extend(self.tick(due.0).1);
        }
        all
    }

    /// Brings up `count` environments in the 100 ms before `now` and leaves them idle, finished in order at `now`,
    /// `now + 1`, ...
    fn warm(&mut self, version: VersionId, count: usize, now: u64) -> Vec<EnvironmentId> {
        let mut starts = VecDeque::new();
        for _ in 0..count {
            let (_, actions) = self.wait(version, now.saturating_sub(100 * MS));
            starts.extend(starts_of(&actions));
        }
        let mut environments = vec![];
        while let Some(start) = starts.pop_front() {
            let (environment, actions) = self.started(start, now);
            starts.extend(starts_of(&actions));
            environments.push(environment);
        }
        assert_eq!(environments.len(), count);
        for (age, environment) in environments.iter().enumerate() {
            self.finished(*environment, now + age as u64);
        }
        environments
    }

    /// The template of a version, and one environment of it that is idle.
    fn mould(&mut self, version: VersionId, now: u64) -> (TemplateId, EnvironmentId) {
        let (_, actions) = self.wait(version, now);
        let [Action::Prepare(start, _)] = actions[..] else { panic!("{actions:?}") };
        let (template, actions) = self.prepared(start, now + 100 * MS);
        let fork = forks_of(&actions)[0];
        let (environment, _) = self.started(fork, now + 102 * MS);
        self.finished(environment, now + 103 * MS);
        (template, environment)
    }
}

fn starts_of(actions: &[Action]) -> Vec<StartId> {
    let start = |action: &Action| match action {
        Action::Start(start, _) => Some(*start),
        _ => None,
    };
    actions.iter().filter_map(start).collect()
}

fn forks_of(actions: &[Action]) -> Vec<StartId> {
    let fork = |action: &Action| match action {
        Action::Fork(start, ..) => Some(*start),
        _ => None,
    };
    actions.iter().filter_map(fork).collect()
}

#[test]
fn a_first_call_starts_and_is_handed_what_started() {
    let mut machine = Machine::new(options());
    let version = machine.ordinary(128);
    let (ticket, actions) = machine.wait(version, 0);
    let [Action::Start(start, of)] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(of, version);
    let (environment, actions) = machine.started(start, 5);
    assert_eq!(actions, [Action::Hand(ticket, environment, Start::Ordinary)]);
    assert_eq!(machine.finished(environment, 6), []);
    assert_eq!(machine.arrive(version, 7), (Arrival::Run(environment, Start::Warm), vec![]));
}

#[test]
fn the_environment_used_last_is_used_next_and_spares_after_all_others() {
    let mut machine = Machine::new(options());
    let version = machine.ordinary(128);
    let environments = machine.warm(version, 3, 0);
    assert_eq!(machine.arrive(version, 9).0, Arrival::Run(environments[2], Start::Warm));
    // One more is started, but somebody else is done before.
    machine.arrive(version, 9);
    machine.arrive(version, 9);
    let (_, actions) = machine.wait(version, 9 + 400 * MS);
    let mut starts = starts_of(&actions);
    if starts.is_empty() {
        starts = starts_of(&machine.pass(2 * SECOND));
    }
    machine.finished(environments[0], 3 * SECOND);
    let (spare, actions) = machine.started(starts[0], 4 * SECOND);
    assert_eq!(actions, []);
    machine.finished(environments[0], 4 * SECOND);
    assert_eq!(machine.arrive(version, 5 * SECOND).0, Arrival::Run(environments[0], Start::Warm));
    assert_eq!(machine.arrive(version, 5 * SECOND).0, Arrival::Run(spare, Start::Spare));
}

#[test]
fn who_waits_is_served_by_whatever_is_free_first() {
    let mut machine = Machine::new(options());
    let version = machine.ordinary(128);
    let environment = machine.warm(version, 1, 0)[0];
    machine.arrive(version, 10);
    // A service time of 10 s shows that waiting is no good.
    machine.finished(environment, 10 * SECOND);
    machine.arrive(version, 11 * SECOND);
    let (ticket, actions) = machine.wait(version, 20 * SECOND);
    let start = starts_of(&actions)[0];
    assert_eq!(machine.finished(environment, 21 * SECOND), [Action::Hand(ticket, environment, Start::Warm)]);
    let (late, actions) = machine.started(start, 22 * SECOND);
    assert_eq!(actions, [], "the start that nobody waits for any more is kept as idle");
    assert_eq!(machine.arrive(version, 22 * SECOND).0, Arrival::Run(late, Start::Spare));
}

#[test]
fn a_short_queue_beats_a_long_start_and_a_long_one_does_not() {
    let mut machine = Machine::new(options());
    let version = machine.ordinary(128);
    let (_, actions) = machine.wait(version, 0);
    let (environment, _) = machine.started(starts_of(&actions)[0], 50 * MS);
    machine.finished(environment, 51 * MS);
    // A start takes 50 ms and an invocation 1 ms: forty callers are served before a start would be done.
    machine.arrive(version, 60 * MS);
    for _ in 0..40 {
        assert_eq!(machine.wait(version, 60 * MS).1, []);
    }
    let more: usize = (0..40).map(|_| starts_of(&machine.wait(version, 60 * MS).1).len()).sum();
    assert!((1..=2).contains(&more), "with one more, most of the rest is served in time as well: {more}");
}

#[test]
fn a_wrong_estimate_costs_nobody_much_more_than_a_start() {
    let mut machine = Machine::new(options());
    let version = machine.ordinary(128);
    let (_, actions) = machine.wait(version, 0);
    let (environment, _) = machine.started(starts_of(&actions)[0], 50 * MS);
    machine.finished(environment, 51 * MS);
    machine.arrive(version, 60 * MS);
    // What runs was expected to take 1 ms and does not end.
    let (ticket, actions) = machine.wait(version, 61 * MS);
    assert_eq!(actions, []);
    let next = machine.scheduler.next_tick().unwrap().0;
    assert!(next <= 61 * MS + 51 * MS, "{next}");
    assert_eq!(starts_of(&machine.pass(110 * MS)), []);
    let actions = machine.pass(112 * MS);
    let start = starts_of(&actions)[0];
    let (fresh, actions) = machine.started(start, 160 * MS);
    assert_eq!(actions, [Action::Hand(ticket, fresh, Start::Ordinary)]);
}

/// 500 callers at once, of which each takes `service` when it runs, and each fork `fork`; says how many forks there
/// were and when the last caller was done.
fn stampede(service: u64, fork: u64) -> (usize, u64) {
    let mut machine = Machine::new(EngineOptions { memory_bytes: 1 << 50, ..options() });
    let version = machine.forkable(1);
    let mut prepares = vec![];
    for _ in 0..500 {
        prepares.extend(machine.wait(version, 0).1);
    }
    let [Action::Prepare(prepare, _)] = prepares[..] else { panic!("{prepares:?}") };
    let mut now = 100 * MS;
    let (_, actions) = machine.prepared(prepare, now);
    let mut events: Vec<(u64, Result<EnvironmentId, StartId>)> = vec![];
    let (mut forks, mut served) = (0, 0);
    let mut pending = actions;
    while served < 500 {
        for action in std::mem::take(&mut pending) {
            match action {
                Action::Fork(start, ..) => {
                    forks += 1;
                    events.push((now + fork, Err(start)));
                }
                Action::Hand(_, environment, _) => events.push((now + service, Ok(environment))),
                _ => {}
            }
        }
        events.sort_unstable_by_key(|event| std::cmp::Reverse(event.0));
        let next_tick = machine.scheduler.next_tick().map_or(u64::MAX, |at| at.0);
        if next_tick <= events.last().expect("something goes on").0 {
            now = now.max(next_tick);
            pending = machine.tick(now).1;
            continue;
        }
        let (at, event) = events.pop().expect("something goes on");
        now = at;
        pending = match event {
            Ok(environment) => {
                served += 1;
                machine.finished(environment, now)
            }
            Err(start) => machine.started(start, now).1,
        };
        assert!(machine.scheduler.counts(version).starting <= 4, "starts at once are bounded");
    }
    (forks, now)
}

#[test]
fn five_hundred_first_calls_start_no_more_than_needed() {
    // Calls of 0.2 ms: what four forks at once bring up serves the line faster than more forks would.
    let (forks, done) = stampede(200, 2 * MS);
    assert!(forks <= 24, "{forks}");
    assert!(done <= 130 * MS, "{done}");
    // Calls of 50 ms: a start is soon worth it, but a quarter of the callers is served by what others have warmed up.
    let (forks, done) = stampede(50 * MS, 2 * MS);
    assert!((50..400).contains(&forks), "{forks}");
    assert!(done <= 350 * MS, "{done}");
}

#[test]
fn callers_over_the_account_s_concurrency_are_refused_at_the_door() {
    let mut machine = Machine::new(EngineOptions { concurrency: 2, ..options() });
    let version = machine.ordinary(128);
    let environments = machine.warm(version, 2, 0);
    machine.arrive(version, 1);
    machine.arrive(version, 1);
    assert_eq!(machine.arrive(version, 1).0, Arrival::Throttled(Limit::Concurrency, SECOND));
    machine.finished(environments[0], 2);
    assert_eq!(machine.arrive(version, 3).0, Arrival::Run(environments[0], Start::Warm));
}

#[test]
fn a_line_that_would_not_end_in_time_is_refused_at_once_and_a_long_one_too() {
    let longest_wait = Duration::from_secs(5);
    let mut machine =
        Machine::new(EngineOptions { memory_bytes: 200 * MB, longest_wait, longest_line: 20, ..options() });
    let version = machine.ordinary(128);
    let environment = machine.warm(version, 1, 0)[0];
    machine.arrive(version, 0);
    // Invocations take 2 s, and there is memory for one environment.
    for second in [2, 4, 6, 8, 10, 12, 14, 16, 18] {
        machine.finished(environment, second * SECOND);
        machine.arrive(version, second * SECOND);
    }
    machine.wait(version, 18 * SECOND);
    machine.wait(version, 18 * SECOND);
    assert_eq!(machine.arrive(version, 18 * SECOND).0, Arrival::Overloaded);
    assert_eq!(machine.scheduler.callers(), 3);
    // Nothing ends any more: who waits is sent away when the time is over, not kept for ever.
    let refused = machine.pass(23 * SECOND);
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(matches!(refused[0], Action::Refuse(_, Refusal::Overloaded)));

    let other = machine.ordinary(128);
    for _ in 0..20 {
        machine.wait(other, 23 * SECOND);
    }
    assert_eq!(machine.arrive(other, 23 * SECOND).0, Arrival::Overloaded, "the line is full");
}

#[test]
fn idle_environments_are_frozen_then_stopped() {
    let mut machine = Machine::new(options());
    let version = machine.ordinary(128);
    let environment = machine.warm(version, 1, 1000 * MS)[0];
    assert_eq!(machine.tick(1010 * MS), (Some(1050 * MS), vec![]));
    assert_eq!(machine.tick(1050 * MS), (Some(61_000 * MS), vec![Action::Freeze(environment)]));
    assert_eq!(machine.tick(1051 * MS), (Some(61_000 * MS), vec![]));
    assert_eq!(machine.tick(61_000 * MS).1, [Action::Stop(environment)]);
    assert_eq!(machine.scheduler.environments(), 0);
    assert!(matches!(machine.arrive(version, 62_000 * MS).0, Arrival::Wait(_)));
}

#[test]
fn a_timer_s_function_is_let_go_at_once_and_back_before_its_next_call() {
    let mut machine = Machine::new(options());
    let version = machine.ordinary(128);
    let period = 30 * MINUTE;
    let mut cold = 0;
    for round in 0..10 {
        let mut now = round * period;
        let actions = machine.pass(now);
        for start in starts_of(&actions) {
            machine.started(start, now - 2 * MINUTE);
        }
        let environment = match machine.arrive(version, now) {
            (Arrival::Run(environment, _), _) => environment,
            (_, actions) => {
                cold += 1;
                now += 100 * MS;
                machine.started(starts_of(&actions)[0], now).0
            }
        };
        machine.finished(environment, now + 10 * MS);
        let soon = machine.pass(now + SECOND);
        assert_eq!(soon.contains(&Action::Stop(environment)), round >= 3, "round {round}");
    }
    assert_eq!(cold, 4, "three intervals show the pattern");
}

#[test]
fn a_function_with_longer_silences_is_kept_for_longer() {
    let mut machine = Machine::new(options());
    let version = machine.ordinary(64);
    let mut cold = 0;
    let mut now = 0;
    for round in 0..30u64 {
        // Two to seven minutes apart: more than the fixed minute.
        now += (2 + round * 7 % 6) * MINUTE;
        for start in starts_of(&machine.pass(now)) {
            machine.started(start, now);
        }
        let environment = match machine.arrive(version, now) {
            (Arrival::Run(environment, _), _) => environment,
            (_, actions) => {
                cold += 1;
                machine.started(starts_of(&actions)[0], now).0
            }
        };
        machine.finished(environment, now);
    }
    assert!(cold <= 7, "{cold}");
}

#[test]
fn what_is_not_used_for_long_makes_room_first() {
    let mut machine = Machine::new(EngineOptions { memory_bytes: 300 * MB, ..options() });
    let small = machine.ordinary(100);
    let idle = machine.warm(small, 3, 0);
    let large = machine.ordinary(285);
    let (_, actions) = machine.wait(large, 10);
    assert_eq!(actions.len(), 3, "{actions:?}");
    assert!(matches!(actions[..2], [Action::Stop(_), Action::Stop(_)]));
    assert!(idle.iter().any(|environment| !actions.contains(&Action::Stop(*environment))));
    assert!(matches!(actions[2], Action::Start(_, version) if version == large));
}

#[test]
fn what_saves_little_for_its_size_makes_room_first() {
    let mut machine = Machine::new(EngineOptions { memory_bytes: 250 * MB, ..options() });
    let (often, seldom) = (machine.ordinary(100), machine.ordinary(100));
    let kept = machine.warm(often, 1, SECOND / 2)[0];
    for second in 1..10 {
        machine.arrive(often, second * SECOND);
        machine.finished(kept, second * SECOND + MS);
    }
    let gone = machine.warm(seldom, 1, 10 * SECOND)[0];
    let third = machine.ordinary(235);
    let (_, actions) = machine.wait(third, 11 * SECOND);
    assert_eq!(actions[0], Action::Stop(gone), "the one used last, but seldom");
    assert_eq!(actions.len(), 2, "{actions:?}");
}

#[test]
fn a_template_outlives_the_environments_that_cost_less() {
    let mut machine = Machine::new(EngineOptions { memory_bytes: 200 * MB, ..options() });
    let version = machine.forkable(100);
    let (template, environment) = machine.mould(version, 0);
    let second = SECOND;
    machine.arrive(version, second);
    machine.finished(environment, second + MS);
    let other = machine.ordinary(165);
    let (_, actions) = machine.wait(other, 2 * second);
    assert_eq!(actions[0], Action::Stop(environment));
    assert_eq!(starts_of(&actions).len(), 1);
    assert_eq!(machine.scheduler.templates(), 1);
    // More than that, and it goes as well.
    machine.scheduler.relieve(20 * MB, Moment(3 * second), &mut machine.actions);
    assert_eq!(machine.take(), [Action::DropTemplate(template)]);
}

#[test]
fn a_start_without_room_waits_until_there_is_and_evicts_nothing_in_vain() {
    let mut machine = Machine::new(EngineOptions { memory_bytes: 200 * MB, ..options() });
    let version = machine.ordinary(128);
    let (_, actions) = machine.wait(version, 0);
    let (environment, _) = machine.started(starts_of(&actions)[0], 0);
    let small = machine.ordinary(30);
    machine.warm(small, 1, 0);
    let other = machine.ordinary(128);
    assert_eq!(machine.wait(other, 0).1, [], "the memory that matters is in use by busy environments");
    machine.scheduler.broke(environment, Moment(1), &mut machine.actions);
    assert_eq!(starts_of(&machine.take()).len(), 1);
    let too_large = machine.ordinary(201);
    assert_eq!(machine.arrive(too_large, 2).0, Arrival::TooLarge);
}

#[test]
fn failed_starts_end_the_line_one_by_one() {
    let mut machine = Machine::new(EngineOptions { concurrent_starts: 1, ..options() });
    let version = machine.ordinary(128);
    let (first, actions) = machine.wait(version, 0);
    let (second, _) = machine.wait(version, 0);
    machine.scheduler.start_failed(starts_of(&actions)[0], Moment(1), &mut machine.actions);
    let actions = machine.take();
    assert_eq!(actions[0], Action::Refuse(first, Refusal::StartFailed));
    machine.scheduler.start_failed(starts_of(&actions)[0], Moment(2), &mut machine.actions);
    assert_eq!(machine.take(), [Action::Refuse(second, Refusal::StartFailed)]);
    assert_eq!((machine.scheduler.callers(), machine.scheduler.environments()), (0, 0));
}

#[test]
fn a_function_and_the_machine_start_no_faster_than_their_rates() {
    let mut machine = Machine::new(EngineOptions {
        function_starts_per_second: 1,
        concurrent_starts: 1000,
        memory_bytes: 1 << 50,
        ..options()
    });
    let version = machine.ordinary(1);
    let mut started = vec![];
    for _ in 0..10 {
        started.extend(starts_of(&machine.wait(version, 0).1));
    }
    assert_eq!(started.len(), 10, "a burst of ten times the rate");
    let (refused, _) = machine.arrive(version, 0);
    assert!(
        matches!(refused, Arrival::Throttled(Limit::Growth, again) if again.abs_diff(SECOND) < 10),
        "{refused:?}"
    );
    assert_eq!(machine.scheduler.callers(), 10);
    assert_eq!(starts_of(&machine.wait(version, SECOND + MS).1).len(), 1);
    // Whoever asks for a cold start measures and is not held up; whoever is served in no time needs no start.
    let (forced, actions) = machine.arrive_for(version, Wanted::Cold(Start::Ordinary), SECOND + MS);
    assert!(matches!(forced, Arrival::Wait(_)) && starts_of(&actions).len() == 1, "{forced:?}");
    let (environment, _) = machine.started(started[0], SECOND + 2 * MS);
    machine.finished(environment, SECOND + 3 * MS);
    assert!(matches!(machine.arrive(version, SECOND + 4 * MS).0, Arrival::Wait(_)));

    let mut machine =
        Machine::new(EngineOptions { starts_per_second: 5, concurrent_starts: 1000, ..options() });
    let mut starts = 0;
    for _ in 0..20 {
        let version = machine.ordinary(1);
        starts += machine.wait(version, 0).1.len();
    }
    assert_eq!(starts, 5);
    assert_eq!(starts_of(&machine.pass(2 * SECOND + MS)).len(), 10);
}

#[test]
fn a_burst_on_one_function_does_not_hold_up_another() {
    let mut machine = Machine::new(options());
    let (busy, quiet) = (machine.ordinary(1), machine.ordinary(1));
    for _ in 0..500 {
        machine.wait(busy, 0);
    }
    let (ticket, actions) = machine.wait(quiet, 1);
    assert_eq!(actions, [], "all places are taken");
    // The next place but one is the other's: those that want starts take turns.
    let mut started = None;
    let starts: Vec<u64> = machine.scheduler.starts.keys();
    for (number, start) in starts.into_iter().take(2).enumerate() {
        let (_, actions) = machine.started(StartId(start), 10 + number as u64);
        started = started.or(actions.iter().find_map(|action| match action {
            Action::Start(start, version) if *version == quiet => Some(*start),
            _ => None,
        }));
    }
    let (environment, actions) = machine.started(started.expect("its turn has come"), 20);
    assert!(actions.contains(&Action::Hand(ticket, environment, Start::Ordinary)));
}

#[test]
fn a_retired_version_serves_its_line_and_keeps_nothing() {
    let mut machine = Machine::new(options());
    let version = machine.ordinary(128);
    let environments = machine.warm(version, 2, 0);
    machine.arrive(version, 1);
    machine.scheduler.retire(version, Moment(2), &mut machine.actions);
    assert_eq!(machine.take(), [Action::Stop(environments[0])]);
    assert_eq!(
        machine.finished(environments[1], 5),
        [Action::Stop(environments[1]), Action::Forget(version)]
    );
    assert!(!machine.scheduler.knows(version));
}

#[test]
fn a_dead_environment_puts_its_caller_back_at_the_head_of_the_line() {
    let mut machine = Machine::new(options());
    let version = machine.ordinary(128);
    let environment = machine.warm(version, 1, 0)[0];
    machine.arrive(version, 1);
    let (_, ticket) =
        machine.scheduler.broke_before_use(environment, Moment(2), &mut machine.actions).unwrap();
    let start = starts_of(&machine.take())[0];
    let (fresh, actions) = machine.started(start, 3);
    assert_eq!(actions, [Action::Hand(ticket, fresh, Start::Ordinary)]);
    assert_eq!(machine.scheduler.callers(), 1);
}

#[test]
fn an_idle_environment_that_dies_is_forgotten() {
    let mut machine = Machine::new(options());
    let version = machine.ordinary(128);
    let environments = machine.warm(version, 2, 0);
    assert!(machine.scheduler.died(environments[1], Moment(5), &mut machine.actions));
    assert_eq!(machine.arrive(version, 6).0, Arrival::Run(environments[0], Start::Warm));
    let died = machine.scheduler.died(environments[0], Moment(7), &mut machine.actions);
    assert!(!died, "busy ones are their runner's to report");
}

#[test]
fn closing_stops_the_idle_refuses_the_line_and_lets_the_busy_finish() {
    let mut machine = Machine::new(EngineOptions { memory_bytes: 300 * MB, ..options() });
    let version = machine.ordinary(100);
    let environments = machine.warm(version, 2, 0);
    machine.arrive(version, 1);
    let large = machine.ordinary(250);
    let (ticket, _) = machine.wait(large, 2);
    machine.scheduler.close(Moment(3), &mut machine.actions);
    let actions = machine.take();
    assert!(actions.contains(&Action::Refuse(ticket, Refusal::Closing)));
    assert!(actions.contains(&Action::Stop(environments[0])));
    assert_eq!(machine.arrive(version, 4).0, Arrival::Closing);
    assert!(machine.finished(environments[1], 9).contains(&Action::Stop(environments[1])));
    assert_eq!((machine.scheduler.callers(), machine.scheduler.environments()), (0, 0));
    assert_eq!(machine.scheduler.reserved_bytes(), 0);
}

#[test]
fn ten_thousand_known_functions_cost_a_call_nothing() {
    let mut machine = Machine::new(EngineOptions {
        memory_bytes: 1 << 50,
        idle: Duration::from_secs(86_400),
        starts_per_second: 1_000_000,
        ..options()
    });
    let versions: Vec<_> = (0..10_000).map(|_| machine.ordinary(1)).collect();
    for version in &versions {
        machine.warm(*version, 1, 0);
    }
    machine.pass(SECOND);
    // Nothing is due, so a look does nothing; and a call and its end plan at most one look.
    let planned = machine.scheduler.timers.len();
    let (Arrival::Run(environment, _), _) = machine.arrive(versions[5000], 2 * SECOND) else { panic!() };
    machine.finished(environment, 2 * SECOND + MS);
    assert!(machine.scheduler.timers.len() <= planned + 1);
    assert_eq!(machine.tick(2 * SECOND + 2 * MS).1, []);
}

#[test]
fn what_is_remembered_of_a_function_is_small() {
    // Ten thousand functions of which all have been called, each with a history: a few megabytes.
    let bytes = size_of::<Version>() + size_of::<[u8; 240]>();
    assert!(bytes <= 1024, "{bytes}");
}
