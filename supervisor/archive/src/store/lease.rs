//! The lease: which instance may write an archive.
//!
//! It is a courtesy that keeps two instances from starting two gateways; the guarantee is the
//! fence in [`super::CommitLog::append`]. All times are the store's own, so that containers with
//! wrong clocks agree.
//!
//! Who cannot have it stands in a queue, which is part of the lease: first come, first served,
//! except that those who asked the present holder to make way come before those who only wait.
//!
//! The store's clock may be wrong, and be set. No stored time is believed that lies in the future: a
//! lease ends one [`Lease::ttl`] from now at the latest, which the next claim writes down, so that it
//! counts down from there; a place that was kept in the future is gone. Nor is a lease that seems to
//! have run out taken at once from somebody who may be renewing it: see [`super::lapse`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::StoreError;
use sessionkeep_core::record::{ArchiveName, InstanceId};

/// A lease as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who holds it, or held it last.
    pub instance: InstanceId,
    /// Raised each time it changes hands.
    pub epoch: u64,
    /// How long it still runs, by the store's clock; zero where it has expired or was released.
    pub remaining: Duration,
    /// Which renewal it was left by; `None` where it was released. As long as it stays the same,
    /// nobody has renewed the lease.
    pub mark: Option<LeaseMark>,
    /// For how long at a time the holder has it; `None` where a version took it that did not say.
    pub ttl: Option<Duration>,
    /// When the holder took it, in milliseconds since 1970 by the store's clock.
    pub since_ms: u64,
    /// What the store's clock said when it stood like this, in milliseconds since 1970.
    pub now_ms: u64,
    /// When the store's clock was last found to have been set back.
    pub set_back: Option<SetBack>,
    /// Whether the queue, or a place in it, cannot be read. Who stands there is not known, and enters
    /// again with its next claim.
    pub queue_damaged: bool,
    /// Those who want it, in the order in which they came. Who has not asked for [`WAITER_TTL`] is
    /// not there any more.
    pub waiting: Vec<Waiter>,
}

/// A lease between two renewals: what a renewal, or a change of hands, always changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaseMark {
    /// Its epoch.
    pub epoch: u64,
    /// When it expires, in milliseconds since 1970 by the store's clock.
    pub expires_ms: u64,
}

/// A store's clock that was set back: it said less than a time that the store itself had written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SetBack {
    /// When that was found, in milliseconds since 1970 by that clock.
    pub found_ms: u64,
    /// By how many milliseconds, at least.
    pub by_ms: u64,
}

/// How long a place in the queue is kept for an instance that does not ask again.
pub const WAITER_TTL: Duration = Duration::from_secs(5);
/// How far a stored time may lie in the future: the members of a replica set have clocks of their own,
/// and the next write may be judged by another one.
pub const CLOCK_SLACK: Duration = Duration::from_secs(1);
/// How far ahead the end of a lease is believed where the version that took it did not say for how
/// long it has it at a time. Longer than anybody sets `lease.ttl` to.
pub const TTL_UNTOLD: Duration = Duration::from_secs(600);
/// No lease is taken for longer at a time: a larger figure in the store is not believed.
pub const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// No epoch is higher: a larger figure in the store is not believed, and nothing is counted on from it.
pub const EPOCH_MAX: u64 = 1 << 60;
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
    /// The renewal after which the claimant has seen none for long enough ([`super::lapse`]): only a
    /// lease that was left by that one is taken once it has expired.
    pub lapsed: Option<LeaseMark>,
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

/// What [`Leases::break_lease`](super::Leases::break_lease) found.
#[derive(Debug)]
#[must_use]
pub enum Broken {
    /// None was ever taken.
    Absent,
    /// It stood like this, and has ended, with its queue.
    Ended(Lease),
    /// It could not be read, for this reason. In its place is one that has ended, of an instance
    /// that never was ([`NOBODY`]).
    Replaced(StoreError),
}

/// The holder, as far as it is told, of a lease that could not be read and was replaced.
pub const NOBODY: &str = "unreadable";

/// A place in the queue, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Who waits.
    pub instance: InstanceId,
    /// Since when.
    pub since_ms: u64,
    /// When it last asked.
    pub seen_ms: u64,
    /// Since when it asks the holder to hand over; `None` where it only waits.
    pub asks: Option<u64>,
}

