//! What is mounted below the session directory: a volume of its own for a subdirectory, or a file that
//! the operator bound into it.
//!
//! A mount cannot be renamed, and whatever contains one takes it along; and where it goes away, what
//! lies under it shows through as if everything had been deleted. Both are known from the kernel's own
//! list, since a mount of the same file system has the device of what it covers.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};
use tracing::debug;

use sessionkeep_core::entry::RelPath;

use super::mount_id::mount_id;
use sessionkeep_core::beneath::{self, pinned};
use sessionkeep_core::state_dir::{STATE_DIR, StateDir};

/// The list of this thread's own mount namespace: a thread may have left that of its process.
const LIST: &str = "/proc/thread-self/mountinfo";

/// What is mounted somewhere, whatever its number is now: the same volume that was unmounted and mounted
/// again is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Of the file system, as `8:1`.
    device: String,
    /// What of the file system is mounted.
    root: Vec<u8>,
    /// A device's number is given again; this is not.
    inode: u64,
    created: Option<SystemTime>,
}

/// A mount below the session directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub path: RelPath,
    /// What.
    pub volume: Volume,
    /// Whether it is a directory; else it is a file.
    pub is_dir: bool,
    /// Whether it takes no writes.
    pub read_only: bool,
}

/// All mounts below a session directory, but for those in `.sessionkeep`; in the order of their paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    /// Those below `session`. Without `/proc`, none are known.
    ///
    /// # Errors
    /// Where the kernel's list cannot be read, or what it names not be looked at.
    pub fn below(session: BorrowedFd<'_>) -> io::Result<Self> {
        let list = match fs::read(LIST) {
            Ok(list) => list,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                debug!(target: "boot", %error, "without /proc, mounts below the session directory are not known");
                return Ok(Self::default());
            }
            Err(error) => return Err(error),
        };
        let above = fs::read_link(pinned(session))?;
        let mut found = Vec::new();
        for line in entries(&list, above.as_os_str().as_bytes()) {
            // One that another covers is in the list as well, and is no concern of ours.
            if let Some(mount) = line.seen_from(session)? {
                found.push(mount);
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self(found))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }

    /// The one at this very path.
    #[must_use]
    pub fn at(&self, path: &[u8]) -> Option<&Mount> {
        self.0.iter().find(|mount| mount.path.as_bytes() == path)
    }

    /// Whether `path` is a mount, or holds one at any depth.
    #[must_use]
    pub fn are_within(&self, path: &[u8]) -> bool {
        self.0
            .iter()
            .any(|mount| lies_within(mount.path.as_bytes(), path))
    }

    /// The innermost one that `path` is, or lies on.
    #[must_use]
    pub fn holding(&self, path: &RelPath) -> Option<&Mount> {
        let holds = |mount: &&Mount| *path == mount.path || path.is_within(&mount.path);
        self.0.iter().rev().find(holds)
    }
}

/// Whether `path` is `dir`, or something below it.
fn lies_within(path: &[u8], dir: &[u8]) -> bool {
    match path.strip_prefix(dir) {
        Some(rest) => rest.is_empty() || rest.starts_with(b"/"),
        None => false,
    }
}

/// A line of the list that names something below the session directory.
struct Line {
    id: u64,
    device: String,
    root: Vec<u8>,
    path: RelPath,
    read_only: bool,
}

impl Line {
    /// What of it is to be seen: nothing where something else is mounted over it.
    fn seen_from(self, session: BorrowedFd<'_>) -> io::Result<Option<Mount>> {
        let flags = OFlag::O_PATH;
        let open = match beneath::open(session, self.path.as_bytes(), flags, Mode::empty()) {
            Ok(open) => open,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        if mount_id(open.as_fd())? != self.id {
            return Ok(None);
        }
        let stat = metadata(open)?;
        Ok(Some(Mount {
            is_dir: stat.is_dir(),
            volume: Volume {
                device: self.device,
                root: self.root,
                inode: stat.ino(),
                created: stat.created().ok(),
            },
            path: self.path,
            read_only: self.read_only,
        }))
    }
}

fn metadata(open: OwnedFd) -> io::Result<fs::Metadata> {
    File::from(open).metadata()
}

/// The lines of a `mountinfo` (proc_pid_mountinfo(5)) that name something below the directory `above`.
fn entries<'a>(list: &'a [u8], above: &'a [u8]) -> impl Iterator<Item = Line> + 'a {
    list.split(|byte| *byte == b'\n')
        .filter_map(move |line| entry(line, above))
}

fn entry(line: &[u8], above: &[u8]) -> Option<Line> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [id, _parent, device, root, point, options, rest @ ..] = &fields[..] else {
        return None;
    };
    let point = unescaped(point);
    let below = point.strip_prefix(above)?.strip_prefix(b"/")?;
    if lies_within(below, STATE_DIR.as_bytes()) {
        return None;
    }
    // Those of the file system come after a hyphen, its type and its source.
    let hyphen = rest.iter().position(|field| *field == b"-");
    let of_all = hyphen.and_then(|at| rest.get(at + 3)).copied();
    let is_read_only = |options: &[u8]| options.split(|byte| *byte == b',').any(|o| o == b"ro");
    Some(Line {
        id: std::str::from_utf8(id).ok()?.parse().ok()?,
        device: String::from_utf8_lossy(device).into_owned(),
        root: unescaped(root),
        path: RelPath::new(below).ok()?,
        read_only: is_read_only(options) || of_all.is_some_and(is_read_only),
    })
}

