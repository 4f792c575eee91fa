//! A disk that answers with errors while a directory is restored: it is as it was or whole, the
//! gateway is not started on anything else, and the next start goes on.

use std::path::PathBuf;

use super::inject::Inject;
use super::keeper::{Ended, IDLE, Tree, World};

/// Two names, so that a step can fail when half of them are moved.
const STORED: [(&str, &str); 2] = [("creds.json", r#"{"me":"stored"}"#), ("keys.json", "[1]")];
const RENAME: &str = "?rename,?renameat,?renameat2";

/// A world whose store has one state and whose directory another, without a marker.
fn with_an_old_directory() -> (World, Tree, Tree) {
    let world = World::sqlite();
    let life = world.script(IDLE).ready();
    for (name, content) in STORED {
        world.write(name, content);
    }
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
    let stored = Tree::of(&world.dir());
    world.wipe();
    for (name, _) in STORED {
        world.write(name, "{\"old\":true}");
    }
    let old = Tree::of(&world.dir());
    (world, stored, old)
}

fn broken_start(world: &World, fault: &Inject) -> Ended {
    world
        .script("touch \"$P/ran\"")
        .set("store.wait=1s")
        .before(&fault.before())
        .run_to_end()
}

/// Where an error strikes: calls, which of them, and a path below the session directory of a descriptor,
/// or the last part of one that a call names.
const BEFORE_IT_IS_PUT_IN_PLACE: &[(&str, &str, &str)] = &[
    ("mkdirat", "error=EIO", "staging"),
    (
        "write,pwrite64",
        "error=EIO",
        ".sessionkeep/staging/creds.json",
    ),
    (
        "write,pwrite64",
        "error=ENOSPC",
        ".sessionkeep/staging/keys.json",
    ),
    ("utimensat", "error=EIO", ".sessionkeep/staging/keys.json"),
    ("syncfs", "error=EIO", ".sessionkeep/staging"),
    ("write", "error=ENOSPC", ".sessionkeep/install.json.tmp"),
    ("fsync", "error=EIO", ".sessionkeep/install.json.tmp"),
    (RENAME, "error=EIO", "install.json.tmp"),
];

/// See [`BEFORE_IT_IS_PUT_IN_PLACE`].
const WHILE_IT_IS_PUT_IN_PLACE: &[(&str, &str, &str)] = &[
    ("mkdirat", "error=ENOSPC", "replaced"),
    (RENAME, "error=EIO", "creds.json"),
    (RENAME, "error=EIO", "keys.json"),
    (RENAME, "error=EIO", ".sessionkeep/staging"),
    ("fsync", "error=EIO", ".sessionkeep/state.json.tmp"),
    ("unlinkat", "error=EIO", "install.json"),
];

fn place(world: &World, path: &str) -> PathBuf {
    match path.starts_with(".sessionkeep/") {
        true => world.dir().join(path),
        false => path.into(),
    }
}

#[test]
fn an_error_before_a_restore_is_put_in_place_leaves_the_directory_as_it_was() {
    for (calls, what, path) in BEFORE_IT_IS_PUT_IN_PLACE {
        let case = format!("{what} of {calls} at {path}");
        let (world, stored, old) = with_an_old_directory();
        let Some(fault) = Inject::new(&world) else {
            return;
        };
        let fault = fault.fault(calls, what).path(place(&world, path));
        let ended = broken_start(&world, &fault);
        assert!(fault.count() > 0, "{case} came not up: {}", ended.log);
        assert_eq!(ended.code, 70, "{case}: {}", ended.log);
        let told = "failed to restore; the directory is as it was";
        assert!(ended.log.contains(told), "{case}: {}", ended.log);
        assert!(
            !world.path("ran").exists(),
            "{case}: the gateway was started"
        );
        assert_eq!(Tree::of(&world.dir()), old, "{case}");
        assert!(world.replaced().is_empty(), "{case}");
        let life = world.script(IDLE).ready();
        assert_eq!(Tree::of(&world.dir()), stored, "{case}");
        assert_eq!(Tree::of(&world.replaced()[0]), old, "{case}");
        assert_eq!(life.stop().code, 0);
    }
}

#[test]
fn an_error_while_a_restore_is_put_in_place_is_told_as_such_and_the_next_start_goes_on() {
    for (calls, what, path) in WHILE_IT_IS_PUT_IN_PLACE {
        let case = format!("{what} of {calls} at {path}");
        let (world, stored, old) = with_an_old_directory();
        let Some(fault) = Inject::new(&world) else {
            return;
        };
        let fault = fault.fault(calls, what).path(place(&world, path));
        // The second time it is the recovery that does not get through.
        for _ in 0..2 {
            let before = fault.count();
            let ended = broken_start(&world, &fault);
            assert!(fault.count() > before, "{case} came not up: {}", ended.log);
            assert_eq!(ended.code, 70, "{case}: {}", ended.log);
            let told = "start again";
            assert!(ended.log.contains(told), "{case}: {}", ended.log);
            let untrue = "the directory is as it was";
            assert!(!ended.log.contains(untrue), "{case}: {}", ended.log);
            assert!(
                !world.path("ran").exists(),
                "{case}: the gateway was started"
            );
        }
        let life = world.script(IDLE).ready();
        assert_eq!(Tree::of(&world.dir()), stored, "{case}");
        assert_eq!(Tree::of(&world.replaced()[0]), old, "{case}");
        assert_eq!(life.stop().code, 0);
    }
}

#[test]
fn a_store_that_cannot_be_read_starts_nothing() {
    let (world, stored, old) = with_an_old_directory();
    let Some(fault) = Inject::new(&world) else {
        return;
    };
    let fault = fault
        .fault("pread64", "error=EIO")
        .path(world.database_file());
    let ended = broken_start(&world, &fault);
    assert!(fault.count() > 0, "{}", ended.log);
    assert_eq!(ended.code, 69, "{}", ended.log);
    assert!(
        ended.log.contains("run `sessionkeep doctor`"),
        "{}",
        ended.log
    );
    assert!(ended.log.contains("archive.db"), "{}", ended.log);
    assert!(!world.path("ran").exists(), "the gateway was started");
    assert_eq!(Tree::of(&world.dir()), old);
    let life = world.script(IDLE).ready();
    assert_eq!(Tree::of(&world.dir()), stored);
    assert_eq!(life.stop().code, 0);
}
