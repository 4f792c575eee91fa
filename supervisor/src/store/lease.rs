//! The lease: which instance may write an archive.
//!
//! It is a courtesy that keeps two instances from starting two gateways; the guarantee is the
//! fence in [`super::Store::append`]. All times are the store's own, so that containers with
//! wrong clocks agree.
//!
//! Who cannot have it stands in a queue, which is part of the lease: first come, first served,
//! except that those who asked the present holder to make way come before those who only wait.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ArchiveName, InstanceId, StoreError};

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
    /// Those who want it, in the order in which they came. Who has not asked for [`WAITER_TTL`] is
    /// not there any more.
    pub waiting: Vec<Waiter>,
}

/// How long a place in the queue is kept for an instance that does not ask again.
pub const WAITER_TTL: Duration = Duration::from_secs(5);
/// The queue is never longer. Who comes later keeps asking, and enters when there is room.
pub const QUEUE_MAX: usize = 32;

/// An instance that wants a lease which another one holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    /// Who.
    pub instance: InstanceId,
    /// Since when, in milliseconds since 1970 by the store's clock.
    pub since_ms: u64,
    /// The epoch whose holder it asks to make way; `None` where it only waits. A later holder is
    /// not asked: that one came by its turn, and would hand on what it has hardly begun with.
    pub asks: Option<u64>,
}

impl Lease {
    /// Who asks the present holder to make way: the one who came first of those who do.
    #[must_use]
    pub fn asked_by(&self) -> Option<&Waiter> {
        self.waiting
            .iter()
            .find(|waiter| waiter.asks == Some(self.epoch))
    }

    /// Whose turn it is when the lease is let go.
    #[must_use]
    pub fn next(&self) -> Option<&Waiter> {
        self.asked_by().or_else(|| self.waiting.first())
    }
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
    /// What to do where it cannot be granted.
    pub otherwise: Otherwise,
}

/// What a claimant wants where another instance holds the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Otherwise {
    /// Nothing: it goes away.
    Leave,
    /// A place in the queue.
    Wait,
    /// A place in the queue, and that the holder at this epoch makes way.
    Ask(u64),
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
    /// It runs on, as it stands now.
    Renewed(Lease),
    /// Another instance has it (or the lease is gone altogether): stop at once.
    Lost(Option<Lease>),
}

/// What [`Store::break_lease`](super::Store::break_lease) found.
#[derive(Debug)]
#[must_use]
pub enum Broken {
    /// None was ever taken.
    Absent,
    /// It stood like this, and has ended.
    Ended(Lease),
    /// It could not be read, for this reason. In its place is one that has ended, of an instance
    /// that never was ([`NOBODY`]).
    Replaced(StoreError),
}

/// The holder, as far as it is told, of a lease that could not be read and was replaced.
pub const NOBODY: &str = "unreadable";

/// A place in the queue, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) instance: InstanceId,
    pub(crate) since_ms: u64,
    /// When it last asked.
    pub(crate) seen_ms: u64,
    pub(crate) asks: Option<u64>,
}

/// A lease as stores keep it that judge it in this program and not in a database. Pure: the time
/// is an argument, in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LeaseState {
    pub(crate) instance: InstanceId,
    pub(crate) epoch: u64,
    /// When it expires; 0 once it was released. A renewal that was on its way when the lease was
    /// released must not bring it back to life, so the two are told apart.
    pub(crate) expires_ms: u64,
    pub(crate) since_ms: u64,
    /// In the order in which they came.
    pub(crate) queue: Vec<Place>,
}

/// For the lease of `archive`, of which `part` cannot be read.
pub(crate) fn damaged(archive: &ArchiveName, part: &str) -> StoreError {
    StoreError::Damaged {
        what: format!("the lease of archive {archive}"),
        why: format!(
            "its {part} cannot be read; `sessionkeep lease --break` puts in its place one that has \
             ended"
        ),
    }
}

fn after(now_ms: u64, ttl: Duration) -> u64 {
    now_ms.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
}

impl LeaseState {
    /// What is put in the place of a lease that cannot be read, but for its epoch perhaps.
    pub(crate) fn unreadable(epoch: u64) -> Self {
        Self {
            instance: NOBODY.parse().expect("a valid name"),
            epoch,
            expires_ms: 0,
            since_ms: 0,
            queue: Vec::new(),
        }
    }

