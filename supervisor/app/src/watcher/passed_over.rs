//! Saying what could not be taken, once, and remembering where that leaves something unsaved.

use nix::unistd::geteuid;
use tracing::warn;

use super::committed_index::CommittedIndex;
use super::unsaved::Reason;
use sessionkeep_core::entry::{EntryKind, Meta, RelPath};
use sessionkeep_session::{Look, ScanReport};

impl CommittedIndex {
    /// Reports what a scan found and could not take.
    pub(super) fn report_passed_over(&mut self, report: &ScanReport) {
        for (path, reason) in &report.skipped {
            self.report_once(Some(path), "skipped", &reason.to_string());
        }
        for (path, why) in &report.unreadable {
            self.cannot_be_read(path, why);
        }
        self.excluded.name(report);
    }

    /// Reports what could not even be looked at, or into. Where something of it is archived, it may
    /// have changed since; where nothing is, the gateway may have put something there.
    pub(super) fn cannot_be_read(&mut self, path: &RelPath, why: &str) {
        let archived = match self.tree.get(path).map(|leaf| &leaf.kind) {
            Some(EntryKind::Dir) => !self.tree.below(path).is_empty(),
            known => known.is_some(),
        };
        self.report_once(Some(path), unreadable(archived), why);
        let made = || match self.directory.look(path) {
            Look::Found(found) => may_be_the_gateways(&found.meta),
            _ => false,
        };
        match archived || made() {
            true => self
                .unsaved
                .insert(path.clone(), Reason::Unreadable(why.to_owned())),
            false => self.unsaved.remove(path),
        }
    }

    /// A file could be read, and is whole: the next time it is not is news.
    pub(super) fn is_whole_again(&mut self, path: &RelPath) {
        // Nearly always. A first upload comes here with each file.
        if !self.reported.is_empty() {
            for what in ["not whole", unreadable(true), unreadable(false)] {
                self.reported.remove(&(path.clone(), what));
            }
        }
        self.unsaved.remove(path);
    }

    pub(super) fn report_once(&mut self, path: Option<&RelPath>, what: &'static str, why: &str) {
        let key = path
            .cloned()
            .unwrap_or_else(|| RelPath::new("session-directory").expect("a path"));
        // Forgetting now and then is better than remembering without end.
        if self.reported.len() > 1000 {
            self.reported.clear();
        }
        if self.reported.insert((key.clone(), what)) {
            warn!(target: "sync", path = %key, why, "{}", match what {
                "skipped" => "entry is not archived",
                "unreadable" => "entry cannot be read; its last committed state stays",
                "never read" => "entry cannot be read, and was never saved",
                "not whole" => "file is not whole; its last committed version stays",
                _ => "changes are found by rescans only",
            });
        }
    }
}

/// As what it is reported that something cannot be read.
pub(super) fn unreadable(is_archived: bool) -> &'static str {
    match is_archived {
        true => "unreadable",
        false => "never read",
    }
}

/// Whether the gateway can have made an entry that cannot be read. What belongs to others was there before
/// (such as a `lost+found` of root's) and is not the gateway's, which cannot be another user than ours
/// where ours is not root.
pub(super) fn may_be_the_gateways(meta: &Meta) -> bool {
    let user = geteuid();
    user.is_root() || meta.owner.uid == user.as_raw()
}
