//! What the directory holds against what the store holds: each row of the table of
//! `docs/restore.md`, with real lives.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::keeper::{IDLE, Tree, World, free_port, wait_until};
use super::mongod::Mongod;
use super::raw::damage_commit;

const LOGIN: &str = r#"{"me":"first"}"#;
const LATER: &str = r#"{"me":"first","messages":7}"#;

/// A life that leaves `creds.json` with `LOGIN`, and then with `LATER`, as commits of their own.
fn two_commits(world: &World) {
    let life = world.script(IDLE).ready();
    world.write("creds.json", LOGIN);
    world.wait_until_stored("creds.json", LOGIN);
    world.write("creds.json", LATER);
    world.wait_until_stored("creds.json", LATER);
    assert_eq!(life.stop().code, 0);
}

#[test]
fn a_store_that_does_not_answer_ends_the_start_with_69_and_no_gateway() {
    let world = World::at(format!("mongodb://127.0.0.1:{}/wa", free_port()));
    world.write("creds.json", LOGIN);
    let ended = world
        .script("touch \"$P/ran\"")
        .set("store.wait=2s")
        .run_to_end();
    assert_eq!(ended.code, 69, "{}", ended.log);
    assert!(ended.took < Duration::from_secs(20), "{:?}", ended.took);
    assert!(
        ended.log.contains("did not become ready within 2s"),
        "{}",
        ended.log
    );
    assert!(ended.log.contains("sessionkeep doctor"), "{}", ended.log);
    assert!(!world.path("ran").exists(), "the gateway was started");
    assert_eq!(world.read("creds.json"), LOGIN);
}

#[test]
fn a_directory_known_to_be_good_starts_without_the_store_and_is_saved_once_it_is_back() {
    let mongod = Mongod::start();
    let world = World::at(mongod.new_database_url());
    two_commits(&world);
    let before = world.changes().len();
    mongod.stop();
    let mut life = world
        .script(IDLE)
        .set("store.wait=1s")
        .set("store.unreachable=local")
        .start();
    life.wait_for("started role=gateway");
    assert!(life.log().contains("starting on the local directory"));
    world.write("session-1.json", "{\"n\":1}");
    world.write("session-2.json", "{\"n\":2}");
    life.wait_for("changes cannot be saved now");
    let gateway = life.process("gateway");
    mongod.start_again();
    world.wait_until_stored("session-2.json", "{\"n\":2}");
    assert_eq!(
        world.stored().expect("a tree").text("session-1.json"),
        "{\"n\":1}"
    );
    assert_eq!(life.process("gateway"), gateway);
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert_eq!(world.changes().len(), before + 1, "{}", ended.log);
}

#[test]
fn a_directory_of_which_nothing_is_known_does_not_start_without_the_store() {
    let world = World::at(format!("mongodb://127.0.0.1:{}/wa", free_port()));
    world.write("creds.json", LOGIN);
    let ended = world
        .script("touch \"$P/ran\"")
        .set("store.wait=1s")
        .set("store.unreachable=local")
        .run_to_end();
    assert_eq!(ended.code, 69, "{}", ended.log);
    assert!(!world.path("ran").exists(), "the gateway was started");
}

#[test]
fn with_nothing_anywhere_the_gateway_starts_on_an_empty_directory() {
    for world in World::both() {
        let script = format!("ls > \"$P/seen\"; echo '{LOGIN}' > creds.json; {IDLE}");
        let life = world.script(&script).ready();
        world.wait_until_stored("creds.json", format!("{LOGIN}\n"));
        assert_eq!(fs::read_to_string(world.path("seen")).expect("seen"), "");
        let ended = life.stop();
        assert_eq!(ended.code, 0, "{}", ended.log);
        assert!(
            ended
                .log
                .contains("nothing is stored yet and the directory holds no session")
        );
    }
}

#[test]
fn files_that_are_there_before_the_first_commit_are_adopted() {
    for world in World::both() {
        world.write("creds.json", LOGIN);
        world.write("deep/er/key.json", "{}");
        let life = world.script(IDLE).ready();
        world.wait_until_saved();
        assert_eq!(life.stop().code, 0);
        assert!(world.replaced().is_empty());
        assert_eq!(world.read("creds.json"), LOGIN);
    }
}

