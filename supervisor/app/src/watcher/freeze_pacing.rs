//! Reading changed files while the gateway stands still, where it never pauses by itself.
//!
//! The gateway's processes are stopped for as long as it takes to read what they have written since
//! the files were last read: what did not change in between is not read again. That is a millisecond
//! or so, [`STILL_MAX`] in all for one version, and a hundredth of the time at most ([`next_after`]). A
//! file in the middle of whose writing the gateway was stopped is not whole; it is let go on then, and
//! stopped again.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::debug;

use super::committed_index::CommittedIndex;
use super::dirty::Work;
use super::gather::cpu_time;
use super::gathered::IndexEntry;
use super::read_ahead::{Large, ReadAhead};
use crate::config::FreezePolicy;
use sessionkeep_archive::tree::Tree;
use sessionkeep_core::entry::RelPath;
use sessionkeep_session::{Freezer, Look, ProcessFreezer, Thaw};

/// How long the gateway stands still in all for one version, from when all of it does. What is read
/// meanwhile takes as much of a core at most; on a machine without a free one it takes longer.
const STILL_MAX: Duration = Duration::from_millis(10);
/// But never longer than this for one reading.
const STILL_LIMIT: Duration = Duration::from_millis(100);
/// So often at least it is tried for a version.
const TRIES_MIN: u32 = 4;
/// How long its processes may take to come to a stop. That is a fraction of a millisecond, unless the
/// machine has no core left for them: then they stand still anyway.
const STOPPED_WITHIN: Duration = Duration::from_millis(20);
/// So few files are left to be read while the gateway stands still, where that can be reached at all.
const LITTLE: usize = 8;
const ROUNDS_MAX: u32 = 4;
/// The gateway runs for so many times as long as it was stopped for a version, before it is stopped
/// for the next.
const RUNS: u32 = 99;
/// But it is not waited longer than this for the next version, however long stopping it took: on a
/// machine that has no core left nothing of the gateway's runs anyway.
const WAITS_MAX: Duration = Duration::from_secs(1);
/// How long the gateway goes on between two tries of one version. Different ones, since its own
/// rhythm would otherwise have it stopped at the same place.
const BETWEEN: [Duration; 4] = [
    Duration::from_micros(300),
    Duration::from_micros(1100),
    Duration::from_micros(500),
    Duration::from_micros(1700),
];
/// How long changes that were not read as of one moment wait at most until that is tried again: the
/// gateway may pause by itself.
const HELD: Duration = Duration::from_millis(200);
/// After so many times in vain, changes are committed as they were read, and files that were not whole
/// any time are not waited for any more.
const IN_VAIN_MAX: u32 = 4;
/// Not remembered beyond so many.
const NEVER_WHOLE_MAX: usize = 100;
/// How long it is not tried again where it cannot help, since others write as well.
const GIVEN_UP: Duration = Duration::from_secs(60);
/// The same where there was too much to read.
const TOO_MUCH: Duration = Duration::from_secs(5);
/// What was not written for so long is not being written.
const AT_REST: Duration = Duration::from_secs(1);

/// What came of reading files while the gateway stands still.
#[derive(Debug)]
pub(super) enum FreezeOutcome {
    /// They are read.
    Read(ReadAhead),
    /// They are to be tried again then.
    NotYet(Instant),
    /// It cannot be done.
    Impossible,
}

/// When and how a gateway may be made to stand still.
#[derive(Debug)]
pub(super) struct FreezePacing {
    policy: FreezePolicy,
    gateway: Option<i32>,
    /// Not before then.
    next: Option<Instant>,
    /// It would be in vain until then.
    given_up: Option<Instant>,
    /// How often in a row it came to nothing.
    in_vain: u32,
    /// Those that were not whole each time. They may never be.
    suspects: HashSet<RelPath>,
    /// Those that never were, and are not waited for.
    never_whole: HashSet<RelPath>,
}

/// Why files could not be read.
#[derive(Debug)]
enum Failure {
    /// There is too much of it.
    TooMuch,
    /// There was so much that the kernel has dropped what it had to report, and it is too much to look for.
    Overflow,
    /// Somebody went on writing.
    OthersWrite,
    /// It took too long.
    Late,
    /// The gateway's processes could not be stopped.
    Runs(io::Error),
}

