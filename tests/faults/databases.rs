//! Databases as real gateways leave them: with content that their own schema forbids, which is no
//! damage; and damaged ones on a disk that was kept, which are.

use std::fs;
use std::path::Path;

use rusqlite::Connection;

use super::keeper::{IDLE, Tree, World, wait_until};

/// Makes databases that `quick_check` finds fault with, each by another of its rules, and each
/// sound to whoever writes it. Writes a row more into each when it is told to stop.
const ODD: &str = r#"
import signal, sqlite3, sys

def connect(name):
    db = sqlite3.connect(name, timeout=20, isolation_level=None)
    db.create_function('app_ok', 1, lambda value: 1, deterministic=True)
    db.create_collation('app_order', lambda a, b: (a > b) - (a < b))
    return db

def declare(db, name, sql):
    db.execute('PRAGMA writable_schema = ON')
    db.execute('UPDATE sqlite_schema SET sql = ? WHERE name = ?', (sql, name))
    db.execute('PRAGMA writable_schema = RESET')

def checks(db):
    db.execute('PRAGMA ignore_check_constraints = ON')
    db.execute('CREATE TABLE t (n CHECK (n < 0), m)')

def not_null(db):
    db.execute('CREATE TABLE t (n, m, o)')
    db.execute('INSERT INTO t VALUES (0, 0, NULL)')
    declare(db, 't', 'CREATE TABLE t (n, m, o NOT NULL DEFAULT 1)')

def strict(db):
    db.execute('CREATE TABLE t (n INTEGER, m INTEGER)')
    db.execute("INSERT INTO t VALUES (0, 'words')")
    declare(db, 't', 'CREATE TABLE t (n INTEGER, m INTEGER) STRICT')

def other_type(db):
    db.execute('CREATE TABLE t (n, m)')
    db.execute("INSERT INTO t VALUES (7, '7')")
    declare(db, 't', 'CREATE TABLE t (n TEXT, m INTEGER)')

def function(db):
    db.execute('CREATE TABLE t (n CHECK (app_ok(n)), m)')
    db.execute('CREATE INDEX i ON t (app_ok(n))')

def generated(db):
    db.execute('CREATE TABLE t (n, m, o TEXT NOT NULL AS (app_ok(n) || app_ok(m)) VIRTUAL)')

def collation(db):
    db.execute('CREATE TABLE t (n TEXT COLLATE app_order PRIMARY KEY, m)')
    db.execute('CREATE INDEX i ON t (m COLLATE app_order, n)')

def without_rowid(db):
    db.execute('CREATE TABLE t (n TEXT COLLATE app_order PRIMARY KEY, m) WITHOUT ROWID')

def module(db):
    db.execute('CREATE TABLE t (n, m)')
    db.execute('PRAGMA writable_schema = ON')
    db.execute("INSERT INTO sqlite_schema VALUES ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING app_module(a)')")
    db.execute('PRAGMA writable_schema = RESET')

def tokenizer(db):
    db.execute('CREATE TABLE t (n, m)')
    db.execute('CREATE VIRTUAL TABLE f USING fts5(words)')
    db.execute("INSERT INTO f VALUES ('some words')")
    declare(db, 'f', "CREATE VIRTUAL TABLE f USING fts5(words, tokenize = 'app_words')")

kinds = [checks, not_null, strict, other_type, function, generated, collation, without_rowid, module, tokenizer]
every = []
for kind in kinds:
    db = connect(kind.__name__ + '.db')
    kind(db)
    every.append(db)

def add(n):
    for db in every:
        db.execute('INSERT INTO t (n, m) VALUES (?, ?)', (n, n))

add(1)
signal.signal(signal.SIGTERM, lambda *_: (add(2), sys.exit(0)))
print('all are made', flush=True)
while True:
    signal.pause()
"#;

#[test]
fn content_that_a_databases_own_schema_forbids_is_stored_to_its_last_row() {
    let world = World::sqlite();
    fs::create_dir_all(world.dir()).expect("mkdir");
    fs::write(world.path("odd.py"), ODD).expect("write");
    let mut life = world.script("exec python3 $P/odd.py").start();
    life.wait_for("all are made");
    let names = [
        "checks",
        "not_null",
        "strict",
        "other_type",
        "function",
        "generated",
        "collation",
        "without_rowid",
        "module",
        "tokenizer",
    ]
    .map(|kind| format!("{kind}.db"));
    let now = |name: &str| fs::read(world.dir().join(name)).expect("read");
    for name in &names {
        wait_until(&format!("{name} is stored\n{}", life.log()), || {
            world
                .stored()
                .is_some_and(|tree| tree.content(name) == Some(&now(name)))
        });
    }
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert!(!ended.log.contains("file is not whole"), "{}", ended.log);
    let stored = world.stored().expect("a tree");
    for name in &names {
        assert_eq!(stored.content(name), Some(&*now(name)), "{name}");
    }
    assert_eq!(stored, Tree::of(&world.dir()), "{}", ended.log);
}

