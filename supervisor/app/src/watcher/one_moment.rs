//! Looking at changed files until all of them were read at one moment.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::committed_index::CommittedIndex;
use super::dirty::Work;
use super::freeze_pacing::FreezeOutcome;
use super::gather::Gather;
use super::gathered::{Delayed, Pass};
use super::read_ahead::{Large, ReadAhead};
use sessionkeep_archive::Result;
use sessionkeep_core::entry::RelPath;
use sessionkeep_session::FsEvent;

/// How long a moment is waited for in which nothing was written while the changed files were read.
/// A gateway that never pauses for that long is made to stand still.
const ONE_MOMENT_WITHIN: Duration = Duration::from_millis(150);

/// In so many files it is looked for what has changed while the gateway stands still.
const LISTED_MAX: u64 = 300;

/// How long is waited before the changed files are read again.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(2);

impl CommittedIndex {
    /// Looks at `work` until nothing was written meanwhile: keys that belong together lie in several
    /// files, and a commit that holds one of before a message and another of after it restores to
    /// a conversation that does not go on.
    ///
    /// Files are read ahead where they are few and small, and looked at closer only when that was
    /// one moment: the shorter the reading takes, the smaller a pause of the gateway's will do. Where
    /// there is none, they are read while the gateway [stands still](super::standstill), or delayed.
    ///
    /// Databases come last, and once: each is of one moment by itself, and a snapshot is both
    /// paced and, to the kernel, a change. So do large files that never stand still.
    pub(super) fn look_at_one_moment(
        &mut self,
        mut work: Work,
        gather: &mut Gather,
        begin: impl Fn() -> Result<Gather>,
    ) -> Result<()> {
        let begun = Instant::now();
        work.paths.extend(self.silent_changes.other_links(&work));
        loop {
            let ahead = ReadAhead::of(&work, &self.directory, &self.files, Large::Prevent);
            let mut moved = self.overhear();
            let is_whole = match &ahead {
                Some(ahead) => ahead.is_whole(&self.tree),
                None => {
                    self.look_at_all(&work, None, gather)?;
                    moved.add(self.overhear());
                    let is_torn = |(path, _): &(RelPath, Instant)| !self.files.stands_apart(path);
                    !gather.out.later.iter().any(is_torn)
                }
            };
            if moved.is_empty() && is_whole {
                self.freeze_pacing.was_read();
                if ahead.is_some() {
                    self.look_at_all(&work, ahead, gather)?;
                }
                break;
            }
            // Where the reading itself took so long, it is not done twice.
            if moved.everything || begun.elapsed() >= ONE_MOMENT_WITHIN {
                let is_written = !moved.is_empty()
                    || ahead
                        .as_ref()
                        .is_some_and(|ahead| self.freeze_pacing.is_written(ahead, &self.tree));
                let standing = match (is_written, gather.pass) {
                    (true, Pass::Live) => self.read_at_a_standstill(&mut work, moved),
                    _ => FreezeOutcome::Impossible,
                };
                if ahead.is_none() && !matches!(standing, FreezeOutcome::Impossible) {
                    *gather = begin()?;
                }
                match standing {
                    FreezeOutcome::Read(frozen) => self.look_at_all(&work, Some(frozen), gather)?,
                    FreezeOutcome::NotYet(until) => {
                        gather.out.delayed = Some(Delayed {
                            work: work.clone(),
                            until,
                        });
                    }
                    FreezeOutcome::Impossible => {
                        debug!(target: "sync", "files never stood still; they are committed as they were read");
                        if ahead.is_some() {
                            self.look_at_all(&work, ahead, gather)?;
                        }
                    }
                }
                break;
            }
            if ahead.is_none() {
                *gather = begin()?;
            }
            // A writer that is in the middle of a file needs a moment to end it.
            std::thread::sleep(READ_AGAIN_AFTER);
            work.add(moved);
        }
        let files = &self.files;
        let (aside, plain): (BTreeSet<_>, _) = work
            .paths
            .into_iter()
            .partition(|path| files.stands_apart(path));
        if let Some(delayed) = &mut gather.out.delayed {
            delayed.work.paths = plain;
        }
        for path in &aside {
            self.look_at(path, None, gather)?;
        }
        Ok(())
    }

    /// Looks at all of `work` that does not stand apart, as far as it was not read `ahead`.
    fn look_at_all(
        &mut self,
        work: &Work,
        mut ahead: Option<ReadAhead>,
        gather: &mut Gather,
    ) -> Result<()> {
        for path in &work.subtrees {
            self.look_below(path, gather)?;
        }
        for path in &work.paths {
            if !self.files.stands_apart(path) {
                let taken = ahead.as_mut().and_then(|ahead| ahead.take(path));
                self.look_at(path, taken, gather)?;
            }
        }
        Ok(())
    }

    /// What else has changed by now, leaving aside what stands apart.
    pub(super) fn overhear(&mut self) -> Work {
        let mut moved = Work::default();
        let (during_read, files) = (&mut self.during_read, &self.files);
        let read = self
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .read(&self.directory, &mut |fs_event| {
                during_read.add(Work::of(fs_event.clone()));
                let aside = matches!(&fs_event, FsEvent::Closed(path) | FsEvent::Touched(path) if files.stands_apart(path));
                if !aside {
                    moved.add(Work::of(fs_event));
                }
            });
        if let Err(error) = read {
            warn!(target: "sync", %error, "change notices cannot be read; looking at everything");
            during_read.add(Work::everything());
        }
        moved.paths.extend(self.silent_changes.other_links(&moved));
        moved
    }

    /// Events that came during the last gather. They are to be looked at again, whether or not the
    /// commit came about.
    pub(super) fn take_events_during_read(&mut self) -> Work {
        std::mem::take(&mut self.during_read)
    }

    /// Puts in the place of directories that are to be looked at with all that is below them, or of
    /// everything, what there is, and what is committed. `false` where one of them cannot be listed as
    /// it should be, or it is too much.
    pub(super) fn list(&mut self, work: &mut Work) -> bool {
        let (events, directory) = (&self.events, &self.directory);
        let watched = &mut self.scan.watched;
        if work.everything && self.tree.files() > LISTED_MAX {
            return false;
        }
        let dirs: Vec<Option<RelPath>> = match work.everything {
            true => vec![None],
            false => work.subtrees.iter().cloned().map(Some).collect(),
        };
        for dir in dirs {
            let report = directory.scan(
                dir.as_ref(),
                &mut |open, inner| {
                    let mut events = events.lock().unwrap_or_else(PoisonError::into_inner);
                    *watched &= events.watch_open(directory, open, inner).is_ok();
                },
                &mut |found| work.paths.extend([found.path]),
            );
            let is_listed = report.root_unreadable.is_none()
                && report.unreadable.is_empty()
                && report.skipped.is_empty();
            if !is_listed {
                return false;
            }
            match dir {
                Some(dir) => {
                    work.paths.extend(self.tree.below(&dir));
                    work.paths.insert(dir);
                }
                None => work.paths.extend(self.tree.iter().map(|(path, _)| path)),
            }
        }
        work.everything = false;
        work.subtrees.clear();
        true
    }
}
