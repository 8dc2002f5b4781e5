//! Keeping the packages folder what the records say it is: what they refer to is there, what they do not is not.

use crate::function::Function;
use crate::machine;
use crate::packages::{Collected, PackagesError};
use crate::registry::Functions;
use martlet_environment::Deployment;
use martlet_store::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How often what had to wait is looked at again.
const UPKEEP: Duration = Duration::from_secs(60);

/// Packages that may be garbage, and the deployments that keep packages alive after their function let go of them:
/// an environment may run on the old code for as long as its last invocation takes.
#[derive(Debug, Default)]
pub(crate) struct Garbage {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    suspects: BTreeSet<Digest>,
    deployments: BTreeMap<Digest, Vec<Weak<Deployment>>>,
}

impl Garbage {
    pub(crate) fn in_use(&self, digest: Digest, deployment: &Arc<Deployment>) {
        let mut state = self.state();
        let users = state.deployments.entry(digest).or_default();
        users.retain(|user| user.strong_count() > 0);
        users.push(Arc::downgrade(deployment));
    }

    fn is_in_use(&self, digest: &Digest) -> bool {
        let mut state = self.state();
        let Some(users) = state.deployments.get_mut(digest) else { return false };
        users.retain(|user| user.strong_count() > 0);
        let used = !users.is_empty();
        if !used {
            state.deployments.remove(digest);
        }
        used
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Functions {
    /// Maintains in the background for as long as somebody has the functions.
    pub(crate) fn keep(&self) {
        let kept = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(UPKEEP);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // The first one is now, when everything has just been looked at.
            ticks.tick().await;
            loop {
                ticks.tick().await;
                let Some(inner) = kept.upgrade() else { return };
                Self { inner }.maintain().await;
            }
        });
    }

    /// Does what had to wait: removes packages that nothing uses any more, and finishes changes that failed for want
    /// of disk space or the like. Happens by itself once a minute.
    pub async fn maintain(&self) {
        for function in self.inner.shown.all() {
            if !machine::pending(&function.snapshot).is_empty() {
                self.settle_soon(function.arn().clone());
            }
        }
        self.collect().await;
    }

    /// Something let go of these packages: they are removed soon unless something else uses them.
    pub(crate) fn suspect(&self, digests: impl IntoIterator<Item = Digest>) {
        let mut digests = digests.into_iter().peekable();
        if digests.peek().is_none() {
            return;
        }
        self.inner.garbage.state().suspects.extend(digests);
        let functions = self.clone();
        tokio::spawn(async move { functions.collect().await });
    }

    async fn collect(&self) {
        let suspects: Vec<Digest> = self.inner.garbage.state().suspects.iter().copied().collect();
        for digest in suspects {
            let wanted = || self.refers_to(&digest) || self.inner.garbage.is_in_use(&digest);
            match self.inner.packages.collect(digest, wanted).await {
                Ok(Collected::Gone) => {}
                // Whoever lets go of it last suspects it again.
                Ok(Collected::Kept) if self.refers_to(&digest) => {}
                Ok(Collected::Kept) => continue,
                Err(error) => {
                    tracing::warn!(%digest, %error, "cannot remove a package that nothing uses");
                    continue;
                }
            }
            self.inner.garbage.state().suspects.remove(&digest);
        }
    }

    /// Whether a record refers to the package.
    pub(crate) fn refers_to(&self, digest: &Digest) -> bool {
        self.inner.layers.refer_to(digest)
            || self.inner.shown.all().iter().any(|function| function.snapshot.digests().contains(digest))
    }

    /// After a start: finishes what was pending, unpacks again what has lost its folder, removes what nothing
    /// refers to.
    pub(crate) async fn take_up(&self) -> Result<(), PackagesError> {
        let mut referred: BTreeSet<Digest> = self.inner.layers.digests();
        for function in self.inner.shown.all() {
            referred.extend(function.snapshot.digests());
            if !machine::pending(&function.snapshot).is_empty() {
                self.settle_soon(function.arn().clone());
            }
            if lacks_a_folder(&function) {
                self.restore_soon(function);
            }
        }
        let known = self.inner.packages.known().await?;
        self.suspect(known.difference(&referred).copied());
        Ok(())
    }

    /// Unpacks the packages of a function whose folders are gone, and shows it again with what can be invoked.
    fn restore_soon(&self, function: Arc<Function>) {
        let functions = self.clone();
        tokio::spawn(async move {
            let arn = function.arn();
            for parts in function.snapshot.parts() {
                if let Err(error) = functions.inner.packages.assemble(&parts).await {
                    tracing::error!(function = %arn, %error, "cannot unpack the function's package again");
                }
            }
            let _turn = functions.turn(arn).await;
            if let Some(now) = functions.inner.shown.get(arn) {
                let again =
                    Function::new(now.snapshot.clone(), now.stored, Some(&now), &functions.inner.held, |v| {
                        functions.deploy(v)
                    });
                functions.inner.shown.set([(arn.clone(), Some(Arc::new(again)))]);
            }
        });
    }
}

fn lacks_a_folder(function: &Function) -> bool {
    let active = function.snapshot.versions.values().filter(|v| v.state == crate::State::Active).count();
    let latest = usize::from(function.snapshot.serving().is_some());
    function.deployments.len() < active + latest
}
