//! One SQLite database in WAL mode, as whatsmeow and WAHA's GOWS engine keep it: messages with
//! text and encoded payloads under indexes, sessions as blobs.

use std::path::Path;

use rusqlite::{Connection, params};

use super::random::Random;

/// The database's name in the session directory.
pub(crate) const NAME: &str = "gows.db";
/// What stands before the number of the last transaction, in a row that each rewrites.
pub(crate) const MARK: &str = "bench-mark-";
/// Digits of that number.
pub(crate) const DIGITS: usize = 10;

const SCHEMA: &str = "
    CREATE TABLE gows_messages (jid TEXT NOT NULL, id TEXT NOT NULL, timestamp INTEGER NOT NULL,
        from_me INTEGER NOT NULL, body TEXT, data BLOB NOT NULL, PRIMARY KEY (jid, id));
    CREATE INDEX gows_messages_time ON gows_messages (jid, timestamp);
    CREATE TABLE whatsmeow_sessions (our_jid TEXT, their_id TEXT, session BLOB,
        PRIMARY KEY (our_jid, their_id));
    CREATE TABLE bench_mark (id INTEGER PRIMARY KEY, mark TEXT NOT NULL);
";

/// A database that is open for writing as a gateway has it open.
pub(crate) struct Database(Connection);

impl Database {
    /// Opens it: WAL mode, `synchronous=NORMAL`, SQLite's own automatic checkpoints.
    pub(crate) fn open(dir: &Path) -> Self {
        let connection = Connection::open(dir.join(NAME)).expect("open the database");
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .expect("WAL mode");
        connection
            .pragma_update(None, "synchronous", "NORMAL")
            .expect("a pragma");
        Self(connection)
    }

    /// Makes one of about so many bytes.
    pub(crate) fn create(dir: &Path, bytes: u64) {
        let mut database = Self::open(dir);
        database.0.execute_batch(SCHEMA).expect("the schema");
        let transaction = database.0.transaction().expect("begin");
        transaction
            .execute("INSERT INTO bench_mark VALUES (1, ?1)", [mark(0)])
            .expect("insert the mark");
        for n in 0..400 {
            transaction
                .execute(
                    "INSERT INTO whatsmeow_sessions VALUES ('me', ?1, ?2)",
                    params![n.to_string(), Random::new("session", n).bytes(2000)],
                )
                .expect("insert a session");
        }
        // A row takes about 900 bytes with its part of the indexes.
        for n in 0..(bytes / 900) {
            insert_message(&transaction, n);
        }
        transaction.commit().expect("commit");
        database
            .0
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .expect("checkpoint");
    }

    /// One small transaction: a message, its session's new ratchet, and the mark.
    pub(crate) fn transact(&mut self, n: u64) {
        let transaction = self.0.transaction().expect("begin");
        insert_message(&transaction, 1_000_000_000 + n);
        transaction
            .execute(
                "UPDATE whatsmeow_sessions SET session = ?2 WHERE our_jid = 'me' AND their_id = ?1",
                params![(n % 400).to_string(), Random::new("ratchet", n).bytes(2000)],
            )
            .expect("update a session");
        transaction
            .execute("UPDATE bench_mark SET mark = ?1 WHERE id = 1", [mark(n)])
            .expect("update the mark");
        transaction.commit().expect("commit");
    }

    /// The number of the last transaction, in a database that is sound.
    pub(crate) fn last(file: &Path) -> u64 {
        let connection = Connection::open(file).expect("open the copy");
        let sound: String = connection
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .expect("check the copy");
        assert_eq!(sound, "ok", "the restored database is damaged");
        let mark: String = connection
            .query_row("SELECT mark FROM bench_mark", [], |row| row.get(0))
            .expect("the mark");
        mark[MARK.len()..].parse().expect("a number")
    }
}

fn mark(n: u64) -> String {
    format!("{MARK}{n:0DIGITS$}")
}

fn insert_message(connection: &Connection, n: u64) {
    let random = &mut Random::new("message", n);
    let payload = 350 + random.below(300) as usize;
    connection
        .execute(
            "INSERT INTO gows_messages VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                format!("{}@s.whatsapp.net", 4_915_100_000_000 + random.below(500)),
                format!("3EB0{:016X}", random.number()),
                (1_795_775_361 + n % 1_000_000_000) as i64,
                (n % 2) as i64,
                "On my way, see you at the station at eight. ".repeat(1 + random.below(6) as usize),
                random.bytes(payload),
            ],
        )
        .expect("insert a message");
}
