//! The barrier: the record that an instance appends before it reads what to restore, so that every stale
//! writer finds its next number taken.

use futures_util::future::join;
use sessionkeep_archive::ArchiveError;
use sessionkeep_archive::newest;
use sessionkeep_archive::store::retry::Backoff;
use sessionkeep_archive::store::{Renewal, Store};
use sessionkeep_archive::version::head_of;
use sessionkeep_archive::writer::{Outcome, Writer};
use sessionkeep_core::boot_time::BootInstant;
use sessionkeep_core::record::{ArchiveName, Header, InstanceId, Seq};
use tracing::{info, warn};

use super::OwnershipError;
use super::keeper::{LeaseKeeper, LeaseParameters, why_lost};

/// How often a barrier is tried again where a stale writer takes its number, or the store does not
/// answer. Each collision is a commit that a stale writer still had on its way; it cannot have many.
const BARRIER_TRIES: u32 = 20;

/// Makes sure that the lease is still this instance's. Where it may have run out meanwhile, as when
/// the barrier's answer was lost and asked for again, the store is asked: a barrier that is in the
/// store says only that it was raised once, and another may stand after it.
///
/// # Errors
/// [`OwnershipError::Fenced`] where it is not; the store's.
pub(crate) async fn still_held(
    store: &dyn Store,
    keeper: &LeaseKeeper,
) -> Result<(), OwnershipError> {
    let fenced = |reason| Err(OwnershipError::Fenced { reason });
    if let Some(reason) = keeper.lost() {
        return fenced(reason);
    }
    if BootInstant::now() < keeper.safe_until() {
        return Ok(());
    }
    let LeaseParameters {
        archive,
        instance,
        epoch,
        ttl,
        ..
    } = keeper.parameters();
    let renewal = store.renew_lease(archive, instance, *epoch, *ttl).await;
    match renewal.map_err(ArchiveError::from)? {
        Renewal::Renewed(_) => Ok(()),
        Renewal::Lost(owner) => fenced(why_lost(owner.as_ref(), instance)),
    }
}

/// What is known of the archive before this boot writes to it.
#[derive(Debug)]
pub(crate) enum Head {
    /// Nothing was ever written.
    None,
    /// The newest commit.
    Known(Box<Header>),
    /// There is a newest commit, and it cannot be read or believed.
    Unreadable {
        /// Its number.
        seq: Seq,
        /// How it shows.
        error: ArchiveError,
    },
}

/// Appends a barrier after whatever is newest. From here on every writer that does not hold this
/// epoch collides, so what the head holds now is what there will ever be of it.
///
/// # Errors
/// The store's.
pub(crate) async fn raise_barrier(
    store: &dyn Store,
    archive: &ArchiveName,
    instance: &InstanceId,
    epoch: u64,
) -> Result<(Head, Writer), OwnershipError> {
    let (now, head) = join(store.now_ms(), head_of(store, archive)).await;
    let now = now.map_err(ArchiveError::from)?;
    let mut first_look = Some(head);
    for _ in 0..BARRIER_TRIES {
        let head = match first_look.take() {
            Some(head) => head,
            None => head_of(store, archive).await,
        };
        let head = match head {
            Ok(None) => Head::None,
            Ok(Some(header)) => Head::Known(Box::new(header)),
            Err(error) if error.is_damage() => {
                let last = store.last_seq(archive).await;
                let seq = last.map_err(ArchiveError::from)?.unwrap_or(0);
                Head::Unreadable { seq, error }
            }
            Err(error) => return Err(error.into()),
        };
        if let Head::Known(header) = &head
            && header.epoch > epoch
        {
            return Err(taken_over(header));
        }
        let (known, after) = match &head {
            Head::None => (None, 0),
            Head::Known(header) => (Some((**header).clone()), header.seq),
            Head::Unreadable { seq, .. } => (newest::older(store, archive, *seq).await?, *seq),
        };
        let mut writer = Writer::new(archive.clone(), instance.clone(), epoch, known, now);
        writer.skip_to(after);
        let mut attempt = 0;
        let outcome = loop {
            match writer.settle_or_barrier(store).await {
                Err(error)
                    if error.is_transient()
                        && !error.refuses_writes()
                        && attempt < BARRIER_TRIES =>
                {
                    warn!(target: "boot", %error, "the barrier was not answered; asking again");
                    tokio::time::sleep(Backoff::STORE.jittered(attempt)).await;
                    attempt += 1;
                }
                // What was the head a moment ago has been deleted.
                Err(ArchiveError::MissingCommit { .. }) => break None,
                other => break Some(other?),
            }
        };
        let Some(outcome) = outcome else {
            info!(target: "boot", after, "the commit before the barrier is gone; reading again");
            continue;
        };
        match outcome {
            Outcome::Done(_) => return Ok((head, writer)),
            Outcome::Fenced(other) if other.epoch > epoch => return Err(taken_over(&other)),
            Outcome::Fenced(other) => {
                info!(target: "boot", seq = other.seq, instance = %other.instance, "a stale writer's commit came before the barrier; reading again");
            }
        }
    }
    let reason = "other writers go on appending".into();
    Err(OwnershipError::Fenced { reason })
}

