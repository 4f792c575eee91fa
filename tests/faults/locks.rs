//! What our reading of a database costs its writer: one that waits for no lock
//! (`busy_timeout=0`, which is whatsmeow's default beside a rollback journal) never finds it locked by
//! us.

use std::fs;

use rusqlite::Connection;

use super::keeper::{World, wait_until};

/// Fills a database with `$MIB`, then writes a thousand transactions that wait for no lock, with pauses of
/// `$PAUSE` seconds, and counts those that were refused.
const WRITER: &str = r#"
import os, signal, sqlite3, time

mib, pause = int(os.environ['MIB']), float(os.environ['PAUSE'])
db = sqlite3.connect('store.db', timeout=0, isolation_level=None)
db.execute('PRAGMA journal_mode = DELETE')
db.execute('CREATE TABLE filler (n INTEGER PRIMARY KEY, content BLOB)')
db.execute('CREATE TABLE t (n INTEGER PRIMARY KEY, content BLOB)')
db.execute('BEGIN')
for n in range(mib * 16):
    db.execute('INSERT INTO filler VALUES (?, ?)', (n, os.urandom(1000) + bytes(64000)))
db.execute('COMMIT')
db.execute('PRAGMA synchronous = OFF')
print('filled', flush=True)
while not os.path.exists(os.environ['P'] + '/go'):
    time.sleep(0.02)
busy, n = 0, 0
while n < 1000:
    try:
        db.execute('BEGIN IMMEDIATE')
        db.execute('INSERT INTO t VALUES (?, randomblob(300))', (n + 1,))
        db.execute('UPDATE filler SET content = randomblob(5000) WHERE n = ?', (n * 7919 % (mib * 16),))
        db.execute('COMMIT')
        n += 1
    except sqlite3.OperationalError as error:
        if 'locked' not in str(error):
            raise
        busy += 1
        if db.in_transaction:
            db.execute('ROLLBACK')
    time.sleep(pause)
print('refused=%d;' % busy, flush=True)
signal.pause()
"#;

fn a_thousand_writes_at(mib: u32, pause: &str) {
    let world = World::on_disk();
    fs::create_dir_all(world.dir()).expect("mkdir");
    fs::write(world.path("writer.py"), WRITER).expect("write");
    let mut life = world
        .script("exec python3 $P/writer.py")
        .env("MIB", mib.to_string())
        .env("PAUSE", pause)
        .start();
    life.wait_for("filled");
    wait_until("the database is stored", || !world.changes().is_empty());
    let before = world.changes()[0];
    fs::write(world.path("go"), "").expect("write");
    life.wait_for("refused=");
    let during: Vec<u64> = world.changes();
    let log = life.log();
    assert!(log.contains("refused=0;"), "{log}");
    let ended = life.stop();
    // What was stored meanwhile, newest first: each is sound and of one moment.
    let during = during.into_iter().filter(|seq| *seq > before);
    let some: Vec<u64> = during.take(3).collect();
    assert!(
        !some.is_empty(),
        "nothing was stored meanwhile: {}",
        ended.log
    );
    for seq in &some {
        let count = rows_of(&world, &["--seq", &seq.to_string()]);
        assert!(count <= 1000, "{count}");
    }
    assert_eq!(rows_of(&world, &[]), 1000, "{}", ended.log);
}

/// How many rows a stored version has; they must be all from the first on.
fn rows_of(world: &World, which: &[&str]) -> i64 {
    let to = world.path("version");
    let args = [&["restore", "--to", to.to_str().expect("text")], which].concat();
    let output = world.command(&args);
    assert!(output.status.success(), "{output:?}");
    let db = Connection::open(to.join("store.db")).expect("open");
    let verdict: String = db
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("check");
    assert_eq!(verdict, "ok", "{which:?}");
    let (count, newest): (i64, i64) = db
        .query_row("SELECT count(*), ifnull(max(n), 0) FROM t", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .expect("select");
    assert_eq!(count, newest, "{which:?}");
    drop(db);
    fs::remove_dir_all(to).expect("remove");
    count
}

#[test]
fn a_writer_that_waits_for_no_lock_is_never_refused_at_1_mib() {
    a_thousand_writes_at(1, "0.004");
}

#[test]
fn a_writer_that_waits_for_no_lock_is_never_refused_at_100_mib() {
    a_thousand_writes_at(100, "0.015");
}
