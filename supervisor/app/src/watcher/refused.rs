//! What the watcher tells and does where nothing may be committed, and where a directory that was made
//! anew is accepted.

use std::time::{Duration, Instant};

use tracing::error;

use super::Watcher;
use super::guard::Refusal;
use crate::status::ErrorKind;
use crate::status::incidents::IncidentKind;
use sessionkeep_core::control::ToInit;

/// How soon a directory is looked at again of which the gateway may make something that can be
/// committed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Watcher {
    /// Nothing may be committed for now.
    pub(super) fn refused(&mut self, refusal: &Refusal) {
        let pause = match refusal.may_pass() {
            true => LOOK_AGAIN.min(self.settings.sync.rescan),
            false => self.settings.sync.rescan,
        };
        self.blocked_until = Some(Instant::now() + pause);
        if *refusal != Refusal::NotYet {
            self.tell_of_refusal(refusal);
        }
    }

    /// Tells of it, once.
    pub(super) fn tell_of_refusal(&mut self, refusal: &Refusal) {
        let words = refusal.to_string();
        if self.refusal.as_ref() != Some(refusal) {
            self.shared.meters().error(ErrorKind::Refused);
            error!(target: "sync", reason = words, "nothing is committed");
            refusal.tell(&self.shared);
            if refusal.may_pass() {
                self.shared.over(IncidentKind::DirectoryWiped, "");
                self.shared
                    .incident(IncidentKind::DirectoryWiped, "", &words);
            }
            self.refusal = Some(refusal.clone());
        }
        self.shared.update(|status| status.problem = words);
    }

    /// Commits are made (again); where what is committed is not what the state before became, that is
    /// told, with the way back.
    pub(super) fn accepted(&mut self) {
        self.shared.over(IncidentKind::MountChanged, "");
        if self.refusal.take().is_some() {
            self.shared.over(IncidentKind::DirectoryWiped, "");
        }
        if let Some(accepted) = self.replicator.take_accepted() {
            self.shared
                .incident(IncidentKind::NewLogin, "", &accepted.words);
            // It is no state that lasts: it is told once, and stays in the list.
            self.shared.over(IncidentKind::NewLogin, "");
        }
    }

    /// Has init hold the directory that is used by now.
    pub(super) async fn note_followed(&mut self) {
        if !self.replicator.take_followed() {
            return;
        }
        if let Some(index) = self.replicator.index() {
            self.directory = index.directory().clone();
        }
        self.link.send(ToInit::Followed).await;
    }
}
