//! What is committed, and what never is: a good copy is not replaced by a bad one.

use std::fs;
use std::process::Command;

use super::keeper::{IDLE, World, free_port, http_json, wait_until};
use super::noise::noise;
use super::raw::packs;

const LOGIN: &str = r#"{"me":"first"}"#;

#[test]
fn a_large_first_upload_goes_into_packs_and_a_small_one_does_not() {
    for world in World::both() {
        world.write("small.json", "{}");
        let life = world.script(IDLE).ready();
        world.wait_until_saved();
        assert_eq!(packs(&world), 0);
        world.write("large.bin", noise(600 << 10));
        world.wait_until_saved();
        assert_eq!(packs(&world), 1);
        assert_eq!(life.stop().code, 0);
    }
}

#[test]
fn deletions_are_propagated_and_a_logout_is_a_commit_like_any_other() {
    for world in World::both() {
        let life = world.script(IDLE).ready();
        world.write("creds.json", LOGIN);
        world.write("pre-key-1.json", "{}");
        world.write("pre-key-2.json", "{}");
        world.write("gone/with/all.json", "{}");
        world.wait_until_saved();
        let login = world.head();
        fs::remove_file(world.dir().join("pre-key-1.json")).expect("remove");
        fs::remove_dir_all(world.dir().join("gone")).expect("remove");
        world.wait_until_saved();
        fs::remove_file(world.dir().join("creds.json")).expect("remove");
        world.wait_until_saved();
        assert_eq!(life.stop().code, 0);
        world.wipe();
        let life = world.script(IDLE).ready();
        let names = |dir: &std::path::Path| {
            let names = fs::read_dir(dir)
                .expect("read")
                .flatten()
                .map(|entry| entry.file_name());
            let mut names: Vec<_> = names.filter(|name| name != ".sessionkeep").collect();
            names.sort();
            names
        };
        assert_eq!(names(&world.dir()), ["pre-key-2.json"]);
        assert_eq!(life.stop().code, 0);
        // History keeps the past.
        let (to, seq) = (world.path("before"), login.to_string());
        let words = [
            "restore",
            "--seq",
            &seq,
            "--to",
            to.to_str().expect("text"),
            "--json",
        ];
        let told = world.json(&words);
        assert_eq!(told["seq"], login);
        assert_eq!(
            fs::read_to_string(to.join("creds.json")).expect("restored"),
            LOGIN
        );
        assert!(to.join("gone/with/all.json").exists());
    }
}

#[test]
fn a_directory_wiped_from_outside_is_not_committed() {
    for world in World::both() {
        let port = free_port();
        let mut life = world.script(IDLE).set(&format!("http.port={port}")).ready();
        world.write("creds.json", LOGIN);
        world.write("session-1.json", "{}");
        world.wait_until_saved();
        let head = world.head();
        for entry in fs::read_dir(world.dir()).expect("read").flatten() {
            let path = entry.path();
            if path.is_dir() {
                fs::remove_dir_all(path).expect("remove");
            } else {
                fs::remove_file(path).expect("remove");
            }
        }
        life.wait_for("was wiped from outside while running");
        let status = http_json("GET", port, "/status").expect("an answer");
        let problem = status["problem"].as_str().expect("text").to_owned();
        assert!(problem.contains("wiped from outside"), "{status}");
        let ended = life.stop();
        assert_eq!(ended.code, 74, "{}", ended.log);
        assert_eq!(world.head(), head, "the wipe was committed");
        let life = world.script(IDLE).ready();
        assert_eq!(world.read("creds.json"), LOGIN);
        assert_eq!(world.read("session-1.json"), "{}");
        assert_eq!(life.stop().code, 0);
    }
}

