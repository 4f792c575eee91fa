//! The lease: one row an archive, judged inside a write transaction by this machine's clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, params};

use super::connection::Fault;
use super::{bound, int, writing};
use sessionkeep_archive::store::lease::{EPOCH_MAX, LeaseState, Place, Term, damaged};
use sessionkeep_archive::store::{
    Broken, Lease, LeaseClaim, LeaseOutcome, Renewal, SetBack, StoreError,
};
use sessionkeep_core::record::{ArchiveName, InstanceId};

/// This machine's clock, in milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// What the row of a lease holds, so far as it can be read.
struct Row {
    instance: Option<InstanceId>,
    epoch: Option<u64>,
    expires_ms: Option<u64>,
    since_ms: Option<u64>,
}

/// A value of another type is damage, and no failure.
fn number(row: &rusqlite::Row<'_>, at: usize) -> Option<u64> {
    let number = row.get::<_, i64>(at).ok()?;
    u64::try_from(number).ok()
}

fn read_row(db: &Connection, archive: &ArchiveName) -> Result<Option<Row>, Fault> {
    let mut query = db.prepare_cached(
        "SELECT instance, epoch, expires_ms, since_ms FROM leases WHERE archive = ?1",
    )?;
    let row = query
        .query_row([archive.as_str()], |row| {
            Ok(Row {
                instance: row
                    .get::<_, String>(0)
                    .ok()
                    .and_then(|name| name.parse().ok()),
                epoch: number(row, 1).filter(|epoch| *epoch <= EPOCH_MAX),
                expires_ms: number(row, 2),
                since_ms: number(row, 3),
            })
        })
        .optional()?;
    Ok(row)
}

/// What is wrong with it is as if it had never been said.
fn read_term(db: &Connection, archive: &ArchiveName) -> Result<Term, Fault> {
    let mut query = db.prepare_cached(
        "SELECT epoch, ttl_ms, written_ms, set_back_ms, set_back_by_ms
         FROM lease_terms WHERE archive = ?1",
    )?;
    let term = query
        .query_row([archive.as_str()], |row| {
            let number = |at| number(row, at);
            let set_back = number(3).zip(number(4)).filter(|(_, by_ms)| *by_ms > 0);
            Ok(Term {
                epoch: number(0).unwrap_or(0),
                ttl_ms: number(1).unwrap_or(0),
                written_ms: number(2).unwrap_or(0),
                set_back: set_back.map(|(found_ms, by_ms)| SetBack { found_ms, by_ms }),
            })
        })
        .optional()?;
    Ok(term.unwrap_or_default())
}

fn read(db: &Connection, archive: &ArchiveName) -> Result<Option<LeaseState>, Fault> {
    let Some(row) = read_row(db, archive)? else {
        return Ok(None);
    };
    let since_ms = row.since_ms;
    let lease = read_rest(db, archive, row)?;
    Ok(Some(LeaseState {
        since_ms: since_ms.ok_or_else(|| damaged(archive, "since_ms"))?,
        ..lease
    }))
}

/// As [`read`], for the holder: since when it has it decides nothing, and is put right by a renewal.
fn read_held(db: &Connection, archive: &ArchiveName) -> Result<Option<LeaseState>, Fault> {
    let row = read_row(db, archive)?;
    row.map(|row| read_rest(db, archive, row)).transpose()
}

/// All of a lease but since when it is held, where that cannot be read.
fn read_rest(db: &Connection, archive: &ArchiveName, row: Row) -> Result<LeaseState, Fault> {
    let damaged = |column: &str| damaged(archive, column);
    let queue = db
        .prepare_cached("SELECT places FROM lease_queues WHERE archive = ?1")?
        .query_row([archive.as_str()], |row| Ok(row.get::<_, String>(0).ok()))
        .optional()?;
    let places = queue.map(|places| places.as_deref().and_then(read_queue));
    Ok(LeaseState {
        instance: row.instance.ok_or_else(|| damaged("instance"))?,
        epoch: row.epoch.ok_or_else(|| damaged("epoch"))?,
        expires_ms: row.expires_ms.ok_or_else(|| damaged("expires_ms"))?,
        since_ms: row.since_ms.unwrap_or_else(now_ms),
        queue_damaged: places == Some(None),
        queue: places.flatten().unwrap_or_default(),
        term: read_term(db, archive)?,
    })
}