impl FreezePacing {
    /// For a gateway that is not known yet.
    pub(super) fn new(policy: FreezePolicy) -> Self {
        Self {
            policy,
            gateway: None,
            next: None,
            given_up: None,
            in_vain: 0,
            suspects: HashSet::new(),
            never_whole: HashSet::new(),
        }
    }

    /// Takes in the gateway's main process.
    pub(super) fn set_gateway(&mut self, pid: Option<i32>) {
        if self.gateway != pid {
            (self.gateway, self.given_up, self.in_vain) = (pid, None, 0);
        }
    }

    /// The gateway's main process, where it may be stopped at all.
    pub(super) fn gateway(&self) -> Option<i32> {
        self.gateway.filter(|_| self.policy == FreezePolicy::Auto)
    }

    /// Whether what was read tells by itself that somebody was writing.
    pub(super) fn is_written(&self, ahead: &ReadAhead, committed: &Tree<IndexEntry>) -> bool {
        !ahead.changing().is_empty()
            || ahead
                .torn(committed)
                .any(|(path, mtime_ns)| !self.never_whole.contains(path) && is_fresh(mtime_ns))
    }

    /// Those that are not whole, and are waited for.
    fn torn(&self, ahead: &ReadAhead, committed: &Tree<IndexEntry>) -> HashSet<RelPath> {
        let torn = ahead.torn(committed);
        torn.map(|(path, _)| path)
            .filter(|path| !self.never_whole.contains(*path))
            .cloned()
            .collect()
    }

    /// Notes that it came to nothing, which is worth another try, a few times in a row.
    fn again(&mut self, when: Instant) -> FreezeOutcome {
        self.in_vain += 1;
        if self.in_vain <= IN_VAIN_MAX {
            return FreezeOutcome::NotYet(when);
        }
        self.in_vain = 0;
        if self.never_whole.len() + self.suspects.len() > NEVER_WHOLE_MAX {
            self.never_whole.clear();
        }
        self.never_whole.extend(self.suspects.drain());
        FreezeOutcome::Impossible
    }

    /// Notes that there is no such process as the gateway's is thought to be. It was started, or ended and
    /// started anew, a moment ago, and of that it is told next; or it cannot be seen at all.
    fn unseen(&mut self, now: Instant) -> FreezeOutcome {
        match self.again(now + HELD) {
            FreezeOutcome::Impossible => self.give_up(GIVEN_UP),
            standing => standing,
        }
    }

    fn give_up(&mut self, pause: Duration) -> FreezeOutcome {
        self.given_up = Some(Instant::now() + pause);
        FreezeOutcome::Impossible
    }

    /// Notes which files were not whole, each time that it was tried for one version.
    fn was_torn(&mut self, torn: HashSet<RelPath>) {
        self.suspects = match self.in_vain {
            0 => torn,
            _ => self.suspects.intersection(&torn).cloned().collect(),
        };
    }

    /// Notes that a version came about.
    pub(super) fn was_read(&mut self) {
        (self.in_vain, self.suspects) = (0, HashSet::new());
    }
}

