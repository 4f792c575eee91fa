//! What is not what it was is found, and named.

use super::*;
use crate::ArchiveError;
use crate::store::StoreError;

/// Five commits: a checkpoint with a pack, changes, a second checkpoint, changes.
async fn history() -> Keeper {
    let mut keeper = Keeper::new().await;
    keeper
        .commit(&[
            ("big", Some(noise(1, 600_000))),
            ("a", Some(b"one".to_vec())),
        ])
        .await;
    keeper.commit(&[("a", Some(b"two".to_vec()))]).await;
    keeper.checkpoint().await;
    keeper.commit(&[("a", Some(b"three".to_vec()))]).await;
    keeper
        .commit(&[("a", Some(b"four".to_vec())), ("b", Some(b"new".to_vec()))])
        .await;
    keeper
}

#[test]
fn a_whole_history_restores_its_newest_commit() {
    block_on(async {
        let keeper = history().await;
        let files = keeper.restored().await.expect("it is whole");
        assert_eq!(files[&path("a")], b"four");
    });
}

#[test]
fn a_flipped_bit_in_the_newest_commit_is_found_and_the_commit_named() {
    block_on(async {
        let keeper = history().await;
        for bit in [0, 13, 40] {
            assert!(
                keeper
                    .memory
                    .change_body(&archive(), 6, |body| body[bit] ^= 1)
            );
            let error = keeper.restored().await.expect_err("it is damaged");
            assert!(
                matches!(error, ArchiveError::DamagedCommit { seq: 6, .. }),
                "{error}"
            );
            keeper
                .memory
                .change_body(&archive(), 6, |body| body[bit] ^= 1);
        }
    });
}

#[test]
fn a_missing_commit_in_the_middle_is_named() {
    block_on(async {
        let keeper = history().await;
        keeper
            .store
            .delete_records(&archive(), &[5])
            .await
            .expect("deletes");
        let error = keeper.restored().await.expect_err("a link is missing");
        assert!(
            matches!(error, ArchiveError::MissingCommit { seq: 5 }),
            "{error}"
        );
    });
}

#[test]
fn a_damaged_checkpoint_is_found() {
    block_on(async {
        let keeper = history().await;
        keeper.memory.change_body(&archive(), 4, |body| {
            let at = body.len() / 2;
            body[at] ^= 0x10;
        });
        let error = keeper.restored().await.expect_err("it is damaged");
        assert!(error.is_damage(), "{error}");
    });
}

#[test]
fn a_flipped_bit_in_a_pack_is_never_restored() {
    block_on(async {
        let keeper = history().await;
        let packs = keeper.store.packs(&archive()).await.expect("answers");
        assert_eq!(packs.len(), 1);
        let original = keeper
            .store
            .pack(&archive(), packs[0].id)
            .await
            .expect("is there");
        for at in [0, original.len() / 2, original.len() - 1] {
            keeper
                .memory
                .change_pack(&archive(), packs[0].id, |content| content[at] ^= 4);
            let error = keeper.restored().await.expect_err("it is damaged");
            assert!(error.is_damage(), "{error}");
            keeper
                .memory
                .change_pack(&archive(), packs[0].id, |content| content[at] ^= 4);
        }
        keeper
            .store
            .delete_pack(&archive(), packs[0].id)
            .await
            .expect("deletes");
        let error = keeper.restored().await.expect_err("it is missing");
        assert!(
            matches!(error, ArchiveError::Store(StoreError::Missing { .. })),
            "{error}"
        );
    });
}

#[test]
fn a_record_of_a_newer_format_is_refused_with_advice() {
    block_on(async {
        let keeper = history().await;
        let mut record = keeper
            .store
            .records(&archive(), 6, 6)
            .await
            .expect("answers")
            .remove(0);
        record.header.seq = 7;
        record.header.format = sessionkeep_core::record::FORMAT + 1;
        record.header.digest = record.header.seal();
        let _ = keeper.store.append(&record).await;
        let head = keeper.store.head(&archive()).await;
        let words = match head {
            Err(error) => error.to_string(),
            Ok(header) => super::restored(&*keeper.store, header.expect("is there"))
                .await
                .expect_err("unknown format")
                .to_string(),
        };
        assert!(words.contains("install a newer sessionkeep"), "{words}");
    });
}

#[test]
fn a_commit_that_names_a_later_checkpoint_is_damaged_and_no_panic() {
    block_on(async {
        let keeper = history().await;
        let mut head = keeper
            .store
            .head(&archive())
            .await
            .expect("answers")
            .expect("is there");
        // Whoever can write to the store can seal what he likes.
        head.base = head.seq + 1;
        head.digest = head.seal();
        let error = Version::load(&*keeper.store, head)
            .await
            .expect_err("refused");
        assert!(error.is_damage(), "{error}");
        assert!(error.to_string().contains("a commit after it"), "{error}");
    });
}
