//! What holds of the lease, of its queue and of notices.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::{Subject, archive, instance};
use crate::store::{
    Broken, Lease, LeaseClaim, LeaseOutcome, NOBODY, Otherwise, QUEUE_MAX, Renewal, Store,
    StoreError, WAITER_TTL,
};
use sessionkeep_core::record::ArchiveName;

pub(super) const LONG: Duration = Duration::from_secs(600);
pub(super) const SHORT: Duration = Duration::from_millis(300);

pub(super) fn claim(name: &str, ttl: Duration) -> LeaseClaim {
    LeaseClaim {
        instance: instance(name),
        predecessor: None,
        floor: 0,
        ttl,
        lapsed: None,
        otherwise: Otherwise::Leave,
    }
}

/// A claim of one that wants a place in the queue.
pub(super) async fn queue(
    store: &dyn Store,
    archive: &ArchiveName,
    name: &str,
    otherwise: Otherwise,
) -> LeaseOutcome {
    let claim = LeaseClaim {
        otherwise,
        ..claim(name, LONG)
    };
    let outcome = store.take_lease(archive, &claim).await;
    outcome.expect("claim the lease")
}

#[track_caller]
pub(super) fn held(outcome: LeaseOutcome) -> Lease {
    match outcome {
        LeaseOutcome::Held(lease) => lease,
        LeaseOutcome::Granted { epoch } => panic!("granted at epoch {epoch}"),
    }
}

pub(super) fn names(lease: &Lease) -> Vec<&str> {
    let waiting = lease.waiting.iter();
    waiting.map(|waiter| waiter.instance.as_str()).collect()
}

pub(super) fn epoch(outcome: LeaseOutcome) -> u64 {
    match outcome {
        LeaseOutcome::Granted { epoch } => epoch,
        LeaseOutcome::Held(lease) => panic!("held by {lease:?}"),
    }
}

pub(super) async fn take(
    store: &dyn Store,
    archive: &ArchiveName,
    name: &str,
    ttl: Duration,
) -> LeaseOutcome {
    let outcome = store.take_lease(archive, &claim(name, ttl)).await;
    outcome.expect("take the lease")
}

/// The claim of one that has watched for long enough that nobody renews the lease.
pub(super) async fn take_lapsed(
    store: &dyn Store,
    archive: &ArchiveName,
    name: &str,
    otherwise: Otherwise,
) -> LeaseOutcome {
    let lease = store.lease(archive).await.expect("lease").expect("one");
    let claim = LeaseClaim {
        lapsed: lease.mark,
        otherwise,
        ..claim(name, LONG)
    };
    store.take_lease(archive, &claim).await.expect("claim")
}

pub(super) async fn renew(
    store: &dyn Store,
    archive: &ArchiveName,
    name: &str,
    epoch: u64,
    ttl: Duration,
) -> Renewal {
    let renewal = store
        .renew_lease(archive, &instance(name), epoch, ttl)
        .await;
    renewal.expect("renew the lease")
}

pub(super) async fn release(store: &dyn Store, archive: &ArchiveName, name: &str, epoch: u64) {
    let released = store.release_lease(archive, &instance(name), epoch).await;
    released.expect("release the lease");
}

/// The lease from its first claim on: renewed, refused to another, released, taken over.
pub async fn a_lease_is_held_until_it_is_released(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("lease"));
    let before = store.now_ms().await.expect("time");
    assert_eq!(epoch(take(store, &archive, "a", LONG).await), 1);
    let after = store.now_ms().await.expect("time");
    match take(store, &archive, "b", LONG).await {
        LeaseOutcome::Held(lease) => {
            assert_eq!((lease.instance, lease.epoch), (instance("a"), 1));
            assert!(lease.remaining <= LONG && lease.remaining > LONG / 2);
            assert!((before..=after).contains(&lease.since_ms));
        }
        LeaseOutcome::Granted { .. } => panic!("two holders"),
    }
    match renew(store, &archive, "a", 1, LONG).await {
        Renewal::Renewed(lease) => {
            assert_eq!((&lease.instance, lease.epoch), (&instance("a"), 1));
            assert_eq!((lease.waiting.len(), lease.asked_by()), (0, None));
        }
        lost @ Renewal::Lost(_) => panic!("{lost:?}"),
    }
    // A stranger and a former self renew nothing.
    for (name, epoch) in [("b", 1), ("a", 2)] {
        match renew(store, &archive, name, epoch, LONG).await {
            Renewal::Lost(Some(lease)) => assert_eq!(lease.instance, instance("a")),
            other => panic!("{other:?}"),
        }
    }
    // Nor do they release it.
    release(store, &archive, "b", 1).await;
    let held = store.lease(&archive).await.expect("lease").expect("one");
    assert!(held.remaining > LONG / 2);
    release(store, &archive, "a", 1).await;
    let free = store.lease(&archive).await.expect("lease").expect("one");
    assert_eq!((free.remaining, free.epoch), (Duration::ZERO, 1));
    assert_eq!(epoch(take(store, &archive, "b", LONG).await), 2);
}

