//! What holds of commits, and of the fence.

use futures_util::future::join_all;

use super::{Subject, append, archive, record};
use crate::store::{Appended, StoreError, Usage};
use sessionkeep_core::entry::Digest;
use sessionkeep_core::record::{ArchiveName, Header, Record, RecordKind, Seq};

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
                Appended::Orphan => panic!("number {seq}: the one before it is there"),
            }
        }
        assert_eq!(won.len(), 1, "number {seq}");
        assert!(named.iter().all(|id| *id == won[0]), "number {seq}");
    }
}

fn of_kind(kind: RecordKind, archive: &ArchiveName, seq: Seq) -> Record {
    let mut record = record(archive, seq, *b"x");
    record.header.kind = kind;
    record.header.digest = record.header.seal();
    record
}

/// A checkpoint needs nothing before it, and may leave numbers out.
pub async fn checkpoints_may_leave_gaps(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("gaps"));
    for seq in [3, 900, 17] {
        append(store, &of_kind(RecordKind::Checkpoint, &archive, seq)).await;
    }
    let got = store.records(&archive, 1, 1000).await.expect("read");
    let seqs: Vec<Seq> = got.iter().map(|r| r.header.seq).collect();
    assert_eq!(seqs, [3, 17, 900]);
    let head = store.head(&archive).await.expect("head").expect("a head");
    assert_eq!(head.seq, 900);
    let numbers = store.numbers(&archive, 4, Seq::MAX).await;
    assert_eq!(numbers.expect("list"), [17, 900]);
    let none = store.numbers(&archive, 901, 17).await.expect("none");
    assert!(none.is_empty(), "{none:?}");
}

/// What builds on a record that is gone is not stored by a store that can tell; the fence comes first
/// all the same.
pub async fn an_orphan_is_refused_or_stored_and_never_taken_for_fenced(subject: &dyn Subject) {
    let (store, archive) = (subject.store(), archive("orphan"));
    for seq in 1..=4 {
        append(store, &record(&archive, seq, *b"x")).await;
    }
    let gone = store.delete_records(&archive, &[2, 4]).await;
    assert_eq!(gone.expect("delete"), 2);
    for kind in [RecordKind::Change, RecordKind::Barrier] {
        let orphan = of_kind(kind, &archive, 5);
        // As often as it is asked for: one that was refused has left nothing.
        for _ in 0..2 {
            match store.append(&orphan).await.expect("append") {
                Appended::Orphan => {
                    let head = store.last_seq(&archive).await.expect("answers");
                    assert_eq!(head, Some(3));
                }
                Appended::Done => {
                    let numbers = store.numbers(&archive, 1, 9).await.expect("list");
                    assert_eq!(numbers, [1, 3, 5], "the gap can be seen");
                }
                Appended::Taken(by) => panic!("nobody took it: {by:?}"),
            }
        }
        let gone = store.delete_records(&archive, &[5]).await;
        assert!(gone.expect("delete") <= 1);
    }
    // The number before it is not there, and its own is another's.
    let rival = of_kind(RecordKind::Change, &archive, 3);
    let answer = store.append(&rival).await.expect("append");
    assert!(matches!(answer, Appended::Taken(_)), "{answer:?}");
    append(store, &of_kind(RecordKind::Checkpoint, &archive, 5)).await;
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
