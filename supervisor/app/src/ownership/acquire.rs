//! Taking the lease, or waiting for it, or asking its holder for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sessionkeep_archive::ArchiveError;
use sessionkeep_archive::store::lapse::RenewalWatch;
use sessionkeep_archive::store::retry::Backoff;
use sessionkeep_archive::store::{
    Lease, LeaseClaim, LeaseOutcome, Otherwise, Store, StoreError, Waiter,
};
use sessionkeep_archive::version::head_of;
use sessionkeep_core::boot_time::BootInstant;
use sessionkeep_core::human::{Causes, Timestamp, Took};
use sessionkeep_core::record::ArchiveName;
use tracing::{debug, info, warn};

use super::keeper::{LeaseKeeper, LeaseParameters, tell_of_queue};
use super::store_wait::WAIT_NOTICE;
use super::{Attention, Identity, OwnershipError, Policy, WaitReason, WithoutWrites};
use crate::config::Conflict;

/// How often a waiting instance asks for the lease; it is told when it is released.
const LEASE_POLL: Duration = Duration::from_secs(1);
/// The same for one that has asked the holder to hand over, and whom somebody is waiting for: in case
/// it is not told.
const ASKED_POLL: Duration = Duration::from_millis(250);
/// A holder that has not handed over by then takes its time, or does not hear: it is asked as often as a
/// lease that is only waited for.
const ASKED_WITHIN: Duration = Duration::from_secs(60);
/// How often a holder that may have missed it is notified again.
const NOTIFY_AGAIN: Duration = Duration::from_secs(5);

