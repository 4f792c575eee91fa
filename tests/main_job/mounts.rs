//! Mounts below the session directory: a volume of its own for a subdirectory, and single files.

use std::fs;

use super::keeper::{IDLE, Life, Tree, World, free_port, http_json, wait_until};
use super::small::Small;

const LOGIN: &str = r#"{"me":"first"}"#;

/// A world whose `default` is a volume, with a login in it that is saved.
fn with_a_volume() -> Option<(World, Small)> {
    let world = World::sqlite();
    let volume = Small::mount(&world.dir().join("default"), "size=4m")?;
    Some((world, volume))
}

#[test]
fn a_login_on_a_volume_of_its_own_comes_back_onto_a_new_one() {
    let Some((world, volume)) = with_a_volume() else {
        return;
    };
    let life = world.script(IDLE).ready();
    world.write("default/creds.json", LOGIN);
    world.write("default/keys/1.json", "[1]");
    world.write("beside.json", "{}");
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
    let stored = Tree::of(&world.dir());
    // New disks, and something else on them.
    drop(volume);
    world.wipe();
    let volume = Small::mount(&world.dir().join("default"), "size=4m");
    let _volume = volume.expect("it could be mounted before");
    world.write("default/creds.json", r#"{"me":"another"}"#);
    let life = world.script(IDLE).ready();
    assert_eq!(Tree::of(&world.dir()), stored, "{}", life.log());
    let aside = world.replaced()[0].join("default/creds.json");
    let aside = fs::read_to_string(aside).expect("set aside");
    assert_eq!(aside, r#"{"me":"another"}"#);
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
}

#[test]
fn a_torn_file_on_a_volume_is_mended_there() {
    let Some((world, _volume)) = with_a_volume() else {
        return;
    };
    let life = world.script(IDLE).ready();
    world.write("default/creds.json", LOGIN);
    world.wait_until_saved();
    life.kill_tree();
    world.write("default/creds.json", r#"{"me":"fir"#);
    let life = world.script(IDLE).ready();
    assert_eq!(world.read("default/creds.json"), LOGIN, "{}", life.log());
    assert_eq!(life.stop().code, 0);
}

/// Stores a login and a configuration, and mounts `name` from outside at the next start.
fn with_a_mounted_file(name: &str, own: &str) -> Option<(World, Small)> {
    let world = World::sqlite();
    let life = world.script(IDLE).ready();
    world.write("creds.json", LOGIN);
    world.write("config.yaml", "archived");
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
    world.wipe();
    fs::write(world.path("host"), own).expect("write");
    // As a container engine makes a place for it.
    world.write(name, "");
    let bound = Small::bind(&world.path("host"), &world.dir().join(name))?;
    Some((world, bound))
}

#[test]
fn a_configuration_that_is_mounted_as_a_file_is_left_as_it_is_and_the_rest_is_restored() {
    let Some((world, _bound)) = with_a_mounted_file("config.yaml", "the operator's") else {
        return;
    };
    let life = world.script(IDLE).ready();
    assert_eq!(world.read("creds.json"), LOGIN, "{}", life.log());
    assert_eq!(world.read("config.yaml"), "the operator's");
    let log = life.log();
    assert!(log.contains("is left as it is"), "{log}");
    world.wait_until_stored("config.yaml", "the operator's");
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
}

#[test]
fn a_mounted_file_of_a_login_with_other_content_is_refused_before_anything_is_touched() {
    let Some((world, _bound)) = with_a_mounted_file("creds.json", "{}") else {
        return;
    };
    world.write("other", "here");
    let before = Tree::of(&world.dir());
    for _ in 0..2 {
        let ended = world.script("touch \"$P/ran\"").run_to_end();
        assert_eq!(ended.code, 78, "{}", ended.log);
        let told = "mount the whole session directory";
        assert!(ended.log.contains(told), "{}", ended.log);
        assert_eq!(Tree::of(&world.dir()), before, "{}", ended.log);
    }
    assert!(!world.path("ran").exists(), "the gateway was started");
    assert!(world.replaced().is_empty());
}

/// Waits until the watcher has refused to commit, with these words.
fn wait_for_refusal(life: &mut Life, words: &str) {
    life.wait_for("nothing is committed");
    life.wait_for(words);
}

#[test]
fn a_volume_that_goes_away_while_running_is_not_committed_as_deleted() {
    let Some((world, volume)) = with_a_volume() else {
        return;
    };
    // An older login, which shows through.
    drop(volume);
    world.write("default/creds.json", r#"{"me":"older"}"#);
    let again = Small::mount(&world.dir().join("default"), "size=4m");
    let volume = again.expect("it could be mounted before");
    let (settings, port) = (["sync.rescan=1s"], free_port());
    let mut life = world
        .script(IDLE)
        .set(settings[0])
        .set(&format!("http.port={port}"))
        .ready();
    world.write("default/creds.json", LOGIN);
    world.write("default/keys/1.json", "[1]");
    world.write("beside.json", "{}");
    world.wait_until_saved();
    let stored = world.stored().expect("a tree");
    drop(volume);
    wait_for_refusal(&mut life, "was a mount and is none now");
    // What the gateway goes on writing is not taken for the login either.
    world.write("default/creds.json", r#"{"me":"new and small"}"#);
    world.write("default/keys/2.json", "[2]");
    wait_until("an incident tells of it", || {
        http_json("GET", port, "/status")
            .is_some_and(|status| status.to_string().contains("mount_changed"))
    });
    assert_eq!(world.stored(), Some(stored), "{}", life.log());
    let ended = life.stop();
    assert_eq!(ended.code, 74, "{}", ended.log);
    assert!(ended.log.contains("is none now"), "{}", ended.log);
    assert_eq!(
        world.stored().expect("a tree").text("default/creds.json"),
        LOGIN
    );
    // And not by the next start on this disk, whatever it was that took it away.
    for local in [false, true] {
        let setup = world.script("touch \"$P/ran\"");
        let setup = match local {
            true => setup
                .env("MONGO_URL", "mongodb://127.0.0.1:9/none")
                .set("store.wait=100ms")
                .set("store.unreachable=local"),
            false => setup,
        };
        let ended = setup.run_to_end();
        assert_eq!(ended.code, 78, "{}", ended.log);
        assert!(ended.log.contains("Mount it again"), "{}", ended.log);
    }
    assert!(!world.path("ran").exists(), "the gateway was started");
    assert_eq!(
        world.stored().expect("a tree").text("default/creds.json"),
        LOGIN
    );
    // Its files lie in the directory itself from now on.
    fs::remove_file(world.dir().join(".sessionkeep/mounts.json")).expect("remove");
    let life = world.script(IDLE).ready();
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
}

#[test]
fn a_volume_that_comes_back_is_gone_on_with() {
    let world = World::sqlite();
    let elsewhere = world.path("volume");
    fs::create_dir(&elsewhere).expect("mkdir");
    let at = world.dir().join("default");
    fs::create_dir_all(&at).expect("mkdir");
    let Some(bound) = Small::bind(&elsewhere, &at) else {
        return;
    };
    let mut life = world.script(IDLE).set("sync.rescan=1s").ready();
    world.write("default/creds.json", LOGIN);
    world.wait_until_saved();
    drop(bound);
    wait_for_refusal(&mut life, "was a mount and is none now");
    let _bound = Small::bind(&elsewhere, &at).expect("it could be mounted before");
    world.write("default/after.json", "{}");
    world.wait_until_saved();
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
}

#[test]
fn what_is_mounted_over_saved_files_does_not_delete_them() {
    let world = World::sqlite();
    let mut life = world.script(IDLE).set("sync.rescan=1s").ready();
    world.write("default/creds.json", LOGIN);
    world.wait_until_saved();
    let Some(covering) = Small::mount(&world.dir().join("default"), "size=1m") else {
        return;
    };
    wait_for_refusal(&mut life, "something was mounted at");
    drop(covering);
    world.write("default/after.json", "{}");
    world.wait_until_saved();
    // One that covers nothing is like any other directory.
    let new = Small::mount(&world.dir().join("new"), "size=1m").expect("it could be mounted");
    world.write("new/file.json", "{}");
    world.wait_until_saved();
    drop(new);
    life.wait_for("was a mount and is none now");
    let ended = life.stop();
    assert_eq!(ended.code, 74, "{}", ended.log);
}

#[test]
fn a_volume_whose_files_were_moved_into_the_directory_is_not_missed() {
    let Some((world, volume)) = with_a_volume() else {
        return;
    };
    let life = world.script(IDLE).ready();
    world.write("default/creds.json", LOGIN);
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
    drop(volume);
    world.write("default/creds.json", LOGIN);
    let life = world.script(IDLE).ready();
    world.write("default/more.json", "{}");
    world.wait_until_saved();
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
}

#[test]
fn a_wiped_disk_without_the_volume_is_restored_whole() {
    let Some((world, volume)) = with_a_volume() else {
        return;
    };
    let life = world.script(IDLE).ready();
    world.write("default/creds.json", LOGIN);
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
    drop(volume);
    world.wipe();
    let life = world.script(IDLE).ready();
    assert_eq!(world.read("default/creds.json"), LOGIN, "{}", life.log());
    world.write("default/more.json", "{}");
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
}
