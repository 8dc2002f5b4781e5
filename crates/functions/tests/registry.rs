//! Functions as their users see them: created, updated, published, deleted, found again after a restart.

#![allow(clippy::unwrap_used, reason = "these are tests, though the lint does not see it in helpers")]

mod common;

use common::{Fixture, arn, eventually, memory, names, new, settings, zip};
use martlet_functions::{AliasSettings, Canary, CodeUpdate, FunctionsError, Policy, Publish, Refused};
use martlet_functions::{State, Unresolved, Update};
use martlet_model::{Qualifier, Version};
use std::collections::{BTreeMap, BTreeSet};

fn code(content: &str) -> CodeUpdate {
    CodeUpdate {
        zip: zip(content),
        architecture: None,
        publish: false,
        dry_run: false,
        expected_revision: None,
    }
}

#[tokio::test]
async fn a_function_is_pending_and_then_active() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    let fixture = Fixture::open(&store, folder.path()).await;
    let created = fixture.functions.create(new("f", "one")).await.unwrap();
    assert_eq!((&created.state, &created.update), (&State::Pending, &None));
    let active = fixture.settled(&arn("f")).await;
    assert_eq!(
        (&active.latest().state, &active.latest().update),
        (&State::Active, &Some(Update::Successful))
    );
    assert_ne!(active.latest().revision_id, created.revision_id);

    let deployment = fixture.functions.resolve(&arn("f"), None).unwrap();
    assert_eq!(std::fs::read(deployment.code_dir.join("handler.py")).unwrap(), b"one");
    assert!(deployment.code_dir.join("lib/more.py").exists());
    let again = fixture.functions.resolve(&arn("f"), Some(&Qualifier::Latest)).unwrap();
    assert!(std::sync::Arc::ptr_eq(&deployment, &again));
    assert_eq!(
        fixture.watching.current.lock().unwrap()[&arn("f")],
        std::slice::from_ref(&deployment.version.revision)
    );
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    let fixture = Fixture::open(&store, folder.path()).await;
    let functions = &fixture.functions;
    functions.create(new("f", "one")).await.unwrap();
    fixture.settled(&arn("f")).await;
    let not_found = |qualifier: &str| {
        let qualifier = Qualifier::parse(qualifier).unwrap();
        let said = functions.resolve(&arn("f"), Some(&qualifier));
        assert_eq!(said.unwrap_err(), Unresolved::NotFound(arn("f").qualified(&qualifier)));
    };
    not_found("1");
    not_found("live");
    let said = functions.resolve(&arn("g"), None);
    assert_eq!(said.unwrap_err(), Unresolved::NotFound(arn("g").to_string()));
    assert!(matches!(functions.delete(&arn("g")).await, Err(FunctionsError::NotFound(_))));
    assert!(matches!(functions.update_code(&arn("g"), code("x")).await, Err(FunctionsError::NotFound(_))));
    assert!(matches!(functions.tag(&arn("g"), BTreeMap::new()).await, Err(FunctionsError::NotFound(_))));
}

