//! Whether the store still has what a writer has committed. Others may delete, cap or drop what we keep
//! there, and a writer only ever adds to it: it would go on adding to what nobody can restore.
//!
//! What is asked for is cheap, so that it can be asked for every few minutes and before the end: keys and
//! lengths, and the newest header. That contents are what was written is for `sessionkeep verify`.

use futures_util::future::join3;

use super::error::{ArchiveError, Result};
use super::version::head_of;
use super::writer::Writer;
use crate::store::{Store, StoreError};
use sessionkeep_core::record::{Header, Seq};

/// What a look at the archive came to.
#[derive(Debug)]
#[must_use]
pub enum ArchivePresence {
    /// All that a restore of the newest commit needs is there.
    Whole,
    /// Another writer has appended to it: this one is fenced.
    Fenced(Box<Header>),
    /// Something that a restore needs is not there.
    Lacking {
        /// What is missing first.
        what: ArchiveError,
        /// The highest number that is taken, by whatever it is.
        last: Seq,
    },
}

/// Looks whether everything that a restore of the writer's newest commit needs is in the store.
///
/// # Errors
/// The store's, where it does not answer or is of a later version.
pub async fn look(store: &dyn Store, writer: &Writer) -> Result<ArchivePresence> {
    let Some(head) = writer.head() else {
        return Ok(ArchivePresence::Whole);
    };
    // While nothing has content, there is no checkpoint to begin at.
    let first = if head.base == 0 { head.seq } else { head.base };
    let (newest, numbers, lacking) = join3(
        head_of(store, &head.archive),
        store.numbers(&head.archive, first, head.seq),
        store.lacking(&head.archive, writer.packs()),
    )
    .await;
    let (numbers, lacking) = (numbers?, lacking?);
    let missing = (first..=head.seq)
        .zip(
            numbers
                .iter()
                .copied()
                .map(Some)
                .chain(std::iter::repeat(None)),
        )
        .find(|(wanted, found)| *found != Some(*wanted))
        .map(|(seq, _)| ArchiveError::MissingCommit { seq });
    let of_head = match newest {
        Ok(Some(newest)) => match judge(writer, head, &newest) {
            Judgement::Ours => None,
            Judgement::Another => return Ok(ArchivePresence::Fenced(Box::new(newest))),
            Judgement::Damaged(error) => Some(error),
        },
        Ok(None) => Some(ArchiveError::MissingCommit { seq: head.seq }),
        Err(error) if error.is_damage() => Some(error),
        Err(error) => return Err(error),
    };
    let pack = lacking.first().map(|id| {
        let what = format!("pack {id} of archive {}", head.archive);
        ArchiveError::from(StoreError::Missing { what })
    });
    match of_head.or(missing).or(pack) {
        None => Ok(ArchivePresence::Whole),
        Some(what) => {
            let last = store.last_seq(&head.archive).await?.unwrap_or(0);
            Ok(ArchivePresence::Lacking { what, last })
        }
    }
}

enum Judgement {
    Ours,
    Another,
    Damaged(ArchiveError),
}

