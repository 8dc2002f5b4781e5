//! The server may die at any step. Whatever it had answered is there afterwards, whatever it had not is there wholly
//! or not at all, and nothing is left behind.

#![allow(clippy::unwrap_used, reason = "these are tests, though the lint does not see it in helpers")]

mod common;

use bytes::Bytes;
use common::{Fixture, arn, eventually, names, new, watching, zip};
use martlet_functions::{CodeUpdate, Functions, FunctionsError, Publish, State, Update};
use martlet_store::{
    Answer, Blobs, Digest, Entry, Expect, KeyValue, Memory, Revision, Store, StoreError, Watch, Write,
};
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// A store that dies after a number of writes. The last one happens or does not; nobody is told which.
#[derive(Clone)]
struct Mortal {
    store: Store,
    left: Arc<AtomicI64>,
    last_happens: bool,
}

impl Mortal {
    fn store(&self) -> Store {
        let provider = Arc::new(self.clone());
        Store { log: self.store.log.clone(), kv: provider.clone(), blobs: provider }
    }

    fn write<T: Send + 'static>(&self, answer: Answer<T>) -> Answer<T> {
        let mortal = self.clone();
        Box::pin(async move {
            match mortal.left.fetch_sub(1, Ordering::SeqCst) {
                left if left > 1 => answer.await,
                1 if mortal.last_happens => answer.await.and(Err(StoreError::Closed)),
                _ => Err(StoreError::Closed),
            }
        })
    }

    fn read<T: Send + 'static>(&self, answer: Answer<T>) -> Answer<T> {
        let dead = self.left.load(Ordering::SeqCst) <= 0;
        Box::pin(async move { if dead { Err(StoreError::Closed) } else { answer.await } })
    }
}

impl KeyValue for Mortal {
    fn get(&self, key: &str) -> Answer<Option<Entry>> {
        self.read(self.store.kv.get(key))
    }
    fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Answer<Vec<(String, Entry)>> {
        self.read(self.store.kv.list(prefix, after, max))
    }
    fn put(&self, key: &str, value: Bytes, expect: Expect) -> Answer<Revision> {
        self.write(self.store.kv.put(key, value, expect))
    }
    fn delete(&self, key: &str, expect: Expect) -> Answer<bool> {
        self.write(self.store.kv.delete(key, expect))
    }
    fn batch(&self, writes: Vec<Write>) -> Answer<Vec<Revision>> {
        self.write(self.store.kv.batch(writes))
    }
    fn watch(&self, prefix: &str) -> Watch {
        self.store.kv.watch(prefix)
    }
}

impl Blobs for Mortal {
    fn put(&self, bytes: Bytes) -> Answer<Digest> {
        self.write(self.store.blobs.put(bytes))
    }
    fn get(&self, digest: &Digest) -> Answer<Option<Bytes>> {
        self.read(self.store.blobs.get(digest))
    }
    fn path(&self, digest: &Digest) -> Answer<Option<PathBuf>> {
        self.read(self.store.blobs.path(digest))
    }
    fn list(&self, after: Option<&Digest>, max: usize) -> Answer<Vec<Digest>> {
        self.read(self.store.blobs.list(after, max))
    }
    fn delete(&self, digest: &Digest) -> Answer<bool> {
        self.write(self.store.blobs.delete(digest))
    }
}

/// Waits until nothing of the function is pending, or the store is dead and nothing will ever change again.
async fn settled_or_dead(functions: &Functions, left: &AtomicI64) {
    eventually("settled or dead", async || {
        let pending = functions.get(&arn("f")).is_some_and(|function| {
            function.latest().update == Some(Update::InProgress)
                || function.versions().any(|version| version.state == State::Pending)
        });
        !pending || left.load(Ordering::SeqCst) <= 0
    })
    .await;
}

/// A life of one function, step by step, each answer told; returns how many steps were answered.
async fn live(functions: &Functions, left: &AtomicI64, answer: impl Fn()) -> usize {
    let update = |content: &str, publish| CodeUpdate {
        zip: zip(content),
        architecture: None,
        publish,
        dry_run: false,
        expected_revision: None,
    };
    let mut answered = 0;
    macro_rules! step {
        ($step:expr) => {
            if $step.await.is_err() {
                return answered;
            }
            answered += 1;
            answer();
            settled_or_dead(functions, left).await;
        };
    }
    step!(functions.create(new("f", "one")));
    step!(functions.publish(&arn("f"), Publish::default()));
    step!(functions.update_code(&arn("f"), update("two", false)));
    step!(functions.update_settings(&arn("f"), None, |s| s.configuration.memory_mb = 256));
    step!(functions.update_code(&arn("f"), update("three", true)));
    step!(functions.delete_version(&arn("f"), 1));
    step!(functions.delete(&arn("f")));
    answered
}

/// What can be seen of the function: memory, code and published versions of what is configured.
fn seen(functions: &Functions) -> Option<(u32, String, Vec<String>)> {
    let function = functions.get(&arn("f"))?;
    let latest = &function.latest().version;
    let numbers = function.versions().skip(1).map(|version| version.version.version.to_string());
    Some((latest.configuration.memory_mb, latest.code.digest.clone(), numbers.collect()))
}

