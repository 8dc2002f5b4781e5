//! Messages between server and launcher, and from a starting child to the launcher: JSON in one `SEQPACKET` datagram,
//! descriptors beside it. A specification may be larger than a datagram, so it travels in a memory file.

use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Fault, Refusal};
use crate::spec::{Furnishing, Invalid, Isolation, LauncherOptions, SandboxSpec, TmpKind};

/// The largest datagram; far below any socket buffer, far above any message.
const MAX_MESSAGE: usize = 64 << 10;
/// The largest order or piece of news; a fault names a path at most.
const MAX_SHORT: usize = 8 << 10;
/// Descriptors in one message: the specification, the asked ones, and a few of our own.
const MAX_DESCRIPTORS: usize = SandboxSpec::MAX_DESCRIPTORS + 16;
/// The largest specification: its files and half as much again for everything else.
const MAX_SPEC: u64 = (SandboxSpec::MAX_FILES_BYTES + SandboxSpec::MAX_FILES_BYTES / 2) as u64;

/// Server to launcher.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// The first message.
    Start { options: LauncherOptions, bind_roots: Vec<PathBuf> },
    /// Descriptors: the specification, then one for each of `numbers`, its number in the main process.
    Launch { id: u64, numbers: Vec<RawFd> },
    /// An empty sandbox below the forkable one `template`, with the same specification.
    Shell { id: u64, template: u64 },
    /// Show something in the forkable sandbox `sandbox`, whose program runs; `id` is the question's own.
    Furnish { id: u64, sandbox: u64, furnishing: Furnishing },
    /// Kill everything in the sandbox.
    Kill { id: u64 },
    /// The server's handle is gone: kill, then free cgroup and uid once the last process is reaped.
    Release { id: u64 },
    /// Stop by signal; only where there is no freezer.
    Stop { id: u64 },
    /// Continue by signal.
    Continue { id: u64 },
    /// Ask the main process to end, by signal.
    Terminate { id: u64 },
    /// End in order.
    Shutdown,
}

/// Launcher to server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Ready(InForce),
    Invalid(Invalid),
    Refused(Refusal),
    /// One descriptor for each of `parts`.
    Launched {
        id: u64,
        pid: i32,
        parts: Vec<Part>,
    },
    /// What was asked for is shown, and the limits hold.
    Furnished {
        id: u64,
    },
    Failed {
        id: u64,
        fault: Fault,
    },
}

/// What a descriptor handed to the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// Of pid 1: readable when the last process of the sandbox is gone. A forkable one has none: its pid 1 stays for the
    /// shells below it.
    Pidfd,
    /// Pipe with the [`Ending`] of the main process.
    Ending,
    /// The listener asked for.
    Listener,
    /// The socket of [`Rein`] and [`Word`].
    Reins,
    /// Of a shell: what to join, in this order.
    Namespace,
    /// Of a shell: a cgroup to enter.
    Door,
    /// A cgroup control file.
    Control(Control),
}

/// A cgroup control file that the server reads or writes through a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Control {
    /// v1: `FROZEN` or `THAWED`.
    FreezerState,
    /// v2: `1` or `0`.
    CgroupFreeze,
    /// Bytes.
    MemoryUsage,
    /// Bytes.
    MemoryPeak,
    /// Holds a line `oom_kill N` in both versions.
    OomKills,
    /// v2: a line `usage_usec N`.
    CpuStat,
    /// v1: nanoseconds.
    CpuacctUsage,
    /// v1: microseconds of each period.
    CfsQuota,
    /// v2: quota and period, in microseconds.
    CpuMax,
}

impl Control {
    /// Whether it is read to learn what was used; the others are written.
    pub(crate) fn tells_usage(self) -> bool {
        matches!(
            self,
            Self::MemoryUsage | Self::MemoryPeak | Self::OomKills | Self::CpuStat | Self::CpuacctUsage
        )
    }
}

