//! The lease: which instance may write an archive.
//!
//! It is a courtesy that keeps two instances from starting two gateways; the guarantee is the
//! fence in [`super::Store::append`]. All times are the store's own, so that containers with
//! wrong clocks agree.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::InstanceId;

/// A lease as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who holds it, or held it last.
    pub instance: InstanceId,
    /// Raised each time it changes hands.
    pub epoch: u64,
    /// How long it still runs, by the store's clock; zero where it has expired or was released.
    pub remaining: Duration,
    /// When the holder took it, in milliseconds since 1970 by the store's clock.
    pub since_ms: u64,
}

/// A wish to hold the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseClaim {
    /// Who asks.
    pub instance: InstanceId,
    /// The instance that last used the directory whose lock the claimant holds: it is certainly
    /// gone, so its lease may be continued at once.
    pub predecessor: Option<InstanceId>,
    /// How long the lease shall run before it must be renewed.
    pub ttl: Duration,
}

/// The answer to a [`LeaseClaim`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum LeaseOutcome {
    /// The claimant holds it at this epoch.
    Granted {
        /// The epoch that its commits must carry.
        epoch: u64,
    },
    /// Somebody else holds it.
    Held(Lease),
}

/// The answer to a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Renewal {
    /// It runs on.
    Renewed,
    /// Another instance has it (or the lease is gone altogether): stop at once.
    Lost(Option<Lease>),
}
