//! The example gateway: building it, and talking to it and to the program itself over HTTP.
#![allow(dead_code, reason = "each test program uses what it needs of it")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::keeper::program;

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
    use std::sync::OnceLock;
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let target = Path::new(program()).parent().expect("target directory");
            let profile = match target.file_name().and_then(|name| name.to_str()) {
                Some("debug") | None => "dev",
                Some(other) => other,
            };
            // Cargo does not build examples when a single test is asked for.
            let mut cargo = Command::new(env!("CARGO"));
            // What Cargo tells a test about its package would look like a change to build
            // scripts that watch it, and everything above them would be built anew.
            for (name, _) in std::env::vars_os() {
                let told = [
                    "CARGO_PKG_",
                    "CARGO_MANIFEST_",
                    "CARGO_BIN_",
                    "CARGO_CRATE_",
                ];
                if told.iter().any(|p| name.to_string_lossy().starts_with(p)) {
                    cargo.env_remove(name);
                }
            }
            let built = cargo
                .args([
                    "build",
                    "--quiet",
                    "--example",
                    "gateway",
                    "--profile",
                    profile,
                ])
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .status()
                .expect("cargo");
            assert!(built.success());
            target.join("examples/gateway")
        })
        .clone()
}
