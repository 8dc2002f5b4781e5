//! What only this provider promises: shared commits, failures that stay where they happen, formats.

use super::*;
use crate::{Digest, Expect, TopicState};
use bytes::Bytes;
use std::sync::mpsc;
use std::task::{Context, Waker};
use tempfile::TempDir;

fn database(directory: &TempDir) -> Arc<Database> {
    let path = directory.path().join("store.db");
    let connection = schema::open(&path).expect("open");
    Arc::new(Database::start(connection, readers(&path)).expect("start"))
}

/// Puts the request of an answer into the committer's queue; without this it would go there when first awaited.
fn started<T>(mut answer: Answer<T>) -> Answer<T> {
    let mut context = Context::from_waker(Waker::noop());
    assert!(answer.as_mut().poll(&mut context).is_pending());
    answer
}

/// Keeps the committer busy until the sender is dropped, so that the requests that follow gather behind it.
fn hold(database: &Database) -> (mpsc::Sender<()>, Answer<()>) {
    let (enter, entered) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let held = database.write(move |_| {
        enter.send(()).ok();
        released.recv().ok();
        Ok(())
    });
    let held = started(held);
    // Only now does it have a batch of its own.
    entered.recv().expect("the committer runs");
    (release, held)
}

/// Sets how many pages the file may have; beyond that the engine reports a full disk.
async fn allow_pages(database: &Database, pages: u32) {
    let set = database.write(move |writer| {
        let pragma = format!("PRAGMA max_page_count = {pages}");
        let run = writer.connection.query_row(&pragma, [], |row| row.get::<_, i64>(0));
        run.map(drop).map_err(|e| StoreError::engine("limit the file", e))
    });
    set.await.expect("limit");
}

#[tokio::test]
async fn requests_that_are_ready_share_one_commit() {
    let directory = TempDir::new().expect("a directory");
    let database = database(&directory);
    let (release, held) = hold(&database);
    let append = |number: u32| crate::Log::append(&*database, "t", &[Bytes::from(number.to_string())]);
    let waiting: Vec<Answer<u64>> = (0..100).map(|number| started(append(number))).collect();
    drop(release);
    held.await.expect("held");
    waiting.into_iter().next().expect("a hundred").await.expect("append");
    // The first answer means that the commit was made, and all hundred were in it.
    let state = crate::Log::state(&*database, "t").await.expect("state");
    assert_eq!(
        state,
        TopicState { next: 101, records: 100, next_visible: Some(martlet_model::Timestamp(0)) }
    );
}

#[tokio::test]
async fn a_refused_request_leaves_its_neighbours_alone() {
    let directory = TempDir::new().expect("a directory");
    let database = database(&directory);
    let store: Arc<dyn crate::KeyValue> = database.clone();
    let mut watch = store.watch("");
    let (release, held) = hold(&database);
    let answers: Vec<_> = (0..30)
        .map(|number| {
            // Every third writes two keys, the second of which is taken, and must leave no trace of the first.
            let put = |key: String, expect| crate::Write::Put { key, value: Bytes::new(), expect };
            let mut writes = vec![put(number.to_string(), Expect::Absent)];
            if number % 3 == 1 {
                writes.push(put((number - 1).to_string(), Expect::Absent));
            }
            started(store.batch(writes))
        })
        .collect();
    drop(release);
    held.await.expect("held");
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.await.is_err(), number % 3 == 1, "{number}");
    }
    assert_eq!(store.list("", None, 99).await.expect("list").len(), 20);
    for number in (0..30).filter(|number| number % 3 != 1) {
        let Some(crate::WatchEvent::Changed(change)) = watch.next().await else {
            panic!("a change");
        };
        assert_eq!(change.key, number.to_string(), "what was undone is not told");
    }
}

#[tokio::test]
async fn a_full_disk_is_an_answer_and_not_the_end() {
    let directory = TempDir::new().expect("a directory");
    let database = database(&directory);
    let store: Arc<dyn crate::KeyValue> = database.clone();
    store.put("small", Bytes::from_static(b"0"), Expect::Any).await.expect("put");
    allow_pages(&database, 20).await;
    let (release, held) = hold(&database);
    let answers: Vec<_> = (0..20_u8)
        .map(|number| {
            started(match number % 2 {
                0 => store.put("small", Bytes::copy_from_slice(&[number]), Expect::Any),
                _ => store.put(&format!("big{number}"), vec![number; 200_000].into(), Expect::Any),
            })
        })
        .collect();
    drop(release);
    held.await.expect("held");
    for (number, answer) in answers.into_iter().enumerate() {
        let answer = answer.await;
        match number % 2 {
            0 => assert!(answer.is_ok(), "{number}: {answer:?}"),
            _ => assert!(matches!(answer, Err(StoreError::Full { .. })), "{number}: {answer:?}"),
        }
    }
    let small = store.get("small").await.expect("get").expect("there");
    assert_eq!(small.value, [18].as_slice());
    allow_pages(&database, 1_000_000).await;
    store.put("big", vec![1; 200_000].into(), Expect::Any).await.expect("room again");
    assert_eq!(store.list("", None, 9).await.expect("list").len(), 2);
}

