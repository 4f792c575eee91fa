//! The kernel's notices of changes run out, or are dropped: rescans find all the same, and it is said.

use std::fs;
use std::process::Command;

use super::keeper::{IDLE, Life, Setup, World, is_alive};

/// Begins with the user's limit at so many. The limit is one of the user namespace, and is
/// lowered in a namespace of its own; `None` where there can be none, which is said.
fn limited<'a>(setup: Setup<'a>, limit: &str, most: u32) -> Option<Setup<'a>> {
    let words = format!("echo {most} > /proc/sys/user/{limit} && exec \"$@\"");
    let before = [
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        &words,
        "sh",
    ];
    let tried = Command::new(before[0])
        .args(&before[1..])
        .arg("true")
        .status();
    if !tried.is_ok_and(|status| status.success()) {
        crate::policy::cannot_run("there is no user namespace with limits of its own");
        return None;
    }
    Some(setup.before(&before))
}

/// Changes files everywhere, some in directories that are new, and waits until that is stored.
fn all_is_found(world: &World) {
    for round in 1..4 {
        for dir in ["", "one/", "two/", "two/deep/", "three/"] {
            world.write(&format!("{dir}key.json"), format!("[{round}]"));
        }
        world.write(&format!("new-{round}/key.json"), "[]");
        let _ = fs::remove_dir_all(world.dir().join(format!("new-{}", round - 1)));
        world.wait_until_saved();
    }
}

fn goes_on_and_ends_well(world: &World, life: Life, limit: &str) {
    let gateway = life.process("gateway");
    all_is_found(world);
    assert!(is_alive(gateway));
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    let warned = |line: &&str| {
        line.contains("WARN")
            && line.contains("changes are found by rescans only")
            && line.contains(limit)
            && line.contains("raise it on the host")
    };
    let lines = ended.log.lines().filter(warned);
    assert_eq!(lines.count(), 1, "{}", ended.log);
    assert!(!ended.log.contains("watcher died"), "{}", ended.log);
}

#[test]
fn without_watches_for_all_directories_rescans_find_what_is_in_the_others() {
    let world = World::sqlite();
    world.write("one/key.json", "[]");
    world.write("two/deep/key.json", "[]");
    let setup = world.script(IDLE).set("sync.rescan=1s");
    let Some(setup) = limited(setup, "max_inotify_watches", 2) else {
        return;
    };
    goes_on_and_ends_well(&world, setup.ready(), "fs.inotify.max_user_watches");
}

#[test]
fn without_an_inotify_instance_rescans_find_everything() {
    let world = World::sqlite();
    let setup = world.script(IDLE).set("sync.rescan=1s");
    let Some(setup) = limited(setup, "max_inotify_instances", 0) else {
        return;
    };
    goes_on_and_ends_well(&world, setup.ready(), "fs.inotify.max_user_instances");
}

#[test]
fn a_burst_that_overflows_the_kernels_queue_is_found_by_a_look_at_everything() {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("read");
    let limit: usize = limit.trim().parse().expect("a number");
    let world = World::sqlite();
    world.write("keys/old.json", "[]");
    world.write("gone.json", "[]");
    // No rescan would come in time to find what the overflow has hidden.
    let life = world.script(IDLE).set("sync.rescan=1h").ready();
    world.wait_until_saved();
    let held = life.hold_watcher();
    // Two names in turn, since the kernel merges an event with the one before it; two events each.
    for turn in 0..limit {
        world.write(&format!("keys/{}.json", turn % 2), format!("[{turn}]"));
    }
    // Nothing of this is in the queue any more.
    world.write("late.json", "[]");
    world.write("new/deep/late.json", "[]");
    fs::remove_file(world.dir().join("gone.json")).expect("remove");
    fs::remove_file(world.dir().join("keys/old.json")).expect("remove");
    drop(held);
    world.wait_until_saved();
    let mut life = life;
    life.wait_for("the kernel has dropped change notices; looking at everything");
    // And from here on each is noticed again, in what came with the burst, too.
    world.write("new/deep/later.json", "[1]");
    world.wait_until_stored("new/deep/later.json", "[1]");
    assert_eq!(life.stop().code, 0);
}
