//! Getting hold of the archive: waiting for the store, taking the lease or asking its holder for it,
//! raising the barrier.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join;
use tracing::{debug, info, warn};

use super::error::BootError;
use crate::config::{Conflict, Settings, Unreachable};
use crate::ownership::keeper::{Attention, LeaseKeeper, Tenure, tell_of_queue, why_lost};
use sessionkeep_archive::ArchiveError;
use sessionkeep_archive::store::lapse::RenewalWatch;
use sessionkeep_archive::store::retry::Backoff;
use sessionkeep_archive::store::{
    Lease, LeaseClaim, LeaseOutcome, Otherwise, Renewal, Store, StoreError, Waiter,
};
use sessionkeep_archive::version::head_of;
use sessionkeep_archive::writer::{Outcome, Writer};
use sessionkeep_core::boot_time::BootInstant;
use sessionkeep_core::human::{Chain, Moment, Took};
use sessionkeep_core::record::{ArchiveName, Header, InstanceId, Seq};

/// A limit as the log shows it; `None` where there is none.
pub(super) fn limit(wait: Duration) -> Option<String> {
    (wait != Duration::MAX).then(|| Took(wait).to_string())
}

/// How often a waiting instance asks for the lease; it is told when it is released.
const LEASE_POLL: Duration = Duration::from_secs(1);
/// The same for one that has asked the holder to make way, and whom somebody is waiting for: in case
/// it is not told.
const ASKED_POLL: Duration = Duration::from_millis(250);
/// A holder that has not made way by then takes its time, or does not hear: it is asked as often as a
/// lease that is only waited for.
const ASKED_WITHIN: Duration = Duration::from_secs(60);
/// How often a holder that may not have heard is rung again.
const RING_AGAIN: Duration = Duration::from_secs(5);
/// How often a wait is mentioned in the log.
const WAIT_NOTICE: Duration = Duration::from_secs(10);
/// How often a barrier is tried again where a stale writer takes its number, or the store does not
/// answer. Each collision is a commit that a stale writer still had on its way; it cannot have many.
const BARRIER_TRIES: u32 = 20;

/// What holds a boot up, as it tells while it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holdup {
    /// Another instance has the session.
    Owner,
    /// No other instance has it any more: it is ours.
    OwnerGone,
    /// The store does not answer.
    Store {
        /// For how long by now.
        silent: Duration,
        /// What the last try came to, in words.
        words: String,
    },
    /// The store answers.
    StoreAnswers,
}

/// Who boots.
#[derive(Debug, Clone)]
pub struct Identity {
    /// This life.
    pub instance: InstanceId,
    /// The life whose lease may be continued at once.
    pub predecessor: Option<InstanceId>,
}

