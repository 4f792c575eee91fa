//! What somebody else put among what we keep, and files that are no store any more: none of it is
//! taken for a commit, and what is not in the way does no harm.

use std::fs;
use std::time::{Duration, SystemTime};

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Document, doc};

use super::archive_at_rest::{
    Archive, Restored, Verdict, assert_orderly, boot, discard, gateway_ran, in_mongo, in_sqlite,
};
use super::damage::{assert_passed_over, commit};
use super::keeper::{Tree, World};
use super::raw::{damage_commit, on_mongo, on_sqlite};
use super::tamper::{PackDamage, damage_pack, is_mongo, newest_pack};

fn insert(world: &World, collection: &str, document: &Document) {
    on_mongo(&world.url, async |database| {
        let collection = database.collection::<Document>(collection);
        collection.insert_one(document).await.expect("insert");
    });
}

fn key(seq: impl Into<Bson>) -> Document {
    doc! { "_id": { "a": "default", "s": seq.into() } }
}

fn head_of(world: &World) -> &'static Tree {
    let archive = match is_mongo(world) {
        true => in_mongo(),
        false => in_sqlite(),
    };
    &archive.trees[&archive.head()]
}

#[track_caller]
fn assert_unharmed(archive: &Archive, world: &World) {
    let verdict = Verdict::of_all(world);
    assert_eq!(verdict.code, 0, "{}", verdict.told);
    let restored = Restored::of(world, None);
    assert_eq!(restored.seq, archive.head(), "{}", restored.told);
    let ended = boot(world);
    assert_eq!(ended.code, 0, "{}", ended.log);
    let head = archive.trees.get(&archive.head());
    assert_eq!(Some(&Tree::of(&world.dir())), head);
}

#[test]
fn documents_of_others_beside_ours_are_left_alone() {
    let archive = in_mongo();
    let world = archive.copy();
    let pack = newest_pack(&world);
    for document in [
        doc! { "_id": ObjectId::new(), "hello": "world" },
        doc! { "_id": "default" },
        key("text"),
        // Between two numbers, and beyond the last.
        key(archive.before(archive.head()) as f64 - 0.5),
        key(archive.head() as f64 + 0.5),
        key(1e300),
        doc! { "_id": { "a": "default" } },
        doc! { "_id": { "a": "default2", "s": 1_i64 } },
        doc! { "_id": { "s": 5_i64, "a": "default" } },
    ] {
        insert(&world, "commits", &document);
    }
    for document in [
        doc! { "_id": ObjectId::new(), "length": 3_i64, "metadata": { "archive": "default" } },
        doc! { "_id": "no pack", "length": "long", "metadata": { "archive": "default" } },
        doc! { "_id": "ff".repeat(16), "metadata": { "archive": "default" } },
        doc! { "_id": 7, "metadata": "none" },
    ] {
        insert(&world, "packs.files", &document);
    }
    insert(
        &world,
        "packs.chunks",
        &doc! { "files_id": "no pack", "n": "zero" },
    );
    // The index over the pieces cannot be made with this.
    insert(&world, "packs.chunks", &doc! { "files_id": pack, "n": 0 });
    insert(&world, "leases", &doc! { "_id": "other", "instance": 7 });
    assert_unharmed(archive, &world);

    // A checkpoint asks for all packs: it is written where a damaged head is replaced.
    let world = archive.copy();
    insert(
        &world,
        "packs.files",
        &doc! { "_id": "no pack", "length": "long", "metadata": { "archive": "default" } },
    );
    let head = archive.head();
    damage_commit(&world, head);
    assert_passed_over(archive, &world, &commit(head), archive.before(head));
    discard(world);
}

#[test]
fn a_document_in_the_place_of_a_commit_is_named_and_passed_over() {
    let archive = in_mongo();
    let head = archive.head();
    let (after, far) = (
        i64::try_from(head).expect("a small number") + 10,
        1_i64 << 40,
    );
    for seq in [after, far] {
        for rest in [
            doc! {},
            doc! { "format": 1 },
            doc! { "format": "one", "body": 7 },
        ] {
            let world = archive.copy();
            let mut document = key(seq);
            document.extend(rest);
            insert(&world, "commits", &document);
            let named = commit(seq.unsigned_abs());
            assert_passed_over(archive, &world, &named, head);
            discard(world);
        }
    }
    let mut alike = key(after);
    alike.get_document_mut("_id").expect("a key").insert("x", 1);
    let world = archive.copy();
    insert(&world, "commits", &alike);
    assert_passed_over(archive, &world, &commit(head + 10), head);
    discard(world);
}

