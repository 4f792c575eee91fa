//! What goes wrong is told: in the log, on the pages, to a webhook, and by a heartbeat that stays away.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::ask::get;
use super::hook::Hook;
use super::keeper::{IDLE, World, free_port, wait_until};
use super::line::Line;
use super::proxy::Mode;
use super::raw::{damage_commit, give_lease_to};
use super::waha::Waha;

const LOGIN: &str = r#"{"me":{"id":"49150@s.whatsapp.net"}}"#;

fn at(hook: &Hook) -> String {
    format!(
        "http://127.0.0.1:{}/hook?key=canary-in-the-address",
        hook.port
    )
}

/// Incidents of a kind, as the page shows them: since when, and until when.
fn shown(port: u16, kind: &str) -> Vec<Value> {
    let status = get(port, "/status", &[]).json();
    let all = status["incidents"].as_array().expect("a list").clone();
    all.into_iter()
        .filter(|incident| incident["kind"] == kind)
        .collect()
}

#[test]
fn what_is_not_saved_is_told_everywhere_until_it_is() {
    let world = World::sqlite();
    let port = free_port();
    let life = world
        .script(IDLE)
        .set("alarm.lag=1s")
        .set(&format!("http.port={port}"))
        .ready();
    world.write("creds.json", LOGIN);
    world.write("other.json", "{}");
    world.wait_until_saved();
    world.write("creds.json", &LOGIN[..10]);
    world.write("other.json", "");
    wait_until("it is an incident", || !shown(port, "not_saved").is_empty());
    let told = || {
        let text = world.command(&["status", "--set", &format!("http.port={port}")]);
        let health = get(port, "/health", &[]);
        (
            String::from_utf8(text.stdout).expect("text"),
            get(port, "/status", &[]).json(),
            (health.code, health.json()),
            get(port, "/metrics", &[]).text(),
        )
    };
    let (text, status, (code, health), metrics) = told();
    assert!(
        text.contains("running    running, not everything saved"),
        "{text}"
    );
    assert!(
        text.contains("not saved  creds.json: its JSON does not parse"),
        "{text}"
    );
    let of = (
        &status["unsaved"],
        &status["not_whole"],
        &status["unsaved_paths"][0]["path"],
    );
    assert_eq!(of, (&2.into(), &2.into(), &"creds.json".into()), "{status}");
    // It is no reason to end the gateway, which may write it whole.
    assert_eq!(code, 200, "{health}");
    let detail = health.to_string();
    assert!(
        detail.contains("not saved as it is: creds.json"),
        "{detail}"
    );
    assert!(
        metrics.contains("sessionkeep_unsaved_entries 2.0"),
        "{metrics}"
    );
    assert!(shown(port, "not_saved")[0]["until_ms"].is_null());
    world.write("creds.json", LOGIN);
    world.write("other.json", "[]");
    wait_until("it is over", || {
        shown(port, "not_saved")[0]["until_ms"].is_u64()
    });
    let (text, status, _, metrics) = told();
    assert!(
        text.contains("running    running, everything saved"),
        "{text}"
    );
    assert_eq!(status["unsaved"], 0, "{status}");
    assert!(
        metrics.contains("sessionkeep_unsaved_entries 0.0"),
        "{metrics}"
    );
    assert_eq!(life.stop().code, 0);
}

#[test]
fn an_outage_of_the_store_is_told_when_it_begins_and_when_it_is_over() {
    let world = World::mongo();
    let (line, hook, beats) = (Line::to(&world), Hook::start(2), Hook::start(0));
    let port = free_port();
    let life = world
        .script(IDLE)
        .env("MONGO_URL", line.url.clone())
        .env("SESSIONKEEP_WEBHOOK_URL", at(&hook))
        .env("SESSIONKEEP_WEBHOOK_SECRET", "canary-of-the-signing-key")
        .env(
            "HEARTBEAT_URL",
            format!("http://127.0.0.1:{}/beat", beats.port),
        )
        .set("heartbeat.every=1s")
        .set("alarm.lag=2s")
        .set(&format!("http.port={port}"))
        .ready();
    wait_until("the heart beats", || beats.received().len() >= 2);
    line.set(Mode::Refuse);
    world.write("creds.json", LOGIN);
    wait_until("the store's outage is told", || {
        !hook.events("store_unreachable").is_empty()
    });
    wait_until("the lag is told", || !hook.events("lagging").is_empty());
    assert_eq!(get(port, "/health", &[]).code, 503);
    let before = beats.received().len();
    std::thread::sleep(Duration::from_secs(3));
    assert!(beats.received().len() <= before + 1, "the heart beats on");
    let incident = &shown(port, "store_unreachable")[0];
    assert!(
        incident["until_ms"].is_null() && incident["remedy"].as_str().is_some_and(|r| r.len() > 20)
    );
    line.set(Mode::Pass);
    wait_until("its end is told", || {
        hook.events("store_unreachable").last().map(String::as_str) == Some("incident.closed")
    });
    wait_until("the heart beats again", || {
        beats.received().len() > before + 1
    });
    assert!(shown(port, "store_unreachable")[0]["until_ms"].is_u64());
    assert_eq!(get(port, "/health", &[]).code, 200);
    signed(&hook);
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert!(ended.log.contains("[INCIDENT]"), "{}", ended.log);
    for secret in ["canary-of-the-signing-key", "canary-in-the-address"] {
        assert!(!ended.log.contains(secret), "{}", ended.log);
    }
}

