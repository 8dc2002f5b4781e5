//! Templates, forks, spares, and cold starts that were asked for.

use super::*;

#[test]
fn everybody_waits_for_one_template_and_is_forked_then() {
    let mut machine = Machine::new(options());
    let version = machine.forkable(20);
    let (first, actions) = machine.wait(version, 0);
    let [Action::Prepare(start, _)] = actions[..] else { panic!("{actions:?}") };
    let (second, actions) = machine.wait(version, 1);
    assert_eq!(actions, []);
    let (template, actions) = machine.prepared(start, 100 * MS);
    assert_eq!(forks_of(&actions).len(), 2, "{actions:?}");
    assert!(actions.contains(&Action::SetStock(template, 1)));
    let (a, actions) = machine.started(forks_of(&actions)[0], 102 * MS);
    assert_eq!(actions, [Action::Hand(first, a, Start::Fork)]);
    assert_eq!(machine.finished(a, 103 * MS), [Action::Hand(second, a, Start::Warm)]);
    let calm = machine.pass(3 * SECOND);
    assert!(!calm.contains(&Action::FreezeTemplate(template)), "a fork is under way");
}

#[test]
fn a_calm_template_is_frozen_and_goes_with_its_function() {
    let mut machine = Machine::new(options());
    let version = machine.forkable(20);
    let (template, environment) = machine.mould(version, 0);
    let actions = machine.pass(5 * SECOND);
    assert!(actions.contains(&Action::FreezeTemplate(template)), "{actions:?}");
    let actions = machine.pass(70 * SECOND);
    assert_eq!(actions, [Action::Stop(environment), Action::DropTemplate(template)]);
    assert!(machine.scheduler.knows(version), "its history is kept");
    let actions = machine.pass(10 * 24 * 60 * MINUTE);
    assert_eq!(actions, [Action::Forget(version)], "but not for ever");
    assert_eq!(machine.scheduler.next_tick(), None);
}

#[test]
fn a_template_that_died_is_made_again_and_nobody_is_refused() {
    let mut machine = Machine::new(options());
    let version = machine.forkable(20);
    let (template, environment) = machine.mould(version, 0);
    machine.arrive(version, SECOND);
    // What runs takes long, so that the next caller gets a fork.
    machine.finished(environment, 60 * SECOND);
    machine.arrive(version, 60 * SECOND);
    let (ticket, actions) = machine.wait(version, 60 * SECOND);
    let fork = forks_of(&actions)[0];
    machine.scheduler.template_gone(fork, template, Moment(60 * SECOND + MS), &mut machine.actions);
    let actions = machine.take();
    assert_eq!(actions[0], Action::DropTemplate(template));
    let [Action::Prepare(start, _)] = actions[1..] else { panic!("{actions:?}") };
    let (_, actions) = machine.prepared(start, 61 * SECOND);
    let (fresh, actions) = machine.started(forks_of(&actions)[0], 61 * SECOND + MS);
    assert_eq!(actions, [Action::Hand(ticket, fresh, Start::Fork)]);
}

#[test]
fn a_template_that_always_dies_is_given_up_for_ordinary_starts() {
    let mut machine = Machine::new(options());
    let version = machine.forkable(20);
    let (ticket, mut actions) = machine.wait(version, 0);
    let mut prepared = 0;
    while let [.., Action::Prepare(start, _)] = actions[..] {
        prepared += 1;
        let (template, forked) = machine.prepared(start, prepared * SECOND);
        let now = Moment(prepared * SECOND + MS);
        machine.scheduler.template_gone(forks_of(&forked)[0], template, now, &mut machine.actions);
        actions = machine.take();
    }
    assert_eq!(prepared, 3);
    let (environment, actions) = machine.started(starts_of(&actions)[0], 5 * SECOND);
    assert_eq!(actions, [Action::Hand(ticket, environment, Start::Ordinary)]);
}