/// A renewal that overtook the release on its way does not bring the lease back.
pub async fn a_released_lease_is_not_renewed(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("late"));
    assert_eq!(epoch(take(store, &archive, "a", LONG).await), 1);
    release(store, &archive, "a", 1).await;
    assert!(matches!(
        renew(store, &archive, "a", 1, LONG).await,
        Renewal::Lost(Some(_))
    ));
    assert_eq!(epoch(take(store, &archive, "b", LONG).await), 2);
}

/// No lease was ever taken: nothing to renew, nothing to release.
pub async fn a_lease_that_never_was_is_lost(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("never"));
    assert_eq!(
        renew(store, &archive, "a", 1, LONG).await,
        Renewal::Lost(None)
    );
    release(store, &archive, "a", 1).await;
}

/// Its holder may ask again and keeps its epoch; commits under way stay valid.
pub async fn the_holder_takes_its_lease_again_at_the_same_epoch(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("retake"));
    assert_eq!(epoch(take(store, &archive, "a", LONG).await), 1);
    assert_eq!(epoch(take(store, &archive, "a", LONG).await), 1);
}

/// Until it expires nobody steals it; then anybody takes it, at a higher epoch.
pub async fn an_expired_lease_goes_to_the_next_at_a_higher_epoch(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("expiry"));
    assert_eq!(epoch(take(store, &archive, "a", SHORT).await), 1);
    assert!(matches!(
        take(store, &archive, "b", SHORT).await,
        LeaseOutcome::Held(_)
    ));
    subject.let_pass(SHORT * 2).await;
    let lease = store.lease(&archive).await.expect("lease").expect("one");
    assert_eq!(lease.remaining, Duration::ZERO);
    // Late, but nobody came in between.
    let renewed = renew(store, &archive, "a", 1, SHORT).await;
    assert!(matches!(renewed, Renewal::Renewed(_)), "{renewed:?}");
    subject.let_pass(SHORT * 2).await;
    let next = take_lapsed(store, &archive, "b", Otherwise::Leave).await;
    assert_eq!(epoch(next), 2);
    match renew(store, &archive, "a", 1, LONG).await {
        Renewal::Lost(Some(lease)) => assert_eq!(lease.instance, instance("b")),
        other => panic!("{other:?}"),
    }
}

/// Where the leases were lost and the commits were not, epochs go on rising.
pub async fn an_epoch_is_above_the_floor_that_the_claim_names(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("lease-floor"));
    let above = |name: &str, floor| LeaseClaim {
        floor,
        ..claim(name, LONG)
    };
    let first = store
        .take_lease(&archive, &above("a", 41))
        .await
        .expect("take");
    assert_eq!(first, LeaseOutcome::Granted { epoch: 42 });
    release(store, &archive, "a", 42).await;
    let second = store
        .take_lease(&archive, &above("b", 7))
        .await
        .expect("take");
    assert_eq!(second, LeaseOutcome::Granted { epoch: 43 });
}

/// Who holds the directory's lock continues the lease of who held it before, without waiting.
pub async fn a_predecessors_lease_is_continued_at_once(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("heir"));
    assert_eq!(epoch(take(store, &archive, "a", LONG).await), 1);
    let mut heir = claim("b", LONG);
    heir.predecessor = Some(instance("somebody-else"));
    let refused = store.take_lease(&archive, &heir).await.expect("take");
    assert!(matches!(refused, LeaseOutcome::Held(_)));
    heir.predecessor = Some(instance("a"));
    let granted = store.take_lease(&archive, &heir).await.expect("take");
    assert_eq!(epoch(granted), 2);
}

