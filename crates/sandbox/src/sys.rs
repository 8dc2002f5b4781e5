//! The system calls that no safe wrapper offers. Every `unsafe` block of the workspace is in this file, each with the
//! reason why it is sound; the functions are safe to call, with the duties that their comments name.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Turns the usual `-1` into the error of this thread.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Which side of a fork this is.
pub(crate) enum Side {
    Child,
    Parent {
        pid: i32,
        /// Of the child, close-on-exec.
        pidfd: OwnedFd,
    },
}

/// Forks into new namespaces (`flags` of `CLONE_NEW*`), inside the v2 cgroup `cgroup` where given.
///
/// Only for single-threaded processes: the child goes on with a copy of all memory, locks included. The launcher is one,
/// and says so at its start.
pub(crate) fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain integers, for which all zeroes is a valid value that means "nothing asked".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the arguments are valid and outlive the call; without CLONE_VM and with no stack given this behaves as
    // fork, and the caller is single-threaded.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Side::Child);
    }
    // SAFETY: the kernel has just stored a new descriptor there that nobody else owns.
    Ok(Side::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Not in libc for every target: the flag does not fit the int that its other CLONE_ constants have.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Gives the mounts of a detached or attached tree attributes (`MOUNT_ATTR_*`), the whole tree when `recursive`, and makes
/// them private, so that nothing mounted on the host later shows up in them.
pub(crate) fn set_mount_attributes(tree: impl AsFd, attributes: u64, recursive: bool) -> io::Result<()> {
    let wanted =
        libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a valid empty C string and the structure outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const wanted,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

/// Closes all descriptors from `first` to `last` inclusive, or marks them close-on-exec.
///
/// Owned values of closed descriptors must be forgotten, not dropped: this is for a child that keeps no other.
pub(crate) fn close_range(first: u32, last: u32, only_mark: bool) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 1 << 2;
    let flags = if only_mark { CLOSE_RANGE_CLOEXEC } else { 0 };
    // SAFETY: takes integers only; the caller answers for the descriptors.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) })?;
    Ok(())
}

/// Makes `number` a copy of `fd` that survives exec; whatever `number` was is closed.
pub(crate) fn place_descriptor(fd: impl AsFd, number: RawFd) -> io::Result<()> {
    // SAFETY: takes integers only; the caller is about to exec and owns its whole descriptor table.
    check(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) }.into())?;
    Ok(())
}

/// Takes over descriptor `number`, which the starter of this process promised to be there.
pub(crate) fn adopt_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes an integer; fails where there is no such descriptor.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: the descriptor exists, and the caller is the only one to adopt it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// An ordinary fork; in the child `None`. Only for single-threaded processes, as [`clone3`].
pub(crate) fn fork() -> io::Result<Option<i32>> {
    // SAFETY: the process is single-threaded, so the child may run any code.
    let pid = check(unsafe { libc::fork() }.into())?;
    Ok((pid != 0).then_some(pid as i32))
}

/// Where a child that shares this process' memory keeps its frames; the page below is never mapped.
pub(crate) struct Stack {
    base: *mut libc::c_void,
}

impl Stack {
    const BYTES: usize = 512 << 10;
    const GUARD: usize = 64 << 10;

    pub(crate) fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), Self::BYTES, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the range lies inside of the mapping that was just made.
        let opened = unsafe { libc::mprotect(base.byte_add(Self::GUARD), Self::BYTES - Self::GUARD, access) };
        check(opened.into())?;
        Ok(stack)
    }

    fn top(&self) -> *mut libc::c_void {
        // SAFETY: one past the end of the mapping, which is aligned to a page.
        unsafe { self.base.byte_add(Self::BYTES) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's own; no child runs on it any more, since its parent waits for its end.
        unsafe { libc::munmap(self.base, Self::BYTES) };
    }
}

/// Calls `work` in a child that shares memory and descriptors with this process, which stands still meanwhile: like a call,
/// but what the kernel keeps for each process (its user, its namespaces) is the child's own. Copies no page tables.
/// `None` when the child was killed.
///
/// Only for single-threaded processes.
pub(crate) fn call_apart<T>(stack: &mut Stack, work: impl FnOnce() -> T) -> io::Result<Option<T>> {
    struct Call<W, T> {
        work: Option<W>,
        result: Option<T>,
    }
    extern "C" fn run<W: FnOnce() -> T, T>(call: *mut libc::c_void) -> libc::c_int {
        // SAFETY: points to the call below, whose frame stands still.
        let call = unsafe { &mut *call.cast::<Call<W, T>>() };
        // A panic may not leave this function; its message is out already, and the missing result tells the parent.
        call.result = call
            .work
            .take()
            .and_then(|work| std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok());
        0
    }
    fn entry<W: FnOnce() -> T, T>(_: &Call<W, T>) -> extern "C" fn(*mut libc::c_void) -> libc::c_int {
        run::<W, T>
    }
    let mut call = Call { work: Some(work), result: None };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES | libc::SIGCHLD;
    // SAFETY: the stack is exclusively borrowed and large enough for what the launcher does; the function gets what it
    // expects. The parent, which has no other thread, goes on only when the child has ended, so nothing is touched by two.
    let pid = check(unsafe { libc::clone(entry(&call), stack.top(), flags, (&raw mut call).cast()) }.into())?;
    wait_for(pid as i32)?;
    Ok(call.result)
}

