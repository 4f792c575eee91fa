//! Paths that look at the session directory. What the kernel does for them is not counted.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
pub(super) use sessionkeep::watcher::dirty::Dirty;
use sessionkeep_core::beneath::Place;
use sessionkeep_session::{Check, Directory, Events, Profile, Snapshot};

use crate::callgrind::counted;
use crate::inputs::{ACCOUNT, noise, shuffled};

fn directory() -> (tempfile::TempDir, Directory) {
    let dir = tempfile::tempdir().expect("a directory");
    let directory = Directory::open(dir.path(), Profile::without_browser());
    (dir, directory.expect("it was just made"))
}

/// The order in which names are listed is the file system's choice, and sorting them takes as long
/// as it is far from being sorted. Names that are made in random order are listed in random order
/// by all.
fn write_account(at: &Path) {
    for n in shuffled(ACCOUNT) {
        fs::write(at.join(format!("pre-key-{n}.json")), b"{}").expect("written");
    }
}

/// Three accounts, each in its directory.
pub(super) fn write_accounts(root: &Path) {
    for account in 0..3 {
        let at = root.join(format!("account-{account}"));
        fs::create_dir(&at).expect("made");
        write_account(&at);
    }
}

pub(super) fn scan() {
    let (dir, directory) = directory();
    write_accounts(dir.path());
    let mut found = Vec::with_capacity(4 * ACCOUNT);
    let report = counted(|| {
        black_box(&directory).scan(None, &mut |_, _| {}, &mut |entry| found.push(entry))
    });
    assert_eq!(found.len(), 3 * (ACCOUNT + 1));
    assert!(report.root_unreadable.is_none() && report.unreadable.is_empty());
    assert_eq!(report.skipped_count, 0);
}

pub(super) fn hints() {
    let (dir, directory) = directory();
    let mut events = Events::new();
    events.watch(&directory, None).expect("it can be watched");
    write_account(dir.path());
    let mut dirty = Dirty::default();
    let now = Instant::now();
    let work = counted(|| {
        let read = events.read(&directory, &mut |fs_event| dirty.fs_event(fs_event, now));
        read.expect("it can be read");
        let due = dirty.due(Duration::from_millis(50), Duration::from_millis(200));
        dirty.take(due.expect("something changed")).0
    });
    assert!(!work.everything);
    assert_eq!(work.paths.len(), ACCOUNT);
}

/// How many rows the database has.
const ROWS: u64 = 3000;

/// A gateway's database in WAL mode, and the connection that stays open over a snapshot.
fn database(dir: &Path) -> (PathBuf, Connection) {
    let path = dir.join("whatsmeow.db");
    let gateway = Connection::open(&path).expect("opened");
    let run = |sql: &str| gateway.execute_batch(sql).expect("done");
    run("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0");
    run("CREATE TABLE keys (id INTEGER PRIMARY KEY, key BLOB NOT NULL); BEGIN");
    for n in 0..ROWS {
        let key = noise(n, 1000);
        let put = gateway.execute(
            "INSERT INTO keys VALUES (?, ?)",
            params![n.cast_signed(), key],
        );
        put.expect("put in");
    }
    run("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)");
    (path, gateway)
}

/// Gives every fiftieth row a new key, each in a transaction of its own.
fn change_keys(gateway: &Connection, seed: u64) {
    for n in (0..ROWS).step_by(50) {
        let key = noise(seed + n, 1000);
        let put = gateway.execute(
            "UPDATE keys SET key = ? WHERE id = ?",
            params![key, n.cast_signed()],
        );
        put.expect("changed");
    }
}

pub(super) fn snapshot() {
    let (dir, _) = directory();
    let (path, gateway) = database(dir.path());
    change_keys(&gateway, ROWS);
    let place = Place::of(&path).expect("its directory opens");
    let mut bytes = 0;
    let image = counted(|| {
        sessionkeep_session::snapshot(
            black_box(&place),
            Duration::ZERO,
            Check::None,
            &mut |_, page| {
                bytes += page.len() as u64;
                Ok(())
            },
        )
    });
    let image = image.expect("nobody locks it");
    assert_eq!(bytes, u64::from(image.page_size) * image.pages);
    assert!(bytes > 3_000_000, "{bytes} bytes are in it");
}

pub(super) fn changed_pages() {
    let (dir, _) = directory();
    let (path, gateway) = database(dir.path());
    change_keys(&gateway, ROWS);
    let place = Place::of(&path).expect("its directory opens");
    let begin = || Snapshot::begin(black_box(&place), Duration::ZERO).expect("nobody locks it");
    let before = begin();
    let moment = before.moment().expect("something is in the log");
    before.end().expect("ended");
    change_keys(&gateway, 2 * ROWS);
    let mut seen = 0;
    let pages = counted(|| {
        let snapshot = begin();
        let pages = snapshot.changed_since(&moment).expect("the log tells");
        let each = &mut |_: u64, _: &[u8]| {
            seen += 1;
            Ok(())
        };
        snapshot
            .some_pages(pages.iter().copied(), each)
            .expect("read");
        snapshot.end().expect("ended");
        pages.len()
    });
    assert_eq!(seen, pages);
    assert!((60..200).contains(&pages), "{pages} pages changed");
}
