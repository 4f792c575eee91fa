//! A logout and a new login, as gateways do it: they delete their files, or their whole folder, and begin
//! anew. That is saved. The same login without most of its files is somebody's `rm -rf`, and is not.

use std::fs;
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use serde_json::Value;

use super::keeper::{IDLE, Life, World, free_port, http_json, send, wait_until};

/// What `creds.json` holds of a login, with as much around it as decides nothing.
fn creds(login: &str) -> String {
    format!(r#"{{"noiseKey":{{"private":"{login}"}},"registrationId":7,"me":{{"id":"49@s"}}}}"#)
}

/// A directory with a login of `files` key files, committed.
fn logged_in(world: &World, files: u32) -> u64 {
    for n in 0..files {
        world.write(&format!("pre-key-{n}.json"), format!("{{\"n\":{n}}}"));
    }
    world.write("creds.json", creds("OLD"));
    world.wait_until_saved();
    world.head()
}

const NEW_LOGIN: &str = "A new login took the place of the saved one";

#[track_caller]
fn expect_saved_anew(world: &World, mut life: Life, before: u64) {
    world.wait_until_stored("creds.json", creds("NEW"));
    life.wait_for(NEW_LOGIN);
    let back = format!("sessionkeep restore --seq {before}");
    assert!(life.log().contains(&back), "{}", life.log());
    assert!(world.dir().join(".sessionkeep/lock").exists());
    // It is watched as ever.
    world.write("session-1.json", "{\"after\":1}");
    world.wait_until_stored("session-1.json", "{\"after\":1}");
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert!(
        ended.log.contains("stopped; all is saved code=0"),
        "{}",
        ended.log
    );
    assert!(!world.stored().expect("a tree").has("pre-key-1.json"));
    // The kept disk stays, and so does the login on a new one.
    let ended = world.script(IDLE).ready().stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert_eq!(world.read("creds.json"), creds("NEW"), "{}", ended.log);
    assert!(world.replaced().is_empty(), "{}", ended.log);
    world.wipe();
    let ended = world.script(IDLE).ready().stop();
    assert_eq!(world.read("creds.json"), creds("NEW"), "{}", ended.log);
    // And the way back is what the incident says.
    let to = world.path("before");
    let (to, seq) = (to.to_str().expect("text"), before.to_string());
    world.json(&["restore", "--seq", &seq, "--to", to, "--json"]);
    let old = fs::read_to_string(Path::new(to).join("creds.json"));
    assert_eq!(old.expect("restored"), creds("OLD"));
    assert_eq!(ended.code, 0, "{}", ended.log);
}

#[test]
fn a_folder_that_is_deleted_at_a_logout_and_made_anew_is_followed_and_the_new_login_saved() {
    for world in World::both() {
        let life = world.script(IDLE).ready();
        let before = logged_in(&world, 6);
        fs::remove_dir_all(world.dir()).expect("remove");
        wait_until("it is said", || life.log().contains("nothing is committed"));
        fs::create_dir(world.dir()).expect("mkdir");
        world.write("creds.json", creds("NEW"));
        expect_saved_anew(&world, life, before);
    }
}

#[test]
fn a_folder_that_is_moved_away_and_made_anew_is_followed() {
    let world = World::sqlite();
    let life = world.script(IDLE).ready();
    let before = logged_in(&world, 6);
    fs::rename(world.dir(), world.path("session.old")).expect("rename");
    fs::create_dir(world.dir()).expect("mkdir");
    world.write("creds.json", creds("NEW"));
    expect_saved_anew(&world, life, before);
    let away = world.path("session.old/creds.json");
    assert_eq!(fs::read_to_string(away).expect("stays"), creds("OLD"));
}

/// What a gateway does to a mount point, which it cannot remove.
fn empty(dir: &Path) {
    let words = ["-mindepth", "1", "-delete"];
    let done = Command::new("find").arg(dir).args(words).status();
    assert!(done.expect("find").success());
}

#[test]
fn a_directory_that_is_emptied_and_filled_with_a_new_login_is_saved() {
    for world in World::both() {
        let mut life = world.script(IDLE).ready();
        let before = logged_in(&world, 6);
        empty(&world.dir());
        life.wait_for("was wiped from outside while running");
        assert_eq!(world.head(), before, "{}", life.log());
        world.write("creds.json", creds("NEW"));
        expect_saved_anew(&world, life, before);
    }
}

#[test]
fn a_watcher_that_dies_between_a_logout_and_the_new_login_changes_nothing() {
    let world = World::sqlite();
    let mut life = world.script(IDLE).ready();
    let before = logged_in(&world, 6);
    send(life.process("watcher"), libc::SIGSTOP);
    fs::remove_dir_all(world.dir()).expect("remove");
    fs::create_dir(world.dir()).expect("mkdir");
    world.write("creds.json", creds("NEW"));
    send(life.process("watcher"), libc::SIGKILL);
    life.wait_for_count("started role=watcher", 2);
    expect_saved_anew(&world, life, before);
}

#[test]
fn where_no_login_is_known_what_appears_is_saved() {
    let world = World::sqlite();
    let mut life = world.script(IDLE).ready();
    for name in ["a", "b", "c"] {
        world.write(name, "old");
    }
    world.wait_until_saved();
    fs::remove_dir_all(world.dir()).expect("remove");
    world.write("other", "new");
    world.wait_until_stored("other", "new");
    life.wait_for(NEW_LOGIN);
    assert!(!world.stored().expect("a tree").has("a"));
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
}

/// An `rm -rf` under a gateway that writes its `creds.json` on from memory.
#[test]
fn the_same_login_without_most_of_its_files_is_refused_until_a_restart_brings_all_back() {
    for world in World::both() {
        let port = free_port();
        let mut life = world.script(IDLE).set(&format!("http.port={port}")).ready();
        let before = logged_in(&world, 6);
        fs::remove_dir_all(world.dir()).expect("remove");
        fs::create_dir(world.dir()).expect("mkdir");
        world.write("creds.json", creds("OLD"));
        life.wait_for("goes on writing the same login (creds.json)");
        let status = http_json("GET", port, "/status").expect("an answer");
        assert!(incident(&status, "directory_wiped"), "{status}");
        let ended = life.stop();
        assert_eq!(ended.code, 74, "{}", ended.log);
        let last = ended.log.lines().rfind(|line| line.contains("NOT saved"));
        let promised = "restart to restore it";
        assert!(last.is_some_and(|l| l.contains(promised)), "{}", ended.log);
        assert_eq!(world.head(), before, "{}", ended.log);
        // What was promised is what happens.
        let life = world.script(IDLE).ready();
        assert_eq!(world.read("pre-key-5.json"), "{\"n\":5}");
        let log = life.log();
        assert!(
            log.contains("was wiped while in use, and holds no new login"),
            "{log}"
        );
        assert_eq!(world.replaced().len(), 1, "what was there is set aside");
        assert_eq!(life.stop().code, 0);
    }
}

fn incident(status: &Value, kind: &str) -> bool {
    let incidents = status["incidents"].as_array();
    incidents.is_some_and(|all| all.iter().any(|one| one["kind"] == kind))
}

#[test]
fn a_directory_that_is_deleted_and_not_made_again_comes_back_with_the_next_start() {
    for world in World::both() {
        let life = world.script(IDLE).ready();
        let before = logged_in(&world, 3);
        fs::remove_dir_all(world.dir()).expect("remove");
        wait_until("it is said", || life.log().contains("nothing is committed"));
        let ended = life.stop();
        assert_eq!(ended.code, 74, "{}", ended.log);
        let words = "was deleted, or moved away";
        assert!(ended.log.contains(words), "{}", ended.log);
        assert!(ended.log.contains("restart to restore it"), "{}", ended.log);
        assert_eq!(world.head(), before);
        let life = world.script(IDLE).ready();
        assert_eq!(world.read("creds.json"), creds("OLD"));
        assert_eq!(life.stop().code, 0);
    }
}

#[test]
fn our_own_directory_is_made_anew_where_only_that_is_removed() {
    for world in World::both() {
        let mut life = world.script(IDLE).ready();
        logged_in(&world, 3);
        fs::remove_dir_all(world.dir().join(".sessionkeep")).expect("remove");
        // Whatever changes brings the watcher to look.
        fs::remove_file(world.dir().join("pre-key-0.json")).expect("remove");
        world.write("late.json", "{}");
        life.wait_for("is made anew");
        world.wait_until_saved();
        let ended = life.stop();
        assert_eq!(ended.code, 0, "{}", ended.log);
        assert!(
            ended.log.contains("stopped; all is saved code=0"),
            "{}",
            ended.log
        );
        assert!(!ended.log.contains(NEW_LOGIN), "{}", ended.log);
        let ended = world.script(IDLE).ready().stop();
        assert_eq!(ended.code, 0, "{}", ended.log);
        assert!(world.replaced().is_empty(), "{}", ended.log);
        assert_eq!(world.read("late.json"), "{}");
    }
}

/// Killed before it could judge, the marker has the next start do so.
#[test]
fn a_kept_disk_that_was_made_anew_and_not_judged_is_judged_by_the_next_start() {
    for (login, kept) in [("NEW", true), ("OLD", false)] {
        let world = World::sqlite();
        let life = world.script(IDLE).ready();
        logged_in(&world, 6);
        assert_eq!(life.stop().code, 0);
        let marker = world.dir().join(".sessionkeep/state.json");
        let text = fs::read_to_string(&marker).expect("a marker");
        let mut value: Value = serde_json::from_str(&text).expect("JSON");
        value["unjudged"] = true.into();
        for n in 0..6 {
            fs::remove_file(world.dir().join(format!("pre-key-{n}.json"))).expect("remove");
        }
        world.write("creds.json", creds(login));
        fs::write(&marker, value.to_string()).expect("write");
        let life = world.script(IDLE).ready();
        world.wait_until_saved();
        let log = life.log();
        assert_eq!(world.read("creds.json"), creds(login), "{log}");
        assert_eq!(log.contains(NEW_LOGIN), kept, "{log}");
        assert_eq!(world.replaced().is_empty(), kept, "{log}");
        assert_eq!(world.dir().join("pre-key-1.json").exists(), !kept, "{log}");
        assert_eq!(life.stop().code, 0);
    }
}

/// What shows through below a mount, and what is mounted over, is not the gateway's.
#[test]
fn a_directory_that_is_unmounted_or_mounted_over_is_never_taken_for_a_new_login() {
    let works = Command::new("unshare")
        .args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"])
        .status();
    if !works.is_ok_and(|status| status.success()) {
        crate::policy::cannot_run("nothing can be mounted");
        return;
    }
    let go = "while [ ! -e \"$P/go\" ]; do sleep 0.1; done";
    let fresh = format!("echo '{}' > \"$S/creds.json\"", creds("NEW"));
    // `$P/other` is of the same file system as what it covers.
    for (before, away) in [
        ("mount -t tmpfs none \"$S\"", "umount -l \"$S\""),
        ("mount --bind \"$P/own\" \"$S\"", "umount -l \"$S\""),
        ("true", "mount --bind \"$P/other\" \"$S\""),
    ] {
        let world = World::sqlite();
        for name in ["session", "own", "other"] {
            fs::create_dir(world.path(name)).expect("mkdir");
        }
        let first = format!("echo '{}' > creds.json; echo 1 > key", creds("OLD"));
        let script = format!("{first}; {go}; cd /; {away}; {fresh}; {IDLE}");
        let mounted = format!("{before} && exec \"$@\"");
        let mut life = world
            .script(&script)
            .before(&["unshare", "--mount", "sh", "-c", &mounted, "sh"])
            // Neither is told of by the kernel, while the old one is held open.
            .set("sync.rescan=1s")
            .start();
        wait_until("it is stored", || {
            world
                .stored()
                .is_some_and(|tree| tree.has("key") && tree.has("creds.json"))
        });
        let head = world.head();
        fs::write(world.path("go"), "").expect("write");
        life.wait_for("was unmounted, or something was mounted over it");
        life.wait_for("the gateway idles\n");
        let ended = life.stop();
        assert_eq!(ended.code, 74, "{away}: {}", ended.log);
        assert_eq!(world.head(), head, "{away}: {}", ended.log);
        assert!(!ended.log.contains(NEW_LOGIN), "{away}: {}", ended.log);
    }
}

/// As whatsmeow and WAHA's GOWS keep it.
fn device(world: &World, name: &str, rows: &str) {
    let path = world.dir().join(name);
    fs::create_dir_all(path.parent().expect("a directory")).expect("mkdir");
    let db = Connection::open(path).expect("open");
    let table =
        "CREATE TABLE IF NOT EXISTS whatsmeow_device (jid TEXT PRIMARY KEY, noise_key BLOB)";
    db.execute_batch(&format!("{table}; DELETE FROM whatsmeow_device; {rows}"))
        .expect("write");
}

fn row(key: &str) -> String {
    format!("INSERT INTO whatsmeow_device VALUES ('49:1@s.whatsapp.net', x'{key}')")
}

fn keys(file: &Path) -> Vec<Vec<u8>> {
    let db = Connection::open(file).expect("open");
    let mut rows = db
        .prepare("SELECT noise_key FROM whatsmeow_device")
        .expect("a table");
    let rows = rows.query_map([], |row| row.get(0)).expect("rows");
    rows.map(|row| row.expect("a key")).collect()
}

#[test]
fn a_login_in_a_database_is_told_as_logged_in_and_logged_out() {
    let world = World::sqlite();
    let port = free_port();
    let life = world
        .script(IDLE)
        .profile("waha")
        .set(&format!("http.port={port}"))
        .ready();
    let told = || {
        let status = http_json("GET", port, "/status").expect("an answer");
        let all = status["incidents"].as_array().cloned().unwrap_or_default();
        let lasts = |one: &Value| one["kind"] == "logged_out" && one["until_ms"].is_null();
        all.iter().any(lasts)
    };
    device(&world, "gows/default/gows.db", &row("01"));
    world.wait_until_saved();
    assert!(!told(), "{}", life.log());
    device(&world, "gows/default/gows.db", "");
    wait_until("it is told", told);
    device(&world, "gows/default/gows.db", &row("02"));
    wait_until("it is over", || !told());
    assert_eq!(life.stop().code, 0);
}

#[test]
fn a_kept_disk_that_lost_its_database_with_the_login_gets_it_back() {
    for world in World::both() {
        let life = world.script(IDLE).ready();
        device(&world, "session.db", &row("01"));
        world.write("config.json", "{}");
        world.wait_until_saved();
        assert_eq!(life.stop().code, 0);
        // A gateway that finds no database makes one, without a device.
        fs::remove_file(world.dir().join("session.db")).expect("remove");
        device(&world, "session.db", "");
        let life = world.script(IDLE).ready();
        let log = life.log();
        assert!(
            log.contains("has lost its login while nothing was running"),
            "{log}"
        );
        assert_eq!(keys(&world.dir().join("session.db")), [[1]], "{log}");
        assert_eq!(life.stop().code, 0);
    }
}

#[test]
fn a_new_login_in_a_database_is_saved_and_the_same_one_from_memory_is_not() {
    for (key, saved) in [("02", true), ("01", false)] {
        let world = World::sqlite();
        let life = world.script(IDLE).ready();
        device(&world, "session.db", &row("01"));
        for name in ["a.json", "b.json", "c.json"] {
            world.write(name, "{}");
        }
        world.wait_until_saved();
        let head = world.head();
        fs::remove_dir_all(world.dir()).expect("remove");
        fs::create_dir(world.dir()).expect("mkdir");
        device(&world, "session.db", &row(key));
        let words = match saved {
            true => NEW_LOGIN,
            false => "goes on writing the same login (session.db)",
        };
        wait_until("it is told", || life.log().contains(words));
        let ended = life.stop();
        assert_eq!(ended.code, if saved { 0 } else { 74 }, "{}", ended.log);
        assert_eq!(world.head() == head, !saved, "{}", ended.log);
    }
}

#[test]
fn a_database_with_a_login_is_not_replaced_by_something_else() {
    let world = World::sqlite();
    let mut life = world.script(IDLE).ready();
    device(&world, "session.db", &row("01"));
    world.wait_until_saved();
    let held = life.hold_watcher();
    fs::remove_file(world.dir().join("session.db")).expect("remove");
    fs::create_dir(world.dir().join("session.db")).expect("mkdir");
    drop(held);
    life.wait_for("was replaced by something else");
    let ended = life.stop();
    assert_eq!(ended.code, 74, "{}", ended.log);
    assert!(
        world
            .stored()
            .expect("a tree")
            .content("session.db")
            .is_some()
    );
}
