//! What a user reads in `docker compose logs` when something is set wrongly.

use crate::stack::Stack;
use crate::told::{case, until, yes};

#[test]
fn what_is_wrong_with_the_database_is_said_in_the_logs() {
    let stack = Stack::new("refusal");
    // Not a minute. One look alone takes 3 s where nobody answers.
    stack.set("SESSIONKEEP_STORE_WAIT", "8s");

    case(
        "no database",
        "the log names the store and what to do, exit code 69, and no gateway is started",
        || {
            stack.up(&["--no-deps", "waha"]);
            refused(
                &stack,
                69,
                &[
                    "waiting for the store",
                    "the gateway is not started",
                    "did not become ready within",
                ],
            );
        },
    );

    case(
        "wrong password",
        "the log says that the store refuses us and what to do, exit code 78",
        || {
            stack.up(&["--wait", "mongodb"]);
            let right = stack.get("MONGO_APP_PASSWORD");
            stack.set("MONGO_APP_PASSWORD", "0123456789abcdef0123456789abcdef");
            stack.up(&["--no-deps", "waha"]);
            refused(
                &stack,
                78,
                &[
                    "the gateway is not started",
                    "cannot be used",
                    "Authentication failed",
                    "sessionkeep doctor",
                ],
            );
            stack.set("MONGO_APP_PASSWORD", &right);
        },
    );

    case(
        "wrong host",
        "the log names the host that is not there, exit code 69",
        || {
            stack.overlay(
                "address.yml",
                "services:\n  waha:\n    environment:\n      MONGO_URL: \"mongodb://user:pass-in-the-address@nowhere.invalid:27017/sessionkeep\"\n",
            );
            stack.up(&["--no-deps", "waha"]);
            refused(
                &stack,
                69,
                &[
                    "waiting for the store",
                    "nowhere.invalid",
                    "did not become ready within",
                ],
            );
        },
    );

    case(
        "an address that is none",
        "the log names the setting, exit code 78, and tells nothing of the address's password",
        || {
            stack.only("docker-compose.yml");
            stack.overlay(
                "address.yml",
                "services:\n  waha:\n    environment:\n      MONGO_URL: \"mongo//user:pass-in-the-address@mongodb\"\n",
            );
            stack.up(&["--no-deps", "waha"]);
            refused(&stack, 78, &["MONGO_URL"]);
        },
    );

    case(
        "put right",
        "with the right settings the same stack comes up",
        || {
            stack.only("docker-compose.yml");
            stack.up(&[]);
            stack.gateway().until_up();
            stack.waha().until_health("healthy");
        },
    );
}

/// The container ends with this code, and its log has these phrases and no secret.
#[track_caller]
fn refused(stack: &Stack, code: i64, phrases: &[&str]) {
    let waha = stack.waha();
    until(&format!("the container has ended with {code}"), || {
        yes(waha.exit_code() == code)
    });
    let log = stack.logs("waha");
    for phrase in phrases {
        assert!(log.contains(phrase), "no `{phrase}` in:\n{log}");
    }
    assert!(
        !log.contains("role=gateway"),
        "a gateway was started:\n{log}"
    );
    assert!(!log.contains("pass-in-the-address"), "a password was told");
    stack.tells_no_secret();
    // It is started again and again; the next case shall read only its own log.
    stack.compose(&["rm", "-s", "-f", "waha"]);
}