#[tokio::test]
async fn of_many_creations_of_one_name_one_wins() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    let fixture = Fixture::open(&store, folder.path()).await;
    let tries: Vec<_> = (0..8)
        .map(|n| {
            let functions = fixture.functions.clone();
            tokio::spawn(async move { functions.create(new("f", &n.to_string())).await })
        })
        .collect();
    let mut won = 0;
    for each in tries {
        match each.await.unwrap() {
            Ok(_) => won += 1,
            Err(FunctionsError::Exists(name)) => assert_eq!(name.as_str(), "f"),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(won, 1);
    fixture.settled(&arn("f")).await;
    // The packages of the seven others go.
    eventually("only one package is left", async || {
        fixture.functions.maintain().await;
        names(folder.path()).len() == 1 && store.blobs.list(None, 9).await.unwrap().len() == 1
    })
    .await;
}

#[tokio::test]
async fn refused_packages_leave_nothing() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    let fixture = Fixture::open(&store, folder.path()).await;
    let mut broken = new("f", "one");
    broken.zip = broken.zip.slice(..40);
    assert!(matches!(fixture.functions.create(broken).await, Err(FunctionsError::Package(_))));
    assert!(fixture.functions.get(&arn("f")).is_none());
    assert!(store.kv.list("", None, 9).await.unwrap().is_empty());
    assert!(store.blobs.list(None, 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_update_serves_the_old_code_until_the_new_is_ready() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    let fixture = Fixture::open(&store, folder.path()).await;
    let functions = &fixture.functions;
    functions.create(new("f", "one")).await.unwrap();
    let before = fixture.settled(&arn("f")).await;
    let old = functions.resolve(&arn("f"), None).unwrap();

    let updated = functions.update_code(&arn("f"), code("two")).await.unwrap();
    assert_eq!((&updated.state, &updated.update), (&State::Active, &Some(Update::InProgress)));
    assert_ne!(updated.revision_id, before.latest().revision_id);
    fixture.settled(&arn("f")).await;
    let new = functions.resolve(&arn("f"), None).unwrap();
    assert_ne!(new.version.revision, old.version.revision);
    assert_eq!(std::fs::read(new.code_dir.join("handler.py")).unwrap(), b"two");

    // The old package stays as long as an environment may run on it, and no longer.
    functions.maintain().await;
    assert_eq!(std::fs::read(old.code_dir.join("handler.py")).unwrap(), b"one");
    drop((old, before));
    eventually("the old package is gone", async || {
        functions.maintain().await;
        names(folder.path()) == [new.version.code.digest.as_str()]
    })
    .await;
}

#[tokio::test]
async fn settings_are_edited_in_part() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    let fixture = Fixture::open(&store, folder.path()).await;
    let functions = &fixture.functions;
    functions.create(new("f", "one")).await.unwrap();
    let active = fixture.settled(&arn("f")).await;
    let wrong = functions.update_settings(&arn("f"), Some("another".into()), |_| {}).await;
    assert!(matches!(wrong, Err(FunctionsError::Refused(Refused::Revision))));
    let right = Some(active.latest().revision_id.clone());
    functions.update_settings(&arn("f"), right, |s| s.configuration.memory_mb = 512).await.unwrap();
    let updated = fixture.settled(&arn("f")).await;
    assert_eq!(updated.latest().version.configuration.memory_mb, 512);
    assert_eq!(updated.latest().version.configuration.handler, "handler.main");
    assert_eq!(updated.latest().version.code, active.latest().version.code);
    assert_eq!(functions.resolve(&arn("f"), None).unwrap().version, updated.latest().version);
}

#[tokio::test]
async fn versions_are_counted_on_and_never_change() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    let fixture = Fixture::open(&store, folder.path()).await;
    let functions = &fixture.functions;
    let mut first = new("f", "one");
    first.publish = true;
    let created = functions.create(first).await.unwrap();
    assert_eq!((created.version.version, &created.state), (Version::Published(1), &State::Pending));
    fixture.settled(&arn("f")).await;

    // Nothing changed: the same version comes back.
    let same = functions.publish(&arn("f"), Publish::default()).await.unwrap();
    assert_eq!(same.version.version, Version::Published(1));
    assert_eq!(same.state, State::Active);

    functions.update_settings(&arn("f"), None, |s| s.configuration.memory_mb = 256).await.unwrap();
    fixture.settled(&arn("f")).await;
    let described = Publish { description: Some("second".into()), ..Publish::default() };
    let second = functions.publish(&arn("f"), described).await.unwrap();
    assert_eq!(second.version.version, Version::Published(2));
    assert_eq!(second.version.configuration.description, "second");
    assert_eq!(functions.get(&arn("f")).unwrap().latest().version.configuration.description, "");

    functions.delete_version(&arn("f"), 2).await.unwrap();
    let gone = functions.delete_version(&arn("f"), 2).await;
    assert!(matches!(gone, Err(FunctionsError::Refused(Refused::NoSuchVersion(2)))));
    // The last one is gone, so there is nothing to give back, and its number is not used again.
    let third = functions.publish(&arn("f"), Publish::default()).await.unwrap();
    assert_eq!(third.version.version, Version::Published(3));

    let by_code = CodeUpdate { publish: true, ..code("two") };
    let fourth = functions.update_code(&arn("f"), by_code).await.unwrap();
    assert_eq!((fourth.version.version, &fourth.state), (Version::Published(4), &State::Pending));
    fixture.settled(&arn("f")).await;
    let read = |number| {
        let qualifier = Qualifier::Version(number);
        let deployment = functions.resolve(&arn("f"), Some(&qualifier)).unwrap();
        let content = std::fs::read_to_string(deployment.code_dir.join("handler.py")).unwrap();
        (content, deployment.version.configuration.memory_mb)
    };
    assert_eq!([read(1), read(3), read(4)], [("one".into(), 128), ("one".into(), 256), ("two".into(), 256)]);
    let usage = functions.usage(&arn("f").account, &arn("f").region);
    assert_eq!((usage.functions, usage.code_bytes), (1, 4 * zip("one").len() as u64));
}

