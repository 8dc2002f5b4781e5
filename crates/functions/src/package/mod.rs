//! Code packages: zip files from strangers, read strictly and unpacked safely.
//!
//! [`check`] says whether a zip file can be unpacked, without touching the disk; [`unpack`] does it. Both refuse the
//! same archives for the same reasons, one [`PackageError`] a reason. There is no limit on the compression ratio:
//! what an archive may cost is bounded by [`martlet_model::limits`] alone, since the sizes that it states are added up before
//! anything is inflated, and inflating stops at the stated size.
//!
//! What comes out is what Lambda puts into `/var/task`: files that everybody may read, executable ones that everybody
//! may run, no other mode bits, one fixed time on everything.

mod archive;
mod error;
mod inflate;
mod overlay;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;
mod write;

pub use error::{EntryName, PackageError, UnpackError};
pub use overlay::lay_over;
pub use unpack::unpack;
pub use write::{WriteError, Writer};

/// What a package holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Files and symbolic links.
    pub files: usize,
    /// Bytes of all files together, counted while inflating.
    pub unpacked_bytes: u64,
}

/// What an archive says that its files are together once they are unpacked, in bytes. For one that [`check`] took, that is so.
///
/// # Errors
/// Its directory is refused.
pub fn unpacked_bytes(zip: &[u8]) -> Result<u64, PackageError> {
    Ok(archive::read(zip)?.iter().map(|entry| entry.unpacked_bytes).sum())
}

/// Reads a zip file to its last byte, inflates every entry and keeps nothing.
///
/// Takes time in proportion to the unpacked size (about a second for the largest), so it belongs on a thread that
/// may block.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check(zip: &[u8]) -> Result<Summary, PackageError> {
    let entries = archive::read(zip)?;
    let tree = tree::Tree::build(&entries)?;
    let mut summary = Summary { files: 0, unpacked_bytes: 0 };
    for node in &tree.nodes {
        let entry = match &node.kind {
            tree::Kind::Folder => continue,
            // A link was inflated when the tree was built.
            tree::Kind::Link { .. } => {
                summary.files += 1;
                continue;
            }
            tree::Kind::File { entry, .. } => entry,
        };
        summary.files += 1;
        entry.inflate(|chunk| {
            summary.unpacked_bytes += chunk.len() as u64;
            Ok::<(), PackageError>(())
        })?;
    }
    Ok(summary)
}
