//! A restore brings back exactly what was there, and takes nothing from an archive that must not
//! be written.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use rusqlite::Connection;

use super::keeper::{IDLE, Tree, World};
use super::noise::noise;
use super::raw::packs;
use super::small::Small;

fn rich_tree(world: &World) {
    world.write("creds.json", r#"{"me":1}"#);
    world.write("keys/pre-key-1.json", r#"{"n":1}"#);
    world.write("empty-file", "");
    world.write("large.bin", noise(3 << 20));
    world.write("with space and ünïcode 📱.json", "[]");
    let dir = world.dir();
    fs::write(dir.join(OsStr::from_bytes(b"not-utf8-\xff\xfe")), "raw").expect("write");
    fs::create_dir_all(dir.join("empty/nested")).expect("mkdir");
    symlink("../creds.json", dir.join("keys/link")).expect("symlink");
    symlink("nowhere", dir.join("dangling")).expect("symlink");
    let set_mode = |name: &str, mode| {
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).expect("chmod");
    };
    set_mode("keys/pre-key-1.json", 0o600);
    set_mode("empty-file", 0o444);
    set_mode("large.bin", 0o4755);
    set_mode("empty/nested", 0o700);
    let set_time = |name: &str, time| {
        let file = File::open(dir.join(name)).expect("open");
        file.set_modified(time).expect("set the time");
    };
    set_time(
        "creds.json",
        UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789),
    );
    set_time("keys/pre-key-1.json", UNIX_EPOCH - Duration::new(5, 1));
}

#[test]
fn a_wiped_directory_comes_back_exactly_as_it_was() {
    for world in World::both() {
        rich_tree(&world);
        let db = world.dir().join("store.db");
        let live = Connection::open(&db).expect("open");
        live.pragma_update(None, "journal_mode", "WAL")
            .expect("WAL");
        live.execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (1), (2), (3);")
            .expect("fill");
        let life = world.script(IDLE).ready();
        // Grows while the gateway runs, too.
        live.execute_batch("INSERT INTO t VALUES (4)")
            .expect("insert");
        world.write("keys/pre-key-2.json", r#"{"n":2}"#);
        drop(live);
        assert_eq!(life.stop().code, 0);
        let mut before = Tree::of(&world.dir());
        assert!(packs(&world) > 0, "three incompressible MiB go into packs");
        world.wipe();

        let life = world.script(IDLE).ready();
        let sum: i64 = Connection::open(&db)
            .expect("open")
            .query_row("SELECT sum(n) FROM t", [], |row| row.get(0))
            .expect("query");
        assert_eq!(sum, 10);
        assert_eq!(life.stop().code, 0);
        let mut after = Tree::of(&world.dir());
        for name in ["store.db", "store.db-wal", "store.db-shm"] {
            // Whole, but not byte for byte: what lay in the log is in the file now.
            before.take(name.as_bytes());
            after.take(name.as_bytes());
        }
        assert_eq!(after, before);
        assert_eq!(
            fs::metadata(world.dir().join("large.bin"))
                .expect("stat")
                .len(),
            3 << 20
        );
    }
}

#[test]
fn directories_come_back_with_their_times() {
    use std::os::unix::fs::MetadataExt;
    for world in World::both() {
        world.write("a/b/file", "x");
        let life = world.script(IDLE).ready();
        world.wait_until_stored("a/b/file", "x");
        assert_eq!(life.stop().code, 0);
        let time = |name: &str| {
            let meta = fs::metadata(world.dir().join(name)).expect("stat");
            (meta.mtime(), meta.mtime_nsec())
        };
        let before = (time("a"), time("a/b"));
        world.wipe();
        let life = world.script(IDLE).ready();
        assert_eq!((time("a"), time("a/b")), before);
        assert_eq!(life.stop().code, 0);
    }
}

#[test]
fn a_disk_that_is_too_small_for_a_restore_keeps_what_it_holds() {
    let world = World::sqlite();
    let life = world.script(IDLE).ready();
    world.write("creds.json", r#"{"me":1}"#);
    world.write("large.bin", noise(30 << 20));
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
    world.wipe();
    let dir = world.dir();
    let Some(_mounted) = Small::mount(&dir, "size=24m") else {
        return;
    };
    world.write("creds.json", r#"{"me":"old"}"#);
    let before = Tree::of(&dir);
    let ended = world.script("touch \"$P/ran\"").run_to_end();
    assert_eq!(ended.code, 70, "{}", ended.log);
    assert!(
        ended.log.contains("the directory is as it was"),
        "{}",
        ended.log
    );
    let told = ended.log.contains("No space left") || ended.log.contains("space");
    assert!(told, "{}", ended.log);
    assert_eq!(Tree::of(&dir), before);
    assert!(!world.path("ran").exists(), "the gateway was started");
    let used: u64 = walk_bytes(&dir);
    assert!(used < 1 << 20, "{used} bytes of the attempt are left");
}

fn walk_bytes(dir: &std::path::Path) -> u64 {
    let entries = fs::read_dir(dir).expect("read").flatten();
    entries
        .map(|entry| {
            let meta = entry.metadata().expect("stat");
            if meta.is_dir() {
                walk_bytes(&entry.path())
            } else {
                meta.len()
            }
        })
        .sum()
}
