//! Reads one file for a commit: in blocks where it is large ([`super::large`]), or whole.
//! Databases are for [`super::databases`].

use std::time::{Duration, Instant};

use super::databases::{Committed, Databases};
use super::form_gate::{Before, FormGate, Last};
use super::gathered::{Blocks, IndexEntry, Pass};
use super::hot_files::HotFiles;
use super::large::{Large, Read};
use super::outcome::{FileOutcome, Later, RETRY};
use super::sets::Sets;
use sessionkeep_archive::Result;
use sessionkeep_archive::blocks::LARGE_BLOCK;
use sessionkeep_archive::builder::Builder;
use sessionkeep_archive::tree::Leaf;
use sessionkeep_core::entry::{Digest, EntryKind, RelPath};
use sessionkeep_core::state_dir::StateDir;
use sessionkeep_session::form::{self, may_be_database, read_form};
use sessionkeep_session::{
    Directory, Fingerprint, Form, FormReader, Found, Login, ReadError, Stable, json, sqlite, stable,
};

/// Files up to this size are read whole; larger ones in blocks, of which only changed ones are
/// committed.
pub(super) const WHOLE_MAX: u64 = 1 << 20;
/// Reads files, and remembers of some how that went.
#[derive(Debug)]
pub(super) struct Files {
    databases: Databases,
    hot_files: HotFiles,
    gate: FormGate,
    pub(super) sets: Sets,
}

impl Files {
    /// None read yet. Copies of databases that only a freeze can copy are made in `state`.
    pub(super) fn new(state: StateDir) -> Self {
        Self {
            databases: Databases::new(state),
            hot_files: HotFiles::default(),
            gate: FormGate::default(),
            sets: Sets::default(),
        }
    }

    pub(super) fn set_gateway(&mut self, pid: Option<i32>) {
        self.databases.set_gateway(pid);
    }

    /// See [`Databases::gateway`].
    pub(super) fn gateway(&self) -> Option<i32> {
        self.databases.gateway()
    }

    /// Whether this was found to be a database.
    pub(super) fn is_database(&self, path: &RelPath) -> bool {
        self.databases.contains(path)
    }

    /// See [`Databases::keeps_login`].
    pub(super) fn keeps_login(&self, path: &RelPath) -> bool {
        self.databases.keeps_login(path)
    }

    /// See [`Databases::note_login`].
    pub(super) fn note_login(&mut self, path: &RelPath, login: Login) {
        self.databases.note_login(path, login);
    }

    /// See [`Databases::take_logins`].
    pub(super) fn take_logins(&mut self) -> Vec<(RelPath, Option<Login>)> {
        self.databases.take_logins()
    }

    /// See [`Databases::too_soon`].
    pub(super) fn too_soon(&self, path: &RelPath, now: Instant) -> Option<Instant> {
        self.databases.too_soon(path, now)
    }

    /// Whether it is not waited for that this stands still together with others: a database, whose
    /// snapshots are each of one moment, a large file that never does, or one of a set that is of one moment
    /// by itself.
    pub(super) fn stands_apart(&self, path: &RelPath) -> bool {
        self.databases.contains(path) || self.hot_files.contains(path) || self.sets.contains(path)
    }

    /// Whether an unchanged fingerprint proves that this is an unchanged database. Taking a
    /// snapshot itself looks like a change to the kernel; without this each would cause the next.
    pub(super) fn is_settled_database(&self, path: &RelPath) -> bool {
        self.databases.is_settled(path) == Some(true)
    }

    /// Whether this is a database whose last snapshot found something new: an unchanged fingerprint
    /// proves nothing then.
    pub(super) fn is_unsettled_database(&self, path: &RelPath) -> bool {
        self.databases.is_settled(path) == Some(false)
    }

    /// See [`Databases::charge`].
    pub(super) fn charge(&mut self, cost: Duration) {
        self.databases.charge(cost);
    }

