//! The world around a scheduler: environments that take time to start and to run, and a clock that jumps.

use super::trace::{DAY, Trace};
use martlet_engine::scheduler::{Action, Arrival, EnvironmentId, Moment, Scheduler, TemplateId, VersionId};
use martlet_engine::{EngineOptions, Start, Wanted};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// How long a fork takes, and how much of an environment's memory its template holds for all.
#[derive(Clone, Copy)]
pub(crate) struct Starts {
    pub(crate) fork_micros: u64,
    /// Share of a function's memory that its template holds.
    pub(crate) template_share: f64,
    /// Share that each environment forked from it holds on top.
    pub(crate) forked_share: f64,
}

/// What came of a day.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) calls: u64,
    /// Calls that waited for an init phase, and those that waited for a fork.
    pub(crate) cold_init: u64,
    pub(crate) cold_fork: u64,
    pub(crate) from_spare: u64,
    /// Calls that neither ran nor were told why: there must not be any.
    pub(crate) lost: u64,
    pub(crate) refused: u64,
    /// Memory held by what is idle, templates included, in gigabyte-hours.
    pub(crate) wasted_gb_hours: f64,
    /// Mean time from call to environment, of those that were cold, in milliseconds.
    pub(crate) cold_wait_ms: f64,
}

impl Figures {
    /// Calls that waited for a start of whatever kind, a thousand calls.
    pub(crate) fn cold_per_mille(&self) -> f64 {
        (self.cold_init + self.cold_fork) as f64 * 1e3 / self.calls as f64
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Finish(EnvironmentId),
    Started(u64, usize, bool),
    Prepared(u64, usize),
    Call(usize),
}

struct World<'a> {
    trace: &'a mut Trace,
    starts: Starts,
    scheduler: Scheduler,
    versions: Vec<Option<VersionId>>,
    functions: HashMap<VersionId, usize>,
    events: BinaryHeap<Reverse<(Moment, Event)>>,
    /// Of each environment that exists: its function, whether it was forked, and since when it is idle.
    environments: HashMap<EnvironmentId, (usize, bool, Option<Moment>)>,
    templates: HashMap<TemplateId, (usize, Moment)>,
    waiting: HashMap<u64, Moment>,
    actions: Vec<Action>,
    figures: Figures,
    wasted: f64,
}

/// Plays a day and says what came of it.
pub(crate) fn play(trace: &mut Trace, options: EngineOptions, starts: Starts) -> Figures {
    let functions = trace.functions.len();
    let mut world = World {
        trace,
        starts,
        scheduler: Scheduler::new(options),
        versions: vec![None; functions],
        functions: HashMap::new(),
        events: BinaryHeap::new(),
        environments: HashMap::new(),
        templates: HashMap::new(),
        waiting: HashMap::new(),
        actions: vec![],
        figures: Figures::default(),
        wasted: 0.0,
    };
    for function in 0..functions {
        world.plan_call(function);
    }
    world.run();
    world.sum_up()
}