#[test]
fn a_start_that_waits_for_the_store_tells_so_while_it_waits() {
    let world = World::mongo();
    let (line, hook) = (Line::to(&world), Hook::start(0));
    line.set(Mode::Refuse);
    let port = free_port();
    let mut life = world
        .script(IDLE)
        .env("MONGO_URL", line.url.clone())
        .env("SESSIONKEEP_WEBHOOK_URL", at(&hook))
        .env("SESSIONKEEP_WEBHOOK_SECRET", "canary-of-the-signing-key")
        .set("store.wait=10m")
        .set(&format!("http.port={port}"))
        .start();
    wait_until("the outage is told", || {
        !hook.events("store_unreachable").is_empty()
    });
    let health = get(port, "/health", &[]).json();
    let store = &health["checks"]["store"];
    assert_eq!(
        (&health["status"], &store["status"]),
        (&"starting".into(), &"fail".into()),
        "{health}"
    );
    let words = store["detail"].as_str().expect("words");
    assert!(words.starts_with("the start waits for it: "), "{words}");
    assert!(shown(port, "store_unreachable")[0]["until_ms"].is_null());
    line.set(Mode::Pass);
    wait_until("its end is told", || {
        hook.events("store_unreachable") == ["incident.opened", "incident.closed"]
    });
    life.wait_for("watcher is ready");
    signed(&hook);
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
}

/// Each message is signed as the documentation says, and none came twice beyond what was refused.
fn signed(hook: &Hook) {
    let all = hook.received();
    for message in &all {
        let time = message.header("x-sessionkeep-timestamp").expect("a time");
        let signature = message
            .header("x-sessionkeep-signature")
            .expect("a signature");
        assert_eq!(
            signature,
            format!("sha256={}", openssl(&format!("{time}.{}", message.body)))
        );
        let json = message.json();
        assert!(
            json["text"]
                .as_str()
                .is_some_and(|text| text.contains("[default]")),
            "{json}"
        );
    }
    let key = |m: &super::hook::Received| {
        let json = m.json();
        (
            json["incident"]["id"].to_string(),
            json["event"].to_string(),
        )
    };
    let mut keys: Vec<_> = all.iter().map(key).collect();
    keys.sort();
    keys.dedup();
    assert!(all.len() <= keys.len() + 2, "told twice: {all:?}");
}

/// The signature by another program.
fn openssl(text: &str) -> String {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", "canary-of-the-signing-key"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run openssl");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(text.as_bytes())
        .expect("write");
    let output = child.wait_with_output().expect("its end");
    let said = String::from_utf8(output.stdout).expect("text");
    said.trim()
        .rsplit(' ')
        .next()
        .expect("a signature")
        .to_owned()
}

#[test]
fn a_gateway_that_ends_again_and_again_is_told() {
    let world = World::sqlite();
    let hook = Hook::start(0);
    let life = world
        .script("exit 3")
        .env("SESSIONKEEP_WEBHOOK_URL", at(&hook))
        .set("restart.policy=always")
        .start();
    wait_until("it is told", || {
        !hook.events("gateway_restarting").is_empty()
    });
    let _ = life.stop();
}

#[test]
fn a_fenced_instance_says_so_before_it_ends() {
    let world = World::sqlite();
    let hook = Hook::start(0);
    let life = world
        .script(IDLE)
        .env("SESSIONKEEP_WEBHOOK_URL", at(&hook))
        .ready();
    world.write("creds.json", LOGIN);
    world.wait_until_saved();
    give_lease_to(&world, "somebody-else");
    assert_eq!(life.end().code, 75);
    assert_eq!(hook.events("fenced"), ["incident.opened"]);
}

/// Starts it once more on the same directory, and expects that it tells of the flush before, and of its end.
fn assert_told_by_the_next_life(world: &World) {
    let hook = Hook::start(0);
    let life = world
        .script(IDLE)
        .env("SESSIONKEEP_WEBHOOK_URL", at(&hook))
        .ready();
    wait_until("both are told", || {
        hook.events("flush_failed") == ["incident.opened", "incident.closed"]
    });
    assert_eq!(life.stop().code, 0);
}

