//! Whether the store's file still is as long as it must be. SQLite goes on with what it has in memory and
//! in its log when a file is cut under it, and the file is good for nothing once that ends.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rusqlite::Connection;

use super::connection::Fault;
use sessionkeep_archive::store::StoreError;

/// How often it is looked again: somebody else may just be bringing the log into the file, the header
/// first.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// What SQLite's files begin with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// SQLite's own lock lies at this offset, on a page that holds nothing
/// (<https://sqlite.org/fileformat2.html#the_lock_byte_page>).
const LOCK_BYTE: i64 = 0x4000_0000;

/// Finds a file that was cut while it is in use.
///
/// # Errors
/// [`StoreError::Damaged`] where a page is neither in the file nor in its log.
pub(super) fn check(db: &mut Connection, file: &File) -> Result<(), Fault> {
    let mut tries = 0;
    loop {
        let length = file.metadata()?.len();
        if is_as_long_as_it_says(file, length) || rest_is_in_the_log(db, file)? {
            return Ok(());
        }
        tries += 1;
        if tries == TRIES {
            return Err(Fault::Store(StoreError::Damaged {
                what: "the store's SQLite file".to_owned(),
                why: match is_of_sqlite(file) {
                    true => format!("it has been cut to {length} bytes"),
                    false => "it has been overwritten, and is no SQLite file any more".to_owned(),
                },
            }));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether the file begins as SQLite's do, as far as it goes.
fn is_of_sqlite(file: &File) -> bool {
    let mut head = [0; MAGIC.len()];
    match file.read_at(&mut head, 0) {
        Ok(length) => MAGIC.starts_with(&head[..length]),
        Err(_) => true,
    }
}

/// Whether the file has all pages that its header counts.
fn is_as_long_as_it_says(file: &File, length: u64) -> bool {
    let mut head = [0; 32];
    file.read_exact_at(&mut head, 0).is_ok() && {
        let page = u64::from(u16::from_be_bytes([head[16], head[17]]));
        // The one size that two bytes cannot hold.
        let page = if page == 1 { 65_536 } else { page };
        let pages = u32::from_be_bytes([head[28], head[29], head[30], head[31]]);
        head.starts_with(MAGIC) && page > 0 && length >= page * u64::from(pages)
    }
}

/// Whether all pages that the file lacks are in the log. While somebody reads an older state, the log is
/// brought into the file in part: the header may be that of a longer file than there is, and stays it
/// until somebody writes again.
fn rest_is_in_the_log(db: &mut Connection, file: &File) -> Result<bool, Fault> {
    // What this connection remembers of a page says nothing about where it is.
    db.execute_batch("PRAGMA shrink_memory")?;
    let reading = db.transaction()?;
    let number = |pragma: &str| reading.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let Ok((page, pages)) =
        number("PRAGMA page_size").and_then(|page| Ok((page, number("PRAGMA page_count")?)))
    else {
        // Not even the first page makes sense any more.
        return Ok(false);
    };
    // Looked at after the moment that is read: by then, a page is in one of the two.
    let there = i64::try_from(file.metadata()?.len()).unwrap_or(i64::MAX) / page.max(1);
    // The first page is written before there is a log.
    if there == 0 {
        return Ok(false);
    }
    // A page that is in neither is read as zeros, which none of SQLite's is.
    let mut is_lacking =
        reading.prepare("SELECT data = zeroblob(?2) FROM sqlite_dbpage WHERE pgno = ?1")?;
    for number in there + 1..=pages {
        if (number - 1) * page == LOCK_BYTE {
            continue;
        }
        let lacks = is_lacking.query_row((number, page), |row| row.get::<_, bool>(0));
        if lacks.unwrap_or(true) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn open(path: &Path) -> Connection {
        let db = Connection::open(path).expect("open");
        db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0")
            .expect("set up");
        db
    }

    fn cut_to(path: &Path, length: u64) {
        let file = File::options().write(true).open(path).expect("open");
        file.set_len(length).expect("cut");
    }

    /// A file whose header counts pages that are in the log alone, since a reader held up the rest.
    fn brought_in_in_part(path: &Path) -> (Connection, Connection) {
        let writer = open(path);
        let run = |sql: &str| writer.execute_batch(sql).expect(sql);
        run("CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB)");
        run("INSERT INTO t VALUES (1, randomblob(100000)), (2, randomblob(1000))");
        run("PRAGMA wal_checkpoint(TRUNCATE)");
        run("INSERT INTO t VALUES (3, randomblob(100000))");
        let reader = open(path);
        reader
            .execute_batch("BEGIN; SELECT count(*) FROM t")
            .expect("read");
        run("UPDATE t SET v = randomblob(100000) WHERE k = 3");
        run("PRAGMA wal_checkpoint(PASSIVE)");
        (writer, reader)
    }

    #[test]
    fn a_file_whose_last_pages_are_in_the_log_alone_is_whole() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("a.db");
        let (mut writer, reader) = brought_in_in_part(&path);
        let file = File::open(&path).expect("open");
        let length = file.metadata().expect("metadata").len();
        assert!(!is_as_long_as_it_says(&file, length), "{length}");
        check(&mut writer, &file).expect("it is whole");
        reader.execute_batch("COMMIT").expect("end");
        check(&mut writer, &file).expect("it is whole");
        writer
            .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
            .expect("bring in");
        let length = file.metadata().expect("metadata").len();
        assert!(is_as_long_as_it_says(&file, length), "{length}");
    }

    #[test]
    fn a_file_that_was_cut_is_found_with_a_log_beside_it_and_without() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("a.db");
        let (mut writer, reader) = brought_in_in_part(&path);
        let file = File::open(&path).expect("open");
        for length in [60_000, 4096, 1000, 0] {
            cut_to(&path, length);
            assert!(check(&mut writer, &file).is_err(), "{length}");
        }
        drop(reader);

        let path = dir.path().join("b.db");
        let mut db = open(&path);
        db.execute_batch("CREATE TABLE t (v BLOB); INSERT INTO t VALUES (randomblob(100000))")
            .expect("fill");
        db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
            .expect("bring in");
        let file = File::open(&path).expect("open");
        check(&mut db, &file).expect("it is whole");
        cut_to(&path, 60_000);
        assert!(check(&mut db, &file).is_err());
    }

    #[test]
    fn a_file_that_was_overwritten_is_not_said_to_have_been_cut() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("a.db");
        let mut db = open(&path);
        db.execute_batch("CREATE TABLE t (v BLOB); PRAGMA wal_checkpoint(TRUNCATE)")
            .expect("fill");
        std::fs::write(&path, [7; 100_000]).expect("overwrite");
        let file = File::open(&path).expect("open");
        match check(&mut db, &file) {
            Err(Fault::Store(StoreError::Damaged { why, .. })) => {
                assert!(why.contains("overwritten"), "{why}");
            }
            Err(_) => panic!("another error"),
            Ok(()) => panic!("it is taken for whole"),
        }
    }
}
