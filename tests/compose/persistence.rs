//! A login survives whatever happens to its container and its disk.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::stack::Stack;
use crate::told::{case, figure, until, yes};

/// Messages a second under load: more than any person's account sees.
const LOAD: u32 = 20;
/// So many must have come and gone before something is broken.
const UNDER_WAY: u64 = 40;

#[test]
fn a_login_survives_down_wipe_crash_restart_and_stop() {
    let stack = Stack::new("persist");

    case(
        "make up",
        "one command starts everything and prints the address; the secrets are private and stay",
        || {
            let written = fs::read(stack.path(".env")).expect("read .env");
            let said = stack.make(&["up"]);
            let address = format!("http://127.0.0.1:{}", stack.port_of("waha"));
            let text = said.text();
            assert!(
                text.contains(&address)
                    || text.contains(&address.replace("127.0.0.1", "localhost")),
                "no {address} in:\n{text}"
            );
            assert!(text.contains("/dashboard"), "no dashboard in:\n{text}");
            stack.make(&["up"]);
            let found = fs::read(stack.path(".env")).expect("read .env");
            assert!(found == written, "make up has changed .env");
            let mode = fs::metadata(stack.path(".env"))
                .expect("stat .env")
                .permissions();
            assert_eq!(mode.mode() & 0o777, 0o600, "mode of .env");
            assert_eq!(stack.gateway().stranger("/api/sessions"), Some(401));
        },
    );

    let mut kept = stack.gateway().log_in();

    case(
        "down and up",
        "the login and every message are there after `docker compose down && docker compose up`",
        || {
            let before = stack.gateway().send(10);
            stack.down();
            stack.up(&[]);
            stack.gateway().until_up();
            kept = stack.gateway().expect_kept_to_the_last_word(&before);
        },
    );

    case(
        "down, rm -rf session, up",
        "the same with an empty disk: all of it came from the database",
        || {
            let before = stack.gateway().send(10);
            stack.down();
            stack.wipe("session");
            stack.up(&[]);
            stack.gateway().until_up();
            kept = stack.gateway().expect_kept_to_the_last_word(&before);
            assert!(
                stack
                    .logs("waha")
                    .contains("because=\"the directory holds no session\"")
            );
        },
    );

    case(
        "docker kill, rm -rf session",
        "a crash and an empty disk keep the login and what was committed",
        || {
            let before = stack.gateway().send(10);
            let waha = stack.waha();
            waha.until_saved();
            waha.kill();
            assert_eq!(waha.exit_code(), 137);
            stack.wipe("session");
            stack.up(&[]);
            stack.gateway().until_up();
            kept = stack.gateway().expect_kept(&before);
        },
    );

    case(
        "docker restart under load",
        "no acknowledged message is lost by a restart in the middle of them",
        || {
            stack.gateway().load(LOAD);
            let before = stack.gateway().until_more(kept.messages, UNDER_WAY);
            stack.docker(&["restart", &stack.waha().id]);
            stack.gateway().until_up();
            kept = stack.gateway().expect_kept_to_the_last_word(&before);
        },
    );

    case(
        "docker stop under load, rm -rf session, docker start",
        "the final commit holds the last words; the exit code is the gateway's; the stop is in time",
        || {
            stack.gateway().load(LOAD);
            let before = stack.gateway().until_more(kept.messages, UNDER_WAY);
            let waha = stack.waha();
            let took = waha.stop();
            figure(
                "docker stop of a gateway under load",
                &format!("{:.1} s", took.as_secs_f64()),
            );
            assert_eq!(waha.exit_code(), 0, "the gateway's own exit code");
            assert!(took < grace(&stack), "killed after {took:?}");
            let log = waha.logs();
            let last = log.lines().rfind(|line| line.contains("[INIT] stopped;"));
            let last = last.unwrap_or_else(|| panic!("no last line in:\n{log}"));
            assert!(
                last.contains("all is saved") && last.contains("code=0"),
                "{last}"
            );
            let newest = newest_commit(&stack);
            assert!(
                last.contains(&format!("seq={newest}")),
                "newest commit {newest}, but: {last}"
            );
            stack.wipe("session");
            waha.start();
            stack.gateway().until_up();
            kept = stack.gateway().expect_kept_to_the_last_word(&before);
        },
    );

    case(
        "the gateway crashes by itself",
        "what it wrote is saved, Docker starts the container again, and the login is there",
        || {
            let before = stack.gateway().send(10);
            let waha = stack.waha();
            let life = waha.started_at();
            let pid = waha.status()["gateway_pid"].to_string();
            waha.exec(&["sh", "-c", "kill -KILL $0", &pid]);
            until("Docker has started it again", || {
                yes(waha.started_at() != life)
            });
            let log = waha.logs();
            assert!(log.contains("killed by signal 9"), "{log}");
            stack.gateway().until_up();
            kept = stack.gateway().expect_kept(&before);
        },
    );

    case(
        "make persistence-test",
        "a user can have the same proof on their own machine",
        || {
            let before = stack.gateway().send(5);
            let said = stack.make(&["persistence-test"]);
            assert!(!said.text().is_empty());
            stack.gateway().until_up();
            kept = stack.gateway().expect_kept(&before);
        },
    );

    case(
        "make down",
        "`make down` deletes neither data nor session directory",
        || {
            let before = stack.gateway().send(5);
            stack.make(&["down"]);
            assert!(stack.path("session").exists(), "./session is gone");
            stack.wipe("session");
            stack.make(&["up"]);
            stack.gateway().until_up();
            stack.gateway().expect_kept_to_the_last_word(&before);
        },
    );
}

/// How long Docker leaves the gateway's container to stop.
fn grace(stack: &Stack) -> Duration {
    let seconds = stack.waha().inspect(".Config.StopTimeout").as_u64();
    Duration::from_secs(seconds.expect("a stop timeout"))
}

/// The newest commit's number, asked for while no gateway runs.
fn newest_commit(stack: &Stack) -> u64 {
    let said = stack.compose(&[
        "run",
        "--rm",
        "--no-deps",
        "-T",
        "--entrypoint",
        "sessionkeep",
        "waha",
        "log",
        "--json",
        "--limit",
        "1",
    ]);
    let log: serde_json::Value = serde_json::from_str(&said.out).expect("JSON of the log");
    log[0]["seq"].as_u64().expect("a commit")
}
