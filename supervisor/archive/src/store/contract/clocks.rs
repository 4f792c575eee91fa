//! What holds of the lease where the store's clock is set, and where somebody else wrote to it.

use std::time::Duration;

use super::leases::{
    LONG, SHORT, claim, epoch, held, names, queue, release, renew, take, take_lapsed,
};
use super::{Subject, archive, instance};
use crate::store::{LeaseClaim, LeaseOutcome, Otherwise, Renewal};

const HOUR_MS: i64 = 3_600_000;

/// Within so much of each other two times are the same, on a machine that is busy.
const BUSY_MS: u64 = 30_000;

/// A clock that was set back makes no lease longer than its holder has it at a time, counted from the
/// first claim after that.
pub async fn a_clock_that_is_set_back_makes_no_lease_longer(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("set-back"));
    for (n, otherwise) in [Otherwise::Leave, Otherwise::Wait].into_iter().enumerate() {
        let (owner, next) = (format!("a{n}"), format!("b{n}"));
        let taken = epoch(take(store, &archive, &owner, SHORT).await);
        subject.set_clock(&archive, -HOUR_MS).await;
        let lease = store.lease(&archive).await.expect("lease").expect("one");
        assert!(lease.remaining <= SHORT, "{lease:?}");
        assert!(lease.since_ms <= lease.now_ms, "{lease:?}");
        let found = lease.set_back.expect("it is seen");
        assert!(found.by_ms.abs_diff(3_600_000) < BUSY_MS, "{found:?}");
        // Who is refused has set it right, and from there it counts down.
        let refused = LeaseClaim {
            otherwise,
            ..claim(&next, SHORT)
        };
        held(store.take_lease(&archive, &refused).await.expect("claim"));
        subject.let_pass(SHORT * 2).await;
        let granted = epoch(take_lapsed(store, &archive, &next, otherwise).await);
        assert_eq!(granted, taken + 1);
        // And it is not forgotten.
        let lease = store.lease(&archive).await.expect("lease").expect("one");
        assert!(lease.set_back.is_some(), "{lease:?}");
        release(store, &archive, &next, granted).await;
    }
}

/// The holder of a lease keeps it, and its time, when the clock is set back.
pub async fn a_holder_renews_across_a_clock_that_is_set_back(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("holder"));
    assert_eq!(epoch(take(store, &archive, "a", LONG).await), 1);
    held(queue(store, &archive, "b", Otherwise::Wait).await);
    subject.set_clock(&archive, -HOUR_MS).await;
    let lease = held(queue(store, &archive, "c", Otherwise::Wait).await);
    assert!(lease.remaining > LONG - LONG / 10 && lease.remaining <= LONG);
    match renew(store, &archive, "a", 1, LONG).await {
        Renewal::Renewed(lease) => assert!(lease.remaining > LONG / 2, "{lease:?}"),
        lost @ Renewal::Lost(_) => panic!("{lost:?}"),
    }
    assert_eq!(epoch(take(store, &archive, "a", LONG).await), 1);
}

/// A place that was kept in the future is gone: whoever left it there may be dead.
pub async fn a_place_in_the_future_keeps_nobody_out(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("future"));
    assert_eq!(epoch(take(store, &archive, "a", LONG).await), 1);
    held(queue(store, &archive, "dead", Otherwise::Ask(1)).await);
    release(store, &archive, "a", 1).await;
    held(take(store, &archive, "b", LONG).await);
    subject.set_clock(&archive, -HOUR_MS).await;
    let lease = store.lease(&archive).await.expect("lease").expect("one");
    assert_eq!((names(&lease), lease.asked_by()), (vec![], None));
    assert_eq!(epoch(take(store, &archive, "b", LONG).await), 2);
    let lease = store.lease(&archive).await.expect("lease").expect("one");
    assert_eq!(names(&lease), Vec::<&str>::new());
}

/// A lease that has run out by the clock goes only to who has seen that nobody renews it.
pub async fn an_expired_lease_is_not_taken_from_who_renews_it(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("forward"));
    assert_eq!(epoch(take(store, &archive, "a", LONG).await), 1);
    subject.set_clock(&archive, HOUR_MS).await;
    let seen = held(queue(store, &archive, "b", Otherwise::Wait).await);
    assert_eq!(seen.remaining, Duration::ZERO);
    let watched = seen.mark.expect("it was not released");
    assert!(matches!(
        renew(store, &archive, "a", 1, LONG).await,
        Renewal::Renewed(_)
    ));
    subject.set_clock(&archive, HOUR_MS).await;
    let lapsed = LeaseClaim {
        lapsed: Some(watched),
        ..claim("b", LONG)
    };
    let renewed = held(store.take_lease(&archive, &lapsed).await.expect("claim"));
    assert_ne!(renewed.mark, Some(watched));
    let lapsed = LeaseClaim {
        lapsed: renewed.mark,
        ..lapsed
    };
    let granted = store.take_lease(&archive, &lapsed).await.expect("claim");
    assert_eq!(granted, LeaseOutcome::Granted { epoch: 2 });
    // Nobody waits for what was let go, or is inherited.
    let heir = LeaseClaim {
        predecessor: Some(instance("b")),
        ..claim("c", LONG)
    };
    subject.set_clock(&archive, HOUR_MS).await;
    assert_eq!(
        epoch(store.take_lease(&archive, &heir).await.expect("claim")),
        3
    );
    release(store, &archive, "c", 3).await;
    assert_eq!(epoch(take(store, &archive, "d", LONG).await), 4);
}

/// The holder's time is bounded by what it says, and not by what a claimant has.
pub async fn a_claimants_own_time_shortens_no_lease(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("times"));
    assert_eq!(epoch(take(store, &archive, "a", LONG).await), 1);
    let lease = held(take(store, &archive, "b", SHORT).await);
    assert!(lease.remaining > LONG / 2 && lease.ttl == Some(LONG));
    // A version that says nothing of its time keeps it, too, and ends after a bounded one.
    if !subject.forget_term(&archive).await {
        return;
    }
    let lease = held(take(store, &archive, "b", SHORT).await);
    assert!(lease.remaining > LONG / 2, "{lease:?}");
    assert_eq!(lease.ttl, None);
    subject.set_clock(&archive, -HOUR_MS).await;
    let lease = held(take(store, &archive, "b", SHORT).await);
    assert!(lease.remaining <= LONG, "{lease:?}");
    // What another epoch's holder said of itself is not this one's.
    let renewed = renew(store, &archive, "a", 1, SHORT).await;
    assert!(matches!(renewed, Renewal::Renewed(_)), "{renewed:?}");
    let lease = held(take(store, &archive, "b", LONG).await);
    assert!(lease.remaining <= SHORT && lease.ttl == Some(SHORT));
}
