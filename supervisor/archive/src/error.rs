//! What can go wrong between a store and a tree.

use crate::store::StoreError;
use sessionkeep_core::entry::RelPath;
use sessionkeep_core::record::Seq;

/// Why an archive could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A commit is there but is not what was written.
    #[error("commit {seq} is damaged: {why}")]
    DamagedCommit {
        /// Its number.
        seq: Seq,
        /// How it shows.
        why: String,
    },
    /// A commit that the chain needs is not there.
    #[error("commit {seq} is missing from the archive")]
    MissingCommit {
        /// Its number.
        seq: Seq,
    },
    /// A file's content is damaged or missing.
    #[error("the content of {path} is damaged: {why}")]
    DamagedContent {
        /// Which file.
        path: RelPath,
        /// How it shows.
        why: String,
    },
    /// Something that the archive holds will not be written to a disk.
    #[error("the archive holds something that is refused: {0}")]
    Refused(String),
    /// Content could not be compressed, or handed on, or read.
    #[error("failed to {action}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl ArchiveError {
    /// Whether it says that what the store holds is not whole, so that an older commit is worth
    /// trying; as opposed to a store that does not answer.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::DamagedCommit { .. }
            | Self::MissingCommit { .. }
            | Self::DamagedContent { .. }
            | Self::Refused(_) => true,
            Self::Store(error) => {
                matches!(
                    error,
                    StoreError::Missing { .. } | StoreError::Damaged { .. }
                )
            }
            Self::Io { .. } => false,
        }
    }

    /// Whether the store answered, and takes no writes.
    #[must_use]
    pub fn refuses_writes(&self) -> bool {
        matches!(self, Self::Store(error) if error.refuses_writes())
    }

    /// Whether the same call may succeed later without anybody mending anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_transient())
    }
}

/// An archive operation's result.
pub type Result<T, E = ArchiveError> = std::result::Result<T, E>;
