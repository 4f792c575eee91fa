//! Mends databases of a directory that stays: one that a crash or a disk damaged is set aside, and its
//! last whole version put back. A gateway cannot read it, or takes an empty one for a new login.

use std::fs::{self, File};
use std::io::{self, Seek as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, fchown};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use tracing::{debug, error, warn};

use super::super::{BootError, Site};
use sessionkeep_archive::fetch::{At, Fetch, Sink, Verifier, Wanted};
use sessionkeep_archive::version::Version;
use sessionkeep_archive::{ArchiveError, Result as ArchiveResult};
use sessionkeep_core::beneath::{self, Place};
use sessionkeep_core::entry::{Digest, EntryKind, RelPath};
use sessionkeep_core::file_owner::is_refused;
use sessionkeep_core::human::Causes;
use sessionkeep_core::state_dir::own_dir;
use sessionkeep_session::form::{self, may_be_database};
use sessionkeep_session::frozen::{SCRATCH, clear_scratch};
use sessionkeep_session::install::REPLACED;
use sessionkeep_session::{
    Check, Form, Found, FoundKind, Snapshot, SnapshotError, json, snapshot, sqlite,
};

/// No gateway runs. Whoever holds a lock all the same is not waited for.
const BUSY: Duration = Duration::from_millis(200);
/// So many older versions are looked at where the newest stored one is damaged as well.
const OLDER_MAX: u32 = 200;
/// The name of what is fetched, below [`SCRATCH`].
const FETCHED: &str = "fetched";

/// What is wrong with a database of the directory.
#[derive(Debug)]
enum Wrong {
    /// SQLite's words.
    Damaged(String),
    /// SQLite does not read it, such as since it is empty. Where what is stored is a whole database, that is
    /// damage.
    NoneAnyMore,
}

/// Puts the damaged ones right from `version`, or an older one.
pub(in super::super) async fn heal(
    site: &Site<'_>,
    version: &mut Version,
) -> Result<(), BootError> {
    for (path, wrong) in damaged(site, version) {
        match last_whole(site, version, &path).await? {
            Some(seq) => {
                let set_aside = put_back(site, &path).map_err(|source| BootError::Directory {
                    dir: site.settings.dir.clone(),
                    source,
                })?;
                warn!(target: "boot", %path, seq, why = wrong.words(), set_aside, "a damaged database was set aside; its last committed version was put back");
            }
            None if matches!(wrong, Wrong::Damaged(_)) => {
                error!(target: "boot", %path, why = wrong.words(), "a database is damaged, and no whole version of it is stored; it stays as it is");
            }
            None => {}
        }
        clear_scratch(site.state).map_err(|source| BootError::Directory {
            dir: site.settings.dir.clone(),
            source,
        })?;
    }
    Ok(())
}

impl Wrong {
    fn words(&self) -> &str {
        match self {
            Self::Damaged(words) => words,
            Self::NoneAnyMore => {
                "it is no database any more: it is empty, cut short or overwritten"
            }
        }
    }
}

/// The archived databases whose file is damaged. What looks as it was committed is not read.
fn damaged(site: &Site<'_>, version: &Version) -> Vec<(RelPath, Wrong)> {
    let mut suspects = Vec::new();
    site.directory.scan(None, &mut |_, _| {}, &mut |found| {
        let Some(leaf) = version.tree.get(&found.path) else {
            return;
        };
        let EntryKind::File { size, .. } = leaf.kind else {
            return;
        };
        let looks_committed = found.print.size == size
            && found.meta.mtime_ns == leaf.meta.mtime_ns
            && found.print.sidecars == 0;
        if found.kind == FoundKind::File && !looks_committed {
            suspects.push((found, size));
        }
    });
    let wrong = |(found, stored): (Found, u64)| {
        let wrong = wrong_with(site, &found, stored)?;
        Some((found.path, wrong))
    };
    suspects.into_iter().filter_map(wrong).collect()
}

