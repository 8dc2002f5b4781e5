//! The other side: signing our own requests and making links that expire.

use crate::canonical;
use crate::claim::{ALGORITHM, RequestHead};
use crate::key::{self, hex};
use crate::keyring::Credentials;
use crate::time::AmzDate;
use hmac::Mac;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Uri};
use martlet_model::Timestamp;
use sha2::{Digest, Sha256};
use std::fmt::Write;

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
/// Headers that proxies and clients may change or add after signing.
const NEVER_SIGNED: [&str; 9] = [
    "authorization",
    "connection",
    "expect",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "user-agent",
    "x-amzn-trace-id",
];

/// Signs requests to one service in one region.
#[derive(Clone, Debug)]
pub struct Signer<'a> {
    /// Whose signature.
    pub credentials: &'a Credentials,
    /// The region of the scope.
    pub region: &'a str,
    /// The service of the scope, as in `lambda`.
    pub service: &'a str,
}

/// A request that cannot be signed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SignError {
    /// There is no `Host` header, which every signature covers.
    #[error("a request without a Host header cannot be signed")]
    NoHost,
    /// The access key, region or service has characters that no header can carry.
    #[error("the access key, the region or the service has characters that a header cannot carry")]
    Credential,
    /// The path is no path.
    #[error("{0:?} is not a path that can be signed")]
    Path(String),
}

impl Signer<'_> {
    /// Adds `x-amz-date` and `authorization` to `headers`, which must have `host` already.
    ///
    /// # Errors
    /// [`SignError`]; `headers` may then have been changed.
    pub fn sign(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &mut HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), SignError> {
        let date = AmzDate::at(now);
        headers.insert(DATE, HeaderValue::from_str(date.as_str()).map_err(|_| SignError::Credential)?);
        headers.remove(AUTHORIZATION);
        if !headers.contains_key(http::header::HOST) {
            return Err(SignError::NoHost);
        }
        let mut names: Vec<&str> =
            headers.keys().map(HeaderName::as_str).filter(|name| !NEVER_SIGNED.contains(name)).collect();
        names.sort_unstable();
        let names = names.join(";");
        let head = RequestHead { method, uri, headers };
        let canonical = canonical::request(&head, &names, &hex(&Sha256::digest(body)), None);
        let scope = self.scope(&date);
        let signature = self.signature(&date, &scope, &canonical);
        let key = &self.credentials.access_key;
        let value =
            format!("{ALGORITHM} Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}");
        let value = HeaderValue::try_from(value).map_err(|_| SignError::Credential)?;
        headers.insert(AUTHORIZATION, value);
        Ok(())
    }

    /// Path and query string of a link that lets whoever has it GET `path` from `host` for `expires` seconds
    /// (at most [`crate::MAX_EXPIRES`]). `path` may have a query string of its own.
    ///
    /// # Errors
    /// [`SignError::Path`] when `path` is none.
    pub fn presign(&self, host: &str, path: &str, expires: u64, now: Timestamp) -> Result<String, SignError> {
        let date = AmzDate::at(now);
        let scope = self.scope(&date);
        let mut link = path.to_owned();
        let mut credential = Vec::new();
        canonical::encode(
            format!("{}/{scope}", self.credentials.access_key).as_bytes(),
            false,
            &mut credential,
        );
        let credential = String::from_utf8_lossy(&credential);
        let separator = if path.contains('?') { '&' } else { '?' };
        // Writing to a String cannot fail.
        let _ = write!(
            link,
            "{separator}X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential={credential}&X-Amz-Date={}&X-Amz-Expires={}\
             &X-Amz-SignedHeaders=host",
            date.as_str(),
            expires.min(crate::MAX_EXPIRES)
        );
        let refused = || SignError::Path(path.to_owned());
        let uri: Uri = link.parse().map_err(|_| refused())?;
        let mut headers = HeaderMap::new();
        headers.insert(http::header::HOST, HeaderValue::from_str(host).map_err(|_| SignError::NoHost)?);
        let head = RequestHead { method: &Method::GET, uri: &uri, headers: &headers };
        let canonical = canonical::request(&head, "host", &hex(&Sha256::digest(b"")), None);
        let signature = self.signature(&date, &scope, &canonical);
        let _ = write!(link, "&X-Amz-Signature={signature}");
        Ok(link)
    }

    fn scope(&self, date: &AmzDate) -> String {
        format!("{}/{}/{}/aws4_request", date.day(), self.region, self.service)
    }

    fn signature(&self, date: &AmzDate, scope: &str, canonical: &[u8]) -> String {
        let mac = key::derive(&self.credentials.secret, date.day(), self.region, self.service);
        let signature = key::sign(&mac, date.as_str(), scope, canonical).finalize().into_bytes();
        String::from_utf8_lossy(&hex(&signature)).into_owned()
    }
}
