//! What a commit would make of the tree's shape: every entry stands in a directory, and nothing below
//! a file or a link. A restore refuses anything else.
//!
//! What is found is found one after the other, and a directory can become a link in between. An edit
//! that does not fit to those before it is held back, and looked at again: the next look is of a later
//! moment. Only what the edits touch is looked at, and what is above it.

use std::collections::{HashMap, HashSet};

use super::gathered::IndexEntry;
use sessionkeep_archive::tree::{Leaf, Tree};
use sessionkeep_core::entry::{EntryKind, RelPath};

/// What an edit makes of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Becomes {
    Dir,
    /// A file or a link.
    Other,
    /// Nothing, with all below it.
    Gone,
}

/// The shape of the tree with the edits that were admitted.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// What became a directory, and what is none any more.
    changed: HashMap<RelPath, Becomes>,
    /// Directories that something admitted stands in.
    relied_on: HashSet<RelPath>,
    /// The last one of these: what comes next has mostly the same.
    last: Option<RelPath>,
}

impl Shape {
    /// Takes an edit to the committed `tree`, if it fits to those before it.
    pub(super) fn admit(
        &mut self,
        tree: &Tree<IndexEntry>,
        path: &RelPath,
        becomes: Becomes,
    ) -> bool {
        if becomes != Becomes::Dir && self.relied_on.contains(path) {
            return false;
        }
        let before = self.changed.get(path).copied();
        let was_dir = is_dir(tree, path);
        if before.is_some_and(|before| before != becomes) || !self.stands(tree, path) {
            return false;
        }
        if was_dir != (becomes == Becomes::Dir) || becomes == Becomes::Gone {
            self.changed.insert(path.clone(), becomes);
            self.last = None;
        }
        true
    }

    /// Whether what is above `path` goes, or became no directory, and takes it away with it.
    pub(super) fn takes_away(&self, path: &RelPath) -> bool {
        let mut above = path.parent();
        while let Some(dir) = above {
            if self
                .changed
                .get(&dir)
                .is_some_and(|becomes| *becomes != Becomes::Dir)
            {
                return true;
            }
            above = dir.parent();
        }
        false
    }

    /// Whether all above `path` are directories.
    fn stands(&mut self, tree: &Tree<IndexEntry>, path: &RelPath) -> bool {
        let (dir, _) = path.split();
        if dir.is_empty()
            || self
                .last
                .as_ref()
                .is_some_and(|last| last.as_bytes() == dir)
        {
            return true;
        }
        let mut above = path.parent();
        let mut all = Vec::new();
        while let Some(dir) = above {
            let fits = match self.changed.get(&dir) {
                Some(becomes) => *becomes == Becomes::Dir,
                None => is_dir(tree, &dir),
            };
            if !fits {
                return false;
            }
            above = dir.parent();
            all.push(dir);
        }
        self.last = all.first().cloned();
        self.relied_on.extend(all);
        true
    }
}

