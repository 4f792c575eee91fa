//! What the watcher knows of the directory as committed.
//!
//! Looking is apart from taking over: [`CommittedIndex::gather`] (in `mounts.rs` and `gather.rs`) reads the directory and
//! fills a commit, [`CommittedIndex::apply`] makes the result the known state once the commit's packs are
//! stored. So a commit that could not be made leaves nothing behind, and is simply gathered again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::RandomState;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tracing::{debug, info};

use super::dirty::Work;
use super::everywhere::Scan;
use super::excluded::Excluded;
use super::files::Files;
use super::freeze_pacing::FreezePacing;
use super::gathered::{Blocks, Edit, Gathered, IndexEntry};
use super::mounts::MountGuard;
use super::silent_changes::SilentChanges;
use super::unsaved::Unsaved;
use crate::boot::survey::CREDENTIALS;
use crate::config::FreezePolicy;
use crate::gateway::ProfileName;
use crate::status::{ShownSession, group};
use sessionkeep_archive::tree::{Leaf, Tree};
use sessionkeep_archive::writer::Summary;
use sessionkeep_archive::{ArchiveError, Aside};
use sessionkeep_core::entry::{EntryKind, Owner, RelPath};
use sessionkeep_core::state_dir::StateDir;
use sessionkeep_session::rights::RestoreOwner;
use sessionkeep_session::{Directory, Events, Form, Limits, Login};

/// The directory as committed.
#[derive(Debug)]
pub(super) struct CommittedIndex {
    pub(super) directory: Directory,
    pub(super) state: StateDir,
    pub(super) events: Arc<Mutex<Events>>,
    pub(super) tree: Tree<IndexEntry>,
    /// What is committed besides the entries.
    pub(super) aside: Aside,
    pub(super) blocks: HashMap<RelPath, Blocks>,
    pub(super) files: Files,
    /// Entries of which only the time changed: committed with the next change, not by themselves.
    pub(super) touched: BTreeSet<RelPath>,
    pub(super) generation: bool,
    pub(super) keyed: RandomState,
    /// What was said before, so that it is said once.
    pub(super) reported: HashSet<(RelPath, &'static str)>,
    /// What the last look at everything came to, besides its differences.
    pub(super) scan: Scan,
    /// What the profile leaves out.
    pub(super) excluded: Excluded,
    /// What is not saved as it is.
    pub(super) unsaved: Unsaved,
    /// What changed while it was being looked at; see [`CommittedIndex::take_events_during_read`].
    pub(super) during_read: Work,
    /// What of the archived owners and modes cannot be had in this directory.
    pub(super) limits: Limits,
    /// What is mounted below the directory.
    pub(super) mounts: MountGuard,
    pub(super) freeze_pacing: FreezePacing,
    pub(super) silent_changes: SilentChanges,
}

impl CommittedIndex {
    /// An index of which nothing is committed yet.
    #[must_use]
    pub(super) fn new(directory: Directory, state: StateDir, events: Arc<Mutex<Events>>) -> Self {
        let mounts = MountGuard::begin(&directory, state.clone());
        Self {
            directory,
            mounts,
            files: Files::new(state.clone()),
            state,
            events,
            tree: Tree::new(),
            aside: Aside::default(),
            blocks: HashMap::new(),
            touched: BTreeSet::new(),
            generation: false,
            keyed: RandomState::new(),
            reported: HashSet::new(),
            scan: Scan::default(),
            excluded: Excluded::default(),
            unsaved: Unsaved::default(),
            during_read: Work::default(),
            limits: Limits::default(),
            freeze_pacing: FreezePacing::new(FreezePolicy::Never),
            silent_changes: SilentChanges::default(),
        }
    }

    /// With a gateway that may be stopped for a consistent version, where the policy says so.
    #[must_use]
    pub(super) fn freezing(self, policy: FreezePolicy) -> Self {
        let freeze_pacing = FreezePacing::new(policy);
        Self {
            freeze_pacing,
            ..self
        }
    }

    /// Takes `tree`, and `aside` of all else, as what is committed. Every file will be read once to learn its fingerprint.
    pub(super) fn committed<T>(&mut self, tree: Tree<T>, aside: Aside) {
        self.aside = aside;
        let generation = self.generation;
        self.tree = tree.map(|_| IndexEntry::new(0, generation));
        self.tree.shrink();
        self.blocks.clear();
    }

    /// Finds out which of the committed owners and modes cannot be had in this directory. Where that
    /// cannot be found out, what is in the directory is the truth.
    pub(super) fn find_limits(&mut self, owners: RestoreOwner) {
        let mut committed: HashSet<Owner> = HashSet::new();
        committed.extend(self.tree.iter().map(|(_, leaf)| leaf.meta.owner));
        committed.extend(self.aside.own.map(|meta| meta.owner));
        match Limits::probe(&self.state, owners, committed.into_iter()) {
            Ok(limits) => {
                if !limits.is_none() {
                    info!(target: "sync", cannot_be_had = %limits, "archived owners or modes cannot be set in this directory; they stay as they are archived");
                }
                self.limits = limits;
            }
            Err(error) => {
                debug!(target: "sync", %error, "it cannot be found out which owners and modes can be had here");
                self.limits = Limits::default();
            }
        }
    }

