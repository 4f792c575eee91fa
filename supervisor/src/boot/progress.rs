//! How far a long piece of work has come, for whoever shows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts files and bytes. Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    files: AtomicU64,
    bytes: AtomicU64,
    files_total: AtomicU64,
    bytes_total: AtomicU64,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Files done.
    pub files: u64,
    /// Bytes done.
    pub bytes: u64,
    /// Files to do; 0 while that is not known.
    pub files_total: u64,
    /// Bytes to do; 0 while that is not known.
    pub bytes_total: u64,
}

impl Progress {
    /// The work begins (again), and is this much.
    pub fn begin(&self, files: u64, bytes: u64) {
        self.0.files.store(0, Relaxed);
        self.0.bytes.store(0, Relaxed);
        self.0.files_total.store(files, Relaxed);
        self.0.bytes_total.store(bytes, Relaxed);
    }

    /// This much more is done.
    pub fn add(&self, files: u64, bytes: u64) {
        self.0.files.fetch_add(files, Relaxed);
        self.0.bytes.fetch_add(bytes, Relaxed);
    }

    /// How far it has come.
    #[must_use]
    pub fn read(&self) -> Reading {
        Reading {
            files: self.0.files.load(Relaxed),
            bytes: self.0.bytes.load(Relaxed),
            files_total: self.0.files_total.load(Relaxed),
            bytes_total: self.0.bytes_total.load(Relaxed),
        }
    }
}
