//! What the next process of this directory wants to know of the one before: how long its restore and
//! its final flush took. Nothing depends on it.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::session::own_file;

const FILE: &str = "past.json";
const FILE_MAX: u64 = 4096;

/// Durations of late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// How long the restore of this life took, if there was one, in milliseconds.
    pub restore_ms: Option<u64>,
    /// How many files it brought.
    pub restored_files: u64,
    /// How long the last final flush took, in milliseconds.
    pub flush_ms: Option<u64>,
}

impl Past {
    /// Of the session directory `dir`; empty where nothing is known.
    #[must_use]
    pub fn read(dir: &Path) -> Self {
        let bytes = own_file::read(dir, FILE, FILE_MAX).ok().flatten();
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Notes how long a restore of so many files took; none where nothing was restored.
    pub fn note_restore(dir: &Path, took: Duration, files: u64) {
        let restored = (files > 0).then_some(took);
        Self {
            restore_ms: restored.map(millis),
            restored_files: files,
            ..Self::read(dir)
        }
        .write(dir);
    }

    /// Notes how long the final flush took.
    pub fn note_flush(dir: &Path, took: Duration) {
        Self {
            flush_ms: Some(millis(took)),
            ..Self::read(dir)
        }
        .write(dir);
    }

    fn write(self, dir: &Path) {
        let bytes = serde_json::to_vec(&self).expect("it has string keys only");
        if let Err(error) = own_file::write(dir, FILE, &bytes) {
            debug!(target: "sync", %error, "durations cannot be noted");
        }
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
        assert_eq!(Past::read(dir.path()), Past::default());
        Past::note_flush(dir.path(), Duration::from_millis(12));
        Past::note_restore(dir.path(), Duration::from_secs(1), 3);
        let past = Past {
            restore_ms: Some(1000),
            restored_files: 3,
            flush_ms: Some(12),
        };
        assert_eq!(Past::read(dir.path()), past);
        Past::note_restore(dir.path(), Duration::from_secs(1), 0);
        assert_eq!(Past::read(dir.path()).restore_ms, None);
    }
}
