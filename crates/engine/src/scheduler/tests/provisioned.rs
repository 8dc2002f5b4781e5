//! Environments that are kept because somebody asked for them.

use super::*;

impl Machine {
    fn provision(&mut self, version: VersionId, wanted: usize, now: u64) -> Vec<Action> {
        self.scheduler.provision(version, wanted, Moment(now), &mut self.actions);
        self.take()
    }

    /// Keeps `count` of a version that is started ordinarily.
    fn keep(&mut self, version: VersionId, count: usize, now: u64) -> Vec<EnvironmentId> {
        let mut starts = VecDeque::from(starts_of(&self.provision(version, count, now)));
        let mut kept = vec![];
        while let Some(start) = starts.pop_front() {
            let (environment, actions) = self.started(start, now);
            starts.extend(starts_of(&actions));
            kept.push(environment);
        }
        assert_eq!(self.scheduler.provisioned(version), all(count));
        kept
    }
}

fn all(count: usize) -> Provisioned {
    Provisioned { wanted: count, allocated: count, failure: None }
}

#[test]
fn what_is_asked_for_is_started_and_never_grows_old() {
    let mut machine = Machine::new(options());
    let version = machine.ordinary(128);
    let kept = machine.keep(version, 3, 0);
    assert_eq!(kept.len(), 3);
    let actions = machine.pass(30 * 24 * 3600 * SECOND);
    let frozen = actions.iter().filter(|action| matches!(action, Action::Freeze(_))).count();
    assert_eq!(
        (frozen, actions.len()),
        (3, 3),
        "idle ones are frozen, and nothing else happens to them: {actions:?}"
    );
    assert_eq!(machine.scheduler.provisioned(version), all(3));
}

#[test]
fn calls_take_what_is_kept_first_and_spill_over() {
    let mut machine = Machine::new(options());
    let version = machine.ordinary(128);
    let others = machine.warm(version, 1, 0);
    let kept = machine.keep(version, 1, SECOND);
    assert_eq!(machine.arrive(version, 2 * SECOND).0, Arrival::Run(kept[0], Start::Spare));
    assert_eq!(machine.arrive(version, 2 * SECOND).0, Arrival::Run(others[0], Start::Warm), "the other one");
    let (ticket, _) = machine.wait(version, 3 * SECOND);
    assert_eq!(machine.finished(kept[0], 4 * SECOND), [Action::Hand(ticket, kept[0], Start::Warm)]);
    machine.finished(kept[0], 5 * SECOND);
    machine.finished(others[0], 6 * SECOND);
    assert_eq!(
        machine.arrive(version, 7 * SECOND).0,
        Arrival::Run(kept[0], Start::Warm),
        "though used before the other"
    );
}

#[test]
fn one_that_ends_is_replaced() {
    let mut machine = Machine::new(options());
    let version = machine.ordinary(128);
    let kept = machine.keep(version, 2, 0);
    let Arrival::Run(environment, _) = machine.arrive(version, SECOND).0 else { panic!("it runs") };
    machine.scheduler.broke(environment, Moment(2 * SECOND), &mut machine.actions);
    let actions = machine.take();
    assert_eq!(machine.scheduler.provisioned(version).allocated, 1);
    let (replaced, _) = machine.started(starts_of(&actions)[0], 3 * SECOND);
    assert_eq!(machine.scheduler.provisioned(version), all(2));
    // One that has served and ends while it idles is replaced as well, at once.
    machine.arrive(version, 4 * SECOND);
    machine.finished(replaced, 5 * SECOND);
    assert!(machine.scheduler.died(replaced, Moment(6 * SECOND), &mut machine.actions));
    let actions = machine.take();
    machine.started(starts_of(&actions)[0], 6 * SECOND);
    // One that never served may be the first of many: not at once.
    let other = kept.into_iter().find(|kept| *kept != environment).unwrap();
    assert!(machine.scheduler.died(other, Moment(7 * SECOND), &mut machine.actions));
    assert_eq!(machine.take(), []);
    assert_eq!(machine.scheduler.provisioned(version).failure, Some(Unprovided::StartFailed));
    assert_eq!(starts_of(&machine.pass(9 * SECOND)).len(), 1);
}

#[test]
fn what_fails_is_tried_again_later_each_time_and_refuses_nobody() {
    let mut machine = Machine::new(options());
    let version = machine.ordinary(128);
    let mut start = starts_of(&machine.provision(version, 1, 0))[0];
    assert_eq!(machine.scheduler.provisioned(version).failure, None, "in progress");
    let mut now = 0;
    for pause in [1, 2, 4, 8] {
        assert!(machine.scheduler.keeps(start) && machine.scheduler.is_provisioned(start));
        if pause == 1 {
            machine.scheduler.start_failed(start, Moment(now), &mut machine.actions);
            assert_eq!(machine.scheduler.provisioned(version).failure, Some(Unprovided::StartFailed));
        } else {
            machine.scheduler.init_failed(start, Moment(now), &mut machine.actions);
            assert_eq!(machine.scheduler.provisioned(version).failure, Some(Unprovided::InitFailed));
        }
        assert_eq!(machine.take(), []);
        assert_eq!(machine.scheduler.reserved_bytes(), 0);
        assert_eq!(machine.pass(now + pause * SECOND - 1), []);
        now += pause * SECOND;
        start = starts_of(&machine.pass(now))[0];
    }
    machine.started(start, now);
    assert_eq!(machine.scheduler.provisioned(version), all(1));
}

