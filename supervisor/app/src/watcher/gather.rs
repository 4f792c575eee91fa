//! Finding what differs between the directory and what is committed of it, and putting that into a
//! commit.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::debug;

use super::committed_index::CommittedIndex;
use super::dirty::Work;
use super::gathered::{Edit, Gathered, IndexEntry, Pass};
use super::guard::{self, Refusal};
use super::metadata::same_rights;
use super::outcome::{FileOutcome, Later, RETRY};
use super::passed_over::{may_be_the_gateways, unreadable};
use super::read_ahead::Taken;
use super::shape::{Becomes, Shape};
use super::unsaved::Reason;
use crate::progress::Progress;
use sessionkeep_archive::builder::{Builder, PackSink};
use sessionkeep_archive::tree::Leaf;
use sessionkeep_archive::{Aside, Result};
use sessionkeep_core::entry::{EntryKind, RelPath};
use sessionkeep_session::{Found, FoundKind, Limits, Look, SkipReason, Stable};

impl CommittedIndex {
    /// One look of [`CommittedIndex::gather`].
    pub(super) fn gather_once(
        &mut self,
        work: &Work,
        pass: Pass,
        sink: &Arc<Mutex<PackSink>>,
        progress: &Progress,
    ) -> Result<Gathered> {
        let mut gather = Gather::begin(sink, pass, progress)?;
        if let Err(error) = self.directory.intact() {
            gather.out.refused = Some(Refusal::DirectoryGone(error.to_string()));
            return Ok(gather.out);
        }
        let work = match work.everything {
            true => self.full_scan(&mut gather)?,
            false => work.clone(),
        };
        if gather.out.refused.is_some() {
            return Ok(gather.out);
        }
        if !work.is_empty() {
            let again = || Gather::begin(sink, pass, progress);
            self.look_at_one_moment(work, &mut gather, again)?;
        }
        self.look_at_sets(&mut gather)?;
        self.sort_out_removals(&mut gather);
        let (edits, tree) = (&gather.out.edits, &self.tree);
        let refusal = guard::check(&self.directory, &self.state, tree, &self.files, edits);
        if let Some(refusal) = refusal {
            gather.out.refused = Some(refusal);
            return Ok(gather.out);
        }
        self.add_touched(&mut gather);
        self.keep_what_cannot_be_had(&mut gather);
        self.add_links(&mut gather);
        self.add_own(&mut gather);
        let Gather {
            builder,
            mut out,
            begun,
            ..
        } = gather;
        if !builder.is_empty() {
            out.built = Some(builder.finish()?);
        }
        self.files.charge(cpu_time().saturating_sub(begun));
        Ok(out)
    }

    pub(super) fn look_below(&mut self, dir: &RelPath, gather: &mut Gather) -> Result<()> {
        self.look_at(dir, None, gather)?;
        let mut fresh = Vec::new();
        let (events, directory) = (&self.events, &self.directory);
        let watched = &mut self.scan.watched;
        let report = directory.scan(
            Some(dir),
            &mut |open, inner| {
                let mut events = events.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = events.watch_open(directory, open, inner) {
                    debug!(target: "sync", %error, "a directory cannot be watched");
                    *watched = false;
                }
            },
            &mut |found| fresh.push(found),
        );
        let seen: HashSet<RelPath> = fresh.iter().map(|found| found.path.clone()).collect();
        for found in fresh {
            self.found(found, Trust::Nothing, None, gather)?;
        }
        self.report_passed_over(&report);
        if report.root_unreadable.is_none() && report.unreadable.is_empty() {
            gather.removed.extend(
                self.tree
                    .below(dir)
                    .into_iter()
                    .filter(|path| !seen.contains(path)),
            );
        }
        Ok(())
    }

    /// Looks at `path`, unless it was `read` already.
    pub(super) fn look_at(
        &mut self,
        path: &RelPath,
        read: Option<Taken>,
        gather: &mut Gather,
    ) -> Result<()> {
        let look = match read {
            Some(Taken::File(found, read)) => {
                return self.found(found, Trust::Nothing, Some(read), gather);
            }
            Some(Taken::Nothing) => Look::Absent,
            None => self.directory.look(path),
        };
        match look {
            Look::Found(found) => self.found(found, Trust::Nothing, None, gather),
            // Left out by the profile, and archived all the same: by another profile.
            Look::Absent | Look::Skipped(SkipReason::Profile) => {
                if self.is_of_a_set(path) {
                    return Ok(());
                }
                self.is_no_database(path);
                self.unsaved.remove_all(path);
                if self.tree.get(path).is_some() {
                    gather.removed.push(path.clone());
                }
                Ok(())
            }
            Look::Skipped(reason) => {
                self.report_once(Some(path), "skipped", &reason.to_string());
                Ok(())
            }
            Look::Unreadable(error) => {
                self.cannot_be_read(path, &error.to_string());
                Ok(())
            }
        }
    }

