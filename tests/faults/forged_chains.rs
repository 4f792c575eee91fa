//! Headers and chains of a forger: numbers without measure, commits that build on what is not
//! there or comes after them, patches of what is no file.

use sessionkeep_archive::format::{Change, Extent, Piece};
use sessionkeep_core::entry::{Digest, EntryKind};
use sessionkeep_core::record::{Header, PackId, Record, RecordKind};

use super::archive_at_rest::assert_orderly;
use super::forge::{
    append, assert_refused, assert_restored, body, compressed, extent, file, first, listing, meta,
    next, other, path, put, tree_of, with,
};
use super::keeper::World;

/// A first commit with one file of two blocks, its frame, and the file's change.
fn honest() -> (Record, Vec<u8>, Vec<u8>) {
    let content = vec![7_u8; 2048];
    let frame = compressed(&content);
    let changes = vec![file("a", &content, 2048, &frame)];
    let tree = tree_of(&changes);
    let raw = listing(vec![], changes, None);
    (first(body(&raw, frame.clone()), &tree), content, frame)
}

#[test]
fn a_header_with_numbers_without_measure_is_refused() {
    const FUTURE: &str = "it builds on a commit after it";
    const LARGE: &str = "a number in its header is larger than any can be";
    type Change = fn(&mut Header);
    let cases: Vec<(&str, Change, &str)> = vec![
        ("base after it", |h| h.base = 2, FUTURE),
        ("base without measure", |h| h.base = u64::MAX, FUTURE),
        ("changed after it", |h| h.changed_at = u64::MAX, FUTURE),
        ("live_files", |h| h.live_files = u64::MAX, LARGE),
        ("live_bytes", |h| h.live_bytes = u64::MAX, LARGE),
        ("chain_bytes", |h| h.chain_bytes = u64::MAX, LARGE),
        ("base_bytes", |h| h.base_bytes = u64::MAX, LARGE),
        ("bytes", |h| h.bytes = u64::MAX, LARGE),
        ("epoch", |h| h.epoch = u64::MAX, LARGE),
        ("time", |h| h.time_ms = u64::MAX, LARGE),
        (
            "kind",
            |h| h.kind = RecordKind::Change,
            "begins with a commit that is no checkpoint",
        ),
        (
            "root",
            |h| h.root = Digest([1; 32]),
            "do not make up the tree",
        ),
    ];
    for (what, change, reason) in cases {
        let world = World::sqlite();
        append(&world, vec![], &[with(honest().0, change)]);
        assert_refused(&world, what, reason);
        for command in [
            &["log"][..],
            &["status"],
            &["show", "1"],
            &["verify", "--all"],
        ] {
            let output = world.command(command);
            let told = String::from_utf8_lossy(&output.stderr);
            assert_orderly(output.status.code().expect("no signal"), &told);
        }
    }
}

#[test]
fn a_header_that_only_boasts_does_no_harm() {
    // As large as a number may be: it stands in the log, and nothing is made of it.
    for mut worlds in [World::both()] {
        for world in &mut worlds {
            let most = 1 << 56;
            let boasting = with(honest().0, |header| {
                header.live_files = most;
                header.live_bytes = most;
                header.chain_bytes = most;
                header.base_bytes = most;
                header.bytes = most;
                header.time_ms = most;
                header.epoch = most - 10;
                header.changes = u32::MAX;
            });
            append(world, vec![], &[boasting]);
            assert_restored(world, "a boasting header");
            assert_eq!(world.read("a").len(), 2048);
            world.write("b", "more");
            assert_eq!(world.script("true").run_to_end().code, 0);
            assert_eq!(world.command(&["log"]).status.code(), Some(0));
        }
    }
}

fn patch(at: &str, size: u64, pieces: Vec<(u64, Extent)>) -> Change {
    let pieces = pieces
        .into_iter()
        .map(|(offset, extent)| Piece { offset, extent });
    Change::Patch {
        path: path(at),
        meta: meta(0o600),
        size,
        hash: Digest::of(&[7; 2048]),
        pieces: pieces.collect(),
    }
}

