//! One writer's work on the archive: attach to it, commit what is dirty, checkpoint, let go.
//!
//! It knows no timers and no events; the loop in [`super`] decides when.

mod damage;
mod forms;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use super::committed_index::{CommittedIndex, thread_failed};
use super::dirty::Work;
use super::gathered::{Delayed, Edit, Gathered, Pass};
use super::guard::Refusal;
use super::remade::{Accepted, Remade};
use super::signs_of_life::SignsOfLife;
use crate::boot::BootError;
use crate::boot::decide::{BootPlan, Remote, decide};
use crate::boot::survey::{CREDENTIALS, survey};
use crate::config::Settings;
use crate::gateway::ProfileName;
use crate::ownership::{
    Attention, Head, Identity, LeaseKeeper, OwnershipError, Policy, acquire, raise_barrier,
};
use crate::progress::Progress;
use crate::status::session_of;
use sessionkeep_archive::format::Extent;
use sessionkeep_archive::store::Store;
use sessionkeep_archive::tree::Tree;
use sessionkeep_archive::upload::Upload;
use sessionkeep_archive::version::Version;
use sessionkeep_archive::writer::{Outcome, Writer, now_ms};
use sessionkeep_archive::{ArchiveError, Aside, checkpoint, collect};
use sessionkeep_core::entry::RelPath;
use sessionkeep_core::human;
use sessionkeep_core::memory::give_back;
use sessionkeep_core::record::{Header, InstanceId};
use sessionkeep_core::state_dir::{Presence, StateDir};
use sessionkeep_session::{Login, Marker, Mode, marker};