/// What is wrong with the file. What cannot be read now is the watcher's to report.
fn wrong_with(site: &Site<'_>, found: &Found, stored: u64) -> Option<Wrong> {
    let place = Place::below(site.directory.fd(), found.path.as_bytes()).ok()?;
    let start = sqlite::read_start(place.dir(), place.name()).ok()?;
    if sqlite::is_header(&start) {
        let checked = Snapshot::begin(&place, BUSY).and_then(|snapshot| {
            snapshot.check()?;
            snapshot.end()
        });
        return match checked {
            Err(SnapshotError::Damaged(words)) => Some(Wrong::Damaged(words)),
            Err(error) => {
                debug!(target: "boot", path = %found.path, error = %Causes(&error), "database could not be looked at");
                None
            }
            Ok(()) => None,
        };
    }
    // What was stored tells whether it is what is left of a database; an encrypted one may take the place of
    // one that was not. Torn JSON is mended as such.
    let is_left = may_be_database(stored)
        && form::of_other(&start, found.print.size) != Form::Sealed
        && !json::is_json_name(&found.path);
    is_left.then_some(Wrong::NoneAnyMore)
}

/// Fetches the newest version of the database that is whole into [`SCRATCH`]; gives its commit.
async fn last_whole(
    site: &Site<'_>,
    version: &mut Version,
    path: &RelPath,
) -> Result<Option<u64>, BootError> {
    let mut tried: Option<Digest> = None;
    let mut older: Option<Version> = None;
    for _ in 0..OLDER_MAX {
        let version = older.as_mut().unwrap_or(version);
        let seq = version.header.seq;
        let Some(EntryKind::File { hash, .. }) =
            version.tree.get(path).map(|leaf| leaf.kind.clone())
        else {
            return Ok(None);
        };
        if tried != Some(hash) {
            match fetch(site, version, path).await? {
                Fetched::Whole => return Ok(Some(seq)),
                Fetched::Other => return Ok(None),
                Fetched::Damaged(why) => {
                    warn!(target: "boot", %path, seq, why, "the stored version of a damaged database is damaged, too; looking for an older one");
                }
            }
            tried = Some(hash);
        }
        match site.newest_whole_before(seq).await? {
            Some(before) => older = Some(before),
            None => return Ok(None),
        }
    }
    Ok(None)
}

/// What a stored version of a file is.
enum Fetched {
    /// A sound database.
    Whole,
    Damaged(String),
    /// No database.
    Other,
}

async fn fetch(
    site: &Site<'_>,
    version: &mut Version,
    path: &RelPath,
) -> Result<Fetched, BootError> {
    let failed = |source| BootError::Directory {
        dir: site.settings.dir.clone(),
        source,
    };
    clear_scratch(site.state).map_err(failed)?;
    let scratch = site.state.dir(SCRATCH).map_err(failed)?;
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let file = beneath::open(scratch.as_fd(), FETCHED.as_bytes(), flags, mode)
        .map_err(|errno| failed(errno.into()))?;
    let plan = Fetch::plan(version, |wanted| wanted == path);
    let sink = Write {
        file: File::from(file),
        verifier: Verifier::default(),
        is_whole: false,
    };
    let sink = match plan.run(&**site.store, sink).await {
        Ok(sink) => sink,
        Err((error, _)) if error.is_damage() => return Ok(Fetched::Damaged(error.to_string())),
        Err((error, _)) => return Err(error.into()),
    };
    let is_database = sqlite::is_database(scratch.as_fd(), FETCHED.as_bytes()).unwrap_or(false);
    if !is_database || !sink.is_whole {
        return Ok(Fetched::Other);
    }
    drop(sink);
    let copy =
        Place::below(scratch.as_fd(), FETCHED.as_bytes()).map_err(|errno| failed(errno.into()))?;
    match snapshot(&copy, BUSY, Check::Quick, &mut |_, _| Ok(())) {
        Ok(_) => Ok(Fetched::Whole),
        Err(error) => Ok(Fetched::Damaged(Causes(&error).to_string())),
    }
}

