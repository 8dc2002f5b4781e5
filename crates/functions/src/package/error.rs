//! Why a package was refused.

use std::fmt;
use std::io;

/// An entry's name as the archive has it, made printable: bytes that are no text are replaced, control
/// characters are escaped, and what is longer than 200 characters is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryName(String);

impl EntryName {
    pub(crate) fn new(raw: &[u8]) -> Self {
        const SHOWN: usize = 200;
        let text = String::from_utf8_lossy(raw);
        let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
        if text.chars().nth(SHOWN).is_some() {
            shown.push('…');
        }
        Self(shown)
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// What is wrong with an archive as a whole or with one entry of it. Every variant means that nothing of the
/// archive was kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackageError {
    /// No end-of-central-directory record.
    #[error("it is not a zip file, or it is cut short: the record that ends every zip file is missing")]
    NotAZip,
    /// The zip file itself is over the limit.
    #[error("the zip file has {bytes} bytes; at most {limit} are taken")]
    ZipTooLarge {
        /// Its size.
        bytes: u64,
        /// The largest size taken.
        limit: u64,
    },
    /// Bytes follow the record that ends the archive.
    #[error("{bytes} bytes follow the end of the archive")]
    TrailingData {
        /// How many.
        bytes: u64,
    },
    /// The archive is split over several files.
    #[error("the archive is one part of several; make it one file")]
    MultiPart,
    /// The directory of the archive contradicts itself or the file around it.
    #[error("the archive's directory is broken: {0}")]
    Directory(&'static str),
    /// No entries.
    #[error("the archive is empty")]
    Empty,
    /// More entries than [`martlet_model::limits::PACKAGE_ENTRIES`].
    #[error("the archive has {entries} entries; at most {limit} are taken")]
    TooManyEntries {
        /// How many it says it has.
        entries: u64,
        /// The most taken.
        limit: usize,
    },
    /// More than [`martlet_model::limits::UNPACKED_BYTES`] after unpacking.
    #[error("unpacked it would have more than {limit} bytes")]
    UnpackedTooLarge {
        /// The most taken.
        limit: u64,
    },
    /// The entry's two headers disagree, or point outside the archive or into another entry.
    #[error("entry {0}: its headers are broken: {1}")]
    Header(EntryName, &'static str),
    /// The entry is encrypted.
    #[error("entry {0} is encrypted; pack it without a password")]
    Encrypted(EntryName),
    /// The entry is compressed by another method than deflate.
    #[error("entry {0} is compressed by method {1}; pack it with deflate or stored")]
    Method(EntryName, u16),
    /// The entry's name is not UTF-8.
    #[error("entry {0}: the name is not UTF-8")]
    NameEncoding(EntryName),
    /// The entry's name is empty or longer than a path may be.
    #[error("entry {0}: the name is empty or too long")]
    NameLength(EntryName),
    /// The entry lies too deep.
    #[error("entry {0} lies in more than {1} folders")]
    NameDeep(EntryName, usize),
    /// The entry's name has a NUL byte.
    #[error("entry {0}: the name has a NUL byte")]
    NameNul(EntryName),
    /// The entry's name has a backslash.
    #[error("entry {0}: the name has a backslash; a zip file separates folders by /")]
    NameBackslash(EntryName),
    /// The entry's name begins with `/` or with a drive letter.
    #[error("entry {0}: the name is an absolute path")]
    NameAbsolute(EntryName),
    /// The entry's name climbs with `..`.
    #[error("entry {0}: the name climbs out of its folder with ..")]
    NameClimbs(EntryName),
    /// Two entries have the same name.
    #[error("entry {0} is there twice")]
    Duplicate(EntryName),
    /// One entry needs a folder where another one puts a file or a link.
    #[error("entry {0} is both a file and a folder")]
    Conflict(EntryName),
    /// The entry is a device, a pipe, a socket or something else that is no file, folder or link.
    #[error("entry {0} is neither a file, nor a folder, nor a symbolic link")]
    Special(EntryName),
    /// The entry is a folder that has content.
    #[error("entry {0} is a folder with content")]
    FolderWithContent(EntryName),
    /// The symbolic link is absolute, empty, too long, or no text.
    #[error("entry {0}: the symbolic link's target is not a relative path")]
    LinkTarget(EntryName),
    /// The symbolic link leads out of the package.
    #[error("entry {0}: the symbolic link leads out of the package")]
    LinkEscapes(EntryName),
    /// The symbolic link leads back to itself.
    #[error("entry {0}: the symbolic link goes round in circles")]
    LinkLoop(EntryName),
    /// The entry's compressed bytes are damaged or cut short.
    #[error("entry {0}: the compressed data is damaged")]
    Data(EntryName),
    /// The entry holds more or fewer bytes than the directory says.
    #[error("entry {0} does not have the size that the archive's directory says")]
    Size(EntryName),
    /// The checksum of the entry's bytes is wrong.
    #[error("entry {0}: the checksum is wrong")]
    Checksum(EntryName),
}

/// Why unpacking failed: either the archive or this machine is to blame.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive was refused.
    #[error(transparent)]
    Refused(#[from] PackageError),
    /// The file system of this machine failed.
    #[error("cannot {step} {path:?}")]
    Disk {
        /// What was tried.
        step: &'static str,
        /// On which path.
        path: std::path::PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl UnpackError {
    pub(crate) fn disk(step: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Disk { step, path, source }
    }
}
