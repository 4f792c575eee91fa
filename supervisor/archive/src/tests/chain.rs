//! Commits, patches, checkpoints, retries and the fence.

use proptest::prelude::*;

use super::*;
use crate::blocks::{BlockMap, PAGE_BLOCK};
use crate::collect::collect;
use crate::store::Faults;
use sessionkeep_core::record::RecordKind;
use std::time::Duration;

#[test]
fn the_first_commit_is_a_checkpoint_and_the_next_builds_on_it() {
    block_on(async {
        let mut keeper = Keeper::new().await;
        let first = keeper
            .commit(&[
                ("creds.json", Some(b"{}".to_vec())),
                ("empty", Some(vec![])),
            ])
            .await;
        assert_eq!(
            (first.kind, first.seq, first.base),
            (RecordKind::Checkpoint, 2, 2)
        );
        let second = keeper
            .commit(&[("creds.json", Some(b"{1}".to_vec()))])
            .await;
        assert_eq!(
            (second.kind, second.base, second.changed_at),
            (RecordKind::Change, 2, 3)
        );
        assert_eq!(keeper.restored().await.expect("whole"), keeper.files);
        assert_eq!(
            keeper.memory.calls().writes,
            3,
            "one insert a commit, barrier included"
        );
    });
}

#[test]
fn a_large_file_goes_into_packs_and_comes_back() {
    block_on(async {
        let mut keeper = Keeper::new().await;
        let header = keeper
            .commit(&[
                ("big", Some(noise(1, 11 << 20))),
                ("small", Some(b"x".to_vec())),
            ])
            .await;
        assert!(header.packs.len() >= 2, "{:?}", header.packs);
        assert_eq!(keeper.restored().await.expect("whole"), keeper.files);
    });
}

#[test]
fn a_patched_file_costs_its_changed_blocks_and_verifies_in_any_order() {
    block_on(async {
        let mut keeper = Keeper::new().await;
        let mut content = noise(7, 700 * 1024 + 77);
        let mut map: Option<BlockMap> = None;
        for round in 0..6u64 {
            let (sink, upload) = Upload::start(keeper.store.clone(), archive());
            let (now, before) = (content.clone(), map.take());
            let known = before.as_ref().map(|map| (map.size(), map.hash()));
            let (built, next) = tokio::task::spawn_blocking(move || {
                let mut builder = Builder::new(sink).expect("zstd");
                let mut file = builder.begin_blocks(&path("db"), PAGE_BLOCK, before.as_ref());
                for part in now.chunks(5000) {
                    file.feed(&mut builder, part).expect("feeds");
                }
                let (map, hash, changed) =
                    file.finish(&mut builder, meta(2), known).expect("finishes");
                assert!(changed);
                assert_eq!(hash, Digest::of(&now));
                (builder.finish(), map)
            })
            .await
            .expect("no panic");
            let built = upload.finish(built).await.expect("uploads");
            if round > 0 {
                assert!(
                    built.stored < 40 << 10,
                    "a patch of two blocks took {} bytes",
                    built.stored
                );
            }
            let kind = EntryKind::File {
                size: content.len() as u64,
                hash: Digest::of(&content),
            };
            keeper.tree.insert(
                &path("db"),
                Leaf {
                    meta: meta(2),
                    kind,
                    extra: (),
                },
            );
            keeper.files.insert(path("db"), content.clone());
            let summary = keeper.summary();
            done(keeper.writer.commit(&*keeper.store, built, summary).await);
            assert_eq!(keeper.restored().await.expect("whole"), keeper.files);
            map = Some(next);
            // Change something in the middle, and let the file shrink or grow by some bytes.
            let at = (round as usize * 131_071) % (content.len() - 10);
            content[at..at + 10].copy_from_slice(&noise(round, 10));
            let len = content.len() - 3000 + (round as usize % 2) * 5000;
            content.resize(len, 0xAB);
            if round == 3 {
                keeper.checkpoint().await;
                assert_eq!(keeper.restored().await.expect("whole"), keeper.files);
            }
        }
    });
}