/// What it means that `newest` is the newest commit in the store, where this writer knows `head`.
fn judge(writer: &Writer, head: &Header, newest: &Header) -> Judgement {
    if newest.digest == head.digest {
        return Judgement::Ours;
    }
    let by_another = newest.instance != *writer.instance();
    // One with a lower number and no higher epoch was there before ours, and ours is gone.
    if newest.epoch > writer.epoch() || (newest.seq >= head.seq && by_another) {
        return Judgement::Another;
    }
    if newest.seq < head.seq {
        return Judgement::Damaged(ArchiveError::MissingCommit { seq: head.seq });
    }
    Judgement::Damaged(ArchiveError::DamagedCommit {
        seq: newest.seq,
        why: "it is not what was committed".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Built;
    use crate::store::{CommitLog, MemoryStore, Packs};
    use crate::tree::Tree;
    use crate::writer::{Outcome, Summary};
    use bytes::Bytes;
    use sessionkeep_core::record::PackId;

    fn built(packs: Vec<PackId>) -> Built {
        Built {
            body: Vec::new(),
            packs,
            changes: 1,
            bytes: 0,
            stored: 10,
        }
    }

    /// A writer of `name` at `epoch` that goes on from what `store` holds.
    async fn writer(store: &MemoryStore, name: &str, epoch: u64) -> Writer {
        let archive = "default".parse().expect("a name");
        let head = store.head(&archive).await.expect("answers");
        Writer::new(archive, name.parse().expect("a name"), epoch, head, 0)
    }

    async fn commit(store: &MemoryStore, writer: &mut Writer, packs: Vec<PackId>) {
        let summary = Summary::of(&Tree::<()>::new());
        let done = writer.commit(store, built(packs), summary).await;
        assert!(matches!(done, Ok(Outcome::Done(_))), "{done:?}");
    }

    /// Five commits, the second of which needs a pack.
    async fn five() -> (MemoryStore, Writer, PackId) {
        let store = MemoryStore::new();
        let mut writer = writer(&store, "a", 3).await;
        let pack = PackId::generate();
        let head: sessionkeep_core::record::ArchiveName = "default".parse().expect("a name");
        let put = store.put_pack(&head, pack, Bytes::from_static(b"content"));
        put.await.expect("put");
        for n in 0..5 {
            let packs = if n == 1 { vec![pack] } else { vec![] };
            commit(&store, &mut writer, packs).await;
        }
        (store, writer, pack)
    }

    #[tokio::test]
    async fn whatever_is_deleted_is_missed() {
        let archive = "default".parse().expect("a name");
        let (store, writer, _) = five().await;
        let whole = look(&store, &writer).await;
        assert!(matches!(whole, Ok(ArchivePresence::Whole)), "{whole:?}");
        for gone in 1..=5 {
            let (store, writer, _) = five().await;
            let deleted = store.delete_records(&archive, &[gone]).await;
            assert_eq!(deleted.expect("deleted"), 1);
            match look(&store, &writer).await.expect("answers") {
                ArchivePresence::Lacking {
                    what: ArchiveError::MissingCommit { seq },
                    last,
                } => assert_eq!((seq, last), (gone, if gone == 5 { 4 } else { 5 })),
                other => panic!("{gone}: {other:?}"),
            }
        }
        let (store, writer, _) = five().await;
        let all = store.delete_records(&archive, &[1, 2, 3, 4, 5]).await;
        assert_eq!(all.expect("deleted"), 5);
        let lacking = look(&store, &writer).await.expect("answers");
        assert!(
            matches!(lacking, ArchivePresence::Lacking { last: 0, .. }),
            "{lacking:?}"
        );
        let (store, writer, pack) = five().await;
        store.delete_pack(&archive, pack).await.expect("deleted");
        match look(&store, &writer).await.expect("answers") {
            ArchivePresence::Lacking { what, .. } => {
                assert!(what.to_string().contains(&pack.to_string()), "{what}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_a_checkpoint_has_superseded_may_go() {
        let archive = "default".parse().expect("a name");
        let (store, mut writer, pack) = five().await;
        let summary = Summary::of(&Tree::<()>::new());
        let done = writer.checkpoint(&store, built(vec![]), summary, 10).await;
        assert!(matches!(done, Ok(Outcome::Done(_))), "{done:?}");
        let gone = store.delete_records(&archive, &[1, 2, 3, 4, 5]).await;
        assert_eq!(gone.expect("deleted"), 5);
        store.delete_pack(&archive, pack).await.expect("deleted");
        let whole = look(&store, &writer).await;
        assert!(matches!(whole, Ok(ArchivePresence::Whole)), "{whole:?}");
    }

    #[tokio::test]
    async fn another_owners_commit_is_never_taken_for_damage() {
        let archive = "default".parse().expect("a name");
        // It goes on from our head.
        let (store, ours, _) = five().await;
        let mut next = writer(&store, "b", 4).await;
        commit(&store, &mut next, vec![]).await;
        let look_of = look(&store, &ours).await;
        assert!(
            matches!(look_of, Ok(ArchivePresence::Fenced(_))),
            "{look_of:?}"
        );
        // It began anew in an archive that was deleted, and is not as far as we are.
        let (store, ours, _) = five().await;
        let all = store.delete_records(&archive, &[1, 2, 3, 4, 5]).await;
        assert_eq!(all.expect("deleted"), 5);
        let mut next = writer(&store, "b", 4).await;
        commit(&store, &mut next, vec![]).await;
        let look_of = look(&store, &ours).await;
        assert!(
            matches!(look_of, Ok(ArchivePresence::Fenced(_))),
            "{look_of:?}"
        );
        // It is far ahead, and has collected everything that we know.
        let (store, ours, _) = five().await;
        let mut next = writer(&store, "b", 4).await;
        for _ in 0..5 {
            commit(&store, &mut next, vec![]).await;
        }
        let old = store.delete_records(&archive, &[1, 2, 3, 4, 5, 6]).await;
        assert_eq!(old.expect("deleted"), 6);
        let look_of = look(&store, &ours).await;
        assert!(
            matches!(look_of, Ok(ArchivePresence::Fenced(_))),
            "{look_of:?}"
        );
    }
}
