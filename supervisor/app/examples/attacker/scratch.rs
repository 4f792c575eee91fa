//! Holds a database's lock for itself, so that it is copied to be read, and has the place where
//! copies are made lead to a directory of somebody else's.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rusqlite::Connection;

use super::Score;

/// Arguments: the session directory, and a directory that the attacker may not look into.
pub(super) fn run(arguments: &[String], until: Instant) -> anyhow::Result<Score> {
    let [session, target] = arguments else {
        anyhow::bail!("scratch takes the session directory and a target");
    };
    let (session, target) = (Path::new(session), Path::new(target));
    let database = Connection::open(session.join("keys.db"))?;
    database.execute_batch(
        "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL;
         CREATE TABLE IF NOT EXISTS t (n); BEGIN IMMEDIATE; COMMIT;",
    )?;
    // Copies are made in a directory of that name below whatever has ours.
    let above = target.parent().context("it lies in something")?;
    let own = session.join(".sessionkeep");
    let _ = fs::rename(&own, session.join("aside"));
    let mut score = Score::default();
    let mut next_write = Instant::now();
    while Instant::now() < until {
        score.tried += 1;
        let _ = fs::remove_file(&own);
        let placed = if score.tried.is_multiple_of(2) {
            symlink(above, &own)
        } else {
            fs::create_dir(&own).and_then(|()| symlink(target, own.join("scratch")))
        };
        score.achieved += u64::from(placed.is_ok());
        if Instant::now() >= next_write {
            next_write = Instant::now() + Duration::from_millis(100);
            database.execute("INSERT INTO t VALUES (1)", [])?;
        }
        std::thread::sleep(Duration::from_millis(1));
        let _ = fs::remove_file(own.join("scratch"));
        let _ = fs::remove_dir(&own);
    }
    drop(database);
    Ok(score)
}
