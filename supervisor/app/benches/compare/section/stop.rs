//! A gateway that writes once more when it is told to end: what of it is saved, and how long the
//! whole stop takes, for the product and for the sidecar under both start scripts.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::Context;
use crate::measure::arguments;
use crate::process::{self, Running};
use crate::subject::node;
use crate::subject::product::Product;
use crate::system;
use crate::writer::{Log, Task};

/// Files that the gateway writes after it was told to end.
const LAST: u64 = 50;
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(context: &mut Context<'_>) {
    context.put("stop.written", LAST as f64);
    product(context);
    for (script, name) in [("start.sh", "start"), ("start-trap.sh", "trap")] {
        if node::has_namespaces() {
            sidecar(context, script, name);
        } else {
            for what in ["saved", "took"] {
                let why = "not measured: no process id namespace can be made here";
                context.results.note(&format!("stop.{what}.{name}"), why);
            }
        }
    }
}

fn gateway(dir: &Path, log: &Path) -> Vec<OsString> {
    Task::LastWords { count: LAST }.command_line(dir, log)
}

fn product(context: &mut Context<'_>) {
    let url = context.database();
    let dir = context.w5("product");
    let log = context.path("product.log");
    let product = Product::new(&url, &dir);
    let mut running = Running::start(product.run(gateway(&dir, &log)));
    for words in ["gateway is up", "] committed", "ready for changes"] {
        running.wait_for(words, PATIENCE);
    }
    let (took, status) = running.stop(PATIENCE);
    assert!(status.success(), "the stop failed: {status}");
    context.took("stop.took.product", took);
    let to = context.path("restored");
    product.restore(&to).expect("the restore");
    count(context, "product", &Log(log), &to);
}

fn sidecar(context: &mut Context<'_>, script: &str, name: &str) {
    let url = context.database();
    let dir = context.w5(name);
    let log = context.path(&format!("{name}.log"));
    let upload = node::sidecar(&url, &dir, "upload", 16);
    process::run(upload, PATIENCE).expect("the sidecar uploads one account");
    let command = node::start_script(script, &url, &dir, gateway(&dir, &log));
    let mut running = Running::start(command);
    for words in ["gateway is up", "watching"] {
        running.wait_for(words, PATIENCE);
    }
    // The first process is `unshare`; its child is the container's PID 1.
    let begun = Instant::now();
    let first = running.processes().into_iter().find(|pid| {
        let words = arguments(*pid);
        *pid != running.id()
            && (words.iter().any(|word| word.ends_with(script)) && words[0] != "unshare"
                || (name == "start" && words.iter().any(|word| word == "last-words")))
    });
    system::send(first.expect("the container's first process"), libc::SIGTERM);
    while system::is_alive(running.id()) {
        assert!(begun.elapsed() < PATIENCE, "{script} does not end");
        thread::sleep(Duration::from_micros(200));
    }
    context.took(&format!("stop.took.{name}"), begun.elapsed());
    drop(running);
    let to = context.path(&format!("{name}-restored"));
    let restore = node::sidecar(&url, &to, "restore", 16);
    process::run(restore, PATIENCE).expect("the sidecar restores one account");
    count(context, name, &Log(log), &to);
}

fn count(context: &mut Context<'_>, name: &str, log: &Log, restored: &Path) {
    let written = log.files();
    assert_eq!(written.len() as u64, LAST, "the gateway's last words");
    let saved = written.iter().filter(|file| {
        fs::read(restored.join(&file.path))
            .is_ok_and(|content| *blake3::hash(&content).as_bytes() == file.hash)
    });
    context.put(&format!("stop.saved.{name}"), saved.count() as f64);
}
