//! Packs, kept by the GridFS specification, so that `mongofiles` and every driver can read them.
//!
//! The documents are written here and not by the driver's GridFS bucket. That makes each chunk's
//! key a function of pack and position: putting a pack again, after an answer was lost, replaces
//! piece by piece what is there, whatever an earlier try left behind or still has under way. It
//! also gives every round trip a deadline of its own.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};
use mongodb::IndexModel;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::raw::{RawBinaryRef, RawDocument, RawDocumentBuf, cstr};
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::error::Error;
use mongodb::options::IndexOptions;
use mongodb::raw_batch_cursor::RawBatch;

use super::errors::{Fault, is_denied, is_duplicate_key, refuses_writes};
use super::old_packs::UNUSED_SINCE;
use super::{BULK, MongoStore};
use sessionkeep_archive::store::{PackInfo, Result, StoreError};
use sessionkeep_core::record::{ArchiveName, FORMAT, PackId, is_known};

/// The collection that lists packs.
pub(super) const FILES: &str = "packs.files";
/// The collection of their pieces.
pub(super) const CHUNKS: &str = "packs.chunks";

/// Bytes in one chunk. Several are on their way at a time, each in as many copies as the driver
/// makes of it; GridFS's usual 255 KiB would double the number of requests.
const CHUNK: usize = 512 << 10;
/// No pack has more chunks, by far, also where a tool has cut them smaller.
const CHUNKS_MAX: usize = 16 << 10;
/// How many chunks are asked for in one request: an ordinary pack, whole. Much more would need a
/// faster link to pass in time.
const TRIP: usize = 4;
/// How many requests of one pack are on their way at a time. All of them pass through
/// [`MongoStore::bulk`], which bounds those of all packs together.
const AT_ONCE: usize = 4;

/// No pack is longer, by far: so much would be kept in memory.
const LENGTH_MAX: usize = 512 << 20;

/// How many packs one look at which of them are whole is about.
pub(super) const PACKS_AT_ONCE: usize = 1000;
/// How many keys of chunks are asked for in one request.
const CHUNK_KEYS: usize = 10_000;

/// What errors call the reading of one.
const READ: &str = "read a pack";

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

/// What became of a chunk that was to be inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// It is stored.
    Now,
    /// One with its key was there already.
    WasThere,
}

/// Chunks by their number; `None` for one that cannot be read.
pub type Chunks = HashMap<i32, Option<Bytes>>;

/// An answer of the server, kept for the sake of the bytes in it.
struct Reply(RawBatch);

impl AsRef<[u8]> for Reply {
    fn as_ref(&self) -> &[u8] {
        self.0.as_raw_document().as_bytes()
    }
}

/// Adds the chunks of an answer, without copying them.
pub fn read_chunks(reply: &Bytes, chunks: &mut Chunks) -> mongodb::bson::error::Result<()> {
    let cursor = RawDocument::from_bytes(reply)?.get_document("cursor")?;
    let found = cursor
        .get_array("firstBatch")
        .or_else(|_| cursor.get_array("nextBatch"));
    for chunk in found? {
        let chunk = chunk.ok().and_then(|chunk| chunk.as_document());
        let Some((chunk, Ok(n))) = chunk.map(|chunk| (chunk, chunk.get_i32("n"))) else {
            continue;
        };
        let data = chunk.get_binary("data").ok();
        chunks.insert(n, data.map(|data| reply.slice_ref(data.bytes)));
    }
    Ok(())
}

/// The document of a chunk, with one copy of its content.
fn chunk(id: PackId, n: i32, piece: &[u8]) -> RawDocumentBuf {
    let mut chunk = RawDocumentBuf::new();
    chunk.append(cstr!("_id"), chunk_key(id, n));
    chunk.append(cstr!("files_id"), id.to_string());
    chunk.append(cstr!("n"), n);
    let (subtype, bytes) = (BinarySubtype::Generic, piece);
    chunk.append(cstr!("data"), RawBinaryRef { subtype, bytes });
    chunk
}

/// The `n`-th chunk's part of a pack.
fn chunk_of(content: &Bytes, n: usize) -> Bytes {
    let from = n * CHUNK;
    content.slice(from..content.len().min(from + CHUNK))
}

/// The entry of a pack in the collection of files, checked.
pub struct Listed {
    archive: String,
    length: usize,
    chunk: usize,
}

impl Listed {
    /// How many chunks there must be.
    pub fn chunks(&self) -> usize {
        self.length.div_ceil(self.chunk)
    }

