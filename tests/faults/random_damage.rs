//! One random damage to a copy of an archive, as a bad disk, a bad tool or a bad day would do it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use fastrand::Rng;
use mongodb::bson::{Bson, DateTime, Document, doc, oid::ObjectId};
use rusqlite::Connection;
use rusqlite::types::Value;

use super::keeper::World;
use super::raw::{on_mongo, on_sqlite};
use super::tamper::binary;

/// What was damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// This commit, and perhaps later ones.
    Commit(u64),
    /// A commit that is gone now.
    Removed(u64),
    /// What says how to read the rest: it may as well be a newer version's.
    Format,
    /// A pack, or what lists it.
    Pack,
    /// Any place of the store's file.
    File,
}

/// The damage, and how it was done, in words.
#[derive(Debug)]
pub(crate) struct Damage {
    pub(crate) part: Part,
    pub(crate) how: String,
}

/// What is done to a document or a row.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// One bit of one field is another.
    Flip,
    /// One field loses its end.
    Truncate,
    /// One field is of another type.
    Retype,
    /// It stands there once more, under another number or id.
    Duplicate,
    /// It stands under another number or id alone.
    Move,
    /// It exchanges its content with another.
    Swap,
    /// It is gone.
    Delete,
}

fn way(chance: &mut Rng) -> Way {
    use Way::{Delete, Duplicate, Flip, Move, Retype, Swap, Truncate};
    // Flipped bits are what happens.
    let ways = [
        Flip, Flip, Flip, Truncate, Retype, Duplicate, Move, Swap, Delete,
    ];
    *chance.choice(&ways).expect("there are some")
}

/// A number that no commit of the archive has.
fn beyond(chance: &mut Rng) -> i64 {
    match chance.bool() {
        true => 1000 + chance.i64(0..10),
        false => chance.i64(1000..1 << 50),
    }
}

fn part(is_pack: bool, way: Way, seq: i64, field: &str) -> Part {
    let by_field = matches!(way, Way::Flip | Way::Truncate | Way::Retype);
    match (is_pack, way) {
        _ if by_field && field.ends_with("format") => Part::Format,
        (true, _) => Part::Pack,
        (_, Way::Delete | Way::Move) => Part::Removed(seq.unsigned_abs()),
        _ => Part::Commit(seq.unsigned_abs()),
    }
}

fn flip_bytes(chance: &mut Rng, bytes: &mut [u8]) {
    if let Some(byte) = chance.choice(&mut *bytes) {
        *byte ^= 1 << chance.u8(..8);
    }
}

fn noise(chance: &mut Rng) -> Vec<u8> {
    (0..chance.usize(..200)).map(|_| chance.u8(..)).collect()
}

/// Damages something in the archive's database.
pub(crate) fn damage_database(world: &World, chance: &mut Rng) -> Damage {
    let collections = [
        "commits",
        "commits",
        "commits",
        "packs.files",
        "packs.chunks",
    ];
    let name = *chance.choice(&collections).expect("there are some");
    let way = way(chance);
    on_mongo(&world.url, async |database| {
        let collection = database.collection::<Document>(name);
        let count = collection.count_documents(doc! {}).await.expect("count");
        let any = async |chance: &mut Rng| {
            let found = collection.find_one(doc! {}).sort(doc! { "_id": 1 });
            let found = found.skip(chance.u64(..count)).await.expect("find");
            found.expect("it was just counted")
        };
        let whole = any(chance).await;
        let id = |document: &Document| document.get("_id").cloned().expect("a key");
        let own = doc! { "_id": id(&whole) };
        let seq = |document: &Document| {
            let key = document.get_document("_id").ok();
            key.and_then(|key| key.get_i64("s").ok()).unwrap_or(0)
        };
        let (mut damaged, mut field, mut first) = (whole.clone(), String::new(), seq(&whole));
        match way {
            Way::Flip | Way::Truncate | Way::Retype => {
                let fields: Vec<&String> = whole.keys().filter(|key| *key != "_id").collect();
                let chosen = chance.choice(&fields).expect("it has fields");
                let mut value = whole.get(*chosen).cloned().expect("its own field");
                field = damage_bson(chance, way, &mut value);
                field = format!("{chosen}{field}");
                damaged.insert(chosen.as_str(), value);
                collection
                    .replace_one(own, &damaged)
                    .await
                    .expect("replace");
            }
            Way::Duplicate | Way::Move => {
                let key: Bson = match name {
                    "commits" => doc! { "a": "default", "s": beyond(chance) }.into(),
                    "packs.files" => format!("{:032x}", chance.u128(..)).into(),
                    _ => ObjectId::new().into(),
                };
                damaged.insert("_id", key);
                if matches!(way, Way::Move) {
                    collection.delete_one(own).await.expect("delete");
                }
                // The one that stays may be in the way, where there is an index.
                let _ = collection.insert_one(&damaged).await;
                if matches!(way, Way::Duplicate) {
                    first = seq(&damaged);
                }
            }
            Way::Swap => {
                let mut other = any(chance).await;
                first = first.min(seq(&other));
                for field in ["body", "size", "data", "length"] {
                    if let (Some(mine), Some(its)) = (whole.get(field), other.get(field).cloned()) {
                        damaged.insert(field, its);
                        other.insert(field, mine);
                    }
                }
                let key = doc! { "_id": id(&other) };
                collection.replace_one(key, &other).await.expect("replace");
                collection
                    .replace_one(own, &damaged)
                    .await
                    .expect("replace");
            }
            Way::Delete => {
                collection.delete_one(own).await.expect("delete");
            }
        }
        let part = part(name != "commits", way, first, &field);
        let how = format!("{way:?} {field} of {} in {name}", id(&whole));
        Damage { part, how }
    })
}