impl CommittedIndex {
    /// Reads `work` while the gateway stands still, with what has `moved` and what else it has changed by
    /// then, which is added to it.
    pub(super) fn read_at_a_standstill(&mut self, work: &mut Work, moved: Work) -> FreezeOutcome {
        let mut moved = Some(moved);
        let now = Instant::now();
        let is_given_up = self.freeze_pacing.given_up.is_some_and(|until| now < until);
        if self.freeze_pacing.policy == FreezePolicy::Never || is_given_up {
            return FreezeOutcome::Impossible;
        }
        let Some(gateway) = self.freeze_pacing.gateway else {
            return self.freeze_pacing.unseen(now);
        };
        if let Some(next) = self.freeze_pacing.next.filter(|next| now < *next) {
            // What has moved gave an event during the read, and is looked at then in any case.
            return FreezeOutcome::NotYet(next.min(now + HELD));
        }
        let freezer = ProcessFreezer::of_gateway(gateway).within(STOPPED_WITHIN);
        let (mut spent, mut stopped) = (Duration::ZERO, Duration::ZERO);
        let mut tries = 0;
        let mut torn_each_time: Option<HashSet<RelPath>> = None;
        let mut pauses = BETWEEN.iter().cycle();
        let read = loop {
            // Most is read before: only what changes from here on is read while the gateway waits.
            if let Some(mut moved) = moved.take() {
                if !self.list(&mut moved) {
                    break Err(Failure::Overflow);
                }
                work.add(moved);
            }
            let listed = self.list(work);
            self.drop_what_came_and_went(work);
            let ahead = ReadAhead::of(work, &self.directory, &self.files, Large::Apart);
            let Some(mut ahead) = ahead.filter(|_| listed) else {
                break Err(Failure::TooMuch);
            };
            let (tried, still) = self.read_frozen(&freezer, work, &mut ahead, &mut stopped);
            spent += still;
            tries += 1;
            if let Err(failure) = tried {
                break Err(failure);
            }
            let torn = self.freeze_pacing.torn(&ahead, &self.tree);
            if torn.is_empty() {
                let torn: HashSet<&RelPath> =
                    ahead.torn(&self.tree).map(|(path, _)| path).collect();
                let never_whole = &mut self.freeze_pacing.never_whole;
                never_whole.retain(|path| !work.paths.contains(path) || torn.contains(path));
                break Ok(Some(ahead));
            }
            torn_each_time = Some(match torn_each_time {
                Some(before) => before.intersection(&torn).cloned().collect(),
                None => torn,
            });
            if spent >= STILL_MAX && tries >= TRIES_MIN {
                break Ok(None);
            }
            std::thread::sleep(*pauses.next().expect("they never end"));
        };
        let now = Instant::now();
        let next = now + next_after(stopped);
        self.freeze_pacing.next = Some(next);
        match read {
            Ok(Some(ahead)) => {
                debug!(target: "sync", tries, still = ?spent, "gateway stood still for a version of one moment");
                self.freeze_pacing.was_read();
                FreezeOutcome::Read(ahead)
            }
            Ok(None) => {
                debug!(target: "sync", tries, still = ?spent, "a file was not whole whenever the gateway stood still");
                self.freeze_pacing
                    .was_torn(torn_each_time.unwrap_or_default());
                self.freeze_pacing.again(next.min(now + HELD))
            }
            Err(failure @ (Failure::Overflow | Failure::Late)) => {
                debug!(target: "sync", tries, still = ?spent, ?failure, "files could not be read in time while the gateway stood still");
                self.freeze_pacing.again(next.min(now + HELD))
            }
            Err(Failure::TooMuch) => {
                debug!(target: "sync", still = ?spent, "too much changes to be read while the gateway stands still");
                self.freeze_pacing.give_up(TOO_MUCH)
            }
            Err(Failure::OthersWrite) => {
                debug!(target: "sync", still = ?spent, "others than the gateway's processes write; it is not made to stand still");
                self.freeze_pacing.give_up(GIVEN_UP)
            }
            Err(Failure::Runs(error)) => {
                debug!(target: "sync", %error, "the gateway cannot be made to stand still");
                // On a busy machine it may be quicker the next time.
                match error.kind() {
                    io::ErrorKind::TimedOut => self.freeze_pacing.again(next.min(now + HELD)),
                    io::ErrorKind::NotFound => self.freeze_pacing.unseen(now),
                    _ => self.freeze_pacing.give_up(GIVEN_UP),
                }
            }
        }
    }

    /// Stops the gateway, and reads what was changed since the rest of `work` was read. Says how long
    /// all of the gateway stood still, too, and adds to `stopped` how long any of it did.
    fn read_frozen(
        &mut self,
        freezer: &ProcessFreezer,
        work: &mut Work,
        ahead: &mut ReadAhead,
        stopped: &mut Duration,
    ) -> (Result<(), Failure>, Duration) {
        let mut moved = match self.read_until_little_moves(work, ahead) {
            Ok(moved) => moved,
            Err(failure) => return (Err(failure), Duration::ZERO),
        };
        let first = Instant::now();
        let mut begun = first;
        // The guard comes first: a freeze that failed half way has stopped somebody.
        let thaw = Thaw(freezer);
        let read = freezer.freeze().map_err(Failure::Runs).and_then(|()| {
            begun = Instant::now();
            // A write is reported before its system call ends, so this is all there is.
            moved.add(self.overhear());
            self.read_moved(&mut moved, ahead, begun)
        });
        let others = match &read {
            Ok(()) => self.overhear(),
            Err(_) => Work::default(),
        };
        drop(thaw);
        let still = begun.elapsed();
        *stopped += first.elapsed();
        if !moved.everything {
            work.add(moved);
        }
        if others.is_empty() && ahead.changing().is_empty() {
            return (read, still);
        }
        if !others.everything {
            work.add(others);
        }
        (read.and(Err(Failure::OthersWrite)), still)
    }

