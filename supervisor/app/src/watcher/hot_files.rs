//! Large files that are changed all the time: reading one to its end in vain, again and again, would
//! take a core, and fill the store with packs of commits that never come.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::warn;

use super::gathered::Pass;
use super::outcome::{FileOutcome, Later, RETRY};
use sessionkeep_archive::blocks::LARGE_BLOCK;
use sessionkeep_core::entry::{Meta, RelPath};
use sessionkeep_session::{Directory, ReadError, stable};

/// A file that was read in vain for `t` is not read again for `t` times this: 4 % of a core.
const PACE: u32 = 25;
/// But no file waits longer than this.
const PACE_MAX: Duration = Duration::from_secs(30);
/// One that did not stand still for so long is reported.
const PATIENCE: Duration = Duration::from_secs(10);
/// And one that did for so long is a file like any other again. One reading that came out well says
/// little: on a busy machine its writer was just not running.
const CALM: Duration = Duration::from_secs(60);
/// A file that has not been written for so long is not being written.
const AT_REST: Duration = Duration::from_secs(1);
/// How long after a commit that came to nothing the next one of the same file may be tried; twice as
/// long after each more. What was sent for it lies in the store until it is collected.
const SENT_IN_VAIN: Duration = Duration::from_secs(8);
/// But never longer than this.
const SENT_IN_VAIN_MAX: Duration = Duration::from_secs(600);

#[derive(Debug)]
struct HotFile {
    /// When it last changed under the reader.
    last: Instant,
    /// Since when no reading has come out well.
    in_vain_since: Option<Instant>,
    /// It is not read before then.
    next: Instant,
    /// How often it turned out to have changed when much of it was sent.
    sent_in_vain: u32,
    /// Nothing is sent before then, unless it is at rest.
    send_next: Instant,
    reported: bool,
}

/// The large files that changed while they were read lately.
#[derive(Debug, Default)]
pub(super) struct HotFiles(HashMap<RelPath, HotFile>);

impl HotFiles {
    /// Whether this is one. It is [put on trial](Self::on_trial) first.
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

    /// Reads the file to see whether it stands still for as long as that takes, and whether it may be
    /// sent then: nothing of it shall be on its way to the store when it turns out to have changed.
    pub(super) fn on_trial(&self, path: &RelPath, directory: &Directory) -> Result<(), ReadError> {
        let block = LARGE_BLOCK as usize;
        let (dir, name) = (directory.fd(), path.as_bytes());
        let (_, meta) = stable::read_blocks(dir, name, block, &mut |_, _| Ok(()))?;
        let is_due = |unrest: &HotFile| Instant::now() >= unrest.send_next;
        if is_at_rest(&meta) || self.0.get(path).is_none_or(is_due) {
            return Ok(());
        }
        Err(ReadError::Changed)
    }

    /// Notes that it changed while it was sent.
    pub(super) fn was_sent_in_vain(&mut self, path: &RelPath) {
        let now = Instant::now();
        let unrest = self.entry(path, now);
        let wait = SENT_IN_VAIN.saturating_mul(2_u32.saturating_pow(unrest.sent_in_vain));
        unrest.sent_in_vain += 1;
        unrest.send_next = now + wait.min(SENT_IN_VAIN_MAX);
    }

    fn entry(&mut self, path: &RelPath, now: Instant) -> &mut HotFile {
        self.0.entry(path.clone()).or_insert(HotFile {
            last: now,
            in_vain_since: None,
            next: now,
            sent_in_vain: 0,
            send_next: now,
            reported: false,
        })
    }

    /// Notes what reading it since `begun` came to, and says when to look again.
    pub(super) fn note(&mut self, path: &RelPath, begun: Instant, outcome: &mut FileOutcome) {
        let now = Instant::now();
        let next = now + ((now - begun) * PACE).clamp(RETRY, PACE_MAX);
        match outcome {
            FileOutcome::Later(later) => {
                later.when = next;
                let unrest = self.entry(path, now);
                (unrest.last, unrest.next) = (now, next);
                let since = *unrest.in_vain_since.get_or_insert(now);
                if !unrest.reported && now - since >= PATIENCE {
                    unrest.reported = true;
                    warn!(target: "sync", %path, "file is written without a pause; its last committed version stays until it does");
                }
            }
            FileOutcome::Changed { .. } | FileOutcome::Same { .. } => {
                if let Some(unrest) = self.0.get_mut(path) {
                    if now - unrest.last >= CALM {
                        self.0.remove(path);
                    } else {
                        unrest.next = next;
                        (unrest.in_vain_since, unrest.reported) = (None, false);
                    }
                }
            }
            _ => {
                self.0.remove(path);
            }
        }
    }
}

/// By its own time; one that lies in the future, or was set back, proves nothing but costs no more
/// than another try.
fn is_at_rest(meta: &Meta) -> bool {
    let written =
        u64::try_from(meta.mtime_ns).map_or(UNIX_EPOCH, |ns| UNIX_EPOCH + Duration::from_nanos(ns));
    SystemTime::now()
        .duration_since(written)
        .is_ok_and(|age| age >= AT_REST)
}
