//! The contract of [`Store`], as a suite that runs against any of them. `tests/stores.rs` runs it
//! against all three; whoever writes a fourth adds it there.
//!
//! Every function is one sentence about behaviour and panics where it does not hold. Each uses
//! archives of its own, so that they can share a store and run at the same time.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;

use super::{
    Appended, ArchiveName, CommitId, FORMAT, Header, InstanceId, Lease, LeaseClaim, LeaseOutcome,
    Otherwise, PackId, QUEUE_MAX, Record, RecordKind, Renewal, Seq, Severity, Store, StoreError,
    Usage, WAITER_TTL,
};
use crate::entry::Digest;

/// A store under test: what the suite needs beside the trait.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The store.
    fn store(&self) -> &dyn Store;

    /// Lets `span` pass by the store's clock.
    async fn let_pass(&self, span: Duration);

    /// Makes a stored record unreadable, behind the store's back.
    async fn damage(&self, archive: &ArchiveName, seq: Seq);

    /// Leaves what a [`Store::put_pack`] leaves that was cut off halfway. `false` where the store
    /// keeps packs in one piece, so that there is nothing to leave.
    async fn leave_pieces(&self, archive: &ArchiveName, id: PackId) -> bool;
}

/// A new archive name.
#[must_use]
pub fn archive(purpose: &str) -> ArchiveName {
    format!("{purpose}-{}", &CommitId::generate().to_string()[..8])
        .parse()
        .expect("test archives have short plain names")
}

/// An instance's name.
#[must_use]
pub fn instance(name: &str) -> InstanceId {
    name.parse().expect("test instances have plain names")
}

/// A record whose every field has a value of its own, so that none can be swapped unnoticed.
#[must_use]
pub fn record(archive: &ArchiveName, seq: Seq, body: impl Into<Vec<u8>>) -> Record {
    let body = body.into();
    let kind = match seq % 3 {
        0 => RecordKind::Barrier,
        1 => RecordKind::Checkpoint,
        _ => RecordKind::Change,
    };
    let mut header = Header {
        format: FORMAT,
        archive: archive.clone(),
        seq,
        history: CommitId::generate(),
        id: CommitId::generate(),
        kind,
        instance: instance("writer-1"),
        epoch: 7,
        time_ms: 1_800_000_000_123,
        base: seq / 2,
        changed_at: seq.saturating_sub(1),
        changed_epoch: 6,
        parent: Digest::of(b"parent"),
        root: Digest::of(b"root"),
        changes: 11,
        bytes: 1 << 40,
        live_files: 31_000,
        live_bytes: 1 << 41,
        chain_bytes: 12_345,
        base_bytes: 54_321,
        packs: vec![PackId::generate(), PackId::generate()],
        body_hash: Digest::of(&body),
        digest: Digest::default(),
    };
    header.digest = header.seal();
    Record { header, body }
}

async fn append(store: &dyn Store, record: &Record) {
    let appended = store.append(record).await.expect("append");
    assert_eq!(appended, Appended::Done);
}

fn claim(name: &str, ttl: Duration) -> LeaseClaim {
    LeaseClaim {
        instance: instance(name),
        predecessor: None,
        floor: 0,
        ttl,
        otherwise: Otherwise::Leave,
    }
}