    /// The tree as committed, for a commit's header.
    #[must_use]
    pub(super) fn summary(&self) -> Summary {
        Summary {
            root: self.tree.root(),
            files: self.tree.files(),
            bytes: self.tree.bytes(),
        }
    }

    /// The session directory.
    #[must_use]
    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Looks at `directory` from now on, which has this one's path by now. What is committed is what it was.
    pub(super) fn follow(&mut self, directory: Directory) {
        self.mounts = MountGuard::begin(&directory, self.state.clone());
        self.directory = directory;
        self.touched.clear();
        self.scan = Scan::default();
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.forget_all();
    }

    /// The databases whose login is another than before, each with what it keeps now.
    pub(super) fn take_logins(&mut self) -> Vec<(RelPath, Option<Login>)> {
        self.files.take_logins()
    }

    /// The gateway's main process, for what only a freeze can read.
    pub(super) fn set_gateway(&mut self, pid: Option<i32>) {
        self.silent_changes.set_gateway(pid);
        self.freeze_pacing.set_gateway(pid);
        self.files.set_gateway(self.freeze_pacing.gateway());
    }

    /// Whether this was found to be a database.
    #[must_use]
    pub(super) fn is_database(&self, path: &RelPath) -> bool {
        self.files.is_database(path)
    }

    /// Until when it is too soon to look at this.
    #[must_use]
    pub(super) fn too_soon(&self, path: &RelPath, now: Instant) -> Option<Instant> {
        self.files.too_soon(path, now)
    }

    /// Whether something was written under a name that is gone, or a file was given another name.
    #[must_use]
    pub(super) fn is_astray(&self) -> bool {
        if self.silent_changes.has_unseen_names() {
            return true;
        }
        let events = self.events.lock();
        events.unwrap_or_else(PoisonError::into_inner).is_astray()
    }

    /// What is committed, session by session.
    #[must_use]
    pub(super) fn sessions(&self, profile: ProfileName) -> BTreeMap<String, ShownSession> {
        let files = self.tree.iter().filter_map(|(path, leaf)| {
            let EntryKind::File { size, .. } = leaf.kind else {
                return None;
            };
            let changed = u64::try_from(leaf.meta.mtime_ns / 1_000_000).unwrap_or(0);
            Some((path, size, changed))
        });
        group(profile, files)
    }

    /// The committed files of credentials.
    #[must_use]
    pub(super) fn credentials(&self) -> Vec<RelPath> {
        let paths = self.tree.iter().map(|(path, _)| path);
        paths.filter(|path| path.name() == CREDENTIALS).collect()
    }

    /// Notes what form the committed version of a file has, and which login it keeps as a database.
    pub(super) fn note_form(&mut self, path: &RelPath, form: Form, login: Option<Login>) {
        if let (Form::Database, Some(login)) = (form, login) {
            self.files.note_login(path, login);
        }
        if let Some(seen) = self.tree.extra_mut(path) {
            *seen = seen.with_form(Some(form));
        }
    }

    /// Makes what was gathered the known state.
    pub(super) fn apply(&mut self, gathered: &mut Gathered) {
        self.aside.update(&gathered.aside);
        for edit in gathered.edits.drain(..) {
            match edit {
                Edit::Set(path, leaf) => {
                    let was_dir = matches!(
                        self.tree.get(&path),
                        Some(Leaf {
                            kind: EntryKind::Dir,
                            ..
                        })
                    );
                    if was_dir && leaf.kind != EntryKind::Dir {
                        self.drop_below(&path);
                    }
                    self.touched.remove(&path);
                    self.tree.insert(&path, leaf);
                }
                Edit::Remove(path) => {
                    self.drop_below(&path);
                    self.tree.remove(&path);
                    self.blocks.remove(&path);
                    self.touched.remove(&path);
                }
            }
        }
        debug_assert!(self.tree.check_shape().is_ok(), "nobody could restore it");
        self.refresh(gathered);
    }

    /// Takes over only what was learned of entries that are as committed.
    pub(super) fn refresh(&mut self, gathered: &mut Gathered) {
        for (path, seen) in gathered.refreshed.drain(..) {
            if let Some(extra) = self.tree.extra_mut(&path) {
                *extra = seen;
            }
        }
        self.blocks.extend(gathered.blocks.drain(..));
    }

    pub(super) fn drop_below(&mut self, path: &RelPath) {
        for inner in self.tree.below(path) {
            self.tree.remove(&inner);
            self.blocks.remove(&inner);
            self.touched.remove(&inner);
        }
    }
}

/// Turns a failure to gather into one that the loop understands.
#[must_use]
pub(super) fn thread_failed(panic: tokio::task::JoinError) -> ArchiveError {
    ArchiveError::Io {
        action: "look at the session directory",
        source: std::io::Error::other(panic),
    }
}
