//! As much HTTP as the example needs: one request a connection, no body read.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A client that is silent for longer does not hold up the others.
const PATIENCE: Duration = Duration::from_secs(2);

/// The request line, taken apart.
pub(crate) struct Request {
    /// `GET` or `POST`.
    pub(crate) method: String,
    /// The path without its query.
    pub(crate) path: String,
    query: String,
}

impl Request {
    /// Reads up to the empty line that ends the head.
    pub(crate) fn read(stream: &mut TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(stream);
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            header.clear();
        }
        let mut words = first.split_whitespace();
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Ok(Self {
            method,
            path: path.to_owned(),
            query: query.to_owned(),
        })
    }

    /// A number from the query.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .and_then(|(_, value)| value.parse().ok())
    }
}

/// Answers with JSON and ends the connection.
pub(crate) fn respond(
    stream: &mut TcpStream,
    status: u16,
    body: &serde_json::Value,
) -> io::Result<()> {
    let text = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    )
}
