//! What init has to know of the settings. Everything else in them is for its helpers, which have them from
//! whoever made the setup.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use sessionkeep_core::entry::Owner;
use sessionkeep_core::record::ArchiveName;

/// Whether a gateway that ended by itself is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RestartPolicy {
    /// Never: flush and exit with its code (the container's host restarts).
    No,
    /// When it failed.
    OnFailure,
    /// Always.
    Always,
}

/// Where a session is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// In a store, which is this file or something elsewhere.
    Store {
        /// The store's file, where it is one: it must not lie in the session directory.
        file: Option<PathBuf>,
    },
    /// File mode: the directory itself is the storage, and no restorer runs.
    Directory,
}

/// What becomes of the gateway when its lease ends because nobody could renew it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtLeaseEnd {
    /// It goes on.
    GoOn,
    /// It is stopped before that.
    Stop,
}

/// Where HTTP is listened for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The port; 0 for none.
    pub port: u16,
    /// This address alone; `None` for what [`Listen::is_protected`] makes right.
    pub bind: Option<IpAddr>,
    /// Whether who asks has to show that he may: only then all addresses are listened on.
    pub is_protected: bool,
    /// The settings whose secrets are short enough to be guessed.
    pub guessable: Vec<&'static str>,
    /// How many characters would not be.
    pub unguessable_len: usize,
}

/// What init has to know of the settings.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The archive's name, for the log.
    pub archive: ArchiveName,
    /// The session directory.
    pub dir: PathBuf,
    /// Who a session directory that is made here belongs to; `None` for the owner of the one around it.
    pub dir_owner: Option<Owner>,
    /// Where the session is kept.
    pub storage: Storage,
    /// Whether the gateway has a probe, so that it is ready only when the watcher says so.
    pub has_probe: bool,
    /// All that a stop may take.
    pub stop_total: Duration,
    /// What of that is kept for saving the last changes.
    pub stop_flush: Duration,
    /// Whether a gateway that ended by itself is started again.
    pub restart: RestartPolicy,
    /// How often in a row.
    pub attempts: u32,
    /// Up to how long the first start is put off.
    pub stagger: Duration,
    /// For how long at a time the lease is taken.
    pub lease_ttl: Duration,
    /// What becomes of the gateway when the lease cannot be renewed.
    pub at_lease_end: AtLeaseEnd,
    /// Where HTTP is listened for.
    pub http: Listen,
    /// Where in an argument, which follows another, something begins that is secret or may be.
    pub secret_argument: fn(before: &[u8], word: &[u8]) -> Option<usize>,
}
