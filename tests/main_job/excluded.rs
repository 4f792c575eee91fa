//! What is not saved is told: named in the log, counted in the status, listed by a command.

use rusqlite::Connection;

use super::keeper::{IDLE, World, free_port, wait_until};

/// By their names alone, which say too little of what they are; and what lies beside a database.
const LEFT_OUT: [&str; 5] = [
    "media/picture.tmp",
    "media/SingletonPattern",
    "media/store.db-shm",
    "media/store.db-wal",
    "media/GPUCache",
];

#[test]
fn what_the_profile_leaves_out_is_named_once_counted_and_listed() {
    let world = World::sqlite();
    world.write("creds.json", "{}");
    std::fs::create_dir(world.dir().join("media")).expect("mkdir");
    let database = Connection::open(world.dir().join("media/store.db")).expect("open");
    database
        .execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t (n)")
        .expect("make");
    // Files like any others, beside nothing, or what is no database.
    world.write("photo-journal", "a photo's");
    world.write("media/tidal-wal", "a wall of water");
    for name in LEFT_OUT {
        match name {
            "media/store.db-shm" | "media/store.db-wal" => {}
            "media/GPUCache" => world.write("media/GPUCache/data_0", "cache"),
            name => world.write(name, "not what it seems"),
        }
    }
    nix::unistd::mkfifo(&world.dir().join("a pipe\n"), nix::sys::stat::Mode::S_IRWXU)
        .expect("mkfifo");
    let http = format!("http.port={}", free_port());
    let mut life = world
        .script(IDLE)
        .set(&http)
        .set("log.level=debug")
        .set("sync.rescan=1s")
        .ready();
    life.wait_for_count("entry is left out by the profile", LEFT_OUT.len());
    wait_until("it is counted", || {
        let status = world.json(&["status", "--json", "--set", &http]);
        status["running"]["excluded"] == LEFT_OUT.len()
    });
    let told = String::from_utf8(world.command(&["status", "--set", &http]).stdout).expect("text");
    assert!(told.contains("5 entries by the profile"), "{told}");
    let listed = world.json(&["excluded", "--json"]);
    assert_eq!(listed["count"], LEFT_OUT.len() + 1, "{listed}");
    for name in LEFT_OUT {
        let rows = listed["excluded"].as_array().expect("a list");
        let row = rows.iter().find(|row| row["path"] == name);
        let row = row.unwrap_or_else(|| panic!("{name}: {listed}"));
        assert!(!row["why"].as_str().expect("text").is_empty(), "{row}");
    }
    let told = String::from_utf8(world.command(&["excluded"]).stdout).expect("text");
    assert!(
        told.contains("a pipe\\n  a socket, pipe or device"),
        "{told}"
    );
    // Looked at again, nothing is named again.
    world.write("new.tmp", "x");
    life.wait_for_count("entry is left out by the profile", LEFT_OUT.len() + 1);
    let ended = life.stop();
    drop(database);
    assert_eq!(ended.code, 0, "{}", ended.log);
    let named = ended
        .log
        .matches("entry is left out by the profile")
        .count();
    assert_eq!(named, LEFT_OUT.len() + 1, "{}", ended.log);
}
