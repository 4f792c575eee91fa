//! A receiver of webhooks and heartbeats.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

/// One request that came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) head: Vec<String>,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.iter().filter_map(|line| line.split_once(": "));
        let mut of_name = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        of_name.next().map(|(_, value)| value)
    }
}

/// The receiver. It runs on until the tests end.
pub(crate) struct Hook {
    pub(crate) port: u16,
    received: Arc<Mutex<Vec<Received>>>,
    /// How many requests are refused first.
    refuses: Arc<Mutex<u32>>,
}

impl Hook {
    /// One that answers the first `refuses` requests with 500.
    pub(crate) fn start(refuses: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let hook = Self {
            port: listener.local_addr().expect("bound").port(),
            received: Arc::default(),
            refuses: Arc::new(Mutex::new(refuses)),
        };
        let (received, refuses) = (hook.received.clone(), hook.refuses.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (received, refuses) = (received.clone(), refuses.clone());
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    while let Some(request) = read(&mut reader) {
                        let refused = {
                            let mut left = refuses.lock().expect("no panic");
                            let refused = *left > 0;
                            *left = left.saturating_sub(1);
                            refused
                        };
                        received.lock().expect("no panic").push(request);
                        let code = if refused { "500 No" } else { "200 OK" };
                        let answer = format!("HTTP/1.1 {code}\r\nContent-Length: 0\r\n\r\n");
                        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        hook
    }

    /// All that came so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no panic").clone()
    }

    /// The messages about incidents of this kind: their events.
    pub(crate) fn events(&self, kind: &str) -> Vec<String> {
        let of_kind = |message: &Value| message["incident"]["kind"] == kind;
        let all = self.received();
        let messages = all.iter().map(Received::json).filter(of_kind);
        messages
            .map(|m| m["event"].as_str().expect("a text").to_owned())
            .collect()
    }
}

fn read(reader: &mut impl BufRead) -> Option<Received> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim_end().is_empty() {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
    let mut received = Received {
        head,
        body: String::new(),
    };
    let length = received
        .header("content-length")
        .map_or(0, |n| n.parse().expect("a length"));
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    received.body = String::from_utf8(body).expect("text");
    Some(received)
}
