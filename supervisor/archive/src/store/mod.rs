//! Where archives are kept. Four small traits, whose comments are the contract: [`CommitLog`],
//! [`Packs`], [`Leases`] and [`Diagnostics`]. A [`Store`] is all four. One suite, in `contract`, holds every
//! implementation to it.
//!
//! A store knows nothing of sessions, files or compression. It keeps, for each named archive, a
//! chain of numbered [`Record`](sessionkeep_core::record::Record)s, a set of immutable packs, and one lease. Everything that makes
//! the product safe against two writers rests on two of its operations: [`CommitLog::append`], which
//! succeeds for exactly one writer a number, and [`Leases::take_lease`], judged by the store's clock.

mod commit_log;
#[doc(hidden)]
pub mod contract;
mod diagnostics;
mod error;
pub mod lapse;
pub mod lease;
mod leases;
mod memory;
#[cfg(test)]
mod model;
mod packs;
pub mod retry;

use async_trait::async_trait;

pub use commit_log::{Appended, CommitLog};
pub use diagnostics::{Diagnostics, Finding, Leak, LeaksWhen, Severity, Usage};
pub use error::{BoxError, NoWrites, Result, StoreError};
pub use lease::{
    Broken, CLOCK_SLACK, Lease, LeaseClaim, LeaseMark, LeaseOutcome, NOBODY, Otherwise, QUEUE_MAX,
    Renewal, SetBack, WAITER_TTL, Waiter,
};
pub use leases::{LOOK_AGAIN, Leases};
pub use memory::{Calls, Faults, MemoryStore};
pub use packs::{PackInfo, Packs};

/// Keeps archives.
///
/// **Every** operation
/// - has a deadline of its own (the implementation's; seconds, not minutes) and returns
///   [`StoreError::Unavailable`] when the store does not answer within it; it never hangs. What
///   moves much content in several round trips has the deadline for each of them;
/// - may be dropped at any await point; what it was doing then either happened wholly or not at
///   all, except that [`Packs::put_pack`] and [`Packs::delete_pack`] may leave pieces which
///   [`Packs::packs`] does not list and [`Packs::sweep`] collects, and that
///   [`CommitLog::delete_records`] may have deleted only some;
/// - never puts a password, a key or a whole URL into an error or a log line;
/// - when it has returned success, survives the loss of the store's process (and, where the store
///   replicates, of a minority of its members).
#[async_trait]
pub trait Store: CommitLog + Packs + Leases + Diagnostics + std::fmt::Debug {
    /// Says that up to `requests` requests at a time are about to come, so that connections for them
    /// can be opened meanwhile. It returns before they are, changes nothing else, and never fails.
    async fn warm_up(&self, _requests: usize) {}

    /// Creates what the store needs (indexes, tables), if it is not there and we may. Idempotent.
    /// Lacking the right to create what is not strictly needed is not an error.
    ///
    /// # Errors
    /// [`StoreError::Leaks`] where what is written now would push out what was written before.
    async fn prepare(&self) -> Result<()>;

    /// Ends connections, within a second or two.
    async fn close(&self);
}
