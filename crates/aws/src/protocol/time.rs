//! Instants as the protocols write them.

use jiff::fmt::rfc2822;
use jiff::{Timestamp as Instant, tz::TimeZone};
use martlet_model::Timestamp;
use serde::{Serialize, Serializer};

/// Reads the text forms of an instant: RFC 3339 and the HTTP date; milliseconds of the Unix epoch.
pub(super) fn parse(text: &str) -> Option<i64> {
    let instant = text.parse::<Instant>().ok();
    let instant = instant.or_else(|| Some(rfc2822::parse(text).ok()?.timestamp()));
    instant.map(Instant::as_millisecond)
}

/// `2026-11-23T09:00:00.000+0000`: the form of Lambda's `LastModified`.
#[must_use]
pub fn lambda_date(at: Timestamp) -> String {
    format(at, "%Y-%m-%dT%H:%M:%S%.3f+0000")
}

fn format(at: Timestamp, pattern: &str) -> String {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    let instant = Instant::from_millisecond(millis).unwrap_or(Instant::MAX);
    instant.to_zoned(TimeZone::UTC).strftime(pattern).to_string()
}

/// An instant in a JSON answer: seconds of the Unix epoch with a fraction, as rest-json and json 1.x write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochSeconds(pub Timestamp);

impl Serialize for EpochSeconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = self.0.0;
        if millis.is_multiple_of(1000) {
            serializer.serialize_u64(millis / 1000)
        } else {
            serializer.serialize_f64(millis as f64 / 1000.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_and_read() {
        let at = Timestamp(1_795_424_400_007);
        assert_eq!(lambda_date(at), "2026-11-23T09:00:00.007+0000");
        assert_eq!(parse("2026-11-23T09:00:00.007Z"), Some(1_795_424_400_007));
        assert_eq!(parse("Mon, 23 Nov 2026 09:00:00 GMT"), Some(1_795_424_400_000));
        assert_eq!(parse("yesterday"), None);
        assert_eq!(serde_json::to_string(&EpochSeconds(at)).unwrap(), "1795424400.007");
        assert_eq!(serde_json::to_string(&EpochSeconds(Timestamp(2000))).unwrap(), "2");
        assert!(lambda_date(Timestamp(u64::MAX)).len() > 20);
    }
}
