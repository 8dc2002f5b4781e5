//! The access keys of the account: one is made at the first start, all are read at every later one.

use super::data_dir::{self, DataDirError, Owner};
use crate::credentials_file::{self, Profile};
use martlet_identity::{Credentials, RandomError};
use std::io;
use std::path::{Path, PathBuf};

/// Why there are no access keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialsError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{} has no profile with an access key; mend it, or remove it and a new key is made",
        path.display()
    )]
    Incomplete { path: PathBuf },
    #[error(transparent)]
    Random(#[from] RandomError),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Give(#[from] DataDirError),
}

/// The account's access keys, one made and written down when there is no file. A key that a person adds to the file
/// is one more. `owner` is who the server will run as, when
/// that is somebody else than this process. A new file belongs to whoever starts the server: to the user who called
/// `sudo`, who may then use it without; else to the server's own user, which leaves it to root as well.
///
/// # Errors
/// The step that failed. A file that is there is never replaced.
pub(super) fn open(data_dir: &Path, owner: Option<Owner>) -> Result<Vec<Profile>, CredentialsError> {
    let path = data_dir.join(credentials_file::FILE_NAME);
    match std::fs::read_to_string(&path) {
        Ok(text) => match credentials_file::parse(&text) {
            profiles if profiles.is_empty() => Err(CredentialsError::Incomplete { path }),
            profiles => Ok(profiles),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let credentials = Credentials::generate()?;
            credentials_file::write(&path, &credentials)
                .map_err(|source| CredentialsError::Write { path, source })?;
            if let Some(owner) = owner {
                match caller_of_sudo() {
                    Some(user) => data_dir::let_through(data_dir, credentials_file::FILE_NAME, user)?,
                    None => data_dir::give(&data_dir.join(credentials_file::FILE_NAME), owner)?,
                }
            }
            Ok(vec![Profile { name: "default".to_owned(), credentials, session_token: None }])
        }
        Err(source) => Err(CredentialsError::Read { path, source }),
    }
}

/// The user who became root with `sudo` to start this.
fn caller_of_sudo() -> Option<u32> {
    std::env::var("SUDO_UID").ok()?.parse().ok().filter(|user| *user != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_makes_what_later_ones_read() {
        let dir = crate::testing::TempDir::new();
        let first = open(dir.path(), None).unwrap();
        assert_eq!(open(dir.path(), None).unwrap(), first);
        std::fs::write(dir.path().join("credentials"), "[default]\n").unwrap();
        assert!(matches!(open(dir.path(), None), Err(CredentialsError::Incomplete { .. })));
    }
}
