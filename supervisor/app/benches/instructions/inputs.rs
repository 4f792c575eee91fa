//! What the paths work on: the same bytes at each run, on every machine.

use sessionkeep_archive::store::{Leases as _, Packs as _};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sessionkeep_archive::builder::{Builder, PackSink};
use sessionkeep_archive::store::MemoryStore;
use sessionkeep_archive::tree::{Leaf, Tree};
use sessionkeep_archive::writer::{Outcome, Summary, Writer};
use sessionkeep_core::entry::{Digest, EntryKind, Meta, Owner, RelPath};
use sessionkeep_core::record::{ArchiveName, Header, PackId};

/// Files of one Baileys account that is in use.
pub(crate) const ACCOUNT: usize = 1000;

/// Random bytes of a seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// What a key file looks like: JSON around text of random bytes, about 1.1 KB.
pub(crate) fn key_file(seed: u64) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = |part: u64| {
        let letters = noise(seed * 4 + part, 256);
        letters
            .iter()
            .map(|b| ALPHABET[usize::from(b & 63)] as char)
            .collect::<String>()
    };
    let pairs: String = (0..4)
        .map(|part| {
            format!(
                "\"part{part}\":{{\"type\":\"Buffer\",\"data\":\"{}\"}},",
                text(part)
            )
        })
        .collect();
    format!("{{{pairs}\"keyId\":{seed}}}").into_bytes()
}

/// `0..count` in an order that is random, and always the same.
pub(crate) fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|n| noise(*n as u64, 8));
    order
}

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("a path")
}

pub(crate) fn meta() -> Meta {
    Meta {
        mode: 0o600,
        mtime_ns: 1_800_000_000_123_456_789,
        owner: Owner {
            uid: 1000,
            gid: 1000,
        },
    }
}

/// The names and contents of an account's files.
pub(crate) fn account() -> Vec<(RelPath, Vec<u8>)> {
    (0..ACCOUNT)
        .map(|n| (path(&format!("pre-key-{n}.json")), key_file(n as u64)))
        .collect()
}

/// Packs that a builder gave away.
pub(crate) type Packs = Arc<Mutex<Vec<(PackId, Bytes)>>>;

/// A sink that keeps the packs where they can be found.
pub(crate) fn keeping() -> (PackSink, Packs) {
    let packs = Packs::default();
    let kept = packs.clone();
    let sink: PackSink = Box::new(move |id, content| {
        kept.lock().expect("nobody panics").push((id, content));
        Ok(())
    });
    (sink, packs)
}

/// An archive in memory, with what its writer needs for the next commit.
pub(crate) struct Archive {
    pub(crate) store: MemoryStore,
    pub(crate) writer: Writer,
    pub(crate) tree: Tree<()>,
}

impl Archive {
    /// A checkpoint of an account, and `commits` more of one file each.
    pub(crate) async fn of_account(commits: u64) -> Self {
        let store = MemoryStore::new();
        let name: ArchiveName = "default".parse().expect("a name");
        let now = store.now_ms().await.expect("it answers");
        let instance = "bench-1".parse().expect("a name");
        let mut archive = Self {
            writer: Writer::new(name, instance, 1, None, now),
            store,
            tree: Tree::new(),
        };
        archive.commit(&account()).await;
        for n in 0..commits {
            let of = path(&format!("pre-key-{}.json", n * 7 % ACCOUNT as u64));
            archive.commit(&[(of, key_file(1_000_000 + n))]).await;
        }
        archive
    }

    pub(crate) fn head(&self) -> Header {
        self.writer.head().expect("there are commits").clone()
    }

    /// Commits whole files.
    pub(crate) async fn commit(&mut self, files: &[(RelPath, Vec<u8>)]) {
        let (sink, packs) = keeping();
        let mut builder = Builder::new(sink).expect("zstd starts");
        for (path, content) in files {
            let hash = builder
                .put_file(path, meta(), content)
                .expect("it is put in");
            self.tree.insert(path, file(content.len() as u64, hash));
        }
        let built = builder.finish().expect("it is put together");
        let name = "default".parse().expect("a name");
        let packs = std::mem::take(&mut *packs.lock().expect("nobody panics"));
        for (id, content) in packs {
            let put = self.store.put_pack(&name, id, content).await;
            put.expect("memory takes it");
        }
        let summary = summary(&self.tree);
        let done = self.writer.commit(&self.store, built, summary).await;
        assert!(matches!(done, Ok(Outcome::Done(_))), "it is committed");
    }
}

pub(crate) fn file(size: u64, hash: Digest) -> Leaf<()> {
    Leaf {
        meta: meta(),
        kind: EntryKind::File { size, hash },
        extra: (),
    }
}

pub(crate) fn summary<T>(tree: &Tree<T>) -> Summary {
    Summary {
        root: tree.root(),
        files: tree.files(),
        bytes: tree.bytes(),
    }
}

/// Does `work` on a runtime of one thread, as the product does, which is there before and after.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}
