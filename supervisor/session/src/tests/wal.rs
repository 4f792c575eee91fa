//! What the write-ahead log tells of changes, against what a look at every page finds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use rusqlite::Connection;

use super::super::{Snapshot, WalPosition};
use sessionkeep_core::beneath::Place;

const BUSY: Duration = Duration::from_secs(20);

/// A database, its writer, and its image as of the last look.
struct Site {
    _temp: tempfile::TempDir,
    path: PathBuf,
    writer: Option<Connection>,
    before: Option<(WalPosition, Vec<u8>)>,
}

/// How the changed pages became known.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// The log told, and these are so many.
    Told(usize),
    /// It did not.
    Untold,
}

impl Site {
    fn new(page_size: u32) -> Self {
        let temp = tempfile::tempdir_in("/dev/shm").expect("tempdir");
        let path = temp.path().join("x.db");
        let mut site = Self {
            _temp: temp,
            path,
            writer: None,
            before: None,
        };
        site.open();
        site.run(&format!(
            "PRAGMA page_size={page_size}; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL;
             CREATE TABLE t (n INTEGER PRIMARY KEY, b BLOB); CREATE INDEX i ON t (b);
             WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM s WHERE n < 400)
             INSERT INTO t SELECT n, randomblob(200) FROM s;"
        ));
        site
    }

    fn open(&mut self) {
        let writer = Connection::open(&self.path).expect("open");
        writer.busy_timeout(BUSY).expect("timeout");
        writer.pragma_update(None, "cache_size", 5).expect("cache");
        self.writer = Some(writer);
    }

    fn run(&self, sql: &str) {
        let writer = self.writer.as_ref().expect("is open");
        writer.execute_batch(sql).expect(sql);
    }

    fn before_pages(&self) -> usize {
        self.before
            .as_ref()
            .map_or(0, |(_, image)| image.len() / 4096)
    }

    /// Takes a snapshot. Where the log tells what changed since the last one, that must be all.
    fn look(&mut self) -> Look {
        let snapshot =
            Snapshot::begin(&Place::of(&self.path).expect("opens"), BUSY).expect("begin");
        let mut whole = Vec::new();
        snapshot
            .all_pages(&mut |_, page| {
                whole.extend_from_slice(page);
                Ok(())
            })
            .expect("reads");
        let mut look = Look::Untold;
        if let Some((moment, image)) = &self.before
            && let Some(pages) = snapshot.changed_since(moment)
        {
            look = Look::Told(pages.len());
            let mut patched = image.clone();
            patched.resize(usize::try_from(snapshot.image().size()).expect("small"), 0);
            snapshot
                .some_pages(pages, &mut |offset, page| {
                    let at = usize::try_from(offset).expect("small");
                    patched[at..at + page.len()].copy_from_slice(page);
                    Ok(())
                })
                .expect("reads");
            let size = snapshot.image().page_size as usize;
            let differs = (0..whole.len() / size)
                .find(|n| whole[n * size..][..size] != patched[n * size..][..size]);
            assert_eq!(differs, None, "a page changed that was not told of");
        }
        self.before = snapshot.moment().map(|moment| (moment, whole));
        snapshot.end().expect("ends");
        look
    }
}

fn log_of(path: &Path) -> PathBuf {
    path.with_extension("db-wal")
}

#[test]
fn changes_are_told_in_every_page_size_and_across_the_logs_new_beginnings() {
    for page_size in [512, 1024, 4096, 8192, 65536] {
        let mut site = Site::new(page_size);
        // So small that the log begins anew every few transactions.
        site.run("PRAGMA wal_autocheckpoint=12");
        assert_eq!(site.look(), Look::Untold, "nothing to compare with");
        assert_eq!(site.look(), Look::Told(0), "nothing happened");
        let mut told = 0;
        for n in 0..60 {
            site.run(&format!("UPDATE t SET b = randomblob(90) WHERE n = {n}"));
            told += u32::from(site.look() != Look::Untold);
        }
        assert_eq!(told, 60, "page size {page_size}");
    }
}

