//! The example gateway: building it, and talking to it and to the program itself over HTTP.
#![allow(dead_code, reason = "each test program uses what it needs of it")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

/// Asks over HTTP; the status code and the body, or `None` where nobody answers.
pub(crate) fn http(method: &str, port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, body.to_owned()))
}

/// The same, for JSON.
pub(crate) fn http_json(method: &str, port: u16, path: &str) -> Option<Value> {
    serde_json::from_str(&http(method, port, path)?.1).ok()
}

/// The example gateway, built as this test was.
pub(crate) fn example_gateway() -> PathBuf {
    super::built::example("gateway")
}
