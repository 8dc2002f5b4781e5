//! Code signing configurations: whose signatures packages need, and what happens to a package without one.
//!
//! Nothing here signs or can tell a signature, so every package counts as unsigned: a configuration that enforces refuses it,
//! one that warns has it written into the server's log.

use crate::registry::{Functions, FunctionsError};
use crate::stored;
use martlet_model::{AccountId, FunctionArn, Region, Timestamp};
use martlet_store::{Expect, MAX_VALUE_BYTES, Store};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::Mutex;

const PREFIX: &str = "code-signing/";

/// One configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningConfig {
    pub(crate) schema: u32,
    /// Its ARN, which ends in its id.
    pub arn: String,
    /// Free text.
    pub description: String,
    /// The versions of signing profiles whose signatures count.
    pub publishers: Vec<String>,
    /// Whether a package without one is refused, and not only warned of.
    pub enforce: bool,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// The last change, tags aside.
    pub modified: Timestamp,
}

/// All of them, as the registry holds them.
#[derive(Default)]
pub(crate) struct Signing {
    shown: RwLock<BTreeMap<String, Arc<SigningConfig>>>,
    /// Held by whoever changes one or who refers to it, so that none goes that a function refers to.
    turn: Mutex<()>,
}

impl SigningConfig {
    /// A configuration without tags that only warns.
    #[must_use]
    pub fn new(arn: String, publishers: Vec<String>, modified: Timestamp) -> Self {
        Self {
            schema: crate::record::SCHEMA,
            arn,
            description: String::new(),
            publishers,
            enforce: false,
            tags: BTreeMap::new(),
            modified,
        }
    }
}

impl Signing {
    fn get(&self, arn: &str) -> Option<Arc<SigningConfig>> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).get(arn).cloned()
    }

    pub(crate) fn set(&self, arn: &str, config: Option<SigningConfig>) {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        match config {
            Some(config) => shown.insert(arn.to_owned(), Arc::new(config)),
            None => shown.remove(arn),
        };
    }
}

fn key(arn: &str) -> String {
    format!("{PREFIX}{arn}")
}

impl Functions {
    /// Reads all code signing configurations.
    pub(crate) async fn load_signing(&self) -> Result<(), stored::OpenError> {
        for (key, entry) in self.read_all(PREFIX).await? {
            let config: SigningConfig = stored::decode(&key, &entry.value)?;
            self.inner.signing.set(&config.arn.clone(), Some(config));
        }
        Ok(())
    }

    /// One code signing configuration.
    #[must_use]
    pub fn signing_config(&self, arn: &str) -> Option<Arc<SigningConfig>> {
        self.inner.signing.get(arn)
    }

    /// The code signing configurations of an account in a region, by ARN.
    #[must_use]
    pub fn signing_configs(&self, account: &AccountId, region: &Region) -> Vec<Arc<SigningConfig>> {
        let prefix = format!("arn:aws:lambda:{region}:{account}:");
        let shown = self.inner.signing.shown.read().unwrap_or_else(PoisonError::into_inner);
        shown.values().filter(|config| config.arn.starts_with(&prefix)).cloned().collect()
    }

    /// Adds a code signing configuration; its ARN has to be a new one.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn create_signing_config(&self, config: SigningConfig) -> Result<(), FunctionsError> {
        self.detached(|functions| async move {
            let _turn = functions.inner.signing.turn.lock().await;
            functions.write_signing(config, Expect::Absent).await.map(|_| ())
        })
        .await
    }

    /// Changes a code signing configuration, and returns it.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn update_signing_config<E: Send + 'static>(
        &self,
        arn: &str,
        edit: impl FnOnce(&mut SigningConfig) -> Result<(), E> + Send + 'static,
    ) -> Result<Result<SigningConfig, E>, FunctionsError> {
        let arn = arn.to_owned();
        self.detached(|functions| async move {
            let _turn = functions.inner.signing.turn.lock().await;
            let mut config = SigningConfig::clone(&*functions.find_signing(&arn)?);
            match edit(&mut config) {
                Ok(()) => functions.write_signing(config, Expect::Any).await.map(Ok),
                Err(refused) => Ok(Err(refused)),
            }
        })
        .await
    }

    /// Removes a code signing configuration that no function refers to.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn delete_signing_config(&self, arn: &str) -> Result<(), FunctionsError> {
        let arn = arn.to_owned();
        self.detached(|functions| async move {
            let _turn = functions.inner.signing.turn.lock().await;
            functions.find_signing(&arn)?;
            if !functions.signed_by(&arn).is_empty() {
                return Err(FunctionsError::SigningConfigInUse(arn));
            }
            functions.inner.store.kv.delete(&key(&arn), Expect::Any).await?;
            functions.inner.signing.set(&arn, None);
            Ok(())
        })
        .await
    }

    /// Has a function's packages checked by a configuration from now on, or by none; what it has already stays.
    ///
    /// # Errors
    /// See [`FunctionsError`].
    pub async fn sign(&self, function: &FunctionArn, config: Option<String>) -> Result<(), FunctionsError> {
        let arn = function.clone();
        self.detached(|functions| async move {
            let _turn = functions.inner.signing.turn.lock().await;
            if let Some(config) = &config {
                functions.find_signing(config)?;
            }
            let set = functions.attach(&arn, move |attached, _| {
                attached.code_signing = config;
                Ok::<_, std::convert::Infallible>(())
            });
            let Ok(()) = set.await?;
            Ok(())
        })
        .await
    }

    /// The functions that refer to a configuration, by ARN.
    #[must_use]
    pub fn signed_by(&self, config: &str) -> Vec<FunctionArn> {
        let refers = |function: &crate::Function| function.attached().code_signing.as_deref() == Some(config);
        let all = self.inner.shown.all();
        let mut arns: Vec<_> =
            all.iter().filter(|function| refers(function)).map(|function| function.arn().clone()).collect();
        arns.sort();
        arns
    }

    /// Waits until no configuration changes, where a new function refers to one, and checks that it exists.
    pub(crate) async fn signing_turn(
        &self,
        config: Option<&str>,
    ) -> Result<Option<tokio::sync::MutexGuard<'_, ()>>, FunctionsError> {
        let Some(config) = config else { return Ok(None) };
        let turn = self.inner.signing.turn.lock().await;
        self.find_signing(config)?;
        Ok(Some(turn))
    }

    /// Refuses a new package, or a layer, where only signed ones may come in.
    pub(crate) fn check_signature(
        &self,
        function: &FunctionArn,
        config: Option<&str>,
    ) -> Result<(), FunctionsError> {
        match config.and_then(|config| self.inner.signing.get(config)) {
            Some(config) if config.enforce => Err(FunctionsError::Unsigned(function.clone())),
            Some(config) => {
                tracing::warn!(%function, config = config.arn, "the function's new code or layer has no signature");
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn find_signing(&self, arn: &str) -> Result<Arc<SigningConfig>, FunctionsError> {
        self.inner.signing.get(arn).ok_or_else(|| FunctionsError::NoSigningConfig(arn.to_owned()))
    }

    async fn write_signing(
        &self,
        config: SigningConfig,
        expect: Expect,
    ) -> Result<SigningConfig, FunctionsError> {
        let too_large = || FunctionsError::SigningConfigTooLarge(config.arn.clone());
        let value = stored::encode(&config).map_err(|_| too_large())?;
        if value.len() > MAX_VALUE_BYTES {
            return Err(too_large());
        }
        let store: &Store = &self.inner.store;
        store.kv.put(&key(&config.arn), value, expect).await?;
        self.inner.signing.set(&config.arn, Some(config.clone()));
        Ok(config)
    }
}
