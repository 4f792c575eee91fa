//! What nobody does through the program: looking into a store, and damaging what is in it.
#![allow(dead_code, reason = "each test program uses what it needs of it")]

use std::future::Future;

use mongodb::bson::{Binary, Bson, DateTime, Document, doc, spec::BinarySubtype};
use mongodb::{Client, Database};
use rusqlite::Connection;

use super::keeper::World;

/// Does something with the database that the URL names.
pub(crate) fn on_mongo<T, F: Future<Output = T>>(url: &str, work: impl FnOnce(Database) -> F) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async {
            let client = Client::with_uri_str(url).await.expect("a valid URL");
            let database = client.default_database().expect("the URL names one");
            let result = work(database).await;
            client.shutdown().immediate(true).await;
            result
        })
}

/// Opens the SQLite store's file.
pub(crate) fn on_sqlite<T>(world: &World, work: impl FnOnce(&Connection) -> T) -> T {
    let connection = Connection::open(world.database_file()).expect("open the store's file");
    connection
        .busy_timeout(std::time::Duration::from_secs(10))
        .expect("a timeout");
    work(&connection)
}

fn is_mongo(world: &World) -> bool {
    world.url.starts_with("mongodb:")
}

fn spoil(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    *bytes.get_mut(middle).expect("it is not empty") ^= 0x55;
}

/// Changes a byte in the body of a commit, as a bad disk would.
pub(crate) fn damage_commit(world: &World, seq: u64) {
    let seq = i64::try_from(seq).expect("a small number");
    if !is_mongo(world) {
        on_sqlite(world, |store| {
            let sql = "SELECT body FROM commits WHERE seq = ?1";
            let mut body: Vec<u8> = store
                .query_row(sql, [seq], |row| row.get(0))
                .expect("the commit is there");
            spoil(&mut body);
            let sql = "UPDATE commits SET body = ?1 WHERE seq = ?2";
            assert_eq!(store.execute(sql, (body, seq)).expect("update"), 1);
        });
        return;
    }
    on_mongo(&world.url, async |database| {
        let commits = database.collection::<Document>("commits");
        let own = doc! { "_id": { "a": "default", "s": seq } };
        let found = commits.find_one(own.clone()).await.expect("find");
        let found = found.expect("the commit is there");
        let mut bytes = found
            .get_binary_generic("body")
            .expect("a commit has a body")
            .clone();
        spoil(&mut bytes);
        let body = Bson::Binary(Binary {
            subtype: BinarySubtype::Generic,
            bytes,
        });
        let set = doc! { "$set": { "body": body } };
        let done = commits.update_one(own, set).await.expect("update");
        assert_eq!(done.modified_count, 1);
    });
}

/// Changes a byte in one of the packs.
pub(crate) fn damage_a_pack(world: &World) {
    if !is_mongo(world) {
        on_sqlite(world, |store| {
            let sql = "SELECT id, content FROM packs ORDER BY id LIMIT 1";
            let (id, mut content): (String, Vec<u8>) = store
                .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
                .expect("there is a pack");
            spoil(&mut content);
            let sql = "UPDATE packs SET content = ?1 WHERE id = ?2";
            assert_eq!(store.execute(sql, (content, &id)).expect("update"), 1);
        });
        return;
    }
    on_mongo(&world.url, async |database| {
        let chunks = database.collection::<Document>("packs.chunks");
        let found = chunks.find_one(doc! {}).await.expect("find");
        let found = found.expect("there is a pack");
        let mut bytes = found.get_binary_generic("data").expect("data").clone();
        spoil(&mut bytes);
        let data = Bson::Binary(Binary {
            subtype: BinarySubtype::Generic,
            bytes,
        });
        let own = doc! { "_id": found.get("_id").cloned() };
        let set = doc! { "$set": { "data": data } };
        let done = chunks.update_one(own, set).await.expect("update");
        assert_eq!(done.modified_count, 1);
    });
}

/// How many packs are kept.
pub(crate) fn packs(world: &World) -> u64 {
    if is_mongo(world) {
        on_mongo(&world.url, async |database| {
            let files = database.collection::<Document>("packs.files");
            files.count_documents(doc! {}).await.expect("count")
        })
    } else {
        on_sqlite(world, |store| {
            let count = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
            let count = store.query_row("SELECT count(*) FROM packs", [], count);
            u64::try_from(count.expect("count")).expect("a count")
        })
    }
}

/// Gives the lease to somebody else, as if this owner's had run out and another had taken it.
pub(crate) fn give_lease_to(world: &World, instance: &str) {
    if is_mongo(world) {
        on_mongo(&world.url, async |database| {
            let leases = database.collection::<Document>("leases");
            let in_an_hour = DateTime::from_millis(DateTime::now().timestamp_millis() + 3_600_000);
            let set = doc! {
                "$set": { "instance": instance, "expires": in_an_hour },
                "$inc": { "epoch": 1_i64 },
            };
            let own = doc! { "_id": "default" };
            let done = leases.update_one(own, set).await.expect("update");
            assert_eq!(done.modified_count, 1);
        });
    } else {
        on_sqlite(world, |store| {
            let sql = "UPDATE leases SET instance = ?1, epoch = epoch + 1, \
                       expires_ms = expires_ms + 3600000 WHERE archive = 'default'";
            assert_eq!(store.execute(sql, [instance]).expect("update"), 1);
        });
    }
}

/// Appends a commit of somebody else: a copy of the newest one, under the next number.
pub(crate) fn append_foreign(world: &World) {
    let newest = i64::try_from(world.head()).expect("a small number");
    if is_mongo(world) {
        on_mongo(&world.url, async |database| {
            let commits = database.collection::<Document>("commits");
            let own = doc! { "_id": { "a": "default", "s": newest } };
            let mut copy = commits.find_one(own).await.expect("find").expect("a head");
            copy.insert("_id", doc! { "a": "default", "s": newest + 1 });
            copy.insert("id", "00".repeat(16));
            copy.insert("instance", "somebody-else");
            commits.insert_one(copy).await.expect("insert");
        });
    } else {
        on_sqlite(world, |store| {
            let sql = "SELECT header FROM commits WHERE seq = ?1";
            let header: String = store
                .query_row(sql, [newest], |row| row.get(0))
                .expect("a head");
            let mut header: serde_json::Value = serde_json::from_str(&header).expect("JSON");
            header["seq"] = (newest + 1).into();
            header["id"] = "00".repeat(16).into();
            header["instance"] = "somebody-else".into();
            let sql = "INSERT INTO commits (archive, seq, format, header, size, body) \
                       SELECT archive, seq + 1, format, ?1, size, body FROM commits WHERE seq = ?2";
            let done = store.execute(sql, (header.to_string(), newest));
            assert_eq!(done.expect("insert"), 1);
        });
    }
}

/// The highest number, from the key alone: a foreign commit need not be readable.
pub(crate) fn last_seq(world: &World) -> i64 {
    if is_mongo(world) {
        on_mongo(&world.url, async |database| {
            let commits = database.collection::<Document>("commits");
            let newest = commits.find_one(doc! {}).sort(doc! { "_id": -1 });
            let newest = newest.await.expect("find").expect("a head");
            let key = newest.get_document("_id").expect("a key");
            key.get_i64("s").expect("a number")
        })
    } else {
        on_sqlite(world, |store| {
            let newest = |row: &rusqlite::Row<'_>| row.get(0);
            store
                .query_row("SELECT max(seq) FROM commits", [], newest)
                .expect("a head")
        })
    }
}
