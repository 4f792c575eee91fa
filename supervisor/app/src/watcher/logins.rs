//! Which logins the directory holds: an account is linked while its `creds.json`, or its row in a database,
//! names one. A gateway that was logged out deletes it, or begins a new one without.

use std::collections::BTreeSet;

use crate::boot::survey::CREDENTIALS;
use crate::gateway::ProfileName;
use crate::status::incidents::IncidentKind;
use crate::status::{Shared, session_of};
use sessionkeep_core::entry::RelPath;
use sessionkeep_session::Directory;
use sessionkeep_session::identity::{self, Login, NotRead};

/// Whether a file names a linked account; `None` where that cannot be told.
fn is_linked(read: Result<Login, NotRead>) -> Option<bool> {
    match read {
        Ok(login) => Some(login.linked),
        Err(NotRead::NoLogin) => Some(false),
        Err(NotRead::NotNow) => None,
    }
}

/// The files that name a linked account.
#[derive(Debug, Default)]
pub(super) struct Logins(BTreeSet<RelPath>);

impl Logins {
    /// Looks at those of `changed` that were committed or removed, by themselves or with the directory
    /// above; what `databases` keep was read with them. A login that is gone is an incident, until it
    /// is back.
    pub(super) fn look(
        &mut self,
        directory: &Directory,
        profile: ProfileName,
        changed: &[RelPath],
        databases: &[(RelPath, Option<Login>)],
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
            if databases.iter().all(|(other, _)| *other != path) {
                let linked = is_linked(identity::read(directory, &path));
                self.note(profile, path, linked, shared);
            }
        }
        for (path, login) in databases {
            let linked = login.as_ref().is_some_and(|login| login.linked);
            self.note(profile, path.clone(), Some(linked), shared);
        }
    }

    fn note(&mut self, profile: ProfileName, path: RelPath, linked: Option<bool>, shared: &Shared) {
        let session = session_of(profile, &path).unwrap_or_else(|| path.to_string());
        let name = profile.kind().shown_as(&session).1;
        match linked {
            Some(true) => {
                shared.over(IncidentKind::LoggedOut, name);
                self.0.insert(path);
            }
            Some(false) if self.0.remove(&path) => {
                let detail = format!("{path} does not name an account any more");
                shared.incident(IncidentKind::LoggedOut, name, &detail);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;

    const LINKED: &str = r#"{"me":{"id":"4915@s.whatsapp.net"},"registered":true}"#;

    #[test]
    fn a_login_that_is_deleted_or_begun_anew_was_logged_out_until_it_is_back() {
        let dir = tempfile::tempdir().expect("tempdir");
        let directory = Directory::open(dir.path(), ProfileName::Baileys.files()).expect("open");
        let shared = crate::status::tests::shared();
        let mut logins = Logins::default();
        let path = |text: &str| RelPath::new(text).expect("a path");
        let mut look = |changed: &str| {
            logins.look(
                &directory,
                ProfileName::Baileys,
                &[path(changed)],
                &[],
                &shared,
            );
            shared.ledger().lasting(IncidentKind::LoggedOut)
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

    #[test]
    fn a_login_in_a_database_is_logged_out_when_its_row_is_gone() {
        let dir = tempfile::tempdir().expect("tempdir");
        let directory = Directory::open(dir.path(), ProfileName::Waha.files()).expect("open");
        let shared = crate::status::tests::shared();
        let mut logins = Logins::default();
        let path = RelPath::new("gows/default/gows.db").expect("a path");
        let linked = Login::of_credentials(LINKED.as_bytes());
        let mut look = |login: Option<Login>| {
            let read = [(path.clone(), login)];
            logins.look(&directory, ProfileName::Waha, &[], &read, &shared);
            shared.ledger().lasting(IncidentKind::LoggedOut)
        };
        assert!(look(None).is_empty(), "it was never linked");
        assert!(look(linked.clone()).is_empty());
        assert_eq!(look(None), ["default"]);
        assert!(look(linked).is_empty());
    }
}
