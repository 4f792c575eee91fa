//! The chain of commits: one document each, and the fence.

use mongodb::bson::raw::{RawBsonRef, RawDocument};
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, DateTime, Document, doc};

use super::MongoStore;
use super::errors::{Fault, is_duplicate_key};
use sessionkeep_archive::store::{Appended, Result, StoreError, Usage};
use sessionkeep_core::entry::Digest;
use sessionkeep_core::record::{ArchiveName, Header, Record, RecordKind, Seq, is_known};

/// The collection's name.
pub(super) const COMMITS: &str = "commits";

/// How many bytes of bodies one answer of [`sessionkeep_archive::store::CommitLog::records`] holds, roughly.
const ANSWER_BYTES: usize = 8 << 20;
/// What one round trip of such an answer aims at: each has the operation's whole deadline, so
/// that a slow link makes a restore slow and not impossible.
const TRIP_BYTES: usize = 1 << 20;
/// How many commits the first round trip asks for, before anything is known of their size.
const FIRST_TRIP: usize = 16;

/// How many numbers come in one answer: those of every chain, in one round trip.
const NUMBERS_BATCH: u32 = 5000;

/// A number as BSON keeps it.
fn int(what: &'static str, number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| StoreError::Failed {
        action: "write a commit",
        source: format!("{what} is beyond what a database can count").into(),
    })
}

/// The primary key. The order of its fields is part of the key.
pub(super) fn key(archive: &str, seq: i64) -> Document {
    doc! { "a": archive, "s": seq }
}

/// A size as it counts for a sum: what is no size, which anybody may have written, is nothing.
fn counted(path: &str) -> Document {
    let is_size = doc! { "$and": [
        { "$in": [{ "$type": path }, ["int", "long"]] },
        { "$gte": [path, 0] },
        { "$lt": [path, 1_i64 << 50] },
    ] };
    doc! { "$cond": [is_size, { "$toLong": path }, 0_i64] }
}

fn range(archive: &ArchiveName, from: Seq, to: Seq) -> Document {
    // Numbers beyond what is storable belong to no record.
    let bound = |seq: Seq| i64::try_from(seq).unwrap_or(i64::MAX);
    doc! {
        "_id": {
            "$gte": key(archive.as_str(), bound(from)),
            "$lte": key(archive.as_str(), bound(to)),
        },
        // What somebody else put between two of our numbers is none of them.
        "_id.s": { "$type": ["int", "long"] },
    }
}

/// The document of a record.
///
/// # Errors
/// Where a number is larger than a document holds.
pub fn encode(record: &Record) -> Result<Document> {
    let header = &record.header;
    let kind = match header.kind {
        RecordKind::Barrier => "barrier",
        RecordKind::Change => "change",
        RecordKind::Checkpoint => "checkpoint",
    };
    let packs: Vec<String> = header.packs.iter().map(ToString::to_string).collect();
    Ok(doc! {
        "_id": key(header.archive.as_str(), int("the number", header.seq)?),
        "format": i64::from(header.format),
        "history": header.history.to_string(),
        "id": header.id.to_string(),
        "kind": kind,
        "instance": header.instance.as_str(),
        "epoch": int("the epoch", header.epoch)?,
        "time": DateTime::from_millis(int("the time", header.time_ms)?),
        "base": int("the base", header.base)?,
        "changed_at": int("the last change", header.changed_at)?,
        "changed_epoch": int("the epoch", header.changed_epoch)?,
        "parent": header.parent.to_string(),
        "root": header.root.to_string(),
        "changes": i64::from(header.changes),
        "bytes": int("the size", header.bytes)?,
        "live_files": int("the number of files", header.live_files)?,
        "live_bytes": int("the size", header.live_bytes)?,
        "chain_bytes": int("the size", header.chain_bytes)?,
        "base_bytes": int("the size", header.base_bytes)?,
        "packs": packs,
        "body_hash": header.body_hash.to_string(),
        "digest": header.digest.to_string(),
        "size": int("the size", record.body.len() as u64)?,
        "body": Binary { subtype: BinarySubtype::Generic, bytes: record.body.clone() },
    })
}

/// A stored commit, field by field. Every failure names the commit and the field.
struct Fields<'a> {
    raw: &'a RawDocument,
    what: String,
}

