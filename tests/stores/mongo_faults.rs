//! MongoDB that goes away, hangs, loses answers, and comes back.

use sessionkeep_archive::store::{CommitLog, Diagnostics, Packs};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sessionkeep_archive::store::contract::{archive, record};
use sessionkeep_archive::store::{Appended, Store, StoreError};
use sessionkeep_core::record::{PackId, Record};
use sessionkeep_core::secret::Secret;
use sessionkeep_stores::MongoStore;

use crate::mongod::Mongod;
use crate::proxy::{Mode, Proxy};

const TIMEOUT: Duration = Duration::from_millis(1500);
/// What an operation may take beyond its deadline.
const SLACK: Duration = Duration::from_secs(1);

fn connect(url: &str) -> MongoStore {
    MongoStore::connect(&Secret::new(url), TIMEOUT, "tests").expect("a valid URL")
}

/// A store behind a proxy, and the same database without one.
async fn behind_a_proxy() -> (Proxy, MongoStore, MongoStore) {
    let mongod = Mongod::shared();
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], mongod.port()))).await;
    let url = mongod.new_database_url();
    let database = url.rsplit('/').next().expect("a path");
    let through = connect(&format!("mongodb://127.0.0.1:{}/{database}", proxy.port()));
    let direct = connect(&url);
    direct.prepare().await.expect("prepare");
    through.ping().await.expect("the proxy passes");
    (proxy, through, direct)
}

