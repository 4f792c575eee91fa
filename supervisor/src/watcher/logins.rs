//! Which logins the directory holds, as Baileys' `creds.json` tells it: an account is linked while it
//! names one under `me`. A gateway that was logged out deletes the file, or begins a new one without.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::boot::survey::CREDENTIALS;
use crate::config::ProfileName;
use crate::entry::RelPath;
use crate::session::{Directory, ReadError, stable};
use crate::status::incidents::Kind;
use crate::status::{Shared, named, session_of};

/// Such a file has a few kilobytes.
const SIZE_MAX: u64 = 256 << 10;

#[derive(Deserialize)]
struct Credentials {
    me: Option<Me>,
}

#[derive(Deserialize)]
struct Me {
    id: Option<String>,
}

/// Whether a file of credentials names a linked account; `None` where it cannot be read whole.
fn is_linked(read: Result<Vec<u8>, ReadError>) -> Option<bool> {
    match read {
        Ok(bytes) => {
            let credentials: Credentials = serde_json::from_slice(&bytes).ok()?;
            Some(credentials.me.is_some_and(|me| me.id.is_some()))
        }
        Err(ReadError::Vanished) => Some(false),
        Err(_) => None,
    }
}

/// The credentials that name a linked account.
#[derive(Debug, Default)]
pub(super) struct Logins(BTreeSet<RelPath>);

impl Logins {
    /// Looks at those that were committed or removed, by themselves or with the directory above. A
    /// login that is gone is an incident, until it is back.
    pub(super) fn look(
        &mut self,
        directory: &Directory,
        profile: ProfileName,
        changed: &[RelPath],
        shared: &Shared,
    ) {
        let below = |path: &RelPath| {
            let inside = self.0.iter().filter(|known| known.is_within(path));
            inside.cloned().collect::<Vec<_>>()
        };
        let mut due: BTreeSet<RelPath> = changed.iter().flat_map(below).collect();
        due.extend(
            changed
                .iter()
                .filter(|path| path.name() == CREDENTIALS)
                .cloned(),
        );
        for path in due {
            let read = stable::read_once(directory.fd(), path.as_bytes(), SIZE_MAX);
            let read = read.map(|stable| stable.bytes);
            let session = session_of(profile, &path).unwrap_or_else(|| path.to_string());
            let name = named(profile, &session).1;
            match is_linked(read) {
                Some(true) => {
                    shared.over(Kind::LoggedOut, name);
                    self.0.insert(path);
                }
                Some(false) if self.0.remove(&path) => {
                    let detail = format!("{path} does not name an account any more");
                    shared.incident(Kind::LoggedOut, name, &detail);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Profile;
    use std::fs;

    const LINKED: &str = r#"{"me":{"id":"4915@s.whatsapp.net"},"registered":true}"#;

    #[test]
    fn a_login_that_is_deleted_or_begun_anew_was_logged_out_until_it_is_back() {
        let dir = tempfile::tempdir().expect("tempdir");
        let directory =
            Directory::open(dir.path(), Profile::new(ProfileName::Baileys)).expect("open");
        let shared = crate::status::tests::shared();
        let mut logins = Logins::default();
        let path = |text: &str| RelPath::new(text).expect("a path");
        let mut look = |changed: &str| {
            logins.look(&directory, ProfileName::Baileys, &[path(changed)], &shared);
            shared.ledger().lasting(Kind::LoggedOut)
        };
        let file = dir.path().join("a/creds.json");
        fs::create_dir(dir.path().join("a")).expect("mkdir");
        fs::write(&file, r#"{"me":null}"#).expect("write");
        assert!(look("a/creds.json").is_empty(), "it was never linked");
        fs::write(&file, LINKED).expect("write");
        assert!(look("a/creds.json").is_empty());
        fs::write(&file, "{").expect("write");
        assert!(look("a/creds.json").is_empty(), "torn is not logged out");
        fs::write(&file, r#"{"noiseKey":{}}"#).expect("write");
        assert_eq!(look("a/creds.json"), ["a"]);
        fs::write(&file, LINKED).expect("write");
        assert!(look("a/creds.json").is_empty());
        fs::remove_dir_all(dir.path().join("a")).expect("remove");
        assert_eq!(look("a"), ["a"], "with the directory above");
    }
}
