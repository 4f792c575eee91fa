//! A consistent image of a database whose writer shares no lock (`locking_mode=EXCLUSIVE`).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::durable;
use super::freeze::Freezer;
use super::marker::STATE_DIR;
use super::sqlite::{Check, Image, SnapshotError, snapshot};

/// Nobody else knows the copy, so a lock on it is there at once.
const COPY_BUSY: Duration = Duration::from_secs(1);

/// Where copies of databases are made, for milliseconds, below the session directory `root`.
#[must_use]
pub fn scratch(root: &Path) -> PathBuf {
    root.join(STATE_DIR).join("scratch")
}

/// Removes a copy that a process left which was killed while it made it: it holds keys.
///
/// # Errors
/// What the file system said.
pub fn clear_scratch(root: &Path) -> io::Result<()> {
    durable::remove_tree(&scratch(root))
}

/// Copies the database with its `-wal` and `-journal` into `scratch` while `freezer` holds its
/// writers still, lets them go on, and takes a [`snapshot`] of the copy, which recovers there as
/// if the gateway had died at that moment. `scratch` is emptied first, readable by us alone, and
/// removed afterwards, whatever happens.
///
/// # Errors
/// As [`snapshot`]; [`SnapshotError::Io`] where the writers could not be held still or the copy
/// could not be made.
pub fn snapshot_frozen(
    path: &Path,
    scratch: &Path,
    freezer: &dyn Freezer,
    check: Check,
    each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<Image, SnapshotError> {
    durable::remove_tree(scratch)
        .and_then(|()| DirBuilder::new().mode(0o700).create(scratch))
        .map_err(SnapshotError::Io)?;
    let _scratch = Remove(scratch);
    let name = path.file_name().ok_or(SnapshotError::Vanished)?;
    let copy = scratch.join(name);
    {
        // The guard comes first: a freeze that failed half way has stopped somebody.
        let _thaw = Thaw(freezer);
        freezer.freeze().map_err(SnapshotError::Io)?;
        match copy_file(path, &copy) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SnapshotError::Vanished);
            }
            other => other.map_err(SnapshotError::Io)?,
        }
        for suffix in ["-wal", "-journal"] {
            let beside = |path: &Path| {
                let mut name = path.as_os_str().to_owned();
                name.push(suffix);
                name
            };
            match copy_file(Path::new(&beside(path)), Path::new(&beside(&copy))) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(SnapshotError::Io)?,
            }
        }
    }
    snapshot(&copy, COPY_BUSY, check, each)
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(from)?;
    if !from.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut to: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    // Inside the kernel, and shared rather than copied where the file system can.
    io::copy(&mut from, &mut to).map(drop)
}

struct Thaw<'a>(&'a dyn Freezer);

impl Drop for Thaw<'_> {
    fn drop(&mut self) {
        self.0.thaw();
    }
}

struct Remove<'a>(&'a Path);

impl Drop for Remove<'_> {
    fn drop(&mut self) {
        if let Err(error) = durable::remove_tree(self.0) {
            let left: &Path = self.0;
            tracing::warn!(path = %left.display(), %error, "copy of a database stays behind");
        }
        debug_assert!(!fs::exists(self.0).unwrap_or(false));
    }
}
