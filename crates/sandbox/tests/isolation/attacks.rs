//! What a hostile program tries.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use martlet_sandbox::{Bind, LaunchError};

use crate::harness::skip;
use crate::world::{World, options, python, spec};

pub fn host_processes_are_out_of_sight() {
    let world = World::new("processes");
    let said = world
        .sh("for p in /proc/[0-9]*; do basename $p; done; kill -0 1 && echo may; kill -9 1; echo alive")
        .ok();
    let pids: Vec<u32> = said.lines().filter_map(|line| line.parse().ok()).collect();
    assert!(pids.contains(&1) && pids.iter().all(|pid| *pid < 10), "{pids:?}");
    assert!(said.ends_with("alive\n"), "pid 1 does not die from inside: {said}");
    // By number, a process of the host that certainly exists: this one.
    let me = std::process::id();
    let outcome = world.sh(&format!("kill -9 {me}; ls /proc/{me}"));
    assert!(outcome.err.contains("No such process") && outcome.err.contains("No such file"), "{outcome:?}");
}

pub fn nothing_outside_tmp_can_be_written() {
    let world = World::new("writes");
    let places = "/ /usr /usr/bin /etc /var /opt /dev /proc /proc/sys/kernel /lib";
    let outcome = world.sh(&format!(
        "for d in {places}; do touch $d/x 2>/dev/null && echo \"$d\"; mkdir $d/y 2>/dev/null && echo \"$d\"; done;
         for f in /etc/passwd /usr/bin/env /proc/sysrq-trigger /proc/sys/kernel/hostname /proc/sys/vm/drop_caches; do
             (echo x >> $f) 2>/dev/null && echo $f; chmod 777 $f 2>/dev/null && echo $f; done;
         ln -s / /tmp/out; touch /tmp/out/etc/x 2>/dev/null && echo link;
         touch /tmp/../var/x 2>/dev/null && echo dots;
         mkdir -p /tmp/a /tmp/b && touch /tmp/a/f && mv /tmp/a/f /tmp/b/f && touch /dev/shm/f || echo 'tmp broken'"
    ));
    assert_eq!(outcome.out, "", "could be written: {outcome:?}");
}

/// Every call by its number, so that no wrapper stands between. The wanted errors: 1 EPERM, 38 ENOSYS.
const CALLS: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in arguments])
    return 0 if result != -1 else ctypes.get_errno()
page = ctypes.create_string_buffer(4096)
at = ctypes.addressof(page)
refused = dict(mount=165, umount2=166, pivot_root=155, chroot=161, unshare=272, setns=308, ptrace=101,
    process_vm_readv=310, process_vm_writev=311, pidfd_getfd=438, kcmp=312, bpf=321, perf_event_open=298,
    keyctl=250, add_key=248, request_key=249, kexec_load=246, kexec_file_load=320, init_module=175,
    finit_module=313, delete_module=176, reboot=169, swapon=167, swapoff=168, acct=163, quotactl=179,
    open_by_handle_at=304, name_to_handle_at=303, fsopen=430, fsmount=432, move_mount=429, open_tree=428,
    mount_setattr=442, syslog=103, settimeofday=164, clock_settime=227, iopl=172, ioperm=173, modify_ldt=154,
    fanotify_init=300, sethostname=170, setdomainname=171, vhangup=153, lookup_dcookie=212, migrate_pages=256,
    move_pages=279, process_mrelease=448, uselib=134, sysfs=139, adjtimex=159, vmsplice=278)
absent = dict(clone3=435, io_uring_setup=425, io_uring_enter=426, io_uring_register=427, userfaultfd=323,
    memfd_secret=447, future=463, far_future=1000, x32=0x40000000)
bad = [(n, e) for n, e in ((n, call(c, at, at, 0, 0, 0)) for n, c in refused.items()) if e != 1]
bad += [(n, e) for n, e in ((n, call(c, at, at, 0, 0, 0)) for n, c in absent.items()) if e != 38]
for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
    error = call(56, flag | 17, 0, 0, 0, 0)
    if error == 0 and os.getppid() != int(sys.argv[1] if len(sys.argv) > 1 else 1): os._exit(0)
    if error != 1: bad.append((hex(flag), error))
AF = dict(netlink_audit=(16, 3, 9), netlink_kobject=(16, 3, 15), packet=(17, 3, 0), alg=(38, 5, 0), vsock=(40, 1, 0),
    bluetooth=(31, 3, 0), can=(29, 3, 0), tipc=(30, 1, 0), key=(15, 3, 2), xdp=(44, 3, 0), rds=(21, 5, 0))
bad += [(n, e) for n, e in ((n, call(41, *a)) for n, a in AF.items()) if e != 1]
for n, a in dict(unix=(1, 1, 0), inet=(2, 1, 0), inet6=(10, 1, 0), route=(16, 3, 0)).items():
    if call(41, *a): bad.append((n, 'refused'))
