//! Somebody else writes to the store: any field of any document, and any column of any row, of any
//! type. It is read as damage that is named, or passed over; nothing fails for ever, and a lease is
//! free again once it was ended.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Decimal128, Document, Regex, Timestamp, doc};
use rusqlite::types::Value;
use sessionkeep_archive::store::contract::{Subject, archive, instance, record};
use sessionkeep_archive::store::{
    Appended, Broken, LeaseClaim, LeaseOutcome, Otherwise, Renewal, Store, StoreError, WAITER_TTL,
};
use sessionkeep_core::record::{ArchiveName, PackId, Seq};

use crate::{InMongo, InSqlite, in_mongo, in_sqlite};

const TTL: Duration = Duration::from_secs(600);
const COMMITS: u64 = 3;

/// A value of every type that can be written, and none at all.
fn every_type() -> Vec<Option<Bson>> {
    let regex = Regex {
        pattern: "x".try_into().expect("a pattern"),
        options: "".try_into().expect("no options"),
    };
    let binary = Binary {
        subtype: BinarySubtype::Generic,
        bytes: vec![0xff; 3],
    };
    let number = Decimal128::from_bytes([1; 16]);
    let values = [
        Bson::Double(1.5),
        Bson::Double(f64::NAN),
        "x".into(),
        "".into(),
        doc! {}.into(),
        doc! { "epoch": "x", "seen": 1, "$odd": [1] }.into(),
        Bson::Array(vec![]),
        Bson::Array(vec![1.into(), "x".into(), doc! {}.into()]),
        binary.into(),
        ObjectId::new().into(),
        true.into(),
        DateTime::from_millis(1).into(),
        DateTime::from_millis(-1).into(),
        DateTime::MAX.into(),
        DateTime::MIN.into(),
        Bson::Null,
        Bson::RegularExpression(regex),
        Bson::JavaScriptCode("x".into()),
        Bson::Symbol("x".into()),
        Bson::Int32(7),
        Bson::Int32(-1),
        Bson::Int64(i64::MAX),
        Bson::Int64(i64::MIN),
        Bson::Timestamp(Timestamp {
            time: 7,
            increment: 7,
        }),
        Bson::Decimal128(number),
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Undefined,
    ];
    values.into_iter().map(Some).chain([None]).collect()
}

/// A value of every storage class of SQLite.
fn every_class() -> [Value; 8] {
    [
        Value::Null,
        Value::Integer(-1),
        Value::Integer(7),
        Value::Integer(i64::MAX),
        Value::Real(1.5),
        Value::Text("x".to_owned()),
        Value::Text(String::new()),
        Value::Blob(vec![0xff; 3]),
    ]
}

/// Errors that say what is wrong with what was stored.
#[track_caller]
fn named<T>(what: &str, result: Result<T, StoreError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(
            StoreError::Damaged { .. } | StoreError::Missing { .. } | StoreError::Format { .. },
        ) => None,
        Err(error) => panic!("{what}: {error:?}"),
    }
}

fn claim(name: &str) -> LeaseClaim {
    LeaseClaim {
        instance: instance(name),
        predecessor: None,
        floor: 3,
        ttl: TTL,
        lapsed: None,
        otherwise: Otherwise::Ask(1),
    }
}

/// A lease that is held, and waited for by two.
async fn take(store: &dyn Store, archive: &ArchiveName) -> u64 {
    let Ok(LeaseOutcome::Granted { epoch }) = store.take_lease(archive, &claim("owner")).await
    else {
        panic!("nobody has it");
    };
    for name in ["first", "second"] {
        let held = store.take_lease(archive, &claim(name)).await;
        assert!(matches!(held, Ok(LeaseOutcome::Held(_))));
    }
    epoch
}

