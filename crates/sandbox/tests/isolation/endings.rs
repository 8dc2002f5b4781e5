//! Whatever dies, in whatever order: no sandbox survives, and nothing stays behind.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use martlet_sandbox::{ExitStatus, Isolation, LaunchError, Launcher, TmpKind, doctor};
use rustix::process::{Pid, Signal, kill_process};

use crate::world::{
    World, alive, cgroups, eventually, loop_devices, options, sandboxed_processes, spec, within,
};

pub fn dropping_the_handle_ends_it() {
    let world = World::new("drop");
    let running = world.start(spec(&["/bin/sleep", "1000"]));
    let (exit, pid) = (running.sandbox.exit(), running.sandbox.pid());
    drop(running);
    assert_eq!(world.runtime.block_on(within(exit.clone())), ExitStatus::Signal(9));
    assert_eq!(exit.status(), Some(ExitStatus::Signal(9)));
    eventually("it is reaped", || !alive(pid));
}

pub fn an_abandoned_launch_leaves_nothing() {
    let world = World::new("abandon");
    world.runtime.block_on(async {
        for _ in 0..5 {
            let launch = world.launcher.launch(spec(&["/bin/sleep", "1000"]), vec![]);
            let _ = tokio::time::timeout(std::time::Duration::from_micros(200), launch).await;
        }
        // The answers arrive, find nobody, and are dropped.
        let last = within(world.launcher.launch(spec(&["/bin/true"]), vec![])).await.expect("launch");
        within(last.exit()).await;
        drop(last);
        for _ in 0..200 {
            if sandboxed_processes().is_empty() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("sandboxes of abandoned launches live on");
    });
}

pub fn shutdown_waits_for_the_launcher() {
    let world = World::new("shutdown");
    let running = world.start(spec(&["/bin/sleep", "1000"]));
    let (launcher_pid, pid) = (world.launcher_pid as i32, running.sandbox.pid());
    world.runtime.block_on(within(world.launcher.shutdown()));
    assert!(!alive(launcher_pid) && !alive(pid));
    assert_eq!(world.runtime.block_on(within(running.sandbox.exit())), ExitStatus::Signal(9));
    assert!(matches!(world.try_start(spec(&["/bin/true"])), Err(LaunchError::Gone)));
    world.runtime.block_on(within(world.launcher.shutdown()));
}

/// Everything by which a machine could tell that we were here.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    mounts: String,
    processes: Vec<i32>,
    cgroups: Vec<PathBuf>,
    loops: Vec<String>,
}

fn traces(instance: &str, scratch: &std::path::Path) -> Traces {
    Traces {
        mounts: std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo"),
        processes: sandboxed_processes(),
        cgroups: cgroups(instance),
        loops: loop_devices(scratch),
    }
}

pub fn nothing_is_left_behind() {
    let mut asked = options("traces");
    asked.tmp = TmpKind::Disk;
    let (instance, scratch) = (asked.instance.clone(), asked.scratch_dir.clone());
    let before = traces(&instance, &scratch);
    let world = World::with(asked);
    for _ in 0..10 {
        assert_eq!(world.sh("echo x > /tmp/x; exit 4").status, ExitStatus::Code(4));
    }
    let fds = || std::fs::read_dir(format!("/proc/{}/fd", world.launcher_pid)).expect("fds").count();
    // The launcher keeps nothing of those that are gone, and mounts of the living are not the host's.
    let running = world.start(spec(&["/bin/sleep", "1000"]));
    let open_with_one = fds();
    assert_eq!(traces(&instance, &scratch).mounts, before.mounts);
    drop(running);
    eventually("their groups go", || world.groups().is_empty());
    for _ in 0..10 {
        world.sh("true");
    }
    let _running = world.start(spec(&["/bin/sleep", "1000"]));
    eventually("descriptors do not add up", || fds() <= open_with_one);
    drop(world);
    eventually("all traces are gone", || traces(&instance, &scratch) == before);
    assert!(!scratch.exists());
}

/// The argument with which this program plays a server that will be killed.
pub const SERVER_COMMAND: &str = "__server";

/// Starts a launcher and two sandboxes, tells their process ids, and waits to be killed.
pub fn serve() {
    let instance = std::env::args().nth(2).expect("instance");
    let mut asked = options("unused");
    asked.scratch_dir = std::env::temp_dir().join(&instance);
    asked.instance = instance;
    asked.tmp = TmpKind::Disk;
    let process = Launcher::start(asked).expect("launcher");
    print!("{} ", process.pid());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    runtime.block_on(async {
        let launcher = process.connect().expect("connect");
        let busy =
            launcher.launch(spec(&["/bin/sh", "-c", "while :; do :; done"]), vec![]).await.expect("launch");
        let frozen = launcher.launch(spec(&["/bin/sleep", "1000"]), vec![]).await.expect("launch");
        frozen.freeze().expect("freeze");
        println!("{} {}", busy.pid(), frozen.pid());
        busy.exit().await;
        frozen.exit().await;
    });
}

