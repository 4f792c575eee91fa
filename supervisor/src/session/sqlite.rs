//! A consistent image of a live SQLite database, page by page, with no copy on disk.
//!
//! SQLite's own page table (<https://sqlite.org/dbpage.html>) hands out the pages as one read
//! transaction sees them, write-ahead log included. That equals what the backup API writes, and
//! needs neither a second file nor the database in memory. The journal mode in the header stays:
//! the gateway may rely on it, and an image in WAL mode without a `-wal` is whole.
//!
//! Two rules of SQLite's shape this module. POSIX locks belong to the process: a file that this
//! process has open through SQLite must not be opened and closed by other means. And closing a
//! writable descriptor is an event to whoever watches the file: after each snapshot the watch
//! reports the database as closed, and only an unchanged [`super::Fingerprint`] tells that
//! nothing happened.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

/// The first bytes of every SQLite database that is not empty.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// What a snapshot handed out: `page_size * pages` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// Bytes of one page, a power of two from 512 to 65,536.
    pub page_size: u32,
    /// How many; 0 for a database that nothing was ever written to, which is a file of 0 bytes.
    pub pages: u64,
}

/// Whether the database is checked before its pages are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// `PRAGMA quick_check`, inside the same read transaction.
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

/// Whether the file begins like an SQLite database.
///
/// It opens and closes the file, which drops every lock that this process holds on it: never call
/// it while a [`snapshot`] of the same file runs.
///
/// # Errors
/// Where the file cannot be read.
pub fn has_magic(path: &Path) -> io::Result<bool> {
    let mut head = [0; MAGIC.len()];
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    match file.read_exact(&mut head) {
        Ok(()) => Ok(head == *MAGIC),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Hands every page of the database at `path` to `each`, in order, with its offset, all as of one
/// moment. Waits up to `busy` for a lock. Nothing of the database is changed, except that SQLite
/// rolls back what a writer that died left half done, and may leave an empty `-wal` and `-shm`
/// beside a database in WAL mode. What `each` was given is only worth something if this succeeds.
///
/// # Errors
/// [`SnapshotError`], split by what a caller does about it.
pub fn snapshot(
    path: &Path,
    busy: Duration,
    check: Check,
    each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<Image, SnapshotError> {
    let connection = open(path, busy).map_err(|error| classify(error, path))?;
    let outcome = read(&connection, check, each);
    let ended = connection.close();
    match outcome {
        Ok(image) => ended
            .map(|()| image)
            .map_err(|(_, error)| SnapshotError::Sqlite(error)),
        Err(Failure::Each(error)) => Err(SnapshotError::Io(error)),
        Err(Failure::Damaged(words)) => Err(SnapshotError::Damaged(words)),
        Err(Failure::Sqlite(error)) => Err(classify(error, path)),
    }
}

fn open(path: &Path, busy: Duration) -> rusqlite::Result<Connection> {
    // SQLite's NOFOLLOW refuses a link anywhere in the path; only the last component is the
    // gateway's to choose.
    let resolved = match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) if !dir.as_os_str().is_empty() => {
            std::fs::canonicalize(dir).map_or_else(|_| path.to_path_buf(), |dir| dir.join(name))
        }
        _ => path.to_path_buf(),
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(resolved, flags)?;
    connection.busy_timeout(busy)?;
    // The last connection to close would otherwise move the log into the gateway's database.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -512)?;
    Ok(connection)
}

enum Failure {
    Sqlite(rusqlite::Error),
    Damaged(String),
    Each(io::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn read(
    connection: &Connection,
    check: Check,
    each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<Image, Failure> {
    connection.execute_batch("BEGIN")?;
    // BEGIN alone takes no lock: the first read does, and fixes the moment.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    // Setting it needs the database's mode to be known, hence after the first read. It only
    // matters to connections that write, which this one never does.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    if check == Check::Quick {
        let words: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if words != "ok" {
            return Err(Failure::Damaged(words));
        }
    }
    let page_size: u32 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let expected: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    let mut pages = 0i64;
    {
        let mut statement = connection.prepare("SELECT pgno, data FROM sqlite_dbpage")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let number: i64 = row.get(0)?;
            let data = row.get_ref(1)?.as_blob().unwrap_or_default();
            if number != pages + 1 || data.len() != page_size as usize {
                return Err(Failure::Damaged(format!(
                    "page {} cannot be read",
                    pages + 1
                )));
            }
            let offset = pages.cast_unsigned() * u64::from(page_size);
            each(offset, data).map_err(Failure::Each)?;
            pages = number;
        }
    }
    if pages != expected {
        return Err(Failure::Damaged(format!(
            "{pages} of {expected} pages can be read"
        )));
    }
    connection.execute_batch("COMMIT")?;
    Ok(Image {
        page_size,
        pages: pages.cast_unsigned(),
    })
}

fn classify(error: rusqlite::Error, path: &Path) -> SnapshotError {
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
        _ if matches!(path.symlink_metadata(), Err(e) if e.kind() == io::ErrorKind::NotFound) => {
            SnapshotError::Vanished
        }
        _ => SnapshotError::Sqlite(error),
    }
}
