//! What one entry of a session directory is: its path, its metadata, its kind.
//!
//! This is the vocabulary that `sessionkeep-session` (which reads and writes directories) and
//! `sessionkeep-archive` (which keeps their history) share, so that neither has to know the other.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Longest file name that Linux file systems take, in bytes.
pub const NAME_MAX: usize = 255;
/// Longest path below the session directory that is archived, in bytes. Linux's `PATH_MAX` is
/// 4096 for the whole path; what is left covers the directory it is restored into.
pub const PATH_MAX: usize = 3072;

/// Why a path cannot be an entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path has no component.
    #[error("the path is empty")]
    Empty,
    /// The path starts at the root or leaves the session directory.
    #[error("the path {0:?} leaves the session directory")]
    Escapes(String),
    /// A component or the whole is longer than a file system takes, or holds a NUL byte.
    #[error("the path {0:?} has a name that no file system takes")]
    Unusable(String),
}

/// A path below the session directory: relative, `/`-separated, without `.`, `..`, empty
/// components or NUL bytes. Bytes, not text: Linux file names need not be UTF-8.
///
/// The empty path is not a `RelPath`; the session directory itself is no entry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "serde_bytes::ByteBuf", into = "serde_bytes::ByteBuf")]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// Checks `bytes` and takes them as a path.
    ///
    /// # Errors
    /// [`PathError`] where the path is empty, absolute, leaves the directory, or cannot exist.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes: Vec<u8> = bytes.into();
        let shown = || String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        if bytes.is_empty() {
            return Err(PathError::Empty);
        }
        if bytes.len() > PATH_MAX || bytes.contains(&0) {
            return Err(PathError::Unusable(shown()));
        }
        if bytes[0] == b'/' {
            return Err(PathError::Escapes(shown()));
        }
        for part in bytes.split(|b| *b == b'/') {
            match part {
                b"" | b"." | b".." => return Err(PathError::Escapes(shown())),
                part if part.len() > NAME_MAX => return Err(PathError::Unusable(shown())),
                _ => {}
            }
        }
        Ok(Self(bytes.into_boxed_slice()))
    }

    /// Takes a relative [`Path`].
    ///
    /// # Errors
    /// As [`RelPath::new`].
    pub fn from_path(path: &Path) -> Result<Self, PathError> {
        Self::new(path.as_os_str().as_bytes())
    }

    /// The path's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as the standard library's type, still relative.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The path below `root`.
    #[must_use]
    pub fn under(&self, root: &Path) -> PathBuf {
        root.join(self.as_path())
    }

    /// The last component.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.split().1
    }

    /// The directory part (empty for an entry at the top) and the last component.
    #[must_use]
    pub fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|b| *b == b'/') {
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
            None => (&[], &self.0),
        }
    }

    /// The directory this entry is in; `None` at the top.
    #[must_use]
    pub fn parent(&self) -> Option<RelPath> {
        let (dir, _) = self.split();
        (!dir.is_empty()).then(|| Self(dir.into()))
    }

    /// The path itself, the directory it is in, and so on up to the top.
    pub fn ancestors(&self) -> impl Iterator<Item = RelPath> {
        std::iter::successors(Some(self.clone()), RelPath::parent)
    }

    /// The path of `name` inside directory `dir`, where an empty `dir` is the top.
    ///
    /// # Errors
    /// As [`RelPath::new`].
    pub fn join(dir: &[u8], name: &[u8]) -> Result<Self, PathError> {
        let mut bytes = Vec::with_capacity(dir.len() + 1 + name.len());
        if !dir.is_empty() {
            bytes.extend_from_slice(dir);
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Self::new(bytes)
    }

    /// Whether this is `dir` itself or lies below it.
    #[must_use]
    pub fn is_within(&self, dir: &RelPath) -> bool {
        self.0
            .strip_prefix(&*dir.0)
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl TryFrom<serde_bytes::ByteBuf> for RelPath {
    type Error = PathError;
    fn try_from(bytes: serde_bytes::ByteBuf) -> Result<Self, PathError> {
        Self::new(bytes.into_vec())
    }
}

impl From<RelPath> for serde_bytes::ByteBuf {
    fn from(path: RelPath) -> Self {
        Self::from(path.0.into_vec())
    }
}

/// A BLAKE3 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..6]))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            to.serialize_str(&hex::encode(self.0))
        } else {
            self.0.serialize(to)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
            let mut out = [0; 32];
            hex::decode_to_slice(text.as_bytes(), &mut out).map_err(serde::de::Error::custom)?;
            Ok(Self(out))
        } else {
            <[u8; 32]>::deserialize(from).map(Self)
        }
    }
}

/// A file's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// The metadata that a restore brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Meta {
    /// Permission bits (`mode & 0o7777`).
    pub mode: u32,
    /// Time of the last change of the content, in nanoseconds since 1970; may be negative.
    pub mtime_ns: i64,
    /// The owner; set again only where the restoring process runs as root.
    pub owner: Owner,
}

/// What kind of entry it is, with what is proper to the kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// Hash of the whole content.
        hash: Digest,
    },
    /// A directory, perhaps empty.
    Dir,
    /// A symbolic link whose target is relative and stays inside the session directory.
    Symlink {
        /// The target, as in `readlink`.
        #[serde(with = "serde_bytes")]
        target: Vec<u8>,
    },
}

/// Whether the symbolic link `at`, pointing to `target`, stays inside the session directory.
///
/// The check is lexical, as if no other link stood on the way; links to links are each checked
/// by themselves when they are read and when they are restored.
#[must_use]
pub fn symlink_stays_inside(at: &RelPath, target: &[u8]) -> bool {
    if target.is_empty() || target[0] == b'/' || target.contains(&0) || target.len() > PATH_MAX {
        return false;
    }
    let mut depth = at.as_bytes().iter().filter(|b| **b == b'/').count();
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return false,
            },
            _ => depth += 1,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_directory_are_refused() {
        for bad in [
            "",
            "/etc/passwd",
            "..",
            "../x",
            "a/../b",
            "a//b",
            "./a",
            "a/.",
            "a/",
            "a\0b",
        ] {
            assert!(RelPath::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(RelPath::new(vec![b'a'; NAME_MAX + 1]).is_err());
        for good in ["a", "a/b", ".a", "..a", "a..", "a/..b/c"] {
            assert!(RelPath::new(good).is_ok(), "{good:?} was refused");
        }
        assert!(
            RelPath::new(vec![0xff, 0xfe]).is_ok(),
            "names need not be UTF-8"
        );
    }

    #[test]
    fn links_that_leave_the_directory_are_found() {
        let at = |p: &str| RelPath::new(p).expect("path");
        assert!(symlink_stays_inside(&at("a/b"), b"../c"));
        assert!(symlink_stays_inside(&at("a"), b"b/../c"));
        assert!(!symlink_stays_inside(&at("a"), b"../c"));
        assert!(!symlink_stays_inside(&at("a/b"), b"../../c"));
        assert!(!symlink_stays_inside(&at("a/b"), b"c/../../../d"));
        assert!(!symlink_stays_inside(&at("a"), b"/etc/passwd"));
        assert!(!symlink_stays_inside(&at("a"), b""));
    }

    #[test]
    fn being_within_a_directory_goes_by_components() {
        let p = |p: &str| RelPath::new(p).expect("path");
        assert!(p("a/b").is_within(&p("a")));
        assert!(p("a").is_within(&p("a")));
        assert!(!p("ab").is_within(&p("a")));
    }
}
