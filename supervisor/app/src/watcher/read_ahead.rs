//! Reads files before they are looked at closer.
//!
//! The few of an ordinary commit in one go ([`ReadAhead`]), and nothing else meanwhile: no hashing,
//! no parsing, no compressing. Whether that was one moment is for the caller to find out. The many
//! of a first upload beside the looking ([`in_batches`]).

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use super::dirty::Work;
use super::files::{Files, WHOLE_MAX};
use super::gathered::IndexEntry;
use sessionkeep_archive::tree::Tree;
use sessionkeep_core::beneath;
use sessionkeep_core::entry::RelPath;
use sessionkeep_session::{Directory, Found, FoundKind, Look, ReadError, Stable, json, stable};

/// More than this is not kept in memory at once.
const FILES_MAX: usize = 1000;
/// Names that are looked up, most of which are gone.
const PATHS_MAX: usize = 5000;
/// See [`FILES_MAX`].
const BYTES_MAX: u64 = 4 << 20;

/// A batch is handed on when it holds this much, or this many files.
const BATCH_BYTES: u64 = 128 << 10;
/// See [`BATCH_BYTES`].
const BATCH_FILES: usize = 64;

/// Something that was found, with its content where that is a small file that could be read.
type Read = (Found, Option<Stable>);

/// Reads what was `found` below `directory` on a thread of its own, in order. Two batches at most are
/// ahead of whoever takes them.
pub(super) fn in_batches<'scope>(
    scope: &'scope Scope<'scope, '_>,
    directory: Directory,
    found: Vec<Found>,
) -> Receiver<Vec<Read>> {
    let (send, receive) = sync_channel(1);
    scope.spawn(move || {
        let (mut batch, mut bytes) = (Vec::with_capacity(BATCH_FILES), 0);
        let mut dir: Option<(Vec<u8>, OwnedFd)> = None;
        for found in found {
            let is_small = found.kind == FoundKind::File && found.print.size <= WHOLE_MAX;
            // What cannot be read now is looked at closer by whoever takes it.
            let read = is_small
                .then(|| read_in(&directory, &mut dir, &found.path))
                .flatten();
            bytes += read.as_ref().map_or(0, |read| read.bytes.len() as u64);
            batch.push((found, read));
            if bytes >= BATCH_BYTES || batch.len() >= BATCH_FILES {
                let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH_FILES));
                // Nobody takes any more: it was given up.
                if send.send(full).is_err() {
                    return;
                }
                bytes = 0;
            }
        }
        let _ = send.send(batch);
    });
    receive
}

/// Reads a file, and keeps its directory open for the next one: most have the same.
fn read_in(
    directory: &Directory,
    open: &mut Option<(Vec<u8>, OwnedFd)>,
    path: &RelPath,
) -> Option<Stable> {
    let (dir, name) = path.split();
    if open.as_ref().is_none_or(|(have, _)| have != dir) {
        let fd = beneath::open_dir(directory.fd(), dir).ok()?;
        *open = Some((dir.to_vec(), fd));
    }
    let (_, fd) = open.as_ref()?;
    stable::read_once(fd.as_fd(), name, WHOLE_MAX).ok()
}

/// What was at a path.
#[derive(Debug)]
pub(super) enum Taken {
    /// A small file.
    File(Found, Stable),
    /// Nothing.
    Nothing,
}

/// What becomes of files that are too large to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Large {
    /// With one of them, nothing is read ahead.
    Prevent,
    /// They are left aside, as databases are.
    Apart,
}

/// Files that were read.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    taken: HashMap<RelPath, Taken>,
    /// Of the files, and how many they are.
    bytes: u64,
    files: usize,
    /// Those that were being written.
    changing: HashSet<RelPath>,
}

impl ReadAhead {
    /// Reads the files among `work`, without what stands apart; `None` where there is too much of it, or a
    /// directory, which has to be listed first.
    pub(super) fn of(
        work: &Work,
        directory: &Directory,
        files: &Files,
        large: Large,
    ) -> Option<Self> {
        // What was made and deleted meanwhile takes no time to speak of.
        let paths_max = match large {
            Large::Prevent => FILES_MAX,
            Large::Apart => PATHS_MAX,
        };
        if work.everything || !work.subtrees.is_empty() || work.paths.len() > paths_max {
            return None;
        }
        let mut ahead = Self::default();
        for path in work.paths.iter().filter(|path| !files.stands_apart(path)) {
            if !ahead.read(directory, path, large) {
                return None;
            }
        }
        Some(ahead)
    }

    /// Reads what is at `path`, anew where it was read before. `false`: it is too much.
    pub(super) fn read(&mut self, directory: &Directory, path: &RelPath, large: Large) -> bool {
        self.changing.remove(path);
        if let Some(Taken::File(found, _)) = self.taken.remove(path) {
            self.bytes -= found.print.size;
            self.files -= 1;
        }
        let found = match directory.look(path) {
            Look::Found(found) if found.kind == FoundKind::File => found,
            Look::Absent => {
                self.taken.insert(path.clone(), Taken::Nothing);
                return true;
            }
            // What is no file is looked at by name again, which takes no time.
            _ => return true,
        };
        let size = found.print.size;
        if size > WHOLE_MAX {
            return large == Large::Apart;
        }
        if self.bytes + size > BYTES_MAX || self.files >= FILES_MAX {
            return false;
        }
        match stable::read_once(directory.fd(), path.as_bytes(), WHOLE_MAX) {
            Ok(stable) => {
                self.bytes += size;
                self.files += 1;
                let file = Taken::File(found, stable);
                self.taken.insert(path.clone(), file);
            }
            Err(ReadError::Changed | ReadError::Vanished) => {
                self.changing.insert(path.clone());
            }
            // Waiting does not help; whoever looks closer reports it.
            Err(ReadError::NotAFile | ReadError::Io(_)) => {}
        }
        true
    }

    /// Those that changed while they were read.
    pub(super) fn changing(&self) -> &HashSet<RelPath> {
        &self.changing
    }

    /// Whether each file was read at one time, and is whole as far as can be seen from itself, and from
    /// what is `committed`.
    pub(super) fn is_whole(&self, committed: &Tree<IndexEntry>) -> bool {
        self.changing.is_empty() && self.torn(committed).next().is_none()
    }

    /// Those whose content shows that they are not whole, with the time of their last write.
    pub(super) fn torn<'a>(
        &'a self,
        committed: &'a Tree<IndexEntry>,
    ) -> impl Iterator<Item = (&'a RelPath, i64)> {
        let never_was = |path| {
            let leaf = committed.get(path);
            leaf.is_some_and(|leaf| leaf.extra.is_whole() == Some(false))
        };
        self.taken.iter().filter_map(move |(path, taken)| {
            let Taken::File(_, stable) = taken else {
                return None;
            };
            let is_torn =
                json::is_json_name(path) && !json::is_whole(&stable.bytes) && !never_was(path);
            is_torn.then_some((path, stable.meta.mtime_ns))
        })
    }

    /// Takes out what was at a path; `None` where it could not be read, or was left aside.
    pub(super) fn take(&mut self, path: &RelPath) -> Option<Taken> {
        self.taken.remove(path)
    }
}
