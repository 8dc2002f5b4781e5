//! A process that logs is killed again and again; what it knew to be written must be there, in order and once.

use martlet_model::Timestamp;
use martlet_telemetry::{EventQuery, LogEvent, PageStart, Telemetry, TelemetryOptions};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Names the directory to write to; set in the child only.
const DIRECTORY: &str = "MARTLET_CRASH_TEST_DIRECTORY";

fn open(directory: &Path) -> Telemetry {
    let options = TelemetryOptions {
        commit_every: Duration::from_millis(1),
        retention_days: 0,
        ..TelemetryOptions::default()
    };
    Telemetry::open(directory, options).expect("open")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}

/// The child. Run as a test without the variable it does nothing.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    runtime().block_on(async {
        let telemetry = open(Path::new(&directory));
        let stream = std::process::id().to_string();
        for number in 0_u64.. {
            let event =
                LogEvent { timestamp: Timestamp(number / 3), message: number.to_string(), request_id: None };
            telemetry.log(&"group".into(), &stream.as_str().into(), vec![event]);
            if number % 5 == 4 {
                telemetry.flush().await.expect("flush");
                println!("flushed {stream} {}", number + 1);
            }
        }
    });
}

async fn check(directory: &Path, stream: &str, flushed: usize) {
    let query = EventQuery {
        group: "group".to_owned(),
        stream: stream.to_owned(),
        start: None,
        end: None,
        from: PageStart::Head,
        limit: usize::MAX,
    };
    let page = open(directory).events(query).await.expect("events");
    assert!(flushed <= page.events.len(), "{} of {flushed}", page.events.len());
    for (number, event) in page.events.iter().enumerate() {
        assert_eq!(event.message, number.to_string(), "in order, once, without a gap");
    }
}

#[test]
fn what_was_flushed_survives_kill_9() {
    let directory = tempfile::TempDir::new().expect("a directory");
    for round in 0..20_u64 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "child", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawn");
        let (mut stream, mut flushed, mut said) = (String::new(), 0, 0);
        for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
            let line = line.expect("read");
            if let ["flushed", name, count] = line.split(' ').collect::<Vec<_>>()[..] {
                (stream, flushed) = (name.to_owned(), count.parse().unwrap_or(flushed));
                said += 1;
                if said == 1 + round {
                    std::thread::sleep(Duration::from_micros(round * 1_237 % 4_000));
                    child.kill().expect("kill");
                }
            }
        }
        child.wait().expect("wait");
        runtime().block_on(check(directory.path(), &stream, flushed));
    }
}
