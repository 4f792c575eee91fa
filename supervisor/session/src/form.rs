//! What the content of a file is, as far as it tells whether it may take the place of what was committed
//! under its name: what was whole is not replaced by what was torn.

use std::os::fd::BorrowedFd;

use sessionkeep_core::entry::RelPath;

use super::json::is_json_name;
use super::json_form::Reader as JsonReader;
use super::scan::Fingerprint;
use super::stable::{self, ReadError};

/// The smallest page of a database, and the unit of every database's size, in bytes.
const PAGE_MIN: u64 = 512;
/// So many different values of a byte are in a page of [`PAGE_MIN`] at least where it is encrypted: 221 on
/// average, with a standard deviation of 5. Text, and pages of a database, have half of that.
const RANDOM_VALUES_MIN: usize = 160;

/// What the content of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One whole value of JSON, and nothing else but white space and a byte order mark.
    Whole,
    /// Two or more objects or arrays of JSON, each beginning on a line of its own.
    Lines,
    /// Nothing at all.
    Empty,
    /// Whole pages that look random: an encrypted database, or something compressed.
    Sealed,
    /// A database that SQLite reads, with a sound structure as far as was looked at.
    Database,
    /// Anything else: a value that was cut short, a database that was overwritten, or another format.
    Broken,
}

/// Whether `path` is taken for torn, where it has the form `now`, and its last committed version the form
/// `before`: that one was JSON, and this is not, nor is it lines of it; a login is empty that was not; or
/// that one was a database, and this is none.
///
/// A gateway may encrypt a database that was not; where that one `kept_login`, nobody can tell whether this
/// one does.
#[must_use]
pub fn is_torn(path: &RelPath, before: Form, now: Form, kept_login: bool) -> bool {
    match (before, now) {
        (_, Form::Whole | Form::Database) | (Form::Empty, _) | (Form::Whole, Form::Lines) => false,
        (Form::Database, Form::Sealed) => kept_login,
        (Form::Whole | Form::Database, _) => true,
        (Form::Lines | Form::Sealed | Form::Broken, Form::Empty) => is_login(path),
        (Form::Lines | Form::Sealed | Form::Broken, _) => false,
    }
}

/// Whether the file by itself is a login, to its gateway: `creds.json` of Baileys, and what open-wa
/// keeps in `session.data.json`, which is no JSON.
fn is_login(path: &RelPath) -> bool {
    path.name() == b"creds.json" || path.name().ends_with(b".data.json")
}

/// Whether a file of so many bytes can be a database.
#[must_use]
pub fn may_be_database(size: u64) -> bool {
    size >= PAGE_MIN && size.is_multiple_of(PAGE_MIN)
}

/// What form a file has that is called no JSON, and that SQLite does not read.
#[must_use]
pub fn of_other(start: &[u8], size: u64) -> Form {
    if size == 0 {
        return Form::Empty;
    }
    let Some(page) = start
        .get(..PAGE_MIN as usize)
        .filter(|_| may_be_database(size))
    else {
        return Form::Broken;
    };
    let mut met = [false; 256];
    for byte in page {
        met[usize::from(*byte)] = true;
    }
    match met.iter().filter(|met| **met).count() >= RANDOM_VALUES_MIN {
        true => Form::Sealed,
        false => Form::Broken,
    }
}

/// Finds out the form of a file whose bytes come in order, in constant memory.
#[derive(Debug)]
pub enum FormReader {
    /// It is called JSON.
    Json(JsonReader),
    /// It is not.
    Other {
        /// Its first page.
        start: Vec<u8>,
        /// How much has come.
        size: u64,
    },
}

impl FormReader {
    /// For the file with this path.
    #[must_use]
    pub fn of(path: &RelPath) -> Self {
        match is_json_name(path) {
            true => Self::Json(JsonReader::default()),
            false => Self::Other {
                start: Vec::new(),
                size: 0,
            },
        }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        match self {
            Self::Json(reader) => reader.feed(bytes),
            Self::Other { start, size } => {
                let missing = (PAGE_MIN as usize).saturating_sub(start.len());
                start.extend_from_slice(&bytes[..bytes.len().min(missing)]);
                *size += bytes.len() as u64;
            }
        }
    }

