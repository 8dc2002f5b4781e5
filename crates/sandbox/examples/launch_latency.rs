//! How long a launch takes: from the call to the program running, and to its end seen. Run as root for full isolation:
//! `cargo run --release -p martlet-sandbox --example launch_latency [COUNT]`. With `AHEAD` in the environment two sandboxes are
//! kept made ahead.

use std::time::{Duration, Instant};

use martlet_sandbox::{
    Isolation, LAUNCHER_COMMAND, Launcher, LauncherOptions, LauncherProcess, SandboxSpec, TmpKind,
    launcher_main,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some(LAUNCHER_COMMAND) {
        launcher_main();
    }
    let count: usize = argument.map_or(Ok(200), |count| count.parse())?;
    let root = rustix::process::geteuid().is_root();
    for tmp in [TmpKind::Memory, TmpKind::Disk] {
        if tmp == TmpKind::Disk && !root {
            continue;
        }
        let instance = format!("latency-{}", std::process::id());
        let options = LauncherOptions {
            isolation: if root { Isolation::Full } else { Isolation::NoCgroups },
            scratch_dir: std::env::temp_dir().join(&instance),
            instance,
            uid_base: 1_900_000_000,
            uid_count: 64,
            tmp,
            ahead: if std::env::var_os("AHEAD").is_some() { 2 } else { 0 },
        };
        let process = Launcher::start(options)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (running, ended) = runtime.block_on(measure(process, count))?;
        println!("{tmp:?} /tmp: running {}, ended {}", quantiles(running), quantiles(ended));
    }
    Ok(())
}

type Times = (Vec<Duration>, Vec<Duration>);

async fn measure(process: LauncherProcess, count: usize) -> Result<Times, Box<dyn std::error::Error>> {
    let launcher = process.connect()?;
    let mut times = Times::default();
    for _ in 0..count {
        // Starts come one by one, each with a moment of rest before it.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let start = Instant::now();
        let sandbox = launcher.launch(specification(), vec![]).await?;
        times.0.push(start.elapsed());
        sandbox.exit().await;
        times.1.push(start.elapsed());
    }
    launcher.shutdown().await;
    Ok(times)
}

fn specification() -> SandboxSpec {
    SandboxSpec {
        argv: vec!["/bin/true".into()],
        env: vec![],
        cwd: "/".into(),
        hostname: "latency".into(),
        binds: vec![],
        files: vec![],
        tmp_bytes: 512 << 20,
        memory_bytes: 128 << 20,
        cpu_millis: 1000,
        pids: 64,
        open_files: 1024,
        listen: Some(9001),
        forkable: false,
        places: Vec::new(),
        companions: None,
    }
}

fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    format!("p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms", at(50), at(90), at(99))
}
