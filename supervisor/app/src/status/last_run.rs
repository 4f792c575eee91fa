//! What the next process of this directory wants to know of the one before: how long its restore and
//! its final flush took. Nothing depends on it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::debug;

use sessionkeep_core::state_dir::StateDir;

const FILE: &str = "past.json";
const FILE_MAX: u64 = 4096;
/// There while a final flush is under way.
const FLUSHING: &str = "flushing";

/// Durations of late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    /// How long the restore of this life took, if there was one, in milliseconds.
    pub restore_ms: Option<u64>,
    /// How many files it brought.
    pub restored_files: u64,
    /// How long the last final flush took, in milliseconds.
    pub flush_ms: Option<u64>,
}

impl LastRun {
    /// As it was noted in `state`; empty where nothing is known.
    #[must_use]
    pub fn read(state: &StateDir) -> Self {
        let bytes = state.read(FILE, FILE_MAX).ok().flatten();
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Notes how long a restore of so many files took; none where nothing was restored.
    pub fn note_restore(state: &StateDir, took: Duration, files: u64) {
        let restored = (files > 0).then_some(took);
        Self {
            restore_ms: restored.map(millis),
            restored_files: files,
            ..Self::read(state)
        }
        .write(state);
    }

    /// Notes that a final flush begins. It is for those who live on when this process is killed, and not
    /// for a machine that loses its power: the flush does not wait for the disk.
    pub fn note_flush_begun(state: &StateDir) {
        if let Err(error) = state.create(FLUSHING) {
            debug!(target: "sync", %error, "it cannot be noted that the flush has begun");
        }
    }

    /// Whether a final flush had begun that is not known to have saved everything.
    #[must_use]
    pub fn was_flush_broken(state: &StateDir) -> bool {
        matches!(state.read(FLUSHING, FILE_MAX), Ok(Some(_)))
    }

    /// Forgets it, since it is told.
    pub fn forget_broken_flush(state: &StateDir) {
        forget_flush(state);
    }

    /// Notes how long the final flush took that saved everything.
    pub fn note_flush(state: &StateDir, took: Duration) {
        forget_flush(state);
        Self {
            flush_ms: Some(millis(took)),
            ..Self::read(state)
        }
        .write(state);
    }

    fn write(self, state: &StateDir) {
        let bytes = serde_json::to_vec(&self).expect("it has string keys only");
        if let Err(error) = state.write(FILE, &bytes) {
            debug!(target: "sync", %error, "durations cannot be noted");
        }
    }
}

fn forget_flush(state: &StateDir) {
    if let Err(error) = state.remove(FLUSHING) {
        debug!(target: "sync", %error, "it cannot be noted how the flush ended");
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_kept_until_it_is_noted_anew() {
        let dir = tempfile::tempdir().expect("tempdir");
        let state = StateDir::open(dir.path()).expect("open");
        assert_eq!(LastRun::read(&state), LastRun::default());
        LastRun::note_flush(&state, Duration::from_millis(12));
        LastRun::note_restore(&state, Duration::from_secs(1), 3);
        let past = LastRun {
            restore_ms: Some(1000),
            restored_files: 3,
            flush_ms: Some(12),
        };
        assert_eq!(LastRun::read(&state), past);
        LastRun::note_restore(&state, Duration::from_secs(1), 0);
        assert_eq!(LastRun::read(&state).restore_ms, None);
    }

    #[test]
    fn a_flush_without_an_end_is_known_until_it_is_forgotten() {
        let dir = tempfile::tempdir().expect("tempdir");
        let state = StateDir::open(dir.path()).expect("open");
        assert!(!LastRun::was_flush_broken(&state));
        LastRun::note_flush_begun(&state);
        LastRun::note_flush(&state, Duration::from_millis(12));
        assert!(!LastRun::was_flush_broken(&state));
        LastRun::note_flush_begun(&state);
        LastRun::note_flush_begun(&state);
        assert!(LastRun::was_flush_broken(&state));
        LastRun::forget_broken_flush(&state);
        assert!(!LastRun::was_flush_broken(&state));
    }
}
