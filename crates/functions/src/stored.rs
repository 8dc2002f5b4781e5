//! The records in the store: their keys, their form, and reading all of them at the start.

use crate::function::Function;
use crate::machine::{Change, Snapshot};
use crate::packages::PackagesError;
use crate::record::{FunctionRecord, PublishedRecord, SCHEMA, VersionRecord};
use crate::registry::Functions;
use bytes::Bytes;
use martlet_model::{FunctionArn, Version};
use martlet_store::{Entry, Expect, Revision, StoreError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

const FUNCTIONS: &str = "functions/";
const VERSIONS: &str = "versions/";
const READ_AT_ONCE: usize = 500;

/// Why the functions could not be read at the start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store failed.
    #[error("cannot read the functions from the store")]
    Store(#[from] StoreError),
    /// The packages' folder failed.
    #[error(transparent)]
    Packages(#[from] PackagesError),
    /// A record is not what it should be.
    #[error("the record {key:?} cannot be read; restore the data directory from a backup")]
    Record {
        /// Its key.
        key: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A record was written by a newer version.
    #[error(
        "the record {key:?} has form {found}, this version knows up to {SCHEMA}: start the newer martlet"
    )]
    Newer {
        /// Its key.
        key: String,
        /// Its form.
        found: u32,
    },
}

fn path(arn: &FunctionArn) -> String {
    format!("{}/{}/{}", arn.account, arn.region, arn.name)
}

pub(crate) fn function_key(arn: &FunctionArn) -> String {
    format!("{FUNCTIONS}{}", path(arn))
}

/// Digits are padded, so that keys are ordered as numbers.
pub(crate) fn version_key(function: &FunctionRecord, number: u64) -> String {
    let arn = &function.latest.version.function;
    format!("{VERSIONS}{}/{}/{number:020}", path(arn), function.incarnation)
}

pub(crate) fn encode(record: &impl Serialize) -> Result<Bytes, serde_json::Error> {
    serde_json::to_vec(record).map(Bytes::from)
}

pub(crate) fn encode_version(
    function: &FunctionRecord,
    record: &VersionRecord,
) -> Result<Bytes, serde_json::Error> {
    let incarnation = function.incarnation.clone();
    encode(&PublishedRecord { schema: SCHEMA, incarnation, record: record.clone() })
}

pub(crate) fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, OpenError> {
    #[derive(Deserialize)]
    struct Form {
        schema: u32,
    }
    let wrong = |source| OpenError::Record { key: key.to_owned(), source };
    let form: Form = serde_json::from_slice(value).map_err(wrong)?;
    if form.schema > SCHEMA {
        return Err(OpenError::Newer { key: key.to_owned(), found: form.schema });
    }
    serde_json::from_slice(value).map_err(wrong)
}

impl Functions {
    /// Reads and shows everything, and takes up what was left undone.
    pub(crate) async fn load(&self) -> Result<(), OpenError> {
        self.load_layers().await?;
        let mut found: BTreeMap<FunctionArn, (Snapshot, Revision)> = BTreeMap::new();
        for (key, entry) in self.read_all(FUNCTIONS).await? {
            let record: FunctionRecord = decode(&key, &entry.value)?;
            let arn = record.latest.version.function.clone();
            let change = Change { record, put: BTreeMap::new(), removed: None };
            found.insert(arn, (Snapshot::after(None, change), entry.revision));
        }
        let mut orphans = Vec::new();
        for (key, entry) in self.read_all(VERSIONS).await? {
            let PublishedRecord { record, incarnation, .. } = decode(&key, &entry.value)?;
            let function = found.get_mut(&record.version.function).map(|(snapshot, _)| snapshot);
            match (function.filter(|f| f.record.incarnation == incarnation), record.version.version) {
                (Some(snapshot), Version::Published(number)) => {
                    snapshot.versions.insert(number, Arc::new(record));
                }
                _ => orphans.push(key),
            }
        }
        // Their function's record went first when it was deleted, and the server stopped before they followed.
        for key in orphans {
            self.inner.store.kv.delete(&key, Expect::Any).await?;
        }
        let functions = found.into_iter().map(|(arn, (snapshot, stored))| {
            let function =
                Function::new(snapshot, stored, None, &self.inner.held, |version| self.deploy(version));
            (arn, Some(Arc::new(function)))
        });
        self.inner.shown.set(functions.collect::<Vec<_>>());
        self.take_up().await?;
        Ok(())
    }

    pub(crate) async fn read_all(&self, prefix: &str) -> Result<Vec<(String, Entry)>, StoreError> {
        let mut all: Vec<(String, Entry)> = Vec::new();
        loop {
            let after = all.last().map(|(key, _)| key.as_str());
            let page = self.inner.store.kv.list(prefix, after, READ_AT_ONCE).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }
}
