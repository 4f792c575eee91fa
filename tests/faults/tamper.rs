//! Hands on what a store keeps: commits and packs of a copy, changed one by one behind the
//! program's back.

use mongodb::Collection;
use mongodb::bson::{Binary, Bson, DateTime, Document, doc, spec::BinarySubtype};
use rusqlite::Connection;
use serde_json::Value;

use super::keeper::World;
use super::raw::{on_mongo, on_sqlite};

pub(crate) fn is_mongo(world: &World) -> bool {
    world.url.starts_with("mongodb:")
}

pub(crate) fn binary(bytes: Vec<u8>) -> Bson {
    let subtype = BinarySubtype::Generic;
    Bson::Binary(Binary { subtype, bytes })
}

fn int(seq: u64) -> i64 {
    i64::try_from(seq).expect("a small number")
}

fn key(seq: u64) -> Document {
    doc! { "_id": { "a": "default", "s": int(seq) } }
}

/// Finds a document that must be there.
async fn found(collection: &Collection<Document>, filter: Document) -> Document {
    let found = collection.find_one(filter).await.expect("find");
    found.expect("the document is there")
}

async fn replace(collection: &Collection<Document>, document: &Document) {
    let own = doc! { "_id": document.get("_id").cloned() };
    let done = collection
        .replace_one(own, document)
        .await
        .expect("replace");
    assert_eq!(done.matched_count, 1);
}

/// Executes a statement that must meet one row.
fn one(store: &Connection, sql: &str, values: impl rusqlite::Params) {
    assert_eq!(store.execute(sql, values).expect(sql), 1, "{sql}");
}

/// Another value of the same type.
fn other_bson(value: &Bson) -> Bson {
    match value {
        Bson::String(text) => Bson::String(other_text(text)),
        Bson::Int64(number) => Bson::Int64(number + 1),
        Bson::DateTime(time) => Bson::DateTime(DateTime::from_millis(time.timestamp_millis() + 1)),
        Bson::Array(items) => {
            let mut items = items.clone();
            items.push("0f".repeat(16).into());
            Bson::Array(items)
        }
        other => panic!("a commit has no field of such a type: {other}"),
    }
}

fn other_json(value: &Value) -> Value {
    match value {
        Value::String(text) => other_text(text).into(),
        Value::Number(number) => (number.as_u64().expect("a whole number") + 1).into(),
        Value::Array(items) => {
            let mut items = items.clone();
            items.push("0f".repeat(16).into());
            Value::Array(items)
        }
        other => panic!("a header has no field of such a type: {other}"),
    }
}

/// One bit of the first letter is another: hexadecimal digits stay such.
fn other_text(text: &str) -> String {
    let first = text.chars().next().expect("no field is empty");
    let other = char::from(u8::try_from(first).expect("ASCII") ^ 1);
    let other = if other == '`' { 'f' } else { other };
    let other = if first == 'f' { 'a' } else { other };
    format!("{other}{}", &text[1..])
}

/// Changes each field of a commit but its body, one after the other, and calls `then` while it is
/// changed. A field that is in the column beside the header is named `column.…`.
pub(crate) fn each_field(world: &World, seq: u64, mut then: impl FnMut(&str)) {
    if is_mongo(world) {
        let commits = "commits";
        let whole = on_mongo(&world.url, async |database| {
            found(&database.collection(commits), key(seq)).await
        });
        let put = |document: &Document| {
            on_mongo(&world.url, async |database| {
                replace(&database.collection(commits), document).await;
            });
        };
        for (field, value) in &whole {
            if ["_id", "body"].contains(&field.as_str()) {
                continue;
            }
            let mut changed = whole.clone();
            changed.insert(field, other_bson(value));
            put(&changed);
            then(field);
        }
        put(&whole);
        return;
    }
    on_sqlite(world, |store| {
        let header: String = store
            .query_row(
                "SELECT header FROM commits WHERE seq = ?1",
                [int(seq)],
                |row| row.get(0),
            )
            .expect("the commit is there");
        let whole: Value = serde_json::from_str(&header).expect("JSON");
        for (field, value) in whole.as_object().expect("an object") {
            let mut changed = whole.clone();
            changed[field] = other_json(value);
            let sql = "UPDATE commits SET header = ?1 WHERE seq = ?2";
            one(store, sql, (changed.to_string(), int(seq)));
            then(field);
            one(store, sql, (&header, int(seq)));
        }
        for column in ["format", "size"] {
            let add = |by: i64| {
                let sql = format!("UPDATE commits SET {column} = {column} + ?1 WHERE seq = ?2");
                one(store, &sql, (by, int(seq)));
            };
            add(1);
            then(&format!("column.{column}"));
            add(-1);
        }
    });
}

/// Sets a number in a commit's header, which then does not have its hash any more.
pub(crate) fn set_number(world: &World, seq: u64, field: &str, number: i64) {
    if is_mongo(world) {
        on_mongo(&world.url, async |database| {
            let commits = database.collection::<Document>("commits");
            let mut commit = found(&commits, key(seq)).await;
            commit.insert(field, number);
            replace(&commits, &commit).await;
        });
    } else {
        on_sqlite(world, |store| {
            let sql = "UPDATE commits SET header = json_set(header, '$.' || ?1, ?2) WHERE seq = ?3";
            one(store, sql, (field, number, int(seq)));
        });
    }
}

