//! Where archives are kept. One small trait, [`Store`], whose comments are the contract; one
//! suite, in `contract`, holds every implementation to it.
//!
//! A store knows nothing of sessions, files or compression. It keeps, for each named archive, a
//! chain of numbered [`Record`]s, a set of immutable packs, and one lease. Everything that makes
//! the product safe against two writers rests on two of its operations: [`Store::append`], which
//! succeeds for exactly one writer a number, and [`Store::take_lease`], judged by the store's clock.

#[doc(hidden)]
pub mod contract;
mod error;
pub mod lapse;
pub mod lease;
mod memory;
#[cfg(test)]
mod model;
pub mod retry;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sessionkeep_core::record::{ArchiveName, Header, InstanceId, PackId, Record, Seq};

pub use error::{BoxError, NoWrites, Result, StoreError};
pub use lease::{
    Broken, CLOCK_SLACK, Lease, LeaseClaim, LeaseMark, LeaseOutcome, NOBODY, Otherwise, QUEUE_MAX,
    Renewal, SetBack, WAITER_TTL, Waiter,
};
pub use memory::{Calls, Faults, MemoryStore};

/// What [`Store::append`] did.
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

/// What is known of a pack without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackInfo {
    /// Its id, whose first bytes tell when it was made.
    pub id: PackId,
    /// Length in bytes, as stored.
    pub size: u64,
    /// Since when no commit has referred to it, by the store's clock in milliseconds since 1970, as
    /// [`Store::mark_unused`] noted it; `None` where nothing is noted, or what is cannot be read.
    pub unused_since_ms: Option<u64>,
}

/// How much an archive takes in the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of commits kept.
    pub commits: u64,
    /// Bytes of all commits' bodies.
    pub commit_bytes: u64,
    /// Number of packs kept.
    pub packs: u64,
    /// Bytes of all packs.
    pub pack_bytes: u64,
}

/// How severe a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Good,
    /// Works, but the operator should know.
    Warning,
    /// Will not work, or not safely.
    Bad,
}

/// One thing that a store found when it examined itself, for `sessionkeep doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in two or three words.
    pub subject: &'static str,
    /// How it is.
    pub severity: Severity,
    /// What was found, with figures.
    pub detail: String,
    /// What to do about it; empty where nothing is to be done.
    pub remedy: String,
}

/// How a store's own set-up makes it lose what it was told to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// When.
    pub when: LeaksWhen,
    /// What, in words.
    pub detail: String,
    /// What to do about it.
    pub remedy: String,
}

/// When something is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaksWhen {
    /// When something else is written: even the barrier of the next start.
    Written,
    /// When it has become old.
    Old,
}

