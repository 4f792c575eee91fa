//! Boot: brings the session directory and the archive to one state before the gateway starts.
//!
//! ```text
//! recover ─▶ survey ─▶ wait for the store ─▶ lease ─▶ barrier ─▶ decide ─▶ carry out ─▶ marker
//! ```
//!
//! What the directory holds is compared with what the store holds ([`decide()`]); then the directory
//! stays, or the store's newest whole commit takes its place. What was there is set aside, never
//! deleted, and the gateway is never started on an empty directory while a login is stored.

pub(crate) mod contents;
pub mod decide;
mod error;
#[cfg(test)]
mod fallback_tests;
mod heal;
pub mod leftovers;
mod logins;
mod mounts;
pub mod restore;
mod room;
pub mod survey;
mod unowned;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::config::{Settings, Unreachable};
use crate::ownership::{self, Attention, Head, Identity, LeaseKeeper, OwnershipError, WaitReason};
use sessionkeep_archive::newest;
use sessionkeep_archive::store::retry::Backoff;
use sessionkeep_archive::store::{Store, StoreError};
use sessionkeep_archive::version::Version;
use sessionkeep_archive::writer::{Outcome as Appended, Writer, now_ms};
use sessionkeep_archive::{ArchiveError, checkpoint};
use sessionkeep_core::boot_time::BootInstant;
use sessionkeep_core::entry::Digest;
use sessionkeep_core::human::Causes;
use sessionkeep_core::record::{Header, Seq};
use sessionkeep_core::state_dir::StateDir;
use sessionkeep_session::{Directory, Marker, Mode, Recovered, clear_scratch, marker, recover};

use crate::progress::Progress;
use decide::{BootPlan, KeepReason, Local, Remote, decide};
pub use error::BootError;
use restore::{FallBack, Own, Place, Staged, stage_newest_whole};
use survey::survey;

/// What a boot came to.
#[derive(Debug)]
pub struct Booted {
    /// What was done; `None` where the store could not be reached and the directory was taken as
    /// it is (`store.unreachable: local`).
    pub plan: Option<BootPlan>,
    /// The commit that the directory stands for; 0 for none.
    pub seq: Seq,
    /// Files of the restored tree; 0 where nothing was restored.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Where what was in the directory has been put, if anything.
    pub replaced: Option<PathBuf>,
    /// What was found damaged on the way.
    pub damage: Vec<String>,
    /// The login that stays in the directory though another is stored, in words.
    pub new_login: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// The lease's epoch; 0 where none was taken.
    pub epoch: u64,
    /// Until when nobody else can have the session; `None` where no lease was taken.
    pub safe_until: Option<BootInstant>,
}

/// Which commit is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The newest; whether it is restored depends on what the directory holds.
    Newest,
    /// This one, whatever the directory holds.
    Commit(Seq),
}

/// Boots: brings directory and store together, and leaves the lease with `who`. What fails because
/// the store stopped answering in the middle of it is begun anew, for as long as `store.wait` says.
///
/// `tell` is told what it waits for.
///
/// # Errors
/// [`BootError`]; the directory is then as it was.
pub async fn boot(
    settings: &Settings,
    state: &StateDir,
    store: &Arc<dyn Store>,
    who: &Identity,
    target: Target,
    progress: &Progress,
    tell: &mut (dyn FnMut(WaitReason) + Send),
) -> Result<Booted, BootError> {
    let (mut failed_first, mut attempt) = (None, 0);
    loop {
        let error = match try_once(settings, state, store, who, target, progress, tell).await {
            Err(error) if error.is_transient() => error,
            other => return other,
        };
        let since: Instant = *failed_first.get_or_insert_with(Instant::now);
        let pause = Backoff::STORE.jittered(attempt);
        attempt += 1;
        if since.elapsed().saturating_add(pause) >= settings.store.wait {
            return Err(match error {
                BootError::Archive(ArchiveError::Store(source)) if source.refuses_writes() => {
                    let store = store.describe();
                    OwnershipError::WritesRefused { store, source }.into()
                }
                error => error,
            });
        }
        warn!(target: "boot", error = %Causes(&error), limit = ownership::limit(settings.store.wait), "the store stopped answering; starting over");
        tell(WaitReason::Store {
            silent: since.elapsed(),
            words: Causes(&error).to_string(),
        });
        tokio::time::sleep(pause).await;
    }
}