/// Who waits gets the lease in the order in which they came, and the queue survives its changes.
pub async fn those_who_wait_get_it_in_the_order_in_which_they_came(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("queue"));
    assert_eq!(epoch(take(store, &archive, "a", LONG).await), 1);
    for name in ["b", "c", "d", "c", "b"] {
        held(queue(store, &archive, name, Otherwise::Wait).await);
    }
    // One who does not wait leaves no trace, and does not slip in either.
    let lease = held(take(store, &archive, "e", LONG).await);
    assert_eq!(names(&lease), ["b", "c", "d"]);
    assert!(lease.waiting.is_sorted_by_key(|waiter| waiter.since_ms));
    match renew(store, &archive, "a", 1, LONG).await {
        Renewal::Renewed(lease) => {
            assert_eq!(
                (names(&lease), lease.asked_by()),
                (vec!["b", "c", "d"], None)
            );
        }
        lost @ Renewal::Lost(_) => panic!("{lost:?}"),
    }
    release(store, &archive, "a", 1).await;
    held(take(store, &archive, "e", LONG).await);
    held(queue(store, &archive, "c", Otherwise::Wait).await);
    // Whoever let it go comes last.
    let lease = held(queue(store, &archive, "a", Otherwise::Wait).await);
    assert_eq!(names(&lease), ["b", "c", "d", "a"]);
    assert_eq!(epoch(queue(store, &archive, "b", Otherwise::Wait).await), 2);
    let lease = store.lease(&archive).await.expect("lease").expect("one");
    assert_eq!(names(&lease), ["c", "d", "a"]);
    // The holder itself waits for nobody, and its heir neither.
    assert_eq!(epoch(take(store, &archive, "b", LONG).await), 2);
    let heir = LeaseClaim {
        predecessor: Some(instance("b")),
        ..claim("f", LONG)
    };
    let granted = store.take_lease(&archive, &heir).await.expect("claim");
    assert_eq!(epoch(granted), 3);
    release(store, &archive, "f", 3).await;
    // An heir of what was let go is a stranger.
    let heir = LeaseClaim {
        predecessor: Some(instance("f")),
        ..claim("g", LONG)
    };
    held(store.take_lease(&archive, &heir).await.expect("claim"));
    assert_eq!(epoch(queue(store, &archive, "c", Otherwise::Wait).await), 4);
}

/// Who asks the present holder to make way is heard by it and goes first; a later holder is not
/// asked by what was asked of an earlier one.
pub async fn who_asks_is_heard_and_goes_first(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("asks"));
    assert_eq!(epoch(take(store, &archive, "a", LONG).await), 1);
    held(queue(store, &archive, "patient", Otherwise::Wait).await);
    held(queue(store, &archive, "b", Otherwise::Wait).await);
    let lease = held(queue(store, &archive, "b", Otherwise::Ask(1)).await);
    assert_eq!(lease.asked_by().map(|w| &w.instance), Some(&instance("b")));
    held(queue(store, &archive, "c", Otherwise::Ask(1)).await);
    let asked = match renew(store, &archive, "a", 1, LONG).await {
        Renewal::Renewed(lease) => lease,
        lost @ Renewal::Lost(_) => panic!("{lost:?}"),
    };
    assert_eq!(names(&asked), ["patient", "b", "c"]);
    assert_eq!(asked.next().map(|w| &w.instance), Some(&instance("b")));
    release(store, &archive, "a", 1).await;
    held(queue(store, &archive, "patient", Otherwise::Wait).await);
    held(queue(store, &archive, "c", Otherwise::Ask(1)).await);
    assert_eq!(
        epoch(queue(store, &archive, "b", Otherwise::Ask(1)).await),
        2
    );
    // `c` asked for what `b` has by now: its turn comes like anybody's.
    let lease = held(queue(store, &archive, "c", Otherwise::Ask(1)).await);
    assert_eq!(
        (names(&lease), lease.asked_by()),
        (vec!["patient", "c"], None)
    );
    release(store, &archive, "b", 2).await;
    held(queue(store, &archive, "c", Otherwise::Ask(1)).await);
    assert_eq!(
        epoch(queue(store, &archive, "patient", Otherwise::Wait).await),
        3
    );
}

/// A place is kept only for who asks again; an expired lease goes to the first who still does.
pub async fn a_place_in_the_queue_is_kept_only_for_who_asks_again(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("stale"));
    assert_eq!(epoch(take(store, &archive, "a", SHORT).await), 1);
    held(queue(store, &archive, "gone", Otherwise::Ask(1)).await);
    subject.let_pass(WAITER_TTL / 2).await;
    held(queue(store, &archive, "b", Otherwise::Wait).await);
    subject.let_pass(WAITER_TTL * 3 / 5).await;
    let lease = store.lease(&archive).await.expect("lease").expect("one");
    assert_eq!(names(&lease), ["b"]);
    held(take_lapsed(store, &archive, "c", Otherwise::Leave).await);
    let next = take_lapsed(store, &archive, "b", Otherwise::Wait).await;
    assert_eq!(epoch(next), 2);
}

/// The queue has an end.
pub async fn the_queue_is_bounded(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("bounded"));
    assert_eq!(epoch(take(store, &archive, "a", LONG).await), 1);
    for n in 0..QUEUE_MAX + 3 {
        let name = format!("w{n:02}");
        held(queue(store, &archive, &name, Otherwise::Wait).await);
    }
    let lease = store.lease(&archive).await.expect("lease").expect("one");
    assert_eq!(lease.waiting.len(), QUEUE_MAX);
}

