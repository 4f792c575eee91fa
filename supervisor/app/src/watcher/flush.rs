//! The end of a watcher's life: everything that is there is saved, or it is said why not.

use std::time::{Duration, Instant};

use tokio::time::timeout_at;
use tracing::{error, info, warn};

use super::dirty::Work;
use super::gathered::Pass;
use super::guard::Refusal;
use super::replicator::StepError;
use super::{End, Watcher};
use crate::status::incidents::IncidentKind;
use crate::status::{ErrorKind, LastRun};
use sessionkeep_core::control::{MonotonicMs, ToInit};
use sessionkeep_core::human::{Causes, Took};

/// What is left of the flush's deadline for letting go of the lease and for the answer.
const FLUSH_MARGIN: Duration = Duration::from_millis(100);
/// How long the flush goes on looking at what cannot be read. A disk may recover from an error, but
/// a right that is missing would make every stop last until the deadline.
const UNREAD_PATIENCE: Duration = Duration::from_secs(1);
/// How often the flush mends an archive that loses what is committed to it.
const MEND_TRIES: u32 = 3;

impl Watcher {
    /// Saves everything that is there, and lets go.
    pub(super) async fn flush(&mut self, deadline: MonotonicMs) -> End {
        let begun = Instant::now();
        self.look_after_state();
        // Whoever ends it from outside leaves no time to say so.
        LastRun::note_flush_begun(&self.state);
        // A file that somebody had mapped into memory is reported when its writer ends, and its time does
        // not tell.
        self.read_fs_events();
        if let Some(index) = self.replicator.index() {
            index.doubt(self.dirty.paths());
        }
        let left = deadline
            .until(MonotonicMs::now())
            .saturating_sub(FLUSH_MARGIN);
        let limit = tokio::time::Instant::now() + left;
        let outcome = timeout_at(limit, self.flush_all()).await;
        match outcome {
            Ok(Ok(held)) => {
                let seq = self.replicator.head().map_or(0, |head| head.seq);
                let why =
                    match timeout_at(limit + FLUSH_MARGIN / 2, self.replicator.release()).await {
                        Ok(Ok(())) => None,
                        Ok(Err(error)) => Some(Causes(&error).to_string()),
                        Err(_) => Some("the store did not answer in time".to_owned()),
                    };
                if let Some(why) = why {
                    warn!(target: "sync", why, "everything is saved, but the lease could not be released; it will expire");
                }
                let took = begun.elapsed();
                if let Some(reason) = held {
                    LastRun::note_flush(&self.state, took);
                    return self.held_back(seq, reason).await;
                }
                info!(target: "sync", seq, took = %Took(took), "everything is saved");
                LastRun::note_flush(&self.state, took);
                self.link.send(ToInit::Flushed { seq }).await;
                End::Done
            }
            Ok(Err(StepError::Fenced(reason))) => self.fenced(reason).await,
            Ok(Err(StepError::Refused(refusal))) => self.flush_refused(&refusal).await,
            Ok(Err(error)) => self.flush_failed(Causes(&error).to_string()).await,
            Err(_) => {
                let late = "the store did not take them in time";
                let reason = self.unready.take().unwrap_or_else(|| late.to_owned());
                self.flush_failed(reason).await
            }
        }
    }

