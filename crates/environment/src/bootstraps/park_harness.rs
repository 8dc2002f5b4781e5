//! A bootstrap that becomes a template, and its children, without any sandbox: they stay in the namespaces of the test.

use super::harness::{Package, Runtime};
use super::{NODE, PYTHON, TEMPLATE_VARIABLE, companions};
use crate::frame::{Frame, Kind, RestoreMeta, restore};
use rustix::io::IoSlice;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    recv, sendmsg, socketpair,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// The steps at which a fork can fail, as the library numbers them.
pub(super) const REQUEST: u32 = 1;
pub(super) const NAMESPACES: u32 = 2;

/// What a template, or its child, answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: i32,
    pub(super) step: u32,
}

pub(super) const DONE: Reply = Reply { status: 0, step: 0 };

/// A folder as `/var/runtime` is in a sandbox.
pub(super) fn runtime_folder(node: bool) -> Package {
    let bootstrap = if node { ("bootstrap.cjs", NODE) } else { ("bootstrap.py", PYTHON) };
    let package = Package::new(&[bootstrap]);
    for (name, content) in companions(node, true) {
        std::fs::write(package.path().join(name), content).unwrap();
    }
    package
}

/// A process that was told to become a template.
pub(super) struct Template {
    pub(super) runtime: Runtime,
    park: OwnedFd,
    _folder: Package,
}

impl Template {
    /// Starts `interpreter` (program and options) on the bootstrap of its kind.
    pub(super) fn start(interpreter: &[&str], node: bool, package: &Package, extra: &[(&str, &str)]) -> Self {
        let flags = SocketFlags::CLOEXEC;
        let (park, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let folder = runtime_folder(node);
        let bootstrap = folder.path().join(if node { "bootstrap.cjs" } else { "bootstrap.py" });
        let command = [interpreter, &[bootstrap.to_str().unwrap()]].concat();
        let extra = [extra, &[TEMPLATE_VARIABLE]].concat();
        let runtime = Runtime::start_with(&command, package, "app.handler", &extra, Some(theirs));
        Self { runtime, park, _folder: folder }
    }

    /// Waits until it is parked.
    pub(super) fn parked(mut self) -> Self {
        let frame = self.runtime.receive();
        if frame.as_ref().is_none_or(|frame| frame.kind != Kind::Parked) {
            panic!("not parked: {frame:?} {:?}", self.runtime.finish().1);
        }
        self
    }

    /// Waits for it to say that it cannot be forked: why not.
    pub(super) fn unforkable(&mut self) -> String {
        let frame = self.runtime.receive().expect("a frame");
        assert_eq!(frame.kind, Kind::Ready, "{frame:?}");
        let meta: Value = serde_json::from_slice(&frame.meta).unwrap();
        meta["unforkable"].as_str().unwrap().to_owned()
    }

    /// Closes our end of the park socket.
    pub(super) fn closed(mut self) -> Self {
        self.park = std::fs::File::open("/dev/null").unwrap().into();
        self
    }

    /// Sends any bytes and descriptors to the park socket.
    pub(super) fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
        }
        sendmsg(&self.park, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
    }

    pub(super) fn reply(&self) -> Reply {
        let mut bytes = [0; 64];
        rustix::net::sockopt::set_socket_timeout(
            &self.park,
            rustix::net::sockopt::Timeout::Recv,
            Some(std::time::Duration::from_secs(20)),
        )
        .unwrap();
        let (length, _) = recv(&self.park, &mut bytes, RecvFlags::empty()).unwrap();
        assert_eq!(length, 8);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        Reply { status: word(0) as i32, step: word(4) }
    }

    /// Asks for a child without namespaces of its own; `ready` waits for it.
    pub(super) fn fork(&self) -> Runtime {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (log, writer) = std::io::pipe().unwrap();
        let (writer, theirs) = (writer.as_fd(), theirs.as_fd());
        self.send(&request(1, 0, &[1, 2, 3, 4]), &[writer, writer, theirs, writer]);
        assert_eq!(self.reply(), DONE);
        Runtime::new(None, ours, log)
    }

