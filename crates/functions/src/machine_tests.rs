use super::*;
use crate::alias::Canary;
use martlet_model::{AccountId, FunctionName, Region, RuntimeName};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn code(digest: u8) -> Code {
    Code { digest: format!("{digest:064x}"), bytes: 100 }
}

fn stamp(seed: u8) -> Stamp {
    Stamp { now: Timestamp(seed.into()), seed: [seed; 16] }
}

fn created(publish: bool) -> Snapshot {
    let function = FunctionArn {
        region: Region::new("us-east-1").unwrap(),
        account: AccountId::new("000000000000").unwrap(),
        name: FunctionName::new("f").unwrap(),
    };
    let configuration = Configuration::new(RuntimeName::new("python3.12"), "h.h");
    let settings = Settings { configuration, environment_given: false };
    let creation =
        Creation { function, settings, code: code(1), tags: BTreeMap::new(), publish, code_signing: None };
    Snapshot::after(None, create(creation, &stamp(0)))
}

fn settled(now: &Snapshot, outcome: &Outcome) -> Snapshot {
    let parts = Parts::of(&now.record.latest.version);
    match settle(now, &parts, outcome, &stamp(99)) {
        Some(change) => Snapshot::after(Some(now), change),
        None => now.clone(),
    }
}

fn broken() -> Outcome {
    Outcome::Failed(Reason { code: "InternalError".into(), text: "no room".into() })
}

fn updated(now: &Snapshot, digest: u8) -> Snapshot {
    let change = update_code(now, code(digest), None, false, None, &stamp(digest)).unwrap();
    Snapshot::after(Some(now), change)
}

#[test]
fn nothing_changes_while_something_is_pending() {
    let pending = created(false);
    let refused = Err(Refused::NotActive("Pending"));
    assert_eq!(update_code(&pending, code(2), None, false, None, &stamp(1)).map(drop), refused);
    assert_eq!(update_settings(&pending, |_| {}, None, &stamp(1)).map(drop), refused);
    assert_eq!(publish(&pending, None, None, None, &stamp(1)).map(drop), refused);

    let updating = updated(&settled(&pending, &Outcome::Ready), 2);
    let arn = updating.record.latest.version.function.clone();
    let refused = Err(Refused::UpdateInProgress(arn));
    assert_eq!(update_code(&updating, code(3), None, false, None, &stamp(1)).map(drop), refused);
    assert_eq!(publish(&updating, None, None, None, &stamp(1)).map(drop), refused);
    assert!(tag(&updating, BTreeMap::new()).is_ok());
}

#[test]
fn a_failed_creation_can_be_mended_by_an_update() {
    let failed = settled(&created(true), &broken());
    assert!(matches!(failed.record.latest.state, State::Failed(_)));
    assert!(matches!(failed.versions[&1].state, State::Failed(_)));
    assert_eq!(failed.serving(), None);
    assert_eq!(publish(&failed, None, None, None, &stamp(1)).map(drop), Err(Refused::NotActive("Failed")));
    let mended = settled(&updated(&failed, 2), &Outcome::Ready);
    assert_eq!(mended.record.latest.state, State::Active);
    assert_eq!(mended.serving().map(|v| &v.code), Some(&code(2)));
    assert!(matches!(mended.versions[&1].state, State::Failed(_)), "another package, another fate");
}

#[test]
fn a_failed_update_leaves_the_old_code_serving() {
    let active = settled(&created(false), &Outcome::Ready);
    let failed = settled(&updated(&active, 2), &broken());
    assert_eq!(failed.record.latest.version.code, code(2));
    assert!(matches!(failed.record.latest.update, Some(Update::Failed(_))));
    assert_eq!(failed.serving(), active.serving());
    let failed_again = settled(&updated(&failed, 3), &broken());
    assert_eq!(failed_again.serving(), active.serving());
    let mended = settled(&updated(&failed_again, 4), &Outcome::Ready);
    assert_eq!(mended.serving().map(|v| &v.code), Some(&code(4)));
    assert_eq!(mended.record.serving, None);
}

#[test]
fn a_version_of_code_that_failed_is_tried_again() {
    let active = settled(&created(false), &Outcome::Ready);
    let failed = settled(&updated(&active, 2), &broken());
    let Ok(Publication::Published(1, change)) = publish(&failed, None, None, None, &stamp(5)) else {
        panic!("it must be published")
    };
    let published = Snapshot::after(Some(&failed), *change);
    assert_eq!(published.versions[&1].state, State::Pending);
    assert_eq!(pending(&published), [Parts { code: code(2).digest, layers: Vec::new() }]);
    let ready = settled(&published, &Outcome::Ready);
    assert_eq!(ready.versions[&1].state, State::Active);
}

#[test]
fn ids_are_uuids_and_differ() {
    let stamp = stamp(7);
    let ids: BTreeSet<String> =
        [Version::Latest, Version::Published(1), Version::Published(2)].map(|of| stamp.id(of)).into();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| id.len() == 36 && id.as_bytes()[14] == b'4'));
}

