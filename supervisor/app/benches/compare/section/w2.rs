//! W2: one SQLite database in WAL mode under a hundred small transactions a second.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Context, is_alone, remove};
use crate::link::Link;
use crate::measure::{median, monotonic_ns, percentile};
use crate::observe::{Observation, Observer, PAGE, Version};
use crate::process::{self, Running};
use crate::subject::product::{Product, memory};
use crate::subject::{litestream, node};
use crate::workload;
use crate::workload::database::{Database, NAME};
use crate::writer::{Task, Transaction};

const RATE: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(60);
/// From the last transaction until what is late may still come.
const TAIL: Duration = Duration::from_secs(3);

pub(crate) fn run(context: &mut Context<'_>) {
    let source = context.empty("source");
    Database::create(&source, context.scale.database);
    let bytes = fs::metadata(source.join(NAME)).expect("it was made").len();
    context.put("w2.bytes", bytes as f64);
    product(context, &source);
    if !is_alone() {
        litestream(context, &source);
        sidecar(context, &source);
    }
}

/// Has the database written to, and says how much of a core the subject used meanwhile.
fn load(context: &mut Context<'_>, dir: &Path, running: &Running, name: &str) -> Vec<Transaction> {
    let task = Task::Transactions {
        rate: RATE,
        seconds: context.scale.transactions,
    };
    let log = context.path(&format!("{name}.log"));
    let (cpu, begun) = (running.cpu(), Instant::now());
    let log = task.start(dir, &log).finish();
    let share = (running.cpu() - cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
    context.put(&format!("w2.cpu.{name}"), share * 100.0);
    let transactions = log.transactions();
    let took = (transactions[transactions.len() - 1].committed - transactions[0].committed) as f64;
    let rate = (transactions.len() - 1) as f64 / (took / 1e9);
    context.put(&format!("w2.rate.{name}"), rate);
    transactions
}

/// From each commit until the store was first seen to hold it. A transaction that it was not seen
/// to hold counts with the time until the look at its `end`: it was behind for that long at least.
fn behind(
    context: &mut Context<'_>,
    name: &str,
    transactions: &[Transaction],
    end: u64,
    seen: impl Fn(&Transaction) -> Option<u64>,
) {
    let mut missing = 0;
    let mut samples = Vec::new();
    for transaction in transactions {
        let at = seen(transaction);
        missing += u64::from(at.is_none());
        let span = at.unwrap_or(end).saturating_sub(transaction.committed);
        samples.push(span as f64 / 1e9);
    }
    assert!(
        missing < transactions.len() as u64,
        "no transaction of {name} was seen in its store"
    );
    context.put(&format!("w2.behind.{name}.p50"), percentile(&samples, 50.0));
    context.put(&format!("w2.behind.{name}.p99"), percentile(&samples, 99.0));
    context.put(&format!("w2.missing.{name}"), missing as f64);
}

fn product(context: &mut Context<'_>, source: &Path) {
    let dir = context.path("product");
    workload::copy(source, &dir);
    let url = context.database();
    let link = Link::start(context.mongod.port(), Duration::ZERO);
    let product = Product::new(&link.url(&url), &dir).with_profile("whatsmeow");
    let observer = Observer::product(&url, Some(NAME));
    let mut running = product.start();
    running.wait_for("] committed", PATIENCE);
    // What was sent so far is the first upload.
    let uploaded = link.sent();
    let transactions = load(context, &dir, &running, "product");
    std::thread::sleep(TAIL.min(context.scale.tail));
    let sent = link.sent() - uploaded;
    let peak = memory(&running).watcher_peak_rss;
    // Before the stop, whose last commit is none of what is measured.
    let Observation {
        marks,
        pages,
        ended: end,
        ..
    } = observer.stop();
    running.stop(PATIENCE);
    behind(context, "product", &transactions, end, |t| {
        marks.iter().find(|(n, _)| *n >= t.n).map(|(_, at)| *at)
    });
    context.put("w2.rss.product", peak as f64);
    context.put("w2.commits.product", marks.len() as f64);
    context.put("w2.sent.product", sent as f64);
    context.put("w2.pages.product", pages as f64 * PAGE as f64);

    let product = Product::new(&url, &dir).with_profile("whatsmeow");
    let (mut restores, mut copies) = (Vec::new(), Vec::new());
    let mut peak = 0;
    for _ in 0..context.scale.rounds {
        let to = context.path("restored");
        let outcome = product.restore(&to).expect("the restore");
        restores.push(outcome.took.as_secs_f64());
        peak = peak.max(outcome.peak_rss);
        let last = Database::last(&to.join(NAME));
        assert_eq!(last, transactions.len() as u64, "the last transaction");
        remove(&to);
        let begun = Instant::now();
        fs::copy(dir.join(NAME), context.path("copy.db")).expect("copy");
        copies.push(begun.elapsed().as_secs_f64());
    }
    context.put("w2.restore.product", median(&restores));
    context.put("w2.restore.copy", median(&copies));
    context.put("w2.rss.restore.product", peak as f64);
}

fn litestream(context: &mut Context<'_>, source: &Path) {
    let dir = context.path("litestream");
    workload::copy(source, &dir);
    let replica = context.path("replica");
    let running = Running::start(litestream::replicate(&dir.join(NAME), &replica));
    let begun = Instant::now();
    while !litestream::has_begun(&replica) {
        assert!(begun.elapsed() < PATIENCE, "Litestream makes no replica");
        std::thread::sleep(Duration::from_millis(20));
    }
    let watch = litestream::Watch::start(&replica);
    let transactions = load(context, &dir, &running, "litestream");
    std::thread::sleep(TAIL.min(context.scale.tail));
    let peak = running.peak_rss();
    let segments = watch.stop();
    let end = monotonic_ns();
    running.stop(PATIENCE);
    behind(context, "litestream", &transactions, end, |t| {
        let after = segments.iter().filter(|segment| segment.at > t.committed);
        after.map(|segment| segment.at).min()
    });
    context.put("w2.rss.litestream", peak as f64);
    let written: u64 = segments.iter().map(|segment| segment.bytes).sum();
    context.put("w2.sent.litestream", written as f64);
    let mut restores = Vec::new();
    for _ in 0..context.scale.rounds {
        let to = context.path("litestream.db");
        let outcome = process::run(litestream::restore(&replica, &to), PATIENCE);
        restores.push(outcome.expect("Litestream restores").took.as_secs_f64());
        let last = Database::last(&to);
        assert_eq!(last, transactions.len() as u64, "the last transaction");
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(context.path(&format!("litestream.db{suffix}")));
        }
    }
    context.put("w2.restore.litestream", median(&restores));
}

