use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const MB: u64 = 1 << 20;

fn limits() -> Limits {
    Limits {
        concurrency: 1000,
        concurrent_starts: 4,
        memory_bytes: 1024 * MB,
        idle_millis: 60_000,
        freeze_millis: 50,
    }
}

fn at(millis: u64) -> Timestamp {
    Timestamp(millis)
}

struct Machine {
    scheduler: Scheduler,
    actions: Vec<Action>,
}

impl Machine {
    fn new(limits: Limits) -> Self {
        Self { scheduler: Scheduler::new(limits), actions: vec![] }
    }

    fn arrive(&mut self, version: VersionId) -> (Arrival, Vec<Action>) {
        let arrival = self.scheduler.arrive(version, &mut self.actions);
        (arrival, std::mem::take(&mut self.actions))
    }

    fn started(&mut self, version: VersionId, now: u64) -> (EnvironmentId, Vec<Action>) {
        let environment = self.scheduler.started(version, at(now), &mut self.actions);
        (environment, std::mem::take(&mut self.actions))
    }

    fn finished(&mut self, environment: EnvironmentId, now: u64) -> Vec<Action> {
        self.scheduler.finished(environment, 10 * MB, at(now), &mut self.actions);
        std::mem::take(&mut self.actions)
    }

    fn tick(&mut self, now: u64) -> (Option<Timestamp>, Vec<Action>) {
        let next = self.scheduler.tick(at(now), &mut self.actions);
        (next, std::mem::take(&mut self.actions))
    }

    /// Brings up `count` environments at once and leaves them idle, finished in order at `now`, `now + 1`, ...
    fn warm(&mut self, version: VersionId, count: usize, now: u64) -> Vec<EnvironmentId> {
        for _ in 0..count {
            let (arrival, _) = self.arrive(version);
            assert!(matches!(arrival, Arrival::Wait(_)));
        }
        let environments: Vec<_> = (0..count).map(|_| self.started(version, now).0).collect();
        for (age, environment) in environments.iter().enumerate() {
            self.finished(*environment, now + age as u64);
        }
        environments
    }
}

#[test]
fn a_first_call_starts_and_is_handed_what_started() {
    let mut machine = Machine::new(limits());
    let version = machine.scheduler.add_version(128 * MB);
    let (arrival, actions) = machine.arrive(version);
    let Arrival::Wait(ticket) = arrival else { panic!("{arrival:?}") };
    assert_eq!(actions, [Action::Start(version)]);
    let (environment, actions) = machine.started(version, 5);
    assert_eq!(actions, [Action::Hand(ticket, environment)]);
    assert_eq!(machine.finished(environment, 6), []);
    assert_eq!(machine.arrive(version), (Arrival::Run(environment), vec![]));
}

#[test]
fn the_environment_used_last_is_used_next() {
    let mut machine = Machine::new(limits());
    let version = machine.scheduler.add_version(128 * MB);
    let environments = machine.warm(version, 3, 0);
    assert_eq!(machine.arrive(version).0, Arrival::Run(environments[2]));
    assert_eq!(machine.arrive(version).0, Arrival::Run(environments[1]));
    machine.finished(environments[2], 10);
    assert_eq!(machine.arrive(version).0, Arrival::Run(environments[2]));
}

#[test]
fn who_waits_is_served_by_whatever_is_free_first() {
    let mut machine = Machine::new(limits());
    let version = machine.scheduler.add_version(128 * MB);
    let environment = machine.warm(version, 1, 0)[0];
    assert_eq!(machine.arrive(version).0, Arrival::Run(environment));
    let (Arrival::Wait(ticket), actions) = machine.arrive(version) else { panic!() };
    assert_eq!(actions, [Action::Start(version)]);
    assert_eq!(machine.finished(environment, 1), [Action::Hand(ticket, environment)]);
    let (late, actions) = machine.started(version, 2);
    assert_eq!(actions, [], "the start that nobody waits for any more is kept as idle");
    assert_eq!(machine.arrive(version).0, Arrival::Run(late));
}

