//! Reads one file for a commit: as JSON that must parse, as a live SQLite database, in blocks where
//! it is large, or whole.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::{debug, info};

use super::gathered::Pass;
use crate::archive::Result;
use crate::archive::blocks::{BlockMap, BlockReader, LARGE_BLOCK, PAGE_BLOCK};
use crate::archive::builder::{BlockFile, Builder};
use crate::entry::{Digest, Kind, Meta, RelPath};
use crate::human::Chain;
use crate::session::{
    Check, Directory, Fingerprint, Found, ProcessFreezer, ReadError, SnapshotError, json, scratch,
    snapshot, snapshot_frozen, sqlite, stable,
};

/// Files up to this size are read whole; larger ones in blocks, of which only changed ones are
/// committed.
const WHOLE_MAX: u64 = 1 << 20;
/// Block hashes are remembered for files up to this size, 32 bytes a block of 64 KiB: larger ones
/// are committed whole when they change.
const BLOCKS_KEPT_MAX: u64 = 1 << 30;
/// How long a JSON file may be torn before that is reported.
const JSON_PATIENCE: Duration = Duration::from_secs(1);
/// How soon a file that was not ready is looked at again.
const RETRY: Duration = Duration::from_millis(60);
/// How long a snapshot waits for a database's lock while the gateway runs, and at the end.
const BUSY_LIVE: Duration = Duration::from_millis(150);
const BUSY_FINAL: Duration = Duration::from_secs(1);
/// After a database was locked for this long, its writer does not share: freeze it.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);
/// After it was locked for this long, and could not be copied in a freeze either, it is reported.
const BUSY_GIVE_UP: Duration = Duration::from_secs(10);
/// A snapshot that took `t` is not repeated for `t` times this: at most 4 % of a core.
const SNAPSHOT_PACE: u32 = 25;
/// Databases up to this size are checked (`quick_check`) at every snapshot, larger ones at times.
const CHECK_ALWAYS_MAX: u64 = 8 << 20;
/// How often larger ones are.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// What reading a file came to.
#[derive(Debug)]
pub(super) enum FileOutcome {
    /// It differs and is in the commit.
    Changed {
        meta: Meta,
        kind: Kind,
        blocks: Option<BlockMap>,
        print: Fingerprint,
    },
    /// Its content is as committed.
    Same {
        meta: Meta,
        blocks: Option<BlockMap>,
        print: Fingerprint,
    },
    /// It is gone, or is no file any more.
    Gone,
    /// It cannot be read whole just now.
    Later(Later),
    /// It is torn or damaged; the committed version stays.
    NotWhole(String),
    /// It cannot be read at all.
    Unreadable(String),
}

/// When to look again.
#[derive(Debug)]
pub(super) struct Later {
    pub(super) when: Instant,
    pub(super) why: &'static str,
}

#[derive(Debug, Default)]
struct Pace {
    /// Not before then.
    next: Option<Instant>,
    /// Since when its lock cannot be had.
    busy_since: Option<Instant>,
    checked: Option<Instant>,
    /// The last snapshot found nothing new, so an unchanged fingerprint proves that there is
    /// nothing now: a write cannot hide in the clock tick of the one that was seen.
    settled: bool,
}

/// Reads files, and remembers of some how that went.
#[derive(Debug, Default)]
pub(super) struct Files {
    gateway: Option<i32>,
    databases: HashMap<RelPath, Pace>,
    /// Since when a file is torn.
    torn: HashMap<RelPath, Instant>,
}

impl Files {
    pub(super) fn set_gateway(&mut self, pid: Option<i32>) {
        self.gateway = pid;
    }

    /// Whether this was found to be a database.
    pub(super) fn is_database(&self, path: &RelPath) -> bool {
        self.databases.contains_key(path)
    }

    /// Whether an unchanged fingerprint proves that this is an unchanged database. Taking a
    /// snapshot itself looks like a change to the kernel; without this each would cause the next.
    pub(super) fn is_settled_database(&self, path: &RelPath) -> bool {
        self.databases.get(path).is_some_and(|pace| pace.settled)
    }

