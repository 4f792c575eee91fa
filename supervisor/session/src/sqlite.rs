//! A consistent image of a live SQLite database, page by page, with no copy on disk.
//!
//! SQLite's own page table (<https://sqlite.org/dbpage.html>) hands out the pages as one read
//! transaction sees them, write-ahead log included. That equals what the backup API writes, and
//! needs neither a second file nor the database in memory. The journal mode in the header stays:
//! the gateway may rely on it, and an image in WAL mode without a `-wal` is whole.
//!
//! SQLite takes nothing but paths. It gets one that leads through the database's open directory
//! ([`Place`]), and a file system of its own that opens nothing else (`sqlite_vfs`).
//!
//! A database with a rollback journal is read without a lock while its writer may write
//! ([`super::unlocked`]): its commits would fail otherwise.
//!
//! Two rules of SQLite's shape this module. POSIX locks belong to the process: a file that this
//! process has open through SQLite must not be opened and closed by other means. And closing a
//! writable descriptor is an event to whoever watches the file: after each snapshot the watch
//! reports the database as closed, and only an unchanged [`super::Fingerprint`] tells that
//! nothing happened.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, ffi};

use super::identity::Login;
use super::profile::sidecar_stem;
use super::soundness::{self, Soundness};
use super::sqlite_vfs;
use super::unlocked::Quiet;
use super::wal::WalPosition;
use sessionkeep_core::beneath::{self, Place};

/// The first bytes of every SQLite database that is not empty.
pub(super) const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// After so many pages that are checked, or steps of a statement, it is looked whether the file was
/// written.
const LOOK_EVERY: c_int = 256;

/// What a snapshot handed out: `page_size * pages` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// Bytes of one page, a power of two from 512 to 65,536.
    pub page_size: u32,
    /// How many; 0 for a database that nothing was ever written to, which is a file of 0 bytes.
    pub pages: u64,
}

impl Image {
    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::from(self.page_size) * self.pages
    }
}

