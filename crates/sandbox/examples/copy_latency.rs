//! What a copy costs: making a shell, and the template's copying itself into it, to the answer that the copy is in place.
//! Beside it the floor, a bare fork of the same interpreter with the same modules, and a plain launch. Run as root:
//! `cargo run --release -p martlet-sandbox --example copy_latency [COUNT [MODULE,... [DIRECTORY]]]`.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use martlet_sandbox::{
    Bind, Isolation, LAUNCHER_COMMAND, Launcher, LauncherOptions, PARK_LIBRARY, Parking, SandboxSpec,
    TmpKind, launcher_main,
};

const TEMPLATE: &str = "
import ctypes, gc, os, sys, time
sys.path.insert(0, '/opt')
lib = ctypes.PyDLL('/var/runtime/park.so')
for name in filter(None, sys.argv[1].split(',')): __import__(name)
gc.collect(); gc.freeze()
bare = []
for _ in range(30):
    r, w = os.pipe()
    start = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os.write(w, b'x'); os._exit(0)
    os.read(r, 1)
    bare.append(time.perf_counter() - start)
    os.waitpid(pid, 0); os.close(r); os.close(w)
print(sorted(bare)[15] * 1e6, flush=True)
lib.martlet_probe()
assert lib.martlet_park(5) == 0
ctypes.pythonapi.PyOS_AfterFork_Child()
os.write(3, b'x')
os.read(3, 1)
os._exit(0)
";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().map(String::as_str) == Some(LAUNCHER_COMMAND) {
        launcher_main();
    }
    let count: usize = arguments.first().map_or(Ok(200), |count| count.parse())?;
    let modules = arguments.get(1).cloned().unwrap_or_default();
    let instance = format!("copies-{}", std::process::id());
    let options = LauncherOptions {
        isolation: Isolation::Full,
        scratch_dir: std::env::temp_dir().join(&instance),
        instance,
        uid_base: 1_900_000_000,
        uid_count: 64,
        tmp: TmpKind::Disk,
        ahead: 0,
    };
    let process = Launcher::start(options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let launcher = process.connect()?;
        let mut spec = specification();
        spec.argv.push(modules);
        spec.binds.extend(arguments.get(2).map(|directory| Bind::new(PathBuf::from(directory), "/opt")));
        let (mut parking, theirs) = Parking::pair()?;
        let (said, out) = std::io::pipe()?;
        let err = std::io::stderr().lock();
        let err = std::os::fd::AsFd::as_fd(&err).try_clone_to_owned()?;
        let fds = vec![(out.into(), 1), (err, 2), (theirs, 5)];
        let template = launcher.launch(spec, fds).await?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        let (mut shells, mut forks, mut ready) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            let start = Instant::now();
            let shell = launcher.shell(&template).await?;
            shells.push(start.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
            let (mut ours, theirs) = UnixStream::pair()?;
            let start = Instant::now();
            let copy = parking.fork(shell, vec![(theirs.into(), 3)]).await?;
            forks.push(start.elapsed());
            ours.read_exact(&mut [0])?;
            ready.push(start.elapsed());
            ours.write_all(b"x")?;
            copy.exit().await;
        }
        println!("bare fork of it {} us", line.trim());
        println!("shell {}, fork to answer {}, to its code {}", of(shells), of(forks), of(ready));
        launcher.shutdown().await;
        Ok(())
    })
}

fn specification() -> SandboxSpec {
    SandboxSpec {
        argv: ["/usr/bin/python3", "-s", "-c", TEMPLATE].map(Into::into).into(),
        env: vec![],
        cwd: "/".into(),
        hostname: "latency".into(),
        binds: vec![],
        files: vec![("/var/runtime/park.so".into(), PARK_LIBRARY.to_vec())],
        tmp_bytes: 512 << 20,
        memory_bytes: 1 << 30,
        cpu_millis: 2000,
        pids: 64,
        open_files: 1024,
        listen: None,
        forkable: true,
        places: Vec::new(),
        companions: None,
    }
}

fn of(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    format!("p50 {:.2} p90 {:.2} p99 {:.2} ms", at(50), at(90), at(99))
}