#[derive(Clone, Debug)]
enum Step {
    Code(u8, bool),
    Memory(u32),
    Publish,
    Settle(bool),
    RemoveVersion(u64),
    Alias(u8, u64, Option<u64>),
    RemoveAlias(u8),
    Policy(Target),
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        Just(Target::of(None)),
        (1u64..6).prop_map(|number| Target::of(Some(&Qualifier::Version(number)))),
        (0u8..3).prop_map(|name| Target::of(Some(&Qualifier::Alias(format!("alias-{name}"))))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1u8..4, any::<bool>()).prop_map(|(digest, publish)| Step::Code(digest, publish)),
        (128u32..131).prop_map(Step::Memory),
        Just(Step::Publish),
        any::<bool>().prop_map(Step::Settle),
        (1u64..6).prop_map(Step::RemoveVersion),
        (0u8..3, 0u64..6, proptest::option::of(1u64..6))
            .prop_map(|(name, main, canary)| Step::Alias(name, main, canary)),
        (0u8..3).prop_map(Step::RemoveAlias),
        target().prop_map(Step::Policy),
    ]
}

proptest! {
    #[test]
    fn whatever_happens(steps in proptest::collection::vec(step(), 0..40), first in any::<bool>()) {
        let mut now = created(first);
        let mut numbers: BTreeSet<u64> = now.versions.keys().copied().collect();
        for (index, step) in steps.into_iter().enumerate() {
            let stamp = stamp(index as u8 + 1);
            let change = match step {
                Step::Code(digest, publish) => update_code(&now, code(digest), None, publish, None, &stamp).ok(),
                Step::Memory(memory) => {
                    update_settings(&now, |s| s.configuration.memory_mb = memory, None, &stamp).ok()
                }
                Step::Publish => match publish(&now, None, None, None, &stamp) {
                    Ok(Publication::Published(_, change)) => Some(*change),
                    Ok(Publication::Unchanged(number)) => {
                        prop_assert!(now.versions.contains_key(&number));
                        let same = &now.versions[&number].version;
                        prop_assert_eq!(fingerprint(same), fingerprint(&now.record.latest.version));
                        None
                    }
                    Err(_) => None,
                },
                Step::Settle(ready) => {
                    let parts = Parts::of(&now.record.latest.version);
                    let outcome = if ready { Outcome::Ready } else { broken() };
                    settle(&now, &parts, &outcome, &stamp)
                }
                Step::RemoveVersion(number) => remove_version(&now, number).ok(),
                Step::Alias(name, main, canary) => {
                    let version = if main == 0 { Version::Latest } else { Version::Published(main) };
                    let canary = canary.map(|version| Canary { version, weight: 0.5 });
                    let settings = AliasSettings { version, canary, description: String::new() };
                    let name = format!("alias-{name}");
                    match create_alias(&now, &name, settings.clone(), &stamp) {
                        Err(Refused::AliasExists(_)) => update_alias(&now, &name, |alias| *alias = settings, None, &stamp).ok(),
                        other => other.ok(),
                    }
                }
                Step::RemoveAlias(name) => Some(remove_alias(&now, &format!("alias-{name}"))),
                Step::Policy(target) => {
                    let known = revision_of(&now, &target).is_some();
                    let change = put_policy(&now, &target, Some(Policy::default()), &stamp);
                    prop_assert_eq!(known, change.is_ok());
                    change.ok()
                }
            };
            let Some(change) = change else { continue };
            let next = Snapshot::after(Some(&now), change);

            // Once something serves, something serves for ever, and what serves is what was ready.
            prop_assert!(now.serving().is_none() || next.serving().is_some());
            // A published version changes its state once, and nothing else of it.
            for (number, version) in &next.versions {
                match now.versions.get(number) {
                    Some(before) => {
                        prop_assert_eq!(&before.version, &version.version);
                        prop_assert!(before.state == version.state || before.state == State::Pending);
                    }
                    None => prop_assert!(numbers.insert(*number), "number {} is used again", number),
                }
            }
            // An alias means versions that are there, each once, and never $LATEST beside another.
            for alias in next.record.aliases.values() {
                let meant: Vec<Version> = alias.versions().collect();
                let there = |version: &Version| match version {
                    Version::Latest => meant.len() == 1,
                    Version::Published(number) => next.versions.contains_key(number),
                };
                prop_assert!(meant.iter().all(there) && (meant.len() == 1 || meant[0] != meant[1]), "{:?}", alias);
            }
            // What is attached is attached to something, whose revision id tells of every change of its policy.
            for target in next.record.attached.policies.keys() {
                prop_assert!(revision_of(&next, target).is_some(), "{:?}", target);
                let changed = now.record.attached.policies.get(target) != next.record.attached.policies.get(target);
                prop_assert!(!changed || revision_of(&now, target) != revision_of(&next, target));
            }
            // Whatever shows on $LATEST shows as another revision id.
            let (before, after) = (&now.record.latest, &next.record.latest);
            prop_assert!(before == after || before.revision_id != after.revision_id);
            now = next;
        }
    }
}
