//! The promises of the key-value contract.

use super::{Disk, is_invalid, is_too_large, text};
use crate::{Expect, KeyValue, MAX_BATCH, MAX_VALUE_BYTES, Store, StoreError, WatchEvent, Write};
use bytes::Bytes;

async fn put(store: &Store, key: &str, value: &str) -> u64 {
    store.kv.put(key, text(value), Expect::Any).await.expect("put")
}

async fn get(kv: &dyn KeyValue, key: &str) -> Option<(Bytes, u64)> {
    kv.get(key).await.expect("get").map(|entry| (entry.value, entry.revision))
}

async fn keys(store: &Store, prefix: &str, after: Option<&str>, max: usize) -> Vec<String> {
    let entries = store.kv.list(prefix, after, max).await.expect("list");
    entries.into_iter().map(|(key, _)| key).collect()
}

fn is_conflict<T>(result: Result<T, StoreError>, on: &str, at: Option<u64>) -> bool {
    matches!(result, Err(StoreError::Conflict { key, found, .. }) if key == on && found == at)
}

#[allow(missing_docs, reason = "the names of the cases are the promises")]
mod cases {
    use super::*;

    pub async fn what_is_put_is_got(disk: &impl Disk) {
        let store = disk.open();
        assert_eq!(get(&*store.kv, "a").await, None);
        let first = put(&store, "a", "1").await;
        assert_eq!(get(&*store.kv, "a").await, Some((text("1"), first)));
        let second = put(&store, "a", "").await;
        assert_eq!(get(&*store.kv, "a").await, Some((text(""), second)));
        put(&store, "ключ/\u{1F426} %_", "odd").await;
        assert_eq!(get(&*store.kv, "ключ/\u{1F426} %_").await.expect("there").0, "odd");
    }

    pub async fn revisions_only_grow(disk: &impl Disk) {
        let store = disk.open();
        let mut last = 0;
        for key in ["a", "b", "a", "c", "a"] {
            let revision = put(&store, key, "x").await;
            assert!(last < revision);
            last = revision;
            store.kv.delete("a", Expect::Any).await.expect("delete");
        }
    }

    pub async fn expectations_are_kept(disk: &impl Disk) {
        let store = disk.open();
        let absent = store.kv.put("a", text("0"), Expect::Revision(1)).await;
        assert!(is_conflict(absent, "a", None));
        let first = store.kv.put("a", text("1"), Expect::Absent).await.expect("put");
        assert!(is_conflict(store.kv.put("a", text("2"), Expect::Absent).await, "a", Some(first)));
        let second = store.kv.put("a", text("2"), Expect::Revision(first)).await.expect("put");
        assert!(is_conflict(store.kv.put("a", text("3"), Expect::Revision(first)).await, "a", Some(second)));
        assert!(is_conflict(store.kv.delete("a", Expect::Revision(first)).await, "a", Some(second)));
        assert_eq!(get(&*store.kv, "a").await, Some((text("2"), second)));
        assert!(store.kv.delete("a", Expect::Revision(second)).await.expect("delete"));
        store.kv.put("a", text("4"), Expect::Absent).await.expect("absent again");
    }

    pub async fn deletions_answer_what_was_there(disk: &impl Disk) {
        let store = disk.open();
        assert!(!store.kv.delete("a", Expect::Any).await.expect("delete"));
        put(&store, "a", "1").await;
        assert!(store.kv.delete("a", Expect::Any).await.expect("delete"));
        assert_eq!(get(&*store.kv, "a").await, None);
        assert!(!store.kv.delete("a", Expect::Absent).await.expect("delete"));
    }

    pub async fn lists_are_ordered_and_bounded(disk: &impl Disk) {
        let store = disk.open();
        for key in ["b/2", "b/10", "a", "b", "b/", "b/1", "c", "b/\u{10FFFF}", "b0"] {
            put(&store, key, key).await;
        }
        assert_eq!(keys(&store, "b/", None, 99).await, ["b/", "b/1", "b/10", "b/2", "b/\u{10FFFF}"]);
        assert_eq!(keys(&store, "b/", None, 2).await, ["b/", "b/1"]);
        assert_eq!(keys(&store, "b/", Some("b/1"), 2).await, ["b/10", "b/2"]);
        assert_eq!(keys(&store, "b/", Some("b/11"), 1).await, ["b/2"]);
        assert_eq!(keys(&store, "", Some("b0"), 99).await, ["c"]);
        assert_eq!(keys(&store, "", None, 99).await.len(), 9);
        assert!(keys(&store, "b/", Some("c"), 9).await.is_empty());
        assert!(keys(&store, "x", None, 9).await.is_empty());
        assert!(keys(&store, "", None, 0).await.is_empty());
    }