#[test]
fn what_was_appended_before_the_log_began_anew_is_found_behind_the_new_one() {
    let mut site = Site::new(4096);
    for n in 0..20 {
        site.run(&format!("UPDATE t SET b = randomblob(90) WHERE n = {n}"));
    }
    site.look();
    site.run("UPDATE t SET b = 'x' WHERE n = 300; PRAGMA wal_checkpoint(RESTART)");
    site.run("UPDATE t SET b = 'y' WHERE n = 1");
    let Look::Told(pages) = site.look() else {
        panic!("the log does not tell");
    };
    assert!(pages >= 2, "both tables' pages are named: {pages}");
    site.run("UPDATE t SET b = 'z' WHERE n = 2");
    assert!(matches!(site.look(), Look::Told(_)));
}

#[test]
fn pages_that_come_back_without_being_written_are_told_of() {
    let mut site = Site::new(4096);
    site.run(
        "PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=500; UPDATE t SET b = randomblob(900)",
    );
    site.look();
    // They are cut off, and then allocated and freed again in one transaction, which writes none of
    // them: what a reader finds there is what they were.
    let cut = "DELETE FROM t WHERE n > 5; VACUUM";
    let regrow = "BEGIN; INSERT INTO t VALUES (999, randomblob(200000)); DELETE FROM t WHERE n = 999; COMMIT";
    site.run(cut);
    site.look();
    let small = site.before_pages();
    site.run(regrow);
    assert!(matches!(site.look(), Look::Told(_)));
    assert!(site.before_pages() > small, "it did not grow again");

    site.run("UPDATE t SET b = randomblob(900)");
    site.look();
    site.run(cut);
    site.run(regrow);
    assert!(matches!(site.look(), Look::Told(_)));
}

