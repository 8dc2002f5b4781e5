//! Who may sign: access keys, their secrets, and whom they belong to.

use martlet_model::AccountId;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// A secret access key. It is never shown: `Debug` prints a placeholder, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret access key.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for signing and for the credentials file.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// An access key as its owner has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The access key id.
    pub access_key: String,
    /// The secret access key.
    pub secret: Secret,
}

/// Why no new access key could be made.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random bytes for a new access key")]
pub struct RandomError(#[source] getrandom::Error);

impl Credentials {
    /// A new access key: `AKIA` and 16 characters, with a secret of 240 random bits.
    ///
    /// # Errors
    /// [`RandomError`] when the system has no randomness to give.
    pub fn generate() -> Result<Self, RandomError> {
        use base64::Engine;
        let mut random = [0_u8; 46];
        getrandom::fill(&mut random).map_err(RandomError)?;
        let (id, secret) = random.split_at(16);
        let id: String = id
            .iter()
            .map(|byte| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[usize::from(byte & 31)]))
            .collect();
        let secret = base64::engine::general_purpose::STANDARD.encode(secret);
        Ok(Self { access_key: format!("AKIA{id}"), secret: Secret(secret) })
    }
}

/// Whoever signed a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The account it belongs to, which is the one it acts in.
    pub account: AccountId,
    /// Its ARN, as in `arn:aws:iam::000000000000:user/default`.
    pub arn: String,
    /// The access key id that it signed with.
    pub access_key: String,
}

impl Principal {
    /// The user `name` of `account`, signing with `access_key`.
    #[must_use]
    pub fn user(account: AccountId, name: &str, access_key: &str) -> Self {
        let arn = format!("arn:aws:iam::{account}:user/{name}");
        Self { account, arn, access_key: access_key.to_owned() }
    }
}

/// Access keys with their secrets and owners.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    keys: HashMap<String, (Secret, Arc<Principal>)>,
}

impl Keyring {
    /// A keyring that knows nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `credentials` as those of the user `name` of `account`; a key id that is there already is replaced.
    #[must_use]
    pub fn with(mut self, credentials: &Credentials, account: AccountId, name: &str) -> Self {
        let principal = Arc::new(Principal::user(account, name, &credentials.access_key));
        self.keys.insert(credentials.access_key.clone(), (credentials.secret.clone(), principal));
        self
    }

    pub(crate) fn find(&self, access_key: &str) -> Option<&(Secret, Arc<Principal>)> {
        self.keys.get(access_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_keys_look_like_keys_and_secrets_stay_hidden() {
        let one = Credentials::generate().unwrap();
        let other = Credentials::generate().unwrap();
        assert!(one.access_key.starts_with("AKIA") && one.access_key.len() == 20);
        assert_eq!(one.secret.reveal().len(), 40);
        assert_ne!((&one.access_key, &one.secret), (&other.access_key, &other.secret));
        assert!(!format!("{one:?}").contains(one.secret.reveal()));
    }
}
