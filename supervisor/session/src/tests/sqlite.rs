//! Snapshots of databases that another process is writing: each is whole, and holds all that was
//! acknowledged before it began.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;

use super::super::sqlite::is_database;
use super::super::{
    Check, Freezer, Image, ProcessFreezer, SnapshotError, snapshot, snapshot_frozen,
};
use sessionkeep_core::beneath::Place;
use sessionkeep_core::state_dir::StateDir;

const BUSY: Duration = Duration::from_secs(20);

type Pages<'a> = &'a mut dyn FnMut(u64, &[u8]) -> std::io::Result<()>;

/// Takes a snapshot into memory, checking that the pages come in order.
fn gathered(
    take: impl FnOnce(Pages<'_>) -> Result<Image, SnapshotError>,
) -> Result<(Image, Vec<u8>), SnapshotError> {
    let mut bytes = Vec::new();
    let image = take(&mut |offset, page| {
        assert_eq!(offset, bytes.len() as u64, "a page out of order");
        bytes.extend_from_slice(page);
        Ok(())
    })?;
    assert_eq!(u64::from(image.page_size) * image.pages, bytes.len() as u64);
    Ok((image, bytes))
}

fn place(path: &Path) -> Place {
    Place::of(path).expect("its directory opens")
}

fn snap(path: &Path, busy: Duration) -> Result<(Image, Vec<u8>), SnapshotError> {
    gathered(|each| snapshot(&place(path), busy, Check::Quick, each))
}

/// Writes an image down and opens it like a gateway would.
fn restored(dir: &Path, image: &[u8]) -> Connection {
    let path = dir.join("restored.db");
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let _ = fs::remove_file(dir.join(format!("restored.db{suffix}")));
    }
    fs::write(&path, image).expect("write");
    let connection = Connection::open(path).expect("open");
    let verdict = text(&connection, "PRAGMA integrity_check");
    assert_eq!(verdict, "ok");
    connection
}

fn text(connection: &Connection, sql: &str) -> String {
    connection.query_row(sql, [], |row| row.get(0)).expect(sql)
}

fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).expect(sql)
}

/// A gateway: another process, since POSIX locks say nothing within one. It adds numbered rows,
/// updates a counter and deletes old rows in one transaction each, and says each number once the
/// transaction is committed.
struct Writer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

const WRITER: &str = r"
import sqlite3, sys, threading
path, journal, locking = sys.argv[1:4]
db = sqlite3.connect(path, timeout=20, isolation_level=None)
db.execute('PRAGMA locking_mode=' + locking)
db.execute('PRAGMA journal_mode=' + journal)
db.execute('PRAGMA synchronous=OFF')
db.execute('CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, filler BLOB)')
db.execute('CREATE TABLE IF NOT EXISTS c (n INTEGER)')
db.execute('INSERT INTO c VALUES (0)')
last, stop = 0, threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
n = 0
while not stop.is_set():
    n += 1
    db.execute('BEGIN IMMEDIATE')
    db.execute('INSERT INTO t VALUES (?, randomblob(?))', (n, 200 + n % 5000))
    db.execute('UPDATE c SET n = ?', (n,))
    if n % 50 == 0:
        db.execute('UPDATE t SET filler = NULL WHERE n < ?', (n - 300,))
    db.execute('COMMIT')
    print(n, flush=True)
db.close()
";

impl Writer {
    fn start(path: &Path, journal: &str, locking: &str) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", WRITER])
            .arg(path)
            .args([journal, locking])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is there");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self {
            child,
            input,
            output,
        }
    }

    /// The newest number that was acknowledged by now.
    fn acknowledged(&mut self) -> i64 {
        let mut newest = 0;
        loop {
            let mut line = String::new();
            self.output.read_line(&mut line).expect("read");
            newest = line.trim().parse().unwrap_or(newest);
            if !self.output.buffer().contains(&b'\n') {
                return newest;
            }
        }
    }

    fn stop(mut self) -> i64 {
        // It may be waiting for us to read.
        let mut input = self.input;
        input.write_all(b"stop\n").expect("ask it to stop");
        let last = self.output.lines().map_while(Result::ok).last();
        assert!(self.child.wait().expect("wait").success());
        last.map_or(0, |line| line.parse().expect("number"))
    }
}