/// Everything that is done with a lease, one after the other, where `what` was done to it.
async fn use_lease(store: &dyn Store, archive: &ArchiveName, epoch: u64, what: &str) {
    let seen = store.lease(archive).await;
    let is_later = matches!(seen, Err(StoreError::Format { .. }));
    let owner = instance("owner");
    named(what, seen);
    for otherwise in [Otherwise::Leave, Otherwise::Wait, Otherwise::Ask(epoch)] {
        let claim = LeaseClaim {
            otherwise,
            ..claim("other")
        };
        named(what, store.take_lease(archive, &claim).await);
    }
    let renewed = named(what, store.renew_lease(archive, &owner, epoch, TTL).await);
    if matches!(renewed, Some(Renewal::Renewed(_))) {
        // The holder has put right what it knows.
        let lease = store.lease(archive).await;
        let lease = lease.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let lease = lease.expect("one");
        assert_eq!((&lease.instance, lease.epoch), (&owner, epoch), "{what}");
        assert!(!lease.queue_damaged, "{what}");
    }
    named(what, store.release_lease(archive, &owner, epoch).await);
    match store.break_lease(archive).await {
        Ok(Broken::Absent) => panic!("{what}: it is gone"),
        Ok(Broken::Replaced(error)) => {
            let told = error.to_string();
            assert!(
                matches!(error, StoreError::Damaged { .. }),
                "{what}: {told}"
            );
        }
        Ok(Broken::Ended(_)) => {}
        Err(StoreError::Format { .. }) if is_later => return,
        Err(error) => panic!("{what}: {error:?}"),
    }
    let granted = store.take_lease(archive, &claim("next")).await;
    assert!(
        matches!(granted, Ok(LeaseOutcome::Granted { epoch }) if epoch > 3),
        "{what}: {granted:?}"
    );
}

/// Everything that reads what is archived, where `what` was done to it.
async fn read_all(store: &dyn Store, archive: &ArchiveName, pack: PackId, what: &str) {
    named(what, store.head(archive).await);
    named(what, store.last_seq(archive).await);
    named(what, store.headers(archive, 0, Seq::MAX, 100).await);
    named(what, store.records(archive, 0, Seq::MAX).await);
    named(what, store.usage(archive).await);
    named(what, store.archives().await);
    named(what, store.packs(archive).await);
    named(what, store.pack(archive, pack).await);
    // Nothing is old enough to go.
    named(what, store.sweep(1).await);
    for seq in 1..=COMMITS {
        named(what, store.append(&record(archive, seq, *b"rival")).await);
    }
}

async fn fill(store: &dyn Store, archive: &ArchiveName) -> PackId {
    for seq in 1..=COMMITS {
        let appended = store.append(&record(archive, seq, *b"body")).await;
        assert_eq!(appended.expect("append"), Appended::Done);
    }
    let id = PackId::generate();
    let put = store.put_pack(archive, id, Bytes::from(vec![7; 700 << 10]));
    put.await.expect("put");
    let marked = store
        .mark_unused(archive, &[id], Some(1_800_000_000_000))
        .await;
    marked.expect("mark");
    id
}

/// The document that is looked for, with all its fields by their paths.
fn paths(document: &Document, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, value) in document {
        if name == "_id" {
            continue;
        }
        let path = format!("{prefix}{name}");
        match value {
            Bson::Document(inner) => found.extend(paths(inner, &format!("{path}."))),
            Bson::Array(items) if items.first().is_some_and(|i| i.as_document().is_some()) => {
                let first = items[0].as_document().expect("checked");
                found.push(format!("{path}.0"));
                found.extend(paths(first, &format!("{path}.0.")));
            }
            _ => {}
        }
        found.push(path);
    }
    found
}

