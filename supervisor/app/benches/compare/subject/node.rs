//! The peers on Node.js: the file-by-file sidecar, and one document for each key.

use std::path::{Path, PathBuf};
use std::process::Command;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn here() -> PathBuf {
    let here = repository().join("supervisor/app/benches/peers/sidecar");
    assert!(
        here.join("node_modules").is_dir(),
        "the sidecar's libraries are not there: run `make test-tools`"
    );
    here
}

fn node(url: &str, dir: &Path) -> Command {
    let bin = repository().join(".cache/bin");
    let mut command = Command::new(bin.join("node"));
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .env_clear()
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("MONGO_URL", url)
        .env("SESSIONS_PATH", dir);
    command
}

/// The sidecar; `action` is `restore`, `upload` or `watch`, with so many files at a time.
pub(crate) fn sidecar(url: &str, dir: &Path, action: &str, at_a_time: u32) -> Command {
    let mut command = node(url, dir);
    command
        .arg(here().join("sidecar.mjs"))
        .arg(action)
        .env("CONCURRENCY", at_a_time.to_string());
    command
}

/// What makes the next process PID 1 of a namespace of its own; only root may.
const NAMESPACE: [&str; 5] = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"];

/// Whether this machine lets us make a namespace of process ids.
pub(crate) fn has_namespaces() -> bool {
    let mut command = Command::new(NAMESPACE[0]);
    let tried = command.args(&NAMESPACE[1..]).arg("true").output();
    tried.is_ok_and(|tried| tried.status.success())
}

/// The sidecar under a start script around a gateway, as PID 1 of a namespace of its own.
pub(crate) fn start_script<S: AsRef<std::ffi::OsStr>>(
    script: &str,
    url: &str,
    dir: &Path,
    gateway: impl IntoIterator<Item = S>,
) -> Command {
    let set = node(url, dir);
    let mut command = Command::new(NAMESPACE[0]);
    command.env_clear();
    for (name, value) in set.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command
        .args(&NAMESPACE[1..])
        .arg("sh")
        .arg(here().join(script))
        .args(gateway);
    command
}

/// One document for each key; `mode` is `each` or `bulk`.
pub(crate) fn keys(url: &str, dir: &Path, action: &str, mode: &str) -> Command {
    let mut command = node(url, dir);
    command
        .arg(here().join("keys.mjs"))
        .arg(action)
        .env("MODE", mode);
    command
}
