//! A client that sends just what a test wants sent.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut of_name = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        of_name.next().map(|(_, value)| value)
    }
}

/// Opens a connection to the port.
pub(crate) fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

/// Asks for `path`, with these header lines; `None` where nobody answers.
pub(crate) fn try_get(port: u16, path: &str, headers: &[&str]) -> Option<Answer> {
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\n");
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    request.push_str("Connection: close\r\n\r\n");
    exchange(port, request.as_bytes())
}

/// The same where an answer must come.
#[track_caller]
pub(crate) fn get(port: u16, path: &str, headers: &[&str]) -> Answer {
    try_get(port, path, headers).unwrap_or_else(|| panic!("no answer for {path}"))
}

/// Sends these bytes, and reads until the other side closes.
pub(crate) fn exchange(port: u16, request: &[u8]) -> Option<Answer> {
    let mut stream = connect(port).ok()?;
    stream.write_all(request).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let code = head.split(' ').nth(1)?.parse().ok()?;
    let body = bytes.split_off(end + 4);
    Some(Answer { code, head, body })
}