#[tokio::test]
async fn preconditions_of_a_publication() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    let fixture = Fixture::open(&store, folder.path()).await;
    let functions = &fixture.functions;
    functions.create(new("f", "one")).await.unwrap();
    let active = fixture.settled(&arn("f")).await;
    let digest = active.latest().version.code.digest.clone();
    let wrong = Publish { expected_digest: Some("0".repeat(64)), ..Publish::default() };
    match functions.publish(&arn("f"), wrong).await {
        Err(FunctionsError::Refused(Refused::CodeDigest(present))) => assert_eq!(present, digest),
        other => panic!("{other:?}"),
    }
    let wrong = Publish { expected_revision: Some("x".into()), ..Publish::default() };
    let said = functions.publish(&arn("f"), wrong).await;
    assert!(matches!(said, Err(FunctionsError::Refused(Refused::Revision))));
    let right = Publish {
        expected_digest: Some(digest),
        expected_revision: Some(active.latest().revision_id.clone()),
        description: None,
    };
    functions.publish(&arn("f"), right).await.unwrap();
    assert_ne!(functions.get(&arn("f")).unwrap().latest().revision_id, active.latest().revision_id);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    let fixture = Fixture::open(&store, folder.path()).await;
    let functions = &fixture.functions;
    functions.create(new("f", "one")).await.unwrap();
    let active = fixture.settled(&arn("f")).await;
    let dry = CodeUpdate { dry_run: true, ..code("two") };
    let said = functions.update_code(&arn("f"), dry).await.unwrap();
    assert_eq!(said.revision_id, active.latest().revision_id);
    assert_eq!(said.version.code.digest, martlet_store::Digest::of(&zip("two")).to_string());
    assert_eq!(functions.get(&arn("f")).unwrap().latest(), active.latest());
    let mut broken = CodeUpdate { dry_run: true, ..code("two") };
    broken.zip = broken.zip.slice(1..9);
    assert!(functions.update_code(&arn("f"), broken).await.is_err());
    eventually("the tried package is gone", async || {
        functions.maintain().await;
        store.blobs.list(None, 9).await.unwrap().len() == 1
    })
    .await;
}

#[tokio::test]
async fn tags_are_limited() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    let fixture = Fixture::open(&store, folder.path()).await;
    let functions = &fixture.functions;
    functions.create(new("f", "one")).await.unwrap();
    let tags = |range: std::ops::Range<u32>| range.map(|n| (n.to_string(), "v".to_owned())).collect();
    functions.tag(&arn("f"), tags(0..30)).await.unwrap();
    functions.tag(&arn("f"), tags(10..50)).await.unwrap();
    let over = functions.tag(&arn("f"), tags(50..51)).await;
    assert!(matches!(over, Err(FunctionsError::Refused(Refused::TooManyTags))));
    functions.untag(&arn("f"), vec!["0".into(), "not there".into()]).await.unwrap();
    functions.tag(&arn("f"), tags(50..51)).await.unwrap();
    assert_eq!(functions.get(&arn("f")).unwrap().tags().len(), 50);
}