#[test]
fn a_burst_of_first_calls_is_no_stampede() {
    let mut machine = Machine::new(limits());
    let version = machine.scheduler.add_version(MB);
    let mut starts = 0;
    for _ in 0..500 {
        starts += machine.arrive(version).1.len();
    }
    assert_eq!(starts, 4);
    // One environment that finishes quickly drains the line; starts follow only while someone waits.
    let (environment, _) = machine.started(version, 0);
    for _ in 0..499 {
        machine.finished(environment, 1);
    }
    assert_eq!(machine.scheduler.counts(version), Counts { busy: 1, idle: 0, starting: 4, waiting: 0 });
}

#[test]
fn callers_over_the_account_s_concurrency_are_refused_at_the_door() {
    let mut machine = Machine::new(Limits { concurrency: 2, ..limits() });
    let version = machine.scheduler.add_version(128 * MB);
    let environments = machine.warm(version, 2, 0);
    machine.arrive(version);
    machine.arrive(version);
    assert_eq!(machine.arrive(version).0, Arrival::Throttled);
    machine.finished(environments[0], 1);
    assert_eq!(machine.arrive(version).0, Arrival::Run(environments[0]));
}

#[test]
fn idle_environments_are_frozen_then_stopped() {
    let mut machine = Machine::new(limits());
    let version = machine.scheduler.add_version(128 * MB);
    let environment = machine.warm(version, 1, 1000)[0];
    assert_eq!(machine.tick(1010), (Some(at(1050)), vec![]));
    assert_eq!(machine.tick(1050), (Some(at(61_000)), vec![Action::Freeze(environment)]));
    assert_eq!(machine.tick(1051), (Some(at(61_000)), vec![]));
    assert_eq!(machine.tick(61_000), (None, vec![Action::Stop(environment)]));
    assert_eq!(machine.scheduler.environments(), 0);
    assert!(matches!(machine.arrive(version).0, Arrival::Wait(_)));
}

#[test]
fn a_start_makes_room_by_stopping_the_longest_idle() {
    let mut machine = Machine::new(Limits { memory_bytes: 300 * MB, ..limits() });
    let small = machine.scheduler.add_version(100 * MB);
    let idle = machine.warm(small, 3, 0);
    let large = machine.scheduler.add_version(285 * MB);
    let (_, actions) = machine.arrive(large);
    assert_eq!(actions, [Action::Stop(idle[0]), Action::Stop(idle[1]), Action::Start(large)]);
}

#[test]
fn a_start_without_room_waits_until_there_is() {
    let mut machine = Machine::new(Limits { memory_bytes: 200 * MB, ..limits() });
    let version = machine.scheduler.add_version(128 * MB);
    machine.arrive(version);
    let (environment, _) = machine.started(version, 0);
    let other = machine.scheduler.add_version(128 * MB);
    assert_eq!(machine.arrive(other).1, [], "all memory is in use by busy environments");
    machine.scheduler.broke(environment, &mut machine.actions);
    assert_eq!(machine.actions, [Action::Start(other)]);
    let too_large = machine.scheduler.add_version(201 * MB);
    assert_eq!(machine.scheduler.arrive(too_large, &mut vec![]), Arrival::TooLarge);
}

#[test]
fn failed_starts_end_the_line_one_by_one() {
    let mut machine = Machine::new(Limits { concurrent_starts: 1, ..limits() });
    let version = machine.scheduler.add_version(128 * MB);
    let (Arrival::Wait(first), _) = machine.arrive(version) else { panic!() };
    let (Arrival::Wait(second), _) = machine.arrive(version) else { panic!() };
    machine.scheduler.start_failed(version, &mut machine.actions);
    assert_eq!(std::mem::take(&mut machine.actions), [Action::Refuse(first), Action::Start(version)]);
    machine.scheduler.start_failed(version, &mut machine.actions);
    assert_eq!(std::mem::take(&mut machine.actions), [Action::Refuse(second)]);
    assert_eq!((machine.scheduler.callers(), machine.scheduler.environments()), (0, 0));
}

#[test]
fn a_retired_version_serves_its_line_and_keeps_nothing() {
    let mut machine = Machine::new(limits());
    let version = machine.scheduler.add_version(128 * MB);
    let environments = machine.warm(version, 2, 0);
    machine.arrive(version);
    machine.scheduler.retire(version, &mut machine.actions);
    assert_eq!(std::mem::take(&mut machine.actions), [Action::Stop(environments[0])]);
    assert_eq!(machine.finished(environments[1], 5), [Action::Stop(environments[1])]);
    assert!(!machine.scheduler.knows(version));
}

