//! The watcher: commits each change of the session directory, keeps the lease, probes the gateway,
//! answers HTTP, and at the end saves the last byte.
//!
//! ```text
//!  inotify ─▶ Dirty ─(quiet 50 ms / at most 200 ms)─▶ Replicator::commit ─▶ store
//!  rescan ──▶   ▲                                     │ fails
//!               └───────────── put back ◀─────────────┘   (outage: retry, lag grows, gateway runs on)
//!  init ─ lifecycle, flush ─▶        ─▶ ready, gateway_ready, flushed,
//!                                       lease_lost, lease_ending, takeover_requested
//! ```
//!
//! One commit is in flight at a time; what changes meanwhile joins the next. With nothing dirty,
//! nothing is written to the store but the lease.

mod committed_index;
mod databases;
pub mod dirty;
mod everywhere;
mod excluded;
mod files;
mod flush;
mod form_gate;
mod freeze_pacing;
mod fs_events;
mod gateway;
mod gather;
mod gathered;
mod guard;
mod hot_files;
mod large;
mod logins;
mod metadata;
mod mounts;
mod one_moment;
mod outcome;
mod passed_over;
mod probe;
mod read_ahead;
mod refused;
mod remade;
mod replicator;
mod sets;
mod shape;
mod shown;
mod signs_of_life;
mod silent_changes;
mod step;
#[cfg(test)]
mod tests;
mod unsaved;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep_until;
use tracing::warn;

use crate::config::Settings;
use crate::ownership::{LeaseKeeper, events};
use crate::status::Shared;
use sessionkeep_archive::store::Store;
use sessionkeep_core::control::{ToInit, ToWatcher};
use sessionkeep_core::exit;
use sessionkeep_core::memory::give_back;
use sessionkeep_core::record::InstanceId;
use sessionkeep_core::state_dir::StateDir;
use sessionkeep_session::{Directory, Events, FsEvent};

pub use crate::channel::Link;
use committed_index::CommittedIndex;
use dirty::{Dirty, Work};
use fs_events::FsEvents;
use gateway::{next_answer, note_answer, note_lifecycle};
use guard::Refusal;
use logins::Logins;
use probe::Probe;
use replicator::Replicator;
use signs_of_life::SignsOfLife;

/// How long the kernel's notices are left alone where they tell of nothing but databases that are
/// known to be written: their snapshots are further apart, and who writes all the time would
/// otherwise wake the watcher each time. Another file that changes meanwhile is heard of that much later.
const FS_EVENTS_PAUSE: Duration = Duration::from_millis(80);

/// How long after the last commit memory is given back that it needed and waiting does not.
const REST: Duration = Duration::from_secs(5);

/// How the watcher ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Flushed, or told that there is nothing to do any more.
    Done,
    /// The final flush failed.
    FlushFailed,
    /// Another instance owns the session.
    Fenced,
}

impl End {
    /// The exit code that says so.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::FlushFailed => exit::FLUSH_FAILED,
            Self::Fenced => exit::FENCED,
        }
    }
}

/// Replicates until init says to flush, or until another instance owns the session.
///
/// # Errors
/// If the session directory cannot be opened at all.
pub async fn watch(
    settings: &Settings,
    state: StateDir,
    store: Arc<dyn Store>,
    instance: InstanceId,
    mut link: Link,
    shared: Shared,
) -> std::io::Result<End> {
    let signs_of_life = SignsOfLife::default();
    signs_of_life.start(settings, &shared, link.take_signs_of_life());
    let broken_flush = link.broken_flush;
    let directory = Directory::open(&settings.dir, settings.profile.files())?;
    let events = Events::new();
    let fd = events.fd().map(|fd| fd.try_clone_to_owned());
    let fs_events = FsEvents::new(fd.transpose()?)?;
    let events = Arc::new(Mutex::new(events));
    let index = CommittedIndex::new(directory.clone(), state.clone(), events.clone())
        .freezing(settings.sync.freeze);
    let mut watcher = Watcher {
        settings: settings.clone(),
        state,
        store: store.clone(),
        replicator: Replicator::new(
            settings.clone(),
            store,
            instance,
            index,
            signs_of_life.clone(),
        ),
        directory,
        events,
        dirty: Dirty::default(),
        link,
        signs_of_life,
        pending: None,
        look_again: false,
        shared,
        failures: 0,
        blocked_until: None,
        outage: None,
        unready: None,
        broken_flush,
        announced: false,
        mending: false,
        probe: None,
        lease_ends: events::Ends::default(),
        logins: Logins::default(),
        refusal: None,
    };
    watcher.dirty.add(Work::everything(), Instant::now());
    let end = watcher.run(fs_events).await;
    watcher.store.close().await;
    Ok(end)
}

