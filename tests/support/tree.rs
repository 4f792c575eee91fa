//! A directory tree as a value, to compare what was there with what came back.
#![allow(dead_code, reason = "each test program uses what it needs of it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A directory tree with all that a restore has to bring back, without our own directory in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tree(BTreeMap<Vec<u8>, Node>);

/// One entry of a [`Tree`].
#[derive(PartialEq, Eq)]
pub(crate) enum Node {
    /// A file: mode, modification time, content.
    File(u32, i128, Vec<u8>),
    /// A directory: mode.
    Dir(u32),
    /// A symbolic link: target.
    Link(PathBuf),
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(mode, mtime, content) => {
                let start = String::from_utf8_lossy(&content[..content.len().min(40)]);
                write!(f, "file {mode:o} {mtime} {} {start:?}", content.len())
            }
            Self::Dir(mode) => write!(f, "dir {mode:o}"),
            Self::Link(target) => write!(f, "link {}", target.display()),
        }
    }
}

impl Tree {
    /// Reads it; what vanishes meanwhile is left out.
    pub(crate) fn of(root: &Path) -> Self {
        let mut tree = Self(BTreeMap::new());
        tree.read(root, Path::new(""));
        tree
    }

    fn read(&mut self, root: &Path, below: &Path) {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::MetadataExt;
        let Ok(entries) = fs::read_dir(root.join(below)) else {
            return;
        };
        for entry in entries.flatten() {
            let path = below.join(entry.file_name());
            if path == Path::new(".sessionkeep") {
                continue;
            }
            let Ok(meta) = fs::symlink_metadata(root.join(&path)) else {
                continue;
            };
            let mode = meta.mode() & 0o7777;
            let node = if meta.is_dir() {
                self.read(root, &path);
                Node::Dir(mode)
            } else if meta.is_symlink() {
                Node::Link(fs::read_link(root.join(&path)).unwrap_or_default())
            } else if meta.is_file() {
                let time = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
                Node::File(mode, time, fs::read(root.join(&path)).unwrap_or_default())
            } else {
                continue;
            };
            self.0.insert(path.as_os_str().as_bytes().to_vec(), node);
        }
    }

    /// A file's content.
    pub(crate) fn content(&self, name: &str) -> Option<&[u8]> {
        match self.0.get(name.as_bytes()) {
            Some(Node::File(_, _, content)) => Some(content),
            _ => None,
        }
    }

    /// All files, by name, with their content.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().filter_map(|(name, node)| match node {
            Node::File(_, _, content) => Some((name.as_slice(), content.as_slice())),
            Node::Dir(_) | Node::Link(_) => None,
        })
    }

    /// A file's content as text.
    #[track_caller]
    pub(crate) fn text(&self, name: &str) -> &str {
        let content = self
            .content(name)
            .unwrap_or_else(|| panic!("no {name} in {self:?}"));
        std::str::from_utf8(content).expect("text")
    }

    /// Whether there is such an entry.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name.as_bytes())
    }

    /// Whether there is nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes an entry out.
    pub(crate) fn take(&mut self, name: &[u8]) -> Option<Node> {
        self.0.remove(name)
    }
}