/// A commit of a higher epoch than ours: the lease ran out under us and went to its writer.
fn taken_over(other: &Header) -> OwnershipError {
    let reason = format!(
        "{} has taken commit {} at epoch {}",
        other.instance, other.seq, other.epoch
    );
    OwnershipError::Fenced { reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::Attention;
    use sessionkeep_archive::store::{CommitLog, MemoryStore};
    use sessionkeep_archive::store::{LeaseClaim, LeaseOutcome, Otherwise};

    #[tokio::test]
    async fn who_comes_late_to_its_own_barrier_learns_that_the_session_has_another_owner() {
        let memory = MemoryStore::new();
        let store: Arc<dyn Store> = Arc::new(memory.clone());
        let archive: ArchiveName = "default".parse().expect("a name");
        let parameters = |name: &str, epoch, ttl| LeaseParameters {
            archive: archive.clone(),
            instance: name.parse().expect("a name"),
            epoch,
            ttl,
            // Not within this test.
            renew: Duration::from_secs(3600),
            attention: Attention::Later,
        };
        let claim = |name: &str, ttl| LeaseClaim {
            instance: name.parse().expect("a name"),
            predecessor: None,
            floor: 0,
            ttl,
            lapsed: None,
            otherwise: Otherwise::Leave,
        };
        let short = Duration::from_millis(1);
        let taken = store.take_lease(&archive, &claim("late", short)).await;
        assert_eq!(taken.expect("answers"), LeaseOutcome::Granted { epoch: 1 });
        let begun = BootInstant::now().before(short);
        let late = LeaseKeeper::start(store.clone(), parameters("late", 1, short), begun);
        // It has run out, and nobody wanted it.
        memory.advance(short * 2);
        assert!(still_held(&*store, &late).await.is_ok());
        // And now somebody did.
        memory.advance(short * 2);
        let long = Duration::from_secs(60);
        let lease = store.lease(&archive).await.expect("answers");
        let next = LeaseClaim {
            lapsed: lease.and_then(|lease| lease.mark),
            ..claim("next", long)
        };
        let taken = store.take_lease(&archive, &next).await;
        assert_eq!(taken.expect("answers"), LeaseOutcome::Granted { epoch: 2 });
        let held = still_held(&*store, &late).await;
        assert!(
            matches!(held, Err(OwnershipError::Fenced { .. })),
            "{held:?}"
        );
        let next = LeaseKeeper::start(
            store.clone(),
            parameters("next", 2, long),
            BootInstant::now(),
        );
        assert!(still_held(&*store, &next).await.is_ok());
    }

    #[tokio::test]
    async fn a_barrier_never_goes_on_top_of_a_later_owners() {
        let store = MemoryStore::new();
        let archive: ArchiveName = "default".parse().expect("a name");
        let name = |name: &str| -> InstanceId { name.parse().expect("a name") };
        let later = raise_barrier(&store, &archive, &name("later"), 5).await;
        assert!(later.is_ok(), "{later:?}");
        let stale = raise_barrier(&store, &archive, &name("stale"), 4).await;
        assert!(
            matches!(stale, Err(OwnershipError::Fenced { .. })),
            "{stale:?}"
        );
        let head = store.head(&archive).await.expect("answers").expect("one");
        assert_eq!((head.seq, head.instance), (1, name("later")));
    }
}