/// In file mode there is nothing to replicate: the gateway is probed, HTTP is answered, and a
/// flush is done as soon as it is asked for.
pub(crate) async fn watch_nothing(settings: &Settings, mut link: Link, shared: Shared) -> End {
    let signs_of_life = SignsOfLife::default();
    signs_of_life.start(settings, &shared, link.take_signs_of_life());
    link.send(ToInit::Ready).await;
    let mut probe: Option<Probe> = None;
    loop {
        tokio::select! {
            message = link.next() => match message {
                None => return End::Done,
                Some(ToWatcher::Flush { .. }) => {
                    link.send(ToInit::Flushed { seq: 0 }).await;
                    return End::Done;
                }
                Some(ToWatcher::Lifecycle { state, gateway_pid, restarts }) => {
                    note_lifecycle(settings, &shared, &mut probe, state, gateway_pid, restarts);
                }
                Some(ToWatcher::Stalled { how }) => signs_of_life.stalled(how, &shared),
            },
            answer = next_answer(&mut probe) => note_answer(answer, &shared, &mut link).await,
        }
    }
}

struct Watcher {
    settings: Settings,
    state: StateDir,
    store: Arc<dyn Store>,
    replicator: Replicator,
    directory: Directory,
    events: Arc<Mutex<Events>>,
    dirty: Dirty,
    link: Link,
    signs_of_life: SignsOfLife,
    /// What init said while something else was waited for; `None` in it is the channel's end.
    pending: Option<Option<ToWatcher>>,
    /// A look for damage was broken off for that, and is made up for by the next step.
    look_again: bool,
    shared: Shared,
    /// How often in a row it failed.
    failures: u32,
    /// After a failure, nothing is tried before then.
    blocked_until: Option<Instant>,
    /// Since when the store fails.
    outage: Option<Instant>,
    /// At the end: what could not be read yet, in words.
    unready: Option<String>,
    /// Whether the flush of an earlier life was ended before it could say what it came to, and that is not told.
    broken_flush: bool,
    /// Whether init knows that every change is seen.
    announced: bool,
    /// Whether the archive was found damaged, and is not committed anew yet.
    mending: bool,
    probe: Option<Probe>,
    lease_ends: events::Ends,
    logins: Logins,
    /// Why nothing may be committed, as it was last told.
    refusal: Option<Refusal>,
}

