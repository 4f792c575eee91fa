//! A store that loses, under a running watcher, what was committed to it: somebody drops a collection,
//! caps it, deletes from it, or takes the file away. It is noticed, everything is committed anew, and it
//! is never said that all is saved where it could not be restored.

use std::fs;
use std::thread;
use std::time::Duration;

use mongodb::Database;
use mongodb::bson::{Document, doc};

use super::keeper::{Ended, IDLE, Life, Tree, World, wait_until};
use super::mongod::Mongod;
use super::noise::noise;
use super::raw::{give_lease_to, last_seq, on_mongo, on_sqlite};

const LOGIN: &str = r#"{"me":"first"}"#;
const DAMAGED: &str = "the archive's chain is damaged; committing the whole directory anew";
const SAVED: &str = "everything is saved";

/// A life whose archive holds a login, some commits after the checkpoint, and a file in packs.
fn under_way(world: &World, settings: &[&str]) -> Life {
    let mut setup = world.script(IDLE).set("sync.rescan=1h");
    for setting in settings {
        setup = setup.set(setting);
    }
    let life = setup.ready();
    world.write("creds.json", LOGIN);
    world.write("media/large.bin", noise(4 << 20));
    world.wait_until_saved();
    for n in 0..5 {
        world.write("keys/pre-key.json", format!("[{n}]"));
        world.wait_until_stored("keys/pre-key.json", format!("[{n}]"));
    }
    life
}

/// What was said is true: a disk that is wiped now comes back as it was.
#[track_caller]
fn assert_saved(world: &World, ended: &Ended, what: &str) {
    assert_eq!(ended.code, 0, "{what}: {}", ended.log);
    assert!(ended.log.contains(SAVED), "{what}: {}", ended.log);
    let tree = Tree::of(&world.dir());
    assert_eq!(
        world.stored().as_ref(),
        Some(&tree),
        "{what}: {}",
        ended.log
    );
    let verified = world.command(&["verify"]);
    assert!(verified.status.success(), "{what}: {verified:?}");
    world.wipe();
    let life = world.script(IDLE).ready();
    assert_eq!(Tree::of(&world.dir()), tree, "{what}: {}", life.log());
    assert_eq!(life.stop().code, 0);
}

async fn delete(database: Database, collection: &str, which: Document) {
    let done = database
        .collection::<Document>(collection)
        .delete_many(which)
        .await;
    assert!(done.expect("delete").deleted_count > 0, "{collection}");
}

async fn drop_collection(database: Database, collection: &str) {
    let done = database.collection::<Document>(collection).drop().await;
    done.expect("drop");
}

async fn cap(database: Database, collection: &str, size: i64) {
    let command = doc! { "convertToCapped": collection, "size": size };
    database.run_command(command).await.expect("cap");
}

/// What is done to a database, by name.
fn damage_mongo(world: &World, how: &str) {
    let head = last_seq(world);
    on_mongo(&world.url, async |database| match how {
        "commits dropped" => drop_collection(database, "commits").await,
        "head deleted" => delete(database, "commits", doc! { "_id.s": head }).await,
        "middle deleted" => delete(database, "commits", doc! { "_id.s": head - 2 }).await,
        "commits capped" => cap(database, "commits", 4096).await,
        "packs dropped" => {
            drop_collection(database.clone(), "packs.files").await;
            drop_collection(database, "packs.chunks").await;
        }
        "a pack's entry deleted" => delete(database, "packs.files", doc! {}).await,
        "a chunk deleted" => delete(database, "packs.chunks", doc! { "n": 1 }).await,
        "all chunks deleted" => delete(database, "packs.chunks", doc! {}).await,
        "leases dropped" => drop_collection(database, "leases").await,
        "database dropped" => database.drop().await.expect("drop"),
        other => panic!("{other}"),
    });
}

