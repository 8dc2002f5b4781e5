//! Signing keys: derived once a day, region and service, then remembered.

use crate::keyring::{Principal, Secret};
use hmac::{Hmac, KeyInit, Mac};
use martlet_model::Region;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

pub(crate) type HmacSha256 = Hmac<Sha256>;

/// Most scopes that are remembered; a server sees a handful a day.
const MOST_REMEMBERED: usize = 256;

/// What a credential's scope stands for, once one good signature has been seen with it.
pub(crate) struct Scope {
    /// HMAC with the signing key already taken in.
    pub(crate) mac: HmacSha256,
    pub(crate) principal: Arc<Principal>,
    pub(crate) region: Region,
}

/// Scopes by the text of their credential. Only a verified signature enters one, so callers without a key cannot
/// fill it.
#[derive(Default)]
pub(crate) struct Scopes(RwLock<HashMap<Box<str>, Arc<Scope>>>);

impl Scopes {
    pub(crate) fn get(&self, credential: &str) -> Option<Arc<Scope>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(credential).cloned()
    }

    pub(crate) fn insert(&self, credential: &str, scope: Arc<Scope>) {
        let mut scopes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if scopes.len() >= MOST_REMEMBERED {
            scopes.clear();
        }
        scopes.insert(credential.into(), scope);
    }
}

/// The four-step derivation; the result is ready to sign.
pub(crate) fn derive(secret: &Secret, day: &str, region: &str, service: &str) -> HmacSha256 {
    let mut first = Vec::with_capacity(44);
    first.extend_from_slice(b"AWS4");
    first.extend_from_slice(secret.reveal().as_bytes());
    let mut mac = keyed(&first);
    for step in [day, region, service, "aws4_request"] {
        mac.update(step.as_bytes());
        mac = keyed(&mac.finalize().into_bytes());
    }
    mac
}

fn keyed(key: &[u8]) -> HmacSha256 {
    // HMAC takes keys of every length, so this cannot fail; an empty key would only ever refuse.
    HmacSha256::new_from_slice(key).unwrap_or_else(|_| HmacSha256::new(&Default::default()))
}

/// Takes in the string to sign: algorithm, date, scope and the digest of the canonical request.
pub(crate) fn sign(mac: &HmacSha256, date: &str, scope: &str, canonical: &[u8]) -> HmacSha256 {
    let mut mac = mac.clone();
    let digest = hex(&Sha256::digest(canonical));
    for part in [crate::claim::ALGORITHM.as_bytes(), b"\n", date.as_bytes(), b"\n", scope.as_bytes(), b"\n"] {
        mac.update(part);
    }
    mac.update(&digest);
    mac
}

/// 32 bytes as 64 lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> [u8; 64] {
    let mut out = [b'0'; 64];
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    out
}

/// 64 lower-case hexadecimal digits as 32 bytes.
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(out)
}
