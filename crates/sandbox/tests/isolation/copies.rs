//! Copies of a parked process: that they stand in a sandbox of their own, and that they outlive the template.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use martlet_sandbox::{ExitStatus, ForkError, PARK_LIBRARY, Parking, Sandbox, SandboxSpec};

use crate::world::{World, alive, eventually, python, within};

/// What comes before parking, in a template.
pub const LOAD: &str = "import ctypes, os, socket, sys
lib = ctypes.PyDLL('/var/runtime/park.so', use_errno=True)
open('/tmp/of-the-template', 'w').close()
secret = os.urandom(8).hex()
";

/// Parks; each copy then evaluates what it is told, line by line, until it is told no more.
pub const SERVE: &str = "
print('parked', flush=True)
assert lib.martlet_park(5) == 0
with socket.socket(fileno=3) as line:
    for order in line.makefile('r'):
        try: said = repr(eval(order))
        except Exception as error: said = repr(error)
        line.sendall(said.encode() + b'\\n')
";

/// A template in its sandbox, and the place where it is parked.
pub struct Template {
    pub sandbox: Sandbox,
    parking: Parking,
    said: std::io::PipeReader,
    /// Tells it to go on, where it waits to be told.
    go: std::io::PipeWriter,
}

pub struct Copy {
    pub sandbox: Sandbox,
    line: UnixStream,
}

impl Copy {
    pub fn ask(&mut self, order: &str) -> String {
        writeln!(self.line, "{order}").expect("ask");
        let mut answer = Vec::new();
        let mut byte = [0];
        while self.line.read_exact(&mut byte).is_ok() && byte != *b"\n" {
            answer.push(byte[0]);
        }
        String::from_utf8(answer).expect("text")
    }
}

impl Template {
    pub fn spec(script: &str) -> SandboxSpec {
        let mut spec = python(script);
        spec.forkable = true;
        spec.files.push(("/var/runtime/park.so".into(), PARK_LIBRARY.to_vec()));
        spec
    }

    fn park(world: &World, script: &str) -> Self {
        Self::launch(world, Self::spec(script))
    }

    /// Returns when it says that it is parked.
    pub fn launch(world: &World, spec: SandboxSpec) -> Self {
        let _inside = world.runtime.enter();
        let (parking, theirs) = Parking::pair().expect("pair");
        let (said, out) = std::io::pipe().expect("pipe");
        let err = out.try_clone().expect("pipe");
        let (told, go) = std::io::pipe().expect("pipe");
        let mut fds = vec![(out.into(), 1), (err.into(), 2), (theirs, 5)];
        if !spec.places.is_empty() {
            fds.push((told.into(), 6));
        }
        let sandbox = world.launch(spec, fds).expect("launch");
        let mut template = Self { sandbox, parking, said, go };
        template.await_parked();
        template
    }

    /// Tells one that waits to go on, and returns when it says that it is parked.
    pub fn park_now(&mut self) {
        self.go.write_all(b".").expect("write");
        self.await_parked();
    }

    fn await_parked(&mut self) {
        let mut line = [0; 7];
        let read = self.said.read_exact(&mut line);
        if read.is_err() || &line != b"parked\n" {
            let mut rest = String::from_utf8_lossy(&line).into_owned();
            let _ = self.said.read_to_string(&mut rest);
            panic!("it did not park: {rest}");
        }
    }

    fn serving(world: &World) -> Self {
        Self::park(world, &format!("{LOAD}{SERVE}"))
    }

    pub fn fork(&mut self, world: &World) -> Result<Copy, ForkError> {
        let (line, theirs) = UnixStream::pair().expect("pair");
        line.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("timeout");
        let err = self.said.as_fd().try_clone_to_owned().expect("pipe");
        drop(err);
        let sandbox = world.runtime.block_on(within(async {
            let shell = world.launcher.shell(&self.sandbox).await.expect("shell");
            let (_, out) = std::io::pipe().expect("pipe");
            self.parking.fork(shell, vec![(OwnedFd::from(out), 1), (theirs.into(), 3)]).await
        }))?;
        Ok(Copy { sandbox, line })
    }
}

