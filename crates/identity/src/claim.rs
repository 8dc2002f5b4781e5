//! What a request says about its signature: the `Authorization` header, or the query string of a presigned URL.

use crate::canonical;
use crate::error::AuthError;
use crate::time::AmzDate;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, Uri};
use martlet_model::{Region, Timestamp};
use sha2::{Digest, Sha256};

/// The only algorithm there is.
pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// Longest life of a presigned URL, in seconds (one week).
pub const MAX_EXPIRES: u64 = 604_800;

/// The parts of a request's head that a signature covers.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query string as they came.
    pub uri: &'a Uri,
    /// All headers.
    pub headers: &'a HeaderMap,
}

impl<'a> From<&'a http::request::Parts> for RequestHead<'a> {
    fn from(parts: &'a http::request::Parts) -> Self {
        Self { method: &parts.method, uri: &parts.uri, headers: &parts.headers }
    }
}

/// A signature as a request presents it: well-formed, not yet believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// `KEY/DATE/REGION/SERVICE/aws4_request`, with where its parts end.
    credential: Box<str>,
    ends: [u16; 4],
    pub(crate) signed_headers: Box<str>,
    pub(crate) signature: Box<str>,
    pub(crate) date: AmzDate,
    /// Seconds that a presigned URL lives; `None` for the header form.
    pub(crate) expires: Option<u64>,
    pub(crate) session_token: bool,
}

impl Claim {
    /// The access key id.
    #[must_use]
    pub fn access_key(&self) -> &str {
        &self.credential[..usize::from(self.ends[0])]
    }

    /// The region of the credential's scope.
    #[must_use]
    pub fn region(&self) -> &str {
        self.part(2)
    }

    /// The service of the credential's scope: the name that decides where the request goes.
    #[must_use]
    pub fn service(&self) -> &str {
        self.part(3)
    }

    /// Whether it came in the query string of a presigned URL.
    #[must_use]
    pub fn is_presigned(&self) -> bool {
        self.expires.is_some()
    }

    pub(crate) fn credential(&self) -> &str {
        &self.credential
    }

    /// `DATE/REGION/SERVICE/aws4_request`.
    pub(crate) fn scope(&self) -> &str {
        &self.credential[usize::from(self.ends[0]) + 1..]
    }

    /// The region as a [`Region`]; every claim that was read has a valid one.
    pub(crate) fn parsed_region(&self) -> Result<Region, AuthError> {
        Region::new(self.region()).map_err(|_| AuthError::Mismatch)
    }

    pub(crate) fn scope_day(&self) -> &str {
        self.part(1)
    }

    fn part(&self, at: usize) -> &str {
        &self.credential[usize::from(self.ends[at - 1]) + 1..usize::from(self.ends[at])]
    }

    /// Reads whichever form the request has; the header wins when it has both.
    ///
    /// # Errors
    /// [`AuthError::Missing`], [`AuthError::Incomplete`], or [`AuthError::Invalid`] for a scope of the wrong form.
    pub fn read(head: &RequestHead<'_>) -> Result<Self, AuthError> {
        if let Some(value) = head.headers.get(http::header::AUTHORIZATION) {
            let text = value.to_str().map_err(|_| {
                AuthError::Incomplete("The Authorization header is not plain text.".to_owned())
            })?;
            return Self::from_header(text, head.headers);
        }
        match head.uri.query() {
            Some(query) if query.contains("X-Amz-") => Self::from_query(query),
            _ => Err(AuthError::Missing),
        }
    }

    /// Development mode's reading: a credential is needed, because it names region, service and account; dates and
    /// signatures are not.
    pub(crate) fn read_leniently(head: &RequestHead<'_>, now: Timestamp) -> Result<Self, AuthError> {
        let header = head.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let credential = match header {
            Some(text) => {
                let rest = text.split_once("Credential=").map(|(_, rest)| rest);
                rest.map(|rest| rest.split([',', ' ']).next().unwrap_or_default().to_owned())
            }
            None => canonical::decoded_pairs(head.uri.query().unwrap_or_default())
                .find_map(|(name, value)| (name == "X-Amz-Credential").then_some(value)),
        };
        let Some(credential) = credential else { return Self::read(head) };
        let ends = ends_of(&credential)?;
        let claim = Self {
            ends,
            credential: credential.into(),
            signed_headers: "".into(),
            signature: "".into(),
            date: AmzDate::at(now),
            expires: header.is_none().then_some(MAX_EXPIRES),
            session_token: false,
        };
        if is_region(claim.region()) {
            Ok(claim)
        } else {
            Err(AuthError::Invalid("Credential should be scoped to a valid region.".to_owned()))
        }
    }