/// Takes the whole header away, as far as it can be.
pub(crate) fn wipe_header(world: &World, seq: u64) {
    if is_mongo(world) {
        on_mongo(&world.url, async |database| {
            let commits = database.collection::<Document>("commits");
            let mut commit = key(seq);
            commit.insert("format", 1);
            replace(&commits, &commit).await;
        });
    } else {
        on_sqlite(world, |store| {
            let sql = "UPDATE commits SET header = '{' WHERE seq = ?1";
            one(store, sql, [int(seq)]);
        });
    }
}

/// Says that a commit is of a format that does not exist yet.
pub(crate) fn set_format(world: &World, seq: u64, format: u32) {
    if is_mongo(world) {
        set_number(world, seq, "format", format.into());
    } else {
        on_sqlite(world, |store| {
            let sql = "UPDATE commits SET format = ?1 WHERE seq = ?2";
            one(store, sql, (format, int(seq)));
        });
    }
}

/// Removes a commit.
pub(crate) fn remove_commit(world: &World, seq: u64) {
    if is_mongo(world) {
        on_mongo(&world.url, async |database| {
            let commits = database.collection::<Document>("commits");
            let done = commits.delete_one(key(seq)).await.expect("delete");
            assert_eq!(done.deleted_count, 1);
        });
    } else {
        on_sqlite(world, |store| {
            one(store, "DELETE FROM commits WHERE seq = ?1", [int(seq)]);
        });
    }
}

/// What is done to the content of a pack.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PackDamage {
    /// One bit is another.
    Flipped,
    /// The end is missing: of the last chunk, where there are chunks.
    CutShort,
    /// It is text.
    OtherType,
    /// The content is gone, and what lists it is not: the last chunk, where there are chunks.
    ChunkMissing,
    /// All of it is gone.
    Missing,
}

/// The newest pack's id.
pub(crate) fn newest_pack(world: &World) -> String {
    if is_mongo(world) {
        on_mongo(&world.url, async |database| {
            let files = database.collection::<Document>("packs.files");
            let newest = files.find_one(doc! {}).sort(doc! { "_id": -1 });
            let newest = newest.await.expect("find").expect("there is a pack");
            newest.get_str("_id").expect("an id").to_owned()
        })
    } else {
        on_sqlite(world, |store| {
            let sql = "SELECT max(id) FROM packs";
            store.query_row(sql, [], |row| row.get(0)).expect("a pack")
        })
    }
}

/// Damages a pack.
pub(crate) fn damage_pack(world: &World, id: &str, damage: PackDamage) {
    if is_mongo(world) {
        damage_chunk(world, id, damage);
        return;
    }
    on_sqlite(world, |store| {
        let sql = "SELECT content FROM packs WHERE id = ?1";
        let mut content: Vec<u8> = store
            .query_row(sql, [id], |row| row.get(0))
            .expect("a pack");
        let set = "UPDATE packs SET content = ?1 WHERE id = ?2";
        match damage {
            PackDamage::Flipped => {
                let middle = content.len() / 2;
                content[middle] ^= 4;
                one(store, set, (content, id));
            }
            PackDamage::CutShort => {
                content.truncate(content.len() - 100);
                one(store, set, (content, id));
            }
            PackDamage::OtherType => one(store, set, ("no bytes", id)),
            PackDamage::ChunkMissing => one(store, set, (Vec::<u8>::new(), id)),
            PackDamage::Missing => one(store, "DELETE FROM packs WHERE id = ?1", [id]),
        }
    });
}

fn damage_chunk(world: &World, id: &str, damage: PackDamage) {
    on_mongo(&world.url, async |database| {
        let chunks = database.collection::<Document>("packs.chunks");
        let last = chunks
            .find_one(doc! { "files_id": id })
            .sort(doc! { "n": -1 });
        let mut last = last.await.expect("find").expect("it has chunks");
        let mut data = last.get_binary_generic("data").expect("data").clone();
        let own = doc! { "_id": last.get("_id").cloned() };
        match damage {
            PackDamage::Flipped => {
                let middle = data.len() / 2;
                data[middle] ^= 4;
                last.insert("data", binary(data));
            }
            PackDamage::CutShort => {
                data.truncate(data.len() - 100);
                last.insert("data", binary(data));
            }
            PackDamage::OtherType => {
                last.insert("data", "no bytes");
            }
            PackDamage::ChunkMissing | PackDamage::Missing => {
                chunks.delete_one(own).await.expect("delete");
            }
        }
        match damage {
            PackDamage::ChunkMissing => {}
            PackDamage::Missing => {
                let files = database.collection::<Document>("packs.files");
                let done = files.delete_one(doc! { "_id": id }).await.expect("delete");
                assert_eq!(done.deleted_count, 1);
            }
            _ => replace(&chunks, &last).await,
        }
    });
}
