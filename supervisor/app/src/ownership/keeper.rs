//! Keeps a lease: renews it until told to stop, and says at once when it is lost, or asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::Attention;
use super::OwnershipError;
use super::clock::{ClockWatch, Step};
use crate::boot_timer::sleep_until;
use sessionkeep_archive::ArchiveError;
use sessionkeep_archive::store::{
    Lease, LeaseClaim, LeaseOutcome, Leases, Otherwise, Renewal, Store, StoreError,
};
use sessionkeep_core::boot_time::BootInstant;
use sessionkeep_core::human::{Timestamp, Took};
use sessionkeep_core::record::{ArchiveName, InstanceId};

/// How long a notice is waited for at a time. A look at the lease after that is of no use, and cheap;
/// what would be waited on for longer might be a connection that is dead.
const NOTICE_WAIT: Duration = Duration::from_secs(60);
/// How long notices are not waited for after that failed.
const NOTICE_PAUSE: Duration = Duration::from_secs(2);

/// How a lease stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LeaseHealth {
    /// The last renewal went through.
    Held {
        /// Who asks for it: a newer instance, to which it is to be handed over.
        asked_by: Option<InstanceId>,
    },
    /// Renewals fail since then; nobody is known to have taken it.
    Unsure {
        /// When the first renewal failed.
        since: Instant,
    },
    /// The store knows of no lease of this archive any more. Nobody has it, and nobody is kept from
    /// taking it.
    Gone,
    /// Somebody else has it.
    Lost {
        /// Who, in words.
        reason: String,
    },
}

/// How a lease stands, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaseStatus {
    /// How.
    pub health: LeaseHealth,
    /// Until then nobody else can have it, whatever becomes of the store. By this machine's own
    /// clock, and counted from before the store was asked, so that it is never too long.
    pub safe_until: BootInstant,
}

/// A lease that is being renewed. Dropping it ends the renewing and leaves the lease to expire.
#[derive(Debug)]
pub(crate) struct LeaseKeeper {
    parameters: LeaseParameters,
    status: watch::Receiver<LeaseStatus>,
    task: JoinHandle<()>,
}

/// Whose lease is kept, and for how long at a time.
#[derive(Debug, Clone)]
pub(crate) struct LeaseParameters {
    /// Of which archive.
    pub archive: ArchiveName,
    /// Who holds it.
    pub instance: InstanceId,
    /// At which epoch.
    pub epoch: u64,
    /// How long it runs when it is not renewed.
    pub ttl: Duration,
    /// How often it is renewed.
    pub renew: Duration,
    /// Whether it matters at once that somebody asks for it.
    pub attention: Attention,
}

impl LeaseKeeper {
    /// Keeps a lease that was asked for at `taken` and granted.
    #[must_use]
    pub(crate) fn start(
        store: Arc<dyn Leases>,
        parameters: LeaseParameters,
        taken: BootInstant,
    ) -> Self {
        let (tell, status) = watch::channel(LeaseStatus {
            health: LeaseHealth::Held { asked_by: None },
            safe_until: taken + parameters.ttl,
        });
        let task = tokio::spawn(keep(store, parameters.clone(), tell));
        Self {
            parameters,
            status,
            task,
        }
    }

    /// What is kept.
    #[must_use]
    pub(crate) fn parameters(&self) -> &LeaseParameters {
        &self.parameters
    }

    /// Until when nobody else can have it; see [`LeaseStatus::safe_until`].
    #[must_use]
    pub(crate) fn safe_until(&self) -> BootInstant {
        self.status.borrow().safe_until
    }

    /// Why it is lost, if it is.
    #[must_use]
    pub(crate) fn lost(&self) -> Option<String> {
        match &self.status.borrow().health {
            LeaseHealth::Lost { reason } => Some(reason.clone()),
            LeaseHealth::Gone => Some(why_lost(None, &self.parameters.instance)),
            LeaseHealth::Held { .. } | LeaseHealth::Unsure { .. } => None,
        }
    }

    /// Whether the store knows of no lease of this archive any more.
    #[must_use]
    pub(crate) fn is_gone(&self) -> bool {
        self.status.borrow().health == LeaseHealth::Gone
    }

    /// How it stands, now and whenever that changes.
    #[must_use]
    pub(crate) fn status(&self) -> watch::Receiver<LeaseStatus> {
        self.status.clone()
    }
}