    /// What the entry of the pack `id` says.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where it cannot be.
    pub fn read(id: PackId, document: &Document) -> Result<Self> {
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
            let found = u32::try_from(format).unwrap_or(u32::MAX);
            return Err(StoreError::unknown_format(format!("pack {id}"), found));
        }
        let listed = Self {
            archive: metadata
                .get_str("archive")
                .map_err(|_| damaged())?
                .to_owned(),
            length: size("length").ok_or_else(damaged)?,
            chunk: size("chunkSize").filter(|n| *n > 0).ok_or_else(damaged)?,
        };
        // Nobody is asked for chunks without end because an entry says that there are.
        if listed.length > LENGTH_MAX || listed.chunks() > CHUNKS_MAX {
            return Err(StoreError::Damaged {
                what: format!("pack {id}"),
                why: format!(
                    "its entry claims {} bytes in chunks of {}, more than any pack has",
                    listed.length, listed.chunk
                ),
            });
        }
        Ok(listed)
    }
}

impl MongoStore {
    /// Creates the indexes that make listing and collecting packs quick. Nothing is unsafe
    /// without them, so a user without the right to create them does without.
    pub(super) async fn create_indexes(&self) -> Result<()> {
        let mut unique = IndexOptions::default();
        unique.unique = Some(true);
        let index = |keys: Document, options: Option<IndexOptions>| {
            let mut index = IndexModel::default();
            index.keys = keys;
            index.options = options;
            index
        };
        let wanted = [
            (
                FILES,
                vec![
                    index(doc! { "metadata.archive": 1 }, None),
                    index(doc! { "filename": 1, "uploadDate": 1 }, None),
                ],
            ),
            (
                CHUNKS,
                vec![index(doc! { "files_id": 1, "n": 1 }, Some(unique))],
            ),
        ];
        self.within("create its indexes", async {
            for (collection, indexes) in wanted {
                let collection = self.collection(collection).await?;
                match collection.create_indexes(indexes).await {
                    Ok(_) => {}
                    Err(error)
                        if (is_denied(&error) || refuses_writes(&error))
                            && self.may_read().await? =>
                    {
                        tracing::debug!("indexes cannot be created; going on without");
                    }
                    // Somebody put a piece there twice. Reading them goes by their keys.
                    Err(error) if is_duplicate_key(&error) => {
                        let name = collection.name();
                        tracing::warn!(target: "boot", collection = name, "pieces of packs are there twice, so that they cannot have an index; going on without. See `sessionkeep verify`");
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
        let is_ours = |listed: &Listed| listed.archive == archive.as_str();
        let chunks = content.len().div_ceil(CHUNK);
        let inserts = (0..chunks).map(|n| {
            let piece = chunk_of(content, n);
            self.bulk(ACTION, self.insert_chunk(id, n, piece))
        });
        let written: Vec<Written> = stream::iter(inserts)
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        if written.contains(&Written::WasThere) {
            // An earlier try came this far, or to its end. Ids are random, so this is rare, and
            // not looked for before.
            match self.within(ACTION, self.listed(id)).await? {
                Some(listed) if is_ours(&listed) => return Ok(()),
                Some(_) => return Err(foreign()),
                None => {}
            }
            for n in (0..chunks).filter(|n| written[*n] == Written::WasThere) {
                let piece = chunk_of(content, n);
                self.bulk(ACTION, self.replace_chunk(id, n, &piece)).await?;
            }
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

    async fn insert_chunk(&self, id: PackId, n: usize, piece: Bytes) -> Result<Written, Fault> {
        let chunks = self.raw(CHUNKS).await?;
        match chunks.insert_one(chunk(id, number(n), &piece)).await {
            Ok(_) => Ok(Written::Now),
            Err(error) if is_duplicate_key(&error) => Ok(Written::WasThere),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a chunk over what an earlier try left.
    async fn replace_chunk(&self, id: PackId, n: usize, piece: &[u8]) -> Result<(), Fault> {
        let n = number(n);
        let chunks = self.raw(CHUNKS).await?;
        chunks
            .replace_one(doc! { "_id": chunk_key(id, n) }, chunk(id, n, piece))
            .upsert(true)
            .await?;
        Ok(())
    }

    pub(super) async fn read_pack(&self, archive: &ArchiveName, id: PackId) -> Result<Bytes> {
        let pieces = self.read_pieces(archive, id).await?;
        Ok(match <[Bytes; 1]>::try_from(pieces) {
            Ok([only]) => only,
            Err(pieces) => pieces.concat().into(),
        })
    }

    /// A pack's chunks, in order. The first of them are asked for together with its entry, without
    /// which they are not believed.
    pub(super) async fn read_pieces(
        &self,
        archive: &ArchiveName,
        id: PackId,
    ) -> Result<Vec<Bytes>> {
        let listed = async {
            let listed = self.within(READ, self.listed(id)).await?;
            listed
                .filter(|listed| listed.archive == archive.as_str())
                .ok_or_else(|| StoreError::Missing {
                    what: format!("pack {id} of archive {archive}"),
                })
        };
        let (listed, mut chunks) = future::try_join(listed, self.read_trip(id, 0..TRIP)).await?;
        let count = listed.chunks();
        let trips = (TRIP..count)
            .step_by(TRIP)
            .map(|from| self.read_trip(id, from..count.min(from + TRIP)));
        let mut trips = stream::iter(trips).buffered(AT_ONCE);
        while let Some(more) = trips.try_next().await? {
            chunks.extend(more);
        }
        drop(trips);
        let missing: Vec<i32> = (0..count)
            .map(number)
            .filter(|n| !chunks.contains_key(n))
            .collect();
        for some in missing.chunks(TRIP) {
            let more = self.bulk(READ, self.read_foreign_chunks(id, some));
            chunks.extend(more.await?);
        }
        let damaged = |why: String| StoreError::Damaged {
            what: format!("pack {id} of archive {archive}"),
            why,
        };
        let mut pieces = Vec::new();
        for n in 0..count {
            let piece = match chunks.remove(&number(n)) {
                None => return Err(damaged(format!("its chunk {n} is missing"))),
                Some(None) => return Err(damaged(format!("its chunk {n} cannot be read"))),
                Some(Some(piece)) => piece,
            };
            let wanted = listed.chunk.min(listed.length - n * listed.chunk);
            if piece.len() != wanted {
                return Err(damaged(format!(
                    "its chunk {n} has {} bytes instead of {wanted}",
                    piece.len()
                )));
            }
            pieces.push(piece);
        }
        Ok(pieces)
    }

    /// Some of a pack's chunks. Requests share the link: what misses its deadline beside others is
    /// asked for again piece by piece and with the link to itself, so that a slow link makes a
    /// restore slow and not impossible.
    async fn read_trip(&self, id: PackId, wanted: Range<usize>) -> Result<Chunks> {
        let one = self.bulk.acquire().await.expect("it is never closed");
        let together = self.read_chunks(id, wanted.clone());
        if let Ok(done) = tokio::time::timeout(self.timeout, together).await {
            return done.map_err(|fault| self.translator.tell(READ, fault));
        }
        drop(one);
        let all = self.bulk.acquire_many(BULK).await;
        let _alone = all.expect("it is never closed");
        let mut chunks = Chunks::new();
        for n in wanted {
            let one = self.within(READ, self.read_chunks(id, n..n + 1)).await?;
            chunks.extend(one);
        }
        Ok(chunks)
    }

    async fn read_chunks(&self, id: PackId, wanted: Range<usize>) -> Result<Chunks, Fault> {
        let keys: Vec<Bson> = wanted.map(|n| chunk_key(id, number(n)).into()).collect();
        self.find_chunks(doc! { "_id": { "$in": keys } }).await
    }

    /// Chunks that were copied here by a tool that gave them keys of its own.
    async fn read_foreign_chunks(&self, id: PackId, wanted: &[i32]) -> Result<Chunks, Fault> {
        let which = doc! { "files_id": id.to_string(), "n": { "$in": wanted.to_vec() } };
        self.find_chunks(which).await
    }

    /// Chunks as they lie in the driver's buffer: megabytes are not copied where they can be kept.
    async fn find_chunks(&self, which: Document) -> Result<Chunks, Fault> {
        let mut batches = self.raw(CHUNKS).await?.find(which).batch().await?;
        let mut chunks = Chunks::new();
        while let Some(batch) = batches.try_next().await? {
            let reply = Bytes::from_owner(Reply(batch));
            read_chunks(&reply, &mut chunks).map_err(Error::from)?;
        }
        Ok(chunks)
    }

    pub(super) async fn list_packs(&self, archive: &ArchiveName) -> Result<Vec<PackInfo>> {
        self.within("list packs", async {
            let files = self.collection(FILES).await?;
            let mut cursor = files
                .find(doc! { "metadata.archive": archive.as_str() })
                .projection(doc! { "_id": 1, "length": 1, UNUSED_SINCE: 1 })
                .await?;
            let mut packs = Vec::new();
            while cursor.advance().await? {
                let entry = cursor.deserialize_current()?;
                let id = entry.get_str("_id").ok().and_then(|id| id.parse().ok());
                let length = entry.get("length");
                let size = length
                    .and_then(|v| v.as_i64().or_else(|| v.as_i32().map(i64::from)))
                    .and_then(|size| u64::try_from(size).ok());
                let metadata = entry.get_document("metadata").ok();
                let unused = metadata.and_then(|fields| fields.get_datetime("unused_since").ok());
                let unused_since_ms =
                    unused.and_then(|since| u64::try_from(since.timestamp_millis()).ok());
                // What cannot be read is no whole pack, or not ours: it stays where it is.
                packs.extend(id.zip(size).map(|(id, size)| PackInfo {
                    id,
                    size,
                    unused_since_ms,
                }));
            }
            Ok(packs)
        })
        .await
    }

    /// Asks for the entries, and then for the keys of all chunks that these say there are; the latter
    /// is answered from the index of `_id` alone, which every collection has.
    pub(super) async fn lacking_packs(
        &self,
        archive: &ArchiveName,
        packs: &[PackId],
    ) -> Result<Vec<PackId>> {
        let mut lacking = Vec::new();
        for some in packs.chunks(PACKS_AT_ONCE) {
            let found = self.within("list packs", self.which_lack(archive, some));
            lacking.extend(found.await?);
        }
        Ok(lacking)
    }

    async fn which_lack(
        &self,
        archive: &ArchiveName,
        packs: &[PackId],
    ) -> Result<Vec<PackId>, Fault> {
        let ids: Vec<String> = packs.iter().map(ToString::to_string).collect();
        let files = self.collection(FILES).await?;
        let mut cursor = files.find(doc! { "_id": { "$in": ids } }).await?;
        let mut listed = HashMap::new();
        while cursor.advance().await? {
            let entry = cursor.deserialize_current()?;
            let Some(id) = entry.get_str("_id").ok().and_then(|id| id.parse().ok()) else {
                continue;
            };
            // What cannot be read is no pack that a restore could use.
            if let Ok(found) = Listed::read(id, &entry)
                && found.archive == archive.as_str()
            {
                listed.insert(id, found.chunks());
            }
        }
        let keys_of =
            |id: PackId, chunks: usize| (0..chunks).map(move |n| chunk_key(id, number(n)));
        let keys: Vec<ObjectId> = listed
            .iter()
            .flat_map(|(id, chunks)| keys_of(*id, *chunks))
            .collect();
        let mut there = std::collections::HashSet::with_capacity(keys.len());
        for some in keys.chunks(CHUNK_KEYS) {
            let mut cursor = self
                .raw(CHUNKS)
                .await?
                .find(doc! { "_id": { "$in": some.to_vec() } })
                .projection(doc! { "_id": 1 })
                .batch_size(u32::try_from(CHUNK_KEYS).unwrap_or(u32::MAX))
                .await?;
            while cursor.advance().await? {
                there.extend(cursor.current().get_object_id("_id").ok());
            }
        }
        let mut lacking = Vec::new();
        for id in packs {
            let Some(chunks) = listed.get(id) else {
                lacking.push(*id);
                continue;
            };
            let missing: Vec<i32> = (0..*chunks)
                .map(number)
                .filter(|n| !there.contains(&chunk_key(*id, *n)))
                .collect();
            if !missing.is_empty() && !self.are_under_other_keys(*id, &missing).await? {
                lacking.push(*id);
            }
        }
        Ok(lacking)
    }

    /// Whether these chunks are there after all, copied by a tool that gave them keys of its own.
    async fn are_under_other_keys(&self, id: PackId, wanted: &[i32]) -> Result<bool, Fault> {
        let found = self
            .collection(CHUNKS)
            .await?
            .distinct(
                "n",
                doc! { "files_id": id.to_string(), "n": { "$in": wanted.to_vec() } },
            )
            .await?;
        Ok(found.len() == wanted.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_claims_more_than_any_pack_has_is_not_believed() {
        let read = |length: i64, chunk: i64| {
            let metadata = doc! { "archive": "a", "format": 1 };
            let entry = doc! { "length": length, "chunkSize": chunk, "metadata": metadata };
            Listed::read(PackId([7; 16]), &entry)
        };
        assert!(read(2 << 20, 512 << 10).is_ok());
        // As tools that copy packs may cut them.
        assert!(read(256 << 20, 255 << 10).is_ok());
        for (length, chunk) in [
            (i64::MAX, i64::MAX),
            (i64::MAX, 1),
            (1 << 32, 1),
            (100_000, 1),
        ] {
            let Err(StoreError::Damaged { why, .. }) = read(length, chunk) else {
                panic!("{length} bytes in chunks of {chunk}");
            };
            assert!(why.contains(&length.to_string()), "{why}");
        }
    }

    #[test]
    fn chunk_keys_are_the_same_for_every_try_and_differ_between_chunks() {
        let (one, other) = (PackId::generate(), PackId::generate());
        assert_eq!(chunk_key(one, 3), chunk_key(one, 3));
        assert_ne!(chunk_key(one, 3), chunk_key(one, 4));
        assert_ne!(chunk_key(one, 3), chunk_key(other, 3));
    }
}
