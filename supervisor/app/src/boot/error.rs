//! Why a boot did not get to the gateway, and the exit code that says so.

use std::path::PathBuf;

use crate::ownership::OwnershipError;
use sessionkeep_archive::ArchiveError;
use sessionkeep_archive::store::StoreError;
use sessionkeep_core::entry::RelPath;
use sessionkeep_core::exit;
use sessionkeep_core::record::NameError;
use sessionkeep_session::{MarkerError, StageError};

/// Why a boot ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// The session could not be owned.
    #[error(transparent)]
    Ownership(OwnershipError),
    /// The store takes no writes, and it cannot be told that the last owner is gone.
    #[error(
        "the store takes no writes, so {owner} could not let the session go or renew its lease, and may \
         still be running; nothing is started beside it"
    )]
    OwnerUnknown {
        /// Who.
        owner: String,
        /// What the store said.
        #[source]
        source: StoreError,
    },
    /// The directory cannot be read.
    #[error("failed to look at the session directory {}", dir.display())]
    Directory {
        /// Which.
        dir: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What was mounted when the directory was last used is not there.
    #[error(
        "`{path}` in the session directory was a mount when the session was last used, and is none now; what was on it would be taken for \
         deleted. Mount it again; or move the session directory away, and the store's state is restored; or, if its files are to lie in the \
         directory itself from now on, delete `.sessionkeep/mounts.json`"
    )]
    MountGone {
        /// Which.
        path: RelPath,
    },
    /// The marker cannot be used.
    #[error(transparent)]
    Marker(#[from] MarkerError),
    /// The restored directory could not be built.
    #[error("failed to restore; the directory is as it was")]
    Stage(#[source] StageError),
    /// The restored directory is only partly in place.
    #[error(transparent)]
    HalfInPlace(StageError),
    /// The archive could not be read.
    #[error("failed to read the archive; the directory is as it was")]
    Archive(#[from] ArchiveError),
    /// Not one commit is whole.
    #[error(
        "no commit of this archive is whole; nothing is started, since an empty directory would be a new login. \
         Run `sessionkeep verify --all`, or set another SESSIONKEEP_ARCHIVE to begin anew"
    )]
    NothingWhole(#[source] ArchiveError),
    /// A name that was handed over cannot be used.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl From<OwnershipError> for BootError {
    fn from(error: OwnershipError) -> Self {
        match error {
            OwnershipError::Archive(error) => Self::Archive(error),
            other => Self::Ownership(other),
        }
    }
}

impl From<StageError> for BootError {
    fn from(error: StageError) -> Self {
        match error {
            StageError::HalfInPlace(_) => Self::HalfInPlace(error),
            other => Self::Stage(other),
        }
    }
}

impl BootError {
    /// Whether the same boot may succeed later without anybody mending anything: the store answered,
    /// and then it did not.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Archive(error) if error.is_transient())
    }

    /// Whether the store answered, and takes no writes.
    #[must_use]
    pub fn refuses_writes(&self) -> bool {
        match self {
            Self::OwnerUnknown { .. } => true,
            Self::Ownership(error) => error.refuses_writes(),
            Self::Archive(error) => error.refuses_writes(),
            _ => false,
        }
    }

    /// The exit code that says so.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Ownership(error) => error.exit_code(),
            Self::OwnerUnknown { .. } => exit::STORE_UNAVAILABLE,
            _ if self.is_transient() => exit::STORE_UNAVAILABLE,
            Self::Directory { .. } | Self::MountGone { .. } | Self::Marker(_) | Self::Name(_) => {
                exit::CONFIG
            }
            Self::Stage(error) | Self::HalfInPlace(error) if error.is_of_the_setup() => {
                exit::CONFIG
            }
            Self::Stage(_) | Self::HalfInPlace(_) | Self::Archive(_) | Self::NothingWhole(_) => {
                exit::INTERNAL
            }
        }
    }
}
