//! Reads the changed files of a commit in one go, and nothing else meanwhile: no hashing, no parsing,
//! no compressing. Whether that was one moment is for the caller to find out.

use std::collections::HashMap;

use super::dirty::Work;
use super::files::{Files, WHOLE_MAX};
use crate::entry::RelPath;
use crate::session::{Directory, Found, FoundKind, Look, ReadError, Stable, json, stable};

/// More than this is not kept in memory at once.
const FILES_MAX: usize = 1000;
/// See [`FILES_MAX`].
const BYTES_MAX: u64 = 4 << 20;

/// Files that were read.
#[derive(Debug)]
pub(super) struct ReadAhead {
    read: HashMap<RelPath, (Found, Stable)>,
    /// One of them was being written.
    torn: bool,
}

impl ReadAhead {
    /// Reads the files among `work`, databases aside; `None` where there is too much of it, or a
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
        for path in work.paths.iter().filter(|path| !files.is_database(path)) {
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
            match stable::read_once(&path.under(directory.root()), WHOLE_MAX) {
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

    /// Whether each file was read at one time, and is whole as far as can be seen from itself.
    pub(super) fn is_whole(&self) -> bool {
        !self.torn
            && self.read.iter().all(|(path, (_, stable))| {
                !json::is_json_name(path) || json::is_whole(&stable.bytes)
            })
    }

    /// Takes a file out; `None` where it could not be read.
    pub(super) fn take(&mut self, path: &RelPath) -> Option<(Found, Stable)> {
        self.read.remove(path)
    }
}
