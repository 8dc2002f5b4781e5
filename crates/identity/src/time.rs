//! Signature Version 4's dates: `20261123T090000Z`.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use martlet_model::Timestamp;

/// A date in ISO 8601's basic format, always in range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AmzDate {
    text: [u8; 16],
    seconds: u64,
}

impl AmzDate {
    /// Reads exactly `YYYYMMDDTHHMMSSZ`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 16] = text.as_bytes().try_into().ok()?;
        let digits = |from: usize, to: usize| -> Option<i16> {
            bytes[from..to].iter().try_fold(0_i16, |number, byte| {
                let digit = byte.is_ascii_digit().then(|| i16::from(byte - b'0'))?;
                Some(number * 10 + digit)
            })
        };
        let small = |from: usize| i8::try_from(digits(from, from + 2)?).ok();
        if bytes[8] != b'T' || bytes[15] != b'Z' {
            return None;
        }
        let date =
            DateTime::new(digits(0, 4)?, small(4)?, small(6)?, small(9)?, small(11)?, small(13)?, 0).ok()?;
        let seconds = date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
        Some(Self { text: bytes, seconds: u64::try_from(seconds).ok()? })
    }

    /// The date of an instant; instants after the year 9999 are cut to its end.
    pub(crate) fn at(instant: Timestamp) -> Self {
        let millis = i64::try_from(instant.0).unwrap_or(i64::MAX);
        let instant = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
        let date = instant.to_zoned(TimeZone::UTC).datetime();
        let text = format!(
            "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
            date.year(),
            date.month(),
            date.day(),
            date.hour(),
            date.minute(),
            date.second()
        );
        let mut bytes = [b'0'; 16];
        bytes.copy_from_slice(&text.as_bytes()[..16]);
        Self { text: bytes, seconds: u64::try_from(instant.as_second()).unwrap_or_default() }
    }

    /// Reads a `Date` header in HTTP's form.
    pub(crate) fn from_http(text: &str) -> Option<Self> {
        let instant = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
        Some(Self::at(Timestamp(u64::try_from(instant.as_millisecond()).ok()?)))
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    /// `YYYYMMDD`.
    pub(crate) fn day(&self) -> &str {
        &self.as_str()[..8]
    }

    /// Seconds of the Unix epoch.
    pub(crate) fn seconds(&self) -> u64 {
        self.seconds
    }

    pub(crate) fn shifted(self, seconds: i64) -> Self {
        Self::at(Timestamp(self.seconds.saturating_add_signed(seconds).saturating_mul(1000)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_are_read_strictly() {
        let date = AmzDate::parse("20261123T090000Z").unwrap();
        assert_eq!((date.seconds(), date.day()), (1_795_424_400, "20261123"));
        assert_eq!(date.shifted(-900).as_str(), "20261123T084500Z");
        assert_eq!(AmzDate::from_http("Mon, 23 Nov 2026 09:00:00 GMT"), Some(date));
        for wrong in [
            "",
            "20261123T090000",
            "20261323T090000Z",
            "2026-11-23T09:00Z",
            "20261123t090000Z",
            "20260230T000000Z",
            "+0261123T090000Z",
            "20261123T096000Z",
        ] {
            assert_eq!(AmzDate::parse(wrong), None, "{wrong}");
        }
        assert_eq!(AmzDate::at(Timestamp(u64::MAX)).as_str().len(), 16);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in 0_u64..253_402_300_799) {
            let date = AmzDate::at(Timestamp(seconds * 1000));
            prop_assert_eq!(date.seconds(), seconds);
            prop_assert_eq!(AmzDate::parse(date.as_str()), Some(date));
        }

        #[test]
        fn nothing_panics(text in any::<String>()) {
            let _ = (AmzDate::parse(&text), AmzDate::from_http(&text));
        }
    }
}
