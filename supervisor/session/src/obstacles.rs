//! Whatever would stop a restore half-way, looked for before anything is touched.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{AccessFlags, faccessat, geteuid};
use tracing::warn;

use sessionkeep_core::entry::RelPath;

use super::merge::{is_empty, keeps_its_own, list};
use super::mounts::{Mount, Mounts};
use super::scan::kind_bits;
use super::stage::StageError;
use sessionkeep_core::beneath;
use sessionkeep_core::state_dir::StateDir;

/// A login's own files: with one of another moment than the rest, a gateway is logged out.
const CREDENTIALS: &[u8] = b"creds.json";
/// What an SQLite database begins with.
const DATABASE: &[u8] = b"SQLite format 3\0";
/// How much is compared at a time.
const CHUNK: usize = 64 << 10;

/// Looks whether `staged` can take the place of the items `old` of the session directory, in which there
/// are these mounts.
pub(super) fn look(
    state: &StateDir,
    staged: BorrowedFd<'_>,
    old: &[CString],
    mounts: &Mounts,
) -> Result<(), StageError> {
    rights(state, old)?;
    for mount in mounts.iter() {
        fits(staged, mount)?;
        match keeps_its_own(mount) {
            true => compare(state, staged, mount)?,
            false => room(state, staged, mount, mounts)?,
        }
    }
    Ok(())
}

