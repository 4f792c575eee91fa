//! What of a commit is no content: metadata that changed alone, the session directory's own, and which
//! files are one file.

use std::collections::HashSet;

use super::committed_index::CommittedIndex;
use super::gather::Gather;
use super::gathered::{Edit, Pass};
use super::shape::Becomes;
use sessionkeep_archive::tree::Leaf;
use sessionkeep_core::entry::{EntryKind, Meta, RelPath};
use sessionkeep_session::{FoundKind, Look};

impl CommittedIndex {
    /// Adds the times that changed without content, and those of the directories around what is
    /// committed: not worth a commit of their own, except at the end.
    pub(super) fn add_touched(&mut self, gather: &mut Gather) {
        if gather.builder.is_empty() && (gather.pass == Pass::Live || self.touched.is_empty()) {
            return;
        }
        let mut paths = self.touched.clone();
        let mut edited = HashSet::new();
        for edit in &gather.out.edits {
            let path = match edit {
                Edit::Set(path, _) | Edit::Remove(path) => path,
            };
            edited.insert(path.clone());
            paths.extend(path.parent());
        }
        for path in paths {
            let (false, Some(leaf)) = (edited.contains(&path), self.tree.get(&path)) else {
                continue;
            };
            let Look::Found(found) = self.directory.look(&path) else {
                continue;
            };
            let same_kind = match (&leaf.kind, &found.kind) {
                (EntryKind::File { size, .. }, FoundKind::File) => *size == found.print.size,
                (EntryKind::Dir, FoundKind::Dir) => true,
                (EntryKind::Symlink { target }, FoundKind::Symlink { target: now }) => {
                    target == now
                }
                _ => false,
            };
            let meta = self.limits.as_archived(found.meta, &leaf.meta);
            let becomes = match found.kind {
                FoundKind::Dir => Becomes::Dir,
                _ => Becomes::Other,
            };
            if same_kind
                && leaf.meta != meta
                && same_rights(&leaf.meta, &meta)
                && self.admits(&path, becomes, gather)
            {
                gather.builder.touch(&path, meta);
                let leaf = Leaf {
                    meta,
                    ..leaf.clone()
                };
                gather.out.edits.push(Edit::Set(path, leaf));
            }
        }
    }

    /// Where an archived owner or mode cannot be had in this directory, the archive keeps it.
    pub(super) fn keep_what_cannot_be_had(&self, gather: &mut Gather) {
        if self.limits.is_none() {
            return;
        }
        let kept = |path: &RelPath, meta: &mut Meta| {
            if let Some(known) = self.tree.get(path) {
                *meta = self.limits.as_archived(*meta, &known.meta);
            }
        };
        gather.builder.each_meta(kept);
        for edit in &mut gather.out.edits {
            if let Edit::Set(path, leaf) = edit {
                kept(path, &mut leaf.meta);
            }
        }
    }

    /// Adds what changed of the session directory itself: its time, as any directory's, only to what is
    /// committed anyway. Where nothing is known of it yet, that waits for a commit, too: an archive
    /// never begins with it, or an empty directory would be content.
    pub(super) fn add_own(&self, gather: &mut Gather) {
        let Ok(found) = self.directory.own_meta() else {
            return;
        };
        let meta = match &self.aside.own {
            Some(known) => self.limits.as_archived(found, known),
            None => found,
        };
        let is_due = match &self.aside.own {
            Some(known) if !same_rights(known, &meta) => true,
            known => !gather.builder.is_empty() && *known != Some(meta),
        };
        if is_due {
            gather.builder.set_own(meta);
            gather.out.aside.own = Some(meta);
        }
    }

    /// Adds which files are one file under several names, where that has changed: by itself, too, since
    /// a restore would take files for one that are not any more.
    pub(super) fn add_links(&self, gather: &mut Gather) {
        let known = self.aside.links.clone().unwrap_or_default();
        if known.is_empty() && !self.silent_changes.has_links() {
            return;
        }
        let (mut set, mut removed) = (HashSet::new(), HashSet::new());
        for edit in &gather.out.edits {
            match edit {
                Edit::Set(path, _) => set.insert(path),
                Edit::Remove(path) => removed.insert(path),
            };
        }
        let is_removed = |path: &RelPath| path.ancestors().any(|dir| removed.contains(&dir));
        let links = self.silent_changes.links(|path| {
            set.contains(path) || (self.tree.get(path).is_some() && !is_removed(path))
        });
        if let Some(links) = links.filter(|links| *links != known) {
            gather.builder.set_links(links.clone());
            gather.out.aside.links = Some(links);
        }
    }

    pub(super) fn same_rights(&self, known: &Meta, found: &Meta) -> bool {
        same_rights(known, &self.limits.as_archived(*found, known))
    }
}

pub(super) fn same_rights(a: &Meta, b: &Meta) -> bool {
    a.mode == b.mode && a.owner == b.owner
}
