//! What a start by copying costs in cpu time, where nobody but the sandbox takes part: starts are asked for by several callers at
//! once, as fast as they come, and each copy is killed as soon as it runs. Run as root, on a quiet machine:
//! `cargo run --release -p martlet-sandbox --example start_rate [COUNT [CALLERS [MODULE,... [DIRECTORY]]]]`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use martlet_sandbox::{
    Bind, Isolation, LAUNCHER_COMMAND, Launcher, LauncherOptions, PARK_LIBRARY, Parking, SandboxSpec,
    TmpKind, launcher_main,
};
use tokio::sync::Mutex;

const TEMPLATE: &str = "
import ctypes, gc, os, sys, time
sys.path.insert(0, '/opt')
lib = ctypes.PyDLL('/var/runtime/park.so')
for name in filter(None, sys.argv[1].split(',')): __import__(name)
gc.collect(); gc.freeze()
bare = os.times()
for _ in range(100):
    pid = os.fork()
    if pid == 0: os._exit(0)
    os.waitpid(pid, 0)
print((sum(os.times()[:4]) - sum(bare[:4])) / 100 * 1e6, flush=True)
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
    let count: usize = arguments.first().map_or(Ok(1000), |count| count.parse())?;
    let callers: usize = arguments.get(1).map_or(Ok(4), |callers| callers.parse())?;
    let instance = format!("rate-{}", std::process::id());
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
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&tokio, async {
        let launcher = Rc::new(process.connect()?);
        let mut spec = specification();
        spec.argv.push(arguments.get(2).cloned().unwrap_or_default());
        spec.binds.extend(arguments.get(3).map(|directory| Bind::new(PathBuf::from(directory), "/opt")));
        let (parking, theirs) = Parking::pair()?;
        let (said, out) = std::io::pipe()?;
        let err = std::io::stderr().as_fd().try_clone_to_owned()?;
        let fds = vec![(out.into(), 1), (err, 2), (theirs, 5)];
        let template = Rc::new(launcher.launch(spec, fds).await?);
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        let parking = Rc::new(Mutex::new(parking));
        let (cpu, start) = (Cpu::now(template.pid()), Instant::now());
        let each = (0..callers).map(|_| {
            let (launcher, template, parking) = (launcher.clone(), template.clone(), parking.clone());
            tokio::task::spawn_local(async move {
                for _ in 0..count / callers {
                    let shell = launcher.shell(&template).await.expect("shell");
                    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("pair");
                    ours.set_nonblocking(true).expect("non-blocking");
                    let ours = tokio::net::UnixStream::from_std(ours).expect("stream");
                    let copy =
                        parking.lock().await.fork(shell, vec![(theirs.into(), 3)]).await.expect("fork");
                    ours.readable().await.expect("ready");
                    copy.kill();
                    copy.exit().await;
                }
            })
        });
        for each in each.collect::<Vec<_>>() {
            each.await?;
        }
        let took = start.elapsed();
        // What is left to be cleared away by the kernel belongs to the price.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let used = Cpu::now(template.pid());
        println!(
            "{:.0} starts a second; a bare fork of the same interpreter and its end: {} us of cpu",
            count as f64 / took.as_secs_f64(),
            line.trim()
        );
        used.print_since(&cpu, count);
        drop(template);
        let Ok(launcher) = Rc::try_unwrap(launcher) else { return Err("launcher".into()) };
        launcher.shutdown().await;
        Ok(())
    })
}

/// Cpu time so far, by who used it.
struct Cpu {
    parts: [(&'static str, Duration); 5],
}

impl Cpu {
    /// `template` is a pid 1 whose parent is the launcher.
    fn now(template: i32) -> Self {
        let launcher = stat(template).map_or(0, |stat| stat.parent);
        let of = |pid, reaped| {
            stat(pid).map_or(Duration::ZERO, |stat| if reaped { stat.reaped } else { stat.own })
        };
        let all: Vec<_> = fs::read_dir("/proc")
            .expect("/proc")
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .collect();
        let kernel = all
            .iter()
            .filter_map(|pid| stat(*pid))
            .filter(|stat| stat.parent == 2)
            .map(|stat| stat.own)
            .sum();
        let program = all
            .iter()
            .filter_map(|pid| stat(*pid))
            .filter(|stat| stat.parent == template)
            .map(|stat| stat.own + stat.reaped)
            .sum();
        Self {
            parts: [
                ("caller", of(std::process::id() as i32, false)),
                ("launcher", of(launcher, false)),
                ("midwives", of(launcher, true)),
                ("keepers and copies", of(template, true) + program),
                ("kernel threads (the whole machine's)", kernel),
            ],
        }
    }

    fn print_since(&self, before: &Self, count: usize) {
        let each = self
            .parts
            .iter()
            .zip(&before.parts)
            .map(|((name, now), (_, before))| {
                (name, now.saturating_sub(*before).as_secs_f64() * 1e3 / count as f64)
            })
            .collect::<Vec<_>>();
        for (name, ms) in &each {
            println!("{ms:7.2} ms  {name}");
        }
        println!("{:7.2} ms  of cpu for one start", each.iter().map(|(_, ms)| ms).sum::<f64>());
    }
}

struct Stat {
    parent: i32,
    own: Duration,
    reaped: Duration,
}

fn stat(pid: i32) -> Option<Stat> {
    const TICK: Duration = Duration::from_millis(10);
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<i64> =
        text.rsplit_once(") ")?.1.split(' ').skip(1).map_while(|field| field.parse().ok()).collect();
    let ticks = |at: usize| TICK * (fields[at] + fields[at + 1]) as u32;
    Some(Stat { parent: fields[0] as i32, own: ticks(10), reaped: ticks(12) })
}

fn specification() -> SandboxSpec {
    SandboxSpec {
        argv: ["/usr/bin/python3", "-s", "-c", TEMPLATE].map(Into::into).into(),
        env: vec![],
        cwd: "/".into(),
        hostname: "rate".into(),
        binds: vec![],
        files: vec![("/var/runtime/park.so".into(), PARK_LIBRARY.to_vec())],
        tmp_bytes: 512 << 20,
        memory_bytes: 1 << 30,
        cpu_millis: 2000,
        pids: 1024,
        open_files: 1024,
        listen: None,
        forkable: true,
        places: vec![],
        companions: None,
    }
}
