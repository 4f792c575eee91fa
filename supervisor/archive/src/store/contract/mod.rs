//! The contract of [`Store`], as a suite that runs against any of them. `tests/stores.rs` runs it
//! against all three; whoever writes a fourth adds it there.
//!
//! Every function is one sentence about behaviour and panics where it does not hold. Each uses
//! archives of its own, so that they can share a store and run at the same time.

mod clocks;
mod commits;
mod leases;
mod packs;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use self::clocks::*;
pub use self::commits::*;
pub use self::leases::*;
use self::leases::{LONG, epoch, take};
pub use self::packs::*;
use super::{Appended, Severity, Store, StoreError, Usage};
use sessionkeep_core::entry::Digest;
use sessionkeep_core::record::{
    ArchiveName, CommitId, FORMAT, Header, InstanceId, PackId, Record, RecordKind, Seq,
};

/// A store under test: what the suite needs beside the trait.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The store.
    fn store(&self) -> &dyn Store;

    /// Lets `span` pass by the store's clock.
    async fn let_pass(&self, span: Duration);

    /// Makes the store say of what is kept of this archive's lease that its clock was set by so many
    /// milliseconds since: forward, or back.
    async fn set_clock(&self, archive: &ArchiveName, by_ms: i64);

    /// Leaves of the lease what a version left that did not say for how long at a time it held it.
    /// `false` where nothing of that kind can be.
    async fn forget_term(&self, archive: &ArchiveName) -> bool;

    /// Makes a stored record unreadable, behind the store's back.
    async fn damage(&self, archive: &ArchiveName, seq: Seq);

    /// Makes the lease unreadable but for its epoch, behind the store's back. `false` where there is
    /// nothing that could be unreadable.
    async fn damage_lease(&self, archive: &ArchiveName) -> bool;

    /// Leaves what a [`Packs::put_pack`](super::Packs::put_pack) leaves that was cut off halfway. `false` where the store
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
