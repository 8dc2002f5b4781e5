//! Pages of lists. A marker is the last item of the page before, in base64, so that it is taken as it is and not
//! made up; items that come or go between two pages do not disturb the rest.

use super::errors::invalid;
use crate::protocol::ApiError;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Most items of one page, whatever the caller asks for, as on AWS.
const PAGE: usize = 50;

/// Takes one page of `items`, which are in the order of `key`, and the marker of the next one.
pub(super) fn page<T, K: Ord + Clone>(
    items: impl Iterator<Item = T>,
    key: impl Fn(&T) -> K,
    after: Option<&K>,
    asked: Option<i64>,
) -> (Vec<T>, Option<K>) {
    let most = asked.and_then(|asked| usize::try_from(asked).ok()).unwrap_or(PAGE).clamp(1, PAGE);
    let mut rest = items.filter(|item| after.is_none_or(|after| *after < key(item)));
    let taken: Vec<T> = rest.by_ref().take(most).collect();
    let next = rest.next().and_then(|_| taken.last()).map(&key);
    (taken, next)
}

pub(super) fn encode(marker: &str) -> String {
    URL_SAFE_NO_PAD.encode(marker)
}

pub(super) fn decode(marker: &str) -> Result<String, ApiError> {
    let decoded = URL_SAFE_NO_PAD.decode(marker).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.ok_or_else(unknown)
}

/// A marker that no list has given out.
pub(super) fn unknown() -> ApiError {
    invalid(
        "The Marker is not one that this operation has returned; leave it out to begin with the first page",
    )
}
