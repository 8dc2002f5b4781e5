//! The machine in a simulated world: a clock that jumps, a log that is exact, runs that end as the test says.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn at(millis: u64) -> Timestamp {
    Timestamp(millis)
}

fn lease(position: u64, attempt: u32) -> Lease {
    Lease { position, attempt }
}

fn leased(positions: std::ops::Range<u64>) -> Input {
    Input::Leased { leases: positions.map(|position| lease(position, 1)).collect(), next_visible: None }
}

#[test]
fn it_looks_at_the_start_and_then_only_when_told() {
    let mut machine = Machine::new(4);
    assert_eq!(machine.wake_at(), Some(at(0)));
    let until = at(7 + LEASE_MILLIS);
    assert_eq!(machine.handle(Input::Tick, at(7)), [Action::Lease { max: 4, until }]);
    assert_eq!(machine.handle(leased(1..1), at(8)), []);
    assert_eq!(machine.wake_at(), None, "an empty log is not polled");
    assert_eq!(machine.handle(Input::Appended, at(9)).len(), 1);
    assert_eq!(machine.handle(Input::Appended, at(9)), [], "one request at a time");
    let again = machine.handle(leased(1..1), at(10));
    assert_eq!(again.len(), 1, "the append during the request is looked for");
}

#[test]
fn it_leases_no_more_than_it_can_run() {
    let mut machine = Machine::new(2);
    machine.handle(Input::Tick, at(0));
    let full = Input::Leased { leases: vec![lease(1, 1), lease(2, 1)], next_visible: Some(at(0)) };
    assert_eq!(machine.handle(full, at(1)), [Action::Run(lease(1, 1)), Action::Run(lease(2, 1))]);
    assert_eq!(machine.handle(Input::Appended, at(2)), []);
    let actions = machine.handle(Input::Finished(Settlement::Done(lease(1, 1))), at(3));
    let until = at(3 + LEASE_MILLIS);
    assert_eq!(actions, [Action::Settle(Settlement::Done(lease(1, 1))), Action::Lease { max: 1, until }]);
}

#[test]
fn what_waits_is_released_and_looked_for_in_time() {
    let mut machine = Machine::new(2);
    machine.handle(Input::Tick, at(0));
    let again = Input::Leased { leases: vec![lease(1, 3)], next_visible: None };
    machine.handle(again, at(0));
    let later = Settlement::Later { lease: lease(1, 3), at: at(4_100), note: 2 };
    assert_eq!(machine.handle(Input::Finished(later), at(100)), [Action::Settle(later)]);
    assert_eq!(machine.handle(Input::Settled(later), at(110)), []);
    assert_eq!(machine.wake_at(), Some(at(4_100)));
    assert_eq!(machine.handle(Input::Tick, at(4_099)), []);
    assert_eq!(machine.handle(Input::Tick, at(4_100)).len(), 1);
}

#[test]
fn leases_of_long_runs_are_extended_at_half_time() {
    let mut machine = Machine::new(2);
    machine.handle(Input::Tick, at(0));
    machine.handle(leased(1..3), at(0));
    let half = at(LEASE_MILLIS / 2);
    assert_eq!(machine.wake_at(), Some(half));
    let until = at(LEASE_MILLIS / 2 + LEASE_MILLIS);
    let leases = vec![lease(1, 1), lease(2, 1)];
    assert_eq!(machine.handle(Input::Tick, half), [Action::Extend { leases, until }]);
    assert_eq!(machine.wake_at(), Some(at(LEASE_MILLIS)));
}

#[test]
fn a_failing_store_is_left_alone_for_a_second() {
    let mut machine = Machine::new(2);
    machine.handle(Input::Tick, at(0));
    assert_eq!(machine.handle(Input::LeaseFailed, at(10)), []);
    assert_eq!(machine.wake_at(), Some(at(1_010)));
    machine.handle(Input::Tick, at(1_010));
    machine.handle(leased(1..2), at(1_010));
    machine.handle(Input::Finished(Settlement::Done(lease(1, 1))), at(1_020));
    let done = Settlement::Done(lease(1, 1));
    assert_eq!(machine.handle(Input::SettleFailed(done), at(1_030)), []);
    assert!(!machine.is_idle());
    assert_eq!(machine.handle(Input::Tick, at(2_030)), [Action::Settle(done)]);
    machine.handle(Input::Settled(done), at(2_040));
    assert!(machine.is_idle());
}

