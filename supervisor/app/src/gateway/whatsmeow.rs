//! whatsmeow: an SQLite database for all accounts.

use super::GatewayKind;

/// How the names of its databases end.
const DATABASES: [&str; 3] = [".db", ".sqlite", ".sqlite3"];

pub(super) struct Whatsmeow;

impl GatewayKind for Whatsmeow {
    fn session_of<'p>(&self, path: &'p str) -> Option<&'p str> {
        let is_database = |end| path.ends_with(end);
        DATABASES.into_iter().any(is_database).then_some(path)
    }

    fn shown_as<'k>(&self, key: &'k str) -> (&'k str, &'k str) {
        ("whatsmeow", key)
    }
}