/// Keeps what is there, with its `-wal` and `-journal`, which belong to it alone, and puts what was
/// fetched in its place. Nothing of that is reached by a path: the directories on it are the gateway's.
/// Gives where the bad one is.
fn put_back(site: &Site<'_>, path: &RelPath) -> io::Result<String> {
    let label = super::super::label_now();
    let aside = own_dir(site.state.dir(REPLACED)?.as_fd(), label.as_bytes())?;
    let place = Place::below(site.directory.fd(), path.as_bytes())?;
    let mut bad = open_file(&place, place.name(), OFlag::O_RDWR)?;
    let before = bad.metadata()?;
    super::keep(&mut bad, path, aside.as_fd())?;
    let (above, name) = path.split();
    let mut belonged = Vec::new();
    for suffix in ["-wal", "-journal", "-shm"] {
        let beside = [name, suffix.as_bytes()].concat();
        let mut file = match open_file(&place, &beside, OFlag::O_RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if suffix != "-shm"
            && let Ok(kept) = RelPath::join(above, &beside)
        {
            super::keep(&mut file, &kept, aside.as_fd())?;
        }
        belonged.push(beside);
    }
    if !belonged.is_empty() {
        // A crash between the two shall not leave the bad one without what belongs to it, which could look
        // whole then: it is no database from here on.
        bad.write_all_at(&[0; 16], 0)?;
        bad.sync_all()?;
    }
    for beside in belonged {
        match unlinkat(place.dir(), beside.as_slice(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let scratch = site.state.dir(SCRATCH)?;
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK;
    let fresh = beneath::open(scratch.as_fd(), FETCHED.as_bytes(), flags, Mode::empty())?;
    let mut fresh = File::from(fresh);
    match fresh.set_permissions(fs::Permissions::from_mode(before.mode() & 0o777)) {
        Err(error) if is_refused(&error) => {}
        other => other?,
    }
    let made = fresh.metadata()?;
    let set_aside = site.state.path().join(REPLACED).join(&label);
    if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
        // A gateway that runs as another user must be able to write it.
        match fchown(&fresh, Some(before.uid()), Some(before.gid())) {
            // The content alone changes no owner. A crash in the middle of it is mended like this one.
            Err(error) if is_refused(&error) => {
                write_over(&mut bad, &mut fresh)?;
                return Ok(set_aside.display().to_string());
            }
            other => other?,
        }
    }
    fresh.sync_all()?;
    match renameat(scratch.as_fd(), FETCHED, place.dir(), place.name()) {
        // It is a mount, or lies on one.
        Err(Errno::EXDEV | Errno::EBUSY) => write_over(&mut bad, &mut fresh)?,
        other => other?,
    }
    Ok(set_aside.display().to_string())
}

/// Puts the content into the very file that is `bad`.
fn write_over(bad: &mut File, fresh: &mut File) -> io::Result<()> {
    fresh.rewind()?;
    bad.set_len(0)?;
    bad.rewind()?;
    io::copy(fresh, bad)?;
    bad.sync_all()
}

fn open_file(place: &Place, name: &[u8], access: OFlag) -> io::Result<File> {
    let flags = access | OFlag::O_NONBLOCK;
    let file = File::from(beneath::open(place.dir(), name, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Writes one file as its pieces come.
struct Write {
    file: File,
    verifier: Verifier,
    is_whole: bool,
}

impl Sink for Write {
    fn piece(&mut self, at: At, wanted: &Wanted, content: &[u8]) -> ArchiveResult<()> {
        self.is_whole |= self.verifier.piece(at, wanted, content)?;
        self.file
            .write_all_at(content, at.offset)
            .map_err(|source| ArchiveError::Io {
                action: "write a stored database",
                source,
            })
    }
}
