//! What a request says about its signature, well-formed but not yet believed.

use crate::error::AuthError;
use crate::time::AmzDate;
use http::{HeaderMap, Method, Uri};
use martlet_model::Region;

/// The only algorithm there is.
pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// Longest life of a presigned URL, in seconds (one week).
pub const MAX_EXPIRES: u64 = 604_800;
/// Longest `KEY/DATE/REGION/SERVICE/aws4_request`, in bytes; ours, so that nobody makes us remember long ones.
const LONGEST_CREDENTIAL: usize = 512;

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

    /// Takes a credential's text apart and checks its scope. `date` is the request's own.
    ///
    /// # Errors
    /// [`AuthError::Incomplete`] when it has not five parts, [`AuthError::Invalid`] with all that is wrong with them.
    pub(crate) fn new(credential: &str, date: AmzDate) -> Result<Self, AuthError> {
        let claim = Self {
            ends: ends_of(credential)?,
            credential: credential.into(),
            signed_headers: "".into(),
            signature: "".into(),
            date,
            expires: None,
        };
        let mut complaint = String::new();
        if claim.parsed_region().is_err() {
            complaint.push_str("Credential should be scoped to a valid region. ");
        }
        if claim.service().is_empty() {
            complaint.push_str("Credential should be scoped to a service. ");
        }
        let terminator = &claim.credential[usize::from(claim.ends[3]) + 1..];
        if terminator != "aws4_request" {
            complaint.push_str(&format!(
                "Credential should be scoped with a valid terminator: 'aws4_request', not '{}'. ",
                shorten(terminator)
            ));
        }
        if claim.scope_day() != date.day() {
            complaint.push_str(&format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: \
                 '{}' != '{}', from '{}'.",
                shorten(claim.scope_day()),
                date.day(),
                date.as_str()
            ));
        }
        if complaint.is_empty() {
            Ok(claim)
        } else {
            Err(AuthError::Invalid(complaint.trim_end().to_owned()))
        }
    }

    /// The same for development mode, which takes any date and any last part.
    pub(crate) fn unchecked(credential: &str, presigned: bool, now: AmzDate) -> Result<Self, AuthError> {
        let claim = Self {
            ends: ends_of(credential)?,
            credential: credential.into(),
            signed_headers: "".into(),
            signature: "".into(),
            date: now,
            expires: presigned.then_some(MAX_EXPIRES),
        };
        match claim.parsed_region() {
            Ok(_) => Ok(claim),
            Err(_) => Err(AuthError::Invalid("Credential should be scoped to a valid region.".to_owned())),
        }
    }
}

fn ends_of(credential: &str) -> Result<[u16; 4], AuthError> {
    let refused = || {
        AuthError::Incomplete(format!(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '{}'",
            shorten(credential)
        ))
    };
    if credential.len() > LONGEST_CREDENTIAL {
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

/// Messages repeat what the caller sent, but not megabytes of it.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}
