//! One version of one function: its line, its idle environments, its template, and what was learned about it.

use super::estimate::Estimate;
use super::history::{History, Window};
use super::odds::Odds;
use super::provisioning::Provisioning;
use super::{EnvironmentId, FunctionId, Kind, MINUTE, Moment, SECOND, TemplateId, Ticket};
use crate::Start;
use std::collections::VecDeque;

/// What is assumed of a start before one was seen, in microseconds.
const FORK: u64 = 5_000;
const ORDINARY: u64 = 300_000;
const PREPARE: u64 = 400_000;
/// Least time in line after which a caller gets a start of its own whatever was expected: looking more often would cost
/// more than it saves.
const LEAST_PATIENCE: u64 = 5_000;
/// A template that has died so often without a single fork is not built again for a while.
const HOPELESS: u8 = 3;
/// Beyond so many environments at work at once, all further ones count as the same.
const LEVELS: usize = 16;
/// Most forks of one template at once. Templates fork one after the other; a second one gets its shell
/// meanwhile, more would only wait where nobody can reconsider.
const FORKS_OF_A_TEMPLATE: usize = 4;
/// How long a version is started ordinarily whose template did not come about.
const DOUBT: u64 = 10 * SECOND;

/// How long what is known about a version outlives its last call.
const REMEMBERED: u64 = 7 * 24 * 60 * MINUTE;

/// Where a version's template stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mould {
    /// There is none.
    None,
    /// Its init phase is under way.
    Preparing,
    /// Forks can be made.
    Ready(TemplateId),
    /// There never will be one.
    Never,
}

/// One caller in line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) since: Moment,
}

/// One caller that asked for a cold start and has none under way yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forced {
    pub(super) ticket: Ticket,
    pub(super) start: Start,
    pub(super) since: Moment,
}

/// What is known about one more environment at work than the level below has.
#[derive(Debug)]
struct Level {
    /// When it was last needed, and how long it was not before it was again.
    left: Moment,
    history: History,
    window: Option<Window>,
}

#[derive(Debug)]
pub(super) struct Version {
    pub(super) function: FunctionId,
    /// What one environment may use.
    pub(super) memory_bytes: u64,
    pub(super) line: VecDeque<Waiting>,
    pub(super) forced: VecDeque<Forced>,
    /// Idle environments: the ends of a list through their slots, and its length. Taken from the newest end.
    pub(super) newest: Option<EnvironmentId>,
    pub(super) oldest: Option<EnvironmentId>,
    pub(super) idle: usize,
    /// Idle environments that are kept because somebody asked for it; the one used last is last.
    pub(super) standing: Vec<EnvironmentId>,
    pub(super) provisioning: Provisioning,
    /// Environments that exist, idle and busy.
    pub(super) living: usize,
    /// Starts under way that will serve the line, the sum of the moments they began, and how many of them are forks.
    pub(super) starting: usize,
    pub(super) began: u64,
    pub(super) forking: usize,
    /// Starts under way for callers that asked for one.
    pub(super) starting_forced: usize,
    pub(super) mould: Mould,
    /// Templates that died in a row without a fork.
    deaths: u8,
    /// Start ordinarily until then.
    doubted_until: Moment,
    pub(super) service: Estimate,
    pub(super) fork: Estimate,
    pub(super) ordinary: Estimate,
    pub(super) prepare: Estimate,
    /// Of spares that were not forked.
    pub(super) odds: Odds,
    /// How long it was quiet before its calls; and the same of its second, third, ... environment at work.
    history: History,
    window: Option<Window>,
    levels: Vec<Level>,
    /// When it last had something to do.
    pub(super) quiet_since: Moment,
    pub(super) called: Option<Moment>,
    /// Calls in short succession, so that a spare is worth having.
    pub(super) lively: bool,
    /// Somebody measures starts from spares until then.
    pub(super) measured_until: Moment,
    /// Starts of the last second or so that somebody waited for.
    burst: f32,
    burst_at: Moment,
    /// What was last observed of an idle environment.
    pub(super) idle_bytes: u64,
    /// It stands in the queue of those that want starts.
    pub(super) queued: Option<Kind>,
    pub(super) line_timer: Option<Moment>,
    pub(super) prewarm_at: Option<Moment>,
    /// The template under way is to have a spare forked from it, since a call is expected.
    pub(super) prewarming: bool,
    pub(super) forget_at: Option<Moment>,
    /// How long what is known about it outlives its last call, in microseconds.
    pub(super) remembered: u64,
    /// Replaced or deleted: serves who is in line, keeps nothing.
    pub(super) retired: bool,
}

