//! As much of an HTTP client as the demo needs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Long enough for a burst of messages on a slow disk.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn get(port: u16, target: &str) -> Result<Value> {
    request(port, "GET", target)
}

pub(crate) fn post(port: u16, target: &str) -> Result<Value> {
    request(port, "POST", target)
}

fn request(port: u16, method: &str, target: &str) -> Result<Value> {
    let mut stream =
        TcpStream::connect(("127.0.0.1", port)).context("failed to reach the gateway")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("failed to read the gateway's answer")?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the gateway's answer has no end of head")?;
    ensure!(
        head.starts_with("HTTP/1.1 200"),
        "the gateway answered: {body}"
    );
    serde_json::from_str(body).context("failed to parse the gateway's answer")
}