/// Writes a value of each type into each field of the document, and puts the document back after that.
async fn each_damage(
    subject: &InMongo,
    collection: &str,
    which: Document,
    mut check: impl AsyncFnMut(&str),
) {
    let documents = subject.collection(collection).await;
    let whole = documents.find_one(which).await.expect("find");
    let whole = whole.expect("it is there");
    let own = doc! { "_id": whole.get("_id").cloned() };
    let fields = paths(&whole, "");
    assert!(fields.len() >= 3, "{fields:?}");
    for field in &fields {
        for value in every_type() {
            let what = format!("{collection}.{field} = {value:?}");
            let change = match value {
                Some(value) => doc! { "$set": { field: value } },
                None => doc! { "$unset": { field: "" } },
            };
            let done = documents.update_one(own.clone(), change).await;
            done.unwrap_or_else(|error| panic!("{what}: {error}"));
            check(&what).await;
            let back = documents.replace_one(own.clone(), &whole).upsert(true);
            back.await.expect("put it back");
        }
    }
}

#[tokio::test]
async fn any_type_in_any_field_of_a_lease_is_named_or_passed_over_and_cured() {
    let subject = in_mongo().await;
    let archive = archive("types");
    let epoch = take(subject.store(), &archive).await;
    // As it is once a clock was set back.
    let leases = subject.collection("leases").await;
    let own = doc! { "_id": archive.as_str() };
    let note = doc! { "found": DateTime::now(), "by": 5000_i64 };
    let set = doc! { "$set": { "set_back": note } };
    leases.update_one(own.clone(), set).await.expect("update");
    each_damage(&subject, "leases", own, async |what| {
        use_lease(subject.store(), &archive, epoch, what).await;
    })
    .await;
}

#[tokio::test]
async fn a_released_lease_is_granted_whatever_is_in_its_queue() {
    let subject = in_mongo().await;
    let archive = archive("types-queue");
    let epoch = take(subject.store(), &archive).await;
    let store = subject.store();
    let owner = instance("owner");
    let released = store.release_lease(&archive, &owner, epoch).await;
    released.expect("release");
    // The two who wait are dead.
    tokio::time::sleep(WAITER_TTL + Duration::from_millis(100)).await;
    let own = doc! { "_id": archive.as_str() };
    each_damage(&subject, "leases", own, async |what| {
        if what.starts_with("leases.waiting") || what.starts_with("leases.term") {
            let granted = store.take_lease(&archive, &claim("next")).await;
            assert!(
                matches!(granted, Ok(LeaseOutcome::Granted { .. })),
                "{what}: {granted:?}"
            );
            let lease = store.lease(&archive).await.expect("lease").expect("one");
            assert_eq!(lease.waiting, [], "{what}");
        }
    })
    .await;
}

#[tokio::test]
async fn any_type_in_any_field_of_commits_and_packs_is_named_or_passed_over() {
    let subject = in_mongo().await;
    let archive = archive("types");
    let pack = fill(subject.store(), &archive).await;
    let middle = doc! { "_id": { "a": archive.as_str(), "s": 2_i64 } };
    for (collection, which) in [
        ("commits", middle),
        ("packs.files", doc! {}),
        ("packs.chunks", doc! { "n": 1 }),
    ] {
        each_damage(&subject, collection, which, async |what| {
            read_all(subject.store(), &archive, pack, what).await;
        })
        .await;
    }
    let head = subject.store().head(&archive).await.expect("head");
    assert_eq!(
        head.map(|head| head.seq),
        Some(COMMITS),
        "nothing was added"
    );
}

#[tokio::test]
async fn any_type_in_a_notice_is_passed_over() {
    let subject = in_mongo().await;
    let archive = archive("types-notice");
    let short = Duration::from_millis(20);
    subject
        .store()
        .wait_for_notice(&archive, short)
        .await
        .expect("make it");
    let notices = subject.collection("bells").await;
    for value in every_type().into_iter().flatten() {
        let notice = doc! { "a": archive.as_str(), "at": value.clone() };
        notices.insert_one(notice).await.expect("insert");
        notices
            .insert_one(doc! { "a": value })
            .await
            .expect("insert");
        subject.store().notify(&archive).await.expect("notify");
        let waited = subject.store().wait_for_notice(&archive, short).await;
        waited.expect("wait");
    }
}

