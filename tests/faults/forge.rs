//! The forger's tools: records with every hash as it should be, and anything at all in them.

use std::time::Duration;

use bytes::Bytes;
use sessionkeep_archive::format::{Body, Change, Extent, Listing, Place};
use sessionkeep_archive::store::{Appended, Store};
use sessionkeep_archive::tree::{Leaf, Tree};
use sessionkeep_core::entry::{Digest, EntryKind, Meta, Owner, RelPath};
use sessionkeep_core::record::{CommitId, FORMAT, Header, PackId, Record, RecordKind};
use sessionkeep_core::secret::Secret;
use sessionkeep_stores::{MongoStore, SqliteStore};

use super::archive_at_rest::{Restored, assert_orderly};
use super::keeper::{self, World};
use super::tamper::is_mongo;

/// What a restorer may take of memory that is its own, in bytes, whatever it is told to read.
pub(crate) const MEMORY: u64 = 256 << 20;

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("a path")
}

pub(crate) fn meta(mode: u32) -> Meta {
    Meta {
        mode,
        mtime_ns: 1,
        owner: Owner { uid: 0, gid: 0 },
    }
}

pub(crate) fn len(n: usize) -> u32 {
    u32::try_from(n).expect("small")
}

/// All of a frame that lies at the beginning of the commit's own content.
pub(crate) fn extent(content: &[u8], frame: &[u8]) -> Extent {
    Extent {
        source: 0,
        frame: 0,
        frame_len: len(frame.len()),
        frame_raw: len(content.len()),
        at: 0,
        len: len(content.len()),
    }
}

pub(crate) fn compressed(content: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(content, 3).expect("compresses")
}

/// A file, with what it says of its content.
pub(crate) fn put(at: &str, content: &[u8], size: u64, extents: Vec<Extent>) -> Change {
    Change::Put {
        path: path(at),
        meta: meta(0o600),
        kind: EntryKind::File {
            size,
            hash: Digest::of(content),
        },
        extents,
    }
}

/// A file whose content travels in the commit.
pub(crate) fn file(at: &str, content: &[u8], size: u64, frame: &[u8]) -> Change {
    put(at, content, size, vec![extent(content, frame)])
}

pub(crate) fn other(at: &str, kind: EntryKind) -> Change {
    Change::Put {
        path: path(at),
        meta: meta(0o777),
        kind,
        extents: Vec::new(),
    }
}

pub(crate) fn link(target: &[u8]) -> EntryKind {
    EntryKind::Symlink {
        target: target.to_vec(),
    }
}

/// The tree that a reader makes of changes which only put.
pub(crate) fn tree_of(changes: &[Change]) -> Tree<()> {
    let mut tree = Tree::new();
    for change in changes {
        let Change::Put {
            path, meta, kind, ..
        } = change
        else {
            continue;
        };
        let (meta, kind) = (*meta, kind.clone());
        let extra = ();
        tree.insert(path, Leaf { meta, kind, extra });
    }
    tree
}

/// Bytes of a listing, and what takes their place.
pub(crate) type Swap<'a> = Option<(&'a [u8], &'a [u8])>;

/// The encoded listing of changes. `swap` replaces bytes of it, for what no honest type can hold.
pub(crate) fn listing(packs: Vec<PackId>, changes: Vec<Change>, swap: Swap<'_>) -> Vec<u8> {
    let mut raw = postcard::to_stdvec(&Listing { packs, changes }).expect("encodes");
    if let Some((from, to)) = swap {
        assert_eq!(from.len(), to.len());
        let at = raw.windows(from.len()).position(|part| part == from);
        let at = at.expect("it is in the listing");
        raw[at..at + to.len()].copy_from_slice(to);
    }
    raw
}

/// A body with this listing, and frames.
pub(crate) fn body(raw: &[u8], content: Vec<u8>) -> Vec<u8> {
    body_of(raw.len() as u64, compressed(raw), content)
}

/// A body whose listing need not be what it claims.
pub(crate) fn body_of(raw_len: u64, packed: Vec<u8>, content: Vec<u8>) -> Vec<u8> {
    let listing = Place::Here { raw_len, packed };
    Body { listing, content }.encode()
}

