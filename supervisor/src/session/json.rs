//! The gate that keeps half-written JSON out of the archive. It is one against torn writes, and none
//! against formats: what never was JSON is a file like any other.

use std::os::fd::BorrowedFd;

use serde::de::IgnoredAny;

use crate::entry::RelPath;

use super::json_form::Reader;
use super::scan::Fingerprint;
use super::stable::{self, ReadError};

/// What the content of a file is that is called JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One whole value, and nothing else but white space and a byte order mark.
    Whole,
    /// Two or more objects or arrays, each beginning on a line of its own.
    Lines,
    /// Nothing at all.
    Empty,
    /// Anything else: a value that was cut short, or another format.
    Broken,
}

/// Whether the name promises JSON.
#[must_use]
pub fn is_json_name(path: &RelPath) -> bool {
    path.name().ends_with(b".json")
}

/// Whether the file by itself is a login, to its gateway: `creds.json` of Baileys, and what open-wa
/// keeps in `session.data.json`, which is no JSON.
fn is_login(path: &RelPath) -> bool {
    path.name() == b"creds.json" || path.name().ends_with(b".data.json")
}

/// What form `bytes` have.
#[must_use]
pub fn form_of(bytes: &[u8]) -> Form {
    if is_whole(bytes) {
        return Form::Whole;
    }
    let mut reader = Reader::default();
    reader.feed(bytes);
    reader.finish()
}

/// Whether `bytes` are one whole JSON value and nothing after it. An empty file is not: it is what
/// a writer that truncates first leaves for a moment, and what a gateway reads as "no login".
#[must_use]
pub fn is_whole(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

/// Whether `path` is taken for torn, where it has the form `now`, and its last committed version the form
/// `before`: that one was JSON, and this is not, nor is it lines of it; or a login is empty that was
/// not.
#[must_use]
pub fn is_torn(path: &RelPath, before: Form, now: Form) -> bool {
    match (before, now) {
        (_, Form::Whole) | (Form::Whole, Form::Lines) | (Form::Empty, _) => false,
        (Form::Whole, Form::Empty | Form::Broken) => true,
        (Form::Lines | Form::Broken, Form::Empty) => is_login(path),
        (Form::Lines | Form::Broken, Form::Lines | Form::Broken) => false,
    }
}

/// What form the file `path` below `dir` has, read in pieces of `block` bytes, in one try.
///
/// # Errors
/// As [`stable::read_blocks`].
pub fn read_form(
    dir: BorrowedFd<'_>,
    path: &[u8],
    block: usize,
) -> Result<(Form, Fingerprint), ReadError> {
    let mut reader = Reader::default();
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
    fn only_one_whole_value_passes() {
        for whole in [
            "{}",
            "[]",
            "null",
            " {\"a\":[1,2,{\"b\":\"\\u00e9\"}]}\n",
            "1",
        ] {
            assert!(is_whole(whole.as_bytes()), "{whole:?}");
        }
        for torn in [
            "",
            " ",
            "{",
            "{\"a\":1",
            "{}{}",
            "{} x",
            "{\"a\":1}\0\0\0",
            "\0",
        ] {
            assert!(!is_whole(torn.as_bytes()), "{torn:?}");
        }
    }

    #[test]
    fn torn_is_what_was_json_and_a_login_that_is_empty() {
        use Form::{Broken, Empty, Lines, Whole};
        let (key, login) = ("session-1.json", "session.data.json");
        for (path, before, now, torn) in [
            (key, Whole, Broken, true),
            (key, Whole, Empty, true),
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
        ] {
            let rel = RelPath::new(path).expect("a path");
            assert_eq!(
                is_torn(&rel, before, now),
                torn,
                "{path}: {before:?}, {now:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_cut_object_passes(text in "[a-z\"\\\\{}]{0,40}", cut in 0usize..1000) {
            let whole = serde_json::json!({ "noiseKey": { "private": text }, "n": [1, 2] }).to_string();
            prop_assert!(is_whole(whole.as_bytes()));
            let cut = cut % whole.len();
            prop_assert!(!is_whole(&whole.as_bytes()[..cut]));
        }
    }
}