    /// Takes an entry that is there, and adds to the commit what differs.
    pub(super) fn found(
        &mut self,
        found: Found,
        trust: Trust,
        read: Option<Stable>,
        gather: &mut Gather,
    ) -> Result<()> {
        self.silent_changes.note(&found);
        let known = self.tree.get(&found.path);
        let kind = match &found.kind {
            FoundKind::File => {
                let trusted =
                    trust == Trust::Fingerprint || self.files.is_settled_database(&found.path);
                if trusted
                    && known.is_some_and(|leaf| {
                        is_as_committed(leaf, &found, &self.keyed, &self.limits)
                    })
                {
                    return Ok(());
                }
                if !self.admits(&found.path, Becomes::Other, gather) {
                    return Ok(());
                }
                return self.found_file(found, read, gather);
            }
            FoundKind::Dir => EntryKind::Dir,
            FoundKind::Symlink { target } => EntryKind::Symlink {
                target: target.clone(),
            },
        };
        match known {
            Some(leaf) if leaf.kind == kind && self.same_rights(&leaf.meta, &found.meta) => {
                if kind != EntryKind::Dir && leaf.meta.mtime_ns != found.meta.mtime_ns {
                    self.touched.insert(found.path.clone());
                }
            }
            _ => {
                let becomes = match kind {
                    EntryKind::Dir => Becomes::Dir,
                    _ => Becomes::Other,
                };
                if !self.admits(&found.path, becomes, gather) {
                    return Ok(());
                }
                gather
                    .builder
                    .put_other(&found.path, found.meta, kind.clone());
                let leaf = Leaf {
                    meta: found.meta,
                    kind,
                    extra: IndexEntry::new(0, self.generation),
                };
                gather.out.edits.push(Edit::Set(found.path, leaf));
            }
        }
        Ok(())
    }

    /// Whether an edit fits to those before it. One that does not is looked at again, with what is above
    /// it: what stood there was exchanged in between.
    pub(super) fn admits(&self, path: &RelPath, becomes: Becomes, gather: &mut Gather) -> bool {
        if gather.shape.admit(&self.tree, path, becomes) {
            return true;
        }
        debug!(target: "sync", %path, "what is above it, or below it, was exchanged while it was read; looking again");
        let when = Instant::now() + RETRY;
        let mut next = Some(path.clone());
        while let Some(path) = next {
            next = path.parent();
            gather.out.later.push((path, when));
        }
        false
    }

    fn found_file(
        &mut self,
        found: Found,
        read: Option<Stable>,
        gather: &mut Gather,
    ) -> Result<()> {
        match self.belongs_to_a_set(&found) {
            true => Ok(()),
            false => self.read_file(found, read, gather),
        }
    }

    /// Reads a file and adds to the commit what differs.
    pub(super) fn read_file(
        &mut self,
        found: Found,
        read: Option<Stable>,
        gather: &mut Gather,
    ) -> Result<()> {
        let path = &found.path;
        let known = self.tree.get(path);
        gather.progress.add(1, found.print.size);
        let outcome = self.files.read(
            &self.directory,
            &found,
            read,
            known,
            self.blocks.get(path),
            gather.pass,
            &mut gather.builder,
        )?;
        if self.files.is_database(path) {
            self.is_database_by_itself(&found.path, gather);
        }
        self.take_outcome(found, outcome, gather);
        Ok(())
    }

    pub(super) fn take_outcome(&mut self, found: Found, outcome: FileOutcome, gather: &mut Gather) {
        let path = found.path;
        if matches!(
            outcome,
            FileOutcome::Changed { .. } | FileOutcome::Same { .. }
        ) {
            self.is_whole_again(&path);
        }
        let known = self.tree.get(&path);
        match outcome {
            FileOutcome::Changed {
                meta,
                kind,
                blocks,
                print,
                form,
            } => {
                let seen = self.seen(print).with_form(form);
                gather.out.files += 1;
                gather.out.edits.push(Edit::Set(
                    path.clone(),
                    Leaf {
                        meta,
                        kind,
                        extra: seen,
                    },
                ));
                gather.out.blocks.extend(blocks.map(|map| (path, map)));
            }
            FileOutcome::Same {
                meta,
                blocks,
                print,
                form,
            } => {
                let seen = self.seen(print).with_form(form);
                let leaf = known.expect("the same as something");
                if !self.same_rights(&leaf.meta, &meta) {
                    gather.builder.touch(&path, meta);
                    let leaf = Leaf {
                        meta,
                        kind: leaf.kind.clone(),
                        extra: seen,
                    };
                    gather.out.edits.push(Edit::Set(path.clone(), leaf));
                } else if leaf.meta.mtime_ns != meta.mtime_ns {
                    self.touched.insert(path.clone());
                }
                gather.out.refreshed.push((path.clone(), seen));
                gather.out.blocks.extend(blocks.map(|map| (path, map)));
            }
            FileOutcome::Gone => {
                self.unsaved.remove(&path);
                if known.is_some() && matches!(self.directory.look(&path), Look::Absent) {
                    gather.removed.push(path);
                }
            }
            FileOutcome::Later(Later { when, why }) => {
                debug!(target: "sync", %path, why, "file is not ready; looking again");
                gather.out.later.push((path, when));
            }
            FileOutcome::NotWhole(why) => {
                gather.out.not_whole += 1;
                self.report_once(Some(&path), "not whole", &why);
                self.unsaved.insert(path, Reason::NotWhole(why));
            }
            FileOutcome::Unasked => gather.out.unasked.push(path),
            FileOutcome::Unreadable(why) => {
                // By size and time alone: what cannot be read now need not have been read ever.
                let differs = known.map(|leaf| {
                    !matches!(leaf.kind, EntryKind::File { size, .. } if size == found.print.size)
                        || leaf.meta.mtime_ns != found.meta.mtime_ns
                });
                self.report_once(Some(&path), unreadable(differs.is_some()), &why);
                match differs.unwrap_or_else(|| may_be_the_gateways(&found.meta)) {
                    true => self.unsaved.insert(path, Reason::Unreadable(why)),
                    false => self.unsaved.remove(&path),
                }
            }
        }
    }