/// What is seen after so many answered steps.
fn expected(steps: usize) -> Option<(u32, String, Vec<String>)> {
    let digest = |content: &str| Digest::of(&zip(content)).to_string();
    let numbers = |numbers: &[&str]| numbers.iter().map(|&number| number.to_owned()).collect();
    match steps {
        1 => Some((128, digest("one"), numbers(&[]))),
        2 => Some((128, digest("one"), numbers(&["1"]))),
        3 => Some((128, digest("two"), numbers(&["1"]))),
        4 => Some((256, digest("two"), numbers(&["1"]))),
        5 => Some((256, digest("three"), numbers(&["1", "2"]))),
        6 => Some((256, digest("three"), numbers(&["2"]))),
        _ => None,
    }
}

/// After a start: everything settles, everything runs, and only what is referred to exists.
async fn assert_whole(fixture: &Fixture, store: &Store, folder: &Path) {
    let mut digests = BTreeSet::new();
    for function in fixture.functions.list(&arn("f").account, &arn("f").region) {
        let settled = fixture.settled(function.arn()).await;
        for version in settled.versions() {
            assert_eq!(version.state, State::Active);
            digests.insert(version.version.code.digest.clone());
            let qualifier = version.version.version.qualifier();
            let deployment = fixture.functions.resolve(settled.arn(), Some(&qualifier)).unwrap();
            assert!(deployment.code_dir.join("lib/more.py").exists());
        }
    }
    let digests: Vec<String> = digests.into_iter().collect();
    eventually("only what is referred to exists", async || {
        fixture.functions.maintain().await;
        let blobs = store.blobs.list(None, 99).await.unwrap();
        let keys = store.kv.list("packages/", None, 99).await.unwrap();
        names(folder) == digests
            && blobs.iter().map(ToString::to_string).collect::<Vec<_>>() == digests
            && keys.iter().map(|(key, _)| key["packages/".len()..].to_owned()).collect::<Vec<_>>() == digests
    })
    .await;
}

#[tokio::test]
async fn whatever_write_is_the_last_one() {
    let (mut reached, mut writes) = (0, 0);
    while reached < 7 {
        writes += 1;
        assert!(writes < 200, "the life never ends");
        for last_happens in [false, true] {
            let (memory, folder) = (Memory::default(), tempfile::tempdir().unwrap());
            let left = Arc::new(AtomicI64::new(writes));
            let mortal = Mortal { store: memory.open(), left: left.clone(), last_happens };
            let answered = match Functions::open(mortal.store(), folder.path(), watching()).await {
                Ok(functions) => live(&functions, &left, || {}).await,
                Err(_) => 0,
            };
            left.store(0, Ordering::SeqCst);
            reached = reached.max(answered);

            let store = memory.open();
            let fixture = Fixture::open(&store, folder.path()).await;
            let now = seen(&fixture.functions);
            assert!(
                now == expected(answered) || now == expected(answered + 1),
                "after {writes} writes and {answered} answers: {now:?}"
            );
            assert_whole(&fixture, &store, folder.path()).await;
        }
    }
}

const CHILD: &str = "MARTLET_CRASH_TEST_CHILD";

/// Not a test by itself: what the killed process does, until it is killed. Prints a line for each answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let store = martlet_store::open_embedded(&folder.join("store")).unwrap();
    let functions = Functions::open(store, &folder.join("packages"), watching()).await.unwrap();
    let alive = AtomicI64::new(i64::MAX);
    let say = |line: &str| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
    };
    if functions.get(&arn("f")).is_some() {
        functions.delete(&arn("f")).await.unwrap();
    }
    say("began");
    loop {
        live(&functions, &alive, || say("answered")).await;
        let mut keeper = new("keeper", "kept");
        keeper.publish = true;
        // One that is there was kept by a predecessor which was killed before it could say so.
        if matches!(functions.create(keeper).await, Ok(_) | Err(FunctionsError::Exists(_))) {
            say("keeper");
        }
    }
}

#[tokio::test]
async fn kill_minus_nine_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = false;
    for round in 0..20u32 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("began")), "the child of round {round} did not start");
        // The moment is the point: after another number of answers each round, and a bit into what follows.
        for _ in 0..round % 10 {
            kept |= lines.next().is_some_and(|line| line.contains("keeper"));
        }
        // On a busy machine the moments above may all come early; one child at least lives until it has created.
        if round == 19 && !kept {
            kept = lines.any(|line| line.contains("keeper"));
        }
        tokio::time::sleep(Duration::from_millis(u64::from(round % 7))).await;
        child.kill().unwrap();
        child.wait().unwrap();
        // It may have answered more than was read so far.
        kept |= lines.any(|line| line.contains("keeper"));
        kept |= lines.any(|line| line.contains("keeper"));

        let store = martlet_store::open_embedded(&folder.path().join("store")).unwrap();
        let packages = folder.path().join("packages");
        let fixture = Fixture::open(&store, &packages).await;
        assert_whole(&fixture, &store, &packages).await;
        if kept {
            assert!(fixture.functions.get(&arn("keeper")).is_some(), "an answered creation is gone");
        }
    }
    assert!(kept, "no child lived long enough");
}
