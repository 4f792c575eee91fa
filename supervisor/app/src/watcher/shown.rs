//! What the watcher's loop makes known: in the status, as incidents, in the log, and to init.

use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::dirty::Work;
use super::replicator::{Committed, OUTAGE_POLL_MAX, StepError};
use super::{End, Watcher};
use crate::status::incidents::IncidentKind;
use crate::status::{self, ErrorKind, ShownCommit};
use sessionkeep_archive::store::retry::Backoff;
use sessionkeep_core::control::{Lifecycle, ToInit};
use sessionkeep_core::human::{Causes, Took};

/// With so many files it is listed after each commit what each session holds; with more, when
/// everything is looked at and when a session is new.
const LISTED_MAX: u64 = 2000;

/// How long after the archive was found damaged it is committed anew.
const MEND_PAUSE: Duration = Duration::from_millis(500);

impl Watcher {
    /// Notes an incident where the next commit lists everything anew, and looks at everything.
    pub(super) fn tell_of_damage(&mut self) {
        let Some(why) = self.replicator.begins_anew() else {
            return;
        };
        self.shared.incident(IncidentKind::ArchiveDamaged, "", why);
        self.mending = true;
        self.dirty.add(Work::everything(), Instant::now());
    }

    /// Ends the incident once everything is committed anew.
    pub(super) fn mended(&mut self) {
        if self.mending && self.replicator.begins_anew().is_none() {
            self.mending = false;
            self.shared.over(IncidentKind::ArchiveDamaged, "");
        }
    }

    /// Notes a failure. Fenced is the one that cannot be waited out.
    pub(super) fn failed(&mut self, error: StepError) -> Result<(), String> {
        let refused = match &error {
            StepError::Archive(error) => error.refuses_writes(),
            StepError::Boot(error) => error.refuses_writes(),
            StepError::Fenced(_) | StepError::Damaged(_) | StepError::Refused(_) => false,
        };
        let words = match error {
            StepError::Fenced(reason) => return Err(reason),
            // Nothing to be waited for: everything is committed anew, with a pause where that comes to
            // nothing again and again.
            StepError::Damaged(_) => {
                self.tell_of_damage();
                self.blocked_until = Some(Instant::now() + MEND_PAUSE);
                return Ok(());
            }
            other => {
                let words = Causes(&other).to_string();
                if matches!(&other, StepError::Archive(error) if error.is_damage()) {
                    self.shared
                        .incident(IncidentKind::ArchiveDamaged, "", &words);
                }
                words
            }
        };
        let silent = self.outage.map(|since| since.elapsed());
        if silent.is_none() {
            self.outage = Some(Instant::now());
            warn!(target: "sync", error = %words, "changes cannot be saved now; the gateway goes on, and they are kept for later");
        }
        self.shared.meters().error(ErrorKind::Store);
        let problem = format!("changes cannot be saved: {words}");
        match refused {
            true => self.shared.store_takes_no_writes(problem),
            false => self
                .shared
                .store_is_silent(silent.unwrap_or_default(), problem),
        }
        self.shared.update(|status| status.failures += 1);
        self.blocked_until =
            Some(Instant::now() + Backoff::STORE.jittered(self.failures).min(OUTAGE_POLL_MAX));
        self.failures = self.failures.saturating_add(1);
        let lag = self.dirty.since();
        self.shared.waiting(lag.or(self.outage), self.dirty.count());
        Ok(())
    }

    pub(super) fn recovered(&mut self) {
        self.failures = 0;
        self.blocked_until = None;
        if let Some(since) = self.outage.take() {
            info!(target: "sync", after = %Took(since.elapsed()), "changes can be saved again");
        }
        self.shared.store_answers();
    }

    pub(super) fn show(&mut self, committed: &Committed, everything: bool, since: Option<Instant>) {
        let commit = committed.header.as_ref().map(ShownCommit::from);
        let current = self.replicator.head().map(ShownCommit::from);
        let profile = self.settings.profile;
        let Some(index) = self.replicator.index() else {
            return;
        };
        let summary = index.summary();
        let excluded = index.excluded.count;
        let known = self.shared.session_keys();
        let is_new = committed.sessions.iter().any(|key| !known.contains(key));
        // Walking a large tree for each small commit would cost more than the commit.
        let listed = everything || is_new || summary.files <= LISTED_MAX;
        let sessions = listed.then(|| index.sessions(profile));
        let all_credentials = (!self.announced).then(|| index.credentials());
        let credentials = all_credentials.as_ref().unwrap_or(&committed.credentials);
        self.logins.look(
            &self.directory,
            profile,
            credentials,
            &committed.logins,
            &self.shared,
        );
        if let Some(commit) = &commit {
            let lag = since.map_or(committed.took, |since| since.elapsed());
            self.shared.committed(commit, committed.took, lag);
        }
        if committed.not_whole > 0 {
            self.shared.meters().error(ErrorKind::NotWhole);
        }
        let (unsaved, not_whole) = (index.unsaved.count(), index.unsaved.not_whole());
        let unsaved_paths = index.unsaved.shown();
        self.shared.unsaved(unsaved, unsaved_paths);
        self.shared.update(|status| {
            (status.files, status.bytes) = (summary.files, summary.bytes);
            status.not_whole = not_whole;
            if everything {
                status.excluded = excluded;
            }
            if let Some(sessions) = sessions {
                status.sessions = status::still_told(sessions, &status.sessions);
            }
            let time_ms = commit.as_ref().map_or(0, |commit| commit.time_ms);
            for key in &committed.sessions {
                if let Some(session) = status.sessions.get_mut(key) {
                    session.last_change_ms = session.last_change_ms.max(time_ms);
                }
            }
            status.head = commit.or(current);
        });
    }

    pub(super) async fn fenced(&mut self, reason: String) -> End {
        error!(target: "sync", reason, "this instance does not own the session any more; stopping the gateway");
        self.shared.meters().error(ErrorKind::Fenced);
        self.shared.update(|status| {
            (status.state, status.lease) = (Lifecycle::Fenced, status::Lease::Lost);
        });
        self.shared.incident(IncidentKind::Fenced, "", &reason);
        self.link.send(ToInit::LeaseLost { reason }).await;
        End::Fenced
    }
}
