//! What is in the session directory: the truth that events only hint at.
//!
//! Everything is looked up relative to open directories, so that no path is resolved twice and no
//! link is ever followed, whatever is swapped while we look.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, open, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use sessionkeep_core::entry::{Meta, Owner, RelPath, symlink_stays_inside};

use super::profile::{Exclusion, Profile};
use super::sqlite::is_beside_a_database;
use super::walk::Walk;
use sessionkeep_core::beneath::{self, OPEN_DIR};

/// At most this many skipped paths are named in a report; the rest is counted.
const SKIPPED_MAX: usize = 100;
/// And at most this many that the profile leaves out.
const EXCLUDED_MAX: usize = 1000;
/// Time stamps come from a clock that ticks every 1 to 10 ms: two writes within one tick look alike.
const CLOCK_TICK_NS: i64 = 10_000_000;

/// What tells that a file has changed without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fingerprint {
    /// Length in bytes.
    pub size: u64,
    /// Last change of the content, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Last change of content or metadata; no program can set it.
    pub ctime_ns: i64,
    /// Which file it is.
    pub ino: u64,
    /// A hash over size, time of the last write and identity of the `-wal` and the `-journal`
    /// beside it; 0 where there is neither.
    pub sidecars: u64,
}

impl Fingerprint {
    /// From what the kernel said, without sidecars.
    #[must_use]
    pub(super) fn of(stat: &FileStat) -> Self {
        Self {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
            ino: stat.st_ino,
            sidecars: 0,
        }
    }

    /// Whether a write that came after this was taken, at `now_ns` nanoseconds since 1970, could
    /// leave the very same fingerprint because it fell into the same tick of the clock. Such a
    /// fingerprint must not prove that a file is unchanged.
    #[must_use]
    pub fn may_hide_a_write(&self, now_ns: i64) -> bool {
        self.ctime_ns.saturating_add(CLOCK_TICK_NS) >= now_ns
    }
}

fn nanoseconds(seconds: i64, nanos: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// The metadata that a restore brings back.
pub(super) fn meta_of(stat: &FileStat) -> Meta {
    Meta {
        mode: stat.st_mode & 0o7777,
        mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        owner: Owner {
            uid: stat.st_uid,
            gid: stat.st_gid,
        },
    }
}

pub(super) fn kind_bits(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link that stays inside.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
    },
}

/// One entry as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub path: RelPath,
    /// What.
    pub kind: FoundKind,
    /// What a restore brings back. A directory's time changes with every name in it.
    pub meta: Meta,
    /// What tells that it changed.
    pub print: Fingerprint,
    /// How many names it has, here and elsewhere. A directory's count says something else.
    pub links: u64,
}

/// What is at one path.
#[derive(Debug)]
pub enum Look {
    /// Something to archive.
    Found(Found),
    /// Nothing.
    Absent,
    /// Something that is not archived.
    Skipped(SkipReason),
    /// Something that could not be looked at: what was known of it must not be taken as deleted.
    Unreadable(io::Error),
}

/// Why something is not archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// The profile leaves it out.
    Profile,
    /// A socket, a pipe or a device.
    Special,
    /// A symbolic link that leaves the session directory.
    EscapingLink,
    /// Its path is longer than an archive takes.
    Unusable,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Profile => "left out by the profile",
            Self::Special => "a socket, pipe or device",
            Self::EscapingLink => "a link that leaves the session directory",
            Self::Unusable => "its path is too long",
        })
    }
}

/// What a scan could not report as found.
#[derive(Debug, Default)]
pub struct ScanReport {
    /// What is not archived, for another reason than the profile; the first 100.
    pub skipped: Vec<(RelPath, SkipReason)>,
    /// How many there are.
    pub skipped_count: u64,
    /// What the profile leaves out, without our own directory; as many as
    /// [`Directory::scan`] names.
    pub excluded: Vec<(RelPath, Exclusion)>,
    /// How many there are. A directory counts once, with all below it.
    pub excluded_count: u64,
    /// Files and directories that could not be looked at, with the reason in words: what was known
    /// of them, and below them, must not be taken as deleted.
    pub unreadable: Vec<(RelPath, String)>,
    /// The session directory itself could not be looked at, or is no longer the one that was
    /// opened: nothing is known, and nothing may be taken as deleted.
    pub root_unreadable: Option<io::Error>,
}