    fn from_header(text: &str, headers: &HeaderMap) -> Result<Self, AuthError> {
        let rest = text.strip_prefix(ALGORITHM).filter(|rest| rest.starts_with([' ', '\t', ',']));
        let Some(rest) = rest else {
            let word = text.split_whitespace().next().unwrap_or_default();
            return Err(AuthError::Incomplete(if word.contains('=') || word.is_empty() {
                format!("The Authorization header must begin with '{ALGORITHM}'.")
            } else {
                format!("Unsupported AWS 'algorithm': '{}' (only {ALGORITHM} for now).", shorten(word))
            }));
        };
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for pair in rest.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(AuthError::Incomplete(format!(
                    "'{}' not a valid key=value pair (missing equal-sign) in Authorization header: '{}'.",
                    shorten(pair),
                    digest_of(text)
                )));
            };
            let place = match name.trim() {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => continue,
            };
            if place.replace(value.trim()).is_some() {
                return Err(AuthError::Incomplete(format!(
                    "Authorization header has more than one '{}' parameter.",
                    name.trim()
                )));
            }
        }
        let date = match (headers.get("x-amz-date"), headers.get(http::header::DATE)) {
            (Some(date), _) | (None, Some(date)) => Some(date.to_str().unwrap_or_default()),
            (None, None) => None,
        };
        let missing = |name: &str, found: Option<&str>| match found {
            Some(text) if !text.is_empty() => None,
            _ => Some(format!("Authorization header requires '{name}' parameter. ")),
        };
        let mut complaint: String = [
            missing("Credential", credential),
            missing("Signature", signature),
            missing("SignedHeaders", signed_headers),
        ]
        .into_iter()
        .flatten()
        .collect();
        if date.is_none() {
            complaint.push_str(
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ",
            );
        }
        let (Some(credential), Some(signature), Some(signed_headers), Some(date), true) =
            (credential, signature, signed_headers, date, complaint.is_empty())
        else {
            let digest = digest_of(text);
            return Err(AuthError::Incomplete(format!(
                "{complaint}(Hashed with SHA-256 and encoded with Base64) Authorization={digest}"
            )));
        };
        let parsed = AmzDate::parse(date).or_else(|| AmzDate::from_http(date));
        Self {
            credential: credential.into(),
            ends: ends_of(credential)?,
            signed_headers: signed_headers.into(),
            signature: signature.into(),
            date: parsed.ok_or_else(|| wrong_date(date))?,
            expires: None,
            session_token: headers.contains_key("x-amz-security-token"),
        }
        .checked()
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
        let missing: String = NAMES
            .iter()
            .zip(&found)
            .filter(|(_, value)| value.as_ref().is_none_or(String::is_empty))
            .map(|(name, _)| format!("AWS query-string parameters must include '{name}'. "))
            .collect();
        let [Some(algorithm), Some(credential), Some(signature), Some(headers), Some(date), Some(expires)] =
            found
        else {
            return Err(AuthError::Incomplete(format!("{missing}Re-examine the query-string parameters.")));
        };
        if !missing.is_empty() {
            return Err(AuthError::Incomplete(format!("{missing}Re-examine the query-string parameters.")));
        }
        if algorithm != ALGORITHM {
            let algorithm = shorten(&algorithm);
            return Err(AuthError::Incomplete(format!(
                "Unsupported AWS 'algorithm': '{algorithm}' (only {ALGORITHM} for now)."
            )));
        }
        let life = expires.parse::<u64>().ok().filter(|_| expires.bytes().all(|byte| byte.is_ascii_digit()));
        let expires = match life {
            None => return Err(AuthError::Incomplete("X-Amz-Expires should be a number".to_owned())),
            Some(life) if life > MAX_EXPIRES => {
                return Err(AuthError::Incomplete(format!(
                    "X-Amz-Expires must be less than a week (in seconds) that is {MAX_EXPIRES}"
                )));
            }
            Some(life) => life,
        };
        Self {
            ends: ends_of(&credential)?,
            credential: credential.into(),
            signed_headers: headers.into(),
            signature: signature.into(),
            date: AmzDate::parse(&date).ok_or_else(|| wrong_date(&date))?,
            expires: Some(expires),
            session_token,
        }
        .checked()
    }

    /// The scope's own rules, all told at once as AWS does.
    fn checked(self) -> Result<Self, AuthError> {
        let mut complaint = String::new();
        if !is_region(self.region()) {
            complaint.push_str("Credential should be scoped to a valid region. ");
        }
        if self.service().is_empty() {
            complaint.push_str("Credential should be scoped to a service. ");
        }
        let terminator = &self.credential[usize::from(self.ends[3]) + 1..];
        if terminator != "aws4_request" {
            complaint.push_str(&format!(
                "Credential should be scoped with a valid terminator: 'aws4_request', not '{}'. ",
                shorten(terminator)
            ));
        }
        if self.scope_day() != self.date.day() {
            complaint.push_str(&format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: \
                 '{}' != '{}', from '{}'.",
                shorten(self.scope_day()),
                self.date.day(),
                self.date.as_str()
            ));
        }
        if complaint.is_empty() { Ok(self) } else { Err(AuthError::Invalid(complaint.trim_end().to_owned())) }
    }
}

fn ends_of(credential: &str) -> Result<[u16; 4], AuthError> {
    let refused = || {
        AuthError::Incomplete(format!(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '{}'",
            shorten(credential)
        ))
    };
    if credential.len() > 512 {
        return Err(refused());
    }
    let mut ends = [0_u16; 4];
    let mut slashes = credential.bytes().enumerate().filter(|(_, byte)| *byte == b'/');
    for end in &mut ends {
        let (at, _) = slashes.next().ok_or_else(refused)?;
        *end = u16::try_from(at).map_err(|_| refused())?;
    }
    if slashes.next().is_some() || ends[0] == 0 {
        return Err(refused());
    }
    Ok(ends)
}

fn is_region(text: &str) -> bool {
    Region::new(text).is_ok()
}

fn wrong_date(date: &str) -> AuthError {
    AuthError::Incomplete(format!("Date must be in ISO-8601 'basic format'. Got '{}'.", shorten(date)))
}

/// Messages repeat what the caller sent, but not megabytes of it.
fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}

/// An `Authorization` header in a message: its digest, so that nothing of it leaks into logs.
fn digest_of(text: &str) -> String {
    STANDARD.encode(Sha256::digest(text.as_bytes()))
}
