//! An archive that somebody else wrote to: what would be written outside, or without end, is
//! refused, and nothing of it is written.

use std::fs;

use sessionkeep_archive::format::Change;
use sessionkeep_core::entry::EntryKind;

use super::archive_at_rest::Restored;
use super::forge::{
    Swap, append, assert_refused, assert_restored, body, compressed, file, first, forge, link,
    listing, other, tree_of,
};
use super::keeper::{IDLE, World};

#[test]
fn an_honest_forgery_is_restored_so_that_the_others_fail_for_their_reason() {
    for world in World::both() {
        let frame = compressed(b"hello");
        forge(&world, vec![file("aa", b"hello", 5, &frame)], frame, None);
        let life = world.script(IDLE).ready();
        assert_eq!(world.read("aa"), "hello");
        assert_eq!(life.stop().code, 0);
    }
}

/// A forgery, and what is said of it.
type Case<'a> = (&'static str, Vec<Change>, Swap<'a>, &'static str);

#[test]
fn an_archive_that_reaches_outside_or_lies_is_refused_and_nothing_is_written() {
    let frame = compressed(b"evil");
    let evil = |at: &str| file(at, b"evil", 4, &frame);
    let undecodable = "the listing does not decode";
    let outside = "is a link that leaves the directory";
    let shapeless = "has a name that no file system takes";
    let cases: Vec<Case<'_>> = vec![
        (
            "a path upwards",
            vec![evil("aa/x")],
            Some((b"aa/x", b"../x")),
            undecodable,
        ),
        (
            "an absolute path",
            vec![evil("aaaaaa")],
            Some((b"aaaaaa", b"/tmp/x")),
            undecodable,
        ),
        (
            "a path with a dot",
            vec![evil("a/a/x")],
            Some((b"a/a/x", b"a/./x")),
            undecodable,
        ),
        (
            "a path with a NUL",
            vec![evil("aax")],
            Some((b"aax", b"a\0x")),
            undecodable,
        ),
        (
            "an absolute link",
            vec![other("a", link(b"/etc"))],
            None,
            outside,
        ),
        (
            "a link upwards",
            vec![other("a", link(b"../.."))],
            None,
            outside,
        ),
        (
            "a link upwards by a detour",
            vec![other("a", link(b"b/../../c"))],
            None,
            outside,
        ),
        ("an empty link", vec![other("a", link(b""))], None, outside),
        (
            "a link with a NUL",
            vec![other("a", link(b"b\0c"))],
            None,
            outside,
        ),
        (
            "a link to a link to outside",
            vec![other("a", link(b"b")), other("b", link(b"../x"))],
            None,
            outside,
        ),
        (
            "a file below a link",
            vec![other("a", link(b"b")), evil("a/x")],
            None,
            shapeless,
        ),
        (
            "a file below a link to a directory",
            vec![
                other("a", link(b"d")),
                other("d", EntryKind::Dir),
                evil("a/x"),
            ],
            None,
            shapeless,
        ),
        ("a file in no directory", vec![evil("a/x")], None, shapeless),
        (
            "a file below a file",
            vec![evil("a"), evil("a/x")],
            None,
            shapeless,
        ),
        (
            "a size that is a lie",
            vec![file("a", b"evil", 1 << 50, &frame)],
            None,
            "do not make up its size",
        ),
        (
            "our own directory",
            vec![
                other(".sessionkeep", EntryKind::Dir),
                evil(".sessionkeep/lock"),
            ],
            None,
            "the name is reserved",
        ),
        (
            "our own directory as a link",
            vec![other(".sessionkeep", link(b"a"))],
            None,
            "the name is reserved",
        ),
    ];
    for (what, changes, swap, reason) in cases {
        let world = World::sqlite();
        forge(&world, changes, frame.clone(), swap);
        assert_refused(&world, what, reason);
    }
}

#[test]
fn what_a_link_cannot_reach_it_may_point_at() {
    // Links in a circle, to themselves, to nothing: none of them is followed.
    let world = World::sqlite();
    let changes = vec![
        other("a", link(b"b")),
        other("b", link(b"a")),
        other("d", EntryKind::Dir),
        other("d/self", link(b"self")),
        other("d/up", link(b"../d/up/up")),
        other("nowhere", link(b"d/none")),
    ];
    forge(&world, changes, vec![], None);
    assert_restored(&world, "links in a circle");
    let target = fs::read_link(world.dir().join("d/self")).expect("a link");
    assert_eq!(target.to_str(), Some("self"));
}