/// Why a step did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    /// Another instance owns the archive now.
    #[error("{0}")]
    Fenced(String),
    /// The store has lost something of what was committed: the next commit lists everything anew.
    #[error("the archive has lost what was committed")]
    Damaged(#[source] ArchiveError),
    /// The archive or the store failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Attaching failed in a way of its own.
    #[error(transparent)]
    Boot(#[from] crate::boot::BootError),
    /// At the end: what is in the directory may not be committed.
    #[error("{0}")]
    Refused(Refusal),
}

/// What a commit came to.
#[derive(Debug, Default)]
pub(super) struct Committed {
    /// The commit; `None` where nothing differed.
    pub header: Option<Header>,
    /// What is to be looked at again, and when.
    pub later: Vec<(RelPath, Instant)>,
    /// How many files were found not to be whole.
    pub not_whole: u64,
    /// What is not saved as it is, and why, in words.
    pub unsaved: Option<String>,
    /// Some of that cannot be read.
    pub unreadable: bool,
    /// Files that are not whole, of which it is not known yet whether their last committed version is.
    pub unasked: Vec<RelPath>,
    /// Why nothing may be committed, where that is so.
    pub refused: Option<Refusal>,
    /// What is not in it, since it could not be read as of one moment yet.
    pub delayed: Option<Delayed>,
    /// Which sessions it changes; none where it changes very much.
    pub sessions: BTreeSet<String>,
    /// Credentials that it changes, and what it removes.
    pub credentials: Vec<RelPath>,
    /// Databases whose login is another than before, each with what it keeps now.
    pub logins: Vec<(RelPath, Option<Login>)>,
    /// How long it took.
    pub took: Duration,
}

/// Beyond so many changes it is not listed which sessions they are of.
const LISTED_MAX: usize = 1000;

impl Committed {
    /// Whether everything that was looked at is in the store as it is in the directory.
    pub(super) fn is_whole(&self) -> bool {
        self.later.is_empty() && self.unsaved.is_none()
    }

    /// Nothing, for this reason.
    fn refused(refusal: Refusal) -> Self {
        Self {
            refused: Some(refusal),
            ..Self::default()
        }
    }

    /// Lists what `edits` change.
    fn list(&mut self, edits: &[Edit], profile: ProfileName) {
        let path_of = |edit: &Edit| match edit {
            Edit::Set(path, _) | Edit::Remove(path) => path.clone(),
        };
        if edits.len() <= LISTED_MAX {
            let paths = edits.iter().map(path_of);
            self.sessions = paths
                .filter_map(|path| session_of(profile, &path))
                .collect();
        }
        let of_interest = |edit: &&Edit| match edit {
            Edit::Set(path, _) => path.name() == CREDENTIALS,
            Edit::Remove(_) => true,
        };
        self.credentials = edits.iter().filter(of_interest).map(path_of).collect();
    }
}

/// What is held while attached to the archive.
#[derive(Debug)]
struct Hold {
    writer: Writer,
    keeper: LeaseKeeper,
    /// Why the next commit lists everything anew, where it does: the archive's chain is damaged.
    anew: Option<String>,
    /// When it was last seen that all that was committed is there.
    seen_whole: Option<Instant>,
}

/// What is committed, and why it has to be listed anew where it cannot be read.
async fn read_committed(
    store: &dyn Store,
    head: Option<Header>,
    writer: &mut Writer,
) -> Result<(Tree<Vec<Extent>>, Aside, Option<String>), StepError> {
    let Some(head) = head.filter(|head| head.base > 0) else {
        return Ok((Tree::new(), Aside::default(), None));
    };
    match Version::load(store, head).await {
        Ok(version) => {
            writer.needs(version.packs);
            Ok((version.tree, version.aside, None))
        }
        Err(error) if error.is_damage() => {
            error!(target: "sync", %error, "the archive's chain is damaged; committing the whole directory anew");
            Ok((Tree::new(), Aside::default(), Some(error.to_string())))
        }
        Err(error) => Err(error.into()),
    }
}

/// One writer's work on the archive.
#[derive(Debug)]
pub(super) struct Replicator {
    settings: Settings,
    pub(super) state: StateDir,
    pub(super) store: Arc<dyn Store>,
    instance: InstanceId,
    /// Always there, except while a thread has it.
    pub(super) index: Option<CommittedIndex>,
    /// The directory was emptied or made anew, and is not judged yet.
    pub(super) remade: Option<Remade>,
    /// See [`Replicator::take_followed`].
    pub(super) followed: bool,
    /// See [`Replicator::take_accepted`].
    pub(super) accepted: Option<Accepted>,
    hold: Option<Hold>,
    progress: Progress,
    signs_of_life: SignsOfLife,
}

impl Replicator {
    /// Not attached yet.
    #[must_use]
    pub(super) fn new(
        settings: Settings,
        store: Arc<dyn Store>,
        instance: InstanceId,
        index: CommittedIndex,
        signs_of_life: SignsOfLife,
    ) -> Self {
        Self {
            settings,
            state: index.state.clone(),
            store,
            instance,
            index: Some(index),
            remade: None,
            followed: false,
            accepted: None,
            hold: None,
            progress: Progress::default(),
            signs_of_life,
        }
    }

    /// The lease, while attached.
    #[must_use]
    pub(super) fn keeper(&self) -> Option<&LeaseKeeper> {
        self.hold.as_ref().map(|hold| &hold.keeper)
    }

    /// The lease's epoch, while attached.
    #[must_use]
    pub(super) fn epoch(&self) -> u64 {
        self.hold.as_ref().map_or(0, |hold| hold.writer.epoch())
    }

    /// The newest commit, while attached.
    #[must_use]
    pub(super) fn head(&self) -> Option<&Header> {
        self.hold.as_ref().and_then(|hold| hold.writer.head())
    }

    /// The index, while no thread has it.
    pub(super) fn index(&mut self) -> Option<&mut CommittedIndex> {
        self.index.as_mut()
    }

    /// Whether it is attached.
    #[must_use]
    pub(super) fn is_attached(&self) -> bool {
        self.hold.is_some()
    }

    /// The writer of this life, whose barrier stands.
    async fn go_on_writing(&self, epoch: u64) -> Result<(Option<Header>, Writer), StepError> {
        let (store, archive) = (&*self.store, &self.settings.archive);
        let head = store.head(archive).await.map_err(ArchiveError::from)?;
        let is_anothers = |head: &&Header| head.epoch > epoch || head.instance != self.instance;
        if let Some(other) = head.as_ref().filter(is_anothers) {
            return Err(StepError::Fenced(format!(
                "{} has appended commit {}",
                other.instance, other.seq
            )));
        }
        let now = store.now_ms().await.map_err(ArchiveError::from)?;
        let (archive, instance) = (archive.clone(), self.instance.clone());
        let writer = Writer::new(archive, instance, epoch, head.clone(), now);
        Ok((head, writer))
    }

    /// A writer at a new epoch, behind a barrier, where the directory is not behind what is stored.
    async fn begin_writing(&mut self, epoch: u64) -> Result<(Option<Header>, Writer), StepError> {
        let archive = &self.settings.archive;
        let raised = raise_barrier(&*self.store, archive, &self.instance, epoch).await;
        let (head, writer) = raised.map_err(BootError::from)?;
        self.may_continue(&head, epoch)?;
        Ok((writer.head().cloned(), writer))
    }

    /// Takes up the lease that the restorer took (or that an earlier watcher of this life held),
    /// and learns what is committed. Where the restorer could not reach the store, takes the lease
    /// now and makes sure that the directory may still be committed.
    ///
    /// # Errors
    /// [`StepError::Fenced`] where another instance owns the archive; else the store's.
    pub(super) async fn attach(&mut self) -> Result<(), StepError> {
        let store = self.store.clone();
        store.ping().await.map_err(ArchiveError::from)?;
        self.look_at_directory_first();
        let marker = Marker::read(&self.state).map_err(BootError::from)?;
        let ours = marker
            .as_ref()
            .is_some_and(|marker| marker.instance == self.instance.as_str());
        let who = Identity {
            instance: self.instance.clone(),
            // Init holds the directory's lock, so whoever the marker names is gone.
            predecessor: marker
                .as_ref()
                .and_then(|marker| marker.instance.parse().ok())
                .filter(|_| !ours),
        };
        // Nothing is waited for in here: the loop above must hear of a flush in time.
        let policy = Policy::of(&self.settings).at_once();
        let archive = &self.settings.archive;
        let acquired = acquire(&store, archive, &policy, &who, Attention::Now, &mut |_| {}).await;
        let (epoch, keeper) = match acquired {
            Ok(acquired) => acquired,
            Err(OwnershipError::Owned { owner }) => {
                return Err(StepError::Fenced(format!(
                    "instance {owner} owns this session"
                )));
            }
            Err(other) => return Err(BootError::from(other).into()),
        };
        // Reading what is committed may take long, and init has to know of the lease meanwhile.
        self.signs_of_life.follow(keeper.status());
        // A directory that was made anew may have no marker; the head tells whether nobody else has
        // written.
        let goes_on = ours && marker.as_ref().is_some_and(|marker| marker.epoch == epoch);
        let (head, mut writer) = match goes_on || (marker.is_none() && self.is_remade()) {
            true => self.go_on_writing(epoch).await?,
            false => self.begin_writing(epoch).await?,
        };
        let (tree, aside, anew) = read_committed(&*store, head, &mut writer).await?;
        if writer.head().is_none() {
            // Nothing was ever written, not even a barrier: an archive that was deleted under us.
            match writer.barrier(&*store).await? {
                Outcome::Done(_) => {}
                Outcome::Fenced(other) => return Err(fenced(&other)),
            }
        }
        let index = self
            .index
            .as_mut()
            .expect("no thread has it while attaching");
        index.committed(tree, aside);
        index.find_limits(self.settings.restore.owner);
        self.hold = Some(Hold {
            writer,
            keeper,
            anew,
            seen_whole: None,
        });
        if marker.is_some_and(|marker| marker.unjudged) {
            self.judge_again();
        }
        if self.state.presence() == Presence::InPlace {
            self.write_marker();
        }
        give_back();
        Ok(())
    }

    /// After a start without the store: whether the directory may be committed over the head.
    fn may_continue(&mut self, head: &Head, epoch: u64) -> Result<(), StepError> {
        let directory = self
            .index
            .as_ref()
            .expect("no thread has it while attaching")
            .directory();
        let local = survey(directory, Some(&self.state), &self.settings.archive)?;
        let remote = match head {
            Head::None => Remote::Empty,
            Head::Known(header) if header.base == 0 => Remote::Empty,
            Head::Known(header) => Remote::Head {
                header: header.clone(),
                has_credentials: None,
            },
            Head::Unreadable { .. } => Remote::Damaged {
                last_epoch: epoch - 1,
            },
        };
        match decide(&local, &remote) {
            BootPlan::Restore(_) if local.has_files => Err(StepError::Fenced(
                "the archive moved on while this instance ran without the store; restart it to restore".into(),
            )),
            _ => Ok(()),
        }
    }

    /// Looks at `work` and commits what differs.
    ///
    /// # Errors
    /// [`StepError::Fenced`]; a transient error leaves everything as it was, or a commit pending
    /// that the next call settles first.
    pub(super) async fn commit(&mut self, work: Work, pass: Pass) -> Result<Committed, StepError> {
        let mut committed = self.commit_known(work, pass).await?;
        self.ask_for_forms(&mut committed).await;
        Ok(committed)
    }

    async fn commit_known(&mut self, work: Work, pass: Pass) -> Result<Committed, StepError> {
        self.settle().await?;
        let begun = Instant::now();
        let was_remade = self.is_remade();
        if let Some(refusal) = self.look_after_directory(pass).await? {
            return Ok(Committed::refused(refusal));
        }
        let work = match was_remade || self.followed {
            true => Work::everything(),
            false => work,
        };
        let mut gathered = self.gather(work, pass).await?;
        if gathered.refused == Some(Refusal::Wiped) {
            self.was_wiped();
        }
        let hold = self.hold.as_mut().expect("commits are made while attached");
        let index = self.index.as_mut().expect("the thread has ended");
        let mut committed = Committed {
            later: std::mem::take(&mut gathered.later),
            not_whole: gathered.not_whole,
            unsaved: index.unsaved.words(),
            unreadable: index.unsaved.count() > index.unsaved.not_whole(),
            unasked: std::mem::take(&mut gathered.unasked),
            refused: gathered.refused.take(),
            delayed: gathered.delayed.take(),
            ..Committed::default()
        };
        if committed.refused.is_some() {
            return Ok(committed);
        }
        let Some(built) = gathered.built.take() else {
            index.refresh(&mut gathered);
            committed.logins = index.take_logins();
            return Ok(committed);
        };
        committed.list(&gathered.edits, self.settings.profile);
        index.apply(&mut gathered);
        let (files, large) = (gathered.files, built.stored > (4 << 20));
        // A first upload's is as large as the tree, and is not to be there when memory is given back.
        drop(gathered);
        let summary = index.summary();
        let outcome = if hold.anew.is_some() {
            let base_bytes = built.stored;
            hold.writer
                .checkpoint(&*self.store, built, summary, base_bytes)
                .await
        } else {
            hold.writer.commit(&*self.store, built, summary).await
        };
        match outcome {
            Ok(Outcome::Done(header)) => {
                hold.anew = None;
                info!(target: "sync", seq = header.seq, files, bytes = %human::Bytes(header.bytes), took = %human::Took(begun.elapsed()), "committed");
                committed.header = Some(*header);
                committed.logins = index.take_logins();
                committed.took = begun.elapsed();
                if large {
                    give_back();
                }
                Ok(committed)
            }
            Ok(Outcome::Fenced(other)) => Err(fenced(&other)),
            Err(error) if error.is_damage() => Err(self.begin_anew(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a commit was asked for and not answered.
    #[must_use]
    pub(super) fn is_pending(&self) -> bool {
        self.hold
            .as_ref()
            .is_some_and(|hold| hold.writer.is_pending())
    }

    /// Asks again for a commit that was not answered.
    async fn settle(&mut self) -> Result<(), StepError> {
        let hold = self.hold.as_mut().expect("commits are made while attached");
        match hold.writer.settle(&*self.store).await {
            Ok(None) => Ok(()),
            Ok(Some(Outcome::Done(header))) => {
                hold.anew = None;
                info!(target: "sync", seq = header.seq, "a commit whose answer was lost is in the store");
                Ok(())
            }
            Ok(Some(Outcome::Fenced(other))) => Err(fenced(&other)),
            Err(error) if error.is_damage() => Err(self.begin_anew(error)),
            Err(error) => Err(error.into()),
        }
    }

    async fn gather(&mut self, work: Work, pass: Pass) -> Result<Gathered, StepError> {
        let (sink, upload) = Upload::start(self.store.clone(), self.settings.archive.clone());
        let mut index = self.index.take().expect("one gather at a time");
        let progress = self.progress.clone();
        let thread = tokio::task::spawn_blocking(move || {
            let gathered = index.gather(&work, pass, sink, &progress);
            (index, gathered)
        });
        let ended = self.progress.show("looking at changed files", thread).await;
        self.progress.end();
        let (index, gathered) = ended.map_err(thread_failed)?;
        self.index = Some(index);
        Ok(upload.finish(gathered).await?)
    }

    /// Writes a checkpoint and collects, if the chain has outgrown its last one.
    ///
    /// # Errors
    /// [`StepError::Fenced`]; others leave the chain as it is.
    pub(super) async fn keep_short(&mut self) -> Result<(), StepError> {
        let Some(hold) = self
            .hold
            .as_mut()
            .filter(|hold| hold.writer.wants_checkpoint())
        else {
            return Ok(());
        };
        let begun = Instant::now();
        match checkpoint::write(&self.store, &mut hold.writer).await {
            Ok(Some(Outcome::Done(header))) => {
                info!(target: "sync", seq = header.seq, files = header.live_files, took = %human::Took(begun.elapsed()), "checkpoint");
            }
            Ok(Some(Outcome::Fenced(other))) => return Err(fenced(&other)),
            Ok(None) => return Ok(()),
            Err(error) if error.is_damage() => return Err(self.begin_anew(error)),
            Err(error) => return Err(error.into()),
        }
        // What is not collected now is collected after the next checkpoint.
        let grace = self.settings.history.grace;
        let clock = hold.writer.clock();
        match collect::collect(&*self.store, &self.settings.archive, grace, clock).await {
            Ok(plan) => {
                debug!(target: "sync", commits = plan.commits.len(), packs = plan.packs.len(), "collected");
            }
            Err(error) => {
                warn!(target: "sync", %error, "superseded commits could not be collected");
            }
        }
        give_back();
        Ok(())
    }

    /// Lets the archive go: the marker says what the directory holds, and the next instance may
    /// take the lease at once.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn release(&mut self) -> Result<(), StepError> {
        if self.state.presence() == Presence::InPlace {
            self.write_marker();
        }
        if let Some(hold) = self.hold.take() {
            let epoch = hold.writer.epoch();
            drop(hold);
            self.store
                .release_lease(&self.settings.archive, &self.instance, epoch)
                .await
                .map_err(ArchiveError::from)?;
        }
        Ok(())
    }

    /// Notes in the directory which commit it stands for. Failing to is no loss: the epoch in an
    /// older marker says as much.
    pub(super) fn write_marker(&self) {
        let Some(head) = self.head() else { return };
        let marker = Marker {
            version: marker::VERSION,
            archive: self.settings.archive.to_string(),
            instance: self.instance.to_string(),
            epoch: self.epoch(),
            seq: head.seq,
            root: head.root,
            mode: Mode::Store,
            history: head.history.to_string(),
            updated_ms: now_ms(),
            unjudged: self.is_remade(),
        };
        let index = self.index.as_ref();
        if index.is_some_and(|index| !index.directory().is_intact()) {
            return;
        }
        if let Err(error) = marker.write(&self.state) {
            warn!(target: "sync", %error, "the marker could not be written");
        }
    }
}

fn fenced(other: &Header) -> StepError {
    StepError::Fenced(format!(
        "{} has taken commit {} at epoch {}",
        other.instance, other.seq, other.epoch
    ))
}

/// How long after a failure the store is asked again at the latest.
pub(super) const OUTAGE_POLL_MAX: Duration = Duration::from_secs(2);
