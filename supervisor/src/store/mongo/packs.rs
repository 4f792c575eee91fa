//! Packs, kept by the GridFS specification, so that `mongofiles` and every driver can read them.
//!
//! The documents are written here and not by the driver's GridFS bucket. That makes each chunk's
//! key a function of pack and position: putting a pack again, after an answer was lost, replaces
//! piece by piece what is there, whatever an earlier try left behind or still has under way. It
//! also gives every round trip a deadline of its own.

use mongodb::IndexModel;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Document, doc};
use mongodb::options::IndexOptions;

use bytes::Bytes;

use super::MongoStore;
use super::errors::{Fault, is_denied, is_duplicate_key};
use crate::store::{ArchiveName, FORMAT, PackId, PackInfo, Result, StoreError, is_known};

/// The collection that lists packs.
pub(super) const FILES: &str = "packs.files";
/// The collection of their pieces.
pub(super) const CHUNKS: &str = "packs.chunks";

/// Bytes in one chunk. GridFS's usual 255 KiB would make 33 round trips of an 8 MiB pack, each
/// waiting for a journal; much more would hold more memory and need a faster link to pass in time.
const CHUNK: usize = 2 << 20;

/// The key of a chunk: the same for every try.
fn chunk_key(id: PackId, n: i32) -> ObjectId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&id.0).update(&n.to_be_bytes());
    let mut key = [0; 12];
    hasher.finalize_xof().fill(&mut key);
    ObjectId::from_bytes(key)
}

fn number(n: usize) -> i32 {
    i32::try_from(n).expect("a pack that is in memory has fewer chunks than i32 counts")
}

/// A document of [`FILES`], checked.
struct Listed {
    archive: String,
    length: usize,
    chunk: usize,
}

impl Listed {
    fn read(id: PackId, document: &Document) -> Result<Self> {
        let damaged = || StoreError::Damaged {
            what: format!("pack {id}"),
            why: "its entry cannot be read".to_owned(),
        };
        let size = |field: &str| {
            let value = document.get(field)?;
            let number = value.as_i64().or_else(|| value.as_i32().map(i64::from))?;
            usize::try_from(number).ok()
        };
        let metadata = document.get_document("metadata").map_err(|_| damaged())?;
        let format = metadata
            .get("format")
            .and_then(|v| v.as_i64().or_else(|| v.as_i32().map(i64::from)))
            .ok_or_else(damaged)?;
        if !u32::try_from(format).is_ok_and(is_known) {
            return Err(StoreError::Format {
                what: format!("pack {id}"),
                found: u32::try_from(format).unwrap_or(u32::MAX),
            });
        }
        Ok(Self {
            archive: metadata
                .get_str("archive")
                .map_err(|_| damaged())?
                .to_owned(),
            length: size("length").ok_or_else(damaged)?,
            chunk: size("chunkSize").filter(|n| *n > 0).ok_or_else(damaged)?,
        })
    }
}

