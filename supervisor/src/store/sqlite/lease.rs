//! The lease: one row an archive, judged inside a write transaction by this machine's clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, params};

use super::connection::Fault;
use super::{bound, int, writing};
use crate::store::lease::{LeaseState, Place, damaged};
use crate::store::{
    ArchiveName, Broken, InstanceId, Lease, LeaseClaim, LeaseOutcome, Renewal, StoreError,
};

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

fn read_row(db: &Connection, archive: &ArchiveName) -> Result<Option<Row>, Fault> {
    let mut query = db.prepare_cached(
        "SELECT instance, epoch, expires_ms, since_ms FROM leases WHERE archive = ?1",
    )?;
    let row = query
        .query_row([archive.as_str()], |row| {
            // A value of another type is damage, and no failure.
            let number = |at| {
                row.get::<_, i64>(at)
                    .ok()
                    .and_then(|number| u64::try_from(number).ok())
            };
            Ok(Row {
                instance: row
                    .get::<_, String>(0)
                    .ok()
                    .and_then(|name| name.parse().ok()),
                epoch: number(1),
                expires_ms: number(2),
                since_ms: number(3),
            })
        })
        .optional()?;
    Ok(row)
}

fn read(db: &Connection, archive: &ArchiveName) -> Result<Option<LeaseState>, Fault> {
    let Some(row) = read_row(db, archive)? else {
        return Ok(None);
    };
    let damaged = |column: &str| damaged(archive, column);
    let queue = db
        .prepare_cached("SELECT places FROM lease_queues WHERE archive = ?1")?
        .query_row([archive.as_str()], |row| Ok(row.get::<_, String>(0).ok()))
        .optional()?
        .flatten();
    Ok(Some(LeaseState {
        instance: row.instance.ok_or_else(|| damaged("instance"))?,
        epoch: row.epoch.ok_or_else(|| damaged("epoch"))?,
        expires_ms: row.expires_ms.ok_or_else(|| damaged("expires_ms"))?,
        since_ms: row.since_ms.ok_or_else(|| damaged("since_ms"))?,
        queue: queue.map_or_else(Vec::new, |places| read_queue(&places)),
    }))
}

/// Whoever waits asks again: a queue that cannot be read is one that nobody stands in yet.
pub(crate) fn read_queue(places: &str) -> Vec<Place> {
    serde_json::from_str(places).unwrap_or_default()
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
    let Some(lease) = read(&db, archive)? else {
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
    if let Some(mut lease) = read(&db, archive)? {
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
    let released = LeaseState {
        expires_ms: 0,
        ..lease
    };
    write(&db, archive, &released)?;
    db.commit()?;
    Ok(broken)
}

/// The lease as it stands.
pub(super) fn told(db: &Connection, archive: &ArchiveName) -> Result<Option<Lease>, Fault> {
    Ok(read(db, archive)?.map(|lease| lease.told_at(now_ms())))
}
