//! What is attached to a function or to one of its qualifiers, and is no part of any version.

use martlet_model::{Qualifier, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything that is attached to one function. Maps that have a [`Target`] as their key hold at most one thing for each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attached {
    /// Environments that the function has for itself, and not more of; 0 turns it off.
    pub reserved_concurrency: Option<u32>,
    /// Environments that are kept started, by version or alias.
    pub provisioned: BTreeMap<Target, Provisioned>,
    /// How accepted events are treated.
    pub event_invoke: BTreeMap<Target, EventInvoke>,
    /// HTTP endpoints.
    pub urls: BTreeMap<Target, Url>,
    /// Who else may do what.
    pub policies: BTreeMap<Target, Policy>,
    /// Whether a function that calls itself through others is let go on.
    pub recursion_allowed: bool,
    /// When runtimes are updated, by version.
    pub runtime_management: BTreeMap<Target, RuntimeManagement>,
    /// The code signing configuration's ARN.
    pub code_signing: Option<String>,
}

/// What something is attached to: the function itself, which is also its `$LATEST`, one of its versions or an alias.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Target(String);

impl Target {
    /// What a qualifier that was given, or left out, means.
    #[must_use]
    pub fn of(qualifier: Option<&Qualifier>) -> Self {
        match qualifier {
            None | Some(Qualifier::Latest) => Self::default(),
            Some(qualifier) => Self(qualifier.to_string()),
        }
    }

    /// The qualifier; `None` for the function itself.
    #[must_use]
    pub fn qualifier(&self) -> Option<Qualifier> {
        Qualifier::parse(&self.0).ok()
    }
}

/// Environments that are kept started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioned {
    /// How many.
    pub wanted: u32,
    /// When that was asked for.
    pub modified: Timestamp,
}

/// How accepted events are treated. What was not said is `None`, and Lambda's default then holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventInvoke {
    /// Retries after a function error, 0 to 2.
    pub retries: Option<u32>,
    /// How old an event may become, 60 to 21,600 s.
    pub age_seconds: Option<u32>,
    /// Where records of events that ran go, an ARN.
    pub on_success: Option<String>,
    /// Where records of events that were given up go, an ARN.
    pub on_failure: Option<String>,
    /// The last change.
    pub modified: Timestamp,
}

/// An HTTP endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Url {
    /// What makes its host name unique: lower-case letters and digits.
    pub id: String,
    /// Whether callers have to sign.
    pub signed: bool,
    /// Whether answers are streamed.
    pub streams: bool,
    /// Cross-origin rules.
    pub cors: Option<Cors>,
    /// When it was made.
    pub created: Timestamp,
    /// The last change.
    pub modified: Timestamp,
}

/// Which pages of other origins a browser lets use an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cors {
    /// Whether with cookies and signatures.
    pub credentials: Option<bool>,
    /// Request headers.
    pub headers: Option<Vec<String>>,
    /// Methods, or `*`.
    pub methods: Option<Vec<String>>,
    /// Origins, or `*`.
    pub origins: Option<Vec<String>>,
    /// Response headers that pages may read.
    pub exposed: Option<Vec<String>>,
    /// How long browsers may remember all this, in seconds.
    pub max_age: Option<u32>,
}

/// A resource policy. Its revision is that of what it is attached to, which changes with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Its own id, where its author gave one.
    #[serde(default)]
    pub id: Option<String>,
    /// The statements as JSON, in the order in which they were added.
    pub statements: Vec<serde_json::Value>,
}

/// When a version's runtime is updated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeManagement {
    /// `Auto`, `FunctionUpdate` or `Manual`.
    pub update_on: String,
    /// The runtime that `Manual` stays with.
    pub runtime_arn: Option<String>,
}

impl Attached {
    /// What it takes of the account's concurrency whether or not it is called: its reservation, or else what is provisioned.
    #[must_use]
    pub fn share(&self) -> u64 {
        self.reserved_concurrency.map_or_else(|| self.provisioned_sum(), u64::from)
    }

    /// What is provisioned for it, all its versions and aliases together.
    #[must_use]
    pub fn provisioned_sum(&self) -> u64 {
        self.provisioned.values().map(|provisioned| u64::from(provisioned.wanted)).sum()
    }

    /// Drops what is attached to something that is gone.
    pub(crate) fn forget(&mut self, target: &Target) {
        self.provisioned.remove(target);
        self.event_invoke.remove(target);
        self.urls.remove(target);
        self.policies.remove(target);
        self.runtime_management.remove(target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_what_its_qualifier_says() {
        for (qualifier, same) in [
            (None, None),
            (Some(Qualifier::Latest), None),
            (Some(Qualifier::Version(7)), Some(Qualifier::Version(7))),
            (Some(Qualifier::Alias("live".into())), Some(Qualifier::Alias("live".into()))),
        ] {
            assert_eq!(Target::of(qualifier.as_ref()).qualifier(), same);
        }
    }

    #[test]
    fn records_without_attachments_are_read() {
        assert_eq!(serde_json::from_str::<Attached>("{}").unwrap(), Attached::default());
    }
}
