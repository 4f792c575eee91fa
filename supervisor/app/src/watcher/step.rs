//! One step of the watcher's loop: attach, or commit what is due, and keep the archive in order.

use std::time::Instant;

use tracing::info;

use super::dirty::Work;
use super::gathered::Pass;
use super::replicator::{Committed, StepError};
use super::{Watcher, next_message};
use crate::status::incidents::IncidentKind;
use crate::status::{self, LastRun};
use sessionkeep_core::control::ToInit;
use sessionkeep_core::state_dir::Presence;

impl Watcher {
    /// Attaches, or commits what is due. `Err`: fenced, with the reason.
    pub(super) async fn step(&mut self) -> Result<(), String> {
        let stepped = async {
            self.own().await?;
            self.commit_what_is_due().await
        };
        match stepped.await {
            Ok(()) => Ok(()),
            Err(error) => self.failed(error),
        }
    }

    /// Attaches to the archive, and takes a lease that is gone from the store again.
    async fn own(&mut self) -> Result<(), StepError> {
        if !self.replicator.is_attached() {
            self.replicator.attach().await?;
            self.recovered();
            self.dirty.add(Work::everything(), Instant::now());
            let epoch = self.replicator.epoch();
            self.shared.update(|status| {
                (status.epoch, status.lease) = (epoch, status::Lease::Held);
            });
            self.shared.over(IncidentKind::Fenced, "");
            self.tell_of_damage();
        } else if self.replicator.lease_is_gone() {
            let taken = self.replicator.take_lease_again().await;
            let epoch = self.replicator.epoch();
            self.shared.update(|status| status.epoch = epoch);
            taken?;
        }
        Ok(())
    }

    async fn commit_what_is_due(&mut self) -> Result<(), StepError> {
        self.look_after_state();
        // Events may have come since the last look: they join this commit.
        self.read_fs_events();
        let (work, since) = self.dirty.take(Instant::now());
        let idle = self.outage.is_none() && !self.replicator.is_pending() && !self.look_again;
        if work.is_empty() && idle {
            return Ok(());
        }
        let outcome = self.replicator.commit(work.clone(), Pass::Live).await;
        if let Some(index) = self.replicator.index() {
            let during_read = index.take_events_during_read();
            self.dirty.add(during_read, Instant::now());
            self.put_off();
        }
        self.note_followed().await;
        let committed = match outcome {
            Ok(committed) => committed,
            Err(error) => {
                self.dirty.put_back(work, since);
                return Err(error);
            }
        };
        self.recovered();
        if let Some(refusal) = &committed.refused {
            self.refused(refusal);
            self.dirty.put_back(work, since);
            return Ok(());
        }
        self.accepted();
        self.take_in(committed, &work, since).await;
        self.keep_archive().await
    }

    /// What a commit leaves to be done, and to be known.
    async fn take_in(&mut self, mut committed: Committed, work: &Work, since: Option<Instant>) {
        self.blocked_until = None;
        for (path, when) in &committed.later {
            self.dirty.look_later(path.clone(), *when, since);
        }
        self.show(&committed, work.everything, since);
        let is_delayed = committed.delayed.is_some();
        if let Some(delayed) = committed.delayed.take() {
            self.dirty.put_back(delayed.work, since);
            self.blocked_until = Some(delayed.until);
        }
        if !self.announced && !is_delayed {
            self.announce().await;
        }
        if work.everything && committed.is_whole() {
            // What a stop before left unsaved is in the store now, all of it.
            self.shared.over(IncidentKind::FlushFailed, "");
        }
        if committed.header.is_some() {
            self.mended();
        }
    }

    /// Says that every change is seen from now on. What was wrong in earlier lives is told, or over.
    async fn announce(&mut self) {
        self.announced = true;
        info!(target: "sync", "ready for changes");
        if std::mem::take(&mut self.broken_flush) {
            LastRun::forget_broken_flush(&self.state);
            let detail = "it was ended before it could say what it came to";
            self.shared.incident(IncidentKind::FlushFailed, "", detail);
        }
        // Whatever was damaged before is passed over, and lies in the store anew.
        self.shared.over(IncidentKind::DamagedHead, "");
        self.shared.over(IncidentKind::DirectoryWiped, "");
        if !self.mending {
            self.shared.over(IncidentKind::ArchiveDamaged, "");
        }
        self.link.send(ToInit::Ready).await;
    }

    /// Writes a checkpoint where one is due, and looks whether all that was committed is there.
    async fn keep_archive(&mut self) -> Result<(), StepError> {
        self.replicator.keep_short().await?;
        if !self.replicator.look_is_due() && !self.look_again {
            return Ok(());
        }
        self.look_again = false;
        tokio::select! {
            looked = self.replicator.look_for_damage() => looked,
            // Whatever init has to say does not wait for a store that may be silent. It only looks,
            // and looks again at the next step, which comes at once.
            message = next_message(&mut self.pending, &mut self.link) => {
                self.pending = Some(message);
                self.look_again = true;
                Ok(())
            }
        }
    }

    /// Whether our own directory is still where it was; what it holds is held open in any case.
    pub(super) fn look_after_state(&self) {
        let what = match self.state.presence() {
            Presence::InPlace => return self.shared.over(IncidentKind::StateDirReplaced, ""),
            // Of one that is gone altogether something else is told.
            Presence::Gone if !self.directory.is_intact() => return,
            Presence::Gone => "removed or renamed",
            Presence::Replaced => "replaced by something else",
        };
        let path = self.state.path();
        let detail = format!("{} was {what} while it was in use", path.display());
        self.shared
            .incident(IncidentKind::StateDirReplaced, "", &detail);
    }
}
