//! Builds a version of the tree beside the session directory, verified, ready to be put in place.

use std::collections::{BTreeMap, HashMap, HashSet};

use tracing::warn;

use sessionkeep_archive::fetch::{At, Fetch, Sink, Verifier, Wanted};
use sessionkeep_archive::newest;
use sessionkeep_archive::store::Store;
use sessionkeep_archive::version::{Source, Version, head_of};
use sessionkeep_archive::writer::Summary;
use sessionkeep_archive::{ArchiveError, Result as ArchiveResult};
use sessionkeep_core::entry::{EntryKind, Meta, Owner, symlink_stays_inside};
use sessionkeep_core::memory;
use sessionkeep_core::record::{ArchiveName, Header};
use sessionkeep_core::state_dir::StateDir;
use sessionkeep_session::rights::RestoreOwner;
use sessionkeep_session::{Stage, StageError, StagedFile};

use super::error::BootError;
use super::room;
use crate::progress::Progress;

/// For at most this many requests at a time connections are opened while the tree is read.
const WARM_MAX: u64 = 5;

/// A version that is staged and verified.
#[derive(Debug)]
pub struct Staged {
    /// Where it is.
    pub stage: Stage,
    /// Its commit.
    pub header: Header,
    /// What it is. The tree itself was let go of before the contents were read.
    pub summary: Summary,
    /// What was found damaged on the way to it, newest first; empty where it is the wanted one.
    pub damage: Vec<String>,
}

/// Where a version is staged, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Our own directory in the session directory.
    pub state: &'a StateDir,
    /// What owners its entries get.
    pub owners: RestoreOwner,
    /// Whether the directory itself gets its archived metadata, and which owner.
    pub own: Own,
}

/// What a restore makes of the session directory itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// It stays as it is: a copy lies in somebody's own directory.
    Stays,
    /// It gets what is archived of it; but this owner, if there is one.
    Archived(Option<Owner>),
}

impl<'a> Place<'a> {
    /// With the owners that are archived.
    #[must_use]
    pub fn keeping_owners(state: &'a StateDir) -> Self {
        Self {
            state,
            owners: RestoreOwner::Keep,
            own: Own::Stays,
        }
    }
}

/// Stages the version of `target`, or, where that is damaged and `fall_back` says so, the newest
/// one before it that is whole.
///
/// # Errors
/// The store's and the disk's; [`BootError::NothingWhole`] where every version is damaged. Nothing
/// is left behind then.
pub async fn stage_newest_whole(
    store: &dyn Store,
    target: Header,
    place: Place<'_>,
    fall_back: FallBack,
    progress: &Progress,
) -> Result<Staged, BootError> {
    let archive = target.archive.clone();
    let mut lost: HashSet<Source> = HashSet::new();
    let mut damage = Vec::new();
    let mut candidate = target;
    loop {
        let seq = candidate.seq;
        let (error, blame) = match stage_version(store, candidate, place, &lost, progress).await {
            Ok((stage, header, summary)) => {
                return Ok(Staged {
                    stage,
                    header,
                    summary,
                    damage,
                });
            }
            Err(Failure::Stage(error)) => return Err(error.into()),
            Err(Failure::Archive(error, source)) => {
                if !error.is_damage() {
                    return Err(error.into());
                }
                lost.extend(source);
                let blame = match &error {
                    ArchiveError::DamagedCommit { seq, .. }
                    | ArchiveError::MissingCommit { seq } => *seq,
                    _ => seq,
                };
                (error, blame)
            }
        };
        if fall_back == FallBack::No {
            return Err(error.into());
        }
        warn!(target: "boot", seq, why = %error, "commit cannot be restored; trying an older one");
        damage.push(format!("commit {seq}: {error}"));
        candidate = match newest::older(store, &archive, seq.min(blame.max(1))).await? {
            Some(header) => header,
            None => return Err(BootError::NothingWhole(error)),
        };
    }
}

/// Whether an older version will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallBack {
    /// The newest whole one, since an old login is better than none.
    Yes,
    /// Only the one that was asked for.
    No,
}

/// The newest commit whose header can be believed, and what is wrong with the one at the head,
/// where that is another.
///
/// # Errors
/// The store's; [`BootError::NothingWhole`] where there are commits and none of them can be.
pub async fn newest_readable(
    store: &dyn Store,
    archive: &ArchiveName,
) -> Result<Option<(Header, Option<ArchiveError>)>, BootError> {
    let error = match head_of(store, archive).await {
        Ok(head) => return Ok(head.map(|head| (head, None))),
        Err(error) if error.is_damage() => error,
        Err(error) => return Err(error.into()),
    };
    let last = store.last_seq(archive).await.map_err(ArchiveError::from)?;
    match newest::older(store, archive, last.unwrap_or(0)).await? {
        Some(header) => Ok(Some((header, Some(error)))),
        None => Err(BootError::NothingWhole(error)),
    }
}

pub(super) enum Failure {
    Archive(ArchiveError, Option<Source>),
    Stage(StageError),
}