/// Waits for the end of a child, and reaps it.
fn wait_for(pid: i32) -> io::Result<()> {
    loop {
        // SAFETY: a null status asks for none.
        match check(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }.into()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}

/// Joins namespaces (`CLONE_NEW*`) of the process behind `pidfd`. Only for single-threaded processes.
pub(crate) fn setns(pidfd: impl AsFd, namespaces: i32) -> io::Result<()> {
    // SAFETY: takes integers only, and no other thread exists whose view of the system could differ from then on.
    check(unsafe { libc::setns(pidfd.as_fd().as_raw_fd(), namespaces) }.into())?;
    Ok(())
}

/// Ends the process without running any exit handler: those belong to the process it was forked from.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: never returns, touches no memory.
    unsafe { libc::_exit(code) }
}

/// Replaces the process. Only returns with an error.
pub(crate) fn exec(program: &CString, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| {
        strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect::<Vec<_>>()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays are null-terminated and hold pointers to C strings that outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Gives every signal its default action and an empty mask: what a new program expects, and what neither Rust's runtime
/// nor the launcher leaves.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: setting the default action runs no code of ours; failures (SIGKILL, libc's own signals) are harmless.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: sigemptyset initialises the set that is then read; both outlive the calls.
    unsafe {
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Ignores a signal in this process.
pub(crate) fn ignore_signal(signal: i32) {
    // SAFETY: ignoring runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Blocks SIGCHLD and returns a descriptor that is readable while one is pending.
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: sigemptyset initialises the set that the other calls read.
    let fd = unsafe {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    let fd = check(fd.into())? as RawFd;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Signals every process this one may signal, itself excepted; inside a pid namespace, all of it.
pub(crate) fn signal_everyone_else(signal: i32) {
    // SAFETY: takes integers only. There may be nobody to signal.
    unsafe { libc::kill(-1, signal) };
}

/// Kills the process group that `leader` leads.
pub(crate) fn kill_group(leader: i32) {
    signal_group(leader, libc::SIGKILL);
}

/// Signals the process group that `leader` leads.
pub(crate) fn signal_group(leader: i32, signal: i32) {
    // SAFETY: takes integers only. The group may be gone.
    unsafe { libc::kill(-leader, signal) };
}

/// A child that was reaped, and what it used.
pub(crate) struct Reaped {
    pub(crate) pid: i32,
    /// Exit code, or the signal's number, negative.
    pub(crate) status: i32,
}

/// Reaps one ended child, if there is one.
pub(crate) fn reap() -> io::Result<Option<Reaped>> {
    let mut status = 0;
    // SAFETY: the status word outlives the call.
    let pid = check(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) }.into())? as i32;
    if pid == 0 {
        return Ok(None);
    }
    let status = if libc::WIFSIGNALED(status) { -libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
    Ok(Some(Reaped { pid, status }))
}

/// What all reaped children used: largest resident set of one of them in bytes, cpu time of all in microseconds.
pub(crate) fn children_usage() -> (u64, u64) {
    // SAFETY: rusage is plain integers; the call fills it, and zeroes are a valid value should it fail.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let micros = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
    (usage.ru_maxrss as u64 * 1024, micros(usage.ru_utime) + micros(usage.ru_stime))
}

/// Brings up the loopback interface of the network namespace in which `socket` was made.
pub(crate) fn loopback_up(socket: impl AsFd) -> io::Result<()> {
    // SAFETY: ifreq is plain old data, for which zeroes are valid; the name "lo" fits with its terminating zero, and
    // both calls read and write only this structure, whose flags member is the one that they use.
    unsafe {
        let mut request = std::mem::zeroed::<libc::ifreq>();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        let fd = socket.as_fd().as_raw_fd();
        check(libc::ioctl(fd, libc::SIOCGIFFLAGS as _, &raw mut request).into())?;
        request.ifr_ifru.ifru_flags |= (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        check(libc::ioctl(fd, libc::SIOCSIFFLAGS as _, &raw const request).into())?;
    }
    Ok(())
}

/// Starts `command` with `fd` as its descriptor 3.
pub(crate) fn spawn_with_fd_3(command: &mut Command, fd: OwnedFd) -> io::Result<std::process::Child> {
    let raw = fd.as_raw_fd();
    // SAFETY: the closure calls only async-signal-safe functions and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            let result = if raw == 3 { libc::fcntl(3, libc::F_SETFD, 0) } else { libc::dup2(raw, 3) };
            check(result.into()).map(drop)
        });
    }
    let child = command.spawn();
    drop(fd);
    child
}

/// Leaves namespaces of this process for new ones.
pub(crate) fn unshare(flags: rustix::thread::UnshareFlags) -> io::Result<()> {
    // SAFETY: unsafe only because CLONE_FILES could pull descriptors away from under other threads; the callers have no
    // other thread and do not ask for it.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Watches a descriptor in the current tokio runtime. Only for non-blocking ones that are never read: the caller of
/// `readable` must know that itself.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the watcher owns the descriptor, so it stays open and the same until the watcher has taken it out.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}

// linux/loop.h; not in libc.
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

#[repr(C)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// The number of a loop device that is free at this moment, made if need be.
pub(crate) fn free_loop_device(control: impl AsFd) -> io::Result<u32> {
    // SAFETY: the request takes no argument.
    let number = check(unsafe { libc::ioctl(control.as_fd().as_raw_fd(), LOOP_CTL_GET_FREE as _) }.into())?;
    Ok(number as u32)
}

/// Puts `backing` behind a free loop device, until the last opener of the device is gone.
///
/// With direct I/O, where the backing file system allows it, so that pages are not kept twice.
pub(crate) fn configure_loop_device(device: impl AsFd, backing: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: plain integers and byte arrays, for which all zeroes is a valid value.
    let mut config: LoopConfig = unsafe { std::mem::zeroed() };
    config.fd = backing.as_raw_fd() as u32;
    config.block_size = 4096;
    config.info.flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO;
    // SAFETY: the structure is laid out as the kernel's loop_config and outlives the call.
    check(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) }.into())?;
    Ok(())
}

/// The version of the kernel's Landlock; 0 where there is none, or it is switched off.
pub(crate) fn landlock_version() -> u32 {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the call takes no structure and only returns a number.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0usize, LANDLOCK_CREATE_RULESET_VERSION)
    };
    u32::try_from(version).unwrap_or(0)
}

