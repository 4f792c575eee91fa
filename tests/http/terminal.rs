//! `sessionkeep status` in a terminal.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::ask::try_get;
use super::keeper::{IDLE, World, free_port, program, send, wait_until};
use super::waha::Waha;

#[test]
fn status_shows_at_a_glance_what_the_page_shows_and_watch_goes_on() {
    let world = World::sqlite();
    let waha = Waha::start(&world, |setup| setup);
    waha.wait_until_session("noweb/default", "SCAN_QR_CODE");
    let told = |args: &[&str]| {
        let port = format!("http.port={}", waha.port);
        let mut command = vec!["status", "--set", &port];
        command.extend(args);
        let output = world.command(&command);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let text = told(&[]);
    for line in [
        "running    running, everything saved",
        "numbers    default: waits for its QR code",
        "gateway    up for",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    waha.tell("default", "scan");
    waha.wait_until_session("noweb/default", "WORKING");
    wait_until("it is saved", || {
        told(&[]).contains("default: logged in, 1 file,")
    });
    let mut watching = Command::new(program())
        .args(["status", "--watch", "--json", "--profile", "waha", "--dir"])
        .arg(world.dir())
        .args(["--set", &format!("http.port={}", waha.port)])
        .env("MONGO_URL", &world.url)
        .stdout(Stdio::piped())
        .spawn()
        .expect("start");
    let lines = BufReader::new(watching.stdout.take().expect("piped")).lines();
    let seen: Vec<serde_json::Value> = lines
        .take(3)
        .map(|line| serde_json::from_str(&line.expect("a line")).expect("JSON"))
        .collect();
    let _ = watching.kill();
    let _ = watching.wait();
    let times: Vec<u64> = seen
        .iter()
        .filter_map(|of| of["running"]["time_ms"].as_u64())
        .collect();
    assert!(
        times.len() == 3 && times.is_sorted() && times[0] < times[2],
        "{seen:?}"
    );
    assert_eq!(waha.life.stop().code, 0);
}

#[test]
fn a_token_that_is_not_the_running_ones_is_told_from_nobody_there() {
    let world = World::sqlite();
    let port = free_port();
    let at = format!("http.port={port}");
    let told = || {
        let output = world.command(&["status", "--set", &at]);
        String::from_utf8(output.stdout).expect("text")
    };
    assert!(told().contains("no instance answers here"), "{}", told());
    let life = world
        .script(IDLE)
        .set(&at)
        .env("ADMIN_TOKEN", "theirs")
        .ready();
    assert!(
        told().contains("an instance answers and refuses"),
        "{}",
        told()
    );
    assert_eq!(life.stop().code, 0);
}

#[test]
fn the_gateway_is_as_old_as_it_is_though_the_watcher_is_a_new_one() {
    let world = World::sqlite();
    let port = free_port();
    let mut life = world.script(IDLE).set(&format!("http.port={port}")).ready();
    let started = || {
        let answer = try_get(port, "/status", &[])?;
        answer.json()["gateway_started_ms"].as_u64()
    };
    wait_until("it is known when it was started", || started().is_some());
    let before = started().expect("it runs");
    std::thread::sleep(std::time::Duration::from_secs(2));
    send(life.process("watcher"), libc::SIGKILL);
    life.wait_for_count("watcher is ready", 2);
    wait_until("the new one knows it", || started().is_some());
    // The kernel counts in ticks of ten milliseconds, from a start that is no whole one.
    assert!(started().expect("it runs").abs_diff(before) < 1000);
    assert_eq!(life.stop().code, 0);
}
