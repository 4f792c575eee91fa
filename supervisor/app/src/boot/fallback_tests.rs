//! Where the newest commit is damaged, the newest whole one before it is restored.

use std::path::Path;
use std::sync::Arc;

use sessionkeep_archive::builder::Builder;
use sessionkeep_archive::checkpoint;
use sessionkeep_archive::store::{MemoryStore, Store};
use sessionkeep_archive::tree::{Leaf, Tree};
use sessionkeep_archive::upload::Upload;
use sessionkeep_archive::writer::{Outcome, Summary, Writer};
use sessionkeep_core::entry::{Digest, EntryKind, Meta, Owner, RelPath};
use sessionkeep_core::record::ArchiveName;
use sessionkeep_core::state_dir::StateDir;

use super::restore::{FallBack, Place, Staged, stage_newest_whole};
use crate::progress::Progress;

const META: Meta = Meta {
    mode: 0o600,
    mtime_ns: 1,
    owner: Owner { uid: 0, gid: 0 },
};

fn archive() -> ArchiveName {
    "default".parse().expect("a name")
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(work)
}

/// Commits whole files, one at a time, into a store in memory.
struct History {
    memory: MemoryStore,
    store: Arc<dyn Store>,
    writer: Writer,
    tree: Tree<()>,
}

impl History {
    /// A barrier, a commit with a pack, a change, a checkpoint (4), and two more changes.
    async fn of_five_commits() -> Self {
        let memory = MemoryStore::new();
        let store: Arc<dyn Store> = Arc::new(memory.clone());
        let now = store.now_ms().await.expect("answers");
        let mut writer = Writer::new(archive(), "test-1".parse().expect("a name"), 1, None, now);
        let barrier = writer.barrier(&*store).await;
        assert!(matches!(barrier.expect("answers"), Outcome::Done(_)));
        let mut history = Self {
            memory,
            store,
            writer,
            tree: Tree::new(),
        };
        let mut large = vec![0; 600_000];
        blake3::Hasher::new().finalize_xof().fill(&mut large);
        history.commit(&[("big", &large), ("a", b"one")]).await;
        history.commit(&[("a", b"two")]).await;
        let made = checkpoint::write(&history.store, &mut history.writer).await;
        assert!(matches!(made.expect("whole"), Some(Outcome::Done(_))));
        history.commit(&[("a", b"three")]).await;
        history.commit(&[("a", b"four"), ("b", b"new")]).await;
        history
    }

    async fn commit(&mut self, files: &[(&str, &[u8])]) {
        let (sink, upload) = Upload::start(self.store.clone(), archive());
        let files: Vec<_> = files
            .iter()
            .map(|(name, content)| (RelPath::new(*name).expect("a path"), content.to_vec()))
            .collect();
        for (path, content) in &files {
            let kind = EntryKind::File {
                size: content.len() as u64,
                hash: Digest::of(content),
            };
            let leaf = Leaf {
                meta: META,
                kind,
                extra: (),
            };
            self.tree.insert(path, leaf);
        }
        let built = tokio::task::spawn_blocking(move || {
            let mut builder = Builder::new(sink)?;
            for (path, content) in &files {
                builder.put_file(path, META, content)?;
            }
            builder.finish()
        });
        let built = upload.finish(built.await.expect("no panic")).await;
        let summary = Summary {
            root: self.tree.root(),
            files: self.tree.files(),
            bytes: self.tree.bytes(),
        };
        let built = built.expect("uploads");
        let done = self.writer.commit(&*self.store, built, summary).await;
        assert!(matches!(done.expect("answers"), Outcome::Done(_)));
    }

    async fn staged(&self, at: &Path) -> Result<Staged, super::BootError> {
        let head = self.store.head(&archive()).await.expect("answers");
        stage_newest_whole(
            &*self.store,
            head.expect("is there"),
            Place::keeping_owners(&StateDir::open(at).expect("it opens")),
            FallBack::Yes,
            &Progress::default(),
        )
        .await
    }

    /// What `a` holds in the version that is restored, and what was found damaged.
    async fn restored_a(&self) -> (Vec<u8>, Vec<String>) {
        let dir = tempfile::tempdir().expect("tempdir");
        let staged = self
            .staged(dir.path())
            .await
            .expect("an older one is whole");
        let content = std::fs::read(staged.stage.path().join("a")).expect("is there");
        (content, staged.damage.clone())
    }
}

#[test]
fn of_a_whole_history_the_newest_commit_is_restored() {
    block_on(async {
        let history = History::of_five_commits().await;
        assert_eq!(history.restored_a().await, (b"four".to_vec(), vec![]));
    });
}

#[test]
fn a_flipped_bit_in_the_newest_commit_costs_that_commit_alone() {
    block_on(async {
        let history = History::of_five_commits().await;
        for bit in [0, 13, 40] {
            let flip = |body: &mut Vec<u8>| body[bit] ^= 1;
            assert!(history.memory.change_body(&archive(), 6, flip));
            let (content, damage) = history.restored_a().await;
            assert_eq!(content, b"three");
            assert!(damage[0].contains("commit 6"), "{damage:?}");
            assert!(history.memory.change_body(&archive(), 6, flip));
        }
    });
}

#[test]
fn a_missing_commit_in_the_middle_is_passed_over_with_those_after_it() {
    block_on(async {
        let history = History::of_five_commits().await;
        let deleted = history.store.delete_records(&archive(), &[5]).await;
        assert_eq!(deleted.expect("deletes"), 1);
        assert_eq!(history.restored_a().await.0, b"two");
    });
}

#[test]
fn a_damaged_checkpoint_leads_back_to_the_commit_before() {
    block_on(async {
        let history = History::of_five_commits().await;
        history.memory.change_body(&archive(), 4, |body| {
            let at = body.len() / 2;
            body[at] ^= 0x10;
        });
        let (content, damage) = history.restored_a().await;
        assert_eq!(content, b"two");
        assert!(!damage.is_empty());
    });
}

#[test]
fn where_every_version_needs_what_is_missing_none_is_restored() {
    block_on(async {
        let history = History::of_five_commits().await;
        let packs = history.store.packs(&archive()).await.expect("answers");
        assert_eq!(packs.len(), 1);
        let gone = history.store.delete_pack(&archive(), packs[0].id).await;
        gone.expect("deletes");
        let dir = tempfile::tempdir().expect("tempdir");
        let error = history.staged(dir.path()).await.expect_err("none is whole");
        assert!(error.to_string().contains("no commit"), "{error}");
    });
}