fn fifty_good_snapshots(journal: &str, locking: &str) {
    let dir = tempfile::tempdir_in("/dev/shm").expect("tempdir");
    let path = dir.path().join("gows.db");
    let mut writer = Writer::start(&path, journal, locking);
    let mut before = 0;
    let pid = writer.child.id().cast_signed();
    for round in 0..50 {
        // Each snapshot has something new to see, however busy the machine is.
        let mut acknowledged = 0;
        while acknowledged <= before {
            acknowledged = writer.acknowledged();
        }
        let (_, image) = if locking == "EXCLUSIVE" {
            let busy = snap(&path, Duration::from_millis(1));
            assert!(matches!(busy, Err(SnapshotError::Busy)), "{busy:?}");
            let freezer = ProcessFreezer::new(pid, &[]);
            let state = StateDir::open(dir.path()).expect("open");
            // On a busy machine it may take longer than its budget until all stand still.
            let mut tries = 0..100;
            loop {
                let got = gathered(|each| {
                    snapshot_frozen(&place(&path), &state, &freezer, Check::Quick, each)
                });
                assert!(!state.has("scratch"));
                match &got {
                    Err(SnapshotError::Io(error))
                        if error.kind() == std::io::ErrorKind::TimedOut
                            && tries.next().is_some() => {}
                    _ => break got,
                }
            }
        } else {
            snap(&path, BUSY)
        }
        .unwrap_or_else(|error| panic!("round {round}: {error:?}"));
        let copy = restored(dir.path(), &image);
        let held = number(&copy, "SELECT n FROM c");
        assert!(
            held >= acknowledged,
            "round {round}: {held} < {acknowledged}"
        );
        assert_eq!(
            number(&copy, "SELECT max(n) FROM t"),
            held,
            "half a transaction"
        );
        assert_eq!(number(&copy, "SELECT count(*) FROM t"), held);
        let mode = text(&copy, "PRAGMA journal_mode");
        assert_eq!(mode, journal.to_lowercase(), "the mode was changed");
        before = held;
    }
    // On a busy machine it may have said nothing since the last snapshot.
    let last = writer.stop().max(before);
    let (_, image) = snap(&path, BUSY).expect("after its end");
    assert_eq!(
        number(&restored(dir.path(), &image), "SELECT n FROM c"),
        last
    );
}

#[test]
fn fifty_snapshots_beside_a_writer_in_wal_mode_are_good() {
    fifty_good_snapshots("WAL", "NORMAL");
}

#[test]
fn fifty_snapshots_beside_a_writer_with_a_rollback_journal_are_good() {
    fifty_good_snapshots("DELETE", "NORMAL");
}

#[test]
fn fifty_snapshots_beside_an_exclusive_writer_are_good_by_freezing_it() {
    fifty_good_snapshots("WAL", "EXCLUSIVE");
    fifty_good_snapshots("DELETE", "EXCLUSIVE");
}

#[test]
fn every_shape_of_database_comes_out_as_the_backup_would_write_it() {
    for page_size in [512, 1024, 4096, 65536] {
        for journal in ["DELETE", "WAL"] {
            for vacuum in ["NONE", "FULL", "INCREMENTAL"] {
                let dir = tempfile::tempdir_in("/dev/shm").expect("tempdir");
                let path = dir.path().join("x.db");
                let db = Connection::open(&path).expect("open");
                let sql = format!(
                    "PRAGMA page_size={page_size}; PRAGMA auto_vacuum={vacuum};
                     PRAGMA journal_mode={journal};
                     CREATE TABLE t (n INTEGER PRIMARY KEY, b BLOB);
                     CREATE INDEX i ON t (b);
                     WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM s WHERE n < 300)
                     INSERT INTO t SELECT n, randomblob(900) FROM s;
                     DELETE FROM t WHERE n % 3 = 0;"
                );
                db.execute_batch(&sql).expect("fill");
                compare(&db, &path, page_size);
                db.execute_batch("VACUUM; UPDATE t SET b = randomblob(10) WHERE n < 40;")
                    .expect("vacuum");
                compare(&db, &path, page_size);
            }
        }
    }
}