/// A path as the list has it: blanks and such are written as `\040`.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                plain.push(byte);
                rest = &after[3..];
            }
            None => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

/// Tells when anything is mounted or unmounted.
#[derive(Debug)]
pub struct MountEvents(Option<File>);

impl MountEvents {
    /// From now on. Without `/proc`, nothing is ever told.
    #[must_use]
    pub fn begin() -> Self {
        let opened = File::open(LIST);
        if let Err(error) = &opened {
            debug!(target: "sync", %error, "it is not told when something is unmounted");
        }
        Self(opened.ok())
    }

    /// Whether anything was, since this was asked the last time. One system call.
    #[must_use]
    pub fn any(&self) -> bool {
        let Some(list) = &self.0 else { return false };
        let mut asked = [PollFd::new(list.as_fd(), PollFlags::POLLPRI)];
        // The list says of itself that it changed by an "error" (proc_pid_mounts(5)).
        poll(&mut asked, PollTimeout::ZERO).is_ok()
            && asked[0]
                .revents()
                .is_some_and(|told| told.intersects(PollFlags::POLLPRI | PollFlags::POLLERR))
    }
}

/// What the next start on this disk compares with, in `.sessionkeep`; there is none where nothing was mounted.
const RECORD: &str = "mounts.json";
/// A path for each mount.
const RECORD_MAX: u64 = 1 << 20;

/// The record's content.
#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    mounts: Vec<RelPath>,
}

/// The mounts that were there when the session directory was last used. Without a record, or with one
/// that cannot be read, none are known.
#[must_use]
pub fn remembered(state: &StateDir) -> Vec<RelPath> {
    let read = state.read(RECORD, RECORD_MAX).ok().flatten();
    let record = read.and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
    record.map(|record| record.mounts).unwrap_or_default()
}

/// Notes them for the next start; writes only where that changes anything.
///
/// # Errors
/// What the file system said.
pub fn remember(state: &StateDir, paths: &[RelPath]) -> io::Result<()> {
    if paths.is_empty() {
        return match state.has(RECORD) {
            true => state.remove(RECORD),
            false => Ok(()),
        };
    }
    if remembered(state) == paths {
        return Ok(());
    }
    let mounts = paths.to_vec();
    let record = Record { version: 1, mounts };
    let bytes = serde_json::to_vec(&record).expect("a record has string keys only");
    state.write(RECORD, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::namespace;

    #[test]
    fn lines_of_the_list_are_read_with_their_escapes_and_others_are_passed_over() {
        let list = br"22 1 8:1 / / rw,relatime - ext4 /dev/root rw
36 22 0:39 / /data/session/a\040b rw,noatime master:1 - tmpfs tmpfs rw
37 22 8:1 /conf.json /data/session/conf.json ro,relatime shared:2 master:1 - ext4 /dev/root rw
38 22 8:2 / /data/session/disk rw - ext4 /dev/sdb ro,errors=continue
39 22 0:40 / /data/session-2/x rw - tmpfs tmpfs rw
40 22 0:41 / /data/session rw - tmpfs tmpfs rw
41 22 0:42 / /data/session/.sessionkeep/x rw - tmpfs tmpfs rw
nonsense
";
        let found: Vec<_> = entries(list, b"/data/session")
            .map(|line| (line.id, line.path.to_string(), line.read_only))
            .collect();
        let expected = [
            (36, "a b", false),
            (37, "conf.json", true),
            (38, "disk", true),
        ];
        assert_eq!(
            found,
            expected.map(|(id, path, ro)| (id, path.to_owned(), ro))
        );
        assert_eq!(unescaped(br"a\134b\"), br"a\b\");
    }

    #[test]
    fn what_is_mounted_below_is_found_and_what_is_covered_is_not() {
        namespace(|| {
            let dir = tempfile::tempdir().expect("tempdir");
            let root = fs::canonicalize(dir.path()).expect("real");
            let open = File::open(&root).expect("open");
            let events = MountEvents::begin();
            assert!(!events.any());
            assert!(Mounts::below(open.as_fd()).expect("lists").is_empty());
            fs::create_dir_all(root.join("a/b/c")).expect("mkdir");
            fs::write(root.join("f"), "f").expect("write");
            let none = None::<&str>;
            let flags = nix::mount::MsFlags::MS_BIND;
            let mount = |from: &str, to: &str| {
                nix::mount::mount(Some(&root.join(from)), &root.join(to), none, flags, none)
                    .expect("mount");
            };
            let paths = || -> Vec<String> {
                let found = Mounts::below(open.as_fd()).expect("lists");
                found.iter().map(|m| m.path.to_string()).collect()
            };
            mount("a/b/c", "a/b/c");
            mount("f", "f");
            assert!(events.any());
            assert!(!events.any(), "told twice");
            assert_eq!(paths(), ["a/b/c", "f"]);
            let before = Mounts::below(open.as_fd()).expect("lists");
            assert!(before.are_within(b"a") && before.are_within(b"a/b/c"));
            assert!(!before.are_within(b"a/b/cc") && !before.are_within(b"a/b/c/d"));
            mount("a", "a");
            assert_eq!(paths(), ["a", "f"]);
            nix::mount::umount(&root.join("a")).expect("umount");
            nix::mount::umount(&root.join("f")).expect("umount");
            assert_eq!(paths(), ["a/b/c"]);
            assert!(events.any());
            mount("f", "f");
            assert_eq!(Mounts::below(open.as_fd()).expect("lists"), before);
        });
    }
}
