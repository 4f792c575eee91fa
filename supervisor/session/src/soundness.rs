//! Whether a database is sound. What counts is its structure: that its trees and its list of free
//! pages hold together, and that each index has an entry for each row.
//!
//! SQLite's `quick_check` finds fault with more: with content that the schema forbids, which a gateway
//! may have written with its checks switched off, or before it edited the schema; and it fails where
//! the schema names functions, collations or modules that only the gateway has. None of that keeps
//! the gateway from reading what it wrote.

use std::cmp::Ordering;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::slice;

use rusqlite::{Connection, Error, ErrorCode, ffi};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Soundness {
    /// Nothing.
    Sound,
    /// Content that the schema forbids, or nothing that could be checked; SQLite's words for the
    /// first of it.
    Odd(String),
    /// Structural damage; SQLite's words for the first of it.
    Damaged(String),
}

/// So many functions that are not known are stood in for. A schema with more is not checked further.
const STAND_INS_MAX: usize = 100;

/// How the messages about a database's structure begin (`PRAGMA quick_check`): pages and cells that do
/// not hold together, and an index with more or fewer entries than its table has rows. All others
/// are about content.
const STRUCTURAL: [&str; 2] = ["*** in database ", "wrong # of entries in index "];

/// Runs `quick_check` on the main database of `connection`, which cannot use functions, collations and
/// virtual tables in earnest afterwards.
///
/// # Errors
/// SQLite's, such as that the file is malformed where it was read.
pub(super) fn check(connection: &Connection) -> rusqlite::Result<Soundness> {
    prepare(connection)?;
    let mut stand_ins = 0;
    let first = loop {
        match findings(connection, 1) {
            Err(error) if is_general(&error) => {
                let words = error.to_string();
                let known = match unknown_function(&words) {
                    Some(name) if stand_ins < STAND_INS_MAX => stand_in(connection, name),
                    _ => false,
                };
                if !known {
                    return Ok(Soundness::Odd(words));
                }
                stand_ins += 1;
            }
            other => break other?,
        }
    };
    match first {
        // The trees are looked at first, so that all of them are sound. What comes after the first
        // odd row is not looked at yet: a row that cannot be read at all is an error.
        Some(Soundness::Odd(words)) => Ok(match findings(connection, i32::MAX)? {
            Some(Soundness::Damaged(worse)) => Soundness::Damaged(worse),
            _ => Soundness::Odd(words),
        }),
        found => Ok(found.unwrap_or(Soundness::Sound)),
    }
}

/// The first finding that is damage or, where none is, the first one; of at most `max` of them.
fn findings(connection: &Connection, max: i32) -> rusqlite::Result<Option<Soundness>> {
    let mut statement = connection.prepare(&format!("PRAGMA quick_check({max})"))?;
    let mut rows = statement.query([])?;
    let mut odd = None;
    while let Some(row) = rows.next()? {
        let words: String = row.get(0)?;
        if words == "ok" {
            return Ok(None);
        }
        if STRUCTURAL.iter().any(|start| words.starts_with(start)) {
            return Ok(Some(Soundness::Damaged(words)));
        }
        odd.get_or_insert(Soundness::Odd(words));
    }
    Ok(odd)
}

/// Takes out of the check what only the gateway's own process can know.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "ignore_check_constraints", true)?;
    // Of a virtual table, its module would be asked, with settings that the gateway may have brought;
    // what it keeps lies in tables that are checked all the same. Pages are read through one.
    let mut kept = [c"sqlite_dbpage".as_ptr(), ptr::null()];
    // SAFETY: the handle is that of an open connection, the list ends with a null pointer, and the
    // callback needs nothing that could go away.
    let codes = unsafe {
        let db = connection.handle();
        let dropped = ffi::sqlite3_drop_modules(db, kept.as_mut_ptr());
        let needed = ffi::sqlite3_collation_needed(db, ptr::null_mut(), Some(collation_needed));
        [dropped, needed]
    };
    match codes.into_iter().find(|code| *code != ffi::SQLITE_OK) {
        Some(code) => Err(Error::SqliteFailure(ffi::Error::new(code), None)),
        None => Ok(()),
    }
}

/// Any collation that is not known orders by bytes: in which order an index is, is not checked.
unsafe extern "C" fn collation_needed(
    _: *mut c_void,
    db: *mut ffi::sqlite3,
    encoding: c_int,
    name: *const c_char,
) {
    // SAFETY: SQLite passes its own handle and a name that ends with zero, and the stand-in needs
    // nothing that could go away. A failure is found out by whoever needs the collation.
    unsafe {
        let (data, none) = (ptr::null_mut(), None);
        ffi::sqlite3_create_collation_v2(db, name, encoding, data, Some(by_bytes), none);
    }
}