#[test]
fn a_log_that_began_anew_twice_or_was_cut_off_tells_nothing() {
    let mut site = Site::new(4096);
    for (what, sql) in [
        ("written and cut off", "UPDATE t SET b = 'y'; PRAGMA wal_checkpoint(TRUNCATE); UPDATE t SET b = 'z' WHERE n = 2;"),
        ("begun anew twice", "UPDATE t SET b = 'p' WHERE n < 9; PRAGMA wal_checkpoint(RESTART); UPDATE t SET b = 'q' WHERE n = 2;
            PRAGMA wal_checkpoint(RESTART); UPDATE t SET b = 'r' WHERE n = 3;"),
    ] {
        site.run("UPDATE t SET b = 'x' WHERE n = 1");
        site.look();
        site.run(sql);
        assert_eq!(site.look(), Look::Untold, "{what}");
        site.run("UPDATE t SET b = 'a' WHERE n = 1");
        assert!(matches!(site.look(), Look::Told(_)), "{what}: and then it does again");
    }
}

#[test]
fn a_log_that_overwrote_what_was_not_seen_tells_nothing() {
    let mut site = Site::new(4096);
    site.run("PRAGMA wal_checkpoint(TRUNCATE); UPDATE t SET b = 'x' WHERE n = 1");
    site.look();
    site.run("UPDATE t SET b = 'y' WHERE n = 7; PRAGMA wal_checkpoint(RESTART)");
    for n in 0..20 {
        site.run(&format!("UPDATE t SET b = randomblob(9) WHERE n = {n}"));
    }
    assert_eq!(site.look(), Look::Untold);
}

#[test]
fn another_process_life_and_another_file_tell_nothing() {
    let mut site = Site::new(4096);
    site.look();
    // The last connection to close puts all into the database and removes the log.
    site.run("UPDATE t SET b = 'x' WHERE n = 1");
    site.writer = None;
    site.open();
    site.run("UPDATE t SET b = 'y' WHERE n = 2");
    assert_eq!(site.look(), Look::Untold);

    // A copy in its place, with a copy of its log: the same salts, and another history.
    let (copy, log) = (site.path.with_extension("copy"), log_of(&site.path));
    std::fs::copy(&site.path, &copy).expect("copy");
    std::fs::copy(&log, copy.with_extension("log")).expect("copy");
    site.run("UPDATE t SET b = 'z' WHERE n = 3");
    site.look();
    std::mem::forget(site.writer.take());
    std::fs::rename(&copy, &site.path).expect("rename");
    std::fs::rename(copy.with_extension("log"), &log).expect("rename");
    let _ = std::fs::remove_file(site.path.with_extension("db-shm"));
    site.open();
    site.run("UPDATE t SET b = 'w' WHERE n = 4");
    assert_eq!(site.look(), Look::Untold);
}

/// A database that has been closed, so that its log is gone, and at rest for a while.
fn at_rest() -> Site {
    let mut site = Site::new(4096);
    site.writer = None;
    std::thread::sleep(Duration::from_millis(60));
    site
}

#[test]
fn the_first_writes_to_an_empty_log_are_told() {
    let mut site = at_rest();
    assert_eq!(site.look(), Look::Untold);
    assert_eq!(site.look(), Look::Told(0), "nothing was written");
    site.open();
    site.run("UPDATE t SET b = 'x' WHERE n = 1");
    site.run("UPDATE t SET b = 'y' WHERE n = 200");
    let Look::Told(pages) = site.look() else {
        panic!("the log has all of it");
    };
    assert!((1..20).contains(&pages), "{pages}");
    site.run("UPDATE t SET b = 'z' WHERE n = 3");
    assert!(matches!(site.look(), Look::Told(_)), "and it goes on");
}

#[test]
fn what_went_past_an_empty_log_is_not_told() {
    // By a checkpoint, and by one that also removed the log.
    for closes in [false, true] {
        let mut site = at_rest();
        site.look();
        site.open();
        site.run("UPDATE t SET b = 'x' WHERE n = 1; PRAGMA wal_checkpoint(TRUNCATE)");
        if closes {
            site.writer = None;
            site.open();
        }
        site.run("UPDATE t SET b = 'y' WHERE n = 2");
        assert_eq!(site.look(), Look::Untold, "closes: {closes}");
    }
    // By another journal mode.
    let mut site = at_rest();
    site.look();
    site.open();
    site.run("PRAGMA journal_mode=DELETE; UPDATE t SET b = 'x' WHERE n = 1; PRAGMA journal_mode=WAL; UPDATE t SET b = 'y' WHERE n = 2");
    assert_eq!(site.look(), Look::Untold);
}

#[test]
fn a_file_that_was_written_just_now_does_not_vouch_for_its_log() {
    let mut site = Site::new(4096);
    site.writer = None;
    site.look();
    site.open();
    site.run("UPDATE t SET b = 'x' WHERE n = 1");
    assert_eq!(site.look(), Look::Untold);
}

#[test]
fn a_rollback_journal_tells_nothing() {
    let mut site = Site::new(4096);
    site.look();
    site.run("PRAGMA journal_mode=DELETE; UPDATE t SET b = 'x' WHERE n = 1");
    assert_eq!(site.look(), Look::Untold);
    site.run("UPDATE t SET b = 'y' WHERE n = 1");
    assert_eq!(site.look(), Look::Untold);
    site.run("PRAGMA journal_mode=WAL; UPDATE t SET b = 'z' WHERE n = 1");
    assert_eq!(site.look(), Look::Untold);
}

#[test]
fn an_index_that_claims_far_more_pages_than_were_written_tells_nothing() {
    let site = Site::new(512);
    let beside = |end: &str| {
        let mut name = site.path.clone().into_os_string();
        name.push(end);
        std::path::PathBuf::from(name)
    };
    let header = || -> [u8; 48] {
        let index = std::fs::read(beside("-shm")).expect("an index");
        index[..48].try_into().expect("a header")
    };
    let before = header();
    site.run("INSERT INTO t (b) VALUES (randomblob(3000))");
    let log = std::fs::File::open(beside("-wal")).expect("a log");
    let told = |header: &[u8; 48]| {
        super::super::wal::told_between(Some(&before), header, &log).expect("readable")
    };
    let mut now = header();
    assert!(told(&now).is_some_and(|pages| !pages.is_empty()));
    // The size in pages, which the log does not bear out.
    now[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
    assert_eq!(told(&now), None);
}

#[derive(Debug, Clone)]
enum Op {
    Insert(u32, u32),
    Update(u32),
    Delete(u32, u32),
    RolledBack(u32),
    Savepoint(u32),
    Vacuum(u32),
    VacuumAll,
    Checkpoint(&'static str),
    Limit(i64),
    Reopen,
    Look,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1u32..40, 1u32..3000).prop_map(|(count, size)| Op::Insert(count, size)),
        4 => (0u32..500).prop_map(Op::Update),
        2 => (0u32..500, 1u32..200).prop_map(|(from, count)| Op::Delete(from, count)),
        1 => (1u32..60).prop_map(Op::RolledBack),
        1 => (1u32..60).prop_map(Op::Savepoint),
        1 => (0u32..30).prop_map(Op::Vacuum),
        1 => Just(Op::VacuumAll),
        2 => prop_oneof![Just("PASSIVE"), Just("FULL"), Just("RESTART"), Just("TRUNCATE")].prop_map(Op::Checkpoint),
        1 => prop_oneof![Just(-1i64), Just(0), Just(20_000)].prop_map(Op::Limit),
        1 => Just(Op::Reopen),
        6 => Just(Op::Look),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever a writer does between two looks: what is told to have changed is all that has.
    #[test]
    fn no_change_is_ever_left_out(
        page_size in prop_oneof![Just(512u32), Just(1024), Just(4096), Just(16384)],
        auto in prop_oneof![Just(0u32), Just(5), Just(60), Just(1000)],
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let mut site = Site::new(page_size);
        site.run(&format!("PRAGMA wal_autocheckpoint={auto}"));
        for op in ops {
            match op {
                Op::Insert(count, size) => site.run(&format!(
                    "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM s WHERE n < {count})
                     INSERT INTO t (b) SELECT randomblob({size}) FROM s"
                )),
                Op::Update(n) => site.run(&format!("UPDATE t SET b = randomblob(50) WHERE n = {n}")),
                Op::Delete(from, count) => {
                    site.run(&format!("DELETE FROM t WHERE n BETWEEN {from} AND {}", from + count));
                }
                // With its small cache the writer spills into the log before it knows.
                Op::RolledBack(n) => site.run(&format!(
                    "BEGIN; UPDATE t SET b = randomblob(700) WHERE n % {n} = 0; ROLLBACK"
                )),
                Op::Savepoint(n) => site.run(&format!(
                    "BEGIN; UPDATE t SET b = randomblob(70) WHERE n = {n}; SAVEPOINT s;
                     UPDATE t SET b = randomblob(700) WHERE n % {n} = 0; ROLLBACK TO s; COMMIT"
                )),
                Op::Vacuum(pages) => site.run(&format!("PRAGMA incremental_vacuum({pages})")),
                Op::VacuumAll => site.run("VACUUM"),
                Op::Checkpoint(mode) => site.run(&format!("PRAGMA wal_checkpoint({mode})")),
                Op::Limit(bytes) => site.run(&format!("PRAGMA journal_size_limit={bytes}")),
                Op::Reopen => {
                    site.writer = None;
                    site.open();
                    site.run(&format!("PRAGMA wal_autocheckpoint={auto}"));
                }
                Op::Look => drop(site.look()),
            }
        }
        site.look();
    }
}