/// From the child that becomes pid 1 of a sandbox to the launcher.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The program runs, its companions do, or the shell can be entered. One descriptor for each of `parts`, which are those
    /// that were asked for.
    Running {
        parts: Vec<Part>,
    },
    /// It stands, and waits to be told what it is for.
    Stands,
    /// The main process of a forkable sandbox has ended; pid 1 stays.
    Ended,
    Failed(Fault),
}

/// From the launcher to the child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// User map and cgroups are in place.
    Go,
    /// What a sandbox that was made ahead is for. Descriptors: the specification, a detached tree for each of `targets`, then
    /// one for each of `numbers`, its number in the main process.
    Serve {
        forkable: bool,
        targets: Vec<PathBuf>,
        numbers: Vec<RawFd>,
    },
    Stop,
    Continue,
    /// Ask the main process and its group to end.
    Terminate,
    /// Kill the main process and its group; only where there is no cgroup to kill.
    End,
}

/// From the server to pid 1 of a sandbox with companions.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Rein {
    /// Start the main program.
    Start,
    /// Signal a process and its group.
    Signal { to: Who, signal: i32 },
    /// Connect to a port of the loopback inside.
    Connect { id: u64, port: u16 },
}

/// The answers, and what happens.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    Started,
    NotStarted(Fault),
    /// A process ended; `status` as in [`Ending`].
    Ended {
        who: Who,
        status: i32,
    },
    /// The socket comes with it, unless it could not be made.
    Connecting {
        id: u64,
        errno: i32,
    },
}

/// A process of a sandbox with companions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// The main one.
    Main,
    /// A companion, by its place in [`crate::SandboxSpec::companions`].
    Companion(usize),
}

/// What a launcher that is ready enforces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// As asked for.
    pub isolation: Isolation,
    /// As asked for.
    pub tmp: TmpKind,
    /// The cgroup layout in use (`v1`, `hybrid` or `v2`); none under [`Isolation::NoCgroups`].
    pub cgroups: Option<String>,
    /// The kernel's Landlock version that is applied; 0 where the kernel has none that is usable.
    pub landlock_abi: u32,
    /// The launcher runs as a user, inside a user namespace of its own.
    pub rootless: bool,
    /// Sandboxes of a killed predecessor that had to be ended.
    pub leftovers: usize,
}

impl InForce {
    /// Whether sandboxes may be forkable: a user's launcher has no second user to hide from them behind.
    pub fn can_fork(&self) -> bool {
        !self.rootless
    }
}

/// How the main process ended, as pid 1 writes it to the ending pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// Exit code, or the signal's number, negative.
    pub(crate) status: i32,
    /// Largest resident set of any single process, in bytes.
    pub(crate) peak_bytes: u64,
    /// Cpu time of all reaped processes.
    pub(crate) cpu_micros: u64,
}

impl Ending {
    pub(crate) const LENGTH: usize = 20;

    pub(crate) fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..4].copy_from_slice(&self.status.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.peak_bytes.to_le_bytes());
        bytes[12..].copy_from_slice(&self.cpu_micros.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; Self::LENGTH]) -> Self {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        Self {
            status: i32::from_le_bytes(std::array::from_fn(|i| bytes[i])),
            peak_bytes: word(4),
            cpu_micros: word(12),
        }
    }
}

/// Sends one message whole, with descriptors; never raises `SIGPIPE`.
pub(crate) fn send(socket: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_MESSAGE || fds.len() > MAX_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    rustix::io::retry_on_intr(|| {
        sendmsg(socket.as_fd(), &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Receives one message, or `None` when the other side is gone. Descriptors arrive close-on-exec.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    flags: RecvFlags,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    receive_into(socket, flags, &mut [0; MAX_MESSAGE])
}

/// [`receive`] for orders and news, which are short: a process that has just been forked pays for every page that it
/// touches first.
pub(crate) fn receive_short<T: DeserializeOwned>(
    socket: impl AsFd,
    flags: RecvFlags,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    receive_into(socket, flags, &mut [0; MAX_SHORT])
}

fn receive_into<T: DeserializeOwned>(
    socket: impl AsFd,
    flags: RecvFlags,
    bytes: &mut [u8],
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(socket.as_fd(), &mut [IoSliceMut::new(bytes)], &mut control, flags | RecvFlags::CMSG_CLOEXEC)
    });
    let received = match received {
        // A peer that died with our unread message in its queue: gone, as much as an orderly end.
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        other => other?,
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message cut short"));
    }
    Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, fds)))
}