    /// What to keep of a fingerprint: nothing where a write could hide behind it.
    pub(super) fn seen(&self, print: sessionkeep_session::Fingerprint) -> IndexEntry {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        let hash = if print.may_hide_a_write(now) {
            0
        } else {
            hash_of(&print, &self.keyed)
        };
        IndexEntry::new(hash, self.generation)
    }

    /// Turns paths that are gone into removals: only the topmost of what went together, and none
    /// that has come back meanwhile.
    fn sort_out_removals(&self, gather: &mut Gather) {
        let mut removed = std::mem::take(&mut gather.removed);
        removed.sort();
        removed.dedup();
        let gone: HashSet<RelPath> = removed.iter().cloned().collect();
        for path in removed {
            let mut above = path.parent();
            let mut covered = gather.shape.takes_away(&path);
            while let Some(dir) = above {
                if gone.contains(&dir) {
                    covered = true;
                    break;
                }
                above = dir.parent();
            }
            if !covered && self.admits(&path, Becomes::Gone, gather) {
                gather.out.files += self.tree.below(&path).len() as u64 + 1;
                gather.builder.remove(&path);
                gather.out.edits.push(Edit::Remove(path));
            }
        }
    }
}

/// Whether a fingerprint may stand for the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// A scan looks at everything; what looks the same is the same.
    Fingerprint,
    /// The kernel reported a change here; two writes within a tick of the clock look the same.
    Nothing,
}

pub(super) struct Gather {
    pub(super) builder: Builder,
    shape: Shape,
    pub(super) pass: Pass,
    pub(super) out: Gathered,
    pub(super) removed: Vec<RelPath>,
    pub(super) progress: Progress,
    /// This thread's CPU time when it began.
    begun: Duration,
}

/// How much CPU time this thread has used.
pub(super) fn cpu_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_or(Duration::ZERO, Duration::from)
}

impl Gather {
    /// A new one over the same sink. Packs of one that was given up stay behind in the store, and
    /// are collected as what nothing refers to.
    pub(super) fn begin(
        sink: &Arc<Mutex<PackSink>>,
        pass: Pass,
        progress: &Progress,
    ) -> Result<Self> {
        let sink = sink.clone();
        let sink: PackSink = Box::new(move |id, content| {
            let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
            sink(id, content)
        });
        Ok(Self {
            builder: Builder::new(sink)?,
            shape: Shape::default(),
            pass,
            out: Gathered {
                built: None,
                edits: Vec::new(),
                aside: Aside::default(),
                blocks: Vec::new(),
                refreshed: Vec::new(),
                files: 0,
                later: Vec::new(),
                not_whole: 0,
                unasked: Vec::new(),
                refused: None,
                delayed: None,
            },
            removed: Vec::new(),
            progress: progress.clone(),
            begun: cpu_time(),
        })
    }
}

fn hash_of(print: &sessionkeep_session::Fingerprint, keyed: &RandomState) -> u64 {
    let facts = (
        print.size,
        print.mtime_ns,
        print.ctime_ns,
        print.ino,
        print.sidecars,
    );
    // 0 stands for "nothing known".
    (keyed.hash_one(facts) & IndexEntry::PRINT).max(!IndexEntry::PRINT + 1)
}

pub(super) fn is_as_committed(
    leaf: &Leaf<IndexEntry>,
    found: &Found,
    keyed: &RandomState,
    limits: &Limits,
) -> bool {
    let same_rights = || same_rights(&leaf.meta, &limits.as_archived(found.meta, &leaf.meta));
    match (&leaf.kind, &found.kind) {
        (EntryKind::File { .. }, FoundKind::File) => {
            leaf.extra.print() == hash_of(&found.print, keyed)
        }
        (EntryKind::Dir, FoundKind::Dir) => same_rights(),
        (EntryKind::Symlink { target }, FoundKind::Symlink { target: now }) => {
            target == now && same_rights()
        }
        _ => false,
    }
}
