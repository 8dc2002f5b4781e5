//! What pid 1 does once the program runs: reap, carry out orders, and tell how the main process ended.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::RecvFlags;

use crate::child::{Role, Started};
use crate::sys;
use crate::wire::{self, Ending, Order, Part, Report};

/// Stays until the main process ends; its own end then takes everything else in the sandbox with it. That of a forkable
/// one stays longer: the shells below would end with it, so the launcher decides. With companions it stays until it is killed.
pub(super) fn stay(talk: &OwnedFd, ending: OwnedFd, started: Started) -> ! {
    let Started { mut main, role, listener, mut reined } = started;
    let mut ending = Some(ending);
    // Nobody waits for a missed signal: whatever has ended before this line is found by the first reaping.
    let Ok(children) = sys::child_signals() else { sys::exit_now(1) };
    let servers = reined.as_mut().and_then(|reined| reined.servers_end.take());
    let (mut parts, mut fds) = (Vec::new(), Vec::new());
    if let Some(listener) = &listener {
        parts.push(Part::Listener);
        fds.push(listener.as_fd());
    }
    if let Some(servers) = &servers {
        parts.push(Part::Reins);
        fds.push(servers.as_fd());
    }
    if wire::send(talk, &Report::Running { parts }, &fds).is_err() {
        sys::exit_now(1);
    }
    drop((listener, servers));
    loop {
        while let Ok(Some(reaped)) = sys::reap() {
            if let Some(reined) = &mut reined {
                reined.ended(&reaped, main);
            }
            if main.is_some_and(|main| reaped.pid == main.pid)
                && let Some(ending) = ending.take()
            {
                tell_end(ending, reaped.status);
                if reined.is_some() {
                    continue;
                }
                if role != Role::Forkable || wire::send(talk, &Report::Ended, &[]).is_err() {
                    sys::exit_now(0);
                }
            }
        }
        let mut fds = vec![PollFd::new(&children, PollFlags::IN), PollFd::new(talk, PollFlags::IN)];
        fds.extend(reined.iter().map(|reined| PollFd::new(&reined.socket, PollFlags::IN)));
        // An interrupted wait only looks again.
        let _ = poll(&mut fds, None);
        let ordered = !fds[1].revents().is_empty();
        let reins = fds.get(2).is_some_and(|reins| !reins.revents().is_empty());
        if reins && let Some(reined) = &mut reined {
            main = reined.obey(main);
        }
        let _ = rustix::io::read(&children, &mut [0u8; 128][..]);
        if ordered {
            match wire::receive_short(talk, RecvFlags::DONTWAIT) {
                Ok(Some((Order::Stop, _))) => sys::signal_everyone_else(libc::SIGSTOP),
                Ok(Some((Order::Continue, _))) => sys::signal_everyone_else(libc::SIGCONT),
                Ok(Some((Order::Terminate, _))) => {
                    main.into_iter().for_each(|main| sys::signal_group(main.pid, libc::SIGTERM));
                }
                Ok(Some((Order::End, _))) => main.into_iter().for_each(|main| sys::kill_group(main.pid)),
                Ok(Some((Order::Go | Order::Serve { .. }, _))) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                // The launcher is gone, and with it everything that was promised about this sandbox.
                Ok(None) | Err(_) => sys::exit_now(1),
            }
        }
    }
}

fn tell_end(ending: OwnedFd, status: i32) {
    let (peak_bytes, cpu_micros) = sys::children_usage();
    let ending_bytes = Ending { status, peak_bytes, cpu_micros }.to_bytes();
    // Less than a pipe holds, so never partial; a reader that is gone needs no answer.
    let _ = std::fs::File::from(ending).write_all(&ending_bytes);
}
