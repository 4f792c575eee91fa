//! What a store tells of itself.

use async_trait::async_trait;
use sessionkeep_core::record::ArchiveName;

use super::Result;

/// How much an archive takes in the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of commits kept.
    pub commits: u64,
    /// Bytes of all commits' bodies.
    pub commit_bytes: u64,
    /// Number of packs kept.
    pub packs: u64,
    /// Bytes of all packs.
    pub pack_bytes: u64,
}

/// How severe a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Good,
    /// Works, but the operator should know.
    Warning,
    /// Will not work, or not safely.
    Bad,
}

/// One thing that a store found when it examined itself, for `sessionkeep doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in two or three words.
    pub subject: &'static str,
    /// How it is.
    pub severity: Severity,
    /// What was found, with figures.
    pub detail: String,
    /// What to do about it; empty where nothing is to be done.
    pub remedy: String,
}

/// How a store's own set-up makes it lose what it was told to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// When.
    pub when: LeaksWhen,
    /// What, in words.
    pub detail: String,
    /// What to do about it.
    pub remedy: String,
}

/// When something is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaksWhen {
    /// When something else is written: even the barrier of the next start.
    Written,
    /// When it has become old.
    Old,
}

/// What a store tells of itself, for people. What holds for every operation is said at
/// [`Store`](super::Store).
#[async_trait]
pub trait Diagnostics: Send + Sync {
    /// The store in words that may be logged: its kind, host and database, never its password.
    fn describe(&self) -> String;

    /// One round trip that proves that the store answers. Not that it takes writes: that is
    /// proven by taking the lease.
    async fn ping(&self) -> Result<()>;

    /// How much an archive takes.
    async fn usage(&self, archive: &ArchiveName) -> Result<Usage>;

    /// Looks for what could be wrong with the store itself: reachability, encryption of the
    /// connection, rights, durability of writes. Never fails: what goes wrong is a finding. Leaves
    /// nothing behind.
    async fn examine(&self) -> Vec<Finding>;

    /// What about the store's own set-up makes it lose what it was told to keep, such as a collection
    /// that drops its oldest documents. Empty where nothing does, or where we may not ask.
    async fn leaks(&self) -> Result<Vec<Leak>> {
        Ok(Vec::new())
    }
}
