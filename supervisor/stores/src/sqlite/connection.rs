//! The one connection to the file: made when it is first needed, made again when the file was
//! replaced, and used by one blocking call at a time.

use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::{AccessFlags, access};
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use sessionkeep_archive::store::{NoWrites, Result, StoreError};

/// The version of the tables, kept in the file's `user_version`.
const SCHEMA: u32 = 1;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS commits (
        archive TEXT NOT NULL,
        seq     INTEGER NOT NULL,
        format  INTEGER NOT NULL,
        header  TEXT NOT NULL,
        size    INTEGER NOT NULL,
        body    BLOB NOT NULL,
        PRIMARY KEY (archive, seq)
    );
    CREATE TABLE IF NOT EXISTS packs (
        archive TEXT NOT NULL,
        id      TEXT NOT NULL,
        size    INTEGER NOT NULL,
        content BLOB NOT NULL,
        PRIMARY KEY (archive, id)
    );
    CREATE TABLE IF NOT EXISTS leases (
        archive    TEXT NOT NULL PRIMARY KEY,
        instance   TEXT NOT NULL,
        epoch      INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        since_ms   INTEGER NOT NULL
    ) WITHOUT ROWID;
    PRAGMA user_version = 1;
";

/// Came later, and is nothing to a program that does not know of it: the version stays.
const LATER_TABLES: &str = "
    CREATE TABLE IF NOT EXISTS lease_queues (
        archive TEXT NOT NULL PRIMARY KEY,
        places  TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS lease_terms (
        archive        TEXT NOT NULL PRIMARY KEY,
        epoch          INTEGER NOT NULL,
        ttl_ms         INTEGER NOT NULL,
        written_ms     INTEGER NOT NULL,
        set_back_ms    INTEGER,
        set_back_by_ms INTEGER
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS unused_packs (
        archive  TEXT NOT NULL,
        id       TEXT NOT NULL,
        since_ms INTEGER NOT NULL,
        PRIMARY KEY (archive, id)
    ) WITHOUT ROWID;
";

/// What a piece of work ended with, before it is told to the caller.
#[derive(Debug)]
pub(super) enum Fault {
    Sqlite(rusqlite::Error),
    Io(std::io::Error),
    /// No turn came before the deadline.
    Late,
    /// The file could be opened for reading only, for this reason.
    NoWrites(NoWrites, rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Why nothing can be written, where this is what the error says.
fn no_writes_io(error: &std::io::Error) -> Option<NoWrites> {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some(NoWrites::DiskFull),
        ErrorKind::ReadOnlyFilesystem => Some(NoWrites::ReadOnly),
        _ => None,
    }
}

impl Fault {
    /// Why the file cannot be opened for writing, where it may still be read.
    fn may_be_read(&self, path: &Path) -> Option<NoWrites> {
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        match self {
            Self::Io(error) if error.kind() == ErrorKind::PermissionDenied => {
                Some(NoWrites::ReadOnly)
            }
            Self::Io(error) => no_writes_io(error),
            Self::Sqlite(error) => match error.sqlite_error_code()? {
                ErrorCode::ReadOnly | ErrorCode::PermissionDenied => Some(NoWrites::ReadOnly),
                // Where there is no room for the log beside it, SQLite may call it any of these.
                ErrorCode::DiskFull => Some(NoWrites::DiskFull),
                ErrorCode::CannotOpen | ErrorCode::SystemIoFailure => {
                    let writable = access(directory, AccessFlags::W_OK).is_ok();
                    Some(if writable {
                        NoWrites::DiskFull
                    } else {
                        NoWrites::ReadOnly
                    })
                }
                _ => None,
            },
            Self::Late | Self::NoWrites(..) | Self::Store(_) => None,
        }
    }

    fn tell(self, action: &'static str, path: &Path) -> StoreError {
        let error = match self {
            Self::Store(error) => return error,
            Self::Late => {
                return StoreError::Unavailable {
                    action,
                    source: "it was busy until the deadline".into(),
                };
            }
            Self::NoWrites(why, error) => {
                return StoreError::WritesRefused {
                    action,
                    why,
                    source: Box::new(error),
                };
            }
            Self::Io(error) if no_writes_io(&error).is_some() => {
                return StoreError::WritesRefused {
                    action,
                    why: no_writes_io(&error).expect("was just looked at"),
                    source: Box::new(error),
                };
            }
            Self::Io(error) if error.kind() == ErrorKind::PermissionDenied => {
                return StoreError::Denied {
                    action,
                    source: Box::new(error),
                };
            }
            Self::Io(error) => {
                return StoreError::Unavailable {
                    action,
                    source: Box::new(error),
                };
            }
            Self::Sqlite(error) => error,
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged {
                what: format!("the SQLite file {}", path.display()),
                why: error.to_string(),
            },
            Some(ErrorCode::PermissionDenied) => StoreError::Denied {
                action,
                source: Box::new(error),
            },
            Some(ErrorCode::ReadOnly) => StoreError::WritesRefused {
                action,
                why: NoWrites::ReadOnly,
                source: Box::new(error),
            },
            Some(ErrorCode::DiskFull) => StoreError::WritesRefused {
                action,
                why: NoWrites::DiskFull,
                source: Box::new(error),
            },
            // A disk that went away comes back.
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::OperationInterrupted
                | ErrorCode::OutOfMemory
                | ErrorCode::FileLockingProtocolFailed,
            ) => StoreError::Unavailable {
                action,
                source: Box::new(error),
            },
            _ => StoreError::Failed {
                action,
                source: Box::new(error),
            },
        }
    }
}

/// A connection, and which file it is on.
#[derive(Debug)]
struct Open {
    db: Connection,
    /// The same file, for what is read without SQLite. It is closed after the connection (fields are
    /// dropped in this order) and never while one is open: to close any descriptor of a file drops all
    /// locks that this process has on it, and whoever else closes the database next would take itself
    /// for the last and delete the log that this connection goes on writing to
    /// (<https://sqlite.org/howtocorrupt.html>, 2.2).
    handle: File,
    /// Why it is open for reading only, where it is.
    no_writes: Option<NoWrites>,
    /// Which state of the tables was seen last: a change that is not ours may have taken one away.
    schema: i64,
}

/// The connection, shared between calls.
#[derive(Debug)]
pub(super) struct Shared {
    path: PathBuf,
    timeout: Duration,
    open: Mutex<Option<Open>>,
}

impl Shared {
    pub(super) fn new(path: &Path, timeout: Duration) -> Self {
        Self {
            path: path.to_owned(),
            timeout,
            open: Mutex::new(None),
        }
    }

    /// Does `work` on a thread that may block. A caller that goes away meanwhile leaves it to
    /// happen wholly, or not at all if its turn had not come.
    pub(super) async fn run<T: Send + 'static>(
        self: Arc<Self>,
        action: &'static str,
        work: impl FnOnce(&mut Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        self.run_beside(action, |db, _| work(db)).await
    }

    /// As [`Shared::run`], with the file itself beside the connection.
    pub(super) async fn run_beside<T: Send + 'static>(
        self: Arc<Self>,
        action: &'static str,
        work: impl FnOnce(&mut Connection, &File) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let deadline = Instant::now() + self.timeout;
        // A little longer than what the thread gives itself, so that its own words are heard.
        let patience = self.timeout + Duration::from_millis(300);
        let late_path = self.path.clone();
        let done = tokio::task::spawn_blocking(move || {
            self.blocking(deadline, work)
                .map_err(|fault| fault.tell(action, &self.path))
        });
        match tokio::time::timeout(patience, done).await {
            Ok(Ok(done)) => done,
            Ok(Err(panicked)) => Err(StoreError::Failed {
                action,
                source: Box::new(panicked),
            }),
            Err(_) => Err(Fault::Late.tell(action, &late_path)),
        }
    }

    fn blocking<T>(
        &self,
        deadline: Instant,
        work: impl FnOnce(&mut Connection, &File) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        // A panic in earlier work rolled its transaction back.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::Late);
        }
        // A file that was deleted or replaced under us still takes writes, and keeps none of them.
        let id = |file: std::fs::Metadata| (file.dev(), file.ino());
        let file = std::fs::metadata(&self.path).map(id).ok();
        // One that could only be read may take writes again.
        let is_outdated =
            |open: &Open| open.handle.metadata().map(id).ok() != file || open.no_writes.is_some();
        if open.as_ref().is_some_and(is_outdated) {
            *open = None;
        }
        let open = match &mut *open {
            Some(open) => {
                open.db.busy_timeout(left)?;
                open
            }
            none => none.insert(connect(&self.path, deadline)?),
        };
        if open.no_writes.is_none() && schema(&open.db)? != open.schema {
            make_tables(&mut open.db)?;
            open.schema = schema(&open.db)?;
        }
        match (work(&mut open.db, &open.handle), open.no_writes) {
            (Err(Fault::Sqlite(error)), Some(why))
                if error.sqlite_error_code() == Some(ErrorCode::ReadOnly) =>
            {
                Err(Fault::NoWrites(why, error))
            }
            (done, _) => done,
        }
    }

    pub(super) async fn close(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        let closing = tokio::task::spawn_blocking(move || {
            let open = shared
                .open
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            drop(open);
        });
        let _ = tokio::time::timeout(Duration::from_secs(2), closing).await;
    }
}

