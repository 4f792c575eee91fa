//! Whether an expired lease is given up, told by this machine's own clock and not by the store's.
//!
//! A lease that has run out by the store's clock need not be given up: that clock may just have been
//! set forward, and its holder renews the lease in time and has no reason to stop. So whoever wants
//! the lease watches it for a little longer than its holder lets pass between two renewals, and only
//! then takes it, in one step that fails where it was renewed meanwhile. Who has waited while the
//! lease ran has watched it long before; only one that comes after it ran out waits for this.
//!
//! A lease that was released, or is inherited, is not watched.

use std::time::Duration;

use super::lease::{Lease, LeaseMark};
use sessionkeep_core::boot_time::BootInstant;

/// Watches the renewals of somebody else's lease. Pure: the time is an argument.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct RenewalWatch {
    seen: Option<Seen>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Seen {
    mark: LeaseMark,
    /// When it was first seen like this.
    first: BootInstant,
    /// For how long at a time its holder has it, where that is known.
    ttl: Option<Duration>,
}

impl RenewalWatch {
    /// Longer than the holder of a lease with this `ttl` lets pass between two renewals: it renews three
    /// times in that span at least (`lease.renew`), and a renewal may take a moment.
    #[must_use]
    pub fn patience(ttl: Duration) -> Duration {
        ttl / 3 + ttl / 12
    }

    /// Takes in how the lease stood when the store answered at `now`.
    pub fn note(&mut self, lease: &Lease, now: BootInstant) {
        let is_same = self.seen.as_ref().map(|seen| seen.mark) == lease.mark;
        if !is_same {
            self.seen = lease.mark.map(|mark| Seen {
                mark,
                first: now,
                ttl: lease.ttl,
            });
        }
    }

    /// The renewal after which there was none for long enough, to be named in a
    /// [claim](super::LeaseClaim::lapsed) that is sent at `now`. `own_ttl` is the claimant's, which
    /// stands for the holder's where that is not known.
    #[must_use]
    pub fn lapsed(&self, own_ttl: Duration, now: BootInstant) -> Option<LeaseMark> {
        let seen = self.seen.as_ref()?;
        self.left(own_ttl, now).is_zero().then_some(seen.mark)
    }

    /// For how long it has to be watched still; zero where there is nothing to watch.
    #[must_use]
    pub fn left(&self, own_ttl: Duration, now: BootInstant) -> Duration {
        let Some(seen) = &self.seen else {
            return Duration::ZERO;
        };
        let patience = Self::patience(seen.ttl.unwrap_or(own_ttl));
        patience.saturating_sub(now.since(seen.first))
    }
}
