//! Every path in every state of the lifecycle that lasts long enough to be asked in.

use std::fs;
use std::time::{Duration, Instant};

use super::ask::{get, try_get};
use super::keeper::{IDLE, Life, World, free_port, wait_until};
use super::line::Line;
use super::proxy::Mode;
use super::raw::give_lease_to;

const LOGIN: &str = r#"{"me":{"id":"49150@s.whatsapp.net"}}"#;

/// What is expected of a state.
struct Expected {
    state: &'static str,
    health: (u16, &'static str),
    ready: u16,
}

/// Asks everything, and again where the state has moved on meanwhile.
#[track_caller]
fn everything_answers(port: u16, expected: &Expected) {
    let state = expected.state;
    let begun = Instant::now();
    loop {
        let now = |path: &str| try_get(port, path, &[]);
        let is_so = || now("/status").is_some_and(|answer| answer.json()["state"] == state);
        wait_until(&format!("the state is {state}"), is_so);
        let health = get(port, "/health", &[]);
        let others: Vec<(&str, u16)> = [
            ("/livez", 200),
            ("/readyz", expected.ready),
            ("/status", 200),
            ("/history", 200),
            ("/openapi.json", 200),
            ("/", 200),
            ("/page.js", 200),
            ("/page.css", 200),
            ("/icon.svg", 200),
            ("/nothing", 404),
            ("/sessions/x/qr", 404),
        ]
        .into();
        let codes: Vec<(&str, u16)> = others
            .iter()
            .map(|(path, _)| (*path, get(port, path, &[]).code))
            .collect();
        let metrics = get(port, "/metrics", &[]).text();
        let events = first_event(port);
        // All of it counts only where it was one state.
        if is_so() {
            let body = health.json();
            assert_eq!(
                (health.code, body["status"].as_str()),
                (expected.health.0, Some(expected.health.1)),
                "{body}"
            );
            assert_eq!(body["state"], state, "{body}");
            assert_eq!(body["component"], "sessionkeep");
            for check in ["store", "lease", "gateway", "lag", "disk"] {
                assert!(
                    body["checks"][check]["status"].is_string(),
                    "{check} in {body}"
                );
            }
            assert!(body["data"]["sessions"]["count"].is_u64(), "{body}");
            assert_eq!(codes, others, "in {state}");
            let line = format!("sessionkeep_state{{state=\"{state}\"}} 1.0");
            assert!(metrics.contains(&line), "{line} in {metrics}");
            assert_eq!(events["state"], state);
            return;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{state} never lasts"
        );
    }
}

/// The first that a watcher of the page is told.
fn first_event(port: u16) -> serde_json::Value {
    use std::io::{BufRead, BufReader, Write};
    let mut stream = super::ask::connect(port).expect("connect");
    write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("ask");
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    let data = lines
        .filter_map(|line| line.strip_prefix("data: ").map(str::to_owned))
        .next()
        .expect("an event");
    serde_json::from_str(&data).expect("JSON")
}

/// A mebibyte that does not compress.
fn random(seed: u64) -> Vec<u8> {
    let mut chance = fastrand::Rng::with_seed(seed);
    (0..1 << 20).map(|_| chance.u8(..)).collect()
}

fn set(port: u16) -> String {
    format!("http.port={port}")
}

const WELL: (u16, &str) = (200, "ok");

#[test]
fn while_the_store_is_waited_for_and_then_while_the_gateway_runs() {
    let world = World::mongo();
    let line = Line::to(&world);
    line.set(Mode::Refuse);
    let port = free_port();
    let life = world
        .script(IDLE)
        .env("MONGO_URL", line.url.clone())
        .set(&set(port))
        .set("store.wait=60s")
        .start();
    everything_answers(
        port,
        &Expected {
            state: "restoring",
            health: (200, "starting"),
            ready: 503,
        },
    );
    line.set(Mode::Pass);
    everything_answers(
        port,
        &Expected {
            state: "running",
            health: WELL,
            ready: 200,
        },
    );
    // The gateway is up a moment before the watcher has seen the store for the first time.
    wait_until("the store is known to answer", || {
        get(port, "/health", &[]).json()["database"] == "connected"
    });
    assert_eq!(life.stop().code, 0);
}

#[test]
fn while_the_gateway_starts_and_while_it_is_down_between_two_starts() {
    let world = World::sqlite();
    let (port, silent) = (free_port(), free_port());
    let life = world
        .script("while [ ! -e \"$P/end\" ]; do sleep 0.05; done; rm \"$P/end\"; exit 1")
        .set(&set(port))
        .set(&format!("gateway.probe=http://127.0.0.1:{silent}/"))
        .set("restart.policy=always")
        .start();
    everything_answers(
        port,
        &Expected {
            state: "starting",
            health: (200, "starting"),
            ready: 503,
        },
    );
    // The pauses between starts grow with each: one of them lasts long enough.
    let end = world.path("end");
    let begun = Instant::now();
    loop {
        let _ = fs::write(&end, "");
        let status = try_get(port, "/status", &[]).map(|answer| answer.json());
        let restarts = status.and_then(|status| status["gateway_restarts"].as_u64());
        if restarts >= Some(2) {
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "it is not started again"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = fs::write(&end, "");
    everything_answers(
        port,
        &Expected {
            state: "backoff",
            health: WELL,
            ready: 503,
        },
    );
    let _ = life.stop();
}

#[test]
fn while_the_gateway_stops_and_while_the_last_changes_are_saved() {
    let world = World::mongo();
    let line = Line::to(&world);
    let port = free_port();
    let script = "trap 'while [ ! -e \"$P/go\" ]; do sleep 0.05; done; echo 1 > last; exit 0' TERM; echo the gateway idles; sleep 1000 & wait";
    let mut life = world
        .script(script)
        .env("MONGO_URL", line.url.clone())
        .set(&set(port))
        .start();
    life.wait_for("the gateway idles\n");
    life.wait_for("watcher is ready");
    world.write("creds.json", LOGIN);
    world.wait_until_saved();
    life.signal(libc::SIGTERM);
    everything_answers(
        port,
        &Expected {
            state: "stopping",
            health: WELL,
            ready: 503,
        },
    );
    line.set(Mode::BlackHole);
    fs::write(world.path("go"), "").expect("write");
    everything_answers(
        port,
        &Expected {
            state: "flushing",
            health: WELL,
            ready: 503,
        },
    );
    line.set(Mode::Pass);
    let ended = life.end();
    assert!([0, 74].contains(&ended.code), "{}", ended.log);
}

#[test]
fn in_standby_and_after_another_has_taken_over() {
    let world = World::sqlite();
    let first = world.script(IDLE).ready();
    world.write("creds.json", LOGIN);
    world.wait_until_saved();
    let port = free_port();
    let second = world
        .script(IDLE)
        .dir(world.path("elsewhere"))
        .set(&set(port))
        .set("lease.conflict=wait")
        .start();
    everything_answers(
        port,
        &Expected {
            state: "standby",
            health: (200, "standby"),
            ready: 503,
        },
    );
    assert_eq!(first.stop().code, 0);
    everything_answers(
        port,
        &Expected {
            state: "running",
            health: WELL,
            ready: 200,
        },
    );
    give_lease_to(&world, "somebody-else");
    let ended = second.end();
    assert_eq!(ended.code, 75, "{}", ended.log);
}

#[test]
fn in_file_mode_where_nothing_is_saved_elsewhere() {
    let world = World::sqlite();
    let port = free_port();
    let life = world
        .script(IDLE)
        .without_env("MONGO_URL")
        .env("MONGO_ENABLED", "false")
        .set(&set(port))
        .ready();
    everything_answers(
        port,
        &Expected {
            state: "running",
            health: WELL,
            ready: 200,
        },
    );
    let health = get(port, "/health", &[]).json();
    assert_eq!(health["database"], "none");
    assert_eq!(health["checks"]["store"]["status"], "off");
    assert_eq!(life.stop().code, 0);
}

#[test]
fn how_far_a_restore_has_come_is_told_while_it_is_under_way() {
    let world = World::mongo();
    let life = world.script(IDLE).ready();
    for n in 0..40 {
        world.write(&format!("f{n}"), random(n));
    }
    world.wait_until_saved();
    assert_eq!(life.stop().code, 0);
    world.wipe();
    let line = Line::to(&world);
    line.set(Mode::Bandwidth(4 << 20));
    let port = free_port();
    let life = world
        .script(IDLE)
        .env("MONGO_URL", line.url.clone())
        .set(&set(port))
        .start();
    let mut seen = Vec::new();
    wait_until("a part of it is there", || {
        let health = try_get(port, "/health", &[]).map(|answer| answer.json());
        let restore = health
            .map(|health| health["restore"].clone())
            .unwrap_or_default();
        let share = restore["bytes"].as_f64().unwrap_or(0.0)
            / restore["bytes_total"].as_f64().unwrap_or(1.0);
        seen.push(share);
        share > 0.2 && share < 1.0
    });
    line.set(Mode::Pass);
    running(&life, port);
    assert_eq!(life.stop().code, 0);
}

fn running(life: &Life, port: u16) {
    wait_until("the gateway runs", || {
        try_get(port, "/readyz", &[]).is_some_and(|answer| answer.code == 200)
    });
    assert!(life.log().contains("restored"), "{}", life.log());
}

#[test]
fn what_is_committed_is_listed_session_by_session() {
    let world = World::sqlite();
    let port = free_port();
    let life = world
        .script(IDLE)
        .set(&set(port))
        .profile("baileys")
        .ready();
    world.write("sales/creds.json", LOGIN);
    world.write("sales/pre-key-1.json", "{}");
    world.write("support/creds.json", LOGIN);
    world.wait_until_saved();
    let mut status = serde_json::Value::Null;
    wait_until("both are listed", || {
        status = get(port, "/status", &[]).json();
        status["sessions"]
            .as_object()
            .is_some_and(|all| all.len() == 2)
    });
    let sales = &status["sessions"]["sales"];
    assert_eq!(
        (sales["files"].as_u64(), sales["engine"].as_str()),
        (Some(2), Some("baileys")),
        "{status}"
    );
    assert!(
        sales["last_change_ms"].as_u64() > Some(1_700_000_000_000),
        "{status}"
    );
    assert!(status["recent"][0]["seq"].as_u64() >= Some(2), "{status}");
    assert_eq!(status["lease"], "held");
    assert!(status["gateway_pid"].is_i64() && status["gateway_started_ms"].is_u64());
    assert_eq!(life.stop().code, 0);
}
