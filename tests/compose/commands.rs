//! The commands that a user has: each says what it does and what may come next, none tells a
//! secret, and only one deletes data.

use crate::stack::Stack;
use crate::told::case;

#[test]
fn the_commands_inform_and_delete_nothing_unasked() {
    let stack = Stack::new("commands");
    stack.make(&["up"]);
    stack.gateway().log_in();
    let before = stack.gateway().send(5);

    case(
        "make status, doctor, config, ps",
        "they tell how it stands and what to do next, running or not, and no secret",
        || {
            for target in ["status", "doctor", "config", "ps"] {
                let said = stack.make(&[target]);
                looks_right(&stack, target, &said.text());
            }
            let said = stack.make(&["status"]);
            assert!(said.out.contains("everything saved"), "{}", said.text());
            let logs = shown_logs(&stack);
            assert!(!logs.contains("client metadata"), "{logs}");
            assert!(logs.contains("[SYNC] ready for changes"), "{logs}");
            stack.compose(&["stop", "waha"]);
            for target in ["status", "doctor", "config", "ps"] {
                let said = stack.make(&[target]);
                looks_right(&stack, target, &said.text());
            }
        },
    );

    case(
        "read-only containers",
        "MongoDB runs in one, and no container has a volume without a name, which would stay at each down",
        || {
            assert_eq!(
                stack
                    .container("mongodb")
                    .inspect(".HostConfig.ReadonlyRootfs"),
                true
            );
            for service in ["mongodb", "waha"] {
                let mounts = stack.container(service).inspect(".Mounts");
                for mount in mounts.as_array().expect("mounts") {
                    let name = mount["Name"].as_str().unwrap_or(stack.project());
                    assert!(name.starts_with(stack.project()), "{service}: {mount}");
                }
            }
        },
    );

    case(
        "make restart",
        "settings are read anew, and the login stays",
        || {
            stack.set("SESSIONKEEP_LOG_LEVEL", "debug");
            let said = stack.make(&["restart"]);
            looks_right(&stack, "restart", &said.text());
            stack.gateway().until_up();
            stack.gateway().expect_kept_to_the_last_word(&before);
            let config = stack.waha().exec(&["sessionkeep", "config", "--json"]);
            assert!(config.contains("debug"), "{config}");
        },
    );

    case(
        "make down, make clean",
        "clean asks before it deletes, and without an answer nothing is gone; down never deletes",
        || {
            let said = stack.make(&["down"]);
            looks_right(&stack, "down", &said.text());
            let said = stack.try_make(&["clean"]);
            assert_ne!(said.code, 0, "it did not ask: {}", said.text());
            assert!(has_volume(&stack) && stack.path("session").exists());
            let said = stack.make(&["clean", "YES=yes"]);
            looks_right(&stack, "clean", &said.text());
            assert!(!has_volume(&stack) && !stack.path("session").exists());
            assert!(stack.path(".env").exists(), ".env is gone");
        },
    );
}

/// What `make logs` shows, without following.
fn shown_logs(stack: &Stack) -> String {
    let mut command = stack.command("compose/bin/logs.sh");
    command.env("FOLLOW", "no");
    crate::run::run(&mut command, std::time::Duration::from_secs(60)).out
}

#[track_caller]
fn looks_right(stack: &Stack, target: &str, said: &str) {
    assert!(
        said.contains("Next: "),
        "make {target} names no next step:\n{said}"
    );
    let secret = stack.secret_in(said);
    assert!(secret.is_none(), "make {target} tells {secret:?}");
}

fn has_volume(stack: &Stack) -> bool {
    let volume = format!("{}_mongodb-data", stack.project());
    stack.try_docker(&["volume", "inspect", &volume]).code == 0
}
