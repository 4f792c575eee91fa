//! An archive that has lost something of what was committed, and a lease that is gone: noticing it, and
//! beginning anew from the directory.

use std::time::Instant;

use futures_util::future::join;
use tracing::{debug, error, warn};

use super::{Hold, Replicator, StepError, fenced};
use crate::boot::BootError;
use crate::ownership::{LeaseKeeper, OwnershipError, take_again};
use sessionkeep_archive::presence::{self, ArchivePresence};
use sessionkeep_archive::store::{Leak, LeaksWhen, StoreError};
use sessionkeep_archive::tree::Tree;
use sessionkeep_archive::{ArchiveError, Aside};

impl Replicator {
    /// Why the next commit lists everything anew, where it does.
    #[must_use]
    pub(in crate::watcher) fn begins_anew(&self) -> Option<&str> {
        self.hold.as_ref()?.anew.as_deref()
    }

    /// The next commit lists everything anew, since `error` shows that the archive cannot be restored as
    /// it is. What was committed is in the directory.
    pub(super) fn begin_anew(&mut self, error: ArchiveError) -> StepError {
        error!(target: "sync", %error, "the archive's chain is damaged; committing the whole directory anew");
        if let Some(hold) = &mut self.hold {
            hold.anew = Some(error.to_string());
        }
        let index = self.index.as_mut().expect("no thread has it");
        index.committed(Tree::<()>::new(), Aside::default());
        StepError::Damaged(error)
    }

    /// Whether it is time to see again whether all that was committed is there: after attaching, since
    /// a directory that stayed was not compared with contents, and then every `sync.check`.
    #[must_use]
    pub(in crate::watcher) fn look_is_due(&self) -> bool {
        let every = self.settings.sync.check;
        let due = |hold: &Hold| hold.seen_whole.is_none_or(|at| at.elapsed() >= every);
        self.hold.as_ref().is_some_and(due)
    }

    /// Sees whether all that a restore of the newest commit needs is in the store.
    ///
    /// # Errors
    /// [`StepError::Damaged`] where it is not, [`StepError::Fenced`]; the store's.
    pub(in crate::watcher) async fn look_for_damage(&mut self) -> Result<(), StepError> {
        let Some(hold) = &mut self.hold else {
            return Ok(());
        };
        match presence::look(&*self.store, &hold.writer).await? {
            ArchivePresence::Whole => {
                hold.seen_whole = Some(Instant::now());
                Ok(())
            }
            ArchivePresence::Fenced(other) => Err(fenced(&other)),
            ArchivePresence::Lacking { what, last } => {
                hold.writer.skip_to(last);
                // What was dropped with a collection, such as its indexes, is made again.
                if let Err(error) = self.store.prepare().await {
                    debug!(target: "sync", %error, "the store could not be prepared again");
                }
                self.say_what_leaks().await;
                Err(self.begin_anew(what))
            }
        }
    }

    /// The same before the end, after which nobody mends anything any more: what is there must also stay
    /// there when the next start writes its barrier.
    ///
    /// # Errors
    /// As [`Replicator::look_for_damage`]; [`StoreError::Leaks`].
    pub(in crate::watcher) async fn look_for_damage_at_the_end(&mut self) -> Result<(), StepError> {
        let store = self.store.clone();
        let (looked, leaks) = join(self.look_for_damage(), store.leaks()).await;
        looked?;
        let leaks = leaks.map_err(ArchiveError::from)?;
        match leaks
            .into_iter()
            .find(|leak| leak.when == LeaksWhen::Written)
        {
            None => Ok(()),
            Some(Leak { detail, remedy, .. }) => Err(ArchiveError::from(StoreError::Leaks {
                what: detail,
                remedy,
            })
            .into()),
        }
    }

    /// Says in the log where the store is set up to lose what it keeps.
    pub(in crate::watcher) async fn say_what_leaks(&self) {
        match self.store.leaks().await {
            Ok(leaks) => {
                for leak in leaks {
                    error!(target: "store", what = leak.detail, remedy = leak.remedy, "the store is set up to lose what is saved in it");
                }
            }
            Err(error) => {
                debug!(target: "store", %error, "it cannot be seen how the store is set up");
            }
        }
    }

    /// Whether the lease is gone from the store, so that it has to be taken again.
    #[must_use]
    pub(in crate::watcher) fn lease_is_gone(&self) -> bool {
        self.keeper().is_some_and(LeaseKeeper::is_gone)
    }

    /// Takes the lease again that is gone from the store, where nobody else has taken it since, and sees
    /// what else is gone.
    ///
    /// # Errors
    /// [`StepError::Fenced`] where somebody has taken it, or has written since; [`StepError::Damaged`] as
    /// [`Replicator::look_for_damage`]; the store's.
    pub(in crate::watcher) async fn take_lease_again(&mut self) -> Result<(), StepError> {
        let Some(hold) = &mut self.hold else {
            return Ok(());
        };
        let again = take_again(&self.store, &hold.keeper, hold.writer.epoch()).await;
        let keeper = match again {
            Ok(keeper) => keeper,
            Err(OwnershipError::Fenced { reason }) => return Err(StepError::Fenced(reason)),
            Err(other) => return Err(BootError::from(other).into()),
        };
        let epoch = keeper.parameters().epoch;
        warn!(target: "sync", epoch, "the lease was gone from the store, and is taken again");
        hold.writer.raise_epoch(epoch);
        hold.keeper = keeper;
        self.signs_of_life.follow(hold.keeper.status());
        self.write_marker();
        self.look_for_damage().await
    }
}
