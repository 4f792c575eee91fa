//! A store that can be read and takes no writes: over its quota, on a full disk, or one that we may only
//! read. It is told by its name; and where `store.unreachable: local` says so, a start goes on where
//! nobody else can have the session.

use std::fs;
use std::path::Path;

use super::keeper::{IDLE, Setup, Tree, World, send, wait_until};
use super::mongod::{Mongod, Rights, User};
use super::noise::noise;
use super::raw::on_mongo;
use super::refusing::{BLOCKED, DISK_FULL, QUOTA, Refusing};
use super::small::Small;

const LOGIN: &str = r#"{"me":"first"}"#;
const UNOWNED: &str = "starting without owning the session, since the store takes no writes";

/// A world in MongoDB whose last life has ended in order, and what stands before its store.
fn saved() -> (World, Refusing) {
    let world = World::mongo();
    let life = world.script(IDLE).ready();
    world.write("creds.json", LOGIN);
    world.write("media/large.bin", noise(2 << 20));
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
    let before = Refusing::before(&world);
    (world, before)
}

fn through<'a>(world: &'a World, before: &Refusing, script: &str) -> Setup<'a> {
    world
        .script(script)
        .env("MONGO_URL", before.url.clone())
        .set("store.wait=1s")
}

#[test]
fn a_start_that_may_not_go_on_says_that_it_is_the_quota() {
    for (refusal, told) in [
        (
            QUOTA,
            "it is over its space quota; delete what is not needed (`sessionkeep usage`",
        ),
        (
            DISK_FULL,
            "its disk is full; make room there (`sessionkeep usage`",
        ),
        (BLOCKED, "writes to it are blocked; ask who runs it"),
    ] {
        let (world, before) = saved();
        before.refuse(refusal);
        let ended = through(&world, &before, "touch \"$P/ran\"").run_to_end();
        assert_eq!(ended.code, 69, "{}", ended.log);
        for words in [told, refusal.words, "takes no writes"] {
            assert!(ended.log.contains(words), "{words}: {}", ended.log);
        }
        assert!(!ended.log.contains("did not become ready"), "{}", ended.log);
        assert!(!world.path("ran").exists(), "the gateway was started");
        let incidents = fs::read_to_string(world.dir().join(".sessionkeep/incidents.json"));
        assert!(incidents.expect("one").contains("writes_refused"));
        let doctor = world.command_at(&before.url, &["doctor"]);
        let words = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert_eq!(doctor.status.code(), Some(1), "{words}");
        let remedy = told.split_once("; ").expect("a remedy").1;
        assert!(words.contains(remedy), "{words}");
    }
}