pub fn a_copy_stands_in_a_sandbox_of_its_own() {
    let world = World::new("copies");
    let mut template = Template::serving(&world);
    let (mut one, mut two) = (template.fork(&world).expect("one"), template.fork(&world).expect("two"));
    for copy in [&mut one, &mut two] {
        assert_eq!(copy.ask("os.getpid(), os.getuid(), os.getgid()"), "(3, 993, 993)");
        assert_eq!(copy.ask("os.listdir('/tmp')"), "[]", "not the template's");
        assert_eq!(copy.ask("os.getcwd()"), "'/tmp'");
        assert_eq!(copy.ask("sorted(int(p) for p in os.listdir('/proc') if p.isdigit())"), "[1, 3]");
        let status = copy.ask("[l.split()[1] for l in open('/proc/self/status') if l.startswith(('Cap', 'NoNewPrivs', 'Seccomp:'))]");
        assert_eq!(
            status,
            "['0000000000000000', '0000000000000000', '0000000000000000', '0000000000000000', '0000000000000000', '1', '2']"
        );
        assert_eq!(copy.ask("open('/tmp/mine', 'w').write('x')"), "1");
        assert_eq!(copy.ask("open('/dev/shm/mine', 'w').write('x')"), "1");
        assert_eq!(
            copy.ask("sorted(os.listdir('/proc/self/fd'))"),
            "['0', '1', '2', '3', '4']",
            "4 is the listing"
        );
        assert!(copy.ask("open('/var/runtime/x', 'w')").contains("Error"));
        assert_eq!(copy.ask("socket.gethostname()"), "'sandbox'");
        // Loopback is up, and its own.
        assert_eq!(copy.ask("socket.create_server(('127.0.0.1', 8080)) and globals().setdefault('s', socket.create_server(('127.0.0.1', 8081))).getsockname()"), "('127.0.0.1', 8081)");
    }
    assert_eq!(one.ask("secret"), two.ask("secret"), "they share what the template had");
    let group = |copy: &mut Copy| copy.ask("open('/proc/self/cgroup').read().split()");
    assert!(group(&mut one).contains(":/'"), "{}", group(&mut one));
    assert!(one.sandbox.usage().memory_bytes > 0);
    one.sandbox.freeze().expect("freeze");
    one.sandbox.thaw().expect("thaw");
    assert_eq!(one.ask("1 + 1"), "2");
}

pub fn a_copy_finds_nothing_of_an_earlier_one() {
    let world = World::new("again");
    let mut template = Template::serving(&world);
    for round in 0..8 {
        let mut copy = template.fork(&world).expect("fork");
        // Cgroups and namespaces of those that have ended are used again.
        let sent = copy.ask("[l.split()[1:] for l in open('/proc/self/net/dev') if ':' in l]");
        assert!(sent.starts_with("[[") && !sent.contains("], ["), "loopback alone: {sent}");
        assert!(!sent.contains(['1', '2', '3', '4', '5', '6', '7', '8', '9']), "round {round}: {sent}");
        let usage = copy.sandbox.usage();
        assert!(usage.memory_peak_bytes < 24 << 20, "round {round}: {usage:?}");
        assert!(usage.cpu_micros < 150_000, "round {round}: {usage:?}");
        // It is thawed, and loopback is up.
        let serves = "(lambda s: socket.create_connection(s.getsockname()).close())(socket.create_server(('127.0.0.1', 8080)))";
        if round % 2 == 0 {
            assert_eq!(copy.ask("len(b'x' * (40 << 20)) + sum(range(8 << 20)) > 0"), "True");
            assert_eq!(copy.ask(serves), "None");
            assert!(copy.sandbox.usage().memory_peak_bytes > 40 << 20);
            copy.sandbox.freeze().expect("freeze");
        }
        let keeper = copy.sandbox.pid();
        drop(copy);
        eventually("it is gone", || !alive(keeper));
    }
}

pub fn copies_outlive_their_template() {
    let world = World::new("outlive");
    let mut template = Template::serving(&world);
    let mut copy = template.fork(&world).expect("fork");
    let keeper = template.sandbox.pid();
    let exit = template.sandbox.exit();
    drop(template);
    // By the kill, or because its park socket was closed.
    world.runtime.block_on(within(exit));
    assert_eq!(copy.ask("1 + 1"), "2");
    assert!(alive(keeper), "pid 1 stays for the copies");
    drop(copy);
    eventually("the rest of the template goes with its last copy", || !alive(keeper));
    eventually("groups are removed", || world.groups().is_empty());
}

pub fn the_end_of_a_copy_is_told_as_it_was() {
    let world = World::new("copy-ends");
    let mut template = Template::serving(&world);
    for (order, end) in
        [("os._exit(7)", ExitStatus::Code(7)), ("os.kill(os.getpid(), 11)", ExitStatus::Signal(11))]
    {
        let mut copy = template.fork(&world).expect("fork");
        copy.ask(order);
        assert_eq!(world.runtime.block_on(within(copy.sandbox.exit())), end);
    }
    let copy = template.fork(&world).expect("fork");
    copy.sandbox.kill();
    assert_eq!(world.runtime.block_on(within(copy.sandbox.exit())), ExitStatus::Signal(9));
    assert_eq!(template.fork(&world).expect("still there").ask("2 + 2"), "4");
}

pub fn a_template_that_ended_is_told_so() {
    let world = World::new("template-ends");
    let template = Template::serving(&world);
    template.sandbox.kill();
    world.runtime.block_on(within(template.sandbox.exit()));
    let shell = world.runtime.block_on(within(world.launcher.shell(&template.sandbox)));
    assert!(shell.is_err(), "nothing can be made below it");
    let plain = world.start(python("input()"));
    assert!(world.runtime.block_on(within(world.launcher.shell(&plain.sandbox))).is_err());
}

pub fn many_copies() {
    let world = World::new("many");
    let mut template = Template::serving(&world);
    let start = Instant::now();
    let mut copies: Vec<_> = (0..20).map(|_| template.fork(&world).expect("fork")).collect();
    println!("    20 shells and copies in {:?}", start.elapsed());
    for copy in &mut copies {
        assert_eq!(copy.ask("os.getpid()"), "3");
    }
}
