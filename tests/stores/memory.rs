//! The faults that other tests switch on must be the ones a real store has.

use sessionkeep_archive::store::{CommitLog, Diagnostics};
use std::time::{Duration, Instant};

use sessionkeep_archive::store::contract::{archive, record};
use sessionkeep_archive::store::{Appended, Faults, MemoryStore, StoreError};

#[tokio::test]
async fn an_unavailable_store_does_nothing() {
    let (store, archive) = (MemoryStore::new(), archive("a"));
    for (faults, transient) in [(Faults::Unavailable, true), (Faults::Denied, false)] {
        store.set_faults(faults);
        let error = store.append(&record(&archive, 1, *b"x")).await;
        assert_eq!(error.expect_err("faulty").is_transient(), transient);
    }
    store.set_faults(Faults::None);
    assert_eq!(store.head(&archive).await.expect("head"), None);
}

#[tokio::test]
async fn a_lost_answer_leaves_the_deed_done() {
    let (store, archive) = (MemoryStore::new(), archive("a"));
    let one = record(&archive, 1, *b"x");
    store.set_faults(Faults::AnswerLost);
    let lost = store.append(&one).await;
    assert!(matches!(lost, Err(StoreError::Unavailable { .. })));
    store.set_faults(Faults::None);
    assert_eq!(store.append(&one).await.expect("append"), Appended::Done);
    assert_eq!(store.usage(&archive).await.expect("usage").commits, 1);
}

#[tokio::test]
async fn a_slow_store_is_unavailable_at_its_deadline() {
    let timeout = Duration::from_millis(200);
    let store = MemoryStore::with_timeout(timeout);
    store.set_faults(Faults::Slow(Duration::from_secs(60)));
    let begun = Instant::now();
    assert!(store.ping().await.expect_err("slow").is_transient());
    assert!(begun.elapsed() >= timeout && begun.elapsed() < Duration::from_secs(20));
    store.set_faults(Faults::Slow(timeout / 2));
    store.ping().await.expect("slow, but in time");
}