    /// Reads the file `found`, unless that was done `ahead`, and adds it to the commit if it differs
    /// from `known`.
    #[expect(clippy::too_many_arguments, reason = "each is another owner's")]
    pub(super) fn read(
        &mut self,
        directory: &Directory,
        found: &Found,
        ahead: Option<Stable>,
        leaf: Option<&Leaf<IndexEntry>>,
        blocks: Option<&Blocks>,
        pass: Pass,
        builder: &mut Builder,
    ) -> Result<FileOutcome> {
        let content = content_of(leaf);
        let committed = Committed {
            content,
            // Block hashes are only worth something if they are of the committed version.
            blocks: blocks.filter(|had| content == Some((had.map.size(), had.map.hash()))),
        };
        let last = self.last(&found.path, leaf);
        let is_large = found.print.size > WHOLE_MAX;
        let read = |ahead: Option<Stable>| {
            let read = || stable::read_whole(directory.fd(), found.path.as_bytes(), WHOLE_MAX);
            ahead.map_or_else(read, Ok)
        };
        let (is_database, small) = if is_large || self.databases.contains(&found.path) {
            match sqlite::is_database(directory.fd(), found.path.as_bytes()) {
                Ok(is_one) => (is_one, ahead.filter(|_| !is_one)),
                Err(error) => return Ok(failed(&error)),
            }
        } else {
            match read(ahead) {
                Ok(stable) => {
                    let is_one = sqlite::is_header(&stable.bytes);
                    (is_one, Some(stable).filter(|_| !is_one))
                }
                Err(error) => return Ok(unread(error, pass)),
            }
        };
        let mut is_damaged = false;
        if is_database {
            let databases = &mut self.databases;
            let outcome = databases.read(directory, found, &committed, pass, builder)?;
            is_damaged = matches!(outcome, FileOutcome::NotWhole(_));
            // Where nothing better is stored, what is there is better than nothing.
            if !is_damaged || last.form == Before::Known(Form::Database) {
                return Ok(outcome);
            }
        }
        let is_gated =
            is_damaged || json::is_json_name(&found.path) || may_have_been_database(last, content);
        let gated = is_gated.then_some(last);
        if is_large {
            return self.large(directory, found, &committed, gated, pass, builder);
        }
        match read(small) {
            Ok(stable) => self.small(found, stable, content, gated, pass, builder),
            Err(error) => Ok(unread(error, pass)),
        }
    }

    /// What is known of the committed version of a file.
    fn last(&self, path: &RelPath, leaf: Option<&Leaf<IndexEntry>>) -> Last {
        Last {
            form: form_of_committed(leaf),
            kept_login: self.databases.keeps_login(path),
        }
    }

    /// Whether a file that SQLite does not read may be what is left of a database that is committed.
    pub(super) fn may_be_torn(
        &self,
        directory: &Directory,
        found: &Found,
        leaf: Option<&Leaf<IndexEntry>>,
    ) -> bool {
        let last = self.last(&found.path, leaf);
        if !may_have_been_database(last, content_of(leaf)) {
            return false;
        }
        let Before::Known(before) = last.form else {
            return true;
        };
        let start = sqlite::read_start(directory.fd(), found.path.as_bytes());
        // What cannot be read is read again with all that belongs to it, and reported then.
        start.is_ok_and(|start| {
            let now = form::of_other(&start, found.print.size);
            form::is_torn(&found.path, before, now, last.kept_login)
        })
    }

    /// One that was read whole.
    fn small(
        &mut self,
        found: &Found,
        stable: Stable,
        content: Option<(u64, Digest)>,
        gated: Option<Last>,
        pass: Pass,
        builder: &mut Builder,
    ) -> Result<FileOutcome> {
        // A file that has no sidecars now has none in its fingerprint; see `Found`.
        let print = Fingerprint {
            sidecars: found.print.sidecars,
            ..stable.print
        };
        let size = stable.bytes.len() as u64;
        let form = match (json::is_json_name(&found.path), gated) {
            (true, _) => json::form_of(&stable.bytes),
            (false, Some(_)) => form::of_other(&stable.bytes, size),
            (false, None) => Form::Broken,
        };
        if content == Some((size, Digest::of(&stable.bytes))) {
            self.gate.forget(&found.path);
            return Ok(FileOutcome::Same {
                meta: stable.meta,
                blocks: None,
                print,
                form: Some(form),
            });
        }
        let gate = &mut self.gate;
        let judge = |last| gate.judge(&found.path, (form, stable.print), last, pass);
        if let Some(outcome) = gated.and_then(judge) {
            return Ok(outcome);
        }
        let hash = builder.put_file(&found.path, stable.meta, &stable.bytes)?;
        Ok(FileOutcome::Changed {
            meta: stable.meta,
            kind: EntryKind::File { size, hash },
            blocks: None,
            print,
            form: Some(form),
        })
    }

