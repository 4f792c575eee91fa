//! What goes wrong: since when, in plain words, with the remedy; kept across restarts in the session
//! directory's own folder, and told to whoever is to be told.
//!
//! An incident begins once and ends once. It is known by its kind and its subject, so that noticing the
//! same trouble again changes nothing.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{info, warn};

use super::lock;
use sessionkeep_core::human::{Timestamp, Took};
use sessionkeep_core::state_dir::StateDir;

/// The file's name in `.sessionkeep/`.
const FILE: &str = "incidents.json";
/// How many are remembered.
const KEPT: usize = 50;
/// What was not told within a day is told no more: it would alarm about the past.
const TOLD_WITHIN_MS: u64 = 24 * 3600 * 1000;
/// A file that is larger than this is none of ours.
const FILE_MAX: u64 = 1 << 20;
/// The version of the file's format.
const VERSION: u32 = 1;

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentKind {
    /// Another instance took the session over.
    Fenced,
    /// Changes have been waiting to be saved for longer than `alarm.lag`.
    Lagging,
    /// The last changes before a stop could not be saved.
    FlushFailed,
    /// The gateway ends again and again.
    GatewayRestarting,
    /// A stored commit is damaged, and was passed over.
    DamagedHead,
    /// The store has lost something of what was committed, while this instance runs.
    ArchiveDamaged,
    /// The store does not answer.
    StoreUnreachable,
    /// The store answers and takes no writes.
    WritesRefused,
    /// A session that was logged in is not any more.
    LoggedOut,
    /// There is hardly any room left for the session directory.
    DiskFull,
    /// Somebody removed or replaced `.sessionkeep` while it was in use.
    StateDirReplaced,
    /// The watcher was stopped, or gave no sign of life.
    WatcherStalled,
    /// The session directory was emptied, deleted or made anew, and what it holds is not committed.
    DirectoryWiped,
    /// It was emptied or made anew, and the new login in it was committed.
    NewLogin,
    /// Something below the session directory was unmounted, or mounted over what is saved.
    MountChanged,
    /// Something of the session directory is not saved as it is, for longer than `alarm.lag`.
    NotSaved,
}

impl IncidentKind {
    /// All of them, in the order of their declaration: counters are indexed by it.
    pub const ALL: [Self; 16] = [
        Self::Fenced,
        Self::Lagging,
        Self::FlushFailed,
        Self::GatewayRestarting,
        Self::DamagedHead,
        Self::ArchiveDamaged,
        Self::StoreUnreachable,
        Self::WritesRefused,
        Self::LoggedOut,
        Self::DiskFull,
        Self::StateDirReplaced,
        Self::WatcherStalled,
        Self::DirectoryWiped,
        Self::NewLogin,
        Self::MountChanged,
        Self::NotSaved,
    ];