/// Puts a specification into a memory file: length of the JSON part, the JSON part, the files' bytes one after another.
pub(crate) fn write_spec(spec: &SandboxSpec) -> io::Result<OwnedFd> {
    let bytes = encode_spec(spec)?;
    if bytes.len() as u64 > MAX_SPEC {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let mut file = std::fs::File::from(rustix::fs::memfd_create("spec", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(&bytes)?;
    file.rewind()?;
    Ok(file.into())
}

/// Reads what [`write_spec`] wrote. The content is copied once, so that the sender cannot change it afterwards.
pub(crate) fn read_spec(fd: OwnedFd) -> io::Result<SandboxSpec> {
    let mut bytes = Vec::new();
    std::fs::File::from(fd).take(MAX_SPEC + 1).read_to_end(&mut bytes)?;
    decode_spec(&bytes)
}

fn encode_spec(spec: &SandboxSpec) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(spec)?;
    let mut bytes = Vec::with_capacity(4 + json.len());
    bytes.extend_from_slice(&(json.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&json);
    for (_, content) in &spec.files {
        bytes.extend_from_slice(content);
    }
    Ok(bytes)
}

fn decode_spec(bytes: &[u8]) -> io::Result<SandboxSpec> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "specification cut short");
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(short)?;
    let (json, mut rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(short)?;
    let mut spec: SandboxSpec = serde_json::from_slice(json)?;
    for (_, content) in &mut spec.files {
        let (head, tail) = rest.split_at_checked(content.len()).ok_or_else(short)?;
        content.copy_from_slice(head);
        rest = tail;
    }
    Ok(spec)
}

/// The JSON form of `files` holds lengths only; the bytes follow the JSON.
pub(crate) mod file_lengths {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use crate::spec::SandboxSpec;

    pub(crate) fn serialize<S: Serializer>(files: &[(String, Vec<u8>)], to: S) -> Result<S::Ok, S::Error> {
        files.iter().map(|(path, bytes)| (path, bytes.len())).collect::<Vec<_>>().serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<(String, Vec<u8>)>, D::Error> {
        let lengths = Vec::<(String, usize)>::deserialize(from)?;
        let total = lengths.iter().try_fold(0usize, |sum, (_, length)| sum.checked_add(*length));
        if total.is_none_or(|total| total > SandboxSpec::MAX_FILES_BYTES) {
            return Err(de::Error::custom("files are too large"));
        }
        Ok(lengths.into_iter().map(|(path, length)| (path, vec![0; length])).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(files: Vec<(String, Vec<u8>)>) -> SandboxSpec {
        SandboxSpec {
            argv: vec!["/bin/true".into()],
            env: vec![("A".into(), "ü".into())],
            cwd: "/".into(),
            hostname: "h".into(),
            binds: vec![],
            files,
            tmp_bytes: 1,
            memory_bytes: 2,
            cpu_millis: 3,
            pids: 4,
            open_files: 5,
            listen: Some(6),
            forkable: true,
            places: vec!["/var/task".into()],
            companions: None,
        }
    }

    #[test]
    fn a_specification_arrives_whole() {
        let sent = spec(vec![
            ("/a".into(), vec![0, 255, 1]),
            ("/b".into(), vec![]),
            ("/c".into(), vec![7; 100_000]),
        ]);
        let received = read_spec(write_spec(&sent).expect("write")).expect("read");
        assert_eq!(format!("{received:?}"), format!("{sent:?}"));
    }

    #[test]
    fn a_specification_of_absurd_size_is_refused_on_both_sides() {
        let sent = spec(vec![("/a".into(), vec![0; SandboxSpec::MAX_FILES_BYTES * 2])]);
        assert!(write_spec(&sent).is_err());
        assert!(decode_spec(&encode_spec(&sent).expect("encode")).is_err());
        let json = serde_json::to_string(&sent).expect("json").replace("8388608", "18446744073709551615");
        let claim = [&(json.len() as u32).to_le_bytes(), json.as_bytes()].concat();
        assert!(decode_spec(&claim).is_err(), "nothing is allocated for a mere claim");
    }

    #[test]
    fn descriptors_travel_beside_a_message() {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("pair");
        let fd = OwnedFd::from(std::fs::File::open("/dev/null").expect("open"));
        send(&one, &Request::Kill { id: 7 }, &[fd.as_fd(), fd.as_fd()]).expect("send");
        let (request, fds) =
            receive::<Request>(&other, RecvFlags::empty()).expect("receive").expect("message");
        assert!(matches!(request, Request::Kill { id: 7 }));
        assert_eq!(fds.len(), 2);
        drop(one);
        assert!(receive::<Request>(&other, RecvFlags::empty()).expect("end").is_none());
    }

    /// What a reader makes of one datagram, through a real socket.
    fn read<T: DeserializeOwned>(bytes: &[u8], fds: usize) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("pair");
        let file = std::fs::File::open("/dev/null").expect("open");
        let fds = vec![file.as_fd(); fds];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        sendmsg(&one, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).expect("send");
        receive(&other, RecvFlags::DONTWAIT)
    }

    /// One of each, to be damaged.
    fn messages() -> Vec<Vec<u8>> {
        let requests = [
            Request::Launch { id: 1, numbers: vec![0, 1, 7] },
            Request::Shell { id: 2, template: 1 },
            Request::Furnish {
                id: 4,
                sandbox: 1,
                furnishing: Furnishing {
                    binds: vec![crate::spec::Bind::new("/srv", "/var/task")],
                    memory_bytes: 1,
                    cpu_millis: 2,
                },
            },
            Request::Kill { id: 3 },
            Request::Release { id: u64::MAX },
            Request::Shutdown,
        ];
        let serve = Order::Serve { forkable: true, targets: vec!["/var/task".into()], numbers: vec![3] };
        let fault = Fault::step(crate::error::Step::Exec, "x", &io::ErrorKind::NotFound.into());
        let mut all: Vec<_> = requests.iter().map(|r| serde_json::to_vec(r).expect("json")).collect();
        all.push(serde_json::to_vec(&serve).expect("json"));
        all.push(serde_json::to_vec(&Report::Failed(fault)).expect("json"));
        all
    }

    proptest! {
        #[test]
        fn no_datagram_makes_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 1..300), fds in 0usize..4) {
            let _ = read::<Request>(&bytes, fds);
            let _ = read::<Reply>(&bytes, fds);
            let _ = read::<Report>(&bytes, fds);
            let _ = read::<Order>(&bytes, fds);
        }

        #[test]
        fn a_damaged_message_is_refused_or_read(which in 0usize..8, at in 0usize..400, byte in any::<u8>()) {
            let mut bytes = messages().swap_remove(which);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = read::<Request>(&bytes, 1);
            let _ = read::<Order>(&bytes, 1);
            let _ = read::<Report>(&bytes, 1);
            prop_assert!(read::<Request>(&bytes[..at.max(1)], 0).is_err(), "half a message is none");
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_spec(&bytes);
        }

        #[test]
        fn a_damaged_specification_is_refused_or_read(at in 0usize..200, byte in any::<u8>()) {
            let mut bytes = encode_spec(&spec(vec![("/a".into(), vec![1; 10])])).expect("encode");
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = decode_spec(&bytes);
            let _ = decode_spec(&bytes[..at]);
        }

        #[test]
        fn endings_arrive_exactly(status in any::<i32>(), peak_bytes in any::<u64>(), cpu_micros in any::<u64>()) {
            let ending = Ending { status, peak_bytes, cpu_micros };
            prop_assert_eq!(Ending::from_bytes(&ending.to_bytes()), ending);
        }
    }
}
