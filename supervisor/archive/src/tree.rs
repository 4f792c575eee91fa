//! The tree of a session directory: entries by directory, and their Merkle root.
//!
//! The root of a directory is BLAKE3 over its entries in byte order of their names, where an entry
//! that is a directory stands with its own root. Roots are kept, so that a commit costs the hashing
//! of the directories on the way to what it changed, not of the whole tree.
//!
//! Kept compact, because the watcher holds one of these for as long as it lives: a `Folder` for
//! each directory, so that a path's directory part is stored once.

use std::collections::BTreeMap;

use super::folder::Folder;
use sessionkeep_core::entry::{Digest, EntryKind, Meta, PathError, RelPath};

/// Domain separation: a root can be no other hash of ours.
const CONTEXT: &str = "sessionkeep 2026-11 tree root, format 1";

/// One entry, with whatever its holder keeps beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf<T> {
    /// Mode, time, owner.
    pub meta: Meta,
    /// File, directory or link.
    pub kind: EntryKind,
    /// The holder's own.
    pub extra: T,
}

/// The path of `name` in directory `dir`.
fn below(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match dir {
        [] => name.to_vec(),
        dir => [dir, b"/", name].concat(),
    }
}

/// Entries by path.
#[derive(Debug, Clone)]
pub struct Tree<T> {
    /// By directory path; the empty path is the session directory.
    folders: BTreeMap<Box<[u8]>, Folder<T>>,
    entries: u64,
    files: u64,
    bytes: u64,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self {
            folders: BTreeMap::new(),
            entries: 0,
            files: 0,
            bytes: 0,
        }
    }
}

