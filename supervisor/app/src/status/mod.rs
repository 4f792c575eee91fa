//! What a life shows of itself: one value, kept current by whoever is at work (the restorer, then the
//! watcher), read by HTTP.
//!
//! Everything here is memory and words. Asking the gateway, telling webhooks and answering requests
//! are for `service_thread`.

mod checks;
mod disk;
mod history;
pub mod incidents;
mod last_run;
mod meters;
mod minutes;
mod sessions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::Settings;
use crate::gateway::ProfileName;
use crate::progress::{Progress, Reading};
use sessionkeep_core::control::Lifecycle;
use sessionkeep_core::human::Timestamp;
use sessionkeep_core::record::Header;
use sessionkeep_core::state_dir::StateDir;

pub use checks::{Check, CheckState, Checks, HealthVerdict};
pub use disk::Disk;
pub use history::Sample;
pub use last_run::LastRun;
pub use meters::{ErrorKind, Meters};
pub use minutes::ShownMinute;
pub use sessions::{ShownSession, group, session_of, still_told};

use history::History;
use incidents::{IncidentKind, Ledger, Shown};

/// How many of the newest commits are shown.
const RECENT: usize = 20;
/// An outage of the store that lasts for so long is an incident; a server that is started again is not.
const OUTAGE_TOLD: Duration = Duration::from_secs(5);

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

/// How this life stands to the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lease {
    /// There is none: file mode, or none was taken yet.
    None,
    /// This life holds it.
    Held,
    /// Another instance holds it, and this one waits.
    Waiting,
    /// Another instance has taken it.
    Lost,
}

/// How this life stands.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The program's version.
    pub version: &'static str,
    /// When this was read, in milliseconds since 1970.
    pub time_ms: u64,
    /// When the process that answers was started.
    pub started_ms: u64,
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
    /// How it stands to the lease.
    pub lease: Lease,
    /// The lease's epoch; 0 while there is none.
    pub epoch: u64,
    /// The last commit.
    pub head: Option<ShownCommit>,
    /// The newest commits of this process, the newest first.
    pub recent: VecDeque<ShownCommit>,
    /// The same minute by minute, the newest first.
    pub minutes: VecDeque<ShownMinute>,
    /// Files of the committed tree.
    pub files: u64,
    /// Bytes of the committed tree.
    pub bytes: u64,
    /// What the committed tree holds, session by session.
    pub sessions: BTreeMap<String, ShownSession>,
    /// Why the gateway's own word on its sessions is missing; empty where it is not.
    pub sessions_problem: String,
    /// Since when changes are waiting to be committed, in seconds; 0 when everything is saved.
    pub lag_seconds: f64,
    /// How many paths are waiting; `null` where everything is to be looked at.
    pub lag_paths: Option<usize>,
    /// Files that are torn or damaged on disk; their last good version is what is stored.
    pub not_whole: u64,
    /// Entries that are not saved as they are: those, and what cannot be read.
    pub unsaved: u64,
    /// The first of them.
    pub unsaved_paths: Vec<ShownUnsaved>,
    /// Entries that the profile leaves out of what is saved; a directory counts once.
    pub excluded: u64,
    /// Commits since the watcher started.
    pub commits: u64,
    /// Attempts that failed since the watcher started.
    pub failures: u64,
    /// Whose files they are.
    pub profile: ProfileName,
    /// The port on which the gateway answers its probe; `null` without a probe.
    pub gateway_port: Option<u16>,
    /// The gateway's main process.
    pub gateway_pid: Option<i32>,
    /// When that was started, in milliseconds since 1970.
    pub gateway_started_ms: Option<u64>,
    /// Whether its probe answered last time; `null` without a probe.
    pub gateway_answers: Option<bool>,
    /// How often it was started again.
    pub gateway_restarts: u32,
    /// How far a restore has come, while one is under way.
    pub restore: Option<Reading>,
    /// Room on the disk, once it was looked at.
    pub disk: Option<Disk>,
    /// What went wrong lately, the newest first.
    pub incidents: Vec<Shown>,
    /// What is wrong, in words; empty when nothing is.
    pub problem: String,
    #[serde(skip)]
    waiting_since: Option<Instant>,
    #[serde(skip)]
    unsaved_since: Option<Instant>,
    #[serde(skip)]
    lag_limit: Duration,
}

/// Something that is not saved as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownUnsaved {
    /// Below the session directory.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

impl Status {
    /// Whether the directory itself is the storage.
    #[must_use]
    pub fn is_file_mode(&self) -> bool {
        self.store == "none"
    }

    /// Whether a commit was made, nothing has changed since, and nothing was kept out of it.
    #[must_use]
    pub fn is_saved(&self) -> bool {
        self.lag_seconds <= 0.0 && self.unsaved == 0
    }

