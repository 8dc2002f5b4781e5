//! What must work.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use martlet_sandbox::{Bind, ExitStatus, LaunchError, Step};

use crate::harness::skip;
use crate::world::{World, eventually, options, python, spec, within};

pub fn exit_codes_and_signals_arrive_exactly() {
    let world = World::new("exits");
    assert_eq!(world.sh("exit 0").status, ExitStatus::Code(0));
    assert_eq!(world.sh("exit 7").status, ExitStatus::Code(7));
    assert_eq!(world.sh("exit 255").status, ExitStatus::Code(255));
    assert_eq!(world.sh("kill -9 $$").status, ExitStatus::Signal(9));
    assert_eq!(world.sh("kill -11 $$").status, ExitStatus::Signal(11));
    // A signal that the launcher ignores for itself.
    assert_eq!(world.sh("kill -15 $$").status, ExitStatus::Signal(15));
    let running = world.start(spec(&["/bin/sleep", "1000"]));
    running.sandbox.kill();
    assert_eq!(world.runtime.block_on(within(running.sandbox.exit())), ExitStatus::Signal(9));
    // The end of the main process is the end of all.
    let outcome = world.sh("sleep 1000 & exit 3");
    assert_eq!(outcome.status, ExitStatus::Code(3));
}

#[track_caller]
fn fails_at(world: &World, spec: martlet_sandbox::SandboxSpec, wanted: Step, about: &str) {
    match world.try_start(spec) {
        Err(LaunchError::Step { step, noun, .. }) if step == wanted => {
            assert!(noun.contains(about), "{noun}");
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it started"),
    }
}

pub fn what_cannot_start_says_why() {
    let world = World::new("faults");
    fails_at(&world, spec(&["/no/such/program"]), Step::Exec, "/no/such/program");
    fails_at(&world, spec(&["/etc/passwd"]), Step::Exec, "/etc/passwd");
    let mut asked = spec(&["/bin/true"]);
    asked.cwd = "/no/such/directory".into();
    fails_at(&world, asked, Step::WorkingDirectory, "/no/such/directory");
    let mut asked = spec(&["/bin/true"]);
    asked.binds = vec![Bind::new("/no/such/source", "/var/task")];
    fails_at(&world, asked, Step::Bind, "/no/such/source");
    let mut asked = spec(&["/bin/true"]);
    asked.binds = vec![Bind::new("/usr", "/usr/no/such/place")];
    fails_at(&world, asked, Step::Bind, "/usr/no/such/place");
    let mut asked = spec(&["/bin/true"]);
    asked.files = vec![("/usr/no-such-file".into(), b"x".to_vec())];
    fails_at(&world, asked, Step::File, "/usr/no-such-file");
    let mut asked = spec(&["/bin/true"]);
    asked.hostname = "not a name".into();
    assert!(matches!(world.try_start(asked), Err(LaunchError::Invalid(_))));
    // Nothing of them is left: neither the host's tree was touched, nor is a group there.
    assert!(!Path::new("/usr/no").exists());
    eventually("the groups go", || world.groups().is_empty());
    assert_eq!(world.sh("echo fine").ok(), "fine\n");
}

pub fn the_environment_is_only_what_was_given() {
    let world = World::new("environment");
    let mut asked = spec(&["/usr/bin/env"]);
    asked.env = vec![("A".into(), "1".into()), ("B".into(), "two words = ü".into())];
    assert_eq!(world.run(asked).ok(), "A=1\nB=two words = ü\n");
    let mut asked = spec(&["/bin/sh", "-c", "hostname; pwd; umask; cat /etc/hostname"]);
    asked.cwd = "/usr/lib".into();
    assert_eq!(world.run(asked).ok(), "sandbox\n/usr/lib\n0022\nsandbox\n");
}

pub fn descriptors_are_only_what_was_given() {
    let world = World::new("descriptors");
    let (mut out, program_out) = std::io::pipe().expect("pipe");
    let (program_in, mut input) = std::io::pipe().expect("pipe");
    // Crossing numbers, and one that is high.
    let fds = vec![
        (program_out.try_clone().expect("clone").into(), 1),
        (program_in.into(), 200),
        (program_out.into(), 3),
    ];
    let script = "cd /proc/self/fd && for n in *; do printf '%s ' $n; done; readlink 0 >&3; cat <&200";
    let sandbox = world.launch(spec(&["/bin/bash", "-c", script]), fds).expect("launch");
    input.write_all(b"through\n").expect("write");
    drop(input);
    let mut said = String::new();
    out.read_to_string(&mut said).expect("read");
    assert_eq!(world.runtime.block_on(within(sandbox.exit())), ExitStatus::Code(0));
    // The shell itself has opened the directory as one more.
    let (numbers, rest) = said.split_once("/dev/null").expect("fd 0 is /dev/null");
    let numbers: Vec<u32> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    assert!([0, 1, 2, 3, 200].iter().all(|number| numbers.contains(number)), "{numbers:?}");
    assert!(numbers.len() <= 6, "{numbers:?}");
    assert_eq!(rest, "\nthrough\n");
    let twice = vec![
        (std::fs::File::open("/dev/null").expect("open").into(), 5),
        (std::fs::File::open("/dev/null").expect("open").into(), 5),
    ];
    assert!(matches!(world.launch(spec(&["/bin/true"]), twice), Err(LaunchError::Invalid(_))));
}

pub fn output_can_be_reopened_by_name() {
    let world = World::new("reopen");
    let outcome = world.sh("echo one > /dev/stdout; echo two > /dev/stderr; echo three > /proc/self/fd/1");
    assert_eq!((outcome.out.as_str(), outcome.err.as_str()), ("one\nthree\n", "two\n"));
}

pub fn it_runs_as_one_ordinary_user() {
    let world = World::new("user");
    let said =
        world.sh("id; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; cat /proc/self/cgroup").ok();
    assert!(
        said.starts_with("uid=993(sbx_user1051) gid=993(sbx_user1051) groups=993(sbx_user1051)\n"),
        "{said}"
    );
    for line in said.lines().filter(|line| line.starts_with("Cap")) {
        assert!(line.ends_with("0000000000000000"), "{line}");
    }
    assert!(said.contains("NoNewPrivs:\t1\n") && said.contains("Seccomp:\t2\n"), "{said}");
    // The cgroup namespace begins at the own group.
    assert!(said.lines().filter(|line| line.contains(":/")).all(|line| line.ends_with(":/")), "{said}");
    let (one, two) = (world.start(spec(&["/bin/sleep", "60"])), world.start(spec(&["/bin/sleep", "60"])));
    let host_uid = |pid: i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
        status.lines().find_map(|line| line.strip_prefix("Uid:\t")?.split('\t').next()?.parse::<u32>().ok())
    };
    let (one, two) = (host_uid(one.sandbox.pid()), host_uid(two.sandbox.pid()));
    assert!(one.is_some_and(|uid| uid >= crate::world::UID_BASE), "{one:?}");
    assert_ne!(one, two, "two sandboxes share no host user");
}

