//! Verification in two halves: what the head alone can be refused for, and what needs the whole body.

use crate::canonical;
use crate::claim::{Claim, RequestHead, shorten};
use crate::error::AuthError;
use crate::key::{self, Scope, Scopes};
use crate::keyring::{Keyring, Principal};
use crate::presented::{self, Presented};
use crate::time::AmzDate;
use hmac::Mac;
use martlet_model::{AccountId, Region, Timestamp};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::sync::Arc;

/// How far a request's date may be from ours, in seconds.
const WINDOW: u64 = 15 * 60;
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// How much a signature has to prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything.
    Enforced,
    /// Nothing, for work on one machine: any signature of any date is accepted, an access key of twelve digits names
    /// its account, and every other unknown key belongs to this account.
    Dev(AccountId),
}

/// What is expected of the body's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// The signature covers the body. `UNSIGNED-PAYLOAD` is then a hash that does not match.
    Signed,
    /// A caller may leave the body out of the signature by `x-amz-content-sha256: UNSIGNED-PAYLOAD`.
    MayBeUnsigned,
}

/// Who sent a request, and for which region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who signed it.
    pub principal: Arc<Principal>,
    /// The region of the credential's scope, which is the one that the request acts in.
    pub region: Region,
}

/// Judges signatures. Shared by all connections; it holds no lock across an await and does no I/O.
pub struct Authenticator {
    keyring: Keyring,
    mode: Mode,
    scopes: Scopes,
}

impl Authenticator {
    /// An authenticator that knows the keys of `keyring`.
    #[must_use]
    pub fn new(keyring: Keyring, mode: Mode) -> Self {
        Self { keyring, mode, scopes: Scopes::default() }
    }

    /// Everything that a request can be refused for before its body is read: form, key, date, scope, and which
    /// headers are signed. Only the signature itself is left.
    ///
    /// # Errors
    /// The first [`AuthError`] that AWS would tell.
    pub fn precheck(&self, head: &RequestHead<'_>, now: Timestamp) -> Result<Claim, AuthError> {
        if let Mode::Dev(_) = self.mode {
            check_local(head)?;
            return presented::read_leniently(head, now);
        }
        // The order is AWS's: what it tells first is told first here.
        let presented = Presented::read(head)?;
        let (date, life) = (presented.date()?, presented.life()?);
        check_date(date, life, now)?;
        check_signed_headers(&presented.signed_headers, head)?;
        presented.check_algorithm()?;
        let mut claim = Claim::new(&presented.credential, date)?;
        if presented.session_token || self.keyring.find(claim.access_key()).is_none() {
            return Err(AuthError::UnknownKey);
        }
        claim.signed_headers = presented.signed_headers.into();
        claim.signature = presented.signature.into();
        claim.expires = life;
        Ok(claim)
    }

    /// The other half: the signature over the head and `body`.
    ///
    /// # Errors
    /// [`AuthError::Mismatch`] when it is another request, or another secret, than was signed.
    pub fn verify(
        &self,
        claim: &Claim,
        head: &RequestHead<'_>,
        body: &[u8],
        payload: Payload,
    ) -> Result<Caller, AuthError> {
        if let Mode::Dev(account) = &self.mode {
            return self.believe(claim, account);
        }
        let signature = key::unhex(&claim.signature).ok_or(AuthError::Mismatch)?;
        let hash = payload_hash(head, body, payload)?;
        let omit = claim.is_presigned().then_some("X-Amz-Signature");
        let canonical = canonical::request(head, &claim.signed_headers, hash.as_bytes(), omit);

        let known = self.scopes.get(claim.credential());
        let fresh = known.is_none();
        let scope = match known {
            Some(scope) => scope,
            None => Arc::new(self.derive(claim)?),
        };
        key::sign(&scope.mac, claim.date.as_str(), claim.scope(), &canonical)
            .verify_slice(&signature)
            .map_err(|_| AuthError::Mismatch)?;
        if fresh {
            self.scopes.insert(claim.credential(), Arc::clone(&scope));
        }
        Ok(Caller { principal: Arc::clone(&scope.principal), region: scope.region.clone() })
    }

