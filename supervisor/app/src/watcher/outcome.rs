//! What reading a file for a commit can come to.

use std::time::{Duration, Instant};

use super::gathered::Blocks;
use sessionkeep_archive::blocks::BlockMap;
use sessionkeep_archive::{ArchiveError, Result};
use sessionkeep_core::entry::{Digest, EntryKind, Meta};
use sessionkeep_session::{Fingerprint, Form, WalPosition};

/// How soon a file that was not ready is looked at again.
pub(super) const RETRY: Duration = Duration::from_millis(60);

/// What reading a file came to.
#[derive(Debug)]
pub(super) enum FileOutcome {
    /// It differs and is in the commit.
    Changed {
        meta: Meta,
        kind: EntryKind,
        blocks: Option<Blocks>,
        print: Fingerprint,
        /// What it is by now, where that was found out.
        form: Option<Form>,
    },
    /// Its content is as committed.
    Same {
        meta: Meta,
        blocks: Option<Blocks>,
        print: Fingerprint,
        /// What it is, where that was found out.
        form: Option<Form>,
    },
    /// It is gone, or is no file any more.
    Gone,
    /// It cannot be read whole just now.
    Later(Later),
    /// It is torn or damaged; the committed version stays.
    NotWhole(String),
    /// It is no whole JSON, or no database, and whether the committed version is has to be asked first.
    Unasked,
    /// It cannot be read at all.
    Unreadable(String),
}

impl FileOutcome {
    /// What came block by block: its blocks, its hash, and whether it differs.
    pub(super) fn of_blocks(
        (map, hash, changed): (BlockMap, Digest, bool),
        meta: Meta,
        print: Fingerprint,
        moment: Option<WalPosition>,
        form: Option<Form>,
    ) -> Self {
        let size = map.size();
        let blocks = Blocks::keep(map, moment);
        if changed {
            Self::Changed {
                meta,
                kind: EntryKind::File { size, hash },
                blocks,
                print,
                form,
            }
        } else {
            Self::Same {
                meta,
                blocks,
                print,
                form,
            }
        }
    }
}

/// When to look again.
#[derive(Debug)]
pub(super) struct Later {
    pub(super) when: Instant,
    pub(super) why: &'static str,
}

/// Keeps an error of the commit's own for the caller: what reads a file can only carry an I/O error.
pub(super) fn carry(put: Result<()>, failure: &mut Option<ArchiveError>) -> std::io::Result<()> {
    put.map_err(|error| {
        *failure = Some(error);
        std::io::Error::other("the commit could not take it")
    })
}
