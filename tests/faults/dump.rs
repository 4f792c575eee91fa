//! A dump of the database while a gateway writes: collections are read one after the other, as
//! `mongodump` reads them, and what was superseded meanwhile is collected in the middle.

use std::time::Duration;

use mongodb::bson::{Document, doc};

use super::keeper::{IDLE, Life, World, wait_until};
use super::raw::on_mongo;

/// Longer than a dump takes here, also on a machine that is busy.
const GRACE: &str = "history.grace=10s";
/// Said once a collection has been gone through.
const COLLECTED: &str = "collected commits=";

/// Copies a collection into another database: in natural order, and with no snapshot of the others.
fn dump(world: &World, into: &str, collection: &str) {
    on_mongo(&world.url, async |database| {
        let from = database.collection::<Document>(collection);
        let mut cursor = from.find(doc! {}).await.expect("find");
        let mut copied = Vec::new();
        while cursor.advance().await.expect("go on") {
            copied.push(cursor.deserialize_current().expect("a document"));
        }
        let to = database.client().database(into);
        let to = to.collection::<Document>(collection);
        to.insert_many(copied).await.expect("insert");
    });
}

fn numbers(world: &World) -> Vec<i64> {
    on_mongo(&world.url, async |database| {
        let commits = database.collection::<Document>("commits");
        let mut cursor = commits.find(doc! {}).await.expect("find");
        let mut numbers = Vec::new();
        while cursor.advance().await.expect("go on") {
            let commit = cursor.deserialize_current().expect("a document");
            let key = commit.get_document("_id").expect("a key");
            numbers.push(key.get_i64("s").expect("a number"));
        }
        numbers
    })
}

/// The packs that are kept, by their ids, which begin with the time that they were made.
fn packs(world: &World) -> Vec<String> {
    on_mongo(&world.url, async |database| {
        let files = database.collection::<Document>("packs.files");
        let mut cursor = files.find(doc! {}).await.expect("find");
        let mut ids = Vec::new();
        while cursor.advance().await.expect("go on") {
            let entry = cursor.deserialize_current().expect("a document");
            ids.push(entry.get_str("_id").expect("an id").to_owned());
        }
        ids
    })
}

/// A mebibyte that does not compress, another one each time.
fn another() -> Vec<u8> {
    (0..1 << 20).map(|_| fastrand::u8(..)).collect()
}

/// Writes what makes a checkpoint, and waits until what is superseded was collected after it.
fn write_and_collect(world: &World, life: &mut Life) {
    let before = life.log().matches(COLLECTED).count();
    while life.log().matches(COLLECTED).count() == before {
        world.write("large.bin", another());
        world.wait_until_saved();
    }
}

#[test]
fn a_dump_is_whole_although_what_it_holds_is_collected_in_the_middle_of_it() {
    let world = World::mongo();
    let setup = world.script(IDLE).set(GRACE).env("LOG_LEVEL", "debug");
    let mut life = setup.ready();
    world.write("creds.json", r#"{"me":"first"}"#);
    for _ in 0..3 {
        write_and_collect(&world, &mut life);
    }
    let dumped = format!("dump-{}", world.url.rsplit('/').next().expect("a name"));
    let first = *numbers(&world).iter().min().expect("commits");
    dump(&world, &dumped, "leases");
    dump(&world, &dumped, "commits");
    // The commits that were just dumped are older than the grace now, and go.
    wait_until("the first of them was collected", || {
        std::thread::sleep(Duration::from_millis(300));
        write_and_collect(&world, &mut life);
        !numbers(&world).contains(&first)
    });
    dump(&world, &dumped, "packs.files");
    dump(&world, &dumped, "packs.chunks");

    let at = world.url.rfind('/').expect("a URL with a name");
    let url = format!("{}/{dumped}", &world.url[..at]);
    let verified = world.command_at(&url, &["verify", "--all"]);
    assert!(
        verified.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&verified.stdout),
        life.log()
    );
    // Where commits were deleted while they were read, a part of what was superseded is there.
    let listed = world.command_at(&url, &["log", "--json", "--limit", "10000"]);
    let listed: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout).expect("JSON");
    let checkpoint = listed
        .iter()
        .filter(|commit| commit["kind"] == "checkpoint")
        .filter_map(|commit| commit["seq"].as_i64())
        .max()
        .expect("there is one");
    on_mongo(&url, async |database| {
        let commits = database.collection::<Document>("commits");
        let which = doc! { "_id.s": checkpoint - 1 };
        let done = commits.delete_one(which).await.expect("delete");
        assert_eq!(done.deleted_count, 1);
    });
    let young = world.command_at(&url, &["verify", "--all"]);
    let said = String::from_utf8_lossy(&young.stdout);
    assert!(
        said.contains("missing") && !young.status.success(),
        "{said}"
    );
    wait_until("what is below the checkpoint may go", || {
        let old = ["verify", "--all", "--set", "history.grace=1s"];
        world.command_at(&url, &old).status.success()
    });
    // A grace later they go all the same.
    let oldest = packs(&world).into_iter().min().expect("packs");
    wait_until("the packs of what was collected go, too", || {
        std::thread::sleep(Duration::from_millis(300));
        write_and_collect(&world, &mut life);
        !packs(&world).contains(&oldest)
    });
    let verified = world.command(&["verify", "--all"]);
    assert!(verified.status.success(), "{verified:?}\n{}", life.log());
    assert_eq!(life.stop().code, 0);
}
