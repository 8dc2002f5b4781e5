//! Who a command says it is.

use crate::credentials_file::{self, FILE_NAME, Profile};
use martlet_identity::{Credentials, Secret};
use std::path::{Path, PathBuf};

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialsError {
    #[error("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not")]
    HalfAKey,
    #[error("{} has no profile {profile:?}", path.display())]
    NoProfile { path: PathBuf, profile: String },
    #[error("cannot read credentials from {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("there is no local data directory to take credentials from")]
    NoDataDir,
}

impl CredentialsError {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::HalfAKey => Some("set both, or neither".into()),
            Self::NoProfile { .. } => None,
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => Some(
                "only its owner and root may read it: use sudo, or hand it over as docs/configuration.md says"
                    .into(),
            ),
            Self::Read { .. } | Self::NoDataDir => Some(
                "`martlet up` says at its start where it keeps credentials; set AWS_SHARED_CREDENTIALS_FILE to that \
                 file, or MARTLET_DATA_DIR to its directory"
                    .into(),
            ),
        }
    }
}

/// Looks in this order: the profile asked for, the key in the environment, `AWS_SHARED_CREDENTIALS_FILE`, the local
/// data directories, of which the first that has a file counts. A profile is looked up in
/// `AWS_SHARED_CREDENTIALS_FILE` when that is set, else in the local data directory; without one it is
/// `AWS_PROFILE`, else `default`.
///
/// # Errors
/// [`CredentialsError`] of the first place that applies; no later one is tried then.
pub(crate) fn find(
    profile: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
    data_dirs: &[PathBuf],
) -> Result<Profile, CredentialsError> {
    if profile.is_none()
        && let Some(access_key) = variable("AWS_ACCESS_KEY_ID")
    {
        let secret = variable("AWS_SECRET_ACCESS_KEY").ok_or(CredentialsError::HalfAKey)?;
        let credentials = Credentials { access_key, secret: Secret::new(secret) };
        let name = "environment".to_owned();
        return Ok(Profile { name, credentials, session_token: variable("AWS_SESSION_TOKEN") });
    }
    let asked = profile.map(str::to_owned).or_else(|| variable("AWS_PROFILE"));
    if let Some(path) = variable("AWS_SHARED_CREDENTIALS_FILE") {
        return read(Path::new(&path), asked.as_deref().unwrap_or("default"));
    }
    // AWS_PROFILE speaks of the user's own files, not of ours.
    let profile = profile.unwrap_or("default");
    let mut first = None;
    for path in data_dirs.iter().map(|data_dir| data_dir.join(FILE_NAME)) {
        match read(&path, profile) {
            Err(error @ CredentialsError::Read { .. }) => first = first.or(Some(error)),
            other => return other,
        }
    }
    Err(first.unwrap_or(CredentialsError::NoDataDir))
}

fn read(path: &Path, profile: &str) -> Result<Profile, CredentialsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| CredentialsError::Read { path: path.to_owned(), source })?;
    let found = credentials_file::parse(&text).into_iter().find(|found| found.name == profile);
    found.ok_or_else(|| CredentialsError::NoProfile { path: path.to_owned(), profile: profile.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    fn found(
        profile: Option<&str>,
        variables: &[(&str, &str)],
        data_dirs: &[&Path],
    ) -> Result<String, CredentialsError> {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let data_dirs: Vec<PathBuf> = data_dirs.iter().map(|path| path.to_path_buf()).collect();
        find(profile, variable, &data_dirs).map(|profile| profile.credentials.access_key)
    }

    fn file(path: &Path, keys: &[(&str, &str)]) {
        let profile = |(name, key): &(&str, &str)| {
            format!("[{name}]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")
        };
        std::fs::write(path, keys.iter().map(profile).collect::<String>()).unwrap();
    }

    #[test]
    fn the_first_place_that_is_set_counts() {
        let (data_dir, elsewhere) = (TempDir::new(), TempDir::new());
        file(&data_dir.path().join(FILE_NAME), &[("default", "OURS"), ("work", "OURWORK")]);
        let shared = elsewhere.path().join("shared");
        file(&shared, &[("default", "SHARED"), ("work", "SHAREDWORK")]);
        let shared = ("AWS_SHARED_CREDENTIALS_FILE", shared.to_str().unwrap());
        let key = [("AWS_ACCESS_KEY_ID", "ENV"), ("AWS_SECRET_ACCESS_KEY", "secret")];
        let dir = &[Path::new("/no/such/dir"), data_dir.path()];

        assert_eq!(found(None, &[key[0], key[1], shared], dir).unwrap(), "ENV");
        assert_eq!(found(Some("work"), &[key[0], key[1], shared], dir).unwrap(), "SHAREDWORK");
        assert_eq!(found(None, &[shared], dir).unwrap(), "SHARED");
        assert_eq!(found(None, &[shared, ("AWS_PROFILE", "work")], dir).unwrap(), "SHAREDWORK");
        assert_eq!(found(None, &[("AWS_PROFILE", "company")], dir).unwrap(), "OURS");
        assert_eq!(found(Some("work"), &[], dir).unwrap(), "OURWORK");
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = TempDir::new();
        assert!(matches!(found(None, &[("AWS_ACCESS_KEY_ID", "A")], &[]), Err(CredentialsError::HalfAKey)));
        assert!(matches!(found(None, &[], &[]), Err(CredentialsError::NoDataDir)));
        assert!(matches!(found(None, &[], &[dir.path()]), Err(CredentialsError::Read { .. })));
        file(&dir.path().join(FILE_NAME), &[("default", "A")]);
        assert!(matches!(found(Some("b"), &[], &[dir.path()]), Err(CredentialsError::NoProfile { .. })));
    }
}