/// A lease that was ended from outside is lost to its holder, and free for the next. So is its queue.
pub async fn a_broken_lease_is_lost_to_its_holder(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("broken"));
    let none = store.break_lease(&archive).await.expect("none");
    assert!(matches!(none, Broken::Absent), "{none:?}");
    assert_eq!(epoch(take(store, &archive, "a", LONG).await), 1);
    held(queue(store, &archive, "b", Otherwise::Wait).await);
    let Broken::Ended(broken) = store.break_lease(&archive).await.expect("end it") else {
        panic!("there was one");
    };
    assert_eq!((&broken.instance, broken.epoch), (&instance("a"), 1));
    assert!(broken.remaining > LONG / 2);
    assert_eq!(names(&broken), ["b"]);
    let after = store.lease(&archive).await.expect("lease").expect("one");
    assert_eq!((after.mark, names(&after)), (None, vec![]));
    assert!(matches!(
        renew(store, &archive, "a", 1, LONG).await,
        Renewal::Lost(Some(_))
    ));
    assert_eq!(epoch(take(store, &archive, "c", LONG).await), 2);
    release(store, &archive, "c", 2).await;
    assert_eq!(epoch(queue(store, &archive, "b", Otherwise::Wait).await), 3);
}

/// A lease that cannot be read is granted to nobody, and ending it puts a readable one in its
/// place: its holder has lost it, and the epochs go on rising.
pub async fn a_lease_that_cannot_be_read_can_be_ended(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("unreadable"));
    for holder in ["a", "b", "c"] {
        let taken = take(store, &archive, holder, LONG).await;
        release(store, &archive, holder, epoch(taken)).await;
    }
    assert_eq!(epoch(take(store, &archive, "a", LONG).await), 4);
    if !subject.damage_lease(&archive).await {
        return;
    }
    let damage = [
        store.lease(&archive).await.expect_err("unreadable"),
        store
            .take_lease(&archive, &claim("b", LONG))
            .await
            .expect_err("nobody knows whose it is"),
    ];
    for error in damage {
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
        assert!(error.to_string().contains("lease --break"), "{error}");
    }
    let broken = store.break_lease(&archive).await.expect("end it");
    assert!(
        matches!(broken, Broken::Replaced(StoreError::Damaged { .. })),
        "{broken:?}"
    );
    let lease = store.lease(&archive).await.expect("lease").expect("one");
    assert_eq!((lease.remaining, lease.epoch), (Duration::ZERO, 4));
    assert_eq!(lease.instance.as_str(), NOBODY);
    assert!(matches!(
        renew(store, &archive, "a", 4, LONG).await,
        Renewal::Lost(Some(_))
    ));
    assert_eq!(epoch(take(store, &archive, "b", LONG).await), 5);
}

/// Who waits for a notice returns when somebody notifies, and in any case after the time given.
pub async fn a_notice_wakes_who_waits(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("notice"));
    let short = Duration::from_millis(300);
    // The first time, the collection may have to be made.
    store.wait_for_notice(&archive, short).await.expect("wait");
    for _ in 0..3 {
        let begun = Instant::now();
        let waiting = store.wait_for_notice(&archive, LONG);
        let notifying = async {
            // Until somebody waits, a notice may be missed: then another is not.
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                store.notify(&archive).await.expect("notify");
            }
        };
        tokio::select! {
            woken = waiting => woken.expect("wait"),
            () = notifying => unreachable!("it goes on"),
        }
        assert!(begun.elapsed() < LONG / 2, "it was missed");
    }
    // A notice that was given wakes nobody again.
    let begun = Instant::now();
    store.wait_for_notice(&archive, short).await.expect("wait");
    assert!(begun.elapsed() >= short, "an old notice woke it");
}

/// The first claims of many at once make one holder.
pub async fn of_concurrent_first_claims_exactly_one_is_granted(subject: &dyn Subject) {
    let store = subject.store();
    for _ in 0..5 {
        let archive = archive("claims");
        let claims: Vec<LeaseClaim> = (0..6).map(|n| claim(&format!("i{n}"), LONG)).collect();
        let answers = join_all(claims.iter().map(|c| store.take_lease(&archive, c))).await;
        let granted: Vec<u64> = answers
            .into_iter()
            .filter_map(|answer| match answer.expect("take") {
                LeaseOutcome::Granted { epoch } => Some(epoch),
                LeaseOutcome::Held(_) => None,
            })
            .collect();
        assert_eq!(granted, [1]);
    }
}
