//! A process that writes and says what was acknowledged is killed again and again; everything it said must be there.

use bytes::Bytes;
use martlet_model::Timestamp;
use martlet_store::{Expect, open_embedded};
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Names the directory to write to; set in the child only.
const DIRECTORY: &str = "MARTLET_CRASH_TEST_DIRECTORY";
const WRITERS: u64 = 8;
const KILLS: u64 = 60;

/// The child. Run as a test without the variable it does nothing.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let store = Arc::new(open_embedded(Path::new(&directory)).expect("open"));
        let run = std::process::id();
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let store = store.clone();
            writers.spawn(async move {
                for number in 0_u64.. {
                    let name = format!("{run}.{writer}.{number}");
                    let pair = [Bytes::from(name.clone()), Bytes::from(name.clone())];
                    let position = store.log.append("log", &pair).await.expect("append");
                    println!("log {position} {name}");
                    let key = format!("key{writer}");
                    store.kv.put(&key, name.clone().into(), Expect::Any).await.expect("put");
                    println!("kv {key} {name}");
                    let leased = store.log.lease("log", 1, Timestamp(number), Timestamp(number)).await;
                    for leased in leased.expect("lease") {
                        println!("lease {} {}", leased.lease.position, leased.lease.attempt);
                    }
                    if number % 4 == 0 {
                        let digest = store.blobs.put(Bytes::from(name.clone())).await.expect("put");
                        println!("blob {digest} {name}");
                    }
                }
            });
        }
        while writers.join_next().await.is_some() {}
    });
}

/// What children said they were told.
#[derive(Default)]
struct Said {
    log: HashMap<u64, String>,
    /// The newest value acknowledged; the one after it may or may not be there.
    kv: HashMap<String, String>,
    blobs: HashMap<String, String>,
    attempts: HashMap<u64, u32>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["log", position, name] => {
                let before = self.log.insert(position.parse().expect("a position"), name.to_owned());
                assert_eq!(before, None, "a position was given out twice");
            }
            ["kv", key, name] => {
                self.kv.insert(key.to_owned(), name.to_owned());
            }
            ["lease", position, attempt] => {
                let attempt = attempt.parse().expect("a number");
                let before = self.attempts.insert(position.parse().expect("a position"), attempt);
                assert!(before < Some(attempt), "attempt {attempt} after {before:?}");
            }
            ["blob", digest, name] => {
                self.blobs.insert(digest.to_owned(), name.to_owned());
            }
            // What the test harness says; a last line that the kill cut off is not whole and so not heard.
            _ => {}
        }
    }
}

/// Runs a child for as long as it takes to say `lines` lines and a bit, kills it, and hears it out.
fn run_and_kill(directory: &Path, said: &mut Said, lines: u64, bit: Duration) {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "child", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawn");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let (mut heard, mut line) = (0, String::new());
    loop {
        line.clear();
        let length = output.read_line(&mut line).expect("read");
        if length == 0 {
            break;
        }
        if line.ends_with('\n') {
            said.hear(line.trim_end());
        }
        heard += 1;
        if heard == lines {
            std::thread::sleep(bit);
            child.kill().expect("kill");
        }
    }
    child.wait().expect("wait");
    assert!(lines <= heard, "the child ended by itself");
}

async fn check(directory: &Path, said: &Said) {
    let store = open_embedded(directory).expect("open after a kill");
    let records = store.log.read("log", 1, usize::MAX).await.expect("read");
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record.position, index as u64 + 1, "no gaps");
    }
    for pair in records.chunks(2) {
        assert_eq!(pair.len(), 2, "half an append");
        assert_eq!(pair[0].payload, pair[1].payload, "half an append");
    }
    for (position, name) in &said.log {
        assert_eq!(records.get(*position as usize - 1).map(|r| &r.payload[..]), Some(name.as_bytes()));
    }
    for (key, name) in &said.kv {
        let found = store.kv.get(key).await.expect("get").expect("the key is there");
        let found = String::from_utf8(found.value.to_vec()).expect("text");
        let number =
            |name: &str| name.rsplit('.').next().and_then(|n| n.parse::<u64>().ok()).expect("a number");
        let run = |name: &str| name.split('.').next().map(str::to_owned);
        let newer = run(&found) != run(name) || number(name) <= number(&found);
        assert!(newer, "{key} is {found}, {name} was acknowledged");
    }
    for (digest, name) in &said.blobs {
        let blob = store.blobs.get(&digest.parse().expect("a digest")).await.expect("get");
        assert_eq!(blob.as_deref(), Some(name.as_bytes()));
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let mut said = Said::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for round in 0..KILLS {
        // Different moments of the child's life, also right after its start.
        let bit = Duration::from_micros(round * 7_919 % 6_000);
        run_and_kill(directory.path(), &mut said, 1 + round * round % 397, bit);
        runtime.block_on(check(directory.path(), &said));
    }
    assert!(
        300 < said.log.len() && !said.attempts.is_empty() && !said.blobs.is_empty(),
        "{}",
        said.log.len()
    );
}
