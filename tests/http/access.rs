//! Who may see what, with the real program.

use std::io::{Read, Write};
use std::net::UdpSocket;

use super::ask::{connect, exchange, get};
use super::keeper::{IDLE, Life, World, free_port};

const TOKEN: &str = "canary-of-the-token";
const PASSWORD: &str = "canary-of-the-password";
const OPEN: [&str; 3] = ["/health", "/livez", "/readyz"];
const CLOSED: [&str; 10] = [
    "/",
    "/page.js",
    "/page.css",
    "/icon.svg",
    "/openapi.json",
    "/status",
    "/history",
    "/events",
    "/metrics",
    "/sessions/x/qr",
];

fn protected(world: &World, port: u16) -> Life {
    world
        .script(IDLE)
        .set(&format!("http.port={port}"))
        .env("ADMIN_TOKEN", TOKEN)
        .env("WAHA_DASHBOARD_USERNAME", "me")
        .env("WAHA_DASHBOARD_PASSWORD", PASSWORD)
        .ready()
}

#[test]
fn all_but_the_health_pages_want_the_token_or_the_password() {
    use base64::Engine as _;
    let basic = |pair: &str| {
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        format!("Authorization: Basic {encoded}")
    };
    let world = World::sqlite();
    let port = free_port();
    let life = protected(&world, port);
    for path in OPEN {
        assert_eq!(get(port, path, &[]).code, 200, "{path}");
    }
    for path in CLOSED {
        let answer = get(port, path, &[]);
        assert_eq!(answer.code, 401, "{path}");
        assert!(
            answer
                .header("www-authenticate")
                .is_some_and(|how| how.starts_with("Basic"))
        );
        assert!(!answer.text().contains("sessionkeep_") && answer.body.len() < 200);
    }
    for right in [
        bearer(TOKEN),
        basic(&format!("me:{PASSWORD}")),
        basic(&format!("x:{TOKEN}")),
    ] {
        for path in ["/", "/status", "/metrics"] {
            assert_eq!(get(port, path, &[&right]).code, 200, "{path} with {right}");
        }
    }
    // A token in the address is none.
    assert_eq!(get(port, &format!("/status?token={TOKEN}"), &[]).code, 401);
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    for secret in [TOKEN, PASSWORD] {
        assert!(!ended.log.contains(secret), "{}", ended.log);
    }
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

#[test]
fn who_guesses_has_to_wait_and_who_has_the_token_does_not() {
    let world = World::sqlite();
    let port = free_port();
    let life = protected(&world, port);
    let guess = |n: u32| get(port, "/status", &[&bearer(&format!("guess-{n}"))]);
    let codes: Vec<u16> = (0..30).map(|n| guess(n).code).collect();
    let wrong = codes.iter().filter(|code| **code == 401).count();
    assert_eq!(wrong, 10, "{codes:?}");
    let refused = guess(30);
    assert_eq!(refused.code, 429);
    let wait = refused.header("retry-after").expect("when").to_owned();
    let wait: u64 = wait.parse().expect("seconds");
    assert!((1..=6).contains(&wait), "{wait}");
    // From the same address, at the same time.
    assert_eq!(get(port, "/status", &[&bearer(TOKEN)]).code, 200);
    assert_eq!(get(port, "/health", &[]).code, 200);
    // And that took nothing off the count.
    assert_eq!(guess(31).code, 429);
    assert_eq!(life.stop().code, 0);
}

#[test]
fn a_token_out_of_a_file_that_ends_in_a_line_break_is_that_line() {
    let world = World::sqlite();
    let port = free_port();
    let life = world
        .script(IDLE)
        .set(&format!("http.port={port}"))
        .env("ADMIN_TOKEN", format!("{TOKEN}\n"))
        .env("WAHA_DASHBOARD_PASSWORD", "\"canary-in-quotes\"\r\n")
        .ready();
    assert_eq!(get(port, "/status", &[&bearer(TOKEN)]).code, 200);
    let log = life.log();
    assert!(log.contains("a setting may be wrong"), "{log}");
    assert!(log.contains("WAHA_DASHBOARD_PASSWORD"), "{log}");
    assert!(!log.contains("canary"), "{log}");
    assert_eq!(life.stop().code, 0);
}

#[test]
fn behind_a_trusted_proxy_each_client_has_tries_of_its_own() {
    let world = World::sqlite();
    let port = free_port();
    let life = world
        .script(IDLE)
        .set(&format!("http.port={port}"))
        .set("http.trusted_proxies=127.0.0.1, 10.0.0.0/8")
        .env("ADMIN_TOKEN", TOKEN)
        .ready();
    let guess = |forwarded: &str| {
        let forwarded = format!("X-Forwarded-For: {forwarded}");
        get(port, "/status", &[&bearer("guess"), &forwarded]).code
    };
    for _ in 0..10 {
        assert_eq!(guess("203.0.113.1"), 401);
    }
    assert_eq!(guess("203.0.113.1"), 429);
    // What the client itself has put there does not make it another.
    assert_eq!(guess("198.51.100.9, 203.0.113.1, 10.0.0.4"), 429);
    assert_eq!(guess("203.0.113.2"), 401);
    assert_eq!(guess("[2001:db8::1]:4711"), 401);
    assert_eq!(guess("nonsense"), 401);
    let forwarded = "X-Forwarded-For: 203.0.113.1";
    assert_eq!(get(port, "/status", &[&bearer(TOKEN), forwarded]).code, 200);
    assert_eq!(life.stop().code, 0);
}

#[test]
fn who_is_no_trusted_proxy_is_counted_by_its_own_address_whatever_it_says() {
    let world = World::sqlite();
    let port = free_port();
    let mut life = protected(&world, port);
    let guess = |n: u32| {
        let forwarded = format!("X-Forwarded-For: 203.0.113.{n}");
        get(port, "/status", &[&bearer("guess"), &forwarded]).code
    };
    let codes: Vec<u16> = (0..20).map(guess).collect();
    let wrong = codes.iter().filter(|code| **code == 401).count();
    assert_eq!(wrong, 10, "{codes:?}");
    life.wait_for("they came through a proxy that http.trusted_proxies does not name");
    let log = life.log();
    assert!(log.contains("peer=127.0.0.1"), "{log}");
    assert_eq!(log.matches("http.trusted_proxies").count(), 1, "{log}");
    assert_eq!(life.stop().code, 0);
}

#[test]
fn a_secret_that_can_be_guessed_is_warned_of_and_does_not_show() {
    let world = World::sqlite();
    let port = free_port();
    let life = world
        .script(IDLE)
        .set(&format!("http.port={port}"))
        .env("ADMIN_TOKEN", "tiny-canary")
        .ready();
    let log = life.log();
    assert!(log.contains("short enough to be guessed"), "{log}");
    assert!(log.contains("setting=http.token"), "{log}");
    assert!(!log.contains("tiny-canary"), "{log}");
    assert_eq!(life.stop().code, 0);
}

#[test]
fn without_a_secret_it_listens_on_loopback_only_and_says_so() {
    let world = World::sqlite();
    let port = free_port();
    let life = world.script(IDLE).set(&format!("http.port={port}")).ready();
    assert!(
        life.log()
            .contains("set ADMIN_TOKEN to reach them from outside"),
        "{}",
        life.log()
    );
    assert_eq!(get(port, "/status", &[]).code, 200);
    // `localhost` is this one for some, such as busybox's wget.
    let six = (std::net::Ipv6Addr::LOCALHOST, port);
    if std::net::TcpListener::bind((six.0, 0)).is_ok() {
        let request =
            format!("GET /status HTTP/1.1\r\nHost: [::1]:{port}\r\nConnection: close\r\n\r\n");
        let mut stream = std::net::TcpStream::connect(six).expect("[::1] answers");
        stream.write_all(request.as_bytes()).expect("ask");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    // A page elsewhere that has a visitor's browser ask here, under its own name.
    let rebound =
        format!("GET /status HTTP/1.1\r\nHost: evil.example:{port}\r\nConnection: close\r\n\r\n");
    assert_eq!(
        exchange(port, rebound.as_bytes()).expect("an answer").code,
        403
    );
    // A proxy on this machine that goes by the address it connects to.
    let passed_on = get(port, "/status", &["X-Forwarded-For: 203.0.113.1"]);
    assert_eq!(passed_on.code, 403);
    if let Some(address) = own_address() {
        assert!(
            std::net::TcpStream::connect((address, port)).is_err(),
            "{address} answers"
        );
    }
    assert_eq!(life.stop().code, 0);
}

/// An address of this machine that is not loopback, where it has one. Nothing is sent.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[test]
fn bad_requests_are_refused_and_harm_nobody() {
    let world = World::sqlite();
    let port = free_port();
    let life = world.script(IDLE).set(&format!("http.port={port}")).ready();
    let long = format!(
        "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "x".repeat(64 << 10)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
        "A: b\r\n".repeat(5000)
    );
    let requests: [&[u8]; 8] = [
        b"\r\n\r\n\0\xff\xfe",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"GET  HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
        b"GET /status HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nzz",
        long.as_bytes(),
        many.as_bytes(),
    ];
    for request in requests {
        let mut stream = connect(port).expect("connect");
        // Whether it is answered or cut off is its own affair.
        let _ = stream.write_all(request);
        drop(stream);
        assert_eq!(get(port, "/health", &[]).code, 200);
    }
    let method = |method: &str| {
        let request = format!(
            "{method} /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        exchange(port, request.as_bytes()).expect("an answer").code
    };
    assert_eq!([method("POST"), method("DELETE"), method("PUT")], [405; 3]);
    assert!(!life.log().contains("panicked"), "{}", life.log());
    assert_eq!(life.stop().code, 0);
}

#[test]
fn every_answer_forbids_what_a_page_must_not_do() {
    let world = World::sqlite();
    let port = free_port();
    let life = world.script(IDLE).set(&format!("http.port={port}")).ready();
    for path in ["/", "/health", "/status", "/nothing", "/page.js"] {
        let answer = get(port, path, &[]);
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(
            policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    }
    let page = get(port, "/", &[]).text();
    for inline in ["style=", "onclick", "<style", "javascript:"] {
        assert!(!page.contains(inline), "{inline}");
    }
    assert!(!page.contains("://"), "it refers to somewhere else");
    assert_eq!(life.stop().code, 0);
}
