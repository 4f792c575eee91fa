//! Files that belong together, of which SQLite cannot tell us how: a database that is none to us, such as
//! an encrypted one, with the `-wal`, `-journal` and `-shm` beside it. They are files like any others,
//! but taken as of one moment: a log that belongs to another state of its database is worth nothing.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tracing::debug;

use super::committed_index::CommittedIndex;
use super::files::WHOLE_MAX;
use super::gather::Gather;
use super::gathered::{Blocks, Edit, Pass};
use super::large::{Large, Read};
use super::outcome::{FileOutcome, RETRY};
use super::shape::Becomes;
use sessionkeep_archive::builder::Builder;
use sessionkeep_archive::{ArchiveError, Result};
use sessionkeep_core::entry::{Digest, EntryKind, Meta, RelPath};
use sessionkeep_session::together::{Copies, copy_in_a_still_moment, copy_while_frozen, members};
use sessionkeep_session::{
    Directory, Fingerprint, Form, Found, FoundKind, Look, ProcessFreezer, Profile, sqlite, stable,
};

/// A set that took `t` to copy and read is not read again for `t` times this: 4 % of a core.
const PACE: u32 = 25;
/// But none waits longer than this.
const PACE_MAX: Duration = Duration::from_secs(30);
/// How often the gateway is held still for one that it writes without a pause, at most.
const FREEZE_EVERY: Duration = Duration::from_secs(1);

/// The sets that are known, by the path of the database, and when each may be read again.
#[derive(Debug, Default)]
pub(super) struct Sets {
    known: HashMap<RelPath, Set>,
    /// To be looked at before the commit is made.
    due: BTreeSet<RelPath>,
}

#[derive(Debug, Default)]
struct Set {
    next: Option<Instant>,
    next_freeze: Option<Instant>,
    /// What each file looked like, by itself, when this was its content.
    seen: HashMap<RelPath, (Fingerprint, Digest)>,
}

impl Sets {
    /// Whether this is of one.
    pub(super) fn contains(&self, path: &RelPath) -> bool {
        self.stem_of(path).is_some()
    }

    /// The database of the set that this is of.
    fn stem_of(&self, path: &RelPath) -> Option<RelPath> {
        if self.known.is_empty() {
            return None;
        }
        std::iter::once(path.clone())
            .chain(Profile::database_of(path))
            .find(|stem| self.known.contains_key(stem))
    }
}

impl CommittedIndex {
    /// Puts the file off until all that belongs to it can be looked at, where something does.
    pub(super) fn belongs_to_a_set(&mut self, found: &Found) -> bool {
        if self.is_of_a_set(&found.path) {
            return true;
        }
        let stem = if found.print.sidecars != 0 {
            let is_sqlite = sqlite::is_database(self.directory.fd(), found.path.as_bytes());
            matches!(is_sqlite, Ok(false)).then(|| found.path.clone())
        } else {
            // It is not passed over, so that what it lies beside is no database of SQLite's.
            let is_file = |main: &RelPath| matches!(self.directory.look(main), Look::Found(main) if main.kind == FoundKind::File);
            Profile::database_of(&found.path).filter(is_file)
        };
        let Some(stem) = stem else { return false };
        self.files.sets.due.insert(stem);
        true
    }

    /// The same of what is of a set that is known, whether or not it is there.
    pub(super) fn is_of_a_set(&mut self, path: &RelPath) -> bool {
        let stem = self.files.sets.stem_of(path);
        let is_of_one = stem.is_some();
        self.files.sets.due.extend(stem);
        is_of_one
    }

    /// Looks at the sets of which something may have changed.
    pub(super) fn look_at_sets(&mut self, gather: &mut Gather) -> Result<()> {
        for stem in std::mem::take(&mut self.files.sets.due) {
            self.look_at_set(&stem, gather)?;
        }
        Ok(())
    }

