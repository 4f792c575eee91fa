//! The lease: one document an archive, changed by one atomic update that the server decides by
//! its own clock (`$$NOW`).

use std::time::Duration;

use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::options::ReturnDocument;

use tracing::debug;

use super::MongoStore;
use super::errors::is_duplicate_key;
use crate::store::lease::damaged;
use crate::store::{
    ArchiveName, Broken, FORMAT, InstanceId, Lease, LeaseClaim, LeaseOutcome, NOBODY, Otherwise,
    QUEUE_MAX, Renewal, Result, StoreError, WAITER_TTL, Waiter, is_known,
};

/// The collection's name.
pub(super) const LEASES: &str = "leases";

/// Written as `expires` by whoever lets a lease go. It tells "released" from "expired": a renewal
/// that was on its way when the lease was released must not bring it back to life.
const RELEASED: DateTime = DateTime::from_millis(0);

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// The update that takes the lease where it may be taken, keeps a place in the queue where it may
/// not and one is wanted, and changes nothing else. All conditions of a stage see the document as
/// it was before. `now` brings the server's time back with it.
fn claim_update(claim: &LeaseClaim) -> Vec<Document> {
    let own = claim.instance.as_str();
    let is_own = |path: &str| doc! { "$eq": [path, { "$literal": own }] };
    // Both keep what was not let go; the holder itself keeps its epoch and its time, too.
    let not_released = doc! { "$gt": ["$expires", RELEASED] };
    let continues = doc! { "$and": [is_own("$instance"), &not_released] };
    let heir_of = claim.predecessor.as_ref().map_or("", InstanceId::as_str);
    let inherits =
        doc! { "$and": [{ "$eq": ["$instance", { "$literal": heir_of }] }, not_released] };
    let is_nobodys = doc! { "$or": [
        { "$eq": [{ "$type": "$instance" }, "missing"] },
        { "$lte": ["$expires", "$$NOW"] },
    ] };
    let granted = doc! { "$and": [
        // A lease that a later version wrote is not ours to judge.
        { "$lte": [{ "$ifNull": ["$format", 0] }, i64::from(FORMAT)] },
        { "$or": [continues.clone(), inherits, { "$and": [is_nobodys, is_turn(own)] }] },
    ] };
    let floor = i64::try_from(claim.floor).unwrap_or(i64::MAX - 1);
    let last = doc! { "$max": [{ "$ifNull": ["$epoch", 0_i64] }, floor] };
    let next = doc! { "$add": [last, 1_i64] };
    let set = |field: &str, value: Document| {
        doc! { "$cond": ["$granted", value, format!("${field}")] }
    };
    let others = doc! { "$filter": {
        "input": "$waiting",
        "cond": { "$ne": ["$$this.instance", { "$literal": own }] },
    } };
    vec![
        doc! { "$set": { "waiting": kept_places() } },
        doc! { "$set": { "granted": granted, "continues": continues } },
        doc! { "$set": {
            "format": { "$ifNull": ["$format", i64::from(FORMAT)] },
            "instance": set("instance", doc! { "$literal": own }),
            "epoch": set("epoch", doc! { "$cond": ["$continues", "$epoch", next] }),
            "since": set("since", doc! { "$cond": ["$continues", "$since", "$$NOW"] }),
            "expires": set("expires", doc! { "$add": ["$$NOW", millis(claim.ttl)] }),
            "waiting": { "$cond": ["$granted", others, queue_with(claim)] },
            "now": "$$NOW",
        } },
        doc! { "$unset": ["granted", "continues"] },
    ]
}

/// The places of those who have asked of late.
fn kept_places() -> Document {
    let ttl = millis(WAITER_TTL);
    doc! { "$filter": {
        "input": { "$ifNull": ["$waiting", []] },
        "cond": { "$gt": [{ "$add": ["$$this.seen", ttl] }, "$$NOW"] },
    } }
}

/// Whether it is the turn of `own`, as [`Lease::next`] has it.
fn is_turn(own: &str) -> Document {
    let asking = doc! { "$filter": {
        "input": "$waiting",
        "cond": { "$eq": ["$$this.asks", "$epoch"] },
    } };
    let first = doc! { "$ifNull": [{ "$first": asking }, { "$first": "$waiting" }] };
    let instance = doc! { "$getField": { "field": "instance", "input": first } };
    doc! { "$eq": [{ "$ifNull": [instance, { "$literal": own }] }, { "$literal": own }] }
}

