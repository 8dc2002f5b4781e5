//! The blob contract: immutable bytes of any size, named by their SHA-256.

use crate::Answer;
use bytes::Bytes;
use sha2::Digest as _;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The SHA-256 of a blob; 64 lower-case hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// A text is not 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest: it takes 64 lower-case hexadecimal digits")]
pub struct DigestError(String);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let refused = || DigestError(text.chars().take(80).collect());
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        if text.len() != 64 {
            return Err(refused());
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte =
                digit(pair[0]).zip(digit(pair[1])).map(|(high, low)| high << 4 | low).ok_or_else(refused)?;
        }
        Ok(Self(digest))
    }
}

/// Immutable bytes by digest.
///
/// Storing the same bytes twice stores them once, so a blob belongs to nobody: whoever deletes one must know that no
/// other record names it and that nobody stores the same bytes at the same time.
pub trait Blobs: Send + Sync {
    /// Stores `bytes`. When this resolves they are on stable storage, also when they were there before. A crash
    /// before that leaves either the whole blob or none.
    fn put(&self, bytes: Bytes) -> Answer<Digest>;

    /// The bytes, checked against their digest; `None` when there is no such blob.
    ///
    /// # Errors
    /// [`crate::StoreError::Damaged`] when the bytes no longer have that digest.
    fn get(&self, digest: &Digest) -> Answer<Option<Bytes>>;

    /// A file that holds the bytes, for reading in place; `None` when there is no such blob or when the provider
    /// keeps no files. It stays readable until the blob is deleted and must not be written. Unlike [`Blobs::get`]
    /// this checks nothing.
    fn path(&self, digest: &Digest) -> Answer<Option<PathBuf>>;

    /// Up to `max` digests above `after`, in order. What is stored or deleted meanwhile may or may not show.
    fn list(&self, after: Option<&Digest>, max: usize) -> Answer<Vec<Digest>>;

    /// Removes the blob; answers whether it was there. When this resolves the removal is durable.
    fn delete(&self, digest: &Digest) -> Answer<bool>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        let known = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), known);
        assert_eq!(known.parse(), Ok(Digest::of(b"")));
    }

    proptest! {
        #[test]
        fn digests_print_as_they_are_read(bytes in any::<[u8; 32]>(), text in "\\PC{0,70}") {
            prop_assert_eq!(Digest(bytes).to_string().parse(), Ok(Digest(bytes)));
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }

        #[test]
        fn only_lower_case_digits_of_the_right_length_are_read(text in "[0-9a-fA-Fg]{63,65}") {
            let right = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            prop_assert_eq!(text.parse::<Digest>().is_ok(), right);
        }
    }
}
