//! A directory that stays, on a disk that was used before: what was mounted in it then has to be mounted
//! now, or the watcher would take what was on it for deleted.

use sessionkeep_archive::version::Version;
use sessionkeep_core::entry::{EntryKind, RelPath};
use sessionkeep_core::state_dir::StateDir;
use sessionkeep_session::mounts::{self, Mounts};
use sessionkeep_session::{Directory, Look};

use super::error::BootError;

/// Refuses where a mount is missing, unless what is archived of it lies in the directory itself.
///
/// # Errors
/// [`BootError::MountGone`].
pub(super) fn are_there(
    directory: &Directory,
    state: &StateDir,
    version: Option<&Version>,
) -> Result<(), BootError> {
    let before = mounts::remembered(state);
    if before.is_empty() {
        return Ok(());
    }
    let now = look(directory)?;
    for path in before {
        let is_mounted = now.at(path.as_bytes()).is_some();
        if !is_mounted && !version.is_some_and(|version| lies_here(directory, version, &path)) {
            return Err(BootError::MountGone { path });
        }
    }
    note(directory, state)
}

/// Notes what is mounted now, for the watcher and the next start.
///
/// # Errors
/// Where that cannot be looked at or written.
pub(super) fn note(directory: &Directory, state: &StateDir) -> Result<(), BootError> {
    let paths: Vec<RelPath> = look(directory)?
        .iter()
        .map(|mount| mount.path.clone())
        .collect();
    mounts::remember(state, &paths).map_err(|source| failed(directory, source))
}

fn look(directory: &Directory) -> Result<Mounts, BootError> {
    Mounts::below(directory.fd()).map_err(|source| failed(directory, source))
}

fn failed(directory: &Directory, source: std::io::Error) -> BootError {
    BootError::Directory {
        dir: directory.root().to_owned(),
        source,
    }
}

/// Whether everything that is archived at and below `path` is there, by its size.
fn lies_here(directory: &Directory, version: &Version, path: &RelPath) -> bool {
    version
        .tree
        .iter()
        .filter(|(at, _)| at == path || at.is_within(path))
        .all(|(at, leaf)| match directory.look(&at) {
            Look::Found(found) => match leaf.kind {
                EntryKind::File { size, .. } => found.print.size == size,
                _ => true,
            },
            _ => false,
        })
}
