//! What is archived of the trees that WAHA's engines leave, and what is left out.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use rusqlite::types::Value as Cell;
use serde_json::Value;

use crate::place::{Place, tool};

fn exactly_the_login_is_archived(engine: &str) {
    tool(".cache/neonize/neonize.so");
    let place = Place::new("waha");
    let told = place.path("told.json");
    // The tree comes into being under a running watcher, as it does in a container.
    let script = r#"python3 "$0" "$1" "$2" >"$3" && exec sleep 1000"#;
    let gateway: [OsString; 7] = [
        "sh".into(),
        "-c".into(),
        script.into(),
        tool("tests/gateways/waha_tree.py").into(),
        engine.into(),
        place.session().into(),
        told.clone().into(),
    ];
    let mut life = place.start_silent(&gateway, &[]);
    let told: Value = life.until("the tree is built", |_| {
        serde_json::from_slice(&fs::read(&told).ok()?).ok()
    });
    let keep = paths(&told["keep"]);
    let leave = paths(&told["leave"]);
    assert!(!keep.is_empty() && !leave.is_empty());
    for path in keep.iter().chain(&leave) {
        let there = place.session().join(path).symlink_metadata();
        assert!(there.is_ok(), "{path} was never built");
    }
    let databases = told["databases"].as_object().expect("databases");
    assert!(!databases.is_empty());
    let table_of = |database: &Value| database["table"].as_str().expect("a name").to_owned();
    let rows_of = |database: &Value| database["rows"].as_u64().expect("a number");
    // All files being there is not enough: a database is committed while it is being filled, too.
    let mut tries = 0;
    let live = life.until("the tree is committed", |_| {
        let files = place.commits().last()?.files;
        if files < keep.len() as u64 {
            return None;
        }
        tries += 1;
        let live = place.copy(None, &format!("live-{tries}"));
        // Before any database is opened: that makes sidecars.
        assert_eq!(entries(&live), keep, "while the gateway runs");
        let filled = databases.iter().all(|(path, database)| {
            count(&content(&live.join(path)), &table_of(database)) == rows_of(database)
        });
        filled.then_some(live)
    });
    assert_eq!(life.stop(), 128 + 15, "`sleep` dies of TERM");

    let copy = place.copy(None, "copy");
    // Before any database is opened: that makes sidecars.
    assert_eq!(entries(&copy), keep, "after the stop");
    for path in keep.iter().filter(|path| !databases.contains_key(*path)) {
        let read = |root: &Path| fs::read(root.join(path)).expect("a file");
        assert!(read(&copy) == read(&place.session()), "{path} differs");
    }
    for (path, database) in databases {
        // Half of them are in the write-ahead log only.
        let left = content(&place.session().join(path));
        let rows = count(&left, &table_of(database));
        assert_eq!(rows, rows_of(database), "{path} was built otherwise");
        assert!(content(&copy.join(path)) == left, "{path} differs");
        assert!(
            content(&live.join(path)) == left,
            "{path} differs while the gateway runs"
        );
    }
}

#[track_caller]
fn paths(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().expect("a list");
    list.iter()
        .map(|path| path.as_str().expect("a path").to_owned())
        .collect()
}

/// Every file and link below, but for what is sessionkeep's own.
fn entries(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a kind").is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path();
                let path = path.strip_prefix(root).expect("below");
                found.insert(path.display().to_string());
            }
        }
    }
    found
}

type Rows = Vec<Vec<Cell>>;

/// All tables with all rows, in an order of their own.
fn content(database: &Path) -> Vec<(String, Rows)> {
    let db = rusqlite::Connection::open(database).expect("a database");
    let integrity: String = db
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("a verdict");
    assert_eq!(integrity, "ok", "{}", database.display());
    let mut tables = db
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        .expect("a schema");
    let names = tables
        .query_map([], |row| row.get::<_, String>(0))
        .expect("tables");
    names
        .map(|name| {
            let name = name.expect("a name");
            let mut all = db
                .prepare(&format!("SELECT * FROM \"{name}\""))
                .expect("a table");
            let columns = all.column_count();
            let rows = all
                .query_map([], |row| (0..columns).map(|at| row.get(at)).collect())
                .expect("rows");
            let rows = rows.map(|row| row.expect("a row")).collect();
            (name, rows)
        })
        .collect()
}

/// The rows of a table; none where there is no such table yet.
fn count(content: &[(String, Rows)], table: &str) -> u64 {
    let found = content.iter().find(|(name, _)| name == table);
    found.map_or(0, |(_, rows)| rows.len() as u64)
}

#[test]
fn of_webjs_the_login_in_its_chrome_profile_is_archived_and_nothing_else() {
    exactly_the_login_is_archived("webjs");
}

#[test]
fn of_wpp_the_login_in_its_chrome_profile_is_archived_and_nothing_else() {
    exactly_the_login_is_archived("wpp");
}

#[test]
fn of_noweb_all_keys_and_both_databases_are_archived() {
    exactly_the_login_is_archived("noweb");
}

#[test]
fn of_gows_the_database_is_archived_with_what_is_in_its_log() {
    exactly_the_login_is_archived("gows");
}
