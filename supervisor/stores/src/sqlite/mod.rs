//! Archives in one SQLite file: the embedded default, for a mounted disk, the demo and tests.
//!
//! Several processes use the file at once: the watcher, and whoever runs `log` or `status`. The
//! fence is the primary key of `commits`; a lease is judged inside a write transaction, by this
//! machine's clock, since whoever shares the file shares the machine.

pub mod commits;
mod connection;
mod examine;
pub mod lease;
mod length;
mod packs;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use self::connection::{Fault, Shared};
use sessionkeep_archive::store::{
    Appended, Broken, CommitLog, Diagnostics, Finding, Lease, LeaseClaim, LeaseOutcome, Leases,
    PackInfo, Packs, Renewal, Result, Store, StoreError, Usage,
};
use sessionkeep_core::record::{ArchiveName, Header, InstanceId, PackId, Record, Seq};

/// A store in an SQLite file.
pub struct SqliteStore {
    path: PathBuf,
    shared: Arc<Shared>,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqliteStore({})", self.path.display())
    }
}

/// A number as SQLite keeps it.
fn int(number: u64) -> Result<i64, Fault> {
    i64::try_from(number).map_err(|_| {
        Fault::Store(StoreError::Failed {
            action: "write to the store",
            source: format!("{number} is beyond what a database can count").into(),
        })
    })
}

/// As [`int`], for a bound of a range: numbers beyond it belong to nothing.
fn bound(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A transaction that holds the write lock from its beginning, so that what it read stays true.
fn writing(db: &mut Connection) -> Result<Transaction<'_>, Fault> {
    Ok(db.transaction_with_behavior(TransactionBehavior::Immediate)?)
}

/// Gives deleted pages back to the file system.
fn shrink(db: &Connection) -> Result<(), Fault> {
    // Each row of the answer frees one page, so it must be read to its end.
    let mut vacuum = db.prepare_cached("PRAGMA incremental_vacuum")?;
    let mut rows = vacuum.query([])?;
    while rows.next()?.is_some() {}
    drop(rows);
    // The file gets shorter when the log is brought into it, as far as no reader is in the way.
    let mut checkpoint = db.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?;
    checkpoint.query_row([], |_| Ok(()))?;
    Ok(())
}

impl SqliteStore {
    /// Prepares to use the file at `path`. It is made, with its directory, at the first operation.
    #[must_use]
    pub fn open(path: &Path, timeout: Duration) -> Self {
        Self {
            path: path.to_owned(),
            shared: Arc::new(Shared::new(path, timeout)),
        }
    }

    async fn work<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        Arc::clone(&self.shared).run(action, work).await
    }
}

#[async_trait]
impl CommitLog for SqliteStore {
    async fn append(&self, record: &Record) -> Result<Appended> {
        let record = record.clone();
        self.work("append a commit", move |db| commits::append(db, &record))
            .await
    }

    async fn head(&self, archive: &ArchiveName) -> Result<Option<Header>> {
        let newest = self.headers(archive, 0, Seq::MAX, 1).await?;
        Ok(newest.into_iter().next())
    }

    async fn last_seq(&self, archive: &ArchiveName) -> Result<Option<Seq>> {
        let archive = archive.clone();
        self.work("list commits", move |db| commits::last(db, &archive))
            .await
    }

    async fn numbers(&self, archive: &ArchiveName, from: Seq, to: Seq) -> Result<Vec<Seq>> {
        let archive = archive.clone();
        let shared = Arc::clone(&self.shared);
        let listed = shared.run_beside("list commits", move |db, file| {
            length::check(db, file)?;
            commits::numbers(db, &archive, from, to)
        });
        listed.await
    }

    async fn headers(
        &self,
        archive: &ArchiveName,
        from: Seq,
        to: Seq,
        limit: usize,
    ) -> Result<Vec<Header>> {
        let archive = archive.clone();
        self.work("list commits", move |db| {
            commits::headers(db, &archive, from, to, limit)
        })
        .await
    }

    async fn records(&self, archive: &ArchiveName, from: Seq, to: Seq) -> Result<Vec<Record>> {
        let archive = archive.clone();
        self.work("read commits", move |db| {
            commits::records(db, &archive, from, to)
        })
        .await
    }

    async fn delete_records(&self, archive: &ArchiveName, seqs: &[Seq]) -> Result<u64> {
        let (archive, seqs) = (archive.clone(), seqs.to_vec());
        self.work("delete commits", move |db| {
            commits::delete(db, &archive, &seqs)
        })
        .await
    }

    async fn archives(&self) -> Result<Vec<ArchiveName>> {
        self.work("list archives", |db| commits::archives(db)).await
    }
}