    fn look_at_set(&mut self, stem: &RelPath, gather: &mut Gather) -> Result<()> {
        let begun = Instant::now();
        let set = self.files.sets.known.entry(stem.clone()).or_default();
        if let (Pass::Live, Some(next)) = (gather.pass, set.next)
            && begun < next
        {
            gather.out.later.push((stem.clone(), next));
            return Ok(());
        }
        let found = members(&self.directory, stem);
        let is_one = found.first().is_some_and(|first| first.path == *stem);
        let is_sqlite = sqlite::is_database(self.directory.fd(), stem.as_bytes());
        if !is_one || !matches!(is_sqlite, Ok(false)) {
            return self.take_apart(stem, &found, is_one, gather);
        }
        // A database that was overwritten under its log is no set of files, but is held back by itself.
        let leaf = self.tree.get(stem);
        if self.files.may_be_torn(&self.directory, &found[0], leaf) {
            self.files.sets.known.remove(stem);
            return self.read_file(found[0].clone(), None, gather);
        }
        let Some(copies) = self.copies(stem, gather) else {
            return Ok(());
        };
        self.take_copies(stem, &copies, gather)?;
        let pause = (begun.elapsed() * PACE).clamp(RETRY, PACE_MAX);
        if let Some(set) = self.files.sets.known.get_mut(stem) {
            set.next = Some(Instant::now() + pause);
        }
        Ok(())
    }

    /// What is left of a set, or has become something else, is looked at by itself.
    fn take_apart(
        &mut self,
        stem: &RelPath,
        found: &[Found],
        has_stem: bool,
        gather: &mut Gather,
    ) -> Result<()> {
        self.files.sets.known.remove(stem);
        for found in found {
            let is_set = |edit: &Edit| matches!(edit, Edit::Set(path, _) if *path == found.path);
            if !gather.out.edits.iter().any(is_set) {
                self.read_file(found.clone(), None, gather)?;
            }
        }
        self.remove_sidecars_but(stem, found, gather);
        if !has_stem && self.tree.get(stem).is_some() {
            gather.removed.push(stem.clone());
        }
        Ok(())
    }

    /// Copies what changed; `None` where that is put off.
    fn copies(&mut self, stem: &RelPath, gather: &mut Gather) -> Option<Copies> {
        let wanted = |found: &Found| !self.is_unchanged(stem, found);
        let (directory, state) = (&self.directory, &self.state);
        let mut copied = copy_in_a_still_moment(directory, state, stem, &wanted);
        let set = self.files.sets.known.get(stem);
        let next_freeze = set.and_then(|set| set.next_freeze);
        let now = Instant::now();
        let mut when = now + RETRY * 5;
        if let (Ok(None), Pass::Live, Some(gateway)) = (&copied, gather.pass, self.files.gateway())
        {
            if let Some(next) = next_freeze.filter(|next| now < *next) {
                when = next;
            } else {
                let freezer = ProcessFreezer::of_gateway(gateway);
                copied = copy_while_frozen(directory, state, stem, &wanted, &freezer);
                if let Some(set) = self.files.sets.known.get_mut(stem) {
                    set.next_freeze = Some(Instant::now() + FREEZE_EVERY);
                }
            }
        }
        match copied {
            Ok(Some(copies)) => return Some(copies),
            Ok(None) => {
                debug!(target: "sync", path = %stem, "file is written without a pause, with what belongs to it; looking again");
            }
            Err(error) => {
                debug!(target: "sync", path = %stem, %error, "file could not be copied with what belongs to it; looking again");
            }
        }
        gather.out.later.push((stem.clone(), when));
        None
    }

    fn committed_hash(&self, path: &RelPath) -> Option<Digest> {
        match self.tree.get(path)?.kind {
            EntryKind::File { hash, .. } => Some(hash),
            _ => None,
        }
    }

    /// Whether the file looks as it did when it had the content that is committed.
    fn is_unchanged(&self, stem: &RelPath, found: &Found) -> bool {
        let set = self.files.sets.known.get(stem);
        let seen = set.and_then(|set| set.seen.get(&found.path));
        seen.is_some_and(|(print, digest)| {
            *print == found.print && self.committed_hash(&found.path) == Some(*digest)
        })
    }

