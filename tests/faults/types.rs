//! Values of other types in what a store keeps, met by the whole program: every command ends in an
//! orderly way and says what is damaged, and after `lease --break` a start succeeds.
//!
//! Every type in every field is tried by `tests/stores/types.rs`; here each field gets some of them.

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Document, Timestamp, doc};

use super::archive_at_rest::{
    Verdict, assert_orderly, boot, discard, gateway_ran, in_mongo, in_sqlite,
};
use super::campaign::chance;
use super::keeper::{Tree, World};
use super::raw::{on_mongo, on_sqlite};

/// What a lease holds, by its fields in MongoDB.
const LEASE: [&str; 14] = [
    "format",
    "instance",
    "epoch",
    "since",
    "expires",
    "now",
    "waiting",
    "waiting.0",
    "waiting.0.seen",
    "waiting.0.since",
    "waiting.0.instance",
    "waiting.0.asks",
    "term",
    "term.ttl",
];

fn types() -> Vec<Bson> {
    vec![
        "x".into(),
        Bson::Double(0.5),
        doc! { "a": 1 }.into(),
        Bson::Array(vec!["x".into()]),
        ObjectId::new().into(),
        true.into(),
        Bson::Null,
        DateTime::MAX.into(),
        DateTime::from_millis(-1).into(),
        Bson::Int32(-1),
        Bson::Int64(i64::MIN),
        Bson::MinKey,
        Bson::Timestamp(Timestamp {
            time: 1,
            increment: 1,
        }),
    ]
}

/// All that looks at a store. What fails says why.
#[track_caller]
fn look_with_every_command(world: &World, what: &str) -> String {
    let mut told = String::new();
    for command in [
        &["lease"][..],
        &["lease", "--json"],
        &["status"],
        &["status", "--json"],
        &["doctor"],
        &["log"],
    ] {
        let output = world.command(command);
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        let text = String::from_utf8_lossy(&text);
        let code = output.status.code().unwrap_or(-1);
        assert_orderly(code, &format!("{what}: {command:?}: {text}"));
        assert!(!text.trim().is_empty(), "{what}: {command:?} says nothing");
        told.push_str(&text);
    }
    let verdict = Verdict::of_head(world);
    assert_orderly(verdict.code, &format!("{what}: {}", verdict.told));
    told
}

/// A start, with `lease --break` before it where it is refused for a damaged lease.
#[track_caller]
fn assert_cured(world: &World, head: &Tree, what: &str) {
    let told = look_with_every_command(world, what);
    let mut ended = boot(world);
    if ended.code != 0 {
        assert_eq!(ended.code, 78, "{what}: {}", ended.log);
        assert!(!gateway_ran(world), "{what}: {}", ended.log);
        for text in [&ended.log, &told] {
            assert!(
                text.contains("the lease of archive default is damaged"),
                "{what}: {text}"
            );
            assert!(text.contains("lease --break"), "{what}: {text}");
        }
        let broken = world.command(&["lease", "--break"]);
        assert!(broken.status.success(), "{what}: {broken:?}");
        ended = boot(world);
    }
    assert_eq!(ended.code, 0, "{what}: {}", ended.log);
    assert!(gateway_ran(world), "{what}: {}", ended.log);
    assert_eq!(Tree::of(&world.dir()), *head, "{what}");
}

#[test]
fn a_lease_with_a_value_of_another_type_never_keeps_a_session_for_ever() {
    let archive = in_mongo();
    let head = &archive.trees[&archive.head()];
    let mut chance = chance("types of a lease");
    let types = types();
    for field in LEASE {
        let value = &types[chance.usize(..types.len())];
        let what = format!("{field} = {value:?}");
        let world = archive.copy();
        on_mongo(&world.url, async |database| {
            let leases = database.collection::<Document>("leases");
            let then = DateTime::from_millis(DateTime::now().timestamp_millis() - 3_600_000);
            let dead = doc! { "instance": "dead", "since": then, "seen": then, "asks": 1_i64 };
            let own = doc! { "_id": "default" };
            let set = doc! { "$set": { "waiting": [dead], "expires": DateTime::from_millis(0) } };
            leases.update_one(own.clone(), set).await.expect("update");
            let set = doc! { "$set": { field: value } };
            let done = leases.update_one(own, set).await.expect("update");
            assert_eq!(done.matched_count, 1);
        });
        assert_cured(&world, head, &what);
        discard(world);
    }
}

#[test]
fn a_lease_in_a_file_with_a_value_of_another_class_never_keeps_a_session_for_ever() {
    let archive = in_sqlite();
    let head = &archive.trees[&archive.head()];
    for (table, column, value) in [
        ("leases", "instance", "x'ff'"),
        ("leases", "instance", "''"),
        ("leases", "epoch", "9223372036854775807"),
        ("leases", "epoch", "x'ff'"),
        ("leases", "expires_ms", "'x'"),
        ("leases", "expires_ms", "9223372036854775807"),
        ("leases", "since_ms", "-1.5"),
        ("lease_queues", "places", "'[7]'"),
        ("lease_queues", "places", "x'ff'"),
        ("lease_terms", "ttl_ms", "'x'"),
        ("lease_terms", "written_ms", "9223372036854775807"),
        ("lease_terms", "set_back_by_ms", "'x'"),
    ] {
        let what = format!("{table}.{column} = {value}");
        let world = archive.copy();
        on_sqlite(&world, |store| {
            let fill = "INSERT OR REPLACE INTO lease_queues VALUES ('default', '[]')";
            store.execute(fill, []).expect("insert");
            let sql = format!("UPDATE {table} SET {column} = {value}");
            assert_eq!(store.execute(&sql, []).expect("update"), 1, "{what}");
        });
        assert_cured(&world, head, &what);
        discard(world);
    }
}

#[test]
fn commits_and_packs_with_values_of_another_type_end_no_command() {
    let archive = in_mongo();
    let mut chance = chance("types of commits");
    let types = types();
    for (collection, fields) in [
        ("commits", &["time", "packs", "size", "body"][..]),
        ("packs.files", &["length", "metadata", "uploadDate"]),
        ("packs.chunks", &["n", "data", "files_id"]),
    ] {
        for field in fields {
            let value = &types[chance.usize(..types.len())];
            let what = format!("{collection}.{field} = {value:?}");
            let world = archive.copy();
            on_mongo(&world.url, async |database| {
                let documents = database.collection::<Document>(collection);
                let newest = documents.find_one(doc! {}).sort(doc! { "_id": -1 });
                let newest = newest.await.expect("find").expect("one");
                let own = doc! { "_id": newest.get("_id").cloned() };
                let set = doc! { "$set": { *field: value } };
                let done = documents.update_one(own, set).await.expect("update");
                assert_eq!(done.matched_count, 1);
            });
            look_with_every_command(&world, &what);
            let ended = boot(&world);
            assert_eq!(ended.code, 0, "{what}: {}", ended.log);
            assert!(gateway_ran(&world), "{what}: {}", ended.log);
            discard(world);
        }
    }
}