/// Whether the database is checked before its pages are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Whether its structure is sound, inside the same read transaction.
    Quick,
    /// Not at all; for a database whose last snapshot was good and that is paced.
    None,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// No shared lock could be had within the budget: a long write transaction, or exclusive
    /// locking mode.
    #[error("the database is locked by its writer")]
    Busy,
    /// It is no database, or a damaged one; SQLite's words.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// It was written while it was read without a lock: what was read is of no moment.
    #[error("the database was written while it was read")]
    Moved,
    /// It is gone.
    #[error("the database vanished")]
    Vanished,
    /// The receiver of the pages, or the file system, failed.
    #[error("failed to take a snapshot of the database")]
    Io(#[source] io::Error),
    /// SQLite failed in another way.
    #[error("failed to read the database")]
    Sqlite(#[source] rusqlite::Error),
}

/// How long the header of a database is, in bytes.
const HEADER_LEN: usize = 100;
/// As much of a file tells what it is: the smallest page.
const START_LEN: usize = 512;

/// Whether `bytes`, with which a file begins, are the header of a database that SQLite can read. An encrypted
/// one can begin with the same 16 or 32 bytes (SQLCipher's `cipher_plaintext_header_size`), and what comes
/// after them tells.
///
/// The fields are those of <https://sqlite.org/fileformat2.html#the_database_header>.
#[must_use]
pub fn is_header(bytes: &[u8]) -> bool {
    let Some(header) = bytes.get(..HEADER_LEN) else {
        return false;
    };
    let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let page_size = u16::from_be_bytes([header[16], header[17]]);
    header.starts_with(MAGIC)
        && (page_size == 1 || (page_size >= 512 && page_size.is_power_of_two()))
        && header[18..20]
            .iter()
            .all(|version| matches!(version, 1 | 2))
        && header[21..24] == [64, 32, 32]
        && number(44) <= 4
        && number(56) <= 3
}

/// Whether the file `path` below the open directory `dir` begins like a database that SQLite can read.
///
/// It opens and closes the file, which drops every lock that this process holds on it: never call
/// it while a [`snapshot`] of the same file runs.
///
/// # Errors
/// Where the file cannot be read.
pub fn is_database(dir: BorrowedFd<'_>, path: &[u8]) -> io::Result<bool> {
    Ok(is_header(&read_start(dir, path)?))
}

/// The first bytes of the file `path` below the open directory `dir`: 512, or all of it.
///
/// It opens and closes the file, as [`is_database`] does.
///
/// # Errors
/// Where the file cannot be read.
pub fn read_start(dir: BorrowedFd<'_>, path: &[u8]) -> io::Result<Vec<u8>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    let file = File::from(beneath::open(dir, path, flags, Mode::empty())?);
    let mut start = Vec::with_capacity(START_LEN);
    file.take(START_LEN as u64).read_to_end(&mut start)?;
    Ok(start)
}

/// Whether the file `name` in `dir` is what SQLite keeps beside a database of its own: of that, a
/// snapshot holds all. Beside an encrypted one, or none, it is a file like any other.
///
/// It opens and closes the database, as [`is_database`] does.
#[must_use]
pub fn is_beside_a_database(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    sidecar_stem(name).is_some_and(|stem| matches!(is_database(dir, stem), Ok(true)))
}

/// Hands every page of the database at `place` to `each`, in order, with its offset, all as of one
/// moment. Waits up to `busy` for a lock. What `each` was given is only worth something if this
/// succeeds. See [`Snapshot`] for what it leaves behind.
///
/// # Errors
/// [`SnapshotError`], split by what a caller does about it.
pub fn snapshot(
    place: &Place,
    busy: Duration,
    check: Check,
    each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<Image, SnapshotError> {
    let snapshot = Snapshot::begin(place, busy)?;
    if check == Check::Quick {
        snapshot.check()?;
    }
    snapshot.all_pages(each)?;
    let image = snapshot.image();
    snapshot.end()?;
    Ok(image)
}

/// A read transaction on a live database: everything that it hands out is of one moment.
///
/// Nothing of the database is changed, except that SQLite rolls back what a writer that died left
/// half done, and may leave an empty `-wal` and `-shm` beside a database in WAL mode.
#[derive(Debug)]
pub struct Snapshot {
    connection: Connection,
    place: Place,
    image: Image,
    moment: Option<WalPosition>,
    /// What shows that nobody writes, where no lock keeps writers away. The connection asks it, and is
    /// dropped before it.
    quiet: Option<Arc<Quiet>>,
}

impl Snapshot {
    /// Opens the database at `place` and fixes the moment. Waits up to `busy` for a lock.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn begin(place: &Place, busy: Duration) -> Result<Self, SnapshotError> {
        let path = place.path();
        let begun = open(place, busy).and_then(|connection| {
            let image = fix_the_moment(&connection)?;
            // Setting it needs the database's mode to be known, hence after the first read. It only
            // matters to connections that write, which this one never does.
            connection.pragma_update(None, "wal_autocheckpoint", 0)?;
            Ok((connection, image))
        });
        let (connection, image) = begun.map_err(|error| classify(error, place))?;
        let moment = match index_header(&connection) {
            Some(header) => WalPosition::read(path, &header).ok(),
            None if is_wal(&connection) => u32::try_from(image.pages).ok().and_then(|pages| {
                let moment = WalPosition::before_the_first_write(path, image.page_size, pages);
                moment.ok().flatten()
            }),
            None => None,
        };
        let moment = moment.filter(|moment| {
            (moment.page_size, u64::from(moment.pages)) == (image.page_size, image.pages)
        });
        Ok(Self {
            connection,
            place: place.clone(),
            image,
            moment,
            quiet: None,
        })
    }

    /// Opens the database at `place`, which is `quiet` and has a rollback journal, without a lock: its
    /// writer is never kept from writing. Where it does write, everything fails with
    /// [`SnapshotError::Moved`], soon.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn unlocked(place: &Place, quiet: Quiet) -> Result<Self, SnapshotError> {
        let begun = open_unlocked(place).and_then(|connection| {
            let image = fix_the_moment(&connection)?;
            Ok((connection, image))
        });
        let (connection, image) = match begun {
            Ok(begun) if quiet.holds(place) => begun,
            Err(error) if quiet.holds(place) => return Err(classify(error, place)),
            _ => return Err(SnapshotError::Moved),
        };
        let quiet = Arc::new(quiet);
        end_when_written(&connection, &quiet);
        Ok(Self {
            connection,
            place: place.clone(),
            image,
            moment: None,
            quiet: Some(quiet),
        })
    }

    /// How large the database is.
    #[must_use]
    pub fn image(&self) -> Image {
        self.image
    }

    /// Its moment, where the database is in WAL mode and its log tells one.
    #[must_use]
    pub fn moment(&self) -> Option<WalPosition> {
        self.moment
    }

    /// The pages, counted from 1 and in order, that may have changed since `before`; `None` where
    /// nothing tells, and all have to be read.
    #[must_use]
    pub fn changed_since(&self, before: &WalPosition) -> Option<Vec<u32>> {
        let changed = self.moment?.changed_since(before, self.place.path());
        changed.unwrap_or_else(|error| {
            tracing::debug!(target: "sync", path = %String::from_utf8_lossy(self.place.name()), %error, "write-ahead log cannot be read; reading the whole database");
            None
        })
    }

    /// The login that the database keeps, as of this moment; `None` where it keeps none.
    ///
    /// # Errors
    /// [`SnapshotError::Moved`].
    pub fn login(&self) -> Result<Option<Login>, SnapshotError> {
        let login = Login::of_database(&self.connection);
        match self.has_moved() {
            true => Err(SnapshotError::Moved),
            false => Ok(login),
        }
    }

    /// Looks whether the database's structure is sound, for which all of it is read. Content that its
    /// schema forbids is no damage.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] where it is not, else that it could not be looked at.
    pub fn check(&self) -> Result<(), SnapshotError> {
        let verdict = soundness::check(&self.connection).map_err(|error| self.classify(error));
        self.unmoved(match verdict {
            Ok(Soundness::Sound) => Ok(()),
            Ok(Soundness::Odd(words)) => {
                tracing::debug!(target: "sync", path = %String::from_utf8_lossy(self.place.name()), words, "database holds what its schema forbids, or cannot be checked without the gateway; it is sound, and stored as it is");
                Ok(())
            }
            Ok(Soundness::Damaged(words)) => Err(SnapshotError::Damaged(words)),
            Err(error) => Err(error),
        })
    }

    /// Hands every page to `each`, in order, with its offset.
    ///
    /// # Errors
    /// [`SnapshotError`]; an error of `each` ends it.
    pub fn all_pages(
        &self,
        each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<(), SnapshotError> {
        self.unmoved(self.read_all(each))
    }

    fn read_all(
        &self,
        each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<(), SnapshotError> {
        let fail = |error| self.classify(error);
        let mut statement = self
            .connection
            .prepare("SELECT pgno, data FROM sqlite_dbpage")
            .map_err(fail)?;
        let mut rows = statement.query([]).map_err(fail)?;
        let mut pages = 0;
        while let Some(row) = rows.next().map_err(fail)? {
            let number: u32 = row.get(0).map_err(fail)?;
            if u64::from(number) != pages + 1 {
                return Err(unreadable(pages + 1));
            }
            self.hand_on(row, number, each)?;
            pages += 1;
        }
        if pages == self.image.pages {
            Ok(())
        } else {
            let all = self.image.pages;
            let words = format!("{pages} of {all} pages can be read");
            Err(SnapshotError::Damaged(words))
        }
    }

    /// Hands these pages to `each`, with their offsets.
    ///
    /// # Errors
    /// As [`Snapshot::all_pages`].
    pub fn some_pages(
        &self,
        pages: impl IntoIterator<Item = u32>,
        each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<(), SnapshotError> {
        let fail = |error| self.classify(error);
        let mut statement = self
            .connection
            .prepare("SELECT pgno, data FROM sqlite_dbpage WHERE pgno = ?1")
            .map_err(fail)?;
        for number in pages {
            let mut rows = statement.query([number]).map_err(fail)?;
            let row = rows.next().map_err(fail)?;
            self.hand_on(row.ok_or_else(|| unreadable(number.into()))?, number, each)?;
        }
        Ok(())
    }

    fn hand_on(
        &self,
        row: &Row<'_>,
        number: u32,
        each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<(), SnapshotError> {
        let data = row.get_ref(1).map_err(|error| self.classify(error))?;
        let data = data.as_blob().unwrap_or_default();
        if data.len() != self.image.page_size as usize {
            return Err(unreadable(number.into()));
        }
        let offset = u64::from(number - 1) * u64::from(self.image.page_size);
        each(offset, data).map_err(SnapshotError::Io)
    }

    /// Ends the transaction and closes the database.
    ///
    /// # Errors
    /// Where SQLite could not; what was handed out is not to be relied on then.
    pub fn end(self) -> Result<(), SnapshotError> {
        let ended = self.connection.execute_batch("COMMIT");
        ended.map_err(|error| self.classify(error))?;
        let closed = self.connection.close();
        closed.map_err(|(_, error)| SnapshotError::Sqlite(error))
    }

    fn classify(&self, error: rusqlite::Error) -> SnapshotError {
        match self.has_moved() {
            true => SnapshotError::Moved,
            false => classify(error, &self.place),
        }
    }

    /// What was read without a lock counts only where nothing was written until then; so does what was
    /// said of it.
    fn unmoved(&self, result: Result<(), SnapshotError>) -> Result<(), SnapshotError> {
        match result {
            Err(error @ SnapshotError::Io(_)) => Err(error),
            _ if self.has_moved() => Err(SnapshotError::Moved),
            other => other,
        }
    }

    fn has_moved(&self) -> bool {
        let quiet = self.quiet.as_ref();
        quiet.is_some_and(|quiet| !quiet.holds(&self.place))
    }
}

fn unreadable(page: u64) -> SnapshotError {
    SnapshotError::Damaged(format!("page {page} cannot be read"))
}

/// The header of the WAL index as the connection's open read transaction sees it; `None` outside of
/// WAL mode and where the log was never written to.
///
/// SQLite hands it out as an opaque value (<https://sqlite.org/c3ref/snapshot.html>) whose content
/// is that header, since that is what other processes' connections agree on. A field that would not
/// be what it is taken for could not pass the checks of [`WalPosition::changed_since`].
fn index_header(connection: &Connection) -> Option<[u8; 48]> {
    let mut snapshot = std::ptr::null_mut();
    // SAFETY: the handle is that of an open connection, and the name is a C string. On success the
    // value is ours, 48 bytes long, and freed once.
    unsafe {
        let db = connection.handle();
        let code = ffi::sqlite3_snapshot_get(db, c"main".as_ptr(), &raw mut snapshot);
        if code != ffi::SQLITE_OK || snapshot.is_null() {
            return None;
        }
        let header = (*snapshot).hidden;
        ffi::sqlite3_snapshot_free(snapshot);
        Some(header)
    }
}

/// Begins a read transaction.
fn fix_the_moment(connection: &Connection) -> rusqlite::Result<Image> {
    connection.execute_batch("BEGIN")?;
    // BEGIN alone takes no lock: the first read does, and fixes the moment.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, u32>(0));
    Ok(Image {
        page_size: number("PRAGMA page_size")?,
        pages: number("PRAGMA page_count")?.into(),
    })
}

fn is_wal(connection: &Connection) -> bool {
    let mode = connection.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0));
    mode.is_ok_and(|mode| mode == "wal")
}

fn open(place: &Place, busy: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags_and_vfs(place.path(), flags, sqlite_vfs::name())?;
    connection.busy_timeout(busy)?;
    // The last connection to close would otherwise move the log into the gateway's database.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -512)?;
    Ok(connection)
}

/// Opens the file as it is: no lock, no journal, and nothing of it changes (`immutable`).
fn open_unlocked(place: &Place) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let mut uri = String::from("file:");
    for byte in place.path().as_os_str().as_bytes() {
        match byte {
            b'/' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => uri.push(char::from(*byte)),
            other => uri.push_str(&format!("%{other:02x}")),
        }
    }
    uri.push_str("?immutable=1");
    let connection = Connection::open_with_flags_and_vfs(uri, flags, sqlite_vfs::name())?;
    connection.pragma_update(None, "cache_size", -512)?;
    Ok(connection)
}

/// Has SQLite give up what it does once somebody writes: reading all of a large database in vain
/// takes as long as reading it.
fn end_when_written(connection: &Connection, quiet: &Arc<Quiet>) {
    unsafe extern "C" fn is_written(quiet: *mut c_void) -> c_int {
        // SAFETY: as below.
        let quiet = unsafe { &*quiet.cast::<Quiet>() };
        c_int::from(!quiet.is_unwritten())
    }
    // SAFETY: the handle is that of an open connection; what it asks is only read, and is kept
    // beside the connection until after that is closed.
    unsafe {
        let quiet = Arc::as_ptr(quiet).cast_mut().cast();
        ffi::sqlite3_progress_handler(connection.handle(), LOOK_EVERY, Some(is_written), quiet);
    }
}

fn classify(error: rusqlite::Error, place: &Place) -> SnapshotError {
    let code = error.sqlite_error_code();
    match code {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed,
        ) => SnapshotError::Busy,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            SnapshotError::Damaged(error.to_string())
        }
        _ if matches!(place.path().symlink_metadata(), Err(e) if e.kind() == io::ErrorKind::NotFound) => {
            SnapshotError::Vanished
        }
        _ => SnapshotError::Sqlite(error),
    }
}
