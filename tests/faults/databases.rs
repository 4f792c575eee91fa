//! Databases as real gateways leave them: with content that their own schema forbids, which is no
//! damage.

use std::fs;

use super::keeper::{Tree, World, wait_until};

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
