//! Databases that are none to us: a real SQLCipher's, whose main file and log look like noise. They are
//! files like any others, and belong together.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::keeper::{Life, Tree, World, wait_until};

/// A gateway that keeps its login in SQLCipher, through the library's own interface.
const GATEWAY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/gateways/sqlcipher/gateway.py"
);

fn library() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/sqlcipher/sqlcipher.so");
    assert!(
        path.exists(),
        "{}: run tests/tools/fetch.sh",
        path.display()
    );
    path
}

/// How many rows the database holds, to who knows the key; they are all from the first on.
fn rows(dir: &Path) -> u64 {
    let output = Command::new("python3")
        .args([GATEWAY, "count"])
        .arg(dir.join("login.db"))
        .env("SQLCIPHER", library())
        .stdin(Stdio::null())
        .output()
        .expect("run");
    // A version of before the table was made is sound, and holds none.
    if String::from_utf8_lossy(&output.stderr).contains("no such table") {
        return 0;
    }
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    said.trim().parse().expect("a number")
}

fn gateway(world: &World, mode: &str) -> Life {
    fs::create_dir_all(world.dir()).expect("mkdir");
    let script = format!("exec python3 {GATEWAY} {mode} login.db");
    let library = library();
    world
        .script(&script)
        .env("SQLCIPHER", library.to_str().expect("text"))
        .start()
}

/// Restores a version beside the session directory, and counts its rows.
fn restored(world: &World, which: &[&str]) -> u64 {
    let to = world.path("version");
    let _ = fs::remove_dir_all(&to);
    let args = [&["restore", "--to", to.to_str().expect("text")], which].concat();
    let output = world.command(&args);
    assert!(output.status.success(), "{output:?}");
    rows(&to)
}

#[test]
fn rows_that_are_only_in_the_log_of_an_encrypted_database_come_back() {
    let world = World::sqlite();
    let mut life = gateway(&world, "wal 100");
    life.wait_for("written=100;");
    // While it runs, and as a crash of all finds it.
    wait_until("100 rows are stored", || {
        !world.changes().is_empty() && restored(&world, &[]) == 100
    });
    life.kill_tree();
    world.wipe();
    fs::create_dir_all(world.dir()).expect("mkdir");
    let mut life = gateway(&world, "wal 0");
    life.wait_for("written=100;");
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    let (stored, there) = (world.stored().expect("a tree"), Tree::of(&world.dir()));
    for name in ["login.db", "login.db-wal"] {
        assert!(
            there.content(name).is_some_and(|bytes| !bytes.is_empty()),
            "{name}"
        );
        assert!(
            stored.content(name) == there.content(name),
            "{name}: {}",
            ended.log
        );
    }
    assert_eq!(restored(&world, &[]), 100);
}

#[test]
fn an_encrypted_database_that_is_written_without_a_pause_is_of_one_moment() {
    for journal in ["wal", "delete"] {
        let world = World::sqlite();
        let mut life = gateway(&world, &format!("{journal} busy"));
        life.wait_for("written=100;");
        wait_until("five versions are stored", || world.changes().len() >= 5);
        let versions = world.changes();
        life.signal(libc::SIGTERM);
        let ended = life.end();
        let case = format!("{journal}: {}", ended.log);
        assert_eq!(ended.code, 0, "{case}");
        let mut newest = u64::MAX;
        for seq in versions.iter().take(8) {
            let stored = Tree::of(&copy(&world, *seq));
            if stored.content("login.db").is_none_or(<[u8]>::is_empty) {
                continue;
            }
            let count = restored(&world, &["--seq", &seq.to_string()]);
            assert!(count <= newest, "{count} after {newest}: {case}");
            newest = count;
        }
        let last = ended.log.rsplit_once("last=").expect("it said").1;
        let last: u64 = last
            .split(';')
            .next()
            .expect("one")
            .parse()
            .expect("a number");
        assert_eq!(restored(&world, &[]), last, "{case}");
    }
}

fn copy(world: &World, seq: u64) -> PathBuf {
    let to = world.path("copy");
    let _ = fs::remove_dir_all(&to);
    let output = world.command(&[
        "restore",
        "--seq",
        &seq.to_string(),
        "--to",
        to.to_str().expect("text"),
    ]);
    assert!(output.status.success(), "{output:?}");
    to
}

#[test]
fn files_that_are_only_named_like_a_databases_are_files_like_any_others() {
    let world = World::sqlite();
    world.write("notes-journal", "of nobody");
    world.write("a/data-wal", "of nobody");
    world.write("a/own", "no database");
    world.write("a/own-wal", "beside something else");
    world.write("a/own-shm", "beside something else");
    world.write("a/empty", "");
    world.write("a/empty-wal", "beside nothing yet");
    let db = rusqlite::Connection::open(world.dir().join("a/real.db")).expect("open");
    db.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t (n); INSERT INTO t VALUES (1)")
        .expect("make");
    let life = world.script(super::keeper::IDLE).ready();
    let names = [
        "notes-journal",
        "a/data-wal",
        "a/own",
        "a/own-wal",
        "a/own-shm",
        "a/empty-wal",
    ];
    wait_until("all are stored", || {
        world.stored().is_some_and(|stored| {
            names.iter().all(|name| stored.content(name).is_some())
                && stored.content("a/real.db").is_some()
        })
    });
    world.write("notes-journal", "changed");
    world.write("a/own-wal", "changed too");
    world.wait_until_stored("notes-journal", "changed");
    world.wait_until_stored("a/own-wal", "changed too");
    let stored = world.stored().expect("a tree");
    for sidecar in ["a/real.db-wal", "a/real.db-shm"] {
        assert!(world.dir().join(sidecar).exists(), "{sidecar}");
        assert_eq!(stored.content(sidecar), None, "{sidecar}");
    }
    drop(db);
    // A database now, with what belongs to it: the log of something else goes.
    fs::remove_file(world.dir().join("a/own-wal")).expect("remove");
    fs::remove_file(world.dir().join("a/own-shm")).expect("remove");
    fs::remove_file(world.dir().join("a/own")).expect("remove");
    let db = rusqlite::Connection::open(world.dir().join("a/own")).expect("open");
    db.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t (n); INSERT INTO t VALUES (1)")
        .expect("make");
    wait_until("it is a database", || {
        world.stored().is_some_and(|stored| {
            stored
                .content("a/own")
                .is_some_and(|bytes| bytes.starts_with(b"SQLite format 3"))
        })
    });
    let stored = world.stored().expect("a tree");
    assert_eq!(stored.content("a/own-wal"), None, "{}", life.log());
    assert_eq!(life.stop().code, 0);
}
