//! Whatever happens in whatever order.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const MB: u64 = 1 << 20;

#[derive(Clone, Debug)]
enum Step {
    Arrive(usize, u8),
    StartDone(usize),
    StartFailed(usize),
    Unforkable(usize),
    TemplateGone(usize),
    TemplateDies(usize),
    Finish(usize),
    Break(usize),
    BreakBeforeUse(usize),
    Die(usize),
    GiveUp(usize),
    Retire(usize),
    Reserve(usize, Option<usize>),
    Provision(usize, usize),
    InitFailed(usize),
    Relieve,
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..4usize, 0..12u8).prop_map(|(which, wanted)| Step::Arrive(which, wanted)),
        6 => any::<usize>().prop_map(Step::StartDone),
        1 => any::<usize>().prop_map(Step::StartFailed),
        1 => any::<usize>().prop_map(Step::Unforkable),
        1 => any::<usize>().prop_map(Step::TemplateGone),
        1 => any::<usize>().prop_map(Step::TemplateDies),
        6 => any::<usize>().prop_map(Step::Finish),
        1 => any::<usize>().prop_map(Step::Break),
        1 => any::<usize>().prop_map(Step::BreakBeforeUse),
        1 => any::<usize>().prop_map(Step::Die),
        1 => any::<usize>().prop_map(Step::GiveUp),
        1 => (0..4usize).prop_map(Step::Retire),
        1 => (0..2usize, prop::option::of(0..30usize)).prop_map(|(which, most)| Step::Reserve(which, most)),
        1 => (0..4usize, 0..4usize).prop_map(|(which, count)| Step::Provision(which, count)),
        1 => any::<usize>().prop_map(Step::InitFailed),
        1 => Just(Step::Relieve),
        2 => (1..90 * SECOND).prop_map(Step::Advance),
        2 => (1..20_000u64).prop_map(Step::Advance),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Start(StartId),
    Prepare(StartId),
    Fork(StartId, TemplateId),
}

impl Pending {
    fn start(self) -> StartId {
        match self {
            Self::Start(start) | Self::Prepare(start) | Self::Fork(start, _) => start,
        }
    }
}

/// Plays the part of the world around a scheduler and checks every action against what it believes.
struct World {
    scheduler: Scheduler,
    /// Two, with two versions each.
    functions: [FunctionId; 2],
    versions: Vec<VersionId>,
    now: Moment,
    pending: Vec<Pending>,
    templates: BTreeSet<TemplateId>,
    idle: BTreeSet<EnvironmentId>,
    /// Those that hold all their memory even then.
    kept: BTreeSet<EnvironmentId>,
    busy: Vec<EnvironmentId>,
    /// In line, with their version.
    waiting: BTreeMap<Ticket, VersionId>,
}

fn options() -> EngineOptions {
    EngineOptions {
        concurrency: 40,
        concurrent_starts: 2,
        concurrent_forks: 3,
        memory_bytes: 160 * MB,
        calls_per_second: 0,
        function_starts_per_second: 2,
        starts_per_second: 30,
        ..EngineOptions::default()
    }
}

