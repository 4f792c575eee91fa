//! Where nothing changes, nothing is done: no write to the store but the lease's, and no snapshot
//! of a database that causes the next.

use std::thread;
use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};

use super::keeper::{IDLE, World, example_gateway, free_port, http, http_json, wait_until};
use super::mongod::Mongod;
use super::raw::on_mongo;

/// How long nothing happens.
const IDLE_FOR: Duration = Duration::from_secs(10);

/// Processor time that a process has used, in hundredths of a second.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, rest) = stat.rsplit_once(')').expect("a name in parentheses");
    let used = rest.split_whitespace().skip(11).take(2);
    used.map(|n| n.parse::<u64>().expect("a number")).sum()
}

#[test]
fn a_database_in_wal_mode_that_nobody_writes_to_comes_to_rest() {
    let world = World::mongo();
    let (gateway_port, port) = (free_port(), free_port());
    let (gateway, dir) = (example_gateway(), world.dir());
    let words = [
        gateway.to_str().expect("text"),
        "--dir",
        dir.to_str().expect("text"),
        "--port",
        &gateway_port.to_string(),
    ];
    let life = world
        .gateway(&words)
        .set(&format!("http.port={port}"))
        // What renewals cost is measured elsewhere, and is much in a development build.
        .set("lease.ttl=90s")
        .set("lease.renew=30s")
        .ready();
    wait_until("the gateway answers", || {
        http("POST", gateway_port, "/send?n=5").is_some()
    });
    let saved = || {
        http_json("GET", port, "/status").is_some_and(|s| s["lag_seconds"].as_f64() == Some(0.0))
    };
    wait_until("all is saved", saved);
    // Being at rest, it stays there: each look would find something waiting otherwise. A scan, as it comes
    // now and then, is found by one or two.
    let watcher = life.process("watcher");
    wait_until("it stays at rest", || {
        // From here, and not from when all was saved first: that is true too where the last message was
        // written and not yet noticed.
        let (head, begun, mut busy) = (world.head(), Instant::now(), 0);
        while begun.elapsed() < Duration::from_secs(5) {
            busy += usize::from(!saved());
            thread::sleep(Duration::from_millis(50));
        }
        // A snapshot that causes the next costs a tenth of a core, and so may answering so many looks.
        let used = ticks(watcher);
        thread::sleep(Duration::from_secs(5));
        let at_rest = world.head() == head;
        at_rest && busy <= 2 && ticks(watcher) - used <= 25
    });
    assert_eq!(life.stop().code, 0);
}

#[test]
fn where_nothing_changes_nothing_is_written_but_the_lease() {
    // Its own, since all that is counted is the server's.
    let mongod = Mongod::start();
    let world = World::at(mongod.new_database_url());
    world.write("creds.json", "{}");
    world.write("deep/key.json", "{}");
    let life = world
        .script(IDLE)
        .set("lease.ttl=15s")
        .set("lease.renew=2s")
        .set("sync.rescan=1s")
        .ready();
    world.wait_until_saved();
    // What is listened to must hold something, and the first who listens puts it there.
    wait_until("there is a notice", || {
        on_mongo(&world.url, async |database| {
            let notices = database.collection::<Document>("bells");
            notices
                .estimated_document_count()
                .await
                .is_ok_and(|n| n > 0)
        })
    });
    let profile = |level: i32| {
        on_mongo(&world.url, async |database| {
            let done = database
                .run_command(doc! { "profile": level, "slowms": 0 })
                .await;
            done.expect("switch the profiler");
        });
    };
    profile(2);
    thread::sleep(IDLE_FOR);
    profile(0);
    let mut written: Vec<Document> = on_mongo(&world.url, async |database| {
        let seen = database.collection::<Document>("system.profile");
        let writes = doc! { "op": { "$in": ["insert", "update", "remove", "command"] } };
        let mut found = seen.find(writes).await.expect("find");
        let mut all = Vec::new();
        while found.advance().await.expect("read") {
            all.push(found.deserialize_current().expect("a document"));
        }
        all
    });
    let is_write = |entry: &Document| {
        let changes = [
            "findAndModify",
            "findandmodify",
            "insert",
            "update",
            "delete",
            "create",
        ];
        let is_command = entry.get_str("op").is_ok_and(|op| op == "command");
        let command = entry.get_document("command").ok();
        !is_command || command.is_some_and(|c| changes.iter().any(|name| c.contains_key(name)))
    };
    written.retain(is_write);
    let (lease, other): (Vec<_>, Vec<_>) = written
        .iter()
        .partition(|entry| entry.get_str("ns").is_ok_and(|ns| ns.ends_with(".leases")));
    assert!(other.is_empty(), "{other:?}");
    assert!(
        (3..=7).contains(&lease.len()),
        "{} renewals in {IDLE_FOR:?}",
        lease.len()
    );
    assert_eq!(life.stop().code, 0);
}
