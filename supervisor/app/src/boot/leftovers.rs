//! A directory that was emptied, or deleted and made anew, while a gateway used it: whether what it holds
//! by now is a new login, or what is left of the one that is stored.
//!
//! A gateway that was logged out deletes its files and begins anew. From outside that looks like somebody's
//! `rm -rf` under a gateway that goes on writing from memory; only whose login it is tells the two apart.

use super::contents::Contents;
use sessionkeep_archive::fetch::Fetch;
use sessionkeep_archive::store::Store;
use sessionkeep_archive::tree::Tree;
use sessionkeep_archive::version::Version;
use sessionkeep_archive::{ArchiveError, Result as ArchiveResult};
use sessionkeep_core::beneath::Place;
use sessionkeep_core::entry::{EntryKind, RelPath};
use sessionkeep_core::state_dir::StateDir;
use sessionkeep_session::identity::{self, Login, NotRead, may_be_login};
use sessionkeep_session::{Directory, FoundKind};

/// What a directory holds, beside what is committed of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// How many files and links are committed.
    pub committed: u64,
    /// Under how many of their paths there is something.
    pub left: u64,
    /// Whether there is any file or link.
    pub has_files: bool,
    /// The logins that are there.
    pub logins: Vec<(RelPath, Login)>,
    /// Whether a file that may be a login could not be read whole.
    pub unread: bool,
}

/// Looks at the directory. Nothing is known of one that cannot be listed: it counts as empty.
#[must_use]
pub fn look<T>(directory: &Directory, tree: &Tree<T>) -> Leftovers {
    let is_entry = |kind: &EntryKind| *kind != EntryKind::Dir;
    let mut remains = Leftovers {
        committed: tree.iter().filter(|(_, leaf)| is_entry(&leaf.kind)).count() as u64,
        ..Leftovers::default()
    };
    let mut candidates = Vec::new();
    directory.scan(None, &mut |_, _| {}, &mut |found| {
        if found.kind == FoundKind::Dir {
            return;
        }
        remains.has_files = true;
        let known = tree.get(&found.path);
        remains.left += u64::from(known.is_some_and(|leaf| is_entry(&leaf.kind)));
        if found.kind == FoundKind::File && may_be_login(&found.path) {
            candidates.push(found.path);
        }
    });
    for path in candidates {
        match identity::read(directory, &path) {
            Ok(login) => remains.logins.push((path, login)),
            Err(NotRead::NoLogin) => {}
            Err(NotRead::NotNow) => remains.unread = true,
        }
    }
    remains
}

/// What a directory is taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// There is nothing in it.
    Empty,
    /// There are files and no login, where one is stored.
    NoLogin,
    /// The login that is stored, without most of its files: a gateway wrote it from memory.
    WrittenFromMemory(RelPath),
    /// What is stored, with most of its files: only our own directory was lost.
    Kept,
    /// Another login than any that is stored.
    NewLogin(RelPath),
    /// Nothing tells whose files are stored, nor whose these are.
    Appeared,
}

impl Judgement {
    /// Whether what is there may be committed.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        match self {
            Self::Kept | Self::NewLogin(_) | Self::Appeared => true,
            Self::Empty | Self::NoLogin | Self::WrittenFromMemory(_) => false,
        }
    }
}

/// Judges what a directory holds against the logins that are stored.
#[must_use]
pub fn judge(stored: &[(RelPath, Login)], remains: &Leftovers) -> Judgement {
    if !remains.has_files {
        return Judgement::Empty;
    }
    let most_is_left = remains.left * 2 >= remains.committed;
    let as_it_was = match most_is_left {
        true => Judgement::Kept,
        false => Judgement::Appeared,
    };
    if stored.is_empty() {
        return match remains.logins.iter().find(|(_, login)| !login.is_unknown()) {
            Some((path, _)) if !most_is_left => Judgement::NewLogin(path.clone()),
            _ => as_it_was,
        };
    }
    if remains.logins.is_empty() {
        return Judgement::NoLogin;
    }
    let is_stored = |login: &Login| stored.iter().any(|(_, known)| known.is_same(login));
    if let Some((path, _)) = remains.logins.iter().find(|(_, login)| is_stored(login)) {
        return match most_is_left {
            true => Judgement::Kept,
            false => Judgement::WrittenFromMemory(path.clone()),
        };
    }
    match remains.logins.iter().find(|(_, login)| !login.is_unknown()) {
        Some((path, _)) => Judgement::NewLogin(path.clone()),
        None => as_it_was,
    }
}