    /// Drops names that are not there and are not committed: of a gateway that makes and deletes files
    /// without a pause there are soon thousands. Of one that comes back, an event tells.
    fn drop_what_came_and_went(&self, work: &mut Work) {
        let (tree, directory) = (&self.tree, &self.directory);
        work.paths.retain(|path| {
            tree.get(path).is_some() || !matches!(directory.look(path), Look::Absent)
        });
    }

    /// Reads what has changed while the rest was read, until that is little, or has not become less. What is
    /// left is for when the gateway stands still.
    fn read_until_little_moves(
        &mut self,
        work: &mut Work,
        ahead: &mut ReadAhead,
    ) -> Result<Work, Failure> {
        let mut moved = self.overhear();
        for _ in 0..ROUNDS_MAX {
            if moved.everything || moved.paths.len() <= LITTLE || !self.list(&mut moved) {
                break;
            }
            for path in &moved.paths {
                let fits = self.files.stands_apart(path)
                    || ahead.read(&self.directory, path, Large::Apart);
                if !fits {
                    return Err(Failure::TooMuch);
                }
            }
            work.add(moved);
            moved = self.overhear();
        }
        Ok(moved)
    }

    /// Reads what has `moved`, and what could not be read before.
    fn read_moved(
        &mut self,
        moved: &mut Work,
        ahead: &mut ReadAhead,
        begun: Instant,
    ) -> Result<(), Failure> {
        let spent = cpu_time();
        let is_overflow = moved.everything;
        if !self.list(moved) {
            return Err(match is_overflow {
                true => Failure::Overflow,
                false => Failure::TooMuch,
            });
        }
        moved.paths.extend(ahead.changing().iter().cloned());
        for path in &moved.paths {
            let fits =
                self.files.stands_apart(path) || ahead.read(&self.directory, path, Large::Apart);
            if !fits || cpu_time().saturating_sub(spent) > STILL_MAX {
                return Err(Failure::TooMuch);
            }
            if begun.elapsed() > STILL_LIMIT {
                return Err(Failure::Late);
            }
        }
        Ok(())
    }
}

/// How long the gateway runs after it was stopped for so long, until it may be stopped for the next
/// version.
fn next_after(stopped: Duration) -> Duration {
    (stopped * RUNS).min(WAITS_MAX)
}

/// Whether a file was written only just now, by its own time. One that lies in the future tells
/// nothing.
fn is_fresh(mtime_ns: i64) -> bool {
    let written =
        u64::try_from(mtime_ns).map_or(UNIX_EPOCH, |ns| UNIX_EPOCH + Duration::from_nanos(ns));
    SystemTime::now()
        .duration_since(written)
        .is_ok_and(|age| age < AT_REST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_stopped_for_a_hundredth_of_the_time_at_most() {
        let stopped = Duration::from_millis(2);
        let share = stopped.as_secs_f64() / (stopped + next_after(stopped)).as_secs_f64();
        assert!((share - 0.01).abs() < 1e-9, "{share}");
        assert_eq!(next_after(Duration::ZERO), Duration::ZERO);
        // As many as one version may take, and what a machine without a free core makes of it.
        assert!(next_after(STILL_MAX) <= WAITS_MAX);
        assert_eq!(next_after(Duration::from_secs(60)), WAITS_MAX);
    }

    #[test]
    fn a_gateway_that_is_not_known_yet_is_waited_for_and_not_for_ever() {
        let mut freeze_pacing = FreezePacing::new(FreezePolicy::Auto);
        let now = Instant::now();
        for _ in 0..IN_VAIN_MAX {
            assert!(matches!(
                freeze_pacing.unseen(now),
                FreezeOutcome::NotYet(_)
            ));
        }
        assert!(matches!(
            freeze_pacing.unseen(now),
            FreezeOutcome::Impossible
        ));
        assert!(freeze_pacing.given_up.is_some());
        // One that was started since is another matter.
        freeze_pacing.set_gateway(Some(7));
        assert!(freeze_pacing.given_up.is_none());
        assert!(matches!(
            freeze_pacing.unseen(now),
            FreezeOutcome::NotYet(_)
        ));
    }
}
