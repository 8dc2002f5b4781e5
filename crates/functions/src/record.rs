//! What is known about a function, in memory and on disk alike.

use crate::alias::Alias;
use crate::attached::Attached;
use martlet_model::{FunctionVersion, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The form of the records below; a record of a newer form is not read.
pub(crate) const SCHEMA: u32 = 1;

/// Whether a version can be invoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Its package is being unpacked.
    Pending,
    /// It can.
    Active,
    /// Its package could not be unpacked.
    Failed(Reason),
}

/// How the latest update of `$LATEST` went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Update {
    /// What was there before still serves.
    InProgress,
    /// It serves.
    Successful,
    /// What was there before still serves.
    Failed(Reason),
}

/// Why something failed, for people and, in `code`, for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// One of the service model's state reason codes.
    pub code: String,
    /// A sentence.
    pub text: String,
}

/// One version as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// What runs. Its `revision` changes with code and configuration only.
    pub version: FunctionVersion,
    /// The id for preconditions. Changes with everything that shows, also with a change of state.
    pub revision_id: String,
    /// The last change of code or configuration.
    pub modified: Timestamp,
    /// Whether it can be invoked.
    pub state: State,
    /// How its latest update went, the creation included; `None` while that one lasts.
    pub update: Option<Update>,
    /// Whether environment variables were ever given, be it none: what was never given is not shown.
    pub environment_given: bool,
}

/// What `$LATEST` was when a version was last published from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Published {
    pub(crate) number: u64,
    /// See [`crate::machine::fingerprint`].
    pub(crate) fingerprint: String,
}

/// A function without its published versions, which have records of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FunctionRecord {
    pub(crate) schema: u32,
    /// Made at the creation. Version records carry it, so that those of a deleted function never turn up in a later
    /// one of the same name.
    pub(crate) incarnation: String,
    /// `$LATEST` as it was last configured.
    pub(crate) latest: VersionRecord,
    /// What serves in its place while an update is under way and after one that failed.
    pub(crate) serving: Option<FunctionVersion>,
    /// The number of the next version to be published; only grows.
    pub(crate) next_version: u64,
    pub(crate) last_published: Option<Published>,
    pub(crate) tags: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) aliases: BTreeMap<String, Alias>,
    #[serde(default)]
    pub(crate) attached: Attached,
}

/// The stored form of a published version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PublishedRecord {
    pub(crate) schema: u32,
    /// That of the function.
    pub(crate) incarnation: String,
    #[serde(flatten)]
    pub(crate) record: VersionRecord,
}
