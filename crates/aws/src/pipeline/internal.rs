//! What the server serves of its own, under `/_martlet/`, through the same door.

use super::service::BoxFuture;
use bytes::Bytes;
use http::Response;
use martlet_gateway::Head;
use martlet_identity::Caller;

/// The paths that [`Internal`] answers begin so.
pub const INTERNAL_PREFIX: &str = "/_martlet/";
/// The service that signatures for them are scoped to, as in a link made by `Signer::presign`.
pub const INTERNAL_SERVICE: &str = "martlet";

/// The server's own routes: health, package downloads.
pub trait Internal: Send + Sync + 'static {
    /// Whether `path` is answered without a signature. Everything else needs one, in a header or in the query
    /// string, scoped to [`INTERNAL_SERVICE`].
    fn is_public(&self, path: &str) -> bool;

    /// Answers a request; `caller` is `None` for a public path only. Unknown paths are the implementation's 404s.
    fn handle<'a>(
        &'a self,
        head: &'a Head,
        caller: Option<&'a Caller>,
        body: Bytes,
    ) -> BoxFuture<'a, Response<Bytes>>;
}