#[test]
fn draining_begins_nothing_new_and_ends_what_runs() {
    let mut machine = Machine::new(2);
    machine.handle(Input::Tick, at(0));
    machine.handle(leased(1..2), at(0));
    assert_eq!(machine.handle(Input::Drain, at(1)), []);
    assert_eq!(machine.handle(Input::Appended, at(1)), []);
    assert!(!machine.is_idle());
    machine.handle(Input::Finished(Settlement::Done(lease(1, 1))), at(2));
    assert!(!machine.is_idle());
    machine.handle(Input::Settled(Settlement::Done(lease(1, 1))), at(3));
    assert!(machine.is_idle());
    assert_eq!(machine.wake_at(), None);
}

/// One record of the simulated log.
#[derive(Default)]
struct Entry {
    attempt: u32,
    hidden_until: u64,
}

/// A log, runs and a clock around the machine.
struct World {
    machine: Machine,
    now: u64,
    appended: u64,
    log: BTreeMap<u64, Entry>,
    /// What the machine waits for, in an order that the test draws from.
    pending: Vec<Action>,
    completed: Vec<u64>,
    limit: usize,
}

impl World {
    fn handle(&mut self, input: Input) {
        let actions = self.machine.handle(input, at(self.now));
        self.pending.extend(actions);
        let runs = self.pending.iter().filter(|action| matches!(action, Action::Run(_))).count();
        assert!(runs <= self.limit, "{runs} run at once");
    }

    /// Carries out one pending action; `luck` decides how it ends.
    fn carry_out(&mut self, index: usize, luck: u64) {
        let action = self.pending.swap_remove(index % self.pending.len());
        let input = match action {
            Action::Lease { .. } if luck.is_multiple_of(7) => Input::LeaseFailed,
            Action::Lease { max, until } => {
                let now = self.now;
                let mut leases = Vec::new();
                for (position, entry) in &mut self.log {
                    if entry.hidden_until <= now && leases.len() < max {
                        entry.attempt += 1;
                        entry.hidden_until = until.0;
                        leases.push(lease(*position, entry.attempt));
                    }
                }
                let next = self.log.values().map(|entry| entry.hidden_until).min();
                Input::Leased { leases, next_visible: next.map(at) }
            }
            Action::Run(lease) => Input::Finished(match luck % 5 {
                0 | 1 => Settlement::Later { lease, at: at(self.now + luck % 9_000), note: 1 },
                _ => {
                    self.completed.push(lease.position);
                    Settlement::Done(lease)
                }
            }),
            Action::Settle(settlement) if luck.is_multiple_of(6) => Input::SettleFailed(settlement),
            Action::Settle(Settlement::Done(lease)) => {
                self.log.remove(&lease.position);
                Input::Settled(Settlement::Done(lease))
            }
            Action::Settle(later @ Settlement::Later { lease, at: visible_at, .. }) => {
                if let Some(entry) = self.log.get_mut(&lease.position) {
                    entry.hidden_until = visible_at.0;
                }
                Input::Settled(later)
            }
            Action::Extend { leases, until } => {
                for lease in leases {
                    if let Some(entry) = self.log.get_mut(&lease.position) {
                        entry.hidden_until = until.0;
                    }
                }
                return;
            }
        };
        self.handle(input);
    }
}

proptest! {
    /// Whatever happens in whatever order, everything appended runs to completion once the machine is only asked to
    /// look at the clock when it said so, and the limit holds at every moment.
    #[test]
    fn every_event_runs_in_the_end(
        limit in 1_usize..5,
        script in proptest::collection::vec((0_u8..4, any::<u64>()), 0..120),
    ) {
        let machine = Machine::new(limit);
        let mut world = World {
            machine, now: 1, appended: 0, log: BTreeMap::new(), pending: Vec::new(), completed: Vec::new(), limit,
        };
        world.handle(Input::Tick);
        for (kind, luck) in script {
            match kind {
                0 => {
                    world.appended += 1;
                    world.log.insert(world.appended, Entry::default());
                    world.handle(Input::Appended);
                }
                1 => world.now += luck % 3_000,
                _ if world.pending.is_empty() => {}
                _ => world.carry_out((luck >> 8) as usize, luck),
            }
            if world.machine.wake_at().is_some_and(|wake| wake.0 <= world.now) {
                world.handle(Input::Tick);
            }
        }
        // From here on all goes well; only what the machine asks for happens.
        for _ in 0..10_000 {
            if !world.pending.is_empty() {
                world.carry_out(0, 2);
            } else if let Some(wake) = world.machine.wake_at() {
                world.now = world.now.max(wake.0);
                world.handle(Input::Tick);
            } else {
                break;
            }
        }
        prop_assert!(world.machine.is_idle());
        prop_assert!(world.log.is_empty(), "{} left", world.log.len());
        world.completed.sort_unstable();
        world.completed.dedup();
        prop_assert_eq!(world.completed, (1..=world.appended).collect::<Vec<_>>());
    }
}