struct Server {
    child: Child,
    instance: String,
    launcher: i32,
    sandboxes: Vec<i32>,
}

fn start_server(name: &str) -> Server {
    let instance = options(name).instance;
    let mut command = Command::new("/proc/self/exe");
    let mut child = command
        .args([SERVER_COMMAND, &instance])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server's program");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("line");
    let pids: Vec<i32> = line.split_whitespace().map(|pid| pid.parse().expect("pid")).collect();
    assert_eq!(pids.len(), 3, "{line}");
    assert!(pids.iter().all(|pid| alive(*pid)));
    Server { child, instance, launcher: pids[0], sandboxes: pids[1..].to_vec() }
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).expect("pid"), Signal::KILL).expect("kill");
}

pub fn killing_the_server_ends_everything() {
    let mut server = start_server("server-killed");
    server.child.kill().expect("kill");
    server.child.wait().expect("wait");
    eventually("its sandboxes are gone", || server.sandboxes.iter().all(|pid| !alive(*pid)));
    eventually("its launcher is gone", || !alive(server.launcher));
    assert_eq!(cgroups(&server.instance), Vec::<PathBuf>::new());
    let scratch = std::env::temp_dir().join(&server.instance);
    assert!(!scratch.exists());
    eventually("its loop devices are gone", || loop_devices(&scratch).is_empty());
}

pub fn killing_the_launcher_ends_everything() {
    let mut server = start_server("launcher-killed");
    kill(server.launcher);
    eventually("its sandboxes are gone", || server.sandboxes.iter().all(|pid| !alive(*pid)));
    // The server is told by the exits of all its sandboxes, and then ends by itself here.
    assert!(server.child.wait().expect("wait").success());
    clean_up_by_starting_again(&server);
}

pub fn what_both_left_the_next_start_removes() {
    let mut server = start_server("both-killed");
    // The launcher cannot see the server's end any more, nor clean up.
    kill(server.launcher);
    server.child.kill().expect("kill");
    server.child.wait().expect("wait");
    // One that version 1 has frozen cannot die until somebody thaws it, which the next start does.
    let certain = if freezes_for_good() { &server.sandboxes[..1] } else { &server.sandboxes };
    eventually("its sandboxes are gone", || certain.iter().all(|pid| !alive(*pid)));
    assert_ne!(cgroups(&server.instance), Vec::<PathBuf>::new(), "nobody was left to remove them");
    clean_up_by_starting_again(&server);
}

fn freezes_for_good() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    mounts.lines().any(|line| line.contains(" - cgroup ") && line.ends_with(",freezer"))
}

fn clean_up_by_starting_again(server: &Server) {
    let mut asked = options("again");
    asked.scratch_dir = std::env::temp_dir().join(&server.instance);
    asked.instance.clone_from(&server.instance);
    asked.tmp = TmpKind::Disk;
    let world = World::with(asked);
    assert_eq!(world.groups(), Vec::<PathBuf>::new());
    assert!(server.sandboxes.iter().all(|pid| !alive(*pid)));
    assert_eq!(world.sh("echo fine").ok(), "fine\n");
    let scratch = world.scratch.clone();
    drop(world);
    assert_eq!(cgroups(&server.instance), Vec::<PathBuf>::new());
    eventually("loop devices are gone", || loop_devices(&scratch).is_empty());
}

pub fn a_second_launcher_of_one_directory_is_refused() {
    let asked = options("twice");
    let world = World::with(asked.clone());
    let running = world.start(spec(&["/bin/sleep", "1000"]));
    // In a process of its own: this one has threads now.
    let refused = as_another_server(&asked.instance);
    assert!(refused.contains("another launcher is working there"), "{refused}");
    assert_eq!(running.sandbox.exit().status(), None, "the first one's sandboxes are not touched");
}

fn as_another_server(instance: &str) -> String {
    let output = Command::new("/proc/self/exe").args([SERVER_COMMAND, instance]).output().expect("run");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn the_doctor_agrees_with_the_launcher() {
    let findings = doctor::examine(Isolation::Full, TmpKind::Disk);
    let missing: Vec<_> =
        findings.iter().filter(|finding| finding.status == doctor::Status::Missing).collect();
    let mut asked = options("doctor");
    asked.tmp = TmpKind::Disk;
    match Launcher::start(asked) {
        Ok(process) => {
            assert!(missing.is_empty(), "{missing:?}");
            drop(process);
        }
        Err(error) => assert!(!missing.is_empty(), "the doctor sees nothing wrong: {error}"),
    }
}