#[test]
fn an_entry_that_claims_chunks_without_end_is_damage_and_not_followed() {
    let archive = in_mongo();
    for (field, value) in [
        ("length", Bson::Int64(1 << 40)),
        ("length", Bson::Int64(i64::MAX)),
        ("length", Bson::Int64(-1)),
        ("chunkSize", Bson::Int32(1)),
        ("chunkSize", Bson::Int32(0)),
        ("metadata", Bson::Null),
    ] {
        let world = archive.copy();
        let pack = newest_pack(&world);
        on_mongo(&world.url, async |database| {
            let files = database.collection::<Document>("packs.files");
            let set = doc! { "$set": { field: value } };
            let done = files.update_one(doc! { "_id": &pack }, set).await;
            assert_eq!(done.expect("update").modified_count, 1);
        });
        let verdict = Verdict::of_head(&world);
        assert_eq!(verdict.code, 1, "{field}: {}", verdict.told);
        assert!(verdict.told.contains(&pack), "{field}: {}", verdict.told);
        let restored = Restored::of(&world, None);
        assert_eq!(restored.code, 0, "{field}: {}", restored.told);
        assert_eq!(restored.tree.as_ref(), archive.trees.get(&restored.seq));
        discard(world);
    }
}

#[test]
fn a_lease_that_cannot_be_read_never_starts_a_gateway_on_nothing() {
    let in_mongo_with = |lease: &Document| {
        let world = in_mongo().copy();
        on_mongo(&world.url, async |database| {
            let leases = database.collection::<Document>("leases");
            let done = leases.replace_one(doc! { "_id": "default" }, lease).await;
            assert_eq!(done.expect("replace").modified_count, 1);
        });
        world
    };
    let hour = Duration::from_secs(3600);
    let in_an_hour = DateTime::from_system_time(SystemTime::now() + hour);
    let in_sqlite_with = |change: &str| {
        let world = in_sqlite().copy();
        let sql = format!("UPDATE leases SET {change}");
        on_sqlite(&world, |store| {
            assert_eq!(store.execute(&sql, []).expect("update"), 1);
        });
        world
    };
    let worlds = [
        // A lease that nobody can be said to hold is taken for one that has run out.
        (0, in_mongo_with(&doc! { "hello": "world" })),
        (
            78,
            in_mongo_with(&doc! {
                "format": 1_i64, "instance": "somebody", "epoch": "seven", "expires": in_an_hour,
            }),
        ),
        (78, in_sqlite_with("instance = 'no name / at all'")),
        (78, in_sqlite_with("epoch = 'seven'")),
    ];
    for (code, world) in worlds {
        // Who only reads needs none.
        assert_eq!(Restored::of(&world, None).code, 0);
        let mut ended = boot(&world);
        assert_eq!(
            (ended.code, gateway_ran(&world)),
            (code, code == 0),
            "{}",
            ended.log
        );
        if code != 0 {
            assert!(
                ended
                    .log
                    .contains("the lease of archive default is damaged")
                    && ended.log.contains("sessionkeep lease --break"),
                "{}",
                ended.log
            );
            let broken = world.command(&["lease", "--break"]);
            let told = String::from_utf8_lossy(&broken.stdout);
            assert!(
                broken.status.success() && told.contains("replaced"),
                "{broken:?}"
            );
            ended = boot(&world);
            assert_eq!(ended.code, 0, "{}", ended.log);
        }
        assert_eq!(Tree::of(&world.dir()), *head_of(&world), "{}", ended.log);
        discard(world);
    }
}

#[test]
fn a_file_that_is_no_store_any_more_is_refused_and_nothing_is_started() {
    let archive = in_sqlite();
    for (what, spoil) in [
        (
            "cut in half",
            (|bytes| bytes.truncate(bytes.len() / 2)) as fn(&mut Vec<u8>),
        ),
        ("cut to its first page", |bytes| bytes.truncate(4096)),
        ("text", |bytes| *bytes = b"hello world\n".repeat(1000)),
        ("zeros", |bytes| bytes.fill(0)),
        ("zeros from its third page", |bytes| bytes[8192..].fill(0)),
    ] {
        let world = archive.copy();
        let mut bytes = fs::read(world.database_file()).expect("read");
        spoil(&mut bytes);
        fs::write(world.database_file(), bytes).expect("write");
        let verdict = Verdict::of_all(&world);
        assert_ne!(verdict.code, 0, "{what}: {}", verdict.told);
        let restored = Restored::of(&world, None);
        assert!(
            restored.code != 0 || restored.tree.as_ref() == archive.trees.get(&restored.seq),
            "{what}: {}",
            restored.told
        );
        let ended = boot(&world);
        assert_orderly(ended.code, &ended.log);
        assert!(
            !gateway_ran(&world) || !Tree::of(&world.dir()).is_empty(),
            "{what}: {}",
            ended.log
        );
    }
}

#[test]
fn damage_twice_over_leads_further_back() {
    for archive in [in_mongo(), in_sqlite()] {
        let world = archive.copy();
        let head = archive.head();
        damage_pack(&world, &newest_pack(&world), PackDamage::Missing);
        damage_commit(&world, head);
        let first = Restored::of(&world, None);
        assert_eq!(first.code, 0, "{}", first.told);
        damage_commit(&world, first.seq);
        let second = Restored::of(&world, None);
        assert_eq!(second.code, 0, "{}", second.told);
        assert!(second.seq < first.seq, "{}", second.told);
        assert_passed_over(archive, &world, &commit(head), second.seq);
        discard(world);
    }
}