async fn keep(
    store: Arc<dyn Leases>,
    parameters: LeaseParameters,
    tell: watch::Sender<LeaseStatus>,
) {
    let mut due = BootInstant::now() + parameters.renew;
    let notice = || async {
        if parameters.attention == Attention::Later {
            return std::future::pending().await;
        }
        if let Err(error) = store
            .wait_for_notice(&parameters.archive, NOTICE_WAIT)
            .await
        {
            debug!(target: "store", %error, "cannot hear who asks for the lease; the next renewal tells");
            sleep(NOTICE_PAUSE).await;
        }
    };
    let mut heard = Box::pin(notice());
    let mut clock = ClockWatch::default();
    // What the first renewal is compared with; without it, a step before that one would not be seen.
    let asked = BootInstant::now();
    if let Ok(Ok(now_ms)) = timeout(parameters.renew / 2, store.now_ms()).await {
        let _ = clock.read(asked, BootInstant::now(), now_ms);
    }
    loop {
        let LeaseParameters {
            archive,
            instance,
            epoch,
            ttl,
            ..
        } = &parameters;
        let renewed = tokio::select! {
            // At once after a sleep: somebody may have taken it meanwhile.
            () = sleep_until(due) => {
                let asked = BootInstant::now();
                due = asked + parameters.renew;
                let renewal = store.renew_lease(archive, instance, *epoch, *ttl).await;
                if let Ok(Renewal::Renewed(lease)) = &renewal {
                    tell_of_step(clock.read(asked, BootInstant::now(), lease.now_ms), lease);
                    tell_of_queue(lease);
                }
                renewal.map(|renewal| (renewal, Some(asked + *ttl)))
            }
            () = &mut heard => {
                heard.set(notice());
                match store.lease(archive).await {
                    Ok(Some(lease)) if is_held_by(&lease, &parameters) => {
                        Ok((Renewal::Renewed(lease), None))
                    }
                    // A look can be at the past, as on a primary that does not know yet that it is
                    // none any more. Only a renewal tells that it is lost.
                    Ok(_) => {
                        due = BootInstant::now();
                        continue;
                    }
                    Err(error) => Err(error),
                }
            }
        };
        match renewed {
            Ok((Renewal::Renewed(lease), safe_until)) => note_held(&tell, &lease, safe_until),
            Ok((Renewal::Lost(None), _)) => {
                tell.send_modify(|status| status.health = LeaseHealth::Gone);
                return;
            }
            Ok((Renewal::Lost(owner), _)) => {
                let reason = why_lost(owner.as_ref(), instance);
                tell.send_modify(|status| status.health = LeaseHealth::Lost { reason });
                return;
            }
            Err(error) => note_failure(&tell, &error),
        }
    }
}

/// Says that the store's clock was set: forward, others find the lease to have run out until it is
/// renewed; back, they find it to end later, and believe that for one TTL.
fn tell_of_step(step: Option<Step>, lease: &Lease) {
    let store_time = Timestamp(lease.now_ms);
    match step {
        Some(Step::Forward(by)) => {
            warn!(target: "store", forward_by = %Took(by), %store_time, "the store's clock was set");
        }
        Some(Step::Back(by)) => {
            warn!(target: "store", back_by = %Took(by), %store_time, "the store's clock was set");
        }
        None => {}
    }
}

/// Says that the queue, or a place in it, could not be read; whoever finds that puts it right.
pub(crate) fn tell_of_queue(lease: &Lease) {
    if lease.queue_damaged {
        warn!(target: "store", owner = %lease.instance, epoch = lease.epoch, "the lease's queue cannot be read, or not all of it; waiting instances enter it again");
    }
}

fn is_held_by(lease: &Lease, parameters: &LeaseParameters) -> bool {
    (&lease.instance, lease.epoch) == (&parameters.instance, parameters.epoch)
}

/// Why `instance` has no lease any more, of which this is what the store holds.
#[must_use]
pub(crate) fn why_lost(held: Option<&Lease>, instance: &InstanceId) -> String {
    match held {
        None => "the lease is gone from the store".to_owned(),
        Some(lease) if lease.instance == *instance => {
            "somebody ended the lease (`sessionkeep lease --break`)".to_owned()
        }
        Some(lease) => format!(
            "{} holds the lease at epoch {}",
            lease.instance, lease.epoch
        ),
    }
}

fn note_held(tell: &watch::Sender<LeaseStatus>, lease: &Lease, safe_until: Option<BootInstant>) {
    let asked_by = lease.asked_by().map(|waiter| waiter.instance.clone());
    let health = LeaseHealth::Held { asked_by };
    tell.send_if_modified(|status| {
        let mut changed = status.health != health;
        if changed && matches!(status.health, LeaseHealth::Unsure { .. }) {
            info!(target: "store", "the lease is renewed again");
        }
        status.health = health;
        if let Some(safe_until) = safe_until {
            changed |= status.safe_until != safe_until;
            status.safe_until = safe_until;
        }
        changed
    });
}

fn note_failure(tell: &watch::Sender<LeaseStatus>, error: &StoreError) {
    let first = tell.send_if_modified(|status| {
        let first = matches!(status.health, LeaseHealth::Held { .. });
        if first {
            status.health = LeaseHealth::Unsure {
                since: Instant::now(),
            };
        }
        first
    });
    if first {
        warn!(target: "store", %error, "the lease could not be renewed; retrying");
    } else {
        debug!(target: "store", %error, "the lease could not be renewed");
    }
}

/// Takes a lease again that is gone from the store, at a higher epoch than `floor`.
///
/// # Errors
/// [`OwnershipError::Fenced`] where somebody has taken it since; the store's.
pub(crate) async fn take_again(
    store: &Arc<dyn Store>,
    lost: &LeaseKeeper,
    floor: u64,
) -> Result<LeaseKeeper, OwnershipError> {
    let parameters = lost.parameters().clone();
    let claim = LeaseClaim {
        instance: parameters.instance.clone(),
        predecessor: None,
        floor,
        ttl: parameters.ttl,
        lapsed: None,
        otherwise: Otherwise::Leave,
    };
    let asked = BootInstant::now();
    let taken = store.take_lease(&parameters.archive, &claim).await;
    match taken.map_err(ArchiveError::from)? {
        LeaseOutcome::Granted { epoch } => {
            let parameters = LeaseParameters {
                epoch,
                ..parameters
            };
            Ok(LeaseKeeper::start(store.clone(), parameters, asked))
        }
        LeaseOutcome::Held(lease) => Err(OwnershipError::Fenced {
            reason: why_lost(Some(&lease), &parameters.instance),
        }),
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}