impl<'a> Fields<'a> {
    fn open(raw: &'a RawDocument, archive: &ArchiveName) -> Result<(Self, Seq)> {
        let mut fields = Self {
            raw,
            what: format!("a commit of archive {archive}"),
        };
        let key = raw.get_document("_id").map_err(|_| fields.damaged("_id"))?;
        let seq = key
            .get("s")
            .ok()
            .flatten()
            .and_then(whole)
            .ok_or_else(|| fields.damaged("_id"))?;
        fields.what = format!("commit {seq} of archive {archive}");
        // Before anything else: what a later version writes need not look like this at all.
        let format = fields.number("format")?;
        if !u32::try_from(format).is_ok_and(is_known) {
            let found = u32::try_from(format).unwrap_or(u32::MAX);
            return Err(StoreError::unknown_format(fields.what, found));
        }
        Ok((fields, seq))
    }

    fn damaged(&self, field: &str) -> StoreError {
        StoreError::Damaged {
            what: self.what.clone(),
            why: format!("its field `{field}` cannot be read"),
        }
    }

    fn number(&self, field: &str) -> Result<u64> {
        self.raw
            .get(field)
            .ok()
            .flatten()
            .and_then(whole)
            .ok_or_else(|| self.damaged(field))
    }

    fn text(&self, field: &str) -> Result<&'a str> {
        self.raw.get_str(field).map_err(|_| self.damaged(field))
    }

    fn parsed<T: std::str::FromStr>(&self, field: &str) -> Result<T> {
        self.text(field)?.parse().map_err(|_| self.damaged(field))
    }

    fn digest(&self, field: &str) -> Result<Digest> {
        let mut digest = Digest::default();
        hex::decode_to_slice(self.text(field)?, &mut digest.0).map_err(|_| self.damaged(field))?;
        Ok(digest)
    }
}

/// A whole number of either width: shells and tools write back what they like.
fn whole(value: RawBsonRef<'_>) -> Option<u64> {
    let number = value.as_i64().or_else(|| value.as_i32().map(i64::from))?;
    u64::try_from(number).ok()
}

fn decode_header(raw: &RawDocument, archive: &ArchiveName) -> Result<Header> {
    let (fields, seq) = Fields::open(raw, archive)?;
    let kind = match fields.text("kind")? {
        "barrier" => RecordKind::Barrier,
        "change" => RecordKind::Change,
        "checkpoint" => RecordKind::Checkpoint,
        _ => return Err(fields.damaged("kind")),
    };
    let time = raw
        .get_datetime("time")
        .ok()
        .and_then(|time| u64::try_from(time.timestamp_millis()).ok())
        .ok_or_else(|| fields.damaged("time"))?;
    let packs = raw
        .get_array("packs")
        .map_err(|_| fields.damaged("packs"))?
        .into_iter()
        .map(|id| id.ok()?.as_str()?.parse().ok())
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| fields.damaged("packs"))?;
    Ok(Header {
        // As it was read: a header's hash is over it.
        format: fields
            .number("format")?
            .try_into()
            .map_err(|_| fields.damaged("format"))?,
        archive: archive.clone(),
        seq,
        history: fields.parsed("history")?,
        id: fields.parsed("id")?,
        kind,
        instance: fields.parsed("instance")?,
        epoch: fields.number("epoch")?,
        time_ms: time,
        base: fields.number("base")?,
        changed_at: fields.number("changed_at")?,
        changed_epoch: fields.number("changed_epoch")?,
        parent: fields.digest("parent")?,
        root: fields.digest("root")?,
        changes: u32::try_from(fields.number("changes")?).map_err(|_| fields.damaged("changes"))?,
        bytes: fields.number("bytes")?,
        live_files: fields.number("live_files")?,
        live_bytes: fields.number("live_bytes")?,
        chain_bytes: fields.number("chain_bytes")?,
        base_bytes: fields.number("base_bytes")?,
        packs,
        body_hash: fields.digest("body_hash")?,
        digest: fields.digest("digest")?,
    })
}

/// The record that a document of `archive` holds.
///
/// # Errors
/// [`StoreError::Damaged`] and [`StoreError::Format`].
pub fn decode_record(raw: &RawDocument, archive: &ArchiveName) -> Result<Record> {
    let header = decode_header(raw, archive)?;
    let (fields, _) = Fields::open(raw, archive)?;
    let body = raw.get_binary("body").map_err(|_| fields.damaged("body"))?;
    if fields.number("size")? != body.bytes.len() as u64 {
        return Err(fields.damaged("body"));
    }
    Ok(Record {
        header,
        body: body.bytes.to_vec(),
    })
}