impl World<'_> {
    fn run(&mut self) {
        let mut now = Moment(0);
        let mut second_day = false;
        while now.0 < 2 * DAY {
            if now.0 >= DAY && !second_day {
                second_day = true;
                self.forget_the_first_day();
            }
            let event = self.events.peek().map(|Reverse((at, _))| *at);
            let tick = self.scheduler.next_tick();
            let Some(next) = event.into_iter().chain(tick).min() else { break };
            now = now.max(next);
            if tick.is_some_and(|tick| tick <= now) {
                self.scheduler.tick(now, &mut self.actions);
                self.carry_out(now);
            } else if let Some(Reverse((_, event))) = self.events.pop() {
                self.happen(event, now);
                self.carry_out(now);
            }
        }
    }

    /// What counts is a day on which the policies know what they know of the day before.
    fn forget_the_first_day(&mut self) {
        let dawn = Moment(DAY);
        self.environments.values_mut().for_each(|(_, _, idle)| *idle = idle.map(|_| dawn));
        self.templates.values_mut().for_each(|(_, since)| *since = dawn);
        self.figures = Figures::default();
        self.wasted = 0.0;
    }

    fn plan_call(&mut self, function: usize) {
        let at = self.trace.functions[function].next_call();
        if at < 2 * DAY {
            self.events.push(Reverse((Moment(at), Event::Call(function))));
        }
    }

    fn happen(&mut self, event: Event, now: Moment) {
        match event {
            Event::Call(function) => {
                self.plan_call(function);
                let memory_bytes = self.trace.functions[function].memory_bytes;
                let version = *self.versions[function].get_or_insert_with(|| {
                    let of = self.scheduler.add_function(now);
                    let version = self.scheduler.add_version(of, memory_bytes, true, now);
                    self.functions.insert(version, function);
                    version
                });
                self.figures.calls += 1;
                match self.scheduler.arrive(version, Wanted::Any, now, &mut self.actions) {
                    Arrival::Run(environment, start) => self.run_on(environment, start, now, now),
                    Arrival::Wait(ticket) => drop(self.waiting.insert(ticket.0, now)),
                    _ => self.figures.refused += 1,
                }
            }
            Event::Finish(environment) => {
                let (function, forked, idle) =
                    self.environments.get_mut(&environment).expect("what runs exists");
                *idle = Some(now);
                let bytes = resident(self.trace.functions[*function].memory_bytes, *forked, self.starts);
                self.scheduler.finished(environment, bytes, now, &mut self.actions);
            }
            Event::Started(start, function, forked) => {
                let bytes = resident(self.trace.functions[function].memory_bytes, forked, self.starts);
                let start = martlet_engine::scheduler::StartId(start);
                let environment = self.scheduler.started(start, bytes, now, &mut self.actions);
                self.environments.insert(environment, (function, forked, Some(now)));
            }
            Event::Prepared(start, function) => {
                let bytes = self.trace.functions[function].memory_bytes as f64 * self.starts.template_share;
                let start = martlet_engine::scheduler::StartId(start);
                let template = self.scheduler.prepared(start, bytes as u64, now, &mut self.actions);
                self.templates.insert(template, (function, now));
            }
        }
    }

    fn run_on(&mut self, environment: EnvironmentId, start: Start, called: Moment, now: Moment) {
        match start {
            Start::Warm => {}
            Start::Spare => self.figures.from_spare += 1,
            Start::Fork => self.figures.cold_fork += 1,
            Start::Ordinary => self.figures.cold_init += 1,
        }
        if matches!(start, Start::Fork | Start::Ordinary) {
            self.figures.cold_wait_ms += now.since(called) as f64 / 1e3;
        }
        let (function, forked, idle) =
            self.environments.get_mut(&environment).expect("what is handed out exists");
        if let Some(since) = idle.take() {
            let bytes = resident(self.trace.functions[*function].memory_bytes, *forked, self.starts);
            self.wasted += now.since(since) as f64 * bytes as f64;
        }
        let runs = self.trace.functions[*function].execution();
        self.events.push(Reverse((now.plus(runs), Event::Finish(environment))));
    }

    fn carry_out(&mut self, now: Moment) {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Hand(ticket, environment, start) => {
                    let called = self.waiting.remove(&ticket.0).expect("nobody is served twice");
                    // Who waits for a template and then a fork has waited for an init phase.
                    let cold = start == Start::Fork && now.since(called) > self.starts.fork_micros * 4;
                    self.run_on(environment, if cold { Start::Ordinary } else { start }, called, now);
                }
                Action::Refuse(ticket, _) => {
                    self.waiting.remove(&ticket.0).expect("nobody is refused twice");
                    self.figures.refused += 1;
                }
                Action::Start(start, version) => {
                    let function = self.functions[&version];
                    let init = self.trace.functions[function].init;
                    self.events.push(Reverse((now.plus(init), Event::Started(start.0, function, false))));
                }
                Action::Prepare(start, version) => {
                    let function = self.functions[&version];
                    let init = self.trace.functions[function].init;
                    self.events.push(Reverse((now.plus(init), Event::Prepared(start.0, function))));
                }
                Action::Fork(start, version, _) => {
                    let function = self.functions[&version];
                    let fork = self.starts.fork_micros;
                    self.events.push(Reverse((now.plus(fork), Event::Started(start.0, function, true))));
                }
                Action::Stop(environment) => self.forget(environment, now),
                Action::DropTemplate(template) => {
                    let (function, since) = self.templates.remove(&template).expect("dropped once");
                    self.wasted += self.template_waste(function, since, now);
                }
                Action::Forget(version) => {
                    if let Some(function) = self.functions.remove(&version) {
                        self.versions[function] = None;
                    }
                }
                Action::Freeze(_) | Action::FreezeTemplate(_) | Action::SetStock(..) => {}
            }
        }
    }

    fn template_waste(&self, function: usize, since: Moment, now: Moment) -> f64 {
        let bytes = self.trace.functions[function].memory_bytes as f64 * self.starts.template_share;
        now.since(since) as f64 * bytes
    }

    fn forget(&mut self, environment: EnvironmentId, now: Moment) {
        let (function, forked, idle) = self.environments.remove(&environment).expect("stopped once");
        let bytes = resident(self.trace.functions[function].memory_bytes, forked, self.starts);
        let since = idle.expect("only what is idle is stopped");
        self.wasted += now.since(since) as f64 * bytes as f64;
    }

    fn sum_up(mut self) -> Figures {
        let end = Moment(2 * DAY);
        let idle: Vec<_> =
            self.environments.iter().filter(|(_, (_, _, idle))| idle.is_some()).map(|(id, _)| *id).collect();
        idle.into_iter().for_each(|environment| self.forget(environment, end));
        for (function, since) in std::mem::take(&mut self.templates).into_values() {
            self.wasted += self.template_waste(function, since, end);
        }
        let cold = self.figures.cold_init + self.figures.cold_fork;
        self.figures.cold_wait_ms /= cold.max(1) as f64;
        self.figures.wasted_gb_hours = self.wasted / 3.6e9 / f64::from(1 << 30);
        self.figures.lost =
            self.waiting.values().filter(|since| end.since(**since) > 60_000_000).count() as u64;
        self.figures
    }
}

fn resident(memory_bytes: u64, forked: bool, starts: Starts) -> u64 {
    if forked { (memory_bytes as f64 * starts.forked_share) as u64 } else { memory_bytes }
}