    fn take_copies(&mut self, stem: &RelPath, copies: &Copies, gather: &mut Gather) -> Result<()> {
        // All or none: what does not fit to this commit is looked at again.
        for found in &copies.found {
            if !self.admits(&found.path, Becomes::Other, gather) {
                let when = Instant::now() + RETRY;
                gather.out.later.push((stem.clone(), when));
                return Ok(());
            }
        }
        let mut metas: HashMap<&RelPath, Meta> = HashMap::new();
        let mut seen = HashMap::new();
        for found in &copies.found {
            let committed = self.committed_hash(&found.path);
            if self.is_unchanged(stem, found) {
                seen.extend(committed.map(|hash| (found.path.clone(), (found.print, hash))));
                continue;
            }
            let known = self.tree.get(&found.path).map(|leaf| &leaf.kind);
            let blocks = self.blocks.get(&found.path);
            let mut outcome = read(&copies.directory, found, known, blocks, &mut gather.builder)?;
            // Of the copy only the content counts. A look at everything sees what lies beside it, too.
            let own = match self.directory.look(&found.path) {
                Look::Found(now) if without_sidecars(now.print) == found.print => now.print,
                _ => found.print,
            };
            let digest = match &mut outcome {
                FileOutcome::Changed {
                    meta, print, kind, ..
                } => {
                    (*meta, *print) = (found.meta, own);
                    match kind {
                        EntryKind::File { hash, .. } => Some(*hash),
                        _ => None,
                    }
                }
                FileOutcome::Same { meta, print, .. } => {
                    (*meta, *print) = (found.meta, own);
                    committed
                }
                other => return Err(failed(found, &format!("{other:?}"))),
            };
            metas.insert(&found.path, found.meta);
            // A write could hide behind one that is too new.
            if let Some(digest) = digest
                && self.seen(found.print).print() != 0
            {
                seen.insert(found.path.clone(), (found.print, digest));
            }
            gather.progress.add(1, found.print.size);
            self.take_outcome(found.clone(), outcome, gather);
        }
        gather.builder.each_meta(|path, meta| {
            if let Some(own) = metas.get(path) {
                *meta = *own;
            }
        });
        self.remove_sidecars_but(stem, &copies.found, gather);
        if let Some(set) = self.files.sets.known.get_mut(stem) {
            set.seen = seen;
        }
        Ok(())
    }

    /// What lies beside a database of SQLite's is told by its snapshot, and by nothing else: a log that is
    /// archived from before it was one would be replayed into it.
    pub(super) fn is_database_by_itself(&mut self, path: &RelPath, gather: &mut Gather) {
        self.note_database(path, true);
        self.remove_sidecars_but(path, &[], gather);
    }

    /// The path holds nothing (any more).
    pub(super) fn is_no_database(&self, path: &RelPath) {
        if self.files.is_database(path) {
            self.note_database(path, false);
        }
    }

    fn note_database(&self, path: &RelPath, is_one: bool) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.note_database(path, is_one);
    }

    /// Takes what is archived beside `stem`, under the names of a database's sidecars, for gone, but for
    /// those that were found.
    pub(super) fn remove_sidecars_but(
        &mut self,
        stem: &RelPath,
        found: &[Found],
        gather: &mut Gather,
    ) {
        for path in Profile::sidecars_of(stem) {
            let is_found = found.iter().any(|found| found.path == path);
            if !is_found && self.tree.get(&path).is_some() {
                gather.removed.push(path);
            }
        }
    }
}

/// Reads a copy that nobody else writes. What it is called says nothing: it is no file of a known form.
fn read(
    copies: &Directory,
    found: &Found,
    known: Option<&EntryKind>,
    before: Option<&Blocks>,
    builder: &mut Builder,
) -> Result<FileOutcome> {
    let known = match known {
        Some(EntryKind::File { size, hash }) => Some((*size, *hash)),
        _ => None,
    };
    if found.print.size > WHOLE_MAX {
        let before = before.filter(|had| known == Some((had.map.size(), had.map.hash())));
        let large = Large {
            directory: copies,
            found,
            known,
            before: before.map(|had| &had.map),
            reader: None,
        };
        let (Read::Outcome(outcome) | Read::Held(outcome)) =
            large.read(Pass::Final, builder, &mut |_| None)?;
        return Ok(outcome);
    }
    let stable = stable::read_whole(copies.fd(), found.path.as_bytes(), WHOLE_MAX)
        .map_err(|error| failed(found, &error.to_string()))?;
    let size = stable.bytes.len() as u64;
    if known == Some((size, Digest::of(&stable.bytes))) {
        return Ok(FileOutcome::Same {
            meta: stable.meta,
            blocks: None,
            print: stable.print,
            form: Some(Form::Broken),
        });
    }
    let hash = builder.put_file(&found.path, stable.meta, &stable.bytes)?;
    Ok(FileOutcome::Changed {
        meta: stable.meta,
        kind: EntryKind::File { size, hash },
        blocks: None,
        print: stable.print,
        form: Some(Form::Broken),
    })
}

fn failed(found: &Found, why: &str) -> ArchiveError {
    ArchiveError::Io {
        action: "read a copy of files that belong together",
        source: io::Error::other(format!("{}: {why}", found.path)),
    }
}

fn without_sidecars(print: Fingerprint) -> Fingerprint {
    Fingerprint {
        sidecars: 0,
        ..print
    }
}