async fn try_once(
    settings: &Settings,
    state: &StateDir,
    store: &Arc<dyn Store>,
    who: &Identity,
    target: Target,
    progress: &Progress,
    tell: &mut (dyn FnMut(WaitReason) + Send),
) -> Result<Booted, BootError> {
    let begun = Instant::now();
    let dir_error = |source| BootError::Directory {
        dir: settings.dir.clone(),
        source,
    };
    match recover(state)? {
        Recovered::Nothing => {}
        Recovered::Discarded => {
            info!(target: "boot", "an interrupted restore was cleared away; it had not changed the directory");
        }
        Recovered::Finished { marker, .. } => {
            info!(target: "boot", seq = marker.seq, "an interrupted restore was finished");
        }
    }
    clear_scratch(state).map_err(dir_error)?;
    contents::Contents::clear(state).map_err(dir_error)?;
    let directory = Directory::open(&settings.dir, settings.profile.files()).map_err(dir_error)?;
    let local = survey(&directory, Some(state), &settings.archive)?;

    let attached = async {
        ownership::wait_for_store(&**store, settings.store.wait, tell).await?;
        let policy = ownership::Policy::of(settings);
        ownership::acquire(
            store,
            &settings.archive,
            &policy,
            who,
            Attention::Later,
            tell,
        )
        .await
    };
    let (epoch, keeper) = match attached.await {
        Ok(taken) => taken,
        Err(unavailable @ OwnershipError::StoreUnavailable { .. })
            if settings.store.unreachable == Unreachable::Local && may_start_alone(&local) =>
        {
            warn!(target: "boot", error = %Causes(&unavailable), "starting on the local directory; its changes are not safe until the store is back");
            mounts::are_there(&directory, state, None)?;
            let seq = local.marker.map_or(0, |marker| marker.seq);
            return Ok(Booted::nothing_done(seq, begun.elapsed()));
        }
        Err(refused) => {
            let refused = BootError::from(refused);
            if !may_do_without_writes(settings, target, &refused) {
                return Err(refused);
            }
            let site = Site {
                settings,
                state,
                store,
                directory,
                progress,
                who,
                epoch: 0,
                keeper: None,
            };
            let mut booted = site.start_unowned(local, refused).await?;
            booted.took = begun.elapsed();
            return Ok(booted);
        }
    };
    let mut site = Site {
        settings,
        state,
        store,
        directory,
        progress,
        who,
        epoch,
        keeper: Some(keeper),
    };
    match site.come_to_one_state(local.marker.clone(), target).await {
        Ok(mut booted) => {
            booted.took = begun.elapsed();
            booted.safe_until = site.keeper.as_ref().map(LeaseKeeper::safe_until);
            Ok(booted)
        }
        // The lease could be taken, and the barrier not be raised.
        Err(refused) if may_do_without_writes(settings, target, &refused) => {
            site.keeper = None;
            let mut booted = site.start_unowned(local, refused).await?;
            booted.took = begun.elapsed();
            Ok(booted)
        }
        Err(error) => {
            // Whoever comes next need not wait for a lease that nobody uses.
            let released = store.release_lease(&settings.archive, &who.instance, epoch);
            if let Err(error) = released.await {
                warn!(target: "boot", error = %Causes(&error), "the lease could not be released; it will expire");
            }
            Err(error)
        }
    }
}

impl Booted {
    /// A boot that left everything as it was.
    fn nothing_done(seq: Seq, took: Duration) -> Self {
        Self {
            plan: None,
            seq,
            files: 0,
            bytes: 0,
            replaced: None,
            damage: vec![],
            new_login: None,
            took,
            epoch: 0,
            safe_until: None,
        }
    }
}

/// Without the store, only a directory that is known to be of this archive and to hold something
/// may be used: anything else could be an old login, or none.
fn may_start_alone(local: &Local) -> bool {
    local.has_files && local.marker.is_some()
}

/// Whether a start may go on without owning the session, since the store takes no writes.
fn may_do_without_writes(settings: &Settings, target: Target, error: &BootError) -> bool {
    let refused = match error {
        // A right that is missing: whether reading is allowed shows soon.
        BootError::Ownership(OwnershipError::StoreRefused { source, .. }) => {
            source.refuses_writes() || matches!(source, StoreError::Denied { .. })
        }
        other => other.refuses_writes(),
    };
    refused && settings.store.unreachable == Unreachable::Local && target == Target::Newest
}