/// The queue with a place for who claims, if it wants one and there is room.
fn queue_with(claim: &LeaseClaim) -> Bson {
    let asks = match claim.otherwise {
        Otherwise::Leave => return "$waiting".into(),
        Otherwise::Wait => Bson::Null,
        Otherwise::Ask(epoch) => i64::try_from(epoch).unwrap_or(i64::MAX).into(),
    };
    let own = doc! { "$literal": claim.instance.as_str() };
    let kept = doc! { "$map": {
        "input": "$waiting",
        "in": { "$cond": [
            { "$eq": ["$$this.instance", own.clone()] },
            { "$mergeObjects": ["$$this", { "seen": "$$NOW", "asks": asks.clone() }] },
            "$$this",
        ] },
    } };
    let new = doc! { "instance": own.clone(), "since": "$$NOW", "seen": "$$NOW", "asks": asks };
    let full = i32::try_from(QUEUE_MAX).unwrap_or(i32::MAX);
    doc! { "$cond": [
        { "$or": [
            { "$in": [own, "$waiting.instance"] },
            { "$gte": [{ "$size": "$waiting" }, full] },
        ] },
        kept,
        { "$concatArrays": ["$waiting", [new]] },
    ] }
    .into()
}

/// Puts a lease that has ended in the place of one that cannot be read, as
/// [`LeaseState::unreadable`](crate::store::lease::LeaseState::unreadable) has it.
fn unreadable() -> Document {
    let is_number = doc! { "$in": [{ "$type": "$epoch" }, ["int", "long"]] };
    doc! { "$replaceWith": {
        "_id": "$_id",
        "format": i64::from(FORMAT),
        "instance": NOBODY,
        "epoch": { "$cond": [is_number, { "$max": [{ "$toLong": "$epoch" }, 0_i64] }, 0_i64] },
        "since": "$$NOW",
        "expires": RELEASED,
        "waiting": [],
        "now": "$$NOW",
    } }
}

pub(crate) fn decode(archive: &ArchiveName, document: &Document) -> Result<Lease> {
    let damaged = |field: &str| damaged(archive, field);
    let number = |field: &str| read_number(document, field).ok_or_else(|| damaged(field));
    let time = |field: &str| read_time(document, field).ok_or_else(|| damaged(field));
    let format = number("format")?;
    if !u32::try_from(format).is_ok_and(is_known) {
        return Err(StoreError::Format {
            what: format!("the lease of archive {archive}"),
            found: u32::try_from(format).unwrap_or(u32::MAX),
        });
    }
    let now = time("now")?;
    let waiting = document
        .get_array("waiting")
        .map(|places| {
            places
                .iter()
                .filter_map(|place| waiter(place.as_document()?, now))
                .collect()
        })
        .unwrap_or_default();
    let remaining = time("expires")?.saturating_sub(now);
    Ok(Lease {
        instance: read_name(document).ok_or_else(|| damaged("instance"))?,
        epoch: number("epoch")?,
        remaining: Duration::from_millis(u64::try_from(remaining).unwrap_or(0)),
        since_ms: u64::try_from(time("since")?).map_err(|_| damaged("since"))?,
        waiting,
    })
}

/// A place that is still kept; one that cannot be read is nobody's.
fn waiter(place: &Document, now: i64) -> Option<Waiter> {
    let kept = read_time(place, "seen")?.saturating_add(millis(WAITER_TTL)) > now;
    let waiter = Waiter {
        instance: read_name(place)?,
        since_ms: u64::try_from(read_time(place, "since")?).ok()?,
        asks: read_number(place, "asks"),
    };
    kept.then_some(waiter)
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
fn read_time(document: &Document, field: &str) -> Option<i64> {
    let time = document.get_datetime(field).ok()?;
    Some(time.timestamp_millis())
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
        let update = vec![doc! { "$set": {
            "expires": { "$add": ["$$NOW", millis(ttl)] },
            "now": "$$NOW",
        } }];
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
        let release = vec![doc! { "$set": { "expires": RELEASED, "now": "$$NOW" } }];
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
            if let Err(error) = self.ring_bell(archive).await {
                debug!(%error, "the lease's release could not be rung");
            }
        }
        Ok(())
    }

    pub(super) async fn end_lease(&self, archive: &ArchiveName) -> Result<Broken> {
        let (released, broken) = match self.read_lease(archive).await {
            Ok(None) => return Ok(Broken::Absent),
            Ok(Some(before)) => (
                doc! { "$set": { "expires": RELEASED } },
                Broken::Ended(before),
            ),
            Err(damage @ StoreError::Damaged { .. }) => (unreadable(), Broken::Replaced(damage)),
            Err(error) => return Err(error),
        };
        self.within("end the lease", async {
            let leases = self.collection(LEASES).await?;
            leases
                .update_one(doc! { "_id": archive.as_str() }, vec![released])
                .await?;
            Ok(())
        })
        .await?;
        Ok(broken)
    }

    pub(super) async fn read_lease(&self, archive: &ArchiveName) -> Result<Option<Lease>> {
        let pipeline = vec![
            doc! { "$match": { "_id": archive.as_str() } },
            doc! { "$set": { "now": "$$NOW" } },
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
