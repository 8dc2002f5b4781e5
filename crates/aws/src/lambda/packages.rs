//! Links to packages that expire, and the packages behind them.

use super::configuration::code_sha256;
use super::errors::internal;
use crate::pipeline::{Ctx, INTERNAL_SERVICE};
use crate::protocol::ApiError;
use bytes::Bytes;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, ETAG};
use http::{HeaderValue, Response, StatusCode};
use martlet_functions::Functions;
use martlet_identity::{Caller, Credentials, Signer};
use martlet_model::Code;
use martlet_store::Digest;

/// The paths of packages begin so; the digest of the zip file follows.
pub const PACKAGES_PREFIX: &str = "/_martlet/packages/";
/// How long a link is good for, in seconds (10 minutes), as on AWS.
const LINK_SECONDS: u64 = 600;

/// Makes links to packages and answers them. Whoever has a link has the package, for ten minutes.
pub struct Downloads {
    functions: Functions,
    credentials: Credentials,
}

impl Downloads {
    /// `credentials` sign the links and nothing else: a link of other credentials is refused here. They have to be in
    /// the pipeline's keyring; fresh ones at every start will do, since links do not live long.
    #[must_use]
    pub fn new(functions: Functions, credentials: Credentials) -> Self {
        Self { functions, credentials }
    }

    /// A link to a package on this server, by the name that the caller has for it.
    pub(super) fn link(&self, ctx: &Ctx, code: &Code) -> Result<String, ApiError> {
        let region = ctx.region.as_str();
        let signer = Signer { credentials: &self.credentials, region, service: INTERNAL_SERVICE };
        let path = format!("{PACKAGES_PREFIX}{}", code.digest);
        let host = ctx.host();
        let link = signer.presign(host, &path, LINK_SECONDS, ctx.received).map_err(|e| internal(&e))?;
        Ok(format!("http://{host}{link}"))
    }

    /// Answers a request for `path`, whose signature was verified as that of `caller`; `None` when the path is not
    /// one of a package.
    pub async fn answer(&self, path: &str, caller: &Caller) -> Option<Response<Bytes>> {
        let digest = path.strip_prefix(PACKAGES_PREFIX)?;
        if caller.principal.access_key != self.credentials.access_key {
            return Some(refusal(
                StatusCode::FORBIDDEN,
                "links to packages are made by GetFunction and GetLayerVersion, and by nobody else",
            ));
        }
        let Ok(parsed) = digest.parse::<Digest>() else {
            return Some(refusal(StatusCode::NOT_FOUND, "this is not the digest of a package"));
        };
        let zip = match self.functions.zip(&parsed).await {
            Ok(Some(zip)) => zip,
            Ok(None) => {
                return Some(refusal(
                    StatusCode::NOT_FOUND,
                    "no function and no layer has this package any more",
                ));
            }
            Err(error) => {
                tracing::error!(%error, "a package could not be read");
                return Some(refusal(StatusCode::INTERNAL_SERVER_ERROR, "the package could not be read"));
            }
        };
        let mut response = Response::new(zip);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/zip"));
        headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"package.zip\""));
        if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", code_sha256(digest))) {
            headers.insert(ETAG, tag);
        }
        Some(response)
    }
}

fn refusal(status: StatusCode, text: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("{{\"message\":\"{text}\"}}")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
