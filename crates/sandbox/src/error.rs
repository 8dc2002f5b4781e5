//! What can go wrong, one variant or step for each thing that can fail, carrying the noun it failed on.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use crate::spec::Invalid;

/// The launcher could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The options cannot be carried out as written.
    #[error("the launcher's option {0}")]
    Invalid(Invalid),
    /// No socket to speak to the launcher.
    #[error("could not make the socket to the launcher")]
    Socket(#[source] io::Error),
    /// The launcher's program could not be run.
    #[error("could not run {program} as the launcher")]
    Spawn {
        /// The program that was to be run.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// The launcher ended, or said nothing in time, before it was ready.
    #[error("the launcher did not become ready; its own message, if any, is on stderr")]
    Silent(#[source] io::Error),
    /// The launcher found that it cannot give the isolation that was asked for.
    #[error("{0}")]
    Refused(Refusal),
}

/// Why a launcher refuses to work: it would not be able to keep what its options promise.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{what}: {why}. {remedy}")]
pub struct Refusal {
    /// What is missing.
    pub what: String,
    /// What was observed.
    pub why: String,
    /// What to do about it.
    pub remedy: String,
}

impl Refusal {
    pub(crate) fn new(what: impl Into<String>, why: impl fmt::Display, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.to_string(), remedy: remedy.into() }
    }
}

/// A sandbox could not be made. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The specification cannot be carried out as written.
    #[error("the sandbox specification is wrong: {0}")]
    Invalid(Invalid),
    /// As many sandboxes live as the launcher has uids for.
    #[error("all {limit} sandbox places are taken; end some, or give the launcher a longer uid range")]
    Full {
        /// How many places there are.
        limit: u32,
    },
    /// A step of making the sandbox failed.
    #[error("could not {step} ({noun}){}", .step.advice())]
    Step {
        /// Which step.
        step: Step,
        /// What it was working on: a path, a limit, a program.
        noun: String,
        /// What the kernel answered.
        #[source]
        errno: io::Error,
    },
    /// The request could not be sent.
    #[error("could not hand the request to the launcher")]
    Send(#[source] io::Error),
    /// The launcher is gone; every sandbox died with it.
    #[error("the launcher has ended, and every sandbox with it; restart the server")]
    Gone,
}

/// The steps of making a sandbox, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// Read the request.
    Request,
    /// Make the cgroup.
    Cgroup,
    /// Write a limit into the cgroup.
    Limit,
    /// Mount the new root.
    Root,
    /// Write a synthetic file.
    File,
    /// Show a host path inside.
    Bind,
    /// Make the private `/tmp`.
    Tmp,
    /// Create the process in its namespaces.
    Namespaces,
    /// Map the sandbox's user to the host.
    UserMap,
    /// Put the process into its cgroup.
    Attach,
    /// Become the sandbox's user.
    BecomeUser,
    /// Mount the private `/proc`.
    Proc,
    /// Hide a part of `/proc`.
    Mask,
    /// Change to the new root.
    Pivot,
    /// Set the host name.
    Hostname,
    /// Bring up the loopback interface.
    Loopback,
    /// Listen on the asked port.
    Listen,
    /// Set a resource limit.
    ResourceLimit,
    /// Give up privileges.
    Privileges,
    /// Apply Landlock.
    Landlock,
    /// Apply the system call filter.
    Seccomp,
    /// Create the main process.
    Fork,
    /// Put descriptors in their places.
    Descriptors,
    /// Enter the working directory.
    WorkingDirectory,
    /// Run the program.
    Exec,
}

impl Step {
    fn phrase(self) -> &'static str {
        match self {
            Self::Request => "read the launch request",
            Self::Cgroup => "make the sandbox's cgroup",
            Self::Limit => "set a limit of the sandbox's cgroup",
            Self::Root => "make the sandbox's root file system",
            Self::File => "write a file into the sandbox",
            Self::Bind => "show a host path in the sandbox",
            Self::Tmp => "make the sandbox's /tmp",
            Self::Namespaces => "create the sandbox's namespaces",
            Self::UserMap => "map the sandbox's user",
            Self::Attach => "put the sandbox into its cgroup",
            Self::BecomeUser => "become the sandbox's user",
            Self::Proc => "mount the sandbox's /proc",
            Self::Mask => "hide a part of the sandbox's /proc",
            Self::Pivot => "enter the sandbox's root",
            Self::Hostname => "set the sandbox's host name",
            Self::Loopback => "bring up the sandbox's loopback interface",
            Self::Listen => "listen inside the sandbox",
            Self::ResourceLimit => "set a resource limit",
            Self::Privileges => "give up privileges",
            Self::Landlock => "apply Landlock",
            Self::Seccomp => "apply the system call filter",
            Self::Fork => "create the sandbox's main process",
            Self::Descriptors => "put descriptors in their places",
            Self::WorkingDirectory => "enter the working directory",
            Self::Exec => "run the program",
        }
    }

    /// What a person can do about it, where that is known; starts with a separator.
    fn advice(self) -> &'static str {
        match self {
            Self::Tmp => {
                "; is there space in the scratch directory? `martlet doctor` checks loop devices and mkfs.ext4"
            }
            Self::Namespaces => "; `martlet doctor` tells which namespaces this machine allows",
            Self::Cgroup | Self::Limit | Self::Attach => {
                "; `martlet doctor` tells which cgroup controllers are usable"
            }
            Self::Proc => "; inside a container, /proc must not be masked by the container's own mounts",
            Self::Bind => "; does it exist, and does its place inside lie in a read-only part?",
            Self::Exec => "; is it there, executable, and readable by other users?",
            Self::WorkingDirectory => "; is it there, and may other users enter it?",
            _ => "",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.phrase())
    }
}

/// A failed launch as it travels from the child to the launcher and on to the server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    Invalid(Invalid),
    Full { limit: u32 },
    Step { step: Step, noun: String, errno: i32 },
}

impl Fault {
    pub(crate) fn step(step: Step, noun: impl Into<String>, error: &io::Error) -> Self {
        Self::Step { step, noun: noun.into(), errno: error.raw_os_error().unwrap_or(libc::EIO) }
    }
}

impl From<Fault> for LaunchError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Invalid(invalid) => Self::Invalid(invalid),
            Fault::Full { limit } => Self::Full { limit },
            Fault::Step { step, noun, errno } => {
                Self::Step { step, noun, errno: io::Error::from_raw_os_error(errno) }
            }
        }
    }
}

/// Names the step and the noun of a failing call: `mkdir(..).at(Step::Root, "etc")?`.
pub(crate) trait At<T> {
    fn at(self, step: Step, noun: impl AsRef<str>) -> Result<T, Fault>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: Step, noun: impl AsRef<str>) -> Result<T, Fault> {
        self.map_err(|error| Fault::step(step, noun.as_ref(), &error.into()))
    }
}
