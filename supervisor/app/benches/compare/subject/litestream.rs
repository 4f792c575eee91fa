//! Litestream with its default settings and a replica in a directory.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::measure::monotonic_ns;

fn program() -> PathBuf {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/litestream/litestream");
    assert!(
        found.is_file(),
        "no Litestream: run `make bench`, or supervisor/app/benches/peers/fetch.sh"
    );
    found
}

fn url(replica: &Path) -> String {
    format!("file://{}", replica.display())
}

/// Replicates until it is told to end.
pub(crate) fn replicate(database: &Path, replica: &Path) -> Command {
    let mut command = Command::new(program());
    command.arg("replicate").arg(database).arg(url(replica));
    command
}

/// Restores the newest state into a new file.
pub(crate) fn restore(replica: &Path, to: &Path) -> Command {
    let mut command = Command::new(program());
    command.arg("restore").arg("-o").arg(to).arg(url(replica));
    command
}

/// A file of the replica: when it was there under its final name, and its length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) at: u64,
    pub(crate) bytes: u64,
}

/// Looks at the replica again and again.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Segment>>,
}

impl Watch {
    /// Begins to look.
    pub(crate) fn start(replica: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (root, flag) = (replica.to_owned(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let (mut seen, mut segments) = (HashSet::new(), Vec::new());
            while !flag.load(Ordering::Relaxed) {
                look(&root, &mut seen, &mut segments);
                thread::sleep(Duration::from_millis(4));
            }
            segments
        });
        Self { stop, thread }
    }

    /// Stops, and says what came in the meantime.
    pub(crate) fn stop(self) -> Vec<Segment> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watch does not panic")
    }
}

fn look(dir: &Path, seen: &mut HashSet<PathBuf>, segments: &mut Vec<Segment>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            look(&path, seen, segments);
        } else if path.extension().is_some_and(|kind| kind == "ltx") && !seen.contains(&path) {
            let bytes = entry.metadata().map_or(0, |meta| meta.len());
            let at = monotonic_ns();
            seen.insert(path);
            segments.push(Segment { at, bytes });
        }
    }
}

/// Whether the replica holds anything yet.
pub(crate) fn has_begun(replica: &Path) -> bool {
    let (mut seen, mut segments) = (HashSet::new(), Vec::new());
    look(replica, &mut seen, &mut segments);
    !segments.is_empty()
}
