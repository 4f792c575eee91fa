//! Large files that are changed all the time: reading one to its end in vain, again and again, would
//! take a core, and fill the store with packs of commits that never come.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::warn;

use super::files::{FileOutcome, Later, RETRY};
use super::gathered::Pass;
use crate::entry::RelPath;

/// A file that was read in vain for `t` is not read again for `t` times this: 4 % of a core.
const PACE: u32 = 25;
/// But no file waits longer than this.
const PACE_MAX: Duration = Duration::from_secs(30);
/// One that did not stand still for so long is reported.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Unrest {
    since: Instant,
    /// Not before then.
    next: Instant,
    reported: bool,
}

/// The large files that changed while they were last read.
#[derive(Debug, Default)]
pub(super) struct Restless(HashMap<RelPath, Unrest>);

impl Restless {
    /// Whether this is one. It is read on trial first, so that nothing of it is on its way to the
    /// store when it turns out to have changed.
    pub(super) fn contains(&self, path: &RelPath) -> bool {
        self.0.contains_key(path)
    }

    /// When it may be read again, where that is not now. At the end it always may.
    pub(super) fn not_yet(&self, path: &RelPath, pass: Pass) -> Option<FileOutcome> {
        let next = self.0.get(path)?.next;
        let later = Later {
            when: next,
            why: "it keeps changing",
        };
        (pass == Pass::Live && Instant::now() < next).then_some(FileOutcome::Later(later))
    }

    /// Notes what reading it since `begun` came to, and says when to look again.
    pub(super) fn note(&mut self, path: &RelPath, begun: Instant, outcome: &mut FileOutcome) {
        let FileOutcome::Later(later) = outcome else {
            self.0.remove(path);
            return;
        };
        let now = Instant::now();
        let next = now + ((now - begun) * PACE).clamp(RETRY, PACE_MAX);
        later.when = next;
        let unrest = self.0.entry(path.clone()).or_insert(Unrest {
            since: now,
            next,
            reported: false,
        });
        unrest.next = next;
        if !unrest.reported && now - unrest.since >= PATIENCE {
            unrest.reported = true;
            warn!(target: "sync", %path, "file never stands still; its last committed version stays until it does");
        }
    }
}
