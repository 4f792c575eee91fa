//! Keeps a lease: renews it until told to stop, and says at once when it is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::{ArchiveName, InstanceId, Renewal, Store, StoreError};

/// How a lease stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseHealth {
    /// The last renewal went through.
    Held,
    /// Renewals fail since then; nobody is known to have taken it.
    Unsure {
        /// When the first renewal failed.
        since: Instant,
    },
    /// Somebody else has it.
    Lost {
        /// Who, in words.
        reason: String,
    },
}

/// A lease that is being renewed. Dropping it ends the renewing and leaves the lease to expire.
#[derive(Debug)]
pub struct LeaseKeeper {
    health: watch::Receiver<LeaseHealth>,
    task: JoinHandle<()>,
}

impl LeaseKeeper {
    /// Renews the lease that `instance` holds at `epoch`, every `renew`.
    #[must_use]
    pub fn start(
        store: Arc<dyn Store>,
        archive: ArchiveName,
        instance: InstanceId,
        epoch: u64,
        ttl: Duration,
        renew: Duration,
    ) -> Self {
        let (tell, health) = watch::channel(LeaseHealth::Held);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(renew);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            ticks.tick().await;
            loop {
                ticks.tick().await;
                match store.renew_lease(&archive, &instance, epoch, ttl).await {
                    Ok(Renewal::Renewed) => {
                        tell.send_if_modified(|health| {
                            let changed = *health != LeaseHealth::Held;
                            *health = LeaseHealth::Held;
                            changed
                        });
                    }
                    Ok(Renewal::Lost(owner)) => {
                        let reason = owner.map_or_else(
                            || "the lease is gone from the store".to_owned(),
                            |owner| {
                                format!(
                                    "{} holds the lease at epoch {}",
                                    owner.instance, owner.epoch
                                )
                            },
                        );
                        tell.send_replace(LeaseHealth::Lost { reason });
                        return;
                    }
                    Err(error) => note_failure(&tell, &error),
                }
            }
        });
        Self { health, task }
    }

    /// How it stands, now and whenever that changes.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<LeaseHealth> {
        self.health.clone()
    }

    /// Why it is lost, if it is.
    #[must_use]
    pub fn lost(&self) -> Option<String> {
        match &*self.health.borrow() {
            LeaseHealth::Lost { reason } => Some(reason.clone()),
            _ => None,
        }
    }
}

fn note_failure(tell: &watch::Sender<LeaseHealth>, error: &StoreError) {
    let first = tell.send_if_modified(|health| {
        let first = *health == LeaseHealth::Held;
        if first {
            *health = LeaseHealth::Unsure {
                since: Instant::now(),
            };
        }
        first
    });
    if first {
        warn!(target: "store", %error, "the lease could not be renewed; trying on");
    } else {
        debug!(target: "store", %error, "the lease could not be renewed");
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}