impl World {
    fn new() -> Self {
        let mut scheduler = Scheduler::new(options());
        let functions = [(); 2].map(|()| scheduler.add_function(Moment(0)));
        let versions = (0..4)
            .map(|which| scheduler.add_version(functions[which / 2], 40 * MB, which > 0, Moment(0)))
            .collect();
        Self {
            scheduler,
            functions,
            versions,
            now: Moment(0),
            pending: vec![],
            templates: BTreeSet::new(),
            idle: BTreeSet::new(),
            kept: BTreeSet::new(),
            busy: vec![],
            waiting: BTreeMap::new(),
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Hand(ticket, environment, _) => {
                    self.waiting.remove(&ticket).expect("handed once, to one in line");
                    self.idle.remove(&environment);
                    assert!(!self.busy.contains(&environment));
                    self.busy.push(environment);
                }
                Action::Refuse(ticket, _) => drop(self.waiting.remove(&ticket).expect("refused once")),
                Action::Start(start, _) => self.pending.push(Pending::Start(start)),
                Action::Prepare(start, _) => self.pending.push(Pending::Prepare(start)),
                Action::Fork(start, _, template) => {
                    assert!(self.templates.contains(&template), "forks are made of templates that exist");
                    self.pending.push(Pending::Fork(start, template));
                }
                Action::Stop(environment) => {
                    assert!(self.idle.remove(&environment), "only idle ones are stopped");
                }
                Action::Freeze(environment) => assert!(self.idle.contains(&environment)),
                Action::DropTemplate(template) => assert!(self.templates.remove(&template), "dropped once"),
                Action::FreezeTemplate(template) | Action::SetStock(template, _) => {
                    assert!(self.templates.contains(&template));
                }
                Action::Forget(version) => {
                    assert!(!self.waiting.values().any(|waiting| *waiting == version));
                }
            }
        }
    }

    /// The function, which may have been forgotten with its last version.
    fn function(&mut self, which: usize) -> FunctionId {
        if !self.scheduler.knows_function(self.functions[which]) {
            self.functions[which] = self.scheduler.add_function(self.now);
        }
        self.functions[which]
    }

    fn take_busy(&mut self, pick: usize) -> Option<EnvironmentId> {
        (!self.busy.is_empty()).then(|| self.busy.swap_remove(pick % self.busy.len()))
    }

    fn take_pending(&mut self, pick: usize, suits: fn(&Pending) -> bool) -> Option<Pending> {
        let suiting: Vec<_> = (0..self.pending.len()).filter(|at| suits(&self.pending[*at])).collect();
        (!suiting.is_empty()).then(|| self.pending.swap_remove(suiting[pick % suiting.len()]))
    }

    fn play(&mut self, step: &Step) {
        let mut actions = vec![];
        let now = self.now;
        match *step {
            Step::Arrive(which, wanted) => {
                let wanted = match wanted {
                    0 => Wanted::Cold(Start::Spare),
                    1 => Wanted::Cold(Start::Fork),
                    2 => Wanted::Cold(Start::Ordinary),
                    _ => Wanted::Any,
                };
                let version = self.versions[which];
                match self.scheduler.arrive(version, wanted, now, &mut actions) {
                    Arrival::Run(environment, _) => {
                        assert!(self.idle.remove(&environment), "only idle ones are given out");
                        self.busy.push(environment);
                    }
                    Arrival::Wait(ticket) => drop(self.waiting.insert(ticket, version)),
                    _ => {}
                }
            }
            Step::StartDone(pick) => match self.take_pending(pick, |_| true) {
                Some(Pending::Start(start) | Pending::Fork(start, _)) => {
                    let keeps = self.scheduler.keeps(start);
                    let environment = self.scheduler.started(start, MB, now, &mut actions);
                    self.idle.insert(environment);
                    self.kept.extend(keeps.then_some(environment));
                }
                Some(Pending::Prepare(start)) => {
                    let template = self.scheduler.prepared(start, 10 * MB, now, &mut actions);
                    self.templates.insert(template);
                }
                None => return,
            },
            Step::StartFailed(pick) => match self.take_pending(pick, |_| true) {
                Some(Pending::Start(start) | Pending::Fork(start, _) | Pending::Prepare(start)) => {
                    self.scheduler.start_failed(start, now, &mut actions);
                }
                None => return,
            },
            Step::Unforkable(pick) => {
                let Some(Pending::Prepare(start)) =
                    self.take_pending(pick, |pending| matches!(pending, Pending::Prepare(_)))
                else {
                    return;
                };
                let ever = pick % 2 == 0;
                let keeps = self.scheduler.keeps(start);
                let environment = self.scheduler.prepared_environment(start, ever, MB, now, &mut actions);
                self.idle.insert(environment);
                self.kept.extend(keeps.then_some(environment));
            }
            Step::TemplateGone(pick) => {
                let Some(Pending::Fork(start, template)) =
                    self.take_pending(pick, |pending| matches!(pending, Pending::Fork(..)))
                else {
                    return;
                };
                self.scheduler.template_gone(start, template, now, &mut actions);
            }
            Step::TemplateDies(pick) => {
                let all: Vec<_> = self.templates.iter().copied().collect();
                let Some(template) = all.get(pick % all.len().max(1)) else { return };
                self.scheduler.template_died(*template, now, &mut actions);
            }
            Step::Finish(pick) => {
                let Some(environment) = self.take_busy(pick) else { return };
                self.idle.insert(environment);
                self.scheduler.finished(environment, MB, now, &mut actions);
            }
            Step::Break(pick) => {
                let Some(environment) = self.take_busy(pick) else { return };
                self.scheduler.broke(environment, now, &mut actions);
            }
            Step::BreakBeforeUse(pick) => {
                let Some(environment) = self.take_busy(pick) else { return };
                let place = self.scheduler.broke_before_use(environment, now, &mut actions);
                let (version, ticket) = place.expect("it is known");
                self.waiting.insert(ticket, version);
            }
            Step::Die(pick) => {
                let all: Vec<_> = self.idle.iter().copied().collect();
                if let Some(environment) = all.get(pick % all.len().max(1)) {
                    self.idle.remove(environment);
                    assert!(self.scheduler.died(*environment, now, &mut actions));
                }
            }
            Step::GiveUp(pick) => {
                let Some(ticket) = self.waiting.keys().nth(pick % self.waiting.len().max(1)).copied() else {
                    return;
                };
                let version = self.waiting.remove(&ticket).expect("it waits");
                self.scheduler.gave_up(version, ticket, now, &mut actions);
            }
            Step::Retire(which) => {
                self.scheduler.retire(self.versions[which], now, &mut actions);
                let function = self.function(which / 2);
                self.versions[which] = self.scheduler.add_version(function, 40 * MB, which > 0, now);
            }
            Step::Reserve(which, most) => {
                let function = self.function(which);
                self.scheduler.reserve(function, most, now);
            }
            Step::Provision(which, count) => {
                self.scheduler.provision(self.versions[which], count, now, &mut actions);
            }
            Step::InitFailed(pick) => {
                let kept: Vec<_> = (0..self.pending.len())
                    .filter(|at| self.scheduler.keeps(self.pending[*at].start()))
                    .collect();
                let Some(at) = kept.get(pick % kept.len().max(1)) else { return };
                let start = self.pending.swap_remove(*at).start();
                self.scheduler.init_failed(start, now, &mut actions);
            }
            Step::Relieve => self.scheduler.relieve(15 * MB, now, &mut actions),
            Step::Advance(micros) => {
                self.now = now.plus(micros);
                // Timers in their order, as the keeper would.
                while let Some(due) = self.scheduler.next_tick().filter(|due| *due <= self.now) {
                    let mut actions = vec![];
                    self.scheduler.tick(due, &mut actions);
                    self.carry_out(actions);
                }
            }
        }
        self.carry_out(actions);
        self.check();
    }

    fn check(&self) {
        assert_eq!(self.scheduler.callers(), self.busy.len() + self.waiting.len());
        assert_eq!(
            self.scheduler.environments(),
            self.busy.len() + self.idle.len() + self.pending.len(),
            "{:?}",
            self.pending
        );
        assert_eq!(self.scheduler.templates(), self.templates.len());
        let used = (self.busy.len() + self.pending.len()) as u64 * 40 * MB
            + self.idle.iter().map(|idle| if self.kept.contains(idle) { 40 * MB } else { MB }).sum::<u64>()
            + self.templates.len() as u64 * 10 * MB;
        assert_eq!(self.scheduler.reserved_bytes(), used, "the budget counts what there is");
        let forks = self.pending.iter().filter(|pending| matches!(pending, Pending::Fork(..))).count();
        assert!(forks <= 3 && self.pending.len() - forks <= 2, "{:?}", self.pending);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 20_000 }))]

    /// No environment is given out twice, nobody in line is forgotten or served twice, bounds hold, and once
    /// the world calms down, everybody was served or refused and all memory is given back.
    #[test]
    fn nobody_is_forgotten_and_nothing_leaks(steps in proptest::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        for step in &steps {
            world.play(step);
        }
        for _ in 0..2000 {
            if world.waiting.is_empty() && world.busy.is_empty() && world.pending.is_empty() {
                break;
            }
            world.play(&Step::StartDone(0));
            world.play(&Step::Finish(0));
            world.play(&Step::Advance(200_000));
        }
        prop_assert!(world.waiting.is_empty(), "left in line: {:?}", world.waiting);
        for which in 0..4 {
            world.play(&Step::Provision(which, 0));
        }
        // A day later, nothing is left but history.
        for _ in 0..100 {
            world.play(&Step::Advance(900 * SECOND));
            world.play(&Step::StartDone(0));
        }
        prop_assert_eq!((world.scheduler.environments(), world.scheduler.templates()), (0, 0));
        let mut actions = vec![];
        world.scheduler.close(world.now, &mut actions);
        world.carry_out(actions);
        prop_assert_eq!(world.scheduler.environments(), 0);
        prop_assert_eq!(world.scheduler.callers(), 0);
        prop_assert_eq!(world.scheduler.reserved_bytes(), 0);
        prop_assert_eq!(world.scheduler.account.sums().1, 0, "nobody holds anything of the pool");
    }

    /// Closing in the middle of anything ends everything as soon as what runs is done.
    #[test]
    fn everything_ends_after_close(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in &steps {
            world.play(step);
        }
        let mut actions = vec![];
        world.scheduler.close(world.now, &mut actions);
        world.carry_out(actions);
        prop_assert!(world.waiting.is_empty() && world.idle.is_empty());
        for pick in 0..200 {
            world.play(&Step::StartDone(pick));
            world.play(&Step::Finish(pick));
            world.play(&Step::TemplateGone(pick));
        }
        prop_assert_eq!(world.scheduler.environments() + world.scheduler.templates(), 0);
        prop_assert_eq!((world.scheduler.callers(), world.scheduler.reserved_bytes()), (0, 0));
        prop_assert_eq!(world.scheduler.next_tick(), None);
    }
}