#[test]
fn names_that_no_file_system_takes_are_refused_and_the_longest_are_not() {
    let frame = compressed(b"hello");
    let long = |len: usize| "n".repeat(len);
    // The type holds no longer one: its length is written over, and a letter put in.
    let tree = tree_of(&[file(&long(255), b"hello", 5, &frame)]);
    for (len, is_fine) in [(255, true), (256, false), (3000, false)] {
        let world = World::sqlite();
        let raw = listing(vec![], vec![file(&long(255), b"hello", 5, &frame)], None);
        let at = raw
            .windows(255)
            .position(|part| part == long(255).as_bytes());
        let at = at.expect("it is in the listing");
        let mut forged = raw[..at - 2].to_vec();
        forged.extend(postcard::to_stdvec(&len).expect("encodes"));
        forged.extend(long(len).as_bytes());
        forged.extend(&raw[at + 255..]);
        append(
            &world,
            vec![],
            &[first(body(&forged, frame.clone()), &tree)],
        );
        if is_fine {
            assert_restored(&world, "a name of 255 bytes");
            assert_eq!(world.read(&long(255)), "hello");
        } else {
            let what = format!("a name of {len} bytes");
            assert_refused(&world, &what, "the listing does not decode");
        }
    }
}

#[test]
fn the_deepest_path_there_can_be_is_restored_and_saved() {
    // Looking at such a tree takes more stack here than a test has.
    let deep = std::thread::Builder::new().stack_size(64 << 20);
    let ended = deep.spawn(|| {
        let mut changes: Vec<Change> = (0..1500)
            .map(|depth| other(&format!("{}d", "d/".repeat(depth)), EntryKind::Dir))
            .collect();
        let frame = compressed(b"hello");
        let deepest = format!("{}file", "d/".repeat(1500));
        changes.push(file(&deepest, b"hello", 5, &frame));
        let world = World::sqlite();
        forge(&world, changes, frame, None);
        let life = world.script(IDLE).ready();
        assert_eq!(world.read(&deepest), "hello");
        world.write(&deepest, "changed");
        let ended = life.stop();
        assert_eq!(ended.code, 0, "{}", ended.log);
        let restored = Restored::of(&world, None);
        let tree = restored.tree.expect("it is restored");
        assert_eq!(tree.text(&deepest), "changed");
    });
    ended.expect("a thread").join().expect("as it was asserted");
}

#[test]
fn a_path_that_comes_twice_is_what_it_was_put_to_last() {
    let world = World::sqlite();
    let frame = compressed(b"hello");
    let changes = vec![
        other("a", link(b"b")),
        other("a", EntryKind::Dir),
        other("a/b", EntryKind::Dir),
        file("a", b"hello", 5, &frame),
    ];
    // The reader takes what was below a directory with it.
    let tree = tree_of(&changes[3..]);
    let raw = listing(vec![], changes, None);
    append(&world, vec![], &[first(body(&raw, frame), &tree)]);
    assert_restored(&world, "a path four times");
    assert_eq!(world.read("a"), "hello");
}

#[test]
fn absurd_mode_bits_are_no_more_than_mode_bits() {
    use std::os::unix::fs::MetadataExt;
    let world = World::sqlite();
    let frame = compressed(b"hello");
    let mut change = file("aa", b"hello", 5, &frame);
    if let Change::Put { meta, .. } = &mut change {
        meta.mode = 0o6_0755 | 0x4000_0000;
        meta.mtime_ns = i64::MIN;
    }
    forge(&world, vec![change], frame, None);
    let ended = world.script("exit 0").run_to_end();
    // Refused, or taken for what it can mean; a device it never becomes.
    assert!(ended.code == 0 || ended.code == 70, "{}", ended.log);
    if let Ok(meta) = fs::metadata(world.dir().join("aa")) {
        assert!(meta.is_file());
        assert_eq!(meta.mode() & 0o170_000, 0o100_000);
    }
}
