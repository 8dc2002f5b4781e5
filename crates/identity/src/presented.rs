//! Reading a signature out of a request: the `Authorization` header, or the query string of a presigned URL.

use crate::canonical;
use crate::claim::{ALGORITHM, Claim, MAX_EXPIRES, RequestHead, shorten};
use crate::error::AuthError;
use crate::time::AmzDate;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use martlet_model::Timestamp;
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// A signature's parts as they were found: all there, none looked at.
pub(crate) struct Presented<'a> {
    pub(crate) algorithm: Cow<'a, str>,
    pub(crate) credential: Cow<'a, str>,
    pub(crate) signed_headers: Cow<'a, str>,
    pub(crate) signature: Cow<'a, str>,
    pub(crate) date: Cow<'a, str>,
    /// Seconds that a presigned URL lives, as text; `None` for the header form.
    pub(crate) expires: Option<String>,
    pub(crate) session_token: bool,
}

impl<'a> Presented<'a> {
    /// Reads whichever form the request has.
    ///
    /// # Errors
    /// [`AuthError::Missing`], [`AuthError::Incomplete`], or [`AuthError::Invalid`] when it has both forms.
    pub(crate) fn read(head: &RequestHead<'a>) -> Result<Self, AuthError> {
        let query = head.uri.query().unwrap_or_default();
        let Some(value) = head.headers.get(http::header::AUTHORIZATION) else {
            return if query.contains("X-Amz-") { Self::from_query(query) } else { Err(AuthError::Missing) };
        };
        if query.contains("X-Amz-Algorithm") {
            return Err(AuthError::Invalid(
                "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."
                    .to_owned(),
            ));
        }
        let text = value.to_str().map_err(|_| {
            AuthError::Incomplete(
                "The Authorization header has characters that are no plain text.".to_owned(),
            )
        })?;
        Self::from_header(text.trim(), head)
    }

