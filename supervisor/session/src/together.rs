//! Copies of files that belong together, all as of one moment: a database that is none of SQLite's to
//! us, such as an encrypted one, with what lies beside it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use sessionkeep_core::entry::RelPath;

use super::freeze::{Freezer, Thaw};
use super::frozen::{SCRATCH, clear_scratch, copy_file};
use super::profile::Profile;
use super::scan::{Directory, Fingerprint, Found, FoundKind, Look};
use super::unlocked::may_hide_a_write;
use sessionkeep_core::beneath::Place;
use sessionkeep_core::state_dir::{StateDir, own_dir};

/// How long a moment is waited for in which nobody writes; the last write must be older than a tick of the
/// kernel's clock.
const STILL_WITHIN: Duration = Duration::from_millis(30);
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How often copies are begun while somebody may write.
const TRIES: u32 = 2;

/// The file `stem` and what lies beside it under the names that a database's sidecars have. Their
/// fingerprints are each file's own.
#[must_use]
pub fn members(directory: &Directory, stem: &RelPath) -> Vec<Found> {
    let look = |path: RelPath| match directory.look(&path) {
        Look::Found(mut found) if found.kind == FoundKind::File => {
            found.print.sidecars = 0;
            Some(found)
        }
        _ => None,
    };
    std::iter::once(stem.clone())
        .chain(Profile::sidecars_of(stem))
        .filter_map(look)
        .collect()
}

/// Copies of files, under their own paths, in our own directory; removed when this is dropped.
#[derive(Debug)]
pub struct Copies {
    state: StateDir,
    /// All that belongs together, as it was at the moment of the copies.
    pub found: Vec<Found>,
    /// Where the copies are.
    pub directory: Directory,
}

impl Drop for Copies {
    fn drop(&mut self) {
        if let Err(error) = clear_scratch(&self.state) {
            let left = self.state.path().join(SCRATCH);
            tracing::warn!(path = %left.display(), %error, "copies of files could not be removed");
        }
    }
}

/// Copies those of the [`members`] that are `wanted`, in a moment in which nobody writes any of them;
/// `None` where there was none soon.
///
/// # Errors
/// What the file system said.
pub fn copy_in_a_still_moment(
    directory: &Directory,
    state: &StateDir,
    stem: &RelPath,
    wanted: &dyn Fn(&Found) -> bool,
) -> io::Result<Option<Copies>> {
    let deadline = Instant::now() + STILL_WITHIN;
    let mut tries = 0;
    loop {
        let found = members(directory, stem);
        let begun = prints(&found);
        if !begun.iter().any(|(_, print)| may_hide_a_write(print)) {
            let copies = copy(directory, state, found, wanted)?;
            tries += 1;
            if prints(&members(directory, stem)) == begun && copies.is_some() {
                return Ok(copies);
            }
        }
        if tries >= TRIES || Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The same while `freezer` holds their writers still.
///
/// # Errors
/// As there, and where the writers could not be held still.
pub fn copy_while_frozen(
    directory: &Directory,
    state: &StateDir,
    stem: &RelPath,
    wanted: &dyn Fn(&Found) -> bool,
    freezer: &dyn Freezer,
) -> io::Result<Option<Copies>> {
    // The guard comes first: a freeze that failed half way has stopped somebody.
    let _thaw = Thaw(freezer);
    freezer.freeze()?;
    copy(directory, state, members(directory, stem), wanted)
}

/// `None` where one of them vanished.
fn copy(
    directory: &Directory,
    state: &StateDir,
    found: Vec<Found>,
    wanted: &dyn Fn(&Found) -> bool,
) -> io::Result<Option<Copies>> {
    clear_scratch(state)?;
    let scratch = state.dir(SCRATCH)?;
    let copies = Copies {
        state: state.clone(),
        found,
        directory: directory.elsewhere(state.path().join(SCRATCH), scratch)?,
    };
    for found in copies.found.iter().filter(|found| wanted(found)) {
        let place = match Place::below(directory.fd(), found.path.as_bytes()) {
            Ok(place) => place,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let mut open: Option<OwnedFd> = None;
        let above = found.path.split().0.split(|byte| *byte == b'/');
        for part in above.filter(|part| !part.is_empty()) {
            let from = open.as_ref().map_or(copies.directory.fd(), AsFd::as_fd);
            let next = own_dir(from, part)?;
            open = Some(next);
        }
        let to = open.as_ref().map_or(copies.directory.fd(), AsFd::as_fd);
        match copy_file(place.dir(), to, place.name()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => drop(other?),
        }
    }
    Ok(Some(copies))
}

/// What tells of a change. Shared memory is written without a trace, and says nothing that its readers
/// would believe after a start.
fn prints(found: &[Found]) -> Vec<(RelPath, Fingerprint)> {
    let tell = found
        .iter()
        .filter(|found| !found.path.name().ends_with(b"-shm"));
    tell.map(|found| (found.path.clone(), found.print))
        .collect()
}
