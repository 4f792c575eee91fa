//! The overlays: each does its one thing, and they fit together.

use std::net::TcpStream;

use serde_json::Value;

use crate::configuration::hardened;
use crate::run::text;
use crate::stack::Stack;
use crate::told::case;

/// What people combine.
const COMBINATIONS: [&[&str]; 18] = [
    &[],
    &["backup"],
    &["dev"],
    &["dev", "backup"],
    &["file-mode"],
    &["external-mongo"],
    &["external-mongo", "backup"],
    &["baileys"],
    &["baileys", "backup"],
    &["baileys", "dev", "backup"],
    &["baileys", "external-mongo", "backup"],
    &["baileys", "file-mode"],
    &["whatsmeow"],
    &["whatsmeow", "backup", "dev"],
    &["whatsmeow", "external-mongo"],
    &["observability"],
    &["observability", "backup", "baileys"],
    &["tls", "whatsmeow"],
];

/// In what the gateways' services must agree.
const SHARED: [&str; 10] = [
    "cap_drop",
    "security_opt",
    "restart",
    "stop_grace_period",
    "pids_limit",
    "mem_limit",
    "logging",
    "healthcheck",
    "ports",
    "networks",
];

/// A MongoDB that is not the stack's own, with a user of its own.
const ELSEWHERE: &str = "\
services:
  elsewhere:
    image: mongo:${MONGO_VERSION:-7.0}
    environment:
      MONGO_INITDB_ROOT_USERNAME: root
      MONGO_INITDB_ROOT_PASSWORD: ${MONGO_ROOT_PASSWORD}
      MONGO_APP_USERNAME: ${MONGO_APP_USERNAME}
      MONGO_APP_PASSWORD: ${MONGO_APP_PASSWORD}
      MONGO_DATABASE: elsewhere
    volumes: [\"./mongo-init:/docker-entrypoint-initdb.d:ro\"]
";

fn files(overlays: &[&str]) -> String {
    let mut files = vec!["docker-compose.yml".to_owned()];
    files.extend(overlays.iter().map(|name| format!("compose/{name}.yml")));
    files.join(":")
}

#[test]
fn overlays_fit_together() {
    let stack = Stack::new("overlays");
    const ADDRESS: &str = "mongodb+srv://someone:a-long-password@cluster.example.net/sessionkeep";

    case(
        "combinations of overlays",
        "each is a valid configuration without a warning, and as hard as the rest",
        || {
            for (name, value) in [
                ("TLS_DOMAIN", "waha.localhost"),
                ("TLS_DASHBOARD_DOMAIN", "keep.localhost"),
                ("TLS_BIND", "127.0.0.1"),
            ] {
                stack.set(name, value);
            }
            for overlays in COMBINATIONS {
                stack.only(&files(overlays));
                stack.set(
                    "MONGO_URL",
                    if overlays.contains(&"external-mongo") {
                        ADDRESS
                    } else {
                        ""
                    },
                );
                let said = stack.try_compose(&["config", "-q"]);
                assert!(
                    said.code == 0 && said.text().is_empty(),
                    "{overlays:?}: {}",
                    said.text()
                );
                let config = stack.config();
                for (name, service) in config["services"].as_object().expect("services") {
                    hardened(name, service);
                    for port in service["ports"].as_array().into_iter().flatten() {
                        assert_eq!(text(&port["host_ip"]), "127.0.0.1", "{overlays:?}: {name}");
                    }
                }
            }
            stack.only(&files(&["external-mongo"]));
            stack.set("MONGO_URL", "");
            let said = stack.try_compose(&["config", "-q"]);
            assert!(
                said.code != 0 && said.err.contains("MONGO_URL"),
                "{}",
                said.text()
            );
        },
    );

    case(
        "the gateways' services",
        "Baileys and whatsmeow get the same limits, rights, health check and time to stop as WAHA",
        || {
            stack.only(&files(&[]));
            let waha = stack.config()["services"]["waha"].clone();
            for gateway in ["baileys", "whatsmeow"] {
                stack.only(&files(&[gateway]));
                let services = stack.config()["services"].clone();
                assert!(
                    services["waha"].is_null(),
                    "WAHA would run beside {gateway}"
                );
                let other = &services[gateway];
                for part in SHARED {
                    assert_eq!(other[part], waha[part], "{gateway}: {part}");
                }
                for name in [
                    "SESSIONKEEP_STOP_TOTAL",
                    "SESSIONKEEP_STOP_FLUSH",
                    "MONGO_URL",
                ] {
                    assert_eq!(
                        other["environment"][name], waha["environment"][name],
                        "{gateway}: {name}"
                    );
                }
                let archive = &other["environment"]["SESSIONKEEP_ARCHIVE"];
                assert_eq!(archive, gateway, "its sessions have a name of their own");
                let dir = other["volumes"].to_string();
                assert!(dir.contains(&format!("/session-{gateway}\"")), "{dir}");
            }
        },
    );

    case(
        "dev.yml",
        "MongoDB can be reached from this machine, on loopback only",
        || {
            stack.only(&files(&["dev"]));
            stack.set("MONGO_PORT", "0");
            stack.up(&["--wait", "mongodb"]);
            let said = stack.compose(&["port", "mongodb", "27017"]);
            assert!(said.line().starts_with("127.0.0.1:"), "{}", said.out);
            TcpStream::connect(said.line()).expect("MongoDB answers");
            stack.compose(&["down", "-v"]);
        },
    );

    case(
        "file-mode.yml",
        "without any MongoDB the session is kept in ./session through down and up",
        || {
            stack.only(&files(&["file-mode"]));
            stack.up(&[]);
            assert_eq!(services(&stack), ["waha"]);
            stack.gateway().log_in();
            let before = stack.gateway().send(5);
            stack.waha().until_health("healthy");
            stack.down();
            stack.up(&[]);
            stack.gateway().until_up();
            stack.gateway().expect_kept_to_the_last_word(&before);
            stack.down();
            stack.wipe("session");
        },
    );

    case(
        "external-mongo.yml",
        "with a MongoDB elsewhere no other is started, and the login comes back from there",
        || {
            stack.only(&files(&["external-mongo"]));
            stack.overlay("elsewhere.yml", ELSEWHERE);
            let (user, password) = (
                stack.get("MONGO_APP_USERNAME"),
                stack.get("MONGO_APP_PASSWORD"),
            );
            let url =
                format!("mongodb://{user}:{password}@elsewhere:27017/elsewhere?authSource=admin");
            stack.set("MONGO_URL", &url);
            stack.up(&[]);
            assert_eq!(services(&stack), ["elsewhere", "waha"]);
            stack.gateway().log_in();
            let before = stack.gateway().send(5);
            stack.compose(&["rm", "-s", "-f", "waha"]);
            stack.wipe("session");
            stack.up(&[]);
            stack.gateway().until_up();
            stack.gateway().expect_kept_to_the_last_word(&before);
        },
    );
}

/// The services that have containers, by name.
fn services(stack: &Stack) -> Vec<String> {
    let said = stack.compose(&["ps", "-a", "--format", "json"]);
    let mut names: Vec<String> = said
        .out
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|container| text(&container["Service"]))
        .collect();
    names.sort();
    names
}
