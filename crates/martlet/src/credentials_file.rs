//! The file that the first start writes and that every AWS tool reads: profiles with an access key each.

use martlet_identity::{Credentials, Secret};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Its name inside the data directory.
pub(crate) const FILE_NAME: &str = "credentials";

/// The access key of one profile, with its session token if it has one; `None` when the file has no such profile or
/// the profile no whole key.
pub(crate) fn parse(text: &str, profile: &str) -> Option<(Credentials, Option<String>)> {
    let mut inside = false;
    let (mut access_key, mut secret, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = name.trim() == profile;
        } else if inside && !line.starts_with(['#', ';']) {
            let Some((name, value)) = line.split_once('=') else { continue };
            let value = Some(value.trim()).filter(|value| !value.is_empty());
            match name.trim().to_ascii_lowercase().as_str() {
                "aws_access_key_id" => access_key = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    let credentials = Credentials { access_key: access_key?.to_owned(), secret: Secret::new(secret?) };
    Some((credentials, token.map(str::to_owned)))
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
        assert_eq!(parse(&text, "default"), Some((credentials, None)));
        assert_eq!(parse(&text, "other"), None);
    }

    #[test]
    fn files_that_people_write_are_read() {
        let text = "; mine\n[default]\naws_access_key_id=A\n\n[ work ]\nAWS_ACCESS_KEY_ID = B\n  # no\naws_secret_access_key =\ts=s==\n\
                    region = x\naws_session_token = t\n[half]\naws_access_key_id = C\n";
        let (work, token) = parse(text, "work").unwrap();
        assert_eq!(
            (work.access_key.as_str(), work.secret.reveal(), token.as_deref()),
            ("B", "s=s==", Some("t"))
        );
        assert_eq!(parse(text, "default"), None);
        assert_eq!(parse(text, "half"), None);
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(text in "([\\[\\]=#\n]|aws_access_key_id|default|\\PC){0,60}") {
            let _ = parse(&text, "default");
        }
    }
}