/// Within one process the locks of the two connections are SQLite's own, which knows of both.
fn compare(db: &Connection, path: &Path, page_size: u32) {
    let (image, bytes) = snap(path, BUSY).expect("snapshot");
    assert_eq!(image.page_size, page_size);
    assert_eq!(image.pages.cast_signed(), number(db, "PRAGMA page_count"));
    let backup = path.with_extension("backup");
    // Not by the writer itself: what it cached of pages that are free now differs from the disk.
    let reader = Connection::open(path).expect("open");
    reader
        .backup("main", &backup, None::<fn(rusqlite::backup::Progress)>)
        .expect("backup");
    let mut reference = fs::read(&backup).expect("read");
    let mut got = bytes.clone();
    // The backup counts as a change of its own: its counters, schema cookie and library version. Its
    // target is in rollback mode until its first use in WAL mode, which the versions tell.
    for header in [&mut reference, &mut got] {
        for range in [18..20, 24..28, 40..44, 92..100] {
            header[range].fill(0);
        }
    }
    let differs = (0..got.len()).find(|at| reference.get(*at) != got.get(*at));
    assert_eq!(differs, None, "the image differs from the backup there");
    assert_eq!(reference.len(), got.len());
    let dir = path.parent().expect("parent");
    let copy = restored(dir, &bytes);
    for sql in [
        "SELECT count(*) || ' ' || sum(length(b)) || ' ' || max(hex(b)) FROM t",
        "PRAGMA journal_mode",
    ] {
        assert_eq!(text(&copy, sql), text(db, sql));
    }
    let auto = "PRAGMA auto_vacuum";
    assert_eq!(number(&copy, auto), number(db, auto));
}

#[test]
fn what_is_no_good_database_is_damaged_gone_or_empty() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("x.db");
    let gone = snap(&path, BUSY);
    assert!(matches!(gone, Err(SnapshotError::Vanished)), "{gone:?}");
    assert!(!path.exists(), "it was created");

    fs::write(&path, "").expect("write");
    assert!(!is_database(place(&path).dir(), b"x.db").expect("read"));
    let (image, bytes) = snap(&path, BUSY).expect("empty is valid");
    assert_eq!((image.pages, bytes.len()), (0, 0));

    let mut garbage = b"SQLite format 3\0".to_vec();
    garbage.extend((0..20_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8));
    fs::write(&path, &garbage).expect("write");
    // Its name alone makes none: an encrypted one can have it.
    assert!(!is_database(place(&path).dir(), b"x.db").expect("read"));
    let damaged = snap(&path, BUSY);
    assert!(
        matches!(damaged, Err(SnapshotError::Damaged(_))),
        "{damaged:?}"
    );

    fs::remove_file(&path).expect("remove");
    let db = Connection::open(&path).expect("open");
    db.execute_batch(
        "CREATE TABLE t (b); CREATE INDEX i ON t (b);
         WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM s WHERE n < 300)
         INSERT INTO t SELECT randomblob(900) FROM s;",
    )
    .expect("fill");
    drop(db);
    let mut torn = fs::read(&path).expect("read");
    let middle = torn.len() / 2 / 4096 * 4096;
    torn[middle..middle + 8192].fill(0xA5);
    fs::write(&path, &torn).expect("write");
    let damaged = snap(&path, BUSY);
    assert!(
        matches!(damaged, Err(SnapshotError::Damaged(_))),
        "{damaged:?}"
    );
    torn.truncate(middle);
    fs::write(&path, &torn).expect("write");
    let damaged = snap(&path, BUSY);
    assert!(
        matches!(damaged, Err(SnapshotError::Damaged(_))),
        "{damaged:?}"
    );

    let link = dir.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).expect("link");
    assert!(snap(&link, BUSY).is_err(), "a link was followed");
}