    /// In one word, as in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Fenced => "fenced",
            Self::Lagging => "lagging",
            Self::FlushFailed => "flush_failed",
            Self::GatewayRestarting => "gateway_restarting",
            Self::DamagedHead => "damaged_head",
            Self::ArchiveDamaged => "archive_damaged",
            Self::StoreUnreachable => "store_unreachable",
            Self::WritesRefused => "writes_refused",
            Self::LoggedOut => "logged_out",
            Self::DiskFull => "disk_full",
            Self::StateDirReplaced => "state_dir_replaced",
            Self::WatcherStalled => "watcher_stalled",
            Self::DirectoryWiped => "directory_wiped",
            Self::NewLogin => "new_login",
            Self::MountChanged => "mount_changed",
            Self::NotSaved => "not_saved",
        }
    }

    /// What is wrong, for a person.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Fenced => "This container does not own the session any more",
            Self::Lagging => "Changes are not being saved",
            Self::FlushFailed => "The last changes before a stop were not saved",
            Self::GatewayRestarting => "The gateway ends again and again",
            Self::DamagedHead => "A damaged version was found in the database",
            Self::ArchiveDamaged => "The database has lost saved data",
            Self::StoreUnreachable => "The database does not answer",
            Self::WritesRefused => "The database takes no writes",
            Self::LoggedOut => "A number was logged out",
            Self::DiskFull => "The disk is nearly full",
            Self::StateDirReplaced => "The folder .sessionkeep was removed or replaced",
            Self::WatcherStalled => "Something keeps sessionkeep's watcher from its work",
            Self::DirectoryWiped => "The session directory was wiped or replaced while in use",
            Self::NewLogin => "A new login took the place of the saved one",
            Self::MountChanged => "A part of the session folder was unmounted or covered",
            Self::NotSaved => "A file is damaged or cannot be read, and is not saved",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Fenced => {
                "Where another container has taken the session: run one for each number. If this one was to \
                 go on, stop the other: it takes the session back by itself. Where somebody ended the \
                 lease: ask who, and start this one again."
            }
            Self::Lagging => {
                "The gateway goes on, and nothing is lost as long as this disk stays. Do not restart \
                 the container; see whether the database is up and reachable, and has room."
            }
            Self::FlushFailed => {
                "Start it again on the same disk: what is whole is saved, and in place of a file that is \
                 damaged its last good version is put back. If the disk is gone, what was written last \
                 is lost. Where the time ran out, let the stop take longer (stop.total, and the host's \
                 own limit)."
            }
            Self::GatewayRestarting => {
                "Read the gateway's own lines in the log from before it ended: the cause stands there. \
                 Often it is memory (code 137) or a setting of the gateway."
            }
            Self::DamagedHead => {
                "The newest whole version was restored instead, and the login is kept. Run `sessionkeep \
                 verify`, and see whether the database lost data, such as by a full disk."
            }
            Self::ArchiveDamaged => {
                "Everything is being saved anew from the directory, and the login is kept; older versions \
                 may be gone. Find out who deletes from the database: `sessionkeep doctor` (in the Compose \
                 stack: `make doctor`) names a collection that drops what is old."
            }
            Self::StoreUnreachable => {
                "A gateway that runs goes on, and changes are kept for later; one that is to be started \
                 waits. See whether the database is running and reachable from here: `sessionkeep doctor` \
                 (in the Compose stack: `make doctor`) tells what is in the way."
            }
            Self::WritesRefused => {
                "The gateway goes on, and changes are kept for later, as long as this disk stays. Make room in \
                 the database, or raise its quota: `sessionkeep usage` says what takes the room, and \
                 `sessionkeep doctor` (in the Compose stack: `make doctor`) why writes are refused."
            }
            Self::LoggedOut => {
                "Scan the QR code with the phone: WhatsApp, Settings, Linked devices. If nobody has \
                 logged it out, look for a second device or container with the same session."
            }
            Self::DiskFull => {
                "Make room on the disk that holds the session directory. A gateway that cannot write \
                 loses its keys."
            }
            Self::StateDirReplaced => {
                "Changes are still saved. See what in the container renames or deletes \
                 .sessionkeep in the session directory: nothing but sessionkeep should touch it. Put it \
                 back, or remove what is in its place, before the next start."
            }
            Self::WatcherStalled => {
                "Look for a process in the container that sends it STOP, such as a gateway that was \
                 tampered with or a debugger. Where there is none, see whether the machine, its disk \
                 or a network file system hung."
            }
            Self::DirectoryWiped => {
                "Nothing is saved from this directory, and the last saved state is kept. Restart: the \
                 next start brings that state back, and sets aside what is in the directory. If the \
                 number was logged out, link it anew in the running gateway: a new login is saved."
            }
            Self::NewLogin => {
                "If you linked the number anew, all is well. If not, stop the gateway and restore the \
                 commit that is named here, while the history still has it: `sessionkeep log` shows it."
            }
            Self::MountChanged => {
                "Nothing is saved until it is as it was, so that what was on it is not taken for \
                 deleted. Mount it again, or unmount what covers it; a restart of the container does \
                 both where its volumes are in order."
            }
            Self::NotSaved => {
                "All else is saved, and of this file the last good version is kept. `sessionkeep status` \
                 (in the Compose stack: `make status`) lists what it is. A file that cannot be read needs its rights \
                 set; one that is damaged is put right by the next start: it sets the bad one aside, and \
                 brings back the last good version."
            }
        }
    }
}

/// One incident as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Which of all.
    pub id: String,
    /// What is wrong.
    pub kind: IncidentKind,
    /// With what: a session's name; empty where there is but one.
    #[serde(default)]
    pub subject: String,
    /// The particulars, in words.
    pub detail: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// Until when; `None` while it lasts.
    pub until_ms: Option<u64>,
    /// Whether its begin was told, and its end.
    #[serde(default)]
    pub told: (bool, bool),
}

/// One incident as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Which of all.
    pub id: String,
    /// What is wrong, in one word.
    pub kind: IncidentKind,
    /// With what.
    pub subject: String,
    /// What is wrong, for a person.
    pub title: &'static str,
    /// The particulars.
    pub detail: String,
    /// What to do.
    pub remedy: &'static str,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// Until when; `null` while it lasts.
    pub until_ms: Option<u64>,
}

impl From<&Incident> for Shown {
    fn from(of: &Incident) -> Self {
        Self {
            id: of.id.clone(),
            kind: of.kind,
            subject: of.subject.clone(),
            title: of.kind.title(),
            detail: of.detail.clone(),
            remedy: of.kind.remedy(),
            since_ms: of.since_ms,
            until_ms: of.until_ms,
        }
    }
}