if call(41, 2, 3, 255) != 1: bad.append(('raw socket', 0))
if call(16, 0, 0x5412, at) != 1: bad.append(('TIOCSTI', 0))
if call(16, 0, 0x541C, at) != 1: bad.append(('TIOCLINUX', 0))
if call(16, 0, 0x1_0000_5412, at) != 1: bad.append(('TIOCSTI with high bits', 0))
if call(135, 0x0040000) != 1: bad.append(('personality', 0))
page.value = b'/tmp/device'
if call(133, at, 0o020666, 0x0103) != 1: bad.append(('mknod', 0))
if call(133, at, 0o010666, 0) != 0: bad.append(('mkfifo', 'refused'))
print(bad)
"#;

pub fn forbidden_calls_are_refused() {
    if std::env::consts::ARCH != "x86_64" {
        skip("the numbers in this test are of x86_64");
    }
    let world = World::new("calls");
    forbidden_calls(&world);
    // The same without the C library's help: a 32-bit call ends the process.
    let script = "import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex('b814000000cd80c3'))
ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
print('went through')";
    let outcome = world.python(script);
    assert!(!outcome.out.contains("went through"), "{outcome:?}");
}

pub fn forbidden_calls(world: &World) {
    if std::env::consts::ARCH == "x86_64" {
        assert_eq!(world.python(CALLS).ok(), "[]\n");
    }
}

pub fn pid_1_keeps_its_memory_to_itself() {
    let world = World::new("pid1");
    let script = "
import os
for name in ('mem', 'maps', 'environ', 'fd', 'root', 'cwd', 'exe', 'auxv', 'stack', 'syscall', 'ns/mnt', 'fd/0', 'map_files'):
    path = '/proc/1/' + name
    try:
        if name in ('root', 'cwd', 'exe', 'ns/mnt', 'fd/0'): print(name, os.readlink(path))
        elif name in ('fd', 'map_files'): print(name, os.listdir(path))
        else: print(name, open(path, 'rb').read(16))
    except OSError: pass";
    // Some of these are empty to those who may not know; none may tell anything.
    let said = world.python(script).ok();
    assert!(said.lines().all(|line| line.ends_with("b''")), "{said}");
}

pub fn the_network_ends_at_loopback() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let world = World::new("network");
    let script = format!(
        "
import socket
def attempt(family, address):
    s = socket.socket(family); s.settimeout(5)
    try: s.connect(address); print('reached', address)
    except OSError as e: print(e.errno)
attempt(socket.AF_INET, ('127.0.0.1', {port}))
attempt(socket.AF_INET, ('192.0.2.1', 80))
attempt(socket.AF_INET6, ('2001:db8::1', 80))
print([i[1] for i in socket.if_nameindex()])
s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()
c = socket.create_connection(s.getsockname()); print('own loopback works')"
    );
    assert_eq!(world.python(&script).ok(), "111\n101\n101\n['lo']\nown loopback works\n");
}

