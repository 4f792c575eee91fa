//! Bombs: little that claims to be, or becomes, more than there is room for. Each is refused
//! before it has taken much memory; [`super::forge::MEMORY`] is a limit that the kernel keeps.

use std::sync::OnceLock;

use sessionkeep_archive::format::{Change, Extent, LISTING_MAX};
use sessionkeep_core::entry::{Digest, EntryKind};
use sessionkeep_core::record::Record;

use super::campaign::rounds;
use super::forge::{
    append, assert_refused, assert_restored, body, body_of, compressed, extent, file, first, forge,
    link, listing, meta, other, path, put, tree_of,
};
use super::keeper::World;

/// A gigabyte of zeros in a few kilobytes.
fn gigabyte() -> Vec<u8> {
    static PACKED: OnceLock<Vec<u8>> = OnceLock::new();
    PACKED.get_or_init(|| repeated(&[], &[0], 1 << 30)).clone()
}

/// What follows `start` once, then `part` again and again, up to `count` bytes.
fn repeated(start: &[u8], part: &[u8], count: usize) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("allocates");
    let block = part.repeat((1 << 20) / part.len());
    let mut left = count - start.len();
    std::io::Write::write_all(&mut encoder, start).expect("compresses");
    while left > 0 {
        let some = left.min(block.len());
        std::io::Write::write_all(&mut encoder, &block[..some]).expect("compresses");
        left -= some;
    }
    encoder.finish().expect("compresses")
}

fn varint(number: u64) -> Vec<u8> {
    postcard::to_stdvec(&number).expect("encodes")
}

/// A commit whose listing claims `raw_len` bytes and is `packed`.
fn listed(raw_len: u64, packed: Vec<u8>) -> Record {
    first(body_of(raw_len, packed, vec![]), &tree_of(&[]))
}

#[test]
fn a_frame_that_becomes_more_than_it_claims_is_refused() {
    let bomb = gigabyte();
    assert!(bomb.len() < 200 << 10, "{} bytes", bomb.len());
    let content = [0_u8; 1024];
    let honest = extent(&content, &bomb);
    let full = vec![0_u8; 1 << 20];
    for (what, content, claim) in [
        ("a kilobyte", &content[..], honest),
        (
            "a full frame",
            &full[..],
            Extent {
                frame_raw: 1 << 20,
                len: 1 << 20,
                ..honest
            },
        ),
    ] {
        let world = World::sqlite();
        let change = put("a", content, content.len() as u64, vec![claim]);
        let tree = tree_of(std::slice::from_ref(&change));
        let raw = listing(vec![], vec![change], None);
        append(&world, vec![], &[first(body(&raw, bomb.clone()), &tree)]);
        assert_refused(&world, what, "a frame does not decompress");
    }
    // And one that claims it.
    let world = World::sqlite();
    let claim = Extent {
        frame_raw: 1 << 30,
        ..honest
    };
    let change = put("a", &content, 1024, vec![claim]);
    let tree = tree_of(std::slice::from_ref(&change));
    let raw = listing(vec![], vec![change], None);
    append(&world, vec![], &[first(body(&raw, bomb), &tree)]);
    assert_refused(&world, "a gigabyte", "lies outside its frame");
}

#[test]
fn a_listing_that_becomes_more_than_it_claims_is_refused() {
    let honest = listing(vec![], vec![], None);
    for world in World::both() {
        append(&world, vec![], &[listed(honest.len() as u64, gigabyte())]);
        assert_refused(
            &world,
            "a gigabyte",
            "the listing is not as long as it claims",
        );
    }
    let claims = [
        (LISTING_MAX + 1, "the listing claims"),
        (u64::MAX, "the listing claims"),
        (LISTING_MAX, "the listing has bytes after its end"),
        (0, "the listing does not decode"),
    ];
    for (claim, reason) in claims {
        let world = World::sqlite();
        append(&world, vec![], &[listed(claim, gigabyte())]);
        assert_refused(&world, &format!("a claim of {claim}"), reason);
    }
}

