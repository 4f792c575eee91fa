//! `sessionkeep status` in a terminal.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::keeper::{World, program, wait_until};
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
        told(&[]).contains("default: logged in, 1 files")
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
