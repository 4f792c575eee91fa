//! Databases that are overwritten, emptied or cut while their gateway runs, and files that look like one.

use std::fs;
use std::path::Path;

use rusqlite::Connection;

use super::keeper::{IDLE, Tree, World, send};
use super::noise::noise;

const NOT_WHOLE: &str = "file is not whole; its last committed version stays";
const HELD_BACK: &str = "what is not whole is not saved";

/// A login of whatsmeow's, or a database without one.
fn make(path: &Path, with_login: bool) {
    let db = Connection::open(path).expect("open");
    db.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY, filler BLOB)")
        .expect("make");
    for n in 0..20 {
        db.execute("INSERT INTO t VALUES (?1, zeroblob(3000))", [n])
            .expect("insert");
    }
    if with_login {
        db.execute_batch(
            "CREATE TABLE whatsmeow_device (jid TEXT PRIMARY KEY, noise_key BLOB);
             INSERT INTO whatsmeow_device VALUES ('49:1@s.whatsapp.net', x'01')",
        )
        .expect("a login");
    }
}

/// What is left of it.
type Ruin = fn(Vec<u8>) -> Vec<u8>;

const RUINS: [(&str, Ruin); 8] = [
    ("empty", |_| Vec::new()),
    ("zeros", |db| vec![0; db.len()]),
    ("its header is zeros", |mut db| {
        db[..100].fill(0);
        db
    }),
    ("its header is cut off after the name", |mut db| {
        db[16..100].fill(0xff);
        db
    }),
    ("the first bytes alone", |db| db[..10].to_vec()),
    ("words", |_| b"no database at all\n".repeat(512)),
    ("another kind of file", |_| b"{\"a\": 1}".to_vec()),
    ("random", |db| noise(db.len())),
];

#[test]
fn a_database_that_is_none_any_more_is_held_back_and_put_back() {
    for (what, ruin) in RUINS {
        for with_login in [true, false] {
            // A database that was encrypted looks like that: it is stored, where no login is at stake.
            if what == "random" && !with_login {
                continue;
            }
            let case = format!("{what}, with a login: {with_login}");
            let world = World::sqlite();
            fs::create_dir_all(world.dir()).expect("mkdir");
            let path = world.dir().join("store.db");
            make(&path, with_login);
            let good = fs::read(&path).expect("read");
            let mut life = world.script(IDLE).ready();
            world.wait_until_saved();
            fs::write(&path, ruin(good.clone())).expect("ruin it");
            life.wait_for(NOT_WHOLE);
            // With a log beside it, as its writer leaves it that has it open.
            fs::write(world.dir().join("store.db-wal"), "a log").expect("write");
            world.write("other", "goes on");
            world.wait_until_stored("other", "goes on");
            let ended = life.stop();
            assert_eq!(ended.code, 74, "{case}: {}", ended.log);
            for told in [HELD_BACK, "store.db is not whole"] {
                assert!(ended.log.contains(told), "{case}: {told}: {}", ended.log);
            }
            let stored = world.stored().expect("a tree");
            assert!(stored.content("store.db") == Some(&good), "{case}");
            assert!(stored.content("store.db-wal").is_none(), "{case}");
            let life = world.script(IDLE).ready();
            assert!(
                fs::read(&path).expect("read") == good,
                "{case}: {}",
                life.log()
            );
            let ended = life.stop();
            assert_eq!(ended.code, 0, "{case}: {}", ended.log);
        }
    }
}

#[test]
fn a_watcher_that_has_not_seen_the_database_asks_what_it_was() {
    let world = World::sqlite();
    fs::create_dir_all(world.dir()).expect("mkdir");
    let path = world.dir().join("store.db");
    make(&path, false);
    let good = fs::read(&path).expect("read");
    let login = world.dir().join("login.db");
    make(&login, true);
    let good_login = fs::read(&login).expect("read");
    // Of a size that a database can have, and none.
    world.write("plain.bin", "x".repeat(1024));
    let mut life = world.script(IDLE).ready();
    world.wait_until_saved();
    let held = life.hold_watcher();
    fs::write(&path, "").expect("empty it");
    fs::write(&login, noise(good_login.len())).expect("overwrite it");
    world.write("plain.bin", "y".repeat(1024));
    send(life.process("watcher"), libc::SIGKILL);
    drop(held);
    life.wait_for_count("watcher is ready", 2);
    life.wait_for_count(NOT_WHOLE, 2);
    world.wait_until_stored("plain.bin", "y".repeat(1024));
    let stored = world.stored().expect("a tree");
    assert!(stored.content("store.db") == Some(&good), "{}", life.log());
    let kept = stored.content("login.db") == Some(&good_login);
    assert!(
        kept,
        "what looks encrypted took the place of a login: {}",
        life.log()
    );
    // Made anew, it is a file like any other.
    for (path, with_login) in [(&path, false), (&login, true)] {
        fs::remove_file(path).expect("remove");
        make(path, with_login);
        // Not what it was, or there would be nothing to commit.
        let db = Connection::open(path).expect("open");
        db.execute("INSERT INTO t VALUES (1000, NULL)", [])
            .expect("insert");
    }
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
}

#[test]
fn what_only_looks_like_a_database_is_a_file() {
    let world = World::sqlite();
    fs::create_dir_all(world.dir()).expect("mkdir");
    let path = world.dir().join("damaged.db");
    make(&path, false);
    let mut damaged = fs::read(&path).expect("read");
    damaged[4096..5 * 4096].fill(0xa5);
    // Never saved before: nothing better is stored.
    fs::write(&path, &damaged).expect("write");
    let magic = b"SQLite format 3\0";
    world.write("magic", magic);
    world.write("junk", [magic.as_slice(), &[7; 5000]].concat());
    // As SQLCipher writes it with `cipher_plaintext_header_size = 32`, and its log.
    let mut sealed = noise(8192);
    let mut header = fs::read(&path).expect("read")[..32].to_vec();
    header[20] = 80;
    sealed[..32].copy_from_slice(&header);
    world.write("sealed.db", &sealed);
    world.write("sealed.db-wal", noise(4096));
    let life = world.script(IDLE).ready();
    world.wait_until_saved();
    let all = Tree::of(&world.dir());
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert!(world.stored().as_ref() == Some(&all), "{}", ended.log);
    world.wipe();
    let life = world.script(IDLE).ready();
    assert_eq!(Tree::of(&world.dir()), all);
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert!(!ended.log.contains(NOT_WHOLE), "{}", ended.log);
}

#[test]
fn all_that_is_not_saved_is_counted_at_the_end() {
    let world = World::sqlite();
    let mut life = world.script(IDLE).ready();
    for name in ["a.json", "b.json", "c.json"] {
        world.write(name, "{\"a\":1}");
    }
    world.wait_until_saved();
    for name in ["a.json", "b.json", "c.json"] {
        world.write(name, "{\"a\":");
    }
    life.wait_for_count(NOT_WHOLE, 3);
    let ended = life.stop();
    assert_eq!(ended.code, 74, "{}", ended.log);
    assert!(ended.log.contains("; and 2 more"), "{}", ended.log);
}

#[test]
fn a_gateway_that_ends_at_once_leaves_no_word_of_a_broken_flush() {
    let world = World::sqlite();
    for _ in 0..12 {
        let ended = world.script("exit 0").run_to_end();
        assert_eq!(ended.code, 0, "{}", ended.log);
        assert!(!ended.log.contains("[INCIDENT]"), "{}", ended.log);
    }
}
