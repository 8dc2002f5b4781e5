//! The life of templates.

use super::memory::Holder;
use super::timers::Timer;
use super::version::Mould;
use super::{Action, Kind, Moment, SECOND, Scheduler, StartId, TemplateId, VersionId};

/// How long after its last fork a template is frozen and its stock of shells reduced.
const CALM: u64 = SECOND;
/// Most shells that are kept ready for one template.
const MOST_STOCK: usize = 8;

/// One template that forks can be made of.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) version: VersionId,
    pub(super) bytes: u64,
    /// When it was last forked.
    used: Moment,
    stock: usize,
    frozen: bool,
    rank: f64,
    entered: Option<f64>,
    timer: Option<Moment>,
}

impl Scheduler {
    /// A template asked for by [`Action::Prepare`] is ready to be forked and holds `memory_bytes`; it gets its number.
    pub fn prepared(
        &mut self,
        start: StartId,
        memory_bytes: u64,
        now: Moment,
        actions: &mut Vec<Action>,
    ) -> TemplateId {
        let under_way = self.end_start(start, true, now);
        let version = under_way.map_or(VersionId(u64::MAX), |start| start.version());
        let template = TemplateId(self.templates.insert(Template {
            version,
            bytes: memory_bytes,
            used: now,
            stock: 0,
            frozen: false,
            rank: 0.0,
            entered: None,
            timer: None,
        }));
        let Some(entry) = self.versions.get_mut(version.0) else {
            self.templates.remove(template.0);
            actions.push(Action::DropTemplate(template));
            return template;
        };
        self.memory.rest(entry.memory_bytes, memory_bytes);
        entry.mould = Mould::Ready(template);
        let prewarming = std::mem::take(&mut entry.prewarming) && entry.is_quiet();
        self.look_at_template_by(template, now.plus(CALM));
        self.start_what_fits(version, now, actions);
        self.provide(version, now, actions);
        if prewarming {
            self.start_ahead(version, Kind::Fork, f64::INFINITY, now, actions);
        } else {
            self.start_spare(version, now, actions);
        }
        self.settle(version, now, actions);
        template
    }

    /// A template ended by itself. What was forked from it lives on; forks of it that are under way report for themselves.
    pub fn template_died(&mut self, template: TemplateId, now: Moment, actions: &mut Vec<Action>) {
        let Some(version) = self.templates.get(template.0).map(|template| template.version) else { return };
        self.drop_template(template, actions);
        if let Some(entry) = self.versions.get_mut(version.0) {
            entry.template_lost(now);
        }
        self.start_what_fits(version, now, actions);
        self.settle(version, now, actions);
    }

    /// A fork is about to be made.
    pub(super) fn use_template(&mut self, template: TemplateId, now: Moment, actions: &mut Vec<Action>) {
        let Some(slot) = self.templates.get_mut(template.0) else { return };
        slot.used = now;
        slot.frozen = false;
        let Some(entry) = self.versions.get(slot.version.0) else { return };
        let stock = (1 + entry.burst_level(now) as usize / 2).min(MOST_STOCK);
        if stock > slot.stock {
            slot.stock = stock;
            actions.push(Action::SetStock(template, stock));
        }
        let saves = entry.saves(Kind::Prepare);
        slot.rank = self.memory.rank(saves, slot.bytes);
        if slot.timer.is_none() {
            self.look_at_template_by(template, now.plus(CALM));
        }
    }

    fn look_at_template_by(&mut self, template: TemplateId, at: Moment) {
        let Some(slot) = self.templates.get_mut(template.0) else { return };
        if let Some(planned) = slot.timer.replace(at) {
            self.timers.cancel(planned, Timer::Template(template));
        }
        self.timers.set(at, Timer::Template(template));
    }

    /// Freezes a template that has not been forked for a moment, and drops it when its time is over.
    pub(super) fn look_at_template(&mut self, template: TemplateId, now: Moment, actions: &mut Vec<Action>) {
        let Some(slot) = self.templates.get_mut(template.0) else { return };
        slot.timer = None;
        let version = slot.version;
        let calm = slot.used.plus(CALM);
        if now < calm {
            return self.look_at_template_by(template, calm);
        }
        let Some(entry) = self.versions.get(version.0) else { return };
        if entry.forking > 0 {
            return self.look_at_template_by(template, now.plus(CALM));
        }
        let Some(slot) = self.templates.get_mut(template.0) else { return };
        if !slot.frozen {
            slot.frozen = true;
            let stock = usize::from(entry.living > 0 || entry.lively);
            if stock != slot.stock {
                slot.stock = stock;
                actions.push(Action::SetStock(template, stock));
            }
            actions.push(Action::FreezeTemplate(template));
        }
        self.settle(version, now, actions);
    }

    /// A version has no environment any more: its template may make room from now on, and is dropped when its time is
    /// over, which is `keep_until`.
    pub(super) fn release_template(
        &mut self,
        template: TemplateId,
        keep_until: Moment,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        if keep_until <= now {
            self.drop_template(template, actions);
            return;
        }
        let Some(slot) = self.templates.get_mut(template.0) else { return };
        let Some(entry) = self.versions.get(slot.version.0) else { return };
        if slot.entered.is_none() {
            slot.rank = self.memory.rank(entry.saves(Kind::Prepare), slot.bytes);
            slot.entered = Some(slot.rank);
            self.memory.enter(slot.rank, Holder::Template(template));
        }
        if slot.timer.is_none_or(|at| slot.frozen && at != keep_until) {
            self.look_at_template_by(template, keep_until);
        }
    }

    /// Forgets a template and lets it be stopped.
    pub(super) fn drop_template(&mut self, template: TemplateId, actions: &mut Vec<Action>) {
        let Some(slot) = self.templates.remove(template.0) else { return };
        self.memory.work(slot.bytes, 0);
        if let Some(rank) = slot.entered {
            self.memory.leave(rank, Holder::Template(template));
        }
        if let Some(at) = slot.timer {
            self.timers.cancel(at, Timer::Template(template));
        }
        if let Some(entry) = self.versions.get_mut(slot.version.0) {
            entry.mould = Mould::None;
        }
        actions.push(Action::DropTemplate(template));
    }

    /// The order of what can go says that it is this template's turn. Returns whether it went: one that has
    /// environments does not, since its memory is theirs as well and would not come back.
    pub(super) fn evict_template(&mut self, template: TemplateId, actions: &mut Vec<Action>) -> bool {
        let Some(slot) = self.templates.get_mut(template.0) else { return false };
        let entered = slot.entered.take().unwrap_or(0.0);
        let (rank, version) = (slot.rank, slot.version);
        let in_use = self.versions.get(version.0).is_some_and(|entry| {
            entry.living > 0 || entry.is_starting() || !entry.is_quiet() || entry.provisioning.lacks()
        });
        if in_use {
            return false;
        }
        if rank > entered {
            slot.entered = Some(rank);
            self.memory.enter(rank, Holder::Template(template));
            return false;
        }
        self.memory.evicted(rank);
        self.drop_template(template, actions);
        true
    }
}
