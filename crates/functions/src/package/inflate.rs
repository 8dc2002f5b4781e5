//! The bytes of one entry, counted and checked while they are made.

use super::archive::{Entry, Method};
use super::error::PackageError;
use flate2::bufread::DeflateDecoder;
use std::io::Read;

const CHUNK_BYTES: usize = 64 * 1024;

impl Entry<'_> {
    /// Hands the entry's bytes to `sink` in order, in chunks of at most 64 KB.
    ///
    /// Stops at the first byte beyond the size that the directory states, so the cost is bounded by that size
    /// whatever the compressed data holds. When it returns `Ok`, size and checksum were right; before that,
    /// `sink` may have seen bytes that turn out to be wrong.
    ///
    /// # Errors
    /// Damaged data, another size, another checksum, or what `sink` returned.
    pub(crate) fn inflate<E: From<PackageError>>(
        &self,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut crc = flate2::Crc::new();
        let mut count: u64 = 0;
        let mut take = |chunk: &[u8]| {
            count += chunk.len() as u64;
            if count > self.unpacked_bytes {
                return Err(PackageError::Size(self.shown()).into());
            }
            crc.update(chunk);
            sink(chunk)
        };
        match self.method {
            Method::Stored => {
                for chunk in self.data.chunks(CHUNK_BYTES) {
                    take(chunk)?;
                }
            }
            Method::Deflated => {
                let mut decoder = DeflateDecoder::new(self.data);
                let expected = usize::try_from(self.unpacked_bytes).unwrap_or(CHUNK_BYTES);
                let mut chunk = vec![0; CHUNK_BYTES.min(expected.saturating_add(1))];
                loop {
                    match decoder.read(&mut chunk) {
                        Ok(0) => break,
                        Ok(filled) => take(&chunk[..filled])?,
                        Err(_) => return Err(PackageError::Data(self.shown()).into()),
                    }
                }
                if decoder.total_in() != self.data.len() as u64 {
                    return Err(PackageError::Data(self.shown()).into());
                }
            }
        }
        if count != self.unpacked_bytes {
            return Err(PackageError::Size(self.shown()).into());
        }
        if crc.sum() != self.crc32 {
            return Err(PackageError::Checksum(self.shown()).into());
        }
        Ok(())
    }
}