/// Whoever waits asks again: a queue that cannot be read is one that nobody stands in yet.
pub fn read_queue(places: &str) -> Option<Vec<Place>> {
    serde_json::from_str(places).ok()
}

fn write(db: &Connection, archive: &ArchiveName, lease: &LeaseState) -> Result<(), Fault> {
    db.prepare_cached("INSERT OR REPLACE INTO leases VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            archive.as_str(),
            lease.instance.as_str(),
            int(lease.epoch)?,
            bound(lease.expires_ms),
            int(lease.since_ms)?,
        ])?;
    let term = &lease.term;
    let set_back = term.set_back.as_ref();
    db.prepare_cached("INSERT OR REPLACE INTO lease_terms VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            archive.as_str(),
            bound(term.epoch),
            bound(term.ttl_ms),
            bound(term.written_ms),
            set_back.map(|found| bound(found.found_ms)),
            set_back.map(|found| bound(found.by_ms)),
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

/// Grants a claim, or keeps its place in the queue.
pub(super) fn take(
    db: &mut Connection,
    archive: &ArchiveName,
    claim: &LeaseClaim,
) -> Result<LeaseOutcome, Fault> {
    let db = writing(db)?;
    let current = read(&db, archive)?;
    let (after, outcome) = LeaseState::claim(current.as_ref(), claim, now_ms());
    if let Some(after) = after {
        write(&db, archive, &after)?;
        db.commit()?;
    }
    Ok(outcome)
}

/// Prolongs the lease of its holder.
pub(super) fn renew(
    db: &mut Connection,
    archive: &ArchiveName,
    instance: &InstanceId,
    epoch: u64,
    ttl: Duration,
) -> Result<Renewal, Fault> {
    let db = writing(db)?;
    let now = now_ms();
    let Some(lease) = read_held(&db, archive)? else {
        return Ok(Renewal::Lost(None));
    };
    let Some(renewed) = lease.renewed(instance, epoch, ttl, now) else {
        return Ok(Renewal::Lost(Some(lease.told_at(now))));
    };
    write(&db, archive, &renewed)?;
    db.commit()?;
    Ok(Renewal::Renewed(renewed.told_at(now)))
}

/// Lets the lease go, if it is this holder's.
pub(super) fn release(
    db: &mut Connection,
    archive: &ArchiveName,
    instance: &InstanceId,
    epoch: u64,
) -> Result<(), Fault> {
    let db = writing(db)?;
    if let Some(mut lease) = read_held(&db, archive)? {
        lease.release(instance, epoch);
        write(&db, archive, &lease)?;
        db.commit()?;
    }
    Ok(())
}

/// Ends the lease, whoever holds it.
pub(super) fn end(db: &mut Connection, archive: &ArchiveName) -> Result<Broken, Fault> {
    let db = writing(db)?;
    let (lease, broken) = match read(&db, archive) {
        Ok(None) => return Ok(Broken::Absent),
        Ok(Some(lease)) => {
            let told = lease.told_at(now_ms());
            (lease, Broken::Ended(told))
        }
        Err(Fault::Store(damage @ StoreError::Damaged { .. })) => {
            let row = read_row(&db, archive)?;
            let epoch = row.and_then(|row| row.epoch).unwrap_or(0);
            (LeaseState::unreadable(epoch), Broken::Replaced(damage))
        }
        Err(fault) => return Err(fault),
    };
    let mut ended = lease;
    ended.end();
    write(&db, archive, &ended)?;
    db.commit()?;
    Ok(broken)
}

/// The lease as it stands.
pub(super) fn told(db: &Connection, archive: &ArchiveName) -> Result<Option<Lease>, Fault> {
    Ok(read(db, archive)?.map(|lease| lease.told_at(now_ms())))
}