/// Takes the lease, or waits for it, and keeps it from then on. With `lease.conflict: takeover` the
/// instance that holds it is asked to hand over. `tell` is told what is waited for.
///
/// # Errors
/// The store's, or [`OwnershipError::Owned`].
pub(crate) async fn acquire(
    store: &Arc<dyn Store>,
    archive: &ArchiveName,
    policy: &Policy,
    who: &Identity,
    attention: Attention,
    tell: &mut (dyn FnMut(WaitReason) + Send),
) -> Result<(u64, LeaseKeeper), OwnershipError> {
    let mut claim = LeaseClaim {
        instance: who.instance.clone(),
        predecessor: who.predecessor.clone(),
        floor: 0,
        ttl: policy.ttl,
        lapsed: None,
        otherwise: match policy.conflict {
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
        let taken = take(&**store, archive, &mut claim).await;
        match &taken {
            Err(error) if error.is_transient() => tell(WaitReason::Store {
                silent: silent.get_or_insert_with(Instant::now).elapsed(),
                words: Causes(error).to_string(),
            }),
            _ if silent.take().is_some() => tell(WaitReason::StoreAnswers),
            _ => {}
        }
        let lease = match taken {
            Ok(LeaseOutcome::Granted { epoch }) => {
                if let Some(waiting) = waiting {
                    info!(target: "boot", after = %Took(waiting.since.elapsed()), "the session is ours now");
                    tell(WaitReason::OwnerGone);
                }
                let parameters = LeaseParameters {
                    archive: archive.clone(),
                    instance: who.instance.clone(),
                    epoch,
                    ttl: policy.ttl,
                    renew: policy.renew,
                    attention,
                };
                return Ok((epoch, LeaseKeeper::start(store.clone(), parameters, asked)));
            }
            Ok(LeaseOutcome::Held(lease)) => lease,
            Err(error) if error.is_transient() && waiting.is_some() => {
                warn!(target: "boot", %error, "the store does not answer while waiting for the lease");
                tokio::time::sleep(LEASE_POLL).await;
                continue;
            }
            Err(source) => {
                let pause = Backoff::STORE.jittered(attempt);
                attempt += 1;
                let out_of_time = begun.elapsed() + pause >= policy.store_wait;
                if let Some(given_up) = give_up(&**store, policy, source, out_of_time) {
                    return Err(given_up);
                }
                tokio::time::sleep(pause).await;
                continue;
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
        if policy.conflict == Conflict::Refuse && !may_be_over {
            return Err(OwnershipError::Owned {
                owner: lease.instance.to_string(),
            });
        }
        if waiting.is_none() {
            tell(WaitReason::Owner);
        }
        let waiting = waiting.get_or_insert_with(Waiting::begin);
        if policy.conflict == Conflict::Takeover && claim.otherwise == Otherwise::Wait {
            // Whoever holds it when this instance comes is asked, and nobody after that: who gets it
            // before us came before us.
            claim.otherwise = Otherwise::Ask(lease.epoch);
            info!(target: "boot", owner = %lease.instance, epoch = lease.epoch, "another instance owns this session; asking it to hand over");
            continue;
        }
        waiting.go_on(&**store, archive, &claim, &lease, left).await;
    }
}

/// Claims the lease once, above the epoch of the newest commit: commits that say more than the leases do
/// outlived them.
async fn take(
    store: &dyn Store,
    archive: &ArchiveName,
    claim: &mut LeaseClaim,
) -> Result<LeaseOutcome, StoreError> {
    claim.floor = match head_of(store, archive).await {
        Ok(head) => head.map_or(0, |head| head.epoch),
        Err(ArchiveError::Store(StoreError::Damaged { .. } | StoreError::Format { .. })) => 0,
        Err(ArchiveError::Store(error)) => return Err(error),
        Err(_) => 0,
    };
    store.take_lease(archive, claim).await
}

/// What an error of the store comes to; `None` where it is asked again.
fn give_up(
    store: &dyn Store,
    policy: &Policy,
    source: StoreError,
    out_of_time: bool,
) -> Option<OwnershipError> {
    // An answer that needs no second one, where the start goes on without the lease.
    let goes_on_without = policy.without_writes == WithoutWrites::AtOnce;
    let store = || store.describe();
    if source.refuses_writes() && goes_on_without {
        let store = store();
        return Some(OwnershipError::WritesRefused { store, source });
    }
    if !source.is_transient() {
        let store = store();
        return Some(OwnershipError::StoreRefused { store, source });
    }
    if !out_of_time {
        return None;
    }
    let store = store();
    if source.refuses_writes() {
        return Some(OwnershipError::WritesRefused { store, source });
    }
    Some(OwnershipError::StoreUnavailable {
        store,
        waited: policy.store_wait,
        source,
    })
}

/// Says that the store's clock was set back, where that was found just now: leases that were to end at
/// a time by that clock end one TTL from now instead.
fn tell_of_clock(lease: &Lease) {
    if let Some(found) = lease
        .set_back
        .filter(|found| found.found_ms == lease.now_ms)
    {
        let by = Duration::from_millis(found.by_ms);
        warn!(target: "boot", by = %Took(by), store_time = %Timestamp(lease.now_ms), "the store's clock was set back; the lease runs from now on");
    }
}

/// An instance that waits for the lease.
struct Waiting {
    since: Instant,
    noticed: Instant,
    notified: Option<Instant>,
}

impl Waiting {
    fn begin() -> Self {
        let now = Instant::now();
        Self {
            since: now,
            noticed: now.checked_sub(WAIT_NOTICE).unwrap_or(now),
            notified: None,
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
        if asks && self.notified.is_none_or(|at| at.elapsed() >= NOTIFY_AGAIN) {
            self.notified = Some(Instant::now());
            // It hears of it with its next renewal all the same.
            if let Err(error) = store.notify(archive).await {
                debug!(target: "boot", %error, "the owner could not be notified");
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
        if let Err(error) = store.wait_for_notice(archive, pause).await {
            debug!(target: "boot", %error, "cannot hear when the lease is released; asking again");
            tokio::time::sleep(pause.saturating_sub(begun.elapsed())).await;
        }
    }
}
