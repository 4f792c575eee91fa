//! One staged file: what the kernel makes of a new one, and writing one in pieces.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, Mode, UtimensatFlags, fchmod, fchmodat, fstat, futimens, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, geteuid, unlinkat};

use crate::rights::RestoreOwner;
use sessionkeep_core::entry::{Meta, Owner, RelPath};
use sessionkeep_core::file_owner::is_refusal;

use super::rights::Refusals;
use super::sparse;
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
    /// What owners entries are to get.
    owners: RestoreOwner,
}

/// An entry that was just created, to be given its metadata.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entry<'a> {
    File(&'a File),
    Dir(&'a OwnedFd, &'a [u8]),
    Link(&'a OwnedFd, &'a [u8]),
}

impl Entry<'_> {
    fn chown(self, uid: Option<Uid>, gid: Option<Gid>) -> nix::Result<()> {
        match self {
            Self::File(fd) => fchown(fd, uid, gid),
            Self::Dir(dir, name) | Self::Link(dir, name) => {
                fchownat(dir, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
            }
        }
    }

    fn chmod(self, mode: u32) -> nix::Result<()> {
        let mode = Mode::from_bits_truncate(mode);
        match self {
            Self::File(fd) => fchmod(fd, mode),
            Self::Dir(dir, name) => fchmodat(dir, name, mode, FchmodatFlags::FollowSymlink),
            // A link has none.
            Self::Link(..) => Ok(()),
        }
    }

    fn set_time(self, mtime: &TimeSpec) -> nix::Result<()> {
        match self {
            Self::File(fd) => futimens(fd, &TimeSpec::UTIME_OMIT, mtime),
            Self::Dir(dir, name) | Self::Link(dir, name) => {
                let flags = UtimensatFlags::NoFollowSymlink;
                utimensat(dir, name, &TimeSpec::UTIME_OMIT, mtime, flags)
            }
        }
    }
}

impl Creation {
    /// Finds out by creating a file: neither the umask (without setting it, which other threads
    /// would notice) nor what a file system makes of groups can be asked for.
    pub(super) fn probe(dir: &OwnedFd, owners: RestoreOwner) -> nix::Result<Self> {
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
            owners,
        })
    }

    /// Brings an entry, created with the mode `created`, to its metadata. What is refused of it is
    /// noted and costs nothing else.
    ///
    /// The owner comes last: who may give files away need not be allowed to change another's.
    pub(super) fn apply(
        &self,
        entry: Entry<'_>,
        created: u32,
        meta: &Meta,
        path: &RelPath,
        refusals: &mut Refusals,
    ) -> nix::Result<()> {
        let set_id = meta.mode & 0o6000;
        let plain = meta.mode & !0o6000;
        let differs = match entry {
            Entry::File(_) => created & !self.masked != plain,
            Entry::Dir(..) => true,
            Entry::Link(..) => false,
        };
        if differs {
            refusals.mode(path, entry.chmod(plain))?;
        }
        refusals.time(path, entry.set_time(&time(meta.mtime_ns)))?;
        let mut owner = self.owner;
        if let Some(wanted) = self.owner_to_set(meta) {
            match give(entry, wanted) {
                Ok(()) => owner = wanted,
                Err(errno) if is_refusal(errno) => refusals.owner(path, wanted, errno),
                Err(errno) => return Err(errno),
            }
        }
        // Those bits say whose rights a program runs with: never another's than was archived. A
        // change of owner takes them away.
        let is_dir = matches!(entry, Entry::Dir(..));
        if set_id != 0 && (is_dir || owner == meta.owner) {
            refusals.mode(path, entry.chmod(meta.mode))?;
        }
        Ok(())
    }

    /// The owner to be set, where it is not so already and there is a point in trying.
    fn owner_to_set(&self, meta: &Meta) -> Option<Owner> {
        self.wants(meta).filter(|wanted| *wanted != self.owner)
    }

    /// The owner that an entry with this metadata is to get, where there is a point in trying.
    pub(super) fn wants(&self, meta: &Meta) -> Option<Owner> {
        match self.owners {
            RestoreOwner::Keep => self.is_root.then_some(meta.owner),
            RestoreOwner::Ourselves => None,
            RestoreOwner::To(owner) => Some(owner),
        }
    }
}

/// Gives an entry to `wanted`, or, where that is refused, to what of it can be had.
fn give(entry: Entry<'_>, wanted: Owner) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(wanted.uid), Gid::from_raw(wanted.gid));
    let given = entry.chown(Some(uid), Some(gid));
    if given.is_err_and(is_refusal) {
        // One of the two may be possible. The first answer is the one that tells.
        let _ = entry.chown(None, Some(gid));
        let _ = entry.chown(Some(uid), None);
    }
    given
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
        sparse::write_at(&self.file, offset, bytes).map_err(|error| {
            // How much of the rest is zeros, which take no room, is not known.
            let needs = self.size - offset;
            failed(&self.root, "write", &self.path, needs, errno_of(&error))
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
}

/// Writes the whole content of a new file.
pub(super) fn write_all(file: &File, content: &[u8]) -> nix::Result<()> {
    sparse::write_at(file, 0, content)
        .and_then(|()| match sparse::ends_with_a_hole(content) {
            true => file.set_len(content.len() as u64),
            false => Ok(()),
        })
        .map_err(|error| errno_of(&error))
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