/// Opens the file, or what can be read of it where nothing can be written.
fn connect(path: &Path, deadline: Instant) -> Result<Open, Fault> {
    let fault = match connect_to_write(path, deadline) {
        Err(fault) => fault,
        done => return done,
    };
    let open = fault
        .may_be_read(path)
        .map(|why| connect_to_read(path, why));
    match open {
        Some(Ok(open)) => Ok(open),
        Some(Err(_)) | None => Err(fault),
    }
}

fn connect_to_read(path: &Path, why: NoWrites) -> Result<Open, Fault> {
    // Before the connection, and for as long as it.
    let handle = File::open(path)?;
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let has_log = std::fs::metadata(&log).is_ok_and(|log| log.len() > 0);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // Without a log beside it, everything is in the file, and the index that SQLite would make for the
    // log is not needed. With one, it is, and must be there already.
    let db = if has_log {
        Connection::open_with_flags(path, flags)?
    } else {
        let uri = format!("file:{}?immutable=1", escaped(path));
        Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?
    };
    let found: u32 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found != SCHEMA {
        let what = "the store's SQLite file".to_owned();
        return Err(Fault::Store(StoreError::Format { what, found }));
    }
    Ok(Open {
        schema: schema(&db)?,
        db,
        handle,
        no_writes: Some(why),
    })
}

