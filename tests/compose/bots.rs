//! Gateways other than WAHA, with their real libraries: a Baileys bot and a whatsmeow service.

use serde_json::Value;

use crate::http;
use crate::run::text;
use crate::stack::Stack;
use crate::told::{case, until, yes};

/// A gateway under test, and how it is asked.
struct Bot {
    service: &'static str,
    /// The setting that names the folder with the bot.
    folder: (&'static str, &'static str),
    /// What a user's overlay adds: one more change after TERM; and for Baileys the other end of
    /// its conversations on a disk of its own, which no restore puts back. Were an older state
    /// restored, the two ends' ratchets would no longer fit, and the next message would fail.
    command: &'static str,
    volume: &'static str,
    /// The request that changes the session so many times.
    write: &'static str,
    /// The number of the last change.
    last: &'static str,
    /// What makes up the login.
    identity: fn(&Value) -> String,
}

#[derive(Debug)]
struct State {
    fresh: bool,
    identity: String,
    last: u64,
}

#[test]
fn a_baileys_bots_login_survives() {
    survives(&Bot {
        service: "baileys",
        folder: ("BAILEYS_BOT_DIR", "tests/gateways/baileys"),
        command: r#"["node", ".", "--last-words", "--peer-dir", "/peer"]"#,
        volume: "./peer:/peer",
        write: "/exchange?n=",
        last: "last_message",
        identity: |state| {
            let accounts = state["accounts"].as_array().expect("accounts");
            let keys: Vec<String> = accounts
                .iter()
                .map(|one| format!("{} {}", text(&one["account"]), text(&one["identity"])))
                .collect();
            keys.join(", ")
        },
    });
}

#[test]
fn a_whatsmeow_services_login_survives() {
    survives(&Bot {
        service: "whatsmeow",
        folder: ("WHATSMEOW_BOT_DIR", "tests/gateways/whatsmeow"),
        command: r#"["python", "bot.py", "--mode", "wal", "--last-words"]"#,
        volume: "./unused:/unused",
        write: "/write?n=",
        last: "n",
        identity: |state| state["identity"].to_string(),
    });
}

fn survives(bot: &Bot) {
    let service = bot.service;
    let stack = Stack::new(service);
    let directory = format!("session-{service}");
    stack.add(&format!("compose/{service}.yml"));
    stack.set(bot.folder.0, bot.folder.1);
    let image = format!("{}-bot", stack.project());
    stack.overlay(
        "bot.yml",
        &format!(
            "services:\n  {service}:\n    image: {image}\n    command: {}\n    volumes: [\"{}\"]\n",
            bot.command, bot.volume
        ),
    );
    let _image = stack.build(service, &image);

    case(
        &format!("{service}: down, rm -rf, up"),
        "its login and all that it wrote, up to the last words after TERM, come back from the database",
        || {
            stack.up(&[]);
            let begun = bot.state(&stack);
            assert!(begun.fresh && begun.identity.len() > 40, "{begun:?}");
            let before = bot.write(&stack, 30);
            let container = stack.container(service);
            container.until_health("healthy");
            stack.down();
            stack.wipe(&directory);
            stack.up(&[]);
            let after = bot.kept(&stack, &before);
            assert!(
                after.last > before.last,
                "no last words: {after:?}, before {before:?}"
            );
        },
    );

    case(
        &format!("{service}: docker kill, rm -rf, start"),
        "after a crash and with an empty disk it goes on from the last commit",
        || {
            let before = bot.write(&stack, 30);
            let container = stack.container(service);
            container.until_saved();
            container.kill();
            stack.wipe(&directory);
            container.start();
            bot.kept(&stack, &before);
        },
    );

    case(
        &format!("{service}: docker stop"),
        "it ends in time with its own exit code, and everything is saved",
        || {
            let before = bot.write(&stack, 30);
            let container = stack.container(service);
            container.stop();
            assert_eq!(container.exit_code(), 0);
            let log = container.logs();
            let last = log.lines().rfind(|line| line.contains("[INIT] stopped;"));
            assert!(
                last.is_some_and(|line| line.contains("all is saved")),
                "{last:?}"
            );
            stack.wipe(&directory);
            container.start();
            let after = bot.kept(&stack, &before);
            assert!(
                after.last > before.last,
                "no last words: {after:?}, before {before:?}"
            );
        },
    );
}

impl Bot {
    #[track_caller]
    fn ask(&self, stack: &Stack, method: &str, path: &str) -> Value {
        let port = stack.port_of(self.service);
        let answer = until("the bot answers", || http::ask(method, port, path, &[], ""));
        let body = answer.text();
        assert_eq!(answer.status, 200, "{method} {path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    #[track_caller]
    fn state(&self, stack: &Stack) -> State {
        let state = self.ask(stack, "GET", "/state");
        State {
            fresh: state["fresh"] == true,
            identity: (self.identity)(&state),
            last: state[self.last].as_u64().unwrap_or(0),
        }
    }

    /// Each change uses the keys and ratchets that are there; one that does not fit fails.
    #[track_caller]
    fn write(&self, stack: &Stack, times: u32) -> State {
        self.ask(stack, "POST", &format!("{}{times}", self.write));
        self.state(stack)
    }

    /// The same login, nothing lost, and it works.
    #[track_caller]
    fn kept(&self, stack: &Stack, before: &State) -> State {
        let after = self.state(stack);
        assert!(!after.fresh, "another login: {after:?}, before {before:?}");
        assert_eq!(after.identity, before.identity);
        assert!(
            after.last >= before.last,
            "lost: {after:?}, before {before:?}"
        );
        let next = self.write(stack, 5);
        assert_eq!(next.last, after.last + 5);
        until("that is committed too", || {
            yes(stack.container(self.service).status()["lag_seconds"] == 0.0)
        });
        after
    }
}
