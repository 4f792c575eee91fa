//! Reading a database with a rollback journal while its gateway runs: without a lock, since a writer that
//! waits for none would fail, in a moment in which nobody writes; and where no such moment is found,
//! from a copy that is made while the gateway's processes stand still. See [`sessionkeep_session::unlocked`].

use std::thread::sleep;
use std::time::{Duration, Instant};

use tracing::debug;

use super::{BUSY_LIVE, Reading, Taken, Way};
use crate::watcher::outcome::{FileOutcome, Later};
use sessionkeep_core::state_dir::StateDir;
use sessionkeep_session::{Quiet, Snapshot, SnapshotError, Stillness};

/// How long a moment is waited for in which nobody writes. The last write must be older than a tick of the
/// kernel's clock, 10 ms at most.
const QUIET_WITHIN: Duration = Duration::from_millis(30);
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How often a reading is begun during which somebody may write.
const TRIES: u32 = 2;

/// How it has to be read where there was no quiet moment for it.
enum Instead {
    /// Its writer never paused: from a copy.
    Copy(Way),
    /// It has a write-ahead log, or was left half changed: through SQLite itself.
    Live,
}

impl Reading<'_> {
    /// Reads it while its writer may write: by its log or, where that is none, in no writer's way. The
    /// gateway is not held still before `next_freeze`.
    pub(super) fn beside_its_writer(
        &mut self,
        state: &StateDir,
        gateway: Option<i32>,
        next_freeze: Option<Instant>,
    ) -> Taken {
        match (self.in_a_quiet_moment(), gateway) {
            (Ok(taken), _) => taken,
            (Err(Instead::Live), _) => self.live(BUSY_LIVE),
            (Err(Instead::Copy(_)), Some(_))
                if next_freeze.is_some_and(|at| Instant::now() < at) =>
            {
                Ok(FileOutcome::Later(Later {
                    when: next_freeze.unwrap_or_else(Instant::now),
                    why: "it is written without a pause, and its writer was held still just now",
                }))
            }
            (Err(Instead::Copy(way)), Some(gateway)) => {
                self.way = way;
                match self.frozen(state, gateway) {
                    Err(SnapshotError::Io(error)) if self.failure.is_none() => {
                        debug!(target: "sync", path = %self.found.path, %error, "database could not be copied while its writer stood still");
                        self.way = Way::Beside;
                        Err(SnapshotError::Busy)
                    }
                    other => other,
                }
            }
            (Err(Instead::Copy(_)), None) => Err(SnapshotError::Busy),
        }
    }

    fn in_a_quiet_moment(&mut self) -> Result<Taken, Instead> {
        let deadline = Instant::now() + QUIET_WITHIN;
        let (mut tries, mut left) = (0, None);
        let mut was_always_left = true;
        let mut was_always_held = true;
        loop {
            // What is wrong with one that cannot be looked at is found out, and said, on the other way.
            let Ok(look) = Quiet::look(self.place) else {
                return Err(Instead::Live);
            };
            if matches!(look, Stillness::Other) {
                return Err(Instead::Live);
            }
            if let Some(when) = self.whole_from {
                return Ok(Ok(FileOutcome::Later(Later {
                    when,
                    why: "it was read whole just now, and no log tells what changed since",
                })));
            }
            was_always_held &= matches!(look, Stillness::Held);
            match look {
                Stillness::Left(journal) => {
                    was_always_left &= *left.get_or_insert(journal) == journal;
                }
                _ => was_always_left = false,
            }
            if let Stillness::Quiet(quiet) = look {
                match self.while_quiet(quiet) {
                    Err(SnapshotError::Moved) => tries += 1,
                    taken => return Ok(taken),
                }
            }
            if tries >= TRIES || Instant::now() >= deadline {
                return match (was_always_left, was_always_held) {
                    (true, _) => Err(Instead::Live),
                    (false, true) => Err(Instead::Copy(Way::FrozenWhileHeld)),
                    (false, false) => Err(Instead::Copy(Way::Frozen)),
                };
            }
            sleep(LOOK_AGAIN);
        }
    }

    fn while_quiet(&mut self, quiet: Quiet) -> Taken {
        let snapshot = Snapshot::unlocked(self.place, quiet)?;
        let outcome = self.whole(&snapshot)?;
        // One that was written meanwhile is read again soon; what was read of it is whole.
        let login = snapshot.login().ok();
        snapshot.end()?;
        self.login = login;
        Ok(outcome)
    }
}