/// A claim of one that wants a place in the queue.
async fn queue(
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
fn held(outcome: LeaseOutcome) -> Lease {
    match outcome {
        LeaseOutcome::Held(lease) => lease,
        LeaseOutcome::Granted { epoch } => panic!("granted at epoch {epoch}"),
    }
}

fn names(lease: &Lease) -> Vec<&str> {
    let waiting = lease.waiting.iter();
    waiting.map(|waiter| waiter.instance.as_str()).collect()
}

fn epoch(outcome: LeaseOutcome) -> u64 {
    match outcome {
        LeaseOutcome::Granted { epoch } => epoch,
        LeaseOutcome::Held(lease) => panic!("held by {lease:?}"),
    }
}

async fn take(store: &dyn Store, archive: &ArchiveName, name: &str, ttl: Duration) -> LeaseOutcome {
    let outcome = store.take_lease(archive, &claim(name, ttl)).await;
    outcome.expect("take the lease")
}

async fn renew(
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

async fn release(store: &dyn Store, archive: &ArchiveName, name: &str, epoch: u64) {
    let released = store.release_lease(archive, &instance(name), epoch).await;
    released.expect("release the lease");
}

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(300);

/// Records come back whole, headers descending, records ascending.
pub async fn what_is_appended_comes_back_in_order(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("order"));
    let all: Vec<Record> = (1..=5)
        .map(|seq| record(&archive, seq, vec![seq as u8; 100 * seq as usize]))
        .collect();
    for one in &all {
        append(store, one).await;
    }
    assert_eq!(store.records(&archive, 1, 5).await.expect("read"), all);
    assert_eq!(
        store.records(&archive, 2, 3).await.expect("read"),
        all[1..3]
    );
    assert_eq!(
        store.records(&archive, 4, Seq::MAX).await.expect("read"),
        all[3..]
    );
    assert_eq!(store.records(&archive, 6, 9).await.expect("read"), []);
    assert_eq!(store.records(&archive, 5, 2).await.expect("read"), []);
    let head = store.head(&archive).await.expect("head").expect("a head");
    assert_eq!(head, all[4].header);
    assert_eq!(head.seal(), head.digest, "every field survived");
    let headers = store.headers(&archive, 1, 5, 3).await.expect("list");
    let expected: Vec<Header> = all[2..].iter().rev().map(|r| r.header.clone()).collect();
    assert_eq!(headers, expected);
    let headers = store.headers(&archive, 0, 2, 100).await.expect("list");
    assert_eq!(headers.iter().map(|h| h.seq).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(store.headers(&archive, 1, 5, 0).await.expect("list"), []);
    assert_eq!(store.headers(&archive, 5, 2, 9).await.expect("list"), []);
}

/// An archive nobody wrote to is empty, not an error.
pub async fn an_unknown_archive_is_empty(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("nothing"));
    assert_eq!(store.head(&archive).await.expect("head"), None);
    assert_eq!(store.records(&archive, 0, 9).await.expect("read"), []);
    assert_eq!(store.packs(&archive).await.expect("list"), []);
    assert_eq!(store.lease(&archive).await.expect("lease"), None);
    assert_eq!(
        store.usage(&archive).await.expect("usage"),
        Usage::default()
    );
    assert!(!store.archives().await.expect("archives").contains(&archive));
}

/// A writer that lost the answer asks again and is not fenced by itself.
pub async fn repeating_an_append_is_done_again(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("again"));
    let one = record(&archive, 1, *b"body");
    for _ in 0..3 {
        append(store, &one).await;
    }
    assert_eq!(store.usage(&archive).await.expect("usage").commits, 1);
}

/// A number that another record has is refused with that record's header.
pub async fn an_append_to_a_taken_number_names_who_took_it(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("taken"));
    let first = record(&archive, 1, *b"first");
    append(store, &first).await;
    let second = record(&archive, 1, *b"second");
    let answer = store.append(&second).await.expect("append");
    assert_eq!(answer, Appended::Taken(Box::new(first.header.clone())));
    assert_eq!(store.records(&archive, 1, 1).await.expect("read"), [first]);
}

/// The fence.
pub async fn of_concurrent_appends_exactly_one_is_done(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("race"));
    for seq in 1..=10 {
        let rivals: Vec<Record> = (0..8)
            .map(|n| record(&archive, seq, vec![n; 1000]))
            .collect();
        let answers = join_all(rivals.iter().map(|rival| store.append(rival))).await;
        let mut won = Vec::new();
        let mut named = Vec::new();
        for (answer, rival) in answers.into_iter().zip(&rivals) {
            match answer.expect("append") {
                Appended::Done => won.push(rival.header.id),
                Appended::Taken(by) => named.push(by.id),
            }
        }
        assert_eq!(won.len(), 1, "number {seq}");
        assert!(named.iter().all(|id| *id == won[0]), "number {seq}");
    }
}

