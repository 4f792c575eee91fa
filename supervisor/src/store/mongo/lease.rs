//! The lease: one document an archive, changed by one atomic update that the server decides by
//! its own clock (`$$NOW`).

use std::time::Duration;

use mongodb::bson::{DateTime, Document, doc};
use mongodb::options::ReturnDocument;

use super::MongoStore;
use super::errors::is_duplicate_key;
use crate::store::{
    ArchiveName, FORMAT, InstanceId, Lease, LeaseClaim, LeaseOutcome, Renewal, Result, StoreError,
    is_known,
};

/// The collection's name.
pub(super) const LEASES: &str = "leases";

/// Written as `expires` by whoever lets a lease go. It tells "released" from "expired": a renewal
/// that was on its way when the lease was released must not bring it back to life.
const RELEASED: DateTime = DateTime::from_millis(0);

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// The update that takes the lease where it may be taken, and changes nothing else. All
/// conditions see the document as it was before. `now` brings the server's time back with it.
fn claim_update(claim: &LeaseClaim) -> Vec<Document> {
    let own = claim.instance.as_str();
    let mut heirs = vec![own];
    heirs.extend(claim.predecessor.as_ref().map(InstanceId::as_str));
    let is_own = doc! { "$eq": ["$instance", own] };
    let granted = doc! { "$and": [
        // A lease that a later version wrote is not ours to judge.
        { "$lte": [{ "$ifNull": ["$format", 0] }, i64::from(FORMAT)] },
        { "$or": [
            { "$eq": [{ "$type": "$instance" }, "missing"] },
            { "$lte": ["$expires", "$$NOW"] },
            { "$in": ["$instance", heirs] },
        ] },
    ] };
    // The holder itself keeps its epoch and its time, unless it had let the lease go.
    let continues = doc! { "$and": [is_own, { "$gt": ["$expires", RELEASED] }] };
    let floor = i64::try_from(claim.floor).unwrap_or(i64::MAX - 1);
    let last = doc! { "$max": [{ "$ifNull": ["$epoch", 0_i64] }, floor] };
    let next = doc! { "$add": [last, 1_i64] };
    let set = |field: &str, value: Document| {
        doc! { "$cond": [granted.clone(), value, format!("${field}")] }
    };
    vec![doc! { "$set": {
        "format": { "$ifNull": ["$format", i64::from(FORMAT)] },
        "instance": set("instance", doc! { "$literal": own }),
        "epoch": set("epoch", doc! { "$cond": [continues.clone(), "$epoch", next] }),
        "since": set("since", doc! { "$cond": [continues, "$since", "$$NOW"] }),
        "expires": set("expires", doc! { "$add": ["$$NOW", millis(claim.ttl)] }),
        "now": "$$NOW",
    } }]
}

fn decode(archive: &ArchiveName, document: &Document) -> Result<Lease> {
    let damaged = |field: &str| StoreError::Damaged {
        what: format!("the lease of archive {archive}"),
        why: format!("its field `{field}` cannot be read"),
    };
    let number = |field: &str| {
        let value = document.get(field);
        value
            .and_then(|v| v.as_i64().or_else(|| v.as_i32().map(i64::from)))
            .and_then(|number| u64::try_from(number).ok())
            .ok_or_else(|| damaged(field))
    };
    let time = |field: &str| {
        document
            .get_datetime(field)
            .map(|time| time.timestamp_millis())
            .map_err(|_| damaged(field))
    };
    let format = number("format")?;
    if !u32::try_from(format).is_ok_and(is_known) {
        return Err(StoreError::Format {
            what: format!("the lease of archive {archive}"),
            found: u32::try_from(format).unwrap_or(u32::MAX),
        });
    }
    let remaining = time("expires")?.saturating_sub(time("now")?);
    Ok(Lease {
        instance: document
            .get_str("instance")
            .ok()
            .and_then(|name| name.parse().ok())
            .ok_or_else(|| damaged("instance"))?,
        epoch: number("epoch")?,
        remaining: Duration::from_millis(u64::try_from(remaining).unwrap_or(0)),
        since_ms: u64::try_from(time("since")?).map_err(|_| damaged("since"))?,
    })
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
            Ok(if lease.instance == claim.instance {
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
        let matched = self
            .within("renew the lease", async {
                let leases = self.collection(LEASES).await?;
                Ok(leases.update_one(held, update).await?.matched_count)
            })
            .await?;
        if matched > 0 {
            return Ok(Renewal::Renewed);
        }
        Ok(Renewal::Lost(self.read_lease(archive).await?))
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
        self.within("release the lease", async {
            let leases = self.collection(LEASES).await?;
            leases
                .update_one(held, doc! { "$set": { "expires": RELEASED } })
                .await?;
            Ok(())
        })
        .await
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
