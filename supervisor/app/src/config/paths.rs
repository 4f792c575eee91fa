//! Paths as they are given: what a shell would have made something else of, and nobody did.

use std::path::PathBuf;

use sessionkeep_core::invalid::Invalid;

/// As [`path`], for what is no setting; the error says what is wrong and what to write.
pub(crate) fn as_path(text: &str) -> Result<PathBuf, String> {
    path(text).map_err(|Invalid { reason, remedy }| format!("{reason}; {remedy}"))
}

/// Reads a path. It is taken as it is, so that what only a shell expands is refused: it would be the name of
/// a new directory.
pub(super) fn path(text: &str) -> Result<PathBuf, Invalid> {
    let refused = |reason: &str, remedy: &str| Err(Invalid::new(reason, remedy));
    if text.starts_with('~') {
        return refused(
            "begins with `~`, which only a shell makes a home directory of",
            "write the path in full, such as `/data/session`",
        );
    }
    let is_quoted = |quote| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    if is_quoted('"') || is_quoted('\'') {
        return refused(
            "begins and ends with a quote, which would be part of the name",
            "write it without quotes",
        );
    }
    if text.starts_with('$') || text.contains("${") || text.contains("$(") {
        return refused(
            "holds a `$` that nothing has put a value in place of",
            "write the path in full, such as `/data/session`",
        );
    }
    if text.contains(" #") || text.contains("\t#") {
        return refused(
            "holds a blank and a `#`, and is taken whole, with what looks like a comment",
            "put the comment on a line of its own",
        );
    }
    let drive =
        matches!(text.as_bytes(), [letter, b':', b'/' | b'\\', ..] if letter.is_ascii_alphabetic());
    if drive || text.contains('\\') {
        return refused(
            "is a path of Windows, which means nothing in a container",
            "write a path such as `/data/session`; Git Bash makes such a path of it by itself unless MSYS_NO_PATHCONV=1 is set",
        );
    }
    if text.chars().any(char::is_control) {
        return refused(
            "holds a line break or another control character",
            "write the path on one line",
        );
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_have_expanded_is_refused_and_plain_paths_are_not() {
        for text in [
            "~",
            "~/session",
            "~bot/session",
            "$HOME/session",
            "/data/${NAME}",
            "$(pwd)/session",
            "/data/s # the login",
            "C:/Program Files/Git/app/.sessions",
            "c:\\data",
            "..\\data",
            "/data/a\nb",
            "\"/data/a\"",
            "'keep.db'",
        ] {
            path(text).expect_err(text);
        }
        for text in [
            "/data/session",
            "session",
            "./~",
            "/data/a b",
            "/data/a#b",
            "/usr/src/app/it's",
            "a:b",
        ] {
            assert_eq!(path(text), Ok(text.into()), "{text}");
        }
    }
}
