//! What `make up` tells: little while it works, the reason when it cannot, and at its end what is true.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::run::Said;
use crate::stack::Stack;
use crate::told::case;

#[test]
fn make_up_tells_what_is_true() {
    let stack = Stack::new("up");

    case(
        "a port that is taken",
        "the port and its setting are named, and nothing of what Docker or MongoDB says",
        || {
            let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = taken.local_addr().expect("bound").port().to_string();
            stack.set("WAHA_PORT", &port);
            let said = stack.try_make(&["up"]);
            told(
                &said,
                &[
                    &format!("port {port} of this machine is taken"),
                    "WAHA_PORT",
                ],
            );
            stack.set("WAHA_PORT", "0");
        },
    );

    case(
        "the first start",
        "a line for each step, and at the end where the number is linked",
        || {
            let said = stack.make(&["up"]);
            let text = said.text();
            assert!(text.lines().count() <= 12, "{text}");
            assert!(text.contains("start the session"), "{text}");
            assert!(stack.path("build.log").exists());
        },
    );

    case(
        "with a QR code to scan",
        "it says so, and where the code is",
        || {
            let body = json!({ "name": "default" });
            stack.gateway().ask("POST", "/api/sessions", &body);
            stack.gateway().until_session("SCAN_QR_CODE");
            let said = stack.make(&["up"]);
            assert!(
                said.out.contains("and scan the QR code there"),
                "{}",
                said.text()
            );
        },
    );

    case(
        "logged in",
        "it says so, and that there is nothing to do",
        || {
            stack
                .gateway()
                .ask("POST", "/stand-in/default/scan", &Value::Null);
            stack.gateway().until_session("WORKING");
            let said = stack.make(&["up"]);
            assert!(said.out.contains(": logged in"), "{}", said.text());
            assert!(said.out.contains("Next: nothing"), "{}", said.text());
        },
    );

    case(
        "a wrong password",
        "it fails with MongoDB's reason and with what to do here",
        || {
            let right = stack.get("MONGO_APP_PASSWORD");
            stack.set("MONGO_APP_PASSWORD", "0123456789abcdef0123456789abcdef");
            let said = stack.try_make(&["up"]);
            told(&said, &["Authentication failed", "make mongo-init restart"]);
            stack.set("MONGO_APP_PASSWORD", &right);
            let said = stack.make(&["up"]);
            assert!(said.out.contains(": logged in"), "{}", said.text());
        },
    );

    case(
        "a host that is not there",
        "it fails as soon as that is known, not when the container gives up",
        || {
            stack.compose(&["down"]);
            stack.only("docker-compose.yml:compose/external-mongo.yml");
            stack.set(
                "MONGO_URL",
                "mongodb://u:p@nowhere.invalid:27017/sessionkeep",
            );
            let said = stack.try_make(&["up"]);
            told(&said, &["nowhere.invalid", "MONGO_URL in .env"]);
            let log = stack.logs("waha");
            assert!(!log.contains("did not become ready within"), "{log}");
        },
    );
}

/// It failed with these words, and without what nobody can read.
#[track_caller]
fn told(said: &Said, words: &[&str]) {
    let text = said.text();
    assert_ne!(said.code, 0, "{text}");
    for word in words {
        assert!(text.contains(word), "no `{word}` in:\n{text}");
    }
    assert!(!text.contains("{\"t\":"), "MongoDB's log:\n{text}");
}
