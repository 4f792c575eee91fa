//! Archives in one SQLite file: the embedded default, for a mounted disk, the demo and tests.
//!
//! Several processes use the file at once: the watcher, and whoever runs `log` or `status`. The
//! fence is the primary key of `commits`; a lease is judged inside a write transaction, by this
//! machine's clock, since whoever shares the file shares the machine.

mod connection;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use self::connection::{Fault, Shared};
use super::lease::{LeaseState, Place};
use super::{
    Appended, ArchiveName, Finding, Header, InstanceId, Lease, LeaseClaim, LeaseOutcome, PackId,
    PackInfo, Record, Renewal, Result, Seq, Severity, Store, StoreError, Usage, is_known,
};

/// How many bytes of bodies one answer of [`Store::records`] holds, roughly.
const ANSWER_BYTES: usize = 8 << 20;

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

fn now_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Reads a header's columns: `seq, format, header`.
fn header(archive: &ArchiveName, row: &Row<'_>) -> Result<Header, Fault> {
    let seq: i64 = row.get(0)?;
    let what = || format!("commit {seq} of archive {archive}");
    let damaged = |why: &str| {
        Fault::Store(StoreError::Damaged {
            what: what(),
            why: why.to_owned(),
        })
    };
    // Before anything else: what a later version writes need not look like this at all.
    let format: u32 = row.get(1).map_err(|_| damaged("it has no format"))?;
    if !is_known(format) {
        return Err(StoreError::unknown_format(what(), format).into());
    }
    let text: String = row.get(2).map_err(|_| damaged("its header is no text"))?;
    read_header(archive, seq, format, &text).map_err(damaged)
}

/// Reads the header of commit `seq`, or says what is wrong with it.
pub(crate) fn read_header(
    archive: &ArchiveName,
    seq: i64,
    format: u32,
    text: &str,
) -> Result<Header, &'static str> {
    let header: Header = serde_json::from_str(text).map_err(|_| "its header cannot be read")?;
    if header.seq != seq.unsigned_abs() || header.archive != *archive || header.format != format {
        return Err("its header is another commit's");
    }
    Ok(header)
}

/// Reads a record's columns: those of [`header`], then `size, body`.
fn record(archive: &ArchiveName, row: &Row<'_>) -> Result<Record, Fault> {
    let header = header(archive, row)?;
    let damaged = |why: &str| {
        Fault::Store(StoreError::Damaged {
            what: format!("commit {} of archive {archive}", header.seq),
            why: why.to_owned(),
        })
    };
    let size: i64 = row.get(3).map_err(|_| damaged("its body has no length"))?;
    let body: Vec<u8> = row.get(4).map_err(|_| damaged("its body cannot be read"))?;
    if bound(body.len() as u64) != size {
        return Err(damaged("its body has not the length it had"));
    }
    Ok(Record { header, body })
}

fn read_lease(db: &Connection, archive: &ArchiveName) -> Result<Option<LeaseState>, Fault> {
    let mut query = db.prepare_cached(
        "SELECT instance, epoch, expires_ms, since_ms FROM leases WHERE archive = ?1",
    )?;
    let row = query
        .query_row([archive.as_str()], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, i64>(2)?,
                row.get::<_, i64>(3)?,
            ))
        })
        .optional()?;
    let Some((instance, epoch, expires, since)) = row else {
        return Ok(None);
    };
    let instance = instance.parse().map_err(|_| StoreError::Damaged {
        what: format!("the lease of archive {archive}"),
        why: "its holder's name cannot be read".to_owned(),
    })?;
    let queue = db
        .prepare_cached("SELECT places FROM lease_queues WHERE archive = ?1")?
        .query_row([archive.as_str()], |row| row.get::<_, String>(0))
        .optional()?;
    Ok(Some(LeaseState {
        instance,
        epoch: epoch.unsigned_abs(),
        expires_ms: expires.unsigned_abs(),
        since_ms: since.unsigned_abs(),
        queue: queue.map_or_else(Vec::new, |places| read_queue(&places)),
    }))
}

/// Whoever waits asks again: a queue that cannot be read is one that nobody stands in yet.
pub(crate) fn read_queue(places: &str) -> Vec<Place> {
    serde_json::from_str(places).unwrap_or_default()
}