#[test]
fn they_hold_their_memory_and_are_not_evicted() {
    let mut machine = Machine::new(EngineOptions { memory_bytes: 512 * MB, ..options() });
    let (version, other) = (machine.ordinary(128), machine.ordinary(128));
    machine.keep(version, 3, 0);
    assert_eq!(machine.scheduler.reserved_bytes(), 3 * 128 * MB);
    machine.warm(other, 1, SECOND);
    machine.scheduler.relieve(u64::MAX, Moment(2 * SECOND), &mut machine.actions);
    assert_eq!(machine.take().len(), 1, "only the other one");
    assert_eq!(machine.scheduler.provisioned(version), all(3));
    // No more than fit.
    let actions = machine.provision(version, 9, 3 * SECOND);
    let starts = starts_of(&actions);
    assert_eq!(starts.len(), 1);
    machine.started(starts[0], 3 * SECOND);
    let short = Provisioned { wanted: 9, allocated: 4, failure: Some(Unprovided::Memory) };
    assert_eq!(machine.scheduler.provisioned(version), short);
    assert_eq!(machine.scheduler.reserved_bytes(), 512 * MB);
}

#[test]
fn fewer_are_fewer_at_once_or_when_they_are_done() {
    let mut machine = Machine::new(options());
    let version = machine.ordinary(128);
    let kept = machine.keep(version, 3, 0);
    let Arrival::Run(busy, _) = machine.arrive(version, SECOND).0 else { panic!("it runs") };
    let actions = machine.provision(version, 0, 2 * SECOND);
    let stopped: Vec<_> = kept.iter().filter(|kept| actions.contains(&Action::Stop(**kept))).collect();
    assert_eq!((stopped.len(), actions.len()), (2, 2));
    assert_eq!(machine.finished(busy, 3 * SECOND), [Action::Stop(busy)]);
    assert_eq!((machine.scheduler.environments(), machine.scheduler.reserved_bytes()), (0, 0));
}

#[test]
fn a_version_that_can_be_forked_gets_a_template_first() {
    let mut machine = Machine::new(options());
    let version = machine.forkable(128);
    let actions = machine.provision(version, 6, 0);
    let [Action::Prepare(start, _)] = actions[..] else { panic!("{actions:?}") };
    assert!(machine.scheduler.is_provisioned(start), "its init code is told");
    let (_, actions) = machine.prepared(start, SECOND);
    let mut forks = VecDeque::from(forks_of(&actions));
    assert_eq!(forks.len(), 4, "as many as fork at once");
    let mut made = 0;
    while let Some(fork) = forks.pop_front() {
        forks.extend(forks_of(&machine.started(fork, 2 * SECOND).1));
        made += 1;
    }
    assert_eq!((made, machine.scheduler.provisioned(version)), (6, all(6)));
    let template_stays = machine.pass(7 * 24 * 3600 * SECOND);
    assert!(!template_stays.iter().any(|action| matches!(action, Action::DropTemplate(_))));
}

#[test]
fn a_prepared_environment_is_kept_if_nothing_can_be_forked() {
    let mut machine = Machine::new(options());
    let version = machine.forkable(128);
    let actions = machine.provision(version, 2, 0);
    let [Action::Prepare(start, _)] = actions[..] else { panic!("{actions:?}") };
    assert!(machine.scheduler.keeps(start));
    let now = Moment(SECOND);
    machine.scheduler.prepared_environment(start, true, 10 * MB, now, &mut machine.actions);
    let starts = starts_of(&machine.take());
    assert_eq!((starts.len(), machine.scheduler.provisioned(version).allocated), (1, 1));
    machine.started(starts[0], 2 * SECOND);
    assert_eq!(machine.scheduler.provisioned(version), all(2));
}

#[test]
fn who_waits_is_served_before_and_by_what_is_kept() {
    let mut machine = Machine::new(EngineOptions { concurrent_starts: 2, ..options() });
    let (version, other) = (machine.ordinary(128), machine.ordinary(128));
    let actions = machine.provision(version, 5, 0);
    assert_eq!(starts_of(&actions).len(), 1, "one place stays free");
    let (ticket, _) = machine.wait(version, 1);
    let (_, for_other) = machine.wait(other, 1);
    assert_eq!(for_other, [], "the place went to who came first");
    let (kept, actions) = machine.started(starts_of(&actions)[0], 2);
    assert_eq!(actions[0], Action::Hand(ticket, kept, Start::Spare));
    let Action::Start(_, next) = actions[1] else { panic!("{actions:?}") };
    assert_eq!(next, other, "somebody waits there");
}

#[test]
fn a_retired_version_keeps_nothing_and_is_forgotten() {
    let mut machine = Machine::new(options());
    let version = machine.ordinary(128);
    let kept = machine.keep(version, 1, 0);
    machine.scheduler.retire(version, Moment(1), &mut machine.actions);
    assert_eq!(machine.take(), [Action::Stop(kept[0]), Action::Forget(version)]);
    assert_eq!(machine.scheduler.account.sums(), (0, 0, 0));
}
