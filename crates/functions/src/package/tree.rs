//! What an archive's entries add up to: one tree of folders, files and links, in which nothing is in doubt.
//!
//! The tree is complete before the first byte is written, so writing it meets no surprise: every name is a plain
//! relative path, nothing is there twice, no link leads out, and nothing lies behind a link.

use super::archive::Entry;
use super::error::{EntryName, PackageError};
use martlet_model::limits;
use std::collections::BTreeMap;

/// Longest path of an entry, in bytes; leaves room below the system's 4,096 for the folder it is unpacked in.
const LONGEST_PATH: usize = 1_024;
/// Longest single name that Linux file systems take, in bytes.
const LONGEST_NAME: usize = 255;
/// Most folders that an entry may lie in. Each costs a folder on disk that the archive need not mention, and the
/// deepest packages in the wild, of modules within modules, need a few dozen.
const DEEPEST: usize = 100;
/// How many links the kernel follows before it gives up.
const LINK_HOPS: usize = 40;

const TYPE_MASK: u32 = 0o170_000;
const TYPE_FOLDER: u32 = 0o040_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_LINK: u32 = 0o120_000;

/// The place of a node in [`Tree::nodes`]; a parent always stands before its children.
type NodeId = usize;
const ROOT: NodeId = 0;

#[derive(Debug)]
pub(crate) struct Node<'a> {
    pub(crate) parent: NodeId,
    pub(crate) name: &'a str,
    pub(crate) kind: Kind<'a>,
}

#[derive(Debug)]
pub(crate) enum Kind<'a> {
    Folder,
    File { entry: &'a Entry<'a>, executable: bool },
    Link { entry: &'a Entry<'a>, target: String },
}

/// The whole package. Node 0 is its root.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    pub(crate) nodes: Vec<Node<'a>>,
    children: BTreeMap<(NodeId, &'a str), NodeId>,
}

/// What one entry is, by its mode and its name.
enum EntryKind {
    Folder,
    File,
    Link,
}

impl<'a> Tree<'a> {
    /// Puts the entries together.
    ///
    /// # Errors
    /// The first entry that has no place in the tree, in the archive's order; links come last.
    pub(crate) fn build(entries: &'a [Entry<'a>]) -> Result<Self, PackageError> {
        let root = Node { parent: ROOT, name: "", kind: Kind::Folder };
        let mut tree = Self { nodes: vec![root], children: BTreeMap::new() };
        for entry in entries {
            tree.insert(entry)?;
        }
        for id in 0..tree.nodes.len() {
            if let Kind::Link { entry, target } = &tree.nodes[id].kind {
                tree.follow(tree.nodes[id].parent, target, entry)?;
            }
        }
        Ok(tree)
    }

    /// The node's path below the root.
    pub(crate) fn path(&self, mut id: NodeId) -> String {
        let mut names = Vec::new();
        while id != ROOT {
            names.push(self.nodes[id].name);
            id = self.nodes[id].parent;
        }
        names.reverse();
        names.join("/")
    }

    fn insert(&mut self, entry: &'a Entry<'a>) -> Result<(), PackageError> {
        let kind = kind_of(entry)?;
        let names = components(entry)?;
        let Some((last, folders)) = names.split_last() else {
            // The package's own root, which some tools add as "./".
            let folder = matches!(kind, EntryKind::Folder);
            return if folder { Ok(()) } else { Err(PackageError::NameLength(entry.shown())) };
        };
        let mut parent = ROOT;
        for name in folders {
            parent = self.folder(parent, name, entry)?;
        }
        match kind {
            EntryKind::Folder => {
                self.folder(parent, last, entry)?;
                Ok(())
            }
            EntryKind::File => {
                let executable = entry.unix_mode & 0o111 != 0;
                self.leaf(parent, last, entry, Kind::File { entry, executable })
            }
            EntryKind::Link => {
                let target = link_target(entry)?;
                self.leaf(parent, last, entry, Kind::Link { entry, target })
            }
        }
    }

    fn folder(&mut self, parent: NodeId, name: &'a str, entry: &Entry<'_>) -> Result<NodeId, PackageError> {
        match self.children.get(&(parent, name)) {
            Some(&id) if matches!(self.nodes[id].kind, Kind::Folder) => Ok(id),
            Some(_) => Err(PackageError::Conflict(entry.shown())),
            None => self.add(parent, name, Kind::Folder),
        }
    }

    fn leaf(
        &mut self,
        parent: NodeId,
        name: &'a str,
        entry: &Entry<'_>,
        kind: Kind<'a>,
    ) -> Result<(), PackageError> {
        match self.children.get(&(parent, name)) {
            Some(&id) if matches!(self.nodes[id].kind, Kind::Folder) => {
                Err(PackageError::Conflict(entry.shown()))
            }
            Some(_) => Err(PackageError::Duplicate(entry.shown())),
            None => self.add(parent, name, kind).map(drop),
        }
    }

    /// Folders that no entry names count as entries, too: a deep name must not cost more than a wide archive.
    fn add(&mut self, parent: NodeId, name: &'a str, kind: Kind<'a>) -> Result<NodeId, PackageError> {
        let id = self.nodes.len();
        if id > limits::PACKAGE_ENTRIES {
            return Err(PackageError::TooManyEntries { entries: id as u64, limit: limits::PACKAGE_ENTRIES });
        }
        self.nodes.push(Node { parent, name, kind });
        self.children.insert((parent, name), id);
        Ok(id)
    }

    /// Walks a link's target as the kernel would, through other links of the package, and sees to it that no
    /// step leaves the root. A name that is not there ends the walk: the kernel ends there, too.
    fn follow(&self, from: NodeId, target: &str, link: &Entry<'_>) -> Result<(), PackageError> {
        let mut at = from;
        let mut hops = 0;
        let mut ahead: Vec<&str> = target.split('/').rev().collect();
        while let Some(name) = ahead.pop() {
            match name {
                "" | "." => {}
                ".." if at == ROOT => return Err(PackageError::LinkEscapes(link.shown())),
                ".." => at = self.nodes[at].parent,
                name => match self.children.get(&(at, name)) {
                    None => {
                        return climbs_no_further(self.depth(at), &ahead)
                            .then_some(())
                            .ok_or_else(|| PackageError::LinkEscapes(link.shown()));
                    }
                    Some(&next) => match &self.nodes[next].kind {
                        Kind::Link { target, .. } => {
                            hops += 1;
                            if hops > LINK_HOPS {
                                return Err(PackageError::LinkLoop(link.shown()));
                            }
                            ahead.extend(target.split('/').rev());
                        }
                        Kind::Folder | Kind::File { .. } => at = next,
                    },
                },
            }
        }
        Ok(())
    }

    fn depth(&self, mut id: NodeId) -> usize {
        let mut depth = 0;
        while id != ROOT {
            id = self.nodes[id].parent;
            depth += 1;
        }
        depth
    }
}