fn write_lease(db: &Connection, archive: &ArchiveName, lease: &LeaseState) -> Result<(), Fault> {
    db.prepare_cached("INSERT OR REPLACE INTO leases VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            archive.as_str(),
            lease.instance.as_str(),
            int(lease.epoch)?,
            bound(lease.expires_ms),
            int(lease.since_ms)?,
        ])?;
    if lease.queue.is_empty() {
        db.prepare_cached("DELETE FROM lease_queues WHERE archive = ?1")?
            .execute([archive.as_str()])?;
    } else {
        let places = serde_json::to_string(&lease.queue).expect("places are plain data");
        db.prepare_cached("INSERT OR REPLACE INTO lease_queues VALUES (?1, ?2)")?
            .execute([archive.as_str(), &places])?;
    }
    Ok(())
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
impl Store for SqliteStore {
    fn describe(&self) -> String {
        format!("SQLite file {}", self.path.display())
    }

    async fn ping(&self) -> Result<()> {
        self.work("answer a ping", |db| {
            Ok(db.query_row("SELECT count(*) FROM leases", [], |_| Ok(()))?)
        })
        .await
    }

    async fn prepare(&self) -> Result<()> {
        self.work("create its tables", |_| Ok(())).await
    }

    async fn append(&self, record: &Record) -> Result<Appended> {
        let record = record.clone();
        self.work("append a commit", move |db| {
            let new = &record.header;
            let seq = int(new.seq)?;
            let text = serde_json::to_string(new).expect("a header always encodes");
            let db = writing(db)?;
            let inserted = db
                .prepare_cached(
                    "INSERT INTO commits (archive, seq, format, header, size, body)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (archive, seq) DO NOTHING",
                )?
                .execute(params![
                    new.archive.as_str(),
                    seq,
                    new.format,
                    text,
                    bound(record.body.len() as u64),
                    record.body,
                ])?;
            if inserted > 0 {
                db.commit()?;
                return Ok(Appended::Done);
            }
            let mut query = db.prepare_cached(
                "SELECT seq, format, header FROM commits WHERE archive = ?1 AND seq = ?2",
            )?;
            let mut rows = query.query(params![new.archive.as_str(), seq])?;
            let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
            let taken = header(&new.archive, row)?;
            Ok(if taken.id == new.id {
                Appended::Done
            } else {
                Appended::Taken(Box::new(taken))
            })
        })
        .await
    }

    async fn head(&self, archive: &ArchiveName) -> Result<Option<Header>> {
        let newest = self.headers(archive, 0, Seq::MAX, 1).await?;
        Ok(newest.into_iter().next())
    }

