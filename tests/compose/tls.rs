//! Caddy before the stack.

use std::time::Duration;

use crate::run::{self, Said};
use crate::stack::Stack;
use crate::told::{case, until, yes};

#[test]
fn a_proxy_with_tls_stands_before_the_stack() {
    let stack = Stack::new("tls");
    stack.add("compose/tls.yml");
    // For names that end so, Caddy makes certificates of its own.
    stack.set("TLS_DOMAIN", "waha.localhost");
    stack.set("TLS_DASHBOARD_DOMAIN", "keep.localhost");
    stack.set("SESSIONKEEP_HTTP_TRUSTED_PROXIES", "private");
    for (name, value) in [
        ("TLS_BIND", "127.0.0.1"),
        ("TLS_PORT", "0"),
        ("TLS_HTTP_PORT", "0"),
    ] {
        stack.set(name, value);
    }
    stack.make(&["up"]);

    case(
        "tls.yml",
        "Caddy starts read-only and healthy; gateway and dashboard answer by HTTPS under their names",
        || {
            stack.container("caddy").until_health("healthy");
            let port = stack.compose(&["port", "caddy", "443"]);
            let port = port
                .line()
                .rsplit(':')
                .next()
                .unwrap_or_default()
                .to_owned();
            for (name, path, word) in [
                ("waha.localhost", "/ping", "pong"),
                ("keep.localhost", "/health", "\"component\":\"sessionkeep\""),
            ] {
                until(&format!("{name} answers"), || {
                    yes(ask(&stack, name, &port, path).out.contains(word))
                });
            }
        },
    );
}

/// Asks by HTTPS; the authority is Caddy's own, and known to nobody here.
fn ask(stack: &Stack, name: &str, port: &str, path: &str) -> Said {
    let mut curl = stack.command("curl");
    let address = format!("{name}:{port}:127.0.0.1");
    let url = format!("https://{name}:{port}{path}");
    curl.args(["-sk", "--max-time", "10", "--resolve", &address, &url]);
    run::run(&mut curl, Duration::from_secs(30))
}