#[test]
fn an_unchanged_directory_is_kept_and_only_what_changed_meanwhile_is_committed() {
    for world in World::both() {
        world.write("other.json", "[1]");
        two_commits(&world);
        let inode = |name: &str| fs::metadata(world.dir().join(name)).expect("stat").ino();
        let (kept, head) = (inode("other.json"), world.head());
        world.write("creds.json", r#"{"me":"offline"}"#);
        let life = world.script(IDLE).ready();
        world.wait_until_saved();
        let ended = life.stop();
        assert_eq!(ended.code, 0);
        assert!(
            ended.log.contains("the directory is at the newest commit"),
            "{}",
            ended.log
        );
        assert_eq!(inode("other.json"), kept, "the file was written anew");
        assert!(world.replaced().is_empty());
        let newest = world.log();
        assert_eq!(newest[0]["seq"], head + 2, "a barrier and one commit");
        assert_eq!(newest[0]["changes"], 1);
    }
}

#[test]
fn a_directory_that_was_overtaken_is_replaced_and_set_aside() {
    for world in World::both() {
        two_commits(&world);
        let elsewhere = world.path("elsewhere");
        let life = world.script(IDLE).dir(elsewhere.clone()).ready();
        fs::write(elsewhere.join("creds.json"), r#"{"me":"newer"}"#).expect("write");
        world.wait_until_stored("creds.json", r#"{"me":"newer"}"#);
        assert_eq!(life.stop().code, 0);
        world.write("never-committed.json", "{}");
        let life = world.script(IDLE).ready();
        assert_eq!(world.read("creds.json"), r#"{"me":"newer"}"#);
        assert!(!world.dir().join("never-committed.json").exists());
        let ended = life.stop();
        assert!(
            ended.log.contains("another instance committed since"),
            "{}",
            ended.log
        );
        assert!(ended.log.contains("set aside"), "{}", ended.log);
        let [aside] = &world.replaced()[..] else {
            panic!("{:?}", world.replaced())
        };
        let old = Tree::of(aside);
        assert_eq!(old.text("creds.json"), LATER);
        assert_eq!(old.text("never-committed.json"), "{}");
        assert!(
            ended.log.contains(aside.to_str().expect("text")),
            "{}",
            ended.log
        );
    }
}

#[test]
fn files_without_a_marker_never_win_over_the_archive() {
    for world in World::both() {
        two_commits(&world);
        fs::remove_dir_all(world.dir().join(".sessionkeep")).expect("remove");
        world.write("creds.json", r#"{"me":"a stranger"}"#);
        let life = world.script(IDLE).ready();
        assert_eq!(world.read("creds.json"), LATER);
        let ended = life.stop();
        assert!(
            ended.log.contains("do not belong to this archive"),
            "{}",
            ended.log
        );
        let [aside] = &world.replaced()[..] else {
            panic!("{:?}", world.replaced())
        };
        assert_eq!(Tree::of(aside).text("creds.json"), r#"{"me":"a stranger"}"#);
        assert_eq!(world.stored().expect("a tree").text("creds.json"), LATER);
    }
}

#[test]
fn a_damaged_newest_commit_is_passed_over_and_the_archive_is_whole_again_afterwards() {
    for world in World::both() {
        two_commits(&world);
        let damaged = world.changes()[0];
        damage_commit(&world, damaged);
        assert_eq!(world.command(&["verify"]).status.code(), Some(1));
        world.wipe();
        let life = world.script(IDLE).ready();
        assert_eq!(world.read("creds.json"), LOGIN, "the newest whole one");
        let log = life.log();
        let named = format!("seq={damaged}");
        let told = log
            .lines()
            .any(|line| line.contains("cannot be restored") && line.contains(&named));
        assert!(told, "{log}");
        assert!(log.contains("the newest commits were damaged"), "{log}");
        world.write("session-1.json", "{\"n\":1}");
        world.wait_until_saved();
        assert_eq!(life.stop().code, 0);
        let verified = world.command(&["verify"]);
        assert_eq!(verified.status.code(), Some(0), "{verified:?}");
        world.wipe();
        let life = world.script(IDLE).ready();
        assert_eq!(world.read("creds.json"), LOGIN);
        assert_eq!(world.read("session-1.json"), "{\"n\":1}");
        assert_eq!(life.stop().code, 0);
    }
}

#[test]
fn a_directory_that_is_newer_than_a_damaged_commit_is_kept_and_committed_whole() {
    for world in World::both() {
        two_commits(&world);
        damage_commit(&world, world.changes()[0]);
        let life = world.script(IDLE).ready();
        assert_eq!(world.read("creds.json"), LATER);
        world.wait_until_saved();
        assert_eq!(life.stop().code, 0);
        let verified = world.command(&["verify"]);
        assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    }
}

#[test]
fn where_no_commit_is_whole_nothing_is_started_and_nothing_is_touched() {
    for world in World::both() {
        two_commits(&world);
        for seq in world.changes() {
            damage_commit(&world, seq);
        }
        world.wipe();
        let ended = world.script("touch \"$P/ran\"").run_to_end();
        assert_eq!(ended.code, 70, "{}", ended.log);
        assert!(
            ended.log.contains("no commit of this archive is whole"),
            "{}",
            ended.log
        );
        assert_eq!(Tree::of(&world.dir()), Tree::of(&world.path("nothing")));

        world.write("creds.json", r#"{"me":"a stranger"}"#);
        let before = Tree::of(&world.dir());
        let ended = world.script("touch \"$P/ran\"").run_to_end();
        assert_eq!(ended.code, 70, "{}", ended.log);
        assert_eq!(Tree::of(&world.dir()), before);
        assert!(world.replaced().is_empty());
        assert!(!world.path("ran").exists(), "the gateway was started");
    }
}

#[test]
fn a_lost_creds_json_comes_back_when_nothing_was_running() {
    for world in World::both() {
        two_commits(&world);
        world.write("session-1.json", "{\"n\":1}");
        fs::remove_file(world.dir().join("creds.json")).expect("remove");
        let life = world.script(IDLE).ready();
        assert_eq!(world.read("creds.json"), LATER);
        wait_until("it is said", || life.log().contains("lost its login"));
        assert_eq!(life.stop().code, 0);
        assert_eq!(world.stored().expect("a tree").text("creds.json"), LATER);
    }
}