/// A listing that begins so, and then goes on with `part`, with hardly anything behind it and with
/// all that a listing may have.
fn assert_defused(what: &str, start: &[u8], part: &[u8], reason: &str) {
    for (count, reason) in [
        (start.len() + 60, "listing"),
        (LISTING_MAX as usize, reason),
    ] {
        let world = World::sqlite();
        let packed = repeated(start, part, count);
        assert!(packed.len() < 1 << 20, "{} bytes", packed.len());
        append(&world, vec![], &[listed(count as u64, packed)]);
        assert_refused(&world, &format!("{what}, {count} bytes"), reason);
    }
}

#[test]
fn a_count_that_nothing_is_behind_takes_no_memory() {
    let changes = [&varint(0)[..], &varint(1 << 40)].concat();
    let packs = "packs, more than";
    assert_defused("packs", &varint(1 << 40), &[0], packs);
    assert_defused(
        "the largest number of packs",
        &varint(u64::MAX),
        &[0],
        packs,
    );
    assert_defused("changes", &changes, &[0], "the listing does not decode");
    let mut target = listing(vec![], vec![other("a", link(b"b"))], None);
    let rest = target.split_off(target.len() - 3);
    assert_eq!(rest, [1, b'b', 0], "the target, and no extents");
    target.extend(varint(LISTING_MAX - 1000));
    assert_defused("a link's target", &target, b"a", "larger than any can be");
}

#[test]
fn more_extents_than_there_is_room_for_are_not_read() {
    let mut start = listing(vec![], vec![put("a", b"x", 1, vec![])], None);
    assert_eq!(start.pop(), Some(0), "their count is the last of it");
    start.extend(varint(1 << 40));
    // The smallest that can be: tens of millions of them are a few kilobytes.
    assert_defused(
        "extents",
        &start,
        &[0, 0, 1, 1, 0, 1],
        "the listing does not decode",
    );
}

#[test]
fn a_file_that_is_larger_than_the_disk_is_refused_before_it_is_written() {
    // One full frame, again and again. Zeros would take no room.
    let full = vec![1_u8; 1 << 20];
    let frame = compressed(&full);
    let whole = extent(&full, &frame);
    let world = World::sqlite();
    let count = 1 << 20;
    let change = Change::Put {
        path: path("a"),
        meta: meta(0o600),
        kind: EntryKind::File {
            size: count << 20,
            hash: Digest::default(),
        },
        extents: vec![whole; usize::try_from(count).expect("small")],
    };
    let tree = tree_of(std::slice::from_ref(&change));
    let raw = listing(vec![], vec![change], None);
    append(&world, vec![], &[first(body(&raw, frame), &tree)]);
    assert_refused(&world, "a terabyte", "the disk is full");
}

#[test]
fn a_million_entries_are_read_and_refused_where_they_are_not_what_they_claim() {
    let frame = compressed(b"hello");
    let count = rounds(150_000, 1_000_000);
    let one = listing(vec![], vec![file("0000000", b"hello", 5, &frame)], None);
    let (head, one) = one.split_at(2);
    assert_eq!(head, [0, 1], "no packs, and one change");
    let mut raw = [&[0][..], &varint(count)].concat();
    for n in 0..count {
        let from = raw.len();
        raw.extend(one);
        let name = raw[from..].windows(7).position(|part| part == b"0000000");
        let name = from + name.expect("it has that name");
        raw[name..name + 7].copy_from_slice(format!("{n:07}").as_bytes());
    }
    let world = World::sqlite();
    append(&world, vec![], &[first(body(&raw, frame), &tree_of(&[]))]);
    assert_refused(
        &world,
        "a root that is not theirs",
        "do not make up the tree",
    );
}

#[test]
fn many_small_files_are_restored_within_the_same_memory() {
    let frame = compressed(b"hello");
    let changes: Vec<Change> = (0..2000_u32)
        .map(|n| file(&format!("{n:07}"), b"hello", 5, &frame))
        .collect();
    let world = World::sqlite();
    forge(&world, changes, frame, None);
    assert_restored(&world, "two thousand files");
    assert_eq!(world.read("0001999"), "hello");
}