impl ScanReport {
    pub(super) fn exclude(&mut self, path: &[u8], why: Exclusion) {
        if why == Exclusion::Ours {
            return;
        }
        self.excluded_count += 1;
        if self.excluded.len() < EXCLUDED_MAX
            && let Ok(path) = RelPath::new(path)
        {
            self.excluded.push((path, why));
        }
    }

    pub(super) fn skip(&mut self, path: RelPath, reason: SkipReason) {
        self.skipped_count += 1;
        if self.skipped.len() < SKIPPED_MAX {
            self.skipped.push((path, reason));
        }
    }
}

/// An opened session directory. Everything below is reached from its descriptor, so that nothing
/// that is renamed meanwhile leads elsewhere. It is an obstacle to unmounting, as is the lock that
/// init holds in it for as long.
#[derive(Debug, Clone)]
pub struct Directory {
    pub(super) root: PathBuf,
    pub(super) fd: Arc<OwnedFd>,
    pub(super) identity: (u64, u64),
    pub(super) profile: Profile,
}

impl Directory {
    /// Takes `root` as the session directory. It may itself be reached through links.
    ///
    /// # Errors
    /// Where it is no directory or cannot be read.
    pub fn open(root: &Path, profile: Profile) -> io::Result<Self> {
        let root = std::fs::canonicalize(root)?;
        let fd = open(&root, OPEN_DIR, Mode::empty())?;
        let stat = fstat(&fd)?;
        Ok(Self {
            root,
            fd: Arc::new(fd),
            identity: (stat.st_dev, stat.st_ino),
            profile,
        })
    }

    /// The directory that is open as `fd`, whose path is `root`, with the same rules of what is left out.
    pub(super) fn elsewhere(&self, root: PathBuf, fd: OwnedFd) -> io::Result<Self> {
        let stat = fstat(&fd)?;
        Ok(Self {
            root,
            fd: Arc::new(fd),
            identity: (stat.st_dev, stat.st_ino),
            ..self.clone()
        })
    }

    /// The directory's absolute path, without links.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory, open.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether the path still is that very directory: neither unmounted nor replaced.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.intact().is_ok()
    }

    /// As [`Directory::is_intact`].
    ///
    /// # Errors
    /// Why not.
    pub fn intact(&self) -> io::Result<()> {
        self.own_meta().map(drop)
    }

    /// What a restore brings back of the session directory itself.
    ///
    /// # Errors
    /// As [`Directory::intact`].
    pub fn own_meta(&self) -> io::Result<Meta> {
        // Opened, and not only looked at, to know that it can be read.
        let stat = fstat(open(&self.root, OPEN_DIR, Mode::empty())?)?;
        if (stat.st_dev, stat.st_ino) != self.identity {
            return Err(io::Error::new(
                io::ErrorKind::StaleNetworkFileHandle,
                "the session directory was replaced or unmounted",
            ));
        }
        Ok(meta_of(&stat))
    }

    /// Reports everything below the directory `below` (`None`: the whole session directory), not
    /// itself: a directory before its content, siblings in the order of their names' bytes.
    /// Where `below` is absent or no directory, there is nothing below it.
    ///
    /// `entering` is called with each directory, open, before it is listed, so that a watch set there
    /// sees whatever the listing misses.
    pub fn scan(
        &self,
        below: Option<&RelPath>,
        entering: &mut dyn FnMut(BorrowedFd<'_>, Option<&RelPath>),
        each: &mut dyn FnMut(Found),
    ) -> ScanReport {
        self.scan_until(below, entering, &mut |found| {
            each(found);
            ControlFlow::Continue(())
        })
    }

    /// As [`Directory::scan`], but ends when `each` has seen enough. What the report lacks then
    /// says nothing.
    pub fn scan_until(
        &self,
        below: Option<&RelPath>,
        entering: &mut dyn FnMut(BorrowedFd<'_>, Option<&RelPath>),
        each: &mut dyn FnMut(Found) -> ControlFlow<()>,
    ) -> ScanReport {
        let mut walk = Walk::new(self.profile, entering, each);
        if let Err(error) = self.intact() {
            walk.report.root_unreadable = Some(error);
            return walk.report;
        }
        let start = below.map_or(&[][..], RelPath::as_bytes);
        if below.is_some_and(|below| self.profile.skips(below, true)) {
            return walk.report;
        }
        match beneath::open_dir(self.fd(), start).map_err(io::Error::from) {
            Ok(fd) => {
                // Ended early or not: what was found is what was wanted.
                let _ = walk.start(fd, below);
            }
            Err(error) => match below {
                Some(below) if !is_gone(&error) => {
                    walk.report
                        .unreadable
                        .push((below.clone(), error.to_string()));
                }
                Some(_) => {}
                None => walk.report.root_unreadable = Some(error),
            },
        }
        walk.report
    }

    /// What is at `path`, with the same fingerprint that a scan would report.
    #[must_use]
    pub fn look(&self, path: &RelPath) -> Look {
        let (dir, name) = path.split();
        let opened;
        let fd = match dir {
            [] => self.fd(),
            dir => match beneath::open_dir(self.fd(), dir).map_err(io::Error::from) {
                Ok(fd) => {
                    opened = fd;
                    opened.as_fd()
                }
                Err(error) if is_gone(&error) => return Look::Absent,
                Err(error) => return Look::Unreadable(error),
            },
        };
        let stat = match fstatat(fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => return Look::Absent,
            Err(error) => return Look::Unreadable(error.into()),
        };
        let is_dir = kind_bits(&stat) == SFlag::S_IFDIR;
        if self.profile.skips(path, is_dir) || (!is_dir && is_beside_a_database(fd, name)) {
            return Look::Skipped(SkipReason::Profile);
        }
        let look = examine(fd, name, path, &stat);
        match look {
            Look::Found(mut found) if found.kind == FoundKind::File => {
                found.print.sidecars = sidecars(|suffix| {
                    let name = [name, suffix].concat();
                    fstatat(fd, name.as_slice(), AtFlags::AT_SYMLINK_NOFOLLOW).ok()
                });
                Look::Found(found)
            }
            other => other,
        }
    }
}

/// Whether the error says that nothing is there: also where a directory on the way is now
/// something else.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP)
    )
}

