//! Versions that stay with a runtime: they run while the machine has that one, and not on another.

use crate::attached::{Attached, Target};
use crate::registry::Unresolved;
use martlet_model::FunctionVersion;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Tells the runtime that a version would run on, as [`RuntimeManagement`](crate::RuntimeManagement) names runtimes.
pub type RuntimeOf = dyn Fn(&FunctionVersion) -> String + Send + Sync;

/// What is asked for runtimes, once somebody has said so; the same for all functions.
#[derive(Clone, Default)]
pub(crate) struct Held(Arc<OnceLock<Box<RuntimeOf>>>);

impl Held {
    pub(crate) fn set(&self, runtime_of: Box<RuntimeOf>) {
        let _ = self.0.set(runtime_of);
    }

    /// Refuses a version that is kept on a runtime that it would not run on.
    pub(crate) fn check(&self, attached: &Attached, version: &FunctionVersion) -> Result<(), Unresolved> {
        if attached.runtime_management.is_empty() {
            return Ok(());
        }
        let set = attached.runtime_management.get(&Target::of(Some(&version.version.qualifier())));
        let (Some(wanted), Some(runtime_of)) = (set.and_then(|set| set.runtime_arn.as_ref()), self.0.get())
        else {
            return Ok(());
        };
        if *wanted == runtime_of(version) { Ok(()) } else { Err(Unresolved::RuntimeGone(wanted.clone())) }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}
