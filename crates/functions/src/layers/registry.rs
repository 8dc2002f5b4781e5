//! Publishing, permitting and deleting layer versions, and holding on to those that a function is being given.

use super::{LayerAbout, LayerPolicy, LayerPolicyRefused, LayerStatement, LayerVersion, Numbers};
use crate::package;
use crate::packages::Pin;
use crate::registry::{Functions, FunctionsError, stamp};
use crate::stored::{self, OpenError};
use bytes::Bytes;
use martlet_model::{AccountId, Layer, LayerArn, LayerVersionArn, Region, Version, limits};
use martlet_store::{Digest, Expect, Write};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const NUMBERS: &str = "layer-numbers/";
const VERSIONS: &str = "layer-versions/";

/// A layer version to publish.
#[derive(Clone, Debug)]
pub struct NewLayerVersion {
    /// Of which layer; the first one makes the layer.
    pub layer: LayerArn,
    /// Its package.
    pub zip: Bytes,
    /// What is said about it.
    pub about: LayerAbout,
}

#[derive(Serialize, Deserialize)]
struct NumbersRecord {
    schema: u32,
    layer: LayerArn,
    #[serde(flatten)]
    numbers: Numbers,
}

#[derive(Serialize, Deserialize)]
struct VersionRecord {
    schema: u32,
    #[serde(flatten)]
    version: LayerVersion,
}

fn path(layer: &LayerArn) -> String {
    format!("{}/{}/{}", layer.account, layer.region, layer.name())
}

/// Digits are padded, so that keys are ordered as numbers.
fn version_key(arn: &LayerVersionArn) -> String {
    format!("{VERSIONS}{}/{:020}", path(&arn.layer), arn.version)
}