/// What is told: that an incident began, or that it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It began.
    Opened,
    /// It is over.
    Closed,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    version: u32,
    /// The oldest first.
    incidents: VecDeque<Incident>,
    #[serde(skip)]
    unsaved: bool,
    /// How many have begun since this process started, by kind.
    #[serde(skip)]
    begun: [u64; IncidentKind::ALL.len()],
}

/// All incidents of late.
#[derive(Debug)]
pub struct Ledger {
    /// Where it is written down; `None` where that cannot be.
    state: Option<StateDir>,
    kept: Mutex<Kept>,
    /// Held while it is written down: two at once would write into each other's file.
    saving: Mutex<()>,
    changed: watch::Sender<()>,
}

impl Ledger {
    /// With what was kept in `state`. A file that cannot be read is left out of account: it holds nothing
    /// that anything depends on.
    #[must_use]
    pub fn open(state: Option<StateDir>) -> Self {
        let read = state
            .as_ref()
            .and_then(|state| state.read(FILE, FILE_MAX).ok().flatten());
        let kept = read.as_deref().and_then(decode).unwrap_or_default();
        Self {
            state,
            kept: Mutex::new(kept),
            saving: Mutex::new(()),
            changed: watch::Sender::new(()),
        }
    }

    /// An incident begins, unless it lasts already.
    pub fn begin(&self, kind: IncidentKind, subject: &str, detail: &str) {
        let mut kept = lock(&self.kept);
        let lasts = |incident: &Incident| {
            incident.until_ms.is_none() && incident.kind == kind && incident.subject == subject
        };
        if kept.incidents.iter().any(lasts) {
            return;
        }
        let now = Timestamp::now().0;
        let mut number = [0; 4];
        // Only so that two of one millisecond differ.
        let _ = getrandom::fill(&mut number);
        kept.incidents.push_back(Incident {
            id: format!("{now:013}-{}", hex::encode(number)),
            kind,
            subject: subject.to_owned(),
            detail: detail.to_owned(),
            since_ms: now,
            until_ms: None,
            told: (false, false),
        });
        if kept.incidents.len() > KEPT {
            kept.incidents.pop_front();
        }
        kept.begun[kind as usize] += 1;
        kept.unsaved = true;
        drop(kept);
        warn!(target: "incident", kind = kind.word(), subject, detail, remedy = kind.remedy(), "{}", kind.title());
        self.changed.send_replace(());
    }

    /// An incident is over, if it lasts.
    pub fn end(&self, kind: IncidentKind, subject: &str) {
        let mut kept = lock(&self.kept);
        let now = Timestamp::now().0;
        let mut after = None;
        for incident in &mut kept.incidents {
            if incident.until_ms.is_none() && incident.kind == kind && incident.subject == subject {
                incident.until_ms = Some(now.max(incident.since_ms));
                after = Some(now.saturating_sub(incident.since_ms));
            }
        }
        let Some(after) = after else { return };
        kept.unsaved = true;
        drop(kept);
        let after = Took(std::time::Duration::from_millis(after));
        info!(target: "incident", kind = kind.word(), subject, %after, "over: {}", kind.title());
        self.changed.send_replace(());
    }

    /// The newest first.
    #[must_use]
    pub fn shown(&self) -> Vec<Shown> {
        let kept = lock(&self.kept);
        kept.incidents.iter().rev().map(Shown::from).collect()
    }

    /// How many of this kind last, and how many have begun since this process started.
    #[must_use]
    pub fn counts(&self, kind: IncidentKind) -> (u64, u64) {
        let kept = lock(&self.kept);
        let lasts = |of: &&Incident| of.kind == kind && of.until_ms.is_none();
        let lasting = kept.incidents.iter().filter(lasts).count() as u64;
        (lasting, kept.begun[kind as usize])
    }

    /// The subjects of this kind that last.
    #[must_use]
    pub fn lasting(&self, kind: IncidentKind) -> Vec<String> {
        let kept = lock(&self.kept);
        let lasts = |of: &&Incident| of.kind == kind && of.until_ms.is_none();
        let subjects = kept.incidents.iter().filter(lasts);
        subjects.map(|of| of.subject.clone()).collect()
    }

    /// Tells of each change from now on.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether there is something to [`Ledger::save`].
    #[must_use]
    pub fn is_unsaved(&self) -> bool {
        lock(&self.kept).unsaved
    }

    /// What is to be told next.
    #[must_use]
    pub fn untold(&self) -> Option<(Incident, Phase)> {
        let kept = lock(&self.kept);
        let now = Timestamp::now().0;
        kept.incidents.iter().find_map(|incident| {
            let recent = |at: u64| now.saturating_sub(at) < TOLD_WITHIN_MS;
            match (incident.told, incident.until_ms) {
                ((false, _), _) if recent(incident.since_ms) => {
                    Some((incident.clone(), Phase::Opened))
                }
                ((true, false), Some(until)) if recent(until) => {
                    Some((incident.clone(), Phase::Closed))
                }
                _ => None,
            }
        })
    }

