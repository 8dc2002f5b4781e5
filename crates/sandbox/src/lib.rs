//! Processes under limits: namespaces, a private root, cgroups, seccomp, Landlock. This room knows nothing of functions.
//!
//! Two processes take part. The **server** side ([`Launcher`], [`Sandbox`]) is an ordinary asynchronous program without
//! privileges. The **launcher** ([`launcher_main`]) is a small single-threaded process, the only one that keeps
//! privileges; it is the same binary, started through a hidden subcommand before the server has any thread. They speak
//! over one `SEQPACKET` socket; process handles, sockets and control files travel over it as descriptors, so the server
//! watches exits, freezes, thaws and reads usage without asking the launcher.
//!
//! The end of the server, however it comes, is seen by the launcher as the end of that socket: it kills every sandbox and
//! removes what it made. The end of the launcher kills every sandbox through the parent-death signal. What even that
//! leaves (cgroup directories after both were killed) the next launcher of the same instance removes when it starts.
//!
//! This is the only crate of the workspace that may hold `unsafe`; all of it lives in `sys`.

mod cgroup;
mod child;
pub mod doctor;
mod error;
mod launcher;
mod park_library;
mod seccomp;
mod server;
mod spec;
mod sys;
mod wire;

pub use error::{LaunchError, Refusal, StartError, Step};
pub use launcher::launcher_main;
pub use park_library::PARK_LIBRARY;
pub use server::{
    ExitStatus, ExitWatch, ForkError, ForkStep, Launcher, LauncherProcess, Parking, Reins, Sandbox, Shell,
    Told, Usage,
};
pub use spec::{Bind, Companion, Furnishing, Invalid, Isolation, LauncherOptions, SandboxSpec, TmpKind};
pub use wire::{InForce, Who};

/// The argument with which [`Launcher::start`] runs this very binary again; its `main` must then call [`launcher_main`]
/// before anything else.
pub const LAUNCHER_COMMAND: &str = "__launcher";