#[tokio::test]
async fn an_answer_of_a_closed_store_says_so() {
    let directory = TempDir::new().expect("a directory");
    let database = database(&directory);
    let answer = crate::KeyValue::put(&*database, "a", Bytes::new(), Expect::Any);
    drop(database);
    assert!(matches!(answer.await, Err(StoreError::Closed)));
}

#[test]
fn a_newer_format_is_refused() {
    let directory = TempDir::new().expect("a directory");
    drop(open_embedded(directory.path()).expect("open"));
    let raw = Connection::open(directory.path().join("store.db")).expect("open");
    raw.pragma_update(None, "user_version", 99).expect("set the format");
    let refused = open_embedded(directory.path()).err().expect("refused");
    assert!(matches!(refused, StoreError::Newer { found: 99, known: 2, .. }), "{refused}");
}

#[test]
fn the_first_format_is_brought_to_this_one() {
    let directory = TempDir::new().expect("a directory");
    drop(open_embedded(directory.path()).expect("open"));
    let raw = Connection::open(directory.path().join("store.db")).expect("open");
    raw.execute_batch("ALTER TABLE leases DROP COLUMN note; INSERT INTO leases VALUES (1, 1, 4, 0, 1);")
        .expect("as it was");
    raw.execute_batch("INSERT INTO topics VALUES (1, 't', 2, 2); INSERT INTO records VALUES (1, 1, x'61');")
        .expect("a record");
    raw.pragma_update(None, "user_version", 1).expect("set the format");
    drop(raw);
    let store = open_embedded(directory.path()).expect("open");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let at = martlet_model::Timestamp;
    let leased = runtime.block_on(store.log.lease("t", 1, at(9), at(1))).expect("lease");
    assert_eq!((leased[0].lease.attempt, leased[0].note), (5, 0));
}

#[test]
fn what_is_no_database_is_refused() {
    let directory = TempDir::new().expect("a directory");
    fs::write(directory.path().join("store.db"), vec![b'x'; 10_000]).expect("write");
    assert!(matches!(open_embedded(directory.path()), Err(StoreError::Engine { .. })));
    let file = directory.path().join("file");
    fs::write(&file, "").expect("write");
    assert!(matches!(open_embedded(&file), Err(StoreError::File { .. })));
}

#[tokio::test]
async fn a_blob_that_cannot_be_placed_leaves_nothing_behind() {
    let directory = TempDir::new().expect("a directory");
    let store = open_embedded(directory.path()).expect("open");
    let shard = directory.path().join("blobs").join(&Digest::of(b"x").to_string()[..2]);
    fs::write(&shard, "in the way").expect("write");
    let refused = store.blobs.put(Bytes::from_static(b"x")).await.expect_err("no room for the shard");
    assert!(matches!(refused, StoreError::File { .. }), "{refused}");
    let left = fs::read_dir(directory.path().join("blobs/tmp")).expect("list").count();
    assert_eq!(left, 0);
    fs::remove_file(&shard).expect("remove");
    store.blobs.put(Bytes::from_static(b"x")).await.expect("put");
}

#[tokio::test]
async fn leftovers_of_a_crash_are_cleared() {
    let directory = TempDir::new().expect("a directory");
    let temporary = directory.path().join("blobs/tmp");
    fs::create_dir_all(&temporary).expect("make");
    fs::write(temporary.join("0-half"), "half").expect("write");
    let store = open_embedded(directory.path()).expect("open");
    assert_eq!(fs::read_dir(&temporary).expect("list").count(), 0);
    assert!(store.blobs.list(None, 9).await.expect("list").is_empty());
}

#[tokio::test]
async fn nobody_else_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDir::new().expect("a directory");
    let store = open_embedded(directory.path()).expect("open");
    store.kv.put("a", Bytes::new(), Expect::Any).await.expect("put");
    let digest = store.blobs.put(Bytes::from_static(b"x")).await.expect("put");
    let blob = store.blobs.path(&digest).await.expect("path").expect("a file");
    let beside = ["store.db", "store.db-wal", "store.db-shm"].map(|name| directory.path().join(name));
    for file in beside.into_iter().chain([blob]) {
        let mode = fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
}