#[test]
fn a_snapshot_leaves_the_log_and_the_database_alone() {
    let dir = tempfile::tempdir().expect("tempdir");
    // Reached through a link, as `/var/run` is on many systems.
    let linked = dir.path().join("linked");
    fs::create_dir(dir.path().join("real")).expect("mkdir");
    std::os::unix::fs::symlink("real", &linked).expect("link");
    let path: PathBuf = linked.join("x.db");
    // A gateway that was killed leaves a log that nobody moved into the database.
    let script = "
import sqlite3, sys, os
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('PRAGMA journal_mode=WAL')
db.execute('CREATE TABLE t (n)')
db.executemany('INSERT INTO t VALUES (?)', [(n,) for n in range(100)])
os._exit(0)
";
    let ended = Command::new("python3")
        .args(["-c", script])
        .arg(&path)
        .status();
    assert!(ended.expect("python3 is there").success());
    let wal = linked.join("x.db-wal");
    let before = (fs::read(&path).expect("db"), fs::read(&wal).expect("wal"));
    let (_, image) = snap(&path, BUSY).expect("snapshot");
    let after = (fs::read(&path).expect("db"), fs::read(&wal).expect("wal"));
    assert!(before == after, "the snapshot wrote");
    let copy = restored(dir.path(), &image);
    assert_eq!(number(&copy, "SELECT count(*) FROM t"), 100);
}

#[test]
fn an_error_of_the_receiver_ends_the_snapshot_and_frees_the_database() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("x.db");
    let db = Connection::open(&path).expect("open");
    db.execute_batch("CREATE TABLE t (n)").expect("create");
    let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
    let got = snapshot(&place(&path), BUSY, Check::None, &mut |_, _| Err(full()));
    assert!(matches!(got, Err(SnapshotError::Io(_))), "{got:?}");
    db.execute_batch("INSERT INTO t VALUES (1)")
        .expect("no lock is left");
}

#[test]
fn a_freeze_that_fails_lets_everybody_go_on_and_leaves_no_copy() {
    use std::sync::atomic::{AtomicU32, Ordering};
    struct Stubborn(AtomicU32);
    impl Freezer for Stubborn {
        fn freeze(&self) -> std::io::Result<()> {
            Err(std::io::ErrorKind::TimedOut.into())
        }
        fn thaw(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let freezer = Stubborn(AtomicU32::new(0));
    let state = StateDir::open(dir.path()).expect("open");
    let path = dir.path().join("x.db");
    fs::write(&path, "").expect("write");
    let got = snapshot_frozen(&place(&path), &state, &freezer, Check::None, &mut |_, _| {
        Ok(())
    });
    assert!(matches!(got, Err(SnapshotError::Io(_))), "{got:?}");
    assert_eq!(freezer.0.load(Ordering::SeqCst), 1);
    assert!(!state.has("scratch"));
}

/// A rollback journal that was left behind may name a file that SQLite would read, and delete when it
/// has rolled back. Its writer is the gateway.
#[test]
fn a_left_journal_that_names_a_file_elsewhere_does_not_have_it_deleted() {
    let dir = tempfile::tempdir().expect("tempdir");
    let outside = tempfile::tempdir().expect("tempdir");
    let (path, precious) = (
        dir.path().join("x.db"),
        outside.path().join("precious-mj0123459AB"),
    );
    fs::write(&precious, "of somebody else's").expect("write");
    let script = r"
import sqlite3, sys, os, struct
path, name = sys.argv[1], sys.argv[2].encode()
db = sqlite3.connect(path, isolation_level=None)
db.execute('CREATE TABLE t (b)')
db.executemany('INSERT INTO t VALUES (?)', [(b'x' * 3000,) for _ in range(50)])
db.execute('PRAGMA cache_size = 1')
db.execute('BEGIN')
db.execute('UPDATE t SET b = zeroblob(3000)')
db.execute('INSERT INTO t SELECT zeroblob(3000) FROM t')
with open(path + '-journal', 'ab') as journal:
    page = 0x40000000 // 4096 + 1
    journal.write(struct.pack('>I', page) + name + struct.pack('>II', len(name), sum(name)))
    journal.write(bytes.fromhex('d9d505f920a163d7'))
os._exit(0)
";
    let ended = Command::new("python3")
        .args(["-c", script])
        .args([&path, &precious])
        .status();
    assert!(ended.expect("python3 is there").success());
    let journal = dir.path().join("x.db-journal");
    assert!(fs::metadata(&journal).expect("it was left").len() > 4096);
    let before = fs::read(&path).expect("read");
    let got = snap(&path, BUSY);
    let got = got.map(|(image, _)| image);
    assert!(precious.exists(), "it was deleted: {got:?}");
    assert!(matches!(got, Err(SnapshotError::Sqlite(_))), "{got:?}");
    // It is the gateway's to roll back.
    assert!(journal.exists());
    assert!(before == fs::read(&path).expect("read"));
}