#[test]
fn a_dead_environment_puts_its_caller_back_at_the_head_of_the_line() {
    let mut machine = Machine::new(limits());
    let version = machine.scheduler.add_version(128 * MB);
    let environment = machine.warm(version, 1, 0)[0];
    machine.arrive(version);
    let (_, ticket) = machine.scheduler.broke_before_use(environment, &mut machine.actions);
    assert_eq!(std::mem::take(&mut machine.actions), [Action::Start(version)]);
    let (fresh, actions) = machine.started(version, 1);
    assert_eq!(actions, [Action::Hand(ticket, fresh)]);
    assert_eq!(machine.scheduler.callers(), 1);
}

#[test]
fn an_idle_environment_that_dies_is_forgotten() {
    let mut machine = Machine::new(limits());
    let version = machine.scheduler.add_version(128 * MB);
    let environments = machine.warm(version, 2, 0);
    assert!(machine.scheduler.died(environments[1], &mut machine.actions));
    assert_eq!(machine.arrive(version).0, Arrival::Run(environments[0]));
    assert!(
        !machine.scheduler.died(environments[0], &mut machine.actions),
        "busy ones are their runner's to report"
    );
}

#[test]
fn closing_stops_the_idle_refuses_the_line_and_lets_the_busy_finish() {
    let mut machine = Machine::new(Limits { memory_bytes: 300 * MB, ..limits() });
    let version = machine.scheduler.add_version(100 * MB);
    let environments = machine.warm(version, 2, 0);
    machine.arrive(version);
    let large = machine.scheduler.add_version(250 * MB);
    let (Arrival::Wait(ticket), _) = machine.arrive(large) else { panic!() };
    machine.actions.clear();
    machine.scheduler.close(&mut machine.actions);
    assert_eq!(std::mem::take(&mut machine.actions), [Action::Refuse(ticket)]);
    assert_eq!(machine.arrive(version).0, Arrival::Closing);
    assert_eq!(machine.finished(environments[1], 9), [Action::Stop(environments[1])]);
    assert_eq!((machine.scheduler.callers(), machine.scheduler.environments()), (0, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Arrive(usize),
    StartDone,
    StartFailed,
    Finish(usize),
    Break(usize),
    BreakBeforeUse(usize),
    Die(usize),
    GiveUp(usize),
    Retire(usize),
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3usize).prop_map(Step::Arrive),
        4 => Just(Step::StartDone),
        1 => Just(Step::StartFailed),
        4 => any::<usize>().prop_map(Step::Finish),
        1 => any::<usize>().prop_map(Step::Break),
        1 => any::<usize>().prop_map(Step::BreakBeforeUse),
        1 => any::<usize>().prop_map(Step::Die),
        1 => any::<usize>().prop_map(Step::GiveUp),
        1 => (0..3usize).prop_map(Step::Retire),
        2 => (1..70_000u64).prop_map(Step::Advance),
    ]
}

/// Plays the part of the world around a scheduler and checks every action against what it believes.
struct World {
    scheduler: Scheduler,
    versions: Vec<VersionId>,
    now: u64,
    starting: Vec<VersionId>,
    idle: BTreeSet<EnvironmentId>,
    busy: Vec<EnvironmentId>,
    waiting: Vec<(VersionId, Ticket)>,
}

