//! The server's side: asynchronous handles to the launcher and to each sandbox.

mod connection;
mod parking;
mod process_tree;
mod reins;
mod sandbox;
mod start;

pub use connection::Launcher;
pub use parking::{ForkError, ForkStep, Parking, Shell};
pub use reins::{Reins, Told};
pub use sandbox::{ExitStatus, ExitWatch, Sandbox, Usage};
pub use start::LauncherProcess;
