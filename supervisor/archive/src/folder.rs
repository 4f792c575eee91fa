//! One directory's entries, in byte order of their names.
//!
//! The names lie one after another in one piece of memory, in no order, and the entries say where:
//! a piece for each name would take twice the room that the name does. Room for more is made in
//! eighths, since of what a session holds little comes and goes.

use std::cell::Cell;

use super::tree::Leaf;
use sessionkeep_core::entry::Digest;

/// Names that are gone are cleared out once they take this much, and more than the others do.
const GONE_MIN: usize = 1024;

#[derive(Debug, Clone)]
pub(super) struct Folder<T> {
    names: Vec<u8>,
    /// How many bytes of `names` are of no entry any more.
    gone: usize,
    /// Sorted by name.
    entries: Vec<Entry<T>>,
    /// The Merkle root, where it is known.
    pub(super) root: Cell<Option<Digest>>,
    /// Where something was found last: who goes through a directory in order asks for the same
    /// name again, or for the next one.
    found: Cell<usize>,
}

#[derive(Debug, Clone)]
struct Entry<T> {
    name: Span,
    leaf: Leaf<T>,
}

/// A name's place.
#[derive(Debug, Clone, Copy)]
struct Span {
    at: u32,
    len: u32,
}

impl Span {
    fn of(self, names: &[u8]) -> &[u8] {
        &names[self.at as usize..][..self.len as usize]
    }

    /// Puts a name behind the others.
    fn push(names: &mut Vec<u8>, name: &[u8]) -> Self {
        make_room(names, name.len());
        let span = |n| u32::try_from(n).expect("a directory's names take less than 4 GiB");
        let (at, len) = (span(names.len()), span(name.len()));
        names.extend_from_slice(name);
        Self { at, len }
    }
}

fn make_room<T>(of: &mut Vec<T>, more: usize) {
    if of.capacity() - of.len() < more {
        of.reserve_exact(more.max(of.len() / 8).max(4));
    }
}

impl<T> Default for Folder<T> {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            gone: 0,
            entries: Vec::new(),
            root: Cell::new(None),
            found: Cell::new(0),
        }
    }
}

impl<T> Folder<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &Leaf<T>)> {
        let names = &self.names[..];
        let entries = self.entries.iter();
        entries.map(move |entry| (entry.name.of(names), &entry.leaf))
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&Leaf<T>> {
        self.find(name).ok().map(|at| &self.entries[at].leaf)
    }

    pub(super) fn get_mut(&mut self, name: &[u8]) -> Option<&mut Leaf<T>> {
        let at = self.find(name).ok()?;
        Some(&mut self.entries[at].leaf)
    }

    /// Puts an entry, and gives what was there.
    pub(super) fn insert(&mut self, name: &[u8], leaf: Leaf<T>) -> Option<Leaf<T>> {
        match self.find(name) {
            Ok(at) => Some(std::mem::replace(&mut self.entries[at].leaf, leaf)),
            Err(at) => {
                let name = Span::push(&mut self.names, name);
                make_room(&mut self.entries, 1);
                self.entries.insert(at, Entry { name, leaf });
                None
            }
        }
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Leaf<T>> {
        let at = self.find(name).ok()?;
        let Entry { leaf, .. } = self.entries.remove(at);
        self.gone += name.len();
        if self.gone >= GONE_MIN && self.gone > self.names.len() / 2 {
            self.clear_out();
        }
        Some(leaf)
    }

    /// The same entries with other things kept beside them, in no more room than they take.
    pub(super) fn map<U>(mut self, change: &mut impl FnMut(T) -> U) -> Folder<U> {
        self.clear_out();
        let with_other = |Entry { name, leaf }| Entry {
            name,
            leaf: Leaf {
                meta: leaf.meta,
                kind: leaf.kind,
                extra: change(leaf.extra),
            },
        };
        let mut entries: Vec<_> = self.entries.into_iter().map(with_other).collect();
        entries.shrink_to_fit();
        Folder {
            names: self.names,
            gone: self.gone,
            entries,
            root: self.root,
            found: self.found,
        }
    }

    /// Gives back the room that growing left over.
    pub(super) fn shrink(&mut self) {
        self.clear_out();
        self.entries.shrink_to_fit();
    }

    fn clear_out(&mut self) {
        if self.gone == 0 {
            self.names.shrink_to_fit();
            return;
        }
        let mut names = Vec::with_capacity(self.names.len() - self.gone);
        for entry in &mut self.entries {
            entry.name = Span::push(&mut names, entry.name.of(&self.names));
        }
        self.names = names;
        self.gone = 0;
    }

    fn find(&self, name: &[u8]) -> Result<usize, usize> {
        let last = self.found.get();
        let is_at = |at: &usize| {
            let entry = self.entries.get(*at);
            entry.is_some_and(|entry| entry.name.of(&self.names) == name)
        };
        let found = match [last, last + 1].into_iter().find(is_at) {
            Some(at) => Ok(at),
            None => self
                .entries
                .binary_search_by(|entry| entry.name.of(&self.names).cmp(name)),
        };
        if let Ok(at) = found {
            self.found.set(at);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::tree::tests::file;

    /// Everything that is remembered, against what a map says.
    fn check(folder: &Folder<()>, model: &BTreeMap<Vec<u8>, Leaf<()>>) {
        let all = folder.iter().map(|(name, leaf)| (name.to_vec(), leaf));
        assert!(all.eq(model.iter().map(|(name, leaf)| (name.clone(), leaf))));
        for (name, leaf) in model {
            assert_eq!(folder.get(name), Some(leaf));
        }
        let live: usize = model.keys().map(Vec::len).sum();
        assert_eq!(folder.names.len() - folder.gone, live);
        assert!(folder.gone < GONE_MIN || folder.gone <= folder.names.len() / 2);
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(
            steps in proptest::collection::vec((0u8..4, 0u16..60, any::<u8>()), 0..400)
        ) {
            let (mut folder, mut model) = (Folder::default(), BTreeMap::new());
            for (what, number, content) in steps {
                // Of many lengths, so that names that are gone leave holes of many sizes.
                let name = format!("{number:0>width$}", width = 1 + usize::from(number % 97));
                let (name, leaf) = (name.into_bytes(), file(&[content]));
                match what {
                    0 | 1 => {
                        prop_assert_eq!(folder.insert(&name, leaf.clone()), model.insert(name, leaf));
                    }
                    2 => prop_assert_eq!(folder.remove(&name), model.remove(&name)),
                    _ => prop_assert_eq!(folder.get_mut(&name).cloned(), model.get(&name).cloned()),
                }
                check(&folder, &model);
            }
            folder.shrink();
            check(&folder, &model);
            prop_assert_eq!(folder.gone, 0);
            prop_assert_eq!(folder.names.capacity(), folder.names.len());
            let mapped = folder.map(&mut |()| 7u8);
            prop_assert!(mapped.iter().all(|(_, leaf)| leaf.extra == 7));
            prop_assert!(mapped.iter().map(|(name, _)| name.to_vec()).eq(model.into_keys()));
        }
    }

    #[test]
    fn room_for_more_is_made_in_small_pieces() {
        let mut folder = Folder::default();
        for number in 0..1000u32 {
            folder.insert(format!("pre-key-{number}.json").as_bytes(), file(b""));
        }
        folder.shrink();
        folder.insert(b"one more", file(b""));
        assert!(
            folder.entries.capacity() < 1200,
            "{}",
            folder.entries.capacity()
        );
        assert!(folder.names.capacity() < folder.names.len() * 6 / 5);
    }
}