/// Damages a value, or one in it, and names the path to that.
fn damage_bson(chance: &mut Rng, way: Way, value: &mut Bson) -> String {
    if let Bson::Document(inner) = value
        && let Some(key) = chance.choice(inner.keys().cloned().collect::<Vec<_>>())
    {
        let inner = inner.get_mut(&key).expect("its own key");
        return format!(".{key}{}", damage_bson(chance, way, inner));
    }
    let bit = chance.u32(..63);
    match (way, &mut *value) {
        (Way::Flip, Bson::Int64(number)) => *number ^= 1 << bit,
        (Way::Flip, Bson::Int32(number)) => *number ^= 1 << (bit % 31),
        (Way::Flip, Bson::DateTime(time)) => {
            *time = DateTime::from_millis(time.timestamp_millis() ^ (1 << bit));
        }
        (Way::Flip, Bson::Binary(bytes)) => flip_bytes(chance, &mut bytes.bytes),
        (Way::Flip, Bson::String(text)) => {
            let mut bytes = text.clone().into_bytes();
            flip_bytes(chance, &mut bytes);
            // BSON has no other text than UTF-8.
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        (Way::Flip, Bson::Array(items)) => items.push(Bson::String("00".repeat(16))),
        (Way::Truncate, Bson::Binary(bytes)) => {
            bytes.bytes.truncate(chance.usize(..=bytes.bytes.len()));
        }
        (Way::Truncate, Bson::String(text)) => {
            let keep = text.chars().count() / 2;
            *text = text.chars().take(keep).collect();
        }
        (Way::Truncate, Bson::Array(items)) => items.truncate(items.len() / 2),
        _ => {
            let others = [
                Bson::Null,
                Bson::Boolean(true),
                Bson::Double(f64::NAN),
                Bson::Int32(-1),
                Bson::Int64(i64::MIN),
                Bson::String("💥".into()),
                Bson::Array(vec![Bson::Null]),
                Bson::Document(doc! { "$where": 1 }),
                Bson::MinKey,
                binary(noise(chance)),
            ];
            *value = chance.choice(others).expect("there are some");
        }
    }
    String::new()
}

/// Damages something in the archive's file.
pub(crate) fn damage_file(world: &World, chance: &mut Rng) -> Damage {
    if chance.u8(..4) == 0 {
        return damage_any_byte(world, chance);
    }
    let way = way(chance);
    let (table, columns): (_, &[&str]) = match chance.u8(..4) {
        0 => ("packs", &["id", "size", "content"]),
        _ => ("commits", &["format", "header", "header", "size", "body"]),
    };
    let is_pack = table == "packs";
    on_sqlite(world, |store| {
        let rows = rows(store, table);
        let (row, seq) = *chance.choice(&rows).expect("there are some");
        let (mut field, mut first) = ("", seq);
        match way {
            Way::Flip | Way::Truncate | Way::Retype => {
                field = chance.choice(columns).expect("there are some");
                let sql = format!("SELECT {field} FROM {table} WHERE rowid = ?1");
                let value = store.query_row(&sql, [row], |row| row.get(0));
                let (value, cast) = damage_value(chance, way, value.expect("a value"));
                let sql = format!("UPDATE {table} SET {field} = {cast} WHERE rowid = ?2");
                store.execute(&sql, (value, row)).expect("update");
            }
            Way::Duplicate | Way::Move => {
                let (key, rest, other): (_, _, Value) = match is_pack {
                    true => (
                        "id",
                        "size, content",
                        format!("{:032x}", chance.u128(..)).into(),
                    ),
                    false => ("seq", "format, header, size, body", beyond(chance).into()),
                };
                let sql = format!(
                    "INSERT INTO {table} (archive, {key}, {rest}) \
                     SELECT archive, ?1, {rest} FROM {table} WHERE rowid = ?2"
                );
                store.execute(&sql, (&other, row)).expect("insert");
                match (way, other) {
                    (Way::Move, _) => remove(store, table, row),
                    (_, Value::Integer(other)) => first = other,
                    _ => {}
                }
            }
            Way::Swap => {
                let (other, its_seq) = *chance.choice(&rows).expect("there are some");
                first = first.min(its_seq);
                let content = if is_pack { "content" } else { "body" };
                let sql = format!(
                    "UPDATE {table} SET ({content}, size) = \
                     (SELECT {content}, size FROM {table} AS b WHERE b.rowid = ?1 + ?2 - {table}.rowid) \
                     WHERE rowid IN (?1, ?2)"
                );
                store.execute(&sql, (row, other)).expect("swap");
            }
            Way::Delete => remove(store, table, row),
        }
        let part = part(is_pack, way, first, field);
        let how = format!("{way:?} {field} of row {row} (number {seq}) in {table}");
        Damage { part, how }
    })
}

fn rows(store: &Connection, table: &str) -> Vec<(i64, i64)> {
    let number = if table == "packs" { "0" } else { "seq" };
    let sql = format!("SELECT rowid, {number} FROM {table}");
    let mut rows = store.prepare(&sql).expect("prepare");
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.expect("query")
        .map(|row| row.expect("a row"))
        .collect()
}

fn remove(store: &Connection, table: &str, row: i64) {
    let sql = format!("DELETE FROM {table} WHERE rowid = ?1");
    assert_eq!(store.execute(&sql, [row]).expect("delete"), 1);
}

/// Damages a value; with how SQL is to take it.
fn damage_value(chance: &mut Rng, way: Way, value: Value) -> (Value, &'static str) {
    match (way, value) {
        (Way::Flip, Value::Integer(number)) => ((number ^ (1 << chance.u32(..63))).into(), "?1"),
        (Way::Flip, Value::Blob(mut bytes)) => {
            flip_bytes(chance, &mut bytes);
            (bytes.into(), "?1")
        }
        (Way::Flip, Value::Text(text)) => {
            let mut bytes = text.into_bytes();
            flip_bytes(chance, &mut bytes);
            // Need not be UTF-8 any more.
            (bytes.into(), "CAST(?1 AS TEXT)")
        }
        (Way::Truncate, Value::Blob(mut bytes)) => {
            bytes.truncate(chance.usize(..=bytes.len()));
            (bytes.into(), "?1")
        }
        (Way::Truncate, Value::Text(text)) => {
            let keep = chance.usize(..text.len());
            (
                text.into_bytes()[..keep].to_vec().into(),
                "CAST(?1 AS TEXT)",
            )
        }
        _ => {
            let others = [
                Value::Integer(-1),
                Value::Integer(i64::MIN),
                Value::Real(0.5),
                Value::Text("💥".into()),
                Value::Blob(noise(chance)),
            ];
            (chance.choice(others).expect("there are some"), "?1")
        }
    }
}

/// Flips a bit anywhere in the store's file, whatever SQLite keeps there.
fn damage_any_byte(world: &World, chance: &mut Rng) -> Damage {
    let path = world.database_file();
    let length = fs::metadata(&path).expect("stat").len();
    let at = chance.u64(..length);
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.expect("open");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    let bit = chance.u8(..8);
    file.write_all_at(&[byte[0] ^ (1 << bit)], at)
        .expect("write");
    Damage {
        part: Part::File,
        how: format!("Flip bit {bit} of byte {at} of {length}"),
    }
}