/// The columns of a table that are no part of its key.
fn columns(db: &rusqlite::Connection, table: &str) -> Vec<String> {
    let sql = "SELECT name FROM pragma_table_info(?1) WHERE pk = 0";
    let mut query = db.prepare(sql).expect("prepare");
    let names = query.query_map([table], |row| row.get(0)).expect("query");
    names.map(|name| name.expect("a name")).collect()
}

const TABLES: [&str; 6] = [
    "leases",
    "lease_queues",
    "lease_terms",
    "commits",
    "packs",
    "unused_packs",
];

/// Writes a value of each storage class into each column of the row that `which` names, and puts the
/// file back after that.
async fn each_class(
    subject: &InSqlite,
    table: &str,
    which: &str,
    mut check: impl AsyncFnMut(&str),
) {
    let path = subject.directory.path().join("store.db");
    let db = rusqlite::Connection::open(path).expect("open");
    let all = |sql: &str| TABLES.map(|table| sql.replace('#', table)).concat();
    let keep = all("CREATE TEMP TABLE kept_# AS SELECT * FROM main.#;");
    db.execute_batch(&keep).expect("keep");
    let put_back = all("DELETE FROM main.#; INSERT INTO main.# SELECT * FROM temp.kept_#;");
    let put_back = format!("BEGIN; {put_back} COMMIT;");
    for column in columns(&db, table) {
        for value in every_class() {
            let what = format!("{table}.{column} = {value:?}");
            let sql = format!("UPDATE {table} SET {column} = ?1 WHERE {which}");
            match db.execute(&sql, [value]) {
                Ok(changed) => assert_eq!(changed, 1, "{what}"),
                // Nobody can write that.
                Err(_) => continue,
            }
            check(&what).await;
            db.execute_batch(&put_back).expect("put it back");
        }
    }
}

#[tokio::test]
async fn any_class_in_any_column_of_a_lease_is_named_or_passed_over_and_cured() {
    for table in ["leases", "lease_queues", "lease_terms"] {
        let subject = in_sqlite().await;
        let archive = archive("classes");
        let epoch = take(subject.store(), &archive).await;
        each_class(&subject, table, "1", async |what| {
            use_lease(subject.store(), &archive, epoch, what).await;
        })
        .await;
    }
}

#[tokio::test]
async fn any_class_in_any_column_of_commits_and_packs_is_named_or_passed_over() {
    let subject = in_sqlite().await;
    let archive = archive("classes");
    let store = subject.store();
    let pack = fill(store, &archive).await;
    for (table, which) in [
        ("commits", "seq = 2"),
        ("packs", "1"),
        ("unused_packs", "1"),
    ] {
        each_class(&subject, table, which, async |what| {
            read_all(store, &archive, pack, what).await;
        })
        .await;
    }
    let head = store.head(&archive).await.expect("head");
    assert_eq!(
        head.map(|head| head.seq),
        Some(COMMITS),
        "nothing was added"
    );
}

/// Somewhat later than now: a time of another year is no damage, and keeps nobody out.
#[tokio::test]
async fn times_of_another_year_keep_nobody_out() {
    let subject = in_mongo().await;
    let archive = archive("years");
    let store = subject.store();
    let epoch = take(store, &archive).await;
    let year = DateTime::from_system_time(SystemTime::now() + Duration::from_secs(366 * 86_400));
    let set = doc! { "$set": {
        "since": year, "expires": year, "now": year,
        "waiting.$[].seen": year, "waiting.$[].since": year,
    } };
    let leases = subject.collection("leases").await;
    let own = doc! { "_id": archive.as_str() };
    leases.update_one(own, set).await.expect("update");
    let lease = store.lease(&archive).await.expect("lease").expect("one");
    assert!(lease.remaining <= TTL && lease.waiting.is_empty());
    assert!(lease.since_ms <= lease.now_ms && lease.set_back.is_some());
    let owner = instance("owner");
    let released = store.release_lease(&archive, &owner, epoch).await;
    released.expect("release");
    let granted = store.take_lease(&archive, &claim("next")).await;
    assert!(matches!(granted, Ok(LeaseOutcome::Granted { .. })));
}
