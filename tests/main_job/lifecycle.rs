//! A clean stop: nothing that the gateway wrote is lost, and its verdict is passed on.

use std::fs;
use std::time::Duration;

use super::keeper::{IDLE, World};
use super::mongod::Mongod;

#[test]
fn the_last_write_after_term_is_in_the_final_commit() {
    for world in World::both() {
        let script =
            "trap 'echo \"{\\\"last\\\":1}\" > creds.json; exit 0' TERM; sleep 1000 & wait";
        let life = world.script(script).ready();
        let ended = life.stop();
        assert_eq!(ended.code, 0, "{}", ended.log);
        assert!(ended.log.contains("stopped; all is saved"), "{}", ended.log);
        let stored = world.stored().expect("a tree");
        assert_eq!(stored.text("creds.json"), "{\"last\":1}\n");
    }
}

#[test]
fn what_a_detached_child_writes_a_second_after_the_gateways_end_is_saved() {
    for world in World::both() {
        let script = "setsid sh -c 'trap \"\" TERM; echo up > ready; \
                      while [ ! -e \"$P/go\" ]; do sleep 0.1; done; sleep 1; echo \"{}\" > late.json' & \
                      trap 'touch \"$P/go\"; exit 0' TERM; while :; do sleep 0.05; done";
        let life = world.script(script).ready();
        world.wait_until_stored("ready", "up\n");
        let ended = life.stop();
        assert_eq!(ended.code, 0, "{}", ended.log);
        assert_eq!(world.stored().expect("a tree").text("late.json"), "{}\n");
    }
}

#[test]
fn the_gateways_exit_code_is_passed_on() {
    for (script, code) in [
        ("trap 'exit 0' TERM; sleep 1000 & wait", 0),
        ("trap 'exit 3' TERM; sleep 1000 & wait", 3),
        ("exec sleep 1000", 143),
    ] {
        let world = World::mongo();
        let ended = world.script(script).ready().stop();
        assert_eq!(ended.code, code, "{}", ended.log);
        assert!(ended.log.contains("all is saved"), "{}", ended.log);
    }
}

#[test]
fn a_gateway_that_ends_by_itself_is_flushed_and_its_code_passed_on() {
    for world in World::both() {
        let ended = world
            .script("echo '{\"n\":1}' > creds.json; exit 5")
            .run_to_end();
        assert_eq!(ended.code, 5, "{}", ended.log);
        assert_eq!(
            world.stored().expect("a tree").text("creds.json"),
            "{\"n\":1}\n"
        );
    }
}

#[test]
fn a_flush_that_cannot_be_done_is_74_unless_the_gateway_had_an_own_verdict() {
    for (script, code) in [("exit 0", 74), ("exit 3", 3)] {
        let mongod = Mongod::start();
        let world = World::at(mongod.new_database_url());
        let script = format!("trap 'echo late > late; {script}' TERM; sleep 1000 & wait");
        let life = world
            .script(&script)
            .set("stop.total=5s")
            .set("stop.flush=2s")
            .ready();
        mongod.kill();
        let ended = life.stop();
        assert_eq!(ended.code, code, "{}", ended.log);
        assert!(
            ended.log.contains("NOT saved, keep the directory"),
            "{}",
            ended.log
        );
        assert!(ended.took < Duration::from_secs(15), "{:?}", ended.took);
        assert_eq!(world.read("late"), "late\n");
        // What the exit code's advice promises: the next start commits what is left.
        mongod.start_again();
        let next = world.script(IDLE).ready();
        world.wait_until_stored("late", "late\n");
        assert_eq!(next.stop().code, 0);
    }
}

#[test]
fn a_database_that_somebody_keeps_locked_at_the_end_is_not_called_saved() {
    let world = World::sqlite();
    fs::create_dir_all(world.dir()).expect("create");
    let path = world.dir().join("store.db");
    let fill = rusqlite::Connection::open(&path).expect("open");
    fill.execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (1)")
        .expect("fill");
    drop(fill);
    fs::write(world.dir().join("key.json"), "{}").expect("write");
    let life = world
        .script("trap 'echo \"{}\" > late.json; exit 0' TERM; sleep 1000 & wait")
        .set("stop.total=6s")
        .set("stop.flush=2s")
        .ready();
    world.wait_until_stored("key.json", "{}");
    // Held by none of the gateway's processes, so that no freeze helps either.
    let holder = rusqlite::Connection::open(&path).expect("open");
    holder
        .execute_batch("PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES (2)")
        .expect("write and keep the lock");
    let ended = life.stop();
    assert_eq!(ended.code, 74, "{}", ended.log);
    assert!(
        ended
            .log
            .contains("store.db is still being written, or locked"),
        "{}",
        ended.log
    );
    // Everything else is saved, and the next start takes what was left.
    assert_eq!(world.stored().expect("a tree").text("late.json"), "{}\n");
    drop(holder);
    let ended = world.script(IDLE).ready().stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    let copy = world.path("copy");
    let to = copy.display().to_string();
    assert!(world.command(&["restore", "--to", &to]).status.success());
    let rows: i64 = rusqlite::Connection::open(copy.join("store.db"))
        .and_then(|db| db.query_row("SELECT max(n) FROM t", [], |row| row.get(0)))
        .expect("rows");
    assert_eq!(rows, 2);
}

#[test]
fn a_gateway_that_ignores_term_is_killed_in_time_and_still_saved() {
    let world = World::mongo();
    let life = world
        .script("trap '' TERM; while :; do date +%s%N > ticks; sleep 0.1; done")
        .set("stop.total=5s")
        .set("stop.flush=3s")
        .ready();
    let ended = life.stop();
    assert_eq!(ended.code, 137, "{}", ended.log);
    assert!(
        ended.took >= Duration::from_millis(1500),
        "{:?}",
        ended.took
    );
    assert!(ended.took < Duration::from_secs(15), "{:?}", ended.took);
    assert!(ended.log.contains("all is saved"), "{}", ended.log);
    assert_eq!(
        world.stored().expect("a tree").text("ticks"),
        world.read("ticks")
    );
}