fn sidecar(context: &mut Context<'_>, source: &Path) {
    /// Files are stamped with the time of the kernel's last tick.
    const TICK_NS: i128 = 4_000_000;
    let dir = context.path("sidecar");
    workload::copy(source, &dir);
    let url = context.database();
    let link = Link::start(context.mongod.port(), Duration::ZERO);
    let mut running = Running::start(node::sidecar(&link.url(&url), &dir, "watch", 16));
    running.wait_for("watching", PATIENCE);
    let observer = Observer::sidecar(&url);
    let transactions = load(context, &dir, &running, "sidecar");
    std::thread::sleep(TAIL.min(context.scale.tail));
    let (peak, sent) = (running.peak_rss(), link.sent());
    let observation = observer.stop();
    let end = observation.ended;
    running.stop(PATIENCE);
    // The writer's end moves what is in the log into the database, and removes the log.
    let files = [NAME.to_owned(), format!("{NAME}-wal")];
    let uploads: Vec<(i128, u64)> = observation
        .seen
        .iter()
        .filter(|seen| files.iter().any(|file| seen.path == Path::new(file)))
        .map(|seen| match seen.version {
            Version::Mtime(ms) => ((ms * 1e6) as i128, seen.at),
            Version::Hash(_) => unreachable!("the sidecar keeps times"),
        })
        .collect();
    behind(context, "sidecar", &transactions, end, |t| {
        let holds = uploads.iter().filter(|(mtime, _)| mtime + TICK_NS >= t.at);
        holds
            .map(|(_, at)| *at)
            .filter(|at| *at > t.committed)
            .min()
    });
    context.put("w2.rss.sidecar", peak as f64);
    context.put("w2.sent.sidecar", sent as f64);
}
