//! Reads one file for a commit: as JSON that must parse, in blocks where it is large, or whole.
//! Databases are for [`super::databases`].

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::databases::{Committed, Databases};
use super::gathered::{Blocks, Pass};
use super::outcome::{FileOutcome, Later, RETRY, carry};
use super::restless::Restless;
use crate::archive::Result;
use crate::archive::blocks::{BlockMap, BlockReader, LARGE_BLOCK};
use crate::archive::builder::{BlockFile, Builder};
use crate::entry::{Digest, Kind, Meta, RelPath};
use crate::session::{
    Directory, Fingerprint, Found, ReadError, Stable, StateDir, json, sqlite, stable,
};

/// Files up to this size are read whole; larger ones in blocks, of which only changed ones are
/// committed.
pub(super) const WHOLE_MAX: u64 = 1 << 20;
/// How long a JSON file may be torn before that is reported.
const JSON_PATIENCE: Duration = Duration::from_secs(1);
/// Reads files, and remembers of some how that went.
#[derive(Debug)]
pub(super) struct Files {
    databases: Databases,
    restless: Restless,
    /// Since when a file is torn.
    torn: HashMap<RelPath, Instant>,
}

impl Files {
    /// None read yet. Copies of databases that only a freeze can copy are made in `state`.
    pub(super) fn new(state: StateDir) -> Self {
        Self {
            databases: Databases::new(state),
            restless: Restless::default(),
            torn: HashMap::new(),
        }
    }

    pub(super) fn set_gateway(&mut self, pid: Option<i32>) {
        self.databases.set_gateway(pid);
    }

    /// Whether this was found to be a database.
    pub(super) fn is_database(&self, path: &RelPath) -> bool {
        self.databases.contains(path)
    }

    /// See [`Databases::too_soon`].
    pub(super) fn too_soon(&self, path: &RelPath, now: Instant) -> Option<Instant> {
        self.databases.too_soon(path, now)
    }

    /// Whether it is not waited for that this stands still together with others: a database, whose
    /// snapshots are each of one moment, or a large file that never does.
    pub(super) fn stands_apart(&self, path: &RelPath) -> bool {
        self.databases.contains(path) || self.restless.contains(path)
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
        known: Option<&Kind>,
        before: Option<&Blocks>,
        pass: Pass,
        builder: &mut Builder,
    ) -> Result<FileOutcome> {
        let known = match known {
            Some(Kind::File { size, hash }) => Some((*size, *hash)),
            _ => None,
        };
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
                    return self.large(directory, found, known, before, pass, builder);
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
        if json::is_json_name(&found.path) && !json::is_whole(&stable.bytes) {
            return Ok(self.torn(&found.path, &stable.bytes, pass));
        }
        self.torn.remove(&found.path);
        // A file that has no sidecars now has none in its fingerprint; see `Found`.
        let print = Fingerprint {
            sidecars: found.print.sidecars,
            ..stable.print
        };
        let size = stable.bytes.len() as u64;
        if known == Some((size, Digest::of(&stable.bytes))) {
            return Ok(FileOutcome::Same {
                meta: stable.meta,
                blocks: None,
                print,
            });
        }
        let hash = builder.put_file(&found.path, stable.meta, &stable.bytes)?;
        Ok(FileOutcome::Changed {
            meta: stable.meta,
            kind: Kind::File { size, hash },
            blocks: None,
            print,
        })
    }

    /// One of [`large`] files, unless it is too soon.
    fn large(
        &mut self,
        directory: &Directory,
        found: &Found,
        known: Option<(u64, Digest)>,
        before: Option<&BlockMap>,
        pass: Pass,
        builder: &mut Builder,
    ) -> Result<FileOutcome> {
        if let Some(later) = self.restless.not_yet(&found.path, pass) {
            return Ok(later);
        }
        let begun = Instant::now();
        let is_on_trial = pass == Pass::Live && self.restless.contains(&found.path);
        let trial = is_on_trial.then(|| self.restless.on_trial(&found.path, directory));
        let mut outcome = if let Some(Err(error)) = trial {
            unread(error, pass)
        } else {
            let outcome = large(directory, found, known, before, pass, builder)?;
            if matches!(outcome, FileOutcome::Later(_)) {
                self.restless.was_sent_in_vain(&found.path);
            }
            outcome
        };
        self.restless.note(&found.path, begun, &mut outcome);
        Ok(outcome)
    }

    fn torn(&mut self, path: &RelPath, bytes: &[u8], pass: Pass) -> FileOutcome {
        let now = Instant::now();
        let since = *self.torn.entry(path.clone()).or_insert(now);
        if pass == Pass::Live && now < since + JSON_PATIENCE {
            return FileOutcome::Later(Later {
                when: now + RETRY,
                why: "its JSON is not whole yet",
            });
        }
        // It stays noted, so that the same tear is not waited for again at each rescan.
        let words = if bytes.is_empty() {
            "it is empty"
        } else {
            "its JSON does not parse"
        };
        FileOutcome::NotWhole(words.into())
    }
}

fn large(
    directory: &Directory,
    found: &Found,
    known: Option<(u64, Digest)>,
    before: Option<&BlockMap>,
    pass: Pass,
    builder: &mut Builder,
) -> Result<FileOutcome> {
    let (dir, path) = (directory.fd(), found.path.as_bytes());
    if let (None, Some(known)) = (before, known) {
        // As for databases: likely the committed content.
        let mut reader = BlockReader::new(LARGE_BLOCK, None);
        let mut each = |_: u64, block: &[u8]| reader.feed(block, |_, _, _| Ok(()));
        let read = stable::read_blocks(dir, path, LARGE_BLOCK as usize, &mut each);
        let map = reader
            .finish(|_, _, _| Ok::<_, ()>(()))
            .expect("nothing in it fails");
        if let Ok((print, meta)) = read
            && known == (map.size(), map.hash())
        {
            let print = Fingerprint {
                sidecars: found.print.sidecars,
                ..print
            };
            return Ok(FileOutcome::Same {
                meta,
                blocks: Blocks::keep(map, None),
                print,
            });
        }
    }
    let mut file = builder.begin_blocks(&found.path, LARGE_BLOCK, before);
    let mut failure = None;
    let mut each = |_: u64, block: &[u8]| carry(file.feed(builder, block), &mut failure);
    let read = stable::read_blocks(dir, path, LARGE_BLOCK as usize, &mut each);
    if let Some(error) = failure {
        return Err(error);
    }
    match read {
        Ok((print, meta)) => {
            let print = Fingerprint {
                sidecars: found.print.sidecars,
                ..print
            };
            done(file, builder, meta, print, known)
        }
        Err(error) => {
            file.abandon(builder);
            Ok(unread(error, pass))
        }
    }
}

fn done(
    file: BlockFile<'_>,
    builder: &mut Builder,
    meta: Meta,
    print: Fingerprint,
    known: Option<(u64, Digest)>,
) -> Result<FileOutcome> {
    let ended = file.finish(builder, meta, known)?;
    Ok(FileOutcome::of_blocks(ended, meta, print, None))
}

fn unread(error: ReadError, pass: Pass) -> FileOutcome {
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
