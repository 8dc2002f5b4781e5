//! Python and Node.

use crate::world::{Function, World, failure, invocation, invoke, kill_from_outside, result, shown, tail};
use martlet_environment::Completion;
use martlet_model::function::{LogFormat, Logging};
use martlet_telemetry::Status;
use serde_json::json;
use std::time::{Duration, Instant};

fn python(world: &World) -> Function {
    Function::new(&world.runtime("python").expect("a Python on this machine"))
}

fn node(world: &World) -> Option<Function> {
    Some(Function::new(&world.runtime("nodejs")?))
}

pub(crate) async fn a_function_is_invoked_again_and_again(world: World) {
    let code = "count = 0\ndef handler(event, context):\n    global count\n    count += 1\n    print('run', count)\n    return [count, event]";
    for runtime in world.pythons() {
        let mut environment = world.start(Function::new(&runtime), &[("app.py", code)]).await;
        for run in 1..=3 {
            let completed = invoke(&mut environment, r#"{"k":"ü"}"#).await;
            let answer: serde_json::Value = serde_json::from_slice(&completed.payload).expect("JSON");
            assert_eq!(answer, json!([run, {"k": "ü"}]), "{runtime}");
            let lines = tail(&completed);
            assert_eq!(lines.len(), 4, "{lines:?}");
            assert!(lines[0].starts_with("START RequestId: ") && lines[0].ends_with(" Version: $LATEST"));
            assert_eq!(lines[1], format!("run {run}"));
            assert!(lines[2].starts_with("END RequestId: "));
            assert!(lines[3].contains("\tMemory Size: 256 MB\tMax Memory Used: "), "{lines:?}");
            assert_eq!(lines[3].contains("Init Duration: "), run == 1, "{lines:?}");
        }
        assert!(environment.memory_bytes() > 1 << 20);
        let exited = environment.exited();
        environment.stop().await;
        exited.await;
    }
    let bills = world.bills().await;
    assert_eq!(bills.len(), 3 * world.pythons().len());
    assert!(bills[0].cold_start && bills[0].init_micros > 0 && !bills[1].cold_start, "{bills:?}");
    assert!(bills.iter().all(|bill| bill.status == Status::Succeeded && bill.bytes_in == 10), "{bills:?}");
    assert!(bills.iter().all(|bill| bill.cpu_micros > 0 && bill.max_memory_bytes > 1 << 20), "{bills:?}");
    assert!(bills[0].billed_millis * 1000 >= bills[0].init_micros + bills[0].duration_micros, "{bills:?}");
    let log = world.log().await;
    assert!(log.iter().any(|line| line.starts_with("INIT_START Runtime Version: python:3.")), "{log:?}");
}

pub(crate) async fn node_runs_too(world: World) {
    let Some(function) = node(&world) else { return };
    let code = "let n = 0; exports.handler = async (event, context) => { console.log('one\\ntwo'); process.stdout.write('raw\\n'); return [++n, event, context.awsRequestId.length, process.version]; };";
    let mut environment = world.start(function, &[("app.js", code)]).await;
    for run in 1..=2 {
        let completed = invoke(&mut environment, "{}").await;
        let answer: serde_json::Value = serde_json::from_slice(&completed.payload).expect("JSON");
        assert_eq!((&answer[0], &answer[2]), (&json!(run), &json!(36)), "{}", shown(&completed));
        let lines = tail(&completed);
        assert!(lines[1].ends_with("\tINFO\tone") && lines[2] == "two" && lines[3] == "raw", "{lines:?}");
    }
    environment.stop().await;
}

pub(crate) async fn a_tight_loop_is_stopped_at_its_deadline(world: World) {
    // A loop inside one native call: no signal handler of the interpreter ever runs.
    let code = "def handler(event, context):\n    print('in')\n    return sum(range(10**14))";
    let mut environment =
        world.start(Function { timeout_seconds: 1, ..python(&world) }, &[("app.py", code)]).await;
    let begun = Instant::now();
    let (document, completed) = failure(&mut environment, "{}").await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(document["errorType"], "Sandbox.Timedout");
    let message = document["errorMessage"].as_str().expect("text");
    assert!(message.ends_with(" Error: Task timed out after 1.00 seconds"), "{message}");
    assert!(!completed.reusable);
    let lines = tail(&completed);
    assert_eq!(lines[1], "in");
    assert!(lines[2].ends_with(" Task timed out after 1.00 seconds"), "{lines:?}");
    assert!(lines[4].contains("Duration: 1000.00 ms") && lines[4].ends_with("Status: timeout"), "{lines:?}");
    environment.exited().await;
    environment.stop().await;
    assert_eq!(world.bills().await[0].status, Status::TimedOut);
}

pub(crate) async fn crashes_are_told_by_their_cause(world: World) {
    let code = "import os, sys\ndef handler(event, context):\n    print('last words')\n    if event == 'exit': sys.exit(3)\n    if event == 'zero': os._exit(0)\n    os.kill(os.getpid(), event)";
    for (event, reason) in [
        ("\"exit\"", "Runtime exited with error: exit status 3"),
        ("\"zero\"", "Runtime exited without providing a reason"),
        ("11", "Runtime exited with error: signal: segmentation fault"),
        ("9", "Runtime exited with error: signal: killed"),
    ] {
        let mut environment = world.start(python(&world), &[("app.py", code)]).await;
        let (document, completed) = failure(&mut environment, event).await;
        assert_eq!(document["errorType"], "Runtime.ExitError", "{}", shown(&completed));
        let message = document["errorMessage"].as_str().expect("text");
        assert!(
            message.starts_with("RequestId: ") && message.ends_with(&format!(" Error: {reason}")),
            "{message}"
        );
        assert!(!completed.reusable);
        let lines = tail(&completed);
        assert_eq!(lines[1], "last words");
        assert!(lines[2].ends_with(reason) && lines[3] == "Runtime.ExitError", "{lines:?}");
        assert!(lines[5].ends_with("Status: error\tError Type: Runtime.ExitError"), "{lines:?}");
        environment.stop().await;
    }
}

pub(crate) async fn running_out_of_memory_is_told_as_such(world: World) {
    let code = "def handler(event, context):\n    hoard = []\n    while True:\n        hoard.append(bytearray(1 << 20))";
    let function = Function { memory_mb: 128, ..python(&world) };
    let mut environment = world.start(function, &[("app.py", code)]).await;
    let (document, completed) = failure(&mut environment, "{}").await;
    assert_eq!(document["errorType"], "Runtime.OutOfMemory", "{}", shown(&completed));
    assert!(
        document["errorMessage"]
            .as_str()
            .expect("text")
            .ends_with("Runtime exited with error: signal: killed")
    );
    assert!(tail(&completed).last().expect("a line").ends_with("Error Type: Runtime.OutOfMemory"));
    environment.stop().await;
    let bill = &world.bills().await[0];
    assert_eq!(bill.status, Status::OutOfMemory);
    assert!(bill.max_memory_bytes > 100 << 20, "{bill:?}");
}

pub(crate) async fn a_failed_init_phase_is_run_again_inside_the_invocation(world: World) {
    let code = "print('importing')\nimport nothing_of_that_name";
    let mut environment = world.start(python(&world), &[("app.py", code)]).await;
    let (document, completed) = failure(&mut environment, "{}").await;
    assert_eq!(document["errorType"], "Runtime.ImportModuleError");
    assert!(!completed.reusable);
    let lines = tail(&completed);
    assert_eq!(lines[0], "importing", "{lines:?}");
    assert!(
        lines[1].starts_with("[ERROR] Runtime.ImportModuleError: Unable to import module 'app'"),
        "{lines:?}"
    );
    let reported =
        lines.iter().position(|line| line.starts_with("INIT_REPORT Init Duration: ")).expect("a report");
    assert!(
        lines[reported].ends_with("\tPhase: invoke\tStatus: error\tError Type: Runtime.ImportModuleError")
    );
    assert!(lines[reported + 1].starts_with("START RequestId: "), "{lines:?}");
    assert!(lines.last().expect("a line").ends_with("Status: error\tError Type: Runtime.ImportModuleError"));
    environment.stop().await;
    let log = world.log().await;
    assert!(log.iter().any(|line| line.contains("\tPhase: init\tStatus: error")), "{log:?}");
    let bill = &world.bills().await[0];
    assert!(bill.duration_micros > 1000 && bill.init_micros == 0 && bill.cold_start, "{bill:?}");

    // What fails only once works the second time.
    let code = "import os, sys\nif not os.path.exists('/proc/self/fd/99') and len(os.listdir('/tmp')) == 0 and os.environ.get('X') == '1': sys.exit(1)\ndef handler(e, c): return 1";
    let mut function = python(&world);
    function.environment.insert("X".into(), "1".into());
    let mut broken = world.start(function, &[("app.py", code)]).await;
    let (document, completed) = failure(&mut broken, "{}").await;
    assert_eq!(document["errorType"], "Runtime.ExitError", "{}", shown(&completed));
    broken.stop().await;
}

pub(crate) async fn an_init_phase_that_takes_too_long_gets_the_functions_timeout(world: World) {
    let code = "import time\ntime.sleep(10.5)\ndef handler(event, context):\n    return 'slow but sure'";
    let function = Function { timeout_seconds: 30, ..python(&world) };
    let begun = Instant::now();
    let mut environment = world.start(function, &[("app.py", code)]).await;
    assert!((10..15).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let log = world.log().await;
    assert!(log.iter().any(|line| line.ends_with("\tPhase: init\tStatus: timeout")), "{log:?}");
    let completed = invoke(&mut environment, "{}").await;
    assert_eq!(completed.payload, "\"slow but sure\"", "{}", shown(&completed));
    assert!(completed.reusable);
    assert!(world.bills().await[0].duration_micros > 10_000_000);
    assert_eq!(result(&mut environment, "{}").await, "slow but sure");
    environment.stop().await;
}

pub(crate) async fn limits_of_events_and_results_hold(world: World) {
    let code =
        "def handler(event, context):\n    return len(event) if isinstance(event, str) else 'y' * event";
    let mut environment = world.start(python(&world), &[("app.py", code)]).await;
    let event = format!("\"{}\"", "x".repeat(6 * 1024 * 1024 - 2));
    assert_eq!(result(&mut environment, event).await, 6 * 1024 * 1024 - 2);
    let (document, completed) = failure(&mut environment, (6 * 1024 * 1024 + 200).to_string()).await;
    assert_eq!(document["errorType"], "Function.ResponseSizeTooLarge");
    assert_eq!(
        document["errorMessage"],
        "Response payload size exceeded maximum allowed payload size (6291556 bytes)."
    );
    assert!(completed.reusable);
    assert_eq!(result(&mut environment, "3").await, "yyy");
    environment.stop().await;
}

pub(crate) async fn an_invocation_survives_that_nobody_waits_for_it(world: World) {
    let code = "import time\ndef handler(event, context):\n    time.sleep(event)\n    return event";
    let mut environment = world.start(python(&world), &[("app.py", code)]).await;
    environment.begin(invocation("0.3"));
    for _ in 0..3 {
        let given_up = tokio::time::timeout(Duration::from_millis(50), environment.complete()).await;
        assert!(given_up.is_err(), "{given_up:?}");
    }
    match environment.complete().await {
        Completion::Done(completed) => assert_eq!(completed.payload, "0.3", "{}", shown(&completed)),
        Completion::Undelivered(_) => panic!("it was delivered"),
    }
    environment.freeze();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(result(&mut environment, "0").await, 0);
    environment.stop().await;
}

pub(crate) async fn an_environment_that_dies_idle_gives_the_event_back(world: World) {
    let code = "def handler(event, context):\n    return 1";
    for (frozen, noticed) in [(false, true), (false, false), (true, false)] {
        let mut environment = world.start(python(&world), &[("app.py", code)]).await;
        result(&mut environment, "0").await;
        if frozen {
            environment.freeze();
        }
        // A frozen process dies at the thaw, when the event is on its way already.
        kill_from_outside(&environment);
        if noticed {
            environment.exited().await;
        }
        environment.begin(invocation("0"));
        match environment.complete().await {
            Completion::Undelivered(invocation) => assert_eq!(invocation.payload, "0"),
            Completion::Done(completed) => panic!("{frozen} {noticed} {}", shown(&completed)),
        }
        environment.stop().await;
    }
    assert_eq!(world.bills().await.len(), 3, "an event that was not delivered is not billed");
}

pub(crate) async fn output_is_complete_and_in_order(world: World) {
    let code = r#"
import logging, os, subprocess, sys
logger = logging.getLogger()
logger.setLevel("INFO")
def handler(event, context):
    for number in range(event):
        print("line", number * 4)
        logger.info("line %d\nof two", number * 4 + 1)
        os.write(2, b"line %d\n" % (number * 4 + 2))
        print("line", number * 4 + 3, file=sys.stderr)
    subprocess.run(["/bin/echo", "child"])
    sys.stdout.write("no newline")
"#;
    let mut environment = world.start(python(&world), &[("app.py", code)]).await;
    assert!(invoke(&mut environment, "500").await.function_error.is_none());
    let completed = invoke(&mut environment, "1").await;
    let lines = tail(&completed);
    assert_eq!((lines[1], lines[3], lines[4]), ("line 0", "of two", "line 2"), "{lines:?}");
    assert_eq!((lines[6], lines[7]), ("child", "no newline"), "{lines:?}");
    environment.stop().await;
    let log = world.log().await;
    let numbers: Vec<usize> = log
        .iter()
        .filter_map(|message| message.split("line ").nth(1)?.split_whitespace().next()?.parse().ok())
        .collect();
    assert_eq!(numbers[..2000], (0..2000).collect::<Vec<_>>());
    assert_eq!(log.iter().filter(|message| message.ends_with("\nof two")).count(), 501);

    let function =
        Function { logging: Logging { format: LogFormat::Json, ..Logging::default() }, ..python(&world) };
    let mut environment = world.start(function, &[("app.py", code)]).await;
    let completed = invoke(&mut environment, "1").await;
    let lines = tail(&completed);
    let kind = |line: &str| -> serde_json::Value {
        serde_json::from_str::<serde_json::Value>(line).expect("JSON")["type"].clone()
    };
    assert_eq!(kind(lines[0]), "platform.start");
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(lines[2]).expect("JSON")["message"],
        "line 1\nof two"
    );
    assert_eq!(kind(lines.last().expect("a line")), "platform.report");
    environment.stop().await;
}

pub(crate) async fn a_wrapper_starts_the_interpreter(world: World) {
    let script = "#!/bin/sh\nexport WRAPPED=yes\nexec \"$@\"\n";
    let files = [
        ("app.py", "import os\ndef handler(e, c): return os.environ.get('WRAPPED')"),
        ("app.js", "exports.handler = async () => process.env.WRAPPED;"),
        ("bin/bootstrap", script),
    ];
    for mut function in [Some(python(&world)), node(&world)].into_iter().flatten() {
        function.environment.insert("AWS_LAMBDA_EXEC_WRAPPER".into(), "/var/task/bin/bootstrap".into());
        let mut environment = world.start(function, &files).await;
        assert_eq!(result(&mut environment, "{}").await, "yes");
        environment.stop().await;
    }
    let mut function = python(&world);
    function.environment.insert("AWS_LAMBDA_EXEC_WRAPPER".into(), "/opt/not-there".into());
    let mut environment = world.start(function, &files).await;
    let (document, completed) = failure(&mut environment, "{}").await;
    assert_eq!(document["errorType"], "Runtime.InvalidEntrypoint", "{}", shown(&completed));
    environment.stop().await;
}

pub(crate) async fn later_starts_use_the_compiled_bootstrap(world: World) {
    let code = "import os, sys\ndef handler(event, context):\n    if event: raise KeyError(event)\n    return [sys.argv[0], os.listdir('/var/runtime')]";
    for runtime in world.pythons() {
        for _ in 0..100 {
            let mut environment = world.start(Function::new(&runtime), &[("app.py", code)]).await;
            let seen = result(&mut environment, "0").await;
            let compiled = seen[0] == "/var/runtime/bootstrap.pyc";
            if compiled {
                let files = seen[1].as_array().expect("names");
                assert!(files.contains(&json!("bootstrap.pyc")) && !files.contains(&json!("bootstrap.py")));
                let (document, _) = failure(&mut environment, "1").await;
                let trace = document["stackTrace"].as_array().expect("a trace");
                assert_eq!(trace.len(), 1, "no frame of the bootstrap is shown: {trace:?}");
            }
            environment.stop().await;
            if compiled {
                break;
            }
        }
    }
}

pub(crate) async fn the_function_sees_lambdas_world(world: World) {
    let code = r#"
import getpass, locale, os, socket, sys, tempfile
def handler(event, context):
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x")
    try:
        open("/var/task/new", "w")
    except OSError as error:
        refused = error.errno
    print("\u00fc")
    return {
        "cwd": os.getcwd(), "variables": dict(os.environ), "path": sys.path[:3], "prefix": sys.prefix,
        "encoding": [sys.stdout.encoding, sys.getfilesystemencoding()], "refused": refused,
        "files": sorted(os.listdir("/var/runtime")), "uid": os.getuid(),
        "log": [context.log_group_name, context.log_stream_name],
    }
"#;
    for runtime in world.pythons() {
        let mut function = Function::new(&runtime);
        function.environment.insert("MINE".into(), "1".into());
        let mut environment = world.start(function, &[("app.py", code)]).await;
        let completed = invoke(&mut environment, "{}").await;
        assert!(completed.function_error.is_none(), "{}", shown(&completed));
        let seen: serde_json::Value = serde_json::from_slice(&completed.payload).expect("JSON");
        assert_eq!(seen["cwd"], "/var/task");
        assert_eq!(seen["path"][0], "/var/task");
        assert_eq!(seen["refused"], 30, "EROFS");
        assert_eq!(seen["encoding"], json!(["utf-8", "utf-8"]), "{runtime}");
        assert_eq!(tail(&completed)[1], "ü");
        let variables = &seen["variables"];
        assert_eq!((&variables["MINE"], &variables["TZ"]), (&json!("1"), &json!(":UTC")));
        assert_eq!(variables["AWS_EXECUTION_ENV"], format!("AWS_Lambda_{runtime}"));
        assert!(variables.get("HOME").is_none() && variables.get("AWS_ACCESS_KEY_ID").is_none());
        assert!(variables.get("_LAMBDA_TELEMETRY_LOG_FD").is_none(), "it is the runtime's own");
        assert_eq!(seen["log"][0], "/aws/lambda/under-test");
        let stream = seen["log"][1].as_str().expect("text");
        assert!(stream.ends_with(&format!("/[$LATEST]{}", environment.id())), "{stream}");
        environment.stop().await;
    }
}
