//! Waiting for the store to answer, before anything is asked of it.

use std::time::{Duration, Instant};

use sessionkeep_archive::store::Store;
use sessionkeep_archive::store::retry::Backoff;
use sessionkeep_core::human::{Causes, Took};
use tracing::{info, warn};

use super::{OwnershipError, WaitReason};

/// How often a wait is mentioned in the log.
pub(super) const WAIT_NOTICE: Duration = Duration::from_secs(10);

/// A limit as the log shows it; `None` where there is none.
pub(crate) fn limit(wait: Duration) -> Option<String> {
    (wait != Duration::MAX).then(|| Took(wait).to_string())
}

/// Waits until the store answers and has what it needs; `tell` is told.
///
/// # Errors
/// After `store.wait`, or at once where waiting does not help.
pub(crate) async fn wait_for_store(
    store: &dyn Store,
    wait: Duration,
    tell: &mut (dyn FnMut(WaitReason) + Send),
) -> Result<(), OwnershipError> {
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
                tell(WaitReason::StoreAnswers);
                return Ok(());
            }
            Err(error) if !error.is_transient() => {
                return Err(OwnershipError::StoreRefused {
                    store: store.describe(),
                    source: error,
                });
            }
            Err(error) => {
                let pause = Backoff::STORE.jittered(attempt);
                attempt += 1;
                if begun.elapsed() + pause >= wait {
                    return Err(OwnershipError::StoreUnavailable {
                        store: store.describe(),
                        waited: wait,
                        source: error,
                    });
                }
                if noticed.is_none_or(|at| at.elapsed() >= WAIT_NOTICE) {
                    noticed = Some(Instant::now());
                    warn!(target: "boot", store = %store.describe(), %error, waited = %Took(begun.elapsed()), limit = limit(wait), "waiting for the store");
                }
                tell(WaitReason::Store {
                    silent: begun.elapsed(),
                    words: Causes(&error).to_string(),
                });
                tokio::time::sleep(pause).await;
            }
        }
    }
}
