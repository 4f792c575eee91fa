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

mod databases;
pub mod dirty;
mod everywhere;
mod excluded;
mod files;
mod flush;
mod form_gate;
mod gateway;
mod gather;
mod gathered;
mod guard;
mod hints;
mod large;
mod lease;
pub mod link;
mod logins;
mod metadata;
mod mounts;
mod one_moment;
mod outcome;
mod passed_over;
mod probe;
mod pulse;
mod read_ahead;
mod refused;
mod remade;
mod replica;
mod replicator;
mod restless;
mod sets;
mod shape;
mod standstill;
#[cfg(test)]
mod tests;
mod unheard;
mod unsaved;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep_until;
use tracing::{error, info, warn};

use crate::config::Settings;
use crate::control::{Lifecycle, ToInit, ToWatcher};
use crate::exit;
use crate::human::{Chain, Took};
use crate::memory::give_back;
use crate::session::{Directory, Events, Hint, Presence, Profile, StateDir};
use crate::status::incidents::Kind;
use crate::status::{self, ErrorKind, Past, Shared, ShownCommit};
use crate::store::keeper::LeaseKeeper;
use crate::store::retry::Backoff;
use crate::store::{InstanceId, Store};

use dirty::{Dirty, Work};
use gateway::{next_answer, note_answer, note_lifecycle};
use gathered::Pass;
use guard::Refusal;
use hints::Hints;
use link::Link;
use logins::Logins;
use probe::Probe;
use pulse::Pulse;
use replica::Replica;
use replicator::{Committed, OUTAGE_POLL_MAX, Replicator, StepError};

/// How long the kernel's notices are left alone where they tell of nothing but databases that are
/// known to be written: their snapshots are further apart, and who writes all the time would
/// otherwise wake the watcher each time. Another file that changes meanwhile is heard of that much later.
const HINTS_PAUSE: Duration = Duration::from_millis(80);

/// With so many files it is listed after each commit what each session holds; with more, when
/// everything is looked at and when a session is new.
const LISTED_MAX: u64 = 2000;

/// How long after the archive was found damaged it is committed anew.
const MEND_PAUSE: Duration = Duration::from_millis(500);

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
    let pulse = Pulse::default();
    pulse.start(settings, &shared, link.take_pulse());
    let broken_flush = link.broken_flush;
    let directory = Directory::open(&settings.dir, Profile::new(settings.profile))?;
    let events = Events::new();
    let fd = events.fd().map(|fd| fd.try_clone_to_owned());
    let hints = Hints::new(fd.transpose()?)?;
    let events = Arc::new(Mutex::new(events));
    let replica = Replica::new(directory.clone(), state.clone(), events.clone())
        .freezing(settings.sync.freeze);
    let mut watcher = Watcher {
        settings: settings.clone(),
        state,
        store: store.clone(),
        replicator: Replicator::new(settings.clone(), store, instance, replica, pulse.clone()),
        directory,
        events,
        dirty: Dirty::default(),
        link,
        pulse,
        unheard: None,
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
        lease_ends: lease::Ends::default(),
        logins: Logins::default(),
        refusal: None,
    };
    watcher.dirty.add(Work::everything(), Instant::now());
    let end = watcher.run(hints).await;
    watcher.store.close().await;
    Ok(end)
}

/// In file mode there is nothing to replicate: the gateway is probed, HTTP is answered, and a
/// flush is done as soon as it is asked for.
pub async fn watch_nothing(settings: &Settings, mut link: Link, shared: Shared) -> End {
    let pulse = Pulse::default();
    pulse.start(settings, &shared, link.take_pulse());
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
                Some(ToWatcher::Stalled { how }) => pulse.stalled(how, &shared),
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
    pulse: Pulse,
    /// What init said while something else was waited for; `None` in it is the channel's end.
    unheard: Option<Option<ToWatcher>>,
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
    lease_ends: lease::Ends,
    logins: Logins,
    /// Why nothing may be committed, as it was last told.
    refusal: Option<Refusal>,
}

