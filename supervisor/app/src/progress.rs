//! How far a long piece of work has come, for whoever shows it.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tracing::info;

use sessionkeep_core::human::Bytes;

/// How often progress is drawn on a terminal, and told in a log.
const DRAW_EVERY: Duration = Duration::from_millis(100);
const TELL_EVERY: Duration = Duration::from_secs(3);

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
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

    /// Nothing is under way any more.
    pub fn end(&self) {
        self.begin(0, 0);
    }

    /// Runs `work` and shows meanwhile how far it has come: by a bar on a terminal, by a line now
    /// and then elsewhere, and not at all where it is over before that.
    pub async fn show<T>(&self, what: &'static str, work: impl Future<Output = T>) -> T {
        let on_terminal = std::io::stderr().is_terminal();
        let every = if on_terminal { DRAW_EVERY } else { TELL_EVERY };
        let mut bar = None;
        tokio::pin!(work);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                () = tokio::time::sleep(every) => {
                    let now = self.read();
                    if now.files_total == 0 {
                        continue;
                    }
                    if on_terminal {
                        draw(bar.get_or_insert_with(|| new_bar(what)), now);
                    } else {
                        info!(target: "boot", files = now.files, of = now.files_total, bytes = %Bytes(now.bytes), "{what}");
                    }
                }
            }
        };
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        result
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

fn new_bar(what: &'static str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{prefix} {bar:30} {binary_bytes}/{binary_total_bytes} {msg}")
            .expect("the template is well-formed");
    ProgressBar::new(0).with_style(style).with_prefix(what)
}

fn draw(bar: &ProgressBar, now: Reading) {
    bar.set_length(now.bytes_total);
    bar.set_position(now.bytes);
    bar.set_message(format!("{}/{} files", now.files, now.files_total));
}