    async fn last_seq(&self, archive: &ArchiveName) -> Result<Option<Seq>> {
        let archive = archive.clone();
        self.work("list commits", move |db| {
            let newest: Option<i64> = db.query_row(
                "SELECT max(seq) FROM commits WHERE archive = ?1",
                params![archive.as_str()],
                |row| row.get(0),
            )?;
            Ok(newest.and_then(|seq| u64::try_from(seq).ok()))
        })
        .await
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
            let mut query = db.prepare_cached(
                "SELECT seq, format, header FROM commits
                 WHERE archive = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq DESC LIMIT ?4",
            )?;
            let limit = bound(limit as u64);
            let mut rows = query.query(params![archive.as_str(), bound(from), bound(to), limit])?;
            let mut headers = Vec::new();
            while let Some(row) = rows.next()? {
                headers.push(header(&archive, row)?);
            }
            Ok(headers)
        })
        .await
    }

    async fn records(&self, archive: &ArchiveName, from: Seq, to: Seq) -> Result<Vec<Record>> {
        let archive = archive.clone();
        self.work("read commits", move |db| {
            let mut query = db.prepare_cached(
                "SELECT seq, format, header, size, body FROM commits
                 WHERE archive = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq",
            )?;
            let mut rows = query.query(params![archive.as_str(), bound(from), bound(to)])?;
            let (mut records, mut bytes) = (Vec::new(), 0);
            while bytes < ANSWER_BYTES {
                let next = match rows.next() {
                    Ok(None) => break,
                    Ok(Some(row)) => record(&archive, row),
                    Err(error) => Err(error.into()),
                };
                match next {
                    Ok(record) => {
                        bytes += record.body.len();
                        records.push(record);
                    }
                    Err(fault) if records.is_empty() => return Err(fault),
                    Err(_) => break,
                }
            }
            Ok(records)
        })
        .await
    }

    async fn delete_records(&self, archive: &ArchiveName, seqs: &[Seq]) -> Result<u64> {
        let (archive, seqs) = (archive.clone(), seqs.to_vec());
        self.work("delete commits", move |db| {
            let transaction = writing(db)?;
            let mut removed = 0;
            for seq in seqs {
                removed += transaction
                    .prepare_cached("DELETE FROM commits WHERE archive = ?1 AND seq = ?2")?
                    .execute(params![archive.as_str(), bound(seq)])?;
            }
            transaction.commit()?;
            shrink(db)?;
            Ok(removed as u64)
        })
        .await
    }

    async fn put_pack(&self, archive: &ArchiveName, id: PackId, content: Bytes) -> Result<()> {
        let archive = archive.clone();
        self.work("store a pack", move |db| {
            // One row, one statement: wholly there or not at all.
            db.prepare_cached(
                "INSERT INTO packs (archive, id, size, content) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (archive, id) DO NOTHING",
            )?
            .execute(params![
                archive.as_str(),
                id.to_string(),
                bound(content.len() as u64),
                &content[..],
            ])?;
            Ok(())
        })
        .await
    }

    async fn pack(&self, archive: &ArchiveName, id: PackId) -> Result<Bytes> {
        let archive = archive.clone();
        self.work("read a pack", move |db| {
            let what = format!("pack {id} of archive {archive}");
            let found = db
                .prepare_cached("SELECT size, content FROM packs WHERE archive = ?1 AND id = ?2")?
                .query_row(params![archive.as_str(), id.to_string()], |row| {
                    // Whatever is in them: a value of another type is damage, and no failure.
                    Ok((row.get::<_, i64>(0).ok(), row.get::<_, Vec<u8>>(1).ok()))
                })
                .optional()?;
            let (size, content) = match found {
                None => return Err(Fault::Store(StoreError::Missing { what })),
                Some((Some(size), Some(content))) => (size, content),
                Some(_) => {
                    let why = "it cannot be read".to_owned();
                    return Err(Fault::Store(StoreError::Damaged { what, why }));
                }
            };
            if bound(content.len() as u64) != size {
                let why = format!("it has {} bytes instead of {size}", content.len());
                return Err(Fault::Store(StoreError::Damaged { what, why }));
            }
            Ok(content.into())
        })
        .await
    }

    async fn packs(&self, archive: &ArchiveName) -> Result<Vec<PackInfo>> {
        let archive = archive.clone();
        self.work("list packs", move |db| {
            let mut query = db.prepare_cached("SELECT id, size FROM packs WHERE archive = ?1")?;
            let mut rows = query.query([archive.as_str()])?;
            let mut packs = Vec::new();
            while let Some(row) = rows.next()? {
                // What cannot be read is no whole pack, and stays where it is.
                let id = row.get::<_, String>(0).ok().and_then(|id| id.parse().ok());
                let size = row.get::<_, i64>(1).ok();
                packs.extend(id.zip(size).map(|(id, size)| PackInfo {
                    id,
                    size: size.unsigned_abs(),
                }));
            }
            Ok(packs)
        })
        .await
    }

    async fn delete_pack(&self, archive: &ArchiveName, id: PackId) -> Result<()> {
        let archive = archive.clone();
        self.work("delete a pack", move |db| {
            db.prepare_cached("DELETE FROM packs WHERE archive = ?1 AND id = ?2")?
                .execute(params![archive.as_str(), id.to_string()])?;
            shrink(db)
        })
        .await
    }

    async fn sweep(&self, _before_ms: u64) -> Result<u64> {
        // A pack is one row: there are no pieces. Room that deletions left may still be held,
        // where the process that deleted was ended before it could give it back.
        self.work("give space back", |db| shrink(db).map(|()| 0))
            .await
    }

    async fn take_lease(&self, archive: &ArchiveName, claim: &LeaseClaim) -> Result<LeaseOutcome> {
        let (archive, claim) = (archive.clone(), claim.clone());
        self.work("take the lease", move |db| {
            let db = writing(db)?;
            let current = read_lease(&db, &archive)?;
            let (after, outcome) = LeaseState::claim(current.as_ref(), &claim, now_ms());
            if let Some(after) = after {
                write_lease(&db, &archive, &after)?;
                db.commit()?;
            }
            Ok(outcome)
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
            let db = writing(db)?;
            let now = now_ms();
            let Some(lease) = read_lease(&db, &archive)? else {
                return Ok(Renewal::Lost(None));
            };
            let Some(renewed) = lease.renewed(&instance, epoch, ttl, now) else {
                return Ok(Renewal::Lost(Some(lease.told_at(now))));
            };
            write_lease(&db, &archive, &renewed)?;
            db.commit()?;
            Ok(Renewal::Renewed(renewed.told_at(now)))
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
            let db = writing(db)?;
            if let Some(mut lease) = read_lease(&db, &archive)? {
                lease.release(&instance, epoch);
                write_lease(&db, &archive, &lease)?;
                db.commit()?;
            }
            Ok(())
        })
        .await
    }

    async fn break_lease(&self, archive: &ArchiveName) -> Result<Option<Lease>> {
        let archive = archive.clone();
        self.work("end the lease", move |db| {
            let db = writing(db)?;
            let Some(lease) = read_lease(&db, &archive)? else {
                return Ok(None);
            };
            let broken = lease.told_at(now_ms());
            let released = LeaseState {
                expires_ms: 0,
                ..lease
            };
            write_lease(&db, &archive, &released)?;
            db.commit()?;
            Ok(Some(broken))
        })
        .await
    }

    async fn lease(&self, archive: &ArchiveName) -> Result<Option<Lease>> {
        let archive = archive.clone();
        self.work("read the lease", move |db| {
            Ok(read_lease(db, &archive)?.map(|lease| lease.told_at(now_ms())))
        })
        .await
    }

    async fn now_ms(&self) -> Result<u64> {
        Ok(now_ms())
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

    async fn archives(&self) -> Result<Vec<ArchiveName>> {
        self.work("list archives", |db| {
            // Jumps from name to name over the primary key, instead of looking at every commit.
            let mut next =
                db.prepare_cached("SELECT min(archive) FROM commits WHERE archive > ?1")?;
            let (mut names, mut last) = (Vec::new(), String::new());
            while let Some(name) = next.query_row([&last], |row| row.get::<_, Option<String>>(0))? {
                names.extend(name.parse::<ArchiveName>().ok());
                last = name;
            }
            Ok(names)
        })
        .await
    }

    async fn examine(&self) -> Vec<Finding> {
        let finding = |subject, severity, detail, remedy: &str| Finding {
            subject,
            severity,
            detail,
            remedy: remedy.to_owned(),
        };
        let probe = self
            .work("write and check its file", |db| {
                // A write transaction takes the lock and needs the right to write; rolled back,
                // it leaves nothing.
                let transaction = writing(db)?;
                transaction.execute("INSERT INTO leases VALUES ('(doctor)', '', 0, 0, 0)", [])?;
                transaction.rollback()?;
                let check = |sql| db.query_row(sql, [], |row| row.get::<_, String>(0));
                Ok((
                    check("PRAGMA journal_mode")?,
                    check("PRAGMA quick_check(1)")?,
                ))
            })
            .await;
        let mut findings = match probe {
            Err(error) => {
                let cause = std::error::Error::source(&error)
                    .map_or_else(String::new, |cause| format!(": {cause}"));
                let detail = format!("{}: {error}{cause}", self.describe());
                let remedy = "check that the path is right, on a disk that is there, and writable";
                vec![finding("store reachable", Severity::Bad, detail, remedy)]
            }
            Ok((journal, check)) => {
                let mut findings = vec![finding(
                    "store reachable",
                    Severity::Good,
                    format!("{}, writable, journal mode {journal}", self.describe()),
                    "",
                )];
                if check != "ok" {
                    findings.push(finding(
                        "store intact",
                        Severity::Bad,
                        check,
                        "restore the file from a copy, or start a new one and keep this",
                    ));
                }
                findings
            }
        };
        let directory = self.path.parent().unwrap_or(Path::new("."));
        if let Ok(disk) = nix::sys::statvfs::statvfs(directory) {
            let free = (disk.blocks_available() * disk.fragment_size()) >> 20;
            let (severity, remedy) = if free < 512 {
                (Severity::Warning, "make room before writes fail")
            } else {
                (Severity::Good, "")
            };
            findings.push(finding(
                "free space",
                severity,
                format!("{free} MiB free beside the store's file"),
                remedy,
            ));
        }
        findings
    }

    async fn close(&self) {
        self.shared.close().await;
    }
}