unsafe extern "C" fn by_bytes(
    _: *mut c_void,
    a_length: c_int,
    a: *const c_void,
    b_length: c_int,
    b: *const c_void,
) -> c_int {
    let bytes = |start: *const c_void, length: c_int| match usize::try_from(length) {
        // SAFETY: SQLite passes so many bytes, for the time of the call.
        Ok(length) if length > 0 => unsafe { slice::from_raw_parts(start.cast::<u8>(), length) },
        _ => &[],
    };
    match bytes(a, a_length).cmp(bytes(b, b_length)) {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    }
}

/// The name in "unknown function: NAME()": a generated column's value is computed, and checked.
fn unknown_function(words: &str) -> Option<&str> {
    let (_, after) = words.split_once("unknown function: ")?;
    let (name, _) = after.rsplit_once("()")?;
    Some(name)
}

/// Registers a function that answers NULL; tells whether that was possible.
fn stand_in(connection: &Connection, name: &str) -> bool {
    let name = name.trim_matches(['"', '`', '[', ']']);
    let Ok(name) = CString::new(name) else {
        return false;
    };
    // SAFETY: the handle is that of an open connection, the name a C string, and the function needs
    // nothing that could go away.
    let code = unsafe {
        ffi::sqlite3_create_function_v2(
            connection.handle(),
            CStr::as_ptr(&name),
            -1,
            ffi::SQLITE_UTF8 | ffi::SQLITE_DETERMINISTIC | ffi::SQLITE_INNOCUOUS,
            ptr::null_mut(),
            Some(null),
            None,
            None,
            None,
        )
    };
    code == ffi::SQLITE_OK
}

/// A function that sets no result answers NULL.
unsafe extern "C" fn null(_: *mut ffi::sqlite3_context, _: c_int, _: *mut *mut ffi::sqlite3_value) {
}

/// Whether SQLite could not do what it was asked for, and not what it would say of a damaged file, a
/// lock or a disk.
fn is_general(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_unknown_function_is_found() {
        let words = "unknown function: app_ok()";
        assert_eq!(unknown_function(words), Some("app_ok"));
        assert_eq!(unknown_function("no such table: t"), None);
    }

    /// Of each kind of finding one, in a database that is damaged as well, or is not.
    #[test]
    fn content_is_odd_and_structure_is_damage() {
        let make = || {
            let db = Connection::open_in_memory().expect("open");
            db.execute_batch(
                "PRAGMA page_size = 512;
                 CREATE TABLE t (n INTEGER PRIMARY KEY, m TEXT, o CHECK (o < 0));
                 CREATE INDEX i ON t (m);
                 PRAGMA ignore_check_constraints = ON;
                 WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 200)
                 INSERT INTO t SELECT x, printf('%050d', x), x FROM c;
                 PRAGMA writable_schema = ON;",
            )
            .expect("make");
            db
        };
        let declare = |db: &Connection, name: &str, sql: &str| {
            let set = "UPDATE sqlite_schema SET sql = ?2 WHERE name = ?1";
            db.execute(set, [name, sql]).expect("declare");
            db.execute_batch("PRAGMA writable_schema = RESET")
                .expect("reload");
        };
        let sound = make();
        assert_eq!(
            check(&sound),
            Ok(Soundness::Sound),
            "CHECK is not looked at"
        );
        let strict = "CREATE TABLE t (n INTEGER PRIMARY KEY, m INTEGER, o NOT NULL) STRICT";
        let number = "CREATE TABLE t (n INTEGER PRIMARY KEY, m TEXT, o TEXT)";
        for sql in [&strict.replace("o NOT", "o ANY NOT"), number] {
            let db = make();
            declare(&db, "t", sql);
            let verdict = check(&db).expect("check");
            assert!(matches!(verdict, Soundness::Odd(_)), "{sql}: {verdict:?}");
        }
        // An index that belongs to other rows, beside odd content and without.
        for sql in [None, Some(number)] {
            let db = make();
            db.execute_batch(
                "CREATE TABLE u (m TEXT); INSERT INTO u VALUES (1);
                 CREATE INDEX j ON u (m); PRAGMA writable_schema = ON;
                 UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'j')
                 WHERE name = 'i';",
            )
            .expect("spoil");
            if let Some(sql) = sql {
                declare(&db, "t", sql);
            } else {
                db.execute_batch("PRAGMA writable_schema = RESET")
                    .expect("reload");
            }
            let verdict = check(&db).expect("check");
            assert!(
                matches!(verdict, Soundness::Damaged(_)),
                "{sql:?}: {verdict:?}"
            );
        }
    }
}
