//! The lease: one document an archive, changed by one atomic update that the server decides by
//! its own clock (`$$NOW`). What may be done is [`LeaseState`](sessionkeep_archive::store::lease::LeaseState)'s to
//! say; `lease_update` says it to the server.

use std::time::Duration;

use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::options::ReturnDocument;

use tracing::debug;

use super::MongoStore;
use super::errors::is_duplicate_key;
use super::lease_update::{claim_update, ended, looked_at, prolonged, released, unreadable};
use sessionkeep_archive::store::lease::{EPOCH_MAX, TTL_UNTOLD, damaged, is_kept, is_ttl};
use sessionkeep_archive::store::{
    Broken, Lease, LeaseClaim, LeaseMark, LeaseOutcome, Renewal, Result, SetBack, StoreError,
    Waiter,
};
use sessionkeep_core::record::{ArchiveName, InstanceId, is_known};

/// The collection's name.
pub(super) const LEASES: &str = "leases";

/// Written as `expires` by whoever lets a lease go. It tells "released" from "expired": a renewal
/// that was on its way when the lease was released must not bring it back to life.
pub(super) const RELEASED: DateTime = DateTime::from_millis(0);

/// The lease of `archive` that a document holds.
///
/// # Errors
/// [`StoreError::Damaged`] and [`StoreError::Format`].
pub fn decode(archive: &ArchiveName, document: &Document) -> Result<Lease> {
    let damaged = |field: &str| damaged(archive, field);
    let number = |field: &str| read_number(document, field).ok_or_else(|| damaged(field));
    let time = |field: &str| read_time(document, field).ok_or_else(|| damaged(field));
    let format = number("format")?;
    if format == 0 {
        return Err(damaged("format"));
    }
    if !u32::try_from(format).is_ok_and(is_known) {
        return Err(StoreError::Format {
            what: format!("the lease of archive {archive}"),
            found: u32::try_from(format).unwrap_or(u32::MAX),
        });
    }
    let epoch = number("epoch")?;
    if epoch > EPOCH_MAX {
        return Err(damaged("epoch"));
    }
    let now_ms = time("now")?;
    let (waiting, is_whole) = read_queue(document, now_ms);
    let was_damaged = document.get_bool("queue_damaged").unwrap_or(false);
    let ttl = read_ttl(document, epoch);
    let limit = ttl.unwrap_or(TTL_UNTOLD);
    let expires_ms = time("expires")?;
    let remaining = Duration::from_millis(expires_ms.saturating_sub(now_ms));
    Ok(Lease {
        instance: read_name(document).ok_or_else(|| damaged("instance"))?,
        epoch,
        remaining: remaining.min(limit),
        mark: (expires_ms > 0).then_some(LeaseMark { epoch, expires_ms }),
        ttl,
        since_ms: time("since")?.min(now_ms),
        now_ms,
        set_back: read_set_back(document),
        queue_damaged: was_damaged || !is_whole,
        waiting,
    })
}

/// For how long at a time its holder has it, where it said so.
fn read_ttl(document: &Document, epoch: u64) -> Option<Duration> {
    let term = document.get_document("term").ok()?;
    let ttl_ms = read_number(term, "ttl").filter(|ms| is_ttl(*ms))?;
    let is_its_own = read_number(term, "epoch") == Some(epoch);
    is_its_own.then(|| Duration::from_millis(ttl_ms))
}

fn read_set_back(document: &Document) -> Option<SetBack> {
    let found = document.get_document("set_back").ok()?;
    let by_ms = read_number(found, "by").filter(|by_ms| *by_ms > 0)?;
    let found_ms = read_time(found, "found")?;
    Some(SetBack { found_ms, by_ms })
}

/// The places that are kept, and whether all of it could be read.
fn read_queue(document: &Document, now_ms: u64) -> (Vec<Waiter>, bool) {
    let places = match document.get("waiting") {
        None | Some(Bson::Null) => return (Vec::new(), true),
        Some(Bson::Array(places)) => places,
        Some(_) => return (Vec::new(), false),
    };
    let read: Vec<_> = places.iter().map(read_place).collect();
    let is_whole = read.iter().all(Option::is_some);
    let kept = read.into_iter().flatten().filter_map(|(mut waiter, seen)| {
        waiter.since_ms = waiter.since_ms.min(now_ms);
        is_kept(seen, now_ms).then_some(waiter)
    });
    (kept.collect(), is_whole)
}

/// A place, and when its holder last asked.
fn read_place(place: &Bson) -> Option<(Waiter, u64)> {
    let place = place.as_document()?;
    let seen_ms = read_time(place, "seen")?;
    let asks = match place.get("asks") {
        None | Some(Bson::Null) => None,
        Some(_) => Some(read_number(place, "asks")?),
    };
    let waiter = Waiter {
        instance: read_name(place)?,
        since_ms: read_time(place, "since")?,
        asks,
    };
    Some((waiter, seen_ms))
}

