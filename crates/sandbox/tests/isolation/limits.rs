//! Limits hold, and say when they were met.

use std::time::{Duration, Instant};

use martlet_sandbox::{ExitStatus, Isolation, TmpKind};

use crate::harness::skip;
use crate::world::{Running, World, eventually, options, python, spec, within};

pub fn a_fork_bomb_is_bounded() {
    let world = World::new("forks");
    let mut asked = python(
        "
import os, time
made = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(60); os._exit(0)
        made += 1
except OSError as e: print(made, e.errno)",
    );
    asked.pids = 20;
    assert_eq!(world.run(asked).ok(), "19 11\n");
    let mut asked = spec(&["/bin/sh", "-c", "bomb() { bomb | bomb & }; bomb; sleep 1; exit 0"]);
    asked.pids = 30;
    let outcome = world.run(asked);
    assert!(matches!(outcome.status, ExitStatus::Code(_)), "{outcome:?}");
    assert_eq!(world.sh("echo fine").ok(), "fine\n");
}

pub fn memory_ends_at_the_limit() {
    let world = World::new("memory");
    let mut asked = python("b = bytearray(40 << 20); print(len(b) >> 20)");
    asked.memory_bytes = 64 << 20;
    let outcome = world.run(asked);
    assert!(outcome.usage.memory_peak_bytes > 40 << 20, "{outcome:?}");
    assert_eq!((outcome.usage.oom_kills, outcome.ok().as_str()), (0, "40\n"));
    let mut asked = python("b = bytearray(400 << 20); print(len(b) >> 20)");
    asked.memory_bytes = 64 << 20;
    let outcome = world.run(asked);
    assert_eq!((outcome.status, outcome.out.as_str()), (ExitStatus::Signal(9), ""));
    assert!(outcome.usage.oom_kills >= 1, "{outcome:?}");
    assert!(outcome.usage.memory_peak_bytes <= 64 << 20, "{outcome:?}");
    // Also what lies in /dev/shm and in a memory /tmp counts.
    let mut asked = python("open('/dev/shm/x', 'wb').write(b'x' * (60 << 20))");
    asked.memory_bytes = 32 << 20;
    assert!(world.run(asked).usage.oom_kills >= 1);
}

pub fn open_files_end_at_the_limit() {
    let world = World::new("files");
    let script = "
import os, resource
opened = []
try:
    while len(opened) < 10000: opened.append(os.open('/dev/null', os.O_RDONLY))
except OSError as e: print(e.errno)
print(max(opened) + 1, resource.getrlimit(resource.RLIMIT_NOFILE))
try: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
except ValueError: print('stays')";
    assert_eq!(world.python(script).ok(), "24\n1024 (1024, 1024)\nstays\n");
}

/// Fills /tmp with `step` megabytes at a time, tells how much fitted and why no more.
const FILL: &str = "
import os
written = 0
try:
    with open('/tmp/full', 'wb', buffering=0) as f:
        while True: written += f.write(b'x' * (1 << 20))
except OSError as e: print(written >> 20, e.errno)
os.unlink('/tmp/full'); open('/tmp/again', 'w').write('x'); print('again')";

#[track_caller]
fn filled(out: &str) -> u64 {
    let (count, rest) = out.split_once(' ').expect("count");
    assert_eq!(rest, "28\nagain\n", "ENOSPC, and usable afterwards");
    count.parse().expect("number")
}

pub fn disk_tmp_is_a_hard_limit_that_costs_no_memory() {
    let mut asked = options("disk");
    asked.tmp = TmpKind::Disk;
    let world = World::with(asked);
    let mut asked = python(FILL);
    asked.tmp_bytes = 96 << 20;
    // Less memory than what is written.
    asked.memory_bytes = 48 << 20;
    let outcome = world.run(asked);
    assert_eq!(outcome.usage.oom_kills, 0, "{outcome:?}");
    let fitted = filled(&outcome.ok());
    assert!((96..=104).contains(&fitted), "{fitted}");
    // Empty and its own for the next.
    assert_eq!(world.sh("ls -A /tmp; stat -c %a:%u /tmp").ok(), "700:993\n");
}

/// What was never written to is used again, and nothing else is.
pub fn a_disk_tmp_is_new_for_each() {
    let mut asked = options("new");
    asked.tmp = TmpKind::Disk;
    let world = World::with(asked);
    let look = "import os; s = os.stat('/tmp'); print(oct(s.st_mode), s.st_uid, s.st_nlink, os.listdir('/tmp'), os.listxattr('/tmp'), os.statvfs('/tmp').f_bfree)";
    let fresh = world.python(look).ok();
    assert_eq!(world.python(look).ok(), fresh);
    for trace in [
        "open('/tmp/a', 'w').write('x' * 100000)",
        "open('/tmp/a', 'w').close(); os.unlink('/tmp/a')",
        "os.setxattr('/tmp', 'user.x', b'y')",
        "os.chmod('/tmp', 0o777)",
        "os.mkdir('/tmp/d'); os.utime('/tmp', (0, 0))",
        "os.write(os.open('/tmp', os.O_TMPFILE | os.O_RDWR), b'z' * 100000)",
    ] {
        world.python(&format!("import os; {trace}")).ok();
        for _ in 0..3 {
            assert_eq!(world.python(look).ok(), fresh, "after {trace}");
        }
    }
}

