//! Lines as they come out, and that nobody has to read them.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use tracing::{debug, error, info, warn};

use super::*;

/// Keeps lines, or refuses them.
#[derive(Clone, Default)]
struct Kept {
    lines: Arc<Mutex<Vec<String>>>,
    full: Arc<AtomicBool>,
}

impl Sink for Kept {
    fn offer(&self, line: &[u8]) -> bool {
        if self.full.load(Ordering::Relaxed) {
            return false;
        }
        let line = String::from_utf8(line.to_vec()).expect("lines are text");
        self.lines.lock().expect("not poisoned").push(line);
        true
    }
}

/// What `act` logs, without the times.
fn lines(level: LogLevel, format: LogFormat, act: impl FnOnce(&Kept)) -> Vec<String> {
    let kept = Kept::default();
    let logger = Logger::new(&LogSettings { level, format }, kept.clone());
    tracing::subscriber::with_default(logger, || act(&kept));
    let lines = kept.lines.lock().expect("not poisoned");
    lines
        .iter()
        .map(|line| match format {
            LogFormat::Text => line.split_once(' ').expect("a time").1.to_owned(),
            LogFormat::Json => line.clone(),
        })
        .collect()
}

#[test]
fn a_line_for_people_has_area_message_and_fields() {
    let lines = lines(LogLevel::Info, LogFormat::Text, |_| {
        let bytes = sessionkeep_core::human::Bytes(1229);
        info!(target: "sync", seq = 42, files = 3_u64, %bytes, "committed");
        warn!(target: "sessionkeep_stores::mongo", error = "no answer", "retrying");
        error!(target: "gateway", path = ?"a b", empty = "", "gone\nforged [SYNC] line");
        info!(target: "sessionkeep::watcher", ok = true, "ready");
    });
    assert_eq!(
        lines,
        [
            "[SYNC] committed seq=42 files=3 bytes=1.2KiB\n",
            "WARN [STORE] retrying error=\"no answer\"\n",
            "ERROR [GATE] gone\\nforged [SYNC] line path=\"a b\" empty=\"\"\n",
            "[SYNC] ready ok=true\n",
        ]
    );
}

#[test]
fn a_line_for_machines_is_one_json_object() {
    let lines = lines(LogLevel::Info, LogFormat::Json, |_| {
        info!(target: "boot", seq = 42, ok = false, level = "x", text = "a \"b\"\n", "restored");
    });
    let line: serde_json::Value = serde_json::from_str(&lines[0]).expect("JSON");
    assert_eq!(lines[0].matches('\n').count(), 1);
    assert_eq!(line["level"], "info");
    assert_eq!(line["area"], "boot");
    assert_eq!(line["message"], "restored");
    assert_eq!(line["seq"], 42);
    assert_eq!(line["ok"], false);
    assert_eq!(line["field_level"], "x");
    assert_eq!(line["text"], "a \"b\"\n");
    assert!(
        line["time"]
            .as_str()
            .is_some_and(|time| time.ends_with('Z'))
    );
}

#[test]
fn other_crates_are_heard_only_when_they_warn() {
    let lines = lines(LogLevel::Trace, LogFormat::Text, |_| {
        debug!(target: "mongodb::cmap", "chatter");
        warn!(target: "hyper::client", "trouble");
        debug!(target: "sessionkeep::session::scan", "file");
    });
    assert_eq!(lines, ["WARN [hyper] trouble\n", "[SYNC] file\n"]);
}

#[test]
fn the_level_holds() {
    let lines = lines(LogLevel::Warn, LogFormat::Text, |_| {
        info!(target: "init", "no");
        warn!(target: "init", "yes");
    });
    assert_eq!(lines, ["WARN [INIT] yes\n"]);
}

#[test]
fn lines_that_nobody_reads_are_dropped_and_counted() {
    let lines = lines(LogLevel::Info, LogFormat::Text, |kept| {
        kept.full.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            info!(target: "init", "lost");
        }
        kept.full.store(false, Ordering::Relaxed);
        info!(target: "init", "back");
    });
    assert_eq!(
        lines,
        [
            "WARN [LOG] lines dropped: nobody was reading count=3\n",
            "[INIT] back\n"
        ]
    );
}

#[test]
fn a_line_always_fits_into_a_pipe_and_stays_whole() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let kept = lines(LogLevel::Info, format, |_| {
            let long = "\u{1}ä".repeat(9000);
            info!(target: "init", long, "{}", "\u{1}".repeat(9000));
        });
        assert!(kept[0].len() <= 4096, "{}", kept[0].len());
        assert!(kept[0].ends_with('\n'));
        if format == LogFormat::Json {
            serde_json::from_str::<serde_json::Value>(&kept[0]).expect("JSON");
        }
    }
}

#[test]
fn an_error_is_told_with_its_causes() {
    #[derive(Debug, thiserror::Error)]
    #[error("failed to save")]
    struct Outer(#[source] std::fmt::Error);
    let lines = lines(LogLevel::Info, LogFormat::Text, |_| {
        let error: Box<dyn std::error::Error> = Box::new(Outer(std::fmt::Error));
        error!(target: "sync", error = &*error, "stopped");
    });
    assert!(
        lines[0].contains("error=\"failed to save: an error"),
        "{lines:?}"
    );
}