    /// Whether this is a database whose last snapshot found something new: an unchanged fingerprint
    /// proves nothing then.
    pub(super) fn is_unsettled_database(&self, path: &RelPath) -> bool {
        self.databases.get(path).is_some_and(|pace| !pace.settled)
    }

    /// Reads the file `found` and adds it to the commit if it differs from `known`.
    pub(super) fn read(
        &mut self,
        directory: &Directory,
        found: &Found,
        known: Option<&Kind>,
        before: Option<&BlockMap>,
        pass: Pass,
        builder: &mut Builder,
    ) -> Result<FileOutcome> {
        let file = found.path.under(directory.root());
        let known = match known {
            Some(Kind::File { size, hash }) => Some((*size, *hash)),
            _ => None,
        };
        // Block hashes are only worth something if they are of the committed version.
        let before = before.filter(|map| known == Some((map.size(), map.hash())));
        if found.print.size > WHOLE_MAX {
            return match sqlite::has_magic(&file) {
                Ok(true) => self.database(directory, found, known, before, pass, builder),
                Ok(false) => large(&file, found, known, before, pass, builder),
                Err(error) => Ok(failed(&error)),
            };
        }
        let stable = match stable::read_whole(&file, WHOLE_MAX) {
            Ok(stable) => stable,
            Err(error) => return Ok(unread(error, pass)),
        };
        if stable.bytes.starts_with(b"SQLite format 3\0") {
            drop(stable);
            return self.database(directory, found, known, before, pass, builder);
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

    fn database(
        &mut self,
        directory: &Directory,
        found: &Found,
        known: Option<(u64, Digest)>,
        before: Option<&BlockMap>,
        pass: Pass,
        builder: &mut Builder,
    ) -> Result<FileOutcome> {
        let now = Instant::now();
        let pace = self.databases.entry(found.path.clone()).or_default();
        if let (Pass::Live, Some(next)) = (pass, pace.next)
            && now < next
        {
            return Ok(FileOutcome::Later(Later {
                when: next,
                why: "its last snapshot was just now",
            }));
        }
        let check = match pace.checked {
            Some(at) if found.print.size > CHECK_ALWAYS_MAX && at.elapsed() < CHECK_EVERY => {
                Check::None
            }
            _ => Check::Quick,
        };
        let busy = if pass == Pass::Final {
            BUSY_FINAL
        } else {
            BUSY_LIVE
        };
        let path = found.path.under(directory.root());
        let frozen = pace
            .busy_since
            .is_some_and(|since| since.elapsed() >= BUSY_PATIENCE);
        let gateway = self.gateway;
        let take = |check, each: &mut dyn FnMut(u64, &[u8]) -> std::io::Result<()>| match (
            frozen, gateway,
        ) {
            (true, Some(gateway)) => {
                let keep = [
                    std::process::id().cast_signed(),
                    nix::unistd::getppid().as_raw(),
                ];
                let freezer = ProcessFreezer::new(gateway, &keep);
                let scratch = scratch(directory.root());
                snapshot_frozen(&path, &scratch, &freezer, check, each)
            }
            _ => snapshot(&path, busy, check, each),
        };
        if let (None, Some(known)) = (before, known) {
            // After a restart the content is likely the committed one, and only its block hashes
            // are not known: what turns out unchanged is not sent again.
            let mut reader = BlockReader::new(PAGE_BLOCK, None);
            let taken = take(check, &mut |_, page| reader.feed(page, |_, _, _| Ok(())));
            let map = reader
                .finish(|_, _, _| Ok::<_, ()>(()))
                .expect("nothing in it fails");
            if taken.is_ok() && known == (map.size(), map.hash()) {
                pace.settled = true;
                let (meta, print) = (found.meta, found.print);
                return Ok(FileOutcome::Same {
                    meta,
                    blocks: Some(map),
                    print,
                });
            }
        }
        let mut file = builder.begin_blocks(&found.path, PAGE_BLOCK, before);
        let mut failure = None;
        let taken = take(check, &mut |_, page| {
            feed(&mut file, builder, page, &mut failure)
        });
        if let Some(error) = failure {
            return Err(error);
        }
        let took = now.elapsed();
        pace.next = Some(Instant::now() + (took * SNAPSHOT_PACE).min(Duration::from_secs(30)));
        if let Err(error) = taken {
            file.abandon(builder);
            return Ok(match error {
                SnapshotError::Busy => {
                    let since = *pace.busy_since.get_or_insert(now);
                    pace.next = None;
                    if pass == Pass::Live && since.elapsed() >= BUSY_GIVE_UP {
                        // The next rescan tries again.
                        let words = "its writer has held the database's lock for long";
                        return Ok(FileOutcome::Unreadable(words.into()));
                    }
                    debug!(target: "sync", path = %found.path, locked_for = ?since.elapsed(), "database is locked");
                    FileOutcome::Later(Later {
                        when: Instant::now() + RETRY * 5,
                        why: "its writer holds the lock",
                    })
                }
                SnapshotError::Vanished => FileOutcome::Gone,
                SnapshotError::Damaged(words) => FileOutcome::NotWhole(words),
                other => FileOutcome::Unreadable(Chain(&other).to_string()),
            });
        }
        if frozen {
            info!(target: "sync", path = %found.path, "database of a writer that shares no lock was copied while it stood still");
        } else {
            pace.busy_since = None;
        }
        if check == Check::Quick {
            pace.checked = Some(Instant::now());
        }
        let outcome = done(file, builder, found.meta, found.print, known)?;
        pace.settled = matches!(outcome, FileOutcome::Same { .. });
        Ok(outcome)
    }
}

fn large(
    path: &std::path::Path,
    found: &Found,
    known: Option<(u64, Digest)>,
    before: Option<&BlockMap>,
    pass: Pass,
    builder: &mut Builder,
) -> Result<FileOutcome> {
    if let (None, Some(known)) = (before, known) {
        // As for databases: likely the committed content.
        let mut reader = BlockReader::new(LARGE_BLOCK, None);
        let mut each = |_: u64, block: &[u8]| reader.feed(block, |_, _, _| Ok(()));
        let read = stable::read_blocks(path, LARGE_BLOCK as usize, &mut each);
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
                blocks: Some(map),
                print,
            });
        }
    }
    let mut file = builder.begin_blocks(&found.path, LARGE_BLOCK, before);
    let mut failure = None;
    let mut each = |_: u64, block: &[u8]| feed(&mut file, builder, block, &mut failure);
    let read = stable::read_blocks(path, LARGE_BLOCK as usize, &mut each);
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

/// Hands a piece to the commit; an error of the commit's own is kept for the caller, since the
/// reader can only carry an I/O error.
fn feed(
    file: &mut BlockFile<'_>,
    builder: &mut Builder,
    content: &[u8],
    failure: &mut Option<crate::archive::ArchiveError>,
) -> std::io::Result<()> {
    file.feed(builder, content).map_err(|error| {
        let words = std::io::Error::other("the commit could not take it");
        *failure = Some(error);
        words
    })
}

fn done(
    file: BlockFile<'_>,
    builder: &mut Builder,
    meta: Meta,
    print: Fingerprint,
    known: Option<(u64, Digest)>,
) -> Result<FileOutcome> {
    let (map, hash, changed) = file.finish(builder, meta, known)?;
    let size = map.size();
    let blocks = (size <= BLOCKS_KEPT_MAX).then_some(map);
    Ok(if changed {
        FileOutcome::Changed {
            meta,
            kind: Kind::File { size, hash },
            blocks,
            print,
        }
    } else {
        FileOutcome::Same {
            meta,
            blocks,
            print,
        }
    })
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
