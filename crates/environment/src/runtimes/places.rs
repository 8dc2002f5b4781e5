//! Where interpreters are looked for.

use std::path::{Path, PathBuf};

/// An ordered list of directories that may hold interpreters; earlier ones win.
#[derive(Clone, Debug, Default)]
pub struct Places {
    directories: Vec<PathBuf>,
}

impl Places {
    /// `extra` first, then PATH, `/usr/local/bin`, `/usr/bin`, `/opt/*/bin`, and what pyenv and nvm installed for the
    /// user of this process and, under sudo, for the user who asked for it.
    #[must_use]
    pub fn of_this_process(extra: &[PathBuf]) -> Self {
        let mut places = Self::default();
        for directory in extra {
            places.add(directory.clone());
            places.add(directory.join("bin"));
        }
        for directory in std::env::var_os("PATH").iter().flat_map(std::env::split_paths) {
            places.add(directory);
        }
        places.add("/usr/local/bin".into());
        places.add("/usr/bin".into());
        places.add_versions(Path::new("/opt"));
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        places.add_managers(variable("HOME").as_deref(), variable("PYENV_ROOT"), variable("NVM_DIR"));
        if let Some(user) = std::env::var_os("SUDO_USER") {
            let home = user.to_str().and_then(|user| home_of(user, &read_passwd()));
            places.add_managers(home.as_deref(), None, None);
        }
        places
    }

    /// The directories, in order and each once.
    #[must_use]
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Appends a directory. Relative ones mean nothing to a server and are left out.
    pub fn add(&mut self, directory: PathBuf) {
        if directory.is_absolute() && !self.directories.contains(&directory) {
            self.directories.push(directory);
        }
    }

    fn add_managers(&mut self, home: Option<&Path>, pyenv: Option<PathBuf>, nvm: Option<PathBuf>) {
        if let Some(pyenv) = pyenv.or_else(|| home.map(|home| home.join(".pyenv"))) {
            self.add_versions(&pyenv.join("versions"));
        }
        if let Some(nvm) = nvm.or_else(|| home.map(|home| home.join(".nvm"))) {
            self.add_versions(&nvm.join("versions/node"));
        }
    }

    /// Adds `parent/*/bin`, newest version first.
    fn add_versions(&mut self, parent: &Path) {
        let Ok(entries) = parent.read_dir() else { return };
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort_by_cached_key(|name| std::cmp::Reverse(numbers(&name.to_string_lossy())));
        for name in names {
            self.add(parent.join(name).join("bin"));
        }
    }
}

/// The numbers in a name, for ordering `3.9.18` before `3.10.1`.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn read_passwd() -> String {
    std::fs::read("/etc/passwd").map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn home_of(user: &str, passwd: &str) -> Option<PathBuf> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(user)).then(|| fields.nth(4)).flatten().map(PathBuf::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_by_number() {
        let mut names = ["v9.1.0", "v20.20.2", "v20.3.1"];
        names.sort_by_key(|name| std::cmp::Reverse(numbers(name)));
        assert_eq!(names, ["v20.20.2", "v20.3.1", "v9.1.0"]);
    }

    #[test]
    fn homes_are_read_from_the_user_database() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nme:x:1000:1000:Me,,,:/home/me:/bin/sh\nbroken:x\n";
        assert_eq!(home_of("me", passwd), Some("/home/me".into()));
        assert_eq!(home_of("broken", passwd), None);
        assert_eq!(home_of("nobody", passwd), None);
    }

    #[test]
    fn each_directory_is_searched_once_and_relative_ones_never() {
        let mut places = Places::default();
        for directory in ["/a", "b", "/a", "/c"] {
            places.add(directory.into());
        }
        assert_eq!(places.directories(), [PathBuf::from("/a"), PathBuf::from("/c")]);
    }
}