    /// Saves all that may be saved. Gives what may not, and why.
    async fn flush_all(&mut self) -> Result<Option<String>, StepError> {
        let mut pause = Duration::from_millis(50);
        let begun = Instant::now();
        let mut damaged = 0;
        loop {
            let attempt = async {
                if !self.replicator.is_attached() {
                    self.replicator.attach().await?;
                } else if self.replicator.lease_is_gone() {
                    self.replicator.take_lease_again().await?;
                }
                self.replicator
                    .commit(Work::everything(), Pass::Final)
                    .await
            };
            let attempt = attempt.await;
            self.note_followed().await;
            match attempt {
                Ok(committed) => {
                    if let Some(refusal) = committed.refused {
                        if refusal != Refusal::NotYet {
                            return Err(StepError::Refused(refusal));
                        }
                        self.unready = Some(refusal.to_string());
                        tokio::time::sleep(pause).await;
                        continue;
                    }
                    self.accepted();
                    // Everything else is saved now; these are looked at until the deadline.
                    if let Some((path, _)) = committed.later.first() {
                        let unsaved = committed.unsaved.map(|words| format!("; {words}"));
                        self.unready = Some(format!(
                            "{path} is still being written, or locked by somebody{}; the rest is saved",
                            unsaved.unwrap_or_default()
                        ));
                    } else if let Some(words) =
                        committed.unsaved.as_ref().filter(|_| committed.unreadable)
                    {
                        let words = format!("{words}; the rest is saved");
                        if begun.elapsed() >= UNREAD_PATIENCE {
                            return Err(unsaved(words));
                        }
                        self.unready = Some(words);
                    } else {
                        // What was ever committed must be there as well, or all of it is for nothing.
                        match self.replicator.look_for_damage_at_the_end().await {
                            Ok(()) => {
                                self.mended();
                                return Ok(committed.unsaved);
                            }
                            Err(error @ StepError::Fenced(_)) => return Err(error),
                            Err(error) => self.unsaved_yet(error, &mut damaged)?,
                        }
                    }
                }
                Err(StepError::Fenced(reason)) => return Err(StepError::Fenced(reason)),
                Err(error) => self.unsaved_yet(error, &mut damaged)?,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// Whether it is worth to try on after `error`. An archive that has lost something is committed anew,
    /// a few times.
    fn unsaved_yet(&mut self, error: StepError, damaged: &mut u32) -> Result<(), StepError> {
        let goes_on = match &error {
            StepError::Damaged(_) => {
                self.tell_of_damage();
                *damaged += 1;
                *damaged <= MEND_TRIES
            }
            StepError::Archive(error) => error.is_transient(),
            _ => true,
        };
        if !goes_on {
            return Err(error);
        }
        let words = Causes(&error).to_string();
        warn!(target: "sync", error = words, "the last changes cannot be saved yet; retrying");
        self.unready = Some(format!("the store did not take them in time: {words}"));
        Ok(())
    }

    /// What is torn or damaged must not be committed, and is not passed over: whoever keeps the
    /// directory can look at it.
    async fn held_back(&mut self, seq: u64, reason: String) -> End {
        error!(target: "sync", seq, reason, "what is not whole is not saved, and its last committed version stays; all else is saved");
        self.shared.meters().error(ErrorKind::Flush);
        self.shared.incident(IncidentKind::FlushFailed, "", &reason);
        self.shared.ledger().save();
        self.link.send(ToInit::FlushedExcept { seq, reason }).await;
        End::FlushFailed
    }

    /// What is in the directory is not to be committed, neither now nor by the next start.
    async fn flush_refused(&mut self, refusal: &Refusal) -> End {
        self.tell_of_refusal(refusal);
        self.shared.meters().error(ErrorKind::Flush);
        self.shared.ledger().save();
        let reason = refusal.to_string();
        self.link.send(ToInit::FlushFailed { reason }).await;
        End::FlushFailed
    }

    async fn flush_failed(&mut self, reason: String) -> End {
        // Where it is not known how many, or none is, the number says nothing.
        let waiting = self.dirty.count().filter(|count| *count > 0);
        error!(target: "sync", reason, waiting, "the last changes could not be saved; the directory holds them, keep it");
        self.shared.meters().error(ErrorKind::Flush);
        self.shared.incident(IncidentKind::FlushFailed, "", &reason);
        // Whatever happens next, it is known of.
        self.shared.ledger().save();
        self.link.send(ToInit::FlushFailed { reason }).await;
        End::FlushFailed
    }
}

/// Why the directory is not, or not wholly, in the store at the end.
fn unsaved(reason: String) -> StepError {
    let source = std::io::Error::other(reason);
    let action = "save the last changes";
    sessionkeep_archive::ArchiveError::Io { action, source }.into()
}
