//! Templates whose code does what it can to harm the rest.

use crate::world::{Function, World, invoke, result, shown};
use martlet_environment::{Deployment, Prepared, StartError, StartMode, Template};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Speaks for the runtime: `parked()` sends the frame, `park` is the socket of the requests to fork.
const PRELUDE: &str = r#"
import os, socket, threading, time
if os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME") and os.path.exists("/var/runtime/park.so"):
    park = socket.socket(fileno=5)
    def parked(): os.write(3, bytes([21]) + bytes(15))
"#;
const HANDLER: &str = "\ndef handler(event, context): return 'served'\n";

fn deploy(world: &World, code: &str) -> Arc<Deployment> {
    let function = Function::new(&world.runtime("python").expect("a Python on this machine"));
    let indented: String = code.lines().map(|line| format!("    {line}\n")).collect();
    world.deploy(function, &[("app.py", &format!("{PRELUDE}{indented}{HANDLER}"))])
}

async fn template(world: &World, deployment: &Arc<Deployment>) -> Option<Arc<Template>> {
    match world.host.prepare(Arc::clone(deployment)).await {
        Ok(Prepared::Template(template)) => Some(Arc::new(template)),
        Ok(Prepared::Environment { environment, .. }) => {
            environment.stop().await;
            None
        }
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    }
}

/// What happens to a function whose template parks and never yields an environment: it is served all the same.
async fn is_served_ordinarily(world: &World, deployment: &Arc<Deployment>, what: &str) {
    for attempt in 0.. {
        assert!(attempt < 3, "{what}: {:?}", world.host.start_mode(deployment));
        let Some(template) = template(world, deployment).await else { break };
        let begun = Instant::now();
        let gone = world.host.fork(&template).await;
        assert!(matches!(gone, Err(StartError::TemplateGone)), "{what}: {gone:?}");
        assert!(begun.elapsed() < Duration::from_secs(9), "{what}: {:?}", begun.elapsed());
        template.exited().await;
        // Who asks again for the same template's end does not count it twice.
        assert!(matches!(world.host.fork(&template).await, Err(StartError::TemplateGone)), "{what}");
        if attempt == 2 {
            break;
        }
    }
    let mode = world.host.start_mode(deployment);
    assert!(
        matches!(&mode, StartMode::Ordinary(why) if why.contains("its template ended")),
        "{what}: {mode:?}"
    );
    let mut environment = world.host.start(Arc::clone(deployment)).await.expect("an environment");
    assert_eq!(result(&mut environment, "{}").await, "served", "{what}");
    environment.stop().await;
    let log = world.log().await;
    assert_eq!(log.iter().filter(|line| line.starts_with("START_MODE ")).count(), 1, "{what}: {log:?}");
}

pub(crate) async fn what_it_answers_ends_nothing_but_itself(world: World) {
    for (what, code) in [
        ("garbage", "parked()\nwhile True:\n    park.recv(4096)\n    park.send(b'garbage')"),
        ("an untrue success", "parked()\nwhile True:\n    park.recv(4096)\n    park.send(bytes(9))"),
        ("nothing", "parked()\ntime.sleep(1000)"),
        ("answers ahead", "for _ in range(50): park.send(b'x' * 1000)\nparked()\ntime.sleep(1000)"),
        ("a closed socket", "parked()\npark.close()\ntime.sleep(1000)"),
        ("an exit", "parked()\nos._exit(3)"),
        (
            "a refusal",
            "parked()\nwhile True:\n    park.recv(4096)\n    park.send(b'\\xff\\xff\\xff\\xff\\x03\\0\\0\\0')",
        ),
        (
            "a flood",
            "park.setblocking(False)\ndef flood():\n    while True:\n        try: park.send(b'x' * 4096)\n        except OSError: pass\n        try: os.write(3, b'x' * 4096)\n        except OSError: pass\n        try: os.write(1, b'x' * 4096)\n        except OSError: pass\nparked()\nfor _ in range(4): threading.Thread(target=flood).start()\nflood()",
        ),
        ("parked twice", "parked()\nparked()\nos._exit(0)"),
    ] {
        let world = world.another();
        let deployment = deploy(&world, code);
        is_served_ordinarily(&world, &deployment, what).await;
    }
}

pub(crate) async fn one_that_ends_unasked_is_not_made_for_ever(world: World) {
    let deployment = deploy(&world, "parked()\nos._exit(3)");
    let mut made = 0;
    while let Some(template) = template(&world, &deployment).await {
        made += 1;
        assert!(made < 10, "{:?}", world.host.start_mode(&deployment));
        template.exited().await;
    }
    assert_eq!(made, 3);
    // One that is ended on purpose, or was not needed any more, is not held against it.
    let deployment = deploy(&world, "parked()\ntime.sleep(1000)");
    for run in 0..8 {
        let template = template(&world, &deployment).await.expect("a template");
        if run % 2 == 0 {
            template.stop().await;
        }
    }
    assert_eq!(world.host.start_mode(&deployment), StartMode::Fork);
}

pub(crate) async fn one_that_never_parks_is_given_up(world: World) {
    let deployment = deploy(&world, "while True: time.sleep(1000)");
    let begun = Instant::now();
    let mut environment = match world.host.prepare(Arc::clone(&deployment)).await {
        Ok(Prepared::Environment { environment, unforkable: None }) => environment,
        other => panic!("{other:?}"),
    };
    assert!((10..15).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    // The init phase of its first invocation is an ordinary one.
    assert_eq!(result(&mut environment, "{}").await, "served");
    environment.stop().await;
}

pub(crate) async fn a_fork_that_never_gets_ready_is_given_up(world: World) {
    for (what, copy) in
        [("silence", "time.sleep(1000)"), ("an exit", "os._exit(7)"), ("garbage", "os.write(3, b'x' * 16)")]
    {
        let world = world.another();
        let code = format!(
            "import ctypes\nlibrary = ctypes.PyDLL('/var/runtime/park.so')\nctypes.pythonapi.PyOS_BeforeFork()\nparked()\nlibrary.martlet_park(5)\nctypes.pythonapi.PyOS_AfterFork_Child()\n{copy}\ntime.sleep(1000)"
        );
        let deployment = deploy(&world, &code);
        let template = template(&world, &deployment).await.expect("a template");
        let begun = Instant::now();
        let mut environment = world.fork(&template).await;
        let seconds = if what == "silence" { 10..15 } else { 0..5 };
        assert!(seconds.contains(&begun.elapsed().as_secs()), "{what}: {:?}", begun.elapsed());
        let completed = invoke(&mut environment, "{}").await;
        assert_eq!(completed.payload, "\"served\"", "{what}: {}", shown(&completed));
        environment.stop().await;
        let log = world.log().await;
        assert!(
            log.iter().any(|line| line.contains("INIT_REPORT") && line.contains("Phase: init")),
            "{log:?}"
        );
    }
}