pub fn host_paths_behind_closed_doors_can_be_shown() {
    let world = World::new("closed");
    let closed = world.scratch.join("closed");
    let shown = closed.join("shown");
    std::fs::create_dir_all(shown.join("deep")).expect("directories");
    std::fs::write(shown.join("deep/file"), "content").expect("file");
    std::fs::write(closed.join("secret"), "secret").expect("file");
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).expect("close");
    let script =
        format!("cat {0}/deep/file; ls {1}; echo x > {0}/deep/file", shown.display(), closed.display());
    let mut asked = spec(&["/bin/sh", "-c", &script]);
    asked.binds = vec![Bind::same(&shown)];
    let outcome = world.run(asked);
    assert_eq!(outcome.out, "contentshown\n");
    assert!(outcome.err.contains("Read-only file system"), "{}", outcome.err);
    assert_eq!(std::fs::read_to_string(shown.join("deep/file")).expect("file"), "content");
}

pub fn binds_are_read_only_and_keep_their_order() {
    let world = World::new("binds");
    let (outer, inner) = (world.scratch.join("outer"), world.scratch.join("inner"));
    std::fs::create_dir_all(outer.join("lib")).expect("directory");
    std::fs::create_dir_all(&inner).expect("directory");
    std::fs::write(inner.join("name"), "inner").expect("file");
    std::fs::write(world.scratch.join("single"), "single").expect("file");
    std::fs::write(outer.join("open"), "open").expect("file");
    std::fs::set_permissions(outer.join("open"), PermissionsExt::from_mode(0o666)).expect("mode");
    let script =
        "cat /var/task/lib/name /var/single; echo x > /var/task/open; touch /var/task/new; rm /var/single";
    let mut asked = spec(&["/bin/sh", "-c", script]);
    // Inner first: the order of asking does not matter.
    asked.binds = vec![
        Bind::new(&inner, "/var/task/lib"),
        Bind::new(&outer, "/var/task"),
        Bind::new(world.scratch.join("single"), "/var/single"),
    ];
    let outcome = world.run(asked);
    assert_eq!(outcome.out, "innersingle");
    assert_eq!(
        outcome.err.matches("Read-only file system").count() + outcome.err.matches("busy").count(),
        3,
        "{}",
        outcome.err
    );
}

pub fn files_replace_our_own() {
    let world = World::new("files");
    let mut asked =
        spec(&["/bin/sh", "-c", "cat /etc/hosts; wc -c < /var/runtime/deep/data; echo x > /etc/hosts"]);
    asked.files = vec![
        ("/etc/hosts".into(), b"127.0.0.1 mine\n".to_vec()),
        ("/var/runtime/deep/data".into(), vec![0xff; 1 << 20]),
    ];
    let outcome = world.run(asked);
    assert_eq!(outcome.out, "127.0.0.1 mine\n1048576\n");
    assert!(outcome.err.contains("Read-only file system"), "{}", outcome.err);
}

