//! The gate that keeps half-written JSON out of the archive. It is one against torn writes, and none
//! against formats: what never was JSON is a file like any other.

use serde::de::IgnoredAny;

use sessionkeep_core::entry::RelPath;

use super::form::Form;
use super::json_form::Reader;

/// Whether the name promises JSON.
#[must_use]
pub fn is_json_name(path: &RelPath) -> bool {
    path.name().ends_with(b".json")
}

/// What form `bytes` have, of a file that is called JSON.
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
