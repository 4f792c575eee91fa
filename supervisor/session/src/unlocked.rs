//! Reading a database with a rollback journal while its writer may write, without a lock on it.
//!
//! A writer with a rollback journal cannot commit while somebody reads under a shared lock, and one that
//! does not wait for locks fails. So none is taken: the file is read as it is, while nothing is written
//! into it, and that nothing was is known afterwards. What proves it is the time of the last change,
//! which no program can set: if it is older than a tick of the clock when the reading begins, any write
//! moves it. That nobody was in the middle of writing at the beginning is told by the locks of others,
//! which can be asked for without taking one, and by the journal.
//!
//! The rules that this relies on are those of SQLite's file format (<https://sqlite.org/fileformat.html>)
//! and its locks (<https://sqlite.org/lockingv3.html>): the file is written under the exclusive lock
//! only; a journal that has content while nobody holds the reserved lock is of a writer that died.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, fcntl};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};

use super::scan::{Fingerprint, kind_bits};
use super::sqlite::MAGIC;
use sessionkeep_core::beneath::{self, Place};

/// The bytes that SQLite locks, on every file system: who means to write holds the first, who writes
/// holds all of the others.
const RESERVED: libc::off_t = 0x4000_0001;
const SHARED: libc::off_t = 0x4000_0002;
const SHARED_LEN: libc::off_t = 510;

/// Where in the header it is said how the database is written (2: by a log), and by how many
/// transactions it has been changed.
const WRITE_VERSION: usize = 18;
const CHANGES: std::ops::Range<usize> = 24..28;

/// Some file systems know full seconds only, or every other.
const COARSE_TICK_NS: i64 = 2_000_000_000;

/// What is found at a moment at which a reading could begin.
#[derive(Debug)]
pub enum Stillness {
    /// Nobody writes.
    Quiet(Quiet),
    /// Somebody writes, or did just now.
    Written,
    /// Its writer holds the exclusive lock: it writes now, or does not share at all.
    Held,
    /// There is a journal, and nobody who holds the lock that goes with it. Either it came or went just
    /// now or, where it stays, a writer died and left the database half changed: that takes SQLite
    /// itself to be read. The journal's fingerprint.
    Left(Fingerprint),
    /// It is no database with a rollback journal.
    Other,
}

/// A database that nobody is writing, as long as [`Quiet::holds`].
#[derive(Debug)]
pub struct Quiet {
    file: File,
    print: Fingerprint,
    changes: [u8; 4],
}

impl Quiet {
    /// Looks at the database at `place`. It opens the file, and closes it: never do so while this
    /// process holds a lock on it.
    ///
    /// # Errors
    /// What the file system said.
    pub fn look(place: &Place) -> io::Result<Stillness> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let file = File::from(beneath::open(
            place.dir(),
            place.name(),
            flags,
            Mode::empty(),
        )?);
        let mut header = [0; 100];
        match file.read_exact_at(&mut header, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(Stillness::Other);
            }
            Err(error) => return Err(error),
        }
        if !header.starts_with(MAGIC) || header[WRITE_VERSION..WRITE_VERSION + 2].contains(&2) {
            return Ok(Stillness::Other);
        }
        // In this order: where somebody commits in between, it is looked at again.
        if let Some(journal) = journal(place)?
            && !is_locked(&file, RESERVED, 1)?
        {
            return Ok(Stillness::Left(journal));
        }
        if is_locked(&file, SHARED, SHARED_LEN)? {
            return Ok(Stillness::Held);
        }
        let print = Fingerprint::of(&fstat(&file)?);
        let mut changes = [0; 4];
        file.read_exact_at(&mut changes, CHANGES.start as u64)?;
        let quiet = Self {
            file,
            print,
            changes,
        };
        Ok(match may_hide_a_write(&print) || !quiet.holds(place) {
            true => Stillness::Written,
            false => Stillness::Quiet(quiet),
        })
    }

    /// Whether nothing has been written into the file, and it is still the one at `place`: all that was
    /// read of it since [`Quiet::look`] is of one moment.
    #[must_use]
    pub fn holds(&self, place: &Place) -> bool {
        let at_place = fstatat(place.dir(), place.name(), AtFlags::AT_SYMLINK_NOFOLLOW);
        at_place.is_ok_and(|stat| Fingerprint::of(&stat) == self.print) && self.is_unwritten()
    }

    /// Whether nothing has been written into the file.
    pub(super) fn is_unwritten(&self) -> bool {
        let mut changes = [0; 4];
        let read = self.file.read_exact_at(&mut changes, CHANGES.start as u64);
        let now = fstat(&self.file);
        read.is_ok()
            && changes == self.changes
            && now.is_ok_and(|stat| Fingerprint::of(&stat) == self.print)
    }
}

/// The journal beside it, where that says something: one that is kept for the next transaction begins with
/// zeros, or is empty.
fn journal(place: &Place) -> io::Result<Option<Fingerprint>> {
    let name = [place.name(), b"-journal"].concat();
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    let fd = match beneath::open(place.dir(), &name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let stat = fstat(&fd)?;
    let mut first = [0];
    let says_something = kind_bits(&stat) == SFlag::S_IFREG
        && File::from(fd).read_at(&mut first, 0)? == 1
        && first != [0];
    Ok(says_something.then(|| Fingerprint::of(&stat)))
}

/// Whether another process holds a lock for writing on any of these bytes. Takes none.
fn is_locked(file: &File, start: libc::off_t, len: libc::off_t) -> io::Result<bool> {
    let mut lock = libc::flock {
        l_type: libc::F_RDLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: len,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

/// Whether a write that comes now could leave the very same fingerprint.
pub(super) fn may_hide_a_write(print: &Fingerprint) -> bool {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
    let is_coarse = print.ctime_ns % 1_000_000_000 == 0;
    print.may_hide_a_write(now)
        || (is_coarse && print.ctime_ns.saturating_add(COARSE_TICK_NS) >= now)
}
