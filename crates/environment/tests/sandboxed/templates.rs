//! Environments that are forked from a template.

use crate::world::{Function, World, failure, invocation, invoke, result, shown, tail};
use martlet_environment::{Completion, Environment, Prepared, StartError, StartMode};
use martlet_model::function::{LogFormat, Logging};
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;

fn python(world: &World) -> Function {
    Function::new(&world.runtime("python").expect("a Python on this machine"))
}

fn node(world: &World) -> Option<Function> {
    Some(Function::new(&world.runtime("nodejs")?))
}

pub(crate) async fn python_environments_are_forked(world: World) {
    let code = r#"
import os
print("loading in", os.environ["AWS_LAMBDA_LOG_STREAM_NAME"])
loaded, count, pid = os.getpid(), 0, None
def handler(event, context):
    global count
    count += 1
    print("run", count)
    return {"count": count, "event": event, "loaded": loaded, "pid": os.getpid(), "files": os.listdir("/tmp"),
        "stream": [os.environ["AWS_LAMBDA_LOG_STREAM_NAME"], context.log_stream_name],
        "mine": os.environ["MINE"], "template": os.environ.get("_MARTLET_TEMPLATE")}
"#;
    for runtime in world.pythons() {
        let mut function = Function::new(&runtime);
        function.environment.insert("MINE".into(), "ü".into());
        let template = world.template(function, &[("app.py", code)]).await;
        assert!(template.memory_bytes() > 1 << 20);
        assert_eq!(world.host.start_mode(template.deployment()), StartMode::Fork);
        for number in 0..3 {
            let mut environment = world.fork(&template).await;
            for run in 1..=2 {
                let completed = invoke(&mut environment, r#"{"k":1}"#).await;
                assert!(completed.function_error.is_none(), "{}", shown(&completed));
                let seen: serde_json::Value = serde_json::from_slice(&completed.payload).expect("JSON");
                assert_eq!((&seen["count"], &seen["event"]), (&json!(run), &json!({"k": 1})));
                assert_eq!((&seen["mine"], &seen["template"]), (&json!("ü"), &json!(null)), "{runtime}");
                assert_eq!(seen["files"], json!([]), "each has a /tmp of its own");
                for stream in seen["stream"].as_array().expect("two names") {
                    let stream = stream.as_str().expect("text");
                    assert!(stream.ends_with(&format!("/[$LATEST]{}", environment.id())), "{stream}");
                }
                let lines = tail(&completed);
                assert_eq!(lines[1], format!("run {run}"), "{lines:?}");
                assert_eq!(lines[3].contains("Init Duration: "), run == 1, "{lines:?}");
                // An idle environment may be frozen, and a template too.
                environment.freeze();
            }
            assert!(environment.memory_bytes() > 0);
            environment.stop().await;
            if number == 1 {
                template.freeze();
                template.set_stock(3);
            }
        }
        template.stop().await;
        template.exited().await;
        let gone = world.host.fork(&template).await;
        assert!(matches!(gone, Err(StartError::TemplateGone)), "{gone:?}");
        assert_eq!(world.host.start_mode(template.deployment()), StartMode::Fork, "its end was wanted");
    }
    for (stream, lines) in world.streams().await {
        assert!(lines[0].starts_with("INIT_START Runtime Version: python:3."), "{lines:?}");
        match lines.len() {
            2 => assert_eq!(lines[1], format!("loading in {stream}"), "{lines:?}"),
            9 => assert!(lines[1].starts_with("START RequestId: "), "{lines:?}"),
            _ => panic!("{lines:?}"),
        }
    }
    let mut bills = world.bills().await;
    bills.retain(|bill| bill.cold_start);
    bills.sort_by_key(|bill| bill.init_micros);
    assert_eq!(bills.len(), 3 * world.pythons().len());
    let (forks, first) = bills.split_at(2 * world.pythons().len());
    let longest = forks.last().expect("a bill").init_micros;
    assert!(
        first.iter().all(|bill| bill.init_micros > longest),
        "one of them pays for the template: {bills:?}"
    );
}

pub(crate) async fn node_environments_are_forked(world: World) {
    let Some(function) = node(&world) else { return };
    let code = "const loaded = process.uptime(); let n = 0; console.log('loading');
exports.handler = async (event, context) => { console.log('run', ++n); await new Promise((r) => setTimeout(r, 5));
  return [n, event, context.logStreamName, process.env.AWS_LAMBDA_LOG_STREAM_NAME, process.env._MARTLET_TEMPLATE ?? null]; };";
    let template = world.template(function, &[("app.js", code)]).await;
    for _ in 0..2 {
        let mut environment = world.fork(&template).await;
        for run in 1..=2 {
            let completed = invoke(&mut environment, "{}").await;
            let seen: serde_json::Value = serde_json::from_slice(&completed.payload).expect("JSON");
            assert_eq!((&seen[0], &seen[1]), (&json!(run), &json!({})), "{}", shown(&completed));
            for stream in [&seen[2], &seen[3]] {
                assert!(stream.as_str().expect("text").ends_with(environment.id()), "{seen}");
            }
            assert_eq!(seen[4], json!(null));
            let lines = tail(&completed);
            assert!(lines[1].ends_with(&format!("\tINFO\trun {run}")), "{lines:?}");
            assert_eq!(lines[3].contains("Init Duration: "), run == 1, "{lines:?}");
            environment.freeze();
        }
        environment.stop().await;
        template.freeze();
    }
    template.stop().await;
}

pub(crate) async fn many_are_forked_at_once_and_share_no_randomness(world: World) {
    let python_code = r#"
import os, random, secrets, ssl, tempfile, uuid
random.random(), uuid.uuid4(), os.urandom(1), tempfile.gettempdir(), ssl.RAND_bytes(1)
def handler(event, context):
    return [random.random(), str(uuid.uuid4()), secrets.token_hex(), os.urandom(8).hex(), ssl.RAND_bytes(8).hex(),
        str(uuid.uuid1()), next(tempfile._get_candidate_names())]
"#;
    let node_code = "const crypto = require('crypto'); Math.random(); crypto.randomUUID(); crypto.randomBytes(1);
exports.handler = async () => [Math.random(), crypto.randomUUID(), crypto.randomBytes(8).toString('hex'), globalThis.crypto.randomUUID()];";
    for (function, file, code) in
        [(Some(python(&world)), "app.py", python_code), (node(&world), "app.js", node_code)]
    {
        let Some(function) = function else { continue };
        let template = world.template(function, &[(file, code)]).await;
        let forks: Vec<_> = (0..20)
            .map(|_| {
                let (host, template) = (Arc::clone(&world.host), Arc::clone(&template));
                tokio::spawn(async move { host.fork(&template).await })
            })
            .collect();
        let mut environments: Vec<Environment> = Vec::new();
        for fork in forks {
            environments.push(fork.await.expect("no panic").expect("an environment"));
        }
        let mut seen = HashSet::new();
        let mut each = 0;
        for environment in &mut environments {
            let values = result(environment, "{}").await;
            let values = values.as_array().expect("values");
            each = values.len();
            seen.extend(values.iter().map(ToString::to_string));
        }
        assert_eq!(seen.len(), each * environments.len(), "{file}");
        for environment in environments {
            environment.stop().await;
        }
        template.stop().await;
    }
}

pub(crate) async fn environments_outlive_their_template(world: World) {
    let code = "import time\nloaded = time.time()\ndef handler(event, context):\n    print('in')\n    time.sleep(event)\n    return loaded";
    let template = world.template(python(&world), &[("app.py", code)]).await;
    let mut idle = world.fork(&template).await;
    let mut running = world.fork(&template).await;
    running.begin(invocation("0.5"));
    template.freeze();
    template.stop().await;
    drop(template);
    let Completion::Done(completed) = running.complete().await else { panic!("it was delivered") };
    assert!(completed.function_error.is_none() && completed.reusable, "{}", shown(&completed));
    assert_eq!(result(&mut idle, "0").await, result(&mut running, "0").await, "both were loaded at one time");
    idle.stop().await;
    running.stop().await;
}

pub(crate) async fn a_fork_that_nobody_waits_for_leaves_nothing(world: World) {
    let template =
        world.template(python(&world), &[("app.py", "def handler(event, context): return 1")]).await;
    // Wherever it is dropped: the template is either as good as new, or gone and said to be.
    for polls in 1..40 {
        let mut fork = Box::pin(world.host.fork(&template));
        for _ in 0..polls {
            tokio::select! {
                biased;
                _ = &mut fork => break,
                () = tokio::task::yield_now() => {}
            }
        }
        drop(fork);
        match world.host.fork(&template).await {
            Ok(mut environment) => {
                assert_eq!(result(&mut environment, "{}").await, 1);
                environment.stop().await;
            }
            Err(StartError::TemplateGone) => return template.exited().await,
            Err(error) => panic!("{error}"),
        }
    }
}

pub(crate) async fn a_function_that_cannot_be_forked_says_so_once(world: World) {
    let code = "import os, threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True, name='busy').start()\npid = os.getpid()\nprint('loading')\ndef handler(event, context):\n    return [threading.active_count(), pid == os.getpid()]";
    for format in [LogFormat::Text, LogFormat::Json] {
        let logging = Logging { format, ..Logging::default() };
        let deployment = world.deploy(Function { logging, ..python(&world) }, &[("app.py", code)]);
        let (mut environment, reason) = match world.host.prepare(Arc::clone(&deployment)).await {
            Ok(Prepared::Environment { environment, unforkable: Some(reason) }) => (environment, reason),
            other => panic!("{other:?}"),
        };
        assert!(reason.contains("thread"), "{reason}");
        assert_eq!(world.host.start_mode(&deployment), StartMode::Ordinary(reason.clone()));
        assert_eq!(result(&mut environment, "1").await, json!([2, true]));
        environment.stop().await;
        let again = world.host.prepare(Arc::clone(&deployment)).await;
        match again {
            Ok(Prepared::Environment { mut environment, unforkable: Some(same) }) => {
                assert_eq!((result(&mut environment, "1").await, same), (json!([2, true]), reason.clone()));
                environment.stop().await;
            }
            other => panic!("{other:?}"),
        }
        world.host.start(deployment).await.expect("an environment").stop().await;
        let log = world.log().await;
        let said = log.iter().filter(|line| line.contains(&reason)).count();
        assert_eq!(said, if format == LogFormat::Text { 1 } else { 2 }, "once for each function: {log:?}");
    }
}

pub(crate) async fn some_functions_are_never_tried(world: World) {
    let code = [("app.py", "def handler(event, context): return 1")];
    let with = |name: &str, value: &str| {
        let mut function = python(&world);
        function.environment.insert(name.into(), value.into());
        world.deploy(function, &code)
    };
    for (deployment, reason) in [
        (with("MARTLET_FORK_START", "off"), "its variable MARTLET_FORK_START is off"),
        (with("AWS_LAMBDA_EXEC_WRAPPER", "/var/task/w"), "started by a program of its own"),
        (world.deploy(Function::new("provided.al2023"), &[]), "programs for provided.al2023 are not forked"),
    ] {
        let refused = world.host.can_fork(&deployment).expect_err("it is not forked");
        assert!(refused.contains(reason), "{refused}");
        assert_eq!(world.host.start_mode(&deployment), StartMode::Ordinary(refused));
    }
    let off = with("MARTLET_FORK_START", "OFF");
    match world.host.prepare(off).await {
        Ok(Prepared::Environment { mut environment, unforkable: Some(_) }) => {
            assert_eq!(result(&mut environment, "{}").await, 1);
            environment.stop().await;
        }
        other => panic!("{other:?}"),
    }
    let log = world.log().await;
    assert!(
        log.iter().all(|line| !line.contains("START_MODE")),
        "who asked for it need not be told: {log:?}"
    );
    let on = with("MARTLET_FORK_START", "on");
    assert_eq!((world.host.can_fork(&on), world.host.start_mode(&on)), (Ok(()), StartMode::Unknown));
}

pub(crate) async fn a_failed_init_phase_leaves_an_environment(world: World) {
    let code = "print('importing')\nimport nothing_of_that_name";
    let deployment = world.deploy(python(&world), &[("app.py", code)]);
    let mut environment = match world.host.prepare(Arc::clone(&deployment)).await {
        Ok(Prepared::Environment { environment, unforkable: None }) => environment,
        other => panic!("{other:?}"),
    };
    let (document, completed) = failure(&mut environment, "{}").await;
    assert_eq!(document["errorType"], "Runtime.ImportModuleError", "{}", shown(&completed));
    environment.stop().await;
    let log = world.log().await;
    assert!(log.iter().any(|line| line.contains("\tPhase: init\tStatus: error")), "{log:?}");
    assert_eq!(world.host.start_mode(&deployment), StartMode::Unknown);
}

pub(crate) async fn a_failing_hook_fails_the_fork_and_not_the_invocation(world: World) {
    let code = r#"
from snapshot_restore_py import register_after_restore, register_before_snapshot
import os
steps = []
@register_before_snapshot
def before(): steps.append("before")
@register_after_restore
def after():
    steps.append("after")
    print("restoring", os.environ["AWS_LAMBDA_LOG_STREAM_NAME"])
    if os.environ.get("FAIL"): raise ValueError("no way back")
def handler(event, context): return steps
"#;
    let template = world.template(python(&world), &[("app.py", code)]).await;
    let mut environment = world.fork(&template).await;
    assert_eq!(result(&mut environment, "{}").await, json!(["before", "after"]));
    environment.stop().await;

    let mut function = python(&world);
    function.environment.insert("FAIL".into(), "1".into());
    let template = world.template(function, &[("app.py", code)]).await;
    for _ in 0..3 {
        let mut environment = world.fork(&template).await;
        let completed = invoke(&mut environment, "{}").await;
        assert!(completed.function_error.is_none(), "{}", shown(&completed));
        environment.stop().await;
    }
    let reported = "\tPhase: init\tStatus: error\tError Type: Runtime.";
    let log = world.log().await;
    assert_eq!(log.iter().filter(|line| line.contains(reported)).count(), 3, "{log:?}");
    assert!(log.iter().any(|line| line.contains("no way back")), "{log:?}");
    let mode = world.host.start_mode(template.deployment());
    assert!(matches!(&mode, StartMode::Ordinary(why) if why.contains("did not get ready")), "{mode:?}");
}
