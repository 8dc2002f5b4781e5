//! What is known of each deployment: whether its environments start by fork, and if not, why not.

use crate::Deployment;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// How further environments of a deployment start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartMode {
    /// Nothing has been tried yet.
    Unknown,
    /// By a fork of the deployment's template.
    Fork,
    /// By an init phase of their own, for this reason: a sentence without its full stop.
    Ordinary(String),
}

/// So many forks or templates that fail in a row show that a function does not survive being forked.
const FAILURES: u32 = 3;

/// The modes of the deployments that exist. An entry is dropped some time after its deployment.
#[derive(Debug, Default)]
pub(crate) struct StartModes {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// By address. As long as the weak pointer is held no other deployment can get it.
    entries: HashMap<usize, Entry>,
    /// Look for dropped deployments at this length.
    sweep_at: usize,
}

#[derive(Debug)]
struct Entry {
    deployment: Weak<Deployment>,
    mode: StartMode,
    failures: u32,
    said: bool,
}

impl StartModes {
    /// What is known of the deployment.
    pub(crate) fn of(&self, deployment: &Deployment) -> StartMode {
        let known = self.lock();
        known.entries.get(&address(deployment)).map_or(StartMode::Unknown, |entry| entry.mode.clone())
    }

    /// Its template is parked. Does not forget failures: a template that parks may still not survive a fork.
    pub(crate) fn parked(&self, deployment: &Arc<Deployment>) {
        self.change(deployment, |entry| {
            if entry.mode == StartMode::Unknown {
                entry.mode = StartMode::Fork;
            }
        });
    }

    /// An environment forked from its template is ready.
    pub(crate) fn forked(&self, deployment: &Arc<Deployment>) {
        self.change(deployment, |entry| entry.failures = 0);
    }

    /// A template of it ended by itself, or an environment that was forked did not get ready.
    pub(crate) fn failed(&self, deployment: &Arc<Deployment>, what: &str) {
        self.change(deployment, |entry| {
            entry.failures += 1;
            if entry.failures >= FAILURES && !matches!(entry.mode, StartMode::Ordinary(_)) {
                entry.mode = StartMode::Ordinary(format!("{what}, {FAILURES} times in a row"));
            }
        });
    }

    /// It cannot be forked.
    pub(crate) fn unforkable(&self, deployment: &Arc<Deployment>, reason: &str) {
        self.change(deployment, |entry| entry.mode = StartMode::Ordinary(reason.to_owned()));
    }

    /// The reason for ordinary starts, if it has not been asked for before: it is said once.
    pub(crate) fn to_say(&self, deployment: &Arc<Deployment>) -> Option<String> {
        let mut known = self.lock();
        let entry = known.entries.get_mut(&address(deployment))?;
        match &entry.mode {
            StartMode::Ordinary(reason) if !std::mem::replace(&mut entry.said, true) => Some(reason.clone()),
            _ => None,
        }
    }

    fn change(&self, deployment: &Arc<Deployment>, change: impl FnOnce(&mut Entry)) {
        let mut known = self.lock();
        if known.entries.len() >= known.sweep_at {
            known.entries.retain(|_, entry| entry.deployment.strong_count() > 0);
            known.sweep_at = (known.entries.len() * 2).max(64);
        }
        change(known.entries.entry(address(deployment)).or_insert_with(|| Entry {
            deployment: Arc::downgrade(deployment),
            mode: StartMode::Unknown,
            failures: 0,
            said: false,
        }));
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn address(deployment: &Deployment) -> usize {
    std::ptr::from_ref(deployment).addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Arc<Deployment> {
        let version = crate::variables::tests::version("python3.12");
        Arc::new(Deployment { version, code_dir: "/nowhere".into(), opt_dir: None })
    }

    #[test]
    fn a_reason_is_remembered_and_said_once() {
        let modes = StartModes::default();
        let (first, second) = (deployment(), deployment());
        assert_eq!(modes.of(&first), StartMode::Unknown);
        modes.unforkable(&first, "a thread is alive");
        assert_eq!(modes.of(&first), StartMode::Ordinary("a thread is alive".into()));
        assert_eq!(modes.to_say(&first).as_deref(), Some("a thread is alive"));
        assert_eq!(modes.to_say(&first), None);
        modes.parked(&second);
        assert_eq!((modes.of(&second), modes.to_say(&second)), (StartMode::Fork, None));
        assert_eq!(
            modes.of(&Deployment::clone(&second)),
            StartMode::Unknown,
            "another one with the same content"
        );
    }

    #[test]
    fn failures_count_only_in_a_row() {
        let modes = StartModes::default();
        let deployment = deployment();
        for _ in 0..10 {
            modes.parked(&deployment);
            modes.failed(&deployment, "its template ended");
            modes.failed(&deployment, "its template ended");
            modes.forked(&deployment);
        }
        assert_eq!(modes.of(&deployment), StartMode::Fork);
        for _ in 0..3 {
            modes.parked(&deployment);
            modes.failed(&deployment, "its template ended");
        }
        modes.parked(&deployment);
        modes.forked(&deployment);
        let reason = "its template ended, 3 times in a row";
        assert_eq!(modes.of(&deployment), StartMode::Ordinary(reason.into()), "there is no way back");
        assert_eq!(modes.to_say(&deployment).as_deref(), Some(reason));
    }

    #[test]
    fn what_is_known_goes_with_the_deployment() {
        let modes = StartModes::default();
        let kept = deployment();
        modes.unforkable(&kept, "x");
        for _ in 0..10_000 {
            modes.parked(&deployment());
        }
        assert!(modes.lock().entries.len() <= 128);
        assert_eq!(modes.of(&kept), StartMode::Ordinary("x".into()));
    }
}
