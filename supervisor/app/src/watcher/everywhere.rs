//! Looking at everything: the truth that hints only point at, and how often it is worth its cost.

use std::sync::PoisonError;
use std::time::Duration;

use tracing::warn;

use super::committed_index::CommittedIndex;
use super::dirty::Work;
use super::gather::{Gather, Trust, cpu_time, is_as_committed};
use super::guard::Refusal;
use super::read_ahead;
use sessionkeep_archive::Result;
use sessionkeep_core::entry::RelPath;
use sessionkeep_session::{Look, SkipReason};

/// Work of at least this much is worth showing how far it has come.
const SHOWN_FILES: u64 = 1000;
/// See [`SHOWN_FILES`].
const SHOWN_BYTES: u64 = 8 << 20;
/// More changed files than this are not read again because one of them changed meanwhile.
const ONE_MOMENT_FILES: usize = 1000;
/// A look at everything costs at most one part in so many of a core: 0.03 %.
const RESCAN_PACE: u32 = 3000;
/// One that has a reason costs at most one part in so many: 0.3 %.
const ASTRAY_PACE: u32 = 300;
/// And does not come sooner after the last one.
const ASTRAY_MIN: Duration = Duration::from_secs(1);
/// But it comes this often at least, whatever it costs.
const RESCAN_MAX: Duration = Duration::from_secs(3600);

/// What a look at everything cost, and whether the kernel reports what changes from then on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Scan {
    /// CPU time.
    pub(super) cost: Duration,
    /// Every directory is watched.
    pub(super) watched: bool,
}

impl Scan {
    /// As [`Scan::pause`], where something has changed of which it is not known under what name.
    pub(super) fn short_pause(self, every: Duration) -> Duration {
        self.pause(every)
            .min((self.cost * ASTRAY_PACE).max(ASTRAY_MIN))
    }

    /// How long after it the next one comes, if `every` is how often they are wanted. Where hints
    /// tell of all changes, it is a safeguard, and what it costs must not grow with the directory.
    pub(super) fn pause(self, every: Duration) -> Duration {
        if self.watched {
            every.max((self.cost * RESCAN_PACE).min(RESCAN_MAX))
        } else {
            every
        }
    }
}

impl CommittedIndex {
    /// Scans everything. What differs is left to be looked at as of one moment; where that is too
    /// much to be read in one, as with a first upload, it is read here, and the commit after it
    /// mends what was written meanwhile.
    pub(super) fn full_scan(&mut self, gather: &mut Gather) -> Result<Work> {
        self.generation = !self.generation;
        let generation = self.generation;
        let mut fresh = Vec::new();
        let (tree, keyed, events) = (&mut self.tree, &self.keyed, &self.events);
        let (files, directory, limits) = (&self.files, &self.directory, &self.limits);
        let silent_changes = &mut self.silent_changes;
        events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take_astray();
        let mut watch_failure = None;
        let begun = cpu_time();
        let report = directory.scan(
            None,
            &mut |open, dir| {
                let mut events = events.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = events.watch_open(directory, open, dir) {
                    watch_failure.get_or_insert(error);
                }
            },
            &mut |found| {
                silent_changes.note(&found);
                let same = tree
                    .get(&found.path)
                    .is_some_and(|leaf| is_as_committed(leaf, &found, keyed, limits))
                    && !files.is_unsettled_database(&found.path);
                if let Some(seen) = tree.extra_mut(&found.path) {
                    *seen = seen.seen_again(generation);
                }
                if !same {
                    fresh.push(found);
                }
            },
        );
        self.scan.watched = watch_failure.is_none();
        if let Some(error) = watch_failure {
            self.report_once(None, "watch", &error.to_string());
        }
        if let Some(error) = report.root_unreadable {
            warn!(target: "sync", %error, "the session directory cannot be read");
            gather.out.refused = Some(Refusal::DirectoryGone(error.to_string()));
            return Ok(Work::default());
        }
        self.silent_changes.knows_all();
        self.excluded.count = report.excluded_count;
        self.unsaved.begin_anew();
        self.report_passed_over(&report);
        let unreadable: Vec<RelPath> = report
            .unreadable
            .iter()
            .map(|(path, _)| path.clone())
            .collect();
        let bytes = fresh.iter().map(|found| found.print.size).sum();
        if fresh.len() as u64 >= SHOWN_FILES || bytes >= SHOWN_BYTES {
            gather.progress.begin(fresh.len() as u64, bytes);
        }
        // What the scan did not come by is gone, unless it could not be looked at.
        let gone = self
            .tree
            .paths_of(|leaf| leaf.extra.generation() != generation)
            .filter(|path| !unreadable.iter().any(|dir| path.is_within(dir)))
            .filter(|path| {
                let look = self.directory.look(path);
                matches!(look, Look::Absent | Look::Skipped(SkipReason::Profile))
            });
        let gone: Vec<RelPath> = gone.collect();
        self.scan.cost = cpu_time().saturating_sub(begun);
        if fresh.len() + gone.len() <= ONE_MOMENT_FILES && bytes < SHOWN_BYTES {
            let paths = fresh
                .into_iter()
                .map(|found| found.path)
                .chain(gone)
                .collect();
            return Ok(Work {
                paths,
                ..Work::default()
            });
        }
        gather.removed.extend(gone);
        let directory = self.directory.clone();
        // The kernel's part of it beside ours.
        std::thread::scope(|scope| {
            let batches = read_ahead::in_batches(scope, directory, fresh);
            for (found, read) in batches.into_iter().flatten() {
                self.found(found, Trust::Fingerprint, read, gather)?;
            }
            Ok(Work::default())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_at_everything_are_paced_by_their_cost_only_where_hints_tell_of_changes() {
        let minute = Duration::from_secs(60);
        for (cost_ms, watched, pause) in [
            (5, true, minute),
            (60, true, minute * 3),
            (600, true, minute * 30),
            (60_000, true, RESCAN_MAX),
            (60_000, false, minute),
        ] {
            let cost = Duration::from_millis(cost_ms);
            assert_eq!(Scan { cost, watched }.pause(minute), pause, "{cost:?}");
        }
        let day = Duration::from_secs(86_400);
        let scan = Scan {
            cost: minute,
            watched: true,
        };
        assert_eq!(scan.pause(day), day, "never more often than was asked for");
    }
}
