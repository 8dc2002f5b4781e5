//! The same, started by a user without privileges.

use std::os::unix::process::CommandExt;
use std::process::Command;

use martlet_sandbox::{ExitStatus, Isolation, Launcher, StartError, TmpKind};

use crate::world::{World, options};

/// Nobody's uid, and not in the range that sandboxes get.
const USER: u32 = 1_899_999_999;

/// Runs one of the functions below as a user, in a process of its own: as this user, or as one that root switches to.
fn as_user(role: &str) {
    let root = rustix::process::geteuid().is_root();
    in_a_process(role, |command| if root { command.uid(USER).gid(USER) } else { command });
}

fn in_a_process(role: &str, prepare: impl FnOnce(&mut Command) -> &mut Command) {
    let program = std::env::current_exe().expect("program");
    // A copy that the user can reach, whatever directories the original lies in.
    let copy = std::env::temp_dir().join(format!("martlet-rootless-{}", std::process::id()));
    std::fs::copy(program, &copy).expect("copy");
    let result = prepare(Command::new(&copy).arg(ROLE_COMMAND).arg(role)).output();
    let _ = std::fs::remove_file(&copy);
    let output = result.expect("run");
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(SKIPPED) {
        crate::harness::skip(said.trim());
    }
    assert!(output.status.success(), "{said}");
}

/// The argument with which this program plays one of the roles below.
pub const ROLE_COMMAND: &str = "__as_user";
const SKIPPED: i32 = 77;

/// Plays the role named by the second argument.
pub fn play() {
    match std::env::args().nth(2).as_deref() {
        Some("isolate") => isolate(),
        Some("refuse") => refuse(),
        Some("drop") => control_without_privileges(),
        other => panic!("no role {other:?}"),
    }
}

pub fn a_user_gets_the_same_isolation() {
    as_user("isolate");
}

pub fn a_user_is_refused_what_needs_root() {
    as_user("refuse");
}

pub fn a_server_without_privileges_controls_its_sandboxes() {
    in_a_process("drop", |command| command);
}

/// As `martlet up` does it: the launcher is started as root, then this process becomes a user.
fn control_without_privileges() {
    let asked = options("dropped");
    let process = Launcher::start(asked.clone()).expect("launcher");
    let (uid, gid) = (rustix::process::Uid::from_raw(USER), rustix::process::Gid::from_raw(USER));
    rustix::thread::set_thread_groups(&[]).expect("groups");
    rustix::thread::set_thread_res_gid(gid, gid, gid).expect("group");
    rustix::thread::set_thread_res_uid(uid, uid, uid).expect("user");
    let world = World::around(process, asked);
    crate::limits::freezes(&world);
    let running = world.start(crate::world::spec(&["/bin/sh", "-c", "while :; do :; done"]));
    running.sandbox.set_cpu_millis(300).expect("share of cpu");
    crate::world::eventually("usage is told", || {
        let usage = running.sandbox.usage();
        usage.memory_bytes > 0 && usage.memory_peak_bytes > 0 && usage.cpu_micros > 0
    });
    let outcome = world.sh("echo to > /dev/stdout; exit 6");
    assert_eq!((outcome.out.as_str(), outcome.status), ("to\n", ExitStatus::Code(6)));
}

fn isolate() {
    assert!(!rustix::process::geteuid().is_root());
    let mut asked = options("rootless");
    asked.isolation = Isolation::NoCgroups;
    match Launcher::start(asked.clone()) {
        Err(StartError::Refused(refusal)) if refusal.what.contains("user namespaces") => {
            eprintln!("{refusal}");
            std::process::exit(SKIPPED);
        }
        started => drop(started),
    }
    let world = World::with(asked);
    assert!(world.launcher.in_force().rootless);
    let said = world
        .sh("id -u; cat /proc/self/uid_map; grep CapEff /proc/self/status; ls /proc | grep -c '^[0-9]'")
        .ok();
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words[..5], ["993", "993", "0", "1", "CapEff:"], "{said}");
    assert_eq!(words[5], "0000000000000000");
    assert!(words[6].parse::<u32>().is_ok_and(|processes| processes < 8), "{said}");
    let outcome =
        world.sh("echo x > /tmp/x && cat /tmp/x; touch /etc/x /usr/x /var/x; mount -t tmpfs x /tmp; exit 5");
    assert_eq!((outcome.out.as_str(), outcome.status), ("x\n", ExitStatus::Code(5)));
    assert_eq!(outcome.err.matches("Read-only file system").count(), 3, "{outcome:?}");
    crate::attacks::forbidden_calls(&world);
    crate::limits::freezes(&world);
    // Two sandboxes are of one host user, and still cannot touch each other.
    let first = world.start(crate::world::spec(&["/bin/sleep", "60"]));
    let outcome = world.sh(&format!("kill -9 {}; ls /proc/{0}", first.sandbox.pid()));
    assert!(outcome.err.contains("No such process"), "{outcome:?}");
    assert_eq!(first.sandbox.exit().status(), None);
}

fn refuse() {
    let mut asked = options("rootless-disk");
    asked.isolation = Isolation::NoCgroups;
    asked.tmp = TmpKind::Disk;
    let scratch = asked.scratch_dir.clone();
    match Launcher::start(asked) {
        Err(StartError::Refused(refusal)) => assert!(refusal.to_string().contains("root"), "{refusal}"),
        other => panic!("{other:?}"),
    }
    assert!(!scratch.exists(), "a refusal leaves nothing");
    // Full isolation is given where the cgroups were delegated to this user, and otherwise refused; never less of it.
    let asked = options("rootless-full");
    match Launcher::start(asked) {
        Err(StartError::Refused(refusal)) => assert!(refusal.to_string().contains("cgroup"), "{refusal}"),
        Ok(process) => assert!(process.in_force().cgroups.is_some()),
        other => panic!("{other:?}"),
    }
}
