//! Paging tokens of the describing operations: base64, so that nobody takes them for names.

use super::invalid;
use crate::protocol::ApiError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A token that `open` opens again.
pub(super) fn seal(place: &str) -> String {
    URL_SAFE_NO_PAD.encode(place)
}

/// What was sealed in a token.
pub(super) fn open(token: &str) -> Result<String, ApiError> {
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| refused())?;
    String::from_utf8(bytes).map_err(|_| refused())
}

/// The answer to a token that is none of ours.
pub(super) fn refused() -> ApiError {
    invalid("The specified nextToken is invalid.")
}
