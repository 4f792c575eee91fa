//! The database goes away under load and comes back: durability suffers, visibly; the gateway
//! does not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::keeper::{IDLE, World, example_gateway, free_port, http, http_json, wait_until};
use super::line::Line;
use super::mongod::Mongod;
use super::noise::noise;
use super::proxy::Mode;

/// How long the database is away.
const OUTAGE: Duration = Duration::from_secs(30);

#[test]
fn a_stop_while_the_store_is_waited_for_is_immediate_and_starts_no_gateway() {
    // Nobody listens there: the port was free a moment ago.
    let world = World::at(format!("mongodb://127.0.0.1:{}/x", free_port()));
    let mut life = world.script("touch \"$P/ran\"").start();
    life.wait_for("waiting for the store");
    let ended = life.stop();
    assert_eq!(ended.code, 143, "{}", ended.log);
    assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
    assert!(!world.path("ran").exists(), "{}", ended.log);
    assert!(!world.dir().join(".sessionkeep/state.json").exists());
}

#[test]
fn a_restore_that_the_store_does_not_answer_to_its_end_is_begun_anew() {
    let world = World::mongo();
    let life = world.script(IDLE).ready();
    world.write("creds.json", r#"{"me":1}"#);
    world.write("large.bin", noise(8 << 20));
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
    world.wipe();
    let line = Line::to(&world);
    // Small answers come in time, and pieces of a pack do not.
    line.set(Mode::Bandwidth(100_000));
    let mut life = world
        .script(IDLE)
        .env("MONGO_URL", line.url.clone())
        .set("store.timeout=1s")
        .start();
    life.wait_for("the store stopped answering; starting over");
    line.set(Mode::Pass);
    life.wait_for("watcher is ready");
    assert_eq!(world.read("creds.json"), r#"{"me":1}"#);
    world.wait_until_saved();
    drop(life);
}

#[test]
fn thirty_seconds_without_the_database_under_load_lose_nothing_and_disturb_nobody() {
    let mongod = Mongod::start();
    let world = World::at(mongod.new_database_url());
    let (gateway_port, health_port) = (free_port(), free_port());
    let gateway = example_gateway();
    let probe = format!("gateway.probe=http://127.0.0.1:{gateway_port}/ping");
    let port = gateway_port.to_string();
    let dir = world.dir();
    let command = [
        gateway.to_str().expect("text"),
        "--dir",
        dir.to_str().expect("text"),
        "--port",
        &port,
    ];
    let life = world
        .gateway(&command)
        .set(&format!("http.port={health_port}"))
        .set(&probe)
        .ready();
    wait_until("the gateway answers", || {
        http("GET", gateway_port, "/ping").is_some()
    });
    let identity =
        http_json("GET", gateway_port, "/identity").expect("an answer")["identity"].clone();
    let pid = life.process("gateway");

    let over = AtomicBool::new(false);
    let (before, sent, longest) = thread::scope(|scope| {
        // Or a failed assertion would leave the load running for ever.
        let _ends = EndsLoad(&over);
        let load = scope.spawn(|| {
            let (mut sent, mut longest) = (0, Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let answer =
                    http_json("POST", gateway_port, "/send?n=1").expect("it answers always");
                sent = answer["messages"].as_u64().expect("a number");
                longest = longest.max(begun.elapsed());
                thread::sleep(Duration::from_millis(50));
            }
            (sent, longest)
        });
        wait_until("the load is committed", || world.changes().len() > 3);
        mongod.stop();
        let before = {
            let begun = Instant::now();
            let mut seen = Vec::new();
            while begun.elapsed() < OUTAGE {
                seen.push((begun.elapsed(), http_json("GET", health_port, "/health")));
                thread::sleep(Duration::from_secs(1));
            }
            check_lag(&seen);
            let told = world.command(&[
                "status",
                "--json",
                "--set",
                &format!("http.port={health_port}"),
            ]);
            let told: Value = serde_json::from_slice(&told.stdout).expect("JSON");
            assert_eq!(told["running"]["store_reachable"], false, "{told}");
            assert!(
                told["running"]["lag_seconds"].as_f64() > Some(20.0),
                "{told}"
            );
            assert!(told["stored"]["error"].is_string(), "{told}");
            begun
        };
        // Quiet before the database is back, so that all after it is catching up.
        over.store(true, Ordering::Relaxed);
        let (sent, longest) = load.join().expect("the load");
        (before, sent, longest)
    });
    assert!(before.elapsed() >= OUTAGE);
    assert!(
        longest < Duration::from_secs(5),
        "one message took {longest:?}"
    );
    let marked = life.log().matches("committed seq=").count();
    mongod.start_again();

    wait_until("all is saved", || {
        http_json("GET", health_port, "/health")
            .is_some_and(|h| h["store_reachable"] == true && h["lag_seconds"].as_f64() == Some(0.0))
    });
    let caught_up = life.log().matches("committed seq=").count() - marked;
    assert!(
        caught_up <= 1,
        "{caught_up} commits to catch up:\n{}",
        life.log()
    );
    let log = life.log();
    let after_outage = &log[log.find("changes cannot be saved now").expect("it is said")..];
    let pending = after_outage
        .matches("whose answer was lost is in the store")
        .count();
    let all = after_outage.matches("committed seq=").count() + pending;
    assert!((1..=2).contains(&all), "{after_outage}");
    assert_eq!(life.process("gateway"), pid);
    assert_eq!(log.matches("started role=gateway").count(), 1);
    assert_eq!(log.matches("started role=watcher").count(), 1);
    let numbers: Vec<u64> = world
        .log()
        .iter()
        .rev()
        .map(|c| c["seq"].as_u64().expect("seq"))
        .collect();
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{numbers:?}"
    );

    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    let stored = world.stored().expect("a tree");
    let creds: Value = serde_json::from_str(stored.text("creds.json")).expect("JSON");
    assert_eq!(creds["identity"], identity);
    assert_eq!(creds["messages"], sent + 3, "with the three last words");
}

struct EndsLoad<'a>(&'a AtomicBool);

impl Drop for EndsLoad<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The lag must be seen to grow, and the store to be away.
fn check_lag(seen: &[(Duration, Option<Value>)]) {
    let lags: Vec<f64> = seen
        .iter()
        .filter(|(at, _)| *at > Duration::from_secs(10))
        .map(|(_, health)| {
            let health = health.as_ref().expect("health is answered all the time");
            assert_eq!(health["store_reachable"], false, "{health}");
            health["lag_seconds"].as_f64().expect("a number")
        })
        .collect();
    assert!(lags.len() > 5, "{lags:?}");
    assert!(lags.windows(2).all(|pair| pair[1] > pair[0]), "{lags:?}");
}
