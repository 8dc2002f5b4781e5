//! Responses that are read while the function makes them, and functions that speak for their runtime to do harm by it.

use crate::world::{Function, World, invocation, result, shown};
use bytes::Bytes;
use martlet_environment::{Completion, Environment, Piece, ResponseStream, response_stream};
use std::time::{Duration, Instant};

/// `frame` sends one, whatever the bootstrap is about to send.
const PRELUDE: &str = r#"
import os, select, struct, time
def frame(kind, sequence, payload=b""):
    left = memoryview(struct.pack(">IIII", kind << 24, sequence, 0, len(payload)) + payload)
    while left: left = left[os.write(3, left):]
RESPONSE, BEGIN, DATA, END = 18, 22, 23, 24
def handler(event, context):
"#;

async fn start(world: &World, timeout_seconds: u32, body: &str) -> Environment {
    let runtime = world.runtime("python").expect("a Python on this machine");
    let function = Function { timeout_seconds, ..Function::new(&runtime) };
    let indented: String = body.lines().map(|line| format!("    {line}\n")).collect();
    let deployment = world.deploy(function, &[("app.py", &format!("{PRELUDE}{indented}"))]);
    world.host.start(deployment).await.expect("an environment")
}

fn begin(environment: &mut Environment, payload: &'static str) -> ResponseStream {
    let (sink, stream) = response_stream();
    environment.stream_to(sink);
    environment.begin(invocation(payload));
    stream
}

async fn rest(stream: &mut ResponseStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        if let Piece::Data(data) = piece {
            all.extend_from_slice(&data);
        }
    }
    all
}

/// How it failed, within a bound.
async fn failure(environment: &mut Environment) -> String {
    match tokio::time::timeout(Duration::from_secs(20), environment.complete()).await {
        Ok(Completion::Done(completed)) => {
            assert!(completed.function_error.is_some() && !completed.reusable, "{}", shown(&completed));
            String::from_utf8_lossy(&completed.payload).into_owned()
        }
        Ok(Completion::Undelivered(_)) => panic!("the event would have been given to another"),
        Err(_) => panic!("it never ends"),
    }
}

/// What was answered may have been read, so nobody else may be given the event, even if nobody has read that.
pub(crate) async fn an_event_that_was_answered_in_part_is_nobody_elses(world: World) {
    let body = "frame(RESPONSE, 1, b'1')\nselect.select([3], [], [])\nframe(BEGIN, 2, b'half')\nos._exit(1)";
    let mut environment = start(&world, 10, body).await;
    assert_eq!(result(&mut environment, "{}").await, 1);
    let mut stream = begin(&mut environment, "{}");
    assert!(failure(&mut environment).await.contains("Runtime.ExitError"));
    assert_eq!(rest(&mut stream).await, b"half");
    environment.stop().await;
}

/// Back-pressure is no way around the deadline, and neither is a stream that nobody reads.
pub(crate) async fn a_stream_without_end_ends_at_the_deadline(world: World) {
    let body = "frame(BEGIN, 1)\nwhile True: frame(DATA, 1, b'x' * 65536)";
    for read in ["never", "not any more"] {
        let mut environment = start(&world, 1, body).await;
        let stream = begin(&mut environment, "{}");
        let begun = Instant::now();
        let kept = if read == "never" { Some(stream) } else { None };
        assert!(failure(&mut environment).await.contains("Sandbox.Timedout"), "{read}");
        assert!(begun.elapsed() < Duration::from_secs(15), "{read}");
        if let Some(mut stream) = kept {
            assert!(rest(&mut stream).await.len() < 1024 * 1024, "more was kept than a reader may be behind");
        }
        environment.stop().await;
    }
}

pub(crate) async fn a_stream_that_keeps_no_rules_ends_its_environment(world: World) {
    for (what, body) in [
        ("a piece before the beginning", "frame(DATA, 1, b'x')"),
        ("two beginnings", "frame(BEGIN, 1)\nframe(BEGIN, 1)"),
        ("another event's", "frame(BEGIN, 1)\nframe(DATA, 2, b'x')"),
        ("a whole answer in the middle", "frame(BEGIN, 1)\nframe(RESPONSE, 1, b'1')"),
        ("a piece that is too long", "frame(BEGIN, 1)\nframe(DATA, 1, b'x' * 300000)"),
        ("no frame", "frame(BEGIN, 1)\nos.write(3, b'GET / HTTP/1.1\\r\\n\\r\\n')"),
    ] {
        let mut environment = start(&world, 10, &format!("{body}\ntime.sleep(1000)")).await;
        let _stream = begin(&mut environment, "{}");
        assert!(failure(&mut environment).await.contains("Runtime.ExitError"), "{what}");
        environment.stop().await;
    }
}

pub(crate) async fn what_is_bought_by_a_stream_is_metered(world: World) {
    let body = "frame(BEGIN, 1, b'12345')\nframe(DATA, 1, b'67890')\nframe(END, 1)\ntime.sleep(1000)";
    let mut environment = start(&world, 10, body).await;
    let mut stream = begin(&mut environment, "{}");
    match environment.complete().await {
        Completion::Done(completed) => {
            assert!(
                completed.function_error.is_none() && completed.payload == Bytes::new(),
                "{}",
                shown(&completed)
            );
        }
        Completion::Undelivered(_) => panic!("it was delivered"),
    }
    assert_eq!(rest(&mut stream).await, b"1234567890");
    environment.stop().await;
    let bills = world.bills().await;
    assert_eq!(bills.iter().map(|bill| bill.bytes_out).collect::<Vec<_>>(), [10]);
}