pub fn a_listener_inside_is_served_from_outside() {
    let world = World::new("listener");
    let mut asked = python(
        "import socket; s = socket.create_connection(('127.0.0.1', 9001)); s.sendall(b'ping'); print(s.recv(9).decode())",
    );
    asked.listen = Some(9001);
    let mut running = world.start(asked);
    let listener = running.sandbox.take_listener().expect("a listener");
    assert!(running.sandbox.take_listener().is_none(), "only once");
    let (mut connection, _) = listener.accept().expect("accept");
    let mut bytes = [0; 4];
    connection.read_exact(&mut bytes).expect("read");
    connection.write_all(&bytes.map(|byte| byte.to_ascii_uppercase())).expect("write");
    assert_eq!(world.runtime.block_on(within(running.finish())).ok(), "PING\n");
}

/// Runs every interpreter that this machine has, from wherever it lies.
pub fn interpreters_of_this_machine_run() {
    let world = World::new("interpreters");
    let mut ran = 0;
    let mut try_one = |program: PathBuf, prefix: Option<PathBuf>, arguments: &[&str], wanted: &str| {
        if !program.exists() {
            return;
        }
        let text = program.to_string_lossy().into_owned();
        let argv: Vec<&str> = std::iter::once(text.as_str()).chain(arguments.iter().copied()).collect();
        let mut asked = spec(&argv);
        asked.memory_bytes = 256 << 20;
        asked.binds = prefix.into_iter().map(Bind::same).collect();
        let outcome = world.run(asked);
        assert!(outcome.out.contains(wanted), "{text}: {outcome:?}");
        ran += 1;
    };
    let script = "import sys, json, ssl, ctypes, threading, subprocess, tempfile, multiprocessing\n\
                  t = threading.Thread(target=lambda: None); t.start(); t.join()\n\
                  p = multiprocessing.Process(target=lambda: None)\n\
                  tempfile.NamedTemporaryFile(); multiprocessing.Lock()\n\
                  print('ready', subprocess.check_output(['/bin/echo', 'child']).decode())";
    let arguments = ["-c", script];
    try_one("/usr/bin/python3".into(), None, &arguments, "ready child");
    for root in ["/root/.pyenv/versions", "/opt/pyenv/versions"] {
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            let version = entry.file_name().to_string_lossy().into_owned();
            let modern =
                version.strip_prefix("3.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
            if modern.is_some_and(|minor| minor >= 8) {
                try_one(entry.path().join("bin/python3"), Some(entry.path()), &arguments, "ready child");
            }
        }
    }
    let script = "const { Worker } = require('worker_threads'); const fs = require('fs');\n\
                  fs.mkdtempSync('/tmp/x'); require('os').networkInterfaces();\n\
                  const made = require('child_process').execFileSync('/bin/echo', ['child']);\n\
                  new Worker('1', { eval: true }).on('exit', () => console.log('ready ' + made))";
    try_one("/usr/bin/node".into(), None, &["-e", script], "ready child");
    try_one("/usr/bin/perl".into(), None, &["-e", "print 'ready ', `echo child`"], "ready child");
    try_one("/usr/bin/java".into(), None, &["-Xmx64m", "-version"], "");
    if ran == 0 {
        skip("no interpreter is there");
    }
}

pub fn a_full_house_refuses_by_name() {
    let mut asked = options("full");
    asked.uid_count = 2;
    let world = World::with(asked);
    let first = world.start(spec(&["/bin/sleep", "60"]));
    let _second = world.start(spec(&["/bin/sleep", "60"]));
    assert!(matches!(world.try_start(spec(&["/bin/true"])), Err(LaunchError::Full { limit: 2 })));
    // A place is free again when its sandbox is gone and its handle dropped.
    drop(first);
    eventually("a place is free again", || world.try_start(spec(&["/bin/true"])).is_ok());
}

pub fn launches_side_by_side() {
    let world = World::new("parallel");
    let ends = world.runtime.block_on(within(async {
        let mut tasks = Vec::new();
        for number in 0..10 {
            let launcher = world.launcher.clone();
            tasks.push(tokio::spawn(async move {
                let asked = spec(&["/bin/sh", "-c", &format!("exit {number}")]);
                launcher.launch(asked, vec![]).await.expect("launch").exit().await
            }));
        }
        let mut ends = Vec::new();
        for task in tasks {
            ends.push(task.await.expect("task"));
        }
        ends
    }));
    assert_eq!(ends, (0..10).map(ExitStatus::Code).collect::<Vec<_>>());
}

pub fn orphans_are_reaped() {
    let world = World::new("orphans");
    // Each inner shell leaves a grandchild to pid 1; none may stay as a zombie.
    let script = "for n in 1 2 3 4 5; do sh -c 'sleep 0.05 & exit 0'; done; sleep 0.5; grep -l '^State:.Z' /proc/[0-9]*/status; true";
    assert_eq!(world.sh(script).ok(), "");
}