/// Waits until the store answers and has what it needs; `tell` is told.
///
/// # Errors
/// After `store.wait`, or at once where waiting does not help.
pub async fn wait_for_store(
    store: &dyn Store,
    wait: Duration,
    tell: &mut (dyn FnMut(Holdup) + Send),
) -> Result<(), BootError> {
    let begun = Instant::now();
    let mut attempt = 0;
    let mut noticed: Option<Instant> = None;
    loop {
        let tried = async {
            store.ping().await?;
            // The second is for what is asked beside something else later on.
            store.warm_up(2).await;
            store.prepare().await
        };
        match tried.await {
            Ok(()) => {
                if noticed.is_some() {
                    info!(target: "boot", store = %store.describe(), after = %Took(begun.elapsed()), "the store is ready");
                }
                tell(Holdup::StoreAnswers);
                return Ok(());
            }
            Err(error) if !error.is_transient() => {
                return Err(BootError::StoreRefused {
                    store: store.describe(),
                    source: error,
                });
            }
            Err(error) => {
                let pause = Backoff::STORE.jittered(attempt);
                attempt += 1;
                if begun.elapsed() + pause >= wait {
                    return Err(BootError::StoreUnavailable {
                        store: store.describe(),
                        waited: wait,
                        source: error,
                    });
                }
                if noticed.is_none_or(|at| at.elapsed() >= WAIT_NOTICE) {
                    noticed = Some(Instant::now());
                    warn!(target: "boot", store = %store.describe(), %error, waited = %Took(begun.elapsed()), limit = limit(wait), "waiting for the store");
                }
                tell(Holdup::Store {
                    silent: begun.elapsed(),
                    words: Chain(&error).to_string(),
                });
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Takes the lease, or waits for it, and keeps it from then on. With `lease.conflict: takeover` the
/// instance that holds it is asked to make way. `tell` is told what is waited for.
///
/// # Errors
/// The store's, or [`BootError::Owned`].
pub async fn take_lease(
    store: &Arc<dyn Store>,
    settings: &Settings,
    who: &Identity,
    attention: Attention,
    tell: &mut (dyn FnMut(Holdup) + Send),
) -> Result<(u64, LeaseKeeper), BootError> {
    let mut claim = LeaseClaim {
        instance: who.instance.clone(),
        predecessor: who.predecessor.clone(),
        floor: 0,
        ttl: settings.lease.ttl,
        lapsed: None,
        otherwise: match settings.lease.conflict {
            Conflict::Refuse => Otherwise::Leave,
            Conflict::Wait | Conflict::Takeover => Otherwise::Wait,
        },
    };
    let begun = Instant::now();
    let mut attempt = 0;
    let mut waiting: Option<Waiting> = None;
    let mut silent: Option<Instant> = None;
    let mut watch = RenewalWatch::default();
    let mut noticed_mark = None;
    loop {
        let asked = BootInstant::now();
        claim.lapsed = watch.lapsed(claim.ttl, asked);
        let taken = async {
            // Commits that say more than the leases do outlived them.
            claim.floor = match head_of(&**store, &settings.archive).await {
                Ok(head) => head.map_or(0, |head| head.epoch),
                Err(ArchiveError::Store(
                    StoreError::Damaged { .. } | StoreError::Format { .. },
                )) => 0,
                Err(ArchiveError::Store(error)) => return Err(error),
                Err(_) => 0,
            };
            store.take_lease(&settings.archive, &claim).await
        };
        let taken = taken.await;
        match &taken {
            Err(error) if error.is_transient() => tell(Holdup::Store {
                silent: silent.get_or_insert_with(Instant::now).elapsed(),
                words: Chain(error).to_string(),
            }),
            _ if silent.take().is_some() => tell(Holdup::StoreAnswers),
            _ => {}
        }
        let lease = match taken {
            Ok(LeaseOutcome::Granted { epoch }) => {
                if let Some(waiting) = waiting {
                    info!(target: "boot", after = %Took(waiting.since.elapsed()), "the session is ours now");
                    tell(Holdup::OwnerGone);
                }
                let tenure = Tenure {
                    archive: settings.archive.clone(),
                    instance: who.instance.clone(),
                    epoch,
                    ttl: settings.lease.ttl,
                    renew: settings.lease.renew,
                    attention,
                };
                return Ok((epoch, LeaseKeeper::start(store.clone(), tenure, asked)));
            }
            Ok(LeaseOutcome::Held(lease)) => lease,
            Err(error) if error.is_transient() && waiting.is_some() => {
                warn!(target: "boot", %error, "the store does not answer while waiting for the lease");
                tokio::time::sleep(LEASE_POLL).await;
                continue;
            }
            // An answer that needs no second one, where the start goes on without the lease.
            Err(source)
                if source.refuses_writes() && settings.store.unreachable == Unreachable::Local =>
            {
                let store = store.describe();
                return Err(BootError::WritesRefused { store, source });
            }
            Err(source) if source.is_transient() => {
                let pause = Backoff::STORE.jittered(attempt);
                attempt += 1;
                if begun.elapsed() + pause >= settings.store.wait {
                    let (store, waited) = (store.describe(), settings.store.wait);
                    if source.refuses_writes() {
                        return Err(BootError::WritesRefused { store, source });
                    }
                    return Err(BootError::StoreUnavailable {
                        store,
                        waited,
                        source,
                    });
                }
                tokio::time::sleep(pause).await;
                continue;
            }
            Err(source) => {
                return Err(BootError::StoreRefused {
                    store: store.describe(),
                    source,
                });
            }
        };
        watch.note(&lease, BootInstant::now());
        tell_of_clock(&lease);
        tell_of_queue(&lease);
        // One that has run out may have an owner that renews it, if the store's clock was set forward.
        let is_watched = lease.remaining.is_zero() && lease.next().is_none();
        let left = watch.left(claim.ttl, BootInstant::now());
        let may_be_over = is_watched && !left.is_zero();
        if may_be_over && noticed_mark != lease.mark {
            noticed_mark = lease.mark;
            info!(target: "boot", owner = %lease.instance, epoch = lease.epoch, wait = %Took(left), "the lease has run out; making sure that its owner does not renew it");
        }
        if settings.lease.conflict == Conflict::Refuse && !may_be_over {
            return Err(BootError::Owned {
                owner: lease.instance.to_string(),
            });
        }
        if waiting.is_none() {
            tell(Holdup::Owner);
        }
        let waiting = waiting.get_or_insert_with(Waiting::begin);
        if settings.lease.conflict == Conflict::Takeover && claim.otherwise == Otherwise::Wait {
            // Whoever holds it when this instance comes is asked, and nobody after that: who gets it
            // before us came before us.
            claim.otherwise = Otherwise::Ask(lease.epoch);
            info!(target: "boot", owner = %lease.instance, epoch = lease.epoch, "another instance owns this session; asking it to hand over");
            continue;
        }
        waiting
            .go_on(&**store, &settings.archive, &claim, &lease, left)
            .await;
    }
}

/// Says that the store's clock was set back, where that was found just now: leases that were to end at
/// a time by that clock end one TTL from now instead.
fn tell_of_clock(lease: &Lease) {
    if let Some(found) = lease
        .set_back
        .filter(|found| found.found_ms == lease.now_ms)
    {
        let by = Duration::from_millis(found.by_ms);
        warn!(target: "boot", by = %Took(by), store_time = %Moment(lease.now_ms), "the store's clock was set back; the lease runs from now on");
    }
}

/// An instance that waits for the lease.
struct Waiting {
    since: Instant,
    noticed: Instant,
    rung: Option<Instant>,
}

impl Waiting {
    fn begin() -> Self {
        let now = Instant::now();
        Self {
            since: now,
            noticed: now.checked_sub(WAIT_NOTICE).unwrap_or(now),
            rung: None,
        }
    }

    /// Waits until the lease may be free. It has to be watched for `left` before it is believed that
    /// nobody renews it.
    async fn go_on(
        &mut self,
        store: &dyn Store,
        archive: &ArchiveName,
        claim: &LeaseClaim,
        lease: &Lease,
        left: Duration,
    ) {
        let asks = claim.otherwise == Otherwise::Ask(lease.epoch);
        if self.noticed.elapsed() >= WAIT_NOTICE {
            self.noticed = Instant::now();
            let is_own = |waiter: &Waiter| waiter.instance == claim.instance;
            let before_us = lease
                .waiting
                .iter()
                .position(is_own)
                .unwrap_or(lease.waiting.len());
            info!(target: "boot", owner = %lease.instance, lease_runs_for = %Took(lease.remaining), asked = asks, before_us, "waiting for the session");
        }
        if asks && self.rung.is_none_or(|at| at.elapsed() >= RING_AGAIN) {
            self.rung = Some(Instant::now());
            // It hears of it with its next renewal all the same.
            if let Err(error) = store.ring(archive).await {
                debug!(target: "boot", %error, "the owner could not be rung");
            }
        }
        let poll = match asks && self.since.elapsed() < ASKED_WITHIN {
            true => ASKED_POLL,
            false => LEASE_POLL,
        };
        // A lease that can be taken sooner than at the next poll is asked for then.
        let free_in = lease.remaining.max(left);
        let pause = match free_in.is_zero() {
            // It is somebody else's turn.
            true => poll,
            false => poll.min(free_in + Duration::from_millis(20)),
        };
        let begun = Instant::now();
        if let Err(error) = store.listen(archive, pause).await {
            debug!(target: "boot", %error, "cannot hear when the lease is released; asking again");
            tokio::time::sleep(pause.saturating_sub(begun.elapsed())).await;
        }
    }
}

/// Makes sure that the lease is still this instance's. Where it may have run out meanwhile, as when
/// the barrier's answer was lost and asked for again, the store is asked: a barrier that is in the
/// store says only that it was raised once, and another may stand after it.
///
/// # Errors
/// [`BootError::Fenced`] where it is not; the store's.
pub async fn still_held(store: &dyn Store, keeper: &LeaseKeeper) -> Result<(), BootError> {
    let fenced = |reason| Err(BootError::Fenced { reason });
    if let Some(reason) = keeper.lost() {
        return fenced(reason);
    }
    if BootInstant::now() < keeper.safe_until() {
        return Ok(());
    }
    let Tenure {
        archive,
        instance,
        epoch,
        ttl,
        ..
    } = keeper.tenure();
    let renewal = store.renew_lease(archive, instance, *epoch, *ttl).await;
    match renewal.map_err(ArchiveError::from)? {
        Renewal::Renewed(_) => Ok(()),
        Renewal::Lost(owner) => fenced(why_lost(owner.as_ref(), instance)),
    }
}

/// What is known of the archive before this boot writes to it.
#[derive(Debug)]
pub enum Head {
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
pub async fn raise_barrier(
    store: &dyn Store,
    archive: &ArchiveName,
    instance: &InstanceId,
    epoch: u64,
) -> Result<(Head, Writer), BootError> {
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
            Head::Unreadable { seq, .. } => {
                (super::restore::older(store, archive, *seq).await?, *seq)
            }
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
    Err(BootError::Fenced { reason })
}

/// A commit of a higher epoch than ours: the lease ran out under us and went to its writer.
fn taken_over(other: &Header) -> BootError {
    let reason = format!(
        "{} has taken commit {} at epoch {}",
        other.instance, other.seq, other.epoch
    );
    BootError::Fenced { reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sessionkeep_archive::store::MemoryStore;

    #[tokio::test]
    async fn who_comes_late_to_its_own_barrier_learns_that_the_session_has_another_owner() {
        let memory = MemoryStore::new();
        let store: Arc<dyn Store> = Arc::new(memory.clone());
        let archive: ArchiveName = "default".parse().expect("a name");
        let tenure = |name: &str, epoch, ttl| Tenure {
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
        let late = LeaseKeeper::start(store.clone(), tenure("late", 1, short), begun);
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
        assert!(matches!(held, Err(BootError::Fenced { .. })), "{held:?}");
        let next = LeaseKeeper::start(store.clone(), tenure("next", 2, long), BootInstant::now());
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
        assert!(matches!(stale, Err(BootError::Fenced { .. })), "{stale:?}");
        let head = store.head(&archive).await.expect("answers").expect("one");
        assert_eq!((head.seq, head.instance), (1, name("later")));
    }
}