/// The first commit of an archive, sealed.
pub(crate) fn first(body: Vec<u8>, tree: &Tree<()>) -> Record {
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
    Record { header, body }
}

/// The commit after `last`, sealed.
pub(crate) fn next(last: &Record, body: Vec<u8>, tree: &Tree<()>) -> Record {
    let mut record = first(body, tree);
    let header = &mut record.header;
    header.seq = last.header.seq + 1;
    header.id = CommitId([u8::try_from(header.seq).expect("small"); 16]);
    header.kind = RecordKind::Change;
    header.base = last.header.base;
    header.parent = last.header.digest;
    header.changed_at = header.seq;
    header.digest = header.seal();
    record
}

/// A record whose header says something else, and is sealed all the same.
pub(crate) fn with(mut record: Record, change: impl FnOnce(&mut Header)) -> Record {
    change(&mut record.header);
    record.header.digest = record.header.seal();
    record
}

/// Puts packs and records into the world's store.
pub(crate) fn append(world: &World, packs: Vec<(PackId, Vec<u8>)>, records: &[Record]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let timeout = Duration::from_secs(10);
    runtime.expect("a runtime").block_on(async {
        let store: Box<dyn Store> = if is_mongo(world) {
            let url = Secret::new(&world.url);
            Box::new(MongoStore::connect(&url, timeout, "forger").expect("a URL"))
        } else {
            Box::new(SqliteStore::open(&world.database_file(), timeout))
        };
        store.prepare().await.expect("prepares");
        for (id, content) in packs {
            let archive = &records[0].header.archive;
            let done = store.put_pack(archive, id, Bytes::from(content)).await;
            done.expect("put a pack");
        }
        for record in records {
            let done = store.append(record).await;
            assert!(matches!(done, Ok(Appended::Done)), "{done:?}");
        }
        store.close().await;
    });
}

/// Writes a first commit with these changes.
pub(crate) fn forge(world: &World, changes: Vec<Change>, content: Vec<u8>, swap: Swap<'_>) {
    let tree = tree_of(&changes);
    let raw = listing(vec![], changes, swap);
    append(world, vec![], &[first(body(&raw, content), &tree)]);
}

/// Starts a gateway where no restorer may take more than [`MEMORY`].
pub(crate) fn boot_with_little_memory(world: &World) -> keeper::Ended {
    let limit = format!("--data={MEMORY}");
    let life = world
        .script("touch \"$P/ran\"")
        .before(&["prlimit", &limit]);
    let ended = life.run_to_end();
    assert_orderly(ended.code, &ended.log);
    ended
}

/// The archive is refused for this reason, within bounded memory: the directory stays as it was, nothing
/// is written beside it, and no gateway starts.
#[track_caller]
pub(crate) fn assert_refused(world: &World, what: &str, reason: &str) {
    world.write("creds.json", "{}");
    let tree = || keeper::Tree::of(&world.dir());
    let beside = || std::fs::read_dir(world.path(".")).expect("read").count();
    let (before, entries) = (tree(), beside());
    let ended = boot_with_little_memory(world);
    assert_eq!(ended.code, 70, "{what}: {}", ended.log);
    assert!(
        ended.log.contains(reason),
        "{what}: no {reason}: {}",
        ended.log
    );
    assert_eq!(tree(), before, "{what}");
    assert!(
        !world.path("ran").exists(),
        "{what}: the gateway was started"
    );
    assert!(!world.path("x").exists(), "{what} was written");
    // The log of this life, and what SQLite keeps beside its file.
    assert!(beside() <= entries + 3, "{what}: {} entries", beside());
    let left = world.dir().join(".sessionkeep/staging");
    assert!(!left.exists(), "{what}: something is left of the attempt");

    let restored = Restored::of(world, None);
    assert_eq!(restored.code, 70, "{what}: {}", restored.told);
    assert!(restored.told.contains(reason), "{what}: {}", restored.told);
}

/// The archive is restored, so that its twins fail for their own reason.
#[track_caller]
pub(crate) fn assert_restored(world: &World, what: &str) {
    let ended = boot_with_little_memory(world);
    assert_eq!(ended.code, 0, "{what}: {}", ended.log);
    assert!(world.path("ran").exists(), "{what}: {}", ended.log);
}