impl Watcher {
    async fn run(&mut self, mut hints: Hints) -> End {
        let mut scanned = Instant::now();
        let mut rest: Option<Instant> = None;
        loop {
            let due = self.next_step();
            let (rescan, unheard) = (scanned + self.rescan_pause(), self.unheard());
            let mut standing = self.replicator.keeper().map(LeaseKeeper::standing);
            tokio::select! {
                biased;
                message = next_message(&mut self.unheard, &mut self.link) => match message {
                    None => return End::Done,
                    Some(ToWatcher::Flush { deadline }) => return self.flush(deadline).await,
                    Some(ToWatcher::Stalled { how }) => self.pulse.stalled(how, &self.shared),
                    Some(ToWatcher::Lifecycle { state, gateway_pid, restarts }) => {
                        note_lifecycle(&self.settings, &self.shared, &mut self.probe, state, gateway_pid, restarts);
                        if let Some(replica) = self.replicator.replica() {
                            replica.set_gateway(gateway_pid);
                        }
                    }
                },
                ended = self.lease_ends.next(&mut standing) => match ended {
                    lease::Ended::Lost(reason) => return self.fenced(reason).await,
                    // The next step takes it again.
                    lease::Ended::Gone => self.blocked_until = None,
                },
                () = hints.come() => {
                    let told_new = self.read_hints();
                    if !told_new && self.only_databases_wait() {
                        hints.pause(Instant::now() + HINTS_PAUSE);
                    }
                }
                () = until(Some(rescan)) => {
                    scanned = Instant::now();
                    self.dirty.add(Work::everything(), scanned);
                }
                () = until(unheard) => {
                    let changed = self.replicator.replica().map(Replica::look_at_unheard);
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
        let replica = self.replicator.replica();
        replica.is_some_and(|replica| self.dirty.is_only(|path| replica.is_database(path)))
    }

    /// Leaves alone for now what would only be found to be too soon.
    fn put_off(&mut self) {
        if let Some(replica) = self.replicator.replica() {
            let now = Instant::now();
            self.dirty.put_off(|path| replica.too_soon(path, now));
        }
    }

    /// How long after a look at everything the next one comes.
    fn rescan_pause(&mut self) -> Duration {
        let every = self.settings.sync.rescan;
        let replica = self.replicator.replica();
        replica.map_or(every, |replica| match replica.is_astray() {
            true => replica.scan.short_pause(every),
            false => replica.scan.pause(every),
        })
    }

    /// When it is to be looked at what may have changed without an event.
    fn unheard(&mut self) -> Option<Instant> {
        let is_attached = self.replicator.is_attached();
        let replica = self.replicator.replica().filter(|_| is_attached);
        replica.and_then(|replica| replica.unheard.next())
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
    fn read_hints(&mut self) -> bool {
        let now = Instant::now();
        let (count, waiting) = (self.dirty.count(), self.dirty.since().is_some());
        let dirty = &mut self.dirty;
        let mut gone = false;
        let read = self
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .read(&self.directory, &mut |hint| {
                gone |= hint == Hint::RootGone;
                dirty.hint(hint, now);
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

    /// Whether our own directory is still where it was; what it holds is held open in any case.
    fn look_after_state(&self) {
        let what = match self.state.presence() {
            Presence::InPlace => return self.shared.over(Kind::StateDirReplaced, ""),
            // Of one that is gone altogether something else is told.
            Presence::Gone if !self.directory.is_intact() => return,
            Presence::Gone => "removed or renamed",
            Presence::Replaced => "replaced by something else",
        };
        let path = self.state.path();
        let detail = format!("{} was {what} while it was in use", path.display());
        self.shared.incident(Kind::StateDirReplaced, "", &detail);
    }

    /// Attaches, or commits what is due. `Err`: fenced, with the reason.
    async fn step(&mut self) -> Result<(), String> {
        if !self.replicator.is_attached() {
            match self.replicator.attach().await {
                Ok(()) => {
                    self.recovered();
                    self.dirty.add(Work::everything(), Instant::now());
                    let epoch = self.replicator.epoch();
                    self.shared.update(|status| {
                        (status.epoch, status.lease) = (epoch, status::Lease::Held);
                    });
                    self.shared.over(Kind::Fenced, "");
                    self.tell_of_damage();
                }
                Err(error) => return self.failed(error),
            }
        } else if self.replicator.lease_is_gone() {
            let taken = self.replicator.take_lease_again().await;
            let epoch = self.replicator.epoch();
            self.shared.update(|status| status.epoch = epoch);
            if let Err(error) = taken {
                return self.failed(error);
            }
        }
        self.look_after_state();
        // Events may have come since the last look: they join this commit.
        self.read_hints();
        let (work, since) = self.dirty.take(Instant::now());
        let idle = self.outage.is_none() && !self.replicator.is_pending() && !self.look_again;
        if work.is_empty() && idle {
            return Ok(());
        }
        let outcome = self.replicator.commit(work.clone(), Pass::Live).await;
        if let Some(replica) = self.replicator.replica() {
            let overheard = replica.take_overheard();
            self.dirty.add(overheard, Instant::now());
            self.put_off();
        }
        self.note_followed().await;
        let mut committed = match outcome {
            Ok(committed) => committed,
            Err(error) => {
                self.dirty.put_back(work, since);
                return self.failed(error);
            }
        };
        self.recovered();
        if let Some(refusal) = &committed.refused {
            self.refused(refusal);
            self.dirty.put_back(work, since);
            return Ok(());
        }
        self.accepted();
        self.blocked_until = None;
        for (path, when) in &committed.later {
            self.dirty.look_later(path.clone(), *when, since);
        }
        self.show(&committed, work.everything, since);
        let is_delayed = committed.delayed.is_some();
        if let Some(delayed) = committed.delayed.take() {
            self.dirty.put_back(delayed.work, since);
            self.blocked_until = Some(delayed.until);
        }
        if !self.announced && !is_delayed {
            self.announced = true;
            info!(target: "sync", "ready for changes");
            if std::mem::take(&mut self.broken_flush) {
                Past::forget_broken_flush(&self.state);
                let detail = "it was ended before it could say what it came to";
                self.shared.incident(Kind::FlushFailed, "", detail);
            }
            // Whatever was damaged before is passed over, and lies in the store anew.
            self.shared.over(Kind::DamagedHead, "");
            self.shared.over(Kind::DirectoryWiped, "");
            if !self.mending {
                self.shared.over(Kind::ArchiveDamaged, "");
            }
            self.link.send(ToInit::Ready).await;
        }
        if work.everything && committed.is_whole() {
            // What a stop before left unsaved is in the store now, all of it.
            self.shared.over(Kind::FlushFailed, "");
        }
        if committed.header.is_some() {
            self.mended();
        }
        let mut kept = self.replicator.keep_short().await;
        if kept.is_ok() && (self.replicator.look_is_due() || self.look_again) {
            self.look_again = false;
            kept = tokio::select! {
                looked = self.replicator.look_for_damage() => looked,
                // Whatever init has to say does not wait for a store that may be silent. It only looks,
                // and looks again at the next step, which comes at once.
                message = next_message(&mut self.unheard, &mut self.link) => {
                    self.unheard = Some(message);
                    self.look_again = true;
                    Ok(())
                }
            };
        }
        match kept {
            Ok(()) => Ok(()),
            Err(error) => self.failed(error),
        }
    }

    /// Notes an incident where the next commit lists everything anew, and looks at everything.
    fn tell_of_damage(&mut self) {
        let Some(why) = self.replicator.begins_anew() else {
            return;
        };
        self.shared.incident(Kind::ArchiveDamaged, "", why);
        self.mending = true;
        self.dirty.add(Work::everything(), Instant::now());
    }

    /// Ends the incident once everything is committed anew.
    fn mended(&mut self) {
        if self.mending && self.replicator.begins_anew().is_none() {
            self.mending = false;
            self.shared.over(Kind::ArchiveDamaged, "");
        }
    }

    /// Notes a failure. Fenced is the one that cannot be waited out.
    fn failed(&mut self, error: StepError) -> Result<(), String> {
        let refused = match &error {
            StepError::Archive(error) => error.refuses_writes(),
            StepError::Boot(error) => error.refuses_writes(),
            StepError::Fenced(_) | StepError::Damaged(_) | StepError::Refused(_) => false,
        };
        let words = match error {
            StepError::Fenced(reason) => return Err(reason),
            // Nothing to be waited for: everything is committed anew, with a pause where that comes to
            // nothing again and again.
            StepError::Damaged(_) => {
                self.tell_of_damage();
                self.blocked_until = Some(Instant::now() + MEND_PAUSE);
                return Ok(());
            }
            other => {
                let words = Chain(&other).to_string();
                if matches!(&other, StepError::Archive(error) if error.is_damage()) {
                    self.shared.incident(Kind::ArchiveDamaged, "", &words);
                }
                words
            }
        };
        let silent = self.outage.map(|since| since.elapsed());
        if silent.is_none() {
            self.outage = Some(Instant::now());
            warn!(target: "sync", error = %words, "changes cannot be saved now; the gateway goes on, and they are kept for later");
        }
        self.shared.meters().error(ErrorKind::Store);
        let problem = format!("changes cannot be saved: {words}");
        match refused {
            true => self.shared.store_takes_no_writes(problem),
            false => self
                .shared
                .store_is_silent(silent.unwrap_or_default(), problem),
        }
        self.shared.update(|status| status.failures += 1);
        self.blocked_until =
            Some(Instant::now() + Backoff::STORE.jittered(self.failures).min(OUTAGE_POLL_MAX));
        self.failures = self.failures.saturating_add(1);
        let lag = self.dirty.since();
        self.shared.waiting(lag.or(self.outage), self.dirty.count());
        Ok(())
    }

    fn recovered(&mut self) {
        self.failures = 0;
        self.blocked_until = None;
        if let Some(since) = self.outage.take() {
            info!(target: "sync", after = %Took(since.elapsed()), "changes can be saved again");
        }
        self.shared.store_answers();
    }

    fn show(&mut self, committed: &Committed, everything: bool, since: Option<Instant>) {
        let commit = committed.header.as_ref().map(ShownCommit::from);
        let current = self.replicator.head().map(ShownCommit::from);
        let profile = self.settings.profile;
        let Some(replica) = self.replicator.replica() else {
            return;
        };
        let summary = replica.summary();
        let excluded = replica.excluded.count;
        let known = self.shared.session_keys();
        let is_new = committed.sessions.iter().any(|key| !known.contains(key));
        // Walking a large tree for each small commit would cost more than the commit.
        let listed = everything || is_new || summary.files <= LISTED_MAX;
        let sessions = listed.then(|| replica.sessions(profile));
        let all_credentials = (!self.announced).then(|| replica.credentials());
        let credentials = all_credentials.as_ref().unwrap_or(&committed.credentials);
        self.logins.look(
            &self.directory,
            profile,
            credentials,
            &committed.logins,
            &self.shared,
        );
        if let Some(commit) = &commit {
            let lag = since.map_or(committed.took, |since| since.elapsed());
            self.shared.committed(commit, committed.took, lag);
        }
        if committed.not_whole > 0 {
            self.shared.meters().error(ErrorKind::NotWhole);
        }
        let (unsaved, not_whole) = (replica.unsaved.count(), replica.unsaved.not_whole());
        let unsaved_paths = replica.unsaved.shown();
        self.shared.unsaved(unsaved, unsaved_paths);
        self.shared.update(|status| {
            (status.files, status.bytes) = (summary.files, summary.bytes);
            status.not_whole = not_whole;
            if everything {
                status.excluded = excluded;
            }
            if let Some(sessions) = sessions {
                status.sessions = status::still_told(sessions, &status.sessions);
            }
            let time_ms = commit.as_ref().map_or(0, |commit| commit.time_ms);
            for key in &committed.sessions {
                if let Some(session) = status.sessions.get_mut(key) {
                    session.last_change_ms = session.last_change_ms.max(time_ms);
                }
            }
            status.head = commit.or(current);
        });
    }

    async fn fenced(&mut self, reason: String) -> End {
        error!(target: "sync", reason, "this instance does not own the session any more; stopping the gateway");
        self.shared.meters().error(ErrorKind::Fenced);
        self.shared.update(|status| {
            (status.state, status.lease) = (Lifecycle::Fenced, status::Lease::Lost);
        });
        self.shared.incident(Kind::Fenced, "", &reason);
        self.link.send(ToInit::LeaseLost { reason }).await;
        End::Fenced
    }
}

/// What init says next.
async fn next_message(
    unheard: &mut Option<Option<ToWatcher>>,
    link: &mut Link,
) -> Option<ToWatcher> {
    match unheard.take() {
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