fn read_name(document: &Document) -> Option<InstanceId> {
    document.get_str("instance").ok()?.parse().ok()
}

fn read_number(document: &Document, field: &str) -> Option<u64> {
    let value = document.get(field)?;
    let number = value.as_i64().or_else(|| value.as_i32().map(i64::from))?;
    u64::try_from(number).ok()
}

/// In milliseconds since 1970.
fn read_time(document: &Document, field: &str) -> Option<u64> {
    let time = document.get_datetime(field).ok()?;
    u64::try_from(time.timestamp_millis()).ok()
}

impl MongoStore {
    pub(super) async fn claim_lease(
        &self,
        archive: &ArchiveName,
        claim: &LeaseClaim,
    ) -> Result<LeaseOutcome> {
        self.within("take the lease", async {
            let leases = self.collection(LEASES).await?;
            let attempt = || {
                leases
                    .find_one_and_update(doc! { "_id": archive.as_str() }, claim_update(claim))
                    .upsert(true)
                    .return_document(ReturnDocument::After)
            };
            // Two first claims at once may both try to insert. The one that fails finds the
            // other's document when it asks again.
            let answer = match attempt().await {
                Err(error) if is_duplicate_key(&error) => attempt().await,
                answer => answer,
            };
            let document = answer?.ok_or_else(|| StoreError::Missing {
                what: format!("the lease of archive {archive}, just written,"),
            })?;
            let lease = decode(archive, &document)?;
            // Who let it go is named in it until somebody else takes it.
            let is_ours = lease.instance == claim.instance && !lease.remaining.is_zero();
            Ok(if is_ours {
                LeaseOutcome::Granted { epoch: lease.epoch }
            } else {
                LeaseOutcome::Held(lease)
            })
        })
        .await
    }

    pub(super) async fn prolong_lease(
        &self,
        archive: &ArchiveName,
        instance: &InstanceId,
        epoch: u64,
        ttl: Duration,
    ) -> Result<Renewal> {
        let held = doc! {
            "_id": archive.as_str(),
            "instance": instance.as_str(),
            "epoch": i64::try_from(epoch).unwrap_or(i64::MAX),
            "expires": { "$gt": RELEASED },
        };
        let update = prolonged(instance, epoch, ttl);
        let renewed = self
            .within("renew the lease", async {
                let leases = self.collection(LEASES).await?;
                let renewed = leases
                    .find_one_and_update(held, update)
                    .return_document(ReturnDocument::After);
                Ok(renewed.await?)
            })
            .await?;
        match renewed {
            Some(lease) => Ok(Renewal::Renewed(decode(archive, &lease)?)),
            None => Ok(Renewal::Lost(self.read_lease(archive).await?)),
        }
    }

    pub(super) async fn free_lease(
        &self,
        archive: &ArchiveName,
        instance: &InstanceId,
        epoch: u64,
    ) -> Result<()> {
        let held = doc! {
            "_id": archive.as_str(),
            "instance": instance.as_str(),
            "epoch": i64::try_from(epoch).unwrap_or(i64::MAX),
        };
        let release = released();
        let released = self
            .within("release the lease", async {
                let leases = self.collection(LEASES).await?;
                let released = leases
                    .find_one_and_update(held, release)
                    .return_document(ReturnDocument::After);
                Ok(released.await?)
            })
            .await?;
        let waited_for = released
            .and_then(|lease| decode(archive, &lease).ok())
            .is_some_and(|lease| !lease.waiting.is_empty());
        if waited_for {
            // It is released: that the next is late to hear of it is no error.
            if let Err(error) = self.insert_notice(archive).await {
                debug!(%error, "the lease's release could not be rung");
            }
        }
        Ok(())
    }

    pub(super) async fn end_lease(&self, archive: &ArchiveName) -> Result<Broken> {
        let (end, broken) = match self.read_lease(archive).await {
            Ok(None) => return Ok(Broken::Absent),
            Ok(Some(before)) => (ended(), Broken::Ended(before)),
            Err(damage @ StoreError::Damaged { .. }) => (unreadable(), Broken::Replaced(damage)),
            Err(error) => return Err(error),
        };
        self.within("end the lease", async {
            let leases = self.collection(LEASES).await?;
            leases
                .update_one(doc! { "_id": archive.as_str() }, end)
                .await?;
            Ok(())
        })
        .await?;
        Ok(broken)
    }

    pub(super) async fn read_lease(&self, archive: &ArchiveName) -> Result<Option<Lease>> {
        let pipeline = vec![
            doc! { "$match": { "_id": archive.as_str() } },
            doc! { "$set": looked_at() },
        ];
        self.within("read the lease", async {
            let leases = self.collection(LEASES).await?;
            let mut cursor = leases.aggregate(pipeline).await?;
            if !cursor.advance().await? {
                return Ok(None);
            }
            Ok(Some(decode(archive, &cursor.deserialize_current()?)?))
        })
        .await
    }
}
