//! inotify, as hints where to look. Nothing is concluded from an event but that a look is due, so
//! that what is lost, merged or out of order costs time and never truth.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tracing::info;

use sessionkeep_core::entry::RelPath;

use super::profile::Profile;
use super::scan::Directory;
use sessionkeep_core::beneath::{self, pinned};

/// Without ACCESS, OPEN and CLOSE_NOWRITE: our own reading must not wake us.
const MASK: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_MODIFY)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_ONLYDIR)
    .union(AddWatchFlags::IN_DONT_FOLLOW);

/// Not more names are remembered.
const GONE_MAX: usize = 256;

const ROOT_MASK: AddWatchFlags = MASK
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);

/// Where to look, and how soon it is worth it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FsEvent {
    /// Its writer closed it, or it was renamed into place: it is probably whole. Its fingerprint
    /// may be the one it had before, since two writes within one tick of the clock look alike;
    /// but a database that we took a snapshot of is reported like this too.
    Closed(RelPath),
    /// It was changed, created, deleted or renamed away; it may still be being written.
    Touched(RelPath),
    /// A directory came, was renamed or went (`None`: the session directory itself): look at it,
    /// scan below it, and watch what the scan enters. What was below it is watched no longer.
    Subtree(Option<RelPath>),
    /// The session directory's own owner or mode may have changed.
    Own,
    /// The kernel dropped events: scan everything.
    Overflow,
    /// The session directory was deleted, renamed or unmounted.
    RootGone,
}

/// A set of watched directories.
#[derive(Debug)]
pub struct Events {
    /// Or why there is none.
    inotify: Result<Inotify, String>,
    /// `None` is the session directory itself.
    watched: HashMap<WatchDescriptor, Option<RelPath>>,
    /// What is known to be a database of SQLite's.
    databases: HashSet<RelPath>,
    /// Names that were taken away lately.
    gone: HashSet<RelPath>,
    /// See [`Events::take_astray`].
    astray: bool,
}

