//! The database server from this program's side: connections, sizes, and its own record of what
//! a client asked for.

use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;
use mongodb::{Client, Database};

use std::future::Future;

/// How this program calls itself, so that its own requests are told from a subject's.
pub(crate) const OBSERVER: &str = "bench";

/// Runs a task to its end.
pub(crate) fn block_on<T>(task: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(task)
}

/// A connection of this program.
pub(crate) async fn client(url: &str) -> Client {
    let mut options = ClientOptions::parse(url).await.expect("a valid URL");
    options.app_name = Some(OBSERVER.to_owned());
    Client::with_options(options).expect("valid options")
}

async fn database(url: &str) -> Database {
    let client = client(url).await;
    client.default_database().expect("the URL names a database")
}

/// Data and indexes of a database, in bytes, uncompressed: what hosts count.
pub(crate) fn stored(url: &str) -> u64 {
    block_on(async {
        let stats = database(url).await.run_command(doc! { "dbStats": 1 }).await;
        let stats = stats.expect("dbStats");
        number(&stats, "dataSize") + number(&stats, "indexSize")
    })
}

fn number(document: &Document, field: &str) -> u64 {
    let value = document.get(field).expect("a field of dbStats");
    let value = value
        .as_f64()
        .or_else(|| value.as_i64().map(|n| n as f64))
        .or_else(|| value.as_i32().map(f64::from));
    value.expect("a number") as u64
}

/// What a client asked the server for.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Asked {
    /// All operations, but for those on the lease.
    pub(crate) operations: u64,
    /// Of these, the ones that write.
    pub(crate) writes: u64,
    /// Operations on the lease.
    pub(crate) lease: u64,
}

/// Has the server record what clients of the product ask for in this database.
pub(crate) fn record(url: &str) {
    block_on(async {
        let database = database(url).await;
        // Large enough for whatever a section does.
        let room = doc! { "create": "system.profile", "capped": true, "size": 64 << 20 };
        database.run_command(room).await.expect("room for a record");
        let profile = doc! { "profile": 1, "filter": { "appName": { "$regex": "^sessionkeep" } } };
        database.run_command(profile).await.expect("record");
    });
}

/// Ends the recording, and counts.
pub(crate) fn recorded(url: &str) -> Asked {
    block_on(async {
        let database = database(url).await;
        let off = doc! { "profile": 0 };
        database.run_command(off).await.expect("stop recording");
        let profile = database.collection::<Document>("system.profile");
        let mut asked = Asked::default();
        let mut entries = profile.find(doc! {}).await.expect("find");
        while entries.advance().await.expect("read") {
            let entry = entries.deserialize_current().expect("a document");
            if entry.get_str("ns").is_ok_and(|ns| ns.ends_with(".leases")) {
                asked.lease += 1;
                continue;
            }
            asked.operations += 1;
            asked.writes += u64::from(is_write(&entry));
        }
        profile.drop().await.expect("drop the record");
        asked
    })
}

fn is_write(entry: &Document) -> bool {
    const CHANGES: [&str; 6] = [
        "findAndModify",
        "findandmodify",
        "insert",
        "update",
        "delete",
        "create",
    ];
    match entry.get_str("op") {
        Ok("insert" | "update" | "remove") => true,
        Ok("command") => entry
            .get_document("command")
            .is_ok_and(|command| CHANGES.iter().any(|name| command.contains_key(name))),
        _ => false,
    }
}

/// How many documents a collection has.
pub(crate) fn count(url: &str, collection: &str) -> u64 {
    block_on(async {
        let collection = database(url).await.collection::<Document>(collection);
        collection.count_documents(doc! {}).await.expect("count")
    })
}
