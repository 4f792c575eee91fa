//! Mounts below the session directory while the gateway runs. Where one goes away, what lay on it looks as if
//! it had been deleted, or something older shows through: it is not committed, as little as an unmounted
//! session directory is. The same where something is mounted over files.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

use tracing::{debug, info, warn};

use super::committed_index::CommittedIndex;
use super::dirty::Work;
use super::gathered::{Edit, Gathered, IndexEntry, Pass};
use super::guard::Refusal;
use crate::progress::Progress;
use sessionkeep_archive::Result;
use sessionkeep_archive::builder::PackSink;
use sessionkeep_archive::tree::Tree;
use sessionkeep_core::entry::RelPath;
use sessionkeep_core::state_dir::StateDir;
use sessionkeep_session::Directory;
use sessionkeep_session::mounts::{self, MountEvents, Mounts, Volume};

/// How often it is looked again because something was mounted or unmounted meanwhile.
const TRIES: u32 = 3;

/// A mount that what is committed below it came from.
#[derive(Debug)]
struct Known {
    path: RelPath,
    /// `None` where it is only known from before: it was gone when this process began.
    volume: Option<Volume>,
}

/// What is mounted below the session directory, and what was.
#[derive(Debug)]
pub(super) struct MountGuard {
    events: MountEvents,
    known: Vec<Known>,
    current: Mounts,
    state: StateDir,
}

impl MountGuard {
    pub(super) fn begin(directory: &Directory, state: StateDir) -> Self {
        // In this order, so that nothing happens in between unnoticed.
        let events = MountEvents::begin();
        let current = read(directory.fd());
        let mut known: Vec<Known> = current.iter().map(Known::of).collect();
        let before = mounts::remembered(&state);
        let gone = before
            .into_iter()
            .filter(|path| current.at(path.as_bytes()).is_none());
        known.extend(gone.map(|path| Known { path, volume: None }));
        let guard = Self {
            events,
            known,
            current,
            state,
        };
        guard.remember();
        guard
    }

    /// Whether anything was mounted or unmounted since this was asked the last time. One system call where
    /// nothing was.
    fn changed(&mut self, session: BorrowedFd<'_>) -> bool {
        if !self.events.any() {
            return false;
        }
        let now = read(session);
        let changed = now != self.current;
        self.current = now;
        changed
    }

    /// Whether these edits come of a mount that is gone, or of one that covers what was there.
    fn check(&mut self, tree: &Tree<IndexEntry>, edits: &[Edit]) -> Option<Refusal> {
        if self.known.is_empty() && self.current.is_empty() {
            return None;
        }
        let refusal = edits.iter().find_map(|edit| self.judge(tree, edit));
        if refusal.is_none() {
            self.follow(tree);
        }
        refusal
    }

    fn judge(&self, tree: &Tree<IndexEntry>, edit: &Edit) -> Option<Refusal> {
        let (path, removes) = match edit {
            Edit::Set(path, _) => (path, false),
            Edit::Remove(path) => (path, true),
        };
        let concerns = |mount: &RelPath| {
            path == mount || path.is_within(mount) || (removes && mount.is_within(path))
        };
        let is_there = |known: &Known| {
            let now = self.current.at(known.path.as_bytes());
            now.is_some_and(|now| Some(&now.volume) == known.volume.as_ref())
        };
        let gone = self
            .known
            .iter()
            .find(|known| concerns(&known.path) && !is_there(known));
        if let Some(known) = gone {
            return Some(Refusal::MountGone(known.path.clone()));
        }
        let came = self.current.holding(path)?;
        let is_known = self.known.iter().any(|known| known.path == came.path);
        // Over what is saved; there may be other files of the same names in it.
        let covers = !is_known && !tree.below(&came.path).is_empty();
        covers.then(|| Refusal::MountCame(came.path.clone()))
    }

    /// From here on, what is mounted now counts; and what is gone does as long as anything is committed of it.
    fn follow(&mut self, tree: &Tree<IndexEntry>) {
        let before = self.known.len();
        let current = &self.current;
        self.known.retain(|known| {
            let stays = current.at(known.path.as_bytes()).is_some();
            stays
                || tree
                    .get(&known.path)
                    .is_some_and(|_| !tree.below(&known.path).is_empty())
        });
        let mut changed = self.known.len() != before;
        for mount in current.iter() {
            match self.known.iter_mut().find(|known| known.path == mount.path) {
                Some(known) if known.volume.as_ref() == Some(&mount.volume) => {}
                // Nothing of it is to be committed, or it would have been refused.
                Some(known) if tree.below(&known.path).is_empty() => {
                    known.volume = Some(mount.volume.clone());
                }
                Some(_) => {}
                None if !tree.below(&mount.path).is_empty() => {}
                None => {
                    self.known.push(Known::of(mount));
                    changed = true;
                }
            }
        }
        if changed {
            info!(target: "sync", mounts = %self.paths(), "what is mounted below the session directory has changed");
            self.remember();
        }
    }

    fn remember(&self) {
        let paths: Vec<RelPath> = self.known.iter().map(|known| known.path.clone()).collect();
        if let Err(error) = mounts::remember(&self.state, &paths) {
            warn!(target: "sync", %error, "the mounts below the session directory could not be noted for the next start");
        }
    }

    fn paths(&self) -> String {
        let paths: Vec<String> = self
            .known
            .iter()
            .map(|known| known.path.to_string())
            .collect();
        paths.join(", ")
    }
}

impl Known {
    fn of(mount: &mounts::Mount) -> Self {
        Self {
            path: mount.path.clone(),
            volume: Some(mount.volume.clone()),
        }
    }
}

fn read(session: BorrowedFd<'_>) -> Mounts {
    Mounts::below(session).unwrap_or_else(|error| {
        debug!(target: "sync", %error, "mounts below the session directory cannot be looked at");
        Mounts::default()
    })
}

impl CommittedIndex {
    /// Looks at `work` and puts what differs into a commit whose packs go to `sink`; anew, and at
    /// everything, where something was mounted or unmounted meanwhile: nobody can tell then of what
    /// the files are that were read.
    ///
    /// # Errors
    /// If a pack cannot be handed on. Files that cannot be read are no error: they are reported,
    /// and the rest goes on.
    pub(super) fn gather(
        &mut self,
        work: &Work,
        pass: Pass,
        sink: PackSink,
        progress: &Progress,
    ) -> Result<Gathered> {
        let sink = Arc::new(Mutex::new(sink));
        let mut gathered = self.gather_once(work, pass, &sink, progress)?;
        for _ in 1..TRIES {
            if !self.mounts.changed(self.directory.fd()) {
                break;
            }
            gathered = self.gather_once(&Work::everything(), pass, &sink, progress)?;
        }
        if gathered.refused.is_none() {
            gathered.refused = self.mounts.check(&self.tree, &gathered.edits);
        }
        Ok(gathered)
    }
}
