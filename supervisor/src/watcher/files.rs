//! Reads one file for a commit: in blocks where it is large ([`super::large`]), or whole.
//! Databases are for [`super::databases`].

use std::time::{Duration, Instant};

use super::databases::{Committed, Databases};
use super::gathered::{Blocks, Pass, Seen};
use super::json_gate::{Before, JsonGate};
use super::large::{Large, Read};
use super::outcome::{FileOutcome, Later, RETRY};
use super::restless::Restless;
use super::sets::Sets;
use crate::archive::Result;
use crate::archive::blocks::{BlockMap, LARGE_BLOCK};
use crate::archive::builder::Builder;
use crate::archive::tree::Leaf;
use crate::entry::{Digest, Kind, RelPath};
use crate::session::json::{self, Form};
use crate::session::{
    Directory, Fingerprint, Found, JsonReader, Login, ReadError, Stable, StateDir, sqlite, stable,
};

/// Files up to this size are read whole; larger ones in blocks, of which only changed ones are
/// committed.
pub(super) const WHOLE_MAX: u64 = 1 << 20;
/// Reads files, and remembers of some how that went.
#[derive(Debug)]
pub(super) struct Files {
    databases: Databases,
    restless: Restless,
    json: JsonGate,
    pub(super) sets: Sets,
}

impl Files {
    /// None read yet. Copies of databases that only a freeze can copy are made in `state`.
    pub(super) fn new(state: StateDir) -> Self {
        Self {
            databases: Databases::new(state),
            restless: Restless::default(),
            json: JsonGate::default(),
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
        self.databases.contains(path) || self.restless.contains(path) || self.sets.contains(path)
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
        leaf: Option<&Leaf<Seen>>,
        before: Option<&Blocks>,
        pass: Pass,
        builder: &mut Builder,
    ) -> Result<FileOutcome> {
        let known = match leaf.map(|leaf| &leaf.kind) {
            Some(Kind::File { size, hash }) => Some((*size, *hash)),
            _ => None,
        };
        let is_json = json::is_json_name(&found.path);
        // Block hashes are only worth something if they are of the committed version.
        let before = before.filter(|had| known == Some((had.map.size(), had.map.hash())));
        let committed = Committed {
            content: known,
            blocks: before,
        };
        let is_known_database = self.databases.contains(&found.path);
        if found.print.size > WHOLE_MAX || is_known_database {
            match sqlite::has_magic(directory.fd(), found.path.as_bytes()) {
                Ok(true) => {
                    let databases = &mut self.databases;
                    return databases.read(directory, found, &committed, pass, builder);
                }
                // A database that lost its magic is what it looks like.
                Ok(false) if found.print.size <= WHOLE_MAX => {}
                Ok(false) => {
                    let before = before.map(|had| &had.map);
                    let json = is_json.then(|| form_of_committed(leaf));
                    return self.large(directory, found, known, (before, json), pass, builder);
                }
                Err(error) => return Ok(failed(&error)),
            }
        }
        let read = || stable::read_whole(directory.fd(), found.path.as_bytes(), WHOLE_MAX);
        let stable = match ahead.map_or_else(read, Ok) {
            Ok(stable) => stable,
            Err(error) => return Ok(unread(error, pass)),
        };
        if stable.bytes.starts_with(b"SQLite format 3\0") {
            drop(stable);
            let databases = &mut self.databases;
            return databases.read(directory, found, &committed, pass, builder);
        }
        let form = is_json.then(|| json::form_of(&stable.bytes));
        // A file that has no sidecars now has none in its fingerprint; see `Found`.
        let print = Fingerprint {
            sidecars: found.print.sidecars,
            ..stable.print
        };
        let size = stable.bytes.len() as u64;
        if known == Some((size, Digest::of(&stable.bytes))) {
            self.json.forget(&found.path);
            return Ok(FileOutcome::Same {
                meta: stable.meta,
                blocks: None,
                print,
                form,
            });
        }
        if let Some(form) = form {
            let before = form_of_committed(leaf);
            let outcome = self
                .json
                .judge(&found.path, (form, stable.print), before, pass);
            if let Some(outcome) = outcome {
                return Ok(outcome);
            }
        }
        let hash = builder.put_file(&found.path, stable.meta, &stable.bytes)?;
        Ok(FileOutcome::Changed {
            meta: stable.meta,
            kind: Kind::File { size, hash },
            blocks: None,
            print,
            form,
        })
    }

    /// One of [`large`] files, unless it is too soon.
    fn large(
        &mut self,
        directory: &Directory,
        found: &Found,
        known: Option<(u64, Digest)>,
        (before, json): (Option<&BlockMap>, Option<Before>),
        pass: Pass,
        builder: &mut Builder,
    ) -> Result<FileOutcome> {
        if let Some(later) = self.restless.not_yet(&found.path, pass) {
            return Ok(later);
        }
        // Nothing of what was torn a moment ago shall be on its way to the store before it is seen
        // whether it still is.
        if let Some(committed) = json.filter(|_| self.json.is_suspect(&found.path)) {
            let name = found.path.as_bytes();
            match json::read_form(directory.fd(), name, LARGE_BLOCK as usize) {
                Ok(read) => {
                    if let Some(held) = self.json.judge(&found.path, read, committed, pass) {
                        return Ok(held);
                    }
                }
                Err(error) => return Ok(unread(error, pass)),
            }
        }
        let begun = Instant::now();
        let is_on_trial = pass == Pass::Live && self.restless.contains(&found.path);
        let trial = is_on_trial.then(|| self.restless.on_trial(&found.path, directory));
        let mut outcome = if let Some(Err(error)) = trial {
            unread(error, pass)
        } else {
            let mut judge = |read| {
                let judge = |committed| self.json.judge(&found.path, read, committed, pass);
                json.and_then(judge)
            };
            let reader = json.map(|_| JsonReader::default());
            let large = Large {
                directory,
                found,
                known,
                before,
                reader,
            };
            let outcome = match large.read(pass, builder, &mut judge)? {
                Read::Outcome(outcome) => {
                    if matches!(outcome, FileOutcome::Same { .. }) {
                        self.json.forget(&found.path);
                    }
                    outcome
                }
                // That says nothing of whether it stands still.
                Read::Held(outcome) => return Ok(outcome),
            };
            if matches!(outcome, FileOutcome::Later(_)) {
                self.restless.was_sent_in_vain(&found.path);
            }
            outcome
        };
        self.restless.note(&found.path, begun, &mut outcome);
        Ok(outcome)
    }
}

/// What is known of the form of a committed file.
fn form_of_committed(leaf: Option<&Leaf<Seen>>) -> Before {
    match leaf {
        Some(Leaf {
            kind: Kind::File { size: 0, .. },
            ..
        }) => Before::Known(Form::Empty),
        Some(Leaf {
            kind: Kind::File { .. },
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
