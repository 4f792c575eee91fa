//! Opening what lies below a directory so that nothing can lead out of it: no link is followed
//! anywhere on the way, whoever exchanges what while we look.
//!
//! The kernel does that in one call (`openat2`, Linux 5.6). Where there is none, or a seccomp profile
//! forbids it, the path is walked, one open directory after the other.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;

/// For a directory, and nothing that leads to one.
pub const OPEN_DIR: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Opens `path` below the directory `dir`, with `O_NOFOLLOW` and `O_CLOEXEC` in any case.
///
/// # Errors
/// What the kernel said: `ELOOP` or `ENOTDIR` where a link stands on the way or at its end. `EXDEV`
/// for a path that is absolute or holds `..`.
pub fn open(dir: BorrowedFd<'_>, path: &[u8], flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    if path.starts_with(b"/") || path.split(|byte| *byte == b'/').any(|part| part == b"..") {
        return Err(Errno::EXDEV);
    }
    if !path.contains(&b'/') {
        return openat(dir, path, flags, mode);
    }
    if has_openat2() {
        let how = OpenHow::new()
            .flags(flags)
            .mode(mode)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        match openat2(dir, path, how) {
            // The kernel could not tell in a race; the walk can.
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
    walk(dir, path, flags, mode)
}

/// Opens the directory `path` below `dir`; `dir` itself, anew, where it is empty.
///
/// # Errors
/// As [`open`].
pub fn open_dir(dir: BorrowedFd<'_>, path: &[u8]) -> nix::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    open(dir, path, OPEN_DIR, Mode::empty())
}

/// Where the kernel shows this process's descriptors.
pub const DESCRIPTORS: &str = "/proc/self/fd/";

/// A path to an open directory, for what takes nothing but paths: it leads there whatever has become
/// of the directory's name, as long as it is open.
pub fn pinned(dir: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("{DESCRIPTORS}{}", dir.as_raw_fd()))
}

/// A file's place: its directory, held open, and its name in it. What is opened by [`Place::path`]
/// without following a link at the end lies in that directory.
#[derive(Debug, Clone)]
pub struct Place {
    dir: Arc<OwnedFd>,
    path: PathBuf,
}

impl Place {
    /// That of `path` below the directory `dir`.
    ///
    /// # Errors
    /// As [`open`].
    pub fn below(dir: BorrowedFd<'_>, path: &[u8]) -> nix::Result<Self> {
        let split = path.iter().rposition(|byte| *byte == b'/');
        let (above, name) = match split {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&[][..], path),
        };
        Ok(Self::new(open_dir(dir, above)?, name))
    }

    /// That of a path whose directories nobody else can exchange.
    ///
    /// # Errors
    /// Where its directory cannot be opened.
    pub fn of(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let above = match path.parent() {
            Some(above) if !above.as_os_str().is_empty() => above,
            _ => Path::new("."),
        };
        let dir = std::fs::File::open(above)?;
        Ok(Self::new(dir.into(), name.as_bytes()))
    }

    fn new(dir: OwnedFd, name: &[u8]) -> Self {
        let path = pinned(dir.as_fd()).join(OsStr::from_bytes(name));
        Self {
            dir: Arc::new(dir),
            path,
        }
    }

    /// The open directory.
    #[must_use]
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The name in it.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.path.file_name().unwrap_or_default().as_bytes()
    }

    /// A path to it, through the open directory; of use as long as this lives.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Opens one component after the other.
fn walk(dir: BorrowedFd<'_>, path: &[u8], flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    let mut above: Option<OwnedFd> = None;
    let mut parts = path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty());
    let last = parts.next_back().ok_or(Errno::ENOENT)?;
    for part in parts {
        let from = above.as_ref().map_or(dir, AsFd::as_fd);
        let next = openat(from, part, OPEN_DIR, Mode::empty())?;
        above = Some(next);
    }
    openat(above.as_ref().map_or(dir, AsFd::as_fd), last, flags, mode)
}

/// Whether the kernel has the call, and lets us use it. Old seccomp profiles answer what they do not
/// know with `EPERM`, which a file could be the reason of as well; so it is found out once, with a
/// directory that everybody may look at.
fn has_openat2() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let how = OpenHow::new()
            .flags(flags)
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        openat2(AT_FDCWD, "/", how).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::io::Read;
    use std::os::unix::fs::symlink;

    type Open = fn(BorrowedFd<'_>, &[u8], OFlag, Mode) -> nix::Result<OwnedFd>;

    #[test]
    fn what_lies_below_is_opened_and_no_link_is_followed_by_either_way() {
        let root = tempfile::tempdir().expect("tempdir");
        let outside = tempfile::tempdir().expect("tempdir");
        fs::write(outside.path().join("f"), "outside").expect("write");
        fs::create_dir_all(root.path().join("a/b")).expect("mkdir");
        fs::write(root.path().join("a/b/f"), "inside").expect("write");
        symlink(outside.path(), root.path().join("out")).expect("link");
        symlink("a", root.path().join("in")).expect("link");
        symlink("f", root.path().join("a/b/l")).expect("link");
        let dir = File::open(root.path()).expect("open");
        for (way, open) in [("open", open as Open), ("walk", walk as Open)] {
            let read = |path: &str| {
                let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW;
                let opened = open(dir.as_fd(), path.as_bytes(), flags, Mode::empty())?;
                let mut text = String::new();
                File::from(opened).read_to_string(&mut text).expect("read");
                Ok::<_, Errno>(text)
            };
            assert_eq!(read("a/b/f").as_deref(), Ok("inside"), "{way}");
            for path in ["out/f", "in/b/f", "a/b/l"] {
                let got = read(path);
                let refused = matches!(got, Err(Errno::ELOOP | Errno::ENOTDIR));
                assert!(refused, "{way} {path}: {got:?}");
            }
            assert_eq!(read("a/none/f"), Err(Errno::ENOENT), "{way}");
        }
        for path in ["../f", "a/../../f", "/etc/hostname", "a/.."] {
            let got = super::open(dir.as_fd(), path.as_bytes(), OFlag::O_RDONLY, Mode::empty());
            assert_eq!(got.err(), Some(Errno::EXDEV), "{path}");
        }
        assert!(open_dir(dir.as_fd(), b"").is_ok());
        assert!(open_dir(dir.as_fd(), b"a/b").is_ok());
        assert!(open_dir(dir.as_fd(), b"out").is_err());
    }
}
