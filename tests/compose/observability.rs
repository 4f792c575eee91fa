//! Prometheus and Grafana beside the stack: they start as they are shipped, and nobody takes one of
//! them for the gateway.

use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::stack::Stack;
use crate::told::{case, until_within, yes};
use crate::{http, run};

/// Prometheus asks every 15 s.
const SCRAPED: Duration = Duration::from_secs(120);

#[test]
fn prometheus_and_grafana_start_beside_the_stack() {
    let stack = Stack::new("observability");
    stack.add("compose/observability.yml");
    stack.set("GRAFANA_PORT", "0");
    stack.make(&["up"]);

    case(
        "observability.yml",
        "both start read-only and healthy, and Grafana shows what Prometheus was told by the gateway",
        || {
            for service in ["prometheus", "grafana"] {
                stack.container(service).until_health("healthy");
            }
            let port = port_of_grafana(&stack);
            let pair = format!("admin:{}", stack.get("GRAFANA_PASSWORD"));
            let login = format!("Basic {}", STANDARD.encode(pair));
            let ask = |path: &str| {
                let answer = http::ask("GET", port, path, &[("Authorization", &login)], "");
                answer.map(|answer| answer.text()).unwrap_or_default()
            };
            let dashboards = ask("/api/search");
            assert!(dashboards.contains("sessionkeep"), "{dashboards}");
            let query = "/api/datasources/proxy/uid/prometheus/api/v1/query?query=up";
            until_within(SCRAPED, "Prometheus was let in by the gateway", || {
                let told = ask(query);
                yes(told.contains("\"sessionkeep\"") && told.contains(",\"1\"]"))
            });
        },
    );

    case(
        "make status, doctor",
        "they ask the gateway, whichever services are beside it",
        || {
            let said = stack.make(&["status"]);
            assert!(said.out.contains("everything saved"), "{}", said.text());
            stack.make(&["doctor"]);
        },
    );

    case(
        "make clean",
        "the session's directory goes, and not one file of the repository",
        || {
            let before = files(&stack);
            let said = stack.make(&["clean", "YES=yes"]);
            assert_eq!(files(&stack), before, "{}", said.text());
            assert!(!stack.path("session").exists(), "{}", said.text());
            assert!(said.out.contains("prometheus-data"), "{}", said.text());
        },
    );
}

fn port_of_grafana(stack: &Stack) -> u16 {
    let said = stack.compose(&["port", "grafana", "3000"]);
    let port = said.line().rsplit(':').next();
    port.and_then(|port| port.parse().ok())
        .unwrap_or_else(|| panic!("no port in {:?}", said.line()))
}

/// All that the repository's copy has, but the session's directory and what a build leaves.
fn files(stack: &Stack) -> String {
    let mut find = Command::new("find");
    find.current_dir(stack.tree());
    find.args([".", "-path", "./session", "-prune", "-o"]);
    find.args(["-name", "build.log", "-o", "-print"]);
    let mut lines: Vec<String> = run::run(&mut find, Duration::from_secs(60))
        .out
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines.join("\n")
}