#[tokio::test]
async fn a_deleted_function_leaves_nothing_and_may_come_again() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    let fixture = Fixture::open(&store, folder.path()).await;
    let functions = &fixture.functions;
    let mut first = new("f", "one");
    first.publish = true;
    functions.create(first).await.unwrap();
    fixture.settled(&arn("f")).await;
    functions.delete(&arn("f")).await.unwrap();
    assert!(functions.get(&arn("f")).is_none());
    assert!(fixture.watching.current.lock().unwrap()[&arn("f")].is_empty());
    eventually("nothing is left", async || {
        functions.maintain().await;
        names(folder.path()).is_empty() && store.kv.list("", None, 9).await.unwrap().is_empty()
    })
    .await;
    functions.create(new("f", "two")).await.unwrap();
    let again = fixture.settled(&arn("f")).await;
    assert_eq!(again.versions().count(), 1);
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    let mut revisions = BTreeMap::new();
    {
        let fixture = Fixture::open(&store, folder.path()).await;
        for name in ["b", "a", "c"] {
            let mut function = new(name, name);
            function.publish = name == "a";
            function.tags = [("key".to_owned(), name.to_owned())].into();
            fixture.functions.create(function).await.unwrap();
            let settled = fixture.settled(&arn(name)).await;
            revisions.insert(name, settled.latest().clone());
        }
    }
    let fixture = Fixture::open(&store, folder.path()).await;
    let listed = fixture.functions.list(&arn("a").account, &arn("a").region);
    let listed: Vec<&str> = listed.iter().map(|function| function.arn().name.as_str()).collect();
    assert_eq!(listed, ["a", "b", "c"]);
    for (name, latest) in revisions {
        let found = fixture.functions.get(&arn(name)).unwrap();
        assert_eq!(found.latest(), &latest);
        assert_eq!(found.tags()["key"], name);
        assert_eq!(fixture.functions.resolve(&arn(name), None).unwrap().version, latest.version);
    }
    let published = Qualifier::Version(1);
    fixture.functions.resolve(&arn("a"), Some(&published)).unwrap();
    let next = fixture.functions.publish(&arn("a"), Publish::default()).await.unwrap();
    assert_eq!(next.version.version, Version::Published(1), "nothing changed since");
}

#[tokio::test]
async fn lost_and_half_made_folders_are_mended_at_the_start() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    {
        let fixture = Fixture::open(&store, folder.path()).await;
        fixture.functions.create(new("f", "one")).await.unwrap();
        fixture.settled(&arn("f")).await;
    }
    let digest = names(folder.path()).remove(0);
    std::fs::remove_dir_all(folder.path().join(&digest)).unwrap();
    std::fs::create_dir_all(folder.path().join(format!(".{digest}.1.0/half"))).unwrap();
    std::fs::create_dir_all(folder.path().join("0".repeat(64)).join("stray")).unwrap();
    let fixture = Fixture::open(&store, folder.path()).await;
    eventually("the folder is whole again", async || {
        names(folder.path()) == [digest.as_str()] && fixture.functions.resolve(&arn("f"), None).is_ok()
    })
    .await;
    assert!(folder.path().join(&digest).join("lib/more.py").exists());
}

#[tokio::test]
async fn functions_with_the_same_code_share_it() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    let fixture = Fixture::open(&store, folder.path()).await;
    for name in ["a", "b"] {
        fixture.functions.create(new(name, "same")).await.unwrap();
        fixture.settled(&arn(name)).await;
    }
    assert_eq!(names(folder.path()).len(), 1);
    fixture.functions.delete(&arn("a")).await.unwrap();
    for _ in 0..20 {
        fixture.functions.maintain().await;
        tokio::task::yield_now().await;
    }
    let left = fixture.functions.resolve(&arn("b"), None).unwrap();
    assert!(left.code_dir.join("handler.py").exists());
    assert_eq!(store.blobs.list(None, 9).await.unwrap().len(), 1);
}