/// Whether namespaces as a sandbox needs them can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trial {
    Works,
    /// They cannot be made; the error's number.
    Refused(i32),
    /// They can be made, but give no rights inside.
    NoRights,
    /// They give rights, but no `/proc` can be mounted in them.
    NoProc,
}

/// Tries it in a process that ends at once. Unlike [`clone3`] itself this may be called beside other threads, because the
/// child makes nothing but plain system calls.
pub(crate) fn try_namespaces() -> Trial {
    const FLAGS: i32 = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    const NO_RIGHTS: i32 = 1;
    const NO_PROC: i32 = 2;
    match clone3(FLAGS as u64, None) {
        Err(error) => Trial::Refused(error.raw_os_error().unwrap_or(libc::EPERM)),
        Ok(Side::Child) => {
            // SAFETY: constant C strings that outlive the calls; nothing but the child's own namespaces changes.
            let code = unsafe {
                let name = c"trial";
                if libc::sethostname(name.as_ptr(), 5) != 0 {
                    NO_RIGHTS
                } else if libc::mount(
                    c"proc".as_ptr(),
                    c"/proc".as_ptr(),
                    c"proc".as_ptr(),
                    0,
                    std::ptr::null(),
                ) != 0
                {
                    NO_PROC
                } else {
                    0
                }
            };
            exit_now(code)
        }
        Ok(Side::Parent { pid, .. }) => {
            let mut status = 0;
            // SAFETY: the status word outlives the call; the child is ours and not yet reaped.
            if unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid || !libc::WIFEXITED(status) {
                return Trial::Refused(libc::ECHILD);
            }
            match libc::WEXITSTATUS(status) {
                0 => Trial::Works,
                NO_PROC => Trial::NoProc,
                _ => Trial::NoRights,
            }
        }
    }
}

/// Joins a new, empty session keyring.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; nothing else is passed.
    check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // The tests run beside other threads, so what is called apart here does nothing that could meet them.

    #[test]
    fn what_is_called_apart_returns_its_result_and_is_another_process() {
        let mut stack = Stack::new().expect("stack");
        let own = std::process::id();
        let mut heard = 0;
        let called = call_apart(&mut stack, || {
            heard = 7;
            // SAFETY: asks for a number.
            unsafe { libc::getpid() as u32 }
        });
        assert_eq!(heard, 7, "memory is shared");
        assert_ne!(called.expect("call").expect("result"), own, "the process is another one");
    }

    #[test]
    fn what_is_killed_apart_is_missed() {
        let mut stack = Stack::new().expect("stack");
        // SAFETY: kills the calling process, which is the child's own.
        let called = call_apart(&mut stack, || unsafe { libc::kill(libc::getpid(), libc::SIGKILL) });
        assert!(called.expect("call").is_none());
    }
}
