//! One staged file: what the kernel makes of a new one, and writing one in pieces.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, unlinkat};

use crate::entry::{Meta, Owner, RelPath};

use super::stage::{StageError, failed};

/// A new file, which no link can lead elsewhere.
pub(super) const CREATE: OFlag = OFlag::O_CREAT
    .union(OFlag::O_EXCL)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// How files come out of their creation, so that only what differs needs to be set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Creation {
    /// The mode bits that are taken away: by the umask, or by a default access list.
    masked: u32,
    owner: Owner,
    is_root: bool,
}

impl Creation {
    /// Finds out by creating a file: neither the umask (without setting it, which other threads
    /// would notice) nor what a file system makes of groups can be asked for.
    pub(super) fn probe(dir: &OwnedFd) -> nix::Result<Self> {
        let all = Mode::S_IRWXU | Mode::S_IRWXG | Mode::S_IRWXO;
        let file = openat(dir, "probe", CREATE | OFlag::O_WRONLY, all)?;
        let stat = fstat(&file)?;
        unlinkat(dir, "probe", UnlinkatFlags::NoRemoveDir)?;
        Ok(Self {
            masked: all.bits() & !stat.st_mode,
            owner: Owner {
                uid: stat.st_uid,
                gid: stat.st_gid,
            },
            is_root: geteuid().is_root(),
        })
    }

    /// Brings an open file, created with the mode `created`, to its metadata.
    pub(super) fn apply(&self, fd: &File, created: u32, meta: &Meta) -> nix::Result<()> {
        let chowned = self.owner_to_set(meta);
        if let Some((uid, gid)) = chowned {
            fchown(fd, Some(uid), Some(gid))?;
        }
        // A change of owner takes the set-id bits away again; those are never created with.
        if created & !self.masked != meta.mode {
            fchmod(fd, Mode::from_bits_truncate(meta.mode))?;
        }
        futimens(fd, &TimeSpec::UTIME_OMIT, &time(meta.mtime_ns))
    }

    /// The owner to be set, where it is not so already and we may.
    pub(super) fn owner_to_set(&self, meta: &Meta) -> Option<(Uid, Gid)> {
        (meta.owner != self.owner && self.is_root)
            .then(|| (Uid::from_raw(meta.owner.uid), Gid::from_raw(meta.owner.gid)))
    }
}

pub(super) fn time(ns: i64) -> TimeSpec {
    TimeSpec::new(ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000))
}

/// A file that is being written in pieces.
#[derive(Debug)]
pub struct StagedFile {
    pub(super) file: File,
    pub(super) path: RelPath,
    pub(super) root: PathBuf,
    pub(super) size: u64,
    pub(super) creation: Creation,
}

impl StagedFile {
    /// Writes a piece.
    ///
    /// # Errors
    /// [`StageError`]; [`StageError::Refused`] beyond the size that was announced.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), StageError> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(StageError::Refused {
                path: self.path.clone(),
                why: "its content is longer than announced",
            });
        }
        self.file.write_all_at(bytes, offset).map_err(|error| {
            let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            failed(&self.root, "write", &self.path, bytes.len() as u64, errno)
        })
    }

    /// Reads a piece back; returns how many bytes, fewer only at the end.
    ///
    /// # Errors
    /// [`StageError`].
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<usize, StageError> {
        let mut done = 0;
        while done < bytes.len() {
            match self.file.read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StageError::io("read back", &self.path)(error)),
            }
        }
        Ok(done)
    }

    /// Gives it its metadata; nothing can be written any more.
    ///
    /// # Errors
    /// [`StageError`].
    pub fn finish(self, meta: &Meta) -> Result<(), StageError> {
        self.creation
            .apply(&self.file, 0o600, meta)
            .map_err(StageError::sys("set the mode and time of", &self.path))
    }
}

pub(super) fn write_all(mut file: &File, content: &[u8]) -> nix::Result<()> {
    io::Write::write_all(&mut file, content)
        .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}
