//! What init has to hear of the lease: that it is lost, that somebody asks for it, or that
//! it is about to run out. A task of its own says it, so that init hears of it at once, whatever the watcher's
//! loop is at: a first upload over a narrow line takes minutes.

use std::time::Duration;

use tokio::sync::watch;
use tracing::warn;

use super::Policy;
use super::keeper::{LeaseHealth, LeaseStatus};
use crate::boot_timer::sleep_until;
use crate::config::OutagePolicy;
use sessionkeep_core::boot_time::BootInstant;
use sessionkeep_core::control::{MonotonicMs, ToInit};
use sessionkeep_core::human::Took;
use sessionkeep_core::record::InstanceId;

/// How often init hears again that somebody asks, as long as somebody does: it may have had a reason
/// not to follow the first time.
const AGAIN: Duration = Duration::from_secs(60);

/// With `store.outage: stop`, the gateway is told to stop when this share of the lease is left: two
/// renewals have failed by then, and it has a few seconds to end.
const STOP_SHARE: u32 = 3;

/// A lease that ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The store knows of none any more: it is to be taken again.
    Gone,
    /// Somebody else has it.
    Lost(String),
}

/// Which leases' ends are known.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    gone: bool,
}

impl Ends {
    /// The end of the lease; for ever pending where it is known, or there is no lease.
    pub(crate) async fn next(&mut self, status: &mut Option<Statuses>) -> Ended {
        let Some(status) = status else {
            return std::future::pending().await;
        };
        loop {
            let health = status.borrow_and_update().health.clone();
            self.gone &= health == LeaseHealth::Gone;
            match health {
                LeaseHealth::Lost { reason } => return Ended::Lost(reason),
                LeaseHealth::Gone if !self.gone => {
                    self.gone = true;
                    return Ended::Gone;
                }
                LeaseHealth::Gone | LeaseHealth::Held { .. } | LeaseHealth::Unsure { .. } => {}
            }
            changed(status).await;
        }
    }
}

/// How a lease stands, whenever that changes.
type Statuses = watch::Receiver<LeaseStatus>;

async fn changed(status: &mut Statuses) {
    if status.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Tells init what becomes of each lease that is `followed`.
pub(crate) async fn tell(
    policy: Policy,
    mut followed: watch::Receiver<Option<Statuses>>,
    send: impl AsyncFn(ToInit),
) {
    let mut told = Told::default();
    loop {
        let mut status = followed.borrow_and_update().clone();
        loop {
            let message = tokio::select! {
                message = told.next(&mut status, &policy) => message,
                changed = followed.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
            };
            send(message).await;
        }
    }
}

/// What was said to init.
#[derive(Debug, Default)]
struct Told {
    lost: bool,
    asked: Option<(InstanceId, BootInstant)>,
    ends: Option<BootInstant>,
}

impl Told {
    /// What is to be said next; for ever pending where that is nothing, or there is no lease.
    async fn next(&mut self, status: &mut Option<Statuses>, policy: &Policy) -> ToInit {
        let Some(status) = status else {
            return std::future::pending().await;
        };
        loop {
            let now = status.borrow_and_update().clone();
            let due = match &now.health {
                LeaseHealth::Lost { reason } if !self.lost => {
                    self.lost = true;
                    let reason = reason.clone();
                    return ToInit::LeaseLost { reason };
                }
                LeaseHealth::Lost { .. } | LeaseHealth::Gone => None,
                LeaseHealth::Held { asked_by: Some(by) } => {
                    let again = self.asked.as_ref().filter(|(who, _)| who == by);
                    let due = again.map_or_else(BootInstant::now, |(_, at)| *at + AGAIN);
                    if due <= BootInstant::now() {
                        self.asked = Some((by.clone(), BootInstant::now()));
                        let by = by.to_string();
                        return ToInit::TakeoverRequested { by };
                    }
                    Some(due)
                }
                LeaseHealth::Held { asked_by: None } => None,
                LeaseHealth::Unsure { .. } if policy.outage == OutagePolicy::KeepRunning => None,
                LeaseHealth::Unsure { since } => {
                    let due = now.safe_until.before(policy.ttl / STOP_SHARE);
                    let told = self.ends == Some(now.safe_until);
                    if !told && due <= BootInstant::now() {
                        self.ends = Some(now.safe_until);
                        let left = now.safe_until.left();
                        warn!(target: "sync", unreachable_for = %Took(since.elapsed()), left = %Took(left), "the lease runs out and cannot be renewed; stopping the gateway, as store.outage asks");
                        let by = MonotonicMs::now().after(left);
                        return ToInit::LeaseEnding { by };
                    }
                    (!told).then_some(due)
                }
            };
            match due {
                Some(due) => tokio::select! {
                    () = changed(status) => {}
                    () = sleep_until(due) => {}
                },
                None => changed(status).await,
            }
        }
    }
}