#[test]
fn a_known_directory_is_kept_and_saved_once_writes_work_again() {
    let (world, before) = saved();
    before.refuse(QUOTA);
    let mut life = through(&world, &before, IDLE)
        .set("store.unreachable=local")
        .start();
    life.wait_for("the gateway idles\n");
    assert!(life.log().contains(UNOWNED), "{}", life.log());
    assert_eq!(world.read("creds.json"), LOGIN);
    world.write("creds.json", r#"{"me":"second"}"#);
    life.wait_for("changes cannot be saved now; the gateway goes on");
    assert!(
        life.log().contains("over its space quota"),
        "{}",
        life.log()
    );
    before.allow();
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
    assert!(world.replaced().is_empty());
}

#[test]
fn an_empty_directory_is_restored_where_the_last_owner_let_the_session_go() {
    let (world, before) = saved();
    let tree = Tree::of(&world.dir());
    world.wipe();
    before.refuse(QUOTA);
    let mut life = through(&world, &before, IDLE)
        .set("store.unreachable=local")
        .start();
    life.wait_for("the gateway idles\n");
    assert_eq!(Tree::of(&world.dir()), tree, "{}", life.log());
    // Another start in the same place, still without a word that can be written.
    world.write("creds.json", r#"{"me":"second"}"#);
    life.kill_tree();
    let mut life = through(&world, &before, IDLE)
        .set("store.unreachable=local")
        .start();
    life.wait_for("the gateway idles\n");
    assert_eq!(world.read("creds.json"), r#"{"me":"second"}"#);
    before.allow();
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
}

#[test]
fn beside_an_owner_that_may_be_alive_nothing_is_started() {
    let world = World::mongo();
    let before = Refusing::before(&world);
    let owner = through(&world, &before, IDLE).ready();
    world.write("creds.json", LOGIN);
    world.wait_until_saved();
    before.refuse(QUOTA);
    let elsewhere = |outage: &str| {
        through(&world, &before, "touch \"$P/ran\"")
            .dir(world.path("elsewhere"))
            .set("store.unreachable=local")
            .set(outage)
    };
    let is_over = || {
        let lease = world.json(&["lease", "--json"]);
        lease["lease"]["remaining_seconds"].as_f64() == Some(0.0)
    };
    // While its lease runs, and when it has run out, since it could not be renewed.
    for _ in 0..2 {
        let ended = elsewhere("store.outage=keep-running").run_to_end();
        assert_eq!(ended.code, 69, "{}", ended.log);
        assert!(ended.log.contains("may still be running"), "{}", ended.log);
        assert!(!world.path("ran").exists(), "a second gateway was started");
        wait_until("the lease has run out", is_over);
    }
    send(owner.process("gateway"), 0);
    owner.kill_tree();
    // Where every owner stops its gateway by then, it is gone.
    let ended = elsewhere("store.outage=stop")
        .set("lease.ttl=30s")
        .run_to_end();
    assert!(ended.log.contains(UNOWNED), "{}", ended.log);
    assert!(world.path("ran").exists(), "{}", ended.log);
    assert_eq!(
        fs::read_to_string(world.path("elsewhere/creds.json")).expect("restored"),
        LOGIN
    );
}

#[test]
fn where_nothing_is_stored_nothing_is_started() {
    let world = World::mongo();
    let before = Refusing::before(&world);
    before.refuse(QUOTA);
    for with_files in [false, true] {
        if with_files {
            world.write("creds.json", LOGIN);
        }
        let ended = through(&world, &before, "touch \"$P/ran\"")
            .set("store.unreachable=local")
            .run_to_end();
        assert_eq!(ended.code, 69, "{}", ended.log);
        assert!(ended.log.contains("over its space quota"), "{}", ended.log);
        assert!(!world.path("ran").exists(), "the gateway was started");
    }
}

#[test]
fn a_quota_that_is_reached_while_the_gateway_runs_is_told_and_at_the_end_an_exit_code() {
    let (world, before) = saved();
    let mut life = through(&world, &before, IDLE)
        .set("stop.flush=2s")
        .set("stop.total=6s")
        .ready();
    before.refuse(QUOTA);
    world.write("creds.json", r#"{"me":"second"}"#);
    life.wait_for("changes cannot be saved now; the gateway goes on");
    let incidents = world.dir().join(".sessionkeep/incidents.json");
    wait_until("it is told as an incident", || {
        fs::read_to_string(&incidents).is_ok_and(|told| told.contains("writes_refused"))
    });
    let ended = life.stop();
    assert_eq!(ended.code, 74, "{}", ended.log);
    assert!(!ended.log.contains("everything is saved"), "{}", ended.log);
    let last = ended.log.lines().rfind(|line| line.contains("NOT saved"));
    assert!(
        last.is_some_and(|line| line.contains("did not take them in time: ")),
        "{}",
        ended.log
    );
    before.allow();
    let life = through(&world, &before, IDLE).ready();
    world.wait_until_saved();
    wait_until("the incident is over", || {
        fs::read_to_string(&incidents).is_ok_and(|told| !told.contains(r#""until_ms":null"#))
    });
    assert_eq!(world.read("creds.json"), r#"{"me":"second"}"#);
    assert_eq!(life.stop().code, 0);
}

#[test]
fn a_user_that_may_only_read_can_start_on_what_is_there() {
    let mut mongod = Mongod::start();
    let mut world = World::at(mongod.url("wa"));
    let life = world.script(IDLE).ready();
    world.write("creds.json", LOGIN);
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
    let user = User {
        name: "reader".into(),
        password: "a-word".into(),
        database: "wa".into(),
        rights: Rights::Read,
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(mongod.demand_login(&user));
    world.url = format!("mongodb://reader:a-word@127.0.0.1:{}/wa", mongod.port());
    world.wipe();
    let ended = world.script("touch \"$P/ran\"").run_to_end();
    assert_eq!(ended.code, 78, "{}", ended.log);
    assert!(!world.path("ran").exists(), "the gateway was started");
    let mut life = world.script(IDLE).set("store.unreachable=local").start();
    life.wait_for("the gateway idles\n");
    assert!(life.log().contains(UNOWNED), "{}", life.log());
    assert_eq!(world.read("creds.json"), LOGIN);
    drop(life);
    // A wrong password is no right to read.
    let wrong = format!("mongodb://reader:other@127.0.0.1:{}/wa", mongod.port());
    let ended = world
        .script("touch \"$P/ran\"")
        .env("MONGO_URL", wrong)
        .set("store.unreachable=local")
        .run_to_end();
    assert_eq!(ended.code, 78, "{}", ended.log);
    assert!(!world.path("ran").exists(), "the gateway was started");
}

/// A world whose SQLite store is in a file system of its own.
fn in_small(options: &str) -> Option<(World, Small)> {
    let mut world = World::at("");
    let place = world.path("store");
    world.url = format!("sqlite:{}", place.join("archive.db").display());
    let mounted = Small::mount(&place, options)?;
    let life = world.script(IDLE).ready();
    world.write("creds.json", LOGIN);
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
    Some((world, mounted))
}

fn fill(place: &Path) {
    let mut len = 1 << 20;
    let mut n = 0;
    while len > 0 {
        n += 1;
        if fs::write(place.join(format!("filler-{n}")), vec![b'x'; len]).is_err() {
            len /= 2;
        }
    }
}

#[test]
fn a_full_disk_under_an_sqlite_store_is_told_and_started_upon() {
    let Some((world, _mounted)) = in_small("size=4m") else {
        return;
    };
    let place = world.path("store");
    fill(&place);
    let start = |script: &str| world.script(script).set("store.wait=1s");
    let ended = start("touch \"$P/ran\"").run_to_end();
    assert_eq!(ended.code, 69, "{}", ended.log);
    assert!(ended.log.contains("its disk is full"), "{}", ended.log);
    assert!(!world.path("ran").exists(), "the gateway was started");
    world.wipe();
    let mut life = start(IDLE).set("store.unreachable=local").start();
    life.wait_for("the gateway idles\n");
    assert!(life.log().contains(UNOWNED), "{}", life.log());
    assert_eq!(world.read("creds.json"), LOGIN);
    world.write("creds.json", r#"{"me":"second"}"#);
    life.wait_for("changes cannot be saved now; the gateway goes on");
    for filler in fs::read_dir(&place).expect("list").flatten() {
        if filler.file_name().to_string_lossy().starts_with("filler-") {
            fs::remove_file(filler.path()).expect("remove");
        }
    }
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
}

#[test]
fn an_sqlite_store_on_a_read_only_file_system_is_told_and_started_upon() {
    let Some((world, _mounted)) = in_small("size=4m") else {
        return;
    };
    let read_only = Small::read_only(&world.path("store"));
    let ended = world.script("touch \"$P/ran\"").run_to_end();
    assert_eq!(ended.code, 78, "{}", ended.log);
    assert!(ended.log.contains("mount it writable"), "{}", ended.log);
    assert!(!world.path("ran").exists(), "the gateway was started");
    world.wipe();
    let mut life = world.script(IDLE).set("store.unreachable=local").start();
    life.wait_for("the gateway idles\n");
    assert!(life.log().contains(UNOWNED), "{}", life.log());
    assert_eq!(world.read("creds.json"), LOGIN);
    drop(read_only);
    world.write("creds.json", r#"{"me":"second"}"#);
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
}

#[test]
fn usage_lists_what_takes_the_room_and_what_could_go() {
    let (world, before) = saved();
    let life = through(&world, &before, IDLE)
        .env("SESSIONKEEP_ARCHIVE", "second")
        .dir(world.path("second"))
        .ready();
    assert_eq!(life.stop().code, 0);
    // Reading needs no room.
    before.refuse(QUOTA);
    let output = world.command_at(&before.url, &["usage", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let usage: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let archives = usage["archives"].as_array().expect("a list");
    let names: Vec<_> = archives.iter().map(|a| a["archive"].as_str()).collect();
    assert_eq!(names, [Some("default"), Some("second")], "{usage}");
    let first = &archives[0];
    let number = |field: &str| first[field].as_u64().expect("a number");
    assert!(number("pack_bytes") >= 1 << 20, "{usage}");
    assert_eq!(
        number("bytes"),
        number("pack_bytes") + number("commit_bytes")
    );
    let (commits, packs) = on_mongo(&world.url, async |database| {
        let count = async |name: &str, which| {
            let all = database.collection::<mongodb::bson::Document>(name);
            all.count_documents(which).await.expect("count")
        };
        (
            count("commits", mongodb::bson::doc! { "_id.a": "default" }).await,
            count("packs.files", mongodb::bson::doc! {}).await,
        )
    });
    assert_eq!((number("commits"), number("packs")), (commits, packs));
    let output = world.command_at(&before.url, &["usage"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        told.contains("second: an archive of another session"),
        "{told}"
    );
}