impl MongoStore {
    pub(super) async fn append_record(&self, record: &Record) -> Result<Appended> {
        let document = encode(record)?;
        self.within("append a commit", async {
            let commits = self.collection(COMMITS).await?;
            match commits.insert_one(document).await {
                Ok(_) => Ok(Appended::Done),
                Err(error) if is_duplicate_key(&error) => self.who_took(record).await,
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    pub(super) async fn read_last_seq(&self, archive: &ArchiveName) -> Result<Option<Seq>> {
        self.within("list commits", async {
            let newest = self
                .raw(COMMITS)
                .await?
                .find_one(range(archive, 0, Seq::MAX))
                .sort(doc! { "_id": -1 })
                .projection(doc! { "_id": 1 })
                .await?;
            Ok(newest.and_then(|found| whole(found.get_document("_id").ok()?.get("s").ok()??)))
        })
        .await
    }

    /// Answered from the index of `_id` alone.
    pub(super) async fn read_numbers(
        &self,
        archive: &ArchiveName,
        from: Seq,
        to: Seq,
    ) -> Result<Vec<Seq>> {
        if from > to {
            return Ok(Vec::new());
        }
        self.within("list commits", async {
            let mut cursor = self
                .raw(COMMITS)
                .await?
                .find(range(archive, from, to))
                .sort(doc! { "_id": 1 })
                .projection(doc! { "_id": 1 })
                .batch_size(NUMBERS_BATCH)
                .await?;
            let mut numbers = Vec::new();
            while cursor.advance().await? {
                let key = cursor.current().get_document("_id").ok();
                numbers.extend(key.and_then(|key| whole(key.get("s").ok()??)));
            }
            Ok(numbers)
        })
        .await
    }

    /// The number is taken: by an earlier try of this very record, or by another writer?
    async fn who_took(&self, record: &Record) -> Result<Appended, Fault> {
        let header = &record.header;
        let id = key(header.archive.as_str(), int("the number", header.seq)?);
        // The record that is in the way may be a moment old: not in the journal yet, not with the
        // majority yet. An update that changes nothing is acknowledged only when everything
        // before it is, so that both answers are final.
        let seen = self
            .collection(COMMITS)
            .await?
            .update_one(
                doc! { "_id": id.clone() },
                doc! { "$setOnInsert": { "format": 0 } },
            )
            .await?;
        let found = if seen.matched_count == 0 {
            None
        } else {
            self.raw(COMMITS)
                .await?
                .find_one(doc! { "_id": id })
                .projection(doc! { "body": 0 })
                .await?
        };
        // It was there and is gone: rolled back with a failed primary, or deleted. Either way
        // nothing is known, and the caller asks again.
        let Some(found) = found else {
            return Err(Fault::Store(StoreError::Unavailable {
                action: "append a commit",
                source: format!("commit {} vanished while it was looked at", header.seq).into(),
            }));
        };
        if found
            .get_str("id")
            .is_ok_and(|id| id == header.id.to_string())
        {
            return Ok(Appended::Done);
        }
        let taken = decode_header(&found, &header.archive)?;
        Ok(Appended::Taken(Box::new(taken)))
    }

    /// Headers in descending order. One that cannot be read spoils the whole answer: whoever
    /// lists headers may decide what can be deleted.
    pub(super) async fn read_headers(
        &self,
        archive: &ArchiveName,
        from: Seq,
        to: Seq,
        limit: usize,
    ) -> Result<Vec<Header>> {
        if limit == 0 || from > to {
            return Ok(Vec::new());
        }
        self.within("list commits", async {
            let mut cursor = self
                .raw(COMMITS)
                .await?
                .find(range(archive, from, to))
                .sort(doc! { "_id": -1 })
                .projection(doc! { "body": 0 })
                .limit(i64::try_from(limit).unwrap_or(i64::MAX))
                .await?;
            let mut headers = Vec::new();
            while cursor.advance().await? {
                headers.push(decode_header(cursor.current(), archive)?);
            }
            Ok(headers)
        })
        .await
    }

    pub(super) async fn read_records(
        &self,
        archive: &ArchiveName,
        from: Seq,
        to: Seq,
    ) -> Result<Vec<Record>> {
        let mut records: Vec<Record> = Vec::new();
        let (mut next, mut bytes, mut ask) = (from, 0, FIRST_TRIP);
        while next <= to && bytes < ANSWER_BYTES {
            let trip = self.one_trip(archive, next, to, ask, ANSWER_BYTES - bytes);
            let (got, spoilt) = match self.within("read commits", trip).await {
                Ok(trip) => trip,
                // What was read is worth having; the caller meets the error when it goes on.
                Err(_) if !records.is_empty() => return Ok(records),
                Err(error) => return Err(error),
            };
            let size: usize = got.iter().map(|record| record.body.len()).sum();
            let last = got.last().map(|record| record.header.seq);
            let count = got.len();
            records.extend(got);
            bytes += size;
            match (spoilt, last) {
                (Some(error), _) if records.is_empty() => return Err(error),
                (Some(_), _) | (None, None) => break,
                (None, Some(_)) if count < ask && size < ANSWER_BYTES => break,
                (None, Some(last)) => next = last.saturating_add(1),
            }
            ask = (TRIP_BYTES / (size / count).max(1)).clamp(1, 1000);
        }
        Ok(records)
    }

    /// Up to `count` records and about `room` bytes, with the error of the first that is not readable.
    async fn one_trip(
        &self,
        archive: &ArchiveName,
        from: Seq,
        to: Seq,
        count: usize,
        room: usize,
    ) -> Result<(Vec<Record>, Option<StoreError>), Fault> {
        let mut cursor = self
            .raw(COMMITS)
            .await?
            .find(range(archive, from, to))
            .sort(doc! { "_id": 1 })
            .limit(i64::try_from(count).unwrap_or(i64::MAX))
            .await?;
        let (mut records, mut bytes) = (Vec::new(), 0);
        while bytes < room && cursor.advance().await? {
            match decode_record(cursor.current(), archive) {
                Ok(record) => {
                    bytes += record.body.len();
                    records.push(record);
                }
                Err(error) => return Ok((records, Some(error))),
            }
        }
        Ok((records, None))
    }

    pub(super) async fn remove_records(&self, archive: &ArchiveName, seqs: &[Seq]) -> Result<u64> {
        let mut removed = 0;
        // A list of keys must fit one command with room to spare.
        for part in seqs.chunks(10_000) {
            let keys: Vec<Document> = part
                .iter()
                .filter_map(|seq| Some(key(archive.as_str(), i64::try_from(*seq).ok()?)))
                .collect();
            removed += self
                .within("delete commits", async {
                    let commits = self.collection(COMMITS).await?;
                    let done = commits.delete_many(doc! { "_id": { "$in": keys } }).await?;
                    Ok(done.deleted_count)
                })
                .await?;
        }
        Ok(removed)
    }

    pub(super) async fn measure(&self, archive: &ArchiveName) -> Result<Usage> {
        let sums = |match_on: Document, size: &str| {
            vec![
                doc! { "$match": match_on },
                doc! { "$group": {
                    "_id": null,
                    "count": { "$sum": 1_i64 },
                    "bytes": { "$sum": counted(size) },
                } },
            ]
        };
        self.within("measure an archive", async {
            let mut figures = [(0, 0); 2];
            let sources = [
                (COMMITS, sums(range(archive, 0, Seq::MAX), "$size")),
                (
                    super::packs::FILES,
                    sums(doc! { "metadata.archive": archive.as_str() }, "$length"),
                ),
            ];
            for (figure, (collection, pipeline)) in figures.iter_mut().zip(sources) {
                let collection = self.collection(collection).await?;
                let mut cursor = collection.aggregate(pipeline).await?;
                if cursor.advance().await? {
                    let sum = |field| cursor.current().get_i64(field).unwrap_or(0).unsigned_abs();
                    *figure = (sum("count"), sum("bytes"));
                }
            }
            let [(commits, commit_bytes), (packs, pack_bytes)] = figures;
            Ok(Usage {
                commits,
                commit_bytes,
                packs,
                pack_bytes,
            })
        })
        .await
    }

    /// Jumps from archive to archive over the primary key, instead of looking at every commit.
    pub(super) async fn list_archives(&self) -> Result<Vec<ArchiveName>> {
        self.within("list archives", async {
            let commits = self.raw(COMMITS).await?;
            let mut names = Vec::new();
            let mut after = key("", 0);
            while let Some(found) = commits
                .find_one(doc! { "_id": { "$gt": after } })
                .sort(doc! { "_id": 1 })
                .projection(doc! { "_id": 1 })
                .await?
            {
                // A key of another shape was not written by us; what sorts after it neither.
                let Some(name) = found
                    .get_document("_id")
                    .ok()
                    .and_then(|id| id.get_str("a").ok())
                else {
                    break;
                };
                after = key(name, i64::MAX);
                names.extend(name.parse::<ArchiveName>().ok());
            }
            Ok(names)
        })
        .await
    }
}
