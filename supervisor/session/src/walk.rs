//! Walking the session directory: each directory is listed once, sorted in one allocation, and
//! each name looked at relative to it.

use std::ffi::CStr;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};

use sessionkeep_core::entry::RelPath;

use super::profile::{Exclusion, Profile};
use super::scan::{Found, FoundKind, Look, ScanReport, SkipReason, examine, kind_bits, sidecars};
use super::sqlite::is_beside_a_database;
use sessionkeep_core::beneath::OPEN_DIR;

/// The names of one directory, in one allocation, sorted.
struct Listing {
    arena: Vec<u8>,
    spans: Vec<(u32, u32)>,
    has_sidecars: bool,
}

impl Listing {
    fn read(fd: &OwnedFd) -> io::Result<Self> {
        let mut dir = Dir::from_fd(fd.try_clone()?)?;
        let mut listing = Self {
            arena: Vec::new(),
            spans: Vec::new(),
            has_sidecars: false,
        };
        for entry in dir.iter() {
            let entry = match entry {
                Ok(entry) => entry,
                // The directory was removed while it was listed.
                Err(Errno::ENOENT) => break,
                Err(error) => return Err(error.into()),
            };
            let name = entry.file_name().to_bytes_with_nul();
            if name == b".\0" || name == b"..\0" {
                continue;
            }
            let start = listing.arena.len() as u32;
            listing.arena.extend_from_slice(name);
            listing.spans.push((start, listing.arena.len() as u32));
            listing.has_sidecars |= name.ends_with(b"-wal\0") || name.ends_with(b"-journal\0");
        }
        let arena = &listing.arena;
        listing
            .spans
            .sort_unstable_by(|a, b| with_nul(arena, *a).cmp(with_nul(arena, *b)));
        Ok(listing)
    }

    /// The `n`-th name.
    fn name(&self, n: usize) -> Option<&CStr> {
        let span = self.spans.get(n)?;
        let name = CStr::from_bytes_with_nul(with_nul(&self.arena, *span));
        Some(name.expect("the name came from a C string"))
    }

    fn sidecar(&self, name: &[u8], suffix: &[u8]) -> Option<&CStr> {
        if !self.has_sidecars {
            return None;
        }
        let wanted = [name, suffix, b"\0"].concat();
        let at = self
            .spans
            .binary_search_by(|span| with_nul(&self.arena, *span).cmp(&wanted));
        at.ok().map(|at| {
            CStr::from_bytes_with_nul(with_nul(&self.arena, self.spans[at]))
                .expect("the name came from a C string")
        })
    }
}

fn with_nul(arena: &[u8], (start, end): (u32, u32)) -> &[u8] {
    &arena[start as usize..end as usize]
}

/// A directory that is being walked.
struct Level {
    fd: OwnedFd,
    listing: Listing,
    /// Which of its names comes next.
    next: usize,
    /// How much of the walk's path is its own.
    length: usize,
}

