//! Interpreters that are started before it is known for which function.

use crate::world::{Function, World, result};
use martlet_environment::Prepared;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const PYTHON: &str = r#"
import os, sys, time
def handler(event, context):
    return {"started_for_it": "MINE" in open("/proc/self/environ").read(), "mine": os.environ["MINE"], "cwd": os.getcwd(),
        "role": os.environ.get("_MARTLET_TEMPLATE"), "log": os.environ.get("_LAMBDA_TELEMETRY_LOG_FD"),
        "name": context.function_name, "zone": time.tzname[0], "files": sorted(os.listdir("/var/task")), "path": sys.path[0]}
"#;

const NODE: &str = r#"
const fs = require('fs');
exports.handler = async (event, context) => ({
  started_for_it: fs.readFileSync('/proc/self/environ', 'latin1').includes('MINE'), mine: process.env.MINE, cwd: process.cwd(),
  role: process.env._MARTLET_TEMPLATE ?? null, log: process.env._LAMBDA_TELEMETRY_LOG_FD ?? null, name: context.functionName,
  zone: new Date(0).toTimeString().includes('+0900') ? 'JST' : 'UTC', files: fs.readdirSync('/var/task').sort(), path: '/var/task' });
"#;

/// A function that is configured a little.
fn function(runtime: &str) -> Function {
    let mut function = Function::new(runtime);
    function.environment.insert("MINE".into(), "ü".into());
    function
}

/// Waits until an interpreter is there for the function.
async fn expected(world: &World, function: Function) {
    world.host.expect(&world.deploy(function, &[]));
    there_are(world, 1).await;
}

async fn there_are(world: &World, count: usize) {
    let reached = async {
        while world.host.interpreters_ahead() != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reached).await.expect("no interpreter was started ahead");
}

pub(crate) async fn a_first_call_finds_its_interpreter_started(world: World) {
    for (runtime, file, code) in [("python", "app.py", PYTHON), ("nodejs", "app.js", NODE)] {
        let Some(runtime) = world.runtime(runtime) else { continue };
        let world = world.another();
        expected(&world, function(&runtime)).await;
        let mut tokyo = function(&runtime);
        tokyo.environment.insert("TZ".into(), "Asia/Tokyo".into());
        let template = world.template(tokyo, &[(file, code), ("more.txt", "")]).await;
        let mut environment = world.fork(&template).await;
        let seen = result(&mut environment, "{}").await;
        assert_eq!(
            seen,
            json!({"started_for_it": false, "mine": "ü", "cwd": "/var/task", "role": null, "log": null, "name": "under-test",
                "zone": "JST", "files": [file, "more.txt"], "path": "/var/task"}),
            "{runtime}"
        );
        // Another function gets another interpreter, and the same start without one does the same.
        there_are(&world, 1).await;
        let mut other = world.fork(&world.template(function(&runtime), &[(file, code)]).await).await;
        assert_eq!(result(&mut other, "{}").await["files"], json!([file]));
        let mut own = function(&runtime);
        own.environment.insert("LC_TIME".into(), "C".into());
        let mut own = world.fork(&world.template(own, &[(file, code)]).await).await;
        assert_eq!(
            result(&mut own, "{}").await["started_for_it"],
            json!(true),
            "it has to be started for it"
        );
    }
}

pub(crate) async fn its_limits_are_the_functions(world: World) {
    let Some(runtime) = world.runtime("python") else { return };
    expected(&world, Function::new(&runtime)).await;
    let mut small = Function::new(&runtime);
    small.memory_mb = 128;
    // The template itself is limited, and so is what is forked from it.
    let hungry = "block = bytearray(200 << 20)\ndef handler(event, context): return 1";
    match world.host.prepare(world.deploy(small, &[("app.py", hungry)])).await {
        Ok(Prepared::Environment { unforkable: None, .. }) => {}
        other => panic!("it took more than it may have: {other:?}"),
    }
    let log = world.log().await.join("\n");
    assert!(log.contains("Runtime.OutOfMemory") || log.contains("signal: killed"), "{log}");
}

pub(crate) async fn an_interpreter_that_died_is_not_missed(world: World) {
    let Some(runtime) = world.runtime("nodejs") else { return };
    let function = || Function { memory_mb: 1000, ..function(&runtime) };
    expected(&world, function()).await;
    // Only this one was started with such a heap.
    let mark = b"--max-old-space-size=750\0";
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.windows(mark.len()).any(|window| window == mark) {
            let killed = std::process::Command::new("kill").arg("-9").arg(entry.file_name()).status();
            assert!(killed.expect("kill").success());
        }
    }
    // Whether or not its end has been noticed by now.
    let deployment = world.deploy(function(), &[("app.js", NODE)]);
    let mut environment = match world.host.prepare(deployment).await {
        Ok(Prepared::Template(template)) => world.fork(&Arc::new(template)).await,
        Ok(Prepared::Environment { environment, unforkable: None }) => environment,
        other => panic!("no environment: {other:?}"),
    };
    assert_eq!(result(&mut environment, "{}").await["mine"], json!("ü"));
}
