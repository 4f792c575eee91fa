//! The numbered records of an archive.

use async_trait::async_trait;
use sessionkeep_core::record::{ArchiveName, Header, Record, Seq};

use super::Result;

/// What [`CommitLog::append`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Appended {
    /// The record is stored, durably; or it was already, by an earlier try of this very record.
    Done,
    /// The number is taken by another record, whose header this is. Nothing was stored.
    Taken(Box<Header>),
    /// The record that this one builds on is not in the store any more. Nothing was stored.
    Orphan,
}

/// The records of archives: for each archive a chain of numbers, each of which is taken once. Appending
/// is the fence; see [`CommitLog::append`]. What holds for every operation is said at
/// [`Store`](super::Store).
#[async_trait]
pub trait CommitLog: Send + Sync {
    /// Stores `record` under `(archive, seq)`, durably, if and only if no record is there.
    ///
    /// The fence: of any number of concurrent appends of one number exactly one is
    /// [`Appended::Done`]. Repeating an append that was done (same [`CommitId`](sessionkeep_core::record::CommitId)) is `Done` again, so
    /// a caller that lost the answer just asks again.
    ///
    /// A record that builds on the one before it (any but a checkpoint) is an [`Appended::Orphan`]
    /// where `seq - 1` is not there, in stores that can tell that in the same step. In others it is
    /// stored all the same, and the caller asks for [`CommitLog::numbers`] from time to time.
    async fn append(&self, record: &Record) -> Result<Appended>;

    /// The header with the highest number, or `None` where the archive has no record. Reads what
    /// a majority holds: a header once returned is never undone.
    ///
    /// # Errors
    /// [`StoreError::Format`](super::StoreError::Format) where the newest record is of a format this version does not know.
    async fn head(&self, archive: &ArchiveName) -> Result<Option<Header>>;

    /// The highest number, from the key alone, even where the record does not decode.
    async fn last_seq(&self, archive: &ArchiveName) -> Result<Option<Seq>>;

    /// The numbers with `from <= seq <= to` that are taken, in ascending order, from the keys alone:
    /// what is in the records is not looked at. For chains of some thousand records.
    async fn numbers(&self, archive: &ArchiveName, from: Seq, to: Seq) -> Result<Vec<Seq>>;

    /// Up to `limit` headers with `from <= seq <= to`, in descending order of `seq`. One that
    /// cannot be read fails the whole call: nobody shall take a list with holes for the truth.
    async fn headers(
        &self,
        archive: &ArchiveName,
        from: Seq,
        to: Seq,
        limit: usize,
    ) -> Result<Vec<Header>>;

    /// Records with `from <= seq <= to` in ascending order, without gaps being reported: the
    /// caller compares numbers. Returns as many as fit about 8 MiB of bodies, at least one where
    /// there is one; the caller goes on after the last. A record that does not decode is returned
    /// as [`StoreError::Damaged`](super::StoreError::Damaged) naming its number, but only when it is the first of the answer,
    /// so that everything before it can still be read.
    async fn records(&self, archive: &ArchiveName, from: Seq, to: Seq) -> Result<Vec<Record>>;

    /// Deletes the records `seqs` of an archive; those absent are passed over. Returns how many went.
    async fn delete_records(&self, archive: &ArchiveName, seqs: &[Seq]) -> Result<u64>;

    /// The names of all archives that have a record in the store, sorted.
    async fn archives(&self) -> Result<Vec<ArchiveName>>;
}
