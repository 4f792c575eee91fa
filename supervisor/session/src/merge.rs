//! Moving what cannot be renamed: directories of an image's layer (overlayfs answers `EXDEV`), mounts, and
//! all that has a mount somewhere inside.
//!
//! Such a directory stays, or is made anew at the other side, and its entries are moved one by one; what
//! cannot be moved either, as into another mount, is copied. Each effect can be done once more after a
//! crash: an entry is either still at its old place, or whole at its new one, or both, and then they are
//! the same.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{
    FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstat, fstatat, futimens, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{
    Gid, Uid, UnlinkatFlags, Whence, fchown, fchownat, fsync, lseek, symlinkat, syncfs, unlinkat,
};

use sessionkeep_core::entry::{Meta, RelPath};
use sessionkeep_core::file_owner::is_refusal;

use super::install::Step;
use super::mounts::{Mount, Mounts};
use super::scan::{kind_bits, meta_of};
use super::stage::{StageError, failed};
use super::staged::{CREATE, time};
use sessionkeep_core::beneath::{self, OPEN_DIR};

/// What a copy is called until it is whole.
const UNFINISHED: &[u8] = b".sessionkeep.copy";
/// How much is copied at a time.
const CHUNK: usize = 128 << 10;

/// Which way things go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Old content, out of the session directory: nothing of it stays where it was.
    Out,
    /// New content, into it. What is only copied stays in the staging, which is removed when all is in
    /// place: its times are good for a second try.
    In,
}

/// Whether a mount keeps what it has, whatever is restored: a file that the operator bound into the
/// session directory, or what takes no writes.
pub(super) fn keeps_its_own(mount: &Mount) -> bool {
    !mount.is_dir || mount.read_only
}

/// A directory whose entries are being moved one by one.
struct Level {
    from: OwnedFd,
    to: OwnedFd,
    /// In the session directory; empty for that itself.
    path: Vec<u8>,
    names: std::vec::IntoIter<CString>,
    copied: Vec<CString>,
    /// What the source had before anything was moved.
    meta: Meta,
}

/// Moves entries from one directory to another.
pub(super) struct Mover<'a> {
    pub(super) way: Way,
    pub(super) mounts: &'a Mounts,
    pub(super) root: &'a std::path::Path,
}