#[test]
fn a_flush_that_failed_is_told_by_the_next_life_where_this_one_could_not() {
    let world = World::mongo();
    let (line, hook) = (Line::to(&world), Hook::start(u32::MAX));
    let life = world
        .script("trap 'echo 1 > last; exit 0' TERM; echo the gateway idles; sleep 1000 & wait")
        .env("MONGO_URL", line.url.clone())
        .env("SESSIONKEEP_WEBHOOK_URL", at(&hook))
        .set("stop.total=4s")
        .set("stop.flush=2s");
    let mut life = life.start();
    life.wait_for("the gateway idles\n");
    life.wait_for("watcher is ready");
    line.set(Mode::BlackHole);
    let ended = life.stop();
    assert_eq!(ended.code, 74, "{}", ended.log);
    assert_told_by_the_next_life(&world);
}

#[test]
fn a_flush_that_was_killed_is_told_by_the_next_life() {
    let world = World::mongo();
    let line = Line::to(&world);
    let life = world
        .script(IDLE)
        .env("MONGO_URL", line.url.clone())
        .set("stop.total=60s")
        .set("stop.flush=50s");
    let life = life.ready();
    line.set(Mode::BlackHole);
    world.write("creds.json", LOGIN);
    life.signal(libc::SIGTERM);
    wait_until("the flush has begun", || {
        world.dir().join(".sessionkeep/flushing").exists()
    });
    life.kill_tree();
    assert_told_by_the_next_life(&world);
    assert!(!world.dir().join(".sessionkeep/flushing").exists());
}

#[test]
fn a_damaged_commit_that_was_passed_over_is_told() {
    let world = World::sqlite();
    let life = world.script(IDLE).ready();
    world.write("creds.json", LOGIN);
    world.wait_until_saved();
    world.write("key.json", "[1]");
    world.wait_until_saved();
    let newest = world.head();
    assert_eq!(life.stop().code, 0);
    damage_commit(&world, newest);
    world.wipe();
    let (hook, port) = (Hook::start(0), free_port());
    let life = world
        .script(IDLE)
        .env("SESSIONKEEP_WEBHOOK_URL", at(&hook))
        .set(&format!("http.port={port}"))
        .ready();
    wait_until("both are told", || {
        hook.events("damaged_head") == ["incident.opened", "incident.closed"]
    });
    assert_eq!(shown(port, "damaged_head").len(), 1);
    assert_eq!(life.stop().code, 0);
}

#[test]
fn a_logout_is_seen_by_wahas_word_and_over_when_it_is_linked_again() {
    let world = World::sqlite();
    let hook = Hook::start(0);
    let waha = Waha::start(&world, |setup| {
        setup.env("SESSIONKEEP_WEBHOOK_URL", at(&hook))
    });
    waha.tell("default", "scan");
    waha.wait_until_session("noweb/default", "WORKING");
    waha.tell("default", "logout");
    wait_until("the logout is told", || {
        hook.events("logged_out") == ["incident.opened"]
    });
    let incident = shown(waha.port, "logged_out")[0].clone();
    assert_eq!(incident["subject"], "default");
    waha.tell("default", "scan");
    wait_until("its end is told", || {
        hook.events("logged_out") == ["incident.opened", "incident.closed"]
    });
    assert_eq!(waha.life.stop().code, 0);
}

#[test]
fn a_logout_is_seen_by_baileys_credentials() {
    let world = World::sqlite();
    let port = free_port();
    let life = world
        .script(IDLE)
        .profile("baileys")
        .set(&format!("http.port={port}"))
        .ready();
    world.write("sales/creds.json", LOGIN);
    world.wait_until_saved();
    world.write("sales/creds.json", r#"{"registered":false}"#);
    wait_until("it is seen", || {
        shown(port, "logged_out")
            .first()
            .is_some_and(|of| of["subject"] == "sales")
    });
    world.write("sales/creds.json", LOGIN);
    wait_until("it is over", || {
        shown(port, "logged_out")[0]["until_ms"].is_u64()
    });
    fs::remove_dir_all(world.dir().join("sales")).expect("remove");
    wait_until("it is seen again", || shown(port, "logged_out").len() == 2);
    assert_eq!(life.stop().code, 0);
}

#[test]
fn a_webhook_that_never_answers_holds_nothing_up() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = silent.local_addr().expect("bound");
    let world = World::sqlite();
    let life = world
        .script(IDLE)
        .profile("baileys")
        .env("SESSIONKEEP_WEBHOOK_URL", format!("http://{address}/"))
        .ready();
    world.write("creds.json", LOGIN);
    world.wait_until_saved();
    world.write("creds.json", "{}");
    world.wait_until_saved();
    world.write("another.json", "[]");
    world.wait_until_saved();
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert!(ended.took < Duration::from_secs(8), "{:?}", ended.took);
}