#[async_trait]
impl Packs for SqliteStore {
    async fn put_pack(&self, archive: &ArchiveName, id: PackId, content: Bytes) -> Result<()> {
        let archive = archive.clone();
        self.work("store a pack", move |db| {
            packs::put(db, &archive, id, &content)
        })
        .await
    }

    async fn pack(&self, archive: &ArchiveName, id: PackId) -> Result<Bytes> {
        let archive = archive.clone();
        self.work("read a pack", move |db| packs::get(db, &archive, id))
            .await
    }

    async fn packs(&self, archive: &ArchiveName) -> Result<Vec<PackInfo>> {
        let archive = archive.clone();
        self.work("list packs", move |db| packs::list(db, &archive))
            .await
    }

    async fn lacking(&self, archive: &ArchiveName, packs: &[PackId]) -> Result<Vec<PackId>> {
        let (archive, packs) = (archive.clone(), packs.to_vec());
        self.work("list packs", move |db| packs::lacking(db, &archive, packs))
            .await
    }

    async fn mark_unused(
        &self,
        archive: &ArchiveName,
        packs: &[PackId],
        since_ms: Option<u64>,
    ) -> Result<()> {
        let (archive, packs) = (archive.clone(), packs.to_vec());
        self.work("mark packs as unused", move |db| {
            packs::mark_unused(db, &archive, &packs, since_ms)
        })
        .await
    }

    async fn delete_pack(&self, archive: &ArchiveName, id: PackId) -> Result<()> {
        let archive = archive.clone();
        self.work("delete a pack", move |db| packs::delete(db, &archive, id))
            .await
    }

    async fn sweep(&self, _before_ms: u64) -> Result<u64> {
        // A pack is one row: there are no pieces. Room that deletions left may still be held,
        // where the process that deleted was ended before it could give it back.
        self.work("give space back", |db| shrink(db).map(|()| 0))
            .await
    }
}

#[async_trait]
impl Leases for SqliteStore {
    async fn take_lease(&self, archive: &ArchiveName, claim: &LeaseClaim) -> Result<LeaseOutcome> {
        let (archive, claim) = (archive.clone(), claim.clone());
        self.work("take the lease", move |db| {
            lease::take(db, &archive, &claim)
        })
        .await
    }

    async fn renew_lease(
        &self,
        archive: &ArchiveName,
        instance: &InstanceId,
        epoch: u64,
        ttl: Duration,
    ) -> Result<Renewal> {
        let (archive, instance) = (archive.clone(), instance.clone());
        self.work("renew the lease", move |db| {
            lease::renew(db, &archive, &instance, epoch, ttl)
        })
        .await
    }

    async fn release_lease(
        &self,
        archive: &ArchiveName,
        instance: &InstanceId,
        epoch: u64,
    ) -> Result<()> {
        let (archive, instance) = (archive.clone(), instance.clone());
        self.work("release the lease", move |db| {
            lease::release(db, &archive, &instance, epoch)
        })
        .await
    }

    async fn break_lease(&self, archive: &ArchiveName) -> Result<Broken> {
        let archive = archive.clone();
        self.work("end the lease", move |db| lease::end(db, &archive))
            .await
    }

    async fn lease(&self, archive: &ArchiveName) -> Result<Option<Lease>> {
        let archive = archive.clone();
        self.work("read the lease", move |db| lease::told(db, &archive))
            .await
    }

    async fn now_ms(&self) -> Result<u64> {
        Ok(lease::now_ms())
    }
}

#[async_trait]
impl Diagnostics for SqliteStore {
    fn describe(&self) -> String {
        format!("SQLite file {}", self.path.display())
    }

    async fn ping(&self) -> Result<()> {
        self.work("answer a ping", |db| {
            Ok(db.query_row("SELECT count(*) FROM leases", [], |_| Ok(()))?)
        })
        .await
    }

    async fn usage(&self, archive: &ArchiveName) -> Result<Usage> {
        let archive = archive.clone();
        self.work("measure an archive", move |db| {
            let sums = |table: &str| {
                let query = format!("SELECT count(*), total(size) FROM {table} WHERE archive = ?1");
                db.query_row(&query, [archive.as_str()], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, f64>(1)?))
                })
            };
            let (commits, commit_bytes) = sums("commits")?;
            let (packs, pack_bytes) = sums("packs")?;
            Ok(Usage {
                commits: commits.unsigned_abs(),
                commit_bytes: commit_bytes as u64,
                packs: packs.unsigned_abs(),
                pack_bytes: pack_bytes as u64,
            })
        })
        .await
    }

    async fn examine(&self) -> Vec<Finding> {
        self.findings().await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn prepare(&self) -> Result<()> {
        self.work("create its tables", |_| Ok(())).await
    }

    async fn close(&self) {
        self.shared.close().await;
    }
}