    fn derive(&self, claim: &Claim) -> Result<Scope, AuthError> {
        let (secret, principal) = self.keyring.find(claim.access_key()).ok_or(AuthError::UnknownKey)?;
        let region = claim.parsed_region()?;
        let mac = key::derive(secret, claim.scope_day(), claim.region(), claim.service());
        Ok(Scope { mac, principal: Arc::clone(principal), region })
    }

    fn believe(&self, claim: &Claim, account: &AccountId) -> Result<Caller, AuthError> {
        let key = claim.access_key();
        let principal = match (AccountId::new(key), self.keyring.find(key)) {
            (Ok(account), _) => Arc::new(Principal::user(account, "dev", key)),
            (Err(_), Some((_, principal))) => Arc::clone(principal),
            (Err(_), None) => Arc::new(Principal::user(account.clone(), "dev", key)),
        };
        Ok(Caller { principal, region: claim.parsed_region()? })
    }
}

/// Development mode believes everybody, so everybody has to be a program of this machine. A web page is not: its
/// requests carry an `Origin`, or the name that it was loaded under as their `Host`.
fn check_local(head: &RequestHead<'_>) -> Result<(), AuthError> {
    if head.headers.contains_key(http::header::ORIGIN) {
        return Err(AuthError::CrossOrigin);
    }
    let host = head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    // Names that public DNS does not answer for, so nobody can make theirs lead here.
    let local = !name.contains('.')
        || [".localhost", ".local", ".internal", ".test"].iter().any(|ending| name.ends_with(ending))
        // The public name for 127.0.0.1 that tooling for emulators has built in.
        || name == "localhost.localstack.cloud"
        || name.parse::<IpAddr>().is_ok();
    if local { Ok(()) } else { Err(AuthError::ForeignHost(shorten(name))) }
}

fn check_date(date: AmzDate, life: Option<u64>, now: Timestamp) -> Result<(), AuthError> {
    let seconds = now.0 / 1000;
    if date.seconds() > seconds + WINDOW {
        let now = AmzDate::at(now);
        return Err(AuthError::Invalid(format!(
            "Signature not yet current: {} is still later than {} ({} + 15 min.)",
            date.as_str(),
            now.shifted(WINDOW as i64).as_str(),
            now.as_str()
        )));
    }
    let life = life.unwrap_or(WINDOW);
    if date.seconds() + life < seconds {
        let now = AmzDate::at(now);
        let life_text =
            if life.is_multiple_of(60) { format!("{} min.", life / 60) } else { format!("{life} sec.") };
        return Err(AuthError::Invalid(format!(
            "Signature expired: {} is now earlier than {} ({} - {life_text})",
            date.as_str(),
            now.shifted(-(life as i64)).as_str(),
            now.as_str()
        )));
    }
    Ok(())
}

/// `host` and every `x-amz-*` header that is there must be signed: an unsigned one could have been added on the way.
fn check_signed_headers(signed_headers: &str, head: &RequestHead<'_>) -> Result<(), AuthError> {
    let signed = |name: &str| signed_headers.split(';').any(|signed| signed == name);
    if !signed("host") {
        let text = "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.";
        return Err(AuthError::Invalid(text.to_owned()));
    }
    let unsigned =
        head.headers.keys().find(|name| name.as_str().starts_with("x-amz-") && !signed(name.as_str()));
    match unsigned {
        Some(name) => {
            Err(AuthError::Invalid(format!("'{name}' must be a 'SignedHeader' in the AWS Authorization.")))
        }
        None => Ok(()),
    }
}

/// The last line of the canonical request. What the caller says of its body's hash is believed only where it may
/// leave the body unsigned; elsewhere it must be the truth.
fn payload_hash(head: &RequestHead<'_>, body: &[u8], payload: Payload) -> Result<PayloadHash, AuthError> {
    let told = head.headers.get("x-amz-content-sha256").map(http::HeaderValue::as_bytes);
    if payload == Payload::MayBeUnsigned && told == Some(UNSIGNED.as_bytes()) {
        return Ok(PayloadHash::Unsigned);
    }
    let hash = key::hex(&Sha256::digest(body));
    match told {
        Some(told) if told != hash => Err(AuthError::Mismatch),
        _ => Ok(PayloadHash::Of(hash)),
    }
}

enum PayloadHash {
    Of([u8; 64]),
    Unsigned,
}

impl PayloadHash {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Of(hash) => hash,
            Self::Unsigned => UNSIGNED.as_bytes(),
        }
    }
}
