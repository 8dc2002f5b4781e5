//! Random histories of one topic, and a model that is too simple to be wrong.

use crate::{Lease, Leased, Store};
use bytes::Bytes;
use martlet_model::Timestamp;
use std::collections::BTreeMap;

/// One step of a history. Leases are named by their place among all that were ever granted.
#[derive(Clone, Debug)]
pub enum Step {
    /// Append this many records.
    Append(usize),
    /// Lease up to `max` for `millis`.
    Lease {
        /// The most.
        max: usize,
        /// How long.
        millis: u64,
    },
    /// Extend an earlier lease to `millis` from now.
    Extend {
        /// Which.
        lease: usize,
        /// How long.
        millis: u64,
    },
    /// Acknowledge an earlier lease.
    Acknowledge(usize),
    /// Release an earlier lease, delayed by `millis` from now.
    Release {
        /// Which.
        lease: usize,
        /// How long.
        millis: u64,
    },
    /// Trim before this position.
    Trim(u64),
    /// Let time pass.
    Wait(u64),
    /// Close the store and open it again.
    Reopen,
}

impl Step {
    /// A step made of two arbitrary numbers, the kinds in the proportions that make interesting histories.
    #[must_use]
    pub fn from_numbers(kind: u64, number: u64) -> Self {
        let (index, millis) = (number as usize % 24, number / 24 % 60);
        match kind % 32 {
            0..=6 => Self::Append(1 + index % 4),
            7..=14 => Self::Lease { max: index % 5, millis },
            15..=17 => Self::Extend { lease: index, millis },
            18..=21 => Self::Acknowledge(index),
            22..=25 => Self::Release { lease: index, millis },
            26 => Self::Trim(number % 12),
            27..=30 => Self::Wait(millis),
            _ => Self::Reopen,
        }
    }
}

/// One record of the model: visible at `visible`, held by lease number `attempt` if `held`.
struct Modelled {
    payload: String,
    attempt: u32,
    held: bool,
    note: u32,
    visible: u64,
}

/// What the contract says about one topic, by looking at every record every time.
#[derive(Default)]
struct Model {
    appended: u64,
    records: BTreeMap<u64, Modelled>,
}

impl Model {
    fn current(&mut self, lease: &Lease) -> Option<&mut Modelled> {
        self.records.get_mut(&lease.position).filter(|record| record.held && record.attempt == lease.attempt)
    }

    fn lease(&mut self, max: usize, until: u64, now: u64) -> Vec<Leased> {
        let visible = self.records.iter_mut().filter(|(_, record)| record.visible <= now).take(max);
        visible
            .map(|(position, record)| {
                record.attempt += 1;
                record.held = true;
                record.visible = until;
                let lease = Lease { position: *position, attempt: record.attempt };
                Leased { lease, note: record.note, payload: record.payload.clone().into() }
            })
            .collect()
    }
}

/// Plays `steps` against the store and the model and compares every answer, and after every step what a reader sees.
///
/// # Panics
/// When they disagree, with the step in the message.
pub async fn play(open: impl Fn() -> Store, steps: &[Step]) {
    const TOPIC: &str = "history";
    let (mut store, mut model, mut now) = (open(), Model::default(), 1_000);
    let mut granted: Vec<Lease> = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let context = format!("step {number}: {step:?} at {now}");
        let named = |index: usize| granted.get(index).copied().into_iter().collect::<Vec<Lease>>();
        match step {
            Step::Append(count) => {
                let first = model.appended + 1;
                let records: Vec<Bytes> =
                    (first..).take(*count).map(|position| Bytes::from(position.to_string())).collect();
                assert_eq!(store.log.append(TOPIC, &records).await.expect("append"), first, "{context}");
                for position in (first..).take(*count) {
                    let payload = position.to_string();
                    model
                        .records
                        .insert(position, Modelled { payload, attempt: 0, held: false, note: 0, visible: 0 });
                    model.appended = position;
                }
            }
            Step::Lease { max, millis } => {
                let until = Timestamp(now + millis);
                let leased = store.log.lease(TOPIC, *max, until, Timestamp(now)).await.expect("lease");
                assert_eq!(leased, model.lease(*max, now + millis, now), "{context}");
                // The newest grants come first, so that small indices name leases that may be current.
                granted.splice(0..0, leased.into_iter().map(|leased| leased.lease));
            }
            Step::Extend { lease, millis } => {
                for lease in named(*lease) {
                    let until = Timestamp(now + millis);
                    let lost = store.log.extend(TOPIC, &[lease], until).await.expect("extend");
                    let current = model.current(&lease).map(|record| record.visible = now + millis);
                    assert_eq!(lost.is_empty(), current.is_some(), "{context}");
                }
            }
            Step::Acknowledge(lease) => {
                for lease in named(*lease) {
                    let lost = store.log.acknowledge(TOPIC, &[lease]).await.expect("acknowledge");
                    let current = model.current(&lease).is_some();
                    if current {
                        model.records.remove(&lease.position);
                    }
                    assert_eq!(lost.is_empty(), current, "{context}");
                }
            }
            Step::Release { lease, millis } => {
                for lease in named(*lease) {
                    let note = u32::try_from(now % 1_000).expect("three digits");
                    let lost = super::release(&store, TOPIC, lease, now + millis, note).await;
                    let current = model.current(&lease).map(|record| {
                        record.held = false;
                        record.note = note;
                        record.visible = now + millis;
                    });
                    assert_eq!(lost.is_empty(), current.is_some(), "{context}");
                }
            }
            Step::Trim(before) => {
                store.log.trim(TOPIC, *before).await.expect("trim");
                model.records.retain(|position, _| before <= position);
            }
            Step::Wait(millis) => now += millis,
            Step::Reopen => {
                drop(store);
                store = open();
                for record in model.records.values_mut().filter(|record| record.held) {
                    record.held = false;
                    record.visible = 0;
                }
            }
        }
        let expected: Vec<String> = model.records.values().map(|record| record.payload.clone()).collect();
        assert_eq!(super::read(&store, TOPIC, 0).await, expected, "{context}");
        let state = store.log.state(TOPIC).await.expect("state");
        assert_eq!(state.next, model.appended + 1, "{context}");
        assert_eq!(state.records, model.records.len() as u64, "{context}");
        // A provider may or may not have noticed yet that a time has come.
        let visible = |at: Option<u64>| at.map(|at| if at <= now { 0 } else { at });
        let expected = visible(model.records.values().map(|record| record.visible).min());
        assert_eq!(visible(state.next_visible.map(|at| at.0)), expected, "{context}");
    }
}