/// The name under which what was in a directory is set aside: the time, fit for a file name.
fn label_now() -> String {
    sessionkeep_core::human::Timestamp::now()
        .to_string()
        .replace(':', "-")
}

/// Where the boot takes place.
struct Site<'a> {
    settings: &'a Settings,
    state: &'a StateDir,
    store: &'a Arc<dyn Store>,
    directory: Directory,
    progress: &'a Progress,
    who: &'a Identity,
    epoch: u64,
    /// `None` where the store takes no writes, so that nobody has the lease.
    keeper: Option<LeaseKeeper>,
}

impl Site<'_> {
    /// With the lease in hand: raises the barrier, decides, and carries out.
    async fn come_to_one_state(
        &mut self,
        marker: Option<Marker>,
        target: Target,
    ) -> Result<Booted, BootError> {
        let dir_error = |source| BootError::Directory {
            dir: self.settings.dir.clone(),
            source,
        };
        // Looked at again: another instance may have had the session while this one waited.
        let local = survey(&self.directory, Some(self.state), &self.settings.archive)
            .map(|again| Local { marker, ..again })?;
        let archive = &self.settings.archive;
        let (head, mut writer) =
            ownership::raise_barrier(&**self.store, archive, &self.who.instance, self.epoch)
                .await?;
        let (plan, version) = self.plan(&local, &head, target).await?;
        let because = match target {
            Target::Commit(_) => "it was asked for",
            Target::Newest => plan.because(),
        };
        info!(target: "boot", because, "plan made");
        let mut booted = Booted::nothing_done(0, Duration::ZERO);
        match plan {
            BootPlan::FirstBoot | BootPlan::Adopt => {}
            BootPlan::Keep(reason) => {
                mounts::are_there(&self.directory, self.state, version.as_ref())?;
                if reason == KeepReason::StoreSetBack {
                    let (marker, head) =
                        (local.marker.map(|m| m.seq), writer.head().map(|h| h.seq));
                    error!(target: "boot", marker, head, "the store knows less than this directory; keeping the directory and committing it");
                }
                if let Some(mut version) = version {
                    if reason == KeepReason::NewLogin {
                        booted.new_login = Some(logins::kept(version.header.seq));
                    }
                    heal::heal_databases(self, &mut version).await?;
                    heal::heal(self, version).await?;
                }
            }
            BootPlan::Restore(_) => self.restore(head, target, &mut writer, &mut booted).await?,
        }
        let root = writer.head().map(|head| head.root).unwrap_or_default();
        self.marker(writer.head(), root)
            .write(self.state)
            .map_err(dir_error)?;
        self.still_owned().await?;
        booted.plan = Some(plan);
        booted.seq = writer.head().map_or(0, |head| head.seq);
        booted.epoch = self.epoch;
        Ok(booted)
    }

    async fn restore(
        &mut self,
        head: Head,
        target: Target,
        writer: &mut Writer,
        booted: &mut Booted,
    ) -> Result<(), BootError> {
        let staged = self.stage(head, target).await?;
        self.still_owned().await?;
        (booted.files, booted.bytes) = (staged.summary.files, staged.summary.bytes);
        booted.damage = staged.damage;
        let marker = self.marker(writer.head(), staged.summary.root);
        let installed = staged.stage.install(&marker, &label_now())?;
        mounts::note(&self.directory, self.state)?;
        booted.replaced = installed.replaced;
        if let Some(path) = &booted.replaced {
            warn!(target: "boot", path = %path.display(), entries = installed.replaced_entries, "what was in the directory was set aside");
        }
        if booted.damage.is_empty() {
            return Ok(());
        }
        self.replace_head(writer, staged.header).await
    }

    /// Nothing is put into the directory, and no gateway started, on a lease that has run out.
    async fn still_owned(&self) -> Result<(), BootError> {
        match &self.keeper {
            Some(keeper) => Ok(ownership::still_held(&**self.store, keeper).await?),
            None => Ok(()),
        }
    }

    /// Decides; and gives the head's version where it was read for that.
    async fn plan(
        &mut self,
        local: &Local,
        head: &Head,
        target: Target,
    ) -> Result<(BootPlan, Option<Version>), BootError> {
        if let Target::Commit(_) = target {
            let reason = if local.has_files {
                decide::RestoreReason::MovedOn
            } else {
                decide::RestoreReason::Empty
            };
            return Ok((BootPlan::Restore(reason), None));
        }
        let header = match head {
            Head::None => return Ok((decide(local, &Remote::Empty), None)),
            Head::Unreadable { seq, error } => {
                warn!(target: "boot", seq, why = %error, "the newest commit cannot be read");
                let last_epoch = self.epoch - 1;
                return Ok((decide(local, &Remote::Damaged { last_epoch }), None));
            }
            Head::Known(header) if header.base == 0 => {
                return Ok((decide(local, &Remote::Empty), None));
            }
            Head::Known(header) => header,
        };
        let known = Remote::Head {
            header: header.clone(),
            has_credentials: None,
        };
        let plan = decide(local, &known);
        if !matches!(plan, BootPlan::Keep(_)) {
            return Ok((plan, None));
        }
        // Only a directory that would stay is worth comparing with the stored tree.
        match Version::load(&**self.store, (**header).clone()).await {
            Ok(mut version) => {
                let plan = self.plan_with(local, header, &mut version).await?;
                Ok((plan, Some(version)))
            }
            Err(error) if error.is_damage() => {
                warn!(target: "boot", %error, "the archive's newest commit is damaged");
                // What it was before tells whether a login was lost, and mends torn files.
                let mut older = self.newest_whole_before(header.seq).await?;
                let plan = match &mut older {
                    Some(older) => self.plan_with(local, header, older).await?,
                    None => plan,
                };
                Ok((plan, older))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The newest version before commit `seq` whose chain is whole.
    async fn newest_whole_before(&self, seq: Seq) -> Result<Option<Version>, BootError> {
        let (store, archive) = (&**self.store, &self.settings.archive);
        let mut below = seq;
        while let Some(header) = newest::older(store, archive, below).await? {
            below = header.seq;
            match Version::load(store, header).await {
                Ok(version) => return Ok(Some(version)),
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    async fn stage(&mut self, head: Head, target: Target) -> Result<Staged, BootError> {
        let store = &**self.store;
        let (header, fall_back, note) = match (target, head) {
            (Target::Commit(seq), _) => {
                let header =
                    sessionkeep_archive::version::header_of(store, &self.settings.archive, seq)
                        .await?;
                (header, FallBack::No, None)
            }
            (Target::Newest, Head::Known(header)) => (*header, FallBack::Yes, None),
            (Target::Newest, Head::Unreadable { seq, error }) => {
                let header = newest::older(store, &self.settings.archive, seq).await?;
                let note = format!("commit {seq}: {error}");
                (
                    header.ok_or(BootError::NothingWhole(error))?,
                    FallBack::Yes,
                    Some(note),
                )
            }
            (Target::Newest, Head::None) => {
                unreachable!("nothing to restore where nothing is stored")
            }
        };
        let place = Place {
            state: self.state,
            owners: self.settings.restore.owner,
            own: Own::Archived(self.settings.dir_owner),
        };
        let mut staged = stage_newest_whole(store, header, place, fall_back, self.progress).await?;
        staged.damage.extend(note);
        Ok(staged)
    }

    /// Puts an older whole version at the head of the chain, so that the damage is behind it.
    async fn replace_head(&self, writer: &mut Writer, header: Header) -> Result<(), BootError> {
        let seq = header.seq;
        let version = Version::load(&**self.store, header).await?;
        match checkpoint::write_version(self.store, writer, version).await? {
            Appended::Done(header) => {
                error!(target: "boot", restored = seq, checkpoint = header.seq, "the newest commits were damaged; an older whole one was restored and is now the head");
                Ok(())
            }
            Appended::Fenced(other) => Err(OwnershipError::Fenced {
                reason: format!("{} took commit {}", other.instance, other.seq),
            }
            .into()),
        }
    }

    fn marker(&self, head: Option<&Header>, root: Digest) -> Marker {
        Marker {
            version: marker::VERSION,
            archive: self.settings.archive.to_string(),
            instance: self.who.instance.to_string(),
            epoch: self.epoch,
            seq: head.map_or(0, |head| head.seq),
            root,
            mode: Mode::Store,
            history: head
                .map(|head| head.history.to_string())
                .unwrap_or_default(),
            updated_ms: now_ms(),
            unjudged: false,
        }
    }
}