pub fn memory_tmp_is_a_hard_limit() {
    let world = World::new("tmpfs");
    let mut asked = python(FILL);
    asked.tmp_bytes = 16 << 20;
    let fitted = filled(&world.run(asked).ok());
    assert!((15..=16).contains(&fitted), "{fitted}");
}

pub fn cpu_is_proportional() {
    let world = World::new("cpu");
    let mut asked = spec(&["/bin/sh", "-c", "while :; do :; done"]);
    asked.cpu_millis = 200;
    let running = world.start(asked);
    let share = || {
        let (start, before) = (Instant::now(), running.sandbox.usage().cpu_micros);
        std::thread::sleep(Duration::from_secs(1));
        (running.sandbox.usage().cpu_micros - before) as f64 / start.elapsed().as_micros() as f64
    };
    // A busy machine may give less; the limit is that it never gives much more.
    let first = share();
    assert!(first > 0.0 && first < 0.35, "{first}");
    running.sandbox.set_cpu_millis(50).expect("less");
    let less = share();
    assert!(less < 0.12, "{less}");
    running.sandbox.set_cpu_millis(2000).expect("more");
    eventually("it gets more than before", || share() > 0.12);
}

fn ticking(world: &World) -> Running {
    let mut running = world.start(spec(&["/bin/sh", "-c", "while :; do echo tick; sleep 0.01; done"]));
    assert_eq!(running.line(), "tick");
    running
}

/// Whether anything is said for a while, after what was said before is read.
fn silent(running: &mut Running) -> bool {
    rustix::io::ioctl_fionbio(&running.out, true).expect("nonblocking");
    let drain = || {
        let mut any = false;
        while rustix::io::read(&running.out, &mut [0u8; 4096][..]).is_ok_and(|read| read > 0) {
            any = true;
        }
        any
    };
    drain();
    std::thread::sleep(Duration::from_millis(300));
    !drain()
}

pub fn a_frozen_sandbox_stands_still() {
    let world = World::new("freeze");
    let mut running = ticking(&world);
    running.sandbox.freeze().expect("freeze");
    eventually("it stands still", || silent(&mut running));
    running.sandbox.thaw().expect("thaw");
    eventually("it goes on", || !silent(&mut running));
}

pub fn a_frozen_sandbox_can_be_killed() {
    let world = World::new("freeze-kill");
    let running = ticking(&world);
    running.sandbox.freeze().expect("freeze");
    running.sandbox.kill();
    assert_eq!(world.runtime.block_on(within(running.sandbox.exit())), ExitStatus::Signal(9));
    let running = ticking(&world);
    running.sandbox.freeze().expect("freeze");
    let exit = running.sandbox.exit();
    drop(running);
    assert_eq!(world.runtime.block_on(within(exit)), ExitStatus::Signal(9));
}

fn without_cgroups(name: &str) -> World {
    let mut asked = options(name);
    asked.isolation = Isolation::NoCgroups;
    World::with(asked)
}

pub fn without_cgroups_data_is_limited() {
    let world = without_cgroups("data");
    assert!(crate::world::cgroups(&world.instance).is_empty());
    assert_eq!(world.launcher.in_force().cgroups, None);
    let outcome = world.python("b = bytearray(40 << 20); print('fits')");
    assert!(outcome.usage.memory_peak_bytes > 40 << 20, "{outcome:?}");
    assert!(outcome.usage.cpu_micros > 0, "{outcome:?}");
    assert_eq!(outcome.ok(), "fits\n");
    let outcome = world.python(
        "
try: b = bytearray(900 << 20); print('fits')
except MemoryError: print('refused')",
    );
    assert_eq!(outcome.ok(), "refused\n");
    let mut asked = python(
        "
import os
try:
    while os.fork(): pass
    import time; time.sleep(60)
except OSError as e: print(e.errno)",
    );
    asked.pids = 20;
    assert_eq!(world.run(asked).ok(), "11\n");
    let node = "/usr/bin/node";
    if !std::path::Path::new(node).exists() {
        skip(format!("{node} is not there; the rest of this test has passed"));
    }
    assert_eq!(world.run(spec(&[node, "-e", "console.log('node')"])).ok(), "node\n");
}

pub fn without_cgroups_it_freezes_by_signal() {
    freezes(&without_cgroups("stop"));
}

/// Freezing, thawing, and killing what is frozen.
pub fn freezes(world: &World) {
    let mut running = ticking(world);
    running.sandbox.freeze().expect("freeze");
    eventually("it stands still", || silent(&mut running));
    assert!(running.sandbox.usage().memory_bytes > 0);
    running.sandbox.thaw().expect("thaw");
    eventually("it goes on", || !silent(&mut running));
    running.sandbox.freeze().expect("freeze");
    running.sandbox.kill();
    assert_eq!(world.runtime.block_on(within(running.sandbox.exit())), ExitStatus::Signal(9));
}