/// The store does not ask whether the number before exists.
pub async fn gaps_are_allowed(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("gaps"));
    for seq in [3, 900, 17] {
        append(store, &record(&archive, seq, *b"x")).await;
    }
    let got = store.records(&archive, 1, 1000).await.expect("read");
    let seqs: Vec<Seq> = got.iter().map(|r| r.header.seq).collect();
    assert_eq!(seqs, [3, 17, 900]);
    let head = store.head(&archive).await.expect("head").expect("a head");
    assert_eq!(head.seq, 900);
}

/// A long chain is read in portions, none of them huge, none of them empty.
pub async fn records_come_in_portions_of_some_megabytes(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("portions"));
    for seq in 1..=5 {
        append(store, &record(&archive, seq, vec![seq as u8; 3 << 20])).await;
    }
    let mut next = 1;
    let mut portions = Vec::new();
    while next <= 5 {
        let got = store.records(&archive, next, 5).await.expect("read");
        assert!(!got.is_empty());
        for record in &got {
            assert_eq!(record.header.seq, next);
            assert_eq!(Digest::of(&record.body), record.header.body_hash);
            next += 1;
        }
        portions.push(got.len());
    }
    assert_eq!(portions, [3, 2]);
}

/// A chain of many small commits is read whole, however many round trips it takes.
pub async fn many_small_records_come_back_without_a_hole(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("many"));
    for seq in 1..=150 {
        append(store, &record(&archive, seq, vec![0; 40])).await;
    }
    let got = store.records(&archive, 1, Seq::MAX).await.expect("read");
    let seqs: Vec<Seq> = got.iter().map(|r| r.header.seq).collect();
    assert_eq!(seqs, (1..=150).collect::<Vec<_>>());
}

/// A record of a later version is refused with a clear error, and what is before it is readable.
pub async fn an_unknown_format_is_refused(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("format"));
    append(store, &record(&archive, 1, *b"known")).await;
    let mut later = record(&archive, 2, *b"unknown");
    later.header.format = 99;
    append(store, &later).await;
    let refused = |error: StoreError| match error {
        StoreError::Format { found: 99, what } => assert!(what.contains("commit 2"), "{what}"),
        other => panic!("{other:?}"),
    };
    refused(store.head(&archive).await.expect_err("unknown format"));
    refused(store.headers(&archive, 1, 2, 9).await.expect_err("unknown"));
    refused(store.records(&archive, 2, 2).await.expect_err("unknown"));
    let readable = store.records(&archive, 1, 2).await.expect("the first");
    assert_eq!(readable.len(), 1);
}

/// A damaged record is named, and does not spoil what is before it.
pub async fn a_damaged_record_is_reported_only_where_it_is_first(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("damage"));
    for seq in 1..=4 {
        append(store, &record(&archive, seq, *b"body")).await;
    }
    subject.damage(&archive, 3).await;
    let readable = store.records(&archive, 1, 4).await.expect("two of them");
    assert_eq!(readable.len(), 2);
    match store.records(&archive, 3, 4).await.expect_err("damaged") {
        StoreError::Damaged { what, .. } => assert!(what.contains("commit 3"), "{what}"),
        other => panic!("{other:?}"),
    }
    let rest = store.records(&archive, 4, 4).await.expect("the last");
    assert_eq!(rest.len(), 1);
}

/// Deleting counts what went, and only that goes.
pub async fn deleting_records_passes_over_absent_ones(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("delete"));
    for seq in 1..=4 {
        append(store, &record(&archive, seq, *b"body")).await;
    }
    let gone = store.delete_records(&archive, &[1, 3, 77]).await;
    assert_eq!(gone.expect("delete"), 2);
    let left = store.records(&archive, 0, 9).await.expect("read");
    let seqs: Vec<Seq> = left.iter().map(|r| r.header.seq).collect();
    assert_eq!(seqs, [2, 4]);
    assert_eq!(store.delete_records(&archive, &[]).await.expect("none"), 0);
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
    assert_eq!(epoch(take(store, &archive, "b", LONG).await), 2);
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
    held(take(store, &archive, "c", LONG).await);
    assert_eq!(epoch(queue(store, &archive, "b", Otherwise::Wait).await), 2);
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

