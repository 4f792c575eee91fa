//! Chains of commits: listings that are folded into a tree, and the headers that tell which.

use super::archive::{compressed, encoded, listing_memory, listings};
use super::{Decoder, assert_inside, joined, parts};
use sessionkeep_archive::fetch::Fetch;
use sessionkeep_archive::format::{Body, Extent, ListingReader, Place};
use sessionkeep_archive::store::{CommitLog, MemoryStore};
use sessionkeep_archive::tree::{Leaf, Tree};
use sessionkeep_archive::version::Version;
use sessionkeep_core::entry::{Digest, EntryKind};
use sessionkeep_core::record::{
    ArchiveName, CommitId, FORMAT, Header, PackId, Record, RecordKind, Seq,
};

pub(super) const DECODERS: &[Decoder] = &[
    Decoder {
        name: "fold",
        decode: fold,
        seeds: || vec![joined(listings().iter().map(encoded))],
        memory: |input| 3 * listing_memory(input),
    },
    Decoder {
        name: "chain",
        decode: chain,
        seeds: chains,
        memory: |input| 3 * listing_memory(input),
    },
];

/// Listings, one upon the other, as a restore folds them.
fn fold(input: &[u8]) -> bool {
    let mut version = Version::empty(header(1, &[], &Tree::new()));
    for (seq, raw) in (1..).zip(parts(input)) {
        let folded = ListingReader::open(&compressed(raw), raw.len() as u64)
            .and_then(|listing| version.apply(seq, listing));
        if folded.is_err() {
            return false;
        }
    }
    let _ = version.tree.root();
    for (path, leaf) in version.tree.iter() {
        assert_inside(&path);
        let Leaf { kind, extra, .. } = leaf;
        let sources = version.sources.len();
        assert!(extra.iter().all(|e| (e.source as usize) < sources));
        if let EntryKind::File { size, .. } = kind {
            let held: u64 = extra.iter().map(|e| u64::from(e.len)).sum();
            assert_eq!(held, *size, "{path}");
        }
    }
    let is_sound = version.tree.check_shape().is_ok();
    if is_sound {
        let files = version.tree.files();
        let fetch = Fetch::plan(&mut version, |_| true);
        assert_eq!(fetch.files() as u64, files);
    }
    is_sound
}

/// The header of commit `seq` with this body, which makes up this tree.
pub(super) fn header(seq: Seq, body: &[u8], tree: &Tree<Vec<Extent>>) -> Header {
    let kind = match seq {
        1 => RecordKind::Checkpoint,
        _ => RecordKind::Change,
    };
    let mut header = Header {
        format: FORMAT,
        archive: archive(),
        history: CommitId([1; 16]),
        seq,
        id: CommitId([seq as u8; 16]),
        kind,
        instance: "host-0011223344".parse().expect("a name"),
        epoch: 3,
        time_ms: 1_800_000_000_000,
        base: 1,
        changed_at: seq,
        changed_epoch: 3,
        parent: Digest::default(),
        root: tree.root(),
        changes: 2,
        bytes: 4396,
        live_files: tree.files(),
        live_bytes: tree.bytes(),
        chain_bytes: 500,
        base_bytes: 4000,
        packs: vec![PackId([7; 16])],
        body_hash: Digest::of(body),
        digest: Digest::default(),
    };
    header.digest = header.seal();
    header
}

pub(super) fn archive() -> ArchiveName {
    "default".parse().expect("a name")
}

fn body_of(raw: &[u8]) -> Vec<u8> {
    let listing = Place::Here {
        raw_len: raw.len() as u64,
        packed: compressed(raw),
    };
    let content = b"content".to_vec();
    Body { listing, content }.encode()
}

/// Header and listing of each commit.
fn chains() -> Vec<Vec<u8>> {
    let mut version = Version::empty(header(1, &[], &Tree::new()));
    let mut all = Vec::new();
    for (seq, listing) in (1..).zip(&listings()) {
        let (raw_len, packed) = listing.pack().expect("compresses");
        let reader = ListingReader::open(&packed, raw_len).expect("just packed");
        version.apply(seq, reader).expect("sound");
        let raw = encoded(listing);
        let header = header(seq, &body_of(&raw), &version.tree);
        all.push(serde_json::to_vec(&header).expect("headers always encode"));
        all.push(raw);
    }
    vec![joined(&all)]
}

/// A chain of commits whose headers say what they like, sealed as if their writer had meant it.
fn chain(input: &[u8]) -> bool {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
    }
    let store = MemoryStore::new();
    let mut newest: Option<Header> = None;
    let mut all = parts(input);
    while let (Some(header), Some(raw)) = (all.next(), all.next()) {
        let Ok(mut header) = serde_json::from_slice::<Header>(header) else {
            break;
        };
        let body = body_of(raw);
        header.archive = archive();
        header.body_hash = Digest::of(&body);
        header.parent = newest.map(|last| last.digest).unwrap_or_default();
        header.digest = header.seal();
        newest = Some(header.clone());
        let record = Record { header, body };
        let _ = RUNTIME.with(|runtime| runtime.block_on(store.append(&record)));
    }
    let Some(head) = newest else {
        return false;
    };
    let read = RUNTIME.with(|runtime| runtime.block_on(Version::load(&store, head)));
    read.inspect(|version| assert!(version.tree.check_shape().is_ok()))
        .is_ok()
}