#[test]
fn an_append_whose_answer_was_lost_is_asked_for_again_and_is_there_once() {
    block_on(async {
        let mut keeper = Keeper::new().await;
        keeper.commit(&[("a", Some(b"1".to_vec()))]).await;
        keeper.memory.set_faults(Faults::AnswerLost);
        let (sink, _upload) = Upload::start(keeper.store.clone(), archive());
        let built = Builder::new(sink)
            .and_then(|mut b| {
                b.put_file(&path("a"), meta(1), b"2")?;
                b.finish()
            })
            .expect("builds");
        keeper
            .tree
            .insert(&path("a"), super::super::tree::tests::file(b"2"));
        let leaf = Leaf {
            meta: meta(1),
            kind: EntryKind::File {
                size: 1,
                hash: Digest::of(b"2"),
            },
            extra: (),
        };
        keeper.tree.insert(&path("a"), leaf);
        let summary = keeper.summary();
        let lost = keeper.writer.commit(&*keeper.store, built, summary).await;
        assert!(lost.expect_err("the answer was dropped").is_transient());
        assert!(keeper.writer.is_pending());
        keeper.memory.set_faults(Faults::None);
        let settled = keeper
            .writer
            .settle(&*keeper.store)
            .await
            .expect("answers")
            .expect("was pending");
        assert_eq!(done(Ok(settled)).seq, 3);
        assert!(!keeper.writer.is_pending());
        assert_eq!(
            keeper.restored().await.expect("whole").get(&path("a")),
            Some(&b"2".to_vec())
        );
    });
}

#[test]
fn a_stale_writer_collides_with_a_barrier() {
    block_on(async {
        let mut keeper = Keeper::new().await;
        let head = keeper.commit(&[("a", Some(b"1".to_vec()))]).await;
        let now = keeper.store.now_ms().await.expect("answers");
        let mut newcomer = Writer::new(
            archive(),
            "test-2".parse().expect("a name"),
            2,
            Some(head),
            now,
        );
        done(newcomer.barrier(&*keeper.store).await);
        let (sink, _upload) = Upload::start(keeper.store.clone(), archive());
        let built = Builder::new(sink)
            .and_then(|mut b| {
                b.put_file(&path("a"), meta(1), b"stale")?;
                b.finish()
            })
            .expect("builds");
        let summary = keeper.summary();
        match keeper
            .writer
            .commit(&*keeper.store, built, summary)
            .await
            .expect("answers")
        {
            Outcome::Fenced(other) => {
                assert_eq!((other.epoch, other.kind), (2, RecordKind::Barrier));
            }
            Outcome::Done(header) => panic!("the stale writer got commit {}", header.seq),
        }
        assert_eq!(
            keeper.restored().await.expect("whole").get(&path("a")),
            Some(&b"1".to_vec())
        );
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Whatever is committed, checkpointed and collected in whatever order, the newest version is
    /// exactly what was put in.
    #[test]
    fn what_was_committed_is_restored_whole(
        steps in prop::collection::vec((0u8..8, 0usize..9, 0usize..400_000, any::<u64>()), 1..30)
    ) {
        const NAMES: [&str; 9] = ["a", "b", "c", "d.json", "e", "f", "g", "h", "i"];
        block_on(async {
            let mut keeper = Keeper::new().await;
            keeper.commit(&[("a", Some(b"first".to_vec()))]).await;
            for (what, name, len, seed) in steps {
                match what {
                    0 => { keeper.checkpoint().await; }
                    1 => { collect(&*keeper.store, &archive(), Duration::ZERO, keeper.writer.clock()).await.expect("collects"); }
                    2 if keeper.files.contains_key(&path(NAMES[name])) => {
                        keeper.commit(&[(NAMES[name], None)]).await;
                    }
                    _ => {
                        let content = if seed % 2 == 0 { noise(seed, len) } else { vec![seed as u8; len] };
                        let other = NAMES[(name + 1) % NAMES.len()];
                        keeper.commit(&[(NAMES[name], Some(content)), (other, Some(noise(seed, len % 100)))]).await;
                    }
                }
                assert_eq!(keeper.restored().await.expect("whole"), keeper.files);
            }
        });
    }
}