fn is_dir(tree: &Tree<IndexEntry>, path: &RelPath) -> bool {
    let kind = |leaf: &Leaf<IndexEntry>| leaf.kind == EntryKind::Dir;
    tree.get(path).is_some_and(kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sessionkeep_archive::builder::Builder;
    use sessionkeep_archive::format::{BodyView, ListingReader, PlaceView};
    use sessionkeep_archive::version::Version;
    use sessionkeep_core::entry::{Digest, Meta, Owner};
    use sessionkeep_core::record::{CommitId, Header, RecordKind};

    fn path(text: &str) -> RelPath {
        RelPath::new(text).expect("a path")
    }

    fn meta() -> Meta {
        Meta {
            mode: 0o600,
            mtime_ns: 7,
            owner: Owner { uid: 0, gid: 0 },
        }
    }

    const PATHS: [&str; 9] = [
        "a", "b", "a/a", "a/b", "b/a", "a/a/a", "a/a/b", "b/a/c", "b/a/c/d",
    ];

    fn leaf(becomes: Becomes) -> Leaf<IndexEntry> {
        let kind = match becomes {
            Becomes::Dir => EntryKind::Dir,
            _ => EntryKind::File {
                size: 0,
                hash: Digest::of(b""),
            },
        };
        Leaf {
            meta: meta(),
            kind,
            extra: IndexEntry::default(),
        }
    }

    /// Nobody reads it.
    fn header() -> Header {
        Header {
            format: 1,
            archive: "default".parse().expect("a name"),
            history: CommitId([1; 16]),
            seq: 1,
            id: CommitId([1; 16]),
            kind: RecordKind::Checkpoint,
            instance: "host-0011223344".parse().expect("a name"),
            epoch: 1,
            time_ms: 0,
            base: 1,
            changed_at: 1,
            changed_epoch: 1,
            parent: Digest::default(),
            root: Digest::default(),
            changes: 0,
            bytes: 0,
            live_files: 0,
            live_bytes: 0,
            chain_bytes: 0,
            base_bytes: 0,
            packs: Vec::new(),
            body_hash: Digest::default(),
            digest: Digest::default(),
        }
    }

    #[test]
    fn what_stands_in_no_directory_and_what_something_stands_in_are_held_back() {
        let mut tree = Tree::new();
        tree.insert(&path("a"), leaf(Becomes::Dir));
        tree.insert(&path("l"), leaf(Becomes::Other));
        let mut shape = Shape::default();
        let mut admit = |at: &str, becomes| shape.admit(&tree, &path(at), becomes);
        assert!(!admit("l/x", Becomes::Other), "below a link");
        assert!(!admit("none/x", Becomes::Other), "below nothing");
        assert!(admit("a/x", Becomes::Other));
        assert!(!admit("a", Becomes::Other), "something stands in it");
        assert!(!admit("a", Becomes::Gone), "something stands in it");
        assert!(admit("l", Becomes::Dir));
        assert!(admit("l/x", Becomes::Other));
        let mut shape = Shape::default();
        assert!(shape.admit(&tree, &path("a"), Becomes::Other));
        assert!(
            !shape.admit(&tree, &path("a/x"), Becomes::Other),
            "it is a link now"
        );
        assert!(
            !shape.admit(&tree, &path("a"), Becomes::Dir),
            "and a link once"
        );
    }

    proptest! {
        /// Whatever is admitted, the reader of a commit takes it, and gets a tree with a shape.
        #[test]
        fn what_is_admitted_can_be_restored(
            rounds in prop::collection::vec(
                prop::collection::vec((0usize..PATHS.len(), 0u8..3), 1..12), 1..8)
        ) {
            let mut tree: Tree<IndexEntry> = Tree::new();
            let mut read = Version::empty(header());
            for (number, edits) in (1..).zip(rounds) {
                let mut shape = Shape::default();
                let mut builder = Builder::new(Box::new(|_, _| Ok(()))).expect("builds");
                let mut admitted = Vec::new();
                for (at, what) in edits {
                    let at = path(PATHS[at]);
                    let becomes = [Becomes::Dir, Becomes::Other, Becomes::Gone][usize::from(what)];
                    // What is not there is not removed.
                    if becomes == Becomes::Gone && tree.get(&at).is_none() {
                        continue;
                    }
                    if shape.admit(&tree, &at, becomes) {
                        admitted.push((at, becomes));
                    }
                }
                for (at, becomes) in admitted {
                    match becomes {
                        Becomes::Gone => builder.remove(&at),
                        // What is as committed is only touched, and has to be there for that.
                        _ if tree.get(&at).is_some_and(|have| have.kind == leaf(becomes).kind) => {
                            builder.touch(&at, meta());
                        }
                        _ => builder.put_other(&at, meta(), leaf(becomes).kind),
                    }
                }
                if builder.is_empty() {
                    continue;
                }
                let built = builder.finish().expect("builds");
                let body = BodyView::decode(&built.body).expect("decodes");
                let PlaceView::Here { raw_len, packed } = body.listing else {
                    panic!("a short listing is in the commit");
                };
                let listing = ListingReader::open(packed, raw_len).expect("opens");
                prop_assert_eq!(read.apply(number, listing), Ok(()));
                prop_assert!(read.tree.check_shape().is_ok());
                tree = read.tree.clone().map(|_| IndexEntry::default());
            }
        }
    }
}