/// A lease that was ended from outside is lost to its holder, and free for the next.
pub async fn a_broken_lease_is_lost_to_its_holder(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("broken"));
    assert_eq!(store.break_lease(&archive).await.expect("none"), None);
    assert_eq!(epoch(take(store, &archive, "a", LONG).await), 1);
    held(queue(store, &archive, "b", Otherwise::Wait).await);
    let broken = store.break_lease(&archive).await.expect("end it");
    let broken = broken.expect("there was one");
    assert_eq!((&broken.instance, broken.epoch), (&instance("a"), 1));
    assert!(broken.remaining > LONG / 2);
    assert!(matches!(
        renew(store, &archive, "a", 1, LONG).await,
        Renewal::Lost(Some(_))
    ));
    assert_eq!(epoch(queue(store, &archive, "b", Otherwise::Wait).await), 2);
}

/// Who listens returns when somebody rings, and in any case after the time given.
pub async fn a_ring_is_heard(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("bell"));
    let short = Duration::from_millis(300);
    // The first time, the bell may have to be hung.
    store.listen(&archive, short).await.expect("listen");
    for _ in 0..3 {
        let begun = Instant::now();
        let listening = store.listen(&archive, LONG);
        let ringing = async {
            // Until somebody listens, a ring may go unheard: then another is.
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                store.ring(&archive).await.expect("ring");
            }
        };
        tokio::select! {
            heard = listening => heard.expect("listen"),
            () = ringing => unreachable!("it goes on"),
        }
        assert!(begun.elapsed() < LONG / 2, "it was not heard");
    }
    // A ring that was is not heard again.
    let begun = Instant::now();
    store.listen(&archive, short).await.expect("listen");
    assert!(begun.elapsed() >= short, "an old ring was heard");
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

/// Packs: put, put again, empty, large, listed, deleted.
pub async fn packs_come_back_as_they_were_put(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("packs"));
    // More than one piece wherever packs are cut, and no round number of them.
    let large: Bytes = (0..(20 << 20) + 17_u32)
        .map(|n| (n ^ (n >> 11)) as u8)
        .collect();
    let contents = [large, Bytes::new(), Bytes::from_static(b"small")];
    let ids = [(); 3].map(|()| PackId::generate());
    for (id, content) in ids.iter().zip(&contents) {
        for _ in 0..2 {
            let put = store.put_pack(&archive, *id, content.clone()).await;
            put.expect("put, and put again");
        }
        let got = store.pack(&archive, *id).await.expect("read");
        assert!(got == content, "pack of {} bytes", content.len());
        let pieces = store.pack_pieces(&archive, *id).await.expect("read");
        assert!(pieces.concat() == content[..], "in {} pieces", pieces.len());
    }
    let mut listed = store.packs(&archive).await.expect("list");
    listed.sort_by_key(|pack| pack.size);
    let sizes: Vec<(PackId, u64)> = listed.iter().map(|pack| (pack.id, pack.size)).collect();
    assert_eq!(
        sizes,
        [(ids[1], 0), (ids[2], 5), (ids[0], contents[0].len() as u64)]
    );
    for _ in 0..2 {
        let deleted = store.delete_pack(&archive, ids[0]).await;
        deleted.expect("deleted, or gone already");
    }
    assert!(matches!(
        store.pack(&archive, ids[0]).await,
        Err(StoreError::Missing { .. })
    ));
    assert!(matches!(
        store.pack_pieces(&archive, ids[0]).await,
        Err(StoreError::Missing { .. })
    ));
    store.warm_up(3).await;
    assert_eq!(store.packs(&archive).await.expect("list").len(), 2);
}

