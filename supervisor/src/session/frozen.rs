//! A consistent image of a database whose writer shares no lock (`locking_mode=EXCLUSIVE`), or writes
//! without a pause and must not be kept from it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::beneath::{self, Place};
use super::freeze::Freezer;
use super::sqlite::{Check, Image, SnapshotError, snapshot};
use super::state_dir::StateDir;

/// Nobody else knows the copy, so a lock on it is there at once.
const COPY_BUSY: Duration = Duration::from_secs(1);
/// Where copies of databases are made, for milliseconds, in our own directory.
pub(crate) const SCRATCH: &str = "scratch";

/// Removes a copy that a process left which was killed while it made it: it holds keys.
///
/// # Errors
/// What the file system said.
pub fn clear_scratch(state: &StateDir) -> io::Result<()> {
    state.remove_tree(SCRATCH)
}

/// Copies the database with its `-wal` and `-journal` into `.sessionkeep/scratch` while `freezer` holds
/// its writers still, lets them go on, and takes a [`snapshot`] of the copy, which recovers there as
/// if the gateway had died at that moment. The copy is readable by us alone, and removed afterwards,
/// whatever happens.
///
/// # Errors
/// As [`snapshot`]; [`SnapshotError::Io`] where the writers could not be held still or the copy
/// could not be made.
pub fn snapshot_frozen(
    place: &Place,
    state: &StateDir,
    freezer: &dyn Freezer,
    check: Check,
    each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<Image, SnapshotError> {
    clear_scratch(state).map_err(SnapshotError::Io)?;
    let scratch = state.dir(SCRATCH).map_err(SnapshotError::Io)?;
    let _scratch = Remove(state);
    {
        // The guard comes first: a freeze that failed half way has stopped somebody.
        let _thaw = Thaw(freezer);
        let begun = Instant::now();
        freezer.freeze().map_err(SnapshotError::Io)?;
        match copy_file(place.dir(), scratch.as_fd(), place.name()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SnapshotError::Vanished);
            }
            other => other.map_err(SnapshotError::Io)?,
        }
        for suffix in ["-wal", "-journal"] {
            let beside = [place.name(), suffix.as_bytes()].concat();
            match copy_file(place.dir(), scratch.as_fd(), &beside) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(SnapshotError::Io)?,
            }
        }
        tracing::debug!(target: "sync", path = %String::from_utf8_lossy(place.name()), held = ?begun.elapsed(), "database was copied while its writers stood still");
    }
    let copy = Place::below(scratch.as_fd(), place.name());
    let copy = copy.map_err(|errno| SnapshotError::Io(errno.into()))?;
    snapshot(&copy, COPY_BUSY, check, each)
}

/// Copies the file `name`.
fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    let mut from = File::from(beneath::open(from, name, flags, Mode::empty())?);
    if fstat(&from)?.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
        return Err(Errno::EINVAL.into());
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let mut to = File::from(openat(to, name, flags | OFlag::O_CLOEXEC, mode)?);
    // Inside the kernel, and shared rather than copied where the file system can.
    io::copy(&mut from, &mut to).map(drop)
}

struct Thaw<'a>(&'a dyn Freezer);

impl Drop for Thaw<'_> {
    fn drop(&mut self) {
        self.0.thaw();
    }
}

struct Remove<'a>(&'a StateDir);

impl Drop for Remove<'_> {
    fn drop(&mut self) {
        if let Err(error) = clear_scratch(self.0) {
            let left = self.0.path().join(SCRATCH);
            tracing::warn!(path = %left.display(), %error, "copy of a database stays behind");
        }
        debug_assert!(!self.0.has(SCRATCH));
    }
}
