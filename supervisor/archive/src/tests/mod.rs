//! The archive as a whole, over the in-memory store.

mod bounded;
mod chain;
mod damage;
mod golden;
mod known;
mod transfer;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::aside::Aside;
use super::builder::Builder;
use super::fetch::{At, Fetch, Sink, Verifier, Wanted};
use super::tree::{Leaf, Tree};
use super::upload::Upload;
use super::version::Version;
use super::writer::{Outcome, Summary, Writer};
use super::{Result, checkpoint};
use crate::store::{MemoryStore, Store};
use sessionkeep_core::entry::{Digest, EntryKind, Meta, Owner, RelPath};
use sessionkeep_core::record::{ArchiveName, Header};

pub(super) fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("a path")
}

pub(super) fn meta(mtime_ns: i64) -> Meta {
    Meta {
        mode: 0o600,
        mtime_ns,
        owner: Owner { uid: 0, gid: 0 },
    }
}

pub(super) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work)
}

/// Bytes that do not compress, the same for the same seed.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// A writer with a model of what it has committed.
pub(super) struct Keeper {
    pub(super) store: Arc<dyn Store>,
    pub(super) memory: MemoryStore,
    pub(super) writer: Writer,
    pub(super) tree: Tree<()>,
    pub(super) files: BTreeMap<RelPath, Vec<u8>>,
    /// What the next commit says besides its entries.
    pub(super) aside: Aside,
}

impl Keeper {
    pub(super) async fn new() -> Self {
        let memory = MemoryStore::new();
        let store: Arc<dyn Store> = Arc::new(memory.clone());
        let now = store.now_ms().await.expect("answers");
        let instance = "test-1".parse().expect("a name");
        let mut writer = Writer::new(archive(), instance, 1, None, now);
        done(writer.barrier(&*store).await);
        Self {
            store,
            memory,
            writer,
            tree: Tree::new(),
            files: BTreeMap::new(),
            aside: Aside::default(),
        }
    }

    /// Commits whole files; `None` removes.
    pub(super) async fn commit(&mut self, changes: &[(&str, Option<Vec<u8>>)]) -> Header {
        let (sink, upload) = Upload::start(self.store.clone(), archive());
        let changes: Vec<_> = changes.iter().map(|(p, c)| (path(p), c.clone())).collect();
        let given = changes.clone();
        let aside = std::mem::take(&mut self.aside);
        let built = tokio::task::spawn_blocking(move || {
            let mut builder = Builder::new(sink)?;
            builder.set_aside(aside);
            for (path, content) in &given {
                match content {
                    Some(content) => {
                        builder.put_file(path, meta(1), content)?;
                    }
                    None => builder.remove(path),
                }
            }
            builder.finish()
        });
        let built = upload
            .finish(built.await.expect("no panic"))
            .await
            .expect("uploads");
        for (path, content) in changes {
            match content {
                Some(content) => {
                    let kind = EntryKind::File {
                        size: content.len() as u64,
                        hash: Digest::of(&content),
                    };
                    self.tree.insert(
                        &path,
                        Leaf {
                            meta: meta(1),
                            kind,
                            extra: (),
                        },
                    );
                    self.files.insert(path, content);
                }
                None => {
                    self.tree.remove(&path);
                    self.files.remove(&path);
                }
            }
        }
        let summary = self.summary();
        done(self.writer.commit(&*self.store, built, summary).await)
    }

    pub(super) fn summary(&self) -> Summary {
        Summary {
            root: self.tree.root(),
            files: self.tree.files(),
            bytes: self.tree.bytes(),
        }
    }

    pub(super) async fn checkpoint(&mut self) -> Header {
        let outcome = checkpoint::write(&self.store, &mut self.writer)
            .await
            .expect("the chain is whole");
        done(Ok(outcome.expect("there is content")))
    }

    /// What a restore of the newest commit would write.
    pub(super) async fn restored(&self) -> Result<BTreeMap<RelPath, Vec<u8>>> {
        let head = self.store.head(&archive()).await?.expect("there is a head");
        restored(&*self.store, head).await
    }
}

pub(super) fn archive() -> ArchiveName {
    "default".parse().expect("a name")
}

pub(super) fn done(outcome: Result<Outcome>) -> Header {
    match outcome.expect("the store answers") {
        Outcome::Done(header) => *header,
        Outcome::Fenced(other) => panic!("fenced by {other:?}"),
    }
}

pub(super) async fn restored(
    store: &dyn Store,
    header: Header,
) -> Result<BTreeMap<RelPath, Vec<u8>>> {
    let mut version = Version::load(store, header).await?;
    let mut files: BTreeMap<_, _> = version
        .tree
        .iter()
        .filter(|(_, leaf)| matches!(leaf.kind, EntryKind::File { size: 0, .. }))
        .map(|(path, _)| (path, Vec::new()))
        .collect();
    let fetch = Fetch::plan(&mut version, |_| true);
    let wanted = fetch.files() - files.len();
    let sink = fetch
        .run(store, Memory::default())
        .await
        .map_err(|(error, _)| error)?;
    assert_eq!(sink.verifier.verified(), wanted, "every file was completed");
    files.extend(sink.files);
    Ok(files)
}

#[derive(Default)]
struct Memory {
    verifier: Verifier,
    files: BTreeMap<RelPath, Vec<u8>>,
}

impl Sink for Memory {
    fn piece(&mut self, at: At, wanted: &Wanted, content: &[u8]) -> Result<()> {
        self.verifier.piece(at, wanted, content)?;
        let file = self
            .files
            .entry(wanted.path.clone())
            .or_insert_with(|| vec![0; wanted.size as usize]);
        file[at.offset as usize..at.offset as usize + content.len()].copy_from_slice(content);
        Ok(())
    }
}