fn damage_sqlite(world: &World, how: &str) {
    let file = world.database_file();
    let beside = |end: &str| file.with_extension(format!("db{end}"));
    let run = |sql: &str| on_sqlite(world, |store| store.execute_batch(sql).expect("run"));
    match how {
        "commits deleted" => run("DELETE FROM commits"),
        "head deleted" => {
            run("DELETE FROM commits WHERE seq = (SELECT max(seq) FROM commits)");
        }
        "packs deleted" => run("DELETE FROM packs"),
        "a pack cut" => run("UPDATE packs SET content = substr(content, 1, 1000)"),
        "leases deleted" => run("DELETE FROM leases"),
        "commits dropped" => run("DROP TABLE commits"),
        "packs dropped" => run("DROP TABLE packs"),
        "leases dropped" => run("DROP TABLE leases; DROP TABLE lease_terms"),
        "file deleted" => {
            for end in ["", "-wal", "-shm"] {
                let _ = fs::remove_file(beside(end));
            }
        }
        "file replaced by an older one" => {
            for end in ["", "-wal", "-shm"] {
                let _ = fs::remove_file(beside(end));
            }
            fs::copy(world.path("older.db"), &file).expect("copy");
        }
        other => panic!("{other}"),
    }
}

const IN_MONGO: [&str; 9] = [
    "commits dropped",
    "head deleted",
    "middle deleted",
    "packs dropped",
    "a pack's entry deleted",
    "a chunk deleted",
    "all chunks deleted",
    "leases dropped",
    "database dropped",
];

const IN_SQLITE: [&str; 10] = [
    "commits deleted",
    "head deleted",
    "packs deleted",
    "commits dropped",
    "packs dropped",
    "leases dropped",
    "a pack cut",
    "leases deleted",
    "file deleted",
    "file replaced by an older one",
];

/// Both stores, with each damage that is done to them.
fn each_damage(mut work: impl FnMut(&World, &str, &dyn Fn())) {
    for how in IN_MONGO {
        let world = World::mongo();
        work(&world, how, &|| damage_mongo(&world, how));
    }
    for how in IN_SQLITE {
        let world = World::sqlite();
        work(&world, how, &|| damage_sqlite(&world, how));
    }
}

fn keep_an_older_copy(world: &World) {
    if world.database_file().exists() {
        on_sqlite(world, |store| {
            let to = world.path("older.db");
            let sql = format!("VACUUM INTO '{}'", to.display());
            store.execute_batch(&sql).expect("copy");
        });
    }
}