    /// Notes that it was told.
    pub fn told(&self, id: &str, phase: Phase) {
        let mut kept = lock(&self.kept);
        for incident in &mut kept.incidents {
            if incident.id == id {
                match phase {
                    Phase::Opened => incident.told.0 = true,
                    Phase::Closed => incident.told.1 = true,
                }
            }
        }
        kept.unsaved = true;
        drop(kept);
        self.changed.send_replace(());
    }

    /// Writes down what has changed. Blocks for as long as the disk takes.
    pub fn save(&self) {
        let _saving = lock(&self.saving);
        let bytes = {
            let mut kept = lock(&self.kept);
            if !std::mem::take(&mut kept.unsaved) {
                return;
            }
            kept.version = VERSION;
            serde_json::to_vec_pretty(&*kept).expect("incidents have string keys only")
        };
        let Some(state) = &self.state else { return };
        if let Err(error) = state.write(FILE, &bytes) {
            warn!(target: "incident", %error, "incidents cannot be written down; a restart forgets them");
        }
    }
}

fn decode(bytes: &[u8]) -> Option<Kept> {
    let mut kept: Kept = serde_json::from_slice(bytes).ok()?;
    if kept.version > VERSION {
        return None;
    }
    let surplus = kept.incidents.len().saturating_sub(KEPT);
    kept.incidents.drain(..surplus);
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incident_begins_once_and_ends_once_and_may_come_again() {
        let dir = tempfile::tempdir().expect("tempdir");
        let state = StateDir::open(dir.path()).expect("open");
        let ledger = Ledger::open(Some(state.clone()));
        ledger.begin(IncidentKind::LoggedOut, "a", "x");
        ledger.begin(IncidentKind::LoggedOut, "a", "y");
        ledger.begin(IncidentKind::LoggedOut, "b", "x");
        assert_eq!(ledger.counts(IncidentKind::LoggedOut), (2, 2));
        ledger.end(IncidentKind::LoggedOut, "a");
        ledger.end(IncidentKind::LoggedOut, "a");
        ledger.end(IncidentKind::Fenced, "");
        assert_eq!(ledger.lasting(IncidentKind::LoggedOut), ["b"]);
        ledger.begin(IncidentKind::LoggedOut, "a", "again");
        let shown = ledger.shown();
        assert_eq!((shown.len(), shown[0].detail.as_str()), (3, "again"));
    }

    #[test]
    fn what_was_not_told_is_told_by_the_next_process_and_only_once() {
        let dir = tempfile::tempdir().expect("tempdir");
        let state = StateDir::open(dir.path()).expect("open");
        let ledger = Ledger::open(Some(state.clone()));
        ledger.begin(IncidentKind::FlushFailed, "", "no answer");
        let (first, phase) = ledger.untold().expect("its begin");
        assert_eq!(phase, Phase::Opened);
        ledger.end(IncidentKind::FlushFailed, "");
        ledger.save();
        let next = Ledger::open(Some(state.clone()));
        assert_eq!(next.untold().expect("still").0.id, first.id);
        next.told(&first.id, Phase::Opened);
        let (again, phase) = next.untold().expect("its end");
        assert_eq!(
            (again.id.as_str(), phase),
            (first.id.as_str(), Phase::Closed)
        );
        next.told(&first.id, Phase::Closed);
        next.save();
        assert_eq!(Ledger::open(Some(state.clone())).untold(), None);
        assert_eq!(Ledger::open(Some(state.clone())).shown(), next.shown());
    }

    #[test]
    fn old_news_is_not_told_and_a_foreign_file_is_passed_over() {
        let dir = tempfile::tempdir().expect("tempdir");
        let state = StateDir::open(dir.path()).expect("open");
        let ledger = Ledger::open(Some(state.clone()));
        ledger.begin(IncidentKind::Lagging, "", "x");
        lock(&ledger.kept).incidents[0].since_ms -= TOLD_WITHIN_MS + 1;
        assert_eq!(ledger.untold(), None);
        ledger.save();
        for foreign in [&b"{"[..], b"[]", b"{\"version\":99,\"incidents\":[]}"] {
            state.write(FILE, foreign).expect("write");
            assert!(Ledger::open(Some(state.clone())).shown().is_empty());
        }
    }

    #[test]
    fn the_number_of_those_that_are_kept_is_bounded() {
        let dir = tempfile::tempdir().expect("tempdir");
        let state = StateDir::open(dir.path()).expect("open");
        let ledger = Ledger::open(Some(state.clone()));
        for n in 0..KEPT * 2 {
            ledger.begin(IncidentKind::LoggedOut, &n.to_string(), "x");
        }
        assert_eq!(ledger.shown().len(), KEPT);
    }
}
