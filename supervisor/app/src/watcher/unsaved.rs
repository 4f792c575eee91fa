//! What of the directory is not in the store as it is there, and why: files that are not whole, whose last
//! committed version stays, and what cannot be read.

use std::collections::BTreeMap;

use crate::status::ShownUnsaved;
use sessionkeep_core::entry::RelPath;

/// At most so many are remembered; of more it is only known that they are.
const KEPT_MAX: usize = 1000;
/// So many are shown.
const SHOWN_MAX: usize = 20;

/// Why something is not saved as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    /// It is torn or damaged.
    NotWhole(String),
    /// It cannot be read.
    Unreadable(String),
}

/// What is not saved as it is, as it was last looked at.
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    known: BTreeMap<RelPath, Reason>,
    /// How many there are beside the known ones.
    more: u64,
}

impl Unsaved {
    /// Forgets all, since everything is looked at now.
    pub(super) fn begin_anew(&mut self) {
        *self = Self::default();
    }

    /// This is not saved as it is.
    pub(super) fn insert(&mut self, path: RelPath, reason: Reason) {
        if self.known.len() < KEPT_MAX || self.known.contains_key(&path) {
            self.known.insert(path, reason);
        } else {
            self.more += 1;
        }
    }

    /// This is saved as it is, or gone.
    pub(super) fn remove(&mut self, path: &RelPath) {
        self.known.remove(path);
    }

    /// This is gone with all below it.
    pub(super) fn remove_all(&mut self, path: &RelPath) {
        self.known
            .retain(|known, _| known != path && !known.is_within(path));
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.known.len() as u64 + self.more
    }

    /// How many of them are not whole.
    pub(super) fn not_whole(&self) -> u64 {
        let is_torn = |reason: &&Reason| matches!(reason, Reason::NotWhole(_));
        self.known.values().filter(is_torn).count() as u64
    }

    /// One of them and why, those that cannot be read first, and how many more there are; `None` where all is
    /// saved.
    pub(super) fn words(&self) -> Option<String> {
        let is_unreadable =
            |(_, reason): &(&RelPath, &Reason)| matches!(reason, Reason::Unreadable(_));
        let first = self.known.iter().find(is_unreadable);
        let (path, reason) = first.or_else(|| self.known.first_key_value())?;
        let mut words = match reason {
            Reason::NotWhole(why) => format!("{path} is not whole: {why}"),
            Reason::Unreadable(why) => format!("{path} cannot be read: {why}"),
        };
        if let more @ 1.. = self.count() - 1 {
            words = format!("{words}; and {more} more");
        }
        Some(words)
    }

    /// As it is shown, as far as it is.
    pub(super) fn shown(&self) -> Vec<ShownUnsaved> {
        let shown = |(path, reason): (&RelPath, &Reason)| {
            let (Reason::NotWhole(why) | Reason::Unreadable(why)) = reason;
            ShownUnsaved {
                path: path.to_string(),
                why: why.clone(),
            }
        };
        self.known.iter().take(SHOWN_MAX).map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).expect("a path")
    }

    #[test]
    fn the_first_that_cannot_be_read_is_named_and_the_others_are_counted() {
        let mut unsaved = Unsaved::default();
        assert_eq!(unsaved.words(), None);
        unsaved.insert(path("a"), Reason::NotWhole("torn".into()));
        assert_eq!(unsaved.words().as_deref(), Some("a is not whole: torn"));
        unsaved.insert(path("d/b"), Reason::Unreadable("no right".into()));
        unsaved.insert(path("d/c"), Reason::NotWhole("torn".into()));
        let words = "d/b cannot be read: no right; and 2 more";
        assert_eq!(unsaved.words().as_deref(), Some(words));
        assert_eq!((unsaved.count(), unsaved.not_whole()), (3, 2));
        unsaved.remove_all(&path("d"));
        assert_eq!((unsaved.count(), unsaved.not_whole()), (1, 1));
        unsaved.remove(&path("a"));
        assert_eq!(unsaved.words(), None);
    }

    #[test]
    fn of_very_many_the_number_is_known() {
        let mut unsaved = Unsaved::default();
        for n in 0..KEPT_MAX + 5 {
            unsaved.insert(path(&n.to_string()), Reason::Unreadable("no right".into()));
        }
        assert_eq!(unsaved.count(), KEPT_MAX as u64 + 5);
        assert_eq!(unsaved.shown().len(), SHOWN_MAX);
    }
}
