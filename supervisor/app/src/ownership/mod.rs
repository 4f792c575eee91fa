//! Whose session it is: the one owner of what concerns the lease, the epoch, the barrier and the handover.
//!
//! ```text
//!  wait_for_store ─▶ acquire ─▶ LeaseKeeper ──status──▶ events ──▶ init: lost, asked for, ending
//!                      │            └──────────────────▶ Ends ───▶ the watcher's loop
//!                      └─▶ raise_barrier ─▶ Writer at the epoch that the lease gave
//! ```
//!
//! An instance that wants the session waits for the store, then [acquires](acquire) the lease by a
//! [`Policy`]; from then on a [`LeaseKeeper`] renews it. The lease says who should write. That nobody else
//! does is the business of the barrier and of the store's append, see
//! [`CommitLog::append`](sessionkeep_archive::store::CommitLog::append). What becomes of the lease is told
//! to init by a task of its own ([`events::tell`]), whatever the watcher is at.

mod acquire;
mod barrier;
mod clock;
mod error;
pub(crate) mod events;
mod keeper;
mod store_wait;

use std::time::Duration;

use sessionkeep_core::record::InstanceId;

pub(crate) use acquire::acquire;
pub(crate) use barrier::{Head, raise_barrier, still_held};
pub(crate) use error::OwnershipError;
pub(crate) use keeper::{LeaseKeeper, LeaseStatus, take_again};
pub(crate) use store_wait::{limit, wait_for_store};

use crate::config::{Conflict, OutagePolicy, Settings, Unreachable};

/// How an instance goes about owning the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// How long the lease runs when it is not renewed.
    pub(crate) ttl: Duration,
    /// How often it is renewed.
    pub(crate) renew: Duration,
    /// What is done where another instance holds it.
    pub(crate) conflict: Conflict,
    /// For how long a store that does not answer is asked again.
    pub(crate) store_wait: Duration,
    /// How soon a store that takes no writes is given up.
    pub(crate) without_writes: WithoutWrites,
    /// What becomes of the gateway where the lease cannot be renewed.
    pub(crate) outage: OutagePolicy,
}

/// How soon a store that answers and takes no writes is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WithoutWrites {
    /// Like one that does not answer.
    Later,
    /// At once: the start goes on without the lease where that is safe.
    AtOnce,
}

impl Policy {
    /// As the settings say.
    pub(crate) fn of(settings: &Settings) -> Self {
        Self {
            ttl: settings.lease.ttl,
            renew: settings.lease.renew,
            conflict: settings.lease.conflict,
            store_wait: settings.store.wait,
            without_writes: match settings.store.unreachable {
                Unreachable::Local => WithoutWrites::AtOnce,
                Unreachable::Fail => WithoutWrites::Later,
            },
            outage: settings.store.outage,
        }
    }

    /// The same for one that waits for nothing: neither for the store nor for another instance.
    pub(crate) fn at_once(self) -> Self {
        Self {
            conflict: Conflict::Refuse,
            store_wait: Duration::ZERO,
            ..self
        }
    }
}

/// Who wants to own the session.
#[derive(Debug, Clone)]
pub struct Identity {
    /// This life.
    pub instance: InstanceId,
    /// The life whose lease may be continued at once.
    pub predecessor: Option<InstanceId>,
}

/// How soon the holder of a lease wants to know that somebody asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attention {
    /// At once.
    Now,
    /// It has nothing to hand over yet: with the next renewal is soon enough.
    Later,
}

/// What an instance waits for before it owns the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitReason {
    /// Another instance has the session.
    Owner,
    /// No other instance has it any more: it is ours.
    OwnerGone,
    /// The store does not answer.
    Store {
        /// For how long by now.
        silent: Duration,
        /// What the last try came to, in words.
        words: String,
    },
    /// The store answers.
    StoreAnswers,
}
