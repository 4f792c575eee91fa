//! The session directory was emptied, or deleted and made anew, under the gateway: follows it, and finds
//! out whether what it holds by now may be committed.
//!
//! ```text
//! intact ─▶ deleted, moved away ─▶ made anew ─▶ followed ─┐
//!    ├────▶ emptied, .sessionkeep too ────────────────────┴─▶ settles ─▶ judged ─▶ accepted ─▶ committed
//!    ├────▶ unmounted, another's: refused                                   └────▶ refused, looked at again
//!    └────▶ .sessionkeep replaced: the guard's
//! ```
//!
//! Until it is accepted the marker says so, and the next start judges by the same rules
//! ([`crate::boot::leftovers`]).

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::gathered::Pass;
use super::guard::Refusal;
use super::replicator::{Replicator, StepError};
use crate::boot::leftovers::{self, Judgement};
use sessionkeep_archive::version::Version;
use sessionkeep_core::entry::RelPath;
use sessionkeep_core::human::Causes;
use sessionkeep_core::state_dir::Presence;
use sessionkeep_session::{Login, Marker, identity};

/// How long nothing more may have gone before what is there is judged: who deletes a directory may be
/// in the middle of it.
const SETTLE: Duration = Duration::from_secs(1);
/// The same at the end, where no gateway is alive.
const SETTLE_FINAL: Duration = Duration::from_millis(300);

/// What became of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It was deleted, or moved away, and made anew.
    MadeAnew,
    /// It lost our own directory, and perhaps all else.
    Emptied,
}

/// A directory that is not judged yet.
#[derive(Debug)]
pub(super) struct Remade {
    fate: Fate,
    /// How many of the committed entries were left at the last look, and since when it is so many.
    left: Option<(u64, Instant)>,
    /// The stored logins, once they were read.
    stored: Option<Vec<(RelPath, Login)>>,
}

impl Remade {
    fn new(fate: Fate) -> Self {
        Self {
            fate,
            left: None,
            stored: None,
        }
    }

    /// Whether as many are left as some time ago.
    fn is_settled(&mut self, left: u64, pass: Pass, now: Instant) -> bool {
        let since = match self.left {
            Some((before, since)) if before == left => since,
            _ => now,
        };
        self.left = Some((left, since));
        let settle = match pass {
            Pass::Live => SETTLE,
            Pass::Final => SETTLE_FINAL,
        };
        now >= since + settle
    }
}

/// A state that was accepted though it is not what the one before became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Accepted {
    /// What it is, in words, with how to go back.
    pub(super) words: String,
}

impl Replicator {
    /// Whether the directory is being followed, or judged.
    #[must_use]
    pub(super) fn is_remade(&self) -> bool {
        self.remade.is_some()
    }

    /// Whether another directory than before is used, since this was last asked.
    pub(super) fn take_followed(&mut self) -> bool {
        std::mem::take(&mut self.followed)
    }

    /// What was accepted since this was last asked.
    pub(super) fn take_accepted(&mut self) -> Option<Accepted> {
        self.accepted.take()
    }

    /// A watcher that begins finds what the one before may have left undone: a directory that nobody has
    /// followed yet.
    pub(super) fn look_at_directory_first(&mut self) {
        let index = self.index.as_ref().expect("no thread has it yet");
        let directory = index.directory.clone();
        if !directory.is_intact() {
            return;
        }
        if !directory.is(self.state.session()) {
            info!(target: "sync", "the session directory was made anew before this watcher began");
            match self.state.follow(directory.fd()) {
                Ok(()) => self.begin_to_judge(Fate::MadeAnew),
                Err(error) => {
                    warn!(target: "sync", error = %Causes(&error), "the session directory was made anew, and cannot be used");
                }
            }
        } else if self.state.presence() == Presence::Gone {
            self.remade = Some(Remade::new(Fate::Emptied));
        }
    }

    /// That of the marker: whether the directory is still to be judged.
    pub(super) fn judge_again(&mut self) {
        if self.remade.is_none() {
            self.remade = Some(Remade::new(Fate::MadeAnew));
        }
    }

    fn begin_to_judge(&mut self, fate: Fate) {
        self.followed = true;
        self.remade = Some(Remade::new(fate));
    }