/// The logins that a version holds, in the files that `wanted` says yes to.
///
/// # Errors
/// The store's, and of damage; the disk's, where the files cannot be put there to be looked at.
pub async fn stored_logins(
    store: &dyn Store,
    version: &mut Version,
    state: &StateDir,
    mut wanted: impl FnMut(&RelPath) -> bool,
) -> ArchiveResult<Vec<(RelPath, Login)>> {
    let fetch = Fetch::plan(version, |path| may_be_login(path) && wanted(path));
    if fetch.files() == 0 {
        return Ok(Vec::new());
    }
    // It is removed whatever comes of it: it holds keys.
    let _cleared = Cleared(state);
    let contents = Contents::begin(state).map_err(on_disk)?;
    let fetched = fetch.run(store, contents).await;
    let contents = fetched.map_err(|(error, _)| error)?;
    let mut logins = Vec::new();
    for content in contents.whole() {
        let place = Place::below(contents.dir(), content.name.as_bytes());
        let place = place.map_err(|errno| on_disk(errno.into()))?;
        if let Ok(login) = identity::read_at(&place, &content.path) {
            logins.push((content.path.clone(), login));
        }
    }
    Ok(logins)
}

fn on_disk(source: std::io::Error) -> ArchiveError {
    ArchiveError::Io {
        action: "look at the stored logins",
        source,
    }
}

struct Cleared<'a>(&'a StateDir);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        if let Err(error) = Contents::clear(self.0) {
            tracing::warn!(target: "boot", %error, "copies of stored logins could not be removed from .sessionkeep");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).expect("a path")
    }

    fn login(text: &str) -> Login {
        Login::of_credentials(text.as_bytes()).expect("whole")
    }

    fn account(me: u8) -> (RelPath, Login) {
        let text = format!(r#"{{"noiseKey":"{me}","me":{{"id":"{me}"}}}}"#);
        (path(&format!("{me}/creds.json")), login(&text))
    }

    fn remains(left: u64, logins: &[(RelPath, Login)]) -> Leftovers {
        Leftovers {
            committed: 10,
            left,
            has_files: true,
            logins: logins.to_vec(),
            unread: false,
        }
    }

    #[test]
    fn a_new_login_is_told_from_what_is_left_of_the_old_one() {
        let (old, new) = (account(1), account(2));
        let unknown = (path("creds.json"), login("{}"));
        let stored = [old.clone()];
        let (ours, theirs) = (path("1/creds.json"), path("2/creds.json"));
        for (what, stored, found, expected) in [
            (
                "nothing",
                &stored[..],
                Leftovers::default(),
                Judgement::Empty,
            ),
            ("files alone", &stored, remains(3, &[]), Judgement::NoLogin),
            (
                "the old one from memory",
                &stored,
                remains(2, std::slice::from_ref(&old)),
                Judgement::WrittenFromMemory(ours.clone()),
            ),
            (
                "the old one from memory, beside a new one",
                &stored,
                remains(2, &[new.clone(), old.clone()]),
                Judgement::WrittenFromMemory(ours),
            ),
            (
                "all but our own",
                &stored,
                remains(9, &[old]),
                Judgement::Kept,
            ),
            (
                "another",
                &stored,
                remains(1, std::slice::from_ref(&new)),
                Judgement::NewLogin(theirs.clone()),
            ),
            (
                "one of which nothing is known",
                &stored,
                remains(1, std::slice::from_ref(&unknown)),
                Judgement::Appeared,
            ),
            (
                "files where no login was",
                &[],
                remains(1, &[]),
                Judgement::Appeared,
            ),
            (
                "a login where none was",
                &[],
                remains(1, &[new]),
                Judgement::NewLogin(theirs),
            ),
            ("the same files", &[], remains(8, &[]), Judgement::Kept),
        ] {
            assert_eq!(judge(stored, &found), expected, "{what}");
        }
    }

    proptest! {
        #[test]
        fn no_state_without_a_login_and_no_part_of_the_same_one_replaces_a_login(
            stored in proptest::collection::btree_set(0u8..6, 1..4),
            found in proptest::collection::btree_set(0u8..6, 0..4),
            left in 0u64..=10,
            has_files: bool,
        ) {
            let of = |accounts: &std::collections::BTreeSet<u8>| -> Vec<_> {
                accounts.iter().copied().map(account).collect()
            };
            let there = Leftovers { has_files: has_files || !found.is_empty(), ..remains(left, &of(&found)) };
            let accepted = judge(&of(&stored), &there).is_accepted();
            if found.is_empty() {
                prop_assert!(!accepted);
            } else if !stored.is_disjoint(&found) {
                prop_assert_eq!(accepted, left >= 5);
            } else {
                prop_assert!(accepted, "another identity is a new login");
            }
        }
    }
}