/// Whether every old item can be renamed by this user. Root's rights say nothing beforehand: an error while
/// it is moved tells.
fn rights(state: &StateDir, old: &[CString]) -> Result<(), StageError> {
    if geteuid().is_root() {
        return Ok(());
    }
    let root = state.session();
    let above = fstat(root).map_err(StageError::sys("look at", state.session_path().display()))?;
    let us = geteuid().as_raw();
    for name in old {
        let Ok(stat) = fstatat(root, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else {
            continue;
        };
        let is_sticky = above.st_mode & 0o1000 != 0 && above.st_uid != us && stat.st_uid != us;
        let is_dir = kind_bits(&stat) == SFlag::S_IFDIR;
        // Its owner can open it up. Who cannot write into a directory cannot give it another parent.
        let is_closed = is_dir
            && stat.st_uid != us
            && faccessat(
                root,
                name.as_c_str(),
                AccessFlags::W_OK,
                AtFlags::AT_EACCESS,
            )
            .is_err()
            && !is_empty(root, name);
        if is_sticky || is_closed {
            return Err(StageError::NotOurs {
                name: name.to_string_lossy().into_owned(),
                owner: stat.st_uid,
                user: us,
            });
        }
    }
    Ok(())
}

/// Whether what is staged at a mount, and at what is above it, is of its kind: a mount stays.
fn fits(staged: BorrowedFd<'_>, mount: &Mount) -> Result<(), StageError> {
    let mut at = Some(mount.path.clone());
    while let Some(path) = at {
        let wanted = match path == mount.path && !mount.is_dir {
            true => SFlag::S_IFREG,
            false => SFlag::S_IFDIR,
        };
        let found = kind_of(staged, &path).map_err(StageError::sys("look at", &path))?;
        if found.is_some_and(|found| found != wanted) {
            return Err(StageError::MountPoint {
                name: mount.path.to_string(),
                wanted: path,
            });
        }
        at = path.parent();
    }
    Ok(())
}

fn kind_of(dir: BorrowedFd<'_>, path: &RelPath) -> nix::Result<Option<SFlag>> {
    let (above, name) = path.split();
    let gone = |errno| matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP);
    let above = match beneath::open_dir(dir, above) {
        Err(errno) if gone(errno) => return Ok(None),
        other => other?,
    };
    match fstatat(&above, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(kind_bits(&stat))),
        Err(errno) if gone(errno) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Says what a mount keeps that is archived otherwise, and refuses where that is a login.
fn compare(state: &StateDir, staged: BorrowedFd<'_>, mount: &Mount) -> Result<(), StageError> {
    let mut differing = Vec::new();
    differences(staged, state.session(), &mount.path, &mut differing)
        .map_err(StageError::io("compare", &mount.path))?;
    if let Some((path, _)) = differing.iter().find(|(_, is_login)| *is_login) {
        return Err(StageError::MountedLogin { path: path.clone() });
    }
    if let Some((path, _)) = differing.first() {
        warn!(
            target: "boot", mount = %mount.path, %path, differing = differing.len(),
            "a file or read-only directory that is mounted into the session directory is left as it is; its archived content is another"
        );
    }
    Ok(())
}

/// Finds what differs at `path`, and whether it is a login. What is not archived makes no difference.
fn differences(
    staged: BorrowedFd<'_>,
    present: BorrowedFd<'_>,
    path: &RelPath,
    found: &mut Vec<(RelPath, bool)>,
) -> io::Result<()> {
    let mut left = vec![path.clone()];
    while let Some(path) = left.pop() {
        let Some(kind) = kind_of(staged, &path)? else {
            continue;
        };
        let same = match kind {
            _ if kind_of(present, &path)? != Some(kind) => false,
            SFlag::S_IFDIR => {
                for name in list(beneath::open_dir(staged, path.as_bytes())?.as_fd())? {
                    let below = RelPath::join(path.as_bytes(), name.to_bytes());
                    left.extend(below.ok());
                }
                true
            }
            SFlag::S_IFLNK => target(staged, &path)? == target(present, &path)?,
            _ => is_same(&open(staged, &path)?, &open(present, &path)?)?,
        };
        if !same {
            let is_login = path.name() == CREDENTIALS
                || is_database(staged, &path)
                || is_database(present, &path);
            found.push((path, is_login));
        }
    }
    Ok(())
}

fn target(dir: BorrowedFd<'_>, path: &RelPath) -> io::Result<std::ffi::OsString> {
    let (above, name) = path.split();
    Ok(readlinkat(beneath::open_dir(dir, above)?, name)?)
}

fn open(dir: BorrowedFd<'_>, path: &RelPath) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    Ok(beneath::open(dir, path.as_bytes(), flags, Mode::empty())?.into())
}

fn is_database(dir: BorrowedFd<'_>, path: &RelPath) -> bool {
    let mut start = [0; DATABASE.len()];
    let read = open(dir, path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == DATABASE
}

fn is_same(mut a: &File, mut b: &File) -> io::Result<bool> {
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    loop {
        ours.clear();
        theirs.clear();
        let most = CHUNK as u64;
        a.by_ref().take(most).read_to_end(&mut ours)?;
        b.by_ref().take(most).read_to_end(&mut theirs)?;
        if ours != theirs || ours.is_empty() {
            return Ok(ours == theirs);
        }
    }
}

/// Whether there is room: what is on a mount is copied out of it, and what is staged for it copied in.
fn room(
    state: &StateDir,
    staged: BorrowedFd<'_>,
    mount: &Mount,
    mounts: &Mounts,
) -> Result<(), StageError> {
    let looked = |action| StageError::io(action, &mount.path);
    let there = bytes_below(state.session(), &mount.path, mounts).map_err(looked("measure"))?;
    let wanted = bytes_below(staged, &mount.path, &Mounts::default()).map_err(looked("measure"))?;
    let free = |dir: BorrowedFd<'_>| -> nix::Result<u64> {
        let stat = fstatvfs(dir)?;
        #[allow(clippy::unnecessary_cast, reason = "the width differs by platform")]
        Ok((stat.blocks_available() as u64).saturating_mul(stat.fragment_size() as u64))
    };
    let failed = |action| StageError::sys(action, &mount.path);
    let opened = beneath::open_dir(state.session(), mount.path.as_bytes());
    let opened = opened.map_err(failed("open"))?;
    let inside = free(opened.as_fd()).map_err(failed("measure"))?;
    let beside = free(state.session()).map_err(failed("measure"))?;
    for (needs, free) in [(wanted, inside.saturating_add(there)), (there, beside)] {
        if needs > free {
            return Err(StageError::Full {
                what: mount.path.to_string(),
                needs,
                free,
                source: Errno::ENOSPC.into(),
            });
        }
    }
    Ok(())
}

/// Whether there is nothing in an item of the session directory but mounts that are empty or keep what they
/// have, and the way to them: nothing that could be set aside.
pub(super) fn is_bare(state: &StateDir, name: &CString, mounts: &Mounts) -> bool {
    let mut left: Vec<RelPath> = RelPath::new(name.to_bytes()).into_iter().collect();
    while let Some(at) = left.pop() {
        if mounts.at(at.as_bytes()).is_some_and(keeps_its_own) {
            continue;
        }
        let listed = match beneath::open_dir(state.session(), at.as_bytes()) {
            Ok(dir) if mounts.are_within(at.as_bytes()) => list(dir.as_fd()),
            _ => return false,
        };
        let Ok(names) = listed else { return false };
        left.extend(
            names
                .iter()
                .filter_map(|name| RelPath::join(at.as_bytes(), name.to_bytes()).ok()),
        );
    }
    true
}

/// The bytes that files at and below `path` take on the disk, but for what other mounts hold.
fn bytes_below(dir: BorrowedFd<'_>, path: &RelPath, mounts: &Mounts) -> io::Result<u64> {
    let (mut bytes, mut left) = (0u64, vec![path.clone()]);
    while let Some(at) = left.pop() {
        let opened = match beneath::open_dir(dir, at.as_bytes()) {
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => continue,
            other => other?,
        };
        for name in list(opened.as_fd())? {
            let Ok(stat) = fstatat(&opened, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else {
                continue;
            };
            let Ok(below) = RelPath::join(at.as_bytes(), name.to_bytes()) else {
                continue;
            };
            if kind_bits(&stat) != SFlag::S_IFDIR {
                bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
            } else if mounts.at(below.as_bytes()).is_none() {
                left.push(below);
            }
        }
    }
    Ok(bytes)
}
