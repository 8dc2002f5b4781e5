//! Which version an interpreter is, without running it where possible.

use super::{Candidate, Language};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The versions of `candidates`, in order; `None` for one that does not tell.
pub(super) fn of_all(candidates: &[Candidate], timeout: Duration) -> Vec<Option<String>> {
    enum Source {
        Known(Option<String>),
        Asked(Child),
    }
    // All questions are asked before the first answer is waited for.
    let sources: Vec<Source> = candidates
        .iter()
        .map(|candidate| match from_files(candidate) {
            Some(version) => Source::Known(Some(version)),
            None => match ask(candidate) {
                Some(child) => Source::Asked(child),
                None => Source::Known(from_directory(&candidate.path)),
            },
        })
        .collect();
    let deadline = Instant::now() + timeout;
    sources
        .into_iter()
        .zip(candidates)
        .map(|(source, candidate)| match source {
            Source::Known(version) => version,
            Source::Asked(child) => answer(child, deadline).or_else(|| from_directory(&candidate.path)),
        })
        .collect()
}

/// From the headers that come with the interpreter.
fn from_files(candidate: &Candidate) -> Option<String> {
    let prefix = candidate.prefix()?;
    match candidate.language {
        Language::Python => {
            let name = candidate.path.file_name()?.to_str()?;
            let header = prefix.join("include").join(name).join("patchlevel.h");
            let text = std::fs::read_to_string(header).ok()?;
            let version = define(&text, "PY_VERSION")?.trim_matches('"').to_owned();
            looks_like_version(&version).then_some(version)
        }
        Language::Node => {
            let text = std::fs::read_to_string(prefix.join("include/node/node_version.h")).ok()?;
            let part = |name| define(&text, name)?.parse::<u32>().ok();
            Some(format!(
                "{}.{}.{}",
                part("NODE_MAJOR_VERSION")?,
                part("NODE_MINOR_VERSION")?,
                part("NODE_PATCH_VERSION")?
            ))
        }
    }
}

fn define<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("#define") && words.next() == Some(name)).then(|| words.next()).flatten()
    })
}

/// From the directory that a version manager put it in: `.../versions/3.12.1/bin/python3.12`, `.../v20.1.0/bin/node`.
fn from_directory(path: &Path) -> Option<String> {
    let name = path.parent()?.parent()?.file_name()?.to_str()?;
    let version = name.strip_prefix('v').unwrap_or(name);
    looks_like_version(version).then(|| version.to_owned())
}

fn looks_like_version(text: &str) -> bool {
    text.len() < 32 && text.starts_with(|c: char| c.is_ascii_digit()) && text.contains('.')
}

/// Runs `--version`. Root runs nothing that belongs to somebody else.
fn ask(candidate: &Candidate) -> Option<Child> {
    if rustix::process::geteuid().is_root() && candidate.owner != 0 {
        return None;
    }
    Command::new(&candidate.path)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()
}

fn answer(mut child: Child, deadline: Instant) -> Option<String> {
    let version = child.stdout.take().and_then(|mut output| {
        let left = deadline.saturating_duration_since(Instant::now());
        let left =
            Timespec { tv_sec: i64::try_from(left.as_secs()).ok()?, tv_nsec: left.subsec_nanos().into() };
        let ready = poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&left)).ok()?;
        if ready == 0 {
            return None;
        }
        let mut text = [0; 64];
        let length = output.read(&mut text).ok()?;
        parse_answer(&String::from_utf8_lossy(&text[..length]))
    });
    // It has answered or is too late: either way nothing of it is to remain.
    let _ = child.kill();
    let _ = child.wait();
    version
}

/// `Python 3.12.1` or `v20.1.0`.
fn parse_answer(text: &str) -> Option<String> {
    let text = text.trim();
    let version = text.strip_prefix("Python ").or_else(|| text.strip_prefix('v'))?;
    looks_like_version(version).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        assert_eq!(parse_answer("Python 3.12.1\n").as_deref(), Some("3.12.1"));
        assert_eq!(parse_answer("v20.20.2\n").as_deref(), Some("20.20.2"));
        for strange in ["", "Python", "Python x.y", "vest", "3.12.1"] {
            assert_eq!(parse_answer(strange), None, "{strange}");
        }
    }

    #[test]
    fn headers_and_directories_are_read() {
        let header = "#define PY_MAJOR_VERSION 3\n\n#define PY_VERSION      \t\"3.12.1\"\n/*--*/\n";
        assert_eq!(define(header, "PY_VERSION"), Some("\"3.12.1\""));
        assert_eq!(define(header, "PY_MINOR_VERSION"), None);
        let version = |path: &str| from_directory(Path::new(path));
        assert_eq!(version("/r/.pyenv/versions/3.12.1/bin/python3.12").as_deref(), Some("3.12.1"));
        assert_eq!(version("/h/.nvm/versions/node/v20.1.0/bin/node").as_deref(), Some("20.1.0"));
        assert_eq!(version("/opt/tools/bin/node"), None);
        assert_eq!(version("/node"), None);
    }
}