/// A lease as stores keep it that judge it in this program and not in a database. Pure: the time
/// is an argument, in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeaseState {
    /// The holder.
    pub instance: InstanceId,
    /// It goes up each time that the lease goes to another instance.
    pub epoch: u64,
    /// When it expires; 0 once it was released. A renewal that was on its way when the lease was
    /// released must not bring it back to life, so the two are told apart.
    pub expires_ms: u64,
    /// Since when the holder has it.
    pub since_ms: u64,
    /// In the order in which they came.
    pub queue: Vec<Place>,
    /// Whether something in the queue could not be read, and was passed over.
    pub queue_damaged: bool,
    /// What versions that know more of a lease keep with it.
    pub term: Term,
}

/// What is kept of a lease since versions that know more of it. An earlier one leaves it as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Term {
    /// The epoch to which `ttl_ms` belongs: at another one, a version that says nothing took it.
    pub epoch: u64,
    /// For how long at a time the lease is held.
    pub ttl_ms: u64,
    /// When it was last written; 0 where that is not known.
    pub written_ms: u64,
    /// That its end was set back, because it lay too far in the future.
    pub set_back: Option<SetBack>,
}

/// For the lease of `archive`, of which `part` cannot be read.
pub fn damaged(archive: &ArchiveName, part: &str) -> StoreError {
    StoreError::Damaged {
        what: format!("the lease of archive {archive}"),
        why: format!(
            "its {part} cannot be read; `sessionkeep lease --break` puts in its place one that has \
             ended"
        ),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn after(now_ms: u64, span: Duration) -> u64 {
    now_ms.saturating_add(millis(span))
}

/// Whether a place that was last asked for at `seen_ms` is kept.
pub fn is_kept(seen_ms: u64, now_ms: u64) -> bool {
    after(seen_ms, WAITER_TTL) > now_ms && seen_ms <= after(now_ms, CLOCK_SLACK)
}

/// Whether a time for which a lease is said to be held can be believed.
pub fn is_ttl(ms: u64) -> bool {
    (1..=millis(TTL_MAX)).contains(&ms)
}

impl LeaseState {
    /// What is put in the place of a lease that cannot be read, but for its epoch perhaps.
    pub fn unreadable(epoch: u64) -> Self {
        Self {
            instance: NOBODY.parse().expect("a valid name"),
            epoch,
            expires_ms: 0,
            since_ms: 0,
            queue: Vec::new(),
            queue_damaged: false,
            term: Term::default(),
        }
    }

    /// For how long at a time it is held, where that was said.
    fn ttl(&self) -> Option<Duration> {
        let Term { epoch, ttl_ms, .. } = self.term;
        (epoch == self.epoch && is_ttl(ttl_ms)).then(|| Duration::from_millis(ttl_ms))
    }

    /// The lease as far as it is believed `now`: nothing in it lies in the future.
    fn at(&self, now_ms: u64) -> Self {
        let limit = after(now_ms, self.ttl().unwrap_or(TTL_UNTOLD));
        let kept = |place: &&Place| is_kept(place.seen_ms, now_ms);
        let places = |place: Place| Place {
            since_ms: place.since_ms.min(now_ms),
            ..place
        };
        let newest = self.newest_ms();
        let is_behind = newest > after(now_ms, CLOCK_SLACK);
        let found = is_behind.then(|| SetBack {
            found_ms: now_ms,
            by_ms: newest - now_ms,
        });
        Self {
            instance: self.instance.clone(),
            epoch: self.epoch,
            expires_ms: self.expires_ms.min(limit),
            since_ms: self.since_ms.min(now_ms),
            queue: self
                .queue
                .iter()
                .filter(kept)
                .cloned()
                .map(places)
                .collect(),
            queue_damaged: self.queue_damaged,
            term: Term {
                set_back: found.or(self.term.set_back),
                ..self.term
            },
        }
    }

    /// The latest time that the store certainly wrote by its clock as it was then.
    fn newest_ms(&self) -> u64 {
        let asked = self.queue.iter().map(|place| place.seen_ms);
        let renewed = self
            .expires_ms
            .saturating_sub(millis(self.ttl().unwrap_or(TTL_UNTOLD)));
        let known = [self.term.written_ms, self.since_ms, renewed];
        asked.chain(known).max().unwrap_or(0)
    }

    /// As it is written `now`.
    fn written(mut self, now_ms: u64) -> Self {
        self.term.written_ms = now_ms;
        self.queue_damaged = false;
        self
    }

    /// What a claim does to the lease as it is `now`: the lease afterwards, where it changes, and
    /// the answer.
    pub fn claim(
        current: Option<&Self>,
        claim: &LeaseClaim,
        now_ms: u64,
    ) -> (Option<Self>, LeaseOutcome) {
        let grant = |epoch, since_ms, queue, set_back| {
            let granted = Self {
                instance: claim.instance.clone(),
                epoch,
                expires_ms: after(now_ms, claim.ttl),
                since_ms,
                queue,
                queue_damaged: false,
                term: Term {
                    epoch,
                    ttl_ms: millis(claim.ttl),
                    written_ms: now_ms,
                    set_back,
                },
            };
            (Some(granted), LeaseOutcome::Granted { epoch })
        };
        let floor = claim.floor.min(EPOCH_MAX - 1);
        let Some(stored) = current else {
            return grant(floor + 1, now_ms, Vec::new(), None);
        };
        let lease = stored.at(now_ms);
        let released = lease.expires_ms == 0;
        let continues = lease.instance == claim.instance && !released;
        let inherits = claim.predecessor.as_ref() == Some(&lease.instance) && !released;
        let is_over = released || (lease.expires_ms <= now_ms && claim.lapsed == lease.mark());
        let told = stored.told_at(now_ms);
        let is_turn = told
            .next()
            .is_none_or(|next| next.instance == claim.instance);
        let mut queue = lease.queue.clone();
        if continues || inherits || (is_over && is_turn) {
            queue.retain(|place| place.instance != claim.instance);
            let (epoch, since_ms) = match continues {
                true => (lease.epoch, lease.since_ms),
                false => (lease.epoch.min(EPOCH_MAX - 1).max(floor) + 1, now_ms),
            };
            return grant(epoch, since_ms, queue, lease.term.set_back);
        }
        let asks = match claim.otherwise {
            Otherwise::Leave => {
                // What was written down by another clock runs from now on by this one.
                let changed = lease.expires_ms != stored.expires_ms;
                return (
                    changed.then(|| lease.written(now_ms)),
                    LeaseOutcome::Held(told),
                );
            }
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
        let queued = Self { queue, ..lease };
        let told = queued.told_at(now_ms);
        (Some(queued.written(now_ms)), LeaseOutcome::Held(told))
    }

    fn mark(&self) -> Option<LeaseMark> {
        (self.expires_ms > 0).then_some(LeaseMark {
            epoch: self.epoch,
            expires_ms: self.expires_ms,
        })
    }

    fn is_held_by(&self, instance: &InstanceId, epoch: u64) -> bool {
        self.instance == *instance && self.epoch == epoch
    }

    /// The lease prolonged; `None` where it is not this holder's to prolong.
    pub fn renewed(
        &self,
        instance: &InstanceId,
        epoch: u64,
        ttl: Duration,
        now_ms: u64,
    ) -> Option<Self> {
        let held = self.is_held_by(instance, epoch) && self.expires_ms > 0;
        held.then(|| {
            let mut renewed = self.at(now_ms);
            renewed.expires_ms = after(now_ms, ttl);
            (renewed.term.epoch, renewed.term.ttl_ms) = (epoch, millis(ttl));
            renewed.written(now_ms)
        })
    }

    /// Lets it go, if it is this holder's.
    pub fn release(&mut self, instance: &InstanceId, epoch: u64) {
        if self.is_held_by(instance, epoch) {
            self.expires_ms = 0;
        }
    }

    /// Ends it and its queue, whoever holds it.
    pub fn end(&mut self) {
        self.expires_ms = 0;
        self.queue.clear();
        self.queue_damaged = false;
    }

    /// The lease in the words of the contract.
    pub fn told_at(&self, now_ms: u64) -> Lease {
        let lease = self.at(now_ms);
        let waiter = |place: Place| Waiter {
            instance: place.instance,
            since_ms: place.since_ms,
            asks: place.asks,
        };
        Lease {
            epoch: lease.epoch,
            remaining: Duration::from_millis(lease.expires_ms.saturating_sub(now_ms)),
            mark: lease.mark(),
            ttl: lease.ttl(),
            since_ms: lease.since_ms,
            now_ms,
            set_back: lease.term.set_back,
            queue_damaged: lease.queue_damaged,
            instance: lease.instance,
            waiting: lease.queue.into_iter().map(waiter).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::lapse::RenewalWatch;
    use proptest::prelude::*;
    use sessionkeep_core::boot_time::BootInstant;

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
                        let claim = LeaseClaim { instance: name(who), predecessor: heir.map(name), floor: 0, ttl, lapsed: lease.as_ref().and_then(LeaseState::mark), otherwise };
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

        /// Whatever its clock did meanwhile, a store that is asked all the time gives a dead owner's
        /// lease to the first who waits within one TTL of real time, and a bit; and never to anybody
        /// while its owner renews it.
        #[test]
        fn a_dead_owners_lease_ends_within_its_time_and_a_living_ones_never(
            steps in prop::collection::vec((0..20usize, -7_200_000..7_200_000i64), 0..6),
            dies_at in 0..40usize,
            told in any::<bool>(),
        ) {
            const TICK: Duration = Duration::from_millis(250);
            let ttl = Duration::from_secs(3);
            let mut watch = RenewalWatch::default();
            let (mut clock, mut lease) = (1_800_000_000_000i64, None::<LeaseState>);
            let mut quiet = 0u32;
            let own = LeaseClaim { instance: name(0), predecessor: None, floor: 0, ttl, lapsed: None, otherwise: Otherwise::Wait };
            lease = LeaseState::claim(lease.as_ref(), &own, clock.unsigned_abs()).0;
            if !told {
                // As a version that says nothing leaves it.
                lease.as_mut().expect("taken").term = Term::default();
            }
            let mut boot = BootInstant::at(Duration::from_secs(1000));
            let mut taken = None;
            for tick in 0..10_000usize {
                for (_, by) in steps.iter().filter(|(at, _)| *at == tick) {
                    clock += by;
                }
                let now = clock.unsigned_abs();
                // Once a second, until it dies.
                if tick < dies_at && tick % 4 == 0 {
                    let renewed = lease.as_ref().and_then(|l| l.renewed(&name(0), 1, ttl, now));
                    prop_assert!(renewed.is_some(), "taken from an owner that renews it");
                    lease = renewed;
                    quiet = 0;
                }
                let claim = LeaseClaim { instance: name(1), lapsed: watch.lapsed(ttl, boot), ..own.clone() };
                let (after, outcome) = LeaseState::claim(lease.as_ref(), &claim, now);
                lease = after.or(lease);
                match outcome {
                    LeaseOutcome::Granted { .. } => { taken = Some(quiet); break; }
                    LeaseOutcome::Held(held) => watch.note(&held, boot),
                }
                clock += i64::try_from(TICK.as_millis()).expect("small");
                boot = boot + TICK;
                quiet += 1;
            }
            let quiet = TICK * taken.expect("a dead owner's lease ends");
            // Each time the clock goes back, the lease runs anew from there.
            let last = steps.iter().map(|(at, _)| *at).max().unwrap_or(0).saturating_sub(dies_at / 4 * 4);
            let told = told || dies_at > 0;
            let runs = if told { ttl } else { TTL_UNTOLD };
            let limit = runs + TICK * u32::try_from(last).expect("small") + RenewalWatch::patience(ttl) + TICK * 8;
            prop_assert!(quiet <= limit, "{quiet:?} instead of {limit:?}");
        }

        /// A queue that another clock has written keeps nobody out.
        #[test]
        fn a_released_lease_is_granted_at_once_whatever_the_dead_left_in_its_queue(
            ahead in prop::collection::vec(0..7_200_000u64, 0..5),
            since in any::<u64>(),
        ) {
            let now = 1_800_000_000_000;
            let slack = millis(CLOCK_SLACK) + 1;
            let queue = ahead.iter().map(|ahead| Place {
                instance: name(2), since_ms: since, seen_ms: now + slack + ahead, asks: Some(1),
            });
            let lease = LeaseState { epoch: 1, since_ms: since, queue: queue.collect(), ..LeaseState::unreadable(1) };
            let claim = LeaseClaim { instance: name(1), predecessor: None, floor: 0, ttl: Duration::from_secs(3), lapsed: None, otherwise: Otherwise::Leave };
            let (after, outcome) = LeaseState::claim(Some(&lease), &claim, now);
            prop_assert_eq!(outcome, LeaseOutcome::Granted { epoch: 2 });
            let told = after.expect("granted").told_at(now);
            prop_assert!(told.since_ms == now && told.remaining == claim.ttl);
            prop_assert_eq!(told.set_back.is_some(), !ahead.is_empty() || since > now + slack - 1);
        }
    }
}