#[test]
fn what_turns_out_not_to_be_forkable_starts_ordinarily_from_then_on() {
    let mut machine = Machine::new(options());
    let version = machine.forkable(20);
    let (ticket, actions) = machine.wait(version, 0);
    let [Action::Prepare(start, _)] = actions[..] else { panic!("{actions:?}") };
    let (scheduler, actions) = (&mut machine.scheduler, &mut machine.actions);
    let environment = scheduler.prepared_environment(start, true, 10 * MB, Moment(300 * MS), actions);
    assert_eq!(machine.take(), [Action::Hand(ticket, environment, Start::Ordinary)]);
    machine.scheduler.broke(environment, Moment(SECOND), &mut machine.actions);
    let (_, actions) = machine.wait(version, SECOND);
    assert_eq!(starts_of(&actions).len(), 1, "{actions:?}");
}

#[test]
fn a_lively_function_has_a_spare_and_an_idle_one_has_none() {
    let mut machine = Machine::new(EngineOptions { spares: 1, ..options() });
    let version = machine.forkable(20);
    let (_, environment) = machine.mould(version, 0);
    let (arrival, actions) = machine.arrive(version, SECOND);
    assert_eq!(arrival, Arrival::Run(environment, Start::Warm));
    assert_eq!(actions, [], "the call comes first");
    let actions = machine.pass(SECOND + 5 * MS);
    let (spare, actions) = machine.started(forks_of(&actions)[0], SECOND + 7 * MS);
    assert_eq!(actions, []);
    let (arrival, _) = machine.arrive(version, SECOND + 8 * MS);
    assert_eq!(arrival, Arrival::Run(spare, Start::Spare));
    let actions = machine.pass(SECOND + 15 * MS);
    machine.started(forks_of(&actions)[0], SECOND + 17 * MS);
    // Called once in a while only: no spare.
    machine.finished(spare, 2 * SECOND);
    machine.finished(environment, 2 * SECOND);
    machine.pass(20 * MINUTE);
    assert_eq!(machine.scheduler.environments(), 0);
    let (_, actions) = machine.wait(version, 20 * MINUTE);
    let [Action::Prepare(start, _)] = actions[..] else { panic!("{actions:?}") };
    let (_, actions) = machine.prepared(start, 20 * MINUTE + 100 * MS);
    assert_eq!(forks_of(&actions).len(), 1);
}

#[test]
fn a_cold_start_that_was_asked_for_is_one_and_leaves_nothing() {
    let mut machine = Machine::new(options());
    let version = machine.forkable(20);
    let (_, warm) = machine.mould(version, 0);
    let (arrival, actions) = machine.arrive_for(version, Wanted::Cold(Start::Fork), SECOND);
    let Arrival::Wait(ticket) = arrival else { panic!("{arrival:?}") };
    let (forked, actions) = machine.started(forks_of(&actions)[0], SECOND + 2 * MS);
    assert_eq!(actions, [Action::Hand(ticket, forked, Start::Fork)]);
    assert_eq!(machine.finished(forked, SECOND + 3 * MS), [Action::Stop(forked)]);
    let (_, actions) = machine.arrive_for(version, Wanted::Cold(Start::Ordinary), 2 * SECOND);
    assert_eq!(starts_of(&actions).len(), 1);
    let (arrival, actions) = machine.arrive_for(version, Wanted::Cold(Start::Spare), 3 * SECOND);
    let Arrival::Wait(ticket) = arrival else { panic!("{arrival:?}") };
    let (spare, actions) = machine.started(forks_of(&actions)[0], 3 * SECOND + 2 * MS);
    assert_eq!(actions[0], Action::Hand(ticket, spare, Start::Spare));
    // The next one is made at once, so that the next who asks finds it.
    let (next, _) = machine.started(forks_of(&actions)[0], 3 * SECOND + 4 * MS);
    let (arrival, _) = machine.arrive_for(version, Wanted::Cold(Start::Spare), 4 * SECOND);
    assert_eq!(arrival, Arrival::Run(next, Start::Spare));
    assert_eq!(machine.arrive(version, 4 * SECOND).0, Arrival::Run(warm, Start::Warm));
}