    pub async fn batches_are_all_or_nothing(disk: &impl Disk) {
        let store = disk.open();
        let a = put(&store, "a", "1").await;
        let put = |key: &str, expect| Write::Put { key: key.to_owned(), value: text("new"), expect };
        let check = |key: &str, expect| Write::Check { key: key.to_owned(), expect };
        let delete = |key: &str, expect| Write::Delete { key: key.to_owned(), expect };

        let refused =
            vec![put("b", Expect::Absent), delete("a", Expect::Any), check("c", Expect::Revision(9))];
        assert!(is_conflict(store.kv.batch(refused).await, "c", None));
        assert_eq!(keys(&store, "", None, 9).await, ["a"]);

        let done = vec![
            check("a", Expect::Revision(a)),
            put("b", Expect::Absent),
            put("c", Expect::Any),
            delete("d", Expect::Any),
        ];
        let revisions = store.kv.batch(done).await.expect("batch");
        assert_eq!(revisions.len(), 4);
        assert_eq!(get(&*store.kv, "b").await, Some((text("new"), revisions[1])));
        assert_eq!(get(&*store.kv, "c").await, Some((text("new"), revisions[2])));
        assert!(revisions[1] < revisions[2]);
        assert!(store.kv.batch(Vec::new()).await.expect("nothing to do").is_empty());
        assert!(is_invalid(&store.kv.batch(vec![put("x", Expect::Any), check("x", Expect::Any)]).await));
        let many = (0..=MAX_BATCH).map(|number| put(&number.to_string(), Expect::Any)).collect();
        assert!(is_too_large(&store.kv.batch(many).await));
    }

    pub async fn watchers_see_changes_in_order(disk: &impl Disk) {
        let store = disk.open();
        put(&store, "w/before", "x").await;
        let mut watch = store.kv.watch("w/");
        put(&store, "other", "x").await;
        let first = put(&store, "w/a", "x").await;
        store.kv.put("w/a", text("y"), Expect::Absent).await.expect_err("refused, so no notice");
        let second = put(&store, "w/b", "x").await;
        store.kv.delete("w/none", Expect::Any).await.expect("no change, so no notice");
        store.kv.delete("w/a", Expect::Any).await.expect("delete");
        let mut seen = Vec::new();
        for _ in 0..3 {
            match watch.next().await {
                Some(WatchEvent::Changed(change)) => seen.push(change),
                other => panic!("not a change: {other:?}"),
            }
        }
        let summary: Vec<_> = seen.iter().map(|change| (change.key.as_str(), change.deleted)).collect();
        assert_eq!(summary, [("w/a", false), ("w/b", false), ("w/a", true)]);
        assert_eq!((seen[0].revision, seen[1].revision), (first, second));
        assert!(second < seen[2].revision);
    }

    pub async fn slow_watchers_are_told(disk: &impl Disk) {
        let store = disk.open();
        let mut watch = store.kv.watch("");
        for batch in 0..10 {
            let put = |number| Write::Put {
                key: format!("{batch}/{number}"),
                value: Bytes::new(),
                expect: Expect::Any,
            };
            store.kv.batch((0..500).map(put).collect()).await.expect("batch");
        }
        assert_eq!(watch.next().await, Some(WatchEvent::Missed));
        assert!(matches!(watch.next().await, Some(WatchEvent::Changed(_))));
    }

    pub async fn opening_again_keeps_entries_and_revisions(disk: &impl Disk) {
        let store = disk.open();
        let first = put(&store, "a", "1").await;
        let second = put(&store, "b", "2").await;
        store.kv.delete("b", Expect::Any).await.expect("delete");
        drop(store);
        let store = disk.open();
        assert_eq!(get(&*store.kv, "a").await, Some((text("1"), first)));
        assert_eq!(get(&*store.kv, "b").await, None);
        assert!(second < put(&store, "b", "3").await);
    }

    pub async fn one_of_many_writers_wins(disk: &impl Disk) {
        let store = disk.open();
        let writers: Vec<_> = (0..16)
            .map(|_| {
                let kv = store.kv.clone();
                tokio::spawn(async move {
                    let mut wins = 0;
                    for round in 0..10 {
                        wins +=
                            u32::from(kv.put(&round.to_string(), text("x"), Expect::Absent).await.is_ok());
                    }
                    wins
                })
            })
            .collect();
        let mut wins = 0;
        for writer in writers {
            wins += writer.await.expect("no panic");
        }
        assert_eq!(wins, 10);
    }

    pub async fn wrong_keys_and_values_are_refused(disk: &impl Disk) {
        let store = disk.open();
        let long = "x".repeat(1_025);
        for key in ["", "a\0b", long.as_str()] {
            assert!(is_invalid(&store.kv.put(key, text("x"), Expect::Any).await), "{key:?}");
            assert!(is_invalid(&store.kv.get(key).await), "{key:?}");
            assert!(is_invalid(&store.kv.delete(key, Expect::Any).await), "{key:?}");
        }
        let big = Bytes::from(vec![7; MAX_VALUE_BYTES + 1]);
        assert!(is_too_large(&store.kv.put("a", big.clone(), Expect::Any).await));
        store.kv.put(&long[1..], big.slice(1..), Expect::Any).await.expect("exactly the limits");
        assert_eq!(get(&*store.kv, &long[1..]).await.expect("there").0, big.slice(1..));
    }
}

pub use cases::*;
