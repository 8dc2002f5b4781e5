//! The parts of the host that every sandbox sees: programs, libraries, certificates, and a handful of files in `/etc`
//! that hold no secret.

use std::fs;
use std::path::{Path, PathBuf};

/// Found once, when the launcher starts.
pub(super) struct System {
    /// Shown at the same path. One that vanishes later is left out.
    pub(super) binds: Vec<PathBuf>,
    /// Path and target: `/bin` and its kin, where they are links into `/usr`.
    pub(super) links: Vec<(PathBuf, PathBuf)>,
}

/// Programs and libraries.
const DIRECTORIES: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store"];

/// Public configuration that programs from those directories need: links between alternatives, the linker's cache, trust
/// anchors, names of ports and protocols.
const CONFIGURATION: [&str; 14] = [
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/openssl.cnf",
    "/etc/pki/ca-trust/extracted",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/os-release",
    "/etc/services",
    "/etc/protocols",
];

/// A Java runtime of a distribution keeps half of its files in `/etc/java-17-openjdk` or the like.
const CONFIGURATION_PREFIX: &str = "java";

/// Device nodes that are safe in anybody's hands.
pub(super) const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

impl System {
    pub(super) fn discover() -> Self {
        let mut system = Self { binds: Vec::new(), links: Vec::new() };
        for path in DIRECTORIES.iter().map(Path::new) {
            match fs::symlink_metadata(path) {
                Ok(found) if found.is_symlink() => {
                    system.links.extend(fs::read_link(path).map(|target| (path.to_owned(), target)));
                }
                Ok(found) if found.is_dir() => system.binds.push(path.to_owned()),
                _ => {}
            }
        }
        system.binds.extend(CONFIGURATION.iter().map(PathBuf::from).filter(|path| path.exists()));
        let entries = fs::read_dir("/etc").into_iter().flatten().flatten();
        system.binds.extend(
            entries
                .filter(|entry| {
                    entry.file_name().as_encoded_bytes().starts_with(CONFIGURATION_PREFIX.as_bytes())
                })
                .map(|entry| entry.path()),
        );
        system
    }

    /// Whether `path` lies inside of what every sandbox sees of the host, or is reached through one of the links.
    pub(super) fn holds(&self, path: &Path) -> bool {
        self.binds.iter().chain(self.links.iter().map(|(link, _)| link)).any(|place| path.starts_with(place))
    }
}

/// The rest of `/etc`, made up: one ordinary user, local names only. `files` of a specification replace these.
pub(super) fn synthetic_files(hostname: &str) -> [(&'static str, String); 6] {
    let uid = super::workplace::INNER_UID;
    [
        (
            "/etc/passwd",
            format!(
                "root:x:0:0:root:/root:/sbin/nologin\nsbx_user1051:x:{uid}:{uid}::/home/sbx_user1051:/sbin/nologin\n"
            ),
        ),
        ("/etc/group", format!("root:x:0:\nsbx_user1051:x:{uid}:\n")),
        // No ::1: clients that take the first answer would miss a service on 127.0.0.1.
        ("/etc/hosts", format!("127.0.0.1 localhost\n127.0.0.1 {hostname}\n")),
        ("/etc/hostname", format!("{hostname}\n")),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".into()),
        ("/etc/resolv.conf", "# no name server: this environment has no network\n".into()),
    ]
}