impl Events {
    /// Watches nothing yet; and never will where the user has no inotify instance left, which
    /// [`Events::watch`] tells.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "it asks the kernel for something"
    )]
    pub fn new() -> Self {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .map_err(|errno| explain(errno, "fs.inotify.max_user_instances").to_string());
        Self {
            inotify,
            watched: HashMap::new(),
            databases: HashSet::new(),
            gone: HashSet::new(),
            astray: false,
        }
    }

    /// Whether something was written under a name that is gone, since this was last asked: a file is
    /// reported under the name by which it was opened, though it may have another one by now.
    pub fn take_astray(&mut self) -> bool {
        std::mem::take(&mut self.astray)
    }

    /// As [`Events::take_astray`], which is left to be asked again.
    #[must_use]
    pub fn is_astray(&self) -> bool {
        self.astray
    }

    /// Takes note of a name that goes or comes, or of a write under one that is gone. That of a file that
    /// was made without a name is its number.
    fn note_name(&mut self, mask: AddWatchFlags, path: &RelPath) {
        let is = |flag| mask.intersects(flag);
        if is(AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM) {
            if self.gone.len() >= GONE_MAX {
                self.gone.clear();
            }
            self.gone.insert(path.clone());
        } else if is(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO) {
            self.gone.remove(path);
        } else if is(AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE) {
            let is_number = |name: &[u8]| name.iter().all(u8::is_ascii_digit);
            let is_nameless = path.name().strip_prefix(b"#").is_some_and(is_number);
            self.astray |= is_nameless || self.gone.contains(path);
        }
    }

    /// Watches a directory, not what is below its own directories. Watching one again is harmless,
    /// also under another path; one that vanished meanwhile is a success, as there is nothing to
    /// watch.
    ///
    /// # Errors
    /// Where the user has no watch left, or no inotify instance: rely on rescans then.
    pub fn watch(&mut self, dir: &Directory, path: Option<&RelPath>) -> io::Result<()> {
        match beneath::open_dir(dir.fd(), path.map_or(&[], RelPath::as_bytes)) {
            Ok(open) => self.watch_open(dir, open.as_fd(), path),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) if path.is_some() => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// As [`Events::watch`], of the directory that is `open` and has, or had a moment ago, that path.
    ///
    /// # Errors
    /// As there.
    pub fn watch_open(
        &mut self,
        dir: &Directory,
        open: BorrowedFd<'_>,
        path: Option<&RelPath>,
    ) -> io::Result<()> {
        let inotify = match &self.inotify {
            Ok(inotify) => inotify,
            Err(why) => return Err(io::Error::other(why.clone())),
        };
        let mask = if path.is_some() { MASK } else { ROOT_MASK };
        // Of a path, its directories on the way could be links by now. The dot is what makes of the
        // descriptor's own link, which must not be the last part, the directory.
        let added = match inotify.add_watch(&pinned(open).join("."), mask) {
            // No `/proc`: what a wrong directory would tell of is looked for below ours all the same.
            Err(Errno::ENOENT) => {
                let path =
                    path.map_or_else(|| dir.root().to_owned(), |path| path.under(dir.root()));
                inotify.add_watch(&path, mask)
            }
            other => other,
        };
        match added {
            Ok(watch) => {
                self.watched.insert(watch, path.cloned());
                Ok(())
            }
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) if path.is_some() => Ok(()),
            Err(errno) => Err(explain(errno, "fs.inotify.max_user_watches")),
        }
    }

    /// Watches nothing any more.
    pub fn forget_all(&mut self) {
        let Ok(inotify) = &self.inotify else { return };
        for (watch, _) in self.watched.drain() {
            // It fails where the directory is gone already, and its watch with it.
            let _ = inotify.rm_watch(watch);
        }
    }

    /// Takes note of whether this is a database of SQLite's. What lies beside one only tells of the
    /// database, and is not reported itself; beside anything else it is.
    pub fn note_database(&mut self, path: &RelPath, is_one: bool) {
        if !is_one {
            self.databases.remove(path);
        } else if !self.databases.contains(path) {
            self.databases.insert(path.clone());
        }
    }

    /// How many directories are watched.
    #[must_use]
    pub fn len(&self) -> usize {
        self.watched.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// Becomes readable when there is something to [`Events::read`]. Non-blocking. `None` where
    /// there never will be.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().ok().map(AsFd::as_fd)
    }

    /// Hands over everything that has happened so far. What happens meanwhile is for the next call:
    /// a writer that is faster than this would otherwise keep the caller here for ever.
    ///
    /// # Errors
    /// What the kernel said; nothing is lost then that a scan would not find.
    pub fn read(&mut self, dir: &Directory, each: &mut dyn FnMut(FsEvent)) -> io::Result<()> {
        let mut left = match &self.inotify {
            Ok(inotify) => queued(inotify)?,
            Err(_) => return Ok(()),
        };
        while left > 0 {
            let Ok(inotify) = &self.inotify else {
                return Ok(());
            };
            let events = match inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for event in events {
                left = left.saturating_sub(size_of_event(&event));
                let Some(fs_event) = self.fs_event(dir.profile, &event) else {
                    continue;
                };
                if let FsEvent::Closed(path) | FsEvent::Touched(path) = &fs_event
                    && let Some(database) = Profile::database_of(path)
                {
                    let is_known = self.databases.contains(&database);
                    // Shared memory holds nothing that a reader of the database needs.
                    let tells = !(is_known && path.name().ends_with(b"-shm"));
                    if tells && !dir.profile.skips(&database, false) {
                        each(FsEvent::Touched(database));
                    }
                    if is_known {
                        continue;
                    }
                }
                each(fs_event);
            }
        }
        Ok(())
    }

    fn fs_event(&mut self, profile: Profile, event: &InotifyEvent) -> Option<FsEvent> {
        let is = |flag| event.mask.intersects(flag);
        if is(AddWatchFlags::IN_Q_OVERFLOW) {
            info!(target: "sync", "the kernel has dropped change notices; looking at everything");
            return Some(FsEvent::Overflow);
        }
        // Of a watch that was dropped, late events may still be in the queue.
        let watched = self.watched.get(&event.wd)?;
        if is(AddWatchFlags::IN_IGNORED) {
            self.watched.remove(&event.wd);
            return None;
        }
        let Some(name) = &event.name else {
            let gone = AddWatchFlags::IN_DELETE_SELF
                | AddWatchFlags::IN_MOVE_SELF
                | AddWatchFlags::IN_UNMOUNT;
            if !is(gone) {
                // Of other directories the one above tells.
                let is_own = watched.is_none() && is(AddWatchFlags::IN_ATTRIB);
                return is_own.then_some(FsEvent::Own);
            }
            return Some(match watched {
                None => FsEvent::RootGone,
                some => FsEvent::Subtree(some.clone()),
            });
        };
        let above = watched.as_ref().map_or(&[][..], RelPath::as_bytes);
        let path = RelPath::join(above, name.as_bytes()).ok()?;
        self.note_name(event.mask, &path);
        if is(AddWatchFlags::IN_ISDIR) {
            return self.directory_hint(profile, event.mask, path);
        }
        if profile.skips(&path, false) {
            return None;
        }
        Some(
            if is(AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO) {
                FsEvent::Closed(path)
            } else {
                FsEvent::Touched(path)
            },
        )
    }

    fn directory_hint(
        &mut self,
        profile: Profile,
        mask: AddWatchFlags,
        path: RelPath,
    ) -> Option<FsEvent> {
        if mask.intersects(AddWatchFlags::IN_MOVED_FROM) {
            // The kernel's watches follow the directories to wherever they went, perhaps out of
            // the session directory; the names under which we know them are wrong from here on.
            self.forget_below(&path);
        }
        if profile.skips(&path, true) {
            return None;
        }
        let moved_or_made =
            AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_MOVED_FROM;
        Some(if mask.intersects(moved_or_made) {
            FsEvent::Subtree(Some(path))
        } else {
            FsEvent::Touched(path)
        })
    }

    fn forget_below(&mut self, dir: &RelPath) {
        let Ok(inotify) = &self.inotify else { return };
        self.watched.retain(|watch, path| {
            let stays = path.as_ref().is_none_or(|path| !path.is_within(dir));
            if !stays {
                // It fails where the directory is gone already, and its watch with it.
                let _ = inotify.rm_watch(*watch);
            }
            stays
        });
    }
}

/// How many bytes of events wait to be read.
fn queued(inotify: &Inotify) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int to the place it is given, which lives until the call returns.
    Errno::result(unsafe {
        libc::ioctl(inotify.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes)
    })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// What the event took of the queue: its name ends with a zero and is padded to a multiple of what
/// comes before it (inotify(7), and `round_event_name_len` in the kernel since 2.6.36).
fn size_of_event(event: &InotifyEvent) -> usize {
    let head = size_of::<libc::inotify_event>();
    let name = event.name.as_ref().map_or(0, |name| name.len() + 1);
    head + name.next_multiple_of(head)
}

/// The kernel says "no space left" and "too many open files" where a limit of inotify is meant.
fn explain(errno: Errno, limit: &str) -> io::Error {
    match errno {
        Errno::ENOSPC | Errno::EMFILE => io::Error::new(
            io::ErrorKind::QuotaExceeded,
            format!("the kernel's limit {limit} is used up; raise it on the host"),
        ),
        other => other.into(),
    }
}