/// Creates, deletes and updates with few packages at once, so that removal and use of a package meet all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removal_never_takes_what_is_in_use() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    let fixture = Fixture::open(&store, folder.path()).await;
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let functions = fixture.functions.clone();
            tokio::spawn(async move {
                let name = format!("f{worker}");
                for round in 0..25 {
                    functions.create(new(&name, &(round % 3).to_string())).await.unwrap();
                    match functions.update_code(&arn(&name), code(&((round + 1) % 3).to_string())).await {
                        Ok(_) | Err(FunctionsError::Refused(Refused::NotActive("Pending"))) => {}
                        Err(other) => panic!("{other}"),
                    }
                    if round < 24 {
                        functions.delete(&arn(&name)).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    let mut digests = BTreeSet::new();
    for worker in 0..4 {
        let settled = fixture.settled(&arn(&format!("f{worker}"))).await;
        assert_eq!(settled.latest().state, State::Active, "{:?}", settled.latest());
        let deployment = fixture.functions.resolve(settled.arn(), None).unwrap();
        assert!(deployment.code_dir.join("handler.py").exists());
        digests.insert(deployment.version.code.digest.clone());
    }
    eventually("what nothing uses is gone", async || {
        fixture.functions.maintain().await;
        names(folder.path()) == digests.iter().cloned().collect::<Vec<_>>()
            && store.blobs.list(None, 99).await.unwrap().len() == digests.len()
    })
    .await;
}

#[tokio::test]
async fn an_unknown_record_stops_the_start_with_its_key() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    let put = |value: &'static str| {
        let key = "functions/000000000000/us-east-1/f";
        store.kv.put(key, value.into(), martlet_store::Expect::Any)
    };
    for (value, told) in [("{\"schema\":2}", "newer martlet"), ("{}", "backup"), ("x", "backup")] {
        put(value).await.unwrap();
        let opened =
            martlet_functions::Functions::open(store.clone(), folder.path(), common::watching()).await;
        let said = opened.err().expect("the record must be refused").to_string();
        assert!(said.contains("functions/000000000000/us-east-1/f") && said.contains(told), "{said}");
    }
}

#[tokio::test]
async fn records_keep_their_form() {
    // What version 1 of the record looks like; when this fails, raise the schema and read both.
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    let fixture = Fixture::open(&store, folder.path()).await;
    fixture.functions.create(new("f", "one")).await.unwrap();
    fixture.settled(&arn("f")).await;
    let entry = store.kv.get("functions/000000000000/us-east-1/f").await.unwrap().unwrap();
    let record: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
    assert_eq!(record["schema"], 1);
    for pointer in [
        "/incarnation",
        "/latest/version/function/name",
        "/latest/version/configuration/memory_mb",
        "/latest/version/code/digest",
        "/latest/revision_id",
        "/latest/modified",
        "/latest/state",
        "/next_version",
        "/tags",
    ] {
        assert!(record.pointer(pointer).is_some(), "{pointer} in {record}");
    }
    assert_eq!(
        settings().configuration,
        fixture.functions.get(&arn("f")).unwrap().latest().version.configuration
    );
}

fn settings_of(version: u64, canary: Option<(u64, f64)>) -> AliasSettings {
    AliasSettings {
        version: Version::Published(version),
        canary: canary.map(|(version, weight)| Canary { version, weight }),
        description: String::new(),
    }
}

/// A function with two published versions.
async fn two_versions(fixture: &Fixture) {
    fixture.functions.create(new("f", "one")).await.unwrap();
    fixture.settled(&arn("f")).await;
    for content in ["two", "three"] {
        fixture.functions.publish(&arn("f"), Publish::default()).await.unwrap();
        fixture.functions.update_code(&arn("f"), code(content)).await.unwrap();
        fixture.settled(&arn("f")).await;
    }
}

#[tokio::test]
async fn aliases_and_policies_are_found_again_after_a_restart() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    let live = Qualifier::Alias("live".to_owned());
    let statement = serde_json::json!({
        "Sid": "s", "Effect": "Allow", "Principal": "*", "Action": "lambda:InvokeFunction", "Resource": "*",
    });
    let before = {
        let fixture = Fixture::open(&store, folder.path()).await;
        two_versions(&fixture).await;
        let weighted = settings_of(1, Some((2, 0.25)));
        fixture.functions.create_alias(&arn("f"), "live".to_owned(), weighted).await.unwrap();
        let policy = Policy { id: None, statements: vec![statement] };
        let edit = move |now: &mut Option<Policy>| {
            *now = Some(policy);
            Ok::<(), ()>(())
        };
        let edited =
            fixture.functions.edit_policy(&arn("f"), Some(&live), None, edit).await.unwrap().unwrap();
        assert!(edited.policy(Some(&live)).is_some() && edited.policy(None).is_none());
        let function = fixture.functions.get(&arn("f")).unwrap();
        (function.aliases().clone(), function.attached().clone())
    };
    let fixture = Fixture::open(&store, folder.path()).await;
    let function = fixture.functions.get(&arn("f")).unwrap();
    assert_eq!((function.aliases().clone(), function.attached().clone()), before);
    assert!(function.policy(Some(&live)).is_some());
    let dealt: BTreeSet<Version> =
        (0..8).map(|_| fixture.functions.resolve(&arn("f"), Some(&live)).unwrap().version.version).collect();
    assert_eq!(dealt, BTreeSet::from([Version::Published(1), Version::Published(2)]));
}