impl Mover<'_> {
    /// Moves `names` of the directory `from` to `to`, of which one is the session directory. Both must be
    /// synced then; what lies deeper is.
    pub(super) fn run(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        names: Vec<CString>,
        step: Step<'_>,
    ) -> Result<(), StageError> {
        let again = |dir| beneath::open_dir(dir, b"").map_err(StageError::sys("open", "."));
        let first = self.level(again(from)?, again(to)?, Vec::new(), names)?;
        // No recursion: directories can be nested deeper than a stack.
        let mut open = vec![first];
        while let Some(level) = open.last_mut() {
            let Some(name) = level.names.next() else {
                let done = open.pop().expect("it was just looked at");
                self.end(&done, step)?;
                if let Some(above) = open.last() {
                    self.leave(above, &done, step)?;
                }
                continue;
            };
            if let Some(below) = self.item(level, &name, step)? {
                open.push(below);
            }
        }
        Ok(())
    }

    fn level(
        &self,
        from: OwnedFd,
        to: OwnedFd,
        path: Vec<u8>,
        names: Vec<CString>,
    ) -> Result<Level, StageError> {
        let stat = fstat(&from).map_err(StageError::sys("look at", shown(&path)))?;
        Ok(Level {
            from,
            to,
            path,
            names: names.into_iter(),
            copied: Vec::new(),
            meta: meta_of(&stat),
        })
    }

    /// Moves one entry, or gives a directory whose entries are to be moved one by one.
    fn item(
        &self,
        level: &mut Level,
        name: &CStr,
        step: Step<'_>,
    ) -> Result<Option<Level>, StageError> {
        let mut path = level.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        if self.stays(&level.path, &path, name) {
            return Ok(None);
        }
        step(match self.way {
            Way::Out => "move an old item",
            Way::In => "move a new item",
        })?;
        if self.mounts.are_within(&path) {
            return self.descend(level, name, path).map(Some);
        }
        let errno = match renameat(&level.from, name, &level.to, name) {
            Ok(()) => return Ok(None),
            Err(errno) => errno,
        };
        let stat = fstatat(&level.from, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(StageError::sys("look at", shown(&path)))?;
        let is_dir = kind_bits(&stat) == SFlag::S_IFDIR;
        match errno {
            Errno::EXDEV | Errno::EEXIST | Errno::ENOTEMPTY if is_dir => {
                self.descend(level, name, path).map(Some)
            }
            Errno::EXDEV => {
                step("copy an item")?;
                self.copy(level, name, &path, &stat)?;
                level.copied.push(name.to_owned());
                Ok(None)
            }
            // Only a directory's own write permission is needed to move it elsewhere, since its `..`
            // changes; root does not need it.
            Errno::EACCES | Errno::EPERM if is_dir => {
                if move_read_only(&level.from, &level.to, name).is_ok() {
                    return Ok(None);
                }
                match is_empty(level.from.as_fd(), name) {
                    true => self.descend(level, name, path).map(Some),
                    false => Err(StageError::sys("move", shown(&path))(errno)),
                }
            }
            errno => Err(StageError::sys("move", shown(&path))(errno)),
        }
    }

    /// Whether this is nothing to be moved.
    fn stays(&self, dir: &[u8], path: &[u8], name: &CStr) -> bool {
        if self.mounts.is_empty() {
            return false;
        }
        // A file system's own, at the top of one.
        let is_file_systems = name.to_bytes() == b"lost+found" && self.mounts.at(dir).is_some();
        is_file_systems || self.mounts.at(path).is_some_and(keeps_its_own)
    }

    fn descend(&self, level: &Level, name: &CStr, path: Vec<u8>) -> Result<Level, StageError> {
        let opened = (|| {
            match mkdirat(&level.to, name, Mode::S_IRWXU) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
            let from = openat(&level.from, name, OPEN_DIR, Mode::empty())?;
            let to = openat(&level.to, name, OPEN_DIR, Mode::empty())?;
            Ok((from, to))
        })();
        let what = |errno| self.failed("create the directory", &path, 4096, errno);
        let (from, to) = opened.map_err(what)?;
        let names = list(from.as_fd()).map_err(StageError::io("list", shown(&path)))?;
        let level = self.level(from, to, path, names)?;
        for dir in [&level.from, &level.to] {
            open_up(dir).map_err(StageError::sys("open up", shown(&level.path)))?;
        }
        Ok(level)
    }

    /// All entries are where they belong.
    fn end(&self, done: &Level, step: Step<'_>) -> Result<(), StageError> {
        let failed = |action| StageError::sys(action, shown(&done.path));
        if !done.copied.is_empty() {
            step("write out the copies")?;
            syncfs(&done.to).map_err(failed("write out"))?;
            if self.way == Way::Out {
                for name in &done.copied {
                    step("remove what was copied")?;
                    unlinkat(&done.from, name.as_c_str(), UnlinkatFlags::NoRemoveDir)
                        .map_err(failed("remove an entry of"))?;
                }
            }
        }
        if !done.path.is_empty() {
            give(done.to.as_fd(), &done.meta).map_err(failed("set the mode and time of"))?;
            fsync(&done.to).map_err(failed("sync"))?;
        }
        Ok(())
    }

    /// Removes the directory that was emptied, unless it has to stay.
    fn leave(&self, above: &Level, done: &Level, step: Step<'_>) -> Result<(), StageError> {
        if self.way == Way::In {
            return Ok(());
        }
        let failed = |action| StageError::sys(action, shown(&done.path));
        if self.mounts.are_within(&done.path) {
            return fsync(&done.from).map_err(failed("sync"));
        }
        step("remove an emptied directory")?;
        let name = done.path.rsplit(|byte| *byte == b'/').next();
        unlinkat(
            &above.from,
            name.unwrap_or_default(),
            UnlinkatFlags::RemoveDir,
        )
        .map_err(failed("remove"))
    }

    fn copy(
        &self,
        level: &Level,
        name: &CStr,
        path: &[u8],
        stat: &FileStat,
    ) -> Result<(), StageError> {
        let (from, to, meta) = (level.from.as_fd(), level.to.as_fd(), meta_of(stat));
        let copied = (|| {
            match unlinkat(to, UNFINISHED, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
            match kind_bits(stat) {
                SFlag::S_IFREG => {
                    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                    let source = File::from(openat(from, name, flags, Mode::empty())?);
                    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
                    let new = openat(to, UNFINISHED, CREATE | OFlag::O_WRONLY, mode)?;
                    let new = File::from(new);
                    copy_content(&source, &new).map_err(errno_of)?;
                    give(new.as_fd(), &meta)?;
                }
                kind => {
                    if kind == SFlag::S_IFLNK {
                        let target = readlinkat(from, name)?;
                        symlinkat(target.into_vec().as_slice(), to, UNFINISHED)?;
                    } else {
                        let mode = Mode::from_bits_truncate(meta.mode);
                        mknodat(to, UNFINISHED, kind, mode, stat.st_rdev)?;
                    }
                    let (uid, gid) = owner(&meta);
                    passed(fchownat(
                        to,
                        UNFINISHED,
                        uid,
                        gid,
                        AtFlags::AT_SYMLINK_NOFOLLOW,
                    ))?;
                    let (omit, flags) = (&TimeSpec::UTIME_OMIT, UtimensatFlags::NoFollowSymlink);
                    passed(utimensat(to, UNFINISHED, omit, &time(meta.mtime_ns), flags))?;
                }
            }
            renameat(to, UNFINISHED, to, name)
        })();
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        copied.map_err(|errno| self.failed("copy", path, size, errno))
    }

    fn failed(&self, action: &'static str, path: &[u8], needs: u64, errno: Errno) -> StageError {
        match RelPath::new(path) {
            Ok(path) => failed(self.root, action, &path, needs, errno),
            Err(_) => StageError::sys(action, shown(path))(errno),
        }
    }
}

fn shown(path: &[u8]) -> String {
    match path {
        [] => ".".to_owned(),
        path => String::from_utf8_lossy(path).into_owned(),
    }
}

fn errno_of(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// The names in a directory, in order.
pub(super) fn list(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    // A descriptor of its own, or the next list would begin where this one ended.
    let mut dir = Dir::from_fd(beneath::open_dir(dir, b"")?)?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Whether `name` is a directory without entries.
pub(super) fn is_empty(dir: BorrowedFd<'_>, name: &CStr) -> bool {
    let opened = openat(dir, name, OPEN_DIR, Mode::empty());
    opened.is_ok_and(|opened| list(opened.as_fd()).is_ok_and(|names| names.is_empty()))
}

fn move_read_only(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> nix::Result<()> {
    let dir = openat(from, name, OPEN_DIR, Mode::empty())?;
    let before = Mode::from_bits_truncate(fstat(&dir)?.st_mode);
    fchmod(&dir, before | Mode::S_IRWXU)?;
    let moved = renameat(from, name, to, name);
    match fchmod(&dir, before) {
        Err(errno) if !is_refusal(errno) => Err(errno),
        _ => moved,
    }
}

/// Lets its owner move entries of it, who need not be root. After a crash it stays like that: a mode that is
/// a little wider is all that is lost.
fn open_up(dir: &OwnedFd) -> nix::Result<()> {
    let mode = Mode::from_bits_truncate(fstat(dir)?.st_mode);
    match mode.contains(Mode::S_IRWXU) {
        true => Ok(()),
        false => passed(fchmod(dir, mode | Mode::S_IRWXU)),
    }
}

/// Gives a file or a directory the metadata that another one had; what is refused of it costs nothing else.
pub(super) fn give(fd: BorrowedFd<'_>, meta: &Meta) -> nix::Result<()> {
    let mode = Mode::from_bits_truncate(meta.mode);
    let (uid, gid) = owner(meta);
    let given = fchown(fd, uid, gid);
    // Set-id bits say whose rights a program runs with: never another's.
    let mode = match given {
        Ok(()) => mode,
        Err(_) => mode & !(Mode::S_ISUID | Mode::S_ISGID),
    };
    passed(given)?;
    passed(fchmod(fd, mode))?;
    passed(futimens(fd, &TimeSpec::UTIME_OMIT, &time(meta.mtime_ns)))
}

fn owner(meta: &Meta) -> (Option<Uid>, Option<Gid>) {
    let (uid, gid) = (meta.owner.uid, meta.owner.gid);
    (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

fn passed(set: nix::Result<()>) -> nix::Result<()> {
    match set {
        Err(errno) if !is_refusal(errno) => Err(errno),
        _ => Ok(()),
    }
}

/// Copies a file's content, and leaves out its holes.
fn copy_content(from: &File, to: &File) -> io::Result<()> {
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < size {
        let (start, end) = data_after(from, at, size)?;
        at = start;
        while at < end {
            let most = usize::try_from(end - at).map_or(CHUNK, |left| left.min(CHUNK));
            match from.read_at(&mut buffer[..most], at)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => {
                    to.write_all_at(&buffer[..read], at)?;
                    at += read as u64;
                }
            }
        }
    }
    (&*to).flush()
}

/// From where to where there is content, at or after `at`; where a file system knows of no holes, all of it.
fn data_after(file: &File, at: u64, size: u64) -> io::Result<(u64, u64)> {
    let seek = |at: u64, whence| -> nix::Result<u64> {
        let at = i64::try_from(at).map_err(|_| Errno::EOVERFLOW)?;
        lseek(file, at, whence).map(i64::cast_unsigned)
    };
    match seek(at, Whence::SeekData) {
        Ok(start) => Ok((start, seek(start, Whence::SeekHole)?.min(size))),
        Err(Errno::ENXIO) => Ok((size, size)),
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok((at, size)),
        Err(errno) => Err(errno.into()),
    }
}
