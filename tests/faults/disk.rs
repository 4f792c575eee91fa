//! A disk that is full or read-only: the gateway goes on, nothing bad is committed, and all that
//! can be committed is.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use super::inject::Inject;
use super::keeper::{IDLE, Tree, World, is_alive, wait_until};
use super::noise::noise;
use super::small::Small;

const LOGIN: &str = r#"{"me":"first"}"#;

#[test]
fn a_disk_that_writes_nothing_out_is_found_before_the_gateway_starts() {
    let world = World::sqlite();
    let Some(fault) = Inject::new(&world) else {
        return;
    };
    let probe = world.dir().join(".sessionkeep/preflight");
    let fault = fault.fault("fsync", "error=EIO").path(probe);
    let ended = world
        .script("touch \"$P/ran\"")
        .before(&fault.before())
        .run_to_end();
    assert_eq!(fault.count(), 1, "{}", ended.log);
    assert_eq!(ended.code, 78, "{}", ended.log);
    for told in [
        "failed to write in the session directory",
        "Input/output error",
        world.dir().to_str().expect("text"),
    ] {
        assert!(ended.log.contains(told), "{told}: {}", ended.log);
    }
    assert!(!world.path("ran").exists(), "the gateway was started");
    // And once the disk does what it should, nothing is left of it.
    let life = world.script(IDLE).ready();
    assert_eq!(life.stop().code, 0);
}

/// Writes until not one byte more fits.
fn fill(path: &Path) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("open");
    let mut len = 1 << 20;
    while len > 0 {
        if file.write_all(&vec![b'x'; len]).is_err() {
            len /= 2;
        }
    }
}

/// What a gateway does that writes plainly: truncate, then write. Whether it could.
fn rewrite(path: &Path, filler: &Path, content: &str) -> bool {
    let mut file = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)
        .expect("open");
    // Somebody else is quicker to take what this has freed.
    fill(filler);
    file.write_all(content.as_bytes()).is_ok()
}