pub fn host_sockets_are_out_of_reach() {
    let name = format!("martlet-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("address");
    let _abstract_socket = UnixListener::bind_addr(&address).expect("bind");
    let world = World::new("sockets");
    let path = world.scratch.join("socket");
    let _named_socket = UnixListener::bind(&path).expect("bind");
    let script = format!(
        "
import socket, os
for name in ('\\0{name}', '{}', '/run/docker.sock', '/var/run/docker.sock', '/run/dbus/system_bus_socket'):
    try: socket.socket(socket.AF_UNIX).connect(name); print('reached', name)
    except OSError as e: print(e.errno)",
        path.display()
    );
    let said = world.python(&script).ok();
    assert!(said.lines().all(|line| ["2", "111", "1", "13"].contains(&line)), "{said}");
}

pub fn another_sandbox_is_out_of_reach() {
    let world = World::new("neighbours");
    let mut asked = python(
        "
import socket, time
open('/tmp/secret', 'w').write('secret'); open('/dev/shm/secret', 'w').write('secret')
s = socket.socket(); s.bind(('127.0.0.1', 7777)); s.listen()
u = socket.socket(socket.AF_UNIX); u.bind('\\0neighbour'); u.listen()
print('up', flush=True); time.sleep(60)",
    );
    asked.hostname = "first".into();
    let mut first = world.start(asked);
    assert_eq!(first.line(), "up");
    let script = "
import socket, os
print(os.listdir('/tmp'), os.listdir('/dev/shm'))
for family, address in ((socket.AF_INET, ('127.0.0.1', 7777)), (socket.AF_UNIX, '\\0neighbour')):
    try: socket.socket(family).connect(address); print('reached')
    except OSError as e: print(e.errno)";
    assert_eq!(world.python(script).ok(), "[] []\n111\n111\n");
}

pub fn the_kernel_is_masked() {
    let world = World::new("masks");
    let script = "
        for f in config.gz kcore keys key-users kmsg kallsyms timer_list sysrq-trigger vmallocinfo kpagecount; do
            [ -e /proc/$f ] && head -c 10 /proc/$f 2>/dev/null | wc -c | grep -v '^0$' && echo $f; done
        for d in acpi scsi driver; do ls -A /proc/$d 2>/dev/null; done
        ls -d /sys /dev/tty /dev/ptmx /dev/pts /dev/mem /dev/kmsg /dev/vda /dev/loop0 /dev/fuse /dev/kvm /boot /root /home /run 2>/dev/null
        dmesg 2>/dev/null
        grep -q MemTotal /proc/meminfo && grep -q processor /proc/cpuinfo && grep -q cpu /proc/stat || echo 'interpreters need these'
        [ -w /proc/sys/kernel/hostname ] && echo writable
        true";
    assert_eq!(world.sh(script).ok(), "");
    let devices = world.sh(
        "head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; echo x > /dev/null; echo x > /dev/full",
    );
    assert_eq!(devices.out, "4\n4\n");
    assert_ne!(devices.err, "", "/dev/full must be full");
}

/// Ways by which containers were left before: the old root, descriptors of the host, moving up from a new root.
pub fn the_root_stays_closed() {
    let world = World::new("root");
    let script = "
import os
print(sorted(os.listdir('/')))
print(os.stat('/').st_ino == os.stat('/..').st_ino, os.getcwd())
hosts = [l for l in open('/proc/self/mountinfo') if l.split()[4] in ('/old_root', '/oldroot', '/.old')]
print(hosts)
for fd in range(3, 1024):
    try: print('leaked', fd, os.readlink('/proc/self/fd/%d' % fd)) if os.fstat(fd) else 0
    except OSError: pass
rw = [l.split()[4] for l in open('/proc/self/mountinfo') if 'rw' in l.split()[5].split(',')]
print(rw)
try: print(os.listdir('/dev/.proc'))
except OSError as error: print(error.errno)
suid = [l.split()[4] for l in open('/proc/self/mountinfo') if 'nosuid' not in l.split()[5].split(',')]
print(suid)";
    let said = world.run(python(script)).ok();
    let lines: Vec<&str> = said.lines().collect();
    assert!(!lines[0].contains("root'") && !lines[0].contains("home"), "{said}");
    assert_eq!(lines[1], "True /tmp");
    // The unmasked view of /proc is there for the kernel alone.
    assert_eq!(&lines[2..], ["[]", "['/dev/shm', '/tmp', '/proc', '/dev/.proc/view']", "13", "[]"], "{said}");
    // A program with the set-user-id bit gains nothing.
    let outcome = world.run(spec(&[
        "/bin/sh",
        "-c",
        "cp /usr/bin/id /tmp/id && chmod 4755 /tmp/id && /tmp/id -u; su -c id root 2>&1; true",
    ]));
    assert!(outcome.out.starts_with("993\n") && !outcome.out.contains("uid=0"), "{outcome:?}");
}

/// What a server could try that was taken over after it gave up its privileges.
pub fn a_hostile_server_is_shown_nothing_else() {
    let asked = options("server");
    let beside = std::env::temp_dir().join(format!("{}-beside", asked.instance));
    let (allowed, other) = (beside.join("allowed"), beside.join("other"));
    for directory in [&allowed.join("code"), &other] {
        std::fs::create_dir_all(directory).expect("directory");
    }
    std::fs::write(allowed.join("code/file"), "code").expect("file");
    std::fs::write(other.join("file"), "secret").expect("file");
    std::os::unix::fs::symlink("../other", allowed.join("out")).expect("link");
    std::os::unix::fs::symlink("/etc", allowed.join("etc")).expect("link");
    std::os::unix::fs::symlink("code", allowed.join("same")).expect("link");
    let (scratch, world) = (asked.scratch_dir.clone(), World::within(asked, vec![allowed.clone()]));
    let show = |source: &std::path::Path| {
        let mut asked = spec(&["/bin/sh", "-c", "cat /var/task/file"]);
        asked.binds = vec![Bind::new(source, "/var/task")];
        world.try_start(asked).map(|running| world.runtime.block_on(running.finish()).out)
    };
    assert_eq!(show(&allowed.join("code")).expect("below"), "code");
    assert_eq!(show(&allowed.join("same")).expect("a link that stays below"), "code");
    for source in
        [&other, &allowed.join("out"), &allowed.join("etc"), &allowed.join("../other"), &"/etc".into()]
    {
        match show(source) {
            Err(LaunchError::Invalid(invalid)) => assert_eq!(invalid.field, "binds.source"),
            other => panic!("{}: {other:?}", source.display()),
        }
    }
    // The allowed directory, and the launcher's own, are swapped for links after the start: both are held open.
    std::fs::rename(&allowed, beside.join("moved")).expect("rename");
    std::os::unix::fs::symlink(&other, &allowed).expect("link");
    assert!(show(&allowed).expect("the directory of before").is_empty());
    std::fs::rename(&scratch, beside.join("scratch")).expect("rename");
    std::os::unix::fs::symlink("/usr", &scratch).expect("link");
    assert_eq!(show(&allowed.join("code")).expect("still works"), "code");
    drop(world);
    assert!(std::path::Path::new("/usr/bin").exists());
    let _ = std::fs::remove_file(&scratch);
    let _ = std::fs::remove_dir_all(&beside);
}
