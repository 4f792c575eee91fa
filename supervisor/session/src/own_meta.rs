//! Giving the session directory itself its archived owner, mode and time.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{AccessFlags, Gid, Uid, faccessat, fchown};
use tracing::warn;

use sessionkeep_core::entry::{Meta, Owner};
use sessionkeep_core::file_owner::{is_refusal, why_refused};

use super::scan::meta_of;
use super::staged::time;

/// Gives it what it can have. What is refused is said, and costs nothing else; what would shut this
/// process out of the directory is taken back.
pub(super) fn give(dir: BorrowedFd<'_>, wanted: &Meta) -> nix::Result<()> {
    // Set-user-id says nothing on a directory; set-group-id only whose group new entries have.
    let mode = wanted.mode & 0o3777;
    let before = meta_of(&fstat(dir)?);
    let mut refused = Ok(());
    if before.mode != mode {
        refused = refused.and(passed(chmod(dir, mode))?);
    }
    if before.owner != wanted.owner {
        let given = passed(chown(dir, wanted.owner))?;
        // A group that is not ours takes the set-group-id bit away.
        if given.is_ok() && mode & 0o2000 != 0 {
            passed(chmod(dir, mode))?.ok();
        }
        refused = refused.and(given);
    }
    if let Err(errno) = refused {
        let why = why_refused(wanted.owner, errno);
        warn!(
            target: "boot", owner = %wanted.owner, mode = %format_args!("{mode:04o}"), why,
            "the session directory itself could not be given its archived owner and mode"
        );
    }
    if before != *wanted && !is_open_to_us(dir) {
        warn!(
            target: "boot", owner = %wanted.owner, mode = %format_args!("{mode:04o}"),
            "the archived owner and mode of the session directory would shut sessionkeep out; it keeps the old ones. Grant CAP_DAC_OVERRIDE, or set dir.owner"
        );
        passed(chown(dir, before.owner))?.ok();
        passed(chmod(dir, before.mode))?.ok();
    }
    // The time comes last: names were put into it until now. Only its owner may set it.
    passed(futimens(dir, &TimeSpec::UTIME_OMIT, &time(wanted.mtime_ns)))?.ok();
    Ok(())
}

fn chmod(dir: BorrowedFd<'_>, mode: u32) -> nix::Result<()> {
    fchmod(dir, Mode::from_bits_truncate(mode))
}

fn chown(dir: BorrowedFd<'_>, owner: Owner) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    fchown(dir, Some(uid), Some(gid))
}

/// Parts refusals from what is wrong with the disk.
fn passed(set: nix::Result<()>) -> nix::Result<Result<(), Errno>> {
    match set {
        Err(errno) if !is_refusal(errno) => Err(errno),
        other => Ok(other),
    }
}

/// Whether this process can still make names in it.
fn is_open_to_us(dir: BorrowedFd<'_>) -> bool {
    let wanted = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
    faccessat(dir, ".", wanted, AtFlags::AT_EACCESS) != Err(Errno::EACCES)
}