#[test]
fn a_full_disk_tears_no_login_and_all_is_saved_once_there_is_room() {
    let world = World::sqlite();
    let (dir, filler) = (world.dir(), world.dir().join("media.bin"));
    let Some(_mounted) = Small::mount(&dir, "size=20m") else {
        return;
    };
    let mut life = world.script(IDLE).ready();
    world.write("creds.json", LOGIN);
    world.wait_until_stored("creds.json", LOGIN);
    fill(&filler);
    assert!(!rewrite(&dir.join("creds.json"), &filler, r#"{"me":2}"#));
    assert_eq!(world.read("creds.json"), "", "the disk is not full");
    life.wait_for("file is not whole; its last committed version stays");
    let stored = world.stored().expect("a tree");
    assert_eq!(stored.text("creds.json"), LOGIN);
    // Deleting needs no room, and is saved.
    world.write("used.json", "");
    fs::remove_file(dir.join("used.json")).expect("remove");
    assert!(is_alive(life.process("gateway")));
    fs::remove_file(&filler).expect("remove");
    world.write("creds.json", r#"{"me":2}"#);
    world.wait_until_saved();

    // A crash in the same situation: what is torn is mended at the next start.
    fill(&filler);
    assert!(!rewrite(&dir.join("creds.json"), &filler, r#"{"me":3}"#));
    life.kill_tree();
    let ended = world.script("touch \"$P/ran\"").run_to_end();
    assert_eq!(ended.code, 78, "{}", ended.log);
    assert!(ended.log.contains("make space"), "{}", ended.log);
    assert!(!world.path("ran").exists(), "started on a full disk");
    fs::remove_file(&filler).expect("remove");
    let life = world.script(IDLE).ready();
    assert_eq!(world.read("creds.json"), r#"{"me":2}"#);
    assert!(life.log().contains("a crash had torn this file"));
    assert_eq!(life.stop().code, 0);
    assert_eq!(world.stored(), Some(Tree::of(&dir)));
}

#[test]
fn a_full_disk_under_the_store_takes_no_half_commit_and_one_catches_up() {
    let mut world = World::at("");
    let place = world.path("store");
    world.url = format!("sqlite:{}", place.join("archive.db").display());
    let Some(mounted) = Small::mount(&place, "size=3m") else {
        return;
    };
    let mut life = world.script(IDLE).ready();
    world.write("creds.json", LOGIN);
    world.wait_until_stored("creds.json", LOGIN);
    world.write("creds.json", r#"{"me":2}"#);
    world.write("large.bin", noise(6 << 20));
    life.wait_for("changes cannot be saved now; the gateway goes on");
    assert!(life.log().contains("full"), "{}", life.log());
    let gateway = life.process("gateway");
    // What is stored is one commit or the other, and whole.
    let stored = world.stored().expect("a tree");
    assert!(stored.content("large.bin").is_none(), "{stored:?}");
    assert!(is_alive(gateway));
    mounted.change("size=64m");
    life.wait_for("changes can be saved again");
    world.wait_until_saved();
    assert_eq!(life.process("gateway"), gateway);
    assert_eq!(life.stop().code, 0);
    let verified = world.command(&["verify", "--all"]);
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn a_full_disk_under_the_store_at_the_end_is_an_exit_code_of_its_own() {
    let mut world = World::at("");
    let place = world.path("store");
    world.url = format!("sqlite:{}", place.join("archive.db").display());
    let Some(mounted) = Small::mount(&place, "size=3m") else {
        return;
    };
    let mut life = world
        .script(IDLE)
        .set("stop.flush=1s")
        .set("stop.total=3s")
        .ready();
    world.write("large.bin", noise(6 << 20));
    life.wait_for("changes cannot be saved now; the gateway goes on");
    let ended = life.stop();
    assert_eq!(ended.code, 74, "{}", ended.log);
    let told = "the last changes could not be saved; the directory holds them, keep it";
    assert!(ended.log.contains(told), "{}", ended.log);
    mounted.change("size=64m");
    let life = world.script(IDLE).ready();
    world.wait_until_saved();
    assert!(world.replaced().is_empty());
    assert_eq!(life.stop().code, 0);
}

#[test]
fn a_marker_that_cannot_be_written_is_told_of_and_nothing_is_lost() {
    let world = World::sqlite();
    world.write("creds.json", LOGIN);
    let Some(fault) = Inject::new(&world) else {
        return;
    };
    let fault = fault.fault("openat", "error=EROFS").path("state.json.tmp");
    let mut life = world.script(IDLE).start();
    life.wait_for("watcher is ready");
    world.wait_until_saved();
    let _attached = fault.attach(life.process("watcher"));
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert!(fault.count() > 0, "it came not up: {}", ended.log);
    let told = "the marker could not be written";
    assert!(ended.log.contains(told), "{}", ended.log);
    assert_eq!(world.stored(), Some(Tree::of(&world.dir())));
}

#[test]
fn a_directory_that_becomes_read_only_is_left_as_it_is_and_the_next_start_says_so() {
    let world = World::sqlite();
    let mut life = world.script(IDLE).ready();
    world.write("creds.json", LOGIN);
    world.wait_until_saved();
    let Some(read_only) = Small::read_only(&world.dir()) else {
        return;
    };
    assert!(fs::write(world.dir().join("creds.json"), "{}").is_err());
    assert!(is_alive(life.process("gateway")));
    // A watcher that begins anew finds all as it was.
    super::keeper::send(life.process("watcher"), libc::SIGKILL);
    life.wait_for_count("watcher is ready", 2);
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert_eq!(world.stored(), Some(Tree::of(&world.dir())));

    let ended = world.script("touch \"$P/ran\"").run_to_end();
    assert_eq!(ended.code, 78, "{}", ended.log);
    for told in [
        "Read-only file system",
        "make the session directory writable",
    ] {
        assert!(ended.log.contains(told), "{told}: {}", ended.log);
    }
    assert!(!world.path("ran").exists(), "the gateway was started");
    drop(read_only);
    let life = world.script(IDLE).ready();
    wait_until("it is the same", || {
        world.read("creds.json") == LOGIN && world.replaced().is_empty()
    });
    assert_eq!(life.stop().code, 0);
}