impl Version {
    pub(super) fn new(function: FunctionId, memory_bytes: u64, can_fork: bool, now: Moment) -> Self {
        Self {
            function,
            memory_bytes,
            line: VecDeque::new(),
            forced: VecDeque::new(),
            newest: None,
            oldest: None,
            idle: 0,
            standing: vec![],
            provisioning: Provisioning::default(),
            living: 0,
            starting: 0,
            began: 0,
            forking: 0,
            starting_forced: 0,
            mould: if can_fork { Mould::None } else { Mould::Never },
            deaths: 0,
            doubted_until: Moment(0),
            service: Estimate::guess(0),
            fork: Estimate::guess(FORK),
            ordinary: Estimate::guess(ORDINARY),
            prepare: Estimate::guess(PREPARE),
            odds: Odds::new(),
            history: History::default(),
            window: None,
            levels: vec![],
            quiet_since: now,
            called: None,
            lively: false,
            measured_until: Moment(0),
            burst: 0.0,
            burst_at: now,
            idle_bytes: memory_bytes,
            queued: None,
            line_timer: None,
            prewarm_at: None,
            prewarming: false,
            forget_at: None,
            remembered: REMEMBERED,
            retired: false,
        }
    }

    pub(super) fn busy(&self) -> usize {
        self.living - self.idle
    }

    /// Nobody runs on it, waits for it or is about to.
    pub(super) fn is_quiet(&self) -> bool {
        self.busy() == 0 && self.line.is_empty() && self.forced.is_empty() && self.starting_forced == 0
    }

    /// The idle environment that the next call takes: one that is kept, or else the one used last.
    pub(super) fn next_idle(&self) -> Option<EnvironmentId> {
        self.standing.last().copied().or(self.newest)
    }

    /// Environments are about to come.
    pub(super) fn is_starting(&self) -> bool {
        self.starting + self.starting_forced + self.provisioning.starting > 0
    }

    /// Whether its template can take one more fork now.
    pub(super) fn may_fork(&self) -> bool {
        self.forking < FORKS_OF_A_TEMPLATE
    }

    /// Nothing of it is left but what was learned.
    pub(super) fn is_empty(&self) -> bool {
        self.is_quiet()
            && self.living == 0
            && self.starting == 0
            && self.provisioning.is_over()
            && !matches!(self.mould, Mould::Ready(_) | Mould::Preparing)
    }

    /// Which start is the next one, `None` while a template is being prepared.
    pub(super) fn next_kind(&self, now: Moment) -> Option<Kind> {
        match self.mould {
            Mould::Never => Some(Kind::Ordinary),
            Mould::Ready(_) => Some(Kind::Fork),
            Mould::Preparing => None,
            Mould::None if now < self.doubted_until => Some(Kind::Ordinary),
            Mould::None => Some(Kind::Prepare),
        }
    }

    pub(super) fn start_time(&self, kind: Kind) -> &Estimate {
        match kind {
            Kind::Fork => &self.fork,
            Kind::Ordinary => &self.ordinary,
            Kind::Prepare => &self.prepare,
        }
    }

    pub(super) fn start_time_mut(&mut self, kind: Kind) -> &mut Estimate {
        match kind {
            Kind::Fork => &mut self.fork,
            Kind::Ordinary => &mut self.ordinary,
            Kind::Prepare => &mut self.prepare,
        }
    }

    /// How long the caller at `place` (from 1) will stand in line for what is busy or starting now; `None` when nobody
    /// can tell. Callers are taken for a flow: what is busy frees itself once in a service time, what is
    /// starting begins to when its start time is over.
    pub(super) fn expected_wait(&self, place: usize, now: Moment) -> Option<u64> {
        let service = self.service.known()?.max(1) as f64;
        let (busy, starting, place) = (self.busy() as f64, self.starting as f64, place as f64);
        if busy == 0.0 && starting == 0.0 {
            return None;
        }
        let alone = place * service / busy.max(f64::MIN_POSITIVE);
        if starting == 0.0 {
            return Some(alone as u64);
        }
        let kind = if self.forking > 0 { Kind::Fork } else { Kind::Ordinary };
        let age = now.0.saturating_sub(self.began / self.starting as u64);
        let ready = self.start_time(kind).micros().saturating_sub(age) as f64;
        if alone <= ready {
            return Some(alone as u64);
        }
        let left = place - busy * ready / service - starting;
        Some((ready + left.max(0.0) * service / (busy + starting)) as u64)
    }

