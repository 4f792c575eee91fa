//! A start on a store that can be read and takes no writes: over its quota, on a full disk, or one that we
//! may only read. The session cannot be owned there, so nothing keeps a second instance from doing the
//! same; it is done where `store.unreachable: local` says so, and the last owner is certainly gone.
//!
//! The watcher goes on asking for the lease. When it is granted, the barrier and the table of
//! [`super::decide()`] say whether this directory may be committed, as after a start without the store.

use tracing::{debug, info, warn};

use super::decide::{BootPlan, Local};
use super::error::BootError;
use super::{Booted, Head, Site, Target, heal, label_now, mounts};
use crate::config::OutagePolicy;
use crate::ownership::OwnershipError;
use sessionkeep_archive::ArchiveError;
use sessionkeep_archive::store::Lease;
use sessionkeep_archive::version::head_of;
use sessionkeep_archive::writer::now_ms;
use sessionkeep_core::human::Causes;
use sessionkeep_session::{Marker, Mode, marker};

/// Who could be running the gateway now.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    /// Nobody, or who used this very directory before.
    Gone,
    /// This instance may.
    Unknown(String),
}

impl Site<'_> {
    /// Brings the directory to the newest commit as far as that needs no write, where nobody else can have
    /// the session. `refused` is why there is no lease.
    ///
    /// # Errors
    /// `refused` where nothing is known to start on, or the store cannot be read either;
    /// [`BootError::OwnerUnknown`]; as any boot.
    pub(super) async fn start_unowned(
        mut self,
        local: Local,
        refused: BootError,
    ) -> Result<Booted, BootError> {
        let (store, archive) = (&**self.store, &self.settings.archive);
        let lease = match store.lease(archive).await {
            Ok(lease) => lease,
            Err(error) => {
                debug!(target: "boot", %error, "the lease cannot be read either");
                return Err(refused);
            }
        };
        if let Owner::Unknown(owner) = self.owner(lease.as_ref()).await {
            return Err(match refused {
                BootError::Ownership(
                    OwnershipError::WritesRefused { source, .. }
                    | OwnershipError::StoreRefused { source, .. },
                )
                | BootError::Archive(ArchiveError::Store(source)) => {
                    BootError::OwnerUnknown { owner, source }
                }
                other => other,
            });
        }
        let head = match head_of(store, archive).await {
            Ok(None) => Head::None,
            Ok(Some(header)) => Head::Known(Box::new(header)),
            Err(error) if error.is_damage() => {
                let last = store.last_seq(archive).await.map_err(ArchiveError::from)?;
                let seq = last.unwrap_or(0);
                Head::Unreadable { seq, error }
            }
            Err(error) => {
                debug!(target: "boot", error = %Causes(&error), "commits cannot be read either");
                return Err(refused);
            }
        };
        // As if this boot had been granted the next one: what `decide` compares is the last before it.
        self.epoch = lease.map_or(0, |lease| lease.epoch) + 1;
        let (plan, version) = self.plan(&local, &head, Target::Newest).await?;
        let mut booted = Booted::nothing_done(0, std::time::Duration::ZERO);
        match plan {
            // A new login that nothing keeps, or files of which nothing says whose they are.
            BootPlan::FirstBoot => return Err(refused),
            BootPlan::Adopt if local.marker.is_none() => return Err(refused),
            BootPlan::Adopt => {}
            BootPlan::Keep(_) => {
                mounts::are_there(&self.directory, self.state, version.as_ref())?;
                if let Some(mut version) = version {
                    heal::heal_databases(&self, &mut version).await?;
                    heal::heal(&self, version).await?;
                }
            }
            BootPlan::Restore(_) => self.restore_unowned(head, &mut booted).await?,
        }
        warn!(target: "boot", error = %Causes(&refused), because = plan.because(), "starting without owning the session, since the store takes no writes; changes are not safe until it does");
        booted.plan = Some(plan);
        booted.seq = booted.seq.max(local.marker.map_or(0, |marker| marker.seq));
        Ok(booted)
    }

    /// Whether the instance that holds or held the lease may be running its gateway now.
    async fn owner(&self, lease: Option<&Lease>) -> Owner {
        let Some(lease) = lease else {
            return Owner::Gone;
        };
        let is_ours = lease.instance == self.who.instance
            || Some(&lease.instance) == self.who.predecessor.as_ref();
        if is_ours || lease.mark.is_none() {
            return Owner::Gone;
        }
        let name = format!("instance {} (epoch {})", lease.instance, lease.epoch);
        // An owner that cannot renew goes on all the same, unless it is told to stop by then.
        if self.settings.store.outage != OutagePolicy::Stop {
            return Owner::Unknown(name);
        }
        // By our own clock, whatever the store's says: who has not renewed for as long has stopped.
        let ttl = lease.ttl.unwrap_or(self.settings.lease.ttl);
        info!(target: "boot", owner = name, wait = ?ttl, "waiting until the last owner must have stopped");
        tokio::time::sleep(ttl).await;
        let again = self.store.lease(&self.settings.archive).await;
        match again {
            Ok(Some(again)) if again.mark == lease.mark || again.mark.is_none() => Owner::Gone,
            Ok(None) => Owner::Gone,
            Ok(Some(_)) | Err(_) => Owner::Unknown(name),
        }
    }

    async fn restore_unowned(&mut self, head: Head, booted: &mut Booted) -> Result<(), BootError> {
        let staged = self.stage(head, Target::Newest).await?;
        (booted.files, booted.bytes) = (staged.summary.files, staged.summary.bytes);
        booted.damage = staged.damage;
        booted.seq = staged.header.seq;
        let marker = Marker {
            version: marker::VERSION,
            archive: self.settings.archive.to_string(),
            instance: self.who.instance.to_string(),
            // Of no lease: no commit of whatever epoch is taken for this directory's own.
            epoch: 0,
            seq: staged.header.seq,
            root: staged.summary.root,
            mode: Mode::Store,
            history: staged.header.history.to_string(),
            updated_ms: now_ms(),
            unjudged: false,
        };
        let installed = staged.stage.install(&marker, &label_now())?;
        mounts::note(&self.directory, self.state)?;
        booted.replaced = installed.replaced;
        if let Some(path) = &booted.replaced {
            info!(target: "boot", path = %path.display(), entries = installed.replaced_entries, "what was in the directory was set aside");
        }
        Ok(())
    }
}
