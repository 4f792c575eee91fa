//! A session of the `churn` example, looked at from outside: what its gateway has told in the
//! journal, what a restore must bring of that, and what nobody has written.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::keeper::{Setup, Tree, World};
use super::shape::{self, PRE_KEYS, SLOTS, key};

/// Prepares a life of this world with the example as its gateway.
pub(crate) fn churning<'a>(world: &'a World, example: &Path) -> Setup<'a> {
    let [dir, journal] = [world.dir(), world.path("journal")];
    world.gateway(&[example, &dir, &journal].map(|path| path.to_str().expect("text")))
}

/// What the gateway says it did, as far as it still holds: what came after the step that a later
/// start went on from was lost in between, or is done again.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// The gateway's lives so far.
    pub(crate) starts: u64,
    /// How often a gateway found another one at work.
    pub(crate) two: u64,
    /// Each identity that was seen; one is right.
    pub(crate) identities: Vec<String>,
    /// The step that the newest life went on from.
    pub(crate) from: u64,
    /// The newest step of all.
    pub(crate) newest: u64,
    /// When (in microseconds) which step put a file, or took it away.
    done: Vec<(u64, u64, String, bool)>,
}

impl Journal {
    pub(crate) fn read(world: &World) -> Self {
        let text = fs::read_to_string(world.path("journal")).unwrap_or_default();
        let mut journal = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| -> u64 { words[at].parse().expect("a number") };
            match (words[1], words.len()) {
                ("began", 4) => {
                    let from = number(2);
                    journal.starts += 1;
                    journal.from = from;
                    if !journal.identities.iter().any(|known| known == words[3]) {
                        journal.identities.push(words[3].to_owned());
                    }
                    journal.done.retain(|(_, step, ..)| *step <= from);
                    journal.newest = from;
                }
                (put @ ("put" | "del"), 4) => {
                    let done = (number(0), number(2), words[3].to_owned(), put == "put");
                    journal.newest = journal.newest.max(done.1);
                    journal.done.push(done);
                }
                ("two", 2) => journal.two += 1,
                // Cut off by a kill.
                _ => {}
            }
        }
        journal
    }

    /// What must be at least as new as this, having been done before a moment: the step that last
    /// put or took away each file.
    fn done_before(&self, micros: u64) -> BTreeMap<&str, (u64, bool)> {
        let mut last = BTreeMap::new();
        for (at, step, name, put) in &self.done {
            if *at < micros {
                last.insert(name.as_str(), (*step, *put));
            }
        }
        last
    }

    /// What of this tree is older than what was done before `micros`.
    pub(crate) fn older_than(&self, micros: u64, tree: &Tree) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, (step, put)) in self.done_before(micros) {
            let found = tree.content(name);
            let holds = match (put, found) {
                (true, Some(bytes)) => shape::step_of(bytes).is_some_and(|found| found >= step),
                // Deleted since, or about to be: no line tells of what a kill cut off.
                (true, None) => name.starts_with("pre-key-") && self.newest + 1 >= step + PRE_KEYS,
                (false, found) => found.is_none(),
            };
            if !holds {
                let found = found.and_then(shape::step_of);
                let did = if put { "put" } else { "deleted" };
                wrong.push(format!(
                    "{name} was {did} by step {step}, and is of {found:?}"
                ));
            }
        }
        wrong
    }
}

/// What in a restored directory nobody has written as it is: an empty list where all is well.
/// Databases are opened where they lie, so `dir` has to be a copy.
pub(crate) fn torn(dir: &Path, tree: &Tree, identity: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, bytes) in tree.files() {
        let name = String::from_utf8_lossy(name);
        let Some(step) = shape::step_of(bytes) else {
            if name.ends_with(".json") {
                let start = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
                wrong.push(format!("{name} is no JSON: {start}"));
            } else if name != "store.db" {
                wrong.push(format!("{name} has no business here"));
            }
            continue;
        };
        let expected = match name.split('-').next() {
            Some("pre") => shape::pre_key(identity, step),
            Some("session") => shape::session(identity, step),
            _ => shape::creds(identity, step),
        };
        if *bytes != *expected.as_bytes() {
            wrong.push(format!("{name} is not what step {step} wrote"));
        }
    }
    if tree.has("store.db") {
        wrong.extend(torn_database(&dir.join("store.db"), identity));
    }
    wrong
}

/// The newest step that the database in a directory tells of; 0 for none. It is copied first, since
/// whoever opens a database changes what lies beside it.
pub(crate) fn newest_row(dir: &Path) -> u64 {
    let copy = tempfile::tempdir().expect("a directory");
    for name in ["store.db", "store.db-wal"] {
        let _ = fs::copy(dir.join(name), copy.path().join(name));
    }
    let newest = Connection::open(copy.path().join("store.db")).and_then(|db| {
        db.query_row("SELECT max(step) FROM done", [], |row| {
            row.get::<_, Option<u32>>(0)
        })
    });
    newest.ok().flatten().unwrap_or(0).into()
}

fn torn_database(path: &Path, identity: &str) -> Vec<String> {
    torn_rows(path, identity).unwrap_or_else(|error| vec![format!("store.db: {error}")])
}

fn torn_rows(path: &Path, identity: &str) -> rusqlite::Result<Vec<String>> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mut wrong = Vec::new();
    let verdict: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if verdict != "ok" {
        wrong.push(format!("store.db: integrity_check says {verdict}"));
    }
    let tables: u32 = db.query_row(
        "SELECT count(*) FROM sqlite_master WHERE name IN ('done', 'slots')",
        [],
        |row| row.get(0),
    )?;
    if tables != 2 {
        // Seen before the gateway had made them: it does so in one go, so there is none, then.
        if tables != 0 {
            wrong.push(format!("store.db has {tables} of its two tables"));
        }
        return Ok(wrong);
    }
    let rows = |sql: &str| -> rusqlite::Result<Vec<(u64, String)>> {
        let mut rows = db.prepare(sql)?;
        let rows = rows.query_map([], |row| Ok((row.get::<_, u32>(0)?.into(), row.get(1)?)))?;
        rows.collect()
    };
    let done = rows("SELECT step, key FROM done ORDER BY step")?;
    let newest = done.last().map_or(0, |(step, _)| *step);
    let oldest = newest.saturating_sub(1999).max(1);
    if !done.iter().map(|(step, _)| *step).eq(oldest..=newest) {
        wrong.push(format!(
            "store.db misses steps between {oldest} and {newest}"
        ));
    }
    let slots = rows("SELECT step, key FROM slots ORDER BY step")?;
    let oldest = newest.saturating_sub(SLOTS - 1).max(1);
    if !slots.iter().map(|(step, _)| *step).eq(oldest..=newest) {
        wrong.push(format!(
            "store.db mixes two moments: slots against {newest}"
        ));
    }
    for (step, found) in done.iter().chain(&slots) {
        if *found != key(identity, *step) {
            wrong.push(format!("store.db has a wrong key for step {step}"));
        }
    }
    Ok(wrong)
}
