//! Which files are one file under several names, in a commit: a frame before its contents, as [`super::own`].
//!
//! Every name is an entry of its own, with its content, so that the first releases of format 1, which know
//! nothing of the frame, restore separate files. A commit without the frame leaves what was known before it; a
//! checkpoint without it knows nothing.

use std::collections::BTreeMap;

use sessionkeep_core::entry::{EntryKind, RelPath};

use super::tree::Tree;

/// One of the sixteen numbers that a skippable frame may begin with.
pub(super) const MAGIC: u32 = 0x184D_2A5C;
/// What the frame holds. Another number was written by a later version, for what this one does not know.
const VERSION: u8 = 1;
/// No more names are recorded than take this many bytes; those beyond are files of their own to a restore.
const BYTES_MAX: usize = 64 << 10;

/// The names of each file that has several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links(Vec<Vec<RelPath>>);

impl Links {
    /// Of files that are known by some number of theirs, with their names: those with several, as far as
    /// they fit into a commit.
    pub fn of(names: impl IntoIterator<Item = (u64, RelPath)>) -> Self {
        let mut files: BTreeMap<u64, Vec<RelPath>> = BTreeMap::new();
        for (file, name) in names {
            files.entry(file).or_default().push(name);
        }
        let mut groups: Vec<Vec<RelPath>> = files.into_values().filter(|g| g.len() > 1).collect();
        groups.iter_mut().for_each(|group| group.sort_unstable());
        groups.sort_unstable();
        let mut room = BYTES_MAX;
        groups.retain(|group| {
            let bytes: usize = group.iter().map(|name| name.as_bytes().len() + 3).sum();
            let fits = bytes <= room;
            if fits {
                room -= bytes;
            }
            fits
        });
        Self(groups)
    }

    /// Whether no file has several names.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        let names = self.0.iter().flatten();
        names
            .map(|name| size_of::<RelPath>() + name.as_bytes().len())
            .sum()
    }

    /// The names of each file.
    pub fn groups(&self) -> impl Iterator<Item = &[RelPath]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// The names that can be links in this tree, each with the name that is the file: those whose entries
    /// are alike in all that a file has. Where they are not, one was changed by itself since.
    #[must_use]
    pub fn within<T>(&self, tree: &Tree<T>) -> BTreeMap<RelPath, RelPath> {
        let mut links = BTreeMap::new();
        for group in &self.0 {
            let mut files: Vec<&RelPath> = Vec::new();
            for name in group {
                let Some(leaf) = tree.get(name) else { continue };
                if !matches!(leaf.kind, EntryKind::File { .. }) || links.contains_key(name) {
                    continue;
                }
                let alike = files.iter().find(|file| {
                    let other = tree.get(file).map(|other| (&other.kind, &other.meta));
                    other == Some((&leaf.kind, &leaf.meta)) && **file != name
                });
                match alike {
                    Some(file) => drop(links.insert(name.clone(), (*file).clone())),
                    None => files.push(name),
                }
            }
        }
        // A name that a forged list has twice is no link to a link.
        let is_link = |file: &RelPath| links.contains_key(file);
        let chained: Vec<RelPath> = links
            .iter()
            .filter(|(_, file)| is_link(file))
            .map(|(name, _)| name.clone())
            .collect();
        for name in chained {
            links.remove(&name);
        }
        links
    }

    /// What of the frame follows its number and length.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut held = vec![VERSION];
        held.extend(postcard::to_stdvec(&self.0).expect("names always encode"));
        held
    }

    /// Reads what [`Links::encode`] wrote; `None` where a later version wrote it.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn decode(held: &[u8]) -> Result<Option<Self>, String> {
        match held.split_first() {
            Some((&VERSION, groups)) => {
                let groups = postcard::from_bytes(groups)
                    .map_err(|error| format!("its list of hard links does not decode: {error}"))?;
                Ok(Some(Self(groups)))
            }
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::tree::Leaf;
    use sessionkeep_core::entry::{Digest, Meta, Owner};

    use super::*;

    fn path(name: &str) -> RelPath {
        RelPath::new(name).expect("a path")
    }

    fn tree(files: &[(&str, &str)]) -> Tree<()> {
        let mut tree = Tree::new();
        for (name, content) in files {
            let meta = Meta {
                mode: 0o600,
                mtime_ns: 7,
                owner: Owner { uid: 1, gid: 1 },
            };
            let kind = EntryKind::File {
                size: content.len() as u64,
                hash: Digest::of(content.as_bytes()),
            };
            let extra = ();
            tree.insert(&path(name), Leaf { meta, kind, extra });
        }
        tree
    }

    #[test]
    fn only_names_of_one_file_that_are_alike_in_the_tree_are_links() {
        let names = [
            (1, "c"),
            (1, "a"),
            (2, "alone"),
            (1, "b"),
            (3, "x"),
            (3, "y"),
        ];
        let links = Links::of(names.map(|(file, name)| (file, path(name))));
        let groups: Vec<_> = links.groups().map(<[RelPath]>::to_vec).collect();
        let wanted = [
            vec![path("a"), path("b"), path("c")],
            vec![path("x"), path("y")],
        ];
        assert_eq!(groups, wanted);
        let tree = tree(&[("a", "one"), ("b", "one"), ("c", "two"), ("x", "one")]);
        let within = links.within(&tree);
        assert_eq!(within, BTreeMap::from([(path("b"), path("a"))]));
    }

    #[test]
    fn a_name_that_is_listed_twice_is_no_link_to_itself_or_to_a_link() {
        let tree = tree(&[("a", "one"), ("b", "one"), ("c", "one")]);
        for groups in [
            vec!["a", "a"],
            vec!["a", "b", "a"],
            vec!["b", "a", "b", "c"],
        ] {
            let links = Links(vec![groups.iter().map(|name| path(name)).collect()]);
            for (name, file) in links.within(&tree) {
                assert_ne!(name, file);
            }
        }
        let names = |group: &[&str]| group.iter().map(|name| path(name)).collect();
        let links = Links(vec![
            names(&["a", "b"]),
            names(&["b", "c"]),
            names(&["c", "a"]),
        ]);
        let within = links.within(&tree);
        assert!(
            within.values().all(|file| !within.contains_key(file)),
            "{within:?}"
        );
    }

    #[test]
    fn names_beyond_the_room_there_is_are_left_out() {
        let long = "n".repeat(200);
        let names = (0..2000u64).map(|n| (n / 2, path(&format!("{long}/{n}"))));
        let links = Links::of(names);
        assert!(!links.is_empty() && links.encode().len() < 2 * BYTES_MAX);
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out_and_arbitrary_bytes_never_panic(
            names in prop::collection::btree_map("[a-e]{1,3}", 0u64..4, 0..20), bytes: Vec<u8>
        ) {
            let links = Links::of(names.iter().map(|(name, file)| (*file, path(name))));
            prop_assert_eq!(Links::decode(&links.encode()), Ok(Some(links)));
            let _ = Links::decode(&bytes);
            let _ = Links::decode(&[&[VERSION][..], &bytes].concat());
        }
    }
}
