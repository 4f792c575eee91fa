//! Every single version of a database under load is whole, and holds what it must.

use std::fs;

use crate::evidence::acknowledged_by;
use crate::place::Place;
use crate::whatsmeow::{bot, checked};

/// How many snapshots are looked at in each journal mode.
const VERSIONS: usize = 50;

fn every_version_is_whole(mode: &str) {
    let place = Place::new("whatsmeow");
    let mut life = place.start(
        &bot(&place, &["--mode", mode, "--rate", "120"]),
        &["sync.max_delay=200ms"],
    );
    life.until("there are enough versions", |_| {
        (place.logged_commits() >= VERSIONS).then_some(())
    });
    assert_eq!(life.stop(), 0);

    let known = place.acknowledged();
    let versions = place.commits_with_beginnings();
    assert!(versions.len() >= VERSIONS, "{} versions", versions.len());
    let (mut before, mut slack) = (0, Vec::new());
    for (commit, began_ms) in &versions {
        let seq = commit.seq;
        let copy = place.copy(Some(seq), "copy");
        // The first ones may be from before the bot had made its login.
        if acknowledged_by(&known, *began_ms) == 0 && !is_logged_in(&copy) {
            fs::remove_dir_all(&copy).expect("remove the copy");
            continue;
        }
        let n = checked(&copy)["n"].as_u64().expect("a number");
        fs::remove_dir_all(&copy).expect("remove the copy");
        let least = acknowledged_by(&known, *began_ms);
        assert!(
            n >= least,
            "commit {seq} holds {n}, but {least} was acknowledged before it"
        );
        assert!(
            n >= before,
            "commit {seq} holds {n}, an earlier one {before}"
        );
        slack.push(n - least);
        before = n;
    }
    assert!(
        slack.len() >= VERSIONS - 2,
        "only {} had a login",
        slack.len()
    );
    assert_eq!(
        before,
        known.last().map_or(0, |line| line.n),
        "the last is complete"
    );
    println!(
        "{mode}: {} versions up to transaction {before}",
        slack.len()
    );
}

/// Whether the login's transaction is in it.
fn is_logged_in(copy: &std::path::Path) -> bool {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    rusqlite::Connection::open_with_flags(copy.join("session.db"), flags)
        .and_then(|db| {
            db.query_row(
                "SELECT count(*) FROM whatsmeow_app_state_version",
                [],
                |row| row.get::<_, i64>(0),
            )
        })
        .is_ok_and(|rows| rows > 0)
}

#[test]
fn every_version_of_a_busy_write_ahead_log_is_whole_and_holds_what_was_acknowledged() {
    every_version_is_whole("wal");
}

#[test]
fn every_version_of_a_busy_rollback_journal_is_whole_and_holds_what_was_acknowledged() {
    every_version_is_whole("delete");
}
