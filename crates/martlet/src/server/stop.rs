//! Being told to stop: the first signal asks for a drain, the second for an end now.

use std::io;
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that stop the server.
#[derive(Debug)]
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// From here on the signals do not end the process by themselves.
    ///
    /// # Errors
    /// The signals cannot be watched.
    pub(super) fn watch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one and returns the exit code that a shell expects of a program it ends.
    pub(super) async fn next(&mut self) -> ExitCode {
        tokio::select! {
            _ = self.terminate.recv() => ExitCode::from(128 + 15),
            _ = self.interrupt.recv() => ExitCode::from(128 + 2),
        }
    }
}