    /// What is not saved as it is, in words: the first of it and why, and how many more there are. `None`
    /// where all is.
    #[must_use]
    pub fn unsaved_words(&self) -> Option<String> {
        let first = self.unsaved_paths.first()?;
        let words = format!("not saved as it is: {} ({})", first.path, first.why);
        Some(match self.unsaved.saturating_sub(1) {
            0 => words,
            more => format!("{words}, and {more} more"),
        })
    }

    /// For how long something is not saved as it is.
    #[must_use]
    pub fn unsaved_for(&self) -> Duration {
        self.unsaved_since
            .map_or(Duration::ZERO, |since| since.elapsed())
    }
}

#[derive(Debug)]
struct Inner {
    status: Mutex<Status>,
    history: Mutex<History>,
    ledger: Ledger,
    meters: Meters,
    progress: Mutex<Option<Progress>>,
    past: LastRun,
}

/// A handle to the status.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Inner>);

fn gateway_port(settings: &Settings) -> Option<u16> {
    let probe: hyper::Uri = settings.gateway.probe.as_ref()?.parse().ok()?;
    probe.port_u16().or(match probe.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// At the start of the life `instance`, with its archive in `store`. What is to outlast the process
    /// is written down in `own`, our own directory.
    #[must_use]
    pub fn new(
        settings: &Settings,
        own: Option<StateDir>,
        store: String,
        instance: String,
        state: Lifecycle,
    ) -> Self {
        let past = own.as_ref().map(LastRun::read).unwrap_or_default();
        let status = Status {
            version: env!("CARGO_PKG_VERSION"),
            time_ms: 0,
            started_ms: Timestamp::now().0,
            state,
            store,
            store_reachable: false,
            archive: settings.archive.to_string(),
            instance,
            lease: Lease::None,
            epoch: 0,
            head: None,
            recent: VecDeque::new(),
            minutes: VecDeque::new(),
            profile: settings.profile,
            gateway_port: gateway_port(settings),
            files: 0,
            bytes: 0,
            sessions: BTreeMap::new(),
            sessions_problem: String::new(),
            lag_seconds: 0.0,
            lag_paths: Some(0),
            not_whole: 0,
            unsaved: 0,
            unsaved_paths: Vec::new(),
            excluded: 0,
            commits: 0,
            failures: 0,
            gateway_pid: None,
            gateway_started_ms: None,
            gateway_answers: None,
            gateway_restarts: 0,
            restore: None,
            disk: None,
            incidents: Vec::new(),
            problem: String::new(),
            waiting_since: None,
            unsaved_since: None,
            lag_limit: settings.alarm.lag,
        };
        Self(Arc::new(Inner {
            status: Mutex::new(status),
            history: Mutex::new(History::default()),
            ledger: Ledger::open(own),
            meters: Meters::default(),
            progress: Mutex::new(None),
            past,
        }))
    }

    /// Changes it.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut lock(&self.0.status));
    }

    /// The sessions that are shown of which something is committed.
    #[must_use]
    pub fn session_keys(&self) -> BTreeSet<String> {
        let status = lock(&self.0.status);
        let saved = status.sessions.iter().filter(|(_, of)| of.files > 0);
        saved.map(|(key, _)| key.clone()).collect()
    }

    /// Notes since when, and how much, is waiting.
    pub fn waiting(&self, since: Option<Instant>, paths: Option<usize>) {
        let mut status = lock(&self.0.status);
        (status.waiting_since, status.lag_paths) = (since, paths);
    }

    /// Notes how many entries are not saved as they are, and which are the first.
    pub fn unsaved(&self, count: u64, first: Vec<ShownUnsaved>) {
        let mut status = lock(&self.0.status);
        status.unsaved_since = match count {
            0 => None,
            _ => status.unsaved_since.or_else(|| Some(Instant::now())),
        };
        (status.unsaved, status.unsaved_paths) = (count, first);
    }

    /// Notes a commit that took so long, and whose oldest change had been waiting for `lag`.
    pub fn committed(&self, commit: &ShownCommit, took: Duration, lag: Duration) {
        let mut status = lock(&self.0.status);
        status.commits += 1;
        status.recent.push_front(commit.clone());
        status.recent.truncate(RECENT);
        minutes::add(&mut status.minutes, commit);
        drop(status);
        lock(&self.0.history).committed(commit, lag);
        self.0.meters.committed(commit, took);
    }

    /// Notes how long changes have been waiting by now, for the chart.
    pub fn sample(&self) {
        let lag = self.lag();
        lock(&self.0.history).lag(Timestamp::now().0, lag);
    }

    /// How long changes have been waiting.
    #[must_use]
    pub fn lag(&self) -> Duration {
        let since = lock(&self.0.status).waiting_since;
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Shows how far this has come, from now on.
    pub fn follow(&self, progress: &Progress) {
        *lock(&self.0.progress) = Some(progress.clone());
    }

    /// Notes that something is wrong, unless that is known.
    pub fn incident(&self, kind: IncidentKind, subject: &str, detail: &str) {
        self.0.ledger.begin(kind, subject, detail);
    }

    /// Notes that it is over, if it was wrong at all.
    pub fn over(&self, kind: IncidentKind, subject: &str) {
        self.0.ledger.end(kind, subject);
    }

    /// Notes that the store has not answered for so long, and what comes of it.
    pub fn store_is_silent(&self, silent: Duration, problem: String) {
        if silent >= OUTAGE_TOLD {
            self.incident(IncidentKind::StoreUnreachable, "", &problem);
        }
        self.update(|status| (status.store_reachable, status.problem) = (false, problem));
    }

    /// Notes that the store answers and takes no writes, and why.
    pub fn store_takes_no_writes(&self, problem: String) {
        self.incident(IncidentKind::WritesRefused, "", &problem);
        self.over(IncidentKind::StoreUnreachable, "");
        self.update(|status| (status.store_reachable, status.problem) = (false, problem));
    }

    /// Notes that the store answers, and takes writes.
    pub fn store_answers(&self) {
        self.over(IncidentKind::StoreUnreachable, "");
        self.over(IncidentKind::WritesRefused, "");
        self.update(|status| {
            status.store_reachable = true;
            status.problem.clear();
        });
    }

    /// What went wrong, and who is to be told.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// Counters.
    #[must_use]
    pub fn meters(&self) -> &Meters {
        &self.0.meters
    }

    /// What was known of earlier processes when this one started.
    #[must_use]
    pub fn past(&self) -> LastRun {
        self.0.past
    }

    /// The last hour, the oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<Sample> {
        lock(&self.0.history).samples(Timestamp::now().0)
    }

    /// It as of now.
    #[must_use]
    pub fn read(&self) -> Status {
        let mut status = lock(&self.0.status).clone();
        status.time_ms = Timestamp::now().0;
        status.lag_seconds = status
            .waiting_since
            .map_or(0.0, |since| since.elapsed().as_secs_f64());
        status.restore = lock(&self.0.progress)
            .as_ref()
            .map(Progress::read)
            .filter(|reading| reading.files_total > 0);
        status.incidents = self.0.ledger.shown();
        status
    }

    /// What all that comes to.
    #[must_use]
    pub fn checks(&self) -> Checks {
        Checks::of(&self.read())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Written down nowhere.
    pub(crate) fn shared() -> Shared {
        let settings = crate::config::defaults();
        Shared::new(
            &settings,
            None,
            "sqlite".into(),
            "host-1".into(),
            Lifecycle::Running,
        )
    }

    #[test]
    fn lag_and_progress_are_as_of_the_moment_of_reading() {
        let shared = shared();
        assert!(shared.read().is_saved());
        let since = Instant::now().checked_sub(Duration::from_secs(2));
        shared.waiting(since, Some(1));
        assert!(shared.read().lag_seconds >= 2.0);
        assert!(shared.lag() >= Duration::from_secs(2));
        shared.waiting(None, Some(0));
        assert!(shared.read().is_saved());
        let torn = ShownUnsaved {
            path: "creds.json".into(),
            why: "torn".into(),
        };
        shared.unsaved(3, vec![torn]);
        assert!(!shared.read().is_saved());
        let words = "not saved as it is: creds.json (torn), and 2 more";
        assert_eq!(shared.read().unsaved_words().as_deref(), Some(words));
        shared.unsaved(0, Vec::new());
        assert_eq!(shared.read().unsaved_words(), None);
        let progress = Progress::default();
        shared.follow(&progress);
        assert_eq!(shared.read().restore, None);
        progress.begin(10, 100);
        progress.add(1, 5);
        let reading = shared.read().restore.expect("under way");
        assert_eq!(
            (reading.files, reading.bytes, reading.files_total),
            (1, 5, 10)
        );
    }

    #[test]
    fn the_newest_commits_come_first_and_their_number_is_bounded() {
        let shared = shared();
        for seq in 1..=100 {
            let commit = ShownCommit {
                seq,
                time_ms: seq,
                changes: 1,
                bytes: 1,
            };
            shared.committed(&commit, Duration::ZERO, Duration::ZERO);
        }
        let status = shared.read();
        assert_eq!((status.recent.len(), status.recent[0].seq), (RECENT, 100));
        assert_eq!(status.commits, 100);
    }
}