impl<T> Tree<T> {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entries there are, of every kind.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.entries
    }

    /// Whether there is no entry at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// How many regular files there are.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.files
    }

    /// How many bytes all files' contents have together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The entry at `path`.
    #[must_use]
    pub fn get(&self, path: &RelPath) -> Option<&Leaf<T>> {
        let (dir, name) = path.split();
        let folder = self.folders.get(dir)?;
        folder.get(name)
    }

    /// The entry at `path`, for changing what the holder keeps beside it. Metadata and kind belong
    /// to the root: change them by [`Tree::insert`].
    pub fn extra_mut(&mut self, path: &RelPath) -> Option<&mut T> {
        let (dir, name) = path.split();
        let leaf = self.folders.get_mut(dir)?.get_mut(name)?;
        Some(&mut leaf.extra)
    }

    /// Puts an entry, and gives what was there.
    pub fn insert(&mut self, path: &RelPath, leaf: Leaf<T>) -> Option<Leaf<T>> {
        let (dir, name) = path.split();
        self.count(&leaf, 1);
        if !self.folders.contains_key(dir) {
            self.folders.insert(dir.into(), Folder::default());
        }
        let folder = self.folders.get_mut(dir).expect("was just made");
        let old = folder.insert(name, leaf);
        if let Some(old) = &old {
            self.count(old, -1);
        }
        self.forget_roots(dir);
        old
    }

    /// Takes an entry out. What lies below a directory stays: see [`Tree::below`].
    pub fn remove(&mut self, path: &RelPath) -> Option<Leaf<T>> {
        let (dir, name) = path.split();
        let folder = self.folders.get_mut(dir)?;
        let old = folder.remove(name)?;
        if folder.is_empty() {
            self.folders.remove(dir);
        }
        self.count(&old, -1);
        self.forget_roots(dir);
        Some(old)
    }

    /// The paths of all that lies below `path` (not `path` itself), directories before their content.
    #[must_use]
    pub fn below(&self, path: &RelPath) -> Vec<RelPath> {
        let mut prefix = path.as_bytes().to_vec();
        prefix.push(b'/');
        let own = self
            .folders
            .get(path.as_bytes())
            .map(|folder| (path.as_bytes(), folder));
        let deeper = self
            .folders
            .range::<[u8], _>((
                std::ops::Bound::Included(&prefix[..]),
                std::ops::Bound::Unbounded,
            ))
            .take_while(|(dir, _)| dir.starts_with(&prefix))
            .map(|(dir, folder)| (&**dir, folder));
        own.into_iter()
            .chain(deeper)
            .flat_map(|(dir, folder)| folder.iter().map(move |(name, _)| (dir, name)))
            .map(|(dir, name)| RelPath::join(dir, name).expect("was a path when it was put in"))
            .collect()
    }

    /// All entries; a directory's come together, by name, and a directory comes before its content.
    pub fn iter(&self) -> impl Iterator<Item = (RelPath, &Leaf<T>)> {
        self.folders.iter().flat_map(|(dir, folder)| {
            folder.iter().map(move |(name, leaf)| {
                (
                    RelPath::join(dir, name).expect("was a path when it was put in"),
                    leaf,
                )
            })
        })
    }

    /// The paths of the entries that `wanted` says yes to; as [`Tree::iter`], but no other's path is
    /// put together.
    pub fn paths_of(&self, wanted: impl Fn(&Leaf<T>) -> bool) -> impl Iterator<Item = RelPath> {
        self.folders.iter().flat_map(move |(dir, folder)| {
            let of_these: Vec<RelPath> = folder
                .iter()
                .filter(|(_, leaf)| wanted(leaf))
                .map(|(name, _)| RelPath::join(dir, name).expect("was a path when it was put in"))
                .collect();
            of_these
        })
    }

    /// The same tree with other things kept beside the entries.
    #[must_use]
    pub fn map<U>(self, mut change: impl FnMut(T) -> U) -> Tree<U> {
        let folders = self.folders.into_iter();
        let folders = folders.map(|(dir, folder)| (dir, folder.map(&mut change)));
        let folders = folders.collect();
        Tree {
            folders,
            entries: self.entries,
            files: self.files,
            bytes: self.bytes,
        }
    }

    /// Gives back the room that growing left over.
    pub fn shrink(&mut self) {
        for folder in self.folders.values_mut() {
            folder.shrink();
        }
    }

    /// Whether every entry stands in a directory that is an entry itself, and nothing stands below
    /// a file: what a scan gives by itself and a forged archive need not.
    ///
    /// # Errors
    /// The first path that does not stand in a directory.
    pub fn check_shape(&self) -> Result<(), PathError> {
        for (dir, folder) in &self.folders {
            if dir.is_empty() || folder.is_empty() {
                continue;
            }
            let path = RelPath::new(dir.to_vec())?;
            if !matches!(
                self.get(&path),
                Some(Leaf {
                    kind: EntryKind::Dir,
                    ..
                })
            ) {
                return Err(PathError::Unusable(path.to_string()));
            }
        }
        Ok(())
    }

    /// The Merkle root of the whole tree.
    #[must_use]
    pub fn root(&self) -> Digest {
        // No recursion: paths can be deeper than a thread's stack.
        let mut open: Vec<Vec<u8>> = vec![Vec::new()];
        while let Some(dir) = open.last() {
            let Some(folder) = self.folders.get(&dir[..]) else {
                open.pop();
                continue;
            };
            let below = self.unhashed_below(dir, folder);
            if below.is_empty() {
                folder.root.set(Some(self.hash_folder(dir, folder)));
                open.pop();
            } else {
                open.extend(below);
            }
        }
        self.known_root(&[])
    }

    /// The directories of a folder whose roots are not known.
    fn unhashed_below(&self, dir: &[u8], folder: &Folder<T>) -> Vec<Vec<u8>> {
        if folder.root.get().is_some() {
            return Vec::new();
        }
        let dirs = folder
            .iter()
            .filter(|(_, leaf)| leaf.kind == EntryKind::Dir);
        dirs.map(|(name, _)| below(dir, name))
            .filter(|path| {
                let folder = self.folders.get(&path[..]);
                folder.is_some_and(|folder| folder.root.get().is_none())
            })
            .collect()
    }

    /// The root of a directory that is empty, or whose root is known.
    fn known_root(&self, dir: &[u8]) -> Digest {
        match self.folders.get(dir) {
            Some(folder) => folder
                .root
                .get()
                .expect("it was hashed before what it is in"),
            None => blake3::Hasher::new_derive_key(CONTEXT).finalize().into(),
        }
    }

    /// Hashes a folder; the roots of the directories in it are known.
    fn hash_folder(&self, dir: &[u8], folder: &Folder<T>) -> Digest {
        if let Some(root) = folder.root.get() {
            return root;
        }
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        let mut line = Vec::with_capacity(160);
        for (name, leaf) in folder.iter() {
            line.clear();
            let len = u32::try_from(name.len()).expect("names have at most 255 bytes");
            line.extend_from_slice(&len.to_le_bytes());
            line.extend_from_slice(name);
            line.extend_from_slice(&leaf.meta.mode.to_le_bytes());
            line.extend_from_slice(&leaf.meta.mtime_ns.to_le_bytes());
            line.extend_from_slice(&leaf.meta.owner.uid.to_le_bytes());
            line.extend_from_slice(&leaf.meta.owner.gid.to_le_bytes());
            match &leaf.kind {
                EntryKind::File { size, hash } => {
                    line.push(0);
                    line.extend_from_slice(&size.to_le_bytes());
                    line.extend_from_slice(&hash.0);
                }
                EntryKind::Dir => {
                    line.push(1);
                    line.extend_from_slice(&self.known_root(&below(dir, name)).0);
                }
                EntryKind::Symlink { target } => {
                    line.push(2);
                    let len = u32::try_from(target.len()).unwrap_or(u32::MAX);
                    line.extend_from_slice(&len.to_le_bytes());
                    line.extend_from_slice(target);
                }
            }
            hasher.update(&line);
        }
        hasher.finalize().into()
    }

    fn forget_roots(&mut self, mut dir: &[u8]) {
        loop {
            if let Some(folder) = self.folders.get(dir) {
                folder.root.set(None);
            }
            if dir.is_empty() {
                return;
            }
            let up = dir.iter().rposition(|b| *b == b'/').unwrap_or(0);
            dir = &dir[..up];
        }
    }

    fn count(&mut self, leaf: &Leaf<T>, by: i64) {
        self.entries = self.entries.wrapping_add_signed(by);
        if let EntryKind::File { size, .. } = leaf.kind {
            self.files = self.files.wrapping_add_signed(by);
            self.bytes = if by > 0 {
                self.bytes.saturating_add(size)
            } else {
                self.bytes.saturating_sub(size)
            };
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use sessionkeep_core::entry::Owner;

    pub(crate) fn path(text: &str) -> RelPath {
        RelPath::new(text).expect("a path")
    }

    pub(crate) fn meta() -> Meta {
        Meta {
            mode: 0o600,
            mtime_ns: 7,
            owner: Owner { uid: 0, gid: 0 },
        }
    }

    pub(crate) fn file(content: &[u8]) -> Leaf<()> {
        Leaf {
            meta: meta(),
            kind: EntryKind::File {
                size: content.len() as u64,
                hash: Digest::of(content),
            },
            extra: (),
        }
    }

    fn dir() -> Leaf<()> {
        Leaf {
            meta: meta(),
            kind: EntryKind::Dir,
            extra: (),
        }
    }

    #[test]
    fn every_change_anywhere_changes_the_root() {
        let mut tree = Tree::new();
        let mut seen = vec![tree.root()];
        let mut step = |tree: &Tree<()>, what: &str| {
            let root = tree.root();
            assert!(!seen.contains(&root), "{what} did not change the root");
            seen.push(root);
        };
        tree.insert(&path("a"), dir());
        step(&tree, "an empty directory");
        tree.insert(&path("a/b"), dir());
        tree.insert(&path("a/b/c"), file(b"1"));
        step(&tree, "a file deep down");
        tree.insert(&path("a/b/c"), file(b"2"));
        step(&tree, "its content");
        let mut other = file(b"2");
        other.meta.mode = 0o644;
        tree.insert(&path("a/b/c"), other);
        step(&tree, "its mode");
        let link = Leaf {
            meta: meta(),
            kind: EntryKind::Symlink {
                target: b"b/c".to_vec(),
            },
            extra: (),
        };
        tree.insert(&path("a/l"), link);
        step(&tree, "a link");
        tree.remove(&path("a/b/c"));
        step(&tree, "a removal");
    }

    #[test]
    fn a_directory_and_a_file_at_its_place_are_told_apart() {
        let mut one = Tree::new();
        one.insert(&path("a"), dir());
        let mut two = Tree::new();
        two.insert(&path("a"), file(b""));
        assert_ne!(one.root(), two.root());
    }

    #[test]
    fn an_entry_without_its_directory_is_found() {
        let mut tree = Tree::new();
        tree.insert(&path("a/b"), file(b"x"));
        assert!(tree.check_shape().is_err());
        tree.insert(&path("a"), file(b"x"));
        assert!(tree.check_shape().is_err(), "below a file");
        tree.insert(&path("a"), dir());
        assert!(tree.check_shape().is_ok());
    }

    #[test]
    fn what_lies_below_is_found_and_nothing_beside_it() {
        let mut tree = Tree::new();
        for p in ["a", "a/x", "a/x/y", "a-b", "a-b/z", "a0"] {
            tree.insert(&path(p), dir());
        }
        assert_eq!(tree.below(&path("a")), vec![path("a/x"), path("a/x/y")]);
    }

    proptest! {
        /// The kept roots of directories are never stale, and the order of changes does not matter.
        #[test]
        fn the_root_depends_on_the_entries_alone(
            ops in prop::collection::vec((0usize..12, 0u8..6, any::<bool>()), 1..80)
        ) {
            const PATHS: [&str; 12] =
                ["a", "b", "c", "a/a", "a/b", "b/a", "a/a/a", "a/a/b", "b/a/c", "c/d", "c/d/e", "c/d/e/f"];
            let mut tree = Tree::new();
            for (at, content, put) in ops {
                if put {
                    tree.insert(&path(PATHS[at]), if content == 0 { dir() } else { file(&[content]) });
                } else {
                    tree.remove(&path(PATHS[at]));
                }
                let _ = tree.root();
            }
            let mut fresh = Tree::new();
            let mut all: Vec<_> = tree.iter().map(|(p, l)| (p, l.clone())).collect();
            all.reverse();
            for (p, l) in all {
                fresh.insert(&p, l);
            }
            prop_assert_eq!(tree.root(), fresh.root());
            prop_assert_eq!(tree.len(), fresh.len());
            prop_assert_eq!(tree.files(), fresh.files());
            prop_assert_eq!(tree.bytes(), fresh.bytes());
        }
    }
}
