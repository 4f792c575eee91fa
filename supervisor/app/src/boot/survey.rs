//! Looks at what the session directory holds, before anything is decided.

use std::ops::ControlFlow;

use tracing::warn;

use super::decide::{Local, is_of};
use super::error::BootError;
use sessionkeep_core::record::ArchiveName;
use sessionkeep_core::state_dir::StateDir;
use sessionkeep_session::{Directory, FoundKind, Marker, MarkerError};

pub use sessionkeep_session::identity::CREDENTIALS;

/// Looks at the directory, whose own part is `state`; none where nothing was ever written there.
///
/// # Errors
/// If it cannot be read, or was left by a newer version.
pub fn survey(
    directory: &Directory,
    state: Option<&StateDir>,
    archive: &ArchiveName,
) -> Result<Local, BootError> {
    let marker = match state.map_or(Ok(None), Marker::read) {
        Ok(marker) => marker.filter(|marker| {
            let own = is_of(marker, archive);
            if !own {
                warn!(target: "boot", belongs_to = %marker.archive, wanted = %archive, "the directory belongs to another archive");
            }
            own
        }),
        // Without a readable marker nothing says that the directory is newer than the archive.
        Err(error @ MarkerError::Malformed { .. }) => {
            warn!(target: "boot", %error, "the directory is treated as unknown");
            None
        }
        Err(error) => return Err(error.into()),
    };
    let mut local = Local {
        has_files: false,
        has_credentials: false,
        marker,
    };
    let report = directory.scan_until(None, &mut |_, _| {}, &mut |found| {
        if found.kind != FoundKind::Dir {
            local.has_files = true;
            // A torn one counts: it is mended by itself, and its neighbours may be newer.
            local.has_credentials |= found.path.name() == CREDENTIALS;
        }
        // Both questions are answered.
        match local.has_credentials {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    match report.root_unreadable {
        Some(source) => Err(BootError::Directory {
            dir: directory.root().to_owned(),
            source,
        }),
        None => Ok(local),
    }
}
