//! The launcher: a small single-threaded process, the only one that keeps privileges.
//!
//! It waits for three kinds of events: a request of the server, a report of a child that is starting, the end of a pid 1.
//! None of them makes it wait for a child, so a slow start delays no other.

mod birth;
mod entrance;
mod furnish;
mod images;
mod living;
mod midwife;
mod root;
mod scratch;
mod system;
mod workplace;

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::RecvFlags;

use crate::sys;
use crate::wire::{self, Reply, Request};
use living::House;
use workplace::Workplace;

pub(crate) use images::find_mkfs;
pub(crate) use root::shared_memory;
pub(crate) use workplace::INNER_UID;

/// Entry of the hidden subcommand [`crate::LAUNCHER_COMMAND`]. Must be called before the process has a second thread, with
/// the server's socket as descriptor 3. Returns to nobody: it ends with the server.
pub fn launcher_main() -> ! {
    let code = match run() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("martlet launcher: {error}");
            1
        }
    };
    std::process::exit(code)
}

fn run() -> io::Result<()> {
    let server = sys::adopt_descriptor(3)?;
    sys::close_range(4, u32::MAX, false)?;
    keep_out_of_terminals();
    let Some((Request::Start { options, bind_roots }, _)) = wire::receive(&server, RecvFlags::empty())?
    else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the server did not begin with its options"));
    };
    if let Err(invalid) = options.validate() {
        return wire::send(&server, &Reply::Invalid(invalid), &[]);
    }
    match Workplace::prepare(options, &bind_roots) {
        Ok(workplace) => {
            wire::send(&server, &Reply::Ready(workplace.in_force.clone()), &[])?;
            serve(server, workplace)
        }
        Err(refusal) => wire::send(&server, &Reply::Refused(refusal), &[]),
    }
}

/// A key press or a service manager's signal is for the server, which drains first; the launcher goes when it is gone.
fn keep_out_of_terminals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGTSTP, libc::SIGUSR1] {
        sys::ignore_signal(signal);
    }
    // Fails only for a process that leads a group already, which is as good.
    let _ = rustix::process::setsid();
    // Keys of whoever started the server must not be in the keyring that every sandbox inherits. Absent with the
    // kernel's key management, and then harmless.
    let _ = sys::new_session_keyring();
    let _ = rustix::thread::set_name(c"martlet-launch");
}

fn serve(server: OwnedFd, workplace: Workplace) -> io::Result<()> {
    let mut house = House::new(server, workplace)?;
    let mut result = Ok(());
    while house.is_open() && result.is_ok() {
        result = house.turn();
    }
    house.close();
    result
}
