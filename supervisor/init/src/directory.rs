//! The session directory itself: making one where there is none, for the user that the gateway will
//! probably run as.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::{AccessFlags, Gid, Uid, faccessat, fchown, geteuid};
use tracing::{info, warn};

use sessionkeep_core::entry::Owner;
use sessionkeep_core::file_owner::{is_refusal, why_refused};

const OPEN_DIR: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

/// Makes the directory `dir`, and those above it, where they are missing: for the owner alone, which is
/// `owner`, or else that of the directory they are made in. Without one, root's stay root's. A
/// directory that is there is only given to `owner`, if that is set.
///
/// # Errors
/// Where it cannot be made or opened. An owner that cannot be given is no error; the log tells.
pub fn ensure(dir: &Path, owner: Option<Owner>) -> io::Result<()> {
    if fs::metadata(dir).is_ok_and(|found| found.is_dir()) {
        if let Some(owner) = owner {
            give(&open(dir, OPEN_DIR, Mode::empty())?, dir, owner)?;
        }
        return Ok(());
    }
    let is_there = |above: &&Path| fs::metadata(here(above)).is_ok_and(|found| found.is_dir());
    let above = dir.ancestors().skip(1).find(is_there);
    let above = above.ok_or(io::ErrorKind::NotFound)?;
    let theirs = fs::metadata(here(above))?;
    let of_parent = Owner {
        uid: theirs.uid(),
        gid: theirs.gid(),
    };
    // What root makes is root's: only where somebody else's directory is around it, it is likely theirs.
    let inherited = (geteuid().is_root() && of_parent.uid != 0).then_some(of_parent);
    let mut at = open(here(above), OPEN_DIR, Mode::empty())?;
    let mut path = PathBuf::from(above);
    let below = dir.strip_prefix(above).unwrap_or(dir);
    for part in below.components() {
        let name = match part {
            Component::CurDir => continue,
            part => part.as_os_str(),
        };
        path.push(name);
        at = make(&at, name, &path, owner.or(inherited))?;
    }
    let made = fstat(&at)?;
    let given = Owner {
        uid: made.st_uid,
        gid: made.st_gid,
    };
    info!(
        target: "init", dir = %dir.display(), owner = %given,
        "the session directory was made. Where no restore gives it another owner, a gateway of another user needs dir.owner"
    );
    Ok(())
}

/// The working directory has no name of its own among the ancestors of a relative path.
fn here(above: &Path) -> &Path {
    match above.as_os_str().is_empty() {
        true => Path::new("."),
        false => above,
    }
}

/// Makes one directory, and opens it. One that came meanwhile is somebody else's, and stays so.
fn make(above: &OwnedFd, name: &OsStr, path: &Path, owner: Option<Owner>) -> io::Result<OwnedFd> {
    let made = match mkdirat(above, name, Mode::S_IRWXU) {
        Ok(()) => true,
        Err(Errno::EEXIST) => false,
        Err(error) => return Err(error.into()),
    };
    // The owner of what is above may put a link in its place: not followed where it is given away.
    let flags = if made {
        OPEN_DIR | OFlag::O_NOFOLLOW
    } else {
        OPEN_DIR
    };
    let dir = openat(above, name, flags, Mode::empty())?;
    if made
        && let Some(owner) = owner
        && fstat(&dir)?.st_uid == geteuid().as_raw()
    {
        give(&dir, path, owner)?;
    }
    Ok(dir)
}

/// Gives an open directory away, unless that would shut this process out of it.
fn give(dir: &OwnedFd, path: &Path, owner: Owner) -> io::Result<()> {
    let before = fstat(dir)?;
    if (before.st_uid, before.st_gid) == (owner.uid, owner.gid) {
        return Ok(());
    }
    match chown(dir, owner.uid, owner.gid) {
        Ok(()) => {}
        Err(errno) if is_refusal(errno) => {
            let why = why_refused(owner, errno);
            warn!(target: "init", dir = %path.display(), %owner, why, "the session directory could not be given its owner");
            return Ok(());
        }
        Err(errno) => return Err(errno.into()),
    }
    if is_open_to_us(dir) {
        info!(target: "init", dir = %path.display(), %owner, "the directory was given to its owner");
        return Ok(());
    }
    warn!(
        target: "init", dir = %path.display(), %owner,
        "that owner would shut sessionkeep out of the directory, which stays as it was; grant CAP_DAC_OVERRIDE, or start the container as that user"
    );
    Ok(chown(dir, before.st_uid, before.st_gid)?)
}

fn chown(dir: &OwnedFd, uid: u32, gid: u32) -> nix::Result<()> {
    fchown(dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

fn is_open_to_us(dir: &OwnedFd) -> bool {
    let wanted = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
    // Without the right to search it, what is in it cannot even be asked for.
    faccessat(dir, ".", wanted, AtFlags::AT_EACCESS) != Err(Errno::EACCES)
}
