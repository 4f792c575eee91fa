//! What becomes of packs that nobody needs any more: they are marked, deleted, and what is left of some
//! is swept up.

use mongodb::bson::{Bson, DateTime, doc};

use super::MongoStore;
use super::errors::Fault;
use super::packs::{CHUNKS, FILES, PACKS_AT_ONCE};
use sessionkeep_archive::store::Result;
use sessionkeep_core::record::{ArchiveName, PackId};

/// Since when no commit has referred to a pack: the field of [`FILES`] that says so.
pub(super) const UNUSED_SINCE: &str = "metadata.unused_since";

impl MongoStore {
    pub(super) async fn mark_unused_packs(
        &self,
        archive: &ArchiveName,
        packs: &[PackId],
        since_ms: Option<u64>,
    ) -> Result<()> {
        let change = match since_ms {
            Some(ms) => {
                let since = DateTime::from_millis(i64::try_from(ms).unwrap_or(i64::MAX));
                doc! { "$set": { UNUSED_SINCE: since } }
            }
            None => doc! { "$unset": { UNUSED_SINCE: "" } },
        };
        for some in packs.chunks(PACKS_AT_ONCE) {
            let ids: Vec<String> = some.iter().map(ToString::to_string).collect();
            let which = doc! { "_id": { "$in": ids }, "metadata.archive": archive.as_str() };
            self.within("mark packs as unused", async {
                let files = self.collection(FILES).await?;
                files.update_many(which, change.clone()).await?;
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    pub(super) async fn remove_pack(&self, archive: &ArchiveName, id: PackId) -> Result<()> {
        const ACTION: &str = "delete a pack";
        // The entry first: what is left if this is all that happens is swept up later.
        let entry = doc! { "_id": id.to_string(), "metadata.archive": archive.as_str() };
        let removed = self
            .within(ACTION, async {
                let files = self.collection(FILES).await?;
                Ok(files.delete_one(entry).await?.deleted_count)
            })
            .await?;
        // Not ours, or not there: the pieces, if there are any, are not ours to judge.
        if removed == 0 {
            return Ok(());
        }
        self.within(ACTION, self.remove_pieces(&id.to_string()))
            .await
    }

    async fn remove_pieces(&self, id: &str) -> Result<(), Fault> {
        let chunks = self.collection(CHUNKS).await?;
        chunks.delete_many(doc! { "files_id": id }).await?;
        Ok(())
    }

    pub(super) async fn sweep_pieces(&self, before_ms: u64) -> Result<u64> {
        const ACTION: &str = "collect pieces of packs";
        // Ids begin with the time they were made, and sort by it also when written in hex.
        let mut bound = [0; 16];
        bound[..6].copy_from_slice(&before_ms.min((1 << 48) - 1).to_be_bytes()[2..]);
        let begun_before = doc! { "$lt": PackId(bound).to_string() };
        let orphans = self
            .within(ACTION, async {
                let chunks = self.collection(CHUNKS).await?;
                let pieces = chunks
                    .distinct("files_id", doc! { "files_id": begun_before.clone() })
                    .await?;
                // Read after the pieces: a pack that was completed in between is seen.
                let whole = self
                    .collection(FILES)
                    .await?
                    .distinct("_id", doc! { "_id": begun_before })
                    .await?;
                let whole: std::collections::HashSet<&str> =
                    whole.iter().filter_map(Bson::as_str).collect();
                Ok(pieces
                    .iter()
                    .filter_map(Bson::as_str)
                    // Others' files may share the bucket; only what is named like a pack is ours.
                    .filter(|id| id.parse::<PackId>().is_ok() && !whole.contains(id))
                    .map(ToOwned::to_owned)
                    .collect::<Vec<_>>())
            })
            .await?;
        let mut swept = 0;
        for id in orphans {
            self.within(ACTION, self.remove_pieces(&id)).await?;
            swept += 1;
        }
        Ok(swept)
    }
}
