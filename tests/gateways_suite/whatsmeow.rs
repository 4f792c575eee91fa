//! The bot on whatsmeow's database: a stop and a crash, in both of SQLite's journal modes.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::evidence::acknowledged_by;
use crate::place::{Place, tool};

/// So that a dead owner need not be waited for, and a short life has commits.
const SHORT_LIFE: [&str; 3] = ["lease.ttl=1s", "lease.renew=300ms", "sync.max_delay=200ms"];

pub(crate) fn bot(place: &Place, more: &[&str]) -> Vec<OsString> {
    tool(".cache/neonize/neonize.so");
    let mut command: Vec<OsString> = vec!["python3".into()];
    command.push(tool("tests/gateways/whatsmeow/bot.py").into());
    command.extend(["--dir".into(), place.session().into()]);
    command.extend(["--journal".into(), place.journal().into()]);
    command.extend(more.iter().map(OsString::from));
    command
}

/// What the bot's own check says of a copy: `integrity_check`, the chain of transactions, and
/// whether all tables are of the same one.
#[track_caller]
pub(crate) fn checked(copy: &Path) -> Value {
    let output = Command::new("python3")
        .arg(tool("tests/gateways/whatsmeow/bot.py"))
        .arg("--check")
        .arg(copy.join("session.db"))
        .output()
        .expect("start the check");
    let told: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(told["ok"], true, "{told}");
    told
}

fn number(told: &Value) -> u64 {
    told["n"].as_u64().expect("a number")
}

fn nothing_is_lost_on_a_stop(options: &[&str]) {
    let place = Place::new("whatsmeow");
    let options = [options, &["--rate", "200", "--last-words"]].concat();
    let command = bot(&place, &options);

    let mut life = place.start(&command, &[]);
    let state = life.get("/state");
    assert_eq!(state["fresh"], true);
    let identity = state["identity"].clone();
    life.until("some transactions are done", |_| {
        (place.last_acknowledged() >= 150).then_some(())
    });
    assert_eq!(life.stop(), 0);
    let last = place.last_acknowledged();

    place.wipe();
    let told = checked(&place.copy(None, "copy"));
    assert_eq!(number(&told), last, "acknowledged, but not in the archive");
    assert_eq!(told["identity"], identity);

    let life = place.start(&bot(&place, &options[..2]), &[]);
    let state = life.get("/state");
    assert_eq!(state["fresh"], false);
    assert_eq!(
        state["devices"].as_array().map(Vec::len),
        Some(1),
        "the library finds its device"
    );
    assert_eq!(state["identity"], identity);
    assert_eq!(number(&state), last);
    assert_eq!(number(&life.post("/write?n=3")), last + 3);
    assert_eq!(life.stop(), 0);
}

#[test]
fn with_a_write_ahead_log_nothing_is_lost_on_a_stop() {
    nothing_is_lost_on_a_stop(&["--mode", "wal"]);
}

#[test]
fn with_a_write_ahead_log_that_stays_behind_nothing_is_lost_on_a_stop() {
    nothing_is_lost_on_a_stop(&["--mode", "wal", "--leave-wal"]);
}

#[test]
fn with_a_rollback_journal_nothing_is_lost_on_a_stop() {
    nothing_is_lost_on_a_stop(&["--mode", "delete"]);
}

fn a_kill_loses_nothing_that_was_committed(mode: &str) {
    let place = Place::new("whatsmeow");
    let command = bot(&place, &["--mode", mode]);
    let life = place.start(&command, &SHORT_LIFE);
    let identity = life.get("/state")["identity"].clone();
    assert_eq!(life.stop(), 0);

    for round in 0..5u64 {
        let life = place.start(&command, &SHORT_LIFE);
        assert_eq!(life.get("/state")["identity"], identity);
        life.post("/rate?per_second=250");
        thread::sleep(Duration::from_millis(150 + 230 * round));
        let killed_ms = life.kill();
        let known = place.acknowledged();
        place.wipe();
        let (_, began_ms) = place.commits_with_beginnings().pop().expect("commits");
        let told = checked(&place.copy(None, &format!("copy-{round}")));
        let committed = acknowledged_by(&known, began_ms);
        let restored = number(&told);
        assert!(
            restored >= committed,
            "{committed} before the last commit, {restored} now"
        );
        assert_eq!(told["identity"], identity);
        let missing: Vec<_> = known.iter().filter(|line| line.n > restored).collect();
        let ms = missing.first().map_or(0, |line| killed_ms - line.at_ms);
        println!(
            "{mode}, round {round}: lost {} of {} transactions, {ms} ms",
            missing.len(),
            known.len()
        );
    }
}

#[test]
fn with_a_write_ahead_log_a_kill_loses_nothing_that_was_committed() {
    a_kill_loses_nothing_that_was_committed("wal");
}

#[test]
fn with_a_rollback_journal_a_kill_loses_nothing_that_was_committed() {
    a_kill_loses_nothing_that_was_committed("delete");
}
