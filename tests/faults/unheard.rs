//! Changes of which the kernel tells nothing, or under a name that is gone: stores into mapped memory,
//! and writes through other links of a file.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;

use super::built;
use super::keeper::{IDLE, Life, World, wait_until};

/// Nothing is found because everything is looked at now and then.
const NO_RESCAN: &str = "sync.rescan=1h";

/// A world in memory, and one on a disk: stores into mapped memory move a file's time on one of them only.
fn worlds() -> [World; 2] {
    [World::sqlite(), World::on_disk()]
}

fn mapping(world: &World) -> Life {
    let example = built::example("mapped");
    let file = world.dir().join("data");
    let words = [example.as_path(), file.as_path()].map(|path| path.to_str().expect("text"));
    let mut life = world
        .gateway(&words)
        .set(NO_RESCAN)
        .set("log.level=debug")
        .ready();
    life.wait_for("the gateway has stored");
    life
}

fn begins_with(world: &World, text: &str) -> bool {
    let stored = world.stored();
    stored.is_some_and(|tree| {
        tree.content("data")
            .is_some_and(|content| content.starts_with(text.as_bytes()))
    })
}

#[test]
fn the_last_store_into_mapped_memory_is_saved_when_the_gateway_ends() {
    for world in worlds() {
        let life = mapping(&world);
        let ended = life.stop();
        assert_eq!(ended.code, 0, "{}", ended.log);
        assert!(world.read("data").starts_with("LASTONE!"));
        assert!(begins_with(&world, "LASTONE!"), "{}", ended.log);
    }
}

#[test]
fn a_store_into_mapped_memory_is_saved_while_the_gateway_goes_on() {
    for world in worlds() {
        let life = mapping(&world);
        wait_until("the store is saved", || begins_with(&world, "THISTIME"));
        assert_eq!(life.stop().code, 0);
    }
}

#[test]
fn a_write_through_a_link_elsewhere_is_saved_and_both_links_are_of_one_moment() {
    let world = World::sqlite();
    world.write("one.json", "[0]");
    let elsewhere = world.path("elsewhere");
    let link = |to: &Path| fs::hard_link(world.dir().join("one.json"), to).expect("link");
    link(&elsewhere);
    link(&world.dir().join("two.json"));
    let life = world.script(IDLE).set(NO_RESCAN).ready();
    world.wait_until_saved();
    for number in 1..4 {
        fs::write(&elsewhere, format!("[{number}]")).expect("write");
        world.wait_until_saved();
    }
    for number in 4..30 {
        world.write("one.json", format!("[{number}]"));
    }
    world.wait_until_saved();
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    for seq in world.changes() {
        let to = world.path("version");
        let (seq, path) = (seq.to_string(), to.to_str().expect("text"));
        let output = world.command(&["restore", "--seq", &seq, "--to", path]);
        assert!(output.status.success(), "{output:?}");
        let read = |name: &str| fs::read(to.join(name)).ok();
        assert_eq!(read("one.json"), read("two.json"), "version {seq}");
        fs::remove_dir_all(&to).expect("remove the copy");
    }
}

#[test]
fn a_name_that_a_file_gets_later_belongs_to_it_at_once() {
    let world = World::sqlite();
    world.write("one.bin", vec![1; 3 << 20]);
    let life = world.script(IDLE).set(NO_RESCAN).ready();
    world.wait_until_saved();
    let two = world.dir().join("keys/two.bin");
    fs::create_dir_all(two.parent().expect("it has one")).expect("make");
    fs::hard_link(world.dir().join("one.bin"), &two).expect("link");
    let copy = |seq: Option<u64>| {
        let to = world.path("copy");
        let seq = seq.map(|seq| seq.to_string());
        let mut args = vec!["restore", "--to", to.to_str().expect("text")];
        args.extend(seq.iter().flat_map(|seq| ["--seq", seq]));
        let output = world.command(&args);
        assert!(output.status.success(), "{output:?}");
        let of = |name: &str| {
            let path = to.join(name);
            let links = fs::metadata(&path).map_or(0, |stat| stat.nlink());
            (fs::read(path).unwrap_or_default(), links)
        };
        let both = (of("one.bin"), of("keys/two.bin"));
        fs::remove_dir_all(&to).expect("remove the copy");
        both
    };
    wait_until("it is saved as one file", || copy(None).0.1 == 2);
    let before = world.changes();
    for byte in 2..12 {
        let file = OpenOptions::new().write(true).open(&two).expect("open");
        std::os::unix::fs::FileExt::write_all_at(&file, &[byte; 100], 1 << 20).expect("write");
        drop(file);
        world.wait_until_saved();
    }
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    let after = world.changes();
    for seq in after.into_iter().filter(|seq| !before.contains(seq)) {
        let (one, two) = copy(Some(seq));
        assert!(one == two, "version {seq} holds two states of one file");
    }
}