    /// Follows the session directory where it was made anew, and judges it. `None`: all may be committed
    /// that differs, as ever.
    ///
    /// # Errors
    /// The store's, where the stored logins have to be known.
    pub(super) async fn look_after_directory(
        &mut self,
        pass: Pass,
    ) -> Result<Option<Refusal>, StepError> {
        let index = self.index.as_mut().expect("no thread has it");
        if !index.directory.is_intact() {
            let directory = match index.directory.made_anew() {
                Ok(directory) => directory,
                Err(why) => return Ok(Some(Refusal::DirectoryGone(why.to_string()))),
            };
            if let Err(error) = self.state.follow(directory.fd()) {
                return Ok(Some(Refusal::NotFollowed(Causes(&error).to_string())));
            }
            warn!(target: "sync", "the session directory was deleted and made anew while it was in use; following it");
            index.follow(directory);
            self.begin_to_judge(Fate::MadeAnew);
            self.write_marker();
        } else if self.remade.is_none() {
            if self.state.presence() != Presence::Gone {
                return Ok(None);
            }
            self.remade = Some(Remade::new(Fate::Emptied));
        }
        // What has our name is somebody else's: the guard's matter. Or all is as it was again.
        let is_over = match self.state.presence() {
            Presence::Replaced => true,
            Presence::InPlace => {
                matches!(Marker::read(&self.state), Ok(Some(marker)) if !marker.unjudged)
            }
            Presence::Gone => false,
        };
        if is_over {
            self.remade = None;
            return Ok(None);
        }
        self.judge(pass).await
    }

    /// The guard found files gone together with the marker.
    pub(super) fn was_wiped(&mut self) {
        self.remade
            .get_or_insert_with(|| Remade::new(Fate::Emptied));
    }

    async fn judge(&mut self, pass: Pass) -> Result<Option<Refusal>, StepError> {
        let index = self.index.as_ref().expect("no thread has it");
        let found = leftovers::look(&index.directory, &index.tree);
        let remade = self.remade.as_mut().expect("it is judged");
        if !remade.is_settled(found.left, pass, Instant::now()) {
            return Ok(Some(Refusal::NotYet));
        }
        let stores_logins = index
            .tree
            .iter()
            .any(|(path, _)| identity::may_be_login(&path));
        if self.state.presence() == Presence::Gone {
            let followed = self.state.follow(index.directory.fd());
            if let Err(error) = followed {
                return Ok(Some(Refusal::NotFollowed(Causes(&error).to_string())));
            }
            info!(target: "sync", "our own directory .sessionkeep was gone, and is made anew");
            self.followed = true;
            self.write_marker();
        }
        if found.has_files
            && stores_logins
            && self.remade.as_ref().is_some_and(|r| r.stored.is_none())
        {
            let stored = self.stored_logins().await?;
            if let Some(remade) = &mut self.remade {
                remade.stored = Some(stored);
            }
        }
        let remade = self.remade.as_ref().expect("it is judged");
        let judgement = leftovers::judge(remade.stored.as_deref().unwrap_or_default(), &found);
        // A login that is being written may be told in a moment.
        if found.unread && pass == Pass::Live && !judgement.is_accepted() {
            return Ok(Some(Refusal::NotYet));
        }
        let what = match remade.fate {
            Fate::MadeAnew => "the session directory was deleted and made anew",
            Fate::Emptied => "the session directory was emptied",
        };
        let seq = self.head().map_or(0, |head| head.seq);
        let back = format!(
            "commit {seq} is the last one before; to go back to it, stop the gateway and run `sessionkeep restore --seq {seq}`"
        );
        let words = match judgement {
            Judgement::Empty => return Ok(Some(Refusal::Wiped)),
            Judgement::NoLogin => return Ok(Some(Refusal::NoLogin)),
            Judgement::WrittenFromMemory(path) => {
                return Ok(Some(Refusal::WrittenFromMemory(path)));
            }
            Judgement::Kept => None,
            Judgement::NewLogin(path) => Some(format!(
                "{what} while it was in use, and {path} is another login than before; {back}"
            )),
            Judgement::Appeared => Some(format!(
                "{what} while it was in use, and other files came, of which nothing tells whose login they are; {back}"
            )),
        };
        self.remade = None;
        self.write_marker();
        match words {
            Some(words) => self.accepted = Some(Accepted { words }),
            None => {
                info!(target: "sync", "the session directory has the same login as before; going on");
            }
        }
        Ok(None)
    }

    async fn stored_logins(&self) -> Result<Vec<(RelPath, Login)>, StepError> {
        let head = self.head().filter(|head| head.base > 0).cloned();
        let Some(head) = head else {
            return Ok(Vec::new());
        };
        let mut version = Version::load(&*self.store, head).await?;
        let (store, state) = (&*self.store, &self.state);
        Ok(leftovers::stored_logins(store, &mut version, state, |_| true).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_judged_while_more_and_more_is_gone() {
        let mut remade = Remade::new(Fate::Emptied);
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        assert!(!remade.is_settled(9, Pass::Live, at(0)));
        assert!(!remade.is_settled(5, Pass::Live, at(900)));
        assert!(!remade.is_settled(5, Pass::Live, at(1800)));
        assert!(remade.is_settled(5, Pass::Live, at(1900)));
        assert!(!remade.is_settled(0, Pass::Final, at(2000)));
        assert!(remade.is_settled(0, Pass::Final, at(2300)));
    }
}
