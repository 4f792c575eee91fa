//! `.env` as the commands read it: as Compose does.

use std::fs;

use crate::run::Said;
use crate::stack::Stack;
use crate::told::case;

/// As a user may write it, and what it means.
const WRITTEN: [(&str, &str); 9] = [
    ("plain", "plain"),
    ("\"in double quotes\"", "in double quotes"),
    ("'in single $$ ones'", "in single $$ ones"),
    ("a$$b", "a$b"),
    ("\"a$$b\"", "a$b"),
    ("value # a comment", "value"),
    ("  spaces around  ", "spaces around"),
    (
        "mongodb://u:p%40@h/db?a=b&c=d",
        "mongodb://u:p%40@h/db?a=b&c=d",
    ),
    ("${WAHA_WORKER_ID}-2", "waha-2"),
];

#[test]
fn the_settings_are_read_as_compose_reads_them() {
    let stack = Stack::new("settings");

    case(
        "quotes, $$, comments, other variables",
        "the commands see what the containers get, and what they write comes back as it was",
        || {
            for (written, meant) in WRITTEN {
                stack.set("MONGO_DATABASE", written);
                assert_eq!(get(&stack, "MONGO_DATABASE"), meant, "{written}");
                let config = stack.config();
                let passed = &config["services"]["mongodb"]["environment"]["MONGO_DATABASE"];
                let passed = passed.as_str().map(|it| it.replace("$$", "$"));
                assert_eq!(passed.as_deref(), Some(meant), "{written}");
            }
            for value in [
                "plain",
                "mongodb://u:a$b$$c@h/d?e=f",
                "with spaces # and more",
                "",
            ] {
                let said = script(&stack, "env_set MONGO_DATABASE \"$1\"", value);
                assert!(said.code == 0, "{}", said.text());
                assert_eq!(get(&stack, "MONGO_DATABASE"), value);
                let lines = fs::read_to_string(stack.path(".env")).expect("read .env");
                assert_eq!(lines.matches("\nMONGO_DATABASE=").count(), 1, "{value}");
            }
            stack.set("MONGO_DATABASE", "sessionkeep");
        },
    );

    case(
        "COMPOSE_FILE in quotes",
        "commands that add a file to it find all of them",
        || {
            stack.set("COMPOSE_FILE", "\"docker-compose.yml\"");
            let said = stack.make(&["list-backups"]);
            assert!(said.text().contains("no backup yet"), "{}", said.text());
        },
    );

    case(
        "a misspelled name",
        "make doctor names it, and the one that was meant; names of one's own files are no mistake",
        || {
            stack.only("docker-compose.yml");
            stack.set("WAHA_PROT", "3000");
            stack.set("SESSIONKEEP_LEASE_TLL", "20s");
            stack.set("WHATSAPP_HOOK_URL", "http://127.0.0.1");
            stack.set("MY_OWN", "x");
            stack.overlay(
                "own.yml",
                "services:\n  waha:\n    labels: { own: \"${MONGO_OWN:-}\" }\n",
            );
            stack.set("MONGO_OWN", "x");
            let said = script(&stack, "check_names", "").text();
            for (wrong, right) in [
                ("WAHA_PROT", "WAHA_PORT?"),
                ("SESSIONKEEP_LEASE_TLL", "SESSIONKEEP_LEASE_TTL?"),
                ("WHATSAPP_HOOK_URL", "waha.env"),
            ] {
                let line = said
                    .lines()
                    .find(|line| line.contains(&format!("{wrong} ")));
                assert!(
                    line.is_some_and(|line| line.contains(right)),
                    "{wrong}: {said}"
                );
            }
            assert_eq!(said.lines().count(), 3, "{said}");
        },
    );
}

/// A value as the commands read it.
fn get(stack: &Stack, name: &str) -> String {
    let said = script(stack, "env_get \"$1\"", name);
    assert!(said.code == 0, "{}", said.text());
    said.line().to_owned()
}

fn script(stack: &Stack, text: &str, argument: &str) -> Said {
    let mut command = stack.command("bash");
    let whole = format!("source compose/bin/lib.sh; {text}");
    command.args(["-c", &whole, "bash", argument]);
    crate::run::run(&mut command, std::time::Duration::from_secs(60))
}
