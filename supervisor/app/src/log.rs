//! Log lines: `2026-11-21T07:00:00.123Z [SYNC] committed seq=42 files=3`, or one JSON object each.
//!
//! Written for PID 1: it costs no memory worth counting, and it never blocks. A container's host
//! that stops reading the log must not stop the init, so a line that cannot be written at once is
//! dropped and counted, and the count is reported as soon as lines get through again.
//!
//! Events only: spans are accepted and not shown, so what a line needs must be in its own fields.

mod line;
mod sink;

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::config::{LogFormat, LogLevel, LogSettings};
use line::Line;
use sessionkeep_core::human::Timestamp;
use sink::Stderr;

/// Takes a line at once, or not at all.
trait Sink: Send + Sync + 'static {
    /// Whether the line was taken.
    fn offer(&self, line: &[u8]) -> bool;
}

/// The descriptor that lines are written to, where it is not standard error itself.
static DESCRIPTOR: AtomicI32 = AtomicI32::new(-1);

/// A descriptor that a fork of this process has to keep open, to be able to log.
pub fn descriptor() -> Option<RawFd> {
    Some(DESCRIPTOR.load(Ordering::Relaxed)).filter(|fd| *fd >= 0)
}

/// Begins logging to standard error. A second call changes nothing.
pub fn init(settings: &LogSettings) {
    let stderr = Stderr::open();
    let descriptor = stderr.own_descriptor();
    let logger = Logger::new(settings, stderr);
    // It fails where a logger is set already, which then goes on.
    if tracing::subscriber::set_global_default(logger).is_ok() {
        DESCRIPTOR.store(descriptor.unwrap_or(-1), Ordering::Relaxed);
    }
}

/// Turns events into lines.
struct Logger<S> {
    format: LogFormat,
    level: LevelFilter,
    sink: S,
    dropped: AtomicU64,
}

impl<S: Sink> Logger<S> {
    fn new(settings: &LogSettings, sink: S) -> Self {
        Self {
            format: settings.format,
            level: match settings.level {
                LogLevel::Error => LevelFilter::ERROR,
                LogLevel::Warn => LevelFilter::WARN,
                LogLevel::Info => LevelFilter::INFO,
                LogLevel::Debug => LevelFilter::DEBUG,
                LogLevel::Trace => LevelFilter::TRACE,
            },
            sink,
            dropped: AtomicU64::new(0),
        }
    }

    fn offer(&self, line: &[u8]) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let mut report = Line::new(self.format, Timestamp::now(), Level::WARN, "log");
            report.message("lines dropped: nobody was reading");
            report.field("count", &dropped.to_string(), line::Value::Number);
            if !self.sink.offer(&report.finish()) {
                self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
                return;
            }
        }
        if !self.sink.offer(line) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The part of the product that an event is about; of other crates, the crate's name.
fn area(target: &str) -> &str {
    let target = ["sessionkeep::", "sessionkeep_"]
        .iter()
        .find_map(|ours| target.strip_prefix(ours))
        .unwrap_or(target)
        .split("::")
        .next()
        .unwrap_or(target);
    match target {
        "watcher" | "core" | "session" | "archive" => "sync",
        "stores" => "store",
        "gateway" => "gate",
        "control" => "init",
        "config" | "sessionkeep" => "cli",
        other => other,
    }
}

const OURS: [&str; 10] = [
    "init", "boot", "sync", "store", "http", "gate", "cli", "log", "incident", "notify",
];

impl<S: Sink> Subscriber for Logger<S> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.is_span() {
            return false;
        }
        // What drivers say below a warning is about themselves.
        let ours = OURS.contains(&area(metadata.target()));
        let most = if ours {
            self.level
        } else {
            self.level.min(LevelFilter::WARN)
        };
        *metadata.level() <= most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let area = area(metadata.target());
        let mut line = Line::new(self.format, Timestamp::now(), *metadata.level(), area);
        event.record(&mut line);
        self.offer(&line.finish());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
#[path = "log/tests.rs"]
mod tests;