#[test]
fn a_directory_that_is_removed_altogether_is_not_committed() {
    for world in World::both() {
        let life = world.script(IDLE).ready();
        world.write("creds.json", LOGIN);
        world.wait_until_saved();
        let head = world.head();
        fs::remove_dir_all(world.dir()).expect("remove");
        // Even where an empty one takes its place, as a new mount would.
        fs::create_dir(world.dir()).expect("mkdir");
        wait_until("it is said", || life.log().contains("nothing is committed"));
        let ended = life.stop();
        assert_eq!(ended.code, 74, "{}", ended.log);
        assert_eq!(world.head(), head, "the loss was committed");
        assert_eq!(world.stored().expect("a tree").text("creds.json"), LOGIN);
    }
}

#[test]
fn credentials_that_are_replaced_by_a_directory_are_kept() {
    for world in World::both() {
        let mut life = world.script(IDLE).ready();
        world.write("creds.json", LOGIN);
        world.wait_until_saved();
        // Held, so that it sees both at once: one after the other would be a logout first.
        let held = life.hold_watcher();
        fs::remove_file(world.dir().join("creds.json")).expect("remove");
        fs::create_dir(world.dir().join("creds.json")).expect("mkdir");
        drop(held);
        life.wait_for("was replaced by something else");
        let ended = life.stop();
        assert_eq!(ended.code, 74, "{}", ended.log);
        assert_eq!(world.stored().expect("a tree").text("creds.json"), LOGIN);
    }
}

#[test]
fn what_is_no_file_is_skipped_with_a_word_and_the_rest_goes_on() {
    let world = World::mongo();
    let script = format!("mkfifo pipe; ln -s /etc/passwd absolute; ln -s ../../x escaping; {IDLE}");
    let life = world.script(&script).ready();
    world.write("creds.json", LOGIN);
    world.wait_until_stored("creds.json", LOGIN);
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    for name in ["pipe", "absolute", "escaping"] {
        let told = ended
            .log
            .lines()
            .any(|line| line.contains("WARN") && line.contains(name));
        assert!(told, "{name} in {}", ended.log);
        assert!(!world.stored().expect("a tree").has(name));
    }
}

#[test]
fn a_file_that_may_not_be_read_is_reported_and_the_rest_goes_on() {
    let world = World::mongo();
    let works = Command::new("setpriv")
        .args(["--reuid=12345", "--regid=12345", "--clear-groups", "true"])
        .status();
    if !works.is_ok_and(|status| status.success()) {
        crate::policy::cannot_run("no other user can be taken");
        return;
    }
    fs::create_dir(world.dir()).expect("mkdir");
    std::os::unix::fs::chown(world.dir(), Some(12345), Some(12345)).expect("chown");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(world.path("."), open).expect("chmod");
    let life = world
        .script(&format!(
            "(umask 777; echo 1 > closed); echo '{LOGIN}' > creds.json; {IDLE}"
        ))
        .before(&[
            "setpriv",
            "--reuid=12345",
            "--regid=12345",
            "--clear-groups",
        ])
        .ready();
    wait_until("creds.json is stored", || {
        world.stored().is_some_and(|tree| tree.has("creds.json"))
    });
    let ended = life.stop();
    // It is the gateway's, and is not called saved.
    assert_eq!(ended.code, 74, "{}", ended.log);
    assert!(
        ended.log.contains("closed cannot be read: "),
        "{}",
        ended.log
    );
    let told = ended
        .log
        .lines()
        .any(|line| line.contains("WARN") && line.contains("closed"));
    assert!(told, "{}", ended.log);
    // The next life cannot read it either, and does not say that this is over until it can.
    let mut life = world
        .script(IDLE)
        .before(&[
            "setpriv",
            "--reuid=12345",
            "--regid=12345",
            "--clear-groups",
        ])
        .set("sync.rescan=1s")
        .ready();
    let over = "over: The last changes before a stop were not saved";
    assert!(!life.log().contains(over), "{}", life.log());
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(world.dir().join("closed"), readable).expect("chmod");
    life.wait_for(over);
    assert!(world.stored().is_some_and(|tree| tree.has("closed")));
    assert_eq!(life.stop().code, 0);
}
