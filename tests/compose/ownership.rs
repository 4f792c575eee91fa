//! Two containers never both own a session.

use crate::container::Container;
use crate::gateway::Gateway;
use crate::run::text;
use crate::stack::Stack;
use crate::told::{case, until, yes};

/// As a host's rolling deployment does: the new one is started while the old one still runs.
const SECOND: &str = "\
services:
  second:
    extends: {file: docker-compose.yml, service: waha}
    ports: !override [\"127.0.0.1:0:3000\"]
    depends_on: !reset {}
    volumes: [\"./session-2:/app/.sessions\"]
  same-directory:
    extends: {file: docker-compose.yml, service: waha}
    ports: !override [\"127.0.0.1:0:3000\"]
    depends_on: !reset {}
";

#[test]
fn a_second_container_takes_over_or_waits_and_never_runs_beside_the_first() {
    let stack = Stack::new("two");
    stack.up(&[]);
    stack.gateway().log_in();
    stack.gateway().send(10);
    stack.overlay("second.yml", SECOND);

    case(
        "two containers on one directory",
        "the second is refused, says why, and the first does not notice",
        || {
            stack.up(&["--no-deps", "same-directory"]);
            let second = stack.container("same-directory");
            until("the second is refused", || {
                let log = second.logs();
                yes(log.contains("another sessionkeep uses this session directory"))
            });
            until("it has ended", || yes(second.exit_code() == 75));
            assert!(
                !second.logs().contains("role=gateway"),
                "its gateway was started"
            );
            stack.compose(&["rm", "-s", "-f", "same-directory"]);
            assert_eq!(stack.gateway().session_status(), "WORKING");
        },
    );

    case(
        "two containers on two directories",
        "the newer one takes over, with the last word of the older one, and there are never two",
        || {
            let first = stack.waha();
            let before = stack.gateway().send(10);
            stack.up(&["--no-deps", "second"]);
            let gateway = Gateway::new(stack.port_of("second"), stack.get("WAHA_API_KEY"));
            gateway.until_up();
            gateway.expect_kept_to_the_last_word(&before);
            one_after_the_other(&stack, &first, &stack.container("second"));
            assert_eq!(text(&first.told_health()["status"]), "standby");
        },
    );

    case(
        "the older one as a standby",
        "it takes the session back when the newer one stops, and leaves with 0 when it has not got it",
        || {
            let (first, second) = (stack.waha(), stack.container("second"));
            let gateway = Gateway::new(stack.port_of("second"), stack.get("WAHA_API_KEY"));
            let before = gateway.send(10);
            second.stop();
            stack.gateway().until_up();
            stack.gateway().expect_kept_to_the_last_word(&before);
            one_after_the_other(&stack, &second, &first);
            second.start();
            // Docker publishes another port at each start.
            let gateway = Gateway::new(stack.port_of("second"), stack.get("WAHA_API_KEY"));
            gateway.until_up();
            until("the first waits", || {
                yes(text(&first.told_health()["status"]) == "standby")
            });
            first.stop();
            assert_eq!(first.exit_code(), 0);
            assert_eq!(gateway.session_status(), "WORKING");
        },
    );

    case(
        "with lease.conflict: wait",
        "a container waits for the other one's stop, and gets the newest state in its turn",
        || {
            let second = stack.container("second");
            let gateway = Gateway::new(stack.port_of("second"), stack.get("WAHA_API_KEY"));
            let before = gateway.send(10);
            stack.set("SESSIONKEEP_LEASE_CONFLICT", "wait");
            stack.up(&["--no-deps", "waha"]);
            let first = stack.waha();
            until("the first waits", || {
                yes(first.logs().contains("waiting for the session"))
            });
            assert_eq!(text(&first.told_health()["status"]), "standby");
            assert!(!first.logs().contains("role=gateway"), "both run");
            second.stop();
            stack.gateway().until_up();
            stack.gateway().expect_kept_to_the_last_word(&before);
            one_after_the_other(&stack, &second, &first);
        },
    );
}

/// What one wrote last was saved, and its gateway had ended, before the other's was started.
#[track_caller]
fn one_after_the_other(stack: &Stack, one: &Container<'_>, other: &Container<'_>) {
    let ended = moment(stack, &one.id, "gateway ended");
    let saved = moment(stack, &one.id, "everything is saved");
    let started = moment(stack, &other.id, "role=gateway");
    assert!(
        ended < saved && saved < started,
        "ended at {ended}, saved at {saved}, the other started at {started}"
    );
}

/// When a line was last logged, by the engine's clock; such times sort as text.
fn moment(stack: &Stack, id: &str, phrase: &str) -> String {
    let log = stack.docker(&["logs", "--timestamps", id]).text();
    let mut moments: Vec<&str> = log
        .lines()
        .filter(|line| line.contains(phrase))
        .filter_map(|line| line.split(' ').next())
        .collect();
    moments.sort_unstable();
    let last = moments.pop();
    last.unwrap_or_else(|| panic!("no `{phrase}` in:\n{log}"))
        .to_owned()
}
