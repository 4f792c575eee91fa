//! What the watcher shows of itself: one value, kept current by the loop, read by HTTP.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::control::Lifecycle;
use crate::store::Header;

/// A commit, as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct ShownCommit {
    /// Its number.
    pub seq: u64,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// How many changes it has.
    pub changes: u32,
    /// Content bytes it brought.
    pub bytes: u64,
}

impl From<&Header> for ShownCommit {
    fn from(header: &Header) -> Self {
        Self {
            seq: header.seq,
            time_ms: header.time_ms,
            changes: header.changes,
            bytes: header.bytes,
        }
    }
}

/// One directory with files in it.
#[derive(Debug, Clone, Serialize)]
pub struct ShownSession {
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How the watcher stands.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The lifecycle as init says.
    pub state: Lifecycle,
    /// Where the archive is kept, redacted; `none` in file mode.
    pub store: String,
    /// Whether the store answered last time.
    pub store_reachable: bool,
    /// The archive's name.
    pub archive: String,
    /// This life.
    pub instance: String,
    /// The lease's epoch; 0 while there is none.
    pub epoch: u64,
    /// The last commit.
    pub head: Option<ShownCommit>,
    /// Files of the committed tree.
    pub files: u64,
    /// Bytes of the committed tree.
    pub bytes: u64,
    /// Files per directory of the committed tree.
    pub sessions: BTreeMap<String, ShownSession>,
    /// Since when changes are waiting to be committed, in seconds; 0 when everything is saved.
    pub lag_seconds: f64,
    /// How many paths are waiting; `null` where everything is to be looked at.
    pub lag_paths: Option<usize>,
    /// Files that are torn or damaged on disk; their last good version is what is stored.
    pub not_whole: u64,
    /// Commits since the watcher started.
    pub commits: u64,
    /// Attempts that failed since the watcher started.
    pub failures: u64,
    /// The gateway's main process.
    pub gateway_pid: Option<i32>,
    /// Whether its probe answered last time; `null` without a probe.
    pub gateway_answers: Option<bool>,
    /// How often it was started again.
    pub gateway_restarts: u32,
    /// What is wrong, in words; empty when nothing is.
    pub problem: String,
    #[serde(skip)]
    waiting_since: Option<Instant>,
}

/// A handle to the status.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Mutex<Status>>);

impl Shared {
    /// At the start.
    #[must_use]
    pub fn new(store: String, archive: String, instance: String, state: Lifecycle) -> Self {
        Self(Arc::new(Mutex::new(Status {
            state,
            store,
            store_reachable: false,
            archive,
            instance,
            epoch: 0,
            head: None,
            files: 0,
            bytes: 0,
            sessions: BTreeMap::new(),
            lag_seconds: 0.0,
            lag_paths: Some(0),
            not_whole: 0,
            commits: 0,
            failures: 0,
            gateway_pid: None,
            gateway_answers: None,
            gateway_restarts: 0,
            problem: String::new(),
            waiting_since: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock());
    }

    /// Notes since when, and how much, is waiting.
    pub fn waiting(&self, since: Option<Instant>, paths: Option<usize>) {
        let mut status = self.lock();
        (status.waiting_since, status.lag_paths) = (since, paths);
    }

    /// It as of now.
    #[must_use]
    pub fn read(&self) -> Status {
        let mut status = self.lock().clone();
        status.lag_seconds = status
            .waiting_since
            .map_or(0.0, |since| since.elapsed().as_secs_f64());
        status
    }
}