#[test]
fn what_vanished_while_changes_come_is_committed_anew_before_it_is_said_that_all_is_saved() {
    each_damage(|world, how, damage| {
        let life = under_way(world, &[]);
        keep_an_older_copy(world);
        world.write("creds.json", r#"{"me":"second"}"#);
        world.wait_until_saved();
        damage();
        world.write("creds.json", r#"{"me":"third"}"#);
        world.write("keys/later.json", "[]");
        let ended = life.stop();
        assert_saved(world, &ended, how);
    });
}

#[test]
fn what_vanished_while_nothing_changed_is_committed_anew_at_the_stop() {
    each_damage(|world, how, damage| {
        let life = under_way(world, &[]);
        keep_an_older_copy(world);
        world.write("creds.json", r#"{"me":"second"}"#);
        world.wait_until_saved();
        damage();
        let ended = life.stop();
        assert_saved(world, &ended, how);
        if !how.starts_with("leases") {
            assert!(ended.log.contains(DAMAGED), "{how}: {}", ended.log);
        }
    });
}

#[test]
fn while_the_gateway_runs_it_is_looked_for_and_told() {
    each_damage(|world, how, damage| {
        let mut life = under_way(world, &["sync.check=300ms", "sync.rescan=500ms"]);
        keep_an_older_copy(world);
        world.write("creds.json", r#"{"me":"second"}"#);
        world.wait_until_saved();
        damage();
        if how.starts_with("leases") {
            life.wait_for("the lease was gone from the store, and is taken again");
        } else {
            life.wait_for(DAMAGED);
            let incidents = world.dir().join(".sessionkeep/incidents.json");
            wait_until("it is told as an incident", || {
                let told = fs::read_to_string(&incidents).unwrap_or_default();
                told.contains("archive_damaged")
            });
        }
        world.wait_until_saved();
        // A power failure is no stop: nothing is said or done any more.
        life.kill_tree();
        let tree = Tree::of(&world.dir());
        world.wipe();
        let life = world.script(IDLE).ready();
        assert_eq!(Tree::of(&world.dir()), tree, "{how}: {}", life.log());
        assert_eq!(life.stop().code, 0);
    });
}

#[test]
fn a_lease_that_is_taken_again_counts_for_a_gateway_that_may_not_outlive_it() {
    let world = World::sqlite();
    let settings = [
        "store.outage=stop",
        "store.timeout=333ms",
        "lease.ttl=2s",
        "lease.renew=300ms",
    ];
    let mut life = under_way(&world, &settings);
    on_sqlite(&world, |store| {
        store.execute("DELETE FROM leases", []).expect("delete");
    });
    life.wait_for("the lease was gone from the store, and is taken again");
    // Longer than the one that was deleted would have lasted.
    thread::sleep(Duration::from_secs(3));
    world.write("creds.json", r#"{"me":"second"}"#);
    world.wait_until_saved();
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert!(!ended.log.contains("lease runs out"), "{}", ended.log);
    assert!(!ended.log.contains("state=standby"), "{}", ended.log);
}

#[test]
fn an_archive_that_goes_on_losing_is_never_called_saved() {
    let world = World::mongo();
    let life = under_way(&world, &["stop.flush=6s", "stop.total=12s"]);
    on_mongo(&world.url, async |database| {
        // Each pack pushes the one before it out.
        cap(database, "packs.chunks", 1 << 20).await;
    });
    world.write("creds.json", r#"{"me":"second"}"#);
    let ended = life.stop();
    assert_eq!(ended.code, 74, "{}", ended.log);
    assert!(!ended.log.contains(SAVED), "{}", ended.log);
    for told in [
        "the archive has lost what was committed",
        "`packs.chunks` is capped",
    ] {
        assert!(ended.log.contains(told), "{told}: {}", ended.log);
    }
    // The directory holds it all, and is kept.
    on_mongo(&world.url, async |database| {
        drop_collection(database, "packs.chunks").await;
    });
    let life = world.script(IDLE).ready();
    assert_eq!(world.read("creds.json"), r#"{"me":"second"}"#);
    world.wait_until_saved();
    let ended = life.stop();
    assert_saved(&world, &ended, "once it is mended");
}

#[test]
fn a_capped_collection_of_commits_loses_no_state_that_was_called_saved() {
    let world = World::mongo();
    let life = under_way(&world, &[]);
    damage_mongo(&world, "commits capped");
    for n in 0..10 {
        world.write("keys/pre-key.json", format!("[{}]", "1,".repeat(n) + "0"));
    }
    let ended = life.stop();
    assert_eq!(ended.code, 74, "{}", ended.log);
    assert!(ended.log.contains("`commits` is capped"), "{}", ended.log);
    // The barrier of a start could push out the very commit that is to be restored.
    let commits = || {
        on_mongo(&world.url, async |database| {
            let commits = database.collection::<Document>("commits");
            commits.count_documents(doc! {}).await.expect("count")
        })
    };
    let before = commits();
    let refused = world.script("touch \"$P/ran\"").run_to_end();
    assert_eq!(refused.code, 78, "{}", refused.log);
    assert!(
        refused.log.contains("`commits` is capped"),
        "{}",
        refused.log
    );
    assert!(!world.path("ran").exists(), "the gateway was started");
    assert_eq!(commits(), before);
    let doctor = world.command(&["doctor"]);
    let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert_eq!(doctor.status.code(), Some(1), "{told}");
    assert!(
        told.contains("FAIL  collections      `commits` is capped"),
        "{told}"
    );
    on_mongo(&world.url, async |database| {
        drop_collection(database, "commits").await;
    });
    let life = world.script(IDLE).ready();
    world.wait_until_saved();
    assert_saved(&world, &life.stop(), "uncapped");
}

#[test]
fn an_index_that_deletes_by_age_is_told_at_the_start_and_by_doctor() {
    for (collection, field) in [
        ("commits", "time"),
        ("leases", "expires"),
        ("packs.files", "uploadDate"),
        ("packs.chunks", "at"),
    ] {
        let world = World::mongo();
        on_mongo(&world.url, async |database| {
            let index =
                doc! { "key": { field: 1 }, "name": "by_age", "expireAfterSeconds": 3_000_000 };
            let command = doc! { "createIndexes": collection, "indexes": [index] };
            database.run_command(command).await.expect("an index");
        });
        let life = world.script(IDLE).ready();
        let told =
            format!("`{collection}` has the index `by_age`, which deletes documents by their age");
        assert!(life.log().contains(&told), "{}", life.log());
        let doctor = world.command(&["doctor"]);
        let words = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert_eq!(doctor.status.code(), Some(1), "{words}");
        assert!(words.contains(&told), "{words}");
        assert!(words.contains("dropIndex(\"by_age\")"), "{words}");
        assert_eq!(life.stop().code, 0);
    }
}

#[test]
fn a_vanished_head_is_no_other_owner_and_another_owner_is_no_vanished_head() {
    for world in World::both() {
        let mut life = under_way(&world, &["lease.renew=500ms"]);
        give_lease_to(&world, "somebody-else");
        match world.url.starts_with("mongodb") {
            true => damage_mongo(&world, "head deleted"),
            false => damage_sqlite(&world, "head deleted"),
        }
        let head = last_seq(&world);
        assert_eq!(life.code(), 75, "{}", life.log());
        assert_eq!(last_seq(&world), head, "{}", life.log());
    }
}

#[test]
fn a_start_without_a_table_makes_it_anew_and_saves_the_directory() {
    for table in ["commits", "packs", "leases"] {
        let world = World::sqlite();
        assert_eq!(under_way(&world, &[]).stop().code, 0);
        on_sqlite(&world, |store| {
            store
                .execute_batch(&format!("DROP TABLE {table}"))
                .expect("drop");
        });
        let life = world.script(IDLE).ready();
        assert_eq!(world.read("creds.json"), LOGIN, "{table}: {}", life.log());
        world.write("creds.json", r#"{"me":"second"}"#);
        let ended = life.stop();
        assert_saved(&world, &ended, table);
    }
}

#[test]
fn a_truncated_sqlite_file_is_never_called_saved_unless_it_is() {
    for to in [0, 1000, 4096, 40_000] {
        let world = World::sqlite();
        let life = under_way(&world, &["stop.flush=3s", "stop.total=8s"]);
        let file = fs::OpenOptions::new()
            .write(true)
            .open(world.database_file());
        file.expect("open").set_len(to).expect("cut");
        world.write("creds.json", r#"{"me":"second"}"#);
        let ended = life.stop();
        if ended.code == 0 {
            assert_saved(&world, &ended, &format!("cut to {to}"));
        } else {
            assert_eq!(ended.code, 74, "cut to {to}: {}", ended.log);
            assert!(!ended.log.contains(SAVED), "cut to {to}: {}", ended.log);
        }
    }
}

#[test]
fn an_ordinary_commit_is_one_insert_and_nothing_else() {
    let mongod = Mongod::start();
    let world = World::at(mongod.new_database_url());
    let life = world
        .script(IDLE)
        .set("lease.ttl=90s")
        .set("lease.renew=30s")
        .set("sync.rescan=1h")
        .ready();
    world.write("creds.json", LOGIN);
    world.wait_until_saved();
    let counted = || {
        on_mongo(&world.url, async |database| {
            let status = database.run_command(doc! { "serverStatus": 1 }).await;
            let status = status.expect("answers");
            let counters = status.get_document("opcounters").expect("counters").clone();
            ["insert", "query", "update", "delete", "getmore"].map(|name| {
                counters
                    .get_i64(name)
                    .or_else(|_| counters.get_i32(name).map(i64::from))
                    .expect("a counter")
            })
        })
    };
    let head = || last_seq(&world);
    let (before, first) = (counted(), head());
    const COMMITS: i64 = 20;
    for n in 1..=COMMITS {
        world.write("creds.json", format!(r#"{{"me":{n}}}"#));
        let wanted = first + n;
        wait_until("it is committed", || head() >= wanted);
    }
    let after = counted();
    let inserts = after[0] - before[0];
    assert_eq!(inserts, head() - first, "{before:?} {after:?}");
    assert_eq!(after[3] - before[3], 0, "{before:?} {after:?}");
    assert!(after[2] - before[2] <= 3, "{before:?} {after:?}");
    assert_eq!(life.stop().code, 0);
}