/// One scan under way.
pub(super) struct Walk<'a> {
    profile: Profile,
    /// The path of the directory that is being walked, without a trailing slash.
    path: Vec<u8>,
    entering: &'a mut dyn FnMut(BorrowedFd<'_>, Option<&RelPath>),
    each: &'a mut dyn FnMut(Found) -> ControlFlow<()>,
    pub(super) report: ScanReport,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        profile: Profile,
        entering: &'a mut dyn FnMut(BorrowedFd<'_>, Option<&RelPath>),
        each: &'a mut dyn FnMut(Found) -> ControlFlow<()>,
    ) -> Self {
        Self {
            profile,
            path: Vec::with_capacity(256),
            entering,
            each,
            report: ScanReport::default(),
        }
    }

    /// Walks the open directory `at` and all below it. No recursion: directories can be nested deeper
    /// than the stack of a thread.
    pub(super) fn start(&mut self, fd: OwnedFd, at: Option<&RelPath>) -> ControlFlow<()> {
        if let Some(at) = at {
            self.path.extend_from_slice(at.as_bytes());
        }
        let mut open: Vec<Level> = self.enter(fd, at).into_iter().collect();
        while let Some(level) = open.last_mut() {
            self.path.truncate(level.length);
            let Some(name) = level.listing.name(level.next) else {
                open.pop();
                continue;
            };
            level.next += 1;
            if level.length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            if let Some((fd, path)) = self.entry(&level.fd, name, &level.listing)? {
                open.extend(self.enter(fd, Some(&path)));
            }
        }
        ControlFlow::Continue(())
    }

    /// Lists the open directory `at`, whose path is the walk's.
    fn enter(&mut self, fd: OwnedFd, at: Option<&RelPath>) -> Option<Level> {
        (self.entering)(fd.as_fd(), at);
        match Listing::read(&fd) {
            Ok(listing) => Some(Level {
                fd,
                listing,
                next: 0,
                length: self.path.len(),
            }),
            Err(error) => {
                match at {
                    Some(at) => self.report.unreadable.push((at.clone(), error.to_string())),
                    None => self.report.root_unreadable = Some(error),
                }
                None
            }
        }
    }

    /// Looks at one name; gives a directory that is to be walked.
    fn entry(
        &mut self,
        fd: &OwnedFd,
        name: &CStr,
        listing: &Listing,
    ) -> ControlFlow<(), Option<(OwnedFd, RelPath)>> {
        let stat = match fstatat(fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // It vanished between the listing and now.
            Err(Errno::ENOENT) => return ControlFlow::Continue(None),
            Err(error) => {
                if let Ok(path) = RelPath::new(self.path.as_slice())
                    && !self.profile.skips_entry(&self.path, false)
                {
                    self.report.unreadable.push((path, error.desc().to_owned()));
                }
                return ControlFlow::Continue(None);
            }
        };
        let is_dir = kind_bits(&stat) == SFlag::S_IFDIR;
        let why = self.profile.exclusion(&self.path, is_dir).or_else(|| {
            let is_log = !is_dir && is_beside_a_database(fd.as_fd(), name.to_bytes());
            is_log.then_some(Exclusion::DatabaseLog)
        });
        if let Some(why) = why {
            self.report.exclude(&self.path, why);
            return ControlFlow::Continue(None);
        }
        let Ok(path) = RelPath::new(self.path.as_slice()) else {
            // The only thing wrong with a listed path can be its length; what can be named of it
            // is the directory it is in.
            if let Ok(dir) = RelPath::new(&self.path[..self.path.len() - name.to_bytes().len() - 1])
            {
                self.report.skip(dir, SkipReason::Unusable);
            }
            return ControlFlow::Continue(None);
        };
        match examine(fd.as_fd(), name, &path, &stat) {
            Look::Found(mut found) => {
                if found.kind == FoundKind::File {
                    found.print.sidecars = sidecars(|suffix| {
                        let sidecar = listing.sidecar(name.to_bytes(), suffix)?;
                        fstatat(fd, sidecar, AtFlags::AT_SYMLINK_NOFOLLOW).ok()
                    });
                }
                (self.each)(found)?;
            }
            Look::Absent => return ControlFlow::Continue(None),
            Look::Skipped(reason) => {
                self.report.skip(path, reason);
                return ControlFlow::Continue(None);
            }
            Look::Unreadable(error) => {
                self.report.unreadable.push((path, error.to_string()));
                return ControlFlow::Continue(None);
            }
        }
        if is_dir {
            match openat(fd.as_fd(), name, OPEN_DIR, Mode::empty()) {
                Ok(below) => return ControlFlow::Continue(Some((below, path))),
                Err(Errno::ENOENT) => {}
                // Also where it was swapped for something else since: the next look tells.
                Err(error) => self.report.unreadable.push((path, error.desc().to_owned())),
            }
        }
        ControlFlow::Continue(None)
    }
}