impl MongoStore {
    /// Creates the indexes that make listing and collecting packs quick. Nothing is unsafe
    /// without them, so a user without the right to create them does without.
    pub(super) async fn create_indexes(&self) -> Result<()> {
        let mut unique = IndexOptions::default();
        unique.unique = Some(true);
        let wanted = [
            (FILES, doc! { "metadata.archive": 1 }, None),
            (FILES, doc! { "filename": 1, "uploadDate": 1 }, None),
            (CHUNKS, doc! { "files_id": 1, "n": 1 }, Some(unique)),
        ];
        self.within("create its indexes", async {
            for (collection, keys, options) in wanted {
                let mut index = IndexModel::default();
                index.keys = keys;
                index.options = options;
                let collection = self.collection(collection).await?;
                match collection.create_index(index).await {
                    Ok(_) => {}
                    Err(error) if is_denied(&error) && self.may_read().await? => {
                        tracing::debug!("no right to create indexes; going on without");
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })
        .await
    }

    /// Tells "may not create an index" from "may not log in at all".
    async fn may_read(&self) -> Result<bool, Fault> {
        self.collection(FILES)
            .await?
            .find_one(doc! { "_id": "" })
            .await?;
        Ok(true)
    }

    async fn listed(&self, id: PackId) -> Result<Option<Listed>, Fault> {
        let files = self.collection(FILES).await?;
        let found = files.find_one(doc! { "_id": id.to_string() }).await?;
        Ok(found.map(|found| Listed::read(id, &found)).transpose()?)
    }

    pub(super) async fn write_pack(
        &self,
        archive: &ArchiveName,
        id: PackId,
        content: &Bytes,
    ) -> Result<()> {
        const ACTION: &str = "store a pack";
        let foreign = || StoreError::Failed {
            action: ACTION,
            source: format!("pack {id} belongs to another archive").into(),
        };
        if let Some(listed) = self.within(ACTION, self.listed(id)).await? {
            return if listed.archive == archive.as_str() {
                Ok(())
            } else {
                Err(foreign())
            };
        }
        for (n, piece) in content.chunks(CHUNK).enumerate() {
            self.within(ACTION, self.write_chunk(id, number(n), piece))
                .await?;
        }
        // Last, since this is what makes it a pack.
        let entry = doc! {
            "_id": id.to_string(),
            "length": i64::try_from(content.len()).unwrap_or(i64::MAX),
            "chunkSize": number(CHUNK),
            "uploadDate": DateTime::now(),
            "filename": format!("{archive}/{id}"),
            "metadata": {
                "archive": archive.as_str(),
                "format": i64::from(FORMAT),
                "size": i64::try_from(content.len()).unwrap_or(i64::MAX),
            },
        };
        self.within(ACTION, async {
            match self.collection(FILES).await?.insert_one(entry).await {
                Ok(_) => Ok(()),
                // An earlier try of ours was still under way. It must be durable before we say so.
                Err(error) if is_duplicate_key(&error) => {
                    let seen = self
                        .collection(FILES)
                        .await?
                        .update_one(
                            doc! { "_id": id.to_string(), "metadata.archive": archive.as_str() },
                            doc! { "$setOnInsert": { "length": 0 } },
                        )
                        .await?;
                    if seen.matched_count == 0 {
                        return Err(foreign().into());
                    }
                    Ok(())
                }
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    async fn write_chunk(&self, id: PackId, n: i32, piece: &[u8]) -> Result<(), Fault> {
        let key = chunk_key(id, n);
        let chunk = || {
            doc! {
                "_id": key,
                "files_id": id.to_string(),
                "n": n,
                "data": Binary { subtype: BinarySubtype::Generic, bytes: piece.to_vec() },
            }
        };
        let chunks = self.collection(CHUNKS).await?;
        match chunks.insert_one(chunk()).await {
            Ok(_) => Ok(()),
            Err(error) if is_duplicate_key(&error) => {
                chunks
                    .replace_one(doc! { "_id": key }, chunk())
                    .upsert(true)
                    .await?;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn read_pack(&self, archive: &ArchiveName, id: PackId) -> Result<Bytes> {
        const ACTION: &str = "read a pack";
        let listed = self
            .within(ACTION, self.listed(id))
            .await?
            .filter(|listed| listed.archive == archive.as_str())
            .ok_or_else(|| StoreError::Missing {
                what: format!("pack {id} of archive {archive}"),
            })?;
        let damaged = |why: String| StoreError::Damaged {
            what: format!("pack {id} of archive {archive}"),
            why,
        };
        // The length is not believed before the content is there: it may be the damaged part.
        let mut content = Vec::with_capacity(listed.length.min(4 * CHUNK));
        for n in 0..listed.length.div_ceil(listed.chunk) {
            let wanted = listed.chunk.min(listed.length - content.len());
            self.within(ACTION, async {
                let chunks = self.raw(CHUNKS).await?;
                let n = number(n);
                let mut found = chunks.find_one(doc! { "_id": chunk_key(id, n) }).await?;
                if found.is_none() {
                    // Copied here by a tool that gave it a key of its own.
                    found = chunks
                        .find_one(doc! { "files_id": id.to_string(), "n": n })
                        .await?;
                }
                let found = found.ok_or_else(|| damaged(format!("its chunk {n} is missing")))?;
                let piece = found
                    .get_binary("data")
                    .map_err(|_| damaged(format!("its chunk {n} cannot be read")))?;
                if piece.bytes.len() != wanted {
                    return Err(damaged(format!(
                        "its chunk {n} has {} bytes instead of {wanted}",
                        piece.bytes.len()
                    ))
                    .into());
                }
                content.extend_from_slice(piece.bytes);
                Ok(())
            })
            .await?;
        }
        Ok(content.into())
    }

    pub(super) async fn list_packs(&self, archive: &ArchiveName) -> Result<Vec<PackInfo>> {
        self.within("list packs", async {
            let files = self.collection(FILES).await?;
            let mut cursor = files
                .find(doc! { "metadata.archive": archive.as_str() })
                .projection(doc! { "_id": 1, "length": 1 })
                .await?;
            let mut packs = Vec::new();
            while cursor.advance().await? {
                let entry = cursor.deserialize_current()?;
                let id = entry.get_str("_id").ok().and_then(|id| id.parse().ok());
                let length = entry.get("length");
                let size = length
                    .and_then(|v| v.as_i64().or_else(|| v.as_i32().map(i64::from)))
                    .and_then(|size| u64::try_from(size).ok());
                let (Some(id), Some(size)) = (id, size) else {
                    return Err(Fault::Store(StoreError::Damaged {
                        what: format!("a pack of archive {archive}"),
                        why: "its entry cannot be read".to_owned(),
                    }));
                };
                packs.push(PackInfo { id, size });
            }
            Ok(packs)
        })
        .await
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_keys_are_the_same_for_every_try_and_differ_between_chunks() {
        let (one, other) = (PackId::generate(), PackId::generate());
        assert_eq!(chunk_key(one, 3), chunk_key(one, 3));
        assert_ne!(chunk_key(one, 3), chunk_key(one, 4));
        assert_ne!(chunk_key(one, 3), chunk_key(other, 3));
    }
}