/// How soon who waits for a change of a lease looks again, where the store has no bell.
pub const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Keeps archives.
///
/// **Every** operation
/// - has a deadline of its own (the implementation's; seconds, not minutes) and returns
///   [`StoreError::Unavailable`] when the store does not answer within it; it never hangs. What
///   moves much content in several round trips has the deadline for each of them;
/// - may be dropped at any await point; what it was doing then either happened wholly or not at
///   all, except that [`Store::put_pack`] and [`Store::delete_pack`] may leave pieces which
///   [`Store::packs`] does not list and [`Store::sweep`] collects, and that
///   [`Store::delete_records`] may have deleted only some;
/// - never puts a password, a key or a whole URL into an error or a log line;
/// - when it has returned success, survives the loss of the store's process (and, where the store
///   replicates, of a minority of its members).
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// The store in words that may be logged: its kind, host and database, never its password.
    fn describe(&self) -> String;

    /// One round trip that proves that the store answers. Not that it takes writes: that is
    /// proven by taking the lease.
    async fn ping(&self) -> Result<()>;

    /// Says that up to `requests` requests at a time are about to come, so that connections for them
    /// can be opened meanwhile. It returns before they are, changes nothing else, and never fails.
    async fn warm_up(&self, _requests: usize) {}

    /// Creates what the store needs (indexes, tables), if it is not there and we may. Idempotent.
    /// Lacking the right to create what is not strictly needed is not an error.
    ///
    /// # Errors
    /// [`StoreError::Leaks`] where what is written now would push out what was written before.
    async fn prepare(&self) -> Result<()>;

    /// Stores `record` under `(archive, seq)`, durably, if and only if no record is there.
    ///
    /// The fence: of any number of concurrent appends of one number exactly one is
    /// [`Appended::Done`]. Repeating an append that was done (same [`CommitId`](sessionkeep_core::record::CommitId)) is `Done` again, so
    /// a caller that lost the answer just asks again.
    ///
    /// A record that builds on the one before it (any but a checkpoint) is an [`Appended::Orphan`]
    /// where `seq - 1` is not there, in stores that can tell that in the same step. In others it is
    /// stored all the same, and the caller asks for [`Store::numbers`] from time to time.
    async fn append(&self, record: &Record) -> Result<Appended>;

    /// The header with the highest number, or `None` where the archive has no record. Reads what
    /// a majority holds: a header once returned is never undone.
    ///
    /// # Errors
    /// [`StoreError::Format`] where the newest record is of a format this version does not know.
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
    /// as [`StoreError::Damaged`] naming its number, but only when it is the first of the answer,
    /// so that everything before it can still be read.
    async fn records(&self, archive: &ArchiveName, from: Seq, to: Seq) -> Result<Vec<Record>>;

    /// Deletes the records `seqs` of an archive; those absent are passed over. Returns how many went.
    async fn delete_records(&self, archive: &ArchiveName, seqs: &[Seq]) -> Result<u64>;

    /// Stores an immutable pack, durably. Putting a pack that is there again is a success and
    /// changes nothing. A pack that was only partly put is not listed and not readable.
    async fn put_pack(&self, archive: &ArchiveName, id: PackId, content: Bytes) -> Result<()>;

    /// Reads a whole pack.
    ///
    /// # Errors
    /// [`StoreError::Missing`] where there is no such pack, [`StoreError::Damaged`] where pieces of
    /// it are missing or of the wrong length.
    async fn pack(&self, archive: &ArchiveName, id: PackId) -> Result<Bytes>;

    /// Reads a whole pack in the pieces in which it is kept, for those who need not have it in one:
    /// end to end they are what [`Store::pack`] gives, and so are the errors.
    async fn pack_pieces(&self, archive: &ArchiveName, id: PackId) -> Result<Vec<Bytes>> {
        Ok(vec![self.pack(archive, id).await?])
    }

    /// All whole packs of an archive, in no order.
    async fn packs(&self, archive: &ArchiveName) -> Result<Vec<PackInfo>>;

    /// Those of `packs` that are not whole in the store, as far as can be told without reading their
    /// content: not listed, of another archive, with pieces missing.
    async fn lacking(&self, archive: &ArchiveName, packs: &[PackId]) -> Result<Vec<PackId>>;

    /// Notes since when no commit refers to these packs, in place of what was noted before; `None`
    /// takes the note away. Those absent are passed over. It changes nothing else about a pack, and goes
    /// with it.
    async fn mark_unused(
        &self,
        archive: &ArchiveName,
        packs: &[PackId],
        since_ms: Option<u64>,
    ) -> Result<()>;

    /// Deletes a pack; one that is absent is a success.
    async fn delete_pack(&self, archive: &ArchiveName, id: PackId) -> Result<()>;

    /// Collects pieces of packs that were never wholly put and whose id says that they were begun
    /// before `before_ms` (milliseconds since 1970). Returns how many packs' pieces went.
    async fn sweep(&self, before_ms: u64) -> Result<u64>;

    /// Takes, continues or is refused the archive's lease, in one atomic step judged by the
    /// store's clock. It is granted where there is none, and where it is held by `claim.instance`
    /// or `claim.predecessor`; where it was released, or has expired and was left by the renewal that
    /// `claim.lapsed` names, to whose turn it is: the first of those who asked its holder to make way,
    /// else the first of the queue, else anybody.
    /// Granting it raises the epoch by one (the first is 1), or above `claim.floor` where that is
    /// higher, except to the holder itself, whose epoch stays. Who released it does not hold it any
    /// more.
    ///
    /// Who is refused, and wants to, has a place in the queue by its first claim, and keeps it for
    /// as long as it claims again within [`WAITER_TTL`]. The queue has [`QUEUE_MAX`] places.
    ///
    /// No stored time is believed that lies in the future. A lease ends when its holder's TTL has passed
    /// from now at the latest, and a claim that finds it to end later writes that down, so that it counts
    /// down from there; a place whose holder asked in the future is gone.
    async fn take_lease(&self, archive: &ArchiveName, claim: &LeaseClaim) -> Result<LeaseOutcome>;

    /// Prolongs the lease by `ttl` from the store's now, if `instance` holds it at `epoch`, even
    /// where it has expired but nobody took it since. Never raises the epoch. A lease that was
    /// released stays released.
    async fn renew_lease(
        &self,
        archive: &ArchiveName,
        instance: &InstanceId,
        epoch: u64,
        ttl: Duration,
    ) -> Result<Renewal>;

    /// Lets the lease go, so that the next can take it at once, and [rings](Store::ring) where
    /// somebody waits for it. The epoch is kept. Not an error where `instance` does not hold it.
    async fn release_lease(
        &self,
        archive: &ArchiveName,
        instance: &InstanceId,
        epoch: u64,
    ) -> Result<()>;

    /// Ends the lease whoever holds it, and its queue, and says how they stood. The holder learns of it when it
    /// renews. For people who know that it is gone. One that cannot be read is replaced by one that
    /// has ended, at its epoch where that can be read; one that a later version wrote is left alone.
    async fn break_lease(&self, archive: &ArchiveName) -> Result<Broken>;

    /// Lets those who [listen](Store::listen) to this archive look at its lease at once.
    async fn ring(&self, _archive: &ArchiveName) -> Result<()> {
        Ok(())
    }

    /// Returns when it may be worth looking at the archive's lease again: when somebody
    /// [rings](Store::ring), and after `at_most` at the latest. It saves the time until the next
    /// look and nothing depends on it: rings can be missed, and come without a cause. A store that
    /// has no bell returns after [`LOOK_AGAIN`]. Unlike other operations it may take as long as
    /// `at_most`, and it costs next to nothing meanwhile.
    async fn listen(&self, _archive: &ArchiveName, at_most: Duration) -> Result<()> {
        tokio::time::sleep(at_most.min(LOOK_AGAIN)).await;
        Ok(())
    }

    /// The lease as it stands; `None` where none was ever taken.
    async fn lease(&self, archive: &ArchiveName) -> Result<Option<Lease>>;

    /// The store's clock, in milliseconds since 1970.
    async fn now_ms(&self) -> Result<u64>;

    /// How much an archive takes.
    async fn usage(&self, archive: &ArchiveName) -> Result<Usage>;

    /// The names of all archives that have a record in the store, sorted.
    async fn archives(&self) -> Result<Vec<ArchiveName>>;

    /// Looks for what could be wrong with the store itself: reachability, encryption of the
    /// connection, rights, durability of writes. Never fails: what goes wrong is a finding. Leaves
    /// nothing behind.
    async fn examine(&self) -> Vec<Finding>;

    /// What about the store's own set-up makes it lose what it was told to keep, such as a collection
    /// that drops its oldest documents. Empty where nothing does, or where we may not ask.
    async fn leaks(&self) -> Result<Vec<Leak>> {
        Ok(Vec::new())
    }

    /// Ends connections, within a second or two.
    async fn close(&self);
}