#[tokio::test]
async fn what_an_alias_resolves_to_is_never_between_two_moves() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    let fixture = Fixture::open(&store, folder.path()).await;
    two_versions(&fixture).await;
    let functions = fixture.functions.clone();
    functions.create_alias(&arn("f"), "live".to_owned(), settings_of(1, None)).await.unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let caller = std::thread::spawn({
        let (functions, stop) = (functions.clone(), std::sync::Arc::clone(&stop));
        move || {
            let live = Qualifier::Alias("live".to_owned());
            let mut calls = 0_u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let version = functions.resolve(&arn("f"), Some(&live)).unwrap().version.version;
                assert!(matches!(version, Version::Published(1 | 2)), "{version}");
                calls += 1;
            }
            calls
        }
    });
    let live = Qualifier::Alias("live".to_owned());
    for round in 0..50 {
        let version = 1 + round % 2;
        let edit = move |settings: &mut AliasSettings| settings.version = Version::Published(version);
        functions.update_alias(&arn("f"), "live".to_owned(), None, edit).await.unwrap();
        // Whoever calls after the answer gets what was asked for.
        let now = functions.resolve(&arn("f"), Some(&live)).unwrap().version.version;
        assert_eq!(now, Version::Published(version));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(caller.join().unwrap() > 0);
}

#[tokio::test]
async fn a_policy_changes_the_revision_and_nothing_that_runs() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    let fixture = Fixture::open(&store, folder.path()).await;
    two_versions(&fixture).await;
    let functions = &fixture.functions;
    functions.create_alias(&arn("f"), "live".to_owned(), settings_of(1, None)).await.unwrap();
    let (first, live) = (Qualifier::Version(1), Qualifier::Alias("live".to_owned()));
    for qualifier in [None, Some(&first), Some(&live)] {
        let before = functions.get(&arn("f")).unwrap();
        let revision = before.revision_id(qualifier).unwrap().to_owned();
        let edit = |now: &mut Option<Policy>| {
            *now = Some(Policy::default());
            Ok::<(), ()>(())
        };
        let stale = functions.edit_policy(&arn("f"), qualifier, Some("other".to_owned()), edit).await;
        assert!(matches!(stale, Err(FunctionsError::Refused(Refused::Revision))));
        let running = functions.resolve(&arn("f"), qualifier).unwrap();
        let after =
            functions.edit_policy(&arn("f"), qualifier, Some(revision.clone()), edit).await.unwrap().unwrap();
        assert_ne!(after.revision_id(qualifier).unwrap(), revision);
        assert!(std::sync::Arc::ptr_eq(&running, &functions.resolve(&arn("f"), qualifier).unwrap()));
        let refused = functions.edit_policy(&arn("f"), qualifier, None, |_| Err("no")).await.unwrap();
        assert_eq!(refused.unwrap_err(), "no");
    }
    let nowhere =
        functions.edit_policy(&arn("f"), Some(&Qualifier::Version(9)), None, |_| Ok::<(), ()>(())).await;
    assert!(matches!(nowhere, Err(FunctionsError::Refused(Refused::NoSuchVersion(9)))));
    // What is attached to a version or an alias goes with it.
    functions.delete_alias(&arn("f"), "live".to_owned()).await.unwrap();
    functions.delete_version(&arn("f"), 1).await.unwrap();
    let left = functions.get(&arn("f")).unwrap();
    assert_eq!(left.attached().policies.len(), 1);
}

#[tokio::test]
async fn what_waits_runs_what_its_alias_means_when_it_runs() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    let fixture = Fixture::open(&store, folder.path()).await;
    two_versions(&fixture).await;
    let functions = &fixture.functions;
    let (one, two) = (Version::Published(1), Version::Published(2));
    let live = Qualifier::Alias("live".to_owned());
    let standing =
        |qualifier: Option<&Qualifier>, dealt| functions.get(&arn("f")).unwrap().standing(qualifier, dealt);
    assert_eq!(standing(None, Version::Latest), Some(Version::Latest));
    assert_eq!(standing(Some(&Qualifier::Version(1)), one), Some(one));
    assert_eq!(standing(Some(&live), one), None);
    functions.create_alias(&arn("f"), "live".to_owned(), settings_of(1, Some((2, 0.1)))).await.unwrap();
    assert_eq!((standing(Some(&live), one), standing(Some(&live), two)), (Some(one), Some(two)));
    let promote = |settings: &mut AliasSettings| *settings = settings_of(2, None);
    functions.update_alias(&arn("f"), "live".to_owned(), None, promote).await.unwrap();
    assert_eq!((standing(Some(&live), one), standing(Some(&live), two)), (Some(two), Some(two)));
}
