//! How long an environment takes to start: ordinarily, by a fork of a template, fifty forks at once, and, as the floor, a bare
//! fork of the same initialised interpreter. Times are from the request to "ready", everything included. Then how long the
//! first and the second event take of an environment that was forked ahead of need.
//!
//!     cargo run --release -p martlet-environment --example fork_latency [-- PACKAGES [RUNS [PYTHON [ONLY]]]]
//!
//! `PACKAGES` is a directory with numpy, pandas and boto3 for the runtime `PYTHON` in it (`python3.11`, say), as
//! `pip install --target` makes it, or `-` for none. A file `fork_latency.py` is written into it. `ONLY` names
//! the one function to measure: `light`, `heavy` or `node`.

#[path = "../tests/sandboxed/world.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod world;

use martlet_environment::{Deployment, Environment, Prepared, Template};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use world::{Function, World, result};

/// Between two forks: on an idle machine the shell that was used is replaced by then.
const PAUSE: Duration = Duration::from_millis(15);

const PYTHON: &str = r#"
import os, time
def handler(event, context):
    times = []
    for _ in range(event):
        reader, writer = os.pipe()
        begun = time.perf_counter_ns()
        pid = os.fork()
        if pid == 0:
            os.write(writer, b"x")
            os._exit(0)
        os.read(reader, 1)
        times.append((time.perf_counter_ns() - begun) // 1000)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)
    return times
"#;
const NODE: &str = r#"
exports.handler = async (event) => {
  const park = { exports: {} }, times = [];
  process.dlopen(park, '/var/runtime/park.so');
  park.exports.keepHeap();
  for (let i = 0; i < event; i++) {
    const begun = process.hrtime.bigint();
    park.exports.probe();
    times.push(Number((process.hrtime.bigint() - begun) / 1000n));
  }
  return times;
};
"#;

fn main() {
    if std::env::args().nth(1).as_deref() == Some(martlet_sandbox::LAUNCHER_COMMAND) {
        martlet_sandbox::launcher_main();
    }
    let mut arguments = std::env::args().skip(1);
    let packages = arguments.next().filter(|packages| packages != "-").map(PathBuf::from);
    let runs = arguments.next().and_then(|runs| runs.parse().ok()).unwrap_or(200);
    let python = arguments.next().unwrap_or_else(|| "python".to_owned());
    let only = arguments.next();
    let wanted = move |name: &str| only.as_ref().is_none_or(|only| only == name);
    let launcher = world::start_launcher().unwrap_or_else(|reason| panic!("{reason}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let launcher = launcher.connect().expect("a launcher");
        let world = World::new(&launcher);
        println!("{:<28}{:>10}{:>10}{:>10}{:>10}   (ms, n = {runs})", "", "least", "p50", "p90", "p99");
        if let Some(runtime) = world.runtime(&python) {
            if wanted("light") {
                let deployment = world.deploy(Function::new(&runtime), &[("app.py", PYTHON)]);
                measure(&world, "python", deployment, runs).await;
            }
            if let Some(packages) = packages.filter(|_| wanted("heavy")) {
                let code =
                    format!("import numpy, pandas, boto3\nboto3.client('s3', region_name='x')\n{PYTHON}");
                std::fs::write(packages.join("fork_latency.py"), code).expect("a file");
                let handler = "fork_latency.handler";
                let function = Function { memory_mb: 1769, handler, ..Function::new(&runtime) };
                measure(&world, "python heavy", world.deploy_from(function, packages), runs).await;
            }
        }
        if let Some(runtime) = world.runtime("nodejs").filter(|_| wanted("node")) {
            let deployment = world.deploy(Function::new(&runtime), &[("app.js", NODE)]);
            measure(&world, "node", deployment, runs).await;
        }
        launcher.shutdown().await;
    });
}

async fn measure(world: &World, name: &str, deployment: Arc<Deployment>, runs: usize) {
    let mut times = Vec::new();
    for _ in 0..(runs / 20).max(5) {
        let begun = Instant::now();
        let environment = world.host.start(Arc::clone(&deployment)).await.expect("an environment");
        times.push(begun.elapsed());
        environment.stop().await;
    }
    show(&format!("{name}: ordinary"), &mut times);

    let template = match world.host.prepare(deployment).await {
        Ok(Prepared::Template(template)) => Arc::new(template),
        other => return println!("{name} is not forked: {other:?}"),
    };
    let (mut times, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
    let mut last = None::<Environment>;
    for _ in 0..runs {
        if let Some(last) = last.take() {
            last.stop().await;
        }
        tokio::time::sleep(PAUSE).await;
        let begun = Instant::now();
        let mut environment = world.fork(&template).await;
        times.push(begun.elapsed());
        tokio::time::sleep(PAUSE).await;
        for times in [&mut first, &mut second] {
            let begun = Instant::now();
            result(&mut environment, "0").await;
            times.push(begun.elapsed());
        }
        last = Some(environment);
    }
    show(&format!("{name}: fork"), &mut times);
    show(&format!("{name}: first event"), &mut first);
    show(&format!("{name}: second event"), &mut second);

    let mut environment = last.expect("a run");
    let floor = result(&mut environment, runs.to_string()).await;
    let micros = floor.as_array().expect("times").iter().filter_map(serde_json::Value::as_u64);
    show(&format!("{name}: bare fork"), &mut micros.map(Duration::from_micros).collect::<Vec<_>>());
    environment.stop().await;

    burst(world, &template, name).await;
    template.stop().await;
}

async fn burst(world: &World, template: &Arc<Template>, name: &str) {
    let mut times = Vec::new();
    for _ in 0..5 {
        tokio::time::sleep(10 * PAUSE).await;
        let begun = Instant::now();
        let forks: Vec<_> = (0..50)
            .map(|_| {
                let (host, template) = (Arc::clone(&world.host), Arc::clone(template));
                tokio::spawn(async move { host.fork(&template).await.expect("an environment") })
            })
            .collect();
        let mut environments = Vec::new();
        for fork in forks {
            environments.push(fork.await.expect("no panic"));
        }
        times.push(begun.elapsed());
        for environment in environments {
            environment.stop().await;
        }
    }
    show(&format!("{name}: 50 at once"), &mut times);
}

fn show(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!("{what:<28}{:>10.2}{:>10.2}{:>10.2}{:>10.2}", at(0), at(50), at(90), at(99));
}
