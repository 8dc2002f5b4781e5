//! Why a request is not who it says, in AWS's words.

/// How a protocol spells error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// rest-json and json 1.x: `InvalidSignatureException`.
    Json,
    /// query and rest-xml: `SignatureDoesNotMatch`.
    Query,
}

/// Why a request was refused before anyone looked at what it asks. The texts tell nothing that the caller did not
/// send: no secret, no expected signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Neither an `Authorization` header nor a presigned query string.
    #[error("Missing Authentication Token")]
    Missing,
    /// The signature's parts are not all there, or not of their form.
    #[error("{0}")]
    Incomplete(String),
    /// No such access key, or a session token, which nobody here has issued.
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
    /// Another secret, or another request than the signed one.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
         Access Key and signing method. Consult the service documentation for details."
    )]
    Mismatch,
    /// The signature is for another time, date, region or service, or leaves a header out.
    #[error("{0}")]
    Invalid(String),
    /// Development mode accepts any signature, so it must not accept what a web page can send on its own.
    #[error(
        "Requests with an Origin header are refused in development mode, where any web page that you visit could \
         send them. Start the server without --dev to use it from a browser."
    )]
    CrossOrigin,
    /// The same, for a page whose name was made to lead here after the browser had loaded it.
    #[error(
        "Development mode serves this machine only, and {0:?} is not its name. Use an address, localhost, or a name \
         without a dot."
    )]
    ForeignHost(String),
}

impl AuthError {
    /// The error code as a protocol spells it.
    #[must_use]
    pub fn code(&self, spelling: Spelling) -> &'static str {
        match (self, spelling) {
            (Self::Missing, Spelling::Json) => "MissingAuthenticationTokenException",
            (Self::Missing, Spelling::Query) => "MissingAuthenticationToken",
            (Self::Incomplete(_), Spelling::Json) => "IncompleteSignatureException",
            (Self::Incomplete(_), Spelling::Query) => "IncompleteSignature",
            (Self::UnknownKey, Spelling::Json) => "UnrecognizedClientException",
            (Self::UnknownKey, Spelling::Query) => "InvalidClientTokenId",
            (Self::Mismatch | Self::Invalid(_), Spelling::Json) => "InvalidSignatureException",
            (Self::Mismatch | Self::Invalid(_), Spelling::Query) => "SignatureDoesNotMatch",
            (Self::CrossOrigin | Self::ForeignHost(_), Spelling::Json) => "AccessDeniedException",
            (Self::CrossOrigin | Self::ForeignHost(_), Spelling::Query) => "AccessDenied",
        }
    }

    /// The HTTP status that goes with the code.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Incomplete(_) => 400,
            _ => 403,
        }
    }
}
