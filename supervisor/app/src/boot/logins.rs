//! What the decision needs to know of logins: whether the directory lost one that is stored, and whose
//! login a directory holds that was made anew under its gateway.
//!
//! Of a database only its content tells whether it keeps a login, so it is looked into only where that
//! decides something.

use tracing::{debug, info};

use super::decide::{BootPlan, KeepReason, Local, Remote, RestoreReason, decide};
use super::leftovers::{self, Judgement, stored_logins};
use super::{BootError, Site};
use sessionkeep_archive::version::Version;
use sessionkeep_core::entry::{EntryKind, RelPath};
use sessionkeep_core::record::Header;
use sessionkeep_session::identity::{CREDENTIALS, is_database_name};
use sessionkeep_session::{FoundKind, Look};

/// What is said of a login that stays though another is stored.
pub(super) fn kept(seq: u64) -> String {
    format!(
        "the session directory was deleted or emptied while it was in use, and holds another login than \
         commit {seq}; to go back to that, stop the gateway and run `sessionkeep restore --seq {seq}`"
    )
}

impl Site<'_> {
    /// Decides, with the stored version at hand.
    pub(super) async fn plan_with(
        &self,
        local: &Local,
        header: &Header,
        version: &mut Version,
    ) -> Result<BootPlan, BootError> {
        let mut local = local.clone();
        if local.marker.as_ref().is_some_and(|marker| marker.unjudged) {
            return self.judge(version).await;
        }
        let is_credentials = |(path, _): (RelPath, _)| path.name() == CREDENTIALS;
        let mut stored = version.tree.iter().any(is_credentials);
        if !local.has_credentials {
            let found = leftovers::look(&self.directory, &version.tree);
            local.has_credentials = !found.logins.is_empty() || found.unread;
            if !local.has_credentials && !stored {
                stored = self.stores_login_in_database(version).await?;
            }
        }
        let remote = Remote::Head {
            header: Box::new(header.clone()),
            has_credentials: Some(stored),
        };
        Ok(decide(&local, &remote))
    }

    /// Whether a stored database keeps a login, of those that are not in the directory as they are stored.
    async fn stores_login_in_database(&self, version: &mut Version) -> Result<bool, BootError> {
        let differ: Vec<RelPath> = version
            .tree
            .iter()
            .filter(|(path, leaf)| {
                let EntryKind::File { size, .. } = leaf.kind else {
                    return false;
                };
                is_database_name(path)
                    && !matches!(
                        self.directory.look(path),
                        Look::Found(found)
                            if found.kind == FoundKind::File
                                && found.print.size == size
                                && found.meta.mtime_ns == leaf.meta.mtime_ns
                    )
            })
            .map(|(path, _)| path)
            .collect();
        let wanted = |path: &RelPath| differ.contains(path);
        match stored_logins(&**self.store, version, self.state, wanted).await {
            Ok(stored) => Ok(!stored.is_empty()),
            Err(error) if error.is_damage() => {
                debug!(target: "boot", %error, "it cannot be told whether a stored database keeps a login");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Judges a directory that was emptied or made anew while the life before this one used it.
    async fn judge(&self, version: &mut Version) -> Result<BootPlan, BootError> {
        let found = leftovers::look(&self.directory, &version.tree);
        let stored = stored_logins(&**self.store, version, self.state, |_| true).await?;
        let judgement = leftovers::judge(&stored, &found);
        info!(target: "boot", ?judgement, "the directory was emptied or made anew while it was in use");
        Ok(match judgement {
            Judgement::NewLogin(_) | Judgement::Appeared => BootPlan::Keep(KeepReason::NewLogin),
            Judgement::Kept => BootPlan::Keep(KeepReason::OwnCommits),
            Judgement::Empty | Judgement::NoLogin | Judgement::WrittenFromMemory(_) => {
                BootPlan::Restore(RestoreReason::Wiped)
            }
        })
    }
}