    /// A child that has been told its variables and is ready for events.
    pub(super) fn child(&self, env: &[(&str, &str)]) -> Runtime {
        let (frame, child) = self.restored(env);
        assert!(frame.as_ref().is_some_and(|frame| frame.kind == Kind::Ready), "{frame:?}");
        child
    }

    /// What a child says after it has been told its variables.
    pub(super) fn restored(&self, env: &[(&str, &str)]) -> (Option<Frame>, Runtime) {
        let mut child = self.fork();
        let env = BTreeMap::from_iter(env.iter().copied());
        child.write(&restore(&RestoreMeta { env: &env }));
        (child.receive(), child)
    }

    /// Says for this `reason` that it cannot be forked, and serves all the same; its handler returns the event.
    pub(super) fn serves_unforked(&mut self, reason: &str) {
        let why = self.unforkable();
        assert!(why.contains(reason), "{why}");
        assert_eq!(self.runtime.invoke("7").text(), "7");
    }

    /// A child of it, whose handler returns the event and its pid, lives on without it.
    pub(super) fn be_outlived(mut self) {
        let mut child = self.child(&[]);
        let first = value(&mut child, "1");
        self.runtime.kill();
        let second = value(&mut child, "2");
        assert_eq!((&second[0], &second[1]), (&json!(2), &first[1]));
    }

    /// Prints how long it takes from asking for a child to that child's first answer.
    pub(super) fn print_latency(&self) {
        let mut times: Vec<Duration> = Vec::new();
        for _ in 0..200 {
            let begun = Instant::now();
            self.child(&[]).invoke("1");
            times.push(begun.elapsed());
        }
        times.sort();
        println!("fork to first answer: p50 {:?} p99 {:?}", times[100], times[198]);
    }
}

/// A request as the server sends it, without Landlock.
pub(super) fn request(version: u8, namespaces: u8, numbers: &[i32]) -> Vec<u8> {
    let mut bytes = vec![version, namespaces, 0, numbers.len() as u8];
    bytes.extend([0; 4 + 5 * 8]);
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    bytes
}

/// What the handler of a child answers.
pub(super) fn value(child: &mut Runtime, event: &str) -> Value {
    let answer = child.invoke(event);
    assert_eq!(answer.kind, Kind::Response, "{}", answer.text());
    answer.json()
}

/// Templates that `start` makes with a hook that fails "before" the snapshot or "after" each restore, with an error of type
/// `error_type` that says "not like this".
pub(super) fn failing_hooks_are_told(start: impl Fn(&str) -> Template, error_type: &str) {
    let assert_told = |frame: Option<Frame>, runtime_error: &str| {
        let frame = frame.unwrap();
        let meta: Value = serde_json::from_slice(&frame.meta).unwrap();
        assert_eq!((frame.kind, &meta["errorType"]), (Kind::InitError, &json!(runtime_error)));
        let document: Value = serde_json::from_slice(&frame.payload).unwrap();
        assert_eq!(
            (&document["errorType"], &document["errorMessage"]),
            (&json!(error_type), &json!("not like this"))
        );
    };
    let mut template = start("before");
    assert_told(template.runtime.receive(), "Runtime.BeforeSnapshotError");
    assert_eq!(template.runtime.finish().0.code(), Some(64));

    let template = start("after").parked();
    for _ in 0..2 {
        let (frame, child) = template.restored(&[]);
        assert_told(frame, "Runtime.AfterRestoreError");
        assert!(child.finish_forked().concat().contains("not like this"));
    }
}

/// Each of the lists, which children of one template have answered, differs from each other one in all places.
pub(super) fn all_differ(lists: &[Value]) {
    for (number, one) in lists.iter().enumerate() {
        for other in &lists[..number] {
            let pairs = one.as_array().unwrap().iter().zip(other.as_array().unwrap());
            for (place, (one, other)) in pairs.enumerate() {
                assert_ne!(one, other, "value {place} of two children");
            }
        }
    }
}