#[test]
fn a_patch_that_reaches_outside_of_its_file_is_refused() {
    let (checkpoint, content, frame) = honest();
    let whole = extent(&content, &frame);
    let half = Extent { len: 1024, ..whole };
    let cases: Vec<(&str, Change, &str)> = vec![
        (
            "beyond the end",
            patch("a", 2048, vec![(1500, half)]),
            "lies beyond its end",
        ),
        (
            "at the end of numbers",
            patch("a", 2048, vec![(u64::MAX, half)]),
            "beyond its end",
        ),
        (
            "overlapping",
            patch("a", 2048, vec![(0, half), (512, half)]),
            "overlap",
        ),
        (
            "backwards",
            patch("a", 2048, vec![(1024, half), (0, half)]),
            "overlap",
        ),
        (
            "with a gap",
            patch("a", 8192, vec![(4096, half)]),
            "leave a gap",
        ),
        (
            "too short",
            patch("a", 4096, vec![(0, half)]),
            "leave a gap",
        ),
        (
            "without end",
            patch("a", u64::MAX, vec![(0, half)]),
            "leave a gap",
        ),
        (
            "of what is not there",
            patch("b", 1024, vec![(0, half)]),
            "which is no file before it",
        ),
        (
            "of nothing",
            patch("a", 2048, vec![(0, Extent { len: 0, ..half })]),
            "lies outside its frame",
        ),
        (
            "from a pack that is not named",
            patch("a", 2048, vec![(0, Extent { source: 2, ..half })]),
            "lies outside its frame",
        ),
        (
            "a touch of what is not there",
            Change::Touch {
                path: path("b"),
                meta: meta(0o600),
            },
            "which does not exist before it",
        ),
    ];
    let tree = tree_of(&[file("a", &content, 2048, &frame)]);
    for (what, change, reason) in cases {
        // Nothing older is whole either, so that it is all there is.
        let checkpoint = with(checkpoint.clone(), |header| header.root = Digest([1; 32]));
        let raw = listing(vec![], vec![change], None);
        let patched = next(&checkpoint, body(&raw, frame.clone()), &tree);
        let world = World::sqlite();
        append(&world, vec![], &[checkpoint, patched]);
        world.write("creds.json", "{}");
        let ended = super::forge::boot_with_little_memory(&world);
        assert_eq!(ended.code, 70, "{what}: {}", ended.log);
        assert!(
            ended.log.contains(reason),
            "{what}: no {reason}: {}",
            ended.log
        );
        assert_eq!(world.read("creds.json"), "{}", "{what}");
        assert!(
            !world.path("ran").exists(),
            "{what}: the gateway was started"
        );
    }
    let raw = listing(vec![], vec![patch("a", 2048, vec![(1024, half)])], None);
    let patched = next(&checkpoint, body(&raw, frame), &tree);
    let world = World::sqlite();
    append(&world, vec![], &[checkpoint, patched]);
    assert_restored(&world, "an honest patch");
    assert_eq!(world.read("a").as_bytes(), content);
}

#[test]
fn a_forged_commit_after_honest_ones_costs_that_commit_alone() {
    for world in World::both() {
        let (checkpoint, content, frame) = honest();
        let tree = tree_of(&[file("a", &content, 2048, &frame)]);
        let raw = listing(
            vec![],
            vec![other("a", EntryKind::Dir), other("b", EntryKind::Dir)],
            None,
        );
        let forged = next(&checkpoint, body(&raw, frame), &tree);
        append(&world, vec![], &[checkpoint, forged]);
        assert_restored(&world, "the commit before");
        assert_eq!(world.read("a").as_bytes(), content);
        assert!(!world.dir().join("b").exists());
    }
}

#[test]
fn sources_that_name_themselves_or_each_other_are_refused() {
    let (_, content, frame) = honest();
    let id = PackId([9; 16]);
    let inner = Extent {
        source: 1,
        ..extent(&content, &frame)
    };
    let changes = || vec![put("a", &content, 2048, vec![inner])];
    let tree = tree_of(&changes());
    let raw = |packs: Vec<PackId>| listing(packs, changes(), None);
    let place = |raw: &[u8]| {
        let listing = sessionkeep_archive::format::Place::Pack {
            id,
            raw_len: raw.len() as u64,
        };
        let content = Vec::new();
        sessionkeep_archive::format::Body { listing, content }.encode()
    };
    for world in World::both() {
        // The listing lies in the pack that it names as the source of contents.
        let own = raw(vec![id]);
        append(
            &world,
            vec![(id, compressed(&own))],
            &[first(place(&own), &tree)],
        );
        assert_refused(
            &world,
            "a listing that is its own content",
            "the content of a is damaged",
        );
    }
    let world = World::sqlite();
    append(
        &world,
        vec![],
        &[first(body(&raw(vec![id]), vec![]), &tree)],
    );
    assert_refused(
        &world,
        "a pack that is not there",
        "is missing from the store",
    );
    for world in World::both() {
        // One pack twice, of which the second is used.
        let second = Extent { source: 2, ..inner };
        let twice = listing(
            vec![id, id],
            vec![put("a", &content, 2048, vec![second])],
            None,
        );
        append(
            &world,
            vec![(id, frame.clone())],
            &[first(body(&twice, vec![]), &tree)],
        );
        assert_restored(&world, "a pack named twice");
    }
}