/// Appends until it is done, as a watcher would, and says how long that took.
async fn append_until_done(store: &MongoStore, record: &Record) -> Duration {
    let begun = Instant::now();
    loop {
        match store.append(record).await {
            Ok(Appended::Done) => return begun.elapsed(),
            Ok(taken) => panic!("{taken:?}"),
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "never came back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn where_nothing_listens_every_operation_is_unavailable_in_time() {
    let store = connect("mongodb://127.0.0.1:1/db");
    let archive = archive("a");
    let begun = Instant::now();
    let error = store.head(&archive).await.expect_err("nobody there");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(begun.elapsed() < TIMEOUT + SLACK, "{:?}", begun.elapsed());
    let reason = std::error::Error::source(&error)
        .expect("a cause")
        .to_string();
    assert!(reason.contains("refused"), "the reason is told: {reason}");
    let put = store.put_pack(&archive, PackId::generate(), Bytes::new());
    assert!(put.await.expect_err("nobody there").is_transient());
    store.close().await;
}

#[tokio::test]
async fn a_store_that_hangs_is_unavailable_at_the_deadline_and_found_again_at_once() {
    let (proxy, store, direct) = behind_a_proxy().await;
    let archive = archive("hang");
    for (n, mode) in [Mode::BlackHole, Mode::Delay(Duration::from_secs(5))]
        .into_iter()
        .enumerate()
    {
        proxy.set(mode);
        for _ in 0..2 {
            let begun = Instant::now();
            let error = store.head(&archive).await.expect_err("hangs");
            assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
            assert!(begun.elapsed() < TIMEOUT + SLACK, "{:?}", begun.elapsed());
        }
        proxy.set(Mode::Pass);
        let one = record(&archive, n as u64 + 1, *b"x");
        let took = append_until_done(&store, &one).await;
        assert!(took < Duration::from_secs(4), "{took:?} after {mode:?}");
    }
    assert_eq!(direct.usage(&archive).await.expect("usage").commits, 2);
}

#[tokio::test]
async fn an_append_whose_answer_was_lost_is_done_when_repeated() {
    let (proxy, store, direct) = behind_a_proxy().await;
    let archive = archive("answer");
    for seq in 1..=5 {
        let one = record(&archive, seq, vec![1; 3000]);
        proxy.set(Mode::CutAnswers);
        let error = store.append(&one).await.expect_err("no answer");
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        proxy.set(Mode::Pass);
        if seq == 1 {
            // The connection was open: the request arrived, and only the answer did not.
            let head = direct.head(&archive).await.expect("head");
            assert_eq!(head.map(|head| head.id), Some(one.header.id));
        }
        append_until_done(&store, &one).await;
        let read = direct.records(&archive, seq, seq).await.expect("read");
        assert_eq!(read, [one]);
    }
    // A rival who asks for the same number is told who has it.
    let rival = record(&archive, 5, *b"rival");
    let answer = store.append(&rival).await.expect("append");
    assert!(matches!(answer, Appended::Taken(_)));
}

#[tokio::test]
async fn a_call_that_is_dropped_happens_wholly_or_not_at_all() {
    let (proxy, store, direct) = behind_a_proxy().await;
    let archive = archive("dropped");
    proxy.set(Mode::Delay(Duration::from_millis(10)));
    for seq in 1..=12 {
        let one = record(&archive, seq, vec![2; 50_000]);
        let patience = Duration::from_millis(seq * 6);
        let _ = tokio::time::timeout(patience, store.append(&one)).await;
        append_until_done(&store, &one).await;
    }
    assert_eq!(direct.usage(&archive).await.expect("usage").commits, 12);
    let records = direct.records(&archive, 1, 12).await.expect("read");
    assert_eq!(records.len(), 12);
}

#[tokio::test]
async fn a_pack_whose_put_was_dropped_is_absent_or_whole_and_can_be_put_again() {
    let (proxy, store, direct) = behind_a_proxy().await;
    let archive = archive("half");
    let content: Bytes = (0..(5 << 20) + 1_u32).map(|n| (n >> 3) as u8).collect();
    proxy.set(Mode::Bandwidth(80 << 20));
    let mut cut = 0;
    for n in 1..=8 {
        let id = PackId::generate();
        let put = store.put_pack(&archive, id, content.clone());
        cut += u32::from(
            tokio::time::timeout(Duration::from_millis(n * 20), put)
                .await
                .is_err(),
        );
        match direct.pack(&archive, id).await {
            Ok(got) => assert!(got == content),
            Err(error) => assert!(matches!(error, StoreError::Missing { .. }), "{error:?}"),
        }
        let put = direct.put_pack(&archive, id, content.clone()).await;
        put.expect("put again");
        assert!(direct.pack(&archive, id).await.expect("read") == content);
    }
    assert!(cut > 0, "no put was cut off: the test tests nothing");
}

#[tokio::test]
async fn content_passes_a_link_that_takes_longer_than_one_deadline() {
    let (proxy, store, _direct) = behind_a_proxy().await;
    let archive = archive("slow-link");
    // 2 MiB, which are asked for at once, take 2 s of the connection.
    proxy.set(Mode::Bandwidth(1 << 20));
    let id = PackId::generate();
    let content = Bytes::from(vec![3; 3 << 20]);
    let begun = Instant::now();
    let put = store.put_pack(&archive, id, content.clone()).await;
    put.expect("put");
    assert!(store.pack(&archive, id).await.expect("read") == content);
    assert!(
        begun.elapsed() > TIMEOUT,
        "the link was not slow enough to prove anything"
    );
}

#[tokio::test]
async fn opening_connections_ahead_waits_for_nobody_and_keeps_none() {
    let (proxy, store, direct) = behind_a_proxy().await;
    let archive = archive("ahead");
    proxy.set(Mode::BlackHole);
    let begun = Instant::now();
    store.warm_up(64).await;
    assert!(begun.elapsed() < TIMEOUT, "{:?}", begun.elapsed());
    proxy.set(Mode::Pass);
    // More at a time than there are connections: each must come free again.
    let requests = (0..20).map(|_| store.last_seq(&archive));
    let took = append_until_done(&store, &record(&archive, 1, *b"x")).await;
    assert!(took < Duration::from_secs(4), "{took:?}");
    for answer in futures_util::future::join_all(requests).await {
        assert_eq!(answer.expect("answers"), Some(1));
    }
    assert_eq!(direct.last_seq(&archive).await.expect("answers"), Some(1));
}

#[tokio::test]
async fn a_killed_mongod_loses_nothing_that_was_acknowledged() {
    let mongod = Mongod::start();
    let store = connect(&mongod.url("wa"));
    store.prepare().await.expect("prepare");
    let archive = archive("killed");
    let mut next = 1;
    for _ in 0..3 {
        for _ in 0..20 {
            append_until_done(&store, &record(&archive, next, vec![4; 2000])).await;
            next += 1;
        }
        mongod.kill();
        let begun = Instant::now();
        let error = store.ping().await.expect_err("it is dead");
        assert!(error.is_transient(), "{error:?}");
        assert!(begun.elapsed() < TIMEOUT + SLACK);
        mongod.start_again();
        let head = append_until_done(&store, &record(&archive, next, *b"back")).await;
        assert!(head < Duration::from_secs(3), "noticed after {head:?}");
        next += 1;
        let all = store.headers(&archive, 1, 1000, 1000).await.expect("list");
        assert_eq!(all.len() as u64, next - 1);
    }
}

#[tokio::test]
async fn a_mongod_that_is_stopped_in_order_is_unavailable_and_not_a_refusal() {
    let mongod = Arc::new(Mongod::start());
    let store = connect(&mongod.url("wa"));
    let archive = archive("stopped");
    append_until_done(&store, &record(&archive, 1, *b"x")).await;
    // Appends meet the shutdown at every stage of it.
    let next = record(&archive, 2, *b"y");
    let (stopped, ()) = tokio::join!(
        async {
            loop {
                match store.append(&next).await {
                    Ok(done) => assert_eq!(done, Appended::Done),
                    Err(error) => break error,
                }
            }
        },
        async {
            let mongod = Arc::clone(&mongod);
            let stop = tokio::task::spawn_blocking(move || mongod.stop());
            stop.await.expect("it stops");
        }
    );
    assert!(stopped.is_transient(), "{stopped:?}");
    mongod.start_again();
    append_until_done(&store, &next).await;
}