    /// Whether the line should have one more start of `kind`: who came last is expected to wait for longer than that takes, by
    /// enough to make it worth the while, or somebody already has.
    pub(super) fn wants_start(&self, kind: Kind, now: Moment) -> bool {
        let Some(first_without) = self.line.get(self.starting) else { return false };
        now.since(first_without.since) >= patience(self.start_time(kind).micros())
            || self.is_worth_a_start(kind, now)
    }

    /// Whether who came last is expected to wait for clearly longer than a start of `kind` takes.
    pub(super) fn is_worth_a_start(&self, kind: Kind, now: Moment) -> bool {
        let takes = self.start_time(kind).micros();
        self.expected_wait(self.line.len(), now).is_none_or(|wait| wait > takes + takes / 4)
    }

    /// Since when somebody waits for whom no start is under way.
    pub(super) fn waits_since(&self) -> Option<Moment> {
        let in_line = self.line.get(self.starting).map(|waiting| waiting.since);
        in_line.into_iter().chain(self.forced.front().map(|forced| forced.since)).min()
    }

    /// When the first caller without a start runs out of patience.
    pub(super) fn patience_ends(&self, kind: Kind) -> Option<Moment> {
        let first_without = self.line.get(self.starting)?;
        Some(first_without.since.plus(patience(self.start_time(kind).micros())))
    }

    /// The template is gone, or did not come about.
    pub(super) fn template_lost(&mut self, now: Moment) {
        self.mould = Mould::None;
        self.deaths = self.deaths.saturating_add(1);
        if self.deaths >= HOPELESS {
            self.doubt(now);
        }
    }

    /// Ordinary starts are the better bet for a while.
    pub(super) fn doubt(&mut self, now: Moment) {
        self.deaths = 0;
        self.doubted_until = now.plus(DOUBT);
    }

    pub(super) fn forked(&mut self) {
        self.deaths = 0;
    }

    /// A start that somebody waits for was begun.
    pub(super) fn count_burst(&mut self, now: Moment) {
        self.burst = self.burst_level(now) + 1.0;
        self.burst_at = now;
    }

    /// Starts in the last second or so.
    pub(super) fn burst_level(&self, now: Moment) -> f32 {
        self.burst * (-(now.since(self.burst_at) as f32) / SECOND as f32).exp2()
    }

    /// A call has come.
    pub(super) fn count_call(&mut self, now: Moment) {
        let level = self.busy() + self.line.len() + self.forced.len();
        if level == 0 && self.called.is_some() {
            if self.history.record(now.since(self.quiet_since)) {
                self.window = None;
            }
        } else if level > 0 {
            self.history.record(0);
            if let Some(level) = self.levels.get_mut(level.min(LEVELS) - 1)
                && level.history.record(now.since(level.left))
            {
                level.window = None;
            }
        }
    }

    /// One environment less is at work than was until `now`.
    pub(super) fn leave_level(&mut self, now: Moment) {
        let level = self.busy();
        if level == 0 {
            self.quiet_since = now;
            return;
        }
        let place = level.min(LEVELS) - 1;
        while self.levels.len() <= place {
            self.levels.push(Level { left: now, history: History::default(), window: None });
        }
        self.levels[place].left = now;
    }

    /// For how long to keep it, from [`quiet_since`](Self::quiet_since) on.
    pub(super) fn window(&mut self, worth: u64, fixed: u64) -> Window {
        *self.window.get_or_insert_with(|| self.history.window(worth, fixed))
    }

    /// For how long to keep the last of its idle environments, which works only besides others, from its last invocation on.
    pub(super) fn keep_last(&mut self, worth: u64, fixed: u64) -> u64 {
        let place = self.living.saturating_sub(1).clamp(1, LEVELS) - 1;
        let Some(Level { history, window, .. }) = self.levels.get_mut(place) else { return fixed };
        window.get_or_insert_with(|| history.window(worth, fixed)).keep
    }

    /// What a start saves a second by not being necessary, in microseconds.
    pub(super) fn saves(&self, kind: Kind) -> f64 {
        self.history.rate().max(1.0 / 86_400.0) * self.start_time(kind).micros() as f64
    }
}

fn patience(start_takes: u64) -> u64 {
    start_takes.max(LEAST_PATIENCE)
}
