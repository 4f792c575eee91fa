//! Reads files before they are looked at closer.
//!
//! The few of an ordinary commit in one go ([`ReadAhead`]), and nothing else meanwhile: no hashing,
//! no parsing, no compressing. Whether that was one moment is for the caller to find out. The many
//! of a first upload beside the looking ([`in_batches`]).

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use super::dirty::Work;
use super::files::{Files, WHOLE_MAX};
use super::gathered::Seen;
use crate::archive::tree::Tree;
use crate::entry::RelPath;
use crate::session::{Directory, Found, FoundKind, Look, ReadError, Stable, beneath, json, stable};

/// More than this is not kept in memory at once.
const FILES_MAX: usize = 1000;
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

/// Files that were read.
#[derive(Debug)]
pub(super) struct ReadAhead {
    read: HashMap<RelPath, (Found, Stable)>,
    /// One of them was being written.
    torn: bool,
}

impl ReadAhead {
    /// Reads the files among `work`, without what stands apart; `None` where there is too much of it, or a
    /// directory, which has to be listed first.
    pub(super) fn of(work: &Work, directory: &Directory, files: &Files) -> Option<Self> {
        if work.everything || !work.subtrees.is_empty() || work.paths.len() > FILES_MAX {
            return None;
        }
        let mut ahead = Self {
            read: HashMap::new(),
            torn: false,
        };
        let mut bytes = 0;
        for path in work.paths.iter().filter(|path| !files.stands_apart(path)) {
            // What is gone, or is no file, is looked at by name again, which takes no time.
            let Look::Found(found) = directory.look(path) else {
                continue;
            };
            if found.kind != FoundKind::File {
                continue;
            }
            bytes += found.print.size;
            if found.print.size > WHOLE_MAX || bytes > BYTES_MAX {
                return None;
            }
            match stable::read_once(directory.fd(), path.as_bytes(), WHOLE_MAX) {
                Ok(stable) => {
                    ahead.read.insert(path.clone(), (found, stable));
                }
                Err(ReadError::Changed | ReadError::Vanished) => ahead.torn = true,
                // Waiting does not help; whoever looks closer reports it.
                Err(ReadError::NotAFile | ReadError::Io(_)) => {}
            }
        }
        Some(ahead)
    }

    /// Whether each file was read at one time, and is whole as far as can be seen from itself, and from
    /// what is `committed`.
    pub(super) fn is_whole(&self, committed: &Tree<Seen>) -> bool {
        let never_was = |path| {
            let leaf = committed.get(path);
            leaf.is_some_and(|leaf| leaf.extra.is_whole() == Some(false))
        };
        !self.torn
            && self.read.iter().all(|(path, (_, stable))| {
                !json::is_json_name(path) || json::is_whole(&stable.bytes) || never_was(path)
            })
    }

    /// Takes a file out; `None` where it could not be read.
    pub(super) fn take(&mut self, path: &RelPath) -> Option<(Found, Stable)> {
        self.read.remove(path)
    }
}
