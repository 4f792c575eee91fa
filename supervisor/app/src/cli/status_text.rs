//! What the running instance says of itself, at a glance: the text of `sessionkeep status`.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use sessionkeep_core::human::{Bytes, Timestamp, Took};

/// How many past incidents are listed.
const PAST: usize = 3;

/// How long changes have been waiting, as the running instance says.
pub(crate) fn lag(status: &Value) -> Duration {
    let seconds = status["lag_seconds"].as_f64().unwrap_or_default();
    // Whoever listens on that port may answer anything.
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}

/// All of it, in lines.
pub(super) fn told(status: &Value) -> String {
    let mut text = String::new();
    let lag = lag(status);
    let saved = if lag > Duration::ZERO {
        format!("changes waiting since {}", Took(lag))
    } else if status["unsaved"].as_u64().is_some_and(|count| count > 0) {
        "not everything saved".to_owned()
    } else {
        "everything saved".to_owned()
    };
    line(
        &mut text,
        "running",
        &format!("{}, {saved}", word(&status["state"])),
    );
    unsaved(&mut text, status);
    if let Some(restore) = status["restore"].as_object() {
        let of = |key: &str| restore.get(key).and_then(Value::as_u64).unwrap_or_default();
        let how_far = format!(
            "{} of {} files, {} of {}",
            of("files"),
            of("files_total"),
            Bytes(of("bytes")),
            Bytes(of("bytes_total"))
        );
        line(&mut text, "restored", &how_far);
    }
    let sessions = status["sessions"].as_object();
    for (at, session) in sessions
        .into_iter()
        .flat_map(|all| all.values())
        .enumerate()
    {
        line(
            &mut text,
            if at == 0 { "numbers" } else { "" },
            &session_line(session),
        );
    }
    if let Some(problem) = words(&status["sessions_problem"]) {
        line(&mut text, "", problem);
    }
    if let Some(pid) = status["gateway_pid"].as_i64() {
        let answers = match status["gateway_answers"].as_bool() {
            Some(false) => "does not answer",
            _ => "up",
        };
        let now = status["time_ms"].as_u64().unwrap_or_default();
        let since = status["gateway_started_ms"].as_u64().unwrap_or(now);
        let up = Took(Duration::from_millis(now.saturating_sub(since)));
        let restarts = match status["gateway_restarts"].as_u64() {
            None | Some(0) => String::new(),
            Some(1) => ", started again once".to_owned(),
            Some(n) => format!(", started again {n} times"),
        };
        line(
            &mut text,
            "gateway",
            &format!("{answers} for {up}{restarts} (process {pid})"),
        );
    }
    if let Some(free) = status["disk"]["free_bytes"].as_u64() {
        line(&mut text, "disk", &format!("{} free", Bytes(free)));
    }
    if let Some(excluded) = status["excluded"].as_u64().filter(|count| *count > 0) {
        let text_of =
            format!("{excluded} entries by the profile; `sessionkeep excluded` lists them");
        line(&mut text, "left out", &text_of);
    }
    if let Some(problem) = words(&status["problem"]) {
        line(&mut text, "problem", problem);
    }
    incidents(&mut text, status);
    text
}

/// What is not saved as it is, and why.
fn unsaved(text: &mut String, status: &Value) {
    let paths = status["unsaved_paths"].as_array();
    let mut listed = 0;
    for path in paths.into_iter().flatten() {
        let words = format!("{}: {}", word(&path["path"]), word(&path["why"]));
        line(text, if listed == 0 { "not saved" } else { "" }, &words);
        listed += 1;
    }
    let count = status["unsaved"].as_u64().unwrap_or_default();
    if listed > 0 && count > listed {
        line(text, "", &format!("and {} more", count - listed));
    }
}