impl World {
    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Hand(ticket, environment) => {
                    let position = self
                        .waiting
                        .iter()
                        .position(|(_, t)| *t == ticket)
                        .expect("handed once, to one in line");
                    self.waiting.remove(position);
                    self.idle.remove(&environment);
                    assert!(!self.busy.contains(&environment));
                    self.busy.push(environment);
                }
                Action::Refuse(ticket) => {
                    let position = self.waiting.iter().position(|(_, t)| *t == ticket).expect("refused once");
                    self.waiting.remove(position);
                }
                Action::Start(version) => self.starting.push(version),
                Action::Stop(environment) => {
                    assert!(self.idle.remove(&environment), "only idle ones are stopped");
                }
                Action::Freeze(environment) => assert!(self.idle.contains(&environment)),
            }
        }
    }

    fn take_busy(&mut self, pick: usize) -> Option<EnvironmentId> {
        (!self.busy.is_empty()).then(|| self.busy.swap_remove(pick % self.busy.len()))
    }

    fn play(&mut self, step: &Step) {
        let mut actions = vec![];
        match *step {
            Step::Arrive(which) => match self.scheduler.arrive(self.versions[which], &mut actions) {
                Arrival::Run(environment) => {
                    assert!(self.idle.remove(&environment), "only idle ones are given out");
                    self.busy.push(environment);
                }
                Arrival::Wait(ticket) => self.waiting.push((self.versions[which], ticket)),
                Arrival::Throttled | Arrival::TooLarge | Arrival::Closing => {}
            },
            Step::StartDone => {
                let Some(version) = self.starting.pop() else { return };
                let environment = self.scheduler.started(version, at(self.now), &mut actions);
                self.idle.insert(environment);
            }
            Step::StartFailed => {
                let Some(version) = self.starting.pop() else { return };
                self.scheduler.start_failed(version, &mut actions);
            }
            Step::Finish(pick) => {
                let Some(environment) = self.take_busy(pick) else { return };
                self.idle.insert(environment);
                self.scheduler.finished(environment, MB, at(self.now), &mut actions);
            }
            Step::Break(pick) => {
                let Some(environment) = self.take_busy(pick) else { return };
                self.scheduler.broke(environment, &mut actions);
            }
            Step::BreakBeforeUse(pick) => {
                let Some(environment) = self.take_busy(pick) else { return };
                self.waiting.push(self.scheduler.broke_before_use(environment, &mut actions));
            }
            Step::Die(pick) => {
                let all: Vec<_> = self.idle.iter().copied().collect();
                if let Some(environment) = all.get(pick % all.len().max(1)) {
                    self.idle.remove(environment);
                    assert!(self.scheduler.died(*environment, &mut actions));
                }
            }
            Step::GiveUp(pick) => {
                if self.waiting.is_empty() {
                    return;
                }
                let (_, ticket) = self.waiting.swap_remove(pick % self.waiting.len());
                for version in self.versions.clone() {
                    self.scheduler.gave_up(version, ticket);
                }
            }
            Step::Retire(which) => {
                self.scheduler.retire(self.versions[which], &mut actions);
                if !self.scheduler.knows(self.versions[which]) {
                    self.versions[which] = self.scheduler.add_version(40 * MB);
                }
            }
            Step::Advance(millis) => {
                self.now += millis;
                self.scheduler.tick(at(self.now), &mut actions);
            }
        }
        self.carry_out(actions);
        assert_eq!(self.scheduler.callers(), self.busy.len() + self.waiting.len());
        assert_eq!(self.scheduler.environments(), self.busy.len() + self.idle.len() + self.starting.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happens in whatever order: no environment is given out twice, nobody in line is forgotten, and once
    /// the world calms down, everybody was served or refused and all memory is given back.
    #[test]
    fn nobody_is_forgotten_and_nothing_leaks(steps in proptest::collection::vec(step(), 1..120)) {
        let mut scheduler = Scheduler::new(Limits { concurrency: 40, concurrent_starts: 2, memory_bytes: 100 * MB, ..limits() });
        let versions = (0..3).map(|_| scheduler.add_version(40 * MB)).collect();
        let mut world = World { scheduler, versions, now: 0, starting: vec![], idle: BTreeSet::new(), busy: vec![], waiting: vec![] };
        for step in &steps {
            world.play(step);
        }
        for _ in 0..2000 {
            if world.waiting.is_empty() && world.busy.is_empty() && world.starting.is_empty() {
                break;
            }
            world.play(&Step::StartDone);
            world.play(&Step::Finish(0));
        }
        prop_assert!(world.waiting.is_empty(), "left in line: {:?}", world.waiting);
        let mut actions = vec![];
        world.scheduler.close(&mut actions);
        world.carry_out(actions);
        prop_assert_eq!(world.scheduler.environments(), 0);
        prop_assert_eq!(world.scheduler.callers(), 0);
        prop_assert_eq!(world.scheduler.reserved, 0);
    }
}