/// Behind a name that is not there the rest can only be judged by its letters.
fn climbs_no_further(depth: usize, ahead: &[&str]) -> bool {
    let mut depth = depth + 1;
    for name in ahead.iter().rev() {
        match *name {
            "" | "." => {}
            ".." => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return false,
            },
            _ => depth += 1,
        }
    }
    true
}

fn kind_of(entry: &Entry<'_>) -> Result<EntryKind, PackageError> {
    let named_folder = entry.raw_name.ends_with(b"/");
    let kind = match entry.unix_mode & TYPE_MASK {
        TYPE_FOLDER => EntryKind::Folder,
        TYPE_LINK => EntryKind::Link,
        // Archives made without Unix modes tell folders by their name alone.
        0 | TYPE_FILE if named_folder => EntryKind::Folder,
        0 | TYPE_FILE => EntryKind::File,
        _ => return Err(PackageError::Special(entry.shown())),
    };
    match kind {
        EntryKind::Folder if entry.unpacked_bytes > 0 => Err(PackageError::FolderWithContent(entry.shown())),
        EntryKind::Link if named_folder => Err(PackageError::Conflict(entry.shown())),
        kind => Ok(kind),
    }
}

/// The names along an entry's path, without the empty ones and `.`, which mean nothing.
fn components<'a>(entry: &Entry<'a>) -> Result<Vec<&'a str>, PackageError> {
    let shown = || entry.shown();
    let name = std::str::from_utf8(entry.raw_name).map_err(|_| PackageError::NameEncoding(shown()))?;
    if name.is_empty() || name.len() > LONGEST_PATH {
        return Err(PackageError::NameLength(shown()));
    }
    if name.contains('\0') {
        return Err(PackageError::NameNul(shown()));
    }
    if name.contains('\\') {
        return Err(PackageError::NameBackslash(shown()));
    }
    if name.starts_with('/') || has_drive_letter(name) {
        return Err(PackageError::NameAbsolute(shown()));
    }
    let mut names = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(PackageError::NameClimbs(shown())),
            part if part.len() > LONGEST_NAME => return Err(PackageError::NameLength(shown())),
            part => names.push(part),
        }
    }
    if names.len() > DEEPEST + 1 {
        return Err(PackageError::NameDeep(shown(), DEEPEST));
    }
    Ok(names)
}

fn has_drive_letter(name: &str) -> bool {
    matches!(name.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic())
}

fn link_target(entry: &Entry<'_>) -> Result<String, PackageError> {
    let wrong = || PackageError::LinkTarget(EntryName::new(entry.raw_name));
    if entry.unpacked_bytes == 0 || entry.unpacked_bytes > LONGEST_PATH as u64 {
        return Err(wrong());
    }
    let mut target = Vec::new();
    entry.inflate(|chunk| {
        target.extend_from_slice(chunk);
        Ok::<(), PackageError>(())
    })?;
    match String::from_utf8(target) {
        Ok(target) if !target.starts_with('/') && !target.contains(['\0', '\\']) => Ok(target),
        _ => Err(wrong()),
    }
}