/// A database of some pages, as a gateway has it.
fn make(path: &Path, rows: u32) {
    let db = Connection::open(path).expect("open");
    db.execute_batch("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, filler BLOB)")
        .expect("make");
    for n in 0..rows {
        db.execute("INSERT INTO t VALUES (?1, randomblob(3000))", [n])
            .expect("insert");
    }
}

/// What a crash or a failing disk leaves of it.
type Damage = fn(&Path);

fn overwritten(path: &Path) {
    let mut bytes = fs::read(path).expect("read");
    bytes[4096..5 * 4096].fill(0xa5);
    fs::write(path, bytes).expect("write");
}

fn cut(path: &Path) {
    let bytes = fs::read(path).expect("read");
    fs::write(path, &bytes[..2 * 4096 + 100]).expect("write");
}

fn emptied(path: &Path) {
    fs::write(path, "").expect("write");
}

fn zeros(path: &Path) {
    let bytes = fs::read(path).expect("read");
    fs::write(path, vec![0; bytes.len()]).expect("write");
}

/// With a log beside it that belongs to the damaged one, and would spoil the whole one.
fn with_its_log(path: &Path) {
    let db = Connection::open(path).expect("open");
    db.pragma_update(None, "journal_mode", "wal").expect("wal");
    db.execute("UPDATE t SET filler = randomblob(3001)", [])
        .expect("update");
    let beside = path.with_extension("db-wal");
    let log = fs::read(&beside).expect("its log");
    drop(db);
    fs::write(&beside, log).expect("write");
    overwritten(path);
}

#[test]
fn a_damaged_database_on_a_kept_disk_is_put_right_and_the_bad_one_kept() {
    let damages: [(&str, Damage); 5] = [
        ("overwritten", overwritten),
        ("cut", cut),
        ("emptied", emptied),
        ("zeros", zeros),
        ("with its log", with_its_log),
    ];
    for (what, damage) in damages {
        for alone in [false, true] {
            let world = World::sqlite();
            fs::create_dir_all(world.dir().join("a")).expect("mkdir");
            let path = world.dir().join("a/login.db");
            make(&path, 20);
            world.write("creds.json", r#"{"me":"first"}"#);
            let life = world.script(IDLE).ready();
            world.wait_until_saved();
            assert_eq!(life.stop().code, 0);
            let good = fs::read(&path).expect("read");
            damage(&path);
            let bad = fs::read(&path).expect("read");
            // Newer than what is stored, and whole: it stays.
            world.write("creds.json", r#"{"me":"later"}"#);
            let log = if alone {
                let output = world.command(&["restore"]);
                assert!(output.status.success(), "{what}: {output:?}");
                String::from_utf8_lossy(&output.stderr).into_owned()
            } else {
                let life = world.script(IDLE).ready();
                let ended = life.stop();
                assert_eq!(ended.code, 0, "{what}: {}", ended.log);
                ended.log
            };
            let case = format!("{what}, alone: {alone}\n{log}");
            assert!(fs::read(&path).expect("read") == good, "{case}");
            assert!(!path.with_extension("db-wal").exists(), "{case}");
            assert_eq!(world.read("creds.json"), r#"{"me":"later"}"#, "{case}");
            let words = "a damaged database was set aside; its last committed version was put back";
            assert!(log.contains(words) && log.contains("a/login.db"), "{case}");
            let replaced = world.replaced();
            let [aside] = replaced.as_slice() else {
                panic!("one was set aside: {replaced:?}: {case}");
            };
            let kept = fs::read(aside.join("a/login.db")).expect("the bad one is kept");
            assert!(kept == bad, "{case}");
            let has_log = aside.join("a/login.db-wal").exists();
            assert_eq!(has_log, what == "with its log", "{case}");
        }
    }
}

#[test]
fn a_sound_database_that_is_newer_than_what_is_stored_stays() {
    let world = World::sqlite();
    fs::create_dir_all(world.dir()).expect("mkdir");
    let path = world.dir().join("login.db");
    make(&path, 20);
    let life = world.script(IDLE).ready();
    world.wait_until_saved();
    life.kill_tree();
    let db = Connection::open(&path).expect("open");
    db.pragma_update(None, "journal_mode", "wal").expect("wal");
    db.execute("INSERT INTO t VALUES (1000, NULL)", [])
        .expect("insert");
    let log = fs::read(path.with_extension("db-wal")).expect("its log");
    let main = fs::read(&path).expect("read");
    drop(db);
    // As a crash leaves both.
    fs::write(&path, main).expect("write");
    fs::write(path.with_extension("db-wal"), log).expect("write");
    let life = world.script(IDLE).ready();
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert!(world.replaced().is_empty(), "{}", ended.log);
    let db = Connection::open(&path).expect("open");
    let newest: i64 = db
        .query_row("SELECT max(n) FROM t", [], |row| row.get(0))
        .expect("select");
    assert_eq!(newest, 1000, "{}", ended.log);
}
