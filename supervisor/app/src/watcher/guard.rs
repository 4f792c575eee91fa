//! The last look before a commit: would it replace a good copy by a bad one?

use std::fmt;

use super::files::Files;
use super::gathered::{Edit, IndexEntry};
use crate::boot::survey::CREDENTIALS;
use crate::status::Shared;
use crate::status::incidents::IncidentKind;
use sessionkeep_archive::tree::Tree;
use sessionkeep_core::entry::{self, RelPath};
use sessionkeep_core::state_dir::{Presence, StateDir};
use sessionkeep_session::{Directory, Look, Marker};

/// Why nothing may be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The session directory is not the one that was opened, or cannot be read, and why.
    DirectoryGone(String),
    /// Files are gone, and so is our own marker: not the gateway deleted them.
    Wiped,
    /// The session directory was made anew, and cannot be used: why.
    NotFollowed(String),
    /// It was emptied or made anew just now, and may be being emptied or filled still.
    NotYet,
    /// It was emptied or made anew, and the same login was written into it again, with most of its
    /// files missing.
    WrittenFromMemory(RelPath),
    /// It was emptied or made anew, and holds no login, where one is stored.
    NoLogin,
    /// Files are gone, and something else is in the place of `.sessionkeep`: nothing tells who did it.
    StateDirReplaced,
    /// The last login is gone, but was not deleted: something else stands in its place.
    CredentialsReplaced(RelPath),
    /// A mount below the session directory that committed files came from is gone.
    MountGone(RelPath),
    /// Something was mounted over committed files.
    MountCame(RelPath),
}

impl Refusal {
    /// Makes it an incident, where it is none by what else it shows in.
    pub(super) fn tell(&self, shared: &Shared) {
        if matches!(self, Self::MountGone(_) | Self::MountCame(_)) {
            shared.incident(IncidentKind::MountChanged, "", &self.to_string());
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DirectoryGone(why) => write!(
                f,
                "the session directory was unmounted, replaced or became unreadable while running \
                 ({why}); the archive keeps its last state, restart to restore it"
            ),
            Self::Wiped => f.write_str(
                "the session directory was wiped from outside while running; \
                 the archive keeps its last state, restart to restore it",
            ),
            Self::NotFollowed(why) => write!(
                f,
                "the session directory was deleted and made anew, and the new one cannot be used ({why}); \
                 the archive keeps its last state, restart to restore it"
            ),
            Self::NotYet => f.write_str(
                "the session directory was emptied or made anew just now; looking again until that is over",
            ),
            Self::WrittenFromMemory(path) => write!(
                f,
                "the session directory was wiped from outside while running, and the gateway goes on \
                 writing the same login ({path}) without most of its files; the archive keeps the whole \
                 state, restart to restore it"
            ),
            Self::NoLogin => f.write_str(
                "the session directory was wiped from outside while running, and holds no login; \
                 the archive keeps the last one: a new login is saved, and a restart restores the last",
            ),
            Self::StateDirReplaced => f.write_str(
                "files are gone, and .sessionkeep is not the directory that sessionkeep made; \
                 the archive keeps its last state, restart to see what to do",
            ),
            Self::CredentialsReplaced(path) => write!(
                f,
                "the last login ({path}) was replaced by something else; \
                 the archive keeps the login, restart to restore it"
            ),
            Self::MountGone(path) => write!(
                f,
                "`{path}` in the session directory was a mount and is none now, or another one; \
                 the archive keeps what was on it, mount it again"
            ),
            Self::MountCame(path) => write!(
                f,
                "something was mounted at `{path}` in the session directory, over files that are saved; \
                 the archive keeps them, unmount it"
            ),
        }
    }
}

impl Refusal {
    /// Whether it ends by what the gateway does next, so that it is worth to look again soon.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::DirectoryGone(_)
            | Self::NotFollowed(_)
            | Self::Wiped
            | Self::NotYet
            | Self::WrittenFromMemory(_)
            | Self::NoLogin => true,
            Self::StateDirReplaced
            | Self::CredentialsReplaced(_)
            | Self::MountGone(_)
            | Self::MountCame(_) => false,
        }
    }
}

/// Checks what is about to be committed.
#[must_use]
pub(super) fn check(
    directory: &Directory,
    state: &StateDir,
    tree: &Tree<IndexEntry>,
    files: &Files,
    edits: &[Edit],
) -> Option<Refusal> {
    let is_credentials = |path: &RelPath| path.name() == CREDENTIALS || files.keeps_login(path);
    let removes = edits.iter().any(|edit| matches!(edit, Edit::Remove(_)));
    let replaces = edits.iter().find_map(|edit| match edit {
        Edit::Set(path, leaf)
            if is_credentials(path)
                && !matches!(leaf.kind, entry::EntryKind::File { .. })
                && matches!(
                    tree.get(path).map(|l| &l.kind),
                    Some(entry::EntryKind::File { .. })
                ) =>
        {
            Some(path)
        }
        _ => None,
    });
    if !removes && replaces.is_none() {
        return None;
    }
    if let Err(error) = directory.intact() {
        return Some(Refusal::DirectoryGone(error.to_string()));
    }
    if removes {
        match state.presence() {
            Presence::Replaced => return Some(Refusal::StateDirReplaced),
            Presence::InPlace if !matches!(Marker::read(state), Ok(None)) => {}
            Presence::InPlace | Presence::Gone => return Some(Refusal::Wiped),
        }
    }
    let path = replaces?;
    let others = tree.iter().any(|(other, leaf)| {
        is_credentials(&other)
            && other != *path
            && matches!(leaf.kind, entry::EntryKind::File { .. })
            && matches!(directory.look(&other), Look::Found(_))
    });
    (!others).then(|| Refusal::CredentialsReplaced(path.clone()))
}