    /// What all of it is.
    #[must_use]
    pub fn finish(self) -> Form {
        match self {
            Self::Json(reader) => reader.finish(),
            Self::Other { start, size } => of_other(&start, size),
        }
    }
}

/// Reads the file `path` below `dir` into `reader`, in pieces of `block` bytes, in one try.
///
/// # Errors
/// As [`stable::read_blocks`].
pub fn read_form(
    dir: BorrowedFd<'_>,
    path: &[u8],
    block: usize,
    mut reader: FormReader,
) -> Result<(Form, Fingerprint), ReadError> {
    let mut each = |_: u64, bytes: &[u8]| {
        reader.feed(bytes);
        Ok(())
    };
    let (print, _) = stable::read_blocks(dir, path, block, &mut each)?;
    Ok((reader.finish(), print))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn torn_is_what_was_json_or_a_database_and_a_login_that_is_empty() {
        use Form::{Broken, Database, Empty, Lines, Sealed, Whole};
        let (key, login) = ("session-1.json", "session.data.json");
        for (path, before, now, torn) in [
            (key, Whole, Broken, true),
            (key, Whole, Empty, true),
            (key, Whole, Sealed, true),
            (key, Whole, Lines, false),
            (key, Whole, Whole, false),
            (key, Broken, Broken, false),
            (key, Broken, Empty, false),
            (key, Lines, Broken, false),
            (key, Empty, Broken, false),
            (login, Broken, Empty, true),
            (login, Broken, Broken, false),
            (login, Empty, Empty, false),
            ("a/creds.json", Broken, Empty, true),
            ("a.db", Database, Broken, true),
            ("a.db", Database, Empty, true),
            ("a.db", Database, Database, false),
            ("a.db", Database, Sealed, false),
            ("a.db", Sealed, Database, false),
            ("a.db", Sealed, Empty, false),
            ("a.db", Broken, Database, false),
        ] {
            let rel = RelPath::new(path).expect("a path");
            let is = is_torn(&rel, before, now, false);
            assert_eq!(is, torn, "{path}: {before:?}, {now:?}");
        }
        let path = RelPath::new("store.db").expect("a path");
        assert!(is_torn(&path, Database, Sealed, true));
        assert!(!is_torn(&path, Database, Database, true));
    }

    proptest! {
        #[test]
        fn whole_pages_of_random_bytes_are_sealed_and_ruins_are_not(
            random in proptest::collection::vec(any::<u8>(), 1024..=1024),
            text in "[a-zA-Z0-9 {}\":,.\n]{512}",
            zeros in 1u64..20,
        ) {
            prop_assert_eq!(of_other(&random, 1024), Form::Sealed);
            prop_assert_eq!(of_other(&random, 1023), Form::Broken, "no whole pages");
            prop_assert_eq!(of_other(text.as_bytes(), 512), Form::Broken);
            prop_assert_eq!(of_other(&[0; 512], zeros * 512), Form::Broken);
            prop_assert_eq!(of_other(&random[..10], 10), Form::Broken);
            prop_assert_eq!(of_other(&[], 0), Form::Empty);
        }

        #[test]
        fn a_reader_says_of_pieces_what_is_said_of_all(bytes in proptest::collection::vec(any::<u8>(), 0..1500), cut in 0usize..1500) {
            let path = RelPath::new("a.db").expect("a path");
            let mut reader = FormReader::of(&path);
            let (first, rest) = bytes.split_at(cut.min(bytes.len()));
            reader.feed(first);
            reader.feed(rest);
            prop_assert_eq!(reader.finish(), of_other(&bytes, bytes.len() as u64));
        }
    }
}