impl Failure {
    /// What reading contents came to. A disk that is full comes through the sink as an I/O error with
    /// the cause inside.
    pub(super) fn of_the_sink((error, source): (ArchiveError, Option<Source>)) -> Self {
        match error {
            ArchiveError::Io { action, source } => match source.downcast::<StageError>() {
                Ok(stage) => Self::Stage(stage),
                Err(source) => Self::Archive(ArchiveError::Io { action, source }, None),
            },
            error => Self::Archive(error, source),
        }
    }
}

impl From<StageError> for Failure {
    fn from(error: StageError) -> Self {
        Self::Stage(error)
    }
}

async fn stage_version(
    store: &dyn Store,
    header: Header,
    place: Place<'_>,
    lost: &HashSet<Source>,
    progress: &Progress,
) -> Result<(Stage, Header, Summary), Failure> {
    // What is larger than a commit carries lies in packs, and several are read at a time.
    let requests = header.live_bytes.div_ceil(1 << 20).min(WARM_MAX);
    store.warm_up(requests as usize).await;
    let loaded = Version::load(store, header).await;
    let mut version = loaded.map_err(|e| Failure::Archive(e, None))?;
    let mut stage = Stage::begin(place.state, place.owners)?;
    let links = match version.aside.links.take() {
        Some(links) if !links.is_empty() && stage.can_link() => links.within(&version.tree),
        _ => BTreeMap::new(),
    };
    let fetch = Fetch::plan(&mut version, |path| !links.contains_key(path));
    if let Some(source) = fetch.sources().iter().find(|source| lost.contains(source)) {
        let why = format!("it needs {source:?}, which is damaged");
        let seq = version.header.seq;
        return Err(Failure::Archive(
            ArchiveError::DamagedCommit { seq, why },
            None,
        ));
    }
    let root = place.state.session_path();
    room::check(store, &mut version, |path| !links.contains_key(path), root).await?;
    progress.begin(version.tree.files(), version.tree.bytes());
    if let (Own::Archived(owner), Some(own)) = (place.own, version.aside.own) {
        stage.set_own_meta(own, owner)?;
    }
    for (name, file) in &links {
        stage.link(file, name.clone())?;
    }
    let mut metas = Vec::with_capacity(fetch.files());
    let mut wanted = 0;
    for (path, leaf) in version.tree.iter() {
        match &leaf.kind {
            EntryKind::Dir => {
                stage.dir(&path)?;
                stage.set_dir_meta(&path, &leaf.meta)?;
            }
            EntryKind::Symlink { target } => {
                if !symlink_stays_inside(&path, target) {
                    let error = ArchiveError::Refused(format!(
                        "{path} is a link that leaves the directory"
                    ));
                    return Err(Failure::Archive(error, None));
                }
                stage.symlink(&path, target, &leaf.meta)?;
            }
            // It comes with the file that it is a name of.
            EntryKind::File { .. } if links.contains_key(&path) => {}
            EntryKind::File { size: 0, .. } => {
                metas.push(leaf.meta);
                stage.file(&path, &leaf.meta, &[])?;
            }
            EntryKind::File { .. } => {
                metas.push(leaf.meta);
                wanted += 1;
            }
        }
    }
    let (header, summary) = (version.header.clone(), Summary::of(&version.tree));
    // From here on the plan says it all, and the packs need the room.
    drop(version);
    memory::trim_heap();
    let sink = StageSink {
        stage,
        metas,
        open: HashMap::new(),
        verifier: Verifier::default(),
        progress: progress.clone(),
    };
    let sink = fetch.run(store, sink).await;
    let sink = sink.map_err(Failure::of_the_sink)?;
    if sink.verifier.verified() != wanted {
        let why = "not all of its files have come".to_owned();
        let seq = header.seq;
        return Err(Failure::Archive(
            ArchiveError::DamagedCommit { seq, why },
            None,
        ));
    }
    Ok((sink.stage, header, summary))
}

/// Writes pieces into the stage, and verifies each file as it completes.
struct StageSink {
    stage: Stage,
    /// By the index of the wanted file.
    metas: Vec<Meta>,
    open: HashMap<usize, StagedFile>,
    verifier: Verifier,
    progress: Progress,
}

impl StageSink {
    fn write(
        &mut self,
        at: At,
        wanted: &Wanted,
        content: &[u8],
        complete: bool,
    ) -> Result<(), StageError> {
        let meta = &self.metas[at.file];
        if wanted.whole {
            return self.stage.file(&wanted.path, meta, content);
        }
        let file = match self.open.remove(&at.file) {
            Some(file) => file,
            None => self.stage.begin_file(&wanted.path, wanted.size)?,
        };
        file.write_at(at.offset, content)?;
        if complete {
            self.stage.finish(file, meta)
        } else {
            self.open.insert(at.file, file);
            Ok(())
        }
    }
}

impl Sink for StageSink {
    fn piece(&mut self, at: At, wanted: &Wanted, content: &[u8]) -> ArchiveResult<()> {
        let complete = self.verifier.piece(at, wanted, content)?;
        self.write(at, wanted, content, complete)
            .map_err(|error| ArchiveError::Io {
                action: "write a restored file",
                source: std::io::Error::other(error),
            })?;
        self.progress.add(u64::from(complete), content.len() as u64);
        Ok(())
    }
}