fn session_line(session: &Value) -> String {
    let state = match session["gateway_status"].as_str() {
        Some("WORKING") => "logged in".to_owned(),
        Some("SCAN_QR_CODE") => "waits for its QR code to be scanned".to_owned(),
        Some("PASSKEY_REQUIRED") => "waits for a passkey".to_owned(),
        Some("PASSKEY_CONFIRMATION_REQUIRED") => {
            "waits for the passkey to be confirmed on the phone".to_owned()
        }
        Some(other) => visible(other).to_lowercase(),
        None => "saved".to_owned(),
    };
    let of = |key: &str| session[key].as_u64().unwrap_or_default();
    let (files, bytes) = (of("files"), of("bytes"));
    let noun = if files == 1 { "file" } else { "files" };
    let mut text = format!(
        "{}: {state}, {files} {noun}, {}",
        word(&session["name"]),
        Bytes(bytes)
    );
    if let Some(changed) = session["last_change_ms"].as_u64().filter(|at| *at > 0) {
        let _ = write!(text, ", last change {}", Timestamp(changed));
    }
    text
}

/// Those that last, each with its remedy, and the newest of those that are over.
fn incidents(text: &mut String, status: &Value) {
    let all = status["incidents"].as_array().into_iter().flatten();
    let (lasting, over): (Vec<&Value>, Vec<&Value>) =
        all.partition(|incident| incident["until_ms"].is_null());
    for incident in lasting {
        let since = Timestamp(incident["since_ms"].as_u64().unwrap_or_default());
        let subject = words(&incident["subject"]).map_or(String::new(), |s| format!(" ({s})"));
        let (title, detail) = (word(&incident["title"]), word(&incident["detail"]));
        line(text, "WRONG", &format!("{title}{subject}, since {since}"));
        line(text, "", &detail);
        line(text, "", &word(&incident["remedy"]));
    }
    for (at, incident) in over.into_iter().take(PAST).enumerate() {
        let since = Timestamp(incident["since_ms"].as_u64().unwrap_or_default());
        let label = if at == 0 { "past" } else { "" };
        line(
            text,
            label,
            &format!("{since} {}", word(&incident["title"])),
        );
    }
}

fn line(text: &mut String, label: &str, words: &str) {
    let _ = writeln!(text, "{label:<10} {}", visible(words));
}

fn words(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

fn word(value: &Value) -> String {
    visible(value.as_str().unwrap_or("?"))
}

/// On a terminal, nothing that somebody else wrote is to move the cursor.
fn visible(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_lag_that_no_clock_can_count_is_told_all_the_same() {
        for (answer, expected) in [
            (json!({ "lag_seconds": 1.5 }), Duration::from_millis(1500)),
            (json!({ "lag_seconds": 1e300 }), Duration::MAX),
            (json!({ "lag_seconds": -1e300 }), Duration::ZERO),
            (json!({ "lag_seconds": "?" }), Duration::ZERO),
            (json!([]), Duration::ZERO),
        ] {
            assert_eq!(lag(&answer), expected, "{answer}");
            let _ = Took(lag(&answer)).to_string();
        }
    }

    #[test]
    fn everything_worth_a_look_has_its_line() {
        let text = told(&json!({
            "state": "running", "lag_seconds": 0.0, "time_ms": 61_000,
            "gateway_pid": 17, "gateway_started_ms": 1000, "gateway_restarts": 2,
            "sessions": { "gows/default": { "name": "default\u{1b}[2J", "files": 3, "bytes": 2048,
                "gateway_status": "WORKING", "last_change_ms": 0 } },
            "disk": { "free_bytes": 1048576 }, "problem": "", "restore": null,
            "incidents": [
                { "title": "The database does not answer", "detail": "no route", "remedy": "Look.",
                  "subject": "", "since_ms": 0, "until_ms": null },
                { "title": "A number was logged out", "since_ms": 0, "until_ms": 5 },
            ],
        }));
        for expected in [
            "running    running, everything saved\n",
            "numbers    default[2J: logged in, 3 files, 2.0KiB\n",
            "gateway    up for 1m00s, started again 2 times (process 17)\n",
            "WRONG      The database does not answer, since 1970-01-01T00:00:00.000Z\n",
            "past       1970-01-01T00:00:00.000Z A number was logged out\n",
        ] {
            assert!(text.contains(expected), "{expected:?} in:\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
        let _ = told(&json!([]));
    }
}
