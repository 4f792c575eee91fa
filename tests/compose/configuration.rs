//! What the shipped files come to: limits, rights, overlays that fit together.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::run::text;
use crate::stack::Stack;
use crate::told::case;

#[test]
fn the_shipped_files_hold_together() {
    let stack = Stack::new("config");
    case(
        "budgets",
        "Docker's patience is longer than sessionkeep's own, and the flush has its share",
        || {
            let config = stack.config();
            let waha = &config["services"]["waha"];
            let grace = span(&text(&waha["stop_grace_period"]));
            let total = span(&text(&waha["environment"]["SESSIONKEEP_STOP_TOTAL"]));
            let flush = span(&text(&waha["environment"]["SESSIONKEEP_STOP_FLUSH"]));
            assert!(
                total + Duration::from_secs(2) <= grace,
                "{total:?} of {grace:?}"
            );
            assert!(
                flush > Duration::ZERO && flush < total,
                "{flush:?} of {total:?}"
            );
        },
    );
    case(
        "nothing is open that need not be",
        "two published ports, on loopback; the database on an internal network; no rights to spare",
        || {
            let config = stack.config();
            let services = config["services"].as_object().expect("services");
            for (name, service) in services {
                let ports = service["ports"].as_array().cloned().unwrap_or_default();
                let expected = if name == "waha" { 2 } else { 0 };
                assert_eq!(ports.len(), expected, "ports of {name}");
                for port in ports {
                    assert_eq!(text(&port["host_ip"]), "127.0.0.1", "{name}: {port}");
                }
                hardened(name, service);
            }
            let networks: Vec<&String> = config["services"]["mongodb"]["networks"]
                .as_object()
                .expect("networks of mongodb")
                .keys()
                .collect();
            assert_eq!(networks, ["data"]);
            assert_eq!(config["networks"]["data"]["internal"], true);
        },
    );
    case(
        ".env.example",
        "it explains every variable that the files use, and none that they do not",
        || {
            let example = fs::read_to_string(stack.path(".env.example")).expect("read it");
            let explained: BTreeSet<&str> = example
                .lines()
                .filter_map(|line| line.strip_prefix('#').unwrap_or(line).split_once('='))
                .map(|(name, _)| name)
                .filter(|name| is_variable(name))
                .collect();
            let files = shipped(&stack, "yml");
            let mut used: BTreeSet<&str> = files.iter().flat_map(|text| variables(text)).collect();
            // Compose's own.
            used.extend(["COMPOSE_FILE", "COMPOSE_PROJECT_NAME"]);
            let missing: Vec<_> = used.difference(&explained).collect();
            let unused: Vec<_> = explained.difference(&used).collect();
            assert!(
                missing.is_empty() && unused.is_empty(),
                "missing: {missing:?}, unused: {unused:?}"
            );
        },
    );
    case(
        "Dockerfiles",
        "all gateways' images share one build of the program, and no image is of no version",
        || {
            let dockerfiles = shipped(&stack, "Dockerfile");
            assert_eq!(dockerfiles.len(), 3);
            let build = |text: &str| {
                let from = text.find("FROM rust:").expect("a stage that builds");
                let to = text.rfind("FROM ").expect("a stage that runs");
                text[from..to].to_owned()
            };
            for text in &dockerfiles {
                assert_eq!(build(text), build(&dockerfiles[0]));
                assert!(!text.contains("latest"), "{text}");
            }
            for text in shipped(&stack, "yml") {
                assert!(!text.contains(":latest") && !text.starts_with("version:"));
            }
        },
    );
}

/// The texts of the shipped files whose name ends so.
fn shipped(stack: &Stack, end: &str) -> Vec<String> {
    let mut found = vec![stack.path("docker-compose.yml")];
    for folder in [
        "compose",
        "compose/waha",
        "compose/baileys",
        "compose/whatsmeow",
    ] {
        let entries = fs::read_dir(stack.path(folder)).expect("a folder");
        found.extend(entries.flatten().map(|entry| entry.path()));
    }
    found.retain(|path| path.to_string_lossy().ends_with(end));
    found
        .iter()
        .map(|path| fs::read_to_string(path).expect("read"))
        .collect()
}

/// The variables that a Compose file takes from `.env`: `${NAME…}`, and `NAME:` without a value.
fn variables(text: &str) -> Vec<&str> {
    let referred = text
        .split("${")
        .skip(1)
        .filter_map(|rest| rest.split([':', '}']).next());
    let passed_on = text
        .lines()
        .filter_map(|line| line.trim().strip_suffix(':'));
    referred
        .chain(passed_on)
        .filter(|name| is_variable(name))
        .collect()
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|sign| sign.is_ascii_uppercase() || sign == '_')
}

/// What every service has.
#[track_caller]
pub(crate) fn hardened(name: &str, service: &Value) {
    assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]), "{name}");
    let options = service["security_opt"].to_string();
    assert!(options.contains("no-new-privileges"), "{name}: {options}");
    assert_eq!(service["restart"], "unless-stopped", "{name}");
    assert!(limit(service, "memory") > 0, "{name} has no memory limit");
    assert!(
        limit(service, "pids") > 0,
        "{name} has no limit of processes"
    );
    let logging = &service["logging"];
    assert_eq!(logging["driver"], "json-file", "{name}");
    assert!(
        logging["options"]["max-size"].is_string(),
        "{name}: {logging}"
    );
    assert_ne!(service["privileged"], true, "{name}");
}

/// A limit, in either of the two places where Compose takes it.
fn limit(service: &Value, what: &str) -> u64 {
    let short = match what {
        "memory" => &service["mem_limit"],
        _ => &service["pids_limit"],
    };
    let long = &service["deploy"]["resources"]["limits"][what];
    [short, long]
        .into_iter()
        .find_map(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()))
        .unwrap_or(0)
}

/// Reads `1m0s`, `55s`.
#[track_caller]
fn span(text: &str) -> Duration {
    let mut seconds = 0;
    let mut number = String::new();
    for sign in text.chars() {
        let unit = match sign {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => {
                number.push(sign);
                continue;
            }
        };
        let count: u64 = number
            .parse()
            .unwrap_or_else(|_| panic!("a time span: {text:?}"));
        seconds += count * unit;
        number.clear();
    }
    assert!(number.is_empty() && seconds > 0, "a time span: {text:?}");
    Duration::from_secs(seconds)
}