    /// What a claim does to the lease as it is `now`: the lease afterwards, where it changes, and
    /// the answer.
    pub(crate) fn claim(
        current: Option<&Self>,
        claim: &LeaseClaim,
        now_ms: u64,
    ) -> (Option<Self>, LeaseOutcome) {
        let Some(lease) = current else {
            let first = Self {
                instance: claim.instance.clone(),
                epoch: claim.floor + 1,
                expires_ms: after(now_ms, claim.ttl),
                since_ms: now_ms,
                queue: Vec::new(),
            };
            let epoch = first.epoch;
            return (Some(first), LeaseOutcome::Granted { epoch });
        };
        let released = lease.expires_ms == 0;
        let continues = lease.instance == claim.instance && !released;
        let inherits = claim.predecessor.as_ref() == Some(&lease.instance) && !released;
        let told = lease.told_at(now_ms);
        let is_turn = told
            .next()
            .is_none_or(|next| next.instance == claim.instance);
        let mut queue = lease.queue_at(now_ms);
        if continues || inherits || (lease.expires_ms <= now_ms && is_turn) {
            queue.retain(|place| place.instance != claim.instance);
            let (epoch, since_ms) = match continues {
                true => (lease.epoch, lease.since_ms),
                false => (lease.epoch.max(claim.floor) + 1, now_ms),
            };
            let taken = Self {
                instance: claim.instance.clone(),
                epoch,
                expires_ms: after(now_ms, claim.ttl),
                since_ms,
                queue,
            };
            return (Some(taken), LeaseOutcome::Granted { epoch });
        }
        let asks = match claim.otherwise {
            Otherwise::Leave => return (None, LeaseOutcome::Held(told)),
            Otherwise::Wait => None,
            Otherwise::Ask(epoch) => Some(epoch),
        };
        let own = queue
            .iter()
            .position(|place| place.instance == claim.instance);
        match own {
            Some(own) => (queue[own].seen_ms, queue[own].asks) = (now_ms, asks),
            None if queue.len() < QUEUE_MAX => queue.push(Place {
                instance: claim.instance.clone(),
                since_ms: now_ms,
                seen_ms: now_ms,
                asks,
            }),
            None => {}
        }
        let queued = Self {
            queue,
            ..lease.clone()
        };
        let told = queued.told_at(now_ms);
        (Some(queued), LeaseOutcome::Held(told))
    }

    /// The places that are still kept.
    fn queue_at(&self, now_ms: u64) -> Vec<Place> {
        let kept = |place: &&Place| after(place.seen_ms, WAITER_TTL) > now_ms;
        self.queue.iter().filter(kept).cloned().collect()
    }

    fn is_held_by(&self, instance: &InstanceId, epoch: u64) -> bool {
        self.instance == *instance && self.epoch == epoch
    }

    /// The lease prolonged; `None` where it is not this holder's to prolong.
    pub(crate) fn renewed(
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
    pub(crate) fn release(&mut self, instance: &InstanceId, epoch: u64) {
        if self.is_held_by(instance, epoch) {
            self.expires_ms = 0;
        }
    }

    /// The lease in the words of the contract.
    pub(crate) fn told_at(&self, now_ms: u64) -> Lease {
        let waiter = |place: Place| Waiter {
            instance: place.instance,
            since_ms: place.since_ms,
            asks: place.asks,
        };
        Lease {
            instance: self.instance.clone(),
            epoch: self.epoch,
            remaining: Duration::from_millis(self.expires_ms.saturating_sub(now_ms)),
            since_ms: self.since_ms,
            waiting: self.queue_at(now_ms).into_iter().map(waiter).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Claim(usize, Option<usize>, Option<u64>),
        Renew(usize),
        Release(usize),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (
                0..3usize,
                prop::option::of(0..3usize),
                prop::option::of(0..4u64)
            )
                .prop_map(|(who, heir, asks)| Step::Claim(who, heir, asks)),
            (0..3usize).prop_map(Step::Renew),
            (0..3usize).prop_map(Step::Release),
            prop_oneof![0..25u64, 4_990..5_010u64].prop_map(Step::Pass),
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
                    Step::Claim(who, heir, asks) => {
                        let otherwise = asks.map_or(Otherwise::Wait, Otherwise::Ask);
                        let claim = LeaseClaim { instance: name(who), predecessor: heir.map(name), floor: 0, ttl, otherwise };
                        let before = lease.clone();
                        let told = before.as_ref().map(|lease| lease.told_at(now));
                        let (after, outcome) = LeaseState::claim(lease.as_ref(), &claim, now);
                        if let LeaseOutcome::Granted { epoch } = outcome {
                            prop_assert_eq!(holders.entry(epoch).or_insert(who), &who);
                            prop_assert!(before.as_ref().is_none_or(|l| epoch >= l.epoch));
                            prop_assert!(before.is_none_or(|l| l.expires_ms <= now
                                || l.instance == claim.instance
                                || Some(&l.instance) == claim.predecessor.as_ref()));
                            granted[who] = epoch;
                            // Nobody who is neither holder nor heir gets past whose turn it is.
                            let strange = told.as_ref().is_some_and(|told| told.instance != name(who) && heir.map(name).as_ref() != Some(&told.instance));
                            if strange && let Some(next) = told.as_ref().and_then(Lease::next) {
                                prop_assert_eq!(&next.instance, &name(who));
                            }
                            let waits = after.as_ref().is_some_and(|l| l.queue.iter().any(|place| place.instance == name(who)));
                            prop_assert!(!waits, "the holder waits for itself");
                        } else {
                            // It only entered the queue, where everybody has one place.
                            let after = after.as_ref().expect("it is in the queue now");
                            let before = before.expect("somebody holds it");
                            prop_assert_eq!((&after.instance, after.epoch, after.expires_ms), (&before.instance, before.epoch, before.expires_ms));
                            prop_assert_eq!(after.queue.iter().filter(|place| place.instance == name(who)).count(), 1);
                            prop_assert!(after.queue.is_sorted_by_key(|place| place.since_ms));
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
