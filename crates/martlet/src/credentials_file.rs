//! The file that the first start writes and that every AWS tool reads: profiles with an access key each.

use martlet_identity::{Credentials, Secret};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Its name inside the data directory.
pub(crate) const FILE_NAME: &str = "credentials";

/// One profile with a whole access key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) credentials: Credentials,
    /// What comes with a temporary key.
    pub(crate) session_token: Option<String>,
}

/// The profiles of a file, in its order. One without a whole key is left out, and so is what is none of our settings.
pub(crate) fn parse(text: &str) -> Vec<Profile> {
    let mut profiles = Vec::new();
    let mut section = Section::default();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let next = Section { name: Some(name.trim()), ..Section::default() };
            profiles.extend(std::mem::replace(&mut section, next).profile());
        } else if !line.starts_with(['#', ';'])
            && let Some((name, value)) = line.split_once('=')
        {
            let value = Some(value.trim()).filter(|value| !value.is_empty());
            match name.trim().to_ascii_lowercase().as_str() {
                "aws_access_key_id" => section.access_key = value,
                "aws_secret_access_key" => section.secret = value,
                "aws_session_token" => section.token = value,
                _ => {}
            }
        }
    }
    profiles.extend(section.profile());
    profiles
}

#[derive(Default)]
struct Section<'a> {
    name: Option<&'a str>,
    access_key: Option<&'a str>,
    secret: Option<&'a str>,
    token: Option<&'a str>,
}

impl Section<'_> {
    fn profile(self) -> Option<Profile> {
        let credentials =
            Credentials { access_key: self.access_key?.to_owned(), secret: Secret::new(self.secret?) };
        Some(Profile {
            name: self.name?.to_owned(),
            credentials,
            session_token: self.token.map(str::to_owned),
        })
    }
}

/// Writes a new file with a profile `default`, mode 0600, whole or not at all: the name appears once the content is
/// on stable storage. An existing file is replaced.
///
/// # Errors
/// The disk's.
pub(crate) fn write(path: &Path, credentials: &Credentials) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let unfinished = path.with_extension("new");
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    write!(
        file,
        "# Made by Martlet at its first start. Point AWS_SHARED_CREDENTIALS_FILE here.\n[default]\n\
         aws_access_key_id = {}\naws_secret_access_key = {}\n",
        credentials.access_key,
        credentials.secret.reveal()
    )?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    std::fs::File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_written_is_read_again_and_private() {
        let dir = crate::testing::TempDir::new();
        let path = dir.path().join(FILE_NAME);
        let credentials = Credentials::generate().unwrap();
        write(&path, &credentials).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(parse(&text), [Profile { name: "default".into(), credentials, session_token: None }]);
    }

    #[test]
    fn files_that_people_write_are_read() {
        let text = "; mine\n[default]\naws_access_key_id=A\n\n[ work ]\nAWS_ACCESS_KEY_ID = B\n  # no\naws_secret_access_key =\ts=s==\n\
                    region = x\naws_session_token = t\n[half]\naws_access_key_id = C\n";
        let profiles = parse(text);
        let [work] = profiles.as_slice() else { panic!("read as {profiles:?}") };
        assert_eq!((work.name.as_str(), work.credentials.access_key.as_str()), ("work", "B"));
        assert_eq!((work.credentials.secret.reveal(), work.session_token.as_deref()), ("s=s==", Some("t")));
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(text in "([\\[\\]=#\n]|aws_access_key_id|default|\\PC){0,60}") {
            let _ = parse(&text);
        }
    }
}