/// Makes of a stat what is to be reported; the caller adds the sidecars.
pub(super) fn examine<N: ?Sized + nix::NixPath>(
    dir: BorrowedFd<'_>,
    name: &N,
    path: &RelPath,
    stat: &FileStat,
) -> Look {
    let kind = match kind_bits(stat) {
        SFlag::S_IFREG => FoundKind::File,
        SFlag::S_IFDIR => FoundKind::Dir,
        SFlag::S_IFLNK => match readlinkat(dir, name) {
            Ok(target) => FoundKind::Symlink {
                target: target.into_vec(),
            },
            // EINVAL: it is no link any more. The next look finds what it became.
            Err(Errno::ENOENT | Errno::EINVAL) => return Look::Absent,
            Err(error) => return Look::Unreadable(error.into()),
        },
        _ => return Look::Skipped(SkipReason::Special),
    };
    if let FoundKind::Symlink { target } = &kind
        && !symlink_stays_inside(path, target)
    {
        return Look::Skipped(SkipReason::EscapingLink);
    }
    Look::Found(Found {
        path: path.clone(),
        kind,
        meta: meta_of(stat),
        print: Fingerprint::of(stat),
        links: stat.st_nlink,
    })
}

/// FNV-1a over the facts of the two sidecars that hold content. The `-shm` holds none. Without the
/// time of the last change of metadata: SQLite, run as root, sets the log's owner whenever it opens
/// it, so that each snapshot of ours would look like a change.
pub(super) fn sidecars(mut stat: impl FnMut(&[u8]) -> Option<FileStat>) -> u64 {
    let mut hash = 0;
    for suffix in [&b"-wal"[..], b"-journal"] {
        let Some(stat) = stat(suffix) else { continue };
        let print = Fingerprint::of(&stat);
        if hash == 0 {
            hash = 0xcbf2_9ce4_8422_2325;
        }
        let facts = [
            suffix.len() as u64,
            print.size,
            print.mtime_ns.cast_unsigned(),
            print.ino,
        ];
        for byte in facts.iter().flat_map(|fact| fact.to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        hash = hash.max(1);
    }
    hash
}
