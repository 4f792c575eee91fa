//! A consistent image of a database whose writer shares no lock (`locking_mode=EXCLUSIVE`), or writes
//! without a pause and must not be kept from it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::freeze::{Freezer, Thaw};
use super::sqlite::{Check, Image, SnapshotError, snapshot};
use sessionkeep_core::beneath::{self, Place};
use sessionkeep_core::state_dir::StateDir;

/// Nobody else knows the copy, so a lock on it is there at once.
const COPY_BUSY: Duration = Duration::from_secs(1);
/// So much is compared at a time: it stays in the processor's own memory.
const COMPARED: usize = 128 << 10;
/// Where copies of databases are made, for milliseconds, in our own directory.
pub const SCRATCH: &str = "scratch";

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
    let open = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => SnapshotError::Vanished,
        _ => SnapshotError::Io(error),
    };
    // Reading what is cached takes a fraction of what writing it anew does: it is copied while everybody
    // may write, and only put right while nobody does.
    let copied = copy_file(place.dir(), scratch.as_fd(), place.name()).map_err(open)?;
    {
        // The guard comes first: a freeze that failed half way has stopped somebody.
        let _thaw = Thaw(freezer);
        let begun = Instant::now();
        freezer.freeze().map_err(SnapshotError::Io)?;
        put_right(place, &copied).map_err(open)?;
        for suffix in ["-wal", "-journal"] {
            let beside = [place.name(), suffix.as_bytes()].concat();
            match copy_file(place.dir(), scratch.as_fd(), &beside) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => drop(other.map_err(SnapshotError::Io)?),
            }
        }
        tracing::debug!(target: "sync", path = %String::from_utf8_lossy(place.name()), held = ?begun.elapsed(), "database was copied while its writers stood still");
    }
    drop(copied);
    let copy = Place::below(scratch.as_fd(), place.name());
    let copy = copy.map_err(|errno| SnapshotError::Io(errno.into()))?;
    snapshot(&copy, COPY_BUSY, check, each)
}

/// Makes the copy of the database what the database is now: at once where the file system can share its
/// blocks, else by comparing.
fn put_right(place: &Place, copy: &File) -> io::Result<()> {
    let from = open_file(place.dir(), place.name())?;
    let (shared, of) = (copy.as_raw_fd(), from.as_raw_fd());
    // SAFETY: both descriptors are open until after the call, which takes no pointer.
    if unsafe { libc::ioctl(shared, libc::FICLONE, of) } == 0 {
        return Ok(());
    }
    let size = from.metadata()?.len();
    copy.set_len(size)?;
    let (mut now, mut then) = (vec![0; COMPARED], vec![0; COMPARED]);
    let mut offset = 0;
    while offset < size {
        let len = usize::try_from(size - offset).map_or(COMPARED, |left| left.min(COMPARED));
        let (now, then) = (&mut now[..len], &mut then[..len]);
        from.read_exact_at(now, offset)?;
        copy.read_exact_at(then, offset)?;
        if now != then {
            copy.write_all_at(now, offset)?;
        }
        offset += len as u64;
    }
    Ok(())
}

/// Copies the file `name`, and gives the copy.
pub(super) fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &[u8]) -> io::Result<File> {
    let mut from = open_file(from, name)?;
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let mut to = File::from(openat(to, name, flags | OFlag::O_CLOEXEC, mode)?);
    // Inside the kernel, and shared rather than copied where the file system can.
    io::copy(&mut from, &mut to)?;
    Ok(to)
}

fn open_file(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    let file = File::from(beneath::open(dir, name, flags, Mode::empty())?);
    if fstat(&file)?.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
        return Err(Errno::EINVAL.into());
    }
    Ok(file)
}

struct Remove<'a>(&'a StateDir);

impl Drop for Remove<'_> {
    fn drop(&mut self) {
        if let Err(error) = clear_scratch(self.0) {
            let left = self.0.path().join(SCRATCH);
            tracing::warn!(path = %left.display(), %error, "the copy of a database could not be removed");
        }
        debug_assert!(!self.0.has(SCRATCH));
    }
}
