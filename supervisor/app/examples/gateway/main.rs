//! A small gateway for `make demo`: it keeps a login the way real ones do, and nothing else.
//!
//! Its session directory holds a `creds.json` that is truncated and rewritten with every message,
//! a `session-<peer>.json` for each conversation, and `store.sqlite3` in WAL mode. It answers
//! `GET /ping`, `GET /identity` and `POST /send?n=COUNT` on 127.0.0.1. After TERM it takes one
//! more step in each conversation, its last words: a copy that was made too early lacks them.

mod account;
mod web;

#[path = "../support/ratchet.rs"]
mod ratchet;

use std::error::Error;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use nix::sys::signal::{SigSet, Signal};

use account::Account;
use web::Request;

/// What the one thread that owns the account has to do next.
enum Event {
    /// A client has come.
    Connection(std::net::TcpStream),
    /// TERM or INT has come.
    Stop,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut stop_signals = SigSet::empty();
    stop_signals.add(Signal::SIGTERM);
    stop_signals.add(Signal::SIGINT);
    // Blocked before the first thread starts, so that each thread has them blocked and only the
    // one that waits for them gets them.
    stop_signals.thread_block()?;

    let dir = PathBuf::from(
        setting("--dir", "SESSIONS_PATH")
            .ok_or("--dir or SESSIONS_PATH must name the session directory")?,
    );
    let port: u16 = setting("--port", "PORT")
        .ok_or("--port or PORT must be a port")?
        .parse()?;

    let (events, inbox) = mpsc::channel();
    let on_signal = events.clone();
    thread::spawn(move || {
        let _ = stop_signals.wait();
        let _ = on_signal.send(Event::Stop);
    });

    let mut account = Account::open(&dir)?;
    if account.fresh_login {
        println!("gateway: no login found, so a phone would have to scan a QR code now");
    }
    println!(
        "gateway: logged in as {}, {} messages so far",
        account.identity, account.messages
    );

    let listener = TcpListener::bind(("127.0.0.1", port))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if events.send(Event::Connection(stream)).is_err() {
                return;
            }
        }
    });

    // One thread owns the account, so whatever is being written when TERM comes is finished first.
    for event in inbox {
        match event {
            Event::Connection(stream) => serve(&mut account, stream),
            Event::Stop => break,
        }
    }
    account.last_words()?;
    println!("gateway: stopped after {} messages", account.messages);
    Ok(())
}

/// A setting from the command line, else from the environment.
fn setting(flag: &str, variable: &str) -> Option<String> {
    let mut args = std::env::args().skip_while(|arg| arg != flag);
    args.nth(1).or_else(|| std::env::var(variable).ok())
}

fn serve(account: &mut Account, mut stream: std::net::TcpStream) {
    // A client that went away is no reason to stop: the next one may stay.
    let Ok(request) = Request::read(&mut stream) else {
        return;
    };
    let (status, body) = match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/ping") => (200, serde_json::json!({"message": "pong"})),
        ("GET", "/identity") => (200, account.describe()),
        ("POST", "/send") => match account.send(request.number("n").unwrap_or(1)) {
            Ok(()) => (200, serde_json::json!({"messages": account.messages})),
            Err(error) => (500, serde_json::json!({"error": error.to_string()})),
        },
        _ => (404, serde_json::json!({"error": "no such page"})),
    };
    let _ = web::respond(&mut stream, status, &body);
}
