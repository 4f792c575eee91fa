//! An archive that somebody else wrote to: what would be written outside, or without end, is
//! refused, and nothing of it is written.

use std::fs;
use std::time::Duration;

use sessionkeep::archive::format::{Body, Change, Extent, Listing, Place};
use sessionkeep::archive::tree::{Leaf, Tree};
use sessionkeep::entry::{Digest, Kind, Meta, Owner, RelPath};
use sessionkeep::store::{
    Appended, CommitId, FORMAT, Header, Record, RecordKind, SqliteStore, Store,
};

use super::keeper::{IDLE, World};

fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("a path")
}

fn meta(mode: u32) -> Meta {
    Meta {
        mode,
        mtime_ns: 1,
        owner: Owner { uid: 0, gid: 0 },
    }
}

/// A file whose content travels in the commit.
fn file(at: &str, content: &[u8], size: u64, frame: &[u8]) -> Change {
    let len = |n: usize| u32::try_from(n).expect("small");
    Change::Put {
        path: path(at),
        meta: meta(0o600),
        kind: Kind::File {
            size,
            hash: Digest::of(content),
        },
        extents: vec![Extent {
            source: 0,
            frame: 0,
            frame_len: len(frame.len()),
            frame_raw: len(content.len()),
            at: 0,
            len: len(content.len()),
        }],
    }
}

fn other(at: &str, kind: Kind) -> Change {
    Change::Put {
        path: path(at),
        meta: meta(0o777),
        kind,
        extents: Vec::new(),
    }
}

fn link(target: &[u8]) -> Kind {
    Kind::Symlink {
        target: target.to_vec(),
    }
}

/// Bytes of a listing, and what takes their place.
type Swap<'a> = Option<(&'a [u8], &'a [u8])>;

/// Writes a first commit with these changes, with every hash as it should be. `swap` replaces
/// bytes of the encoded listing, for what no honest type can hold.
fn forge(world: &World, changes: Vec<Change>, content: Vec<u8>, swap: Swap<'_>) {
    let mut tree = Tree::new();
    for change in &changes {
        if let Change::Put {
            path, meta, kind, ..
        } = change
        {
            let (meta, kind) = (*meta, kind.clone());
            tree.insert(
                path,
                Leaf {
                    meta,
                    kind,
                    extra: (),
                },
            );
        }
    }
    let listing = Listing {
        packs: vec![],
        changes,
    };
    let mut raw = postcard::to_stdvec(&listing).expect("encodes");
    if let Some((from, to)) = swap {
        assert_eq!(from.len(), to.len());
        let at = raw.windows(from.len()).position(|part| part == from);
        let at = at.expect("it is in the listing");
        raw[at..at + to.len()].copy_from_slice(to);
    }
    let packed = zstd::bulk::compress(&raw, 3).expect("compresses");
    let raw_len = raw.len() as u64;
    let body = Body {
        listing: Place::Here { raw_len, packed },
        content,
    };
    append(world, body.encode(), &tree);
}

fn append(world: &World, body: Vec<u8>, tree: &Tree<()>) {
    let mut header = Header {
        format: FORMAT,
        archive: "default".parse().expect("a name"),
        history: CommitId([7; 16]),
        seq: 1,
        id: CommitId([7; 16]),
        kind: RecordKind::Checkpoint,
        instance: "forger-1".parse().expect("a name"),
        epoch: 1,
        time_ms: 1,
        base: 1,
        changed_at: 1,
        changed_epoch: 1,
        parent: Digest::default(),
        root: tree.root(),
        changes: 1,
        bytes: 1,
        live_files: tree.files(),
        live_bytes: tree.bytes(),
        chain_bytes: 0,
        base_bytes: 1,
        packs: vec![],
        body_hash: Digest::of(&body),
        digest: Digest::default(),
    };
    header.digest = header.seal();
    let store = SqliteStore::open(&world.database_file(), Duration::from_secs(10));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        store.prepare().await.expect("prepares");
        let done = store.append(&Record { header, body }).await;
        assert!(matches!(done, Ok(Appended::Done)), "{done:?}");
        store.close().await;
    });
}

#[test]
fn an_honest_forgery_is_restored_so_that_the_others_fail_for_their_reason() {
    let world = World::sqlite();
    let frame = zstd::bulk::compress(b"hello", 3).expect("compresses");
    forge(&world, vec![file("aa", b"hello", 5, &frame)], frame, None);
    let life = world.script(IDLE).ready();
    assert_eq!(world.read("aa"), "hello");
    assert_eq!(life.stop().code, 0);
}

#[test]
fn an_archive_that_reaches_outside_or_lies_is_refused_and_nothing_is_written() {
    let frame = zstd::bulk::compress(b"evil", 3).expect("compresses");
    let evil = |at: &str| file(at, b"evil", 4, &frame);
    let cases: Vec<(&str, Vec<Change>, Swap<'_>)> = vec![
        (
            "a path upwards",
            vec![evil("aa/x")],
            Some((b"aa/x", b"../x")),
        ),
        (
            "an absolute path",
            vec![evil("aaaaaa")],
            Some((b"aaaaaa", b"/tmp/x")),
        ),
        (
            "a path with a dot",
            vec![evil("a/a/x")],
            Some((b"a/a/x", b"a/./x")),
        ),
        ("an absolute link", vec![other("a", link(b"/etc"))], None),
        ("a link upwards", vec![other("a", link(b"../.."))], None),
        (
            "a link upwards by a detour",
            vec![other("a", link(b"b/../../c"))],
            None,
        ),
        (
            "a file below a link",
            vec![other("a", link(b"b")), evil("a/x")],
            None,
        ),
        ("a file in no directory", vec![evil("a/x")], None),
        ("a file below a file", vec![evil("a"), evil("a/x")], None),
        (
            "a size that is a lie",
            vec![file("a", b"evil", 1 << 50, &frame)],
            None,
        ),
        (
            "our own directory",
            vec![other(".sessionkeep", Kind::Dir), evil(".sessionkeep/lock")],
            None,
        ),
    ];
    for (what, changes, swap) in cases {
        let world = World::sqlite();
        forge(&world, changes, frame.clone(), swap);
        world.write("creds.json", "{}");
        let before = fs::read_dir(world.path(".")).expect("read").count();
        let ended = world.script("touch \"$P/ran\"").run_to_end();
        assert_eq!(ended.code, 70, "{what}: {}", ended.log);
        assert_eq!(world.read("creds.json"), "{}", "{what}");
        assert!(!world.path("x").exists(), "{what} was written");
        assert!(
            !world.path("ran").exists(),
            "{what}: the gateway was started"
        );
        // The log of this life and the store's file beside what was there.
        let after = fs::read_dir(world.path(".")).expect("read").count();
        assert!(
            after <= before + 3,
            "{what}: {after} entries, {before} before"
        );
        assert!(
            ended.took < Duration::from_secs(20),
            "{what}: {:?}",
            ended.took
        );
    }
}

#[test]
fn absurd_mode_bits_are_no_more_than_mode_bits() {
    use std::os::unix::fs::MetadataExt;
    let world = World::sqlite();
    let frame = zstd::bulk::compress(b"hello", 3).expect("compresses");
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