#[test]
fn a_file_with_several_names_comes_back_as_one_and_names_that_parted_as_two() {
    let number = |world: &World, name: &str| {
        let stat = fs::metadata(world.dir().join(name)).expect("stat");
        (stat.ino(), stat.nlink())
    };
    let link = |world: &World, to: &str| {
        fs::create_dir_all(world.dir().join("keys")).expect("make");
        fs::hard_link(world.dir().join("one.json"), world.dir().join(to)).expect("link");
    };
    let world = World::sqlite();
    world.write("one.json", "[1]");
    world.write("big", vec![7; 3 << 20]);
    link(&world, "keys/two.json");
    link(&world, "three.json");
    fs::hard_link(world.dir().join("big"), world.dir().join("keys/big")).expect("link");
    let life = world.script(IDLE).set(NO_RESCAN).ready();
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);

    world.wipe();
    let commits = world.changes().len();
    let life = world.script(IDLE).set(NO_RESCAN).ready();
    assert_eq!(number(&world, "one.json").1, 3);
    for name in ["keys/two.json", "three.json"] {
        assert_eq!(number(&world, name), number(&world, "one.json"));
    }
    assert_eq!(number(&world, "keys/big"), number(&world, "big"));
    world.wait_until_saved();
    assert_eq!(world.changes().len(), commits, "nothing has changed");
    // One of them becomes a file of its own, alike in all but that; and one goes.
    let three = world.dir().join("three.json");
    fs::copy(world.dir().join("one.json"), world.path("copy")).expect("copy");
    let time = fs::metadata(&three)
        .expect("stat")
        .modified()
        .expect("a time");
    let copy = fs::File::options().write(true).open(world.path("copy"));
    copy.expect("open").set_modified(time).expect("set");
    fs::rename(world.path("copy"), &three).expect("rename");
    fs::remove_file(world.dir().join("keys/big")).expect("remove");
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);

    world.wipe();
    let life = world.script(IDLE).ready();
    assert_eq!(world.read("three.json"), "[1]");
    assert_eq!(number(&world, "three.json").1, 1, "it is linked again");
    assert_eq!(number(&world, "keys/two.json"), number(&world, "one.json"));
    assert_eq!(number(&world, "one.json").1, 2);
    assert_eq!(number(&world, "big").1, 1);
    assert_eq!(life.stop().code, 0);
}

#[test]
fn what_is_written_under_a_name_that_is_gone_is_saved_under_the_one_that_is_there() {
    let world = World::sqlite();
    let life = world.script(IDLE).set(NO_RESCAN).ready();
    // A file without a name, which is given one before it is written to its end.
    let mut nameless = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(world.dir())
        .expect("open");
    nameless.write_all(b"[1").expect("write");
    let of_process = format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&nameless)
    );
    let named = world.dir().join("named.json");
    let flags = AtFlags::AT_SYMLINK_FOLLOW;
    linkat(AT_FDCWD, of_process.as_str(), AT_FDCWD, &named, flags).expect("link");
    nameless.write_all(b",2]").expect("write");
    world.wait_until_saved();
    nameless.set_len(0).expect("cut");
    drop(nameless);
    fs::write(&named, "[3]").expect("write");
    world.wait_until_saved();
    // A file whose first name goes.
    let first = world.dir().join("first");
    let mut file = fs::File::create(&first).expect("create");
    fs::hard_link(&first, world.dir().join("second")).expect("link");
    fs::remove_file(&first).expect("remove");
    world.wait_until_saved();
    for _ in 0..3 {
        file.write_all(b"more\n").expect("write");
        world.wait_until_saved();
    }
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
}
