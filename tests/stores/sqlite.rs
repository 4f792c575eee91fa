//! What goes wrong with a file.

use sessionkeep_archive::store::{CommitLog, Diagnostics, Packs};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use sessionkeep_archive::store::contract::{archive, record};
use sessionkeep_archive::store::{Appended, Severity, Store, StoreError};
use sessionkeep_core::record::PackId;
use sessionkeep_stores::SqliteStore;

use crate::TIMEOUT;

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, TIMEOUT)
}

#[tokio::test]
async fn a_path_that_cannot_be_is_unavailable_and_found_by_the_examination() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "x").expect("write");
    let store = open(&file.join("below/store.db"));
    let error = store.head(&archive("a")).await.expect_err("no such path");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    let findings = store.examine().await;
    assert_eq!(findings[0].severity, Severity::Bad);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_damaged_and_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notes.txt");
    let text = "these are my notes. ".repeat(100);
    std::fs::write(&path, &text).expect("write");
    let error = open(&path).prepare().await.expect_err("no database");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).expect("read"), text);
}

#[tokio::test]
async fn a_file_of_a_later_version_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store.db");
    open(&path).prepare().await.expect("prepare");
    let db = rusqlite::Connection::open(&path).expect("open");
    db.pragma_update(None, "user_version", 7).expect("change");
    let error = open(&path).ping().await.expect_err("unknown version");
    assert!(matches!(error, StoreError::Format { found: 7, .. }));
}

#[tokio::test]
async fn only_the_owner_may_look_into_what_is_created() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("new/store.db");
    let store = open(&path);
    let append = store.append(&record(&archive("a"), 1, *b"x")).await;
    assert_eq!(append.expect("append"), Appended::Done);
    let mode = |path: &Path| std::fs::metadata(path).expect("stat").permissions().mode() & 0o777;
    assert_eq!(mode(&directory.path().join("new")), 0o700);
    for name in ["store.db", "store.db-wal", "store.db-shm"] {
        assert_eq!(
            mode(&directory.path().join("new").join(name)),
            0o600,
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_file_locked_by_another_is_unavailable_at_the_deadline_and_works_again_after() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store.db");
    let timeout = Duration::from_millis(500);
    let store = SqliteStore::open(&path, timeout);
    store.prepare().await.expect("prepare");
    let one = record(&archive("a"), 1, *b"x");
    let other = rusqlite::Connection::open(&path).expect("open");
    other.execute_batch("BEGIN EXCLUSIVE").expect("lock");
    let begun = Instant::now();
    // Several wait for one connection: none may wait longer for that.
    for answer in join_all((0..4).map(|_| store.append(&one))).await {
        let error = answer.expect_err("locked");
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    }
    let took = begun.elapsed();
    assert!(
        took >= timeout && took < timeout + Duration::from_secs(1),
        "{took:?}"
    );
    other.execute_batch("ROLLBACK").expect("unlock");
    assert_eq!(store.append(&one).await.expect("append"), Appended::Done);
}

#[tokio::test]
async fn several_processes_may_create_the_file_at_once_and_share_the_fence() {
    for _ in 0..5 {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("store.db");
        let stores: Vec<SqliteStore> = (0..6).map(|_| open(&path)).collect();
        let archive = archive("race");
        let rivals: Vec<_> = (0..6).map(|n| record(&archive, 1, vec![n])).collect();
        let appends = stores.iter().zip(&rivals).map(|(s, r)| s.append(r));
        let answers = join_all(appends).await;
        let done = answers
            .into_iter()
            .filter(|answer| matches!(answer, Ok(Appended::Done)))
            .count();
        assert_eq!(done, 1);
        for store in &stores {
            let head = store.head(&archive).await.expect("head");
            assert_eq!(head.map(|head| head.seq), Some(1));
        }
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_happens_wholly_or_not_at_all() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(&directory.path().join("store.db"));
    store.prepare().await.expect("prepare");
    let archive = archive("dropped");
    for seq in 1..=30 {
        let one = record(&archive, seq, vec![0; 200_000]);
        let patience = Duration::from_micros(seq * 60);
        let _ = tokio::time::timeout(patience, store.append(&one)).await;
        assert_eq!(store.append(&one).await.expect("again"), Appended::Done);
    }
    assert_eq!(store.usage(&archive).await.expect("usage").commits, 30);
}

#[tokio::test]
async fn a_file_that_was_removed_while_open_is_noticed() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store.db");
    let (store, archive) = (open(&path), archive("gone"));
    let first = store.append(&record(&archive, 1, *b"x")).await;
    assert_eq!(first.expect("append"), Appended::Done);
    for name in ["store.db", "store.db-wal", "store.db-shm"] {
        std::fs::remove_file(directory.path().join(name)).expect("remove");
    }
    assert_eq!(store.head(&archive).await.expect("head"), None);
    // What it builds on went with the file.
    let second = store.append(&record(&archive, 2, *b"x")).await;
    assert_eq!(second.expect("append"), Appended::Orphan);
    let checkpoint = store.append(&record(&archive, 4, *b"x")).await;
    assert_eq!(checkpoint.expect("append"), Appended::Done);
    let head = open(&path).head(&archive).await.expect("head");
    assert_eq!(head.map(|head| head.seq), Some(4), "it is in the file");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_for_the_next_process() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store.db");
    let (store, one) = (open(&path), record(&archive("a"), 1, *b"x"));
    assert_eq!(store.append(&one).await.expect("append"), Appended::Done);
    // Not closed: as after a kill.
    std::mem::forget(store);
    let next = open(&path);
    let read = next.records(&one.header.archive, 1, 1).await.expect("read");
    assert_eq!(read, [one]);
}

#[tokio::test]
async fn deleted_space_is_given_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, archive) = (open(&directory.path().join("store.db")), archive("space"));
    let taken = || -> u64 {
        let entries = std::fs::read_dir(directory.path()).expect("list");
        let sizes = entries.map(|entry| entry.expect("entry").metadata().expect("stat").len());
        sizes.sum()
    };
    let id = PackId::generate();
    let content = Bytes::from(vec![3; 20 << 20]);
    store.put_pack(&archive, id, content).await.expect("put");
    assert!(taken() > 20 << 20);
    store.delete_pack(&archive, id).await.expect("delete");
    // The log itself is cut when it is next begun anew.
    let append = store.append(&record(&archive, 1, *b"x")).await;
    assert_eq!(append.expect("append"), Appended::Done);
    assert!(taken() < 6 << 20, "{} bytes are still taken", taken());
}

#[tokio::test]
async fn a_damaged_pack_is_not_returned() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store.db");
    let (store, archive, id) = (open(&path), archive("a"), PackId::generate());
    let put = store.put_pack(&archive, id, Bytes::from_static(b"content"));
    put.await.expect("put");
    let db = rusqlite::Connection::open(&path).expect("open");
    db.execute("UPDATE packs SET content = x'00'", [])
        .expect("damage");
    let error = store.pack(&archive, id).await.expect_err("damaged");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
}
