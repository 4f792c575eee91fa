//! Paths between the directory and the store.

use std::hint::black_box;

pub(super) use sessionkeep::boot::restore::{FallBack, Place, stage_newest_whole};
use sessionkeep::progress::Progress;
use sessionkeep_archive::blocks::{BlockChange, BlockMap, PAGE_BLOCK};
use sessionkeep_archive::builder::Builder;
use sessionkeep_archive::fetch::{Check, Fetch};
use sessionkeep_archive::tree::Tree;
use sessionkeep_archive::version::Version;
use sessionkeep_core::entry::{Digest, EntryKind};
use sessionkeep_core::state_dir::StateDir;
use sessionkeep_session::json;

use crate::callgrind::counted;
use crate::inputs::{
    ACCOUNT, Archive, account, file, keeping, key_file, noise, path, runtime, summary,
};

pub(super) fn commit() {
    let runtime = runtime();
    let mut archive = runtime.block_on(Archive::of_account(0));
    let before = archive.head();
    let files = [(path("pre-key-5.json"), key_file(1_000_000))];
    counted(|| {
        let files = black_box(&files);
        assert!(json::is_json_name(&files[0].0) && json::is_whole(&files[0].1));
        runtime.block_on(archive.commit(files));
    });
    let head = archive.head();
    assert_eq!((head.seq, head.changes), (before.seq + 1, 1));
    assert_ne!(head.root, before.root);
}

pub(super) fn first_upload() {
    let files = account();
    let (built, packs) = counted(|| {
        let (sink, packs) = keeping();
        let mut builder = Builder::new(sink).expect("zstd starts");
        for (path, content) in black_box(&files) {
            builder
                .put_file(path, crate::inputs::meta(), content)
                .expect("it is put in");
        }
        (builder.finish().expect("it is put together"), packs)
    });
    assert_eq!(built.changes as usize, ACCOUNT);
    assert_eq!(packs.lock().expect("nobody panics").len(), 1);
}

pub(super) fn load() {
    let runtime = runtime();
    let archive = runtime.block_on(Archive::of_account(200));
    let head = archive.head();
    let version = counted(|| runtime.block_on(Version::load(&archive.store, black_box(head))));
    let version = version.expect("the chain is whole");
    assert_eq!(summary(&version.tree), summary(&archive.tree));
    assert_eq!(version.header.seq - version.header.base, 200);
}

pub(super) fn fetch() {
    let runtime = runtime();
    let archive = runtime.block_on(Archive::of_account(50));
    let version = runtime.block_on(Version::load(&archive.store, archive.head()));
    let mut version = version.expect("the chain is whole");
    let done = counted(|| {
        let fetch = Fetch::plan(&mut version, |_| true);
        runtime.block_on(fetch.run(&archive.store, Check::default()))
    });
    let check = done.map_err(|(error, _)| error).expect("it can be read");
    assert_eq!(check.bytes, archive.tree.bytes());
    assert!(check.damaged.is_empty());
}

pub(super) fn restore() {
    let runtime = runtime();
    let archive = runtime.block_on(Archive::of_account(50));
    let dir = tempfile::tempdir().expect("a directory");
    let (head, progress) = (archive.head(), Progress::default());
    let restored = counted(|| {
        let state = StateDir::open(dir.path()).expect("it opens");
        let staged = stage_newest_whole(
            &archive.store,
            head,
            Place::keeping_owners(&state),
            FallBack::No,
            &progress,
        );
        let staged = runtime.block_on(staged).expect("it is whole");
        staged.stage.install_copy().expect("it is put in place");
        staged.summary
    });
    assert_eq!(restored, summary(&archive.tree));
    let last = std::fs::read(dir.path().join("pre-key-343.json")).expect("it is there");
    assert_eq!(last, key_file(1_000_049));
    let entries = std::fs::read_dir(dir.path()).expect("it can be listed");
    assert_eq!(entries.count(), ACCOUNT);
}

pub(super) fn tree() {
    let mut tree = Tree::new();
    for dir in 0..30 {
        let at = path(&format!("account-{dir}"));
        let mut leaf = file(0, Digest::default());
        leaf.kind = EntryKind::Dir;
        tree.insert(&at, leaf);
        for n in 0..ACCOUNT {
            let at = path(&format!("account-{dir}/pre-key-{n}.json"));
            tree.insert(&at, file(1100, Digest::of(at.as_bytes())));
        }
    }
    let before = tree.root();
    let changed = path("account-17/pre-key-500.json");
    let leaf = file(1101, Digest::of(b"changed"));
    let root = counted(|| {
        tree.insert(black_box(&changed), leaf);
        tree.root()
    });
    assert_ne!(root, before);
    assert_eq!(tree.files(), 30 * ACCOUNT as u64);
}

pub(super) fn block_map() {
    const BLOCKS: u64 = 50 * 1024 * 1024 / PAGE_BLOCK as u64;
    let offset = |block: u64| block * u64::from(PAGE_BLOCK);
    let mut before = BlockMap::new(PAGE_BLOCK, offset(BLOCKS));
    let mut hasher = blake3::Hasher::new();
    let changed: Vec<u64> = (0..8).map(|n| n * n * 250).collect();
    for block in 0..BLOCKS {
        let content = noise(block, PAGE_BLOCK as usize);
        let _ = before.set(offset(block), &content, None);
        hasher.update(&if changed.contains(&block) {
            noise(BLOCKS + block, PAGE_BLOCK as usize)
        } else {
            content
        });
    }
    let contents: Vec<_> = changed
        .iter()
        .map(|block| (offset(*block), noise(BLOCKS + block, PAGE_BLOCK as usize)))
        .collect();
    let mut map = before.clone();
    let hash = counted(|| {
        for (offset, content) in black_box(&contents) {
            let change = map.set(*offset, content, Some(&before));
            assert_eq!(change, BlockChange::Different);
        }
        map.hash()
    });
    assert_eq!(hash, Digest::from(hasher.finalize()));
}
