//! What can go wrong in a store, split by what the caller does about it.

/// A store's result.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Why a store operation failed. No variant ever carries a password or a whole URL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store does not answer, or not in time, or cannot take writes just now: try again. What
    /// was asked for may or may not have happened.
    #[error("the store did not {action}")]
    Unavailable {
        /// What was asked of it, as in "did not ...": "append a commit".
        action: &'static str,
        /// The driver's own words, with secrets removed.
        #[source]
        source: BoxError,
    },
    /// The store refuses us: wrong password, or a right is missing. Trying again does not help.
    #[error("the store refused to {action}")]
    Denied {
        /// What was asked of it.
        action: &'static str,
        /// The driver's own words, with secrets removed.
        #[source]
        source: BoxError,
    },
    /// The store can be read, as far as it tells, and takes no writes now.
    #[error("the store takes no writes and did not {action}: {why}")]
    WritesRefused {
        /// What was asked of it.
        action: &'static str,
        /// Why, and what to do about it.
        why: NoWrites,
        /// The driver's own words, with secrets removed.
        #[source]
        source: BoxError,
    },
    /// Something that must be there is not.
    #[error("{what} is missing from the store")]
    Missing {
        /// What is missing, named so that an operator can look for it.
        what: String,
    },
    /// Something is there but is not what was written.
    #[error("{what} is damaged: {why}")]
    Damaged {
        /// What is damaged.
        what: String,
        /// How it shows.
        why: String,
    },
    /// Something was written by a version of sessionkeep that this one does not know.
    #[error(
        "{what} is of format {found}, and this version reads up to {}; install a newer sessionkeep",
        sessionkeep_core::record::FORMAT
    )]
    Format {
        /// What it is.
        what: String,
        /// The format found.
        found: u32,
    },
    /// The store is set up to lose what it keeps whenever something is written to it.
    #[error("{what}; {remedy}")]
    Leaks {
        /// What loses it.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// The store's address cannot be used.
    #[error("{0}")]
    Address(String),
    /// Anything else that trying again does not mend.
    #[error("the store failed to {action}")]
    Failed {
        /// What was asked of it.
        action: &'static str,
        /// The driver's own words, with secrets removed.
        #[source]
        source: BoxError,
    },
}

/// Why a store takes no writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoWrites {
    /// It holds as much as its plan allows.
    Quota,
    /// Its disk is full.
    DiskFull,
    /// Whoever runs it has blocked them.
    Blocked,
    /// We may only read it.
    ReadOnly,
}

impl NoWrites {
    /// What to do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Quota => {
                "delete what is not needed (`sessionkeep usage` says what takes the room), or raise the quota"
            }
            Self::DiskFull => {
                "make room there (`sessionkeep usage` says what of ours takes it), or give it a larger disk"
            }
            Self::Blocked => "ask who runs it; `setUserWriteBlockMode` ends it in MongoDB",
            Self::ReadOnly => "grant the right to write, or mount it writable",
        }
    }
}

impl std::fmt::Display for NoWrites {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let why = match self {
            Self::Quota => "it is over its space quota",
            Self::DiskFull => "its disk is full",
            Self::Blocked => "writes to it are blocked",
            Self::ReadOnly => "it can only be read",
        };
        write!(f, "{why}; {}", self.remedy())
    }
}

/// A cause of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

impl StoreError {
    /// For `what`, whose format this version does not know.
    pub fn unknown_format(what: String, found: u32) -> Self {
        match found {
            // There never was such a one, and never will be.
            0 => Self::Damaged {
                what,
                why: "it has no format".to_owned(),
            },
            found => Self::Format { what, found },
        }
    }

    /// Whether the same call may succeed later without anybody mending anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            // Room comes back, and blocks end; a right has to be given.
            Self::WritesRefused { why, .. } => *why != NoWrites::ReadOnly,
            _ => false,
        }
    }

    /// Whether the store answered, and takes no writes.
    #[must_use]
    pub fn refuses_writes(&self) -> bool {
        matches!(self, Self::WritesRefused { .. })
    }
}