/// A path as it stands in a URI.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                text.push(char::from(*byte));
            }
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

fn connect_to_write(path: &Path, deadline: Instant) -> Result<Open, Fault> {
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        // What is in there opens a WhatsApp account: for the owner only.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
    }
    // SQLite would make it readable for everybody; the `-wal` beside it inherits its mode.
    let handle = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = match Connection::open_with_flags(path, flags) {
        Ok(db) => db,
        // The file itself could be opened: SQLite only says that it could not.
        Err(error) => return Err(handle.try_clone().err().map_or(error.into(), Fault::Io)),
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        db.busy_timeout(left)?;
        match set_up(&mut db) {
            // Switching to WAL does not wait for a lock by itself: two that create the file at
            // once would make one of them fail.
            Err(Fault::Sqlite(error))
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && !left.is_zero() =>
            {
                std::thread::sleep(Duration::from_millis(10).min(left));
            }
            Err(fault) => return Err(no_resources(&db).map_or(fault, Fault::Io)),
            Ok(()) => {
                return Ok(Open {
                    schema: schema(&db)?,
                    db,
                    handle,
                    no_writes: None,
                });
            }
        }
    }
}

/// The kernel's error that the connection met last, where it says that this process has too much open.
/// SQLite calls it a file that cannot be opened, as it does on a disk that is full.
fn no_resources(db: &Connection) -> Option<std::io::Error> {
    // SAFETY: the connection is open, and used by this thread alone.
    let errno = unsafe { rusqlite::ffi::sqlite3_system_errno(db.handle()) };
    matches!(errno, libc::EMFILE | libc::ENFILE | libc::ENOMEM)
        .then(|| std::io::Error::from_raw_os_error(errno))
}

fn set_up(db: &mut Connection) -> Result<(), Fault> {
    let version = |db: &Connection| db.query_row("PRAGMA user_version", [], |row| row.get(0));
    let found: u32 = version(db)?;
    if found == 0 {
        // Takes effect only before the first table, and before the switch to WAL.
        db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    db.pragma_update(None, "journal_mode", "WAL")?;
    // With WAL, anything less than FULL loses the last commits in a power failure.
    db.pragma_update(None, "synchronous", "FULL")?;
    // After a large pack the log is cut to this; it would stay as long as it ever was.
    db.pragma_update(None, "journal_size_limit", 4 << 20)?;
    is_known(found)?;
    make_tables(db)
}

/// Whether tables of this version are ours to use; 0 is that of a new file.
fn is_known(version: u32) -> Result<(), Fault> {
    match version {
        0 | SCHEMA => Ok(()),
        found => Err(Fault::Store(StoreError::Format {
            what: "the store's SQLite file".to_owned(),
            found,
        })),
    }
}

/// Makes the tables that are not there: in a new file all, and in an old one those that somebody dropped,
/// so that what was in them can be missed and saved anew.
fn make_tables(db: &mut Connection) -> Result<(), Fault> {
    const ALL: i64 = 6;
    let names = "SELECT count(*) FROM sqlite_schema WHERE type = 'table'
        AND name IN ('commits', 'packs', 'leases', 'lease_queues', 'lease_terms', 'unused_packs')";
    let version = |db: &Connection| db.query_row("PRAGMA user_version", [], |row| row.get(0));
    if version(db)? == SCHEMA && db.query_row(names, [], |row| row.get::<_, i64>(0))? == ALL {
        return Ok(());
    }
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been quicker.
    is_known(version(&transaction)?)?;
    transaction.execute_batch(TABLES)?;
    transaction.execute_batch(LATER_TABLES)?;
    Ok(transaction.commit()?)
}

/// A number that changes with each change of the tables.
fn schema(db: &Connection) -> Result<i64, Fault> {
    let mut asked = db.prepare_cached("PRAGMA schema_version")?;
    Ok(asked.query_row([], |row| row.get(0))?)
}
