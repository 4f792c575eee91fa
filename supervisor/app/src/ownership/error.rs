//! Why an instance does not own the session, and the exit code that says so.

use std::time::Duration;

use sessionkeep_archive::ArchiveError;
use sessionkeep_archive::store::StoreError;
use sessionkeep_core::exit;

/// Why the session could not be owned, or is not any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnershipError {
    /// The store did not answer within `store.wait`.
    #[error("the store ({store}) did not become ready within {waited:?}; run `sessionkeep doctor`")]
    StoreUnavailable {
        /// The store, redacted.
        store: String,
        /// How long.
        waited: Duration,
        /// Its last error.
        #[source]
        source: StoreError,
    },
    /// The store refuses us, or cannot be used as it is set.
    #[error("the store ({store}) cannot be used; run `sessionkeep doctor`")]
    StoreRefused {
        /// The store, redacted.
        store: String,
        /// Its error.
        #[source]
        source: StoreError,
    },
    /// The store can be read and takes no writes, so that nobody can take the session there.
    #[error(
        "the store ({store}) can be read, but takes no writes; with store.unreachable: local, a start goes \
         on where nobody else can have the session"
    )]
    WritesRefused {
        /// The store, redacted.
        store: String,
        /// Its error.
        #[source]
        source: StoreError,
    },
    /// Another instance holds the lease, and `lease.conflict` is `refuse`.
    #[error(
        "instance {owner} owns this session; stop it, or set lease.conflict to takeover or wait"
    )]
    Owned {
        /// Who.
        owner: String,
    },
    /// The lease was lost while booting.
    #[error("another instance took the session over while this one was starting: {reason}")]
    Fenced {
        /// Who, in words.
        reason: String,
    },
    /// The archive could not be read or written.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl OwnershipError {
    /// Whether the store answered, and takes no writes.
    #[must_use]
    pub fn refuses_writes(&self) -> bool {
        match self {
            Self::WritesRefused { .. } => true,
            Self::StoreRefused { source, .. } => source.refuses_writes(),
            Self::Archive(error) => error.refuses_writes(),
            Self::StoreUnavailable { .. } | Self::Owned { .. } | Self::Fenced { .. } => false,
        }
    }

    /// The exit code that says so.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::StoreUnavailable { .. } | Self::WritesRefused { .. } => exit::STORE_UNAVAILABLE,
            Self::Owned { .. } | Self::Fenced { .. } => exit::FENCED,
            Self::StoreRefused { .. } => exit::CONFIG,
            Self::Archive(error) if error.is_transient() => exit::STORE_UNAVAILABLE,
            Self::Archive(_) => exit::INTERNAL,
        }
    }
}