    /// One of [`large`] files, unless it is too soon.
    fn large(
        &mut self,
        directory: &Directory,
        found: &Found,
        committed: &Committed<'_>,
        gated: Option<Last>,
        pass: Pass,
        builder: &mut Builder,
    ) -> Result<FileOutcome> {
        if let Some(later) = self.hot_files.not_yet(&found.path, pass) {
            return Ok(later);
        }
        // Nothing of what was torn a moment ago shall be on its way to the store before it is seen
        // whether it still is.
        if let Some(last) = gated.filter(|_| self.gate.is_suspect(&found.path)) {
            let (name, reader) = (found.path.as_bytes(), FormReader::of(&found.path));
            match read_form(directory.fd(), name, LARGE_BLOCK as usize, reader) {
                Ok(read) => {
                    if let Some(held) = self.gate.judge(&found.path, read, last, pass) {
                        return Ok(held);
                    }
                }
                Err(error) => return Ok(unread(error, pass)),
            }
        }
        let begun = Instant::now();
        let is_on_trial = pass == Pass::Live && self.hot_files.contains(&found.path);
        let trial = is_on_trial.then(|| self.hot_files.on_trial(&found.path, directory));
        let mut outcome = if let Some(Err(error)) = trial {
            unread(error, pass)
        } else {
            let mut judge = |read| {
                let judge = |last| self.gate.judge(&found.path, read, last, pass);
                gated.and_then(judge)
            };
            let large = Large {
                directory,
                found,
                known: committed.content,
                before: committed.blocks.map(|had| &had.map),
                reader: gated.map(|_| FormReader::of(&found.path)),
            };
            let outcome = match large.read(pass, builder, &mut judge)? {
                Read::Outcome(outcome) => {
                    if matches!(outcome, FileOutcome::Same { .. }) {
                        self.gate.forget(&found.path);
                    }
                    outcome
                }
                // That says nothing of whether it stands still.
                Read::Held(outcome) => return Ok(outcome),
            };
            if matches!(outcome, FileOutcome::Later(_)) {
                self.hot_files.was_sent_in_vain(&found.path);
            }
            outcome
        };
        self.hot_files.note(&found.path, begun, &mut outcome);
        Ok(outcome)
    }
}

/// Size and hash of a committed file.
fn content_of(leaf: Option<&Leaf<IndexEntry>>) -> Option<(u64, Digest)> {
    match leaf.map(|leaf| &leaf.kind) {
        Some(EntryKind::File { size, hash }) => Some((*size, *hash)),
        _ => None,
    }
}

/// Whether the committed version is a database, or may be one.
fn may_have_been_database(last: Last, content: Option<(u64, Digest)>) -> bool {
    match last.form {
        Before::Known(form) => form == Form::Database,
        Before::Unknown => content.is_some_and(|(size, _)| may_be_database(size)),
        Before::Nothing => false,
    }
}

/// What is known of the form of a committed file.
fn form_of_committed(leaf: Option<&Leaf<IndexEntry>>) -> Before {
    match leaf {
        Some(Leaf {
            kind: EntryKind::File { size: 0, .. },
            ..
        }) => Before::Known(Form::Empty),
        Some(Leaf {
            kind: EntryKind::File { .. },
            extra,
            ..
        }) if extra.is_database() => Before::Known(Form::Database),
        Some(Leaf {
            kind: EntryKind::File { .. },
            extra,
            ..
        }) => match extra.is_whole() {
            Some(true) => Before::Known(Form::Whole),
            Some(false) => Before::Known(Form::Broken),
            None => Before::Unknown,
        },
        _ => Before::Nothing,
    }
}

pub(super) fn unread(error: ReadError, pass: Pass) -> FileOutcome {
    match error {
        ReadError::Vanished | ReadError::NotAFile => FileOutcome::Gone,
        // At the end, too: the flush looks again until its deadline, and then says which it was.
        ReadError::Changed => FileOutcome::Later(Later {
            when: Instant::now() + RETRY,
            why: "it kept changing",
        }),
        // It grew beyond the limit between the look and the reading: the next look knows.
        ReadError::Io(error)
            if error.kind() == std::io::ErrorKind::FileTooLarge && pass == Pass::Live =>
        {
            FileOutcome::Later(Later {
                when: Instant::now() + RETRY,
                why: "it grew",
            })
        }
        ReadError::Io(error) => failed(&error),
    }
}

fn failed(error: &std::io::Error) -> FileOutcome {
    if error.kind() == std::io::ErrorKind::NotFound {
        FileOutcome::Gone
    } else {
        FileOutcome::Unreadable(error.to_string())
    }
}