impl Watcher {
    async fn run(&mut self, mut fs_events: FsEvents) -> End {
        let mut scanned = Instant::now();
        let mut rest: Option<Instant> = None;
        loop {
            let due = self.next_step();
            let (rescan, look) = (
                scanned + self.rescan_pause(),
                self.next_look_for_silent_changes(),
            );
            let mut lease_status = self.replicator.keeper().map(LeaseKeeper::status);
            tokio::select! {
                biased;
                message = next_message(&mut self.pending, &mut self.link) => match message {
                    None => return End::Done,
                    Some(ToWatcher::Flush { deadline }) => return self.flush(deadline).await,
                    Some(ToWatcher::Stalled { how }) => self.signs_of_life.stalled(how, &self.shared),
                    Some(ToWatcher::Lifecycle { state, gateway_pid, restarts }) => {
                        note_lifecycle(&self.settings, &self.shared, &mut self.probe, state, gateway_pid, restarts);
                        if let Some(index) = self.replicator.index() {
                            index.set_gateway(gateway_pid);
                        }
                    }
                },
                ended = self.lease_ends.next(&mut lease_status) => match ended {
                    events::Ended::Lost(reason) => return self.fenced(reason).await,
                    // The next step takes it again.
                    events::Ended::Gone => self.blocked_until = None,
                },
                () = fs_events.come() => {
                    let told_new = self.read_fs_events();
                    if !told_new && self.only_databases_wait() {
                        fs_events.pause(Instant::now() + FS_EVENTS_PAUSE);
                    }
                }
                () = until(Some(rescan)) => {
                    scanned = Instant::now();
                    self.dirty.add(Work::everything(), scanned);
                }
                () = until(look) => {
                    let changed = self.replicator.index().map(CommittedIndex::look_for_silent_changes);
                    self.dirty.add(changed.unwrap_or_default(), Instant::now());
                }
                () = until(due) => {
                    if let Err(reason) = self.step().await {
                        return self.fenced(reason).await;
                    }
                    rest = Some(Instant::now() + REST);
                }
                () = until(rest) => {
                    rest = None;
                    give_back();
                }
                answer = next_answer(&mut self.probe) => {
                    note_answer(answer, &self.shared, &mut self.link).await;
                }
            }
            self.shared.waiting(self.dirty.since(), self.dirty.count());
        }
    }

    /// Whether nothing but databases has changed.
    fn only_databases_wait(&mut self) -> bool {
        let index = self.replicator.index();
        index.is_some_and(|index| self.dirty.is_only(|path| index.is_database(path)))
    }

    /// Leaves alone for now what would only be found to be too soon.
    fn put_off(&mut self) {
        if let Some(index) = self.replicator.index() {
            let now = Instant::now();
            self.dirty.put_off(|path| index.too_soon(path, now));
        }
    }

    /// How long after a look at everything the next one comes.
    fn rescan_pause(&mut self) -> Duration {
        let every = self.settings.sync.rescan;
        let index = self.replicator.index();
        index.map_or(every, |index| match index.is_astray() {
            true => index.scan.short_pause(every),
            false => index.scan.pause(every),
        })
    }

    /// When it is to be looked at what may have changed without an event.
    fn next_look_for_silent_changes(&mut self) -> Option<Instant> {
        let is_attached = self.replicator.is_attached();
        let index = self.replicator.index().filter(|_| is_attached);
        index.and_then(|index| index.silent_changes.next())
    }

    /// When something is to be done next.
    fn next_step(&self) -> Option<Instant> {
        let due = if !self.replicator.is_attached()
            || self.replicator.is_pending()
            || self.replicator.lease_is_gone()
            || self.look_again
        {
            Some(Instant::now())
        } else {
            self.dirty
                .due(self.settings.sync.quiet, self.settings.sync.max_delay)
        };
        match (due, self.blocked_until) {
            (Some(due), Some(blocked)) => Some(due.max(blocked)),
            (due, _) => due,
        }
    }

    /// Takes in what the kernel has reported, and says whether that was anything new.
    fn read_fs_events(&mut self) -> bool {
        let now = Instant::now();
        let (count, waiting) = (self.dirty.count(), self.dirty.since().is_some());
        let dirty = &mut self.dirty;
        let mut gone = false;
        let read = self
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .read(&self.directory, &mut |fs_event| {
                gone |= fs_event == FsEvent::RootGone;
                dirty.fs_event(fs_event, now);
            });
        if let Err(error) = read {
            warn!(target: "sync", %error, "change notices cannot be read; looking at everything");
            self.dirty.add(Work::everything(), now);
        }
        if gone {
            warn!(target: "sync", "the session directory itself was moved or deleted");
        }
        self.put_off();
        !waiting || self.dirty.count() != count
    }
}

/// What init says next.
async fn next_message(
    pending: &mut Option<Option<ToWatcher>>,
    link: &mut Link,
) -> Option<ToWatcher> {
    match pending.take() {
        Some(message) => message,
        None => link.next().await,
    }
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}
