//! Making packages: the counterpart of the reader, for the command line and for tests.

use std::io::Write as _;

const LATEST_FILES: usize = u16::MAX as usize - 1;
/// 1980-01-01 00:00, as MS-DOS has it, on every entry: the same content makes the same bytes.
const DATE: u16 = 0x21;
const MADE_BY_UNIX: u16 = 3 << 8 | 20;
const NEEDS: u16 = 20;
/// The name is UTF-8.
const FLAGS: u16 = 1 << 11;

/// Why a zip file could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Over 65,534 entries or 4 GB, which would need zip64.
    #[error(
        "the package is too large for a zip file without zip64: at most 65,534 entries and 4 GB are taken"
    )]
    TooLarge,
    /// A name longer than 65,535 bytes.
    #[error("a name of {0} bytes is too long for a zip file")]
    NameTooLong(usize),
}

/// Builds a zip file in memory. The same calls make the same bytes, so the digest of a package depends on its
/// content alone. Names are written as given: whoever reads judges them.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    entries: usize,
}

impl Writer {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a regular file, deflated where that makes it smaller.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn file(&mut self, name: &str, executable: bool, content: &[u8]) -> Result<(), WriteError> {
        self.entry(name, if executable { 0o100_755 } else { 0o100_644 }, content)
    }

    /// Adds a folder. Only empty ones need it: a file's folders are implied by its name.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn folder(&mut self, name: &str) -> Result<(), WriteError> {
        self.entry(&format!("{}/", name.trim_end_matches('/')), 0o040_755, b"")
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn link(&mut self, name: &str, target: &str) -> Result<(), WriteError> {
        self.entry(name, 0o120_777, target.as_bytes())
    }

    /// The finished zip file.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn finish(mut self) -> Result<Vec<u8>, WriteError> {
        let (start, size) = (u32_of(self.bytes.len())?, u32_of(self.directory.len())?);
        let entries = self.entries as u16;
        self.bytes.append(&mut self.directory);
        self.bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0");
        for number in [entries, entries] {
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
        for number in [size, start] {
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
        self.bytes.extend_from_slice(&[0, 0]);
        Ok(self.bytes)
    }

    fn entry(&mut self, name: &str, unix_mode: u32, content: &[u8]) -> Result<(), WriteError> {
        if self.entries >= LATEST_FILES {
            return Err(WriteError::TooLarge);
        }
        let name_length = u16::try_from(name.len()).map_err(|_| WriteError::NameTooLong(name.len()))?;
        let (method, data) = compress(content);
        let data = data.as_deref().unwrap_or(content);
        let mut crc = flate2::Crc::new();
        crc.update(content);

        // What both headers share, from "version needed" to "length of the extra field".
        let mut common = Vec::with_capacity(26);
        for number in [NEEDS, FLAGS, method, 0, DATE] {
            common.extend_from_slice(&number.to_le_bytes());
        }
        for number in [crc.sum(), u32_of(data.len())?, u32_of(content.len())?] {
            common.extend_from_slice(&number.to_le_bytes());
        }
        for number in [name_length, 0] {
            common.extend_from_slice(&number.to_le_bytes());
        }

        let offset = u32_of(self.bytes.len())?;
        self.bytes.extend_from_slice(b"PK\x03\x04");
        self.bytes.extend_from_slice(&common);
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(data);

        self.directory.extend_from_slice(b"PK\x01\x02");
        self.directory.extend_from_slice(&MADE_BY_UNIX.to_le_bytes());
        self.directory.extend_from_slice(&common);
        // No comment, first disk, no internal attributes.
        self.directory.extend_from_slice(&[0; 6]);
        self.directory.extend_from_slice(&(unix_mode << 16).to_le_bytes());
        self.directory.extend_from_slice(&offset.to_le_bytes());
        self.directory.extend_from_slice(name.as_bytes());
        self.entries += 1;
        Ok(())
    }
}

/// Method and deflated bytes; method 0 and no bytes when deflating gains nothing.
fn compress(content: &[u8]) -> (u16, Option<Vec<u8>>) {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    // Writing into a vector cannot fail; if it did, the content would be stored as it is.
    match encoder.write_all(content).and_then(|()| encoder.finish()) {
        Ok(deflated) if deflated.len() < content.len() => (8, Some(deflated)),
        _ => (0, None),
    }
}

fn u32_of(length: usize) -> Result<u32, WriteError> {
    u32::try_from(length).map_err(|_| WriteError::TooLarge)
}