    fn from_header(text: &'a str, head: &RequestHead<'a>) -> Result<Self, AuthError> {
        // Other schemes carry no token of ours.
        if !text.starts_with("AWS4-") {
            return Err(AuthError::Missing);
        }
        let (algorithm, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for pair in rest.split([',', ' ', '\t']).filter(|pair| !pair.is_empty()) {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(AuthError::Incomplete(format!(
                    "'{}' not a valid key=value pair (missing equal-sign) in Authorization header {}.",
                    shorten(pair),
                    digest_of(text)
                )));
            };
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(AuthError::Incomplete(format!(
                    "Authorization header has more than one '{name}' parameter."
                )));
            }
        }
        let date = head.headers.get("x-amz-date").or_else(|| head.headers.get(http::header::DATE));
        let wanted =
            [("Credential", credential), ("Signature", signature), ("SignedHeaders", signed_headers)];
        let mut missing = String::new();
        for (name, _) in wanted.iter().filter(|(_, found)| found.is_none_or(str::is_empty)) {
            missing.push_str(&format!("Authorization header requires '{name}' parameter. "));
        }
        if date.is_none() {
            missing.push_str(
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ",
            );
        }
        match (credential, signature, signed_headers, date) {
            (Some(credential), Some(signature), Some(signed_headers), Some(date)) if missing.is_empty() => {
                Ok(Self {
                    algorithm: algorithm.into(),
                    credential: credential.into(),
                    signed_headers: signed_headers.into(),
                    signature: signature.into(),
                    date: date.to_str().unwrap_or_default().into(),
                    expires: None,
                    session_token: head.headers.contains_key("x-amz-security-token"),
                })
            }
            _ => Err(AuthError::Incomplete(format!("{missing}{}", digest_of(text)))),
        }
    }

    fn from_query(query: &str) -> Result<Self, AuthError> {
        const NAMES: [&str; 6] = [
            "X-Amz-Algorithm",
            "X-Amz-Credential",
            "X-Amz-Signature",
            "X-Amz-SignedHeaders",
            "X-Amz-Date",
            "X-Amz-Expires",
        ];
        let mut found: [Option<String>; 6] = Default::default();
        let mut session_token = false;
        for (name, value) in canonical::decoded_pairs(query) {
            session_token |= name == "X-Amz-Security-Token";
            if let Some(at) = NAMES.iter().position(|known| *known == name)
                && found[at].replace(value).is_some()
            {
                return Err(AuthError::Incomplete(format!(
                    "AWS query-string parameters have more than one '{name}'."
                )));
            }
        }
        if found.iter().all(Option::is_none) {
            return Err(AuthError::Missing);
        }
        let mut missing = String::new();
        for (name, _) in
            NAMES.iter().zip(&found).filter(|(_, found)| found.as_ref().is_none_or(String::is_empty))
        {
            missing.push_str(&format!("AWS query-string parameters must include '{name}'. "));
        }
        match found {
            [
                Some(algorithm),
                Some(credential),
                Some(signature),
                Some(signed_headers),
                Some(date),
                expires,
            ] if missing.is_empty() => Ok(Self {
                algorithm: algorithm.into(),
                credential: credential.into(),
                signed_headers: signed_headers.into(),
                signature: signature.into(),
                date: date.into(),
                expires,
                session_token,
            }),
            _ => Err(AuthError::Incomplete(format!("{missing}Re-examine the query-string parameters."))),
        }
    }

    /// The life of a presigned URL in seconds, `None` for the header form.
    pub(crate) fn life(&self) -> Result<Option<u64>, AuthError> {
        let Some(expires) = &self.expires else { return Ok(None) };
        let digits = expires.len() <= 10 && expires.bytes().all(|byte| byte.is_ascii_digit());
        let life = if digits { expires.parse::<u64>().ok() } else { None };
        match life {
            None => Err(AuthError::Incomplete("X-Amz-Expires should be a number".to_owned())),
            Some(life) if life > MAX_EXPIRES => Err(AuthError::Incomplete(format!(
                "X-Amz-Expires must be less than a week (in seconds) that is {MAX_EXPIRES}"
            ))),
            Some(life) => Ok(Some(life)),
        }
    }

    /// When it says that it was signed.
    pub(crate) fn date(&self) -> Result<AmzDate, AuthError> {
        let date = AmzDate::parse(&self.date).or_else(|| AmzDate::from_http(&self.date));
        date.ok_or_else(|| {
            AuthError::Incomplete(format!(
                "Date must be in ISO-8601 'basic format'. Got '{}'. See http://en.wikipedia.org/wiki/ISO_8601",
                shorten(&self.date)
            ))
        })
    }

    /// That the algorithm is the one there is.
    pub(crate) fn check_algorithm(&self) -> Result<(), AuthError> {
        if self.algorithm == ALGORITHM {
            return Ok(());
        }
        Err(AuthError::Incomplete(format!(
            "Unsupported AWS 'algorithm': '{}' (only {ALGORITHM} for now).",
            shorten(&self.algorithm)
        )))
    }
}

/// Development mode's reading: only the credential is needed, because it names region, service and account.
///
/// # Errors
/// [`AuthError::Missing`] without any credential, or what is wrong with it.
pub(crate) fn read_leniently(head: &RequestHead<'_>, now: Timestamp) -> Result<Claim, AuthError> {
    let now = AmzDate::at(now);
    let query = head.uri.query().unwrap_or_default();
    if let Some(header) = head.headers.get(http::header::AUTHORIZATION) {
        let text = header.to_str().unwrap_or_default();
        let (_, rest) = text.split_once("Credential=").ok_or(AuthError::Missing)?;
        let credential = rest.split([',', ' ', '\t']).next().unwrap_or_default();
        return Claim::unchecked(credential, false, now);
    }
    let credential = canonical::decoded_pairs(query)
        .find_map(|(name, value)| (name == "X-Amz-Credential").then_some(value))
        .ok_or(AuthError::Missing)?;
    Claim::unchecked(&credential, true, now)
}

/// An `Authorization` header in a message: its digest, so that nothing of it leaks into logs.
fn digest_of(text: &str) -> String {
    let digest = STANDARD.encode(Sha256::digest(text.as_bytes()));
    format!("(Hashed with SHA-256 and encoded with Base64) Authorization={digest}")
}