impl Functions {
    /// Publishes the next version of a layer: checked and stored when this resolves, unpacked when a function first uses it.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn publish_layer(&self, new: NewLayerVersion) -> Result<Arc<LayerVersion>, FunctionsError> {
        self.detached(|functions| async move {
            functions.refuse_overfull(&new.layer.account, &new.layer.region, new.zip.len() as u64)?;
            let zip = new.zip.clone();
            let (code, pin) = functions.inner.packages.accept(new.zip).await?;
            let digest: Digest = code.digest.parse().map_err(crate::PackagesError::from)?;
            let published = async {
                let _turn = functions.turn(&new.layer).await;
                let last = functions.inner.layers.last(&new.layer) + 1;
                let version = LayerVersion {
                    arn: new.layer.version(last),
                    unpacked_bytes: package::unpacked_bytes(&zip).map_err(crate::PackagesError::from)?,
                    code,
                    created: stamp()?.now,
                    about: new.about,
                    policy: LayerPolicy::default(),
                };
                functions.write_layer(version, Some(Numbers { last })).await
            };
            let published = published.await;
            drop(pin);
            if published.is_err() {
                functions.suspect([digest]);
            }
            published
        })
        .await
    }

    /// One version of a layer.
    #[must_use]
    pub fn layer_version(&self, arn: &LayerVersionArn) -> Option<Arc<LayerVersion>> {
        self.inner.layers.version(arn)
    }

    /// The versions of a layer that there are, by number.
    #[must_use]
    pub fn layer_versions(&self, layer: &LayerArn) -> Vec<Arc<LayerVersion>> {
        self.inner.layers.versions(layer)
    }

    /// The layers of an account in a region, by name, each with its versions by number: at least one.
    #[must_use]
    pub fn layers(&self, account: &AccountId, region: &Region) -> Vec<Vec<Arc<LayerVersion>>> {
        self.inner.layers.list(account, region)
    }

    /// Removes a version, if it is there. Functions that use it go on to; its number is not used again.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn delete_layer_version(&self, arn: &LayerVersionArn) -> Result<(), FunctionsError> {
        let arn = arn.clone();
        self.detached(|functions| async move {
            let _turn = functions.turn(&arn.layer).await;
            let Some(version) = functions.layer_version(&arn) else { return Ok(()) };
            functions.inner.store.kv.delete(&version_key(&arn), Expect::Any).await?;
            functions.inner.layers.remove(&arn);
            functions.suspect(version.code.digest.parse());
            Ok(())
        })
        .await
    }

    /// Adds a statement to the policy of a version, and returns the version.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn permit_layer(
        &self,
        arn: &LayerVersionArn,
        statement: LayerStatement,
        expected_revision: Option<String>,
    ) -> Result<Arc<LayerVersion>, FunctionsError> {
        self.edit_layer_policy(arn, expected_revision, |policy, id| policy.add(statement, id)).await
    }

    /// Removes a statement from the policy of a version.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn forbid_layer(
        &self,
        arn: &LayerVersionArn,
        statement: String,
        expected_revision: Option<String>,
    ) -> Result<(), FunctionsError> {
        self.edit_layer_policy(arn, expected_revision, move |policy, id| policy.remove(&statement, id))
            .await
            .map(drop)
    }

    async fn edit_layer_policy(
        &self,
        arn: &LayerVersionArn,
        expected: Option<String>,
        decide: impl FnOnce(&LayerPolicy, String) -> Result<LayerPolicy, LayerPolicyRefused> + Send + 'static,
    ) -> Result<Arc<LayerVersion>, FunctionsError> {
        let arn = arn.clone();
        self.detached(|functions| async move {
            let _turn = functions.turn(&arn.layer).await;
            let version = functions.layer_version(&arn).ok_or(FunctionsError::NoSuchLayer(arn))?;
            version.policy.check_revision(expected.as_deref())?;
            let policy = decide(&version.policy, stamp()?.id(Version::Latest))?;
            functions.write_layer(LayerVersion { policy, ..LayerVersion::clone(&version) }, None).await
        })
        .await
    }

    /// Writes a version, with the layer's numbers if it is a new one, and shows it.
    async fn write_layer(
        &self,
        version: LayerVersion,
        numbers: Option<Numbers>,
    ) -> Result<Arc<LayerVersion>, FunctionsError> {
        let layer = version.arn.layer.clone();
        let too_large = |_| FunctionsError::LayerTooLarge(layer.clone());
        let put = |key, value| Write::Put { key, value, expect: Expect::Any };
        let schema = crate::record::SCHEMA;
        let record = VersionRecord { schema, version: version.clone() };
        let mut writes = vec![put(version_key(&version.arn), stored::encode(&record).map_err(too_large)?)];
        if let Some(numbers) = numbers {
            let record = NumbersRecord { schema, layer: layer.clone(), numbers };
            writes
                .push(put(format!("{NUMBERS}{}", path(&layer)), stored::encode(&record).map_err(too_large)?));
        }
        self.inner.store.kv.batch(writes).await?;
        if let Some(numbers) = numbers {
            self.inner.layers.set_numbers(&layer, numbers);
        }
        let version = Arc::new(version);
        self.inner.layers.set(Arc::clone(&version));
        Ok(version)
    }

    /// Reads and shows all layers.
    pub(crate) async fn load_layers(&self) -> Result<(), OpenError> {
        for (key, entry) in self.read_all(NUMBERS).await? {
            let record: NumbersRecord = stored::decode(&key, &entry.value)?;
            self.inner.layers.set_numbers(&record.layer, record.numbers);
        }
        for (key, entry) in self.read_all(VERSIONS).await? {
            let record: VersionRecord = stored::decode(&key, &entry.value)?;
            self.inner.layers.set(Arc::new(record.version));
        }
        Ok(())
    }

    /// Keeps the packages of `layers` from being removed until what is returned is dropped, a record having been written that
    /// refers to them.
    pub(crate) async fn hold_layers(&self, layers: &[Layer]) -> Result<Vec<Pin>, FunctionsError> {
        let mut pins = Vec::with_capacity(layers.len());
        for layer in layers {
            let digest: Digest = layer.code.digest.parse().map_err(crate::PackagesError::from)?;
            pins.push(self.inner.packages.pin(digest).await);
            if !self.refers_to(&digest) {
                return Err(FunctionsError::NoSuchLayer(layer.arn.clone()));
            }
        }
        Ok(pins)
    }

    /// Refuses code and layers that are too large together.
    pub(crate) fn refuse_oversized(&self, zip: &[u8], layers: &[Layer]) -> Result<(), FunctionsError> {
        if layers.is_empty() {
            return Ok(());
        }
        let code = package::unpacked_bytes(zip).map_err(crate::PackagesError::from)?;
        let bytes = layers.iter().fold(code, |sum, layer| sum.saturating_add(layer.unpacked_bytes));
        if bytes > limits::UNPACKED_BYTES { Err(FunctionsError::Oversized(bytes)) } else { Ok(()) }
    }

    /// The same for a function whose code is stored already.
    pub(crate) async fn refuse_oversized_with(
        &self,
        digest: &str,
        layers: &[Layer],
    ) -> Result<(), FunctionsError> {
        if layers.is_empty() {
            return Ok(());
        }
        let digest: Digest = digest.parse().map_err(crate::PackagesError::from)?;
        match self.inner.store.blobs.get(&digest).await? {
            Some(zip) => self.refuse_oversized(&zip, layers),
            None => Err(crate::PackagesError::Missing(digest).into()),
        }
    }
}