/// A pack that was cut off halfway is invisible, can be put again, and is swept by its age.
pub async fn half_a_pack_is_invisible_and_swept_by_age(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("halves"));
    let content = Bytes::from(vec![7; 5 << 20]);
    let (old, young) = (PackId::generate_at(1_000), PackId::generate_at(9_000));
    let again = PackId::generate_at(1_500);
    let mut pieces = 0;
    for id in [old, young, again] {
        pieces += u64::from(subject.leave_pieces(&archive, id).await);
        assert!(matches!(
            store.pack(&archive, id).await,
            Err(StoreError::Missing { .. })
        ));
    }
    assert_eq!(store.packs(&archive).await.expect("list"), []);
    let put = store.put_pack(&archive, again, content.clone()).await;
    put.expect("put over its own remains");
    assert!(store.pack(&archive, again).await.expect("read") == content);
    // Other tests may leave as old ones, so that only a lower bound is certain.
    let swept = store.sweep(5_000).await.expect("sweep");
    assert!(swept >= u64::from(pieces > 0));
    assert!(store.pack(&archive, again).await.expect("read") == content);
    let put = store.put_pack(&archive, young, content.clone()).await;
    put.expect("put what was too young to be swept");
    assert!(store.pack(&archive, young).await.expect("read") == content);
}

/// What an archive takes is counted in records and packs.
pub async fn usage_counts_what_is_stored(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("usage"));
    append(store, &record(&archive, 1, vec![0; 1000])).await;
    append(store, &record(&archive, 2, vec![0; 234])).await;
    let id = PackId::generate();
    let put = store.put_pack(&archive, id, Bytes::from(vec![1; 5000]));
    put.await.expect("put");
    let expected = Usage {
        commits: 2,
        commit_bytes: 1234,
        packs: 1,
        pack_bytes: 5000,
    };
    assert_eq!(store.usage(&archive).await.expect("usage"), expected);
}

/// Archives share a store and nothing else; also where one's name begins with the other's.
pub async fn archives_do_not_touch_each_other(subject: &dyn Subject) {
    let (store, one) = (subject.store(), archive("mine"));
    let other: ArchiveName = format!("{one}.b").parse().expect("a valid name");
    append(store, &record(&one, 1, *b"one")).await;
    append(store, &record(&other, 1, *b"other")).await;
    append(store, &record(&other, 2, *b"other")).await;
    let id = PackId::generate();
    let put = store
        .put_pack(&other, id, Bytes::from_static(b"pack"))
        .await;
    put.expect("put");
    assert_eq!(epoch(take(store, &other, "a", LONG).await), 1);

    let head = store.head(&one).await.expect("head").expect("a head");
    assert_eq!(head.seq, 1);
    assert_eq!(
        store.records(&one, 0, Seq::MAX).await.expect("read").len(),
        1
    );
    assert_eq!(store.packs(&one).await.expect("list"), []);
    assert!(matches!(
        store.pack(&one, id).await,
        Err(StoreError::Missing { .. })
    ));
    store.delete_pack(&one, id).await.expect("nothing there");
    assert!(store.pack(&other, id).await.is_ok());
    assert_eq!(store.lease(&one).await.expect("lease"), None);
    assert_eq!(store.delete_records(&one, &[1, 2]).await.expect("one"), 1);
    assert_eq!(
        store
            .records(&other, 0, Seq::MAX)
            .await
            .expect("read")
            .len(),
        2
    );
    let names = store.archives().await.expect("archives");
    assert!(names.is_sorted() && names.contains(&other) && !names.contains(&one));
}

/// A healthy store finds nothing wrong with itself and leaves nothing behind.
pub async fn examining_a_healthy_store_finds_nothing_wrong(subject: &dyn Subject) {
    let store = subject.store();
    store.ping().await.expect("it answers");
    store.prepare().await.expect("a second time");
    let findings = store.examine().await;
    assert!(!findings.is_empty());
    for finding in &findings {
        assert_ne!(finding.severity, Severity::Bad, "{finding:?}");
    }
    let names = store.archives().await.expect("archives");
    assert!(names.iter().all(|name| !name.as_str().contains("doctor")));
}
