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
    /// The epoch that is granted shall be above this one: what the archive's newest commit carries.
    /// So epochs go on rising where the leases were lost and the commits were not.
    pub floor: u64,
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

/// A lease as stores keep it that judge it in this program and not in a database. Pure: the time
/// is an argument, in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeaseState {
    pub(super) instance: InstanceId,
    pub(super) epoch: u64,
    /// When it expires; 0 once it was released. A renewal that was on its way when the lease was
    /// released must not bring it back to life, so the two are told apart.
    pub(super) expires_ms: u64,
    pub(super) since_ms: u64,
}

fn after(now_ms: u64, ttl: Duration) -> u64 {
    now_ms.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
}

impl LeaseState {
    /// What a claim does to the lease as it is `now`: the lease afterwards, where it changes, and
    /// the answer.
    pub(super) fn claim(
        current: Option<&Self>,
        claim: &LeaseClaim,
        now_ms: u64,
    ) -> (Option<Self>, LeaseOutcome) {
        let (epoch, since_ms) = match current {
            None => (claim.floor + 1, now_ms),
            Some(lease) if lease.instance == claim.instance && lease.expires_ms > 0 => {
                (lease.epoch, lease.since_ms)
            }
            Some(lease)
                if lease.expires_ms <= now_ms
                    || lease.instance == claim.instance
                    || claim.predecessor.as_ref() == Some(&lease.instance) =>
            {
                (lease.epoch.max(claim.floor) + 1, now_ms)
            }
            Some(lease) => return (None, LeaseOutcome::Held(lease.told_at(now_ms))),
        };
        let taken = Self {
            instance: claim.instance.clone(),
            epoch,
            expires_ms: after(now_ms, claim.ttl),
            since_ms,
        };
        (Some(taken), LeaseOutcome::Granted { epoch })
    }

    fn is_held_by(&self, instance: &InstanceId, epoch: u64) -> bool {
        self.instance == *instance && self.epoch == epoch
    }

    /// The lease prolonged; `None` where it is not this holder's to prolong.
    pub(super) fn renewed(
        &self,
        instance: &InstanceId,
        epoch: u64,
        ttl: Duration,
        now_ms: u64,
    ) -> Option<Self> {
        let held = self.is_held_by(instance, epoch) && self.expires_ms > 0;
        held.then(|| Self {
            expires_ms: after(now_ms, ttl),
            ..self.clone()
        })
    }

    /// Lets it go, if it is this holder's.
    pub(super) fn release(&mut self, instance: &InstanceId, epoch: u64) {
        if self.is_held_by(instance, epoch) {
            self.expires_ms = 0;
        }
    }

    /// The lease in the words of the contract.
    pub(super) fn told_at(&self, now_ms: u64) -> Lease {
        Lease {
            instance: self.instance.clone(),
            epoch: self.epoch,
            remaining: Duration::from_millis(self.expires_ms.saturating_sub(now_ms)),
            since_ms: self.since_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Claim(usize, Option<usize>),
        Renew(usize),
        Release(usize),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3usize, prop::option::of(0..3usize)).prop_map(|(who, heir)| Step::Claim(who, heir)),
            (0..3usize).prop_map(Step::Renew),
            (0..3usize).prop_map(Step::Release),
            (0..25u64).prop_map(Step::Pass),
        ]
    }

    fn name(who: usize) -> InstanceId {
        ["a", "b", "c"][who].parse().expect("a valid name")
    }

    proptest! {
        /// Nobody shares an epoch with anybody, epochs never fall, and no claim gets past a
        /// running lease of somebody else who is not its predecessor.
        #[test]
        fn an_epoch_never_has_two_holders(steps in prop::collection::vec(step(), 1..60)) {
            let ttl = Duration::from_millis(15);
            let (mut lease, mut now) = (None::<LeaseState>, 1_000);
            let mut holders = std::collections::BTreeMap::new();
            let mut granted = [0u64; 3];
            for step in steps {
                match step {
                    Step::Claim(who, heir) => {
                        let claim = LeaseClaim { instance: name(who), predecessor: heir.map(name), floor: 0, ttl };
                        let before = lease.clone();
                        let (after, outcome) = LeaseState::claim(lease.as_ref(), &claim, now);
                        if let LeaseOutcome::Granted { epoch } = outcome {
                            prop_assert_eq!(holders.entry(epoch).or_insert(who), &who);
                            prop_assert!(before.as_ref().is_none_or(|l| epoch >= l.epoch));
                            prop_assert!(before.is_none_or(|l| l.expires_ms <= now
                                || l.instance == claim.instance
                                || Some(&l.instance) == claim.predecessor.as_ref()));
                            granted[who] = epoch;
                        } else {
                            prop_assert!(after.is_none());
                        }
                        lease = after.or(lease);
                    }
                    Step::Renew(who) => {
                        let before = lease.clone();
                        let renewed = lease.as_ref().and_then(|l| l.renewed(&name(who), granted[who], ttl, now));
                        prop_assert_eq!(renewed.is_some(), before.is_some_and(|l| l.instance == name(who)
                            && l.epoch == granted[who] && l.expires_ms > 0));
                        lease = renewed.or(lease);
                    }
                    Step::Release(who) => {
                        if let Some(lease) = lease.as_mut() {
                            lease.release(&name(who), granted[who]);
                        }
                    }
                    Step::Pass(ms) => now += ms,
                }
            }
        }
    }
}
