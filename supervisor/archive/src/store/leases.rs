//! Which instance may write an archive.

use std::time::Duration;

use async_trait::async_trait;
use sessionkeep_core::record::{ArchiveName, InstanceId};

use super::{Broken, Lease, LeaseClaim, LeaseOutcome, Renewal, Result};

/// How soon who waits for a change of a lease looks again, where the store has no notices.
pub const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// One lease an archive, judged by the store's clock. It says who should write; that nobody else does is
/// the business of [`CommitLog::append`](super::CommitLog::append). What holds for every operation is said
/// at [`Store`](super::Store).
#[async_trait]
pub trait Leases: Send + Sync {
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
    /// as long as it claims again within [`WAITER_TTL`](super::WAITER_TTL). The queue has [`QUEUE_MAX`](super::QUEUE_MAX) places.
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

    /// Lets the lease go, so that the next can take it at once, and [notifies](Leases::notify) where
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

    /// Lets those who [wait for a notice](Leases::wait_for_notice) of this archive look at its lease at once.
    async fn notify(&self, _archive: &ArchiveName) -> Result<()> {
        Ok(())
    }

    /// Returns when it may be worth looking at the archive's lease again: when somebody
    /// [notifies](Leases::notify), and after `at_most` at the latest. It saves the time until the next
    /// look and nothing depends on it: notices can be missed, and come without a cause. A store that
    /// has none returns after [`LOOK_AGAIN`]. Unlike other operations it may take as long as
    /// `at_most`, and it costs next to nothing meanwhile.
    async fn wait_for_notice(&self, _archive: &ArchiveName, at_most: Duration) -> Result<()> {
        tokio::time::sleep(at_most.min(LOOK_AGAIN)).await;
        Ok(())
    }

    /// The lease as it stands; `None` where none was ever taken.
    async fn lease(&self, archive: &ArchiveName) -> Result<Option<Lease>>;

    /// The store's clock, by which leases are judged, in milliseconds since 1970.
    async fn now_ms(&self) -> Result<u64>;
}
