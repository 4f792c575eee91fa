//! What the lease's standing has to say to init: that it is lost, that somebody asks for it, or that
//! it is about to run out.

use std::time::Duration;

use tokio::sync::watch;
use tracing::warn;

use crate::config::{OutagePolicy, Settings};
use crate::control::{MonotonicMs, ToInit};
use crate::human::Took;
use crate::store::InstanceId;
use crate::store::keeper::{LeaseHealth, Standing};
use crate::waking::{WakingInstant, sleep_until};

/// How often init hears again that somebody asks, as long as somebody does: it may have had a reason
/// not to follow the first time.
const AGAIN: Duration = Duration::from_secs(60);

/// With `store.outage: stop`, the gateway is told to stop when this share of the lease is left: two
/// renewals have failed by then, and it has a few seconds to end.
const STOP_SHARE: u32 = 3;

/// Something to be done about the lease.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The store knows of none any more: it is to be taken again.
    Gone,
    /// Somebody else has it.
    Lost(String),
    /// Somebody else wants it, which is to be said to init.
    Asked(ToInit),
    /// It runs out, which is to be said to init.
    Ending(ToInit),
}

/// What was said to init.
#[derive(Debug, Default)]
pub(super) struct Told {
    asked: Option<(InstanceId, WakingInstant)>,
    ends: Option<WakingInstant>,
    gone: bool,
}

impl Told {
    /// The next thing to be done; for ever pending where there is none, or no lease.
    pub(super) async fn next(
        &mut self,
        standing: &mut Option<watch::Receiver<Standing>>,
        settings: &Settings,
    ) -> Trouble {
        let Some(standing) = standing else {
            return std::future::pending().await;
        };
        loop {
            let now = standing.borrow_and_update().clone();
            self.gone &= now.health == LeaseHealth::Gone;
            let due = match &now.health {
                LeaseHealth::Gone if self.gone => return std::future::pending().await,
                LeaseHealth::Gone => {
                    self.gone = true;
                    return Trouble::Gone;
                }
                LeaseHealth::Lost { reason } => return Trouble::Lost(reason.clone()),
                LeaseHealth::Held { asked_by: Some(by) } => {
                    let again = self.asked.as_ref().filter(|(who, _)| who == by);
                    let due = again.map_or_else(WakingInstant::now, |(_, at)| *at + AGAIN);
                    if due <= WakingInstant::now() {
                        self.asked = Some((by.clone(), WakingInstant::now()));
                        let by = by.to_string();
                        return Trouble::Asked(ToInit::TakeoverRequested { by });
                    }
                    Some(due)
                }
                LeaseHealth::Held { asked_by: None } => None,
                LeaseHealth::Unsure { .. }
                    if settings.store.outage == OutagePolicy::KeepRunning =>
                {
                    None
                }
                LeaseHealth::Unsure { since } => {
                    let due = now.safe_until.before(settings.lease.ttl / STOP_SHARE);
                    let told = self.ends == Some(now.safe_until);
                    if !told && due <= WakingInstant::now() {
                        self.ends = Some(now.safe_until);
                        let left = now.safe_until.left();
                        warn!(target: "sync", unreachable_for = %Took(since.elapsed()), left = %Took(left), "the lease runs out and cannot be renewed; stopping the gateway, as store.outage asks");
                        let by = MonotonicMs::now().after(left);
                        return Trouble::Ending(ToInit::LeaseEnding { by });
                    }
                    (!told).then_some(due)
                }
            };
            let changed = async {
                if standing.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            match due {
                Some(due) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(due) => {}
                },
                None => changed.await,
            }
        }
    }
}
